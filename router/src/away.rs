//! Gateway shards whose link was lost, and which may come back with the sessions that they had.
//!
//! A link that is lost says little: mostly one end was late, and both processes live on. So the sessions of
//! the shard stay bound for [`Limits::away_ms`](crate::Limits), and are away: no message goes to them and no
//! question finds them, but nobody is told that they are offline. When the same life of the shard is linked
//! again, it hears the digests of what is known here, says which ranges are unchanged, announces the sessions
//! of the others, and what it has not named when it is done has ended. Else 350,000 sessions would be
//! announced to a router that was late, which makes it late again.

use shard::{Instant, ShardId};
use wire::node::{RangeSet, ToBridge, ToGateway};
use wire::{AppId, UserId};

use crate::limits::Limits;
use crate::outbox::Seat;
use crate::router::Router;

/// A gateway shard whose sessions are away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Away {
    /// Which life of its process.
    pub(crate) incarnation: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It is not linked, and has until then.
    Gone { until: Instant },
    /// It is linked, and has been told the digests.
    Asked,
    /// It has said which ranges are unchanged, and announces the rest.
    Announcing,
}

impl Router {
    /// The link with a gateway shard was lost: its sessions are away if it may come back, else they end.
    pub(crate) fn suspend(&mut self, now: Instant, shard: ShardId, incarnation: u64) {
        for (app, user, device, seat) in self.users.guesses() {
            if seat.shard == shard {
                self.unbind(app, user, device, seat, false);
            }
        }
        if !self.users.suspend(shard) {
            self.away.remove(&shard);
            return;
        }
        let until = now + self.limits.away();
        self.away.insert(shard, Away { incarnation, state: State::Gone { until } });
        if self.limits.away_ms == 0 || self.cluster.is_leaving() {
            self.drop_away(shard);
        }
    }

    /// A gateway shard is linked. In the same life it may still have the sessions that are known of it; else
    /// they have ended.
    pub(crate) fn ask_for_away(&mut self, shard: ShardId, incarnation: u64) {
        match self.away.get_mut(&shard) {
            Some(away) if away.incarnation == incarnation => {
                away.state = State::Asked;
                let digests = self.users.known().digests(shard).to_vec();
                self.outbox.gateway(shard, ToGateway::Digests { digests });
            }
            Some(_) => self.drop_away(shard),
            None => {}
        }
    }

    /// A gateway shard says which ranges of its sessions are as they are known here.
    pub(crate) fn resume(&mut self, now: Instant, shard: ShardId, ranges: &[u64], moved: bool) {
        let Some(unchanged) = RangeSet::from_words(ranges) else { return };
        let Some(away) = self.away.get_mut(&shard).filter(|away| away.state == State::Asked) else { return };
        away.state = State::Announcing;
        let waiting = self.waiting_for(shard);
        for (app, user, device, seat, login) in self.users.resume(shard, &unchanged, moved) {
            self.outbox.bridge(ToBridge::Online { app, user, device, login });
            self.record(app, user, device, seat, login);
        }
        let known = self.users.known();
        self.metrics.unchanged += u64::from(known.bindings(shard) - known.marked(shard));
        for (app, user, seats) in waiting {
            let away = self.users.away_of(app, user, shard);
            for seat in seats.into_iter().filter(|seat| !away.contains(seat)) {
                self.give_missed(app, user, seat);
            }
            self.release(now, app, user);
        }
    }

    /// Users for whom messages wait and who have sessions on a shard that are away, with these sessions.
    fn waiting_for(&self, shard: ShardId) -> Vec<(AppId, UserId, Vec<Seat>)> {
        let waiting = self.cluster.parked_users().chain(self.partial.users());
        let with_seats = waiting.map(|(app, user)| (app, user, self.users.away_of(app, user, shard)));
        with_seats.filter(|(.., seats)| !seats.is_empty()).collect()
    }

    /// A gateway shard says something of single sessions before it has said which are unchanged.
    pub(crate) fn mark_away(&mut self, shard: ShardId) {
        if self.users.known().is_away(shard) {
            self.users.resume(shard, &RangeSet::default(), false);
        }
    }

    /// A gateway shard has announced everything: what is still away has ended.
    pub(crate) fn end_resuming(&mut self, shard: ShardId) {
        if self.away.get(&shard).is_some_and(|away| away.state == State::Announcing) {
            self.drop_away(shard);
        }
    }

    /// The sessions of a shard that are away have ended.
    fn drop_away(&mut self, shard: ShardId) {
        for (app, user, device, seat) in self.users.away_on(shard) {
            self.unbind(app, user, device, seat, false);
        }
        self.users.end_suspension(shard);
        self.away.remove(&shard);
    }

    /// Ends the sessions of shards that have not come back in time.
    pub(crate) fn expire_away(&mut self, now: Instant) {
        while let Some(shard) = self.first_gone().filter(|(until, _)| *until <= now).map(|(_, shard)| shard) {
            self.drop_away(shard);
        }
    }

    /// Ends all sessions that are away: this router leaves, or has no room for others. Those of shards that
    /// are linked again know of it by then only in the first case, as they go by other owners.
    pub(crate) fn drop_all_away(&mut self) {
        let shards: Vec<ShardId> = self.away.keys().copied().collect();
        shards.into_iter().for_each(|shard| self.drop_away(shard));
    }

    /// Makes room by ending the sessions of the shard that has been gone for longest; false when none is.
    pub(crate) fn drop_oldest_away(&mut self) -> bool {
        let oldest = self.first_gone();
        oldest.into_iter().for_each(|(_, shard)| self.drop_away(shard));
        oldest.is_some()
    }

    /// When [`Router::expire_away`] is wanted.
    pub(crate) fn away_deadline(&self) -> Option<Instant> {
        self.first_gone().map(|(until, _)| until)
    }

    fn first_gone(&self) -> Option<(Instant, ShardId)> {
        let gone = self.away.iter().filter_map(|(shard, away)| match away.state {
            State::Gone { until } => Some((until, *shard)),
            State::Asked | State::Announcing => None,
        });
        gone.min()
    }
}

impl Away {
    pub(crate) fn check_invariants(router: &Router) {
        let Router { users, cluster, away, .. } = router;
        for shard in users.known().shards() {
            let (is_linked, away) = (cluster.get(shard).is_some(), away.get(&shard));
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

impl Limits {
    fn away(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.away_ms.into())
    }
}
