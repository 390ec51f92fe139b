//! The clients of one process: who is connected, and in which phase the run is.

mod arrivals;
mod giving;
mod repeats;
mod traffic;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use edge::{ClientLayers, ClientPort};
use shard::{
    CloseReason, ConnId, ConnMap, Effect, Event, Instant, Linger, SEND_BATCH_BYTES_MAX, SendBatch, Shard,
};
use wire::client::{AckIds, ClientFrame, Encoding};
use wire::{AppId, UserId};

use crate::client::{Client, State};
use crate::fleet::arrivals::Arrivals;
use crate::fleet::repeats::Sweep;
use crate::gifts::Gifts;
use crate::mail::{Mail, Progress, Word};
use crate::order::Order;
use crate::plan::{Plan, Scenario};
use crate::rooms::Room;
use crate::schedule::Schedule;
use crate::tally::{Samples, Tally, count};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(100);
/// How often a fleet looks whether everything has come, once all is sent.
const LOOK: Duration = Duration::from_millis(5);
/// How long it goes on listening after that, for what must not come.
const LISTEN: Duration = Duration::from_millis(250);
/// When nobody became ready for so long, those who are not have failed.
const STALL: Duration = Duration::from_secs(30);
/// Write buffers kept for reuse, and the largest of them.
const BUFFERS_MAX: usize = 1024;
const BUFFER_BYTES_MAX: usize = 4096;

/// Makes the token of a user.
pub type Mint = Box<dyn Fn(AppId, UserId) -> String + Send>;

/// The clients of one process, as a [`Shard`].
pub struct Fleet {
    plan: Plan,
    mint: Mint,
    /// Which layers connections to each target have; none past the end.
    ports: Vec<ClientPort>,
    encoding: Encoding,
    phase: Phase,
    clients: Vec<Client>,
    connected: ConnMap<u32>,
    effects: VecDeque<Effect<Mail, Word>>,
    buffers: Vec<Vec<u8>>,
    arrivals: Arrivals,
    ready: u32,
    failed: u32,
    /// The signs of life of all clients together: one after the other, each once a period.
    heartbeats: Option<Schedule>,
    operations: Schedule,
    /// Operations are intended in this time.
    running: Range<Instant>,
    /// The part of it that is measured.
    measured: Range<Instant>,
    /// Operations that wait for an answer.
    unanswered: u64,
    sweep: Sweep,
    rooms: Vec<Room>,
    /// Of each room, where clients send gifts.
    gifts: Vec<Gifts>,
    tally: Tally,
    /// When to look at the phase, and to tell progress.
    tick: Instant,
    /// When a client last became ready.
    ready_at: Instant,
    /// The payload of a message, its stamp overwritten each time.
    payload: Vec<u8>,
    /// The ids to ack of what one receive brought.
    acks: Vec<u8>,
}

/// What the fleet waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// `Begin`.
    New,
    /// Every client to be ready or to fail.
    Connecting,
    /// `Start`.
    Settled,
    /// The end of the measured time.
    Running { until: Instant },
    /// The time of the reset (storm).
    Holding { until: Instant },
    /// Every client to be back (storm).
    Returning,
    /// The end of the time that everybody stays after that (storm).
    Staying { until: Instant },
    /// The last answers.
    Draining { until: Instant },
    /// `Expect`.
    Sent,
    /// The last deliveries.
    Counting { from: Instant, until: Instant },
    /// Nothing.
    Done,
}

impl Fleet {
    /// A fleet that does nothing until [`Mail::Begin`].
    pub fn new(plan: Plan, mint: Mint) -> Self {
        assert!(
            plan.payload_bytes as usize >= crate::STAMP_BYTES,
            "whoever made the plan left room for a stamp"
        );
        assert!(!plan.targets.is_empty(), "whoever made the plan knows where to connect");
        let rooms = if plan.scenario == Scenario::Room { plan.rooms } else { 0 };
        let giving = if plan.scenario == Scenario::Gift { plan.rooms } else { 0 };
        let clients = plan.first_client..plan.first_client + plan.clients;
        let parts = if plan.split_ns.is_empty() { 0 } else { plan.split_ns.len() + 1 };
        let parts = vec![Samples::default(); parts];
        Self {
            encoding: plan.encoding(),
            phase: Phase::New,
            clients: clients.map(|client| Client::new(plan.first_target(client))).collect(),
            connected: ConnMap::new(),
            effects: VecDeque::new(),
            buffers: Vec::new(),
            arrivals: Arrivals::new(&plan),
            ready: 0,
            failed: 0,
            heartbeats: None,
            operations: Schedule::new(Instant::default(), 0.0, 0),
            running: Instant::default()..Instant::default(),
            measured: Instant::default()..Instant::default(),
            unanswered: 0,
            sweep: Sweep::default(),
            rooms: (0..rooms).map(|_| Room::default()).collect(),
            gifts: (0..giving).map(|_| Gifts::default()).collect(),
            tally: Tally { parts, ..Tally::default() },
            tick: Instant::default(),
            ready_at: Instant::default(),
            payload: vec![b'x'; plan.payload_bytes as usize],
            acks: Vec::new(),
            plan,
            mint,
            ports: Vec::new(),
        }
    }

    /// The same, with connections that have layers: those to each target.
    #[must_use]
    pub fn by(self, ports: Vec<ClientPort>) -> Self {
        Self { ports, ..self }
    }

    fn mail(&mut self, now: Instant, mail: Mail) {
        match mail {
            Mail::Begin { at_ns } => {
                let at = Instant::from_unix_nanos(at_ns);
                self.phase = Phase::Connecting;
                self.ready_at = at;
                self.tick = at;
                self.arrivals.begin(at);
            }
            Mail::Start { at_ns } => self.start(Instant::from_unix_nanos(at_ns)),
            Mail::Stop { at_ns } => self.stop(Instant::from_unix_nanos(at_ns)),
            Mail::Expect { rooms } => {
                for end in rooms {
                    if let Some(room) = self.rooms.get_mut(end.room as usize) {
                        room.expect(&end);
                    }
                }
                let until = now + Duration::from_nanos(self.plan.drain_ns);
                self.phase = Phase::Counting { from: now + LISTEN, until };
                self.tick = now;
            }
        }
    }

    fn start(&mut self, at: Instant) {
        let from = at + Duration::from_nanos(self.plan.warmup_ns);
        let until = from + Duration::from_nanos(self.plan.measure_ns.unwrap_or(u64::MAX));
        if self.plan.scenario == Scenario::Storm {
            self.phase = Phase::Holding { until };
            return;
        }
        self.running = at..until;
        self.measured = from..until;
        self.phase = Phase::Running { until };
        if self.plan.senders() > 0 {
            let first = at + Duration::from_nanos(self.plan.phase_ns);
            let duration_ns = until.since(first).as_nanos() as u64;
            self.operations = Schedule::new(first, self.plan.rate, duration_ns);
        }
    }

    fn stop(&mut self, at: Instant) {
        let Phase::Running { until } = &mut self.phase else { return };
        *until = at;
        self.running.end = at;
        self.measured.end = at;
        self.operations.stop(at);
    }

    fn advance(&mut self, now: Instant) {
        self.start_connects(now);
        self.run_due(now);
        if let Phase::Holding { until } = self.phase
            && now >= until
        {
            self.reset_all(until);
        }
        if let Phase::Staying { until } = self.phase
            && now >= until
        {
            self.sent();
        }
        if now >= self.tick && self.phase != Phase::New {
            self.look(now);
        }
    }

    /// Tells progress, and goes on to the next phase when this one is over.
    fn look(&mut self, now: Instant) {
        let interval = match self.phase {
            // All gifts are looked through.
            Phase::Counting { .. } if self.plan.scenario == Scenario::Gift => PROGRESS,
            Phase::Draining { .. } | Phase::Counting { .. } => LOOK,
            _ => PROGRESS,
        };
        self.tick = now + interval;
        if matches!(self.phase, Phase::Running { .. } | Phase::Draining { .. }) {
            self.repeat_unanswered(now);
        }
        let progress = self.progress();
        match self.phase {
            Phase::Connecting | Phase::Returning => {
                if now.since(self.ready_at) > STALL {
                    self.give_up_waiting();
                }
                self.say(Word::Progress(progress));
            }
            Phase::Running { until } => {
                self.say(Word::Progress(progress));
                if now >= until && self.operations.due().is_none() {
                    self.phase = Phase::Draining { until: now + Duration::from_nanos(self.plan.drain_ns) };
                    self.tick = now + LOOK;
                }
            }
            Phase::Draining { until } => {
                let nobody_left = self.failed == self.plan.clients;
                if self.unanswered == 0 || nobody_left || now >= until {
                    self.sent();
                }
            }
            Phase::Counting { from, until } => {
                if (now >= from && self.is_nothing_missing()) || now >= until {
                    self.finish();
                }
            }
            Phase::New
            | Phase::Settled
            | Phase::Holding { .. }
            | Phase::Staying { .. }
            | Phase::Sent
            | Phase::Done => {}
        }
    }

    /// Goes on when every client is ready or has failed.
    fn settle(&mut self) {
        if self.ready + self.failed < self.plan.clients {
            return;
        }
        match self.phase {
            Phase::Connecting => {
                self.phase = Phase::Settled;
                let progress = self.progress();
                self.say(Word::Settled(progress));
            }
            Phase::Returning => {
                let until = self.ready_at + Duration::from_nanos(self.plan.stay_ns);
                self.phase = Phase::Staying { until };
            }
            _ => {}
        }
    }

    fn sent(&mut self) {
        self.phase = Phase::Sent;
        let ends = self.rooms.iter().enumerate().filter_map(|(room, known)| known.end(room as u32));
        let rooms = ends.collect();
        self.say(Word::Sent { rooms });
    }

    /// Every member of a room in this fleet that was ever there.
    fn members(&self) -> impl Iterator<Item = (&Room, &Order, State)> {
        self.clients.iter().enumerate().filter_map(|(c, client)| {
            let room = self.rooms.get(self.plan.room_index(self.global(c)) as usize)?;
            Some((room, &client.inbox.as_ref()?.order, client.state))
        })
    }

    fn is_nothing_missing(&self) -> bool {
        let mut present = self.members().filter(|(.., state)| *state == State::Ready);
        present.all(|(room, order, _)| room.missing(order, true) == 0) && self.gifts_missing() == 0
    }

    fn finish(&mut self) {
        self.phase = Phase::Done;
        let mut tally = std::mem::take(&mut self.tally);
        tally.connected = self.clients.iter().filter(|client| client.was_ready).count() as u64;
        tally.failed = self.clients.iter().filter(|client| client.state != State::Ready).count() as u64;
        for client in &self.clients {
            if client.state == State::Ready {
                let target = self.plan.targets[usize::from(client.target)];
                count(&mut tally.on_targets, &target.to_string());
            }
            tally.lost += client.heartbeats.iter().filter(|heartbeat| heartbeat.operation).count() as u64;
            tally.unanswered += client.outbox.unanswered().count() as u64;
        }
        match self.plan.scenario {
            Scenario::Chat => tally.lost += self.lost_in_pairs(),
            Scenario::Room => self.count_rooms(&mut tally),
            Scenario::Gift => {
                tally.lost += self.gifts_missing();
                tally.duplicated += self.gifts.iter().map(Gifts::contradictions).sum::<u64>();
            }
            Scenario::Idle | Scenario::Echo | Scenario::Storm => {}
        }
        self.say(Word::Done(Box::new(tally)));
    }

    /// Messages that did not come and whose sender was not told so.
    fn lost_in_pairs(&self) -> u64 {
        let nothing = Order::new(1);
        let pairs = self
            .clients
            .iter()
            .enumerate()
            .filter_map(|(c, client)| Some((client, self.clients.get(c ^ 1)?)));
        pairs
            .map(|(client, partner)| {
                let order = client.inbox.as_ref().map_or(&nothing, |inbox| &inbox.order);
                let missing = order.missing_until(u64::from(partner.outbox.last()));
                missing.filter(|number| !partner.outbox.is_rejected(*number as u32)).count() as u64
            })
            .sum()
    }

    fn count_rooms(&self, tally: &mut Tally) {
        for (room, order, state) in self.members() {
            tally.lost += room.missing(order, state == State::Ready);
            tally.passed_by += room.passed_by(order);
        }
    }

    fn progress(&self) -> Progress {
        Progress { ready: self.ready, failed: self.failed, sent: self.tally.sent, done: self.tally.delivered }
    }

    fn say(&mut self, word: Word) {
        self.effects.push_back(Effect::Report(word));
    }

    /// A client's number as counted over the whole run.
    fn global(&self, c: usize) -> u32 {
        self.plan.first_client + c as u32
    }

    /// Appends a frame to what a client writes.
    fn write(&mut self, c: usize, frame: &ClientFrame<'_>) {
        let user = self.plan.user(self.global(c));
        let client = &mut self.clients[c];
        if client.out.capacity() == 0 {
            client.out = self.buffers.pop().unwrap_or_default();
        }
        frame.encode(self.encoding, self.plan.app, user, &mut client.out);
        self.ask_to_transmit(c);
    }

    fn ask_to_transmit(&mut self, c: usize) {
        let client = &mut self.clients[c];
        let has_output = match &client.layers {
            None => !client.out.is_empty(),
            Some(layers) => layers.has_output() || layers.is_open() && !client.out.is_empty(),
        };
        let Some(conn) = client.conn.filter(|_| has_output && !client.asked && !client.in_flight) else {
            return;
        };
        client.asked = true;
        self.effects.push_back(Effect::Transmit { conn });
    }

    /// Acks what one receive brought.
    fn write_acks(&mut self, c: usize) {
        if self.acks.is_empty() {
            return;
        }
        let acks = std::mem::take(&mut self.acks);
        // A JSON body takes one id.
        let ids_max = if self.encoding == Encoding::Binary { wire::client::ACK_IDS_MAX } else { 1 };
        for ids in acks.chunks(8 * ids_max) {
            let ids = AckIds::Packed(ids);
            let one = ids.iter().next().filter(|_| ids_max == 1).map(AckIds::One);
            self.write(c, &ClientFrame::Ack(one.unwrap_or(ids)));
        }
        self.acks = acks;
        self.acks.clear();
    }

    fn transmit(&mut self, conn: ConnId, batch: &mut SendBatch) {
        let Some(&c) = self.connected.get(conn) else { return };
        let client = &mut self.clients[c as usize];
        client.asked = false;
        if let Some(layers) = &mut client.layers {
            take_layered(layers, &mut client.out, batch);
        } else {
            let taken = client.out.len().min(SEND_BATCH_BYTES_MAX);
            batch.copy(&client.out[..taken]);
            client.out.drain(..taken);
        }
        if batch.is_empty() {
            return;
        }
        client.in_flight = true;
        if client.out.is_empty() {
            let buffer = std::mem::take(&mut client.out);
            if buffer.capacity() <= BUFFER_BYTES_MAX && self.buffers.len() < BUFFERS_MAX {
                self.buffers.push(buffer);
            }
        }
    }

    fn end(&mut self, c: usize, why: &'static str) {
        let client = &mut self.clients[c];
        client.ended.get_or_insert(why);
        if let Some(conn) = client.conn {
            self.effects.push_back(Effect::Close { conn, linger: Linger::Abort });
        }
    }

    fn closed(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        let Some(c) = self.connected.remove(conn) else { return };
        let c = c as usize;
        let (state, ended) = (self.clients[c].state, self.clients[c].ended);
        self.drop_heartbeats(c);
        if state == State::Closing {
            self.clients[c].disconnect();
            self.clients[c].state = State::Away;
            let since = self.clients[c].since;
            self.arrivals.come_back(since, c as u32);
            return;
        }
        let why = ended.unwrap_or(match reason {
            CloseReason::Local => "closed",
            CloseReason::Reset => "reset",
            CloseReason::Failed => "socket_error",
        });
        count(&mut self.tally.disconnected, why);
        if state == State::Ready {
            self.ready -= 1;
            self.clients[c].lost = Some(now);
            self.clients[c].was_away = true;
        } else {
            self.arrivals.left_the_way();
        }
        let hopeless = traffic::is_hopeless(why);
        self.retry(now, c, hopeless);
    }
}

/// What leaves of a connection with layers: a message of WebSocket has whole frames, so all of them.
fn take_layered(layers: &mut ClientLayers, frames: &mut Vec<u8>, batch: &mut SendBatch) {
    if layers.is_open() {
        layers.put(frames);
        frames.clear();
    }
    batch.copy(&layers.take_output());
}

impl Shard for Fleet {
    type Mail = Mail;
    type Report = Word;

    fn handle(&mut self, now: Instant, event: Event<'_, Mail>) {
        match event {
            Event::Received { conn, bytes } => self.received(now, conn, bytes),
            Event::Sent { conn, .. } => {
                if let Some(&c) = self.connected.get(conn) {
                    self.clients[c as usize].in_flight = false;
                    self.ask_to_transmit(c as usize);
                }
            }
            Event::Connected { conn, token } => self.connected(conn, token as usize),
            Event::ConnectFailed { token, error } => self.connect_failed(now, token as usize, error),
            Event::Finished { conn } => {
                if let Some(&c) = self.connected.get(conn) {
                    self.end(c as usize, "closed");
                }
            }
            Event::Closed { conn, reason } => self.closed(now, conn, reason),
            Event::Mail { mail, .. } => self.mail(now, mail),
            Event::Timeout => self.advance(now),
            // A fleet listens nowhere, and measures by time that never jumps.
            Event::Accepted { .. } | Event::Clocks(_) | Event::MailWaits(_) | Event::InputWaits(_) => {}
        }
        self.start_connects(now);
    }

    fn poll_effect(&mut self, _now: Instant) -> Option<Effect<Mail, Word>> {
        self.effects.pop_front()
    }

    fn poll_transmit(&mut self, _now: Instant, conn: ConnId, batch: &mut SendBatch) {
        self.transmit(conn, batch);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::New | Phase::Done) {
            return None;
        }
        let phase_end = match self.phase {
            Phase::Holding { until } | Phase::Staying { until } => Some(until),
            _ => None,
        };
        let heartbeat = self.heartbeats.and_then(|heartbeats| heartbeats.due());
        let due = [Some(self.tick), phase_end, self.arrivals.due(), self.operations.due(), heartbeat];
        due.into_iter().flatten().min()
    }
}
