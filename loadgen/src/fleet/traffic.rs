//! What clients send and get, and the check of it.

use std::borrow::Cow;

use edge::Broken;
use shard::{ConnId, Instant};
use wire::client::{
    Business, ClientFrame, Encoding, FailReason, Message, NoticeCode, Outcome, SendAck, ServerFrame,
};

use super::{Fleet, Phase};
use crate::client::{Answered, Arrival, HEARTBEATS_MAX, Heartbeat, Inbox, State, Writing};
use crate::order::Seen;
use crate::plan::Scenario;
use crate::rooms::{Place, Placed};
use crate::stamp::{Stamp, client_msg_id, sequence_of};
use crate::tally::count;

/// The longest body a client takes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What a client may have waiting to be written; past it, it sends no more.
pub(super) const OUT_BYTES_MAX: usize = 1 << 20;
/// Why a connection ended on whose other side is no gateway, but an HTTP server: an admin port, or a
/// backend's.
pub(super) const HTTP: &str = "http_port";
/// Why a connection without TLS ended that got an alert of it.
const TLS: &str = "tls_port";
/// How an alert begins: the type of its record, and the version.
const ALERT: [u8; 2] = [21, 3];
/// How soon a message is sent again that the server was too busy for.
const BUSY_WAIT_NS: u64 = 1_000_000_000;
/// Operations started in one turn.
const OPERATIONS_PER_TURN: usize = 1024;

/// Whether another try would end the same way.
pub(super) fn is_hopeless(why: &str) -> bool {
    why == HTTP || why == TLS || why == NoticeCode::Kicked.name() || Broken::is_hopeless(why)
}

impl Fleet {
    /// Starts every operation and every sign of life that is due.
    pub(super) fn run_due(&mut self, now: Instant) {
        for _ in 0..OPERATIONS_PER_TURN {
            let Some((number, intended)) = self.operations.take(now) else { break };
            let c = (number % u64::from(self.plan.senders())) as usize;
            let started = match self.plan.scenario {
                Scenario::Echo => self.heartbeat(c, intended, true),
                Scenario::Chat | Scenario::Room | Scenario::Gift => self.send(now, c, intended),
                Scenario::Idle | Scenario::Storm => false,
            };
            self.note_start(now, intended, started);
        }
        for _ in 0..OPERATIONS_PER_TURN {
            let Some((number, intended)) = self.heartbeats.as_mut().and_then(|schedule| schedule.take(now))
            else {
                break;
            };
            let c = (number % u64::from(self.plan.clients)) as usize;
            let operation = self.plan.scenario == Scenario::Idle && self.running.contains(&intended);
            let started = self.heartbeat(c, intended, operation);
            if operation {
                self.note_start(now, intended, started);
            }
        }
    }

    fn note_start(&mut self, now: Instant, intended: Instant, started: bool) {
        if !started {
            self.tally.unsent += 1;
            return;
        }
        self.tally.sent += 1;
        self.unanswered += 1;
        if self.measured.contains(&intended) {
            self.tally.lag.record(now.since(intended));
        }
    }

    /// An operation arrived.
    fn note_arrival(&mut self, now: Instant, intended: Instant) {
        self.tally.delivered += 1;
        if self.measured.contains(&now) {
            self.tally.measured += 1;
        }
        if self.measured.contains(&intended) {
            let latency = now.since(intended);
            self.tally.latency.record(latency);
            let offset_ns = intended.since(self.measured.start).as_nanos() as u64;
            let part = self.plan.split_ns.partition_point(|end_ns| *end_ns <= offset_ns);
            if let Some(part) = self.tally.parts.get_mut(part) {
                part.record(latency);
            }
        }
    }

    fn heartbeat(&mut self, c: usize, intended: Instant, operation: bool) -> bool {
        let client = &mut self.clients[c];
        let full = client.heartbeats.len() >= HEARTBEATS_MAX || client.out.len() > OUT_BYTES_MAX;
        if client.state != State::Ready || full {
            return false;
        }
        client.heartbeat_number += 1;
        let number = client.heartbeat_number;
        client.heartbeats.push_back(Heartbeat { intended, number, operation });
        // With the header, 24 bytes.
        let mut echo = [0; 14];
        echo[..4].copy_from_slice(&number.to_be_bytes());
        echo[4..12].copy_from_slice(&intended.unix_nanos().to_be_bytes());
        let echo = if self.encoding == Encoding::Binary { &echo[..] } else { &[] };
        self.write(c, &ClientFrame::Heartbeat { echo });
        true
    }

    /// Takes on a message. While the client is away it waits, and its latency runs.
    fn send(&mut self, now: Instant, c: usize, intended: Instant) -> bool {
        let client = &mut self.clients[c];
        if client.state == State::Failed || client.outbox.is_full() || client.out.len() > OUT_BYTES_MAX {
            return false;
        }
        let number = client.outbox.push(intended);
        if client.state == State::Ready {
            self.write_message(now, c, number);
        }
        true
    }

    /// Writes a message that has no send-ack, for the first time or again.
    pub(super) fn write_message(&mut self, now: Instant, c: usize, number: u32) {
        let Some(Writing { intended, repeat }) = self.clients[c].outbox.write(number, now) else { return };
        self.tally.repeats += u64::from(repeat);
        let client = self.global(c);
        let target = match self.plan.scenario {
            Scenario::Room | Scenario::Gift => self.plan.room(self.plan.room_index(client)).0,
            _ => self.plan.user(client ^ 1).0,
        };
        let mut payload = std::mem::take(&mut self.payload);
        if self.plan.scenario == Scenario::Gift {
            payload = self.gift_payload(client);
            let room = self.plan.room_index(client) as usize;
            self.gifts[room].send((c as u32, number), intended);
        } else {
            Stamp { run: self.plan.run, client, sequence: number, intended, repeat }.write(&mut payload);
        }
        let id = client_msg_id(self.plan.run, number);
        let id = std::str::from_utf8(&id).expect("hexadecimal digits");
        let business = Business {
            biz_code: self.plan.biz_code,
            target,
            client_msg_id: Cow::Borrowed(id),
            payload: Cow::Borrowed(&payload),
        };
        self.write(c, &ClientFrame::Business(business));
        self.payload = payload;
    }

    pub(super) fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(&c) = self.connected.get(conn) else { return };
        let c = c as usize;
        match self.clients[c].layers.take() {
            None => self.received_frames(now, c, bytes),
            Some(mut layers) => {
                let taken = layers.received(bytes, &mut |frames| self.received_frames(now, c, frames));
                self.clients[c].layers = Some(layers);
                self.ask_to_transmit(c);
                if let Err(broken) = taken {
                    self.end(c, broken.name);
                }
            }
        }
        self.write_acks(c);
    }

    /// Bytes of the stream of frames came.
    fn received_frames(&mut self, now: Instant, c: usize, mut bytes: &[u8]) {
        let other_port = match bytes {
            _ if bytes.starts_with(b"HTTP/") => Some(HTTP),
            _ if bytes.starts_with(&ALERT) => Some(TLS),
            _ => None,
        };
        let mut deframer = std::mem::take(&mut self.clients[c].deframer);
        loop {
            let frame = match deframer.next(&mut bytes, BODY_BYTES_MAX) {
                Ok(Some(frame)) => ServerFrame::decode(&frame),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            match frame {
                Ok(frame) => self.frame(now, c, frame),
                Err(_) => {
                    self.end(c, other_port.unwrap_or("broken_frame"));
                    break;
                }
            }
        }
        self.clients[c].deframer = deframer;
    }

    fn frame(&mut self, now: Instant, c: usize, frame: ServerFrame<'_>) {
        match frame {
            ServerFrame::Deliver(message) => {
                if message.ack_wanted {
                    self.acks.extend_from_slice(&message.id.0.to_be_bytes());
                }
                self.delivered(now, c, &message);
            }
            ServerFrame::Heartbeat { echo } => self.echoed(now, c, echo),
            ServerFrame::SendAck(ack) => self.answered(now, c, &ack),
            ServerFrame::LoggedIn { heartbeat_ms } => self.logged_in(now, c, heartbeat_ms),
            ServerFrame::Joined { sequence, .. } => self.joined(now, c, sequence),
            ServerFrame::Notice { code, retry_after_ms, .. } => {
                count(&mut self.tally.notices, code.name());
                if code.closes() {
                    self.clients[c].ended.get_or_insert(code.name());
                    self.clients[c].retry_after_ms = retry_after_ms;
                }
            }
            // A client of a run never leaves or logs out.
            ServerFrame::Left { .. } | ServerFrame::LoggedOut => {}
        }
    }

    fn echoed(&mut self, now: Instant, c: usize, echo: &[u8]) {
        let client = &mut self.clients[c];
        let heartbeats = &mut client.heartbeats;
        let at = match echo.first_chunk() {
            Some(number) => {
                let number = u32::from_be_bytes(*number);
                heartbeats.iter().position(|heartbeat| heartbeat.number == number)
            }
            // JSON has no echo: answers come in order.
            None => (!heartbeats.is_empty()).then_some(0),
        };
        let Some(heartbeat) = at.and_then(|at| heartbeats.remove(at)) else {
            self.tally.duplicated += 1;
            return;
        };
        if heartbeat.number < client.heartbeat_answered {
            self.tally.out_of_order += 1;
        } else {
            client.heartbeat_answered = heartbeat.number;
        }
        if heartbeat.operation {
            self.unanswered -= 1;
            self.tally.accepted += 1;
            self.note_arrival(now, heartbeat.intended);
        }
    }

    /// Heartbeats do not outlive their connection.
    pub(super) fn drop_heartbeats(&mut self, c: usize) {
        let heartbeats = std::mem::take(&mut self.clients[c].heartbeats);
        let operations = heartbeats.iter().filter(|heartbeat| heartbeat.operation).count() as u64;
        self.unanswered -= operations;
        self.tally.lost += operations;
    }

    fn answered(&mut self, now: Instant, c: usize, ack: &SendAck) {
        let number = sequence_of(self.plan.run, ack.client_msg_id.as_bytes());
        let Some(number) = number else { return };
        // Once the fleets have told each other what is owed to members, nothing is added to it.
        let is_over = matches!(self.phase, Phase::Sent | Phase::Counting { .. });
        if is_over && self.plan.scenario == Scenario::Room {
            return;
        }
        if ack.outcome == Outcome::Failed(FailReason::Busy) && self.plan.retry_busy && self.plan.repeat_ns > 0
        {
            return self.put_off(now, c, number);
        }
        let outbox = &mut self.clients[c].outbox;
        // The answer to a repeat may come after the answer to the first.
        let Some(answered) = outbox.answer(number) else { return };
        self.unanswered -= 1;
        let Answered { intended, repeated } = answered;
        if self.plan.scenario == Scenario::Gift {
            return self.gift_answered(now, c, number, intended, ack);
        }
        let outbox = &mut self.clients[c].outbox;
        match ack.outcome {
            Outcome::Delivered => self.tally.acked += 1,
            Outcome::Stored | Outcome::Answered => {}
            Outcome::Sequenced { sequence } => {
                let publisher = self.global(c);
                let room = self.plan.room_index(publisher) as usize;
                if let Some(room) = self.rooms.get_mut(room) {
                    room.sequenced(sequence, publisher, number, repeated);
                }
            }
            Outcome::Failed(reason) => {
                outbox.reject(number);
                count(&mut self.tally.rejected, reason.name());
                return;
            }
        }
        self.tally.accepted += 1;
        if self.measured.contains(&intended) {
            self.tally.send_ack.record(now.since(intended));
        }
    }

    /// The server is too busy for a message, and has not taken note of it.
    fn put_off(&mut self, now: Instant, c: usize, number: u32) {
        self.tally.busy += 1;
        let earlier_ns = self.plan.repeat_ns.saturating_sub(BUSY_WAIT_NS);
        let at = Instant::from_unix_nanos(now.unix_nanos().saturating_sub(earlier_ns));
        self.clients[c].outbox.count_as_written(number, at);
    }

    fn delivered(&mut self, now: Instant, c: usize, message: &Message) {
        if self.plan.scenario == Scenario::Gift {
            return self.gift_delivered(now, c, message);
        }
        match self.genuine(message) {
            Some(stamp) if message.room.is_some() => self.delivered_in_room(now, c, message, stamp),
            Some(stamp) => self.delivered_in_pair(now, c, message, stamp),
            None => self.tally.stray += 1,
        }
    }

    /// The stamp of a message that is of this run and as its sender made it.
    fn genuine(&self, message: &Message) -> Option<Stamp> {
        let stamp = Stamp::read(&message.payload)?;
        let right = stamp.run == self.plan.run
            && self.plan.client_of(message.sender) == Some(stamp.client)
            && sequence_of(self.plan.run, message.client_msg_id.as_bytes()) == Some(stamp.sequence)
            && message.payload.len() == self.payload.len()
            && message.biz_code == self.plan.biz_code;
        right.then_some(stamp)
    }

    fn delivered_in_pair(&mut self, now: Instant, c: usize, message: &Message, stamp: Stamp) {
        if stamp.client != self.global(c) ^ 1 || self.plan.scenario != Scenario::Chat {
            self.tally.stray += 1;
            return;
        }
        let inbox = self.clients[c].inbox.get_or_insert_with(|| Box::new(Inbox::new(1)));
        match inbox.take(u64::from(stamp.sequence), message.id, stamp.intended, stamp.repeat) {
            Arrival::First { late } => {
                self.tally.out_of_order += u64::from(late);
                self.note_arrival(now, stamp.intended);
            }
            Arrival::Redelivered => self.tally.redelivered += 1,
            Arrival::Renewed => {
                self.tally.redelivered += 1;
                self.tally.renewed += 1;
            }
            Arrival::Duplicate => self.tally.duplicated += 1,
        }
    }

    fn delivered_in_room(&mut self, now: Instant, c: usize, message: &Message, stamp: Stamp) {
        let own = self.global(c);
        let room = self.plan.room_index(own);
        let inbox = self.clients[c].inbox.as_mut().filter(|_| message.room == Some(self.plan.room(room)));
        let (Some(inbox), Some(room)) = (inbox, self.rooms.get_mut(room as usize)) else {
            self.tally.stray += 1;
            return;
        };
        let place = room.check(Placed {
            sequence: message.sequence,
            id: message.id,
            publisher: stamp.client,
            number: stamp.sequence,
            repeat: stamp.repeat,
        });
        match (place, inbox.order.take(message.sequence)) {
            (Place::Duplicate, _) => self.tally.duplicated += 1,
            (Place::Disordered, _) => self.tally.out_of_order += 1,
            (Place::Right | Place::Repeat { .. }, Seen::Again) => self.tally.redelivered += 1,
            (Place::Repeat { earlier }, _) if inbox.order.has(earlier) => {
                self.tally.redelivered += 1;
                self.tally.renewed += 1;
            }
            (Place::Right | Place::Repeat { .. }, seen) => {
                self.tally.out_of_order += u64::from(seen == Seen::Late);
                self.note_arrival(now, stamp.intended);
            }
        }
    }
}
