//! Who holds how much of a pool.

use std::hash::{BuildHasher, Hash};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// A part of a pool: a number of entries, and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amount {
    /// Entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    /// Bounds the number of entries, of any size.
    pub const fn of_entries(entries: u64) -> Self {
        Self { entries, bytes: u64::MAX }
    }

    /// Whether one entry more, of that size, stays within `max`.
    pub const fn has_room(self, bytes: u64, max: Amount) -> bool {
        self.entries < max.entries && self.bytes.saturating_add(bytes) <= max.bytes
    }

    /// Whether it exceeds `times` times `other`, in entries or in bytes.
    const fn is_over(self, times: u64, other: Amount) -> bool {
        self.entries > other.entries.saturating_mul(times) || self.bytes > other.bytes.saturating_mul(times)
    }

    /// What remains without `taken`; an amount without a bound stays so.
    const fn less(self, taken: Amount) -> Amount {
        let bytes = if self.bytes == u64::MAX { u64::MAX } else { self.bytes.saturating_sub(taken.bytes) };
        Amount { entries: self.entries.saturating_sub(taken.entries), bytes }
    }

    /// Counts one entry more.
    pub const fn add(&mut self, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
    }

    /// The inverse of `add`.
    ///
    /// # Panics
    ///
    /// When less is held.
    pub const fn sub(&mut self, bytes: u64) {
        self.entries = self.entries.strict_sub(1);
        self.bytes = self.bytes.strict_sub(bytes);
    }
}

/// Counts what each holder has of a pool, so that none of them can fill it: a pool that many use has a total
/// and a share, and an entry must fit both. A holder that has over four times what is free gets no more
/// either. So many holders together leave a part of the pool to a newcomer: `n` that take what they can get
/// leave 1 part in `4 n + 1` (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
/// switches", 1998).
///
/// A holder without entries costs nothing. Hashes are seeded, so a peer that chooses its name cannot make
/// holders collide.
pub struct Shares<K> {
    hasher: SeedableRandomState,
    holders: HashTable<(K, Amount)>,
    held: Amount,
}

/// How many times what is free a holder may have and still get more.
const FREE_PARTS: u64 = 4;

impl<K: Copy + Eq + Hash> Shares<K> {
    /// A pool that nobody holds anything of.
    pub fn new(seed: u64) -> Self {
        let hasher = SeedableRandomState::with_seed(seed, SharedSeed::global_fixed());
        Self { hasher, holders: HashTable::new(), held: Amount::default() }
    }

    /// What all holders have together.
    pub fn held(&self) -> Amount {
        self.held
    }

    /// Counts one entry more for a holder; false, and nothing changes, if the pool's total or the holder's
    /// share has no room for it, or the holder has over four times what is free.
    pub fn take(&mut self, holder: K, bytes: u64, total_max: Amount, share_max: Amount) -> bool {
        if !self.held.has_room(bytes, total_max) {
            return false;
        }
        let free = total_max.less(self.held);
        let hasher = &self.hasher;
        let hash = hasher.hash_one(holder);
        match self.holders.entry(hash, |(known, _)| *known == holder, |(known, _)| hasher.hash_one(known)) {
            Entry::Occupied(mut known) => {
                let (_, its) = known.get_mut();
                if !its.has_room(bytes, share_max) || its.is_over(FREE_PARTS, free) {
                    return false;
                }
                its.add(bytes);
            }
            Entry::Vacant(vacant) => {
                if !Amount::default().has_room(bytes, share_max) {
                    return false;
                }
                vacant.insert((holder, Amount { entries: 1, bytes }));
            }
        }
        self.held.add(bytes);
        true
    }

    /// The inverse of `take`.
    ///
    /// # Panics
    ///
    /// When the holder has no such entry.
    pub fn give_back(&mut self, holder: K, bytes: u64) {
        let hash = self.hasher.hash_one(holder);
        let found = self.holders.find_entry(hash, |(known, _)| *known == holder);
        let mut found = found.ok().expect("a holder gives back what it took");
        let (_, its) = found.get_mut();
        its.sub(bytes);
        if its.entries == 0 {
            assert_eq!(its.bytes, 0, "a holder without entries has no bytes");
            found.remove();
        }
        self.held.sub(bytes);
    }

    /// Checks the counts against the pool itself, of which every entry is given with its holder and bytes.
    ///
    /// # Panics
    ///
    /// When they differ.
    pub fn check_invariants(&self, entries: impl Iterator<Item = (K, u64)>) {
        let mut counted =
            Self { hasher: self.hasher.clone(), holders: HashTable::new(), held: Amount::default() };
        let all = Amount::of_entries(u64::MAX);
        entries.for_each(|(holder, bytes)| assert!(counted.take(holder, bytes, all, all)));
        assert_eq!(self.held, counted.held, "the counts are those of the pool");
        assert_eq!(self.holders.len(), counted.holders.len(), "a holder without entries is forgotten");
        for (holder, its) in &counted.holders {
            let found = self.holders.find(self.hasher.hash_one(holder), |(known, _)| known == holder);
            assert_eq!(found.map(|(_, its)| its), Some(its), "a holder has what the pool has of it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: Amount = Amount { entries: 5, bytes: 1_000 };
    const SHARE: Amount = Amount { entries: 3, bytes: 500 };

    #[test]
    fn one_holder_gets_its_share_and_leaves_the_rest_to_others() {
        let mut shares = Shares::new(1);
        let taken = (0..10).filter(|_| shares.take("greedy", 10, TOTAL, SHARE)).count();
        assert_eq!(taken, 3);
        assert!(shares.take("other", 10, TOTAL, SHARE));
        shares.give_back("greedy", 10);
        assert!(shares.take("greedy", 10, TOTAL, SHARE), "what is given back can be taken again");
        shares.check_invariants([("greedy", 10), ("greedy", 10), ("greedy", 10), ("other", 10)].into_iter());
    }

    #[test]
    fn bytes_count_as_entries_do() {
        let mut shares = Shares::new(1);
        assert!(!shares.take(1, 501, TOTAL, SHARE), "more than a share");
        assert!(shares.take(1, 500, TOTAL, SHARE));
        assert!(!shares.take(1, 1, TOTAL, SHARE));
        assert!(shares.take(2, 500, TOTAL, SHARE));
        assert!(!shares.take(3, 1, TOTAL, SHARE), "the total is full");
        assert_eq!(shares.held(), Amount { entries: 2, bytes: 1_000 });
        shares.check_invariants([(1, 500), (2, 500)].into_iter());
    }

    #[test]
    fn many_holders_leave_a_part_to_whoever_comes() {
        let (total, share) = (Amount::of_entries(65_536), Amount::of_entries(4_096));
        for greedy in [16, 17, 100, 1_000] {
            let mut shares = Shares::new(1);
            for _ in 0..4_096 {
                (0..greedy).for_each(|holder| {
                    shares.take(holder, 0, total, share);
                });
            }
            let taken = (0..4_096).filter(|_| shares.take(greedy, 0, total, share)).count();
            assert!(taken as u64 >= 65_536 / (4 * greedy + 1) / 2, "{greedy} leave {taken} to another");
        }
    }

    #[test]
    fn the_total_bounds_many_holders_and_nobody_is_remembered_for_nothing() {
        let mut shares = Shares::new(1);
        let taken = (0..10).filter(|holder| shares.take(*holder, 0, TOTAL, SHARE)).count();
        assert_eq!(taken, 5);
        (0..5).for_each(|holder| shares.give_back(holder, 0));
        assert_eq!((shares.holders.len(), shares.held()), (0, Amount::default()));
    }

    #[test]
    #[should_panic(expected = "gives back what it took")]
    fn what_was_not_taken_cannot_be_given_back() {
        Shares::new(1).give_back(1, 0);
    }
}
