//! What nodes know for a while and pass on to each other: bans, revocations.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

/// Entries of one message.
pub(super) const PER_MESSAGE: usize = 1024;
/// Entries that are kept: about 10 MB.
pub(super) const ENTRIES_MAX: usize = 1 << 16;

/// Entries that end by themselves. Past [`ENTRIES_MAX`], the one that ends first is dropped.
pub(super) struct Ending<K, V> {
    of: BTreeMap<K, (u64, V)>,
    pub(super) by_end: BTreeSet<(u64, K)>,
}

impl<K, V> Default for Ending<K, V> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), by_end: BTreeSet::new() }
    }
}

impl<K: Copy + Ord, V: Copy> Ending<K, V> {
    /// When an entry ends, and what it says.
    pub(super) fn get(&self, key: &K) -> Option<(u64, V)> {
        self.of.get(key).copied()
    }

    /// Entries in the order of their keys, each with its end.
    pub(super) fn range(&self, keys: impl RangeBounds<K>) -> impl Iterator<Item = (K, u64, V)> + '_ {
        self.of.range(keys).map(|(key, (end, value))| (*key, *end, *value))
    }

    /// Puts an entry in place of an earlier one of its key, and drops those that have ended; whether it is
    /// kept.
    pub(super) fn put(&mut self, now: u64, key: K, end: u64, value: V) -> bool {
        if let Some((before, _)) = self.of.insert(key, (end, value)) {
            self.by_end.remove(&(before, key));
        }
        self.by_end.insert((end, key));
        while let Some((end, first)) = self.by_end.first().copied()
            && (end <= now || self.by_end.len() > ENTRIES_MAX)
        {
            self.by_end.remove(&(end, first));
            self.of.remove(&first);
        }
        self.of.contains_key(&key)
    }

    /// All of them, in messages of [`PER_MESSAGE`].
    pub(super) fn messages<'a, T>(
        &'a self,
        entry: impl Fn(K, u64, V) -> T + 'a,
    ) -> impl Iterator<Item = Vec<T>> + 'a {
        let mut all = self.range(..).map(move |(key, end, value)| entry(key, end, value));
        std::iter::from_fn(move || {
            let some: Vec<T> = all.by_ref().take(PER_MESSAGE).collect();
            (!some.is_empty()).then_some(some)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}
