//! Messages of peers that the cores have not handled yet. They handle a bounded number in a turn; the others
//! wait. So a shard with more work than time still has short turns, and answers pings and gives credits in
//! each.

use std::collections::VecDeque;

use bytes::Bytes;
use shard::{Instant, ShardId};
use wire::node::decode_batch;
use wire::node::link::{Refusal, Role};

use crate::contract::News;
use crate::limits::TURN_MESSAGES;

/// Batches of all peers that wait.
pub(crate) struct Incoming {
    own: Role,
    news: VecDeque<News>,
    /// Peers of which batches wait, each once. They take turns.
    behind: VecDeque<ShardId>,
    /// When the last batch came that had to wait: some time that has passed.
    waits_since: Instant,
    /// Messages that the cores may yet hear in this turn.
    left: usize,
    is_held: bool,
}

/// Batches of one peer that came and wait. To the peer they are still on their way: its window bounds them,
/// and it writes them again on its next connection.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Each with when it came.
    archives: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl Incoming {
    pub(crate) fn new(own: Role) -> Self {
        let waits_since = Instant::default();
        let (news, behind) = (VecDeque::new(), VecDeque::new());
        Self { own, news, behind, waits_since, left: TURN_MESSAGES, is_held: false }
    }

    pub(crate) fn push(&mut self, news: News) {
        self.news.push_back(news);
    }

    pub(crate) fn pop(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Whether the cores have yet to be notified that a peer is down.
    pub(crate) fn has_down(&self, of: ShardId) -> bool {
        self.news.iter().any(|news| matches!(news, News::Down { peer } if *peer == of))
    }

    pub(crate) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    pub(crate) fn end_turn(&mut self) {
        self.left = TURN_MESSAGES;
    }

    /// Whether the cores may handle a message in this turn.
    pub(crate) fn may_hear(&self) -> bool {
        !self.is_held && self.left > 0
    }

    /// Since when something waits that the cores may handle.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.may_hear() && !self.behind.is_empty()).then_some(self.waits_since)
    }

    /// The peer whose batch is next, when there is no other news. Call [`Incoming::wait`] again if more of
    /// its batches wait.
    pub(crate) fn next_behind(&mut self) -> Option<ShardId> {
        if self.news.is_empty() && self.may_hear() { self.behind.pop_front() } else { None }
    }

    /// Notes that a batch of a peer waits, which came at `at`.
    pub(crate) fn wait(&mut self, at: Instant, peer: ShardId) {
        self.waits_since = at;
        if !self.behind.contains(&peer) {
            self.behind.push_back(peer);
        }
    }

    pub(crate) fn has_wait(&self, peer: ShardId) -> bool {
        self.behind.contains(&peer)
    }

    /// Turns a batch that came at `at` into news. Returns the number of its messages.
    pub(crate) fn read(
        &mut self,
        at: Instant,
        (from, role): (ShardId, Role),
        archive: &[u8],
    ) -> Result<u64, Refusal> {
        let mut messages = 0;
        decode_batch(archive, at.unix_nanos(), |message| {
            if !role.may_say(&message, self.own) {
                return Err(Refusal::BadMessage);
            }
            messages += 1;
            self.news.push_back(News::Message { from, message });
            Ok(())
        })?;
        self.left = self.left.saturating_sub(messages);
        Ok(messages as u64)
    }

    /// Drops messages of a peer that the cores have not handled.
    pub(crate) fn drop_messages(&mut self, of: ShardId) {
        self.news.retain(|news| !matches!(news, News::Message { from, .. } if *from == of));
    }
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.archives.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a batch. Refuses more than an honest peer's window lets wait.
    pub(crate) fn push(&mut self, at: Instant, archive: &[u8], bytes_max: usize) -> Result<(), Refusal> {
        if self.bytes + archive.len() > bytes_max {
            return Err(Refusal::Flood);
        }
        self.bytes += archive.len();
        self.archives.push_back((at, Bytes::copy_from_slice(archive)));
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, Bytes)> {
        let oldest = self.archives.pop_front()?;
        self.bytes -= oldest.1.len();
        Some(oldest)
    }
}
