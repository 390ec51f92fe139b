//! Nodes as processes: shards with mailboxes and connections, run in turns as the engines run them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gateway::{Destination, Route, TokenKeys};
use link::TlsMode;
use node::{Bridge, Cores, HandoverLimits, Mail, Node};
use shard::{Clocks, ConnId, ConnectError, Instant, Prng, ShardId};
use wire::BizCode;
use wire::node::Class;
use wire::node::link::{Identity, Role};

use crate::layers::{PROXIES, ports};
use crate::network::{Host, Side, TcpId};
use crate::notes::Notes;
use crate::plan::Plan;

/// What nodes know and nobody else, and what login tokens are signed with.
pub(crate) const SECRET: &[u8] = b"a secret of the simulated cluster";
/// Time zero of every run.
pub(crate) const EPOCH_NS: u64 = 1_800_000_000_000_000_000;
/// How long a silent peer is waited for.
pub(crate) const LEASE_MS: u32 = 1_200;
/// How long an ack is waited for at first; each time twice as long.
pub(crate) const ACK_MS: u64 = 400;
/// How often a message is written.
pub(crate) const TRIES: u32 = 2;
/// All tries of a message.
pub(crate) const FLIGHT_MS: u64 = ACK_MS * ((1 << TRIES) - 1);
/// Messages in flight to a client.
pub(crate) const WINDOW: usize = 8;

/// What a shard finds when its turn comes.
pub(crate) enum Input {
    Accepted { tcp: TcpId },
    Connected { tcp: TcpId },
    ConnectFailed { token: u64, error: ConnectError },
    Bytes { tcp: TcpId, side: Side, bytes: Vec<u8> },
    Fin { tcp: TcpId, side: Side },
    Reset { tcp: TcpId, side: Side },
    Sent { tcp: TcpId, side: Side, bytes: usize },
    Expired { tcp: TcpId, side: Side },
    Mail { from: ShardId, mail: Mail },
    Clocks(Clocks),
}

/// What became of an effect, told within the turn.
pub(crate) enum Outcome {
    Sent { conn: ConnId, bytes: usize },
    Closed { conn: ConnId, reason: shard::CloseReason },
}

/// A shard of a process.
pub(crate) struct ShardHost {
    pub(crate) id: ShardId,
    pub(crate) core: Node<Notes>,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) outcomes: VecDeque<Outcome>,
    /// What accepted connections sent while the core was pushed back.
    pub(crate) unread: VecDeque<Input>,
    pub(crate) is_pushed_back: bool,
    /// Whether turns leave some of the inbox, as the core was told.
    pub(crate) input_waits: bool,
    /// Each with its generation.
    pub(crate) conns: Vec<(u32, Option<(TcpId, Side)>)>,
    /// When its next turn is.
    pub(crate) wake: Option<u64>,
    /// Until when it is at work.
    pub(crate) busy_until: u64,
    /// When mail to each sibling arrives at the earliest, so that it keeps its order.
    pub(crate) mail_until: BTreeMap<ShardId, u64>,
    pub(crate) accepting: bool,
    pub(crate) drained: bool,
    pub(crate) stopped: bool,
    pub(crate) turns: u64,
}

impl ShardHost {
    pub(crate) fn name(&mut self, tcp: TcpId, side: Side) -> ConnId {
        let free = self.conns.iter().position(|(_, conn)| conn.is_none());
        let index = free.unwrap_or_else(|| {
            self.conns.push((0, None));
            self.conns.len() - 1
        });
        let (generation, conn) = &mut self.conns[index];
        *generation += 1;
        *conn = Some((tcp, side));
        ConnId { index: index as u32, generation: *generation }
    }

    pub(crate) fn find(&self, conn: ConnId) -> Option<(TcpId, Side)> {
        let (generation, found) = self.conns.get(conn.index as usize)?;
        found.filter(|_| *generation == conn.generation)
    }

    pub(crate) fn forget(&mut self, conn: ConnId) {
        if self.find(conn).is_some() {
            self.conns[conn.index as usize].1 = None;
        }
    }
}

/// Whether a node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    Up,
    /// The process is gone: its machine refuses connections.
    Down,
    /// The machine is gone: nobody answers.
    Off,
}

/// A node.
pub(crate) struct NodeHost {
    pub(crate) host: Host,
    pub(crate) role: Role,
    pub(crate) offset_ns: i64,
    pub(crate) power: Power,
    /// From when and until when it stands still.
    pub(crate) frozen: Option<(u64, u64)>,
    /// How long its process stood still, as far as that does not count for its shards.
    pub(crate) still_ns: u64,
    /// Counts the starts of the process.
    pub(crate) life: u32,
    pub(crate) shards: Vec<Option<Box<ShardHost>>>,
    pub(crate) draining: bool,
    /// Until when its work takes longer, and how many times.
    pub(crate) slow: Option<(u64, u32)>,
    /// When it starts again.
    pub(crate) back_at: Option<u64>,
}

impl NodeHost {
    pub(crate) fn new(host: Host, role: Role, offset_ns: i64) -> Self {
        let (power, shards) = (Power::Down, Vec::new());
        Self {
            host,
            role,
            offset_ns,
            power,
            frozen: None,
            still_ns: 0,
            life: 0,
            shards,
            draining: false,
            slow: None,
            back_at: None,
        }
    }

    /// How many times as long as else its work takes.
    pub(crate) fn slowness(&self, now: u64) -> u64 {
        self.slow.filter(|(until, _)| now < *until).map_or(1, |(_, times)| times.into())
    }

    /// What its shards are told: what its clock showed at the start, and the time in which it ran since.
    pub(crate) fn clock(&self, at_ns: u64) -> Instant {
        Instant::from_unix_nanos((EPOCH_NS + at_ns).strict_add_signed(self.offset_ns) - self.still_ns)
    }

    /// The moment at which they are told this, 0 at the earliest.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        (instant.unix_nanos() + self.still_ns).strict_add_signed(-self.offset_ns).saturating_sub(EPOCH_NS)
    }

    pub(crate) fn shard(&mut self, index: u16) -> Option<&mut ShardHost> {
        self.shards.get_mut(usize::from(index))?.as_deref_mut()
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &ShardHost> {
        self.shards.iter().flatten().map(|shard| &**shard)
    }

    /// Starts a process with that many shards.
    pub(crate) fn start(&mut self, at_ns: u64, plan: &Plan, prng: &mut Prng) {
        (self.power, self.draining, self.frozen, self.back_at) = (Power::Up, false, None, None);
        self.still_ns = 0;
        let now = self.clock(at_ns);
        self.life += 1;
        let incarnation = now.unix_nanos();
        let shards = plan.shards;
        let ports = if self.role == Role::Gateway { ports(incarnation / 1_000_000_000) } else { Vec::new() };
        self.shards = (0..shards)
            .map(|index| {
                let id = ShardId::new(self.host, index);
                let identity = Identity { shard: id.as_u32(), shards, role: self.role, incarnation };
                Some(Box::new(ShardHost {
                    id,
                    core: core(now, identity, &ports, plan, prng),
                    inbox: VecDeque::new(),
                    outcomes: VecDeque::new(),
                    unread: VecDeque::new(),
                    is_pushed_back: false,
                    input_waits: false,
                    conns: Vec::new(),
                    wake: None,
                    busy_until: 0,
                    mail_until: BTreeMap::new(),
                    accepting: true,
                    drained: false,
                    stopped: false,
                    turns: 0,
                }))
            })
            .collect();
    }
}

/// Composed as the binary composes it.
fn core(
    now: Instant,
    identity: Identity,
    ports: &[gateway::Port],
    plan: &Plan,
    prng: &mut Prng,
) -> Node<Notes> {
    let id = ShardId::from_u32(identity.shard);
    let gateway = |prng: &mut Prng| {
        let (keys, config) = (TokenKeys::hs256(SECRET), gateway_config());
        let (ports, seed) = (ports.to_vec(), prng.next_u64());
        gateway::Gateway::new(now, gateway::Setup { id, keys, config, ports, seed })
    };
    let router = |prng: &mut Prng| {
        let limits = router_limits();
        let (seed, keeps) = (prng.next_u64(), router::Keeps::default());
        let mut router = router::Router::new(router::Config { id, seed, limits, keeps });
        if plan.directory_ms.is_some() {
            router.write_streams();
        }
        router
    };
    let links = |prng: &mut Prng| {
        let (secret, seed, config) = (SECRET.to_vec(), prng.next_u64(), link_config());
        let tls = if plan.encrypted_links { TlsMode::Required } else { TlsMode::Off };
        link::Links::new(now, link::Setup { identity, secret, tls, seed, config })
    };
    let cores = match identity.role {
        Role::Gateway => Cores::Gateway { gateway: gateway(prng), links: links(prng) },
        Role::Router => Cores::Router { router: router(prng), links: links(prng) },
        Role::Bridge => Cores::Bridge { gateway: gateway(prng), links: links(prng) },
    };
    let patience = Duration::from_millis(u64::from(LEASE_MS) / 2);
    let Identity { shards, incarnation, role, .. } = identity;
    let bridge = match role {
        Role::Bridge => Bridge::Inside,
        Role::Gateway | Role::Router if plan.bridges > 0 => Bridge::Linked,
        Role::Gateway | Role::Router => Bridge::None,
    };
    let (outside, handover) = (Notes::default(), HANDOVER);
    Node::new(now, node::Setup { id, shards, incarnation, bridge, handover, cores, outside, patience })
}

/// A window that is met.
const HANDOVER: HandoverLimits = HandoverLimits {
    queue_messages_max: 10_000,
    queue_bytes_max: 16 << 20,
    user_messages_max: 5_000,
    user_bytes_max: 8 << 20,
    window_bytes: 4 << 10,
};

/// The longest body of a frame.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 10;
/// What counts of a time in which a process stood still: no look at the clock comes sooner.
pub(crate) const LATE_NS: u64 = 100_000_000;
/// A business code for reliable messages of clients to rooms; the defaults have none.
pub(crate) const RELIABLE_ROOM_CODE: i32 = 7001;

pub(crate) fn link_config() -> link::Config {
    let config = link::Config {
        lease_ms: LEASE_MS,
        ping_ms: 100,
        interval_us: 500,
        window_bytes: 64 << 10,
        queue_bytes_max: 256 << 10,
    };
    config.validate().expect("the simulation's bounds are within bounds");
    config
}

pub(crate) fn router_limits() -> router::Limits {
    router::Limits {
        pending_max: 4_096,
        pending_timeout_ms: 6_000,
        bridge_timeout_ms: 3_000,
        settle_ms: LEASE_MS * 5 / 3,
        away_ms: 3 * LEASE_MS,
        ..router::Limits::default()
    }
}

pub(crate) fn gateway_config() -> gateway::Config {
    let heartbeat = gateway::Heartbeat { period_ms: 1_000, grace_ms: 1_000 };
    let drain = gateway::Drain { spread_ms: 500, deadline_ms: 2_000, ..gateway::Drain::default() };
    let mut config = gateway::Config { heartbeat, drain, ..gateway::Config::default() };
    config.delivery.ack_timeout_ms = ACK_MS as u32;
    config.delivery.tries = TRIES as u8;
    config.delivery.window = WINDOW as u16;
    config.limits.login_deadline_ms = 4_000;
    config.limits.submitted_max = 4_096;
    config.limits.frame_bytes_max = FRAME_BYTES_MAX as u32;
    let (biz_code, to, class) = (BizCode(RELIABLE_ROOM_CODE), Destination::Room, Class::Reliable);
    let routes = config.routes.iter().copied().chain([Route::new(biz_code, to, class)]);
    config.routes = routes.collect::<Vec<_>>().into();
    config.edge.proxy_from = vec![PROXIES.parse().expect("it is a network")];
    config.validate().expect("the simulation's bounds are within bounds");
    config
}

/// Where shard `index` of a node takes links.
pub(crate) fn address(host: Host, index: u16) -> SocketAddr {
    let [high, low] = host.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), 7_000 + index)
}

/// The node and the shard of an address.
pub(crate) fn host_of(address: SocketAddr) -> (Host, u16) {
    let IpAddr::V4(ip) = address.ip() else { panic!("the simulation gave out addresses of IPv4 only") };
    let [_, _, high, low] = ip.octets();
    (Host::from_be_bytes([high, low]), address.port() - 7_000)
}
