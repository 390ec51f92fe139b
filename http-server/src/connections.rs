//! Which connections are open, and which one goes for another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::connection::Connection;
use crate::limits::Limits;
use crate::stats::Refusal;

/// Which connections are open: at most so many in all, and from one address.
pub struct Connections {
    connections_max: usize,
    address_connections_max: usize,
    open: BTreeMap<u64, Arc<Connection>>,
    /// How many of them are from an address.
    by_address: HashMap<IpAddr, usize>,
    next_id: u64,
}

/// What becomes of a connection that comes.
pub enum Admission {
    /// It is let in.
    Free(Arc<Connection>),
    /// It is let in once another one, which waits for its caller, has gone.
    InsteadOf(Arc<Connection>),
    /// It is not.
    Refused(Refusal),
}

impl Connections {
    pub fn new(limits: &Limits) -> Self {
        Self {
            connections_max: limits.connections_max as usize,
            address_connections_max: limits.address_connections_max as usize,
            open: BTreeMap::new(),
            by_address: HashMap::new(),
            next_id: 0,
        }
    }

    /// Lets a connection from `address` in if there is room, or if one can go for it: of the same address if
    /// that has its share, else of the address that has most. A proxy has no share of its own. Who waits for
    /// a turn goes for others only.
    pub fn admit(&mut self, address: IpAddr, is_proxy: bool, now: Instant) -> Admission {
        let (refusal, old) = if !is_proxy && self.of(address) >= self.address_connections_max {
            (
                Refusal::AddressConnections,
                self.waiting(|connection| connection.address == address && !connection.is_in_queue()),
            )
        } else if self.open.len() >= self.connections_max {
            (Refusal::Connections, self.waiting(|_| true))
        } else {
            return Admission::Free(self.insert(address, now));
        };
        old.map_or(Admission::Refused(refusal), Admission::InsteadOf)
    }

    /// Forgets a connection that has gone.
    pub fn remove(&mut self, id: u64) {
        let Some(connection) = self.open.remove(&id) else { return };
        if let Some(count) = self.by_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&connection.address);
            }
        }
    }

    pub fn count(&self) -> usize {
        self.open.len()
    }

    fn insert(&mut self, address: IpAddr, now: Instant) -> Arc<Connection> {
        let connection = Arc::new(Connection::new(self.next_id, address, now));
        self.next_id += 1;
        self.open.insert(connection.id, connection.clone());
        *self.by_address.entry(address).or_default() += 1;
        connection
    }

    fn of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).copied().unwrap_or_default()
    }

    /// The connection that is the least loss: of the address that has most, one that has not asked yet before
    /// one that may ask again, and the oldest of these. None that is at work.
    fn waiting(&self, is_eligible: impl Fn(&Connection) -> bool) -> Option<Arc<Connection>> {
        let eligible = self.open.values().filter(|connection| is_eligible(connection));
        let ranked = eligible.filter_map(|connection| {
            let (rank, since) = connection.waits()?;
            Some(((Reverse(self.of(connection.address)), rank, since, connection.id), connection))
        });
        ranked.min_by_key(|(key, _)| *key).map(|(_, connection)| connection.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
    const FEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));

    fn connections(connections_max: u32, address_connections_max: u32) -> Connections {
        Connections::new(&Limits { connections_max, address_connections_max, ..Limits::default() })
    }

    fn free(connections: &mut Connections, address: IpAddr, at: Instant) -> Arc<Connection> {
        match connections.admit(address, false, at) {
            Admission::Free(connection) => connection,
            Admission::InsteadOf(old) => panic!("instead of {}", old.id),
            Admission::Refused(_) => panic!("refused"),
        }
    }

    fn instead_of(connections: &mut Connections, address: IpAddr, at: Instant) -> Option<u64> {
        match connections.admit(address, false, at) {
            Admission::Free(_) => panic!("there is room"),
            Admission::InsteadOf(old) => {
                connections.remove(old.id);
                free(connections, address, at);
                Some(old.id)
            }
            Admission::Refused(_) => None,
        }
    }

    #[test]
    fn an_address_past_its_share_loses_its_own_oldest() {
        let (mut all, start) = (connections(10, 2), Instant::now());
        let other = free(&mut all, FEW, start);
        let first = free(&mut all, MANY, start + Duration::from_secs(1));
        let second = free(&mut all, MANY, start + Duration::from_secs(2));
        assert_eq!(instead_of(&mut all, MANY, start), Some(first.id));
        second.asked(false);
        assert_eq!(instead_of(&mut all, MANY, start), Some(other.id + 3));
        assert_eq!(all.count(), 3);
    }

    #[test]
    fn when_all_is_full_the_address_with_most_loses_one() {
        let (mut all, start) = (connections(4, 4), Instant::now());
        free(&mut all, FEW, start);
        let many: Vec<_> = (0..3).map(|_| free(&mut all, MANY, start)).collect();
        assert_eq!(instead_of(&mut all, OTHER, start), Some(many[0].id));
        assert_eq!(all.of(MANY), 2);
    }

    #[test]
    fn who_has_not_asked_goes_before_who_may_ask_again_and_nobody_at_work() {
        let (mut all, start) = (connections(3, 3), Instant::now());
        let [idle, silent, busy] = [0, 1, 2].map(|_| free(&mut all, MANY, start));
        busy.asked(false);
        idle.asked(false);
        idle.answers();
        idle.answer_ended();
        idle.flushed();
        assert_eq!(instead_of(&mut all, FEW, start), Some(silent.id));
        assert_eq!(instead_of(&mut all, FEW, start + Duration::from_secs(9)), Some(idle.id));
        let new: Vec<_> = all.open.values().cloned().collect();
        new.iter().for_each(|connection| connection.asked(false));
        assert_eq!(instead_of(&mut all, FEW, start), None);
        all.remove(busy.id);
        free(&mut all, FEW, start);
    }

    #[test]
    fn who_waits_for_a_turn_goes_for_other_addresses_only() {
        let (mut all, start) = (connections(2, 2), Instant::now());
        let queued = [0, 1].map(|_| free(&mut all, MANY, start));
        queued.iter().for_each(|connection| {
            connection.asked(false);
            connection.queues();
        });
        assert!(matches!(all.admit(MANY, false, start), Admission::Refused(Refusal::AddressConnections)));
        assert_eq!(instead_of(&mut all, FEW, start), Some(queued[0].id));
    }

    #[test]
    fn a_proxy_may_have_all_there_is() {
        let (mut all, start) = (connections(3, 1), Instant::now());
        for _ in 0..3 {
            assert!(matches!(all.admit(MANY, true, start), Admission::Free(_)));
        }
        assert!(matches!(all.admit(FEW, false, start), Admission::InsteadOf(_)));
    }
}
