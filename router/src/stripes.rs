//! A hash table that never pauses for long to grow.

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

/// Parts of a table. With a million entries one part grows in about a millisecond; a whole table would take
/// tens of them.
const STRIPES: usize = 64;

/// A hash table in parts. Each has the entries of some hashes, and grows on its own, at a time of its own.
#[derive(Debug)]
pub(crate) struct Stripes<T> {
    parts: Box<[HashTable<T>]>,
    len: usize,
}

impl<T> Stripes<T> {
    pub(crate) fn new() -> Self {
        Self { parts: (0..STRIPES).map(|_| HashTable::new()).collect(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn find(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts[part(hash)].find(hash, is)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.parts[part(hash)].find_mut(hash, is)
    }

    /// Adds an entry; the caller knows that there is none like it.
    pub(crate) fn insert_unique(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        self.parts[part(hash)].insert_unique(hash, entry, hash_of);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<T> {
        let found = self.parts[part(hash)].find_entry(hash, is).ok();
        let (entry, _) = found.map(OccupiedEntry::remove)?;
        self.len -= 1;
        Some(entry)
    }

    /// Every entry, in unspecified order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().flatten()
    }
}

/// The middle bits, as a part uses the bits at both ends.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % STRIPES
}
