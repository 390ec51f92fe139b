//! What stands around a bridge: events, the shards that wait for them, a redis-server.

use std::collections::HashMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use biz_bridge::{Bridge, Config, Item, Mode, Push, Pushed, Pushes, Shards};
use bytes::Bytes;
use testbed::free_port;
use wire::client::{FailReason, Message};
use wire::node::{Login, SessionId, Taken, ToBridge};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const SECRET: &[u8] = b"it is secret";
pub const APP: AppId = AppId(1);
pub const SHARD: u32 = 0x3_0001;
pub const INCARNATION: u64 = 0xabc;

/// The name of an event of [`item`] as a backend sees it.
pub fn id(seq: u64) -> String {
    format!("30001-abc-{seq:x}")
}

pub fn item(seq: u64, event: ToBridge) -> Item {
    Item { shard: SHARD, incarnation: INCARNATION, seq, event }
}

pub fn request(user: i64, payload: &[u8]) -> ToBridge {
    ToBridge::Request {
        session: SessionId(9),
        device: DeviceClass::Phone,
        room: Some(RoomId(7)),
        app: APP,
        sender: UserId(user),
        biz_code: BizCode(5560),
        received_ms: 0,
        client_msg_id: ClientMsgId::new(Bytes::from_static(b"g1")),
        payload: Bytes::copy_from_slice(payload),
    }
}

pub fn undelivered(user: i64, reason: FailReason) -> ToBridge {
    let message = Message {
        id: MessageId(77),
        app: APP,
        sender: UserId(2),
        biz_code: BizCode(6001),
        room: None,
        sequence: 0,
        ack_wanted: true,
        client_msg_id: ClientMsgId::new(Bytes::from_static(b"m1")),
        payload: Bytes::from_static(b"hi"),
    };
    ToBridge::Undelivered { user: UserId(user), reason, message, delivery: wire::node::DeliveryId(1) }
}

pub fn online(user: i64) -> ToBridge {
    ToBridge::Online { app: APP, user: UserId(user), device: DeviceClass::Web, login: Login(5) }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let from = Instant::now();
    while !is_so() {
        assert!(from.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Shards that remember what was taken.
#[derive(Default)]
pub struct Ledger {
    taken: Mutex<HashMap<(u32, u64, u64), Vec<Taken>>>,
    changed: Condvar,
}

impl Shards for Ledger {
    fn taken(&self, shard: u32, incarnation: u64, results: Vec<(u64, Taken)>) {
        let mut taken = self.taken.lock().unwrap();
        for (seq, result) in results {
            taken.entry((shard, incarnation, seq)).or_default().push(result);
        }
        self.changed.notify_all();
    }
}

impl Ledger {
    /// Waits until so many events are taken.
    pub fn wait_for(&self, count: usize) {
        let taken = self.taken.lock().unwrap();
        let (taken, waited) =
            self.changed.wait_timeout_while(taken, PATIENCE, |taken| taken.len() < count).unwrap();
        assert!(!waited.timed_out(), "{} of {count} events are taken", taken.len());
    }

    pub fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// What was said of an event of [`item`], each time.
    pub fn of(&self, seq: u64) -> Vec<Taken> {
        self.taken.lock().unwrap().get(&(SHARD, INCARNATION, seq)).cloned().unwrap_or_default()
    }

    /// Whether each of these events was taken, once.
    pub fn assert_all_ok(&self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            assert_eq!(self.of(seq), [Taken::Ok], "event {seq}");
        }
    }
}

/// Nobody pushes.
pub struct NoPushes;

impl Pushes for NoPushes {
    async fn push(&self, pushes: Vec<Push>) -> Vec<Pushed> {
        panic!("{pushes:?} without a push stream");
    }
}

/// Short waits, and a breaker that never opens.
pub fn config(mode: Mode) -> Config {
    Config {
        timeout: Duration::from_secs(10),
        retry_first: Duration::from_millis(2),
        retry_max: Duration::from_millis(20),
        breaker_failures: u32::MAX,
        breaker_pause: Duration::from_millis(20),
        ..Config::new(mode, "bridge-1".into())
    }
}

pub fn start(config: Config) -> (Bridge, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    let bridge = Bridge::start(config, ledger.clone(), NoPushes).unwrap();
    (bridge, ledger)
}

/// A redis-server that keeps its data over a kill, which takes `appendfsync always`; it goes with the test.
pub struct Redis {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Redis {
    pub fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("sailfish-bridge-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for _ in 0..5 {
            let port = free_port();
            let mut redis = Self { child: spawn(port, &folder), port, folder: folder.clone() };
            if redis.is_up() {
                return redis;
            } // else another program was quicker on that port
        }
        panic!("redis-server does not start; its log is in {}", folder.display());
    }

    fn is_up(&mut self) -> bool {
        let from = Instant::now();
        while from.elapsed() < PATIENCE && self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.ask(&["PING"]) == "PONG" {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL: it says goodbye to nobody.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with its data.
    pub fn start_again(&mut self) {
        self.child = spawn(self.port, &self.folder);
        assert!(self.is_up());
    }

    pub fn query<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = ::redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection_with_timeout(PATIENCE).unwrap();
        ::redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
    }

    /// What a command answers, as `redis-cli` prints it.
    pub fn ask(&self, words: &[&str]) -> String {
        let output =
            Command::new("redis-cli").arg("-p").arg(self.port.to_string()).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder); // left to the system's cleaning otherwise
    }
}

fn spawn(port: u16, folder: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--logfile",
            "log",
        ])
        .arg("--port")
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start redis-server ({error}): install redis-server"))
}
