//! A pool whose entries may end early, so that nobody can keep a newcomer out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Entries that one newcomer may put an end to. If that is not enough room, it is refused.
const EVICTED_MAX: usize = 64;

/// Counts what each holder has of a pool in which an entry may be ended for another one, such as unfinished
/// handshakes.
///
/// - While there is room, a holder gets one part in `parts` of what is free, and a 4,096th of the total in
///   any case.
/// - A holder that would not have more than the holder with most gets more even so. If there is no room, the
///   oldest entry of the holder with most is evicted, 64 times at most (the longest queue drops: Wei, Coyle
///   and Hsiao, "An optimal buffer management policy for high-performance packet switching", 1991). Among
///   holders with equally much, the one with the oldest entry gives it up.
///
/// So a newcomer gets in however many holders there are, and no holder has more than one part in `parts + 1`
/// of the total. Each step takes logarithmic time.
#[derive(Debug)]
pub struct FairPool<K> {
    total_max: u64,
    parts: u64,
    held: u64,
    /// By the caller's number of the entry.
    entries: BTreeMap<u64, Entry<K>>,
    holders: BTreeMap<K, Holder>,
    /// Entries by holder and age.
    by_age: BTreeMap<(K, u64), u64>,
    /// Holders by what they have; of equals, the one with the oldest entry is last.
    by_most: BTreeSet<(u64, Reverse<u64>, K)>,
    /// The age of the next entry.
    next_age: u64,
    evicted: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    holder: K,
    weight: u64,
    /// A lower one is older.
    age: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Holder {
    held: u64,
    oldest: u64,
}

impl<K: Copy + Ord> FairPool<K> {
    /// A pool that nobody holds anything of.
    pub const fn new(total_max: u64, parts: u64) -> Self {
        Self {
            total_max,
            parts,
            held: 0,
            entries: BTreeMap::new(),
            holders: BTreeMap::new(),
            by_age: BTreeMap::new(),
            by_most: BTreeSet::new(),
            next_age: 0,
            evicted: Vec::new(),
        }
    }

    /// What all holders have together.
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// What an entry weighs; 0 if there is none.
    pub fn weight(&self, entry: u64) -> u64 {
        self.entries.get(&entry).map_or(0, |entry| entry.weight)
    }

    /// Sets what an entry weighs. An entry that grows keeps its age, so that drops of bytes do not make it
    /// young. False if there is no room; then there is no such entry any more. The caller ends the entries of
    /// [`FairPool::next_evicted`], whatever the outcome.
    pub fn set(&mut self, entry: u64, holder: K, weight: u64) -> bool {
        let is_same = |it: &Entry<K>| it.holder == holder && it.weight == weight;
        if self.entries.get(&entry).is_some_and(is_same) {
            return true;
        }
        let before = self.remove(entry);
        if weight == 0 {
            return true;
        }
        let age = before.map_or(self.next_age, |before| before.age);
        let is_less = before.is_some_and(|before| before.holder == holder && weight < before.weight);
        if !is_less && !self.make_room(holder, weight) {
            return false;
        }
        self.next_age += u64::from(age == self.next_age);
        self.insert(entry, Entry { holder, weight, age });
        true
    }

    /// Removes an entry that has ended; nothing happens if there is none.
    pub fn forget(&mut self, entry: u64) {
        self.remove(entry);
    }

    /// The next entry that was evicted.
    pub fn next_evicted(&mut self) -> Option<u64> {
        self.evicted.pop()
    }

    fn make_room(&mut self, holder: K, weight: u64) -> bool {
        let wanted = self.holders.get(&holder).map_or(0, |known| known.held) + weight;
        let share = ((self.total_max - self.held) / self.parts).max(self.total_max / 4096);
        if wanted <= share && self.held + weight <= self.total_max {
            return true;
        }
        if self.by_most.last().is_none_or(|(most, ..)| wanted > *most) {
            return false;
        }
        for _ in 0..EVICTED_MAX {
            if self.held + weight <= self.total_max {
                return true;
            }
            let Some((_, Reverse(oldest), greediest)) = self.by_most.last().copied() else { return false };
            let Some(evicted) = self.by_age.get(&(greediest, oldest)).copied() else { return false };
            self.remove(evicted);
            self.evicted.push(evicted);
        }
        self.held + weight <= self.total_max
    }

    fn insert(&mut self, entry: u64, it: Entry<K>) {
        self.held += it.weight;
        self.by_age.insert((it.holder, it.age), entry);
        self.entries.insert(entry, it);
        let before = self.holders.get(&it.holder).copied();
        let held = before.map_or(0, |before| before.held) + it.weight;
        self.rank(it.holder, held);
    }

    fn remove(&mut self, entry: u64) -> Option<Entry<K>> {
        let it = self.entries.remove(&entry)?;
        self.held -= it.weight;
        self.by_age.remove(&(it.holder, it.age));
        let held = self.holders.get(&it.holder).map_or(0, |known| known.held) - it.weight;
        self.rank(it.holder, held);
        Some(it)
    }

    /// A holder has so much; its entries are in `by_age`.
    fn rank(&mut self, holder: K, held: u64) {
        let oldest = self.by_age.range((holder, 0)..=(holder, u64::MAX)).next().map(|((_, age), _)| *age);
        let after = oldest.map(|oldest| Holder { held, oldest });
        let before = match after {
            Some(after) => self.holders.insert(holder, after),
            None => self.holders.remove(&holder),
        };
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.by_most.remove(&(before.held, Reverse(before.oldest), holder));
        }
        if let Some(after) = after {
            self.by_most.insert((after.held, Reverse(after.oldest), holder));
        }
    }

    /// Checks that the indexes agree.
    ///
    /// # Panics
    ///
    /// When they differ.
    pub fn check_invariants(&self) {
        for (entry, it) in &self.entries {
            assert_eq!(self.by_age.get(&(it.holder, it.age)), Some(entry), "an entry has its age");
        }
        assert_eq!(self.entries.len(), self.by_age.len(), "each age is that of an entry");
        for (holder, it) in &self.holders {
            assert!(self.by_most.contains(&(it.held, Reverse(it.oldest), *holder)), "a holder has its rank");
        }
        assert_eq!(self.holders.len(), self.by_most.len(), "each rank is that of a holder");
        assert_eq!(self.holders.values().map(|holder| holder.held).sum::<u64>(), self.held);
        assert_eq!(self.entries.values().map(|entry| entry.weight).sum::<u64>(), self.held);
        assert!(self.held <= self.total_max, "the total holds");
        assert!(self.evicted.is_empty(), "who was evicted has been told");
    }

    /// Its entries, each with its weight.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().map(|(entry, it)| (*entry, it.weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries that make place for a new one; `None` if it is refused.
    fn put(pool: &mut FairPool<u32>, entry: u64, holder: u32, weight: u64) -> Option<Vec<u64>> {
        let has_room = pool.set(entry, holder, weight);
        let evicted: Vec<u64> = std::iter::from_fn(|| pool.next_evicted()).collect();
        has_room.then_some(evicted)
    }

    #[test]
    fn one_holder_gets_a_part_and_no_more() {
        let mut pool = FairPool::new(4096, 8);
        let taken = (0..5_000).filter(|entry| put(&mut pool, *entry, 1, 1) == Some(vec![])).count();
        assert_eq!(taken, 455);
        assert_eq!(put(&mut pool, 9_000, 1, 1), None, "its own entries make no place for it");
        let taken = (10_000..15_000).filter(|entry| put(&mut pool, *entry, 2, 1) == Some(vec![])).count();
        assert_eq!(taken, 455, "another one gets as much");
    }

    /// Each of 5,000 takes all that it can get, and keeps it.
    #[test]
    fn however_many_hold_all_of_it_a_newcomer_gets_in() {
        let mut pool = FairPool::new(4096, 8);
        let mut entry = 0;
        for holder in 0..5_000 {
            for _ in 0..500 {
                put(&mut pool, entry, holder, 1);
                entry += 1;
            }
        }
        assert_eq!(pool.held(), 4096);
        let evicted = put(&mut pool, entry, 9_999, 1);
        assert_eq!(evicted.map(|evicted| evicted.len()), Some(1));
        assert_eq!(put(&mut pool, entry + 1, 9_999, 1), None, "nobody has more than one");
        assert_eq!(pool.held(), 4096);
    }

    #[test]
    fn the_oldest_of_the_one_with_most_makes_place() {
        let mut pool = FairPool::new(18, 1);
        for (entry, holder) in [(0, 7), (1, 8), (2, 8), (3, 7), (4, 8), (5, 9)] {
            assert_eq!(put(&mut pool, entry, holder, 2), Some(vec![]));
        }
        for (entry, holder, weight) in [(1, 8, 3), (6, 10, 3), (10, 13, 2)] {
            assert_eq!(put(&mut pool, entry, holder, weight), Some(vec![]));
        }
        assert_eq!(put(&mut pool, 7, 11, 2), Some(vec![1]), "it grew and is the oldest all the same");
        assert_eq!(
            put(&mut pool, 8, 12, 2),
            Some(vec![0]),
            "of 7 and 8, which have 4 each, 7 was there first"
        );
        assert_eq!(put(&mut pool, 9, 8, 1), None, "it would have most");
        pool.forget(6);
        let left = [(2, 2), (3, 2), (4, 2), (5, 2), (7, 2), (8, 2), (10, 2)];
        assert!(pool.iter().eq(left));
        pool.check_invariants();
    }

    #[test]
    fn few_make_place_at_once() {
        let mut pool = FairPool::new(1024, 1);
        (0..512).for_each(|entry| assert!(pool.set(entry, 1, 1)));
        (512..1024).for_each(|entry| assert!(pool.set(entry, 2, 1)));
        assert!(!pool.set(2_000, 3, 400), "it would end 400");
        assert_eq!(std::iter::from_fn(|| pool.next_evicted()).count(), EVICTED_MAX);
    }

    /// Against a list that is searched.
    #[test]
    fn the_indexes_agree_with_the_entries() {
        let mut prng = crate::Prng::new(5);
        let (mut pool, mut known) = (FairPool::new(200, 8), BTreeMap::new());
        for step in 0..20_000 {
            let (entry, weight) = (prng.below(60), prng.below(9));
            let holder = known.get(&entry).map_or(prng.below(12) as u32, |(holder, _)| *holder);
            known.remove(&entry);
            if pool.set(entry, holder, weight) && weight > 0 {
                known.insert(entry, (holder, weight));
            }
            while let Some(evicted) = pool.next_evicted() {
                assert!(known.remove(&evicted).is_some(), "step {step}");
            }
            assert!(pool.iter().eq(known.iter().map(|(entry, (_, weight))| (*entry, *weight))));
            pool.check_invariants();
        }
    }
}
