//! What clients say.

use bytes::{BufMut, BytesMut};
use shard::{ConnId, Instant};
use wire::client::{
    Business, ClientFrame, Code, FailReason, Frame, NoticeCode, Outcome, SendAck, ServerFrame,
};
use wire::node::{SessionId, Submission, Target, ToBridge, ToRouter};
use wire::{AppId, ClientMsgId, MessageId, RoomId, UserId};

use crate::config::{Destination, Route};
use crate::gateway::{Gateway, Timer};
use crate::rooms::Joined;
use crate::session::Phase;
use crate::token::TokenError;

impl Gateway {
    /// Handles a whole frame of a connection that is not closing. An error is the notice that ends the connection.
    pub(crate) fn frame(&mut self, now: Instant, conn: ConnId, frame: &Frame<'_>) -> Result<(), NoticeCode> {
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        self.metrics.count_in(frame.code);
        session.last_seen = now;
        if *session.encoding.get_or_insert(frame.encoding) != frame.encoding {
            return Err(NoticeCode::BadMagic);
        }
        // Acks answer what others send, so they are not counted here; `bound_unknown_acks` counts made-up ones.
        if frame.code != Code::Ack && !session.bucket.take(now, self.rate) {
            return Err(NoticeCode::RateLimited);
        }
        let is_logged_in = session.is_logged_in();
        let frame = ClientFrame::decode(frame)?;
        if let ClientFrame::Login { token } = frame {
            return if is_logged_in {
                Err(NoticeCode::AlreadyLoggedIn)
            } else {
                self.login(now, conn, &token)
            };
        }
        if !is_logged_in {
            return Err(NoticeCode::LoginRequired);
        }
        match frame {
            ClientFrame::Login { .. } => unreachable!("handled above"),
            ClientFrame::Logout => self.logout(conn),
            ClientFrame::Business(business) => self.business(conn, &business),
            ClientFrame::Heartbeat { echo } => self.say(conn, &ServerFrame::Heartbeat { echo }),
            ClientFrame::Ack(ids) => {
                let unknown = ids.iter().filter(|id| !self.ack(conn, *id)).count();
                self.close_if_drained(conn);
                return self.bound_unknown_acks(now, conn, unknown);
            }
            ClientFrame::Join { room } => self.join(now, conn, room),
            ClientFrame::Leave { room } => self.leave(conn, room),
        }
        Ok(())
    }

    /// An ack for a message that is not in flight counts as a frame that the client chose to send.
    fn bound_unknown_acks(&mut self, now: Instant, conn: ConnId, unknown: usize) -> Result<(), NoticeCode> {
        let Some(session) = self.sessions.get_mut(conn) else { return Ok(()) };
        let within = (0..unknown).all(|_| session.bucket.take(now, self.rate));
        if within { Ok(()) } else { Err(NoticeCode::RateLimited) }
    }

    fn login(&mut self, now: Instant, conn: ConnId, token: &str) -> Result<(), NoticeCode> {
        let claims = self.keys.verify(token, now.unix_secs()).map_err(|error| match error {
            TokenError::Invalid => NoticeCode::TokenInvalid,
            TokenError::Expired => NoticeCode::TokenExpired,
        })?;
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        session.app = claims.app;
        session.user = claims.user;
        session.device = claims.device;
        session.phase = Phase::Binding;
        self.metrics.sessions += 1;
        let owner = self.owner_of_user(claims.app, claims.user);
        let bind = ToRouter::Bind {
            app: claims.app,
            user: claims.user,
            device: claims.device,
            session: SessionId(conn.as_u64()),
        };
        self.tell_router(owner, bind);
        Ok(())
    }

    /// The owner knows the session: the login is answered only here, so that an answered login is reachable.
    pub(crate) fn bound(&mut self, now: Instant, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        if session.phase != Phase::Binding {
            return;
        }
        session.phase = Phase::Live;
        self.wheel.cancel(session.timer);
        let deadline = now + self.config.heartbeat.silence_max();
        session.timer = self.wheel.arm(deadline, Timer::Session { conn_index: conn.index }.pack());
        self.metrics.logins += 1;
        let heartbeat_ms = self.config.heartbeat.period_ms;
        self.say(conn, &ServerFrame::LoggedIn { heartbeat_ms });
    }

    fn logout(&mut self, conn: ConnId) {
        self.say(conn, &ServerFrame::LoggedOut);
        self.finished(conn);
    }

    fn business(&mut self, conn: ConnId, business: &Business<'_>) {
        match self.route(conn, business) {
            Ok((route, target)) => self.submit(conn, business, route, target),
            Err(refusal) => self.refuse(conn, &business.client_msg_id, refusal),
        }
    }

    /// Where a business packet goes, if its sender may send it there. A packet for a room that names none means the only room
    /// that its session is in.
    fn route(&self, conn: ConnId, business: &Business<'_>) -> Result<(Route, Option<Target>), Refusal> {
        let session = self.sessions.get(conn).expect("the caller looked it up");
        let route = self.config.routes.get(business.biz_code).ok_or(NO_ROUTE)?;
        let target = match route.to {
            Destination::User if business.target > 0 => Some(Target::User(UserId(business.target))),
            Destination::User => return Err(NO_ROUTE),
            Destination::Room if business.target == 0 => {
                Some(Target::Room(self.rooms.only(session.rooms).ok_or(NOT_MEMBER)?))
            }
            Destination::Room => Some(Target::Room(RoomId(business.target))),
            Destination::Bridge => (business.target != 0).then_some(Target::Room(RoomId(business.target))),
        };
        match target {
            Some(Target::Room(room)) if !self.rooms.contains(session.rooms, room) => Err(NOT_MEMBER),
            target => Ok((route, target)),
        }
    }

    fn submit(&mut self, conn: ConnId, business: &Business<'_>, route: Route, target: Option<Target>) {
        let session = self.sessions.get(conn).expect("the caller looked it up");
        let (app, sender, device) = (session.app, session.user, session.device);
        let session = SessionId(conn.as_u64());
        let (id, payload) = (business.client_msg_id.as_bytes(), &business.payload[..]);
        let mut both = BytesMut::with_capacity(id.len() + payload.len());
        both.put_slice(id);
        both.put_slice(payload);
        let mut payload = both.freeze();
        let client_msg_id = ClientMsgId::new(payload.split_to(id.len()));
        let biz_code = business.biz_code;
        match (route.to, target) {
            (Destination::User | Destination::Room, Some(target)) => {
                let owner = match target {
                    Target::User(user) => self.owner_of_user(app, user),
                    Target::Room(room) => self.owner_of_room(app, room),
                };
                let class = route.class;
                let submission = Submission { app, sender, target, biz_code, class, client_msg_id, payload };
                self.tell_router(owner, ToRouter::Submit { session, submission });
            }
            (Destination::User | Destination::Room, None) => unreachable!("route finds a target for these"),
            (Destination::Bridge, target) => {
                let room = match target {
                    Some(Target::Room(room)) => Some(room),
                    Some(Target::User(_)) | None => None,
                };
                self.tell_bridge(ToBridge::Request {
                    session,
                    device,
                    room,
                    app,
                    sender,
                    biz_code,
                    client_msg_id,
                    payload,
                });
            }
        }
    }

    fn refuse(&mut self, conn: ConnId, client_msg_id: &str, (reason, notice): Refusal) {
        self.metrics.count_refused(reason);
        if client_msg_id.is_empty() {
            return self.say_notice(conn, notice);
        }
        let ack = SendAck {
            client_msg_id: ClientMsgId::new(bytes::Bytes::copy_from_slice(client_msg_id.as_bytes())),
            id: MessageId(0),
            outcome: Outcome::Failed(reason),
        };
        self.say(conn, &ServerFrame::SendAck(ack));
    }

    fn join(&mut self, now: Instant, conn: ConnId, room: RoomId) {
        let session = self.sessions.get(conn).expect("the caller looked it up");
        let (app, user) = (session.app, session.user);
        // What waits is within the sequence that this member is told.
        self.fan_out_before(now, app, room);
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        if self.rooms.contains(session.rooms, room) {
            let known = self.rooms.find(app, room).expect("a room with a member is known");
            let (joining, sequence) = (known.joining, known.sequence);
            if !joining {
                self.say(conn, &ServerFrame::Joined { room, sequence });
            }
            return;
        }
        if self.rooms.count(session.rooms) >= self.config.limits.rooms_max as usize {
            return self.say_notice(conn, NoticeCode::RoomLimit);
        }
        let joined = self.rooms.join(&mut session.rooms, conn, app, room);
        self.tell_bridge(ToBridge::Joined { app, user, room });
        match joined {
            Joined::First => {
                let owner = self.owner_of_room(app, room);
                self.tell_router(owner, ToRouter::Join { app, room });
            }
            Joined::Waiting => {}
            Joined::At(sequence) => self.say(conn, &ServerFrame::Joined { room, sequence }),
        }
    }

    fn leave(&mut self, conn: ConnId, room: RoomId) {
        let session = self.sessions.get_mut(conn).expect("the caller looked it up");
        let (app, user) = (session.app, session.user);
        if let Some(last) = self.rooms.leave(&mut session.rooms, room) {
            self.left(app, user, room, last.0);
        }
        self.say(conn, &ServerFrame::Left { room });
    }

    /// The owner of a room answered this shard's join: its members here hear of it.
    pub(crate) fn joined(&mut self, app: AppId, room: RoomId, sequence: u64) {
        match self.rooms.joined(app, room, sequence) {
            crate::rooms::Answered::Members(known) => {
                let sequence = known.sequence;
                let members: Vec<ConnId> = known.members.iter().map(|member| member.conn).collect();
                for conn in members {
                    self.say(conn, &ServerFrame::Joined { room, sequence });
                }
            }
            crate::rooms::Answered::Deserted => {
                let owner = self.owner_of_room(app, room);
                self.tell_router(owner, ToRouter::Leave { app, room });
            }
            crate::rooms::Answered::Unknown => {}
        }
    }
}

/// Why a packet goes nowhere: what the send-ack says, and the notice to a sender who gave no id.
type Refusal = (FailReason, NoticeCode);

const NOT_MEMBER: Refusal = (FailReason::NotMember, NoticeCode::NotMember);
const NO_ROUTE: Refusal = (FailReason::NoRoute, NoticeCode::NoRoute);
