//! MariaDB: a primary whose commits outlive a crash, and replicas of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use crate::folder::Folder;
use crate::process::{Server, free_port, run};

/// A MariaDB of one's own.
pub struct MariaDb {
    server: Server,
    _folder: Folder,
}

impl MariaDb {
    /// Starts a primary, empty.
    pub fn primary() -> Self {
        Self::start(1, &["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"])
    }

    /// Starts a replica of `primary`, which has all that was written there before, and what follows `delay_s` seconds later. `number` is
    /// unlike that of the primary (1) and of other replicas.
    pub fn replica(primary: &MariaDb, number: u32, delay_s: u32) -> Self {
        let replica = Self::start(number, &["--read-only=1"]);
        let port = primary.address().port();
        replica.sql(&format!(
            "SET GLOBAL gtid_slave_pos = ''; CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'sailfish', \
             MASTER_PASSWORD = 'sailfish', MASTER_USE_GTID = slave_pos, MASTER_DELAY = {delay_s}, MASTER_CONNECT_RETRY = 1; START SLAVE"
        ));
        replica
    }

    fn start(number: u32, more: &[&str]) -> Self {
        let (folder, port) = (Folder::new("mariadb"), free_port());
        let data = folder.path().join("data");
        install(&data);
        let mut command: Vec<String> = [
            "mariadbd",
            "--no-defaults",
            "--user=root",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=128M",
            "--innodb-log-file-size=32M",
            "--max-connections=500",
            "--log-bin=binlog",
            "--log-slave-updates=1",
            "--gtid-strict-mode=1",
            "--binlog-format=ROW",
        ]
        .map(str::to_owned)
        .to_vec();
        command.extend(more.iter().map(|flag| (*flag).to_owned()));
        command.push(format!("--port={port}"));
        command.push(format!("--server-id={number}"));
        command.push(format!("--datadir={}", data.display()));
        command.push(format!("--socket={}", folder.path().join("socket").display()));
        command.push(format!("--pid-file={}", folder.path().join("pid").display()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Server::start(command, &folder.path().join("log"), address, true);
        let this = Self { server, _folder: folder };
        // Not in the binary log: a replica has its own.
        this.sql(
            "SET sql_log_bin = 0; CREATE USER IF NOT EXISTS 'sailfish'@'%' IDENTIFIED BY 'sailfish'; \
             GRANT ALL ON *.* TO 'sailfish'@'%'; FLUSH PRIVILEGES",
        );
        this
    }

    /// The database `name` as a URL; it is made by [`MariaDb::create`].
    pub fn url(&self, name: &str) -> String {
        format!("mysql://sailfish:sailfish@{}/{name}", self.server.address())
    }

    /// Makes a database.
    pub fn create(&self, name: &str) {
        self.sql(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
    }

    /// Runs statements as root; what they answer, tab-separated without headings.
    pub fn sql(&self, statements: &str) -> String {
        let port = self.server.address().port();
        let arguments =
            ["--no-defaults", "-h127.0.0.1", &format!("-P{port}"), "-uroot", "-N", "-B"].map(str::to_owned);
        run("mariadb", &arguments, statements)
    }
}

/// Makes a data folder.
fn install(data: &Path) {
    let arguments = [
        "--no-defaults",
        &format!("--datadir={}", data.display()),
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--user=root",
        "--innodb-log-file-size=32M",
    ];
    run("mariadb-install-db", &arguments.map(str::to_owned), "");
}

impl Deref for MariaDb {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for MariaDb {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}
