//! The core itself: its state, and the events of connections and time.

use std::borrow::Cow;
use std::net::IpAddr;

use edge::Port;
use shard::{Bucket, Clocks, ConnId, ConnMap, Instant, Prng, Rate, SendBatch, ShardId, Wheel};
use wire::client::{Code, DecodeError, Deframer, FailReason, NoticeCode, ServerFrame};
use wire::node::{Bans, Login, Revocations, SessionId, StampClock, ToBridge, ToControl, ToGateway, ToRouter};
use wire::{AppId, DeviceClass, RoomId, UserId};

use crate::admission::Addresses;
use crate::announce::Announcing;
use crate::config::Config;
use crate::dirty::{Dirt, Dirty, Output};
use crate::effect::{Effect, Effects};
use crate::ends::{End, Ends, Retelling};
use crate::known_tokens::KnownTokens;
use crate::latency::{Stamp, Written};
use crate::layered::Layered;
use crate::limits::{
    CONTROL_BYTES_MIN, FAREWELL_PAUSE, FAREWELLS_PER_STEP, LOGIN_BYTES_MAX, LOGIN_RETRY, TIMEOUTS_PER_TURN,
    UNFINISHED_FREE,
};
use crate::login_window::LoginWindow;
use crate::message_ids::MessageIds;
use crate::metrics::Metrics;
use crate::notices::notice_text;
use crate::outbox::{OutboxId, Outboxes};
use crate::rooms::{Memberships, Rooms};
use crate::session::{Names, Phase, Session, TokenTimes};
use crate::stay::Stay;
use crate::submitted::Submitted;
use crate::timer::Timer;
use crate::token::TokenKeys;
use crate::told::Told;
use crate::unchanged::Remembered;
use crate::unfinished::Unfinished;
use crate::view::View;

mod delivery;
mod fan_out;
mod frames;
mod layers;
mod owners;
mod push;
mod recovery;
mod silence;
mod submit;

pub use push::Push;

/// What a gateway shard is made of.
pub struct Setup {
    /// Which shard it is.
    pub id: ShardId,
    /// How login tokens are checked.
    pub keys: TokenKeys,
    /// Checked by [`Config::validate`].
    pub config: Config,
    /// Which layers the connections of each listener have, in the order of the engine's; none past the end.
    pub ports: Vec<Port>,
    /// Of everything that is random here.
    pub seed: u64,
}

/// The gateway core of one shard.
///
/// Sessions live in one table, by the engine's connection id; what waits for a connection in a pooled outbox;
/// who is in a room in `Rooms`. Handlers change these and mark a connection dirty; [`Gateway::poll_effect`]
/// gives each dirty connection out once, so everything that one turn produced for it leaves in one write.
pub struct Gateway {
    id: ShardId,
    view: View,
    announcing: Announcing,
    remembered: Remembered,
    ends: Ends,
    ids: MessageIds,
    stamps: StampClock,
    submitted: Submitted,
    keys: TokenKeys,
    known_tokens: KnownTokens,
    revocations: Revocations,
    bans: Bans,
    config: Config,
    rate: Rate,
    prng: Prng,
    names: Names,
    sessions: ConnMap<Session>,
    outboxes: Outboxes,
    rooms: Rooms,
    addresses: Addresses,
    unfinished: Unfinished,
    told: Told,
    layered: Layered,
    logins: LoginWindow,
    wheel: Wheel<u64>,
    effects: Effects,
    dirty: Dirty,
    metrics: Metrics,
    /// What other clocks show.
    clocks: Clocks,
    /// Whether the engine leaves what clients say unread, and from when on they may be judged by what they
    /// have not said.
    are_unread: bool,
    hears_from: Instant,
    /// Whether turns leave something unread.
    is_behind: bool,
    /// Until when connections with unacked messages are kept; set by a drain.
    draining_until: Option<Instant>,
    /// Connections that a drain has yet to look at.
    farewells: Vec<ConnId>,
    retelling: Retelling,
}

impl Gateway {
    /// A gateway shard without connections.
    pub fn new(now: Instant, setup: Setup) -> Self {
        let Setup { id, keys, config, ports, seed } = setup;
        let mut prng = Prng::new(seed);
        let layered = Layered::new(ports, config.edge.clone());
        Self {
            id,
            view: View::default(),
            announcing: Announcing::default(),
            remembered: Remembered::default(),
            ends: Ends::default(),
            ids: MessageIds::new(id),
            stamps: StampClock::default(),
            submitted: Submitted::new(prng.next_u64()),
            keys,
            known_tokens: KnownTokens::new(prng.next_u64()),
            revocations: Revocations::default(),
            bans: Bans::default(),
            rate: Rate::new(config.limits.frames_per_second, config.limits.frames_burst),
            config,
            sessions: ConnMap::new(),
            outboxes: Outboxes::default(),
            rooms: Rooms::new(prng.next_u64()),
            addresses: Addresses::new(prng.next_u64()),
            unfinished: Unfinished::new(),
            logins: LoginWindow::new(now),
            names: Names::new(prng.next_u64() as u32),
            layered,
            told: Told::default(),
            prng,
            wheel: Wheel::new(now),
            effects: Effects::default(),
            dirty: Dirty::default(),
            metrics: Metrics::default(),
            clocks: Clocks::default(),
            are_unread: false,
            hears_from: now,
            is_behind: false,
            draining_until: None,
            farewells: Vec::new(),
            retelling: Retelling::default(),
        }
    }

    /// How others name the session of a connection.
    pub fn session_of(&self, conn: ConnId) -> SessionId {
        self.names.of(conn)
    }

    /// The connection of a session that others name; that of no connection, if it is one of an earlier life.
    fn conn_of(&self, session: SessionId) -> ConnId {
        self.names.conn(session)
    }

    /// A copy of the counters, gauges brought up to date.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            connections: self.sessions.len() as u64,
            rooms: self.rooms.len() as u64,
            memberships: self.rooms.memberships() as u64,
            timers: self.wheel.len() as u64,
            outbox_bytes: self.outboxes.bytes(),
            submitted: self.submitted.len() as u64,
            submitted_bytes: self.submitted.bytes(),
            routers: self.routers().count() as u64,
            owners: self.owners().count() as u64,
            tls_handshakes: self.layered.handshakes_done(),
            ..self.metrics.clone()
        }
    }

    /// Bytes that the layers of connections hold, for tests and simulation: an idle one holds nothing.
    pub fn layers_bytes(&self) -> usize {
        self.layered.held_bytes()
    }

    /// Puts another checked configuration in force. Timers that are armed keep their deadlines.
    pub fn reload(&mut self, config: Config) {
        self.rate = Rate::new(config.limits.frames_per_second, config.limits.frames_burst);
        self.layered.set_rules(config.edge.clone());
        self.config = config;
    }

    /// Begins to go: takes no more connections, tells every client when to come back elsewhere, and closes
    /// each connection once its messages are acked, all of them at the deadline.
    pub fn drain(&mut self, now: Instant) {
        if self.draining_until.is_some() {
            return;
        }
        let until = now + std::time::Duration::from_millis(u64::from(self.config.drain.deadline_ms));
        self.draining_until = Some(until);
        self.effects.stop_accepting();
        self.farewells = self.connections();
        self.drain_step(now);
    }

    /// Whether a drain has come to its end: no connection is left.
    pub fn is_drained(&self) -> bool {
        self.draining_until.is_some() && self.sessions.is_empty()
    }

    /// Own-state invariants; called after every step of a test or simulation.
    pub fn check_invariants(&self) {
        self.dirty.check_invariants(self.sessions.iter().map(|(conn, session)| (conn, session.output)));
        let mut outboxes = 0;
        let (mut sessions, mut binding, mut layered) = (0, 0, 0);
        for (conn, session) in self.sessions.iter() {
            outboxes += usize::from(session.outbox != OutboxId::NONE);
            sessions += u64::from(session.is_logged_in());
            binding += u32::from(session.phase == Phase::Binding);
            layered += usize::from(session.has_layers);
            assert!(
                session.is_logged_in() || session.rooms == Memberships::NONE,
                "{conn:?} is in a room without a login"
            );
        }
        assert_eq!(sessions, self.metrics.sessions);
        assert_eq!(binding, self.logins.under_way());
        assert_eq!(self.addresses.connections(), self.sessions.len() as u64);
        self.layered.check_invariants(layered);
        for (conn, session) in self.sessions.iter().filter(|(_, session)| session.phase != Phase::Closing) {
            let bytes = self.unfinished_bytes(conn, session);
            let is_counted =
                session.phase == Phase::Fresh || session.has_layers || bytes > 2 * UNFINISHED_FREE;
            assert!(!is_counted || bytes == self.unfinished.of(conn), "{conn:?} holds {bytes} bytes");
        }
        self.unfinished.check_invariants();
        self.told.check_invariants();
        self.outboxes.check_invariants(outboxes);
        self.rooms.check_invariants();
        self.submitted.check_invariants();
    }

    /// The next thing that is to be done, in order; `None` when there is nothing left in this turn.
    pub fn poll_effect(&mut self, now: Instant) -> Option<Effect> {
        self.choose_owners(now);
        self.ask_owners(now);
        while let Some(mut effect) = self.effects.pop() {
            if self.is_wanted(now, &mut effect) {
                return Some(effect);
            }
        }
        while let Some((conn, dirt)) = self.dirty.next(now) {
            let Some(session) = self.sessions.get_mut(conn).filter(|session| session.output.dirt == dirt)
            else {
                continue;
            };
            session.output.dirt = Dirt::None;
            if session.phase != Phase::Closing && !session.output.is_writing {
                self.dirty.count();
                return Some(Effect::Transmit { conn });
            }
        }
        self.layered.end_turn();
        None
    }

    /// Whether work is left for the next turn, which is to begin at once.
    pub fn has_more(&self) -> bool {
        self.dirty.has_more()
    }

    /// A login is bound when all of its turn has been heard, under the stamp of that moment, and only if its
    /// connection is still there: after a long sleep of this shard the end of it may have come with it, and a
    /// newer session may live elsewhere. Whether the effect is to be carried out.
    fn is_wanted(&mut self, now: Instant, effect: &mut Effect) -> bool {
        let Effect::ToRouter { to, mail } = effect else { return true };
        let ToRouter::Bind { app, user, session, login, fresh: true, .. } = mail else { return true };
        if self.view.owner_of_user(*app, *user) != Some(*to) {
            return false; // it is announced to the next
        }
        let (conn, stamp) = (self.conn_of(*session), self.stamps.show(self.clock_ns(now)));
        let Some(known) = self.sessions.get_mut(conn).filter(|known| known.phase == Phase::Binding) else {
            return false;
        };
        known.login = known.login.max(stamp);
        *login = known.login;
        true
    }

    /// Moves what is to be written into `batch`.
    pub fn poll_transmit(&mut self, now: Instant, conn: ConnId, batch: &mut SendBatch) {
        let Self { sessions, outboxes, wheel, config, layered, metrics, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        if session.outbox != OutboxId::NONE {
            let deadline = now + config.delivery.ack_timeout(1);
            outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
                let written = Written { now: Stamp::of(now), latency: &mut metrics.latency };
                outbox.fill(batch, config.delivery.window, written, |flight| {
                    wheel.arm(deadline, Timer::Ack { conn_index: conn.index, flight }.pack())
                });
            });
        }
        if session.has_layers {
            layered.transmit(conn, batch, session.phase == Phase::Closing);
        }
        session.output.is_writing = !batch.is_empty();
    }

    /// A client has connected, by the listener of that number.
    pub fn accepted(&mut self, now: Instant, conn: ConnId, peer: IpAddr, listener: u16) {
        let (address, from_address) = self.addresses.enter(peer);
        let (has_layers, is_from_proxy) = self.layered.accepted(conn, peer, listener);
        let deadline = now + self.config.limits.login_deadline();
        let session = Session {
            user: UserId(0),
            app: AppId(0),
            device: DeviceClass::Phone,
            phase: Phase::Fresh,
            encoding: None,
            output: Output::NONE,
            has_layers,
            address,
            outbox: OutboxId::NONE,
            rooms: Memberships::NONE,
            deframer: Deframer::default(),
            login: Login::default(),
            token: TokenTimes::default(),
            token_login: 0,
            last_seen: now,
            bucket: Bucket::default(),
            timer: self.wheel.arm(deadline, Timer::Session { conn_index: conn.index }.pack()),
        };
        self.sessions.insert(conn, session);
        self.metrics.accepted += 1;
        if self.draining_until.is_some() {
            self.close_draining(conn);
        } else if self.sessions.len() > self.config.limits.connections_max as usize {
            self.close_with_notice(conn, NoticeCode::ServerFull);
        } else if from_address > self.config.limits.address_connections_max && !is_from_proxy {
            self.close_with_notice(conn, NoticeCode::AddressLimit);
        }
    }

    /// Bytes came.
    pub fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(session) = self.sessions.get(conn) else { return };
        let is_much = bytes.len().max(session.deframer.partial_bytes()) > UNFINISHED_FREE;
        let is_fresh = session.phase == Phase::Fresh;
        let counts = is_much || is_fresh || session.has_layers || !self.unfinished.is_empty();
        match session.has_layers {
            true => self.received_layered(now, conn, bytes),
            false => self.received_frames(now, conn, bytes),
        }
        if counts {
            self.count_unfinished(conn);
        }
    }

    /// What a connection holds of a frame that is not whole is limited, and little before its login.
    fn count_unfinished(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.get(conn).filter(|session| session.phase != Phase::Closing) else {
            return;
        };
        let is_fresh = session.phase == Phase::Fresh;
        let bytes = self.unfinished_bytes(conn, session);
        if is_fresh && session.has_layers && self.layered.text_len(conn) > LOGIN_BYTES_MAX {
            self.close_with_notice(conn, NoticeCode::BadLength);
        } else if !self.unfinished.set(conn, session.address, is_fresh, bytes) {
            self.close_crowded(conn);
        }
        while let Some(evicted) = self.unfinished.next_evicted() {
            self.close_crowded(evicted);
        }
    }

    /// What counts of that.
    fn unfinished_bytes(&self, conn: ConnId, session: &Session) -> usize {
        let in_layers = if session.has_layers { self.layered.partial_bytes(conn) } else { 0 };
        let bytes = session.deframer.partial_bytes() + in_layers;
        if session.phase == Phase::Fresh || bytes > UNFINISHED_FREE { bytes } else { 0 }
    }

    /// Bytes of the stream of frames came.
    fn received_frames(&mut self, now: Instant, conn: ConnId, mut bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let mut deframer = std::mem::take(&mut session.deframer);
        while let Some(phase) = self.sessions.get(conn).map(|session| session.phase)
            && phase != Phase::Closing
        {
            let most = self.config.limits.frame_bytes_max as usize;
            let most = if phase == Phase::Fresh { most.min(LOGIN_BYTES_MAX) } else { most };
            match deframer.next(&mut bytes, most) {
                Ok(Some(frame)) => {
                    if let Err(notice) = self.frame(now, conn, &frame) {
                        self.close_with_notice(conn, notice);
                    }
                }
                Ok(None) => {
                    if phase == Phase::Fresh && deframer.code(&[]).is_some_and(|code| code != Code::Login) {
                        return self.close_with_notice(conn, NoticeCode::LoginRequired);
                    }
                    if let Some(session) = self.sessions.get_mut(conn) {
                        session.deframer = deframer;
                    }
                    return;
                }
                Err(error) => {
                    let code = deframer.code(bytes).filter(|_| phase == Phase::Fresh);
                    let is_other =
                        error == DecodeError::BadLength && code.is_some_and(|it| it != Code::Login);
                    let notice = if is_other { NoticeCode::LoginRequired } else { error.into() };
                    self.close_with_notice(conn, notice);
                }
            }
        }
    }

    /// A batch was written.
    pub fn sent(&mut self, conn: ConnId) {
        let Self { sessions, outboxes, dirty, config, layered, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        session.output.is_writing = false;
        if session.has_layers && layered.has_output(conn) {
            dirty.mark(&mut session.output, conn, Dirt::First);
        }
        let dirt = outboxes.look(&mut session.outbox, config.delivery.window, false);
        if dirt > Dirt::None {
            dirty.mark(&mut session.output, conn, dirt);
        }
    }

    /// The peer will say no more, which for a client of a chat means that it is gone.
    pub fn finished(&mut self, conn: ConnId) {
        if self.end(conn) {
            self.effects.close(conn);
        }
    }

    /// A connection is gone.
    pub fn closed(&mut self, conn: ConnId) {
        self.end(conn);
        let Some(mut session) = self.sessions.remove(conn) else { return };
        self.addresses.exit(session.address);
        if session.has_layers {
            self.layered.closed(conn);
        }
        if session.outbox != OutboxId::NONE {
            self.outboxes.update(session.owner(conn), &mut session.outbox, |outbox| outbox.clear_control());
            self.outboxes.release(&mut session.outbox);
        }
    }

    /// From here on, other clocks show this.
    pub fn set_clocks(&mut self, clocks: Clocks) {
        self.clocks = clocks;
    }

    /// What this shard's own clock shows, by which ids and stamps are made.
    fn clock_ns(&self, now: Instant) -> u64 {
        self.clocks.order(now).unix_nanos()
    }

    /// The time of [`Gateway::poll_timeout`] has come.
    pub fn timeout(&mut self, now: Instant) {
        self.answer_hellos(now);
        for _ in 0..TIMEOUTS_PER_TURN {
            match self.wheel.pop_expired(now).map(Timer::unpack) {
                None => break,
                Some(Timer::Session { conn_index }) => self.session_timeout(now, conn_index),
                Some(Timer::Ack { conn_index, flight }) => self.ack_timeout(now, conn_index, flight),
                Some(Timer::Room { index }) => self.room_timeout(now, index),
                Some(Timer::Drain) => self.drain_step(now),
                Some(Timer::Announce) => self.announce_on(now),
                Some(Timer::Recall { index }) => self.recall_timeout(now, index),
            }
        }
    }

    /// Says farewell to some connections, so that a drain of very many takes many short turns and not a long
    /// one. Before the deadline, those with unacked messages are passed over.
    fn drain_step(&mut self, now: Instant) {
        let until = self.draining_until.expect("a drain is under way");
        if self.farewells.is_empty() && now >= until {
            self.farewells = self.connections();
        }
        let rest = self.farewells.len().saturating_sub(FAREWELLS_PER_STEP);
        for conn in self.farewells.split_off(rest) {
            if now >= until || self.is_settled(conn) {
                self.close_draining(conn);
            }
        }
        if self.farewells.is_empty() && now >= until {
            return;
        }
        let next = if self.farewells.is_empty() { until } else { now + FAREWELL_PAUSE };
        self.wheel.arm(next, Timer::Drain.pack());
    }

    /// Says why, and closes once that is written.
    fn close_with_notice(&mut self, conn: ConnId, code: NoticeCode) {
        self.close_with(conn, code, 0, Vec::new());
    }

    /// More logins come than owners answer.
    fn close_crowded(&mut self, conn: ConnId) {
        let retry_ms = LOGIN_RETRY.as_millis() as u32;
        let retry_after_ms = retry_ms + self.prng.below(u64::from(retry_ms) + 1) as u32;
        let alternatives = self.alternatives();
        self.close_with(conn, NoticeCode::ServerFull, retry_after_ms, alternatives);
    }

    fn close_draining(&mut self, conn: ConnId) {
        let spread_ms = u64::from(self.config.drain.spread_ms);
        let retry_after_ms = self.prng.below(spread_ms + 1) as u32;
        let alternatives = self.alternatives();
        self.close_with(conn, NoticeCode::Draining, retry_after_ms, alternatives);
    }

    /// The alternatives in an order of chance, so that clients spread over them.
    fn alternatives(&mut self) -> Vec<Cow<'static, str>> {
        let alternatives = &self.config.drain.alternatives;
        if alternatives.is_empty() {
            return Vec::new();
        }
        let first = self.prng.below(alternatives.len() as u64) as usize;
        let (before, from) = alternatives.split_at(first);
        from.iter().chain(before).map(|one| Cow::Owned(one.clone())).collect()
    }

    /// Closes a connection that a drain kept for the sake of unacked messages, once there are none.
    fn close_if_drained(&mut self, conn: ConnId) {
        if self.draining_until.is_some() && self.is_settled(conn) {
            self.close_draining(conn);
        }
    }

    fn close_with(
        &mut self,
        conn: ConnId,
        code: NoticeCode,
        retry_after_ms: u32,
        alternatives: Vec<Cow<'static, str>>,
    ) {
        assert!(code.closes(), "{code:?} leaves the connection open");
        if !self.end(conn) {
            return;
        }
        self.put_notice(conn, code, retry_after_ms, alternatives);
        self.layered.ends_with(conn, code);
        self.effects.close(conn);
    }

    /// Queues a notice that leaves the connection open.
    fn say_notice(&mut self, conn: ConnId, code: NoticeCode) {
        self.put_notice(conn, code, 0, Vec::new());
    }

    fn put_notice(
        &mut self,
        conn: ConnId,
        code: NoticeCode,
        retry_after_ms: u32,
        alternatives: Vec<Cow<'static, str>>,
    ) {
        self.metrics.count_notice(code);
        let text = notice_text(code).into();
        self.say(conn, &ServerFrame::Notice { code, text, retry_after_ms, alternatives });
    }

    /// Queues an answer. A client that asks for more than it may at once and reads none of the answers is
    /// closed.
    fn say(&mut self, conn: ConnId, frame: &ServerFrame<'_>) {
        let Self { sessions, outboxes, dirty, config, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        let (encoding, app, user) = (session.answer_encoding(), session.app, session.user);
        let share = outboxes.share(&config.limits, session.outbox, session.address).max(CONTROL_BYTES_MIN);
        let bytes_max = config.limits.answers_bytes_max().min(share);
        let taken = outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
            outbox.push_control(bytes_max, |control| frame.encode(encoding, app, user, control))
        });
        if taken {
            dirty.mark(&mut session.output, conn, Dirt::First);
            self.metrics.count_out(frame.code(), 1);
        } else if session.phase != Phase::Closing {
            self.close_with_notice(conn, NoticeCode::SlowReader);
        }
    }

    /// Ends what the connection stood for, however it came to that: the binding, the memberships, the
    /// messages that wait for it. False when it had ended before.
    fn end(&mut self, conn: ConnId) -> bool {
        let Some(session) = self.sessions.get_mut(conn) else { return false };
        if session.phase == Phase::Closing {
            return false;
        }
        let (app, user, device, login) = (session.app, session.user, session.device, session.login);
        let (was_logged_in, was_live) = (session.is_logged_in(), session.phase == Phase::Live);
        let stay = Stay::of(session);
        if session.phase == Phase::Binding {
            self.logins.end();
        }
        session.phase = Phase::Closing;
        session.deframer = Deframer::default();
        self.unfinished.forget(conn);
        self.wheel.cancel(session.timer);
        if was_logged_in {
            self.metrics.sessions -= 1;
            if !self.unbind(conn, app, user, device, was_live) && was_live {
                let session = self.session_of(conn);
                self.ends.put(End { owner: None, app, user, device, session, login });
                self.tell_bridge(ToBridge::Offline { app, user, device, login });
            }
            self.leave_all(conn, stay);
            self.abandon(conn, user, FailReason::Disconnected);
        }
        true
    }

    /// A session that has yet to be announced to another owner is bound by the one before. False when that is
    /// gone: then nobody may know the session who could tell of its end.
    fn unbind(
        &mut self,
        conn: ConnId,
        app: AppId,
        user: UserId,
        device: DeviceClass,
        was_live: bool,
    ) -> bool {
        let login = self.sessions.get(conn).map_or(Login::default(), |session| session.login);
        let session = self.session_of(conn);
        let owner = self.view.owner_of_user(app, user);
        let mut before = self.announcing.owners_before(app, user);
        before.retain(|before| Some(*before) != owner);
        for owner in owner.into_iter().chain(before.iter().copied()) {
            if self.view.is_up(owner) {
                self.tell_router(owner, ToRouter::Unbind { app, user, device, session, moved: false });
                // One that was never live may not be known to anybody, and its stamp may be above that of one
                // that is.
                if was_live {
                    self.ends.put(End { owner: Some(owner), app, user, device, session, login });
                }
            }
        }
        owner.is_some_and(|owner| self.view.is_up(owner))
            && before.iter().all(|before| self.view.is_up(*before))
    }

    /// A router that saw this shard go has told the bridge that a session ended. If it lives, its owner puts
    /// its stamp above that of the end.
    fn deny_end(&mut self, session: SessionId, ended: Login) {
        let Some(known) = self.sessions.get(self.conn_of(session)) else { return };
        if known.phase != Phase::Live || known.login > ended {
            return;
        }
        let (app, user, device) = (known.app, known.user, known.device);
        let owner = self.view.owner_of_user(app, user);
        self.ends.put(End { owner, app, user, device, session, login: ended });
        if let Some(owner) = owner {
            self.tell_router(owner, ToRouter::Ended { app, user, device, login: ended });
        }
    }

    fn leave_all(&mut self, conn: ConnId, stay: Stay) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let mut memberships = session.rooms;
        session.rooms = Memberships::NONE;
        while let Some((room, last)) = self.rooms.leave_any(&mut memberships) {
            self.left(stay, room, last.0);
        }
    }

    /// Tells who must know that a session is out of a room.
    fn left(&mut self, stay: Stay, room: RoomId, last: bool) {
        let Stay { app, user, device, login, is_told } = stay;
        self.forget_recalls();
        if last && let Some(owner) = self.view.owner_of_room(app, room) {
            self.tell_router(owner, ToRouter::Leave { app, room });
        }
        if is_told {
            self.tell_bridge(ToBridge::Left { app, user, device, login, room });
        }
    }

    fn is_settled(&mut self, conn: ConnId) -> bool {
        let Some(session) = self.sessions.get_mut(conn) else { return false };
        self.outboxes.get_mut(session.outbox).is_none_or(|outbox| outbox.is_settled())
    }

    fn connections(&self) -> Vec<ConnId> {
        self.sessions.iter().map(|(conn, _)| conn).collect()
    }

    fn tell_router(&mut self, to: ShardId, mail: ToRouter) {
        self.effects.router(to, mail);
    }

    fn tell_bridge(&mut self, event: ToBridge) {
        self.effects.bridge(event);
    }

    /// A router shard, or a sibling, says something.
    pub fn mail(&mut self, now: Instant, from: ShardId, mail: ToGateway) {
        match mail {
            ToGateway::Bound { session, login } => {
                let conn = self.conn_of(session);
                if self.sessions.get(conn).is_none_or(|session| session.phase != Phase::Binding) {
                    self.announcing.answered(now, from);
                }
                self.bound(now, conn, login);
            }
            ToGateway::AskAgain { session, above } => self.ask_again(from, self.conn_of(session), above),
            // A notice that leaves the connection open is no reason to end it; no router says one.
            ToGateway::Kick { notice, .. } if !notice.closes() => {}
            ToGateway::Kick { session, notice } => {
                self.announcing.answered(now, from);
                self.kicked(self.conn_of(session), notice);
            }
            ToGateway::Joined { app, room, sequence } => self.joined(now, from, app, room, sequence),
            ToGateway::Full { app, room } => self.not_joined(from, app, room),
            ToGateway::Deliver { session, delivery, again, message } => {
                let conn = self.conn_of(session);
                if !self.is_here(from, conn, delivery, again, &message) {
                    self.deliver(now, from, conn, delivery, &message);
                }
            }
            ToGateway::Broadcast { message, shards } => self.broadcast_to(now, message, &shards),
            ToGateway::SendAck { session, submitted, ack } => {
                self.answered(now, from, session, submitted, ack);
            }
            ToGateway::Superseded { submitted } => {
                let entry = self.submitted.remove(submitted);
                if entry.is_some_and(|entry| entry.session == SessionId::CONTROL) {
                    self.tell_control(ToControl::Superseded { submitted });
                }
            }
            ToGateway::Concluded { submitted, reason } => self.concluded(from, submitted, reason),
            ToGateway::Common { routers, clock } => self.common(now, from, routers, clock),
            ToGateway::Digests { digests } if self.view.is_up(from) => self.remembered.hear(from, digests),
            ToGateway::Digests { .. } => {}
            ToGateway::All { message } => self.push_all(now, &message),
            // The control thread asked, and is the one to go.
            ToGateway::Drain => self.tell_control(ToControl::Drain),
            ToGateway::SameNumber => self.tell_control(ToControl::SameNumber),
            ToGateway::Answer { ask, answer } => self.tell_control(ToControl::Answer { ask, answer }),
            ToGateway::Recalled(part) => self.recalled(now, *part),
            ToGateway::Moved(part) => self.relay_kept(part),
            ToGateway::Revoked { revocations } => self.revoke(now, &revocations),
            ToGateway::Banned { bans } => self.ban(now, &bans),
            ToGateway::Recheck { session } => self.recheck(now, self.conn_of(session)),
            ToGateway::Ended { session, login } => self.deny_end(session, login),
        }
    }

    /// The owner knows a newer session, or wants none of this user. A connection on which nobody has logged
    /// in is no session.
    fn kicked(&mut self, conn: ConnId, notice: NoticeCode) {
        if self.sessions.get(conn).is_some_and(Session::is_logged_in) {
            self.close_with_notice(conn, notice);
        }
    }

    fn tell_control(&mut self, mail: ToControl) {
        self.effects.control(mail);
    }
}
