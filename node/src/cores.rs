//! The cores of a shard, and which of them each event of a connection is for.

use std::net::IpAddr;

use gateway::Gateway;
use link::Links;
use router::Router;
use shard::{Clocks, ConnId, Instant, SendBatch, ShardId};
use wire::node::link::Role;

/// The cores of a shard. Which of them it has decides the role of its node.
#[expect(clippy::large_enum_variant, reason = "there is one for each shard, and it is not moved")]
pub enum Cores {
    /// A node by itself: it has clients and owns users and rooms.
    Alone {
        /// Every connection is one of its clients.
        gateway: Gateway,
        /// Owns users and rooms, with its siblings.
        router: Router,
    },
    /// It has clients.
    Gateway {
        /// Every connection that it accepts is one of its clients.
        gateway: Gateway,
        /// To routers and bridges. Every connection that it opens is one of these.
        links: Links,
    },
    /// It owns users and rooms.
    Router {
        /// Owns users and rooms, with all other routers.
        router: Router,
        /// To gateways and bridges. Every connection is one of these.
        links: Links,
    },
    /// It takes events for the backend, and sends the backend's pushes.
    Bridge {
        /// Has no clients: it sends what is pushed.
        gateway: Gateway,
        /// To gateways and routers. Every connection is one of these.
        links: Links,
    },
}

/// The core that a connection belongs to.
enum Party<'a> {
    Links(&'a mut Links),
    Gateway(&'a mut Gateway),
}

impl Cores {
    /// The gateway core, if there is one.
    pub fn gateway(&self) -> Option<&Gateway> {
        match self {
            Self::Alone { gateway, .. } | Self::Gateway { gateway, .. } | Self::Bridge { gateway, .. } => {
                Some(gateway)
            }
            Self::Router { .. } => None,
        }
    }

    /// The router core, if there is one.
    pub fn router(&self) -> Option<&Router> {
        match self {
            Self::Alone { router, .. } | Self::Router { router, .. } => Some(router),
            Self::Gateway { .. } | Self::Bridge { .. } => None,
        }
    }

    /// The links, if there are any.
    pub fn links(&self) -> Option<&Links> {
        match self {
            Self::Gateway { links, .. } | Self::Router { links, .. } | Self::Bridge { links, .. } => {
                Some(links)
            }
            Self::Alone { .. } => None,
        }
    }

    pub(crate) fn gateway_mut(&mut self) -> Option<&mut Gateway> {
        match self {
            Self::Alone { gateway, .. } | Self::Gateway { gateway, .. } | Self::Bridge { gateway, .. } => {
                Some(gateway)
            }
            Self::Router { .. } => None,
        }
    }

    pub(crate) fn router_mut(&mut self) -> Option<&mut Router> {
        match self {
            Self::Alone { router, .. } | Self::Router { router, .. } => Some(router),
            Self::Gateway { .. } | Self::Bridge { .. } => None,
        }
    }

    pub(crate) fn links_mut(&mut self) -> Option<&mut Links> {
        match self {
            Self::Gateway { links, .. } | Self::Router { links, .. } | Self::Bridge { links, .. } => {
                Some(links)
            }
            Self::Alone { .. } => None,
        }
    }

    pub(crate) fn is_bridge(&self) -> bool {
        matches!(self, Self::Bridge { .. })
    }

    /// A node by itself knows all its shards from the start.
    pub(crate) fn begin(&mut self, now: Instant, id: ShardId, shards: u16) {
        let Self::Alone { gateway, router } = self else { return };
        let all = || (0..shards).map(|index| ShardId::new(id.node(), index));
        all().for_each(|shard| router.gateway_up(now, shard, shards, true, 0));
        all().for_each(|shard| gateway.router_up(now, shard));
        gateway.begin(now);
    }

    /// A peer is gone, with what it knew.
    pub(crate) fn down(&mut self, now: Instant, peer: ShardId) {
        match self {
            Self::Router { router, .. } => router.gateway_down(now, peer),
            Self::Gateway { gateway, .. } | Self::Bridge { gateway, .. } => gateway.router_down(now, peer),
            Self::Alone { .. } => {} // it has no peers
        }
    }

    /// Tells clients, or gateways, to go elsewhere.
    pub(crate) fn leave(&mut self, now: Instant) {
        match self {
            Self::Alone { gateway, .. } | Self::Gateway { gateway, .. } | Self::Bridge { gateway, .. } => {
                gateway.drain(now);
            }
            Self::Router { router, .. } => router.leave(now),
        }
    }

    /// Whether all clients, or gateways, have gone elsewhere.
    pub(crate) fn has_left(&self) -> bool {
        match self {
            Self::Alone { gateway, .. } | Self::Gateway { gateway, .. } | Self::Bridge { gateway, .. } => {
                gateway.is_drained()
            }
            Self::Router { router, .. } => router.has_left(),
        }
    }

    /// Has the cores report to the bridge again where everybody is, by [`Cores::retell`].
    pub(crate) fn begin_retelling(&mut self) {
        self.router_mut().into_iter().for_each(Router::begin_retelling);
        self.gateway_mut().into_iter().for_each(Gateway::begin_retelling);
    }

    /// Reports some of that to the bridge again. Returns whether there was anything to report.
    pub(crate) fn retell(&mut self, step: usize) -> bool {
        self.router_mut().is_some_and(|router| router.retell(step))
            || self.gateway_mut().is_some_and(|gateway| gateway.retell(step))
    }

    pub(crate) fn set_clocks(&mut self, clocks: Clocks) {
        if let Some(router) = self.router_mut() {
            router.set_clocks(clocks);
        }
        if let Some(gateway) = self.gateway_mut() {
            gateway.set_clocks(clocks);
        }
    }

    /// Links are judged as ever: a peer that is given up too early comes back, and nothing is lost.
    pub(crate) fn set_input_waits(&mut self, waits: bool) {
        if let Some(gateway) = self.gateway_mut() {
            gateway.set_input_waits(waits);
        }
    }

    /// Sessions are announced to a router only as fast as the link to it takes them.
    pub(crate) fn spare_slow_routers(&mut self) {
        let (Self::Gateway { gateway, links } | Self::Bridge { gateway, links }) = self else { return };
        if gateway.is_announcing() {
            let slow = gateway.routers().filter(|router| links.is_slow(*router)).collect();
            gateway.set_slow(slow);
        }
    }

    pub(crate) fn accepted(&mut self, now: Instant, conn: ConnId, peer: IpAddr, listener: u16) {
        match self {
            Self::Alone { gateway, .. } | Self::Gateway { gateway, .. } => {
                gateway.accepted(now, conn, peer, listener);
            }
            Self::Router { links, .. } | Self::Bridge { links, .. } => links.accepted(now, conn, peer),
        }
    }

    pub(crate) fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        match self.party(conn) {
            Party::Links(links) => links.received(now, conn, bytes),
            Party::Gateway(gateway) => gateway.received(now, conn, bytes),
        }
    }

    pub(crate) fn sent(&mut self, conn: ConnId) {
        match self.party(conn) {
            Party::Links(links) => links.sent(conn),
            Party::Gateway(gateway) => gateway.sent(conn),
        }
    }

    pub(crate) fn finished(&mut self, conn: ConnId) {
        match self.party(conn) {
            Party::Links(links) => links.finished(conn),
            Party::Gateway(gateway) => gateway.finished(conn),
        }
    }

    pub(crate) fn closed(&mut self, now: Instant, conn: ConnId) {
        match self.party(conn) {
            Party::Links(links) => links.closed(now, conn),
            Party::Gateway(gateway) => gateway.closed(conn),
        }
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, conn: ConnId, batch: &mut SendBatch) {
        match self.party(conn) {
            Party::Links(links) => links.poll_transmit(now, conn, batch),
            Party::Gateway(gateway) => gateway.poll_transmit(now, conn, batch),
        }
    }

    /// Whether a full link makes clients wait. The links of a router or bridge are its clients: it takes what
    /// they send, and messages for which it has no room fail.
    pub(crate) fn is_pushed_back(&self) -> bool {
        matches!(self, Self::Gateway { links, .. } if links.is_pushed_back())
    }

    pub(crate) fn check_invariants(&self) {
        self.gateway().into_iter().for_each(Gateway::check_invariants);
        self.router().into_iter().for_each(Router::check_invariants);
        self.links().into_iter().for_each(Links::check_invariants);
        let role = match self {
            Self::Alone { .. } => None,
            Self::Gateway { .. } => Some(Role::Gateway),
            Self::Router { .. } => Some(Role::Router),
            Self::Bridge { .. } => Some(Role::Bridge),
        };
        assert_eq!(self.links().map(Links::role), role, "links say what the cores are");
    }

    fn party(&mut self, conn: ConnId) -> Party<'_> {
        match self {
            Self::Gateway { links, .. } if links.owns(conn) => Party::Links(links),
            Self::Alone { gateway, .. } | Self::Gateway { gateway, .. } => Party::Gateway(gateway),
            Self::Router { links, .. } | Self::Bridge { links, .. } => Party::Links(links),
        }
    }
}
