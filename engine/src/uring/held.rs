//! Receives of one group of connections that came while the group is pushed back.

use std::collections::VecDeque;

use shard::ConnId;

use super::ring::Completion;

/// One receive for each byte of all buffers at most. They hold buffers, so the kernel runs out of them and
/// stops too.
#[derive(Default)]
pub(super) struct Held {
    receives: VecDeque<Completion>,
    /// Of these, how many are ends, which hold no buffer.
    ends: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.receives.is_empty()
    }

    /// How many hold no buffer.
    pub(super) fn ends(&self) -> usize {
        self.ends
    }

    pub(super) fn push(&mut self, receive: Completion) {
        self.ends += usize::from(receive.buffer().is_none());
        self.receives.push_back(receive);
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Completion> {
        let receive = self.receives.pop_front()?;
        self.ends -= usize::from(receive.buffer().is_none());
        Some(receive)
    }

    /// Forgets the ends of connections that `is_there` does not know. A buffer is never forgotten.
    pub(super) fn retain_ends(&mut self, mut is_there: impl FnMut(ConnId) -> bool) {
        self.receives.retain(|receive| receive.buffer().is_some() || is_there(receive.token.conn()));
        self.ends = self.receives.iter().filter(|receive| receive.buffer().is_none()).count();
    }
}
