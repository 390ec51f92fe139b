//! Routers, gateways and bridges of one test, as processes on addresses of its own in 127.0.0.0/8, so that
//! they can be killed and come back where they were.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{SECRET, Server, sailfish, until};

/// What all nodes of the tests know.
pub const CLUSTER_SECRET: &str = "the cluster secret of the tests";
/// How long a node may be silent; short, so that tests are.
pub const LEASE: Duration = Duration::from_millis(1_000);
const CLIENTS_PORT: u16 = 5346;
const ADMIN_PORT: u16 = 5347;
const WEBSOCKET_PORT: u16 = 5349;
const LINKS_PORT: u16 = 5350;
const REDIS_PORT: u16 = 6379;

/// 127.64.0.0 to 127.191.255.0, by the second and third byte.
const NETS: Range<u32> = 64 << 8..192 << 8;

/// The nodes of a test.
pub struct Cluster {
    /// The second and third byte of its addresses; the last one is left to the node.
    net: [u8; 2],
    pub routers: Vec<Node>,
    pub gateways: Vec<Node>,
    pub bridges: Vec<Node>,
    pub redis: Option<Redis>,
    /// What every node is told.
    common: Vec<String>,
    /// Whether gateways take clients by WebSocket.
    has_websocket: bool,
}

/// A node, running or not.
pub struct Node {
    command: Vec<String>,
    server: Option<Server>,
}

impl Node {
    /// One that does not run yet.
    pub(super) fn new(command: Vec<String>) -> Self {
        Self { command, server: None }
    }

    /// The running node.
    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("it runs")
    }

    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Gives a key another value from the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        let begin = format!("--set={key}=");
        self.command.retain(|word| !word.starts_with(&begin));
        self.command.push(begin + value);
    }

    /// Starts it again, where it was.
    pub fn start(&mut self) {
        let mut command = sailfish();
        command.args(&self.command);
        self.server = Some(Server::spawn(&mut command));
    }

    /// What no other process has in its command line.
    pub fn pattern(&self) -> String {
        self.command[..4].join(" ")
    }

    /// The command that starts it, for a shell.
    pub fn shell_command(&self) -> String {
        let words = self.command.iter().map(|word| format!("'{word}'"));
        format!("{} {}", env!("CARGO_BIN_EXE_sailfish"), words.collect::<Vec<_>>().join(" "))
    }
}

impl Cluster {
    /// Starts so many routers and gateways, and waits until every gateway says that it is ready.
    pub fn start(routers: u8, gateways: u8, more: &[&str]) -> Self {
        let mut cluster = Self::new(routers, gateways, more);
        cluster.start_all();
        cluster
    }

    /// The same with bridges, which have `flags` besides; gateways and routers know of them.
    pub fn start_with_bridges(routers: u8, gateways: u8, bridges: u8, flags: &[&str]) -> Self {
        let mut cluster = Self::empty();
        cluster.add_with_bridges(routers, gateways, bridges, flags);
        cluster
    }

    /// Starts them in a cluster that has none yet.
    pub fn add_with_bridges(&mut self, routers: u8, gateways: u8, bridges: u8, flags: &[&str]) {
        let listens: Vec<SocketAddr> =
            (1..=bridges).map(|number| self.address(3, 32 + number, LINKS_PORT)).collect();
        let known: Vec<String> = listens.iter().map(|listen| format!("\"{listen}\"")).collect();
        let known = format!("cluster.bridges=[{}]", known.join(","));
        self.add(routers, gateways, &["--set", &known]);
        let links: Vec<String> =
            (1..=routers).map(|number| self.address(1, number, LINKS_PORT).to_string()).collect();
        for (number, listen) in (1..).zip(listens) {
            let mut command =
                self.command("bridge", 64 + u16::from(number), listen, self.bridge_admin(number));
            command.extend(["--routers".into(), links.join(",")]);
            command.extend(flags.iter().map(ToString::to_string));
            self.bridges.push(Node::new(command));
        }
        self.bridges.iter_mut().for_each(Node::start);
        self.start_all();
        for bridge in &mut self.bridges {
            let owners = 4.0 * f64::from(routers);
            until("a bridge is ready", || bridge.server().metric("sailfish_owners", "") == owners);
        }
    }

    /// Where a bridge, counted from 1, takes pushes.
    pub(super) fn bridge_admin(&self, number: u8) -> SocketAddr {
        self.address(3, 32 + number, ADMIN_PORT)
    }

    /// The same with a Redis.
    pub fn start_with_redis(routers: u8, gateways: u8, more: &[&str]) -> Self {
        let mut cluster = Self::empty();
        let redis = Redis::start(cluster.address(3, 1, REDIS_PORT));
        let url = format!("directory.redis={}", redis.url());
        let more: Vec<&str> = more
            .iter()
            .copied()
            .chain(["--set", &url, "--set", "directory.lease_ms=1000", "--set", "directory.timeout_ms=200"])
            .collect();
        cluster.redis = Some(redis);
        cluster.add(routers, gateways, &more);
        cluster.start_all();
        cluster
    }

    /// The same, with gateways that are told of no router.
    pub fn discovering(routers: u8, gateways: u8) -> Self {
        let mut cluster = Self::start_with_redis(routers, 0, &[]);
        let url = format!("directory.redis={}", cluster.redis.as_ref().expect("it was started").url());
        cluster.add(
            0,
            gateways,
            &["--set", &url, "--set", "directory.lease_ms=1000", "--set", "directory.timeout_ms=200"],
        );
        cluster.gateways.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        cluster
    }

    /// What no other cluster has in its names.
    pub fn name(&self) -> String {
        format!("{}-{}", self.net[0], self.net[1])
    }

    /// Nodes that do not run yet.
    pub fn new(routers: u8, gateways: u8, more: &[&str]) -> Self {
        let mut cluster = Self::empty();
        cluster.add(routers, gateways, more);
        cluster
    }

    /// No nodes.
    pub(super) fn empty() -> Self {
        let number = testbed::claim("net", NETS);
        let net = [(number >> 8) as u8, number as u8];
        let (common, has_websocket) = (Vec::new(), false);
        let (routers, gateways, bridges) = (Vec::new(), Vec::new(), Vec::new());
        Self { net, routers, gateways, bridges, redis: None, common, has_websocket }
    }

    /// No nodes; those to come have a Redis, and gateways take clients by WebSocket too.
    pub(super) fn with_redis_and_websocket() -> Self {
        let mut cluster = Self::empty();
        let redis = Redis::start(cluster.address(3, 1, REDIS_PORT));
        cluster.common = vec![
            format!("--set=directory.redis={}", redis.url()),
            "--set=directory.lease_ms=1000".into(),
            "--set=directory.timeout_ms=200".into(),
        ];
        Self { redis: Some(redis), has_websocket: true, ..cluster }
    }

    /// No nodes; those to come all have these flags.
    pub fn everywhere(flags: &[&str]) -> Self {
        Self { common: flags.iter().map(ToString::to_string).collect(), ..Self::empty() }
    }

    fn add(&mut self, routers: u8, gateways: u8, more: &[&str]) {
        let links: Vec<String> =
            (1..=routers).map(|number| self.address(1, number, LINKS_PORT).to_string()).collect();
        for number in 1..=routers {
            let listen = self.address(1, number, LINKS_PORT);
            let command = self.command("router", number.into(), listen, self.address(1, number, ADMIN_PORT));
            let command = command.into_iter().chain(more.iter().map(ToString::to_string)).collect();
            self.routers.push(Node::new(command));
        }
        for number in 1..=gateways {
            let listen = self.address(2, number, CLIENTS_PORT);
            let admin = self.address(2, number, ADMIN_PORT);
            let mut command = self.command("gateway", 32 + u16::from(number), listen, admin);
            if !links.is_empty() {
                command.extend(["--routers".into(), links.join(",")]);
            }
            if self.has_websocket {
                command.push(format!("--listen-ws={}", self.address(2, number, WEBSOCKET_PORT)));
            }
            command.extend(more.iter().map(ToString::to_string));
            self.gateways.push(Node::new(command));
        }
    }

    fn command(&self, role: &str, id: u16, listen: SocketAddr, admin: SocketAddr) -> Vec<String> {
        let lease = LEASE.as_millis();
        let words = [
            role.into(),
            format!("--id={id}"),
            format!("--listen={listen}"),
            format!("--admin={admin}"),
            "--shards=2".into(),
            format!("--set=token.secret={SECRET}"),
            format!("--set=cluster.secret={CLUSTER_SECRET}"),
            format!("--set=link.lease_ms={lease}"),
            "--set=link.ping_ms=100".into(),
            "--set=router.settle_ms=500".into(),
            "--set=node.pin=false".into(),
        ];
        words.into_iter().chain(self.common.iter().cloned()).collect()
    }

    pub(super) fn address(&self, kind: u8, number: u8, port: u16) -> SocketAddr {
        let ip = Ipv4Addr::new(127, self.net[0], self.net[1], kind * 64 + number);
        SocketAddr::new(IpAddr::V4(ip), port)
    }

    fn start_all(&mut self) {
        self.routers.iter_mut().chain(&mut self.gateways).for_each(Node::start);
        self.wait_ready();
    }

    /// Waits until every gateway that runs is ready, and sees as many owners as router shards run.
    pub fn wait_ready(&mut self) {
        let routers = self.routers.iter().filter(|node| node.server.is_some()).count();
        for node in self.gateways.iter_mut().filter(|node| node.server.is_some()) {
            let server = node.server();
            until("a gateway is ready", || {
                // Two shards, each of which sees two shards of every router.
                server.get("/readyz").0 == 200 && server.metric("sailfish_owners", "") == 4.0 * routers as f64
            });
        }
    }

    pub fn gateway(&mut self, at: usize) -> &mut Server {
        self.gateways[at].server()
    }

    pub fn router(&mut self, at: usize) -> &mut Server {
        self.routers[at].server()
    }

    /// Where clients connect, with commas.
    pub fn targets(&mut self) -> String {
        let addresses = self.gateways.iter_mut().map(|node| node.server().clients.to_string());
        addresses.collect::<Vec<_>>().join(",")
    }
}

/// A redis-server of one test.
pub struct Redis {
    address: SocketAddr,
    folder: PathBuf,
    child: Child,
}

impl Redis {
    fn start(address: SocketAddr) -> Self {
        let folder = std::env::temp_dir().join(format!("sailfish-cluster-redis-{}", address.ip()));
        std::fs::create_dir_all(&folder).unwrap();
        let child = Self::spawn(address, &folder);
        Self { address, folder, child }
    }

    fn spawn(address: SocketAddr, folder: &std::path::Path) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("redis-server is installed: cargo xtask ci does that");
        until("redis-server listens", || TcpStream::connect(address).is_ok());
        child
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }

    /// Starts it again, empty.
    pub fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(self.address, &self.folder);
    }

    /// What a command answers, as `redis-cli` prints it.
    pub fn ask(&self, words: &[&str]) -> String {
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let output = Command::new("redis-cli").args(["-h", &ip, "-p", &port]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder); // left to the system's cleaning otherwise
    }
}
