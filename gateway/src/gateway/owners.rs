//! Routers that come and go, and what is done when others own users and rooms (`view.rs`, `announce.rs`).

use shard::{Instant, ShardId};
use wire::node::{Login, Target, ToBridge, ToRouter};
use wire::{AppId, RoomId};

use super::Gateway;
use crate::announce::Announcing;
use crate::ends::{End, Retelling};
use crate::limits::{ANNOUNCE_PAUSE, RESUBMISSIONS_PER_STEP, ROOMS_CEILING};
use crate::rooms::Early;
use crate::session::Phase;
use crate::submitted::Entry;
use crate::telling::Telling;
use crate::timer::Timer;
use crate::view::{Before, Look};

impl Gateway {
    /// A router shard is linked, and knows nothing of this shard.
    pub fn router_up(&mut self, now: Instant, router: ShardId) {
        self.view.up(router);
        self.tell_reach(now);
        // Until it hears of another view it is to know that this shard may have more to announce.
        self.view.tell(router, self.announcing.is_done(), &mut self.effects);
        // It may be new. One shard of the node is enough: all of them have the same.
        if self.id.index() == 0 {
            for revocations in self.revocations.messages() {
                self.effects.router(router, ToRouter::Revoked { revocations });
            }
            for bans in self.bans.messages() {
                self.effects.router(router, ToRouter::Banned { bans });
            }
        }
    }

    /// A router shard is gone, with what it knew.
    pub fn router_down(&mut self, now: Instant, router: ShardId) {
        if !self.view.is_up(router) {
            return;
        }
        self.remembered.lose(router);
        self.announcing.lose(router);
        // Nobody else may know of these. Told twice, it is of no harm: their stamps are old by then.
        for End { app, user, device, login, .. } in self.ends.take_over(router) {
            self.tell_bridge(ToBridge::Offline { app, user, device, login });
        }
        self.view.down(router);
        self.effects.forget_router(router);
        self.tell_reach(now);
    }

    /// The bridge was not told of some sessions: of the last that ended, and of the rooms of all others, it
    /// is told again by [`Gateway::retell`].
    pub fn begin_retelling(&mut self) {
        self.retelling = Retelling::new(&self.ends, self.connections());
    }

    /// Tells the bridge some of what it is to be told again, `step` ends or memberships at most, or those of
    /// one session; whether there was anything to tell.
    pub fn retell(&mut self, step: usize) -> bool {
        let ended = self.retelling.take_ends(step);
        let sessions = if ended.is_empty() { (step / usize::from(ROOMS_CEILING)).max(1) } else { 0 };
        let conns = self.retelling.take_conns(sessions);
        for End { app, user, device, login, .. } in &ended {
            let (app, user, device, login) = (*app, *user, *device, *login);
            self.tell_bridge(ToBridge::Offline { app, user, device, login });
        }
        conns.iter().for_each(|conn| self.tell_joined(*conn));
        !(ended.is_empty() && conns.is_empty())
    }

    /// All routers that are to be linked are, or had their time.
    pub fn begin(&mut self, now: Instant) {
        if self.view.begin() {
            self.tell_reach(now);
        }
    }

    /// The router shards that own users and rooms, as this shard sees it, ascending.
    pub fn owners(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.view.owners()
    }

    /// The router shard that owns a target; none while there is no router.
    pub fn owner_of(&self, app: AppId, target: Target) -> Option<ShardId> {
        self.view.owner_of(app, target)
    }

    /// The router shards that are linked, ascending.
    pub fn routers(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.view.routers()
    }

    /// A router says what everybody reaches.
    pub(super) fn common(&mut self, now: Instant, from: ShardId, routers: Vec<u32>, clock: Login) {
        let forward = self.stamps.hear(self.clock_ns(now), clock);
        if forward > 0 {
            self.put_logins_forward(forward);
            // Another router may have come just now, and begin rooms by a clock that is behind.
            self.tell_reach(now);
        }
        self.view.hear(from, routers);
    }

    /// Logins that wait for an owner were stamped by a clock that was behind.
    fn put_logins_forward(&mut self, by_ns: u64) {
        for conn in self.connections() {
            if let Some(session) =
                self.sessions.get_mut(conn).filter(|session| session.phase == Phase::Binding)
            {
                session.login = Login(session.login.0.saturating_add(by_ns));
            }
        }
    }

    fn tell_reach(&mut self, now: Instant) {
        let reach = self.view.told_reach();
        for router in reach.iter().copied().map(ShardId::from_u32) {
            let clock = self.stamps.show(self.clock_ns(now));
            self.tell_router(router, ToRouter::Reach { routers: reach.clone(), clock });
        }
    }

    /// Goes by other owners, if what has come in this turn asks for it.
    pub(super) fn choose_owners(&mut self, now: Instant) {
        let (owners, gone) = match self.view.look() {
            None => return,
            Some(Look::Same { gone }) => {
                // One that was an owner before may have been about to hand messages over.
                if !gone.is_empty() {
                    self.submit_again(&self.view.now_without(gone));
                    self.tell_owners(now);
                }
                return;
            }
            Some(Look::Others { owners, gone }) => (owners, gone),
        };
        let (announcing, mut telling) = self.telling();
        announcing.keep(now, &gone, &mut telling);
        let before = self.view.go_by(owners, gone);
        self.remembered.choose(self.view.owners());
        self.metrics.views += 1;
        self.view.tell_all(false, &mut self.effects);
        for (owner, End { app, user, device, login, .. }) in self.ends.give(&self.view) {
            self.tell_router(owner, ToRouter::Ended { app, user, device, login });
        }
        let Self { view, sessions, names, effects, ends, .. } = self;
        let mut telling = Telling { view, sessions, names: *names, effects };
        let unchanged = self.remembered.tell(ends, &mut telling);
        self.announce_rooms(now, &before);
        self.submit_again(&before);
        self.announcing.begin(before, unchanged, &self.sessions);
        self.tell_owners(now);
    }

    fn announce_rooms(&mut self, now: Instant, before: &Before) {
        self.rooms.call_left(|app, room| before.owner_of(app, Target::Room(room)).is_none());
        let rooms: Vec<(AppId, RoomId, u64)> = self.rooms.iter().collect();
        for (app, room, sequence) in rooms {
            let target = Target::Room(room);
            let (old, new) = (before.owner_of(app, target), self.view.owner_of(app, target));
            if old == new {
                continue;
            }
            if let Some(room) = self.rooms.find(app, room) {
                room.early = Early::default(); // the answer that they wait for will be another's
            }
            if let Some(old) = old.filter(|old| self.view.is_up(*old)) {
                self.tell_router(old, ToRouter::Leave { app, room });
            }
            if let Some(new) = new {
                // The owner before may have given sequences that this shard has not seen, so none is as good
                // as one.
                let sequence = if old.is_some() { sequence.max(1) } else { sequence };
                self.tell_router(new, ToRouter::Join { app, room, sequence });
                self.recall_of_next_owner(now, app, room);
            }
        }
    }

    /// What waits for an answer goes to the owners that the change makes, in the order it was sent.
    fn submit_again(&mut self, before: &Before) {
        let view = &self.view;
        let moved = self.submitted.changed(|entry| {
            let (app, target) = (entry.submission.app, entry.submission.target);
            let owner = view.owner_of(app, target);
            let is_with = |router: ShardId| view.is_up(router) && !before.gone.contains(&router);
            // What an owner knew went with it, whether or not there is another now.
            let lost = entry.owner.take_if(|router| !is_with(*router));
            entry.submission.again |= lost.is_some();
            let is_concluding = entry.submission.concluded.is_some() && entry.owner.is_some();
            let is_new = owner.is_some()
                && !is_concluding
                && (owner != entry.owner || owner != before.owner_of(app, target));
            if is_new {
                entry.submission.again |= entry.owner.is_some();
            }
            is_new
        });
        self.submitted.set_again(moved.into_iter().map(|entry| entry.submission.id));
    }

    /// Whether there is anything left to tell owners that were chosen.
    pub fn is_announcing(&self) -> bool {
        !self.announcing.is_done() || self.submitted.has_again()
    }

    /// No session is announced to these routers until they are not among them any more: what can wait is said
    /// as fast as they take it in.
    pub fn set_slow(&mut self, routers: Vec<ShardId>) {
        self.announcing.set_slow(routers);
    }

    /// Submits some messages again, oldest first: what a sender said before goes before.
    fn resubmit_step(&mut self) {
        for _ in 0..RESUBMISSIONS_PER_STEP {
            let Some(id) = self.submitted.next_again() else { return };
            let entry = self.submitted.get(id);
            // One that is concluded stays with the owner that hands it over.
            let entry = entry.filter(|it| it.submission.concluded.is_none() || it.owner.is_none());
            let Some(entry) = entry.cloned() else {
                self.submitted.drop_next_again();
                continue;
            };
            let Entry { session, owner: old, submission, .. } = entry;
            let (app, target) = (submission.app, submission.target);
            let Some(owner) = self.view.owner_of(app, target) else { return };
            if self.announcing.is_slow(owner) {
                return;
            }
            self.submitted.drop_next_again();
            if let Some(old) = old.filter(|old| self.view.is_up(*old)) {
                self.tell_router(old, ToRouter::Withdraw { app, target, id });
            }
            self.submitted.set_owner(id, Some(owner));
            self.metrics.submitted_again += u64::from(submission.again);
            self.tell_router(owner, ToRouter::Submit { session, submission });
        }
    }

    /// Goes on telling owners what they do not know: messages first, for somebody waits for these. The pauses
    /// differ, so that gateways which began at the same moment do not go on in step.
    fn tell_owners(&mut self, now: Instant) {
        self.resubmit_step();
        let (announcing, mut telling) = self.telling();
        announcing.step(now, &mut telling);
        if self.is_announcing() && self.announcing.wants_timer() {
            let pause = ANNOUNCE_PAUSE / 2 + ANNOUNCE_PAUSE * self.prng.below(1024) as u32 / 1024;
            self.wheel.arm(now + pause, Timer::Announce.pack());
        }
    }

    /// It is time for the next step.
    pub(super) fn announce_on(&mut self, now: Instant) {
        self.announcing.timer_fired();
        self.tell_owners(now);
    }

    fn telling(&mut self) -> (&mut Announcing, Telling<'_>) {
        let Self { view, sessions, names, effects, announcing, .. } = self;
        (announcing, Telling { view, sessions, names: *names, effects })
    }
}
