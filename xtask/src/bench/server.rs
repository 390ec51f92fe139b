//! The servers, each started alone on core 0.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::machine::pinned;

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
}

impl Server {
    /// For progress lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RawUring => "raw io_uring",
            Self::RawEpoll => "raw epoll",
            Self::Uring => "uring",
            Self::Monoio => "monoio",
            Self::Epoll => "epoll",
            Self::Glommio => "glommio",
            Self::Nats => "nats-server",
            Self::Mosquitto => "mosquitto",
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
        let (Self::Nats | Self::Mosquitto) = self else {
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
            command.args(["up", "--shards", "1", "--engine", engine, "--listen", &address.to_string()]);
            command.args(["--admin", "127.0.0.1:0"]);
            command.env("SAILFISH_TOKEN__SECRET", SECRET).env("SAILFISH_LOG__FILTER", "warn");
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
        };
        let log = File::create(scratch.join("server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// Starts it on a free port and waits until it accepts. Without huge pages its memory is told to 4 KiB, not to 2 MiB.
    pub fn start(self, huge_pages: bool, programs: &Path, scratch: &Path) -> anyhow::Result<Running> {
        let address = free_address()?;
        let mut command = self.command(programs, scratch, address)?;
        if !huge_pages {
            command.env("MIMALLOC_ALLOW_THP", "0");
        }
        let child = command.spawn().context("starting the server")?;
        let mut running = Running { child, address };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            let ended = running.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(scratch.join("server.log")).unwrap_or_default();
                bail!("{} does not accept connections: {}", self.name(), log.trim());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(running)
    }
}

/// A server that runs until this is dropped.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
