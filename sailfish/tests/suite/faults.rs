//! Nodes that die, freeze and come back under load, and what reaches a link port that should not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wire::client::{Message, Outcome};
use wire::node::link::{Frame, Identity, Role};

use crate::common::cluster::{Cluster, Node};
use crate::common::{PATIENCE, SECRET, Server, output, sailfish, until};

/// `sailfish load` against the cluster, with more arguments, which must pass; its report.
fn load(cluster: &mut Cluster, scenario: &str, arguments: &[String]) -> Value {
    let (passed, report, text) = try_load(cluster, scenario, arguments);
    assert!(passed, "{text}");
    report
}

/// Whether it passed, its report, and what it printed.
fn try_load(cluster: &mut Cluster, scenario: &str, arguments: &[String]) -> (bool, Value, String) {
    let (command, report) = load_command(cluster, scenario, arguments);
    run_load(command, report)
}

/// What loads the cluster, and where its report will be.
fn load_command(cluster: &mut Cluster, scenario: &str, arguments: &[String]) -> (Command, PathBuf) {
    let report = std::env::temp_dir().join(format!("sailfish-faults-{}-{scenario}.json", cluster.name()));
    let mut command = sailfish();
    command.args(["load", scenario, "--set", &format!("token.secret={SECRET}"), "--engine", "epoll"]);
    command.args(["--target", &cluster.targets(), "--connections", "120"]);
    if !arguments.iter().any(|argument| argument == "--rate") {
        command.args(["--rate", "600"]);
    }
    command.args(["--repeat", "3", "--json"]).arg(&report).args(arguments);
    (command, report)
}

/// See [`try_load`].
fn run_load(mut command: Command, report: PathBuf) -> (bool, Value, String) {
    let done = output(&mut command, "");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    let json = serde_json::from_slice(&std::fs::read(&report).unwrap_or_default());
    let json = json.unwrap_or_else(|error| panic!("{error}: {text}"));
    let _ = std::fs::remove_file(report);
    (done.status.success(), json, text)
}

/// Nothing is lost, doubled or out of order; most of it arrived.
fn is_faithful(report: &Value) {
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((count("lost"), count("duplicated"), count("out_of_order")), (0, 0, 0), "{report}");
    assert_eq!((count("unanswered"), count("stray")), (0, 0), "{report}");
    assert!(count("sent") > 2_000, "{report}");
    assert_eq!(count("accepted") + count("handed_over"), count("sent"), "{report}");
    assert!(count("accepted") * 10 > count("sent") * 8, "{report}");
}

fn text(text: impl Into<String>) -> String {
    text.into()
}

#[test]
fn nothing_is_lost_when_a_gateway_and_a_router_are_killed() {
    let mut cluster = Cluster::start(2, 3, &[]);
    let (gateway, router) = (cluster.gateway(0).pid(), cluster.router(0).pid());
    let chaos = [format!("2:kill -9 {gateway}"), format!("4:kill -9 {router}")];
    let arguments =
        [text("--seconds"), text("7"), text("--chaos"), chaos[0].clone(), text("--chaos"), chaos[1].clone()];
    let report = load(&mut cluster, "chat", &arguments);
    is_faithful(&report);
    assert!(report["reconnects"].as_u64().unwrap() >= 40, "the gateway's clients went elsewhere: {report}");
}

#[test]
fn nothing_is_lost_when_a_router_dies_and_comes_back() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let router = cluster.router(1).pid();
    let back = format!("5:{} >/dev/null 2>&1 &", cluster.routers[1].shell_command());
    let arguments =
        [text("--seconds"), text("8"), text("--chaos"), format!("2:kill -9 {router}"), text("--chaos"), back];
    let _started = Started(vec![cluster.routers[1].pattern()]);
    let report = load(&mut cluster, "chat", &arguments);
    is_faithful(&report);
    assert_eq!(report["reconnects"].as_u64(), Some(0), "no client felt it: {report}");
    assert_eq!(cluster.gateway(0).metric("sailfish_owners", ""), 8.0, "its share is its own again");
}

#[test]
fn nothing_is_lost_in_a_rolling_restart_of_three_gateways() {
    let mut cluster = Cluster::start(2, 3, &["--set", "drain.spread_ms=100"]);
    let mut arguments = vec![text("--seconds"), text("1")];
    for at in 0..3 {
        let pid = cluster.gateway(at).pid();
        let admin = cluster.gateway(at).admin;
        let start = cluster.gateways[at].shell_command();
        // Ends when the old process has and the next one is ready.
        let command = format!(
            "kill {pid}; while kill -0 {pid} 2>/dev/null && [ \"$(cut -d' ' -f3 /proc/{pid}/stat)\" != Z ]; do sleep 0.05; done; \
             {start} >/dev/null 2>&1 & for i in $(seq 100); do {} ctl --admin {admin} nodes >/dev/null 2>&1 && break; sleep 0.05; done",
            env!("CARGO_BIN_EXE_sailfish"),
        );
        arguments.extend([text("--restart"), command]);
    }
    let _started = Started(cluster.gateways.iter().map(Node::pattern).collect());
    let report = load(&mut cluster, "storm", &arguments);
    is_faithful(&report);
    assert!(report["reconnects"].as_u64().unwrap() >= 120, "{report}");
}

/// An operator encrypts the links of a running cluster: first every node may, then every node must.
#[test]
fn nothing_is_lost_when_links_are_encrypted_one_node_at_a_time() {
    let mut cluster = Cluster::start(2, 2, &["--set", "drain.spread_ms=100"]);
    let clear = |cluster: &mut Cluster| -> f64 {
        let nodes = cluster.routers.iter_mut().chain(&mut cluster.gateways);
        nodes.map(|node| node.server().metric("sailfish_link_peers_clear", "")).sum()
    };
    assert_eq!(clear(&mut cluster), 2.0 * 16.0, "each of four shards with each of four, seen from both ends");
    // With chaos, a message to a client that is on its way to another gateway may be handed over.
    let arguments = ["--seconds", "15", "--rate", "400", "--chaos", "0:true"].map(text);
    let (command, report) = load_command(&mut cluster, "chat", &arguments);
    let load = std::thread::spawn(move || run_load(command, report));
    std::thread::sleep(Duration::from_secs(1));
    for mode in ["optional", "required"] {
        for at in 0..4 {
            let node = if at < 2 { &mut cluster.gateways[at] } else { &mut cluster.routers[at - 2] };
            node.server().signal(Signal::TERM);
            assert_eq!(node.server().wait().code(), Some(0));
            node.set("cluster.tls", mode);
            node.start();
            cluster.wait_ready();
        }
        assert_eq!(clear(&mut cluster), 0.0, "{mode}");
    }
    assert!(!load.is_finished(), "the load lasts longer than all of that");
    let (passed, report, text) = load.join().unwrap();
    assert!(passed, "{text}");
    is_faithful(&report);
    let nodes = cluster.routers.iter_mut().chain(&mut cluster.gateways);
    nodes.for_each(|node| assert_eq!(node.server().metric("sailfish_link_refused_total", "no_tls"), 0.0));
}

/// The nodes that a shell starts, by what no other process has in its command line; killed when dropped.
struct Started(Vec<String>);

impl Drop for Started {
    fn drop(&mut self) {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let is_one = self.0.iter().any(|pattern| command.contains(pattern));
            if is_one && command.starts_with(env!("CARGO_BIN_EXE_sailfish")) {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL); // it may have ended
            }
        }
    }
}

#[test]
fn a_router_that_takes_nothing_makes_clients_wait_and_memory_stay() {
    const QUEUE: f64 = 393_216.0;
    let queue = format!("link.queue_bytes_max={QUEUE}");
    let more = ["--set", &queue, "--set", "link.lease_ms=10000"];
    let mut cluster = Cluster::start(1, 2, &more);
    let router = cluster.router(0).pid();
    let nodes = std::env::temp_dir().join(format!("sailfish-faults-{}-nodes.json", cluster.name()));
    let admin = cluster.gateway(0).admin;
    let ask =
        format!("{} ctl --admin {admin} nodes --json > {}", env!("CARGO_BIN_EXE_sailfish"), nodes.display());
    let freeze = format!("1:kill -STOP {router}; sleep 1.5; {ask}; kill -CONT {router}");
    let arguments =
        ["--seconds", "4", "--payload", "6000", "--rate", "1000", "--chaos", &freeze].map(text).to_vec();
    let (_, report, _) = try_load(&mut cluster, "chat", &arguments);
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((count("lost"), count("duplicated"), count("out_of_order")), (0, 0, 0), "{report}");
    assert_eq!((count("unanswered"), count("reconnects")), (0, 0), "{report}");
    // When it goes on, it may say more at once than a gateway takes: that fails, and its sender hears so.
    assert!(count("accepted") * 10 > count("sent") * 9, "{report}");
    // More than a megabyte was said for each link in that time. What waits is the queue, and what one turn of
    // reading added.
    let nodes: Value = serde_json::from_slice(&std::fs::read(&nodes).unwrap()).unwrap();
    let queued: Vec<f64> = nodes["routers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["queued_bytes"].as_f64().unwrap())
        .collect();
    assert!(queued.iter().any(|bytes| *bytes > QUEUE / 2.0), "it was full: {queued:?}");
    assert!(queued.iter().all(|bytes| *bytes < 8.0 * QUEUE), "and no more: {queued:?}");
    assert_eq!(cluster.gateway(0).metric("sailfish_link_peers_full", ""), 0.0);
}

fn payload(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

#[test]
fn redis_may_freeze_die_and_come_back_empty() {
    let mut cluster = Cluster::start_with_redis(2, 2, &[]);
    let mut first = cluster.gateway(0).login(1);
    let binding = |cluster: &Cluster, user: i64| {
        cluster.redis.as_ref().unwrap().ask(&["HGET", &format!("sailfish:user:{{1:{user}}}"), "phone"])
    };
    until("the binding is in Redis", || binding(&cluster, 1).starts_with("33."));
    let pid = Pid::from_raw(cluster.redis.as_ref().unwrap().pid() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let frozen = Instant::now();
    // Longer than the directory's time-out and lease.
    let mut user = 2;
    while frozen.elapsed() < Duration::from_secs(2) {
        let began = Instant::now();
        let mut second = cluster.gateway(1).login(user);
        first.say(6001, user, "m", "and Redis?");
        let message = second.message();
        assert_eq!(payload(&message), "and Redis?");
        second.ack(message.id);
        assert_eq!(first.outcome("m"), Outcome::Delivered);
        assert!(began.elapsed() < Duration::from_secs(1), "nobody waits for Redis");
        user += 1;
    }
    kill_process(pid, Signal::CONT).unwrap();
    let third = cluster.gateway(1).login(1000);
    until("what came meanwhile is in Redis", || binding(&cluster, 1000).starts_with("34."));
    cluster.redis.as_mut().unwrap().restart();
    until("all of it is in Redis again", || {
        binding(&cluster, 1).starts_with("33.") && binding(&cluster, 1000).starts_with("34.")
    });
    drop(third);
    until("and what ends is not", || binding(&cluster, 1000).is_empty());
}

#[test]
fn gateways_find_routers_in_redis() {
    let mut cluster = Cluster::discovering(2, 2);
    let mut first = cluster.gateway(0).login(1);
    let mut second = cluster.gateway(1).login(2);
    first.say(6001, 2, "m", "found you");
    let message = second.message();
    second.ack(message.id);
    assert_eq!(first.outcome("m"), Outcome::Delivered);
    let heartbeats = |cluster: &mut Cluster| -> f64 {
        (0..2)
            .map(|at| cluster.gateway(at).metric("sailfish_directory_commands_total", "kind=\"bind\""))
            .sum()
    };
    let before = heartbeats(&mut cluster);
    (0..1000).for_each(|_| first.heartbeat());
    assert_eq!(heartbeats(&mut cluster), before, "heartbeats make no call outside the process");
}

#[test]
fn a_stranger_on_the_link_port_is_refused_and_counted() {
    let mut cluster = Cluster::start(1, 1, &[]);
    let links = cluster.router(0).clients;
    let refused = |cluster: &mut Cluster, reason: &str| {
        cluster.router(0).metric("sailfish_link_refused_total", &format!("reason=\"{reason}\""))
    };
    let hello = |identity: Identity| {
        let mut bytes = Vec::new();
        Frame::Hello { identity, nonce: [7; 16] }.encode(&mut bytes);
        bytes
    };
    let gateway = Identity { shard: 99 << 16, shards: 1, role: Role::Gateway, incarnation: 1 };
    let good = hello(gateway);
    let mut version = good.clone();
    version[10] ^= 0xff;
    let mut proof = good.clone();
    Frame::Proof { session: 0, received: 0, proof: [0; 32] }.encode(&mut proof);
    let mut batch = good.clone();
    Frame::Batch { received: 0, archive: &[0xff; 64] }.encode(&mut batch);
    let long = [0xff, 0xff, 0xff, 0xff, 6];
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "too_long"),
        (&long[..], "too_long"),
        (&version[..], "version"),
        (&proof[..], "secret"),
        (&batch[..], "bad_frame"),
        (&hello(Identity { role: Role::Router, ..gateway })[..], "role"),
    ] {
        let before = refused(&mut cluster, reason);
        let mut stream = TcpStream::connect(links).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // a reset is an end too
        assert_eq!(refused(&mut cluster, reason), before + 1.0, "{reason}");
    }
    // A gateway with another secret never gets in; the one that is in does not feel it.
    let mut command = sailfish();
    command.args([
        "gateway",
        "--id",
        "40",
        "--shards",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    command.args(["--set", "cluster.secret=quite another secret", "--routers", &links.to_string()]);
    command.args(["--set", &format!("token.secret={SECRET}")]);
    let stranger = Server::spawn(&mut command);
    let before = refused(&mut cluster, "secret");
    until("it has tried again", || refused(&mut cluster, "secret") > before + 1.0);
    assert_eq!(stranger.get("/readyz").0, 503);
    assert!(stranger.metric("sailfish_link_refused_total", "reason=\"secret\"") > 0.0);
    let mut client = cluster.gateway(0).login(1);
    client.heartbeat();
    assert_eq!(cluster.router(0).metric("sailfish_router_gateways", ""), 4.0, "two shards on two");
}

#[test]
fn of_two_nodes_with_one_number_the_later_stays() {
    let mut cluster = Cluster::start(1, 1, &[]);
    let links = cluster.router(0).clients;
    let mut command = sailfish();
    command.args([
        "gateway",
        "--id",
        "33",
        "--shards",
        "2",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    command.args(["--set", &format!("cluster.secret={}", crate::common::cluster::CLUSTER_SECRET)]);
    command.args(["--routers", &links.to_string(), "--set", &format!("token.secret={SECRET}")]);
    let later = Server::spawn(&mut command);
    until("the later one is in", || later.get("/readyz").0 == 200);
    until("the earlier one is out, and says why", || {
        let earlier = cluster.gateway(0);
        earlier.metric("sailfish_link_refused_total", "reason=\"stale\"") > 0.0
            && earlier.get("/readyz").0 == 503
    });
    // All three logs say it, that of the router with both addresses.
    let says = |server: &Server, words: &[&str]| {
        let has = |line: &str| line.contains(" WARN ") && words.iter().all(|word| line.contains(word));
        server.log().lines().any(has)
    };
    until("the router names the number and both", || {
        let both = ["refused=\"127.0.0.1\"", "linked=\"127.0.0.1\""];
        says(
            cluster.router(0),
            &[&["two processes have the number of one node", "node=33"], &both[..]].concat(),
        )
    });
    until("the earlier one knows", || {
        says(cluster.gateway(0), &["links were refused", "node=33", "stale: "])
    });
    until("the later one knows", || {
        says(&later, &["another process has the number of this node", "node=33"])
    });
}
