//! `sailfish up`, `gateway`, `router` and `bridge`: one node, in the role that the subcommand says.

mod clients;
mod ready;
mod run;
mod watch;

pub use ready::reachable;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use engine::{Chosen, Kind, Options, Running};
use gateway::{Gateway, Port, TlsServer};
use link::Links;
use node::{Bridge, Cores, HandoverLimits, Mail, Node, Report, Setup};
use router::Router;
use shard::{Instant, ShardId};
use wire::node::link::{Identity, Role as LinkRole};

use crate::backend::Service;
use crate::bridge::{Bridging, Door};
use crate::cli::{ConfigArgs, array};
use crate::config::{self, BridgeMode, Config, ConfigError, Layers};
use crate::control::Shards;
use crate::database_lock::DatabaseLock;
use crate::directory::{Directory, News, NodeInfo, Reader, Writer};
use crate::files::{Capacity, Files, REFUSALS_PER_SHARD, Reserved};
use crate::keys::Keys;
use crate::log;
use crate::outside::Surroundings;
use crate::ports::{Database, Wanted, check, listen_error};
use crate::role::Role;
use crate::secret::{self, Secret};
use crate::signals::Signals;

/// More threads than this are no use on any machine.
const UP_SHARDS_MAX: u16 = 1024;
/// Receive buffers of a router: it has few links, each with many bytes.
const ROUTER_RECV_BUFFERS: u16 = 256;
const ROUTER_RECV_BUFFER_BYTES: u32 = 16 * 1024;

/// Flags of every role.
#[derive(clap::Args)]
pub struct NodeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where metrics, health and the control API are served: ADDRESS:PORT [default: 127.0.0.1:5347].
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<String>,
    /// Threads that hold connections [default: one for each CPU core].
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// uring, monoio, epoll, glommio or auto [default: auto].
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Prints every key with its present value and its meaning, and ends.
    #[arg(long)]
    print_config: bool,
}

/// Runs the whole system on this machine, with defaults for everything.
#[derive(clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Where clients connect: ADDRESS:PORT [default: 127.0.0.1:5346].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where clients connect by WebSocket: ADDRESS:PORT, or off [default: 127.0.0.1:5349, unless --listen is
    /// another address than its default].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_ws: Option<String>,
    /// Where clients connect by TLS: ADDRESS:PORT [default: none].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_tls: Option<String>,
    /// Where clients connect by WebSocket over TLS: ADDRESS:PORT [default: none].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_wss: Option<String>,
}

/// Runs a gateway of a cluster: it holds clients.
#[derive(clap::Args)]
pub struct GatewayArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Where clients connect: ADDRESS:PORT [default: 127.0.0.1:5346].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where clients connect by WebSocket: ADDRESS:PORT [default: none].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_ws: Option<String>,
    /// Where clients connect by TLS: ADDRESS:PORT [default: none].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_tls: Option<String>,
    /// Where clients connect by WebSocket over TLS: ADDRESS:PORT [default: none].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_wss: Option<String>,
    /// The number of this node, 1 to 1023, different for every node [default: 2].
    #[arg(long, value_name = "N")]
    id: Option<String>,
    /// Where routers listen for links; several with commas [default: 127.0.0.1:5350].
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    routers: Vec<String>,
    /// Where bridges listen for links; several with commas [default: there is no bridge].
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    bridges: Vec<String>,
}

/// Runs a router of a cluster: it owns users and rooms.
#[derive(clap::Args)]
pub struct RouterArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Where to listen for links: ADDRESS:PORT; shard i uses the port i higher [default: 127.0.0.1:5350].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The number of this node, 1 to 1023, different for every node [default: 1].
    #[arg(long, value_name = "N")]
    id: Option<String>,
}

/// Runs a bridge of a cluster: it sends events to a backend, and the backend's pushes to clients.
#[derive(clap::Args)]
pub struct BridgeArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Where to listen for links: ADDRESS:PORT; shard i uses the port i higher [default: 127.0.0.1:5400].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The number of this node, 1 to 1023, different for every node [default: 3].
    #[arg(long, value_name = "N")]
    id: Option<String>,
    /// Where routers listen for links; several with commas [default: 127.0.0.1:5350].
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    routers: Vec<String>,
}

impl NodeArgs {
    fn layers(&self, more: &[(&str, &str, &Option<String>)]) -> Result<Layers, ConfigError> {
        let own = [
            ("--admin", "node.admin", &self.admin),
            ("--shards", "node.shards", &self.shards),
            ("--engine", "node.engine", &self.engine),
        ];
        self.config.layers_with(own.iter().chain(more).copied())
    }
}

/// Runs `sailfish up`.
pub fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    run(Role::Up, &args.node, || {
        args.node.layers(&[
            ("--listen", "node.listen", &args.listen),
            ("--listen-ws", "node.listen_ws", &args.listen_ws),
            ("--listen-tls", "node.listen_tls", &args.listen_tls),
            ("--listen-wss", "node.listen_wss", &args.listen_wss),
        ])
    })
}

/// Runs `sailfish gateway`.
pub fn gateway(args: &GatewayArgs) -> anyhow::Result<ExitCode> {
    let (routers, bridges) = (array(&args.routers), array(&args.bridges));
    run(Role::Gateway, &args.node, || {
        args.node.layers(&[
            ("--listen", "node.listen", &args.listen),
            ("--listen-ws", "node.listen_ws", &args.listen_ws),
            ("--listen-tls", "node.listen_tls", &args.listen_tls),
            ("--listen-wss", "node.listen_wss", &args.listen_wss),
            ("--id", "cluster.node", &args.id),
            ("--routers", "cluster.routers", &routers),
            ("--bridges", "cluster.bridges", &bridges),
        ])
    })
}

/// Runs `sailfish router`.
pub fn router(args: &RouterArgs) -> anyhow::Result<ExitCode> {
    run(Role::Router, &args.node, || {
        args.node.layers(&[("--listen", "cluster.listen", &args.listen), ("--id", "cluster.node", &args.id)])
    })
}

/// Runs `sailfish bridge`.
pub fn bridge(args: &BridgeArgs) -> anyhow::Result<ExitCode> {
    let routers = array(&args.routers);
    run(Role::Bridge, &args.node, || {
        args.node.layers(&[
            ("--listen", "cluster.listen", &args.listen),
            ("--id", "cluster.node", &args.id),
            ("--routers", "cluster.routers", &routers),
        ])
    })
}

/// Runs a node until it is told to end.
fn run(
    role: Role,
    args: &NodeArgs,
    layers_of: impl Fn() -> Result<Layers, ConfigError>,
) -> anyhow::Result<ExitCode> {
    let started = std::time::Instant::now();
    let layers = layers_of()?;
    let config = layers.config()?;
    if args.print_config {
        crate::cli::print(&config::print(&config));
        return Ok(ExitCode::SUCCESS);
    }
    log::init(&config);
    if role == Role::Bridge && !config.bridge.is_on() {
        return Err(ConfigError("bridge.mode: a bridge has a backend; want http or redis".into()).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = Signals::take(&runtime)?;
    let (secret, keys) = Keys::of(role.whose_keys(), &config)?;
    let tls = clients::tls(role, &config)?;
    let count = shards(role, &config)?;
    let chosen = engine::choose(config.node.engine.parse().ok())?; // `auto` is no kind
    let own = has_own_backend(role, &config).then(|| crate::backend::own_config(&config)).transpose()?;
    let database = own.as_ref().map(|own| Database { url: &own.database, chosen_by: "backend.database" });
    let lock = check(&wanted(role, &config, count), database)?;
    let admin = admin_listener(config.node.admin)?;
    let admin_address = admin.local_addr()?;
    let serving = signals.unless_ended(&runtime, {
        let config = config.clone();
        move || start(role, (chosen, count), &config, (keys, tls), admin_address, lock)
    })?;
    let addresses = serving.running.addresses();
    let address = *addresses.first().context("an engine that listens knows where")?;
    let beside = clients::ports(role, &config).into_iter().zip(addresses.iter().skip(1));
    let summary = ready::Summary {
        role,
        node: role.node(&config),
        address,
        beside: beside.map(|(port, address)| port.at(*address)).collect(),
        admin: admin_address,
        routers: if is_discovering(&config) { Vec::new() } else { routers_of(&config) },
        chosen: serving.chosen.clone(),
        shards: serving.shards.ids().len(),
        backend: serving.backend.as_ref().map(Service::address),
        files: serving.files,
        capacity: serving.capacity,
        connections_max_configured: config.limits.connections_max,
        started,
    };
    let hint = secret.as_ref().map(|secret| ready::Hint::new(&args.config, &layers, secret, address));
    let announce = || {
        summary.log();
        let hint = hint.as_ref().map_or_else(|| ready::END.to_owned(), ToString::to_string);
        let _ = crate::cli::write(&format!("{summary}{hint}")); // a node needs no stdout
    };
    run::until_stopped(runtime, signals, serving, admin, config, announce, || layers_of()?.config())
}

/// How many shards a node has.
fn shards(role: Role, config: &Config) -> Result<u16, ConfigError> {
    let most = if role == Role::Up { UP_SHARDS_MAX } else { wire::node::link::SHARDS_MAX };
    let count = match config.node.shards {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(most.into()) as u16),
        count => count,
    };
    if count > most {
        let role = role.name();
        return Err(ConfigError(format!(
            "a {role} has up to {most} --shards, not {count}; start more nodes"
        )));
    }
    Ok(count)
}

/// Whether the node has a backend of its own.
fn has_own_backend(role: Role, config: &Config) -> bool {
    role == Role::Up && config.bridge.mode == BridgeMode::Auto
}

/// Where a node listens.
fn wanted(role: Role, config: &Config, shards: u16) -> Vec<Wanted> {
    let listen = role.listen(config);
    // The engine looks for a free row of ports by itself.
    let count = if role.takes_links() && listen.port() != 0 { shards } else { 1 };
    let mut wanted = vec![
        Wanted { address: listen, count, chosen_by: "--listen" },
        Wanted::one(config.node.admin, "--admin"),
    ];
    wanted.extend(clients::ports(role, config).iter().map(|port| Wanted::one(port.address, port.chosen_by)));
    if has_own_backend(role, config) {
        wanted.push(Wanted::one(config.backend.listen, "backend.listen"));
    }
    wanted
}

/// A node at work.
struct Serving {
    running: Running<Mail, Report>,
    shards: Arc<Shards>,
    chosen: Chosen,
    files: Files,
    /// Limits for callers of the admin port.
    http: http_server::Limits,
    /// The capacity of one shard: what is configured, or what the open files allow.
    capacity: Capacity,
    directory: Option<Directory>,
    /// Reads rooms' streams in the directory, if they are written.
    streams: Option<Arc<Reader>>,
    bridge: Option<Bridging>,
    /// The backend of `up`.
    backend: Option<Service>,
    /// The certificates of ports with TLS, if there are any.
    tls: Option<TlsServer>,
    keys: Arc<Keys>,
}

fn start(
    role: Role,
    (chosen, count): (Chosen, u16),
    config: &Config,
    (keys, tls): (Arc<Keys>, Option<TlsServer>),
    admin: SocketAddr,
    lock: Option<DatabaseLock>,
) -> anyhow::Result<Serving> {
    let has_own_backend = has_own_backend(role, config);
    let has_bridge = has_own_backend || matches!(role, Role::Up | Role::Bridge) && config.bridge.is_on();
    let files = Files::raise();
    let http = files.http(&config.http);
    let mut reserved = Reserved::default().with_http(&http);
    if has_own_backend {
        reserved = reserved.with_http(&http).with_backend(&config.backend);
    }
    if has_bridge {
        reserved = reserved.with_bridge(config);
    }
    // Links of other nodes are few, and stay open files.
    let may_have_rings = chosen.kind == Kind::Uring && !role.takes_links();
    let capacity = files.capacity(may_have_rings, count, config.limits.connections_max, reserved)?;
    let options = engine_options(role, config, capacity);
    let backend = has_own_backend
        .then(|| Service::within(config, (http.clone(), tls.clone()), admin, lock))
        .transpose()?;
    let bridge = match &backend {
        Some(backend) => Some(backend.bridge(&config.bridge)),
        None => has_bridge.then(|| config.bridge.clone()),
    };
    let bridge =
        bridge.map(|bridge| Bridging::start(&bridge, &config.trace, role.node(config))).transpose()?;
    let builder = Builder {
        role,
        node: role.node(config),
        count,
        config: config.clone(),
        keys: keys.now(),
        tls: tls.clone(),
        cluster: role.of_link().map(|role| Cluster::of(role, config)).transpose()?,
        gateway: bounded(config.gateway(), capacity.connections_max),
        incarnation: options.clock.now().unix_nanos(),
        door: bridge.as_ref().map(Bridging::door),
        directory: Arc::default(),
    };
    let ids: Vec<ShardId> = (0..count).map(|index| ShardId::new(builder.node, index)).collect();
    let clock = options.clock;
    let listen = options.listen.first().copied();
    let build = |id: ShardId| {
        let builder = builder.clone();
        (id, move |id| builder.shard(clock.now(), id))
    };
    let built = ids.iter().copied().map(build).collect();
    let running = engine::start(chosen.kind, options, built).map_err(|error| {
        let error = listen_error(error, listen.unwrap_or(role.listen(config)), "--listen");
        match role {
            Role::Router | Role::Bridge if count > 1 => {
                error.context(format!("one of {count} ports in a row, a port for each shard"))
            }
            Role::Up | Role::Gateway | Role::Router | Role::Bridge => error,
        }
    })?;
    let shards = Shards::new(role, ids, &running, config.limits.frame_bytes_max);
    if let Some(bridge) = &bridge {
        bridge.set_shards(running.remote(), shards.clone());
    }
    if matches!(role, Role::Gateway | Role::Bridge) && !is_discovering(config) {
        shards.set_nodes(&routers_of(config), bridges_of(role, config));
    }
    let address = *running.addresses().first().context("an engine that listens knows where")?;
    let streams = config.has_streams().then(Arc::<Reader>::default);
    let directory = builder.directory(&shards, address, admin, streams.clone())?;
    Ok(Serving {
        running,
        shards,
        chosen,
        files,
        http,
        capacity,
        directory,
        streams,
        bridge,
        backend,
        tls,
        keys,
    })
}

/// The routers of a static list; without one, the default address of `sailfish router`.
fn routers_of(config: &Config) -> Vec<SocketAddr> {
    match config.cluster.routers.as_slice() {
        [] => vec![config::LINKS_DEFAULT.parse().expect("a socket address")],
        routers => routers.to_vec(),
    }
}

/// The bridges that a node opens links to.
fn bridges_of(role: Role, config: &Config) -> &[SocketAddr] {
    if role == Role::Gateway { &config.cluster.bridges } else { &[] }
}

/// Whether routers are found in the directory.
fn is_discovering(config: &Config) -> bool {
    config.cluster.routers.is_empty() && !config.directory.redis.is_empty()
}

/// The cluster that a node is part of.
#[derive(Clone)]
struct Cluster {
    /// Its role in it.
    role: LinkRole,
    /// The secret of all its nodes.
    secret: Secret,
}

impl Cluster {
    fn of(role: LinkRole, config: &Config) -> anyhow::Result<Self> {
        Ok(Self { role, secret: Secret::of_cluster(&config.cluster)? })
    }
}

/// Makes the shards of a node, each on its own thread.
#[derive(Clone)]
struct Builder {
    role: Role,
    node: u16,
    count: u16,
    config: Config,
    /// No keys on nodes without clients.
    keys: gateway::TokenKeys,
    /// Set if it has a port with TLS.
    tls: Option<TlsServer>,
    cluster: Option<Cluster>,
    gateway: gateway::Config,
    /// When the process started, in ns since the UNIX epoch.
    incarnation: u64,
    /// Access to the bridge, if this process has one.
    door: Option<Door>,
    /// Set when the directory has started.
    directory: Arc<OnceLock<Writer>>,
}

impl Builder {
    fn shard(self, now: Instant, id: ShardId) -> Node<Surroundings> {
        let patience_ms = match is_discovering(&self.config) {
            true => self.config.directory.lease_ms,
            false => self.config.link.lease_ms / 2,
        };
        let patience = Duration::from_millis(patience_ms.into());
        let random = || u64::from_ne_bytes(secret::random());
        let gateway = || {
            let (keys, config) = (self.keys.clone(), self.gateway.clone());
            let beside = clients::ports(self.role, &self.config).into_iter();
            let beside = beside.map(|port| port.layers(self.tls.as_ref()));
            let ports = std::iter::once(Port::default()).chain(beside).collect();
            Gateway::new(now, gateway::Setup { id, keys, config, ports, seed: random() })
        };
        let router = || {
            let limits = self.config.router.clone();
            let keeps = self.config.keeps();
            let mut router = Router::new(router::Config { id, seed: random(), limits, keeps });
            if self.config.has_streams() {
                router.write_streams();
            }
            router
        };
        let links = |cluster: &Cluster| {
            let (role, shards, incarnation) = (cluster.role, self.count, self.incarnation);
            let identity = Identity { shard: id.as_u32(), shards, role, incarnation };
            let (secret, config) = (cluster.secret.bytes.clone(), self.config.link.clone());
            let tls = self.config.cluster.tls;
            Links::new(now, link::Setup { identity, secret, tls, seed: random(), config })
        };
        let cores = match self.cluster.as_ref().map(|cluster| (cluster.role, links(cluster))) {
            None => Cores::Alone { gateway: gateway(), router: router() },
            Some((LinkRole::Gateway, links)) => Cores::Gateway { gateway: gateway(), links },
            Some((LinkRole::Router, links)) => Cores::Router { router: router(), links },
            Some((LinkRole::Bridge, links)) => Cores::Bridge { gateway: gateway(), links },
        };
        let bridge = match self.role {
            Role::Up | Role::Bridge if self.door.is_some() => Bridge::Inside,
            Role::Gateway | Role::Router if !self.config.cluster.bridges.is_empty() => Bridge::Linked,
            Role::Up | Role::Bridge | Role::Gateway | Role::Router => Bridge::None,
        };
        let outside = Surroundings::new(id, self.door, self.directory);
        let (shards, incarnation, handover) = (self.count, self.incarnation, handover(&self.config));
        Node::new(now, Setup { id, shards, incarnation, bridge, handover, cores, outside, patience })
    }
}

impl Builder {
    /// Starts the directory, if one is configured.
    fn directory(
        &self,
        shards: &Arc<Shards>,
        address: SocketAddr,
        admin: SocketAddr,
        streams: Option<Arc<Reader>>,
    ) -> anyhow::Result<Option<Directory>> {
        if self.config.directory.redis.is_empty() {
            return Ok(None);
        }
        let is_router = self.role == Role::Router;
        let links: SocketAddr = self.config.cluster.advertise.parse().unwrap_or(address);
        anyhow::ensure!(
            !is_router || !links.ip().is_unspecified(),
            "cluster.advertise: a router that listens on {links} says in the directory where gateways reach it; want its address"
        );
        let node = NodeInfo {
            id: self.node,
            incarnation: self.incarnation,
            role: self.role,
            shards: self.count,
            links: is_router.then_some(links),
            clients: (!self.role.takes_links()).then_some(address),
            admin,
        };
        let follows = matches!(self.role, Role::Gateway | Role::Bridge) && is_discovering(&self.config);
        let (shards, bridges) = (shards.clone(), bridges_of(self.role, &self.config).to_vec());
        let reader = streams.clone();
        let news = move |news| match news {
            News::Found { to, app, user, bindings } => shards.found(to, app, user, &bindings),
            News::Stream { to: ShardId::CONTROL, stream } => {
                if let Some(reader) = &reader {
                    reader.answer(stream);
                }
            }
            News::Stream { to, stream } => shards.stream(to, stream),
            News::StreamIsAhead { to, app, room, refused } => {
                shards.stream_is_ahead(to, app, room, refused);
            }
            News::Routers(routers) if follows => {
                let routers: Vec<SocketAddr> = routers.iter().map(|router| router.links).collect();
                shards.set_nodes(&routers, &bridges);
            }
            News::Routers(_) => {}
            News::Resync => shards.resync(),
        };
        let directory = Directory::start(&self.config.directory, self.config.stream_bounds(), node, news)?;
        self.directory.set(directory.writer()).ok().expect("it is set here only");
        if let Some(streams) = streams {
            // A connect and the batch.
            let patience = 2 * Duration::from_millis(self.config.directory.timeout_ms.into());
            streams.start(directory.writer(), patience);
        }
        Ok(Some(directory))
    }
}

/// Limits of the events that a shard keeps for a bridge. The events under way stay well below a full queue of
/// a link's peer.
fn handover(config: &Config) -> HandoverLimits {
    HandoverLimits {
        queue_messages_max: config.bridge.queue_messages_max,
        queue_bytes_max: config.bridge.queue_bytes_max.into(),
        user_messages_max: config.bridge.queue_user_messages_max,
        user_bytes_max: config.bridge.queue_user_bytes_max.into(),
        window_bytes: node::WINDOW_BYTES_MAX.min(u64::from(config.link.queue_bytes_max) / 2),
    }
}

/// The gateway's part of a configuration, with no more connections than the open files allow. One address
/// gets half of these at most, unless the configuration gives it all.
fn bounded(mut gateway: gateway::Config, connections_max: u32) -> gateway::Config {
    let limits = &mut gateway.limits;
    let has_share = limits.address_connections_max < limits.connections_max;
    limits.connections_max = limits.connections_max.min(connections_max);
    if has_share {
        limits.address_connections_max =
            limits.address_connections_max.min(limits.connections_max.div_ceil(2));
    }
    gateway
}

fn engine_options(role: Role, config: &Config, capacity: Capacity) -> Options {
    let engine = &config.engine;
    let unless_zero = |bytes: u32| (bytes > 0).then_some(bytes);
    let options = Options {
        // In the order of the ports that a gateway is made with.
        listen: std::iter::once(config.node.listen)
            .chain(clients::ports(role, config).into_iter().map(|port| port.address))
            .collect(),
        pin: if config.node.pin { None } else { Some(Vec::new()) },
        // Connections past the gateway's limit get a notice before they are closed.
        connections_max: capacity.connections_max.saturating_add(REFUSALS_PER_SHARD),
        open_connections_max: capacity.open_connections_max.saturating_add(REFUSALS_PER_SHARD),
        linger: Duration::from_millis(engine.linger_ms.into()),
        send_buffer_bytes: unless_zero(engine.send_buffer_bytes),
        recv_buffer_bytes: unless_zero(engine.recv_buffer_bytes),
        recv_buffers: engine.recv_buffers,
        recv_buffer_size_bytes: engine.recv_buffer_size_bytes,
        backlog: engine.backlog,
        ..Options::default()
    };
    if !role.takes_links() {
        return options;
    }
    Options {
        listen: vec![role.listen(config)],
        listen_each: true,
        send_buffer_bytes: None,
        recv_buffer_bytes: None,
        recv_buffers: ROUTER_RECV_BUFFERS,
        recv_buffer_size_bytes: ROUTER_RECV_BUFFER_BYTES,
        ..options
    }
}

fn admin_listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    http_server::listen(address).map_err(|error| listen_error(error, address, "--admin"))
}
