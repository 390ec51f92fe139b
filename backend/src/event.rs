//! The bridge's events, as JSON; docs/BACKEND.md describes each field.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// One event. The same `id` means the same event, sent again.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// The bridge's id of it.
    pub id: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// A business packet from a client.
    Request(Request),
    /// A session came.
    Online(Session),
    /// A session ended.
    Offline(Session),
    /// A session joined a room.
    Join(Membership),
    /// A session left a room, or ended in it.
    Leave(Membership),
    /// A reliable message that its receiver did not ack.
    Undelivered(Undelivered),
}

/// The result of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is done, and what it did is committed.
    Done,
    /// It will never be done.
    Refused(String),
    /// It may be done another time.
    Again,
    /// It is being decided, and others need not wait for it. It must be sent again.
    Waiting,
}

/// A business packet from a client.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Request {
    /// The app.
    pub app: i32,
    /// The sender, as the gateway knows it from the login.
    pub user: i64,
    /// The device class.
    pub device: String,
    /// A room that the session is in.
    pub room: Option<i64>,
    /// What it is about.
    pub biz_code: i32,
    /// The sender's id of it; may be empty.
    pub client_msg_id: String,
    /// Its trace.
    pub traceparent: Option<String>,
    /// What the client sent.
    #[serde(flatten)]
    pub data: Data,
}

/// A session that came or ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Session {
    /// The app.
    pub app: i32,
    /// The user.
    pub user: i64,
    /// The device class.
    pub device: String,
    /// Orders the reports about one user and device: the higher is the later.
    #[serde(with = "decimal")]
    pub login: u64,
}

/// A session that joined or left a room.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Membership {
    /// The session.
    #[serde(flatten)]
    pub session: Session,
    /// Which room.
    pub room: i64,
}

/// A reliable message that its receiver did not ack.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Undelivered {
    /// The app.
    pub app: i32,
    /// The receiver.
    pub user: i64,
    /// `offline`, `unacked`, `disconnected`, `overflow` or `busy`.
    pub reason: String,
    /// The message's id, the same on every try.
    #[serde(with = "decimal")]
    pub message_id: u64,
    /// Who sent it; 0 for the backend.
    pub sender: i64,
    /// What it is about.
    pub biz_code: i32,
    /// Its room, if it is a room message.
    pub room: Option<i64>,
    /// Its sequence in the room.
    pub sequence: Option<u64>,
    /// The sender's id of it; may be empty.
    pub client_msg_id: String,
    /// Its trace.
    pub traceparent: Option<String>,
    /// Its payload.
    #[serde(flatten)]
    pub data: Data,
}

/// A payload: text where it is UTF-8, else base64.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl Data {
    /// A payload of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { data: Some(text.into()), data_base64: None }
    }

    /// Any payload.
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::text(text),
            Err(error) => Self { data: None, data_base64: Some(STANDARD.encode(error.as_bytes())) },
        }
    }

    /// The payload; `None` if it is no base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.data, &self.data_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(text)) => STANDARD.decode(text).ok(),
            (None, None) => Some(Vec::new()),
        }
    }
}

/// 64-bit numbers as decimal strings, since a JSON number is exact below 2^53 only.
mod decimal {
    use serde::{Deserialize, Deserializer, de};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| de::Error::custom(format!("{text:?}: want a 64-bit number as a decimal string")))
    }
}
