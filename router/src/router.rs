//! The core: sessions of users, and the gateways that are linked.

use shard::{Clocks, Instant, Prng, ShardId};
use wire::client::{FailReason, NoticeCode, Outcome};
use wire::node::{
    Answer, Bans, FoundSeat, Login, Presence, Question, Revocations, ShardLoad, StampClock, Target, ToBridge,
    ToDirectory, ToGateway, ToRouter,
};
use wire::{AppId, DeviceClass, RoomId, UserId};

use crate::away::Away;
use crate::cluster::{Cluster, Gateway};
use crate::dedupe::{Dedupe, Keys};
use crate::ends::{Device, Ends};
use crate::history::Histories;
use crate::keep::Keeps;
use crate::limits::{Limits, RESYNC_PAUSE, RESYNC_PER_STEP};
use crate::metrics::Metrics;
use crate::outbox::{Effect, Outbox, Seat, Sender};
use crate::partial::Partial;
use crate::pending::Pending;
use crate::recall::{Asked, Recalls};
use crate::rooms::Rooms;
use crate::term::Term;
use crate::users::{Bound, Claim, SaidBy, Users};

mod ban;
mod messages;
mod revoke;
mod said;
mod suspend;

/// The setup of one router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Which shard it is on.
    pub id: ShardId,
    /// The seed of its hashes: fresh at each start, and unknown to clients.
    pub seed: u64,
    /// What it may hold.
    pub limits: Limits,
    /// What rooms keep of the messages of some business codes; of all others as the limits say.
    pub keeps: Keeps,
}

/// The router core of one shard. See the crate's page.
///
/// It takes mail and timeouts, and its effects are only mail and records.
///
/// The rules that the messages do not determine:
///
/// - **Online and offline** are reported to the bridge when a user's class of device gets its first binding
///   here and loses its last. A session that replaces another reports online under its own stamp, for the
///   other's end may have been reported elsewhere, and no offline: the user was there all the time. A session
///   that moves to another owner is reported online again there, under a higher stamp, and not offline here.
/// - **A message to a user** goes to the sessions bound at that moment. A session that binds while the
///   message is pending does not get it: it would come after later messages to that session. The first ack
///   makes it delivered; if all sessions fail it is undelivered, for the last one's reason. A session that
///   was bound all the time, by an owner before, and is announced while gateways disagree about owners, gets
///   what its user's other sessions got here meanwhile.
/// - **An undelivered message** is handed over to the bridge. If there is one, the sender gets its send-ack
///   when the bridge says that it keeps the message, or after [`Limits::bridge_timeout_ms`]. A message that
///   comes from an inbox is not handed over: it is still there.
/// - **A repeated message** (same app, sender, target and client_msg_id) gets the first outcome, whatever it
///   was: a failed message has been handed over, and delivering it after all would make two of it. Three
///   outcomes are not remembered: `busy`, which asks for a repeat, a lossy message that nobody got, and a
///   message that stays in its inbox. A message from an inbox repeats only another one from there: the
///   original may be remembered as stored.
/// - **While gateways disagree** about owners, a message is parked if its user is not known, or if its room
///   may have members on shards that have not said so yet: until they agree, or for [`Limits::settle_ms`].
/// - **A gateway shard that goes** takes its memberships with it, and messages that waited for acks of its
///   sessions have failed. The sessions are away for [`Limits::away_ms`], in which the shard may come back
///   with them; then they are reported offline (`away.rs`).
/// - **A message for one class of device** goes to that session alone. It comes from an inbox, each of whose
///   sessions has an inbox delivery of its own, and repeats only such a message for the same class.
/// - **Shares.** Each sender and each receiver has a share of the waiting messages, and operators half of
///   them; beyond that the sender gets `busy`. Each sender has a share of the remembered outcomes, too, and
///   forgets its own oldest. A room sends reliable messages at a rate that members can follow; those of
///   operators do not count.
/// - **A lossy message to a user** has no send-ack, because nobody knows its outcome.
pub struct Router {
    limits: Limits,
    keys: Keys,
    users: Users,
    bans: Bans,
    revocations: Revocations,
    ends: Ends,
    rooms: Rooms,
    histories: Histories,
    recalls: Recalls,
    cluster: Cluster,
    away: Away,
    pending: Pending,
    partial: Partial,
    /// Undelivered messages that the bridge has not accepted or refused yet.
    handed: Pending,
    /// Whether there is a bridge that answers.
    is_bridged: bool,
    /// Whether room messages are also written to the directory, for owners to come.
    writes_streams: bool,
    /// How often the directory had lost something.
    stream_life: u32,
    dedupe: Dedupe,
    /// Without the gauges.
    metrics: Metrics,
    outbox: Outbox,
    /// A clock that is as fast as the fastest one of any gateway.
    stamps: StampClock,
    /// What other clocks show.
    clocks: Clocks,
    /// Up to which place bindings were sent to the directory again, and when the next are.
    resync: Option<(u32, Instant)>,
    /// Up to which place logins were stamped again, since a faster clock was seen, and when more are.
    restamp: Option<(u32, Instant)>,
    /// What has yet to be reported to the bridge again.
    retelling: Option<Retelling>,
}

impl Router {
    /// A router that knows nobody.
    ///
    /// # Panics
    ///
    /// If [`Limits::validate`] returns an error.
    pub fn new(config: Config) -> Self {
        let Config { id, seed, limits, keeps } = config;
        assert_eq!(limits.validate(), Ok(()));
        let mut prng = Prng::new(seed);
        Self {
            keys: Keys::new([prng.next_u64(), prng.next_u64()]),
            users: Users::new(prng.next_u64(), limits.bindings_max),
            bans: Bans::default(),
            revocations: Revocations::default(),
            ends: Ends::default(),
            rooms: Rooms::new(prng.next_u64(), id, limits.memberships_max),
            cluster: Cluster::new(id, limits.settle(), prng.next_u64()),
            away: Away::default(),
            pending: Pending::new(prng.next_u64() as u32, prng.next_u64()),
            handed: Pending::new(prng.next_u64() as u32, prng.next_u64()),
            partial: Partial::new(prng.next_u64()),
            histories: Histories::new(prng.next_u64(), &limits, keeps),
            recalls: Recalls::new(id, prng.next_u64()),
            is_bridged: false,
            writes_streams: false,
            stream_life: 0,
            dedupe: Dedupe::new(prng.next_u64(), &limits),
            metrics: Metrics::default(),
            outbox: Outbox::default(),
            stamps: StampClock::default(),
            clocks: Clocks::default(),
            resync: None,
            restamp: None,
            retelling: None,
            limits,
        }
    }

    /// A directory keeps room messages, so that a next owner can read them when this one dies.
    pub fn write_streams(&mut self) {
        self.writes_streams = true;
    }

    /// From here on, undelivered messages wait for [`Router::kept`] before their senders get a send-ack.
    pub fn expect_bridge(&mut self) {
        self.is_bridged = true;
    }

    /// A gateway shard is linked, one of `shards` of its node. If it was linked already, it was gone in
    /// between. Of its earlier state, only the sessions count, if it is in the same life and announces them.
    pub fn gateway_up(
        &mut self,
        now: Instant,
        shard: ShardId,
        shards: u16,
        is_local: bool,
        incarnation: u64,
    ) {
        self.gateway_down(now, shard);
        self.cluster.up(now, shard, Gateway::new(shards, is_local, incarnation));
        self.ask_for_away(shard, incarnation);
        for (Seat { session, .. }, login) in self.ends.take_presumed(shard) {
            self.outbox.gateway(shard, ToGateway::Ended { session, login });
        }
        self.tell_revocations(shard);
        self.tell_all_bans(shard);
    }

    /// A shard of a bridge is linked: to a router, it is a gateway without clients.
    pub fn bridge_up(&mut self, now: Instant, shard: ShardId, shards: u16, incarnation: u64) {
        self.gateway_up(now, shard, shards, false, incarnation);
        self.cluster.set_bridge(shard);
    }

    /// The connection with a gateway shard is gone, if it is one. It may find other owners while this router
    /// still counts it, and its earlier messages must not come after what those get.
    pub fn gateway_cut(&mut self, shard: ShardId) {
        self.metrics.lossy_offline += self.cluster.drop_unanswered(shard) as u64;
    }

    /// A gateway shard is gone, and its sessions are away. Mail for it is dropped: it means nothing to its
    /// next life or another shard.
    pub fn gateway_down(&mut self, now: Instant, shard: ShardId) {
        if let Some(gateway) = self.cluster.down(now, shard) {
            self.lose_sessions(now, shard, gateway.incarnation);
        }
        self.outbox.forget(shard);
    }

    fn lose_sessions(&mut self, now: Instant, shard: ShardId, incarnation: u64) {
        self.metrics.gateways_lost += 1;
        self.cluster.drop_all_of(shard);
        self.recalls.forget_shard(shard);
        self.suspend(now, shard, incarnation);
        for (app, room, left) in self.rooms.forget_shard(shard) {
            // Its members may go by another owner from now on.
            self.room_left(app, room, left, Term::default());
        }
        for (delivery, seat) in self.pending.on_shard(shard) {
            self.settle(now, delivery, seat, Outcome::Failed(FailReason::Disconnected));
        }
        self.tell_common(now, Asker::Nobody);
        self.settle_views(now);
    }

    /// Asks all gateways to choose other owners. [`Router::has_left`] says when they have.
    pub fn leave(&mut self, now: Instant) {
        self.cluster.leave();
        self.drop_all_away();
        self.tell_common(now, Asker::Nobody);
    }

    /// Whether this router was asked to leave, and nobody uses it any more.
    pub fn has_left(&self) -> bool {
        let is_empty = self.users.users() == 0 && self.rooms.len() == 0;
        let waiting = self.pending.len() + self.handed.len() + self.cluster.parked_len();
        self.cluster.is_leaving() && is_empty && waiting == 0 && self.has_moved()
    }

    /// The live sessions of a user, one for each class of device, in no particular order.
    pub fn online(&self, app: AppId, user: UserId) -> impl Iterator<Item = wire::node::Seat> + '_ {
        self.users.of(app, user).map(|(device, seat, login)| wire::node::Seat {
            device,
            shard: seat.shard.as_u32(),
            login,
        })
    }

    /// The shards that have members of a room, ascending.
    pub fn room_shards(&self, app: AppId, room: RoomId) -> &[ShardId] {
        self.rooms.members(app, room)
    }

    /// The gateway shards that are linked and have announced their sessions and rooms, ascending.
    pub fn announced(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.cluster.announced()
    }

    /// The time of the clock that all nodes share.
    fn clock_ns(&mut self, now: Instant) -> u64 {
        let Login(clock_ns) = self.stamps.show(self.clocks.order(now).unix_nanos());
        clock_ns
    }

    /// Sends every binding to the directory again, step by step, as it has lost some. It may lack room
    /// messages, too.
    pub fn tell_directory_all(&mut self, now: Instant) {
        self.stream_life += 1;
        self.resync = Some((0, now));
    }

    fn resync_step(&mut self, now: Instant) {
        let Some((from, due)) = self.resync.filter(|(_, due)| *due <= now) else { return };
        let bindings: Option<Vec<_>> = self.users.in_places(from, RESYNC_PER_STEP).map(Iterator::collect);
        self.resync = bindings.map(|bindings| {
            for (app, user, device, seat, login, _) in bindings {
                self.record(app, user, device, seat, login);
            }
            (from + RESYNC_PER_STEP, due + RESYNC_PAUSE)
        });
    }

    /// The bridge missed reports of some sessions: [`Router::retell`] reports all remembered ends and all
    /// bindings to it again.
    pub fn begin_retelling(&mut self) {
        self.retelling = Some(Retelling { ends: self.ends.all(), from: 0 });
    }

    /// Reports up to `step` sessions to the bridge again. Returns whether there was anything to report.
    pub fn retell(&mut self, step: usize) -> bool {
        let Some(Retelling { mut ends, from }) = self.retelling.take() else { return false };
        let rest = ends.len().saturating_sub(step);
        for ((app, user, device), login) in ends.split_off(rest) {
            self.outbox.bridge(ToBridge::Offline { app, user, device, login });
        }
        if !ends.is_empty() {
            self.retelling = Some(Retelling { ends, from });
            return true;
        }
        let Self { users, outbox, .. } = self;
        let Some(bindings) = users.in_places(from, step as u32) else { return true };
        for (app, user, device, _, login, is_guess) in bindings {
            if !is_guess {
                outbox.bridge(ToBridge::Online { app, user, device, login });
            }
        }
        self.retelling = Some(Retelling { ends, from: from + step as u32 });
        true
    }

    /// Otherwise a login with the stamp of a slow clock would be older than earlier ones of fast clocks.
    fn restamp_step(&mut self, now: Instant) {
        let Some((from, due)) = self.restamp.filter(|(_, due)| *due <= now) else { return };
        let stamped = self.users.stamp_again(from, RESYNC_PER_STEP);
        self.restamp = stamped.as_ref().map(|_| (from + RESYNC_PER_STEP, due + RESYNC_PAUSE));
        for (app, user, device, seat, login) in stamped.into_iter().flatten() {
            self.say_online(app, user, device, seat, login);
        }
    }

    /// What has been counted, and what is held.
    pub fn metrics(&self) -> Metrics {
        let (history_rooms, history, history_evicted) = self.histories.metrics();
        Metrics {
            history_rooms,
            history_messages: history.entries,
            history_bytes: history.bytes,
            history_evicted,
            recalls_waiting: self.recalls.len(),
            bindings: self.users.bindings() as u64,
            away: self.users.known().away(),
            users: self.users.users() as u64,
            rooms: self.rooms.len() as u64,
            pending: self.pending.len() as u64,
            handed: self.handed.len() as u64,
            remembered: self.dedupe.len() as u64,
            parked: self.cluster.parked_len() as u64,
            gateways: self.cluster.len() as u64,
            common: self.cluster.common().len() as u64,
            unsettled: u64::from(self.cluster.is_unsettled()),
            ..self.metrics
        }
    }

    /// Checks everything that must hold between events, at the cost of a walk through all tables.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    pub fn check_invariants(&self) {
        self.users.check_invariants();
        self.ends.check_invariants();
        self.rooms.check_invariants();
        self.histories.check_invariants();
        self.recalls.check_invariants();
        self.pending.check_invariants(true);
        self.handed.check_invariants(false);
        self.dedupe.check_invariants();
        self.cluster.check_invariants();
        self.partial.check_invariants();
        let may_miss = self.cluster.is_unsettled() || !self.away.is_empty();
        assert!(self.partial.len() == 0 || may_miss, "nobody is announced late, or comes back");
        assert!(self.pending.len() <= self.limits.pending_max as usize);
        assert!(self.handed.len() <= self.limits.pending_max as usize);
        assert!(self.cluster.parked_len() <= self.limits.pending_max as usize);
        self.away.check_invariants(&self.users, &self.cluster);
    }

    /// Takes mail of a gateway shard.
    pub fn mail(&mut self, now: Instant, from: ShardId, mail: ToRouter) {
        let seat = |session| Seat { shard: from, session };
        match mail {
            // Ignore unlinked senders: we could not undo their changes when they disconnect.
            _ if self.cluster.get(from).is_none() => self.metrics.strangers += 1,
            ToRouter::Bind { app, user, device, session, login, fresh } => {
                let said_by = if fresh { SaidBy::Login } else { SaidBy::Announcement };
                self.stamps.hear(self.clocks.order(now).unix_nanos(), login);
                if fresh && self.bans.refuses(self.clocks.wall_millis(now), app, user, device) {
                    self.metrics.refused += 1;
                    return self.kick(seat(session), NoticeCode::Kicked);
                }
                let login = login.believed(now.unix_nanos());
                self.mark_away(from);
                let (era, ended) = (self.cluster.era(), self.ends.last((app, user, device)));
                self.bind(app, user, Claim { device, seat: seat(session), login, said_by, era, ended });
                self.release(now, app, user);
            }
            ToRouter::Unbind { app, user, device, session, moved } => {
                self.unbind(app, user, device, seat(session), moved);
            }
            ToRouter::Ended { app, user, device, login } => {
                self.ended(from, (app, user, device), login.believed(now.unix_nanos()));
            }
            ToRouter::Join { app, room, sequence } => {
                let clock_ns = self.clock_ns(now);
                self.join(now, clock_ns, (app, room), from, sequence);
            }
            ToRouter::Leave { app, room } => self.leave_room(now, (app, room), from),
            ToRouter::Recall { app, room, ask, since, last } => {
                self.recall(now, Asked { from, app, room, ask, since, last });
            }
            ToRouter::Kept(part) => self.take_in(now, &part),
            ToRouter::Revoked { revocations } => self.revoke(now, revocations),
            ToRouter::Banned { bans } => self.hear_bans(now, bans),
            ToRouter::Submit { session, submission } => {
                let sender = Sender { seat: seat(session), submitted: submission.id };
                self.submit(now, sender, submission);
            }
            ToRouter::Settle { delivery, session, outcome } => {
                self.settle(now, delivery, seat(session), outcome);
            }
            ToRouter::Withdraw { app, target, id } => self.withdraw(from, app, target, id),
            ToRouter::Reach { routers, clock } => {
                let forward = self.stamps.hear(self.clocks.order(now).unix_nanos(), clock);
                let is_ahead = forward > 0;
                if is_ahead {
                    self.users.put_forward(forward);
                    self.restamp = Some((0, now));
                }
                self.cluster.set_reach(from, routers);
                self.tell_common(now, if is_ahead { Asker::All } else { Asker::One(from) });
            }
            ToRouter::View { view, done } => {
                if self.cluster.set_view(now, from, view, done) {
                    self.metrics.lossy_offline += self.cluster.drop_unanswered(from) as u64;
                }
                if done {
                    self.end_resuming(from);
                }
                self.settle_views(now);
            }
            ToRouter::Unchanged { ranges, moved } => self.resume(now, from, &ranges, moved),
            ToRouter::Ask { ask, question } => {
                let answer = self.answer(now, question);
                self.outbox.gateway(from, ToGateway::Answer { ask, answer });
            }
        }
    }

    /// From here on, other clocks show this.
    pub fn set_clocks(&mut self, clocks: Clocks) {
        self.clocks = clocks;
    }

    /// The time of [`Router::poll_timeout`] has come.
    pub fn timeout(&mut self, now: Instant) {
        self.expire(now);
        self.expire_away(now);
        self.settle_views(now);
        self.resync_step(now);
        self.restamp_step(now);
        self.recall_step(now);
        self.sweep_step(now);
    }

    /// The next effect. Poll it when the router has got everything of this turn.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.outbox.pop()
    }

    /// When [`Router::timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let resync = self.resync.map(|(_, due)| due);
        let restamp = self.restamp.map(|(_, due)| due);
        let (cluster, away) = (self.cluster.deadline(), self.away_deadline());
        let recalls = self.recalls.deadline(!self.histories.is_empty());
        [self.pending.deadline(), self.handed.deadline(), cluster, away, resync, restamp, recalls]
            .into_iter()
            .flatten()
            .min()
    }

    fn bind(&mut self, app: AppId, user: UserId, claim: Claim) {
        let Claim { device, seat, login, said_by, .. } = claim;
        let mut is_known = false;
        let mut bound = self.users.bind(app, user, claim);
        if bound == Bound::Full && self.drop_oldest_away() {
            bound = self.users.bind(app, user, claim);
        }
        let login = match bound {
            Bound::First(login) | Bound::Back(login) => login,
            Bound::Replaced(old, login) => {
                self.metrics.kicks += 1;
                self.kick(old, NoticeCode::Kicked);
                login
            }
            Bound::Confirmed(login) => {
                is_known = true;
                login
            }
            Bound::Again(login) => return self.say_bound(seat, login),
            Bound::Older => return self.kick(seat, NoticeCode::Kicked),
            Bound::AskAgain(above) => {
                let ask_again = ToGateway::AskAgain { session: seat.session, above };
                return self.outbox.gateway(seat.shard, ask_again);
            }
            Bound::Behind(newer, login) => {
                self.kick(seat, NoticeCode::Kicked);
                return self.say_online(app, user, device, newer, login);
            }
            Bound::Full => {
                self.metrics.refused += 1;
                self.kick(seat, NoticeCode::ServerFull);
                if said_by == SaidBy::Announcement {
                    // The owner before reported it online, and leaves the report of its end to this one.
                    self.say_offline(app, user, device, login);
                }
                return;
            }
        };
        match said_by {
            SaidBy::Login => self.metrics.binds += 1,
            SaidBy::Announcement => self.metrics.announced += 1,
            // It may have ended, or have another owner: nothing is reported before its gateway announces it.
            SaidBy::Directory => return,
        }
        self.say_online(app, user, device, seat, login);
        if said_by == SaidBy::Announcement && !is_known {
            self.give_missed(app, user, seat);
        }
    }

    /// An end was reported to the bridge, under a stamp that this router may not know. A session that is
    /// bound under no higher stamp is another one, and lives on.
    fn ended(&mut self, from: ShardId, (app, user, device): Device, ended: Login) {
        self.ends.put((app, user, device), ended);
        if self.users.end_away((app, user, device), from, ended) {
            self.outbox.directory(ToDirectory::Unbind { app, user, device, login: ended });
            return;
        }
        if let Some((seat, login)) = self.users.raise(app, user, device, ended) {
            self.say_online(app, user, device, seat, login);
        }
    }

    fn say_online(&mut self, app: AppId, user: UserId, device: DeviceClass, seat: Seat, login: Login) {
        self.outbox.bridge(ToBridge::Online { app, user, device, login });
        self.say_bound(seat, login);
        self.record(app, user, device, seat, login);
    }

    /// Tells the directory of a binding.
    fn record(&mut self, app: AppId, user: UserId, device: DeviceClass, at: Seat, login: Login) {
        let linked = self.cluster.get(at.shard).map(|gateway| gateway.incarnation);
        let incarnation = linked.or_else(|| self.away.incarnation(at.shard)).unwrap_or_default();
        let seat = wire::node::Seat { device, shard: at.shard.as_u32(), login };
        let seat = FoundSeat { seat, session: at.session, incarnation };
        self.outbox.directory(ToDirectory::Bind { app, user, seat });
    }

    fn say_bound(&mut self, Seat { shard, session }: Seat, login: Login) {
        self.outbox.gateway(shard, ToGateway::Bound { session, login });
    }

    fn kick(&mut self, Seat { shard, session }: Seat, notice: NoticeCode) {
        self.outbox.gateway(shard, ToGateway::Kick { session, notice });
    }

    /// The one place where a binding ends without another in its place.
    fn unbind(&mut self, app: AppId, user: UserId, device: DeviceClass, seat: Seat, moved: bool) {
        let Some((login, is_guess)) = self.users.unbind(app, user, device, seat) else {
            self.metrics.unbinds_stale += 1;
            return;
        };
        self.metrics.unbinds += 1;
        if moved && self.cluster.is_unsettled() {
            self.users.begin_to_leave(app, user, self.cluster.era());
        }
        // The end of a session that only the directory knew is reported by its owner.
        if !moved && (!is_guess || self.cluster.owns(app, user)) {
            self.say_offline(app, user, device, login);
            if is_guess && self.cluster.get(seat.shard).is_none() {
                self.ends.presume(seat, login);
            }
        }
    }

    fn say_offline(&mut self, app: AppId, user: UserId, device: DeviceClass, login: Login) {
        self.ends.put((app, user, device), login);
        self.outbox.bridge(ToBridge::Offline { app, user, device, login });
        self.outbox.directory(ToDirectory::Unbind { app, user, device, login });
    }

    /// The directory knows sessions of a user for whom messages are parked. Those that were not announced yet
    /// count as announced.
    pub fn found(&mut self, now: Instant, app: AppId, user: UserId, seats: &[FoundSeat]) {
        if !self.cluster.is_parked(app, Target::User(user)) {
            return;
        }
        for FoundSeat { seat, session, incarnation } in seats {
            let shard = ShardId::from_u32(seat.shard);
            let is_that_life =
                self.cluster.get(shard).is_some_and(|gateway| gateway.incarnation == *incarnation);
            let seat_of = Seat { shard, session: *session };
            // The gateway of a session that is away knows more: whether it is back, or has ended. If another
            // owner gave it a stamp meanwhile, that owner has to end it.
            let is_away = || self.users.away_of(app, user, shard).contains(&seat_of);
            if is_that_life && !is_away() {
                let (device, login, said_by) = (seat.device, seat.login, SaidBy::Directory);
                let (era, ended) = (self.cluster.era(), Login::default());
                let claim = Claim { device, seat: seat_of, login, said_by, era, ended };
                self.bind(app, user, claim);
            }
        }
        self.release(now, app, user);
    }

    /// Answers what an operator asks, from what this router knows.
    pub fn answer(&mut self, now: Instant, question: Question) -> Answer {
        match question {
            Question::Online { app, users } => {
                let presence = |user| Presence { user, seats: self.online(app, user).collect() };
                let users = users.into_iter().map(presence).collect();
                Answer::Online { users, settled: self.cluster.is_agreed() }
            }
            Question::Kick { app, user, device, ban_ms } => {
                if let Some(ban_ms) = ban_ms {
                    self.ban(now, (app, user, device), ban_ms);
                }
                let is_meant = |class| device.is_none_or(|device| device == class);
                let seats: Vec<Seat> = self
                    .users
                    .of(app, user)
                    .filter(|(class, ..)| is_meant(*class))
                    .map(|(_, seat, _)| seat)
                    .collect();
                seats.iter().for_each(|seat| self.kick(*seat, NoticeCode::Kicked));
                Answer::Kicked { sessions: seats.len() as u32 }
            }
            Question::Revoke { revocations } => {
                self.revoke(now, revocations);
                Answer::Told { shards: self.cluster.len() as u32 }
            }
            Question::PushAll { message } => {
                for shard in self.cluster.shards() {
                    self.outbox.gateway(shard, ToGateway::All { message: message.clone() });
                }
                Answer::Told { shards: self.cluster.len() as u32 }
            }
            Question::Drain { node } => {
                let of_node = self.cluster.shards().filter(|shard| shard.node() == node);
                let shards: Vec<ShardId> = of_node.collect();
                shards.iter().for_each(|shard| self.outbox.gateway(*shard, ToGateway::Drain));
                Answer::Told { shards: shards.len() as u32 }
            }
            Question::Nodes => {
                let has_clients =
                    |shard: &ShardId| self.cluster.get(*shard).is_some_and(|gateway| !gateway.is_bridge);
                let load = |shard: ShardId| ShardLoad {
                    shard: shard.as_u32(),
                    sessions: self.users.known().bindings(shard),
                };
                let shards = self.cluster.shards().filter(has_clients).map(load).collect();
                Answer::Nodes { shards }
            }
            Question::History { app, room, last } => self.history(now, app, room, last),
        }
    }

    /// Sends all gateways the routers that they all reach if these have changed, else only to the asker.
    fn tell_common(&mut self, now: Instant, asker: Asker) {
        let clock = self.stamps.show(self.clocks.order(now).unix_nanos());
        let has_changed = self.cluster.agree();
        let routers = self.cluster.common().to_vec();
        if has_changed {
            self.recalls.set_owners(&routers);
            self.sweep_now(now);
        }
        let is_told = |shard: &ShardId| has_changed || asker == Asker::All || asker == Asker::One(*shard);
        for shard in self.cluster.shards().filter(is_told) {
            self.outbox.gateway(shard, ToGateway::Common { routers: routers.clone(), clock });
        }
    }

    /// Releases parked messages if there is agreement. Sessions that were not announced by then count as
    /// ended: they ended before this router was their owner, so nobody would unbind them.
    fn settle_views(&mut self, now: Instant) {
        let settles = self.cluster.settles(now);
        if self.cluster.is_agreed() {
            for (app, user, device, seat) in self.users.guesses() {
                self.unbind(app, user, device, seat, false);
            }
        }
        if !settles {
            return;
        }
        self.partial.clear();
        while let Some(parked) = self.cluster.unpark_any() {
            self.resubmit(now, parked);
        }
        self.sweep_now(now);
    }
}

/// What is reported to the bridge again, step by step.
struct Retelling {
    /// Ends, with their stamps.
    ends: Vec<(Device, Login)>,
    /// Bindings at places from here on.
    from: u32,
}

/// Who is sent the routers that everybody reaches, though they have not changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asker {
    Nobody,
    One(ShardId),
    /// All, as a clock has come that is ahead of what they know.
    All,
}
