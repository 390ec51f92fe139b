//! What layers make of a connection's bytes.

use std::net::IpAddr;

/// What the layers of a connection report, in order.
#[derive(PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// The client's address, as a proxy gives it; `None` if the proxy speaks for itself or does not know it.
    Client(Option<IpAddr>),
    /// The WebSocket is open.
    Open(Form),
    /// The request that opened it names the client's token, and perhaps a room to join.
    Login {
        /// Letters, digits, `-`, `_` and `.` only.
        token: &'a str,
        /// The room.
        room: Option<i64>,
    },
    /// Bytes of the stream of frames; never empty.
    Frames(&'a [u8]),
    /// A binary message has ended; no frame continues in the next one.
    MessageEnd,
    /// A whole text message.
    Text(&'a [u8]),
    /// A record of TLS with plain text comes, or a fragment or message of WebSocket begins.
    Piece,
    /// A record of TLS that carried nothing has come, such as a change of keys.
    Silent,
    /// The peer has sent a ping or a pong.
    Alive,
    /// The peer ends the connection.
    Close,
}

/// How messages carry frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Binary messages, each of whole frames as they stand on TCP, any number of them.
    Binary,
    /// Text messages, each the JSON of one frame.
    Json,
    /// Text messages as the Java platform has them, each of one frame whose JSON is a field of the message.
    Java,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 3] = [Self::Binary, Self::Json, Self::Java];

    /// Its name in a handshake; the Java platform's form is known by the request's path.
    pub const fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Binary => Some("sailfish.v1.binary"),
            Self::Json => Some("sailfish.v1.json"),
            Self::Java => None,
        }
    }
}
