//! A message of the application.

use std::fmt;

use bytes::Bytes;
use wire::client::{Business, ClientFrame};
use wire::{BizCode, ClientMsgId, RoomId, UserId};

/// Room chat, by the server's default route table.
const ROOM_CHAT: BizCode = BizCode(5_555);
/// A reliable message to a user, by the server's default route table.
const USER_CHAT: BizCode = BizCode(6_001);

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// All sessions of a user.
    User(UserId),
    /// All members of a room. The message waits until the client is in the room, if it was told to be.
    Room(RoomId),
    /// The backend.
    Backend,
}

/// A message that the application sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub to: To,
    /// What it is about. The server's route table must send it to the same kind of place.
    pub biz_code: BizCode,
    /// Its name, up to 64 bytes; the client chooses one if there is none.
    pub client_msg_id: Option<String>,
    /// What the receivers get.
    pub payload: Bytes,
}

impl Outgoing {
    /// A reliable message to a user (business code 6001).
    pub fn to_user(user: UserId, payload: impl Into<Bytes>) -> Self {
        Self { to: To::User(user), biz_code: USER_CHAT, client_msg_id: None, payload: payload.into() }
    }

    /// A chat message to a room (business code 5555).
    pub fn to_room(room: RoomId, payload: impl Into<Bytes>) -> Self {
        Self { to: To::Room(room), biz_code: ROOM_CHAT, client_msg_id: None, payload: payload.into() }
    }

    /// A packet to the backend, such as a gift (5560).
    pub fn to_backend(biz_code: BizCode, payload: impl Into<Bytes>) -> Self {
        Self { to: To::Backend, biz_code, client_msg_id: None, payload: payload.into() }
    }

    /// The same with another business code.
    #[must_use]
    pub fn about(self, biz_code: BizCode) -> Self {
        Self { biz_code, ..self }
    }

    /// The same message with a client message id.
    #[must_use]
    pub fn named(self, client_msg_id: impl Into<String>) -> Self {
        Self { client_msg_id: Some(client_msg_id.into()), ..self }
    }

    /// Whether the name that the application gave is one.
    pub(crate) fn has_good_name(&self) -> bool {
        let name = self.client_msg_id.as_deref();
        name.is_none_or(|name| (1..=ClientMsgId::BYTES_MAX).contains(&name.len()))
    }

    /// Its frame, under that name.
    pub(crate) fn frame<'a>(&'a self, name: &'a str) -> ClientFrame<'a> {
        let target = match self.to {
            To::User(UserId(target)) | To::Room(RoomId(target)) => target,
            To::Backend => 0,
        };
        ClientFrame::Business(Business {
            biz_code: self.biz_code,
            target,
            client_msg_id: name.into(),
            payload: self.payload.as_ref().into(),
        })
    }
}

/// Why a client does not take a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// As many messages as it may keep wait for their send-acks.
    Full,
    /// The payload is too long.
    TooLong,
    /// The name is empty or longer than 64 bytes.
    BadName,
    /// A message of that name waits for its send-ack.
    SameName,
    /// There is no connection, and the message was to be sent at once or never.
    Away,
    /// The client has ended.
    Ended,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => "too many messages wait for their send-acks",
            Self::TooLong => "the payload is too long",
            Self::BadName => "the client message id is empty or longer than 64 bytes",
            Self::SameName => "a message with this client message id waits for its send-ack",
            Self::Away => "there is no connection",
            Self::Ended => "the client has ended",
        })
    }
}

impl std::error::Error for Refused {}
