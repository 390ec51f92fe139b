//! The messages to clients.

/// A message to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its unique `client_msg_id`, by which receivers drop repeats. Up to 64 bytes.
    pub key: String,
    /// The app.
    pub app: i32,
    /// Whom it is for.
    pub target: Target,
    /// What it is about.
    pub biz_code: i32,
    /// JSON.
    pub payload: String,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every session of a user.
    User(i64),
    /// The members of a room.
    Room(i64),
}
