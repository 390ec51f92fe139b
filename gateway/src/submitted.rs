//! Messages of this shard's sessions that their owners have not answered yet.
//!
//! They are kept until the answer comes, so that another owner can get them when theirs is gone. Their ids
//! stay the same. Each user has a share, which outlives its sessions as its messages do; pushes have as much
//! as all users together, apart from these, so neither can keep the other out.

use std::collections::VecDeque;

use hashbrown::HashTable;
use shard::{Amount, ShardId, Shares};
use wire::node::{SessionId, Submission};
use wire::{AppId, MessageId, UserId};

use crate::config::Limits;
use crate::hash;
use crate::latency::Stamp;

/// The messages that wait for an answer, by id.
pub(crate) struct Submitted {
    table: HashTable<Entry>,
    of_users: Shares<(AppId, UserId)>,
    pushes: Amount,
    /// Those that have yet to be submitted to their new owner, oldest first. Their earlier owners keep them
    /// until then.
    again: VecDeque<MessageId>,
}

/// A message that waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The session that gets the send-ack.
    pub(crate) session: SessionId,
    /// The router shard that has it; none while there is no router.
    pub(crate) owner: Option<ShardId>,
    pub(crate) submission: Submission,
    /// When it came.
    pub(crate) since: Stamp,
}

impl Entry {
    /// The user whose session sent it; none for a push.
    fn holder(&self) -> Option<(AppId, UserId)> {
        (self.session != SessionId::CONTROL).then_some((self.submission.app, self.submission.sender))
    }

    /// The bytes of its payload and client message id.
    fn bytes(&self) -> u64 {
        (self.submission.client_msg_id.as_bytes().len() + self.submission.payload.len()) as u64
    }
}

impl Submitted {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            table: HashTable::new(),
            of_users: Shares::new(seed),
            pushes: Amount::default(),
            again: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The bytes of their payloads and client message ids.
    pub(crate) fn bytes(&self) -> u64 {
        self.of_users.held().bytes + self.pushes.bytes
    }

    /// Keeps a message, whose id is used once; false if its sender, or all senders together, have no room for
    /// it.
    pub(crate) fn insert(&mut self, entry: Entry, limits: &Limits) -> bool {
        let total = Amount { entries: limits.submitted_max.into(), bytes: limits.submitted_bytes_max };
        let share = Amount {
            entries: limits.submitted_user_max.into(),
            bytes: limits.submitted_user_bytes_max.into(),
        };
        match entry.holder() {
            Some(user) if !self.of_users.take(user, entry.bytes(), total, share) => return false,
            Some(_) => {}
            None if !self.pushes.has_room(entry.bytes(), total) => return false,
            None => self.pushes.add(entry.bytes()),
        }
        let id = entry.submission.id;
        self.table.insert_unique(hash::message(id), entry, |known| hash::message(known.submission.id));
        true
    }

    /// Notes that another router shard has it.
    pub(crate) fn set_owner(&mut self, id: MessageId, owner: Option<ShardId>) {
        if let Some(entry) = self.get_mut(id) {
            entry.owner = owner;
        }
    }

    pub(crate) fn get(&self, id: MessageId) -> Option<&Entry> {
        self.table.find(hash::message(id), |known| known.submission.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: MessageId) -> Option<&mut Entry> {
        self.table.find_mut(hash::message(id), |known| known.submission.id == id)
    }

    /// Takes out a message that was answered.
    pub(crate) fn remove(&mut self, id: MessageId) -> Option<Entry> {
        let found = self.table.find_entry(hash::message(id), |known| known.submission.id == id).ok()?;
        let entry = found.remove().0;
        match entry.holder() {
            Some(user) => self.of_users.give_back(user, entry.bytes()),
            None => self.pushes.sub(entry.bytes()),
        }
        Some(entry)
    }

    /// Whether some have yet to be submitted to an owner.
    pub(crate) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// The next one to be submitted to an owner.
    pub(crate) fn next_again(&self) -> Option<MessageId> {
        self.again.front().copied()
    }

    /// Drops the next one, which was submitted or need not be.
    pub(crate) fn drop_next_again(&mut self) {
        self.again.pop_front();
    }

    /// Adds one to be submitted after all others.
    pub(crate) fn put_again(&mut self, id: MessageId) {
        self.again.push_back(id);
    }

    /// Sets those that are to be submitted.
    pub(crate) fn set_again(&mut self, ids: impl Iterator<Item = MessageId>) {
        self.again = ids.collect();
    }

    /// Own-state invariants, for tests and simulation.
    pub(crate) fn check_invariants(&self) {
        let of_users = self.table.iter().filter_map(|entry| Some((entry.holder()?, entry.bytes())));
        self.of_users.check_invariants(of_users);
        let pushes = self.table.iter().filter(|entry| entry.holder().is_none());
        let bytes = pushes.clone().map(Entry::bytes).sum();
        assert_eq!(self.pushes, Amount { entries: pushes.count() as u64, bytes });
    }

    /// Every message for which `change` is true, oldest first, after the change.
    pub(crate) fn changed(&mut self, mut change: impl FnMut(&mut Entry) -> bool) -> Vec<Entry> {
        let mut changed: Vec<Entry> =
            self.table.iter_mut().filter_map(|entry| change(entry).then(|| entry.clone())).collect();
        changed.sort_unstable_by_key(|entry| entry.submission.id);
        changed
    }
}
