//! Messages of this shard's sessions that their owners have not answered yet.
//!
//! They are kept until the answer comes, so that another owner can be given them when theirs is gone. Their ids stay the
//! same.

use hashbrown::HashTable;
use shard::ShardId;
use wire::MessageId;
use wire::node::{SessionId, Submission};

use crate::hash;

/// The messages that wait for an answer, by id.
#[derive(Default)]
pub(crate) struct Submitted {
    table: HashTable<Entry>,
    /// Of their payloads and names.
    bytes: u64,
}

/// A message that waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Who is told.
    pub(crate) session: SessionId,
    /// The router shard that has it; none while there is no router.
    pub(crate) owner: Option<ShardId>,
    pub(crate) submission: Submission,
}

impl Entry {
    fn bytes(&self) -> u64 {
        (self.submission.client_msg_id.as_bytes().len() + self.submission.payload.len()) as u64
    }
}

impl Submitted {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes of their payloads and names.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps a message; its id is used once.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let id = entry.submission.id;
        self.bytes += entry.bytes();
        self.table.insert_unique(hash::message(id), entry, |known| hash::message(known.submission.id));
    }

    /// Another router shard has it.
    pub(crate) fn set_owner(&mut self, id: MessageId, owner: Option<ShardId>) {
        if let Some(entry) = self.table.find_mut(hash::message(id), |known| known.submission.id == id) {
            entry.owner = owner;
        }
    }

    pub(crate) fn get(&self, id: MessageId) -> Option<&Entry> {
        self.table.find(hash::message(id), |known| known.submission.id == id)
    }

    /// The answer is there.
    pub(crate) fn remove(&mut self, id: MessageId) -> Option<Entry> {
        let found = self.table.find_entry(hash::message(id), |known| known.submission.id == id).ok()?;
        let entry = found.remove().0;
        self.bytes -= entry.bytes();
        Some(entry)
    }

    /// Own-state invariants, for tests and simulation.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.table.iter().map(Entry::bytes).sum::<u64>(), self.bytes);
    }

    /// Every message for which `change` is true, oldest first, after the change.
    pub(crate) fn changed(&mut self, mut change: impl FnMut(&mut Entry) -> bool) -> Vec<Entry> {
        let mut changed: Vec<Entry> =
            self.table.iter_mut().filter_map(|entry| change(entry).then(|| entry.clone())).collect();
        changed.sort_unstable_by_key(|entry| entry.submission.id);
        changed
    }
}
