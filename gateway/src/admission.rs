//! Who may come in.

use std::net::IpAddr;

use edge::share_of;
use hashbrown::HashTable;

use crate::hash;

/// Counts connections per address; the IPv6 addresses of one site are one ([`share_of`]).
pub(crate) struct Addresses {
    seed: u64,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

/// An address that has connections; held by each of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct AddressId(u32);

impl AddressId {
    /// Unique among the addresses that have connections; used again for others later.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

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
        let address = share_of(address);
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
}
