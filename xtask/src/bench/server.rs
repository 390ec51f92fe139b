//! The servers, each started alone on core 0.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::machine::pinned;
use crate::root;

/// Signs the tokens of all runs.
pub const SECRET: &str = "a secret for benches only";

/// Where it runs.
pub const CORE: u32 = 0;
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// The bare io_uring loop.
    RawUring,
    /// The bare epoll loop.
    RawEpoll,
    /// The gateway on its own io_uring engine.
    Uring,
    /// The gateway on its own engine, with clients by WebSocket.
    WebSocket,
    /// The same by TLS.
    Tls,
    /// The same by WebSocket over TLS.
    TlsWebSocket,
    /// The gateway, with bridge and backend in its process, as `up` has them by default.
    Whole,
    /// The gateway on its own engine, with rooms that keep nothing of what they said.
    Forgetful,
    /// The gateway on monoio over io_uring.
    Monoio,
    /// The gateway on monoio over epoll.
    Epoll,
    /// The gateway on glommio.
    Glommio,
    /// nats-server.
    Nats,
    /// mosquitto.
    Mosquitto,
    /// Two gateways and a router, one shard each; all three are measured.
    Cluster,
    /// The same; only the router is measured.
    ClusterRouter,
    /// The same with a directory on Redis.
    ClusterRedis,
}

impl Server {
    /// For progress lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawUring => "raw io_uring",
            Self::RawEpoll => "raw epoll",
            Self::Uring => "uring",
            Self::WebSocket => "websocket",
            Self::Tls => "tls",
            Self::TlsWebSocket => "wss",
            Self::Whole => "up",
            Self::Forgetful => "uring, no history",
            Self::Monoio => "monoio",
            Self::Epoll => "epoll",
            Self::Glommio => "glommio",
            Self::Nats => "nats-server",
            Self::Mosquitto => "mosquitto",
            Self::Cluster => "cluster",
            Self::ClusterRouter => "router",
            Self::ClusterRedis => "redis-server",
        }
    }

    /// The protocol that `peer` is to speak.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Mosquitto => "mqtt",
            _ => "sailfish",
        }
    }

    /// Whether it can be run here; only the peers may be missing.
    pub fn is_installed(self) -> bool {
        let (Self::Nats | Self::Mosquitto | Self::ClusterRedis) = self else {
            return true;
        };
        let found = Command::new(self.name()).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
        !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    fn command(self, programs: &Path, scratch: &Path, address: SocketAddr) -> anyhow::Result<Command> {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let (raw, sailfish) = (programs.join("raw"), programs.join("sailfish"));
        let up = |engine: &str| {
            let mut command = pinned(CORE, &sailfish);
            command.args(["up", "--shards", "1", "--engine", engine]);
            // Clients with layers have a port of their own.
            let listen = if self.scheme().is_empty() { address.to_string() } else { "127.0.0.1:0".into() };
            command.args(["--listen", &listen]);
            command.args(["--admin", "127.0.0.1:0"]);
            command.env("SAILFISH_TOKEN__SECRET", SECRET).env("SAILFISH_LOG__FILTER", "warn");
            command.env("SAILFISH_BRIDGE__MODE", "off");
            command
        };
        let mut command = match self {
            Self::RawUring | Self::RawEpoll => {
                let mut command = pinned(CORE, &raw);
                command.arg(if self == Self::RawUring { "uring" } else { "epoll" });
                command.args(["--listen", &address.to_string()]);
                command
            }
            Self::Uring => up("uring"),
            Self::WebSocket | Self::Tls | Self::TlsWebSocket => {
                self.layered(up("uring"), scratch, address)?
            }
            Self::Whole => {
                let mut command = up("uring");
                command.env_remove("SAILFISH_BRIDGE__MODE");
                let file = scratch.join("memory.db");
                for suffix in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(format!("{}{suffix}", file.display())); // there may be none
                }
                command.env("SAILFISH_BACKEND__DATABASE", format!("sqlite:{}", file.display()));
                command.env("SAILFISH_BACKEND__LISTEN", free_address()?.to_string());
                command
            }
            Self::Forgetful => {
                let mut command = up("uring");
                command.args(["--set", "router.history_messages=0"]);
                command
            }
            Self::Monoio => up("monoio"),
            Self::Epoll => up("epoll"),
            Self::Glommio => up("glommio"),
            Self::Nats => {
                let mut command = pinned(CORE, Path::new(self.name()));
                command.args(["-a", &ip, "-p", &port]).env("GOMAXPROCS", "1");
                command
            }
            Self::Mosquitto => {
                let config = scratch.join("mosquitto.conf");
                let text = format!("listener {port} {ip}\nallow_anonymous true\nmax_connections -1\n");
                fs::write(&config, text).with_context(|| config.display().to_string())?;
                let mut command = pinned(CORE, Path::new(self.name()));
                command.arg("-c").arg(config);
                command
            }
            Self::Cluster | Self::ClusterRouter | Self::ClusterRedis => {
                unreachable!("a cluster is started by `cluster`")
            }
        };
        log_to(&mut command, scratch, "server.log")?;
        Ok(command)
    }

    /// How addresses of its clients begin.
    const fn scheme(self) -> &'static str {
        match self {
            Self::WebSocket => "ws://",
            Self::Tls => "tls://",
            Self::TlsWebSocket => "wss://",
            _ => "",
        }
    }

    /// A gateway whose clients come by TLS or WebSocket to `address`.
    fn layered(self, mut up: Command, scratch: &Path, address: SocketAddr) -> anyhow::Result<Command> {
        let flag = match self {
            Self::WebSocket => "--listen-ws",
            Self::Tls => "--listen-tls",
            _ => "--listen-wss",
        };
        up.args([flag, &address.to_string()]);
        if self != Self::WebSocket {
            let file = |name: &str| -> anyhow::Result<PathBuf> {
                let copy = scratch.join(name);
                let _ = fs::remove_file(&copy); // there may be none
                fs::copy(root().join("edge/tests/pem").join(name), &copy).with_context(|| name.to_owned())?;
                fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
                Ok(copy)
            };
            let (chain, key) = (file("one.pem")?, file("one.key")?);
            up.args(["--set", &format!("node.certificates=[{{ chain = {chain:?}, key = {key:?} }}]")]);
        }
        Ok(up)
    }

    /// Starts it on a free port and waits until it accepts. Without huge pages its memory is told to 4 KiB,
    /// not to 2 MiB.
    pub fn start(self, huge_pages: bool, programs: &Path, scratch: &Path) -> anyhow::Result<Running> {
        match self {
            Self::Cluster => return cluster(programs, scratch, None),
            Self::ClusterRouter => {
                let mut running = cluster(programs, scratch, None)?;
                running.measured.truncate(1); // the router is the first
                return Ok(running);
            }
            Self::ClusterRedis => return cluster(programs, scratch, Some(free_address()?)),
            _ => {}
        }
        let address = free_address()?;
        let mut command = self.command(programs, scratch, address)?;
        if !huge_pages {
            command.env("MIMALLOC_ALLOW_THP", "0");
        }
        let mut running = Running::default();
        running.spawn(&mut command)?;
        running.addresses.push(address);
        running.scheme = self.scheme();
        running.wait(scratch, self.name(), || TcpStream::connect(address).is_ok())?;
        Ok(running)
    }
}

/// Two gateways and a router.
fn cluster(programs: &Path, scratch: &Path, redis: Option<SocketAddr>) -> anyhow::Result<Running> {
    let mut running = Running::default();
    let links = free_address()?;
    let program = programs.join("sailfish");
    let node = |role: &str, number: u16, listen: SocketAddr, admin: SocketAddr| {
        let mut command = pinned(CORE, &program);
        command.args([role, "--id", &number.to_string(), "--listen", &listen.to_string()]);
        command.args(["--admin", &admin.to_string(), "--shards", "1"]);
        command.env("SAILFISH_TOKEN__SECRET", SECRET).env("SAILFISH_CLUSTER__SECRET", SECRET);
        command.env("SAILFISH_LOG__FILTER", "warn");
        if let Some(redis) = redis {
            command.env("SAILFISH_DIRECTORY__REDIS", format!("redis://{redis}"));
        }
        command
    };
    if let Some(redis) = redis {
        let mut command = pinned(CORE, Path::new("redis-server"));
        let (ip, port) = (redis.ip().to_string(), redis.port().to_string());
        command.args(["--bind", &ip, "--port", &port, "--save", "", "--appendonly", "no"]);
        log_to(&mut command, scratch, "redis.log")?;
        running.spawn(&mut command)?;
        running.wait(scratch, "redis-server", || TcpStream::connect(redis).is_ok())?;
        running.measured.clear();
    }
    let admin = free_address()?;
    let mut router = node("router", 1, links, admin);
    log_to(&mut router, scratch, "router.log")?;
    running.spawn(&mut router)?;
    running.admins.push(admin);
    for number in [33, 34] {
        let (listen, admin) = (free_address()?, free_address()?);
        let mut gateway = node("gateway", number, listen, admin);
        gateway.args(["--routers", &links.to_string()]);
        log_to(&mut gateway, scratch, &format!("gateway-{number}.log"))?;
        running.spawn(&mut gateway)?;
        running.addresses.push(listen);
        running.admins.push(admin);
    }
    let admins = running.admins.clone();
    let is_ready = |admin: &SocketAddr| get(*admin, "/readyz").is_ok_and(|page| page.contains(" 200 "));
    running.wait(scratch, "cluster", || admins.iter().all(is_ready))?;
    Ok(running)
}

/// The answer to a GET, head and body.
pub fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: sailfish\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn log_to(command: &mut Command, scratch: &Path, name: &str) -> anyhow::Result<()> {
    let log = File::create(scratch.join(name))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(())
}

/// Servers that run until this is dropped.
#[derive(Default)]
pub struct Running {
    children: Vec<Child>,
    /// Where clients connect.
    pub addresses: Vec<SocketAddr>,
    /// How these begin.
    pub scheme: &'static str,
    /// The admin ports of a cluster: of the router first.
    pub admins: Vec<SocketAddr>,
    /// The processes whose use counts.
    pub measured: Vec<u32>,
}

impl Running {
    /// All its processes.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.children.iter().map(Child::id)
    }

    fn spawn(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let child = command.spawn().context("starting a server")?;
        self.measured.push(child.id());
        self.children.push(child);
        Ok(())
    }

    fn wait(&mut self, scratch: &Path, name: &str, is_ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready() {
            let mut ended = false;
            for child in &mut self.children {
                ended |= child.try_wait()?.is_some();
            }
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(scratch.join("server.log")).unwrap_or_default();
                bail!("{name} does not come up; its logs are in {}: {}", scratch.display(), log.trim());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only when it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
