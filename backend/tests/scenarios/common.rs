//! What the scenarios share: deployments, and a client.

mod client;
mod clock;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backend::{App, Backend, Config, Topic};

use testbed::{Folder, Sentinels};

pub use client::{Answer, call, request};
pub use clock::TestClock;
pub use testbed::{MariaDb, Redis, free_port};

/// Defines a test that runs on both deployments: `both!(name, |stack| async move { .. })`. Its documentation
/// goes inside: `both!(/// B6: ..` on a line of its own, then the name.
macro_rules! both {
    ($(#[$meta:meta])* $name:ident, |$stack:ident| $body:expr) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn scenario($stack: $crate::common::Stack) {
                $body.await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                scenario($crate::common::Stack::embedded().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn production() {
                scenario($crate::common::Stack::production().await).await;
            }
        }
    };
}

/// How long a node may take to end.
const STOP_TIME: Duration = Duration::from_secs(10);

/// The servers that all tests share, started once.
pub struct Servers {
    pub primary: MariaDb,
    pub replica: MariaDb,
    pub redis: Redis,
}

impl Servers {
    /// Starts some that a test may stop, kill and slow down, since they are its own.
    pub fn start() -> Self {
        let primary = MariaDb::primary();
        Self { replica: MariaDb::replica_of(&primary), primary, redis: Redis::start() }
    }
}

/// Blocks while they start.
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(Servers::start)
}

/// Where a test's backends keep their state: a database and a prefix in Redis that are its own.
pub struct Stack {
    config: Config,
    clock: TestClock,
}

impl Stack {
    /// SQLite in a temporary folder; cache and queue in the process and in it.
    pub async fn embedded() -> Self {
        let folder = folder("embedded");
        let database = format!("sqlite:{}", folder.join("backend.db").display());
        Self::new(Config { database, ..secrets() })
    }

    /// The MariaDB and the Redis that all tests share.
    pub async fn production() -> Self {
        Self::on(servers())
    }

    /// A database and a prefix of its own on these.
    pub fn on(servers: &Servers) -> Self {
        let Servers { primary, replica, redis } = servers;
        let name = unique("t");
        primary.create(&name);
        let there = format!("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = '{name}'");
        replica.until(&there, 1);
        Self::new(Config {
            database: primary.url(&name),
            replicas: vec![replica.url(&name)],
            redis: redis.url(),
            prefix: name,
            ..secrets()
        })
    }

    /// The same without Redis: cache and queue in the process and in the database.
    pub fn without_redis(mut self) -> Self {
        self.config.redis.clear();
        self
    }

    /// The same with a database of its own on this server.
    pub fn with_database(mut self, server: &MariaDb) -> Self {
        let name = unique("t");
        server.create(&name);
        self.config.database = server.url(&name);
        self
    }

    /// The same with this Redis.
    pub fn with_redis(mut self, redis: &Redis) -> Self {
        self.config.redis = redis.url();
        self
    }

    /// The same with the master of these.
    pub fn with_sentinels(mut self, redis: &Sentinels) -> Self {
        (self.config.redis, self.config.redis_sentinels) = (redis.master_url(), redis.urls());
        self
    }

    /// The stream of a topic in Redis.
    pub fn stream(&self, topic: Topic) -> String {
        format!("{}:queue:{}", self.config.prefix, topic.name())
    }

    fn new(config: Config) -> Self {
        Self { config, clock: TestClock::default() }
    }

    /// What a backend here is configured with; a test may change it and give it to [`Stack::backend_with`].
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// The clock of all backends here. It does not move the life of keys in Redis.
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// Starts a backend. Several have the same state.
    pub async fn backend(&self) -> Node {
        self.backend_with(self.config()).await
    }

    /// What a backend has, without its API and its workers.
    pub async fn app(&self) -> Arc<App> {
        App::open(self.config(), self.clock.source()).await.expect("the backend opens")
    }

    /// Starts a backend that is configured otherwise.
    pub async fn backend_with(&self, config: Config) -> Node {
        let app = App::open(config, self.clock.source()).await.expect("the backend opens");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Node { backend: Backend::start(app, listener).expect("the backend starts") }
    }
}

/// A backend at work.
pub struct Node {
    backend: Backend,
}

impl Node {
    /// Where its API is, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.backend.address())
    }

    /// What its handlers and workers share.
    pub fn app(&self) -> &Arc<App> {
        self.backend.app()
    }

    /// Ends it as SIGTERM does.
    pub async fn stop(self) {
        self.backend.stop(STOP_TIME).await;
    }

    /// Ends it as SIGKILL does: nothing that is under way goes on. Aborted tasks end when the runtime comes
    /// to them, and a step that one of them is in is still taken: on a busy machine that is later, so their
    /// end is waited for.
    pub async fn kill(self) {
        // Whatever works has the store.
        let store = Arc::downgrade(&self.app().store);
        drop(self.backend);
        until("nothing of the killed backend runs", || async { store.strong_count() == 0 }).await;
    }
}

/// Every secret and every page is there.
fn secrets() -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        push_url: "http://127.0.0.1:9".into(), // discard: refused at once
        push_secret: "push-secret".into(),
        bridge_secret: "bridge-secret".into(),
        im_secret: b"im-secret-of-at-least-32-bytes-00".to_vec(),
        internal_secret: "internal-secret".into(),
        provider_secret: "provider-secret".into(),
        mock: true,
        // All callers of a test are at one address.
        codes_per_address_hour: 10_000,
        login_tries_per_address_minute: 10_000,
        ..Config::default()
    }
}

/// A name that no other test of this process has.
pub fn unique(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{kind}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A folder of the test's own. All go when the process has ended, however it ended.
pub fn folder(kind: &str) -> PathBuf {
    Folder::new(kind).keep()
}

/// Waits until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("30 s, and still not: {what}");
}

/// Numbers that a seed repeats, by xorshift; the seed is not 0.
pub struct Prng(pub u64);

impl Prng {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
