//! A table of what a core knows about each connection.

use crate::ConnId;
use crate::chunk::{CHUNK_ENTRIES, Chunk, chunk, join, split};

/// Values by [`ConnId`]. The engine chose the ids: their indexes are dense, and at most one generation of an
/// index lives.
///
/// Memory follows the indexes in use, in chunks of 1024; growing copies nothing, and an empty chunk is given
/// back (one is kept, so that a count that swings around a boundary allocates nothing). The overhead is 4
/// bytes an entry, rounded up to the alignment of `T`.
pub struct ConnMap<T> {
    chunks: Vec<Option<Part<T>>>,
    spare: Option<Chunk<Entry<T>>>,
    len: usize,
}

struct Part<T> {
    entries: Chunk<Entry<T>>,
    occupied: usize,
}

enum Entry<T> {
    Vacant,
    Occupied { generation: u32, value: T },
}

impl<T> ConnMap<T> {
    /// An empty table; it allocates at the first insert.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), spare: None, len: 0 }
    }

    /// Connections in the table.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no connection.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Enters `conn`.
    ///
    /// # Panics
    ///
    /// When a connection of the same index is in the table: its `Closed` was missed.
    pub fn insert(&mut self, conn: ConnId, value: T) {
        let (number, offset) = split(conn.index);
        if number >= self.chunks.len() {
            self.chunks.resize_with(number + 1, || None);
        }
        let spare = &mut self.spare;
        let part = self.chunks[number].get_or_insert_with(|| Part {
            entries: spare.take().unwrap_or_else(|| chunk(|_| Entry::Vacant)),
            occupied: 0,
        });
        let entry = &mut part.entries[offset];
        assert!(matches!(entry, Entry::Vacant), "{conn:?}: its index is still in use");
        *entry = Entry::Occupied { generation: conn.generation, value };
        part.occupied += 1;
        self.len += 1;
    }

    /// What is known about `conn`.
    pub fn get(&self, conn: ConnId) -> Option<&T> {
        match self.entry(conn.index)? {
            Entry::Occupied { generation, value } if *generation == conn.generation => Some(value),
            _ => None,
        }
    }

    /// What is known about `conn`, to change it.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        match self.entry_mut(conn.index)? {
            Entry::Occupied { generation, value } if *generation == conn.generation => Some(value),
            _ => None,
        }
    }

    /// The connection that lives at `index`, whatever its generation.
    pub fn get_by_index(&self, index: u32) -> Option<(ConnId, &T)> {
        match self.entry(index)? {
            Entry::Occupied { generation, value } => Some((ConnId { index, generation: *generation }, value)),
            Entry::Vacant => None,
        }
    }

    /// The connection that lives at `index`, whatever its generation, to change it.
    pub fn get_mut_by_index(&mut self, index: u32) -> Option<(ConnId, &mut T)> {
        match self.entry_mut(index)? {
            Entry::Occupied { generation, value } => Some((ConnId { index, generation: *generation }, value)),
            Entry::Vacant => None,
        }
    }

    /// Takes `conn` out.
    pub fn remove(&mut self, conn: ConnId) -> Option<T> {
        let (number, offset) = split(conn.index);
        let part = self.chunks.get_mut(number)?.as_mut()?;
        let entry = &mut part.entries[offset];
        match entry {
            Entry::Occupied { generation, .. } if *generation == conn.generation => {}
            _ => return None,
        }
        let Entry::Occupied { value, .. } = std::mem::replace(entry, Entry::Vacant) else {
            unreachable!("matched above")
        };
        self.len -= 1;
        part.occupied -= 1;
        if part.occupied == 0 {
            self.spare = self.chunks[number].take().map(|part| part.entries);
        }
        Some(value)
    }

    /// All connections, in the order of indexes.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        let parts = self.chunks.iter().enumerate();
        let parts = parts.filter_map(|(number, part)| part.as_ref().map(|part| (number, part)));
        parts.flat_map(|(number, part)| {
            (0..CHUNK_ENTRIES).filter_map(move |offset| match &part.entries[offset] {
                Entry::Occupied { generation, value } => {
                    Some((ConnId { index: join(number, offset), generation: *generation }, value))
                }
                Entry::Vacant => None,
            })
        })
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        let (number, offset) = split(index);
        Some(&self.chunks.get(number)?.as_ref()?.entries[offset])
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let (number, offset) = split(index);
        Some(&mut self.chunks.get_mut(number)?.as_mut()?.entries[offset])
    }
}

impl<T> Default for ConnMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn conn(index: u32, generation: u32) -> ConnId {
        ConnId { index, generation }
    }

    #[test]
    fn an_entry_costs_its_generation_and_no_more() {
        assert_eq!(size_of::<Entry<[u64; 8]>>(), 72, "generation and mark share the alignment of T");
        assert_eq!(size_of::<Entry<(u32, bool)>>(), 12, "a value with a niche marks absence by itself");
    }

    #[test]
    fn another_generation_is_not_found() {
        let mut map = ConnMap::new();
        map.insert(conn(3, 1), "one");
        assert_eq!(map.get(conn(3, 2)), None);
        assert_eq!(map.get_mut(conn(3, 0)), None);
        assert_eq!(map.remove(conn(3, 2)), None);
        assert_eq!(map.get_by_index(3), Some((conn(3, 1), &"one")));
        assert_eq!(map.get_mut_by_index(3), Some((conn(3, 1), &mut "one")));
        assert_eq!(map.remove(conn(3, 1)), Some("one"));
        map.insert(conn(3, 2), "two");
        assert_eq!(map.get(conn(3, 2)), Some(&"two"));
        assert_eq!((map.get_by_index(4), map.get_by_index(u32::MAX)), (None, None));
    }

    #[test]
    #[should_panic(expected = "still in use")]
    fn an_index_in_use_is_refused() {
        let mut map = ConnMap::new();
        map.insert(conn(0, 0), ());
        map.insert(conn(0, 1), ());
    }

    #[test]
    fn memory_follows_the_indexes_in_use() {
        let chunks = |map: &ConnMap<u32>| map.chunks.iter().flatten().count();
        let mut map = ConnMap::new();
        map.insert(conn(500_000, 0), 0);
        assert_eq!(chunks(&map), 1, "lower indexes cost nothing");
        for index in 0..10_240 {
            map.insert(conn(index, 0), index);
        }
        assert_eq!(chunks(&map), 11);
        for index in 0..10_240 {
            map.remove(conn(index, 0));
        }
        assert_eq!((chunks(&map), map.spare.is_some(), map.len()), (1, true, 1));
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(steps in prop::collection::vec((0u32..4_000, 0u32..3, any::<bool>()), 0..2_000)) {
            let mut map = ConnMap::new();
            let mut model = BTreeMap::new();
            for (step, (index, generation, insert)) in steps.into_iter().enumerate() {
                if insert && !model.contains_key(&index) {
                    map.insert(conn(index, generation), step);
                    model.insert(index, (generation, step));
                } else {
                    let wanted = model.get(&index).filter(|held| held.0 == generation).map(|held| held.1);
                    prop_assert_eq!(map.remove(conn(index, generation)), wanted);
                    if wanted.is_some() {
                        model.remove(&index);
                    }
                }
                prop_assert_eq!(map.len(), model.len());
            }
            let held = map.iter().map(|(conn, value)| (conn.index, (conn.generation, *value)));
            prop_assert!(held.eq(model));
        }
    }
}
