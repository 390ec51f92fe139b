//! Who may come in, and how fast.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashTable;
use shard::Instant;

use crate::hash;

/// Counts connections per address.
pub(crate) struct Addresses {
    seed: u64,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

/// An address that has connections; held by each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AddressId(u32);

struct Entry {
    address: IpAddr,
    connections: u32,
}

impl Addresses {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, index: HashTable::new(), entries: Vec::new(), free: Vec::new() }
    }

    /// Counts a connection from `address`; answers how many there are, with it.
    pub(crate) fn enter(&mut self, address: IpAddr) -> (AddressId, u32) {
        let hash = hash::address(self.seed, address);
        let found = self.index.find(hash, |at| self.entries[*at as usize].address == address);
        if let Some(&at) = found {
            let entry = &mut self.entries[at as usize];
            entry.connections += 1;
            return (AddressId(at), entry.connections);
        }
        let entry = Entry { address, connections: 1 };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        let (entries, seed) = (&self.entries, self.seed);
        self.index.insert_unique(hash, at, |at| hash::address(seed, entries[*at as usize].address));
        (AddressId(at), 1)
    }

    /// The inverse of `enter`.
    pub(crate) fn exit(&mut self, id: AddressId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.connections -= 1;
        if entry.connections > 0 {
            return;
        }
        let hash = hash::address(self.seed, entry.address);
        self.index
            .find_entry(hash, |at| *at == id.0)
            .expect("an address with connections is indexed")
            .remove();
        self.free.push(id.0);
    }

    /// Connections of all addresses, for tests and simulation.
    pub(crate) fn connections(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.connections)).sum()
    }
}

/// A token bucket as one instant (the generic cell rate algorithm of ITU-T I.371): the time at which the bucket is
/// full again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bucket {
    full_at: Instant,
}

/// The rate and depth of buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    per_frame: Duration,
    depth: Duration,
}

impl Rate {
    /// `frames_per_second` sustained, `frames_burst` at once.
    pub(crate) fn new(frames_per_second: u32, frames_burst: u32) -> Self {
        let per_frame = Duration::from_secs(1) / frames_per_second;
        Self { per_frame, depth: per_frame * frames_burst }
    }
}

impl Bucket {
    /// Takes one token; false when there is none.
    pub(crate) fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let full_at = self.full_at.max(now) + rate.per_frame;
        if full_at.since(now) > rate.depth {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_forgotten_with_its_last_connection() {
        let mut addresses = Addresses::new(1);
        let [one, two]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
        let (first, count) = addresses.enter(one);
        assert_eq!(count, 1);
        assert_eq!(addresses.enter(one), (first, 2));
        assert_eq!(addresses.enter(two).1, 1);
        addresses.exit(first);
        assert_eq!(addresses.enter(one).1, 2);
        addresses.exit(first);
        addresses.exit(first);
        assert_eq!(addresses.enter(one).1, 1);
        assert_eq!(addresses.connections(), 2);
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        let mut now = Instant::from_unix_nanos(1_000_000_000_000);
        let taken = (0..20).filter(|_| bucket.take(now, rate)).count();
        assert_eq!(taken, 5);
        now += Duration::from_millis(99);
        assert!(!bucket.take(now, rate));
        now += Duration::from_millis(1);
        assert!(bucket.take(now, rate));
        assert!(!bucket.take(now, rate));
        now += Duration::from_secs(3_600);
        assert_eq!((0..20).filter(|_| bucket.take(now, rate)).count(), 5);
    }
}
