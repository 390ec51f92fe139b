//! The whole of Sailfish as a set of processes on loopback, each of which can be killed and started again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;
use testbed::{Folder, MariaDb, Redis, free_port};

/// Wanted of callers of `/internal/`.
pub const INTERNAL_SECRET: &str = "internal secret of a test stack";
/// What all nodes share, by environment variable.
pub const SECRETS: [(&str, &str); 4] = [
    ("SAILFISH_TOKEN__SECRET", "token secret of a test stack"),
    ("SAILFISH_CLUSTER__SECRET", "cluster secret of a test stack"),
    ("SAILFISH_BRIDGE__SECRET", "bridge secret of a test stack"),
    ("SAILFISH_BACKEND__INTERNAL_SECRET", INTERNAL_SECRET),
];

/// Where the backend keeps what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// SQLite, and nothing else.
    Embedded,
    /// MariaDB and Redis.
    Servers,
}

impl Storage {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "SQLite",
            Self::Servers => "MariaDB + Redis",
        }
    }
}

/// A process of Sailfish.
pub struct Node {
    /// The program, after what it is started by.
    command: Vec<PathBuf>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// The line by which it said that it is ready.
    ready: String,
}

/// Router, gateways, bridge, backend, and what that stores in.
pub struct Stack {
    pub database: Option<MariaDb>,
    pub redis: Option<Redis>,
    pub bridge: Node,
    pub backend: Node,
    _router: Node,
    _gateways: Vec<Node>,
    /// Where clients connect.
    pub targets: String,
    /// The backend's API.
    pub api: String,
    /// The backend's database.
    pub database_url: String,
    folder: Folder,
}

impl Stack {
    /// Starts all of it, with so many gateways and empty storage.
    pub fn start(programs: &Path, storage: Storage, gateways: u32) -> anyhow::Result<Self> {
        let folder = Folder::on_disk("stack");
        let address = || format!("127.0.0.1:{}", free_port());
        let (links, bridge_links, bridge_admin, api) = (address(), address(), address(), address());
        let targets: Vec<String> = (0..gateways).map(|_| address()).collect();
        let (database, redis) = match storage {
            Storage::Embedded => (None, None),
            Storage::Servers => {
                let database = MariaDb::primary_in(Folder::on_disk("mariadb"));
                (Some(database), Some(Redis::start_in(Folder::on_disk("redis"), "everysec")))
            }
        };
        let database_url = match &database {
            Some(database) => {
                database.create("sailfish");
                database.url("sailfish")
            }
            None => format!("sqlite:{}", folder.path().join("backend.db").display()),
        };
        let start = |name: &str, line: String| Node::start(programs, folder.path(), name, &line);
        let common = "--admin 127.0.0.1:0 --shards 1 --set node.pin=false";
        let router = start("router", format!("router --id 1 --listen {links} {common}"))?;
        let bridge = start(
            "bridge",
            format!(
                "bridge --id 17 --listen {bridge_links} --routers {links} --admin {bridge_admin} --shards 1 --set node.pin=false \
                 --set bridge.mode=http --set bridge.url=http://{api}"
            ),
        )?;
        let redis_flag = redis.as_ref().map_or(String::new(), |redis| format!(" --redis {}", redis.url()));
        let backend = start(
            "backend",
            format!(
                "backend --listen {api} --push-url http://{bridge_admin} --database {database_url}{redis_flag} --set backend.gifts_per_second=1000000"
            ),
        )?;
        let gateway = |(index, listen): (usize, &String)| {
            start(
                &format!("gateway{index}"),
                format!(
                    "gateway --id {} --listen {listen} --routers {links} --bridges {bridge_links} {common}",
                    33 + index
                ),
            )
        };
        let gateways = targets.iter().enumerate().map(gateway).collect::<Result<_, _>>()?;
        let targets = targets.join(",");
        let api = format!("http://{api}");
        Ok(Self {
            database,
            redis,
            bridge,
            backend,
            _router: router,
            _gateways: gateways,
            targets,
            api,
            database_url,
            folder,
        })
    }

    /// `sailfish load gift` against it, with these flags more; its figures go to `json`.
    pub fn load(&self, programs: &Path, json: &Path, flags: &[&str]) -> Command {
        let mut command = Command::new(programs.join("sailfish"));
        command.args([
            "load",
            "gift",
            "--target",
            &self.targets,
            "--backend",
            &self.api,
            "--backend-secret",
            INTERNAL_SECRET,
        ]);
        command.arg("--json").arg(json).args(flags).envs(SECRETS).stdin(Stdio::null());
        command
    }

    /// Gifts that the backend has committed so far.
    pub fn committed(&self) -> anyhow::Result<i64> {
        let address = self.api.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "GET /internal/audit HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {INTERNAL_SECRET}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        let books: Option<Value> = body.and_then(|body| serde_json::from_str(body).ok());
        let committed = books.as_ref().and_then(|books| books["gifts_committed"].as_i64());
        committed.with_context(|| format!("the backend's audit has no sums: {answer}"))
    }

    /// A file beside the logs of all.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Node {
    /// Starts `sailfish` with the arguments of `line` and waits until it is ready; it logs to `folder`.
    pub fn start(programs: &Path, folder: &Path, name: &str, line: &str) -> anyhow::Result<Self> {
        Self::start_by(&[], programs, folder, name, line)
    }

    /// The same by a command such as `nice -n 5`, which becomes the node.
    pub fn start_by(
        wrapper: &[&str],
        programs: &Path,
        folder: &Path,
        name: &str,
        line: &str,
    ) -> anyhow::Result<Self> {
        let program = programs.join("sailfish");
        let mut node = Self {
            command: wrapper.iter().map(PathBuf::from).chain([program]).collect(),
            arguments: line.split_whitespace().map(str::to_owned).collect(),
            log: folder.join(format!("{name}.log")),
            child: None,
            ready: String::new(),
        };
        node.start_again()?;
        Ok(node)
    }

    /// Its process, while it runs; it may have ended by itself.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The engine that it runs on.
    pub fn engine(&self) -> Option<&str> {
        self.ready.split_whitespace().find_map(|word| word.strip_prefix("engine="))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended by itself, which its log tells
            let _ = child.wait();
        }
    }

    /// Starts it, after it was killed, and waits until it is ready.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.kill();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(&self.arguments).envs(SECRETS);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("{}", self.command[0].display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it is piped")?).read_line(&mut line)?;
        self.child = Some(child);
        if !line.starts_with("ready ") {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("sailfish {} is not ready: {line}{log}", self.arguments.join(" "));
        }
        self.ready = line;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
