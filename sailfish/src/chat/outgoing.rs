//! The client's own messages that have no outcome yet.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use wire::client::{Business, ClientFrame};
use wire::node::Target;
use wire::{BizCode, RoomId, UserId};

/// The business code of a room chat.
const ROOM_CHAT: BizCode = BizCode(5555);
/// The business code of a reliable message to a user.
const USER_CHAT: BizCode = BizCode(6001);
/// A message without an outcome is repeated after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(15);

/// A message on its way.
pub struct Outgoing {
    /// Our name for it, the same on every repeat.
    pub client_msg_id: String,
    /// Where it goes.
    pub target: Target,
    /// What it is about.
    pub biz_code: BizCode,
    /// What it says.
    pub text: String,
    /// When it was written to the present connection.
    sent_at: Option<Instant>,
}

impl Outgoing {
    /// A message that is not sent yet; a chat if nothing else is said.
    pub fn new(client_msg_id: String, target: Target, biz_code: Option<BizCode>, text: String) -> Self {
        let biz_code = biz_code.unwrap_or(match target {
            Target::Room(_) => ROOM_CHAT,
            Target::User(_) => USER_CHAT,
        });
        Self { client_msg_id, target, biz_code, text, sent_at: None }
    }

    /// Its frame.
    pub fn frame(&self) -> ClientFrame<'_> {
        let (Target::Room(RoomId(target)) | Target::User(UserId(target))) = self.target;
        ClientFrame::Business(Business {
            biz_code: self.biz_code,
            target,
            client_msg_id: Cow::Borrowed(&self.client_msg_id),
            payload: Cow::Borrowed(self.text.as_bytes()),
        })
    }

    /// Whether it is to be written at `now`, for the first time on this connection or again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.sent_at.is_none_or(|at| now >= at + REPEAT_AFTER)
    }

    /// It was written.
    pub fn sent(&mut self, now: Instant) {
        self.sent_at = Some(now);
    }

    /// The connection it was written to is gone.
    pub fn lost(&mut self) {
        self.sent_at = None;
    }
}
