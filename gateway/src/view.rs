//! Which router shards there are, which of them own users and rooms, and what happens when that changes.
//!
//! A shard tells every router it is linked with which routers it reaches, and each of them answers with what
//! everybody reaches. Owners are those that are reached from everywhere. When they change, what this shard
//! has is announced to the owners that do not know it: rooms first, then the messages that wait for an
//! answer, then sessions, step by step (`announce.rs`).

use std::collections::{BTreeMap, VecDeque};

use shard::{ConnId, Instant, ShardId};
use wire::node::{Login, Owners, SessionId, Target, ToBridge, ToRouter};
use wire::{AppId, DeviceClass, MessageId, RoomId, UserId};

use crate::announce::{Announcing, Before};
use crate::gateway::Gateway;
use crate::limits::{ENDS_MAX, ROOMS_CEILING};
use crate::rooms::Early;
use crate::session::Phase;
use crate::unchanged::Remembered;

/// What a gateway shard knows of routers.
#[derive(Default)]
pub(crate) struct View {
    /// The router shards that are linked, each with what it says that everybody reaches.
    routers: BTreeMap<ShardId, Option<Vec<u32>>>,
    /// Whether all routers that are to be linked are, or had their time: until then nobody is told what is
    /// reached, and there are no owners, for others may count on more of them.
    has_begun: bool,
    /// `None` while there is no router.
    owners: Option<Owners>,
    pub(crate) announcing: Announcing,
    /// Messages that wait for an answer and have yet to be submitted to an owner, oldest first. Their owners
    /// before keep them until then.
    pub(crate) resubmitting: VecDeque<MessageId>,
    /// Something has come that owners depend on. They are chosen once a turn: a router's shards come and go
    /// together.
    is_stale: bool,
    /// Routers that went since owners were chosen last; what they knew is gone, also if they are back.
    gone: Vec<ShardId>,
    /// The sessions that ended last, oldest first.
    ends: VecDeque<End>,
    pub(crate) remembered: Remembered,
}

/// A session that ended, and the router that was told; none when this shard told the bridge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) owner: Option<ShardId>,
    pub(crate) app: AppId,
    pub(crate) user: UserId,
    pub(crate) device: DeviceClass,
    pub(crate) session: SessionId,
    pub(crate) login: Login,
}

/// What the bridge has yet to be told again.
#[derive(Default)]
pub(crate) struct Retelling {
    ends: Vec<End>,
    /// Connections, for the rooms of their sessions.
    conns: Vec<ConnId>,
}

/// Which routers are to be owners.
enum Choice {
    /// These; none while there is no router.
    Is(Option<Owners>),
    /// One of them has yet to say something.
    Waits,
}

impl View {
    /// Who owns a user; none while there is no router.
    pub(crate) fn owner_of_user(&self, app: AppId, user: UserId) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, Target::User(user))
    }

    /// Who owns a room; none while there is no router.
    pub(crate) fn owner_of_room(&self, app: AppId, room: RoomId) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, Target::Room(room))
    }

    /// Who owns a target; none while there is no router.
    pub(crate) fn owner_of(&self, app: AppId, target: Target) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, target)
    }

    /// Whether a router shard is linked.
    pub(crate) fn is_up(&self, router: ShardId) -> bool {
        self.routers.contains_key(&router)
    }

    /// A router that goes may not have heard of the end, or told it on, so it is remembered for a while.
    pub(crate) fn remember_end(&mut self, end: End) {
        if self.ends.len() >= ENDS_MAX {
            self.ends.pop_front();
        }
        self.ends.push_back(end);
    }

    /// The ends that a router was told of, which is gone: they are this shard's to tell.
    fn take_ends(&mut self, owner: ShardId) -> Vec<End> {
        let of_owner = self.ends.iter_mut().filter(|end| end.owner == Some(owner));
        of_owner
            .map(|end| {
                end.owner = None;
                *end
            })
            .collect()
    }

    /// The ends that the owners of now have not heard of, each with its owner, who is told.
    fn move_ends(&mut self) -> Vec<(ShardId, End)> {
        let owners = self.owners.as_ref();
        let moved = self.ends.iter_mut().filter_map(|end| {
            let owner = owner_of(owners, end.app, Target::User(end.user))?;
            (end.owner.replace(owner) != Some(owner)).then_some((owner, *end))
        });
        moved.collect()
    }

    /// The sessions that ended last, oldest first.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &End> + '_ {
        self.ends.iter()
    }

    pub(crate) fn is_owner(&self, router: ShardId) -> bool {
        self.owners.as_ref().is_some_and(|owners| owners.contains(router.as_u32()))
    }

    fn reach(&self) -> Vec<u32> {
        self.routers.keys().map(|router| router.as_u32()).collect()
    }

    /// The routers that everybody reaches, as far as those that are linked know. When two links are cut so
    /// that no router is left, what this shard reaches has to do.
    ///
    /// A router says what it knows of this shard's sessions before anything else. So one that has not said
    /// anything yet is waited for, unless an owner is gone.
    fn choice(&self) -> Choice {
        let mut said = self.routers.values().flatten().peekable();
        if !self.has_begun || said.peek().is_none() {
            return Choice::Is(None);
        }
        let mut chosen = self.reach();
        for common in said {
            // Nearly always all say the same. They say it ascending.
            if *common != chosen {
                chosen.retain(|router| common.binary_search(router).is_ok());
            }
        }
        if chosen.is_empty() {
            chosen = self.reach();
        }
        let all = chosen.len();
        chosen.retain(|router| self.routers.get(&ShardId::from_u32(*router)).is_some_and(Option::is_some));
        let is_owner_gone = self.gone.iter().any(|gone| self.is_owner(*gone));
        if chosen.is_empty() || chosen.len() < all && !is_owner_gone {
            return Choice::Waits;
        }
        Choice::Is(Some(Owners::new(chosen)))
    }
}

impl Gateway {
    /// A router shard is linked, and knows nothing of this shard.
    pub fn router_up(&mut self, now: Instant, router: ShardId) {
        self.view.routers.insert(router, None);
        self.tell_reach(now);
        // Until it hears of another view it is to know that this shard may have more to announce.
        if let Some(view) = self.view.owners.as_ref().map(Owners::name) {
            let done = self.view.announcing.is_done();
            self.tell_router(router, ToRouter::View { view, done });
        }
        // It may be new. One shard of the node is enough: all of them have the same.
        if self.id.index() == 0 {
            let messages: Vec<_> = self.revocations.messages().collect();
            for revocations in messages {
                self.tell_router(router, ToRouter::Revoked { revocations });
            }
        }
        self.view.is_stale = true;
    }

    /// A router shard is gone, with what it knew.
    pub fn router_down(&mut self, now: Instant, router: ShardId) {
        if self.view.routers.remove(&router).is_some() {
            // Nobody else may know of these. Told twice, it is of no harm: their stamps are old by then.
            self.view.remembered.lose(router);
            self.view.announcing.lose(router);
            for End { app, user, device, login, .. } in self.view.take_ends(router) {
                self.tell_bridge(ToBridge::Offline { app, user, device, login });
            }
            // Alone, it is where it was at the start: the first router that comes is not all there are.
            self.view.has_begun &= !self.view.routers.is_empty();
            self.effects.forget_router(router);
            self.tell_reach(now);
            self.view.gone.push(router);
            self.view.is_stale = true;
        }
    }

    /// The bridge was not told of some sessions: of the last that ended, and of the rooms of all others, it
    /// is told again by [`Gateway::retell`].
    pub fn begin_retelling(&mut self) {
        let ends = self.view.ends.iter().copied().collect();
        self.retelling = Retelling { ends, conns: self.connections() };
    }

    /// Tells the bridge some of what it is to be told again, `step` ends or memberships at most, or those of
    /// one session; whether there was anything to tell.
    pub fn retell(&mut self, step: usize) -> bool {
        let Retelling { ends, conns } = &mut self.retelling;
        let ended = ends.split_off(ends.len().saturating_sub(step));
        let sessions = if ended.is_empty() { (step / usize::from(ROOMS_CEILING)).max(1) } else { 0 };
        let conns = conns.split_off(conns.len().saturating_sub(sessions));
        for End { app, user, device, login, .. } in &ended {
            let (app, user, device, login) = (*app, *user, *device, *login);
            self.tell_bridge(ToBridge::Offline { app, user, device, login });
        }
        conns.iter().for_each(|conn| self.tell_joined(*conn));
        !(ended.is_empty() && conns.is_empty())
    }

    /// All routers that are to be linked are, or had their time.
    pub fn begin(&mut self, now: Instant) {
        if !self.view.has_begun {
            self.view.has_begun = true;
            self.tell_reach(now);
            self.view.is_stale = true;
        }
    }

    /// The router shards that own users and rooms, as this shard sees it, ascending.
    pub fn owners(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.view.owners.iter().flat_map(|owners| owners.routers()).map(ShardId::from_u32)
    }

    /// The router shard that owns a target; none while there is no router.
    pub fn owner_of(&self, app: AppId, target: Target) -> Option<ShardId> {
        self.view.owner_of(app, target)
    }

    /// The router shards that are linked, ascending.
    pub fn routers(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.view.routers.keys().copied()
    }

    /// A router says what everybody reaches.
    pub(crate) fn common(&mut self, now: Instant, from: ShardId, routers: Vec<u32>, clock: Login) {
        let forward = self.stamps.hear(self.clock_ns(now), clock);
        if forward > 0 {
            self.put_logins_forward(forward);
        }
        if let Some(common) = self.view.routers.get_mut(&from) {
            *common = Some(routers);
            self.view.is_stale = true;
        }
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
        if !self.view.has_begun {
            return;
        }
        let reach = self.view.reach();
        for router in reach.iter().copied().map(ShardId::from_u32) {
            let clock = self.stamps.show(self.clock_ns(now));
            self.tell_router(router, ToRouter::Reach { routers: reach.clone(), clock });
        }
    }

    /// Goes by other owners, if what has come in this turn asks for it.
    pub(crate) fn choose_owners(&mut self, now: Instant) {
        if !std::mem::take(&mut self.view.is_stale) {
            return;
        }
        let Choice::Is(chosen) = self.view.choice() else { return };
        let gone = std::mem::take(&mut self.view.gone);
        if chosen == self.view.owners && !gone.iter().any(|gone| self.view.is_owner(*gone)) {
            // One that was an owner before may have been about to hand messages over.
            if !gone.is_empty() {
                let owners = self.view.owners.clone();
                self.submit_again(&Before { owners, gone });
                self.tell_owners(now);
            }
            return;
        }
        self.keep_unannounced(now, &gone);
        if let Some(chosen) = &chosen {
            self.view.remembered.choose(chosen.routers().map(ShardId::from_u32));
        }
        let before = Before { owners: std::mem::replace(&mut self.view.owners, chosen), gone };
        self.metrics.views += 1;
        self.say_view(false);
        for (owner, End { app, user, device, login, .. }) in self.view.move_ends() {
            self.tell_router(owner, ToRouter::Ended { app, user, device, login });
        }
        let unchanged = self.say_unchanged();
        self.announce_rooms(now, &before);
        self.submit_again(&before);
        self.begin_announcing(now, before, unchanged);
    }

    pub(crate) fn say_view(&mut self, done: bool) {
        let Some(view) = self.view.owners.as_ref().map(Owners::name) else { return };
        let routers: Vec<ShardId> = self.view.routers.keys().copied().collect();
        for router in routers {
            self.tell_router(router, ToRouter::View { view, done });
        }
    }

    fn announce_rooms(&mut self, now: Instant, before: &Before) {
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
        self.view.resubmitting = moved.into_iter().map(|entry| entry.submission.id).collect();
    }
}

/// Who owns a target; none while there are no owners.
pub(crate) fn owner_of(owners: Option<&Owners>, app: AppId, target: Target) -> Option<ShardId> {
    let owners = owners?;
    Some(ShardId::from_u32(match target {
        Target::User(user) => owners.of_user(app, user),
        Target::Room(room) => owners.of_room(app, room),
    }))
}
