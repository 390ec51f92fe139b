//! A table that names its entries itself.

use std::fmt;
use std::ops::{Index, IndexMut};

use crate::chunk::{CHUNK_ENTRIES, Chunk, chunk, join, split};

/// The end of the free list. No entry has this index.
const NONE: u32 = u32::MAX;

/// Names an entry of a [`Slab`]. Indexes are reused; generations tell the users of one index apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Small and dense.
    pub index: u32,
    /// Counts the reuses of `index`.
    pub generation: u32,
}

impl Key {
    /// The packed form: `generation << 32 | index`.
    pub const fn as_u64(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// The inverse of [`Key::as_u64`].
    pub const fn from_u64(packed: u64) -> Self {
        Self { index: packed as u32, generation: (packed >> 32) as u32 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}.{}", self.index, self.generation)
    }
}

/// A table of values under keys that it hands out. A key of a removed value finds nothing, also after its
/// index is reused (until a generation of 32 bits has wrapped).
///
/// Memory follows the largest number of values held at once, in chunks of 1024; growing copies nothing. The
/// place freed last is reused first.
pub struct Slab<T> {
    chunks: Vec<Chunk<Entry<T>>>,
    free_head: u32,
    len: usize,
}

enum Entry<T> {
    /// `generation` is that of the next value.
    Vacant {
        generation: u32,
        free_next: u32,
    },
    Occupied {
        generation: u32,
        value: T,
    },
}

impl<T> Slab<T> {
    /// An empty slab; it allocates at the first insert.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), free_head: NONE, len: 0 }
    }

    /// Values held.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores `value` and names it.
    ///
    /// # Panics
    ///
    /// When 2^32 - 1024 values are held: the limits of a core keep far below.
    pub fn insert(&mut self, value: T) -> Key {
        if self.free_head == NONE {
            self.grow();
        }
        let index = self.free_head;
        let (chunk, offset) = split(index);
        let entry = &mut self.chunks[chunk][offset];
        let Entry::Vacant { generation, free_next } = *entry else {
            unreachable!("the free list holds vacant entries only")
        };
        *entry = Entry::Occupied { generation, value };
        self.free_head = free_next;
        self.len += 1;
        Key { index, generation }
    }

    /// The value under `key`.
    pub fn get(&self, key: Key) -> Option<&T> {
        let (chunk, offset) = split(key.index);
        match &self.chunks.get(chunk)?[offset] {
            Entry::Occupied { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The value under `key`, to change it.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (chunk, offset) = split(key.index);
        match &mut self.chunks.get_mut(chunk)?[offset] {
            Entry::Occupied { generation, value } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The key of the value that lives at `index`, whatever its generation.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let (chunk, offset) = split(index);
        match &self.chunks.get(chunk)?[offset] {
            Entry::Occupied { generation, .. } => Some(Key { index, generation: *generation }),
            Entry::Vacant { .. } => None,
        }
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (chunk, offset) = split(key.index);
        let entry = &mut self.chunks.get_mut(chunk)?[offset];
        match entry {
            Entry::Occupied { generation, .. } if *generation == key.generation => {}
            _ => return None,
        }
        let vacant = Entry::Vacant { generation: key.generation.wrapping_add(1), free_next: self.free_head };
        let Entry::Occupied { value, .. } = std::mem::replace(entry, vacant) else {
            unreachable!("matched above")
        };
        self.free_head = key.index;
        self.len -= 1;
        Some(value)
    }

    /// All values with their keys, in the order of indexes.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let entries = self.chunks.iter().flat_map(|chunk| chunk.iter());
        entries.enumerate().filter_map(|(index, entry)| match entry {
            Entry::Occupied { generation, value } => {
                Some((Key { index: index as u32, generation: *generation }, value))
            }
            Entry::Vacant { .. } => None,
        })
    }

    /// Adds a chunk of vacant entries, the lowest index at the head of the free list.
    fn grow(&mut self) {
        let number = self.chunks.len();
        assert!(number < NONE as usize / CHUNK_ENTRIES, "a slab holds fewer than 2^32 values");
        let after = self.free_head;
        self.chunks.push(chunk(|offset| {
            let free_next = if offset + 1 < CHUNK_ENTRIES { join(number, offset + 1) } else { after };
            Entry::Vacant { generation: 0, free_next }
        }));
        self.free_head = join(number, 0);
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Index<Key> for Slab<T> {
    type Output = T;

    /// # Panics
    /// When nothing is stored under `key`.
    fn index(&self, key: Key) -> &T {
        self.get(key).expect("the key is live")
    }
}

impl<T> IndexMut<Key> for Slab<T> {
    fn index_mut(&mut self, key: Key) -> &mut T {
        self.get_mut(key).expect("the key is live")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_costs_eight_bytes_more_than_its_value() {
        assert_eq!(size_of::<Entry<u64>>(), 16);
        assert_eq!(size_of::<Entry<[u64; 8]>>(), 72);
    }

    #[test]
    fn a_stale_key_finds_nothing_after_reuse() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
    }

    #[test]
    fn a_key_of_another_slab_finds_nothing() {
        let mut slab = Slab::new();
        slab.insert(1);
        assert_eq!(slab.get(Key { index: 5_000, generation: 0 }), None);
        assert_eq!(slab.remove(Key { index: u32::MAX, generation: 0 }), None);
    }

    #[test]
    fn growing_moves_no_value() {
        let mut slab = Slab::new();
        let first = slab.insert(0);
        let place: *const i32 = slab.get(first).expect("just stored");
        for value in 1..10_000 {
            slab.insert(value);
        }
        assert_eq!(slab.get(first).map(|value| value as *const i32), Some(place));
        assert!(slab.iter().map(|(_, value)| *value).eq(0..10_000));
    }

    #[test]
    fn the_packed_key_is_the_key() {
        let key = Key { index: 7, generation: u32::MAX };
        assert_eq!(key.as_u64(), 0xffff_ffff_0000_0007);
        assert_eq!(Key::from_u64(key.as_u64()), key);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((any::<bool>(), any::<usize>()), 0..3_000)) {
            let mut slab = Slab::new();
            let mut model = HashMap::new();
            let mut keys = Vec::new();
            for (step, (insert, pick)) in steps.into_iter().enumerate() {
                if insert || keys.is_empty() {
                    let key = slab.insert(step);
                    prop_assert_eq!(model.insert(key, step), None, "a key is handed out once");
                    keys.push(key);
                } else {
                    let key = keys[pick % keys.len()];
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            for key in keys {
                prop_assert_eq!(slab.get(key), model.get(&key));
            }
            prop_assert_eq!(slab.iter().count(), model.len());
        }
    }
}
