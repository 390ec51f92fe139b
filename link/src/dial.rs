//! The connections that this shard opens: one to each shard of each node that it is given.

use std::net::SocketAddr;
use std::time::Duration;

use shard::{ConnId, Instant, Prng, ShardId};
use wire::node::link::Role;

use crate::limits::{BACK_OFF, BACK_OFF_MAX};

/// The shards to be linked with.
#[derive(Default)]
pub(crate) struct Dials {
    dials: Vec<Dial>,
    /// The token of the last one.
    last: u64,
}

impl Dials {
    pub(crate) fn is_empty(&self) -> bool {
        self.dials.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.dials.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Dial> {
        self.dials.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Dial> {
        self.dials.iter_mut()
    }

    pub(crate) fn find_mut(&mut self, token: u64) -> Option<&mut Dial> {
        self.dials.iter_mut().find(|dial| dial.token == token)
    }

    /// Sets the nodes of a role, by the link addresses of their shards 0.
    pub(crate) fn set_nodes(&mut self, role: Role, nodes: &[SocketAddr]) {
        self.dials.retain(|dial| dial.role != role || nodes.contains(&dial.node));
        for node in nodes {
            if !self.dials.iter().any(|dial| (dial.role, dial.node) == (role, *node)) {
                self.add(role, *node, 0);
            }
        }
    }

    /// Notes that a shard answered a dial. All `shards` shards of its node are to be linked too. Returns the
    /// dial if it is still wanted.
    pub(crate) fn answered(&mut self, token: u64, shard: ShardId, shards: u16) -> Option<&mut Dial> {
        let dial = self.find_mut(token)?;
        dial.peer = Some(shard);
        let (role, node) = (dial.role, dial.node);
        self.dials.retain(|dial| (dial.role, dial.node) != (role, node) || dial.index < shards.max(1));
        for index in 1..shards {
            if !self.dials.iter().any(|dial| (dial.role, dial.node, dial.index) == (role, node, index)) {
                self.add(role, node, index);
            }
        }
        self.find_mut(token)
    }

    fn add(&mut self, role: Role, node: SocketAddr, index: u16) {
        self.last += 1;
        self.dials.push(Dial::new(self.last, role, node, index));
    }
}

/// A shard to be linked with.
pub(crate) struct Dial {
    /// Names it in a connect.
    pub(crate) token: u64,
    /// The role that it must have.
    pub(crate) role: Role,
    /// The link address of its node's shard 0; that of shard `index` is `index` ports higher.
    pub(crate) node: SocketAddr,
    pub(crate) index: u16,
    pub(crate) state: State,
    /// The shard that answered there last.
    pub(crate) peer: Option<ShardId>,
    /// Failures since the last success.
    pub(crate) tries: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Waiting { until: Instant },
    Connecting,
    Open(ConnId),
}

impl Dial {
    fn new(token: u64, role: Role, node: SocketAddr, index: u16) -> Self {
        let state = State::Waiting { until: Instant::default() };
        Self { token, role, node, index, state, peer: None, tries: 0 }
    }

    /// The address to connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.node.ip(), self.node.port().wrapping_add(self.index))
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    /// Notes that the connection failed or has ended, and plans the next try.
    pub(crate) fn fail(&mut self, now: Instant, prng: &mut Prng) {
        let wait = (BACK_OFF * (1 << self.tries.min(8))).min(BACK_OFF_MAX);
        let jitter = prng.below(wait.as_nanos() as u64 / 2 + 1);
        self.tries = self.tries.saturating_add(1);
        self.state = State::Waiting { until: now + wait + Duration::from_nanos(jitter) };
    }
}
