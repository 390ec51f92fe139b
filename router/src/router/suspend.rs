//! Links with gateway shards that were lost, and what becomes of their sessions (`away.rs`).

use shard::{Instant, ShardId};
use wire::node::{RangeSet, ToBridge, ToGateway};
use wire::{AppId, UserId};

use super::Router;
use crate::away::Back;
use crate::outbox::Seat;

impl Router {
    /// The link with a gateway shard was lost: its sessions are away if it may come back, else they end.
    pub(super) fn suspend(&mut self, now: Instant, shard: ShardId, incarnation: u64) {
        for (app, user, device, seat) in self.users.guesses() {
            if seat.shard == shard {
                self.unbind(app, user, device, seat, false);
            }
        }
        if !self.users.suspend(shard) {
            self.away.remove(shard);
            return self.forget_missed();
        }
        self.away.put(shard, incarnation, now + self.limits.away());
        if self.limits.away_ms == 0 || self.cluster.is_leaving() {
            self.drop_away(shard);
        }
    }

    /// A gateway shard is linked. In the same life it may still have its sessions that are known here; else
    /// they have ended.
    pub(super) fn ask_for_away(&mut self, shard: ShardId, incarnation: u64) {
        match self.away.back(shard, incarnation) {
            Back::SameLife => {
                let digests = self.users.known().digests(shard).to_vec();
                self.outbox.gateway(shard, ToGateway::Digests { digests });
            }
            Back::NextLife => self.drop_away(shard),
            Back::New => {}
        }
    }

    /// A gateway shard says which ranges of its sessions are as they are known here.
    pub(super) fn resume(&mut self, now: Instant, shard: ShardId, ranges: &[u64], moved: bool) {
        let Some(unchanged) = RangeSet::from_words(ranges) else { return };
        if !self.away.resume(shard) {
            return;
        }
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

    /// Users with parked messages whose sessions on a shard are away, with these sessions.
    fn waiting_for(&self, shard: ShardId) -> Vec<(AppId, UserId, Vec<Seat>)> {
        let waiting = self.cluster.parked_users().chain(self.partial.users());
        let with_seats = waiting.map(|(app, user)| (app, user, self.users.away_of(app, user, shard)));
        with_seats.filter(|(.., seats)| !seats.is_empty()).collect()
    }

    /// A gateway shard reports single sessions before it has said which are unchanged.
    pub(super) fn mark_away(&mut self, shard: ShardId) {
        if self.users.known().is_away(shard) {
            self.users.resume(shard, &RangeSet::default(), false);
        }
    }

    /// A gateway shard has announced everything: what is still away has ended.
    pub(super) fn end_resuming(&mut self, shard: ShardId) {
        if self.away.is_announcing(shard) {
            self.drop_away(shard);
        }
    }

    /// The sessions of a shard that are away have ended.
    fn drop_away(&mut self, shard: ShardId) {
        for (app, user, device, seat) in self.users.away_on(shard) {
            self.unbind(app, user, device, seat, false);
        }
        self.users.end_suspension(shard);
        self.away.remove(shard);
        self.forget_missed();
    }

    /// Forgets what devices have missed when none may come any more that has.
    fn forget_missed(&mut self) {
        if self.away.is_empty() && !self.cluster.is_unsettled() {
            self.partial.clear();
        }
    }

    /// Ends the sessions of shards that have not come back in time.
    pub(super) fn expire_away(&mut self, now: Instant) {
        while let Some((_, shard)) = self.away.first_gone().filter(|(until, _)| *until <= now) {
            self.drop_away(shard);
        }
    }

    /// Ends all sessions that are away: this router leaves, or has no room for others. Shards that are linked
    /// again know this only in the first case, as they have other owners by then.
    pub(super) fn drop_all_away(&mut self) {
        self.away.shards().into_iter().for_each(|shard| self.drop_away(shard));
    }

    /// Makes room by ending the sessions of the shard that has been gone for longest; false when none is.
    pub(super) fn drop_oldest_away(&mut self) -> bool {
        let oldest = self.away.first_gone();
        oldest.into_iter().for_each(|(_, shard)| self.drop_away(shard));
        oldest.is_some()
    }

    /// When [`Router::expire_away`] is wanted.
    pub(super) fn away_deadline(&self) -> Option<Instant> {
        self.away.first_gone().map(|(until, _)| until)
    }
}
