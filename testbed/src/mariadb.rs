//! MariaDB: a primary whose commits outlive a crash, and replicas of it.

use std::io::Read;
use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::process::{Server, run};

/// How long [`MariaDb::until`] waits.
const UNTIL_TIME: Duration = Duration::from_secs(30);
/// Of the data folder, so the same wherever it is made and used.
const LOG_SIZE: &str = "--innodb-log-file-size=32M";
/// A table in a file of its own would cost each test of a hundred tables a second.
const FLAGS: &[&str] = &[
    "--no-defaults",
    "--user=root",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    LOG_SIZE,
    "--innodb-buffer-pool-size=128M",
    "--innodb-file-per-table=0",
    "--max-connections=500",
    "--log-bin=binlog",
    "--gtid-strict-mode=1",
    "--binlog-format=ROW",
];
/// What a backend needs, and no SUPER: with that, a replica that is read-only is not so.
const USER: &str = "SET sql_log_bin = 0; CREATE USER IF NOT EXISTS 'sailfish'@'%' IDENTIFIED BY 'sailfish'; \
                    GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES ON *.* TO 'sailfish'@'%'";

/// A MariaDB of one's own.
pub struct MariaDb {
    server: Server,
    _folder: Folder,
}

impl MariaDb {
    /// Starts a primary, empty.
    pub fn primary() -> Self {
        Self::primary_in(Folder::new("mariadb"))
    }

    /// Starts a primary that shows this certificate, and lets backends in by TLS only.
    pub fn primary_with_tls(chain: &Path, key: &Path) -> Self {
        let (chain, key) =
            (format!("--ssl-cert={}", chain.display()), format!("--ssl-key={}", key.display()));
        let primary =
            Self::start(Folder::new("mariadb"), &["--innodb-flush-log-at-trx-commit=0", &chain, &key]);
        primary.sql("ALTER USER 'sailfish'@'%' REQUIRE SSL");
        primary
    }

    /// Starts a primary that has its data in this folder.
    pub fn primary_in(folder: Folder) -> Self {
        Self::start(folder, &["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"])
    }

    /// Starts a replica of `primary`, which has all that was written there before, and what follows.
    pub fn replica_of(primary: &Self) -> Self {
        let own = ["--read-only=1", "--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0"];
        let replica = Self::start(Folder::new("mariadb"), &own);
        let port = primary.address().port();
        replica.sql(&format!(
            "SET GLOBAL gtid_slave_pos = ''; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
             MASTER_USER = 'root', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1; START SLAVE"
        ));
        replica
    }

    fn start(folder: Folder, own: &[&str]) -> Self {
        static SERVER_ID: AtomicU32 = AtomicU32::new(1);
        let server_id = SERVER_ID.fetch_add(1, Ordering::Relaxed);
        let data = folder.path().join("data");
        run("cp", ["-r".as_ref(), template(), &data]);
        let command = |port| {
            let flags = [&["mariadbd"], FLAGS, own].concat().into_iter().map(str::to_owned);
            let file = |flag: &str, name: &str| format!("--{flag}={}", folder.path().join(name).display());
            let own = [
                format!("--port={port}"),
                format!("--server-id={server_id}"),
                file("datadir", "data"),
                file("socket", "socket"),
                file("pid-file", "pid"),
            ];
            flags.chain(own).collect()
        };
        let server = Server::start(command, &folder.path().join("log"), |stream| {
            stream.read_exact(&mut [0])?; // it speaks first
            Ok(true)
        });
        let this = Self { server, _folder: folder };
        this.sql(USER);
        this
    }

    /// The database `name` as a backend is configured with; it is made by [`MariaDb::create`].
    pub fn url(&self, name: &str) -> String {
        format!("mysql://sailfish:sailfish@{}/{name}", self.server.address())
    }

    /// Makes a database.
    pub fn create(&self, name: &str) {
        self.sql(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
    }

    /// Runs statements as root; what they answer, tab-separated without headings.
    pub fn sql(&self, statements: &str) -> String {
        let port = format!("-P{}", self.server.address().port());
        run("mariadb", ["--no-defaults", "-h127.0.0.1", &port, "-uroot", "-N", "-B", "-e", statements])
    }

    /// The number that a query answers.
    pub fn number(&self, query: &str) -> i64 {
        let text = self.sql(query);
        text.trim().parse().unwrap_or_else(|_| panic!("{query}: {text}"))
    }

    /// Waits until a query answers this number.
    pub fn until(&self, query: &str, number: i64) {
        let start = Instant::now();
        while self.number(query) != number {
            assert!(start.elapsed() < UNTIL_TIME, "{UNTIL_TIME:?}, and still not {number}: {query}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes a replica follow so many seconds behind.
    pub fn delay(&self, seconds: u32) {
        self.sql(&format!("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = {seconds}; START SLAVE"));
    }
}

/// A data folder as the installer makes it: made once, copied for each server.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<Folder> = OnceLock::new();
    let make = || {
        let folder = Folder::new("template");
        let data = format!("--datadir={}", folder.path().display());
        let flags =
            ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"];
        run("mariadb-install-db", flags.into_iter().chain([LOG_SIZE, &data]));
        folder
    };
    TEMPLATE.get_or_init(make).path()
}

impl Deref for MariaDb {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
