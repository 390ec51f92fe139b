//! The client protocol: header, codes, frames, in both body encodings.

mod binary;
mod deframer;
mod java;
mod json;
mod outcome;
mod reader;
mod recovery;
mod text;

use std::borrow::Cow;

pub use deframer::{Deframer, Frame};
pub use java::{frame_of_java, put_java};
pub use outcome::Outcome;
pub use recovery::{Recovery, Want};
pub use text::{TEXT_CODE_BYTES, frame_of_text, next_of_frames, put_text, text_bytes};

use crate::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};
use bytes::Bytes;
use rkyv::{Archive, Deserialize as Load, Serialize as Store};

/// Bytes of a header: `magic: u16 | code: i32 | len: i32`, big-endian.
pub const HEADER_BYTES: usize = 10;
/// "SF": the body is compact binary.
pub const MAGIC_BINARY: u16 = 0x5346;
/// The body is JSON, as the Java platform's clients write it.
pub const MAGIC_JSON: u16 = 18677;
/// The other magic of the Java platform; the same JSON body.
pub const MAGIC_JSON_OLD: u16 = 18673;
/// The longest echo that a heartbeat may carry in a binary body.
pub const HEARTBEAT_ECHO_BYTES_MAX: usize = 64;
/// The most message ids in one binary ack.
pub const ACK_IDS_MAX: usize = 128;
/// The longest login token.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// The most alternatives that a notice may name.
pub const ALTERNATIVES_MAX: usize = 16;

/// How the bodies of a connection are encoded. Its first frame decides; every answer uses the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// `MAGIC_BINARY`.
    Binary,
    /// `MAGIC_JSON`.
    Json,
    /// `MAGIC_JSON_OLD`.
    JsonOld,
}

impl Encoding {
    /// The encoding that a magic stands for.
    pub const fn from_magic(magic: u16) -> Option<Self> {
        match magic {
            MAGIC_BINARY => Some(Self::Binary),
            MAGIC_JSON => Some(Self::Json),
            MAGIC_JSON_OLD => Some(Self::JsonOld),
            _ => None,
        }
    }

    /// The magic that stands for this encoding.
    pub const fn magic(self) -> u16 {
        match self {
            Self::Binary => MAGIC_BINARY,
            Self::Json => MAGIC_JSON,
            Self::JsonOld => MAGIC_JSON_OLD,
        }
    }
}

/// The code of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
pub enum Code {
    /// Login, and its answer.
    Login = 1001,
    /// Logout, and its answer.
    Logout = 1002,
    /// A business packet to the server; a message delivered to the client.
    Business = 1003,
    /// Heartbeat, and its answer.
    Heartbeat = 1004,
    /// The client has received messages.
    Ack = 1005,
    /// What has become of a message the client sent.
    SendAck = 1006,
    /// A word of the server, mostly the last before it closes.
    Notice = 1007,
    /// Join a room, and its answer.
    Join = 1010,
    /// Leave a room, and its answer.
    Leave = 1011,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 9] = [
        Self::Login,
        Self::Logout,
        Self::Business,
        Self::Heartbeat,
        Self::Ack,
        Self::SendAck,
        Self::Notice,
        Self::Join,
        Self::Leave,
    ];

    /// The code of that number.
    pub const fn from_i32(code: i32) -> Option<Self> {
        match code {
            1001 => Some(Self::Login),
            1002 => Some(Self::Logout),
            1003 => Some(Self::Business),
            1004 => Some(Self::Heartbeat),
            1005 => Some(Self::Ack),
            1006 => Some(Self::SendAck),
            1007 => Some(Self::Notice),
            1010 => Some(Self::Join),
            1011 => Some(Self::Leave),
            _ => None,
        }
    }
}

/// Why bytes are no frame, or a body is not what its header says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DecodeError {
    /// The magic is none of the three, or changed within a connection.
    BadMagic,
    /// The code is unknown, or does not go in this direction.
    BadCode,
    /// The length is negative or over the limit.
    BadLength,
    /// The body is too short, too long, no UTF-8, no JSON, or has a field out of range.
    BadBody,
    /// A business packet has the form that its encoding wants, and a value in it is of no use: a lone
    /// surrogate, text that is no UTF-8, a number out of range. The frame boundary holds, and so does the
    /// rest of the stream.
    BadContent,
}

/// A frame from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientFrame<'a> {
    /// The first frame of a connection.
    Login {
        /// A signed token; says app, user, device class and expiry.
        token: Cow<'a, str>,
    },
    /// The client goes.
    Logout,
    /// A message for a user, a room or the backend.
    Business(Business<'a>),
    /// The client is alive.
    Heartbeat {
        /// Comes back in the answer; empty in JSON.
        echo: &'a [u8],
    },
    /// The client has these messages.
    Ack(AckIds<'a>),
    /// The client wants a room's messages.
    Join {
        /// Which room.
        room: RoomId,
        /// What it wants of those before.
        want: Option<Want>,
    },
    /// The client wants a room's messages no more.
    Leave {
        /// Which room.
        room: RoomId,
    },
}

/// A business packet as a client sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Business<'a> {
    /// Says by the route table whether `target` is a user, a room or the backend.
    pub biz_code: BizCode,
    /// The user or room; 0 when there is none. In JSON: top-level `target`, else `objectId` or `roomId`
    /// inside `data`.
    pub target: i64,
    /// The sender's name for the message; empty for none.
    pub client_msg_id: Cow<'a, str>,
    /// What the receiver gets.
    pub payload: Cow<'a, [u8]>,
}

/// The message ids of an ack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckIds<'a> {
    /// One, as JSON has it. An id that is no decimal u64 decodes as 0, which names no message.
    One(MessageId),
    /// Up to `ACK_IDS_MAX` big-endian u64, as binary has it.
    Packed(&'a [u8]),
}

impl AckIds<'_> {
    /// The ids in the order given.
    pub fn iter(&self) -> impl Iterator<Item = MessageId> + '_ {
        let (one, packed) = match self {
            AckIds::One(id) => (Some(*id), &[][..]),
            AckIds::Packed(bytes) => (None, *bytes),
        };
        let packed = packed.as_chunks::<8>().0.iter().map(|id| MessageId(u64::from_be_bytes(*id)));
        one.into_iter().chain(packed)
    }
}

impl<'a> ClientFrame<'a> {
    /// The code in its header.
    pub const fn code(&self) -> Code {
        match self {
            Self::Login { .. } => Code::Login,
            Self::Logout => Code::Logout,
            Self::Business(_) => Code::Business,
            Self::Heartbeat { .. } => Code::Heartbeat,
            Self::Ack(_) => Code::Ack,
            Self::Join { .. } => Code::Join,
            Self::Leave { .. } => Code::Leave,
        }
    }

    /// Decodes the body of a frame.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        match frame.encoding {
            Encoding::Binary => binary::decode_client(frame.code, frame.body),
            Encoding::Json | Encoding::JsonOld => json::decode_client(frame.code, frame.body),
        }
    }

    /// The client_msg_id of a business packet that is refused as [`DecodeError::BadContent`]; empty when
    /// there is none or it cannot be read either.
    pub fn client_msg_id_of_refused(frame: &Frame<'a>) -> Cow<'a, str> {
        match frame.encoding {
            // Its id is the one thing in a binary packet that can be of no use.
            Encoding::Binary => Cow::Borrowed(""),
            Encoding::Json | Encoding::JsonOld => json::client_msg_id_of_refused(frame.body),
        }
    }

    /// Appends header and body. `app` and `user` stand in every JSON body and nowhere else. JSON acks one
    /// message a frame, so an ack of several becomes several frames.
    pub fn encode(&self, encoding: Encoding, app: AppId, user: UserId, out: &mut Vec<u8>) {
        match encoding {
            Encoding::Binary => binary::encode_client(self, out),
            Encoding::Json | Encoding::JsonOld => json::encode_client(self, encoding, app, user, out),
        }
    }
}

/// A message on its way to receivers, as every hop sees it.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Message {
    /// The server's name for it, the same on every retry.
    pub id: MessageId,
    /// The app of sender and receivers.
    pub app: AppId,
    /// The user of the session that sent it, whatever the packet said.
    pub sender: UserId,
    /// Says what it is about.
    pub biz_code: BizCode,
    /// The room it was sent to; `None` for a message to a user.
    pub room: Option<RoomId>,
    /// Its place in the room's order; 0 for a message to a user.
    pub sequence: u64,
    /// Whether the receiver is to ack it: class `reliable`.
    pub ack_wanted: bool,
    /// The sender's name for it.
    pub client_msg_id: ClientMsgId,
    /// What the sender sent.
    pub payload: Bytes,
}

impl Message {
    /// Whether the body of every frame that delivers a message with this client_msg_id and payload, in
    /// whatever encoding, to whomever and from whichever room, has up to `body_bytes_max` bytes.
    pub fn fits(client_msg_id: &[u8], payload: &[u8], body_bytes_max: usize) -> bool {
        // No byte takes more than the six of an escape in JSON, and JSON has more around it than binary.
        let bytes_max = json::MESSAGE_FIXED_BYTES_MAX + 6 * (client_msg_id.len() + payload.len());
        bytes_max <= body_bytes_max || json::message_bytes_max(client_msg_id, payload) <= body_bytes_max
    }
}

/// A frame from the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerFrame<'a> {
    /// Logged in: the session is reachable from here on. JSON says `data:"true"`.
    LoggedIn {
        /// How often the client is to send a heartbeat, in ms.
        heartbeat_ms: u32,
    },
    /// Logged out; the server closes.
    LoggedOut,
    /// A message for this client.
    Deliver(Cow<'a, Message>),
    /// The answer to a heartbeat.
    Heartbeat {
        /// What the heartbeat carried.
        echo: &'a [u8],
    },
    /// What has become of a message this client sent.
    SendAck(SendAck),
    /// A word of the server.
    Notice {
        /// What happened.
        code: NoticeCode,
        /// The same for people, in one line.
        text: Cow<'a, str>,
        /// How long the client is to wait before it connects again, in ms.
        retry_after_ms: u32,
        /// Where it may connect instead, best first: `host:port` each. Only `draining` has some.
        alternatives: Vec<Cow<'a, str>>,
    },
    /// In the room: every message with a sequence past `sequence` will come.
    Joined {
        /// Which room.
        room: RoomId,
        /// The sequence of the room's last message so far.
        sequence: u64,
        /// To a join that wanted messages from before: those that are kept come next, up to `sequence`.
        recovery: Option<Recovery>,
    },
    /// Out of the room.
    Left {
        /// Which room.
        room: RoomId,
    },
}

/// What has become of a message: what is true, never what is hoped.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct SendAck {
    /// The sender's name for it; never empty.
    pub client_msg_id: ClientMsgId,
    /// The server's name for it; 0 when it got none.
    pub id: MessageId,
    /// What has become of it.
    pub outcome: Outcome,
}

/// Why a message failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Store, Load)]
#[repr(u16)]
pub enum FailReason {
    /// The receiver has no live session, and nobody stores messages for it.
    Offline = 1,
    /// The receiver's client did not ack within the tries.
    Unacked = 2,
    /// The receiver's connection ended before its ack.
    Disconnected = 3,
    /// The receiver reads too slowly to take more.
    Overflow = 4,
    /// The sender is not in that room.
    NotMember = 5,
    /// The route table has no such business code, or its target is missing.
    NoRoute = 6,
    /// The server is at a limit; try again later with the same id.
    Busy = 7,
    /// The frame that delivers it would be longer than a frame may be, in an encoding that a receiver may
    /// use.
    TooLong = 8,
    /// See [`DecodeError::BadContent`].
    BadContent = 9,
}

impl FailReason {
    /// Every reason.
    pub const ALL: [FailReason; 9] = [
        Self::Offline,
        Self::Unacked,
        Self::Disconnected,
        Self::Overflow,
        Self::NotMember,
        Self::NoRoute,
        Self::Busy,
        Self::TooLong,
        Self::BadContent,
    ];

    /// The reason of that number.
    pub fn from_u16(reason: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u16 == reason)
    }

    /// The name in metrics and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unacked => "unacked",
            Self::Disconnected => "disconnected",
            Self::Overflow => "overflow",
            Self::NotMember => "not_member",
            Self::NoRoute => "no_route",
            Self::Busy => "busy",
            Self::TooLong => "too_long",
            Self::BadContent => "bad_content",
        }
    }
}

/// What a notice says. The server closes after every one below 100.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Store, Load)]
#[repr(u16)]
pub enum NoticeCode {
    /// A newer login of the same app, user and device class took over.
    Kicked = 1,
    /// This node goes; connect again after `retry_after_ms`.
    Draining = 2,
    /// Over the frames a connection may send.
    RateLimited = 3,
    /// No frame within heartbeat period and grace.
    IdleTimeout = 4,
    /// The client reads too slowly.
    SlowReader = 5,
    /// See [`DecodeError::BadMagic`].
    BadMagic = 10,
    /// See [`DecodeError::BadCode`].
    BadCode = 11,
    /// See [`DecodeError::BadLength`].
    BadLength = 12,
    /// See [`DecodeError::BadBody`].
    BadBody = 13,
    /// A frame before login.
    LoginRequired = 20,
    /// No login within the deadline.
    LoginTimeout = 21,
    /// The token is malformed, forged, or for another cluster.
    TokenInvalid = 22,
    /// The token was good once.
    TokenExpired = 23,
    /// A second login on one connection.
    AlreadyLoggedIn = 24,
    /// Too many connections from this address.
    AddressLimit = 30,
    /// The shard holds as many connections as it may.
    ServerFull = 31,
    /// Not in that room; the connection stays.
    NotMember = 100,
    /// No route for that business code or target; the connection stays.
    NoRoute = 101,
    /// In as many rooms as a session may be; the connection stays.
    RoomLimit = 102,
    /// The server could not take the message; the connection stays.
    Busy = 103,
    /// See [`FailReason::TooLong`]; the connection stays.
    TooLong = 104,
    /// See [`DecodeError::BadContent`]; the connection stays.
    BadContent = 105,
}

impl NoticeCode {
    /// Every code.
    pub const ALL: [NoticeCode; 22] = [
        Self::Kicked,
        Self::Draining,
        Self::RateLimited,
        Self::IdleTimeout,
        Self::SlowReader,
        Self::BadMagic,
        Self::BadCode,
        Self::BadLength,
        Self::BadBody,
        Self::LoginRequired,
        Self::LoginTimeout,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::AlreadyLoggedIn,
        Self::AddressLimit,
        Self::ServerFull,
        Self::NotMember,
        Self::NoRoute,
        Self::RoomLimit,
        Self::Busy,
        Self::TooLong,
        Self::BadContent,
    ];

    /// The notice of that number.
    pub fn from_u16(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u16 == code)
    }

    /// Whether the server closes after it.
    pub const fn closes(self) -> bool {
        (self as u16) < 100
    }

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Draining => "draining",
            Self::RateLimited => "rate_limited",
            Self::IdleTimeout => "idle_timeout",
            Self::SlowReader => "slow_reader",
            Self::BadMagic => "bad_magic",
            Self::BadCode => "bad_code",
            Self::BadLength => "bad_length",
            Self::BadBody => "bad_body",
            Self::LoginRequired => "login_required",
            Self::LoginTimeout => "login_timeout",
            Self::TokenInvalid => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::AlreadyLoggedIn => "already_logged_in",
            Self::AddressLimit => "address_limit",
            Self::ServerFull => "server_full",
            Self::NotMember => "not_member",
            Self::NoRoute => "no_route",
            Self::RoomLimit => "room_limit",
            Self::Busy => "busy",
            Self::TooLong => "too_long",
            Self::BadContent => "bad_content",
        }
    }
}

impl From<DecodeError> for NoticeCode {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::BadMagic => Self::BadMagic,
            DecodeError::BadCode => Self::BadCode,
            DecodeError::BadLength => Self::BadLength,
            DecodeError::BadBody => Self::BadBody,
            DecodeError::BadContent => Self::BadContent,
        }
    }
}

impl<'a> ServerFrame<'a> {
    /// The code in its header.
    pub const fn code(&self) -> Code {
        match self {
            Self::LoggedIn { .. } => Code::Login,
            Self::LoggedOut => Code::Logout,
            Self::Deliver(_) => Code::Business,
            Self::Heartbeat { .. } => Code::Heartbeat,
            Self::SendAck(_) => Code::SendAck,
            Self::Notice { .. } => Code::Notice,
            Self::Joined { .. } => Code::Join,
            Self::Left { .. } => Code::Leave,
        }
    }

    /// Decodes the body of a frame, on the client's side.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        match frame.encoding {
            Encoding::Binary => binary::decode_server(frame.code, frame.body),
            Encoding::Json | Encoding::JsonOld => json::decode_server(frame.code, frame.body),
        }
    }

    /// The frame on its own, free of the bytes it was decoded from. The echo of a heartbeat is dropped.
    pub fn into_owned(self) -> ServerFrame<'static> {
        match self {
            Self::LoggedIn { heartbeat_ms } => ServerFrame::LoggedIn { heartbeat_ms },
            Self::LoggedOut => ServerFrame::LoggedOut,
            Self::Deliver(message) => ServerFrame::Deliver(Cow::Owned(message.into_owned())),
            Self::Heartbeat { echo: _ } => ServerFrame::Heartbeat { echo: &[] },
            Self::SendAck(ack) => ServerFrame::SendAck(ack),
            Self::Notice { code, text, retry_after_ms, alternatives } => ServerFrame::Notice {
                code,
                text: Cow::Owned(text.into_owned()),
                retry_after_ms,
                alternatives: alternatives.into_iter().map(|one| Cow::Owned(one.into_owned())).collect(),
            },
            Self::Joined { room, sequence, recovery } => ServerFrame::Joined { room, sequence, recovery },
            Self::Left { room } => ServerFrame::Left { room },
        }
    }

    /// Appends header and body. `app` and `user` are the session's; they stand in JSON bodies and nowhere
    /// else. A delivered message has its sender in `userId`, so its bytes are the same for every receiver.
    pub fn encode(&self, encoding: Encoding, app: AppId, user: UserId, out: &mut Vec<u8>) {
        match encoding {
            Encoding::Binary => binary::encode_server(self, out),
            Encoding::Json | Encoding::JsonOld => json::encode_server(self, encoding, app, user, out),
        }
    }
}

/// Appends a header and what `put_body` appends as its body.
fn put_frame(encoding: Encoding, code: Code, out: &mut Vec<u8>, put_body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&encoding.magic().to_be_bytes());
    out.extend_from_slice(&(code as i32).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    let body_start = out.len();
    put_body(out);
    let body_bytes = i32::try_from(out.len() - body_start).expect("limits keep a body far below 2 GiB");
    out[body_start - 4..body_start].copy_from_slice(&body_bytes.to_be_bytes());
}
