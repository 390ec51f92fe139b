//! How owners hear of the sessions that they do not know yet.
//!
//! A change of owners may concern all sessions of a shard, and every other gateway has as many at the same
//! time. So they are announced step by step, no more at once than each router answers in time
//! (`announce_window.rs`). Owners may change again before that is done. Sessions that were not announced
//! until then are known by their owners of before, and go from there to the newest.

use std::collections::{BTreeSet, VecDeque};

use shard::{ConnId, Instant, ShardId};
use wire::node::{Login, Owners, Target, ToRouter, range_of};
use wire::{AppId, UserId};

use crate::announce_window::AnnounceWindows;
use crate::gateway::{Gateway, Timer};
use crate::limits::{ANNOUNCE_PAUSE, ANNOUNCE_STAGES_MAX, ANNOUNCEMENTS_PER_STEP, RESUBMISSIONS_PER_STEP};
use crate::session::{Phase, Session};
use crate::submitted::Entry;
use crate::unchanged::Unchanged;
use crate::view::owner_of;

/// Sessions that have yet to be announced, by the change of owners since which they are.
#[derive(Default)]
pub(crate) struct Announcing {
    /// The oldest first.
    stages: VecDeque<Stage>,
    windows: AnnounceWindows,
    /// The next step has its timer.
    has_timer: bool,
    /// Routers that have more to take in than should be added to by what can wait.
    slow: Vec<ShardId>,
}

/// Sessions that owners of the same time know.
struct Stage {
    before: Before,
    /// What owners since then have said that they know.
    unchanged: Unchanged,
    /// The last goes first; those that have to wait go to the front.
    conns: VecDeque<ConnId>,
}

/// Owners that were.
#[derive(Clone)]
pub(crate) struct Before {
    pub(crate) owners: Option<Owners>,
    /// Those of them that know nothing any more.
    pub(crate) gone: Vec<ShardId>,
}

impl Before {
    /// Who knows a target; none when its owner is gone.
    pub(crate) fn owner_of(&self, app: AppId, target: Target) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, target).filter(|owner| !self.gone.contains(owner))
    }
}

impl Announcing {
    pub(crate) fn is_done(&self) -> bool {
        self.stages.is_empty()
    }

    /// Who may know a user apart from the owner: the owners before the changes under way, each once.
    pub(crate) fn owners_before(&self, app: AppId, user: UserId) -> Vec<ShardId> {
        let owners = self.stages.iter().map(|stage| stage.before.owners.as_ref());
        let mut known: Vec<ShardId> =
            owners.filter_map(|owners| owner_of(owners, app, Target::User(user))).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// A router is gone: what it was asked will not be answered.
    pub(crate) fn lose(&mut self, router: ShardId) {
        self.windows.forget(router);
    }

    /// A router has answered an announcement.
    pub(crate) fn answered(&mut self, now: Instant, router: ShardId) {
        self.windows.answered(now, router);
    }

    pub(crate) fn set_slow(&mut self, routers: Vec<ShardId>) {
        self.slow = routers;
    }

    /// Whether no session ought to be announced to a router at the moment.
    fn is_busy(&self, now: Instant, router: ShardId) -> bool {
        self.slow.contains(&router) || self.windows.is_full(now, router)
    }
}

/// What has to be said of a session.
struct Move {
    old: Option<ShardId>,
    new: Option<ShardId>,
    /// The owner knows it already.
    is_known: bool,
    /// Some owner was told of it.
    was_told: bool,
    /// Its client waits for the owner's answer to its login.
    is_login: bool,
}

impl Gateway {
    /// Other owners are about to be chosen: what the last choice asks of each session is done, or stays to be
    /// done from there.
    pub(crate) fn keep_unannounced(&mut self, now: Instant, gone: &[ShardId]) {
        if self.view.announcing.stages.len() >= ANNOUNCE_STAGES_MAX {
            self.finish_announcing(now);
        }
        let mut stages = std::mem::take(&mut self.view.announcing.stages);
        for stage in &mut stages {
            for conn in std::mem::take(&mut stage.conns) {
                match self.move_of(conn, stage) {
                    Some(to) if to.is_known => self.announce(now, conn, &to),
                    Some(_) => stage.conns.push_back(conn),
                    None => {}
                }
            }
            stage.before.gone.extend(gone);
        }
        stages.retain(|stage| !stage.conns.is_empty());
        self.view.announcing.stages = stages;
    }

    /// Begins to announce sessions to owners that were just chosen.
    pub(crate) fn begin_announcing(&mut self, now: Instant, before: Before, unchanged: Unchanged) {
        let mut is_waiting = BTreeSet::new();
        for stage in &mut self.view.announcing.stages {
            stage.unchanged.clone_from(&unchanged);
            is_waiting.extend(stage.conns.iter().map(|conn| conn.as_u64()));
        }
        let conns = self.connections().into_iter().filter(|conn| !is_waiting.contains(&conn.as_u64()));
        let is_login =
            |conn: &ConnId| self.sessions.get(*conn).is_some_and(|session| session.phase == Phase::Binding);
        let (logins, rest): (Vec<ConnId>, Vec<ConnId>) = conns.partition(is_login);
        let mut conns = VecDeque::from(rest);
        conns.extend(logins); // they go first
        self.view.announcing.stages.push_back(Stage { before, unchanged, conns });
        self.tell_owners(now);
    }

    /// Whether there is anything left to tell owners that were chosen.
    pub fn is_announcing(&self) -> bool {
        !self.view.announcing.is_done() || !self.view.resubmitting.is_empty()
    }

    /// No session is announced to these routers until they are not among them any more: what can wait is said
    /// as fast as they take it in.
    pub fn set_slow(&mut self, routers: Vec<ShardId>) {
        self.view.announcing.set_slow(routers);
    }

    /// Announces some sessions, so that a change with very many takes many short turns and not a long one.
    /// The pauses differ, so that gateways which began at the same moment do not go on in step.
    fn announce_step(&mut self, now: Instant) {
        if self.view.announcing.is_done() {
            return;
        }
        let mut stages = std::mem::take(&mut self.view.announcing.stages);
        let mut rest = ANNOUNCEMENTS_PER_STEP;
        for stage in &mut stages {
            for _ in 0..rest.min(stage.conns.len()) {
                rest -= 1;
                let Some(conn) = stage.conns.pop_back() else { break };
                let Some(to) = self.move_of(conn, stage) else { continue };
                let is_busy = |router: Option<ShardId>| {
                    router.is_some_and(|router| self.view.announcing.is_busy(now, router))
                };
                if !to.is_login && (!to.is_known && is_busy(to.new) || is_busy(to.old)) {
                    stage.conns.push_front(conn);
                } else {
                    self.announce(now, conn, &to);
                }
            }
        }
        self.put_back(stages);
    }

    /// Submits some messages again, oldest first: what a sender said before goes before.
    fn resubmit_step(&mut self) {
        for _ in 0..RESUBMISSIONS_PER_STEP {
            let Some(id) = self.view.resubmitting.front().copied() else { return };
            let entry = self.submitted.get(id);
            // One that is concluded stays with the owner that hands it over.
            let entry = entry.filter(|it| it.submission.concluded.is_none() || it.owner.is_none());
            let Some(entry) = entry.cloned() else {
                self.view.resubmitting.pop_front();
                continue;
            };
            let Entry { session, owner: old, submission, .. } = entry;
            let (app, target) = (submission.app, submission.target);
            let Some(owner) = self.view.owner_of(app, target) else { return };
            if self.view.announcing.slow.contains(&owner) {
                return;
            }
            self.view.resubmitting.pop_front();
            if let Some(old) = old.filter(|old| self.view.is_up(*old)) {
                self.tell_router(old, ToRouter::Withdraw { app, target, id });
            }
            self.submitted.set_owner(id, Some(owner));
            self.metrics.submitted_again += u64::from(submission.again);
            self.tell_router(owner, ToRouter::Submit { session, submission });
        }
    }

    /// Goes on telling owners what they do not know: messages first, for somebody waits for these.
    pub(crate) fn tell_owners(&mut self, now: Instant) {
        self.resubmit_step();
        self.announce_step(now);
        if self.is_announcing() && !std::mem::replace(&mut self.view.announcing.has_timer, true) {
            let pause = ANNOUNCE_PAUSE / 2 + ANNOUNCE_PAUSE * self.prng.below(1024) as u32 / 1024;
            self.wheel.arm(now + pause, Timer::Announce.pack());
        }
    }

    /// It is time for the next step.
    pub(crate) fn announce_on(&mut self, now: Instant) {
        self.view.announcing.has_timer = false;
        self.tell_owners(now);
    }

    fn put_back(&mut self, mut stages: VecDeque<Stage>) {
        stages.retain(|stage| !stage.conns.is_empty());
        self.view.announcing.stages = stages;
        if self.view.announcing.is_done() {
            self.say_view(true);
        }
    }

    /// Announces all that is left, however many there are.
    fn finish_announcing(&mut self, now: Instant) {
        let mut stages = std::mem::take(&mut self.view.announcing.stages);
        for stage in &mut stages {
            while let Some(conn) = stage.conns.pop_back() {
                if let Some(to) = self.move_of(conn, stage) {
                    self.announce(now, conn, &to);
                }
            }
        }
        self.put_back(stages);
    }

    /// What has to be said of a session of a stage; `None` if nothing.
    fn move_of(&self, conn: ConnId, stage: &Stage) -> Option<Move> {
        let is_asked = |session: &&Session| matches!(session.phase, Phase::Binding | Phase::Live);
        let session = self.sessions.get(conn).filter(is_asked)?;
        let (app, user) = (session.app, session.user);
        let target = Target::User(user);
        let told = owner_of(stage.before.owners.as_ref(), app, target);
        let (old, new) = (stage.before.owner_of(app, target), self.view.owner_of(app, target));
        // Also one of which no owner has said that it binds it: one that was told may have done so all the
        // same, and tells of its end later, also when there is none after it for now.
        let may_be_bound = session.phase == Phase::Binding && told.is_some() && told != new;
        if old == new && !may_be_bound {
            return None;
        }
        let ranges = new.and_then(|new| stage.unchanged.get(&new)).filter(|_| session.phase == Phase::Live);
        let is_known = ranges.is_some_and(|ranges| ranges.contains(range_of(app, user)));
        let is_login = session.phase == Phase::Binding;
        Some(Move { old, new, is_known, was_told: told.is_some(), is_login })
    }

    fn announce(&mut self, now: Instant, conn: ConnId, to: &Move) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let (app, user, device, is_live) =
            (session.app, session.user, session.device, session.phase == Phase::Live);
        if !to.is_known && (is_live || to.was_told) {
            session.login = Login(session.login.0.saturating_add(1));
        }
        let login = session.login;
        let session = self.session_of(conn);
        if let Some(old) = to.old.filter(|old| self.view.is_up(*old)) {
            self.tell_router(old, ToRouter::Unbind { app, user, device, session, moved: true });
        }
        if let Some(new) = to.new.filter(|_| !to.is_known) {
            // One that is not bound yet has waited, and a later login may have come in between: its stamp
            // decides.
            self.tell_router(new, ToRouter::Bind { app, user, device, session, login, fresh: false });
            if is_live {
                self.view.announcing.windows.asked(now, new);
            }
        }
    }
}
