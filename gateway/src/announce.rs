//! How owners get the sessions that they do not know yet.
//!
//! A change of owners may concern all sessions of a shard, and every other gateway has as many at the same
//! time. So they are announced step by step, no more at once than each router answers in time
//! (`announce_window.rs`). Owners may change again before that is done. Sessions that were not announced
//! until then are known by their owners of before, and go from there to the newest.

use std::collections::{BTreeSet, VecDeque};

use shard::{ConnId, ConnMap, Instant, ShardId};
use wire::node::{Login, Target, ToRouter, range_of};
use wire::{AppId, UserId};

use crate::announce_window::AnnounceWindows;
use crate::limits::{ANNOUNCE_STAGES_MAX, ANNOUNCEMENTS_PER_STEP};
use crate::session::{Phase, Session};
use crate::telling::Telling;
use crate::unchanged::Unchanged;
use crate::view::{Before, owner_of};

/// Sessions that have yet to be announced, grouped by the change of owners that caused it.
#[derive(Default)]
pub(crate) struct Announcing {
    /// The oldest first.
    stages: VecDeque<Stage>,
    windows: AnnounceWindows,
    /// The next step has its timer.
    has_timer: bool,
    /// Routers so busy that what can wait should wait.
    slow: Vec<ShardId>,
}

/// Sessions that the owners of one time know.
struct Stage {
    before: Before,
    /// What owners have since said that they know.
    unchanged: Unchanged,
    /// The last goes first; those that have to wait go to the front.
    conns: VecDeque<ConnId>,
}

/// What has to be sent about a session.
struct Move {
    old: Option<ShardId>,
    new: Option<ShardId>,
    /// Whether the owner knows it already.
    is_known: bool,
    /// Whether some owner was sent it.
    was_told: bool,
    /// Whether its client waits for the owner's answer to its login.
    is_login: bool,
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

    /// A router is gone: it will not answer any announcement.
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

    /// Whether a router is so busy that what can wait should wait.
    pub(crate) fn is_slow(&self, router: ShardId) -> bool {
        self.slow.contains(&router)
    }

    /// Whether the next step is to have a timer, which the caller arms.
    pub(crate) fn wants_timer(&mut self) -> bool {
        !std::mem::replace(&mut self.has_timer, true)
    }

    /// The timer has fired.
    pub(crate) fn timer_fired(&mut self) {
        self.has_timer = false;
    }

    /// Whether no session ought to be announced to a router at the moment.
    fn is_busy(&self, now: Instant, router: ShardId) -> bool {
        self.is_slow(router) || self.windows.is_full(now, router)
    }

    /// Call this before other owners are chosen: finishes what the last choice needs of each session, or
    /// keeps it to be finished later.
    pub(crate) fn keep(&mut self, now: Instant, gone: &[ShardId], telling: &mut Telling<'_>) {
        if self.stages.len() >= ANNOUNCE_STAGES_MAX {
            self.finish(now, telling);
        }
        let mut stages = std::mem::take(&mut self.stages);
        for stage in &mut stages {
            for conn in std::mem::take(&mut stage.conns) {
                match telling.move_of(conn, stage) {
                    Some(to) if to.is_known => self.announce(now, conn, &to, telling),
                    Some(_) => stage.conns.push_back(conn),
                    None => {}
                }
            }
            stage.before.gone.extend(gone);
        }
        stages.retain(|stage| !stage.conns.is_empty());
        self.stages = stages;
    }

    /// Begins to announce sessions to owners that were just chosen.
    pub(crate) fn begin(&mut self, before: Before, unchanged: Unchanged, sessions: &ConnMap<Session>) {
        let mut is_waiting = BTreeSet::new();
        for stage in &mut self.stages {
            stage.unchanged.clone_from(&unchanged);
            is_waiting.extend(stage.conns.iter().map(|conn| conn.as_u64()));
        }
        let is_login = |(_, session): &(ConnId, &Session)| session.phase == Phase::Binding;
        let all = sessions.iter().filter(|(conn, _)| !is_waiting.contains(&conn.as_u64()));
        let (logins, rest): (Vec<_>, Vec<_>) = all.partition(is_login);
        // Logins go first.
        let conns = rest.into_iter().chain(logins).map(|(conn, _)| conn).collect();
        self.stages.push_back(Stage { before, unchanged, conns });
    }

    /// Announces some sessions, so that a change with very many takes many short turns and not a long one.
    pub(crate) fn step(&mut self, now: Instant, telling: &mut Telling<'_>) {
        if self.is_done() {
            return;
        }
        let mut stages = std::mem::take(&mut self.stages);
        let mut rest = ANNOUNCEMENTS_PER_STEP;
        for stage in &mut stages {
            for _ in 0..rest.min(stage.conns.len()) {
                rest -= 1;
                let Some(conn) = stage.conns.pop_back() else { break };
                let Some(to) = telling.move_of(conn, stage) else { continue };
                let is_busy =
                    |router: Option<ShardId>| router.is_some_and(|router| self.is_busy(now, router));
                if !to.is_login && (!to.is_known && is_busy(to.new) || is_busy(to.old)) {
                    stage.conns.push_front(conn);
                } else {
                    self.announce(now, conn, &to, telling);
                }
            }
        }
        self.put_back(stages, telling);
    }

    fn put_back(&mut self, mut stages: VecDeque<Stage>, telling: &mut Telling<'_>) {
        stages.retain(|stage| !stage.conns.is_empty());
        self.stages = stages;
        if self.is_done() {
            telling.view.tell_all(true, telling.effects);
        }
    }

    /// Announces all that is left, however many there are.
    fn finish(&mut self, now: Instant, telling: &mut Telling<'_>) {
        let mut stages = std::mem::take(&mut self.stages);
        for stage in &mut stages {
            while let Some(conn) = stage.conns.pop_back() {
                if let Some(to) = telling.move_of(conn, stage) {
                    self.announce(now, conn, &to, telling);
                }
            }
        }
        self.put_back(stages, telling);
    }

    fn announce(&mut self, now: Instant, conn: ConnId, to: &Move, telling: &mut Telling<'_>) {
        if let Some(asked) = telling.announce(conn, to) {
            self.windows.asked(now, asked);
        }
    }
}

impl Telling<'_> {
    /// What has to be sent about a session of a stage; `None` if nothing.
    fn move_of(&self, conn: ConnId, stage: &Stage) -> Option<Move> {
        let is_asked = |session: &&Session| matches!(session.phase, Phase::Binding | Phase::Live);
        let session = self.sessions.get(conn).filter(is_asked)?;
        let (app, user) = (session.app, session.user);
        let target = Target::User(user);
        let told = owner_of(stage.before.owners.as_ref(), app, target);
        let (old, new) = (stage.before.owner_of(app, target), self.view.owner_of(app, target));
        // This includes a session that no owner has said it binds: an owner that was asked may have bound it
        // all the same, and must get its end later, even if no owner follows now.
        let may_be_bound = session.phase == Phase::Binding && told.is_some() && told != new;
        if old == new && !may_be_bound {
            return None;
        }
        let ranges = new.and_then(|new| stage.unchanged.get(&new)).filter(|_| session.phase == Phase::Live);
        let is_known = ranges.is_some_and(|ranges| ranges.contains(range_of(app, user)));
        let is_login = session.phase == Phase::Binding;
        Some(Move { old, new, is_known, was_told: told.is_some(), is_login })
    }

    /// Sends an announcement. Returns the router that will answer, if that counts in its window.
    fn announce(&mut self, conn: ConnId, to: &Move) -> Option<ShardId> {
        let session = self.sessions.get_mut(conn)?;
        let (app, user, device, is_live) =
            (session.app, session.user, session.device, session.phase == Phase::Live);
        if !to.is_known && (is_live || to.was_told) {
            session.login = Login(session.login.0.saturating_add(1));
        }
        let login = session.login;
        let session = self.names.of(conn);
        if let Some(old) = to.old.filter(|old| self.view.is_up(*old)) {
            self.effects.router(old, ToRouter::Unbind { app, user, device, session, moved: true });
        }
        let new = to.new.filter(|_| !to.is_known)?;
        // A session that is not bound yet has waited, and a later login may have come meanwhile: its stamp
        // decides.
        self.effects.router(new, ToRouter::Bind { app, user, device, session, login, fresh: false });
        is_live.then_some(new)
    }
}
