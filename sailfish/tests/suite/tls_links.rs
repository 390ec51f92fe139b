//! Encrypted links between nodes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use wire::client::Outcome;

use crate::common::backend::Backend;
use crate::common::cluster::{CLUSTER_SECRET, Cluster};
use crate::common::{SECRET, Server, sailfish, until};

/// Messages of users and rooms and packets for the backend cross links of all roles.
fn works_on(engine: &str) {
    let backend = Backend::start();
    let mut cluster = Cluster::everywhere(&["--engine", engine, "--set=cluster.tls=required"]);
    let flags = backend.flags();
    cluster.add_with_bridges(1, 2, 1, &flags.each_ref().map(String::as_str));
    let Cluster { routers, gateways, bridges, .. } = &mut cluster;
    for node in routers.iter_mut().chain(gateways).chain(bridges) {
        let server = node.server();
        assert!(server.stdout.contains(&format!(" engine={engine} ")), "{}", server.stdout);
        assert!(server.metric("sailfish_link_peers", "") > 0.0);
        assert_eq!(server.metric("sailfish_link_peers_clear", ""), 0.0);
    }
    let mut clients: Vec<_> = (0..6).map(|at| cluster.gateway(at % 2).login(100 + at as i64)).collect();
    // Longer than a record, and many at once: the batches of links become long.
    let large = "long ".repeat(2_000);
    const EACH: usize = 40;
    for from in 0..clients.len() {
        let to = (from + 1) % clients.len();
        let receiver = clients[to].user.0;
        (0..EACH).for_each(|round| clients[from].say(6001, receiver, &format!("m{round}"), &large));
        for round in 0..EACH {
            let message = clients[to].message();
            assert_eq!(message.client_msg_id.as_str(), format!("m{round}"));
            assert_eq!(message.payload, large.as_bytes());
            clients[to].ack(message.id);
        }
        for round in 0..EACH {
            assert_eq!(clients[from].outcome(&format!("m{round}")), Outcome::Delivered);
        }
    }
    clients.iter_mut().for_each(|client| client.join(7));
    clients[0].say(5555, 7, "all", "all of you");
    for client in &mut clients[1..] {
        assert_eq!(client.message().client_msg_id.as_str(), "all");
    }
    assert!(matches!(clients[0].outcome_beside_messages("all"), Outcome::Sequenced { .. }));
    clients[1].say(5560, 0, "gift", "{}");
    assert_eq!(clients[1].outcome("gift"), Outcome::Answered);
    clients[2].say(6001, 999, "late", "are you there?");
    assert_eq!(clients[2].outcome("late"), Outcome::Stored, "nobody is there");
    until("the backend has heard of all", || backend.events().len() >= 6 + 6 + 2);
}

#[test]
fn encrypted_links_work_on_uring() {
    works_on("uring");
}

#[test]
fn encrypted_links_work_on_monoio() {
    works_on("monoio");
}

#[test]
fn encrypted_links_work_on_epoll() {
    works_on("epoll");
}

#[cfg(feature = "glommio")]
#[test]
fn encrypted_links_work_on_glommio() {
    works_on("glommio");
}

/// A router or a gateway of one shard, as a process.
fn node(role: &str, id: u16, tls: &str, more: &[&str]) -> Server {
    let mut command = sailfish();
    command.args([role, &format!("--id={id}"), "--shards=1", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
    command.args([&format!("--set=token.secret={SECRET}"), &format!("--set=cluster.tls={tls}")]);
    Server::spawn(command.arg(format!("--set=cluster.secret={CLUSTER_SECRET}")).args(more))
}

/// What a tap has seen, of all connections and both directions.
type Seen = Arc<Mutex<Vec<u8>>>;

/// Stands between a gateway and a router, passes all bytes on and keeps a copy.
fn tap(router: SocketAddr) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let copy = seen.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(router).unwrap();
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let copy = copy.clone();
                std::thread::spawn(move || {
                    let mut bytes = [0; 64 << 10];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        copy.lock().unwrap().extend_from_slice(&bytes[..count]);
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    (address, seen)
}

#[test]
fn the_wire_shows_messages_only_without_tls() {
    const WORDS: &str = "the quick brown fox and its secret";
    let has_seen = |tls: &str| {
        let router = node("router", 1, tls, &[]);
        let (address, seen) = tap(router.clients);
        let gateway = node("gateway", 33, tls, &[&format!("--routers={address}")]);
        until("the gateway is ready", || gateway.get("/readyz").0 == 200);
        let (mut first, mut second) = (gateway.login(1), gateway.login(2));
        first.say(6001, 2, "m", WORDS);
        let message = second.message();
        second.ack(message.id);
        assert_eq!(first.outcome("m"), Outcome::Delivered);
        let seen = seen.lock().unwrap();
        let has = |words: &[u8]| seen.windows(words.len()).any(|bytes| bytes == words);
        assert!(seen.len() > 1_000);
        (has(WORDS.as_bytes()), has(b"SFLK"))
    };
    assert_eq!(has_seen("off"), (true, true));
    assert_eq!(has_seen("required"), (false, false));
}

#[test]
fn a_node_in_clear_is_told_by_name_why_it_has_no_link() {
    let router = node("router", 1, "required", &[]);
    let routers = format!("--routers={}", router.clients);
    let clear = node("gateway", 33, "off", &[&routers]);
    for server in [&clear, &router] {
        until("both count it", || server.metric("sailfish_link_refused_total", "reason=\"no_tls\"") > 0.0);
        until("both log it", || server.log().contains("no_tls: cluster.tls is"));
    }
    assert_eq!(clear.get("/readyz").0, 503);
    let gateway = node("gateway", 34, "optional", &[&routers]);
    until("the other gateway is ready", || gateway.get("/readyz").0 == 200);
    // One that takes both is ready with this one too.
    let router = node("router", 2, "optional", &[]);
    let clear = node("gateway", 35, "off", &[&format!("--routers={}", router.clients)]);
    until("a gateway in clear is ready", || clear.get("/readyz").0 == 200);
    assert_eq!(clear.metric("sailfish_link_peers_clear", ""), 1.0);
}

#[test]
fn a_node_with_another_secret_is_told_so() {
    let router = node("router", 1, "required", &[]);
    let routers = format!("--routers={}", router.clients);
    let stranger = node("gateway", 33, "required", &[&routers, "--set=cluster.secret=quite another secret"]);
    for server in [&stranger, &router] {
        until("both count it", || server.metric("sailfish_link_refused_total", "reason=\"secret\"") > 0.0);
        until("both log it", || server.log().contains("secret: cluster.secret is not the same"));
    }
    assert_eq!(stranger.get("/readyz").0, 503);
}

/// Without the secret nobody gets as far as a frame, and costs the others nothing.
#[test]
fn nonsense_and_silence_on_a_link_port_harm_nobody() {
    let router = node("router", 1, "required", &[]);
    let gateway = node("gateway", 33, "required", &[&format!("--routers={}", router.clients)]);
    until("the gateway is ready", || gateway.get("/readyz").0 == 200);
    let refused =
        |reason: &str| router.metric("sailfish_link_refused_total", &format!("reason=\"{reason}\""));
    let half: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(router.clients).unwrap();
            stream.write_all(&[22, 3, 1, 0, 200, 1]).unwrap();
            stream
        })
        .collect();
    for (bytes, reason) in [
        (&[22; 4_000][..], "bad_tls"),
        (&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], "bad_tls"),
        (b"GET / HTTP/1.1\r\n\r\n", "bad_frame"),
    ] {
        let before = refused(reason);
        let mut stream = TcpStream::connect(router.clients).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new()); // a reset is an end too
        assert_eq!(refused(reason), before + 1.0, "{reason}");
    }
    let (mut first, mut second) = (gateway.login(1), gateway.login(2));
    first.say(6001, 2, "m", "still here?");
    let message = second.message();
    second.ack(message.id);
    assert_eq!(first.outcome("m"), Outcome::Delivered);
    until("those that stopped half-way have had their time", || refused("late") == 50.0);
    drop(half);
}
