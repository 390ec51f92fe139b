//! What clients say.

use shard::{ConnId, Instant, ShardId};
use wire::client::{ClientFrame, Code, DecodeError, Frame, NoticeCode, ServerFrame, Want};
use wire::node::{Ban, Login, Revocation, ToBridge, ToRouter, sequence_believed_max};
use wire::{AppId, RoomId};

use super::Gateway;
use crate::limits::{RECOVERY_FRAMES, RENEWAL_FRAMES, RENEWAL_PARTS};
use crate::login_window::Admission;
use crate::rooms::{Answered, Joined};
use crate::session::Phase;
use crate::stay::Stay;
use crate::timer::Timer;
use crate::token::{TokenError, TokenKeys, Verified};

impl Gateway {
    /// Handles a whole frame of a connection that is not closing. An error is the notice that ends the
    /// connection.
    pub(super) fn frame(&mut self, now: Instant, conn: ConnId, frame: &Frame<'_>) -> Result<(), NoticeCode> {
        let is_logged_in = self.count_frame(now, conn, frame)?;
        let frame = match ClientFrame::decode(frame) {
            Ok(frame) => frame,
            Err(DecodeError::BadContent) if is_logged_in => {
                self.refuse_contents(conn, &ClientFrame::client_msg_id_of_refused(frame));
                return Ok(());
            }
            // Another notice would leave a connection open on which nothing but a login may come.
            Err(DecodeError::BadContent) => return Err(NoticeCode::LoginRequired),
            Err(error) => return Err(error.into()),
        };
        match frame {
            ClientFrame::Login { token } if is_logged_in => return self.renew(now, conn, &token),
            ClientFrame::Login { token } => return self.login(now, conn, &token),
            _ if !is_logged_in => return Err(NoticeCode::LoginRequired),
            ClientFrame::Logout => self.logout(conn),
            ClientFrame::Business(business) => self.business(now, conn, &business),
            ClientFrame::Heartbeat { echo } => self.say(conn, &ServerFrame::Heartbeat { echo }),
            ClientFrame::Ack(ids) => {
                let unknown = ids.iter().filter(|id| !self.ack(now, conn, *id)).count();
                self.close_if_drained(conn);
                return self.bound_unknown_acks(now, conn, unknown);
            }
            ClientFrame::Join { room, want } => {
                if want.is_some() && !self.pay_for_recovery(now, conn) {
                    return Err(NoticeCode::RateLimited);
                }
                self.join(now, conn, room, want);
            }
            ClientFrame::Leave { room } => self.leave(conn, room),
        }
        Ok(())
    }

    /// Notes that a frame has come; whether its client is logged in. An error is the notice that ends the
    /// connection.
    fn count_frame(&mut self, now: Instant, conn: ConnId, frame: &Frame<'_>) -> Result<bool, NoticeCode> {
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        self.metrics.count_in(frame.code);
        session.last_seen = now;
        if session.has_layers {
            self.layered.has_frame(conn);
        }
        if *session.encoding.get_or_insert(frame.encoding) != frame.encoding {
            return Err(NoticeCode::BadMagic);
        }
        // Acks answer what others send, so they are not counted here; `bound_unknown_acks` counts made-up
        // ones.
        if frame.code != Code::Ack && !session.bucket.take(now, self.rate, 1) {
            return Err(NoticeCode::RateLimited);
        }
        Ok(session.is_logged_in())
    }

    /// An ack for a message that is not in flight counts as a frame that the client chose to send.
    fn bound_unknown_acks(&mut self, now: Instant, conn: ConnId, unknown: usize) -> Result<(), NoticeCode> {
        let Some(session) = self.sessions.get_mut(conn) else { return Ok(()) };
        let within = (0..unknown).all(|_| session.bucket.take(now, self.rate, 1));
        if within { Ok(()) } else { Err(NoticeCode::RateLimited) }
    }

    /// From here on, tokens are checked with these keys. Sessions go on.
    pub fn set_keys(&mut self, keys: TokenKeys) {
        self.keys = keys;
        self.known_tokens.forget();
    }

    /// Who a token speaks of, and when it ends.
    fn verify(&mut self, now: Instant, token: &str) -> Result<Verified, TokenError> {
        let now_secs = self.clocks.wall_secs(now);
        let verified = self.keys.verify(token, now_secs).and_then(|token| {
            let Verified { claims, issued_secs, login } = token;
            let user = (claims.app, claims.user);
            match self.revocations.refuses(now_secs, user, issued_secs, |revoked| revoked == login) {
                true => Err(TokenError::Revoked),
                false => Ok(token),
            }
        });
        if let Err(error) = verified {
            self.metrics.count_token_refused(error);
        }
        verified
    }

    /// Refuses tokens from here on. A router says which sessions are to be looked at.
    pub(super) fn revoke(&mut self, now: Instant, revocations: &[Revocation]) {
        let now_secs = self.clocks.wall_secs(now);
        for revocation in revocations {
            self.revocations.add(now_secs, *revocation);
        }
    }

    /// Refuses logins from here on. The router that says so ends the sessions.
    pub(super) fn ban(&mut self, now: Instant, bans: &[Ban]) {
        let now_ms = self.clocks.wall_millis(now);
        for ban in bans {
            self.bans.add(now_ms, *ban);
        }
    }

    /// Ends a session whose token is good no more.
    pub(super) fn recheck(&mut self, now: Instant, conn: ConnId) {
        let now_secs = self.clocks.wall_secs(now);
        let session = self.sessions.get(conn).filter(|session| session.is_logged_in());
        if let Some(notice) = session.and_then(|session| session.token_is_over(&self.revocations, now_secs)) {
            self.close_with_notice(conn, notice);
        }
    }

    /// A token is refused.
    fn refuse_token(&mut self, conn: ConnId, error: TokenError) -> Result<(), NoticeCode> {
        match error {
            // It may be good; there will be keys.
            TokenError::NoKeys => {
                self.close_crowded(conn);
                Ok(())
            }
            TokenError::Expired => Err(NoticeCode::TokenExpired),
            _ => Err(NoticeCode::TokenInvalid),
        }
    }

    /// The next token of a live session, which goes on until that ends.
    fn renew(&mut self, now: Instant, conn: ConnId, token: &str) -> Result<(), NoticeCode> {
        let heartbeat_ms = self.config.heartbeat.period_ms;
        if self.known_tokens.has(conn, token) {
            let now_secs = self.clocks.wall_secs(now);
            let session = self.sessions.get(conn).expect("the caller looked it up");
            if session.phase == Phase::Live && session.token_is_over(&self.revocations, now_secs).is_none() {
                self.say(conn, &ServerFrame::LoggedIn { heartbeat_ms });
                return Ok(());
            }
        }
        let frames = RENEWAL_FRAMES.min(self.config.limits.frames_burst / RENEWAL_PARTS).max(1) - 1;
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        if !session.bucket.take(now, self.rate, frames) {
            return Err(NoticeCode::RateLimited);
        }
        let text = token;
        let token = match self.verify(now, text) {
            Ok(token) => token,
            Err(error) => return self.refuse_token(conn, error),
        };
        let claims = token.claims;
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        let is_same = (claims.app, claims.user, claims.device) == (session.app, session.user, session.device);
        if session.phase != Phase::Live || !is_same {
            return Err(NoticeCode::AlreadyLoggedIn);
        }
        if session.take_token(&token) {
            self.known_tokens.put(conn, text);
        }
        self.say(conn, &ServerFrame::LoggedIn { heartbeat_ms });
        Ok(())
    }

    fn login(&mut self, now: Instant, conn: ConnId, token: &str) -> Result<(), NoticeCode> {
        let text = token;
        let token = match self.verify(now, text) {
            Ok(token) => token,
            Err(error) => return self.refuse_token(conn, error),
        };
        let claims = token.claims;
        // Its owner refuses it too, but an owner that has just started may not have heard of the ban yet.
        if self.bans.refuses(self.clocks.wall_millis(now), claims.app, claims.user, claims.device) {
            return Err(NoticeCode::Kicked);
        }
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        let admission = self.logins.enter(conn);
        if admission == Admission::Refused {
            self.close_crowded(conn);
            return Ok(());
        }
        session.app = claims.app;
        session.user = claims.user;
        session.device = claims.device;
        session.take_token(&token);
        self.known_tokens.put(conn, text);
        self.unfinished.forget(conn);
        session.phase = Phase::Waiting;
        self.metrics.sessions += 1;
        if admission == Admission::Asks {
            self.ask_owner(now, conn);
        }
        Ok(())
    }

    /// Asks owners for logins that have waited, as far as there is room.
    pub(super) fn ask_owners(&mut self, now: Instant) {
        while let Some(conn) = self
            .logins
            .next(|conn| self.sessions.get(conn).is_some_and(|session| session.phase == Phase::Waiting))
        {
            self.ask_owner(now, conn);
        }
    }

    fn ask_owner(&mut self, now: Instant, conn: ConnId) {
        let stamp = self.stamps.show(self.clock_ns(now));
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        session.phase = Phase::Binding;
        session.last_seen = now;
        session.login = stamp;
        // Without an owner it waits for one, up to the login deadline.
        if let Some(owner) = self.view.owner_of_user(session.app, session.user) {
            self.ask_to_bind(owner, conn);
        }
    }

    fn ask_to_bind(&mut self, owner: ShardId, conn: ConnId) {
        let Some(it) = self.sessions.get(conn) else { return };
        let (app, user, device, login) = (it.app, it.user, it.device, it.login);
        let session = self.session_of(conn);
        self.tell_router(owner, ToRouter::Bind { app, user, device, session, login, fresh: true });
    }

    /// Its owner knows a session of that user under a higher stamp. This one has logged in and is still
    /// there, so it is the newer one.
    pub(super) fn ask_again(&mut self, owner: ShardId, conn: ConnId, above: Login) {
        let Some(session) = self.sessions.get_mut(conn).filter(|it| it.phase == Phase::Binding) else {
            return;
        };
        if self.view.owner_of_user(session.app, session.user) != Some(owner) {
            return;
        }
        session.login = session.login.max(above.raised());
        self.ask_to_bind(owner, conn);
    }

    /// The owner knows the session: the login is answered only here, so that an answered login is reachable.
    pub(super) fn bound(&mut self, now: Instant, conn: ConnId, login: Login) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        session.login = session.login.max(login.believed(now.unix_nanos()));
        if session.phase != Phase::Binding {
            return;
        }
        session.phase = Phase::Live;
        self.logins.answered(now, session.last_seen);
        // Its token may have been revoked while its owner was asked.
        self.recheck(now, conn);
        let Some(session) = self.sessions.get_mut(conn).filter(|session| session.phase == Phase::Live) else {
            return;
        };
        self.wheel.cancel(session.timer);
        let token_end = self.clocks.at_wall_secs(now, session.token.end_secs());
        // Where there are layers, silence may be asked about before it is judged.
        let heartbeat = &self.config.heartbeat;
        let look_after = if session.has_layers { heartbeat.period() } else { heartbeat.silence_max() };
        let deadline = (now + look_after).min(token_end);
        session.timer = self.wheel.arm(deadline, Timer::Session { conn_index: conn.index }.pack());
        self.metrics.logins += 1;
        let heartbeat_ms = self.config.heartbeat.period_ms;
        self.say(conn, &ServerFrame::LoggedIn { heartbeat_ms });
        self.tell_joined(conn);
    }

    /// What a session joined before it was bound is told once its stamp is known: until then it may be below
    /// that of an earlier session.
    pub(super) fn tell_joined(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.get(conn).filter(|session| session.phase == Phase::Live) else {
            return;
        };
        let (app, user, device, login) = (session.app, session.user, session.device, session.login);
        let rooms: Vec<RoomId> = self.rooms.ids(session.rooms).collect();
        for room in rooms {
            self.tell_bridge(ToBridge::Joined { app, user, device, login, room });
        }
    }

    fn logout(&mut self, conn: ConnId) {
        self.say(conn, &ServerFrame::LoggedOut);
        self.finished(conn);
    }

    /// Charges a connection for a join that asks for earlier messages, as the answer may be many frames.
    /// False if it has sent too many frames, or its user has been told too much of late.
    fn pay_for_recovery(&mut self, now: Instant, conn: ConnId) -> bool {
        let frames = RECOVERY_FRAMES.min(self.config.limits.frames_burst) - 1;
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        let may_ask = self.told.may_ask(now, (session.app, session.user));
        may_ask && session.bucket.take(now, self.rate, frames)
    }

    fn join(&mut self, now: Instant, conn: ConnId, room: RoomId, want: Option<Want>) {
        let session = self.sessions.get(conn).expect("the caller looked it up");
        let (app, user, device, login) = (session.app, session.user, session.device, session.login);
        let is_live = session.phase == Phase::Live;
        // What waits is within the sequence that this member is told.
        self.fan_out_before(now, app, room);
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        if self.rooms.contains(session.rooms, room) {
            let known = self.rooms.find(app, room).expect("a room with a member is known");
            let waits = known.joining || known.recall.as_ref().is_some_and(|recall| recall.waits(conn));
            let sequence = known.sequence;
            if let Some(want) = want {
                self.want(now, conn, (app, room), want);
            } else if !waits {
                self.say_of_room(conn, &ServerFrame::Joined { room, sequence, recovery: None });
            }
            return;
        }
        if self.rooms.count(session.rooms) >= self.config.limits.rooms_max as usize {
            return self.say_notice(conn, NoticeCode::RoomLimit);
        }
        let joined = self.rooms.join(&mut session.rooms, conn, app, room);
        if is_live {
            self.tell_bridge(ToBridge::Joined { app, user, device, login, room });
        }
        match joined {
            Joined::First(sequence) => {
                if let Some(owner) = self.view.owner_of_room(app, room) {
                    self.tell_router(owner, ToRouter::Join { app, room, sequence });
                }
            }
            Joined::At(sequence) if want.is_none() => {
                self.say_of_room(conn, &ServerFrame::Joined { room, sequence, recovery: None })
            }
            Joined::Waiting | Joined::At(_) => {}
        }
        if let Some(want) = want {
            self.want(now, conn, (app, room), want);
        }
    }

    fn leave(&mut self, conn: ConnId, room: RoomId) {
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        let stay = Stay::of(session);
        if let Some(last) = self.rooms.leave(&mut session.rooms, room) {
            self.left(stay, room, last.0);
        }
        self.say_of_room(conn, &ServerFrame::Left { room });
    }

    /// The owner of a room answered this shard's join: its members here hear of it. An owner before sends
    /// nothing any more, and its sequence may be higher than where this one begins: its answer would make
    /// messages look late.
    pub(super) fn joined(&mut self, now: Instant, from: ShardId, app: AppId, room: RoomId, sequence: u64) {
        if self.view.owner_of_room(app, room) != Some(from) {
            return;
        }
        let sequence = sequence.min(sequence_believed_max(now.unix_nanos()));
        match self.rooms.joined(app, room, sequence) {
            Answered::Members(known) => {
                let sequence = known.sequence;
                let waits = |conn| known.recall.as_ref().is_some_and(|recall| recall.waits(conn));
                let members = known.members.iter().map(|member| member.conn);
                let members: Vec<ConnId> = members.filter(|conn| !waits(*conn)).collect();
                for conn in members {
                    self.say_of_room(conn, &ServerFrame::Joined { room, sequence, recovery: None });
                }
                self.fan_out_early(now, app, room, sequence);
            }
            Answered::Deserted => {
                if let Some(owner) = self.view.owner_of_room(app, room) {
                    self.tell_router(owner, ToRouter::Leave { app, room });
                }
            }
            Answered::Unknown => {}
        }
    }

    /// The owner has no place for this shard in a room: its members here are out again, and told so.
    pub(super) fn not_joined(&mut self, from: ShardId, app: AppId, room: RoomId) {
        if self.view.owner_of_room(app, room) != Some(from) {
            return;
        }
        let members: Vec<ConnId> = self
            .rooms
            .find(app, room)
            .map_or_else(Vec::new, |room| room.members.iter().map(|member| member.conn).collect());
        for conn in members {
            let Some(session) = self.sessions.get_mut(conn) else { continue };
            let stay = Stay::of(session);
            if let Some(last) = self.rooms.leave(&mut session.rooms, room) {
                self.left(stay, room, last.0);
            }
            self.say_notice(conn, NoticeCode::Busy);
        }
        // One that had yet to be answered has been.
        self.rooms.joined(app, room, 0);
    }
}
