//! What clients are told by others: messages, their acks, their repeats, their end.

use std::sync::Arc;

use bytes::Bytes;
use shard::{ConnId, Instant, ShardId};
use wire::client::{Code, Encoding, FailReason, Message, NoticeCode, Outcome, ServerFrame};
use wire::node::{DeliveryId, SessionId, ToBridge, ToRouter};
use wire::{MessageId, UserId};

use crate::gateway::{Gateway, Timer, mark_dirty};
use crate::outbox::{Flight, Owed, Retry};
use crate::session::Session;

impl Gateway {
    /// A message for one session.
    pub(crate) fn deliver(
        &mut self,
        router: ShardId,
        conn: ConnId,
        delivery: Option<DeliveryId>,
        message: &Message,
    ) {
        let session = self.sessions.get_mut(conn).filter(|session| session.is_logged_in());
        let Some(session) = session else {
            if let Some(delivery) = delivery {
                self.settle(router, conn, delivery, Outcome::Failed(FailReason::Disconnected));
            }
            return;
        };
        let frame = encode(message, session.answer_encoding());
        let owed = delivery.map(|delivery| Owed::Router { router, delivery });
        let user = session.user;
        if let Err(owed) = self.queue(conn, message.id, frame, owed) {
            self.fail(conn, user, owed, FailReason::Overflow);
            self.close_with_notice(conn, NoticeCode::SlowReader);
        }
        self.metrics.count_out(Code::Business, 1);
    }

    /// A message for every local member of its room, encoded once per encoding.
    pub(crate) fn broadcast(&mut self, message: Message) {
        let Some(id) = message.room else { return };
        let app = message.app;
        let Some(room) = self.rooms.find(app, id) else { return };
        room.sequence = room.sequence.max(message.sequence);
        let members = std::mem::take(&mut room.members);
        let message = Arc::new(message);
        let mut frames = Frames::new(&message);
        let mut slow = Vec::new();
        for member in &members {
            let session = self.sessions.get(member.conn).expect("a member has a session");
            let frame = frames.get(session.answer_encoding());
            let owed = message.ack_wanted.then(|| Owed::Bridge(message.clone()));
            if let Err(owed) = self.queue(member.conn, message.id, frame, owed) {
                slow.push((member.conn, owed));
            }
        }
        self.metrics.count_out(Code::Business, members.len() as u64);
        let room = self.rooms.find(app, id).expect("nobody left meanwhile");
        room.members = members;
        for (conn, owed) in slow {
            let user = self.sessions.get(conn).expect("a member has a session").user;
            self.fail(conn, user, owed, FailReason::Overflow);
            self.close_with_notice(conn, NoticeCode::SlowReader);
        }
    }

    /// The client has a message.
    pub(crate) fn ack(&mut self, conn: ConnId, id: MessageId) {
        let Self { sessions, outboxes, wheel, dirty, config, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        let flight = match outboxes.get_mut(session.outbox) {
            Some(_) => outboxes.update(&mut session.outbox, |outbox| outbox.ack(id)),
            None => None,
        };
        let Some(flight) = flight else {
            self.metrics.acks_unknown += 1;
            return;
        };
        wheel.cancel(flight.timer);
        let outbox = outboxes.open(&mut session.outbox);
        if outbox.can_fill(config.delivery.window) {
            mark_dirty(session, conn, dirty);
        } else if outbox.is_idle() && !session.is_writing {
            outboxes.release(&mut session.outbox);
        }
        self.metrics.acks += 1;
        if let Owed::Router { router, delivery } = flight.owed {
            self.settle(router, conn, delivery, Outcome::Delivered);
        }
    }

    /// A flight has waited for its ack as long as it may.
    pub(crate) fn ack_timeout(&mut self, now: Instant, conn_index: u32, key: u32) {
        let Self { sessions, outboxes, wheel, dirty, config, metrics, .. } = self;
        let Some((conn, session)) = sessions.get_mut_by_index(conn_index) else { return };
        let exhausted: Option<Flight> =
            outboxes.update(&mut session.outbox, |outbox| match outbox.retry(key, config.delivery.tries) {
                Retry::Again(flight) => {
                    let deadline = now + config.delivery.ack_timeout(flight.tries);
                    flight.timer = wheel.arm(deadline, Timer::Ack { conn_index, flight: key }.pack());
                    None
                }
                Retry::Exhausted(flight) => Some(flight),
                Retry::Gone => panic!("a flight's timer is cancelled with it"),
            });
        let user = session.user;
        let outbox = outboxes.open(&mut session.outbox);
        if outbox.can_fill(config.delivery.window) {
            mark_dirty(session, conn, dirty);
        } else if outbox.is_idle() && !session.is_writing {
            outboxes.release(&mut session.outbox);
        }
        match exhausted {
            Some(flight) => self.fail(conn, user, flight.owed, FailReason::Unacked),
            None => {
                metrics.retries += 1;
                metrics.count_out(Code::Business, 1);
            }
        }
        self.close_if_drained(conn);
    }

    /// Fails everything that waits for a connection or is in flight to it, oldest first.
    pub(crate) fn abandon(&mut self, conn: ConnId, user: UserId, reason: FailReason) {
        let Self { sessions, outboxes, wheel, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        if outboxes.get_mut(session.outbox).is_none() {
            return;
        }
        let mut failed = Vec::new();
        outboxes.update(&mut session.outbox, |outbox| {
            outbox.abandon(|owed, timer| {
                if let Some(timer) = timer {
                    wheel.cancel(timer);
                }
                failed.push(owed);
            });
        });
        for owed in failed {
            self.fail(conn, user, owed, reason);
        }
    }

    /// Queues an encoded message: in the reliable lane when somebody is owed its outcome, else in the lossy one. Gives the
    /// debt back when the connection reads too slowly to take more.
    fn queue(&mut self, conn: ConnId, id: MessageId, frame: Bytes, owed: Option<Owed>) -> Result<(), Owed> {
        let Self { sessions, outboxes, dirty, config, metrics, .. } = self;
        let session: &mut Session = sessions.get_mut(conn).expect("the caller looked it up");
        let limits = &config.limits;
        let is_full = outboxes.bytes() + frame.len() as u64 > limits.outbox_bytes_max;
        match owed {
            Some(owed) if is_full => return Err(owed),
            Some(owed) => {
                let (messages_max, bytes_max) = (limits.reliable_messages_max, limits.reliable_bytes_max);
                outboxes.update(&mut session.outbox, |outbox| {
                    outbox.push_reliable(id, frame, owed, messages_max, bytes_max)
                })?;
                metrics.deliveries_reliable += 1;
            }
            None if is_full => {
                metrics.lossy_dropped += 1;
                return Ok(());
            }
            None => {
                let bytes_max = limits.lossy_bytes_max;
                metrics.lossy_dropped +=
                    outboxes.update(&mut session.outbox, |outbox| outbox.push_lossy(frame, bytes_max));
                metrics.deliveries_lossy += 1;
            }
        }
        mark_dirty(session, conn, dirty);
        Ok(())
    }

    /// A reliable message to this user ended without an ack: whoever waits for it hears so, or the bridge gets it.
    fn fail(&mut self, conn: ConnId, user: UserId, owed: Owed, reason: FailReason) {
        self.metrics.count_undelivered(reason);
        match owed {
            Owed::Router { router, delivery } => {
                self.settle(router, conn, delivery, Outcome::Failed(reason));
            }
            Owed::Bridge(message) => {
                let message = Arc::unwrap_or_clone(message);
                self.tell_bridge(ToBridge::Undelivered { user, reason, message });
            }
        }
    }

    fn settle(&mut self, router: ShardId, conn: ConnId, delivery: DeliveryId, outcome: Outcome) {
        let session = SessionId(conn.as_u64());
        self.tell_router(router, ToRouter::Settle { delivery, session, outcome });
    }
}

/// A message's frames, one per encoding, each made when it is first wanted.
struct Frames<'a> {
    message: &'a Message,
    frames: [Option<Bytes>; 3],
}

impl<'a> Frames<'a> {
    fn new(message: &'a Message) -> Self {
        Self { message, frames: [None, None, None] }
    }

    fn get(&mut self, encoding: Encoding) -> Bytes {
        let at = match encoding {
            Encoding::Binary => 0,
            Encoding::Json => 1,
            Encoding::JsonOld => 2,
        };
        self.frames[at].get_or_insert_with(|| encode(self.message, encoding)).clone()
    }
}

fn encode(message: &Message, encoding: Encoding) -> Bytes {
    // Header and fixed fields of a delivered message are under 64 bytes; JSON grows as it must.
    let mut frame = Vec::with_capacity(64 + message.client_msg_id.as_bytes().len() + message.payload.len());
    let deliver = ServerFrame::Deliver(std::borrow::Cow::Borrowed(message));
    deliver.encode(encoding, message.app, message.sender, &mut frame);
    frame.into()
}
