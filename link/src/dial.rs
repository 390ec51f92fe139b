//! The connections that this shard opens: one to each shard of each node it is told of.

use std::net::SocketAddr;
use std::time::Duration;

use shard::{ConnId, Instant, Prng, ShardId};
use wire::node::link::Role;

use crate::limits::{BACK_OFF, BACK_OFF_MAX};

/// A shard to be linked with.
pub(crate) struct Dial {
    /// Names it in a connect.
    pub(crate) token: u64,
    /// What it is to be.
    pub(crate) role: Role,
    /// Where shard 0 of its node takes links; shard `index` does at the port that many higher.
    pub(crate) node: SocketAddr,
    pub(crate) index: u16,
    pub(crate) state: State,
    /// Who answered there last.
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
    pub(crate) fn new(token: u64, role: Role, node: SocketAddr, index: u16) -> Self {
        let state = State::Waiting { until: Instant::default() };
        Self { token, role, node, index, state, peer: None, tries: 0 }
    }

    /// Where to connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.node.ip(), self.node.port().wrapping_add(self.index))
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if until <= now)
    }

    /// It did not come about, or has ended: again later.
    pub(crate) fn fail(&mut self, now: Instant, prng: &mut Prng) {
        let wait = (BACK_OFF * (1 << self.tries.min(8))).min(BACK_OFF_MAX);
        let jitter = prng.below(wait.as_nanos() as u64 / 2 + 1);
        self.tries += 1;
        self.state = State::Waiting { until: now + wait + Duration::from_nanos(jitter) };
    }
}
