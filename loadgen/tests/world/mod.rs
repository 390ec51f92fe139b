//! Fleets and a model of the gateway in one thread: no socket, no clock, and faults on demand.
#![allow(dead_code)] // each test file uses a part

mod server;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use loadgen::{
    Fleet, GeneratorUse, Mail, Plan, Report, RoomEnd, Run, STAMP_BYTES, Scenario, Sources, Tally, Word,
};
use shard::{CloseReason, ConnId, ConnectError, Effect, Event, Instant, SendBatch, Shard, ShardId};
use wire::{AppId, BizCode};

pub use server::{Fault, Server};

/// How long bytes are on their way.
const HOP: Duration = Duration::from_micros(50);
const SECOND_NS: u64 = 1_000_000_000;
/// Turns of a test at most.
const TURNS_MAX: usize = 2_000_000;

/// The plan of a run with one fleet.
pub fn plan(scenario: Scenario, clients: u32, rate: f64) -> Plan {
    Plan {
        scenario,
        targets: vec![target(0)],
        sources: Some(Sources { first: Ipv4Addr::new(127, 1, 0, 1), per_address: 10 }),
        run: 0x5a11_f154,
        app: AppId(1),
        first_user: 10_001,
        gift: 1,
        receiver: None,
        first_client: 0,
        clients,
        json: false,
        biz_code: BizCode(match scenario {
            Scenario::Room => 5555,
            Scenario::Gift => 5560,
            _ => 6001,
        }),
        payload_bytes: STAMP_BYTES as u32 + 10,
        rate,
        phase_ns: 0,
        warmup_ns: 0,
        measure_ns: Some(SECOND_NS),
        split_ns: Vec::new(),
        stay_ns: 0,
        repeat_ns: 35 * SECOND_NS,
        retry_busy: false,
        heartbeat_ms: None,
        connect_rate: None,
        connect_window: 64,
        rooms: 1,
        first_room: 1,
        publishers: 1,
        drain_ns: SECOND_NS,
    }
}

/// The address of a gateway. All of them are one cluster, which never loses a message between them.
pub fn target(number: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7000 + number))
}

/// What happens to the cluster in the middle of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A gateway resets its connections, and nobody listens there.
    Kill(SocketAddr),
    /// Somebody listens there again.
    Revive(SocketAddr),
    /// Send-acks get lost, or not any longer.
    Mute(bool),
    /// Messages get lost, or not any longer.
    Swallow(bool),
    /// Messages are refused as busy, or not any longer.
    Refuse(bool),
    /// Owners come without memory to those that they replace.
    Forget,
    /// The run is told to stop.
    Stop,
}

/// Everything a test can turn.
pub struct World {
    pub server: Server,
    fleets: Vec<Fleet>,
    plan: Plan,
    begun: Instant,
    now: Instant,
    conns: BTreeMap<u64, (usize, ConnId)>,
    /// The gateway of each connection.
    at: BTreeMap<u64, SocketAddr>,
    down: BTreeSet<SocketAddr>,
    /// What happens, and when, in ms from the beginning, in order. Operations begin after about 100.
    pub script: VecDeque<(u64, Act)>,
    /// Faults are made on purpose.
    pub faults_made: bool,
    next_conn: u32,
    /// Events on their way to a fleet.
    to_fleets: VecDeque<(Instant, usize, Arrival)>,
    /// What the fleets said and nobody has looked at yet.
    said: VecDeque<(usize, Word)>,
    /// Every byte the fleets wrote, to compare runs.
    pub written: Vec<u8>,
    /// Bytes reach a fleet in pieces of this size.
    pub piece_bytes: usize,
    /// Nobody listens.
    pub refuse: bool,
    /// Every connect asked for: when and from where.
    pub connects: Vec<(Instant, String)>,
}

enum Arrival {
    Connected(ConnId, u64),
    Refused(u64),
    Bytes(u64, Vec<u8>),
    Sent(u64, usize),
    Closed(u64, CloseReason),
}

/// How a run ended.
pub struct Outcome {
    pub report: Report,
    pub tally: Tally,
}

impl World {
    /// One fleet.
    pub fn new(plan: Plan) -> Self {
        Self::with_fleets(plan, 1)
    }

    /// As many fleets of the same size.
    pub fn with_fleets(plan: Plan, count: u32) -> Self {
        let begun = Instant::from_unix_nanos(1_790_000_000 * SECOND_NS);
        let plans = (0..count).map(|i| Plan { first_client: i * plan.clients, ..plan.clone() });
        let mint = |app: AppId, user: wire::UserId| format!("token of {} in {}", user.0, app.0);
        Self {
            server: Server::new(),
            fleets: plans.map(|plan| Fleet::new(plan, Box::new(mint))).collect(),
            plan,
            begun,
            now: begun,
            conns: BTreeMap::new(),
            at: BTreeMap::new(),
            down: BTreeSet::new(),
            script: VecDeque::new(),
            faults_made: false,
            next_conn: 0,
            to_fleets: VecDeque::new(),
            said: VecDeque::new(),
            written: Vec::new(),
            piece_bytes: usize::MAX,
            refuse: false,
            connects: Vec::new(),
        }
    }

    /// A whole run, as whoever runs fleets does it.
    pub fn run(&mut self) -> Outcome {
        let begun_ns = self.now.unix_nanos();
        self.tell(Mail::Begin { at_ns: begun_ns });
        self.wait(|word| matches!(word, Word::Settled(_)));
        let start_ns = self.now.unix_nanos() + SECOND_NS / 10;
        self.tell(Mail::Start { at_ns: start_ns });
        let mut rooms: Vec<RoomEnd> = Vec::new();
        for word in self.wait(|word| matches!(word, Word::Sent { .. })) {
            let Word::Sent { rooms: ends } = word else { continue };
            rooms.extend(ends);
        }
        // As it goes through the pipe.
        let expect = serde_json::to_string(&Mail::Expect { rooms }).unwrap();
        self.tell(serde_json::from_str(&expect).unwrap());
        let mut tally = Tally::default();
        for word in self.wait(|word| matches!(word, Word::Done(_))) {
            let Word::Done(one) = word else { continue };
            // As it goes through the pipe.
            let json = serde_json::to_string(&one).unwrap();
            tally.merge(&serde_json::from_str(&json).unwrap());
        }
        let run = Run {
            scenario: self.plan.scenario,
            connections: self.fleets.len() as u64 * u64::from(self.plan.clients),
            rate: self.plan.rate,
            seconds: self.plan.measure_ns.unwrap_or(SECOND_NS) as f64 / 1e9,
            begun_ns,
            reset_ns: (self.plan.scenario == Scenario::Storm).then_some(start_ns + SECOND_NS),
            faults_made: self.faults_made,
            stopped_readers: BTreeMap::new(),
            server: None,
            generator: GeneratorUse::default(),
        };
        Outcome { report: Report::new(&run, tally.clone()), tally }
    }

    fn tell(&mut self, mail: Mail) {
        for fleet in &mut self.fleets {
            fleet.handle(self.now, Event::Mail { from: ShardId::CONTROL, mail: mail.clone() });
        }
    }

    /// Goes on until every fleet has said what is waited for.
    fn wait(&mut self, wanted: impl Fn(&Word) -> bool) -> Vec<Word> {
        let mut found = Vec::new();
        for _ in 0..TURNS_MAX {
            while let Some((_, word)) = self.said.pop_front() {
                if wanted(&word) {
                    found.push(word);
                }
            }
            if found.len() == self.fleets.len() {
                return found;
            }
            self.turn();
        }
        panic!("the fleets never said it");
    }

    fn turn(&mut self) {
        for fleet in 0..self.fleets.len() {
            self.carry_out(fleet);
        }
        while let Some(&(ms, act)) = self.script.front()
            && self.now.since(self.begun) >= Duration::from_millis(ms)
        {
            self.script.pop_front();
            self.act(act);
        }
        let answers = self.server.answer(self.now);
        for (conn, bytes) in answers {
            self.send_to_fleet(conn, bytes);
        }
        for conn in self.server.take_closed() {
            let at = self.now + HOP;
            if let Some(&(fleet, _)) = self.conns.get(&conn) {
                self.to_fleets.push_back((at, fleet, Arrival::Closed(conn, CloseReason::Reset)));
            }
        }
        self.jump();
        while self.to_fleets.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, fleet, arrival) = self.to_fleets.pop_front().unwrap();
            self.arrive(fleet, arrival);
        }
        for fleet in &mut self.fleets {
            if fleet.poll_timeout().is_some_and(|at| at <= self.now) {
                fleet.handle(self.now, Event::Timeout);
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Kill(target) => {
                self.down.insert(target);
                let conns = self.at.iter().filter(|(_, at)| **at == target).map(|(conn, _)| *conn);
                for conn in conns.collect::<Vec<_>>() {
                    self.at.remove(&conn);
                    self.server.reset(conn);
                }
            }
            Act::Revive(target) => drop(self.down.remove(&target)),
            Act::Mute(is_mute) => self.server.mute = is_mute,
            Act::Swallow(swallows) => self.server.swallow = swallows,
            Act::Refuse(refuses) => self.server.busy = refuses,
            Act::Forget => self.server.forget(),
            Act::Stop => self.tell(Mail::Stop { at_ns: self.now.unix_nanos() }),
        }
    }

    /// To the next thing that happens, and no further than a millisecond.
    fn jump(&mut self) {
        let arrival = self.to_fleets.front().map(|(at, ..)| *at);
        let timeouts = self.fleets.iter().filter_map(Shard::poll_timeout);
        let next = arrival.into_iter().chain(timeouts).chain([self.now + Duration::from_millis(1)]).min();
        self.now = next.unwrap().max(self.now + Duration::from_nanos(1));
    }

    fn arrive(&mut self, fleet: usize, arrival: Arrival) {
        let core = &mut self.fleets[fleet];
        match arrival {
            Arrival::Connected(conn, token) => core.handle(self.now, Event::Connected { conn, token }),
            Arrival::Refused(token) => {
                core.handle(self.now, Event::ConnectFailed { token, error: ConnectError::Refused });
            }
            Arrival::Bytes(conn, bytes) => {
                let Some(&(_, conn)) = self.conns.get(&conn) else { return };
                for bytes in bytes.chunks(self.piece_bytes) {
                    core.handle(self.now, Event::Received { conn, bytes });
                }
            }
            Arrival::Sent(conn, bytes) => {
                let Some(&(_, conn)) = self.conns.get(&conn) else { return };
                core.handle(self.now, Event::Sent { conn, bytes });
            }
            Arrival::Closed(conn, reason) => {
                self.at.remove(&conn);
                let Some((_, conn)) = self.conns.remove(&conn) else { return };
                core.handle(self.now, Event::Closed { conn, reason });
            }
        }
    }

    fn carry_out(&mut self, fleet: usize) {
        let mut batch = SendBatch::new();
        while let Some(effect) = self.fleets[fleet].poll_effect(self.now) {
            match effect {
                Effect::Transmit { conn } => {
                    batch.clear();
                    self.fleets[fleet].poll_transmit(self.now, conn, &mut batch);
                    let bytes: Vec<u8> = batch.segments().flatten().copied().collect();
                    assert!(!bytes.is_empty(), "a transmit without bytes");
                    self.written.extend_from_slice(&bytes);
                    let key = self.key(fleet, conn);
                    self.server.receive(key, &bytes);
                    self.to_fleets.push_back((self.now + HOP, fleet, Arrival::Sent(key, bytes.len())));
                }
                Effect::Close { conn, .. } => {
                    let key = self.key(fleet, conn);
                    self.server.disconnect(key);
                    self.to_fleets.push_back((
                        self.now + HOP,
                        fleet,
                        Arrival::Closed(key, CloseReason::Local),
                    ));
                }
                Effect::Connect { token, source, peer } => {
                    self.connects.push((self.now, source.map_or(String::new(), |source| source.to_string())));
                    let arrival = if self.refuse || self.down.contains(&peer) {
                        Arrival::Refused(token)
                    } else {
                        let conn = ConnId { index: self.next_conn, generation: 0 };
                        self.next_conn += 1;
                        self.conns.insert(u64::from(conn.index), (fleet, conn));
                        self.at.insert(u64::from(conn.index), peer);
                        Arrival::Connected(conn, token)
                    };
                    self.to_fleets.push_back((self.now + HOP, fleet, arrival));
                }
                Effect::Report(word) => self.said.push_back((fleet, word)),
                Effect::Mail { .. } | Effect::StopAccepting | Effect::Stop => panic!("nobody asked for that"),
            }
        }
    }

    fn key(&self, fleet: usize, conn: ConnId) -> u64 {
        let key = u64::from(conn.index);
        assert_eq!(self.conns.get(&key), Some(&(fleet, conn)), "an effect for a connection that is gone");
        key
    }

    fn send_to_fleet(&mut self, conn: u64, bytes: Vec<u8>) {
        if let Some(&(fleet, _)) = self.conns.get(&conn) {
            self.to_fleets.push_back((self.now + HOP, fleet, Arrival::Bytes(conn, bytes)));
        }
    }
}
