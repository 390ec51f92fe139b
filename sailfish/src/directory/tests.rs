//! The directory against a real redis-server, one for each test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::Receiver;

use redis::{Connection, FromRedisValue, cmd};
use rustix::process::{Pid, Signal, kill_process};
use testbed::free_port;
use wire::client::Message;
use wire::{BizCode, ClientMsgId, MessageId};

use super::*;

const APP: AppId = AppId(1);
const PHONE: DeviceClass = DeviceClass::Phone;
/// Of the node under test.
const NODE: u16 = 1;
const INCARNATION: u64 = 1_700_000_000_123_456_789;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who asks for a stream.
const FROM: ShardId = ShardId::new(NODE, 3);
const STREAMS: StreamBounds = StreamBounds { messages: 200, ms: 60_000 };

/// A redis-server of its own on a free port; it dies with the test.
struct Server {
    child: Child,
    port: u16,
    dir: PathBuf,
    options: Vec<String>,
}

impl Server {
    fn start() -> Self {
        Self::start_with(Vec::new)
    }

    /// A part of a Cluster, without slots.
    fn start_clustered() -> Self {
        let options =
            |port: u16| ["--cluster-enabled", "yes", "--cluster-port", &port.to_string()].map(str::to_owned);
        Self::start_with(|| options(free_port()).into())
    }

    fn start_with(options: impl Fn() -> Vec<String>) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sailfish-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for _ in 0..5 {
            let (port, options) = (free_port(), options());
            let child = spawn(port, &dir, &options);
            let mut server = Self { child, port, dir: dir.clone(), options };
            if server.is_up() {
                return server;
            } // else another program was quicker on that port
        }
        panic!("redis-server does not start; its log is in {}", dir.display());
    }

    fn is_up(&mut self) -> bool {
        let from = Instant::now();
        while from.elapsed() < PATIENCE && self.child.try_wait().unwrap().is_none() {
            let client = redis::Client::open(self.url()).unwrap();
            if client.get_connection_with_timeout(PATIENCE).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Kills it, with all its data.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(self.port, &self.dir, &self.options);
        assert!(self.is_up());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn connection(&self) -> Connection {
        let client = redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection_with_timeout(PATIENCE).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
    }

    /// Sends one command, its words apart by spaces.
    fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query(&mut self.connection()).unwrap()
    }

    /// What stands in a user's hash.
    fn user(&self, user: i64) -> BTreeMap<String, String> {
        self.ask(&format!("HGETALL t:user:{{1:{user}}}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(port: u16, dir: &Path, options: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--logfile", "log"])
        .arg("--port")
        .arg(port.to_string())
        .arg("--dir")
        .arg(dir)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start redis-server ({error}): install redis-server"))
}

/// A directory and what it tells.
struct Rig {
    directory: Directory,
    writer: Writer,
    news: Receiver<News>,
}

impl Rig {
    fn start(server: &Server) -> Self {
        Self::with(&config(server), node(NODE, Role::Gateway))
    }

    fn with(config: &DirectoryConfig, node: NodeInfo) -> Self {
        let (tell, news) = mpsc::channel();
        let directory = Directory::start(config, STREAMS, node, move |news| {
            let _ = tell.send(news); // a test may end first
        });
        let directory = directory.unwrap();
        Self { writer: directory.writer(), directory, news }
    }

    /// Waits for news of that kind; drops others.
    fn wait_for<T>(&self, what: &str, pick: impl Fn(News) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let news = self.news.recv_timeout(left).unwrap_or_else(|_| panic!("no news: {what}"));
            if let Some(picked) = pick(news) {
                return picked;
            }
        }
    }

    fn wait_for_resync(&self) {
        self.wait_for("resync", |news| (news == News::Resync).then_some(()));
    }

    fn wait_for_routers(&self, ids: &[u16]) {
        self.wait_for("routers", |news| match news {
            News::Routers(routers) => {
                routers.iter().map(|router| router.id).eq(ids.iter().copied()).then_some(())
            }
            _ => None,
        });
    }

    /// Looks a user up. Whatever was pushed before is in Redis when the answer comes.
    fn look_up(&self, user: i64) -> Vec<Binding> {
        let from = ShardId::new(NODE, 3);
        let asked = UserId(user);
        self.writer.push(Record::LookUp { from, app: APP, user: asked });
        self.wait_for("found", |news| match news {
            News::Found { to, app, user, bindings } if (to, app, user) == (from, APP, asked) => {
                Some(bindings)
            }
            _ => None,
        })
    }

    fn bind(&self, user: i64, login: u64) {
        self.writer.push(Record::Bind(binding(user, login)));
    }

    fn unbind(&self, user: i64, login: u64) {
        self.writer.push(Record::Unbind { app: APP, user: UserId(user), device: PHONE, login });
    }
}

fn config(server: &Server) -> DirectoryConfig {
    DirectoryConfig {
        redis: server.url(),
        redis_sentinels: Vec::new(),
        prefix: "t".into(),
        lease_ms: 900,
        timeout_ms: 300,
        queue_max: 65_536,
        history: true,
        roots: trust::Roots::default(),
    }
}

fn node(id: u16, role: Role) -> NodeInfo {
    let address = ([127, 0, 0, 1], 9).into();
    let links = (role == Role::Router).then_some(address);
    NodeInfo { id, incarnation: INCARNATION, role, shards: 2, links, clients: None, admin: address }
}

fn binding(user: i64, login: u64) -> Binding {
    let shard = ShardId::new(NODE, 2);
    Binding {
        app: APP,
        user: UserId(user),
        device: PHONE,
        shard,
        incarnation: INCARNATION,
        session: 9,
        login,
    }
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let from = Instant::now();
    while !is_so() {
        assert!(from.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Stamps as they are: nanoseconds, more than a double holds.
const OLD: u64 = 1_763_000_000_000_000_001;
const NEW: u64 = 1_763_000_000_000_000_002;

fn later_stamps_win(server: &Server, config: &DirectoryConfig) {
    let rig = Rig::with(config, node(NODE, Role::Gateway));
    let held = |login| vec![binding(7, login)];
    rig.bind(7, OLD);
    assert_eq!(rig.look_up(7), held(OLD));
    assert_eq!(server.user(7), [("phone".into(), format!("1.2.{INCARNATION}.9.{OLD}"))].into());
    rig.bind(7, NEW);
    assert_eq!(rig.look_up(7), held(NEW));
    rig.bind(7, OLD);
    assert_eq!(rig.look_up(7), held(NEW), "an old owner writes late");
    rig.unbind(7, OLD);
    assert_eq!(rig.look_up(7), held(NEW), "an old session ends late");
    rig.bind(7, 99);
    assert_eq!(rig.look_up(7), held(NEW), "a shorter number is a smaller one");
    rig.unbind(7, NEW);
    assert_eq!(rig.look_up(7), []);
    assert_eq!(server.ask::<u32>("EXISTS t:user:{1:7}"), 0);
    for user in 0..100 {
        rig.bind(user, NEW);
        rig.unbind(user, OLD);
    }
    for user in 0..100 {
        assert_eq!(rig.look_up(user), [binding(user, NEW)], "in one batch as one by one");
    }
    assert_eq!(rig.directory.stats().errors.get(), 0);
}

#[test]
fn later_stamps_win_on_one_server() {
    let server = Server::start();
    later_stamps_win(&server, &config(&server));
}

#[test]
fn later_stamps_win_on_a_cluster() {
    let server = Server::start_clustered();
    let _: String = server.ask("CLUSTER ADDSLOTSRANGE 0 16383");
    eventually("the cluster is ready", || server.ask::<String>("CLUSTER INFO").contains("cluster_state:ok"));
    let url = server.url();
    later_stamps_win(&server, &DirectoryConfig { redis: format!("{url},{url}"), ..config(&server) });
}

#[test]
fn a_cluster_that_moves_its_slots_is_followed() {
    let servers = [Server::start_clustered(), Server::start_clustered()];
    let ids = [0, 1].map(|at| servers[at].ask::<String>("CLUSTER MYID"));
    let _: () = servers[0].ask("CLUSTER ADDSLOTSRANGE 0 8191");
    let _: () = servers[1].ask("CLUSTER ADDSLOTSRANGE 8192 16383");
    let (port, bus_port) = (servers[1].port, servers[1].options.last().unwrap());
    let _: () = servers[0].ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus_port}"));
    for server in &servers {
        eventually("the cluster is ready", || {
            let info: String = server.ask("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        });
    }
    let redis = format!("{},{}", servers[0].url(), servers[1].url());
    let rig = Rig::with(&DirectoryConfig { redis, ..config(&servers[0]) }, node(NODE, Role::Gateway));
    for user in 0..1000 {
        rig.bind(user, OLD);
    }
    assert_eq!(rig.look_up(999), [binding(999, OLD)]);
    let keys = [0, 1].map(|at| servers[at].ask::<u64>("DBSIZE"));
    assert!(keys[0] > 300 && keys[1] > 300 && keys[0] + keys[1] == 1002, "{keys:?}");

    // A user without a key, and its slot on the way from one server to the other.
    let user = (1000..).find(|user| slot(&servers[0], *user) < 8192).unwrap();
    let slot = slot(&servers[0], user);
    let _: () = servers[1].ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[0]));
    let _: () = servers[0].ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[1]));
    rig.bind(user, OLD);
    assert_eq!(rig.look_up(user), [binding(user, OLD)]);
    assert_eq!(servers[1].ask::<u64>(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), 1, "where it belongs");
    for server in servers.iter().rev() {
        let _: () = server.ask(&format!("CLUSTER SETSLOT {slot} NODE {}", ids[1]));
    }
    rig.bind(user, NEW);
    assert_eq!(rig.look_up(user), [binding(user, NEW)]);
    let stats = rig.directory.stats();
    assert_eq!((stats.errors.get(), stats.connected.get()), (0, 1));
}

fn slot(server: &Server, user: i64) -> u16 {
    server.ask(&format!("CLUSTER KEYSLOT t:user:{{1:{user}}}"))
}

#[test]
fn only_bindings_of_living_processes_are_found() {
    let server = Server::start();
    let rig = Rig::start(&server);
    rig.bind(7, OLD);
    let dead = Binding { device: DeviceClass::Tablet, incarnation: INCARNATION - 1, ..binding(7, OLD) };
    rig.writer.push(Record::Bind(dead));
    let other = Binding { device: DeviceClass::Web, shard: ShardId::new(2, 0), ..binding(7, OLD) };
    rig.writer.push(Record::Bind(other));
    let absent = Binding { device: DeviceClass::Tv, shard: ShardId::new(3, 0), ..binding(7, OLD) };
    rig.writer.push(Record::Bind(absent));
    let _: () = server.ask(&format!("SET t:node:2 {} PX 1500", keys::lease_text(&node(2, Role::Gateway))));
    let _: () = server.ask("HSET t:user:{1:7} toaster x phone2 1.2.3 bot 1.2");
    eventually("the other node's lease is seen", || rig.look_up(7) == [binding(7, OLD), other]);
    eventually("the other node's lease ends", || rig.look_up(7) == [binding(7, OLD)]);
    assert_eq!(server.user(7).len(), 7, "looking up removes nothing");
}

#[test]
fn ten_thousand_binds_take_few_round_trips() {
    let server = Server::start();
    let rig = Rig::start(&server);
    for user in 0..10_000 {
        rig.bind(user, NEW);
    }
    assert_eq!(rig.look_up(9_999), [binding(9_999, NEW)]);
    assert_eq!(server.ask::<u64>("DBSIZE"), 10_002, "with the lease and the list of nodes");
    let stats = rig.directory.stats();
    assert!((20..=200).contains(&stats.batches.get()), "{} batches", stats.batches.get());
    let sent = stats.binds.get();
    assert_eq!(sent, 10_000, "a batch that the server has not the script for would count twice");
    assert_eq!((stats.dropped.get(), stats.errors.get(), stats.queued()), (0, 0, 0));
    assert!(stats.commands().iter().map(|(_, count)| count).sum::<u64>() > sent);
}

#[test]
fn routers_are_found_and_missed() {
    let server = Server::start();
    let gateway = Rig::start(&server);
    gateway.wait_for_routers(&[]);
    let one = Rig::with(&config(&server), node(2, Role::Router));
    let two = Rig::with(&config(&server), node(3, Role::Router));
    gateway.wait_for_routers(&[2, 3]);
    one.wait_for_routers(&[2, 3]);
    one.directory.stop();
    gateway.wait_for_routers(&[3]);
    two.wait_for_routers(&[3]);
    assert_eq!(server.ask::<u32>("EXISTS t:node:2"), 0);
    // Who is gone for long leaves the list.
    eventually("node 2 leaves the list", || server.ask::<u32>("SISMEMBER t:nodes 2") == 0);
    assert_eq!(gateway.directory.stats().errors.get(), 0);
}

#[test]
fn routers_stay_when_redis_has_stood_still() {
    let server = Server::start();
    let gateway = Rig::start(&server);
    let lease = keys::lease_text(&node(2, Role::Router));
    let _: () = server.ask(&format!("SET t:node:2 {lease} PX 2000"));
    let _: () = server.ask("SADD t:nodes 2");
    gateway.wait_for_routers(&[2]);
    server.signal(Signal::STOP);
    eventually("the time-out is seen", || gateway.directory.stats().connected.get() == 0);
    thread::sleep(Duration::from_secs(2)); // all leases end
    server.signal(Signal::CONT);
    eventually("Redis is back", || gateway.directory.stats().connected.get() == 1);
    assert_eq!(server.ask::<u32>("EXISTS t:node:2"), 0, "the router is slower");
    let _: () = server.ask(&format!("SET t:node:2 {lease}"));
    assert_eq!(gateway.news.try_iter().collect::<Vec<_>>(), []);
    let _: () = server.ask("DEL t:node:2");
    gateway.wait_for_routers(&[]);
}

#[test]
fn a_router_that_dies_together_with_redis_is_missed() {
    let mut server = Server::start();
    let gateway = Rig::start(&server);
    let router = Rig::with(&config(&server), node(2, Role::Router));
    gateway.wait_for_routers(&[2]);
    server.kill();
    router.directory.stop();
    server.start_again();
    gateway.wait_for_routers(&[]); // though it is on no list any more
}

#[test]
fn a_user_of_redis_with_few_rights_is_enough() {
    let server = Server::start();
    let rights = "+get +set +del +hgetall +hget +hset +hdel +sadd +srem +smembers +eval +evalsha";
    let _: () = server.ask(&format!("ACL SETUSER fish on >secret ~t:* {rights}"));
    let redis = server.url().replace("redis://", "redis://fish:secret@");
    later_stamps_win(&server, &DirectoryConfig { redis, ..config(&server) });
}

/// The new master may lack something, so it gets everything again.
#[test]
fn the_master_that_sentinels_name_is_followed() {
    let plan = testbed::SentinelPlan { count: 1, quorum: 1, password: Some("hush"), ..Default::default() };
    let redis = testbed::Sentinels::start(plan);
    let config = DirectoryConfig {
        redis: redis.master_url(),
        redis_sentinels: redis.urls(),
        prefix: "t".into(),
        lease_ms: 900,
        timeout_ms: 300,
        ..DirectoryConfig::default()
    };
    let rig = Rig::with(&config, node(NODE, Role::Gateway));
    rig.bind(1, 5);
    assert_eq!(rig.look_up(1), [binding(1, 5)]);
    let has_user = |redis: &testbed::Redis| redis.number(&["EXISTS", "t:user:{1:1}"]) == 1;
    assert!(has_user(&redis.first));
    redis.first.kill();
    rig.wait_for_resync();
    rig.bind(1, 7);
    rig.bind(2, 8);
    assert_eq!(rig.look_up(1), [binding(1, 7)]);
    assert!(redis.second.has_role("master"));
    assert_eq!(redis.second.number(&["EXISTS", "t:user:{1:2}"]), 1);
    // An operator moves the master back, and both live.
    redis.first.start_again();
    eventually("it is a replica", || {
        redis.first.command(&["INFO", "replication"]).contains("link_status:up")
    });
    let move_back =
        || redis.ask(0, &["SENTINEL", "REPLICAS", testbed::MASTER]).contains("master-link-status\nok");
    eventually("the sentinel knows it", move_back);
    thread::sleep(Duration::from_secs(1));
    redis.ask(0, &["SENTINEL", "FAILOVER", testbed::MASTER]);
    rig.wait_for_resync();
    rig.bind(3, 9);
    assert_eq!(rig.look_up(3), [binding(3, 9)]);
    assert_eq!(redis.first.number(&["EXISTS", "t:user:{1:3}"]), 1);
}

#[test]
fn a_restarted_empty_redis_gets_everything_again() {
    let mut server = Server::start();
    let rig = Rig::start(&server);
    rig.bind(1, OLD);
    assert_eq!(rig.look_up(1).len(), 1);
    server.kill();
    rig.bind(2, OLD);
    eventually("the loss is seen", || rig.directory.stats().connected.get() == 0);
    server.start_again();
    rig.wait_for_resync();
    rig.bind(1, OLD);
    assert_eq!(rig.look_up(1), [binding(1, OLD)]);
    assert_eq!(rig.look_up(2), [binding(2, OLD)], "what came meanwhile has waited");
    let stats = rig.directory.stats();
    assert_eq!((stats.connected.get(), stats.dropped.get()), (1, 0));
    assert!(stats.errors.get() > 0);
}

#[test]
fn an_emptied_redis_gets_everything_again() {
    let server = Server::start();
    let rig = Rig::start(&server);
    rig.bind(1, OLD);
    assert_eq!(rig.look_up(1).len(), 1);
    let _: () = server.ask("FLUSHALL");
    rig.wait_for_resync();
    rig.bind(1, OLD);
    assert_eq!(rig.look_up(1).len(), 1);
    assert_eq!(rig.directory.stats().errors.get(), 0);
}

#[test]
fn a_frozen_redis_holds_nobody_up() {
    let server = Server::start();
    let rig = Rig::with(&DirectoryConfig { queue_max: 1000, ..config(&server) }, node(NODE, Role::Router));
    rig.wait_for_routers(&[NODE]);
    rig.bind(-1, OLD);
    assert_eq!(rig.look_up(-1).len(), 1);
    server.signal(Signal::STOP);
    let from = Instant::now();
    let mut longest = Duration::ZERO;
    let mut user = 0;
    while from.elapsed() < Duration::from_secs(3) {
        let start = Instant::now();
        rig.bind(user, OLD);
        longest = longest.max(start.elapsed());
        user += 1;
        thread::sleep(Duration::from_micros(500));
    }
    let stats = rig.directory.stats();
    // No longer than the scheduler may take.
    assert!(longest < Duration::from_millis(300), "a push took {longest:?}");
    assert!(stats.dropped.get() > 0 && stats.connected.get() == 0);
    server.signal(Signal::CONT);
    rig.wait_for_resync();
    rig.bind(user, NEW);
    assert_eq!(rig.look_up(user), [binding(user, NEW)]);
    assert_eq!(rig.look_up(0), [binding(0, OLD)], "what the queue held is there");
    assert_eq!(rig.look_up(-1), [binding(-1, OLD)]);
    assert_eq!(stats.connected.get(), 1);
}

#[test]
fn stopping_writes_what_is_queued_and_gives_the_lease_back() {
    let server = Server::start();
    let rig = Rig::start(&server);
    rig.wait_for_routers(&[]);
    for user in 0..2_000 {
        rig.bind(user, OLD);
    }
    rig.directory.stop();
    assert_eq!(server.ask::<u64>("DBSIZE"), 2_001, "with the list of nodes");
    // Its successor has started already, with the same id.
    let rig = Rig::with(&DirectoryConfig { lease_ms: 60_000, ..config(&server) }, node(NODE, Role::Gateway));
    rig.wait_for_routers(&[]);
    let successor = NodeInfo { incarnation: INCARNATION + 1, ..node(NODE, Role::Gateway) };
    let _: () = server.ask(&format!("SET t:node:1 {}", keys::lease_text(&successor)));
    rig.directory.stop();
    assert_eq!(server.ask::<u32>("EXISTS t:node:1"), 1, "the lease is its successor's");
}

#[test]
fn a_frozen_redis_does_not_keep_a_node_from_stopping() {
    let server = Server::start();
    let rig = Rig::start(&server);
    rig.wait_for_routers(&[]);
    server.signal(Signal::STOP);
    rig.bind(1, OLD);
    let from = Instant::now();
    rig.directory.stop();
    assert!(from.elapsed() < Duration::from_secs(5), "{:?}", from.elapsed());
}

#[test]
fn a_strange_value_does_not_stop_the_others() {
    let server = Server::start();
    let rig = Rig::start(&server);
    let _: () = server.ask("SET t:user:{1:1} text");
    rig.bind(1, OLD);
    rig.bind(2, OLD);
    assert_eq!(rig.look_up(1), []);
    assert_eq!(rig.look_up(2), [binding(2, OLD)]);
    let stats = rig.directory.stats();
    assert_eq!((stats.errors.get(), stats.connected.get()), (2, 1));
}

#[test]
fn a_start_needs_no_redis() {
    let mut server = Server::start();
    server.kill();
    let rig = Rig::start(&server);
    rig.bind(1, OLD);
    server.start_again();
    assert_eq!(rig.look_up(1), [binding(1, OLD)]);
}

fn said(sequence: u64, payload: &[u8]) -> Entry {
    Entry::Message(Message {
        id: MessageId(sequence << 23),
        app: AppId(1),
        sender: UserId(-2),
        biz_code: BizCode(5555),
        room: Some(RoomId(7)),
        sequence,
        ack_wanted: true,
        client_msg_id: ClientMsgId::new("m-1".into()),
        payload: payload.to_vec().into(),
    })
}

/// Redis keeps a stream of each room in the order of its sequences, whoever writes, and however often.
#[test]
fn what_a_room_said_is_read_as_it_was_written() {
    let server = Server::start();
    let (old, new) = (Rig::start(&server), Rig::with(&config(&server), node(NODE + 1, Role::Router)));
    let (app, room) = (AppId(1), RoomId(7));
    let keep = |rig: &Rig, entry: &Entry| {
        rig.writer.push(Record::Keep { from: FROM, app, room, entry: Box::new(entry.clone()) })
    };
    let read = |rig: &Rig, room| {
        rig.writer.push(Record::Read { from: FROM, app, room });
        rig.wait_for("the stream", |news| match news {
            News::Stream { to: FROM, stream } => Some(stream.entries),
            _ => None,
        })
    };
    let written = [
        Entry::Gap(9),
        Entry::Seen { at: 9, base: 9, seen: 5 },
        Entry::Seen { at: 9, base: 9, seen: 6 },
        Entry::NoGap(9),
        said(10, b"a"),
        said(11, b"\0\xff"),
        Entry::Gap(12),
        Entry::Whole(12),
        Entry::Gap(20),
        said(21, b""),
    ];
    written[..8].iter().for_each(|entry| keep(&old, entry));
    assert_eq!(read(&old, room), written[..8]);
    written[8..].iter().for_each(|entry| keep(&new, entry));
    assert_eq!(read(&new, room), written);
    // An owner that another has followed comes too late, and is told so. What comes again changes nothing.
    let refused = |refused| News::StreamIsAhead { to: FROM, app, room, refused };
    let is_refused = |at| old.wait_for("the refusal", |news| (news == refused(at)).then_some(()));
    keep(&old, &said(13, b"late"));
    is_refused(13);
    keep(&old, &written[9]);
    assert_eq!(read(&old, room), written);
    // So is one that begins below it; it can begin again.
    keep(&old, &Entry::Gap(15));
    is_refused(15);
    let (gap, lost) = (Entry::Gap(21), Entry::Lost(21));
    keep(&old, &gap);
    keep(&old, &lost);
    assert_eq!(read(&old, room), [&written[..], &[gap, lost]].concat());
    assert_eq!(read(&old, RoomId(8)), []);
    assert_eq!(old.directory.stats().errors.get(), 0);
    // What is too long ago goes.
    (22..1_000).for_each(|sequence| keep(&new, &said(sequence, b"more")));
    let left = read(&new, room);
    assert_eq!(left.last(), Some(&said(999, b"more")));
    assert!((200..400).contains(&left.len()), "{}", left.len());
}

/// Payloads that wait for a Redis that does not answer are bounded, and what is dropped is told.
#[test]
fn payloads_that_wait_are_bounded() {
    let server = Server::start();
    let rig = Rig::start(&server);
    server.signal(Signal::STOP);
    let entry = Box::new(said(10, &[0; 65_536]));
    for _ in 0..1_100 {
        let (app, room) = (AppId(1), RoomId(7));
        rig.writer.push(Record::Keep { from: FROM, app, room, entry: entry.clone() });
    }
    let stats = rig.directory.stats();
    assert!(stats.dropped.get() > 0 && stats.queued() <= QUEUE_BYTES_MAX / 65_536, "{}", stats.queued());
    server.signal(Signal::CONT);
    rig.wait_for("a resync", |news| (news == News::Resync).then_some(()));
}
