//! A core that does what a test says, and watches that the engine keeps the contract.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use engine::{Clock, Kind, Options, Running};
use shard::{
    Clocks, CloseReason, ConnId, ConnectError, Effect, Event, Instant, Linger, SendBatch, Shard, ShardId,
};

/// How long anything may take before a test fails: far more than it takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    /// Whether the rigs of this test's thread keep nearly every connection in a further ring.
    pub static FEW_FILES_A_RING: Cell<bool> = const { Cell::new(false) };
}

/// An event, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// The last is the listener.
    Accepted(ConnId, IpAddr, u16),
    Connected(ConnId, u64),
    ConnectFailed(u64, ConnectError),
    Received(ConnId, Vec<u8>),
    Sent(ConnId, usize),
    Finished(ConnId),
    Closed(ConnId, CloseReason),
    Mail(ShardId, u64),
    /// At, due at.
    Timeout(Instant, Instant),
}

/// What shards are sent in these tests.
pub enum Mail {
    Number(u64),
    Do(Box<dyn FnOnce(&mut Hands) + Send>),
}

/// What a test reacts to events with.
pub type Behaviour = Box<dyn FnMut(&mut Hands, &Seen) + Send>;

/// What a behaviour can do.
#[derive(Default)]
pub struct Hands {
    pub now: Instant,
    pub timeout: Option<Instant>,
    pub pushed_back: bool,
    /// What other clocks show.
    pub clocks: Clocks,
    /// Whether mail waits for room somewhere.
    pub mail_waits: bool,
    /// The most receives between two looks at the effects.
    pub receives_most: usize,
    /// As the engine has told, and whether it ever was so.
    pub input_waits: bool,
    pub input_waited: bool,
    receives: usize,
    effects: VecDeque<Effect<Mail, u64>>,
    /// One of these in each turn, after the others.
    later: VecDeque<Effect<Mail, u64>>,
    is_turn_over: bool,
    conns: HashMap<ConnId, Life>,
    buried: HashSet<ConnId>,
}

#[derive(Default)]
struct Life {
    accepted: bool,
    outbox: VecDeque<Bytes>,
    in_flight: Option<usize>,
    finished: bool,
    closing: bool,
}

impl Hands {
    pub fn send(&mut self, conn: ConnId, bytes: impl Into<Bytes>) {
        if let Some(life) = self.conns.get_mut(&conn) {
            life.outbox.push_back(bytes.into());
            if life.in_flight.is_none() {
                self.effects.push_back(Effect::Transmit { conn });
            }
        }
    }

    pub fn close(&mut self, conn: ConnId, linger: Linger) {
        self.effects.push_back(Effect::Close { conn, linger });
    }

    pub fn connect(&mut self, token: u64, peer: SocketAddr, source: Option<IpAddr>) {
        self.effects.push_back(Effect::Connect { token, peer, source });
    }

    pub fn mail(&mut self, to: ShardId, number: u64) {
        self.effects.push_back(Effect::Mail { to, mail: Mail::Number(number) });
    }

    pub fn report(&mut self, number: u64) {
        self.effects.push_back(Effect::Report(number));
    }

    pub fn effect(&mut self, effect: Effect<Mail, u64>) {
        self.effects.push_back(effect);
    }

    /// In a turn of its own.
    pub fn later(&mut self, effect: Effect<Mail, u64>) {
        self.later.push_back(effect);
    }

    fn next_effect(&mut self) -> Option<Effect<Mail, u64>> {
        let later = if self.is_turn_over { &mut VecDeque::new() } else { &mut self.later };
        let next = match self.effects.pop_front() {
            Some(effect) => return Some(effect),
            None => later.pop_front(),
        };
        self.is_turn_over = next.is_some();
        next
    }
}

struct Core {
    hands: Hands,
    behaviour: Behaviour,
    log: Sender<Seen>,
}

impl Core {
    fn life(&mut self, conn: ConnId) -> &mut Life {
        assert!(!self.hands.buried.contains(&conn), "{conn:?}: an event after Closed");
        self.hands.conns.get_mut(&conn).unwrap_or_else(|| panic!("{conn:?} was never told"))
    }

    fn begin(&mut self, conn: ConnId, accepted: bool) {
        assert!(!self.hands.buried.contains(&conn), "{conn:?}: a name is used twice");
        let index_is_free = !self.hands.conns.keys().any(|other| other.index == conn.index);
        assert!(index_is_free, "{conn:?}: an index is used twice at a time");
        assert!(self.hands.conns.insert(conn, Life { accepted, ..Life::default() }).is_none());
    }

    fn check(&mut self, event: Event<'_, Mail>) -> Option<Seen> {
        Some(match event {
            Event::Accepted { conn, peer, listener } => {
                self.begin(conn, true);
                Seen::Accepted(conn, peer, listener)
            }
            Event::Connected { conn, token } => {
                self.begin(conn, false);
                Seen::Connected(conn, token)
            }
            Event::ConnectFailed { token, error } => Seen::ConnectFailed(token, error),
            Event::Received { conn, bytes } => {
                assert!(!bytes.is_empty(), "{conn:?}: received nothing");
                let mail_waits = self.hands.mail_waits;
                self.hands.receives += 1;
                self.hands.receives_most = self.hands.receives_most.max(self.hands.receives);
                let life = self.life(conn);
                assert!(!life.closing, "{conn:?}: received after Close");
                assert!(!life.finished, "{conn:?}: received after Finished");
                assert!(!(mail_waits && life.accepted), "{conn:?}: received while mail waits");
                Seen::Received(conn, bytes.to_vec())
            }
            Event::Sent { conn, bytes } => {
                let life = self.life(conn);
                assert_eq!(life.in_flight.take(), Some(bytes), "{conn:?}: sent what was not in flight");
                if !life.outbox.is_empty() {
                    self.hands.effects.push_back(Effect::Transmit { conn });
                }
                Seen::Sent(conn, bytes)
            }
            Event::Finished { conn } => {
                let life = self.life(conn);
                assert!(!life.finished && !life.closing, "{conn:?}: finished twice, or after Close");
                life.finished = true;
                Seen::Finished(conn)
            }
            Event::Closed { conn, reason } => {
                let closing = self.life(conn).closing;
                assert_eq!(closing, reason == CloseReason::Local, "{conn:?}: closed for {reason:?}");
                self.hands.conns.remove(&conn);
                self.hands.buried.insert(conn);
                Seen::Closed(conn, reason)
            }
            Event::Mail { from, mail: Mail::Number(number) } => Seen::Mail(from, number),
            Event::Mail { mail: Mail::Do(order), .. } => {
                order(&mut self.hands);
                return None;
            }
            // Nothing that a test waits for: it comes when a busy machine lets a shard stand still, too.
            Event::Clocks(clocks) => {
                self.hands.clocks = clocks;
                return None;
            }
            Event::MailWaits(waits) => {
                assert_ne!(waits, self.hands.mail_waits, "told twice");
                self.hands.mail_waits = waits;
                return None;
            }
            Event::InputWaits(waits) => {
                assert_ne!(waits, self.hands.input_waits, "told twice");
                self.hands.input_waits = waits;
                self.hands.input_waited |= waits;
                return None;
            }
            Event::Timeout => {
                let due = self.hands.timeout.take().expect("a timeout was asked for");
                assert!(due <= self.hands.now, "a timeout came early");
                Seen::Timeout(self.hands.now, due)
            }
        })
    }
}

impl Shard for Core {
    type Mail = Mail;
    type Report = u64;

    fn handle(&mut self, now: Instant, event: Event<'_, Mail>) {
        assert!(now >= self.hands.now, "time went back");
        self.hands.now = now;
        if let Some(seen) = self.check(event) {
            (self.behaviour)(&mut self.hands, &seen);
            let _ = self.log.send(seen);
        }
    }

    fn poll_effect(&mut self, now: Instant) -> Option<Effect<Mail, u64>> {
        assert!(now >= self.hands.now, "time went back");
        self.hands.receives = 0;
        let effect = self.hands.next_effect()?;
        if let Effect::Close { conn, .. } = &effect
            && let Some(life) = self.hands.conns.get_mut(conn)
        {
            life.closing = true;
        }
        Some(effect)
    }

    fn has_more(&self) -> bool {
        !self.hands.later.is_empty()
    }

    fn poll_transmit(&mut self, _now: Instant, conn: ConnId, batch: &mut SendBatch) {
        assert!(batch.is_empty());
        let life = self.life(conn);
        assert_eq!(life.in_flight, None, "{conn:?}: two batches in flight");
        while !batch.is_full()
            && let Some(bytes) = life.outbox.pop_front()
        {
            batch.share(bytes);
        }
        life.in_flight = (!batch.is_empty()).then_some(batch.len());
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.hands.timeout
    }

    fn is_pushed_back(&self) -> bool {
        self.hands.pushed_back
    }
}

/// Shards at work, and what they saw.
pub struct Rig {
    pub running: Running<Mail, u64>,
    pub clock: Clock,
    logs: Vec<Receiver<Seen>>,
}

/// Shard `index` of these tests' only node.
pub fn shard(index: u16) -> ShardId {
    ShardId::new(0, index)
}

/// Listens on a port of its own, pinned nowhere: tests run beside each other.
pub fn options() -> Options {
    Options {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        pin: Some(Vec::new()),
        recv_buffers: 256,
        ..Options::default()
    }
}

impl Rig {
    pub fn start(kind: Kind, options: Options, behaviours: Vec<Behaviour>) -> Self {
        Self::try_start(kind, options, behaviours).unwrap()
    }

    pub fn try_start(kind: Kind, options: Options, behaviours: Vec<Behaviour>) -> io::Result<Self> {
        let few = Options { open_connections_max: 1, ring_connections_max: 256, ..options.clone() };
        let options = if FEW_FILES_A_RING.get() { few } else { options };
        let clock = options.clock;
        let mut logs = Vec::new();
        let mut shards = Vec::new();
        for (index, behaviour) in behaviours.into_iter().enumerate() {
            let (log, seen) = unbounded();
            logs.push(seen);
            let build = move |_| Core { hands: Hands::default(), behaviour, log };
            shards.push((shard(index as u16), build));
        }
        let running = engine::start(kind, options, shards)?;
        Ok(Self { running, clock, logs })
    }

    pub fn one(kind: Kind, behaviour: impl FnMut(&mut Hands, &Seen) + Send + 'static) -> Self {
        Self::start(kind, options(), vec![Box::new(behaviour)])
    }

    pub fn address(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    pub fn dial(&self) -> TcpStream {
        dial(self.address())
    }

    /// Runs `order` in the core of `index`.
    pub fn tell(&self, index: u16, order: impl FnOnce(&mut Hands) + Send + 'static) {
        let told = self.running.remote().send(shard(index), Mail::Do(Box::new(order)));
        assert!(told.is_ok(), "the mailbox takes it");
    }

    /// The next thing that shard `index` sees.
    pub fn next(&self, index: u16) -> Seen {
        self.logs[index as usize]
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("shard {index} sees nothing more; alive: {}", self.running.is_alive()))
    }

    /// The next thing that shard 0 sees and `pick` takes.
    pub fn find<T>(&self, pick: impl FnMut(Seen) -> Option<T>) -> T {
        self.find_at(0, pick)
    }

    pub fn find_at<T>(&self, index: u16, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next(index)) {
                return found;
            }
        }
    }

    pub fn closed(&self) -> (ConnId, CloseReason) {
        self.find(|seen| match seen {
            Seen::Closed(conn, reason) => Some((conn, reason)),
            _ => None,
        })
    }

    /// What shard `index` saw within `time`.
    pub fn within(&self, index: u16, time: Duration) -> Option<Seen> {
        self.logs[index as usize].recv_timeout(time).ok()
    }

    /// Stops all shards. A broken contract shows here, too.
    pub fn stop(self) {
        for index in 0..self.logs.len() {
            self.tell(index as u16, |hands| hands.effect(Effect::Stop));
        }
        self.running.join().unwrap();
    }
}

pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends back what comes, closes when the peer has finished.
pub fn echo(hands: &mut Hands, seen: &Seen) {
    match seen {
        Seen::Received(conn, bytes) => hands.send(*conn, bytes.clone()),
        Seen::Finished(conn) => hands.close(*conn, Linger::Flush),
        _ => {}
    }
}

pub fn nothing(_: &mut Hands, _: &Seen) {}

/// Bytes that show when one is lost, repeated or moved.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}
