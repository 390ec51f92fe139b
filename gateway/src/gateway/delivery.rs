//! What clients are told by others: messages, their acks, their repeats, their end.

use std::sync::Arc;

use bytes::Bytes;
use shard::{ConnId, Instant, ShardId};
use wire::client::{Code, FailReason, Message, NoticeCode, Outcome};
use wire::node::{DeliveryId, ToBridge, ToRouter};
use wire::{MessageId, UserId};

use super::Gateway;
use crate::dirty::Dirt;
use crate::encoded::encode;
use crate::latency::{RouteClass, Stamp};
use crate::limits::GREEDY_MESSAGES;
use crate::outbox::{Flight, Owed, Reliable, Retry, weight};
use crate::session::Phase;
use crate::timer::Timer;

impl Gateway {
    /// Whether the session has this message in its outbox already, from another owner: then this one hears of
    /// its end too. While owners change, that which was given the message last may be the first to deliver
    /// it. What comes from the only owner that has messages here is looked for only if that owner says that
    /// it comes `again`.
    pub(super) fn is_here(
        &mut self,
        router: ShardId,
        conn: ConnId,
        delivery: Option<DeliveryId>,
        again: bool,
        message: &Message,
    ) -> bool {
        let outbox = self.sessions.get(conn).and_then(|session| self.outboxes.get_mut(session.outbox));
        let (Some(outbox), Some(delivery)) = (outbox, delivery) else { return false };
        (again || outbox.may_double(router)) && outbox.owe_also(message.id, router, delivery)
    }

    /// A message for one session. An owner says `Bound` before it, so one that is not live is not meant.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        router: ShardId,
        conn: ConnId,
        delivery: Option<DeliveryId>,
        message: &Message,
    ) {
        let session = self.sessions.get_mut(conn).filter(|session| session.phase == Phase::Live);
        let Some(session) = session else {
            if let Some(delivery) = delivery {
                self.settle(router, conn, delivery, Outcome::Failed(FailReason::Disconnected));
            }
            return;
        };
        let encoding = session.answer_encoding();
        let frame = encode(std::slice::from_ref(message), encoding, self.config.limits.frame_bytes_max);
        match delivery {
            Some(delivery) => {
                self.queue_reliable(now, conn, message.id, frame, Owed::Router { router, delivery });
            }
            None => {
                let waited = Some((RouteClass::UserLossy, Stamp::of(now)));
                self.queue_lossy(conn, frame, 1, waited);
            }
        }
    }

    /// The client has a message. Whether that message was in flight.
    pub(super) fn ack(&mut self, now: Instant, conn: ConnId, id: MessageId) -> bool {
        let Self { sessions, outboxes, wheel, dirty, config, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return false };
        let flight = match outboxes.get_mut(session.outbox) {
            Some(_) => outboxes.update(session.owner(conn), &mut session.outbox, |outbox| outbox.ack(id)),
            None => None,
        };
        let Some(flight) = flight else {
            self.metrics.acks_unknown += 1;
            return false;
        };
        wheel.cancel(flight.timer);
        let is_writing = session.output.is_writing;
        let dirt = outboxes.look(&mut session.outbox, config.delivery.window, is_writing);
        if dirt > Dirt::None {
            dirty.mark(&mut session.output, conn, dirt);
        }
        self.metrics.acks += 1;
        if let Some(route) = flight.owed.route() {
            self.metrics.latency.ack[route as usize].record(flight.since, Stamp::of(now), 1);
        }
        self.settle_owed(conn, flight.owed, Outcome::Delivered);
        true
    }

    /// A flight has waited for its ack as long as it may.
    pub(super) fn ack_timeout(&mut self, now: Instant, conn_index: u32, key: u32) {
        let later = self.judges_later(now);
        let Self { sessions, outboxes, wheel, dirty, config, metrics, .. } = self;
        let Some((conn, session)) = sessions.get_mut_by_index(conn_index) else { return };
        if let Some(later) = later {
            // The ack may lie unread.
            let timer = wheel.arm(later, Timer::Ack { conn_index, flight: key }.pack());
            return outboxes.open(&mut session.outbox).set_timer(key, timer);
        }
        let exhausted: Option<Flight> = outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
            let (flight, written) = match outbox.retry(key, config.delivery.tries) {
                Retry::Again(flight) => (flight, 1),
                Retry::Later(flight) => (flight, 0),
                Retry::Exhausted(flight) => return Some(flight),
                Retry::Gone => panic!("a flight's timer is cancelled with it"),
            };
            let deadline = now + config.delivery.ack_timeout(flight.tries);
            flight.timer = wheel.arm(deadline, Timer::Ack { conn_index, flight: key }.pack());
            metrics.retries += written;
            metrics.count_out(Code::Business, written);
            None
        });
        let user = session.user;
        let is_writing = session.output.is_writing;
        let dirt = outboxes.look(&mut session.outbox, config.delivery.window, is_writing);
        if dirt > Dirt::None {
            dirty.mark(&mut session.output, conn, dirt);
        }
        if let Some(flight) = exhausted {
            self.fail(conn, user, flight.owed, FailReason::Unacked);
        }
        self.close_if_drained(conn);
    }

    /// Fails everything that waits for a connection or is in flight to it, oldest first.
    pub(super) fn abandon(&mut self, conn: ConnId, user: UserId, reason: FailReason) {
        let Self { sessions, outboxes, wheel, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        if outboxes.get_mut(session.outbox).is_none() {
            return;
        }
        let mut failed = Vec::new();
        outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
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

    /// Queues the frame of a reliable message. When it finds no room, the oldest that were never written fail
    /// in its place, or itself if that is not enough: so what is handed over keeps its order. The connection
    /// stays, unless that has lasted for as long as a message may be in flight and its client has acked
    /// nothing since: then it does not read. No frame means that it is too long.
    pub(super) fn queue_reliable(
        &mut self,
        now: Instant,
        conn: ConnId,
        id: MessageId,
        frame: Bytes,
        owed: Owed,
    ) {
        if frame.is_empty() {
            return self.fail(conn, self.user_of(conn), owed, FailReason::TooLong);
        }
        self.relieve();
        if self.outboxes.bytes() + weight(&frame) as u64 > self.config.limits.outbox_bytes_max {
            return self.fail(conn, self.user_of(conn), owed, FailReason::Overflow);
        }
        let since = Stamp::of(now);
        let Err(mut refused) = self.try_reliable(conn, id, frame, owed, since) else { return };
        let (user, does_not_read) = (self.user_of(conn), self.stall(now, conn));
        loop {
            let Some(older) = self.give_way(conn, weight(&refused.0)) else {
                self.fail(conn, user, refused.1, FailReason::Overflow);
                break;
            };
            self.fail(conn, user, older, FailReason::Overflow);
            match self.try_reliable(conn, id, refused.0, refused.1, since) {
                Ok(()) => break,
                Err(again) => refused = again,
            }
        }
        if does_not_read {
            self.close_with_notice(conn, NoticeCode::SlowReader);
        }
    }

    fn user_of(&self, conn: ConnId) -> UserId {
        self.sessions.get(conn).expect("the caller looked it up").user
    }

    /// Queues the frame of a reliable message if there is room in its connection's share; else gives frame
    /// and debt back.
    fn try_reliable(
        &mut self,
        conn: ConnId,
        id: MessageId,
        frame: Bytes,
        owed: Owed,
        since: Stamp,
    ) -> Result<(), (Bytes, Owed)> {
        let Self { sessions, outboxes, dirty, config, .. } = self;
        let session = sessions.get_mut(conn).expect("the caller looked it up");
        let bytes_max = outboxes.reliable_share(&config.limits, session.outbox, session.address);
        let messages_max = config.limits.reliable_messages_max as usize;
        outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
            outbox.push_reliable(Reliable { id, frame, owed, since }, messages_max, bytes_max)
        })?;
        dirty.mark(&mut session.output, conn, Dirt::First);
        self.metrics.deliveries_reliable += 1;
        self.metrics.count_out(Code::Business, 1);
        Ok(())
    }

    /// A message found no room. Whether that has lasted so long that the client counts as one that does not
    /// read.
    fn stall(&mut self, now: Instant, conn: ConnId) -> bool {
        let patience = self.config.delivery.flight_time_max();
        let Some(session) = self.sessions.get_mut(conn) else { return false };
        self.outboxes.open(&mut session.outbox).stall(now, patience)
    }

    /// Takes out the oldest message of a connection that was never written, if that can make room for one of
    /// so many bytes.
    fn give_way(&mut self, conn: ConnId, bytes: usize) -> Option<Owed> {
        let Self { sessions, outboxes, config, .. } = self;
        let session = sessions.get_mut(conn)?;
        let bytes_max = outboxes.reliable_share(&config.limits, session.outbox, session.address);
        outboxes.update(session.owner(conn), &mut session.outbox, |outbox| outbox.give_way(bytes, bytes_max))
    }

    /// Queues the frames of so many lossy messages, which are dropped together when the connection reads too
    /// slowly. There is no frame when all are too long. `waited` says since when the first of them waits, if
    /// that is to be counted.
    pub(super) fn queue_lossy(
        &mut self,
        conn: ConnId,
        frames: Bytes,
        messages: u32,
        waited: Option<(RouteClass, Stamp)>,
    ) {
        self.relieve();
        let Self { sessions, outboxes, dirty, config, metrics, .. } = self;
        let session = sessions.get_mut(conn).expect("the caller looked it up");
        if frames.is_empty() || outboxes.bytes() + frames.len() as u64 > config.limits.outbox_bytes_max {
            metrics.lossy_dropped += u64::from(messages);
            return;
        }
        let share = outboxes.share(&config.limits, session.outbox, session.address).max(frames.len());
        let bytes_max = share.min(config.limits.lossy_bytes_max as usize);
        metrics.lossy_dropped += outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
            outbox.push_lossy(frames, messages, waited, bytes_max)
        });
        metrics.deliveries_lossy += u64::from(messages);
        metrics.count_out(Code::Business, u64::from(messages));
        dirty.mark(&mut session.output, conn, Dirt::Lossy);
    }

    /// Where the pool of outboxes is short, one that has more than its share gives some up: its lossy
    /// messages first, then reliable ones that were never written, the oldest first.
    fn relieve(&mut self) {
        let Some(owner) = self.outboxes.next_greedy(&self.config.limits) else { return };
        let Self { sessions, outboxes, config, metrics, .. } = self;
        let Some(session) = sessions.get_mut(owner.conn) else { return };
        let share = outboxes.share(&config.limits, session.outbox, session.address);
        metrics.lossy_dropped +=
            outboxes.update(owner, &mut session.outbox, |outbox| outbox.drop_lossy(share));
        let user = session.user;
        let owed = outboxes.update(owner, &mut session.outbox, |outbox| {
            std::iter::from_fn(|| outbox.give_up(share)).take(GREEDY_MESSAGES).collect::<Vec<_>>()
        });
        for owed in owed {
            self.fail(owner.conn, user, owed, FailReason::Overflow);
        }
    }

    /// A reliable message to this user ended without an ack: whoever waits for it hears so, or the bridge
    /// gets it.
    fn fail(&mut self, conn: ConnId, user: UserId, owed: Owed, reason: FailReason) {
        self.metrics.count_undelivered(reason);
        if let Some(message) = self.settle_owed(conn, owed, Outcome::Failed(reason)) {
            self.tell_bridge(ToBridge::Undelivered { user, reason, message, delivery: DeliveryId::NONE });
        }
    }

    /// Tells the routers that wait how a delivery ended; the message, if it is the bridge that is to hear of
    /// a failure.
    fn settle_owed(&mut self, conn: ConnId, owed: Owed, outcome: Outcome) -> Option<Message> {
        match owed {
            Owed::Router { router, delivery } => self.settle(router, conn, delivery, outcome),
            Owed::Routers(all) => {
                all.into_iter().for_each(|(router, delivery)| self.settle(router, conn, delivery, outcome));
            }
            Owed::Bridge(message) => return Some(Arc::unwrap_or_clone(message)),
            Owed::Nobody => {}
        }
        None
    }

    fn settle(&mut self, router: ShardId, conn: ConnId, delivery: DeliveryId, outcome: Outcome) {
        let session = self.session_of(conn);
        self.tell_router(router, ToRouter::Settle { delivery, session, outcome });
    }
}
