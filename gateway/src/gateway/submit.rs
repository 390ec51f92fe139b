//! What clients send: where it goes, and what they are told of it.

use bytes::{BufMut, BytesMut};
use shard::{ConnId, Instant, ShardId};
use wire::client::{Business, FailReason, Message, NoticeCode, Outcome, SendAck, ServerFrame};
use wire::node::{
    Class, SessionId, Submission, Target, ToBridge, ToControl, ToRouter, sequence_believed_max,
};
use wire::{ClientMsgId, MessageId, RoomId, UserId};

use super::Gateway;
use super::push::Push;
use crate::config::Destination;
use crate::latency::{RouteClass, Stamp};
use crate::submitted::Entry;

impl Gateway {
    pub(super) fn business(&mut self, now: Instant, conn: ConnId, business: &Business<'_>) {
        match self.route(conn, business) {
            Ok(way) => self.submit(now, conn, business, way),
            Err(refusal) => self.refuse(conn, &business.client_msg_id, refusal),
        }
    }

    /// Where a business packet goes, if its sender may send it there. A packet for a room that names none
    /// means the only room that its session is in.
    fn route(&self, conn: ConnId, business: &Business<'_>) -> Result<Way, Refusal> {
        let session = self.sessions.get(conn).expect("the caller looked it up");
        let route = self.config.routes.get(business.biz_code).ok_or(NO_ROUTE)?;
        let way = match route.to {
            Destination::User if business.target > 0 => {
                Way::Owner(Target::User(UserId(business.target)), route.class)
            }
            Destination::User => return Err(NO_ROUTE),
            Destination::Room if business.target == 0 => {
                Way::Owner(Target::Room(self.rooms.only(session.rooms).ok_or(NOT_MEMBER)?), route.class)
            }
            Destination::Room => Way::Owner(Target::Room(RoomId(business.target)), route.class),
            Destination::Bridge => Way::Bridge((business.target != 0).then_some(RoomId(business.target))),
        };
        match way {
            Way::Owner(Target::Room(room), _) | Way::Bridge(Some(room))
                if !self.rooms.contains(session.rooms, room) =>
            {
                return Err(NOT_MEMBER);
            }
            // What is for the backend is no frame to a client.
            Way::Bridge(_) => {}
            Way::Owner(..) => {
                let most = self.config.limits.frame_bytes_max as usize;
                if !Message::fits(business.client_msg_id.as_bytes(), &business.payload, most) {
                    return Err(TOO_LONG);
                }
            }
        }
        Ok(way)
    }

    /// A business packet has contents that are of no use. The notice says so, and the send-ack keeps its
    /// sender from repeating it.
    pub(super) fn refuse_contents(&mut self, conn: ConnId, client_msg_id: &str) {
        if !client_msg_id.is_empty() {
            self.refuse(conn, client_msg_id, BAD_CONTENT);
        } else {
            self.metrics.count_refused(FailReason::BadContent);
        }
        self.say_notice(conn, NoticeCode::BadContent);
    }

    fn submit(&mut self, now: Instant, conn: ConnId, business: &Business<'_>, way: Way) {
        let session = self.sessions.get(conn).expect("the caller looked it up");
        let (app, sender, device) = (session.app, session.user, session.device);
        let session = self.session_of(conn);
        let (id, payload) = (business.client_msg_id.as_bytes(), &business.payload[..]);
        let mut both = BytesMut::with_capacity(id.len() + payload.len());
        both.put_slice(id);
        both.put_slice(payload);
        let mut payload = both.freeze();
        let client_msg_id = ClientMsgId::new(payload.split_to(id.len()));
        let biz_code = business.biz_code;
        match way {
            Way::Owner(target, class) => {
                let (stored, device) = (false, None);
                let push = Push { app, sender, biz_code, class, client_msg_id, payload, stored, device };
                if self.send(now, session, target, push).is_none() {
                    self.refuse(conn, &business.client_msg_id, BUSY);
                }
            }
            Way::Bridge(room) => {
                self.tell_bridge(ToBridge::Request {
                    session,
                    device,
                    room,
                    app,
                    sender,
                    biz_code,
                    received_ms: self.clocks.wall_millis(now),
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

    /// Gives a message to the owner of its target, and keeps it until that has answered. False when too many
    /// wait, of its sender or in all.
    pub(super) fn give(&mut self, now: Instant, session: SessionId, submission: Submission) -> bool {
        let since = Stamp::of(now);
        let owner = self.view.owner_of(submission.app, submission.target);
        if submission.is_answered() && self.submitted.has_again() {
            // What its sender said before is yet to be submitted again.
            let id = submission.id;
            let is_kept =
                self.submitted.insert(Entry { session, owner: None, submission, since }, &self.config.limits);
            if is_kept {
                self.submitted.put_again(id);
            }
            return is_kept;
        }
        if submission.is_answered() {
            let entry = Entry { session, owner, submission: submission.clone(), since };
            if !self.submitted.insert(entry, &self.config.limits) {
                return false;
            }
        }
        match owner {
            Some(owner) => self.tell_router(owner, ToRouter::Submit { session, submission }),
            None => self.metrics.lossy_unowned += u64::from(!submission.is_answered()),
        }
        true
    }

    /// An owner tells what has become of a message. One that is not its owner any more may say that it was
    /// delivered; that it failed, only the one that has it now.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        from: ShardId,
        session: SessionId,
        submitted: MessageId,
        ack: SendAck,
    ) {
        let Some(entry) = self.submitted.get(submitted) else { return };
        if matches!(ack.outcome, Outcome::Failed(_)) && entry.owner != Some(from) {
            return;
        }
        let (target, class, since) = (entry.submission.target, entry.submission.class, entry.since);
        if matches!(ack.outcome, Outcome::Delivered | Outcome::Sequenced { .. }) {
            let route = RouteClass::of(target, class) as usize;
            self.metrics.latency.outcome[route].record(since, Stamp::of(now), 1);
        }
        if let (Target::Room(room), Outcome::Sequenced { sequence }) = (target, ack.outcome) {
            // Its message may never come here, if the owner dies.
            let app = entry.submission.app;
            self.rooms.hear(app, room, sequence.min(sequence_believed_max(now.unix_nanos())));
        }
        self.submitted.remove(submitted);
        let is_busy = ack.outcome == Outcome::Failed(FailReason::Busy);
        if session == SessionId::CONTROL {
            self.tell_control(ToControl::SendAck { submitted, ack });
        } else if ack.client_msg_id.is_empty() && is_busy && matches!(target, Target::Room(_)) {
            // One to a user is handed over in this case.
            self.say_notice(self.conn_of(session), NoticeCode::Busy);
        } else {
            self.say_answer(session, ack);
        }
    }

    /// An owner has handed a message over, and waits to hear whether the bridge keeps it. The message stays
    /// with that owner, also when its target gets another one.
    pub(super) fn concluded(&mut self, from: ShardId, submitted: MessageId, reason: FailReason) {
        let Some(entry) = self.submitted.get_mut(submitted) else { return };
        entry.submission.concluded = Some(reason);
        let (app, target, id) = (entry.submission.app, entry.submission.target, submitted);
        let other = entry.owner.replace(from).filter(|owner| *owner != from);
        if let Some(other) = other.filter(|owner| self.view.is_up(*owner)) {
            self.tell_router(other, ToRouter::Withdraw { app, target, id });
        }
    }

    /// Tells a session what has become of a packet of its own, if it gave that an id.
    pub fn say_answer(&mut self, session: SessionId, ack: SendAck) {
        if !ack.client_msg_id.is_empty() {
            self.say(self.conn_of(session), &ServerFrame::SendAck(ack));
        }
    }
}

/// Where a business packet goes.
#[derive(Clone, Copy)]
enum Way {
    /// To the owner of its target, as a message of this class.
    Owner(Target, Class),
    /// To the bridge, with the room that it names.
    Bridge(Option<RoomId>),
}

/// Why a packet goes nowhere: what the send-ack says, and the notice to a sender who gave no id.
type Refusal = (FailReason, NoticeCode);

const NOT_MEMBER: Refusal = (FailReason::NotMember, NoticeCode::NotMember);
const NO_ROUTE: Refusal = (FailReason::NoRoute, NoticeCode::NoRoute);
const BUSY: Refusal = (FailReason::Busy, NoticeCode::Busy);
const TOO_LONG: Refusal = (FailReason::TooLong, NoticeCode::TooLong);
const BAD_CONTENT: Refusal = (FailReason::BadContent, NoticeCode::BadContent);
