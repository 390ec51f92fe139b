//! What is on its way to one peer: messages that wait, and batches that were written and may have to be
//! written again.

use std::collections::VecDeque;

use shard::SendBatch;
use wire::client::Message;
use wire::node::link::{BATCH_MESSAGES_MAX, Frame};
use wire::node::{Answer, FromBridge, LinkMessage, Question, ToBridge, ToGateway, ToRouter, encode_batch};

use crate::limits::{BATCH_BYTES, CARRIED_BYTES, HANDED_BYTES, MESSAGE_BYTES, PART_BYTES};

/// Batches are numbered from 0 within a session. `first` is the number of the oldest that is kept, `next`
/// that of the next to write on this connection: `first <= next <= first + kept.len()`.
#[derive(Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<LinkMessage>,
    queue_bytes: usize,
    kept: VecDeque<Batch>,
    kept_bytes: usize,
    first: u64,
    next: u64,
}

struct Batch {
    archive: bytes::Bytes,
    messages: u64,
}

/// What one [`Outgoing::fill`] wrote for the first time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Filled {
    pub(crate) batches: u64,
    pub(crate) messages: u64,
    /// Whether the frames say how many batches came.
    pub(crate) says_received: bool,
}

impl Outgoing {
    pub(crate) fn push(&mut self, message: LinkMessage) {
        self.queue_bytes += weight(&message);
        self.queue.push_back(message);
    }

    /// Bytes that wait, or are in flight without a credit.
    pub(crate) fn bytes(&self) -> usize {
        self.queue_bytes + self.kept_bytes
    }

    /// Whether so much waits that a larger batch would gain nothing.
    pub(crate) fn is_large(&self) -> bool {
        self.queue_bytes >= BATCH_BYTES / 2
    }

    /// Whether `fill` would write something.
    pub(crate) fn can_fill(&self, window_bytes: usize) -> bool {
        self.next < self.first + self.kept.len() as u64 || self.can_encode(window_bytes)
    }

    /// Messages that wait, or are in flight without a credit.
    pub(crate) fn messages(&self) -> u64 {
        self.queue.len() as u64 + self.kept.iter().map(|batch| batch.messages).sum::<u64>()
    }

    /// Whether the other end has taken in everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.kept.is_empty()
    }

    /// The other end has received the batches before `received`. Returns false if that is impossible.
    pub(crate) fn credit(&mut self, received: u64) -> bool {
        if received > self.next {
            return false;
        }
        while self.first < received {
            let taken = self.kept.pop_front().expect("first is before next, so a batch is kept");
            self.kept_bytes -= taken.archive.len();
            self.first += 1;
        }
        true
    }

    /// Begins again at batch `received` on another connection; false if that is no longer kept.
    pub(crate) fn resume(&mut self, received: u64) -> bool {
        self.next = self.first + self.kept.len() as u64;
        if received < self.first || !self.credit(received) {
            return false;
        }
        self.next = received;
        true
    }

    /// Writes what may be written: first what is kept from an earlier connection, then what waits, within the
    /// window.
    pub(crate) fn fill(&mut self, batch: &mut SendBatch, window_bytes: usize, received: u64) -> Filled {
        let mut filled = Filled::default();
        while !batch.is_full() {
            let at = (self.next - self.first) as usize;
            if at == self.kept.len() {
                if !self.can_encode(window_bytes) {
                    break;
                }
                filled.messages += self.encode();
                filled.batches += 1;
            }
            let archive = &self.kept[at].archive;
            batch.copy(&Frame::batch_head(received, archive.len()));
            batch.share(archive.clone());
            filled.says_received = true;
            self.next += 1;
        }
        filled
    }

    fn can_encode(&self, window_bytes: usize) -> bool {
        !self.queue.is_empty() && (self.kept_bytes < window_bytes || self.kept.is_empty())
    }

    /// Encodes the messages that wait longest as a batch. Returns their number.
    fn encode(&mut self) -> u64 {
        let mut messages = Vec::new();
        let mut bytes = 0;
        while messages.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES {
            let Some(message) = self.queue.pop_front() else { break };
            bytes += weight(&message);
            messages.push(message);
        }
        self.queue_bytes -= bytes;
        let archive = bytes::Bytes::from_owner(encode_batch(&messages));
        self.kept_bytes += archive.len();
        let messages = messages.len() as u64;
        self.kept.push_back(Batch { archive, messages });
        messages
    }
}

/// Bytes of a revocation on the wire.
const REVOCATION_BYTES: usize = 40;
/// Bytes of a ban on the wire.
const BAN_BYTES: usize = 40;

/// The most bytes that a message takes on the wire, with its share of the archive's overhead; in memory it
/// takes about as many.
fn weight(message: &LinkMessage) -> usize {
    let rest = match message {
        LinkMessage::ToRouter(ToRouter::Submit { submission, .. }) => {
            submission.client_msg_id.as_bytes().len() + submission.payload.len()
        }
        LinkMessage::ToRouter(ToRouter::Ask { question, .. }) => match question {
            Question::Online { users, .. } => 8 * users.len(),
            Question::PushAll { message } => text(message),
            Question::Revoke { revocations } => REVOCATION_BYTES * revocations.len(),
            Question::Kick { .. } | Question::Drain { .. } | Question::Nodes | Question::History { .. } => 0,
        },
        LinkMessage::ToRouter(ToRouter::Revoked { revocations })
        | LinkMessage::ToGateway(ToGateway::Revoked { revocations }) => REVOCATION_BYTES * revocations.len(),
        LinkMessage::ToRouter(ToRouter::Banned { bans })
        | LinkMessage::ToGateway(ToGateway::Banned { bans }) => BAN_BYTES * bans.len(),
        LinkMessage::ToRouter(ToRouter::Unchanged { ranges, .. }) => 8 * ranges.len(),
        LinkMessage::ToGateway(ToGateway::Digests { digests }) => 8 * digests.len(),
        LinkMessage::ToRouter(ToRouter::Kept(part)) | LinkMessage::ToGateway(ToGateway::Moved(part)) => {
            PART_BYTES + texts(&part.messages)
        }
        LinkMessage::ToGateway(ToGateway::Recalled(part)) => PART_BYTES + texts(&part.messages),
        LinkMessage::ToRouter(ToRouter::Reach { routers, .. })
        | LinkMessage::ToGateway(ToGateway::Common { routers, .. }) => 4 * routers.len(),
        LinkMessage::ToGateway(ToGateway::Broadcast { message, shards }) => text(message) + 2 * shards.len(),
        LinkMessage::ToGateway(ToGateway::Deliver { message, .. } | ToGateway::All { message }) => {
            text(message)
        }
        LinkMessage::ToGateway(ToGateway::SendAck { ack, .. }) => ack.client_msg_id.as_bytes().len(),
        LinkMessage::ToGateway(ToGateway::Answer { answer, .. }) => match answer {
            Answer::Online { users, settled: _ } => users.iter().map(|user| 16 + 13 * user.seats.len()).sum(),
            Answer::Nodes { shards } => 8 * shards.len(),
            Answer::Kicked { .. } | Answer::Told { .. } => 0,
            Answer::History { messages } => texts(messages),
        },
        LinkMessage::Handed(handed) => HANDED_BYTES + event_text(&handed.event),
        LinkMessage::FromBridge(FromBridge::Taken { results }) => 10 * results.len(),
        LinkMessage::ToRouter(_) | LinkMessage::ToGateway(_) => 0,
    };
    MESSAGE_BYTES + rest
}

/// The bytes of messages that one message carries.
fn texts(messages: &[Message]) -> usize {
    messages.iter().map(|message| CARRIED_BYTES + text(message)).sum()
}

fn event_text(event: &ToBridge) -> usize {
    match event {
        ToBridge::Undelivered { message, .. } => text(message),
        ToBridge::Request { client_msg_id, payload, .. } => client_msg_id.as_bytes().len() + payload.len(),
        ToBridge::Online { .. }
        | ToBridge::Offline { .. }
        | ToBridge::Joined { .. }
        | ToBridge::Left { .. } => 0,
    }
}

fn text(message: &Message) -> usize {
    message.client_msg_id.as_bytes().len() + message.payload.len()
}

#[cfg(test)]
mod tests {
    use wire::client::{FailReason, Outcome, SendAck};
    use wire::node::{
        Class, DeliveryId, Handed, Kept, Login, Presence, RANGE_WORDS, RANGES, Recalled, Seat, SessionId,
        ShardLoad, Submission, Taken, Target,
    };
    use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

    use super::*;

    fn message(room: i64) -> LinkMessage {
        LinkMessage::ToRouter(ToRouter::Leave { app: AppId(1), room: RoomId(room) })
    }

    fn written(outgoing: &mut Outgoing, window_bytes: usize) -> (u64, u64) {
        let mut batch = SendBatch::new();
        let filled = outgoing.fill(&mut batch, window_bytes, 0);
        (filled.batches, filled.messages)
    }

    #[test]
    fn what_was_not_taken_in_is_written_again() {
        let mut outgoing = Outgoing::default();
        for room in 0..3 {
            outgoing.push(message(room));
            assert_eq!(written(&mut outgoing, 1 << 20), (1, 1));
        }
        assert!(outgoing.credit(1) && !outgoing.can_fill(1 << 20));
        assert!(outgoing.resume(2));
        assert!(outgoing.can_fill(1 << 20));
        assert_eq!(written(&mut outgoing, 1 << 20), (0, 0));
        assert_eq!((outgoing.first, outgoing.next, outgoing.kept.len()), (2, 3, 1));
        assert!(!outgoing.resume(1), "that batch is gone");
        assert!(!outgoing.resume(4), "that batch was never sent");
        assert!(outgoing.resume(3) && outgoing.is_empty());
        assert_eq!(outgoing.bytes(), 0);
    }

    #[test]
    fn the_window_bounds_what_is_on_its_way() {
        let mut outgoing = Outgoing::default();
        for room in 0..10 * BATCH_MESSAGES_MAX as i64 {
            outgoing.push(message(room));
        }
        let before = outgoing.bytes();
        let (batches, messages) = written(&mut outgoing, 1);
        assert_eq!(batches, 1, "one goes always");
        assert_eq!(written(&mut outgoing, 1), (0, 0));
        assert!(outgoing.credit(1) && !outgoing.credit(2));
        assert_eq!(outgoing.bytes(), before - messages as usize * MESSAGE_BYTES);
    }

    fn heavy() -> Vec<LinkMessage> {
        let client_msg_id = ClientMsgId::new(vec![b'x'; ClientMsgId::BYTES_MAX].into());
        let submission = Submission {
            id: MessageId(1),
            app: AppId(1),
            sender: UserId(1),
            target: Target::Room(RoomId(1)),
            biz_code: BizCode(1),
            class: Class::Reliable,
            client_msg_id: client_msg_id.clone(),
            payload: vec![1; 999].into(),
            again: false,
            stored: false,
            device: None,
            concluded: None,
        };
        let message = Message {
            id: MessageId(1),
            app: AppId(1),
            sender: UserId(1),
            biz_code: BizCode(1),
            room: Some(RoomId(1)),
            sequence: 1,
            ack_wanted: true,
            client_msg_id: client_msg_id.clone(),
            payload: vec![1; 999].into(),
        };
        let seat = Seat { device: DeviceClass::Web, shard: 1, login: Login(1) };
        let outcome = Outcome::Sequenced { sequence: 1 };
        let ack = SendAck { client_msg_id, id: MessageId(1), outcome };
        let presence = |seats| Presence { user: UserId(1), seats: vec![seat; seats] };
        let session = SessionId(1);
        let online = Question::Online { app: AppId(1), users: vec![UserId(1); 500] };
        let to_router = [
            ToRouter::Submit { session, submission },
            ToRouter::Reach { routers: vec![1; 500], clock: Login(0) },
            ToRouter::Unchanged { ranges: vec![1; RANGE_WORDS], moved: true },
            ToRouter::Ask { ask: 1, question: online },
            ToRouter::Ask { ask: 1, question: Question::PushAll { message: message.clone() } },
            ToRouter::Kept(Box::new(Kept {
                router: 1,
                app: AppId(1),
                room: RoomId(1),
                gone: 1,
                upto: 1,
                is_first: true,
                is_sure: true,
                messages: vec![message.clone(); 100],
            })),
        ];
        let undelivered = message.clone();
        let to_gateway = [
            ToGateway::Deliver { session, delivery: None, again: false, message: message.clone() },
            ToGateway::Broadcast { message: message.clone(), shards: vec![1; 500] },
            ToGateway::Recalled(Box::new(Recalled {
                router: 1,
                app: AppId(1),
                room: RoomId(1),
                ask: 1,
                shard: 1,
                sequence: 1,
                gone: 1,
                total: 1,
                before: 1,
                messages: vec![message.clone(); 100],
            })),
            ToGateway::Answer { ask: 1, answer: Answer::History { messages: vec![message.clone(); 100] } },
            ToGateway::All { message },
            ToGateway::SendAck { session, submitted: MessageId(1), ack },
            ToGateway::Common { routers: vec![1; 500], clock: Login(0) },
            ToGateway::Digests { digests: vec![1; RANGES] },
            ToGateway::Answer {
                ask: 1,
                answer: Answer::Online { users: (0..100).map(presence).collect(), settled: true },
            },
            ToGateway::Answer {
                ask: 1,
                answer: Answer::Nodes { shards: vec![ShardLoad { shard: 1, sessions: 1 }; 500] },
            },
        ];
        let request = ToBridge::Request {
            session,
            device: DeviceClass::Web,
            room: Some(RoomId(1)),
            app: AppId(1),
            sender: UserId(1),
            biz_code: BizCode(1),
            received_ms: 0,
            client_msg_id: ClientMsgId::new(vec![b'x'; ClientMsgId::BYTES_MAX].into()),
            payload: vec![1; 999].into(),
        };
        let (user, reason, delivery) = (UserId(1), FailReason::Offline, DeliveryId::NONE);
        let undelivered = ToBridge::Undelivered { user, reason, message: undelivered, delivery };
        let handed =
            [request, undelivered].map(|event| LinkMessage::Handed(Box::new(Handed { seq: 1, event })));
        let results = vec![(1, Taken::Refused(FailReason::Offline)); 500];
        let taken = LinkMessage::FromBridge(FromBridge::Taken { results });
        let to_router = to_router.into_iter().map(LinkMessage::ToRouter);
        let to_gateway = to_gateway.into_iter().map(LinkMessage::ToGateway);
        to_router.chain(to_gateway).chain(handed).chain([taken]).collect()
    }

    /// Else a queue would grow by being written, past its ceiling.
    #[test]
    fn no_message_is_longer_on_the_wire_than_its_weight() {
        for (number, message) in heavy().into_iter().enumerate() {
            let weight = weight(&message);
            let archive = encode_batch(&vec![message]).len();
            assert!((archive..archive + 64).contains(&weight), "message {number}: {weight} for {archive}");
        }
    }
}
