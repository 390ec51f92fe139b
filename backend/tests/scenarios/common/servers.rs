//! Servers of the test process's own, on free ports of 127.0.0.1 and in one temporary folder.
//!
//! Each has a shell that watches this process by a pipe: however this process ends, the shells see the pipe's end, kill the servers
//! and remove the folder. A server that cannot be had fails the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};

/// How long a server may take to start.
const START_TIME: Duration = Duration::from_secs(60);

/// The servers that all tests share, started once.
pub struct Servers {
    pub primary: MariaDb,
    pub replica: MariaDb,
    pub redis: Redis,
}

/// The servers that all tests share. Blocks while they start.
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let redis = Redis::start();
        let primary = MariaDb::primary();
        let replica = MariaDb::replica_of(&primary);
        Servers { primary, replica, redis }
    })
}

/// The folder of this process. A shell removes it when the process has ended.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (root, _) = ROOT.get_or_init(|| {
        let root = temporary().join(format!("sailfish-backend-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        // Servers may write for a moment after they were killed.
        let script =
            "trap '' INT TERM HUP; cat >/dev/null; sleep 0.3; until rm -rf \"$1\"; do sleep 0.3; done";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&root);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        (root, command.spawn().expect("sh"))
    });
    root
}

/// In memory where there is room: the servers' settings are production's, and a test needs no disk to wait for.
fn temporary() -> PathBuf {
    let free = Command::new("df").args(["--output=avail", "/dev/shm"]).output();
    let free = free.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let free_kb = free.and_then(|text| text.lines().last()?.trim().parse::<u64>().ok());
    match free_kb {
        Some(free_kb) if free_kb > 2 << 20 => "/dev/shm".into(),
        _ => std::env::temp_dir(),
    }
}

/// Servers are in folders that not every user has in the path.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin"
}

/// A port that is free at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server process, and the shell that watches over it.
struct Process {
    shell: Child,
    pid: u32,
}

impl Process {
    /// Starts it; `None` if it has not opened its port, as when another process took that meanwhile.
    fn start(program: &str, arguments: &[String], port: u16, log: &Path) -> Option<Self> {
        let script = "trap '' INT TERM HUP; exec 3>>\"$1\"; shift; \"$@\" </dev/null >&3 2>&3 & echo $!; \
                      cat >/dev/null; kill -9 $!; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(log).arg(program).args(arguments);
        command.env("PATH", path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut shell = command.spawn().expect("sh");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let process = Self { shell, pid: line.trim().parse().unwrap() };
        let start = Instant::now();
        while start.elapsed() < START_TIME && process.is_alive() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(process);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn is_alive(&self) -> bool {
        // A server that has ended is the shell's zombie until the shell ends.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        status.contains("State:") && !status.contains("State:\tZ")
    }
}

impl Drop for Process {
    /// SIGKILL, and it is gone.
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// What can be killed and started again with what it has on disk.
struct Server {
    program: &'static str,
    /// Given the port.
    arguments: Box<dyn Fn(u16) -> Vec<String> + Send + Sync>,
    log: PathBuf,
    port: u16,
    process: Mutex<Option<Process>>,
}

impl Server {
    fn start(
        program: &'static str,
        folder: &Path,
        arguments: impl Fn(u16) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let log = folder.join("log");
        for _ in 0..3 {
            let port = free_port();
            if let Some(process) = Process::start(program, &arguments(port), port, &log) {
                let process = Mutex::new(Some(process));
                return Self { program, arguments: Box::new(arguments), log, port, process };
            }
        }
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        panic!(
            "{program} does not start, and these tests do not pass without it (cargo xtask ci installs it):\n{log}"
        );
    }

    fn kill(&self) {
        drop(self.process.lock().unwrap().take());
    }

    fn restart(&self) {
        self.kill();
        let process = Process::start(self.program, &(self.arguments)(self.port), self.port, &self.log);
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        *self.process.lock().unwrap() =
            Some(process.unwrap_or_else(|| panic!("{} does not start again:\n{}", self.program, log())));
    }
}

/// A redis-server that keeps what it was told.
pub struct Redis(Server);

impl Redis {
    /// Starts one.
    pub fn start() -> Self {
        let folder = super::folder("redis");
        let dir = folder.display().to_string();
        Self(Server::start("redis-server", &folder, move |port| {
            let port = port.to_string();
            let own = ["--bind", "127.0.0.1", "--port", &port, "--dir", &dir];
            let all =
                own.into_iter().chain(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
            all.map(str::to_owned).collect()
        }))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port)
    }

    /// kill -9.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// Starts it on the same port, with what its append-only file has.
    pub fn restart(&self) {
        self.0.restart();
    }

    /// A connection for the test.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        for _ in 0..250 {
            if let Ok(connection) = client.get_multiplexed_async_connection().await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("redis-server does not answer");
    }

    /// The number that a command answers; of several values, the first.
    pub async fn number(&self, command: &str, arguments: &[&str]) -> i64 {
        let mut command = redis::cmd(command);
        command.arg(arguments);
        match command.query_async(&mut self.connection().await).await.unwrap() {
            redis::Value::Array(values) => match values.first() {
                Some(redis::Value::Int(number)) => *number,
                other => panic!("{other:?}"),
            },
            redis::Value::Int(number) => number,
            other => panic!("{other:?}"),
        }
    }

    /// Forgets everything. Only for one that is the test's own.
    pub async fn flush(&self) {
        let _: () = redis::cmd("FLUSHALL").query_async(&mut self.connection().await).await.unwrap();
    }
}

/// A mariadbd.
pub struct MariaDb(Server);

impl MariaDb {
    /// A primary, as durable as in production.
    pub fn primary() -> Self {
        Self::start(&["--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1"])
    }

    /// A replica of it.
    pub fn replica_of(primary: &Self) -> Self {
        let replica =
            Self::start(&["--read-only=1", "--sync-binlog=0", "--innodb-flush-log-at-trx-commit=0"]);
        let port = primary.0.port;
        let statement = format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'admin', \
             MASTER_PASSWORD = 'admin', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1"
        );
        replica.blocking(&[&statement, "START SLAVE"]);
        replica
    }

    fn start(own: &[&str]) -> Self {
        static SERVER_ID: AtomicU32 = AtomicU32::new(1);
        let id = SERVER_ID.fetch_add(1, Ordering::Relaxed);
        let folder = super::folder("mariadb");
        let (data, init) = (folder.join("data"), folder.join("init.sql"));
        let copied = Command::new("cp").arg("-r").args([template(), &data]).status();
        assert!(copied.unwrap().success(), "cannot copy the template");
        // `admin` is the test's and the replicas'; `sailfish` has no SUPER, so that a read-only server is one for it.
        let users = "SET sql_log_bin = 0;\n\
                     CREATE USER IF NOT EXISTS 'admin'@'%' IDENTIFIED BY 'admin';\n\
                     GRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION;\n\
                     CREATE USER IF NOT EXISTS 'sailfish'@'%' IDENTIFIED BY 'sailfish';\n\
                     GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES ON *.* TO 'sailfish'@'%';\n";
        File::create(&init).unwrap().write_all(users.as_bytes()).unwrap();
        let socket = folder.join("socket");
        let mut fixed = vec![
            "--no-defaults".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--datadir={}", data.display()),
            format!("--socket={}", socket.display()),
            format!("--init-file={}", init.display()),
            format!("--server-id={id}"),
        ];
        if is_root() {
            fixed.push("--user=root".into());
        }
        fixed.extend(INNODB_SMALL.iter().chain(SERVER).chain(own).map(|&argument| argument.to_owned()));
        Self(Server::start("mariadbd", &folder, move |port| {
            let mut arguments = fixed.clone();
            arguments.push(format!("--port={port}"));
            arguments
        }))
    }

    /// What a backend is configured with.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://sailfish:sailfish@127.0.0.1:{}/{database}", self.0.port)
    }

    /// kill -9.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// Starts it on the same port; InnoDB recovers.
    pub fn restart(&self) {
        self.0.restart();
    }

    /// A connection that may do everything.
    pub async fn connection(&self) -> MySqlConnection {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.0.port);
        let options = options.username("admin").password("admin").disable_statement_logging();
        for _ in 0..250 {
            // The port is open a moment before the users of --init-file are there.
            if let Ok(connection) = options.connect().await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let error = options.connect().await.expect_err("it has failed for 5 s");
        panic!("mariadbd does not answer: {error}");
    }

    /// Runs a statement.
    pub async fn execute(&self, statement: &str) {
        let done = self.connection().await.execute(AssertSqlSafe(statement.to_owned())).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// A number.
    pub async fn number(&self, query: &str) -> i64 {
        let row = self.connection().await.fetch_one(AssertSqlSafe(query.to_owned())).await;
        row.unwrap_or_else(|error| panic!("{query}: {error}")).get(0)
    }

    /// Waits until a query answers this number.
    pub async fn until(&self, query: &str, number: i64) {
        let start = Instant::now();
        while self.number(query).await != number {
            assert!(start.elapsed() < Duration::from_secs(30), "30 s, and still not {number}: {query}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Makes a replica follow so many seconds behind.
    pub async fn delay(&self, seconds: u32) {
        self.execute("STOP SLAVE").await;
        self.execute(&format!("CHANGE MASTER TO MASTER_DELAY = {seconds}")).await;
        self.execute("START SLAVE").await;
    }

    fn blocking(&self, statements: &[&str]) {
        // The caller's thread may have a runtime already.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for statement in statements {
                        self.execute(statement).await;
                    }
                });
            });
        });
    }
}

/// A data folder as the installer makes it; made once, copied for each server.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let folder = super::folder("template");
        let mut command = Command::new("mariadb-install-db");
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg(format!("--datadir={}", folder.display())).args(INNODB_SMALL).stdin(Stdio::null());
        if is_root() {
            command.arg("--user=root");
        }
        let output = command.output().unwrap_or_else(|error| {
            panic!(
                "mariadb-install-db: {error}; these tests do not pass without it (cargo xtask ci installs it)"
            )
        });
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "mariadb-install-db: {text}");
        folder
    })
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout == b"0\n")
}

const INNODB_SMALL: &[&str] =
    &["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M", "--skip-name-resolve"];
/// A table in a file of its own would cost each test of a hundred tables a second.
const SERVER: &[&str] = &[
    "--innodb-file-per-table=0",
    "--log-bin=binlog",
    "--gtid-strict-mode=1",
    "--max-connections=500",
    "--performance-schema=0",
    "--character-set-server=utf8mb4",
];
