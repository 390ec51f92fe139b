//! What a client tells its application.

use std::time::Duration;

use wire::client::{Message, NoticeCode, Outcome, Recovery};
use wire::{MessageId, RoomId};

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Logged in on a new connection.
    LoggedIn {
        /// The server's address.
        address: String,
    },
    /// In a room, for the first time or again; or some messages of a room that the client is in cannot be had
    /// any more (`too_old`).
    Joined {
        /// Which room.
        room: RoomId,
        /// The sequence of its last message so far.
        sequence: u64,
        /// What became of the past that the join asked for, if it asked for any.
        recovery: Option<Recovery>,
    },
    /// Out of a room.
    Left {
        /// Which room.
        room: RoomId,
    },
    /// A message came. It is told once, whatever is repeated.
    Message(Message),
    /// What became of a message of this client. It is told once for each message.
    Outcome {
        /// The message's name, as [`crate::Core::send`] returned it.
        client_msg_id: String,
        /// The server's name for it; 0 when it got none.
        id: MessageId,
        /// What became of it.
        outcome: Outcome,
    },
    /// The server said something.
    Notice {
        /// What happened.
        code: NoticeCode,
        /// What happened, as a sentence for people.
        text: String,
    },
    /// There is no connection; the client connects again.
    Disconnected {
        /// Why.
        why: Loss,
        /// The address of the connection that failed or ended.
        address: String,
        /// The address that is tried next.
        next: String,
        /// The time until then.
        wait: Duration,
    },
    /// The client has ended for good. It is the last event.
    Ended(End),
}

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It could not be opened, or not in time, and what the system says of that.
    NotConnected(String),
    /// It was closed or broke, and what the system says of that.
    Closed(String),
    /// It was open, and the login was not answered in time.
    Late,
    /// A heartbeat was not answered.
    Silent,
    /// What came is not the protocol; how it begins.
    Garbage(Vec<u8>),
    /// The server ended it with a notice.
    Notice(NoticeCode),
    /// The token provider has no token.
    NoToken,
}

/// Why a client has ended for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A newer login of the same user and device class, or an operator, ended the session.
    Kicked,
    /// The application logged out.
    Logout,
}

impl End {
    /// The name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Logout => "logout",
        }
    }
}
