//! A shard at the other end, and the session with it.

use shard::{ConnId, Instant};
use wire::node::link::Identity;

use crate::flaps;
use crate::incoming::Backlog;
use crate::outgoing::Outgoing;

/// A peer that is up.
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    /// The session's name. The acceptor gives it; never 0.
    pub(crate) session: u64,
    /// The connection that carries the session at the moment.
    pub(crate) conn: Option<ConnId>,
    /// When it was last heard from.
    pub(crate) heard_at: Instant,
    /// When the session began.
    pub(crate) since: Instant,
    /// By which factor its timeout is longer, at first.
    pub(crate) patience: u32,
    pub(crate) outgoing: Outgoing,
    /// Whether the cores know that it is up. What they send before that is for its earlier session.
    pub(crate) is_told: bool,
    /// It is among those that the next flush writes to.
    pub(crate) is_waiting: bool,
    /// Whether its queue is full.
    pub(crate) is_full: bool,
    /// Batches that the cores have heard.
    pub(crate) received: u64,
    /// Bytes of these batches since the last credit.
    pub(crate) unsaid_bytes: usize,
    pub(crate) backlog: Backlog,
}

impl Peer {
    pub(crate) fn new(now: Instant, identity: Identity, session: u64, patience: u32) -> Self {
        Self {
            identity,
            session,
            conn: None,
            heard_at: now,
            since: now,
            patience,
            outgoing: Outgoing::default(),
            is_told: false,
            is_waiting: false,
            is_full: false,
            received: 0,
            unsaid_bytes: 0,
            backlog: Backlog::default(),
        }
    }

    /// By which factor its timeout is longer now.
    pub(crate) fn patience(&self, now: Instant) -> u32 {
        flaps::patience(self.patience, self.since, now)
    }
}
