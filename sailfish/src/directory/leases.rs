//! Which nodes live, as far as their leases tell.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Binding, NodeInfo, RouterAddress};

/// How long a lease that was read is used for look-ups.
const FRESH: Duration = Duration::from_secs(1);
/// A node whose lease has been gone for this many leases is taken off the list.
const GONE_LEASES: u32 = 10;

/// The known leases of nodes.
pub struct Leases {
    nodes: BTreeMap<u16, Seen>,
    lease: Duration,
    /// Until then a missing lease is no sign of death.
    lenient_until: Option<Instant>,
}

struct Seen {
    node: Option<NodeInfo>,
    read_at: Instant,
    gone_since: Option<Instant>,
}

impl Leases {
    pub fn new(lease: Duration) -> Self {
        Self { nodes: BTreeMap::new(), lease, lenient_until: None }
    }

    /// Notes that the own lease has ended although this node lives: Redis stood still or lost its data, and
    /// so the leases of others have ended too. Nodes that were there stay until then, while the living ones
    /// renew their leases.
    pub fn be_lenient(&mut self, until: Instant) {
        self.lenient_until = Some(until);
    }

    /// Takes in a node's lease as read.
    pub fn read(&mut self, id: u16, node: Option<NodeInfo>, now: Instant) {
        let lenient = self.lenient_until.is_some_and(|until| now < until);
        let held = self.nodes.remove(&id);
        let seen = match (node, held) {
            (Some(node), _) => Seen { node: Some(node), read_at: now, gone_since: None },
            (None, Some(held)) if lenient && held.node.is_some() => Seen { read_at: now, ..held },
            (None, held) => {
                let gone_since = held.and_then(|held| held.gone_since).or(Some(now));
                Seen { node: None, read_at: now, gone_since }
            }
        };
        self.nodes.insert(id, seen);
    }

    /// The nodes whose leases are known.
    pub fn ids(&self) -> impl Iterator<Item = u16> {
        self.nodes.keys().copied()
    }

    /// Whether a look-up need not read this lease.
    pub fn is_fresh(&self, id: u16, now: Instant) -> bool {
        self.nodes.get(&id).is_some_and(|seen| now.saturating_duration_since(seen.read_at) < FRESH)
    }

    /// Whether the process of a binding still lives.
    pub fn holds(&self, binding: &Binding) -> bool {
        let seen = self.nodes.get(&binding.shard.node());
        let node = seen.and_then(|seen| seen.node.as_ref());
        node.is_some_and(|node| node.incarnation == binding.incarnation)
    }

    /// The living routers, by id.
    pub fn routers(&self) -> Vec<RouterAddress> {
        let living = self.nodes.values().filter_map(|seen| seen.node.as_ref());
        let routers = living.filter_map(|node| {
            let NodeInfo { id, incarnation, shards, links, .. } = *node;
            Some(RouterAddress { id, incarnation, shards, links: links? })
        });
        routers.collect()
    }

    /// Forgets nodes that have been gone for long, and returns them.
    pub fn forget_gone(&mut self, now: Instant) -> Vec<u16> {
        let long = self.lease * GONE_LEASES;
        let is_gone =
            |seen: &Seen| seen.gone_since.is_some_and(|since| now.saturating_duration_since(since) > long);
        let gone: Vec<u16> = self.nodes.iter().filter(|(_, seen)| is_gone(seen)).map(|(id, _)| *id).collect();
        for id in &gone {
            self.nodes.remove(id);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;

    const LEASE: Duration = Duration::from_secs(6);

    fn router(id: u16) -> Option<NodeInfo> {
        let address = ([127, 0, 0, 1], 1).into();
        let role = Role::Router;
        Some(NodeInfo {
            id,
            incarnation: 1,
            role,
            shards: 1,
            links: Some(address),
            clients: None,
            admin: address,
        })
    }

    fn ids(leases: &Leases) -> Vec<u16> {
        leases.routers().iter().map(|router| router.id).collect()
    }

    #[test]
    fn a_missing_lease_is_forgiven_only_when_all_may_be_missing() {
        let start = Instant::now();
        let mut leases = Leases::new(LEASE);
        leases.read(1, router(1), start);
        leases.read(2, router(2), start);
        leases.read(2, None, start);
        assert_eq!(ids(&leases), [1]);
        leases.be_lenient(start + LEASE);
        leases.read(1, None, start);
        leases.read(2, None, start);
        assert_eq!(ids(&leases), [1], "the dead do not rise");
        leases.read(1, None, start + LEASE);
        assert_eq!(ids(&leases), [0; 0]);
    }

    #[test]
    fn who_is_gone_for_long_is_forgotten() {
        let start = Instant::now();
        let mut leases = Leases::new(LEASE);
        leases.read(1, None, start);
        leases.read(2, router(2), start);
        leases.read(1, None, start + LEASE);
        assert_eq!(leases.forget_gone(start + LEASE * 10), [0; 0]);
        assert_eq!(leases.forget_gone(start + LEASE * 11), [1]);
        assert_eq!(leases.forget_gone(start + LEASE * 11), [0; 0]);
    }
}
