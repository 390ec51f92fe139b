//! Gateway shards whose link was lost, and which may come back with the sessions that they had.
//!
//! A lost link proves little: mostly one end was late, and both processes live on. So the sessions of the
//! shard stay bound for [`Limits::away_ms`](crate::Limits), and are away: no message goes to them and no
//! question finds them, but they are not reported offline. When the same life of the shard links again, it
//! gets the digests of its sessions here, says which ranges are unchanged, and announces the sessions of the
//! others. What it has not named by then has ended. Otherwise 350,000 sessions would be announced to a router
//! that was late, and make it late again.

use std::collections::BTreeMap;

use shard::{Instant, ShardId};

use crate::cluster::Cluster;
use crate::users::Users;

/// Gateway shards that were lost, or are back and have yet to say what they still have.
#[derive(Default)]
pub(crate) struct Away(BTreeMap<ShardId, Shard>);

/// A gateway shard whose sessions are away.
#[derive(Clone, Copy, Debug)]
struct Shard {
    /// Which life of its process.
    incarnation: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It is not linked, and may come back until then.
    Gone { until: Instant },
    /// It is linked, and the digests were sent to it.
    Asked,
    /// It has said which ranges are unchanged, and announces the rest.
    Announcing,
}

/// What is known of a gateway shard that is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Back {
    /// It may still have its sessions that are away.
    SameLife,
    /// Its sessions that are away have ended.
    NextLife,
    /// It has no sessions that are away.
    New,
}

impl Away {
    /// Keeps a lost gateway shard, which may come back until then.
    pub(crate) fn put(&mut self, shard: ShardId, incarnation: u64, until: Instant) {
        self.0.insert(shard, Shard { incarnation, state: State::Gone { until } });
    }

    /// Forgets a shard: none of its sessions are away any more.
    pub(crate) fn remove(&mut self, shard: ShardId) {
        self.0.remove(&shard);
    }

    /// Notes that a gateway shard is linked. In the same life it is asked which sessions it still has.
    pub(crate) fn back(&mut self, shard: ShardId, incarnation: u64) -> Back {
        match self.0.get_mut(&shard) {
            Some(away) if away.incarnation == incarnation => {
                away.state = State::Asked;
                Back::SameLife
            }
            Some(_) => Back::NextLife,
            None => Back::New,
        }
    }

    /// Notes that a gateway shard says what it still has; false if it was not asked.
    pub(crate) fn resume(&mut self, shard: ShardId) -> bool {
        let asked = self.0.get_mut(&shard).filter(|away| away.state == State::Asked);
        asked.map(|away| away.state = State::Announcing).is_some()
    }

    /// Whether a gateway shard is back and announces what has changed.
    pub(crate) fn is_announcing(&self, shard: ShardId) -> bool {
        self.0.get(&shard).is_some_and(|away| away.state == State::Announcing)
    }

    /// The life of a shard's process that has sessions away.
    pub(crate) fn incarnation(&self, shard: ShardId) -> Option<u64> {
        Some(self.0.get(&shard)?.incarnation)
    }

    /// All these shards, ascending.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.0.keys().copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of those that are not linked, the one whose time ends first.
    pub(crate) fn first_gone(&self) -> Option<(Instant, ShardId)> {
        let gone = self.0.iter().filter_map(|(shard, away)| match away.state {
            State::Gone { until } => Some((until, *shard)),
            State::Asked | State::Announcing => None,
        });
        gone.min()
    }

    pub(crate) fn check_invariants(&self, users: &Users, cluster: &Cluster) {
        for shard in users.known().shards() {
            let (is_linked, away) = (cluster.get(shard).is_some(), self.0.get(&shard));
            let is_away = users.known().is_away(shard);
            assert!(
                is_linked || away.is_some(),
                "every binding is of a gateway shard that is there, or away"
            );
            let is_gone = away.is_some_and(|away| matches!(away.state, State::Gone { .. }));
            assert_eq!(is_gone, !is_linked, "a shard has a time to come back while it is not linked");
            assert!(is_linked || is_away, "who is not linked is away");
            let has_away = is_away || users.known().has_marked(shard);
            assert!(!has_away || away.is_some(), "somebody is waited for");
        }
    }
}
