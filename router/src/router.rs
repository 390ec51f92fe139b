//! The rules.

use shard::{ConnId, Effect, Event, Instant, Prng, SendBatch, Shard, ShardId};
use wire::client::{FailReason, Message, NoticeCode, Outcome, SendAck};
use wire::node::{Class, DeliveryId, NodeMessage, Submission, Target, ToBridge, ToGateway, ToRouter};
use wire::{AppId, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

use crate::dedupe::{Answer, Dedupe, Key, Keys};
use crate::limits::{EXPIRE_PER_TIMEOUT_MAX, Limits};
use crate::message_ids::MessageIds;
use crate::metrics::Metrics;
use crate::outbox::{Outbox, Seat};
use crate::pending::{Letter, Pending, Receivers};
use crate::rooms::Rooms;
use crate::users::{Bound, Users};

/// What makes one router differ from another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// Its number, up to [`crate::NUMBER_MAX`]; no two routers of a cluster may have the same at a time.
    pub number: u16,
    /// Where its hashes begin: fresh at each start, and unknown to clients.
    pub seed: u64,
    /// What it may hold.
    pub limits: Limits,
}

/// The router core of one shard. See the crate's page.
///
/// It takes [`NodeMessage::ToRouter`] mail and timeouts, ignores everything else, and answers with mail only.
///
/// The rules in which the messages leave a choice:
///
/// - **Online and offline** are told to the bridge when a user's class of device gets its first binding and loses its last. A
///   session that replaces another tells neither: the user was there all the time.
/// - **A message to a user** goes to the sessions bound at that moment. A session that binds while it is pending does not get
///   it: later messages to that session would have overtaken it. The first ack makes it delivered; when all sessions have
///   failed it is undelivered, for the reason of the last.
/// - **A repeated message** (same app, sender, target and client_msg_id) gets the answer of the first, whatever became of it:
///   a failed one has been handed over, and to deliver it after all would make two of it. Only `busy` is not remembered, for it
///   asks to be sent again, nor a lossy message that met nobody.
/// - **A lossy message to a user** has no send-ack: nobody knows its outcome.
pub struct Router {
    limits: Limits,
    keys: Keys,
    ids: MessageIds,
    users: Users,
    rooms: Rooms,
    pending: Pending,
    dedupe: Dedupe,
    /// Without what is held at the moment.
    metrics: Metrics,
    outbox: Outbox,
}

impl Router {
    /// A router that knows nobody.
    ///
    /// # Panics
    ///
    /// When the number is too high or [`Limits::validate`] finds fault.
    pub fn new(config: Config) -> Self {
        let Config { number, seed, limits } = config;
        assert_eq!(limits.validate(), Ok(()));
        let mut prng = Prng::new(seed);
        Self {
            keys: Keys::new([prng.next_u64(), prng.next_u64()]),
            ids: MessageIds::new(number),
            users: Users::new(prng.next_u64(), limits.bindings_max),
            rooms: Rooms::new(prng.next_u64()),
            pending: Pending::new(prng.next_u64() as u32),
            dedupe: Dedupe::new(limits.dedupe_window(), limits.dedupe_max),
            metrics: Metrics::default(),
            outbox: Outbox::default(),
            limits,
        }
    }

    /// The classes of device on which a user is online, and the shard that holds each session, in no particular order.
    pub fn online(&self, app: AppId, user: UserId) -> impl Iterator<Item = (DeviceClass, ShardId)> + '_ {
        self.users.of(app, user).map(|(device, seat)| (device, seat.shard))
    }

    /// The shards that have members of a room, ascending.
    pub fn room_shards(&self, app: AppId, room: RoomId) -> &[ShardId] {
        self.rooms.members(app, room)
    }

    /// What has been counted, and what is held.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            bindings: self.users.bindings() as u64,
            users: self.users.users() as u64,
            rooms: self.rooms.len() as u64,
            pending: self.pending.len() as u64,
            remembered: self.dedupe.len() as u64,
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
        self.rooms.check_invariants();
        self.pending.check_invariants();
        self.dedupe.check_invariants();
        assert!(self.pending.len() <= self.limits.pending_max as usize);
    }

    fn mail(&mut self, now: Instant, from: ShardId, mail: ToRouter) {
        let seat = |session| Seat { shard: from, session };
        match mail {
            ToRouter::Bind { app, user, device, session } => self.bind(app, user, device, seat(session)),
            ToRouter::Unbind { app, user, device, session } => self.unbind(app, user, device, seat(session)),
            ToRouter::Join { app, room } => {
                let sequence = self.rooms.join(now, app, room, from);
                self.outbox.gateway(from, ToGateway::Joined { app, room, sequence });
            }
            ToRouter::Leave { app, room } => self.rooms.leave(app, room, from),
            ToRouter::Submit { session, submission } => self.submit(now, seat(session), submission),
            ToRouter::Settle { delivery, session, outcome } => {
                self.settle(now, delivery, seat(session), outcome);
            }
        }
    }

    fn bind(&mut self, app: AppId, user: UserId, device: DeviceClass, seat: Seat) {
        match self.users.bind(app, user, device, seat) {
            Bound::First => {
                self.metrics.binds += 1;
                self.outbox.gateway(seat.shard, ToGateway::Bound { session: seat.session });
                self.outbox.bridge(ToBridge::Online { app, user, device });
            }
            Bound::Again => {
                self.outbox.gateway(seat.shard, ToGateway::Bound { session: seat.session });
            }
            Bound::Replaced(old) => {
                self.metrics.binds += 1;
                self.metrics.kicks += 1;
                self.kick(old, NoticeCode::Kicked);
                self.outbox.gateway(seat.shard, ToGateway::Bound { session: seat.session });
            }
            Bound::Full => {
                self.metrics.refused += 1;
                self.kick(seat, NoticeCode::ServerFull);
            }
        }
    }

    fn kick(&mut self, Seat { shard, session }: Seat, notice: NoticeCode) {
        self.outbox.gateway(shard, ToGateway::Kick { session, notice });
    }

    fn unbind(&mut self, app: AppId, user: UserId, device: DeviceClass, seat: Seat) {
        if self.users.unbind(app, user, device, seat) {
            self.metrics.unbinds += 1;
            self.outbox.bridge(ToBridge::Offline { app, user, device });
        } else {
            self.metrics.unbinds_stale += 1;
        }
    }

    fn submit(&mut self, now: Instant, sender: Seat, submission: Submission) {
        let submitted = match (submission.target, submission.class) {
            (Target::User(_), Class::Reliable) => &mut self.metrics.submitted_user_reliable,
            (Target::User(_), Class::Lossy) => &mut self.metrics.submitted_user_lossy,
            (Target::Room(_), Class::Reliable) => &mut self.metrics.submitted_room_reliable,
            (Target::Room(_), Class::Lossy) => &mut self.metrics.submitted_room_lossy,
        };
        *submitted += 1;
        let key = self.keys.of(&submission);
        if key.is_some_and(|key| self.is_repeat(now, key, sender, &submission.client_msg_id)) {
            return;
        }
        match (submission.target, submission.class) {
            (Target::User(user), Class::Reliable) => self.forward(now, key, sender, user, submission),
            (Target::User(user), Class::Lossy) => self.forward_lossy(now, key, user, submission),
            (Target::Room(room), Class::Reliable | Class::Lossy) => {
                self.broadcast(now, key, sender, room, submission);
            }
        }
    }

    /// Whether the message came before; then its sender is answered, or will be when its outcome is known.
    fn is_repeat(&mut self, now: Instant, key: Key, sender: Seat, client_msg_id: &ClientMsgId) -> bool {
        if let Some(letter) = self.pending.find_mut(key) {
            letter.sender = sender;
            self.metrics.repeats_pending += 1;
            return true;
        }
        let Some(Answer { id, outcome }) = self.dedupe.find(now, key) else { return false };
        if let Some(outcome) = outcome {
            self.send_ack(sender, client_msg_id.clone(), id, outcome);
        }
        self.metrics.repeats_done += 1;
        true
    }

    fn forward(
        &mut self,
        now: Instant,
        key: Option<Key>,
        sender: Seat,
        receiver: UserId,
        submission: Submission,
    ) {
        let receivers: Receivers = self.users.of(submission.app, receiver).map(|(_, seat)| seat).collect();
        let full = self.pending.len() >= self.limits.pending_max as usize;
        if full && !receivers.is_empty() && key.is_some() {
            return self.turn_away(sender, submission.client_msg_id);
        }
        let message = message(self.ids.next(now), None, 0, submission);
        let letter = Letter { key, sender, receiver, message };
        if receivers.is_empty() {
            return self.conclude(now, letter, Outcome::Failed(FailReason::Offline));
        }
        if full {
            // No sender to send it again: it is handed over.
            self.metrics.busy += 1;
            return self.conclude(now, letter, Outcome::Failed(FailReason::Busy));
        }
        let message = letter.message.clone();
        let delivery = self.pending.insert(letter, receivers, now + self.limits.pending_timeout());
        self.deliver(receivers.iter(), Some(delivery), &message);
    }

    fn forward_lossy(&mut self, now: Instant, key: Option<Key>, receiver: UserId, submission: Submission) {
        let receivers: Receivers = self.users.of(submission.app, receiver).map(|(_, seat)| seat).collect();
        if receivers.is_empty() {
            self.metrics.lossy_offline += 1;
            return;
        }
        let message = message(self.ids.next(now), None, 0, submission);
        if let Some(key) = key {
            self.dedupe.remember(now, key, Answer { id: message.id, outcome: None });
        }
        self.deliver(receivers.iter(), None, &message);
    }

    fn deliver(
        &mut self,
        receivers: impl Iterator<Item = Seat>,
        delivery: Option<DeliveryId>,
        message: &Message,
    ) {
        for Seat { shard, session } in receivers {
            self.metrics.forwarded += 1;
            let message = message.clone();
            self.outbox.gateway(shard, ToGateway::Deliver { session, delivery, message });
        }
    }

    /// Gives a room message its place and sends it to every shard with members, in the order of their ids.
    fn broadcast(
        &mut self,
        now: Instant,
        key: Option<Key>,
        sender: Seat,
        room: RoomId,
        submission: Submission,
    ) {
        let client_msg_id = submission.client_msg_id.clone();
        let Some((sequence, members)) = self.rooms.sequence(submission.app, room) else {
            // The sender is a member, so this router has yet to hear of the room again.
            return self.turn_away(sender, client_msg_id);
        };
        let message = message(self.ids.next(now), Some(room), sequence, submission);
        let id = message.id;
        for &member in members {
            self.metrics.broadcasts += 1;
            self.outbox.gateway(member, ToGateway::Broadcast { message: message.clone() });
        }
        if let Some(key) = key {
            let outcome = Outcome::Sequenced { sequence };
            self.dedupe.remember(now, key, Answer { id, outcome: Some(outcome) });
            self.send_ack(sender, client_msg_id, id, outcome);
        }
    }

    fn settle(&mut self, now: Instant, delivery: DeliveryId, receiver: Seat, outcome: Outcome) {
        let reason = match outcome {
            Outcome::Delivered => None,
            Outcome::Failed(reason) => Some(reason_of_failure(reason)),
            Outcome::Stored | Outcome::Sequenced { .. } | Outcome::Answered => Some(FailReason::Unacked),
        };
        let Some(settled) = self.pending.settle(delivery, receiver) else {
            self.metrics.settles_stale += 1;
            return;
        };
        let outcome = match reason {
            None => Outcome::Delivered,
            Some(_) if settled.others => return,
            Some(reason) => Outcome::Failed(reason),
        };
        let letter = self.pending.remove(settled.at);
        self.conclude(now, letter, outcome);
    }

    fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRE_PER_TIMEOUT_MAX {
            let Some(letter) = self.pending.expire(now) else { return };
            self.metrics.expired += 1;
            self.conclude(now, letter, Outcome::Failed(FailReason::Unacked));
        }
    }

    /// The outcome of a reliable message to a user is known: hands it over if it failed, then tells and remembers it.
    fn conclude(&mut self, now: Instant, letter: Letter, outcome: Outcome) {
        let Letter { key, sender, receiver, message } = letter;
        if let Some(key) = key {
            self.dedupe.remember(now, key, Answer { id: message.id, outcome: Some(outcome) });
        }
        let (client_msg_id, id) = (message.client_msg_id.clone(), message.id);
        match outcome {
            Outcome::Failed(reason) => {
                self.metrics.count_undelivered(reason);
                self.outbox.bridge(ToBridge::Undelivered { user: receiver, reason, message });
            }
            Outcome::Delivered | Outcome::Stored | Outcome::Sequenced { .. } | Outcome::Answered => {
                self.metrics.delivered += 1;
            }
        }
        self.send_ack(sender, client_msg_id, id, outcome);
    }

    /// Asks the sender to send the message again later.
    fn turn_away(&mut self, sender: Seat, client_msg_id: ClientMsgId) {
        self.metrics.busy += 1;
        self.send_ack(sender, client_msg_id, MessageId(0), Outcome::Failed(FailReason::Busy));
    }

    /// Tells a sender, if it gave the message an id, what has become of it.
    fn send_ack(&mut self, sender: Seat, client_msg_id: ClientMsgId, id: MessageId, outcome: Outcome) {
        if !client_msg_id.is_empty() {
            let ack = SendAck { client_msg_id, id, outcome };
            self.outbox.gateway(sender.shard, ToGateway::SendAck { session: sender.session, ack });
        }
    }
}

impl Shard for Router {
    type Mail = NodeMessage;

    fn handle(&mut self, now: Instant, event: Event<'_, NodeMessage>) {
        match event {
            Event::Mail { from, mail: NodeMessage::ToRouter(mail) } => self.mail(now, from, mail),
            Event::Mail { mail: NodeMessage::ToGateway(_) | NodeMessage::ToBridge(_), .. } => {}
            Event::Timeout => self.expire(now),
            Event::Accepted { .. }
            | Event::Connected { .. }
            | Event::ConnectFailed { .. }
            | Event::Received { .. }
            | Event::Sent { .. }
            | Event::Finished { .. }
            | Event::Closed { .. } => {}
        }
    }

    fn poll_effect(&mut self, _now: Instant) -> Option<Effect<NodeMessage>> {
        self.outbox.pop().map(|(to, mail)| Effect::Mail { to, mail })
    }

    fn poll_transmit(&mut self, _now: Instant, _conn: ConnId, _batch: &mut SendBatch) {}

    fn poll_timeout(&self) -> Option<Instant> {
        self.pending.deadline()
    }
}

fn message(id: MessageId, room: Option<RoomId>, sequence: u64, submission: Submission) -> Message {
    let Submission { app, sender, target: _, biz_code, class, client_msg_id, payload } = submission;
    let ack_wanted = class == Class::Reliable;
    Message { id, app, sender, biz_code, room, sequence, ack_wanted, client_msg_id, payload }
}

/// Why a delivery failed, in the words that are final for the sender. A gateway uses no others; one that does has no ack either.
fn reason_of_failure(reason: FailReason) -> FailReason {
    match reason {
        FailReason::Offline | FailReason::Unacked | FailReason::Disconnected | FailReason::Overflow => reason,
        FailReason::NotMember | FailReason::NoRoute | FailReason::Busy => FailReason::Unacked,
    }
}
