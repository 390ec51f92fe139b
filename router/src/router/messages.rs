//! The way of messages to their outcomes.

use shard::{Instant, ShardId};
use wire::client::{FailReason, Message, Outcome, SendAck};
use wire::node::{Class, DeliveryId, Submission, Taken, Target, ToBridge, ToDirectory, ToGateway};
use wire::{AppId, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

use super::Router;
use crate::cluster::Parked;
use crate::dedupe::{Answer, Key};
use crate::limits::{EXPIRE_PER_TIMEOUT_MAX, ROOM_TOKEN_BYTES};
use crate::outbox::{Holder, Seat, Sender};
use crate::partial::Given;
use crate::pending::{Letter, Receivers};
use crate::rooms::Place;
use crate::users::Standing;

impl Router {
    pub(super) fn submit(&mut self, now: Instant, sender: Sender, submission: Submission) {
        let submitted = match (submission.target, submission.class) {
            (Target::User(_), Class::Reliable) => &mut self.metrics.submitted_user_reliable,
            (Target::User(_), Class::Lossy) => &mut self.metrics.submitted_user_lossy,
            (Target::Room(_), Class::Reliable) => &mut self.metrics.submitted_room_reliable,
            (Target::Room(_), Class::Lossy) => &mut self.metrics.submitted_room_lossy,
        };
        *submitted += 1;
        self.decide(now, sender, submission);
    }

    /// Handles parked messages as if they came now.
    pub(super) fn resubmit(&mut self, now: Instant, parked: Parked) {
        for (sender, submission) in parked {
            self.decide(now, sender, submission);
        }
    }

    /// Releases a user's parked messages, if the user has become known.
    pub(super) fn release(&mut self, now: Instant, app: AppId, user: UserId) {
        if self.cluster.is_unsettled() && self.users.of(app, user).next().is_some() {
            let parked = self.cluster.unpark(app, Target::User(user));
            self.resubmit(now, parked);
        }
    }

    /// Drops a parked message for which the sender's shard has found another owner.
    pub(super) fn withdraw(&mut self, from: ShardId, app: AppId, target: Target, id: MessageId) {
        self.cluster.withdraw(from, app, target, id);
        if let Target::User(user) = target {
            // Devices that come back here would get it before what the next owner has of its sender.
            let Self { partial, pending, .. } = self;
            partial.withdraw(app, user, |delivery| pending.is_of(delivery, from, id));
        }
    }

    /// Whether a message has to wait until gateways agree who owns what: its target may live on a gateway
    /// that has not said so yet.
    fn must_wait(&self, submission: &Submission) -> bool {
        if !self.cluster.is_unsettled() {
            return false;
        }
        let app = submission.app;
        // Earlier messages go first.
        if self.cluster.is_parked(app, submission.target) {
            return true;
        }
        match submission.target {
            Target::User(user) if submission.device.is_some() => {
                self.receivers(app, user, submission.device).is_empty()
            }
            Target::User(user) => match self.users.standing(app, user, self.cluster.era()) {
                Standing::Unknown | Standing::Leaving => true,
                Standing::InPart | Standing::InFull => false,
            },
            Target::Room(room) => {
                self.rooms.find(app, room).is_none_or(|known| known.era >= self.cluster.era())
            }
        }
    }

    fn decide(&mut self, now: Instant, sender: Sender, submission: Submission) {
        if submission.concluded.is_none() && self.must_wait(&submission) {
            return self.hold_back(now, sender, submission);
        }
        let key = self.keys.of(&submission);
        if key.is_some_and(|key| self.is_repeat(now, key, sender, &submission)) {
            return;
        }
        let (target, class, concluded) = (submission.target, submission.class, submission.concluded);
        if let (Target::User(user), Class::Reliable, Some(reason)) = (target, class, concluded) {
            let outcome = Outcome::Failed(reason_of_failure(reason));
            return self.conclude(now, letter(key, sender, user, submission), outcome);
        }
        match (target, class) {
            (Target::User(user), Class::Reliable) => self.forward(now, key, sender, user, submission),
            (Target::User(user), Class::Lossy) => self.forward_lossy(now, key, sender, user, submission),
            (Target::Room(room), Class::Reliable | Class::Lossy) => {
                self.broadcast(now, key, sender, room, submission);
            }
        }
    }

    /// The sessions of a user, or the one on a class of device.
    fn receivers(&self, app: AppId, user: UserId, device: Option<DeviceClass>) -> Receivers {
        let is_meant = |class| device.is_none_or(|device| device == class);
        let bound = self.users.of(app, user).filter(|(class, ..)| is_meant(*class));
        bound.map(|(_, seat, _)| seat).collect()
    }

    fn hold_back(&mut self, now: Instant, sender: Sender, submission: Submission) {
        let (app, target) = (submission.app, submission.target);
        let is_first = !self.cluster.is_parked(app, target);
        match (self.cluster.park(sender, submission, &self.limits), target) {
            (Ok(()), Target::User(user)) if is_first => {
                self.outbox.directory(ToDirectory::LookUp { app, user })
            }
            (Ok(()), Target::User(_) | Target::Room(_)) => {}
            (Err(submission), Target::User(receiver)) => {
                self.no_room(now, letter(None, sender, receiver, *submission))
            }
            (Err(submission), Target::Room(_)) => self.turn_away(sender, submission.client_msg_id),
        }
    }

    /// Whether the message is a repeat; then its sender gets the outcome now, or when it is known.
    fn is_repeat(&mut self, now: Instant, key: Key, sender: Sender, submission: &Submission) -> bool {
        let is_answered = submission.is_answered();
        let handed = &mut self.handed;
        let waiting = self.pending.find_mut(key).map(|letter| (letter, false));
        if let Some((letter, is_handed)) = waiting.or_else(|| match handed.len() {
            0 => None,
            _ => handed.find_mut(key).map(|letter| (letter, true)),
        }) {
            self.metrics.repeats_pending += 1;
            // A lossy repeat waits for no answer, so the first sender still gets it.
            if is_answered {
                let other = letter.repeated_by(sender, submission);
                let (app, user, id) = (letter.message.app, letter.receiver, letter.message.id);
                self.partial.resubmit(app, user, id);
                if other.submitted != letter.sender.submitted {
                    let superseded = ToGateway::Superseded { submitted: other.submitted };
                    self.outbox.gateway(other.seat.shard, superseded);
                }
                if is_handed {
                    let (reason, sender) = (letter.reason, letter.sender);
                    self.say_concluded(sender, reason);
                }
            }
            return true;
        }
        let Some(Answer { id, outcome }) = self.dedupe.find(now, key) else { return false };
        match outcome {
            Some(outcome) if is_answered => {
                self.send_ack(sender, submission.client_msg_id.clone(), id, outcome);
            }
            // A lossy message has no outcome to tell a reliable one, so they are two messages.
            None if is_answered => return false,
            Some(_) | None => {}
        }
        self.metrics.repeats_done += 1;
        true
    }

    fn forward(
        &mut self,
        now: Instant,
        key: Option<Key>,
        sender: Sender,
        receiver: UserId,
        submission: Submission,
    ) {
        let receivers = self.receivers(submission.app, receiver, submission.device);
        let (app, again) = (submission.app, submission.again);
        let bytes = (submission.client_msg_id.as_bytes().len() + submission.payload.len()) as u64;
        let mut in_part = submission.device.is_none() && self.is_known_in_part(app, receiver);
        if in_part && !self.partial.take_room(app, receiver, bytes, &self.limits) {
            if self.cluster.is_unsettled() {
                return self.hold_back(now, sender, submission);
            }
            in_part = false;
        }
        let letter = letter(key, sender, receiver, submission);
        if receivers.is_empty() {
            return self.conclude(now, letter, Outcome::Failed(FailReason::Offline));
        }
        let message = letter.message.clone();
        let deadline = now + self.limits.pending_timeout();
        match self.pending.insert(letter, receivers, deadline, &self.limits) {
            Ok(delivery) => {
                self.deliver(receivers.iter(), Some(delivery), &message, again);
                if in_part {
                    let given = Given { delivery, message, acked_by: None, is_withdrawn: false };
                    self.partial.keep(app, receiver, given);
                }
            }
            Err(letter) => {
                if in_part {
                    self.partial.give_back(app, receiver, bytes);
                }
                self.no_room(now, *letter);
            }
        }
    }

    /// Whether sessions of a user may have yet to be announced, or are away while others are not.
    fn is_known_in_part(&self, app: AppId, user: UserId) -> bool {
        match self.cluster.is_unsettled() {
            true => self.users.standing(app, user, self.cluster.era()) == Standing::InPart,
            false => self.users.has_away(app, user) && self.users.of(app, user).next().is_some(),
        }
    }

    /// A session is announced whose user was known by others: it gets what these were given meanwhile. A
    /// letter that is concluded stays so. One that was known before, too, and is announced again may have a
    /// message on its way to its client.
    pub(super) fn give_missed(&mut self, app: AppId, user: UserId, seat: Seat) {
        for Given { delivery, message, acked_by, .. } in self.partial.of(app, user) {
            if acked_by == Some(seat) {
                continue;
            }
            let waits = self.pending.add_receiver(delivery, seat);
            let delivery = if waits { delivery } else { DeliveryId::NONE };
            self.deliver(std::iter::once(seat), Some(delivery), &message, true);
        }
    }

    /// There is no room for a message to a user. Its sender must send it again. A sender that gave it no id
    /// will not, so it is handed over. A lossy one gets no answer.
    fn no_room(&mut self, now: Instant, letter: Letter) {
        if !letter.message.client_msg_id.is_empty() || !letter.message.ack_wanted {
            return self.turn_away(letter.sender, letter.message.client_msg_id);
        }
        self.metrics.busy += 1;
        self.conclude(now, letter, Outcome::Failed(FailReason::Busy));
    }

    fn forward_lossy(
        &mut self,
        now: Instant,
        key: Option<Key>,
        sender: Sender,
        receiver: UserId,
        submission: Submission,
    ) {
        let receivers = self.receivers(submission.app, receiver, submission.device);
        if receivers.is_empty() {
            self.metrics.lossy_offline += 1;
            return;
        }
        let message = message(None, 0, submission);
        if let Some(key) = key {
            let holder = sender.holder(message.app, message.sender);
            self.dedupe.remember(now, key, holder, Answer { id: message.id, outcome: None });
        }
        self.deliver(receivers.iter(), None, &message, false);
    }

    fn deliver(
        &mut self,
        receivers: impl Iterator<Item = Seat>,
        delivery: Option<DeliveryId>,
        message: &Message,
        again: bool,
    ) {
        for Seat { shard, session } in receivers {
            self.metrics.forwarded += 1;
            let message = message.clone();
            self.outbox.gateway(shard, ToGateway::Deliver { session, delivery, again, message });
        }
    }

    /// Gives a room message its place and sends it to every shard with members, in the order of their ids.
    fn broadcast(
        &mut self,
        now: Instant,
        key: Option<Key>,
        sender: Sender,
        room: RoomId,
        submission: Submission,
    ) {
        let client_msg_id = submission.client_msg_id.clone();
        let (is_answered, again) = (submission.is_answered(), submission.again);
        let holder = sender.holder(submission.app, submission.sender);
        let tokens = match (submission.class, holder) {
            (Class::Reliable, Holder::User(..)) => 1 + (submission.payload.len() / ROOM_TOKEN_BYTES) as u32,
            (Class::Reliable, Holder::Operator) | (Class::Lossy, _) => 0,
        };
        let place = self.rooms.place(
            now,
            (submission.app, room),
            self.limits.room_rate(),
            (submission.sender, tokens),
        );
        let (sequence, base, members) = match (place, holder) {
            (Place::At(sequence, base, members), _) => (sequence, base, members.to_vec()),
            // An operator may send to an empty room. Every other sender is a member, so this router has yet
            // to hear of the room again.
            (Place::Unknown, Holder::Operator) => {
                return self.fail(sender, client_msg_id, FailReason::NotMember);
            }
            (Place::Unknown | Place::Busy, _) => return self.turn_away(sender, client_msg_id),
        };
        let message = message(Some(room), sequence, submission);
        let id = message.id;
        let kept = self.histories.keep(now, &message, base, again);
        if let Some(entry) = kept.filter(|_| self.writes_streams) {
            self.write_stream(message.app, room, entry);
        }
        for of_node in members.chunk_by(|a, b| a.node() == b.node()) {
            self.broadcast_to_node(of_node, &message);
        }
        let outcome = Outcome::Sequenced { sequence };
        if let Some(key) = key {
            self.dedupe.remember(now, key, holder, Answer { id, outcome: Some(outcome) });
        }
        if is_answered {
            self.send_ack(sender, client_msg_id, id, outcome);
        }
    }

    /// Sends one message to a node, to the shard that the room's hash picks there, whether or not it has
    /// members: all messages of a room go the same way, so they stay in order. In this process each shard has
    /// its own mailbox, and no way is shorter.
    fn broadcast_to_node(&mut self, members: &[ShardId], message: &Message) {
        let picked = members.first().and_then(|member| self.picked(message.room?, *member));
        match picked {
            Some(picked) => {
                self.metrics.broadcasts += 1;
                let shards = members.iter().map(|member| member.index()).collect();
                self.outbox.gateway(picked, ToGateway::Broadcast { message: message.clone(), shards });
            }
            None => {
                for &member in members {
                    self.metrics.broadcasts += 1;
                    let broadcast = ToGateway::Broadcast { message: message.clone(), shards: Vec::new() };
                    self.outbox.gateway(member, broadcast);
                }
            }
        }
    }

    /// The shard that takes the room's messages for all of a member's node, if that is another process.
    pub(super) fn picked(&self, room: RoomId, member: ShardId) -> Option<ShardId> {
        let gateway = self.cluster.get(member).filter(|gateway| !gateway.is_local)?;
        let index = room.0.rem_euclid(i64::from(gateway.shards.max(1))) as u16;
        let picked = ShardId::new(member.node(), index);
        self.cluster.get(picked).map(|_| picked)
    }

    pub(super) fn settle(&mut self, now: Instant, delivery: DeliveryId, receiver: Seat, outcome: Outcome) {
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
        let acked_by = reason.is_none().then_some(receiver);
        let (app, user) = (letter.message.app, letter.receiver);
        let is_withdrawn = reason.is_some() && self.partial.is_withdrawn(app, user, delivery);
        let was_in_part = self.partial.settle(app, user, delivery, acked_by);
        if was_in_part && is_withdrawn {
            return; // another owner has it
        }
        if was_in_part && reason.is_some() && self.cluster.is_unsettled() {
            // Another session of its receiver may have yet to be announced.
            return self.hold_back(now, letter.sender, letter.into_submission());
        }
        self.conclude(now, letter, outcome);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRE_PER_TIMEOUT_MAX {
            let Some(letter) = self.pending.expire(now) else { break };
            self.metrics.expired += 1;
            let outcome = Outcome::Failed(letter.reason);
            self.conclude(now, letter, outcome);
        }
        for _ in 0..EXPIRE_PER_TIMEOUT_MAX {
            let Some(letter) = self.handed.expire(now) else { break };
            let outcome = Outcome::Failed(letter.reason);
            self.finish(now, letter, outcome);
        }
    }

    /// Concludes a message: every way to the receiver was tried.
    fn conclude(&mut self, now: Instant, letter: Letter, outcome: Outcome) {
        match outcome {
            Outcome::Failed(reason) => {
                self.metrics.count_undelivered(reason);
                if letter.stored {
                    self.finish(now, letter, outcome);
                } else {
                    self.hand_over(now, letter, reason);
                }
            }
            Outcome::Delivered | Outcome::Stored | Outcome::Sequenced { .. } | Outcome::Answered => {
                self.metrics.delivered += 1;
                self.finish(now, letter, outcome);
            }
        }
    }

    /// Gives an undelivered message to the bridge, and keeps it until the bridge says whether it has it.
    fn hand_over(&mut self, now: Instant, letter: Letter, reason: FailReason) {
        let (user, sender, message) = (letter.receiver, letter.sender, letter.message.clone());
        let deadline = now + self.limits.bridge_timeout();
        let kept = match self.is_bridged {
            true => {
                self.handed.insert(Letter { reason, ..letter }, Receivers::default(), deadline, &self.limits)
            }
            false => Err(Box::new(letter)),
        };
        let delivery = kept.as_ref().ok().copied().unwrap_or(DeliveryId::NONE);
        self.outbox.bridge(ToBridge::Undelivered { user, reason, message, delivery });
        match kept {
            Ok(_) => self.say_concluded(sender, reason),
            Err(letter) => self.finish(now, *letter, Outcome::Failed(reason)),
        }
    }

    /// Owners may change until the bridge has said whether it keeps a message: the next owner must not
    /// deliver it then.
    fn say_concluded(&mut self, Sender { seat, submitted }: Sender, reason: FailReason) {
        self.outbox.gateway(seat.shard, ToGateway::Concluded { submitted, reason });
    }

    /// The bridge says whether it keeps a message.
    pub fn kept(&mut self, now: Instant, delivery: DeliveryId, taken: Taken) {
        let Some(letter) = self.handed.take(delivery) else {
            self.metrics.settles_stale += 1;
            return;
        };
        let outcome = match taken {
            Taken::Ok => {
                self.metrics.stored += 1;
                Outcome::Stored
            }
            // The reason why it was not delivered says more than the bridge's.
            Taken::Refused(_) => Outcome::Failed(letter.reason),
        };
        self.finish(now, letter, outcome);
    }

    /// Remembers and reports the outcome of a reliable message to a user. A message that stays in its inbox
    /// may come from there again.
    fn finish(&mut self, now: Instant, letter: Letter, outcome: Outcome) {
        let Letter { key, sender, message, stored, .. } = letter;
        let id = message.id;
        if let Some(key) = key.filter(|_| !stored || outcome == Outcome::Delivered) {
            let holder = sender.holder(message.app, message.sender);
            self.dedupe.remember(now, key, holder, Answer { id, outcome: Some(outcome) });
        }
        self.send_ack(sender, message.client_msg_id, id, outcome);
    }

    /// Asks the sender to send the message again later.
    fn turn_away(&mut self, sender: Sender, client_msg_id: ClientMsgId) {
        self.metrics.busy += 1;
        self.fail(sender, client_msg_id, FailReason::Busy);
    }

    /// Tells the sender that a message was not taken.
    fn fail(&mut self, sender: Sender, client_msg_id: ClientMsgId, reason: FailReason) {
        self.send_ack(sender, client_msg_id, MessageId(0), Outcome::Failed(reason));
    }

    /// Tells the sender's shard what has become of a message.
    fn send_ack(&mut self, sender: Sender, client_msg_id: ClientMsgId, id: MessageId, outcome: Outcome) {
        let Sender { seat: Seat { shard, session }, submitted } = sender;
        let ack = SendAck { client_msg_id, id, outcome };
        self.outbox.gateway(shard, ToGateway::SendAck { session, submitted, ack });
    }
}

fn letter(key: Option<Key>, sender: Sender, receiver: UserId, submission: Submission) -> Letter {
    let (stored, again, reason) = (submission.stored, submission.again, FailReason::Unacked);
    Letter { key, sender, receiver, stored, again, reason, message: message(None, 0, submission) }
}

fn message(room: Option<RoomId>, sequence: u64, submission: Submission) -> Message {
    let Submission { id, app, sender, target: _, biz_code, class, client_msg_id, payload, .. } = submission;
    let ack_wanted = class == Class::Reliable;
    Message { id, app, sender, biz_code, room, sequence, ack_wanted, client_msg_id, payload }
}

/// The reason of a failed delivery as its sender gets it. A gateway uses no others; a delivery with another
/// reason has no ack either.
fn reason_of_failure(reason: FailReason) -> FailReason {
    match reason {
        FailReason::Offline
        | FailReason::Unacked
        | FailReason::Disconnected
        | FailReason::Overflow
        | FailReason::TooLong => reason,
        FailReason::NotMember | FailReason::NoRoute | FailReason::Busy | FailReason::BadContent => {
            FailReason::Unacked
        }
    }
}
