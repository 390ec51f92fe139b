//! Longer timeouts for peers whose sessions end again and again while their processes live on.
//!
//! Such a peer is late, not gone. A new session costs both ends more than to wait, because a gateway
//! announces everything again. So its timeout doubles with each session, as TCP's retransmission timeout does
//! (RFC 6298, section 5.5), until one session lasts. Both ends count the same sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use shard::{Instant, ShardId};
use wire::node::link::Identity;

/// A session that lasts this long resets the count.
const CALM: Duration = Duration::from_secs(60);
/// Sessions of one life that may begin before the timeout grows: one fault is no flapping.
const SESSIONS_FREE: u32 = 2;
/// How often the timeout doubles at most.
const DOUBLINGS_MAX: u32 = 3;

/// What is known of each shard that has linked of late.
#[derive(Default)]
pub(crate) struct Flaps(BTreeMap<ShardId, Flap>);

struct Flap {
    incarnation: u64,
    /// Sessions in a row that did not last.
    sessions: u32,
    last_began: Instant,
}

impl Flaps {
    /// Counts a session that begins. Returns the factor of its timeout.
    pub(crate) fn begins(&mut self, now: Instant, identity: Identity) -> u32 {
        self.0.retain(|_, flap| now.since(flap.last_began) < CALM);
        let Identity { shard, incarnation, .. } = identity;
        let fresh = Flap { incarnation, sessions: 0, last_began: now };
        let flap = self.0.entry(ShardId::from_u32(shard)).or_insert(fresh);
        if flap.incarnation != incarnation {
            (flap.incarnation, flap.sessions) = (incarnation, 0);
        }
        flap.sessions = flap.sessions.saturating_add(1);
        flap.last_began = now;
        1 << flap.sessions.saturating_sub(SESSIONS_FREE).min(DOUBLINGS_MAX)
    }
}

/// What is left of `factor` in a session that began at `since`.
pub(crate) fn patience(factor: u32, since: Instant, now: Instant) -> u32 {
    if now.since(since) < CALM { factor } else { 1 }
}
