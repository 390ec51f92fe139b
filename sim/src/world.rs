//! Time, and what happens when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::{self, Display};

use node::Mail;
use shard::{Prng, ShardId};
use wire::node::link::Role;
use wire::node::{FoundSeat, Taken};

use crate::client::Client;
use crate::flights::Flights;
use crate::host::NodeHost;
use crate::model::Model;
use crate::network::{Host, Network, Packet, Side, TcpId};
use crate::plan::{BRIDGES, GATEWAYS, Plan};
use crate::tap::Taps;
use crate::trace::Trace;

/// How often it is looked whether all has come to rest.
const REST_LOOK_NS: u64 = 250_000_000;
/// How often in turn it must look so: for all tries of a message, a slow bridge, and as long again.
const REST_LOOKS: u32 = 12;

/// What went wrong in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// When, in ns from its start.
    pub at_ns: u64,
    /// What.
    pub what: String,
}

/// What a run was like that went well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Of everything that happened, with its time.
    pub hash: u64,
    /// Events that happened.
    pub events: u64,
    /// Messages that clients sent, repeats not counted.
    pub messages: u64,
    /// Of these, those that a receiver got.
    pub delivered: u64,
    /// Of these, those that were handed to the bridge for some receiver.
    pub handed_over: u64,
    /// Sessions that were live at some time.
    pub sessions: u64,
    /// Reliable messages with a client_msg_id of which nobody knows what has become.
    pub unaccounted: u64,
    /// Farewells that did not end by themselves.
    pub drains_late: u32,
    /// Sessions of links that were given up, by those who are there at the end.
    pub links_lost: u64,
    /// TLS handshakes that gateways have done, full ones and those that a ticket made short, by those who are
    /// there at the end.
    pub tls_handshakes: [u64; 2],
    /// Sessions that gateways announced to routers, as these count them.
    pub announced: u64,
    /// How long after the last fault everything was whole, in ms, by looks that are a quarter of a second
    /// apart; none if the end came first.
    pub whole_after_ms: Option<u64>,
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at_ns, what } = self;
        write!(f, "seed {seed} failed at {:.6} s: {what}", *at_ns as f64 / 1e9)
    }
}

/// Something that is to happen.
pub(crate) enum Event {
    Turn { shard: ShardId, life: u32 },
    Mail { from: ShardId, to: ShardId, life: u32, mail: Box<Mail> },
    Syn { tcp: TcpId },
    SynAck { tcp: TcpId },
    Refused { tcp: TcpId },
    ConnectLate { tcp: TcpId },
    Arrive { tcp: TcpId, to: Side, epoch: u32, packet: Packet },
    Credit { tcp: TcpId, to: Side, bytes: usize },
    Reset { tcp: TcpId, to: Side },
    Linger { tcp: TcpId, side: Side },
    Client { client: usize },
    ClientGoes { client: usize, tcp: TcpId },
    Fault { index: usize },
    Thaw { host: Host, until: u64 },
    Heal { from: Host, to: Host },
    Start { host: Host, at: u64 },
    DrainLate { host: Host, life: u32 },
    Look { shard: ShardId, life: u32, app: wire::AppId, user: wire::UserId },
    Record { record: Box<wire::node::ToDirectory> },
    Stream { shard: ShardId, life: u32, record: Box<wire::node::ToDirectory> },
    Take { bridge: ShardId, life: u32, of: node::Origin, handed: Box<wire::node::Handed> },
    Quiet,
    Rest,
}

/// What is to happen, by time; what is due at one time, in the order in which it was scheduled.
#[derive(Default)]
struct Schedule {
    /// Each with the time above its number above its place.
    due: BinaryHeap<Reverse<u128>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    count: u32,
}

impl Schedule {
    fn push(&mut self, at: u64, event: Event) {
        self.count += 1;
        let place = self.free.pop().unwrap_or(self.events.len() as u32);
        match self.events.get_mut(place as usize) {
            Some(free) => *free = Some(event),
            None => self.events.push(Some(event)),
        }
        self.due.push(Reverse(u128::from(at) << 64 | u128::from(self.count) << 32 | u128::from(place)));
    }

    fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse(due) = self.due.pop()?;
        let place = due as u32;
        self.free.push(place);
        let event = self.events[place as usize].take().expect("what is due is there");
        Some(((due >> 64) as u64, event))
    }
}

/// A cluster, its clients, its network, and the model of what it promises.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) prng: Prng,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<Host, NodeHost>,
    pub(crate) clients: Vec<Client>,
    pub(crate) model: Model,
    pub(crate) trace: Trace,
    pub(crate) taps: Taps,
    pub(crate) flights: Flights,
    pub(crate) is_quiet: bool,
    pub(crate) failure: Option<String>,
    /// Drains that did not end by themselves.
    pub(crate) drains_late: u32,
    /// When the last event of each bridge shard is taken.
    pub(crate) takes_until: BTreeMap<ShardId, u64>,
    /// What bridges have said of events, by shard, incarnation and number.
    pub(crate) taken: BTreeMap<(ShardId, u64, u64), Taken>,
    directory: BTreeMap<(i32, i64), Vec<FoundSeat>>,
    /// What it keeps of rooms.
    streams: BTreeMap<(i32, i64), Vec<wire::node::Entry>>,
    /// When a shard's latest record about one is written.
    streams_until: BTreeMap<ShardId, u64>,
    schedule: Schedule,
    /// When the run ends.
    end: u64,
    looks_at_rest: u32,
    /// Since when each look found everything whole.
    whole_at: Option<u64>,
    events: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, lines: Option<fn(&str)>) -> Self {
        let mut prng = Prng::new(plan.seed);
        let network = Network::new(prng.next_u64());
        let mut world = Self {
            now: 0,
            network,
            nodes: BTreeMap::new(),
            clients: Vec::new(),
            model: Model::new(plan.bridges > 0),
            trace: Trace::new(lines),
            taps: Taps::default(),
            flights: Flights::default(),
            taken: BTreeMap::new(),
            is_quiet: false,
            failure: None,
            drains_late: 0,
            takes_until: BTreeMap::new(),
            directory: BTreeMap::new(),
            streams: BTreeMap::new(),
            streams_until: BTreeMap::new(),
            schedule: Schedule::default(),
            looks_at_rest: 0,
            whole_at: None,
            end: (plan.busy_ms + plan.quiet_ms) * 1_000_000,
            events: 0,
            prng,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in self.plan.hosts() {
            let role = match host {
                ..GATEWAYS => Role::Router,
                GATEWAYS..BRIDGES => Role::Gateway,
                BRIDGES.. => Role::Bridge,
            };
            let offset_ms = self.plan.clocks.iter().find(|(of, _)| *of == host).map_or(0, |(_, ms)| *ms);
            self.nodes.insert(host, NodeHost::new(host, role, offset_ms * 1_000_000));
            let at = self.prng.below(300_000_000);
            self.schedule(at, Event::Start { host, at });
        }
        for index in 0..self.plan.faults.len() {
            self.schedule(self.plan.faults[index].0 * 1_000_000, Event::Fault { index });
        }
        self.schedule(self.plan.busy_ms * 1_000_000, Event::Quiet);
        self.schedule(self.plan.busy_ms * 1_000_000, Event::Rest);
        self.make_clients();
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Report, Failure> {
        while let Some((at, event)) = self.schedule.pop()
            && at <= self.end
            && self.failure.is_none()
        {
            self.now = at;
            self.events += 1;
            self.happen(event);
        }
        self.now = self.now.min(self.end);
        if self.failure.is_none() {
            self.failure = self.judge().err();
        }
        match self.failure {
            Some(what) => Err(Failure { seed: self.plan.seed, at_ns: self.now, what }),
            None => Ok(Report {
                hash: self.trace.hash(),
                events: self.events,
                messages: self.model.messages() as u64,
                delivered: self.model.delivered() as u64,
                handed_over: self.model.handed_over() as u64,
                sessions: self.model.lived() as u64,
                unaccounted: self.model.unaccounted() as u64,
                drains_late: self.drains_late,
                links_lost: self.links_lost(),
                tls_handshakes: self.tls_handshakes(),
                announced: self.announced(),
                whole_after_ms: self.whole_at.map(|at| (at - self.plan.busy_ms * 1_000_000) / 1_000_000),
            }),
        }
    }

    fn links_lost(&self) -> u64 {
        let links =
            self.nodes.values().flat_map(|node| node.shards()).filter_map(|shard| shard.core.cores().links());
        links.map(|links| links.metrics().lost).sum()
    }

    fn tls_handshakes(&self) -> [u64; 2] {
        let shards = self.nodes.values().flat_map(|node| node.shards());
        let gateways = shards.filter_map(|shard| shard.core.cores().gateway());
        gateways.fold([0; 2], |[full, short], gateway| {
            let [its_full, its_short] = gateway.metrics().tls_handshakes;
            [full + its_full, short + its_short]
        })
    }

    fn announced(&self) -> u64 {
        let routers = self
            .nodes
            .values()
            .flat_map(|node| node.shards())
            .filter_map(|shard| shard.core.cores().router());
        routers.map(|router| router.metrics().announced).sum()
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.schedule.push(at.max(self.now), event);
    }

    pub(crate) fn after(&mut self, ns: u64, event: Event) {
        self.schedule(self.now + ns, event);
    }

    /// Keeps the first thing that went wrong.
    pub(crate) fn check(&mut self, found: Result<(), String>) {
        if let Err(what) = found
            && self.failure.is_none()
        {
            self.trace.line(self.now, || format!("FAILURE {what}"));
            self.failure = Some(what);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn { shard, life } => self.turn(shard, life),
            Event::Mail { from, to, life, mail } => self.sibling_mail(from, to, life, *mail),
            Event::Syn { tcp } => self.syn(tcp),
            Event::SynAck { tcp } => self.syn_ack(tcp),
            Event::Refused { tcp } => self.connect_failed(tcp, shard::ConnectError::Refused),
            Event::ConnectLate { tcp } => self.connect_failed(tcp, shard::ConnectError::TimedOut),
            Event::Arrive { tcp, to, epoch, packet } => self.arrive(tcp, to, epoch, packet),
            Event::Credit { tcp, to, bytes } => self.credit(tcp, to, bytes),
            Event::Reset { tcp, to } => self.reset(tcp, to),
            Event::Linger { tcp, side } => self.linger(tcp, side),
            Event::Client { client } => self.client_tick(client),
            Event::ClientGoes { client, tcp } => self.client_goes(client, tcp),
            Event::Fault { index } => self.fault(index),
            Event::Thaw { host, until } => self.thaw(host, until),
            Event::Heal { from, to } => self.heal(from, to),
            Event::Start { host, at } => self.start(host, at),
            Event::DrainLate { host, life } => self.drain_late(host, life),
            Event::Look { shard, life, app, user } => self.look(shard, life, app, user),
            Event::Record { record } => self.record(*record),
            Event::Stream { shard, life, record } => self.stream(shard, life, *record),
            Event::Take { bridge, life, of, handed } => self.take_event(bridge, life, of, handed),
            Event::Quiet => self.quieten(),
            Event::Rest => self.rest(),
        }
    }

    /// Ends the run when nobody has waited for anything for a while, in which what is left behind would
    /// happen.
    fn rest(&mut self) {
        let is_at_rest = self.judge_clients().and_then(|()| self.judge_cores()).is_ok();
        self.looks_at_rest = if is_at_rest { self.looks_at_rest + 1 } else { 0 };
        self.whole_at = self.whole_at.or(Some(self.now)).filter(|_| is_at_rest);
        if self.looks_at_rest > REST_LOOKS {
            self.end = self.now;
        }
        self.after(REST_LOOK_NS, Event::Rest);
    }

    // -- the directory: a map that lags

    pub(crate) fn directory_note(&mut self, shard: ShardId, life: u32, record: wire::node::ToDirectory) {
        let Some(lag_ms) = self.plan.directory_ms else { return };
        let at = self.now + self.prng.below(lag_ms * 1_000_000);
        match record {
            wire::node::ToDirectory::LookUp { app, user } => {
                self.schedule(at, Event::Look { shard, life, app, user });
            }
            record @ (wire::node::ToDirectory::Keep { .. } | wire::node::ToDirectory::Read { .. }) => {
                // In the order in which the shard said them.
                let earliest = self.streams_until.get(&shard).copied().unwrap_or(0);
                let at = at.max(earliest + 1);
                self.streams_until.insert(shard, at);
                self.schedule(at, Event::Stream { shard, life, record: Box::new(record) });
            }
            record => self.schedule(at, Event::Record { record: Box::new(record) }),
        }
    }

    fn record(&mut self, record: wire::node::ToDirectory) {
        match record {
            wire::node::ToDirectory::Bind { app, user, seat } => {
                let seats = self.directory.entry((app.0, user.0)).or_default();
                let newer = |known: &FoundSeat| {
                    known.seat.device == seat.seat.device && known.seat.login > seat.seat.login
                };
                if !seats.iter().any(newer) {
                    seats.retain(|known| known.seat.device != seat.seat.device);
                    seats.push(seat);
                }
            }
            wire::node::ToDirectory::Unbind { app, user, device, login } => {
                let seats = self.directory.entry((app.0, user.0)).or_default();
                seats.retain(|known| known.seat.device != device || known.seat.login > login);
            }
            _ => {}
        }
    }

    /// A record about the stream of a room. What a process had not written yet is lost with it.
    fn stream(&mut self, shard: ShardId, life: u32, record: wire::node::ToDirectory) {
        let is_up = |node: &NodeHost| node.life == life && node.power == crate::host::Power::Up;
        if !self.nodes.get(&shard.node()).is_some_and(is_up) {
            return;
        }
        self.trace.line(self.now, || format!("{shard:?} has {record:?} for the directory"));
        match record {
            wire::node::ToDirectory::Keep { app, room, entry } => {
                let entries = self.streams.entry((app.0, room.0)).or_default();
                if entries.last().is_none_or(|last| stream_order(last) < stream_order(&entry)) {
                    entries.push(*entry);
                } else if entry.goes_on() {
                    let refused = entry.sequence();
                    let mail = Mail::Control(node::Control::StreamIsAhead { app, room, refused });
                    self.sibling_mail(ShardId::CONTROL, shard, life, mail);
                }
            }
            wire::node::ToDirectory::Read { app, room } => {
                let entries = self.streams.get(&(app.0, room.0)).cloned().unwrap_or_default();
                let stream = Box::new(wire::node::Stream { app, room, entries });
                self.sibling_mail(
                    ShardId::CONTROL,
                    shard,
                    life,
                    Mail::Control(node::Control::Stream(stream)),
                );
            }
            _ => {}
        }
    }

    fn look(&mut self, shard: ShardId, life: u32, app: wire::AppId, user: wire::UserId) {
        let seats = self.directory.get(&(app.0, user.0)).cloned().unwrap_or_default();
        if !seats.is_empty() {
            let mail = Mail::Control(node::Control::Found { app, user, seats });
            self.sibling_mail(ShardId::CONTROL, shard, life, mail);
        }
    }
}

/// What stands first in a stream, as the ids do that the directory gives.
fn stream_order(entry: &wire::node::Entry) -> (u64, u64) {
    (entry.sequence(), entry.rank())
}
