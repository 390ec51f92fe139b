//! The configuration: one TOML file, the same keys in the environment, flags on top.
//!
//! Each key is known by its dotted name (`limits.frame_bytes_max`). [`keys::KEYS`] lists them all; the types
//! have the defaults. An error is one line: where the value came from, the key, and what it wants.

mod bridge;
mod keys;
mod layers;
mod print;
mod token;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gateway::ENTRY_BYTES;
use link::TlsMode;
use serde::{Deserialize, Serialize};
use wire::node::link::NODE_MAX;

use crate::redis_urls;

pub use bridge::{BridgeConfig, BridgeMode};
pub use layers::{ENV_PREFIX, Layers};
pub use print::print;
pub use token::{TokenConfig, ed25519_public_key};

/// Where clients connect by default: the port reads like the magic `SF`, 0x5346.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:5346";
/// Where clients connect to `up` by WebSocket by default.
pub const WEBSOCKET_DEFAULT: &str = "127.0.0.1:5349";
/// The admin port by default.
pub const ADMIN_DEFAULT: &str = "127.0.0.1:5347";

/// Where a router takes links by default; its shard `i` does at the port that many higher.
pub const LINKS_DEFAULT: &str = "127.0.0.1:5350";

/// The same of a bridge.
pub const BRIDGE_LINKS_DEFAULT: &str = "127.0.0.1:5400";

/// Everything an operator can set.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where each business code goes.
    pub routes: gateway::Routes,
    /// The process: addresses, threads, engine.
    pub node: NodeConfig,
    /// What login tokens are checked with.
    pub token: TokenConfig,
    /// The log's filter and format.
    pub log: LogConfig,
    /// How a silent client is found.
    pub heartbeat: gateway::Heartbeat,
    /// How reliable messages are repeated.
    pub delivery: gateway::Delivery,
    /// Limits for one connection, address or shard.
    pub limits: gateway::Limits,
    /// How a node drains.
    pub drain: gateway::Drain,
    /// Limits of users, rooms and messages of a shard.
    pub router: router::Limits,
    /// The nodes of a cluster.
    pub cluster: ClusterConfig,
    /// Times and limits of links between nodes.
    pub link: link::Config,
    /// Who may use the control API.
    pub control: ControlConfig,
    /// Limits for callers of the HTTP ports.
    pub http: http_server::Limits,
    /// Where a cluster keeps who is connected where.
    pub directory: DirectoryConfig,
    /// The service that holds users and money.
    pub backend: backend::Config,
    /// The bridge, and where its backend is.
    pub bridge: BridgeConfig,
    /// Where spans go, and which traces are exported.
    pub trace: traces::Config,
    /// Which servers connections by TLS trust.
    pub tls: TlsConfig,
    /// Buffers and sockets.
    pub engine: EngineConfig,
}

/// The process: addresses, threads, engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where clients connect by WebSocket: an address, `auto` or `off`.
    pub listen_ws: String,
    /// Where clients connect by TLS: an address or `off`.
    pub listen_tls: String,
    /// Where clients connect by WebSocket over TLS: an address or `off`.
    pub listen_wss: String,
    /// The certificates and keys of the ports with TLS.
    pub certificates: Vec<CertificateFiles>,
    /// A file with the certificates of the authorities of clients, or `off`.
    pub client_ca: String,
    /// `required` or `optional`.
    pub client_certificate: String,
    /// Origins of pages that may connect by WebSocket; empty: any.
    pub origins: Vec<String>,
    /// Proxies whose connections begin with a PROXY header.
    pub proxy_from: Vec<edge::Network>,
    /// Where metrics and health are served.
    pub admin: SocketAddr,
    /// Whether it speaks TLS.
    pub admin_tls: bool,
    /// Threads that hold connections; 0 means one for each core this process may use.
    pub shards: u16,
    /// `auto`, `uring`, `monoio`, `epoll` or `glommio`.
    pub engine: String,
    /// Whether each shard stays on one core, when there are as many shards as cores.
    pub pin: bool,
}

/// The nodes of a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// The own number; no two nodes may have the same at a time. 0: 1 for a router, 2 for a gateway.
    pub node: u16,
    /// Where this router or bridge takes links: its shard `i` at the port that many higher.
    pub listen: SocketAddr,
    /// The address of `listen` as others reach it: ADDRESS:PORT; empty: the same.
    pub advertise: String,
    /// Where each router takes links.
    pub routers: Vec<SocketAddr>,
    /// Where each bridge takes links of gateways; a router with such a list keeps events for bridges from the
    /// start.
    pub bridges: Vec<SocketAddr>,
    /// The secret of all nodes of the cluster; empty: `secret_file`.
    pub secret: String,
    /// A file with it; empty: the one that the first run makes.
    pub secret_file: PathBuf,
    /// Whether links to other nodes are encrypted.
    pub tls: TlsMode,
}

/// Who may use the control API.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlConfig {
    /// The bearer token of callers; empty: callers need none, and the port must be on a loopback address.
    pub secret: String,
}

/// Which servers connections by TLS trust.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// A file with the certificates of roots; empty for those of the system.
    pub roots: PathBuf,
    /// The contents of that file.
    #[serde(skip)]
    pub trusted: trust::Roots,
}

/// The log's filter and format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or directives like `info,sailfish=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: String,
}

/// Where a cluster keeps who is connected where.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectoryConfig {
    /// `redis://...`, or several with commas for a Redis Cluster; empty for none.
    pub redis: String,
    /// Sentinels; with them, the host in `redis` is the name that they have for the master.
    pub redis_sentinels: Vec<String>,
    /// What every key begins with.
    pub prefix: String,
    /// How long a node counts as living after it last renewed its lease.
    pub lease_ms: u32,
    /// How long Redis may take to connect, and to answer a batch.
    pub timeout_ms: u32,
    /// Records that may wait.
    pub queue_max: u32,
    /// Whether rooms' messages are kept there, too.
    pub history: bool,
    /// Whom `rediss://` trusts.
    #[serde(skip)]
    pub roots: trust::Roots,
}

/// Buffers and sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// `SO_SNDBUF` of each connection; 0 leaves it to the kernel.
    pub send_buffer_bytes: u32,
    /// `SO_RCVBUF` of each connection; 0 leaves it to the kernel.
    pub recv_buffer_bytes: u32,
    /// Receive buffers of one shard.
    pub recv_buffers: u16,
    /// Size of one of them.
    pub recv_buffer_size_bytes: u32,
    /// Connections the kernel may hold ready for one listener.
    pub backlog: u32,
    /// How long a closing connection may take to flush its last notice.
    pub linger_ms: u32,
}

/// A certificate and its key, each a PEM file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate first, then those that lead to a root.
    pub chain: PathBuf,
    /// Readable by its owner and group only.
    pub key: PathBuf,
}

/// Why a configuration is refused: one line that names the key and what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT.parse().expect("a socket address"),
            listen_ws: "auto".into(),
            listen_tls: "off".into(),
            listen_wss: "off".into(),
            certificates: Vec::new(),
            client_ca: "off".into(),
            client_certificate: "required".into(),
            origins: Vec::new(),
            proxy_from: Vec::new(),
            admin: ADMIN_DEFAULT.parse().expect("a socket address"),
            admin_tls: false,
            shards: 0,
            engine: "auto".into(),
            pin: true,
        }
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            node: 0,
            listen: LINKS_DEFAULT.parse().expect("a socket address"),
            advertise: String::new(),
            routers: Vec::new(),
            bridges: Vec::new(),
            secret: String::new(),
            secret_file: PathBuf::new(),
            tls: TlsMode::Off,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: "text".into() }
    }
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            redis: String::new(),
            redis_sentinels: Vec::new(),
            prefix: "sailfish".into(),
            lease_ms: 6000,
            timeout_ms: 1000,
            queue_max: 65_536,
            history: true,
            roots: trust::Roots::default(),
        }
    }
}

/// The kernel uses twice as much for a client that does not read, and would grow it to 4 MiB: a few hundred
/// such clients could use up its memory for all sockets.
const SEND_BUFFER_BYTES: u32 = 128 << 10;

impl Default for EngineConfig {
    fn default() -> Self {
        let options = engine::Options::default();
        Self {
            send_buffer_bytes: SEND_BUFFER_BYTES,
            recv_buffer_bytes: options.recv_buffer_bytes.unwrap_or(0),
            recv_buffers: options.recv_buffers,
            recv_buffer_size_bytes: options.recv_buffer_size_bytes,
            backlog: options.backlog,
            linger_ms: options.linger.as_millis() as u32,
        }
    }
}

/// A URL without its password.
pub fn without_password(url: &str) -> String {
    match url.split_once("://").zip(url.rsplit_once('@')) {
        Some(((scheme, rest), (_, server))) => {
            let user = rest.split([':', '@']).next().unwrap_or_default();
            let at = if user.is_empty() { "" } else { "@" };
            format!("{scheme}://{user}{at}{server}")
        }
        None => url.to_owned(),
    }
}

/// What a secret is shown as.
fn hidden(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { "(set)" }
}

impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("node", &self.node)
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("routers", &self.routers)
            .field("bridges", &self.bridges)
            .field("secret", &hidden(&self.secret))
            .field("secret_file", &self.secret_file)
            .finish()
    }
}

impl fmt::Debug for ControlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlConfig").field("secret", &hidden(&self.secret)).finish()
    }
}

impl DirectoryConfig {
    /// The configuration without passwords.
    fn without_password(&self) -> Self {
        let redis = self.redis.split(',').map(without_password).collect::<Vec<_>>().join(",");
        let redis_sentinels = self.redis_sentinels.iter().map(|url| without_password(url)).collect();
        Self { redis, redis_sentinels, ..self.clone() }
    }

    fn validate(&self) -> Result<(), String> {
        if !self.redis.is_empty() {
            redis_urls::seeds(&self.redis).map_err(|wish| format!("directory.redis: {wish}"))?;
            redis_urls::sentinels(&self.redis, &self.redis_sentinels)
                .map_err(|wish| format!("directory.redis_sentinels: {wish}"))?;
        } else if !self.redis_sentinels.is_empty() {
            return Err(
                "directory.redis: want the name that sentinels have for the master, like redis://mymaster"
                    .into(),
            );
        }
        let prefix = &self.prefix;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_plain) {
            return Err(format!("directory.prefix = {prefix:?}: want 1 to 64 letters, digits or _ - . :"));
        }
        within("directory.timeout_ms", self.timeout_ms, 10, 60_000)?;
        // A lease must outlive a few failed tries to renew it.
        within("directory.lease_ms", self.lease_ms, self.timeout_ms * 3, 600_000)?;
        within("directory.queue_max", self.queue_max, 1024, 1 << 24)
    }
}

impl fmt::Debug for DirectoryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { redis, redis_sentinels, prefix, lease_ms, timeout_ms, queue_max, history, roots: _ } =
            self.without_password();
        f.debug_struct("DirectoryConfig")
            .field("redis", &redis)
            .field("redis_sentinels", &redis_sentinels)
            .field("prefix", &prefix)
            .field("lease_ms", &lease_ms)
            .field("timeout_ms", &timeout_ms)
            .field("queue_max", &queue_max)
            .field("history", &history)
            .finish()
    }
}

/// How much of a room's messages is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamBounds {
    /// Its last messages, and a few more.
    pub messages: u32,
    /// For how long after the last.
    pub ms: u32,
}

impl NodeConfig {
    /// Where clients connect by WebSocket, if anywhere. `auto` is an address on loopback if `up` runs with
    /// its defaults.
    pub fn listen_ws(&self, is_up: bool) -> Option<SocketAddr> {
        let is_default = self.listen_ws == "auto" && is_up && self.listen == NodeConfig::default().listen;
        if is_default { WEBSOCKET_DEFAULT.parse().ok() } else { self.listen_ws.parse().ok() }
    }

    /// Where clients connect by TLS, if anywhere.
    pub fn listen_tls(&self) -> Option<SocketAddr> {
        self.listen_tls.parse().ok()
    }

    /// Where clients connect by WebSocket over TLS, if anywhere.
    pub fn listen_wss(&self) -> Option<SocketAddr> {
        self.listen_wss.parse().ok()
    }

    /// The file with the certificates of the authorities of clients, if clients are asked for one.
    pub fn client_ca(&self) -> Option<&Path> {
        (self.client_ca != "off").then(|| Path::new(&self.client_ca))
    }

    fn validate(&self) -> Result<(), String> {
        let Self { engine, listen_ws, listen_tls, listen_wss, certificates, client_certificate, .. } = self;
        if !["required", "optional"].contains(&client_certificate.as_str()) {
            return Err(format!(
                "node.client_certificate = {client_certificate:?}: want required or optional"
            ));
        }
        if !["auto", "off"].contains(&listen_ws.as_str()) && listen_ws.parse::<SocketAddr>().is_err() {
            return Err(format!("node.listen_ws = {listen_ws:?}: want ADDRESS:PORT, auto or off"));
        }
        for (key, listen) in [("node.listen_tls", listen_tls), ("node.listen_wss", listen_wss)] {
            if listen == "off" {
                continue;
            }
            if listen.parse::<SocketAddr>().is_err() {
                return Err(format!("{key} = {listen:?}: want ADDRESS:PORT or off"));
            }
            if certificates.is_empty() {
                return Err(format!("{key}: want a certificate and its key in node.certificates"));
            }
        }
        if self.admin_tls && certificates.is_empty() {
            return Err("node.admin_tls: want a certificate and its key in node.certificates".into());
        }
        const ENGINES: [&str; 5] = ["auto", "uring", "monoio", "epoll", "glommio"];
        if !ENGINES.contains(&engine.as_str()) {
            return Err(format!("node.engine = {engine:?}: want one of {}", ENGINES.join(", ")));
        }
        Ok(())
    }
}

impl Config {
    /// Reads the roots, and passes them to all parts that connect to others.
    fn trust(&mut self) -> Result<(), String> {
        let roots = trust::Roots::read(&self.tls.roots).map_err(|why| format!("tls.roots: {why}"))?;
        self.directory.roots = roots.clone();
        self.bridge.roots = roots.clone();
        self.backend.roots = roots.clone();
        self.trace.roots = roots.clone();
        self.tls.trusted = roots;
        Ok(())
    }

    /// The part that the gateway core takes.
    pub fn gateway(&self) -> gateway::Config {
        gateway::Config {
            heartbeat: self.heartbeat.clone(),
            delivery: self.delivery.clone(),
            limits: self.limits.clone(),
            drain: self.drain.clone(),
            routes: self.routes.clone(),
            edge: edge::Rules {
                proxy_from: self.node.proxy_from.clone(),
                origins: self.node.origins.clone(),
            },
        }
    }

    /// What rooms keep of the messages of codes whose routes set it.
    pub fn keeps(&self) -> router::Keeps {
        router::Keeps::new(self.own_keeps())
    }

    /// The same of the codes that have bounds of their own, and of all others.
    pub fn all_keeps(&self) -> (Vec<(wire::BizCode, router::Keep)>, router::Keep) {
        let router::Limits { history_messages, history_bytes, history_ms, .. } = self.router;
        let other = router::Keep { messages: history_messages, bytes: history_bytes, ms: history_ms };
        (self.own_keeps().collect(), other)
    }

    /// Whether rooms' messages are written to the directory.
    pub fn has_streams(&self) -> bool {
        !self.directory.redis.is_empty() && self.directory.history
    }

    /// How much of them is kept there: as much as all business codes together.
    pub fn stream_bounds(&self) -> StreamBounds {
        let other = &self.router;
        let own = || self.own_keeps().map(|(_, keep)| (keep.messages, keep.ms));
        let all = || own().chain([(other.history_messages, other.history_ms)]);
        let messages = all().fold(0, |sum: u32, (messages, _)| sum.saturating_add(messages));
        StreamBounds { messages, ms: all().map(|(_, ms)| ms).fold(1, u32::max) }
    }

    fn own_keeps(&self) -> impl Iterator<Item = (wire::BizCode, router::Keep)> {
        let other = &self.router;
        let is_own = |route: &&gateway::Route| {
            route.history_messages.is_some() || route.history_bytes.is_some() || route.history_ms.is_some()
        };
        self.routes.iter().filter(is_own).map(|route| {
            let keep = router::Keep {
                messages: route.history_messages.unwrap_or(other.history_messages),
                bytes: route.history_bytes.unwrap_or(other.history_bytes),
                ms: route.history_ms.unwrap_or(other.history_ms),
            };
            (route.biz_code, keep)
        })
    }

    /// Checks what the types do not guarantee. The error begins with the key.
    fn validate(&self) -> Result<(), String> {
        self.gateway().validate()?;
        self.router.validate()?;
        if self.bridge.mode == BridgeMode::Redis && !self.backend.redis_sentinels.is_empty() {
            return Err("backend.redis_sentinels: with bridge.mode = \"redis\" want one server: a failover loses events".into());
        }
        self.validate_pending()?;
        self.validate_outboxes()?;
        self.link.validate()?;
        self.validate_cluster()?;
        self.node.validate()?;
        if self.node.shards > SHARDS_MAX {
            return Err(format!("node.shards = {}: want a number from 0 to {SHARDS_MAX}", self.node.shards));
        }
        let LogConfig { filter, format } = &self.log;
        let is_wrong = |directive: &str| is_bare_word(directive) && !is_logged(directive);
        if let Some(word) = filter.split(',').map(str::trim).find(|directive| is_wrong(directive)) {
            return Err(format!(
                "log.filter = {filter:?}: {word:?} is no level and no part of the program; want one of {}, or directives \
                 like info,sailfish=debug",
                LEVELS.join(", ")
            ));
        }
        if filter.parse::<tracing_subscriber::EnvFilter>().is_err() {
            return Err(format!(
                "log.filter = {filter:?}: want a level or directives like info,sailfish=debug"
            ));
        }
        if format != "text" && format != "json" {
            return Err(format!("log.format = {format:?}: want text or json"));
        }
        self.token.validate()?;
        if self.backend.tls && self.node.certificates.is_empty() {
            return Err("backend.tls: want a certificate and its key in node.certificates".into());
        }
        self.validate_secrets()?;
        self.http.validate()?;
        self.directory.validate()?;
        self.backend.validate()?;
        self.bridge.validate()?;
        self.trace.check()?;
        self.validate_engine()
    }

    /// A router must not give up a message that a gateway may still deliver.
    fn validate_pending(&self) -> Result<(), String> {
        let windows = self.limits.reliable_messages_max.div_ceil(u32::from(self.delivery.window));
        let wanted = self.delivery.flight_time_max().as_millis() * u128::from(windows);
        let given = self.router.pending_timeout_ms;
        if u128::from(given) < wanted {
            return Err(format!(
                "router.pending_timeout_ms = {given}: want at least {wanted}, the time in which delivery.* and \
                 limits.reliable_messages_max let a message be delivered"
            ));
        }
        Ok(())
    }

    fn validate_secrets(&self) -> Result<(), String> {
        let backend = &self.backend;
        let secrets = [
            ("token.secret", &self.token.secret),
            ("cluster.secret", &self.cluster.secret),
            ("control.secret", &self.control.secret),
            ("bridge.secret", &self.bridge.secret),
            ("backend.internal_secret", &backend.internal_secret),
            ("backend.provider_secret", &backend.provider_secret),
            ("backend.sms_secret", &backend.sms_secret),
            ("backend.hook_secret", &backend.hook_secret),
        ];
        match secrets.iter().find(|(_, secret)| !secret.is_empty() && secret.len() < SECRET_BYTES_MIN) {
            Some((key, _)) => Err(format!("{key}: want at least {SECRET_BYTES_MIN} bytes")),
            None => Ok(()),
        }
    }

    /// The limits of owners for one receiver, and of a room's burst, must fit the receiver's outbox: then a
    /// receiver that reads is not overrun, however much others send.
    fn validate_outboxes(&self) -> Result<(), String> {
        let (limits, router) = (&self.limits, &self.router);
        let (messages, given) =
            (router.pending_receiver_max + router.room_burst, limits.reliable_messages_max);
        if given < messages {
            return Err(format!(
                "limits.reliable_messages_max = {given}: want at least {messages}, which is router.pending_receiver_max and \
                 router.room_burst together"
            ));
        }
        let room_bytes = u64::from(router.room_burst) * 1024;
        let entries = u64::from(messages) * ENTRY_BYTES as u64;
        let bytes = u64::from(router.pending_receiver_bytes_max) + room_bytes + entries;
        let given = u64::from(limits.reliable_bytes_max);
        if given < bytes {
            return Err(format!(
                "limits.reliable_bytes_max = {given}: want at least {bytes}, which is router.pending_receiver_bytes_max, a KiB for each \
                 message of router.room_burst, and {ENTRY_BYTES} for each of the {messages} messages"
            ));
        }
        Ok(())
    }

    fn validate_cluster(&self) -> Result<(), String> {
        let ClusterConfig { node, advertise, secret, secret_file, .. } = &self.cluster;
        if *node > NODE_MAX {
            return Err(format!("cluster.node = {node}: want a number from 0 to {NODE_MAX}"));
        }
        if !advertise.is_empty() && advertise.parse::<SocketAddr>().is_err() {
            return Err(format!(
                "cluster.advertise = {advertise:?}: want an address and a port, like 10.0.0.1:5350"
            ));
        }
        if !secret.is_empty() && !secret_file.as_os_str().is_empty() {
            return Err("cluster.secret_file: cluster.secret is set too; want only one of them".into());
        }
        let admin = self.node.admin.ip();
        if self.control.secret.is_empty() && !admin.is_loopback() {
            return Err(format!(
                "control.secret: the admin port listens on {admin}, which others may reach; want a secret, or a loopback \
                 address as node.admin"
            ));
        }
        Ok(())
    }

    fn validate_engine(&self) -> Result<(), String> {
        let engine = &self.engine;
        if !engine.recv_buffers.is_power_of_two() || engine.recv_buffers > 32_768 {
            let buffers = engine.recv_buffers;
            return Err(format!("engine.recv_buffers = {buffers}: want a power of two up to 32768"));
        }
        within("engine.recv_buffer_size_bytes", engine.recv_buffer_size_bytes, 256, 1 << 20)?;
        within("engine.backlog", engine.backlog, 1, 1 << 20)?;
        within("engine.linger_ms", engine.linger_ms, 0, 60_000)
    }
}

/// How much is logged.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The parts of the program that log, as the first part of a target.
const LOGGED: [&str; 13] = [
    "sailfish",
    "backend",
    "biz_bridge",
    "edge",
    "engine",
    "gateway",
    "http_server",
    "link",
    "loadgen",
    "logs",
    "node",
    "router",
    "trust",
];

/// Whether a directive of a filter is one word. A word that is no level counts as a target, and then nothing
/// else is logged.
fn is_bare_word(directive: &str) -> bool {
    !directive.is_empty() && !directive.contains(['=', '['])
}

/// Whether a word is a level, or a target of ours.
fn is_logged(word: &str) -> bool {
    let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    is_level || LOGGED.contains(&word.split("::").next().unwrap_or(word))
}

/// A shorter secret can be guessed from what it has signed.
pub const SECRET_BYTES_MIN: usize = 16;
/// More threads than this are no use on any machine.
const SHARDS_MAX: u16 = 1024;

fn within(key: &str, value: u32, min: u32, max: u32) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!("{key} = {value}: want a number from {min} to {max}"))
}
