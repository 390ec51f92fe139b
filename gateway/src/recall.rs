//! Members of a room that wait for what it said before: what its owner was asked for them, and what of its
//! answer has come.

use std::collections::BTreeMap;

use shard::{ConnId, Instant, TimerId};
use wire::client::{Message, Want};
use wire::node::HISTORY_BYTES_MAX;

use crate::limits::RECALL_RETRY;

/// The members of a room that wait, and what its owner was asked for them.
#[derive(Default)]
pub(crate) struct Recall {
    /// By [`ConnId::as_u64`].
    waiting: BTreeMap<u64, Want>,
    /// The question under way.
    asked: Option<Question>,
    /// What has come of its answer.
    messages: Vec<Message>,
    bytes: usize,
    /// An answer was older than what members have.
    was_behind: bool,
    /// Asks again if no answer comes.
    pub(crate) timer: Option<TimerId>,
}

/// All after a sequence, and so many of the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) ask: u32,
    pub(crate) since: u64,
    pub(crate) last: u32,
    at: Instant,
}

impl Question {
    /// Whether its answer has what a member wants.
    fn covers(&self, want: Want) -> bool {
        match want {
            Want::Since(sequence) => sequence >= self.since,
            Want::Last(count) => clipped(count) <= self.last,
        }
    }
}

impl Recall {
    pub(crate) fn waits(&self, conn: ConnId) -> bool {
        self.waiting.contains_key(&conn.as_u64())
    }

    /// A member waits. Whether the owner is to be asked at once: one that the question under way does not
    /// cover has its turn after that.
    pub(crate) fn enter(&mut self, conn: ConnId, want: Want) -> bool {
        self.waiting.insert(conn.as_u64(), want);
        self.asked.is_none()
    }

    /// A member is out of the room. Whether it was the last that waits.
    pub(crate) fn leave(&mut self, conn: ConnId) -> bool {
        self.waiting.remove(&conn.as_u64());
        self.waiting.is_empty()
    }

    /// The question for all that wait, which goes by that number; `None` if nobody waits.
    pub(crate) fn ask(&mut self, now: Instant, ask: u32) -> Option<Question> {
        if self.waiting.is_empty() {
            return None;
        }
        (self.messages, self.bytes) = (Vec::new(), 0);
        let mut asked = Question { ask, since: u64::MAX, last: 0, at: now };
        for want in self.waiting.values() {
            match want {
                Want::Since(sequence) => asked.since = asked.since.min(*sequence),
                Want::Last(count) => asked.last = asked.last.max(clipped(*count)),
            }
        }
        self.asked = Some(asked);
        Some(asked)
    }

    /// Whether the question under way has waited for its answer for so long that it is asked again.
    pub(crate) fn is_unanswered(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now >= asked.at + RECALL_RETRY)
    }

    /// Takes in a part of the answer to the question of that number, of `total` messages, `before` of which
    /// have come before it. Whether the answer is whole. A part that does not fit is left out: the question
    /// has been asked again, or will be in time.
    pub(crate) fn take_in(&mut self, ask: u32, before: u32, total: u32, messages: Vec<Message>) -> bool {
        if self.asked.is_none_or(|asked| asked.ask != ask) {
            return false;
        }
        let bytes: usize = messages.iter().map(|message| message.payload.len()).sum();
        if self.messages.len() != before as usize || self.bytes + bytes > HISTORY_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.messages.extend(messages);
        self.messages.len() == total as usize
    }

    /// The answer was older than what members have. Whether it is the first such one.
    pub(crate) fn is_first_behind(&mut self) -> bool {
        !std::mem::replace(&mut self.was_behind, true)
    }

    /// The messages of the answer, and those that it is for, who do not wait any more.
    pub(crate) fn take_answer(&mut self) -> (Vec<Message>, Vec<(ConnId, Want)>) {
        (std::mem::take(&mut self.messages), self.take_covered())
    }

    fn take_covered(&mut self) -> Vec<(ConnId, Want)> {
        let Some(asked) = self.asked.take() else { return Vec::new() };
        let covered = self.waiting.extract_if(.., |_, want| asked.covers(*want));
        covered.map(|(conn, want)| (ConnId::from_u64(conn), want)).collect()
    }
}

/// Of a count that a client asks for, as much as there can be.
pub(crate) fn clipped(count: u64) -> u32 {
    count.min(u64::from(u32::MAX)) as u32
}
