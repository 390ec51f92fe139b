//! Redis with a replica, and Sentinels that make it the master when the other is gone.

use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::process::{Server, run};
use crate::redis::{Redis, answers};

/// What the sentinels call the master.
pub const MASTER: &str = "mymaster";
/// How long they may take to find each other and the replica.
const GATHER_TIME: Duration = Duration::from_secs(60);

/// How a Redis with Sentinels is made.
#[derive(Clone, Copy, Default)]
pub struct SentinelPlan {
    /// Sentinels.
    pub count: usize,
    /// How many of them must miss the master.
    pub quorum: usize,
    /// The password that Redis asks clients for, if any.
    pub password: Option<&'static str>,
    /// What the sentinels want.
    pub sentinel_password: Option<&'static str>,
    /// The certificate of all servers, its key and its authority, if all speak TLS.
    pub tls: Option<[&'static str; 3]>,
}

/// One master, one replica, and sentinels that miss a master after a second.
pub struct Sentinels {
    /// The master at first.
    pub first: Redis,
    /// Its replica.
    pub second: Redis,
    /// Those that watch them.
    pub sentinels: Vec<Server>,
    ports: Vec<u16>,
    plan: SentinelPlan,
    _folder: Folder,
}

impl Sentinels {
    /// Starts them, and waits until all know each other.
    pub fn start(plan: SentinelPlan) -> Self {
        let tls = plan.tls.map(|[chain, key, authority]| {
            format!(
                "--tls-cert-file {chain} --tls-key-file {key} --tls-ca-cert-file {authority} --tls-auth-clients no --tls-replication yes"
            )
        });
        let first = Redis::start_watched(None, plan.password, tls.as_deref());
        let second = Redis::start_watched(Some(first.watched_port()), plan.password, tls.as_deref());
        let folder = Folder::new("sentinels");
        let mut it = Self { first, second, sentinels: Vec::new(), ports: Vec::new(), plan, _folder: folder };
        for number in 0..plan.count {
            it.start_sentinel(number, tls.as_deref());
        }
        it.gather();
        it
    }

    fn start_sentinel(&mut self, number: usize, tls: Option<&str>) {
        let Self { plan, first, .. } = self;
        let own = self._folder.path().join(format!("{number}"));
        std::fs::create_dir(&own).unwrap();
        let tls_port = tls.map(|_| crate::free_port());
        let mut config = format!(
            "bind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {} {}\n\
             sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 6000\n",
            own.display(),
            first.watched_port(),
            plan.quorum
        );
        if let Some(password) = plan.password {
            config += &format!("sentinel auth-pass {MASTER} {password}\n");
        }
        if let Some(password) = plan.sentinel_password {
            config += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
        }
        if let (Some(tls), Some(port)) = (tls, tls_port) {
            config += &format!("tls-port {port}\n");
            for flag in tls.split("--").filter(|flag| !flag.is_empty()) {
                config += &format!("{}\n", flag.trim());
            }
        }
        let file = own.join("sentinel.conf");
        let command = |port: u16| {
            std::fs::write(&file, format!("port {port}\n{config}")).unwrap();
            vec!["redis-server".into(), file.display().to_string(), "--sentinel".into()]
        };
        let server = Server::start(command, &own.join("log"), answers);
        self.ports.push(tls_port.unwrap_or(server.address().port()));
        self.sentinels.push(server);
    }

    /// A replica that the sentinels do not know yet cannot become the master.
    fn gather(&self) {
        let start = Instant::now();
        loop {
            let is_synced = self.second.command(&["INFO", "replication"]).contains("master_link_status:up");
            let knows_all = |number: usize| {
                let replicas = self.ask(number, &["SENTINEL", "REPLICAS", MASTER]);
                let master = self.ask(number, &["SENTINEL", "MASTER", MASTER]);
                let others = master.lines().skip_while(|line| *line != "num-other-sentinels").nth(1);
                replicas.contains("master-link-status\nok")
                    && others.is_some_and(|count| count.parse() == Ok(self.plan.count - 1))
            };
            if is_synced && (0..self.plan.count).all(knows_all) {
                return;
            }
            assert!(start.elapsed() < GATHER_TIME, "the sentinels do not find each other");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the replica has all that the master was told. WAIT would not: it counts replicas that have
    /// what its own connection wrote.
    pub fn replicate(&self) {
        const MARK: &str = "testbed:mark";
        let mark = self.first.number(&["INCR", MARK]).to_string();
        let start = Instant::now();
        while self.second.command(&["GET", MARK]).trim_end() != mark {
            assert!(start.elapsed() < GATHER_TIME, "the replica stays behind");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command at a sentinel; each value that it answers in a line.
    pub fn ask(&self, number: usize, command: &[&str]) -> String {
        let port = self.sentinels[number].address().port().to_string();
        let password = self.plan.sentinel_password.map(|password| ["--no-auth-warning", "-a", password]);
        let at = ["-h", "127.0.0.1", "-p", &port];
        run("redis-cli", at.iter().chain(password.iter().flatten()).chain(command))
    }

    /// The URLs of the sentinels.
    pub fn urls(&self) -> Vec<String> {
        let url = |port: &u16| {
            url(self.plan.tls.is_some(), self.plan.sentinel_password, &format!("127.0.0.1:{port}"))
        };
        self.ports.iter().map(url).collect()
    }

    /// The URL of the master, with its name in the place of a host.
    pub fn master_url(&self) -> String {
        url(self.plan.tls.is_some(), self.plan.password, MASTER)
    }
}

fn url(is_tls: bool, password: Option<&str>, host: &str) -> String {
    let password = password.map(|password| format!(":{password}@")).unwrap_or_default();
    format!("{}://{password}{host}", if is_tls { "rediss" } else { "redis" })
}
