//! What the log tells of a node's links: who came and went, and who was refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use node::{Peer, ShardMetrics};
use shard::ShardId;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};
use wire::node::link::Refusal;

use super::Role;
use crate::control::Shards;

/// How often the links are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a node may take to find a router, at its start or after it has lost all, before the log says so.
const ALONE_TIME: Duration = Duration::from_secs(10);
/// How often refused links are logged at most; each line has the totals.
const REFUSED_EVERY: Duration = Duration::from_secs(60);

/// Looks at the links of a node for as long as it lives.
pub async fn links(shards: Arc<Shards>) {
    if shards.role() == Role::Up {
        return;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut linked, mut refused) = (Linked::default(), Refused::default());
    let wants_routers = matches!(shards.role(), Role::Gateway | Role::Bridge);
    let mut alone = Alone::new(Instant::now());
    loop {
        ticks.tick().await;
        linked.look(&shards.peers().await);
        if wants_routers && !shards.is_draining() {
            alone.look(Instant::now(), linked.owners.is_empty());
        }
        refused.look(Instant::now(), totals(&shards.metrics().await));
    }
}

/// Whether routers are there.
struct Alone {
    /// When the next line may say that none is.
    warn_from: Instant,
    is_told: bool,
}

impl Alone {
    fn new(now: Instant) -> Self {
        Self { warn_from: now + ALONE_TIME, is_told: false }
    }

    /// Logs that no router is there, once a minute while that lasts, and that it is over; answers whether it
    /// did.
    fn look(&mut self, now: Instant, is_alone: bool) -> bool {
        if !is_alone {
            self.warn_from = now + ALONE_TIME;
            if std::mem::take(&mut self.is_told) {
                info!("a router is linked: users can log in and are sent what is for them");
                return true;
            }
            return false;
        }
        if now < self.warn_from {
            return false;
        }
        warn!(
            "no router is linked, so nobody can log in or be sent anything: are they running, where cluster.routers says?"
        );
        (self.warn_from, self.is_told) = (now + REFUSED_EVERY, true);
        true
    }
}

/// The shards of other nodes.
#[derive(Default)]
struct Linked {
    /// Each with the life of its process.
    peers: BTreeSet<(ShardId, u64)>,
    owners: BTreeSet<ShardId>,
}

impl Linked {
    /// Logs what has changed. A shard that does not answer hides nobody: the others have the same links.
    fn look(&mut self, of_shards: &[(ShardId, Vec<Peer>)]) {
        let peers = || of_shards.iter().flat_map(|(_, peers)| peers);
        let seen = Self {
            peers: peers().map(|peer| (peer.info.shard, peer.info.incarnation)).collect(),
            owners: peers().filter(|peer| peer.is_owner).map(|peer| peer.info.shard).collect(),
        };
        if seen.peers != self.peers || seen.owners != self.owners {
            info!(
                linked = seen.peers.len(),
                gained = seen.peers.difference(&self.peers).count(),
                lost = self.peers.difference(&seen.peers).count(),
                owners = seen.owners.len(),
                owners_gained = seen.owners.difference(&self.owners).count(),
                owners_lost = self.owners.difference(&seen.owners).count(),
                "the shards of other nodes have changed"
            );
        }
        *self = seen;
    }
}

/// Links that were refused, in the order of [`Refusal::ALL`].
type Totals = [u64; Refusal::ALL.len()];

#[derive(Default)]
struct Refused {
    logged: Totals,
    /// When the next line may be written.
    log_from: Option<Instant>,
}

impl Refused {
    /// Logs what no line has told yet, when that is due; answers whether it did.
    fn look(&mut self, now: Instant, totals: Totals) -> bool {
        let new: u64 =
            totals.iter().zip(self.logged).map(|(total, logged)| total.saturating_sub(logged)).sum();
        if new == 0 || self.log_from.is_some_and(|from| now < from) {
            return false;
        }
        let reasons = Refusal::ALL.into_iter().zip(totals).filter(|(_, total)| *total > 0);
        let reasons: Vec<String> =
            reasons.map(|(reason, total)| format!("{} {total}", reason.name())).collect();
        let grown = Refusal::ALL.into_iter().zip(totals.iter().zip(self.logged));
        let grown = grown.filter(|(_, (total, logged))| **total > *logged).map(|(reason, _)| remedy(reason));
        let remedies: Vec<&str> = grown.collect();
        warn!(
            new,
            refused_total = reasons.join(", "),
            "links were refused, by this node or the other: {}",
            remedies.join("; ")
        );
        self.logged = totals;
        self.log_from = Some(now + REFUSED_EVERY);
        true
    }
}

/// What to look at.
const fn remedy(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Secret => "secret: cluster.secret is not the same on both",
        Refusal::Version => "version: the nodes are of different versions",
        Refusal::BadFrame | Refusal::TooLong => {
            "bad_frame, too_long: what is at the other end is no node; look at cluster.routers"
        }
        Refusal::BadBatch => "bad_batch: a batch was corrupted on its way, or the other node is broken",
        Refusal::Identity | Refusal::BadMessage | Refusal::Flood => {
            "identity, bad_message, flood: the other node says what no node says; it is broken"
        }
        Refusal::Late => "late: the other end does not answer",
        Refusal::Stale => {
            "stale: a node that started later has the same cluster.node, or one router stands twice in cluster.routers"
        }
        Refusal::Role => {
            "role: the other end is no router or no bridge; look at cluster.routers and cluster.bridges"
        }
    }
}

/// The sum over all shards.
fn totals(metrics: &[Option<Box<ShardMetrics>>]) -> Totals {
    let mut totals = Totals::default();
    for links in metrics.iter().flatten().filter_map(|shard| shard.links.as_ref()) {
        totals.iter_mut().zip(links.refused).for_each(|(total, count)| *total += count);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_not_warned_of_and_an_end_of_loneliness_is_told() {
        let start = Instant::now();
        let mut alone = Alone::new(start);
        assert!(!alone.look(start, true), "it has just started");
        assert!(!alone.look(start + Duration::from_secs(1), false), "nothing was said");
        let lost = start + Duration::from_secs(60);
        assert!(!alone.look(lost, false));
        let at = |after: Duration| lost + after;
        assert!(!alone.look(at(ALONE_TIME / 2), true), "a moment without any");
        assert!(alone.look(at(ALONE_TIME), true));
        assert!(!alone.look(at(ALONE_TIME * 2), true), "once a minute");
        assert!(alone.look(at(ALONE_TIME + REFUSED_EVERY), true));
        assert!(alone.look(at(REFUSED_EVERY * 2), false), "it is over");
        assert!(!alone.look(at(REFUSED_EVERY * 2), false));
    }

    #[test]
    fn refused_links_are_logged_at_most_once_a_minute() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        let mut totals = Totals::default();
        assert!(!refused.look(start, totals), "nothing was refused");
        totals[0] = 2;
        assert!(refused.look(start, totals));
        totals[1] = 1;
        assert!(!refused.look(start + REFUSED_EVERY - Duration::from_secs(1), totals));
        assert!(refused.look(start + REFUSED_EVERY, totals));
        assert!(!refused.look(start + 2 * REFUSED_EVERY, totals), "nothing more was refused");
    }
}
