//! The same node on every engine.

use std::time::Duration;

use rustix::process::Signal;
use wire::client::{NoticeCode, Outcome};

use crate::common::{Beats, SECRET, Server, output, sailfish};

/// Starts, talks across shards, and drains.
fn works_on(engine: &str) {
    let mut server = Server::start(&["--engine", engine]);
    assert!(server.stdout.contains(&format!(" engine={engine} ")), "{}", server.stdout);
    let mut clients: Vec<_> = (1..=8).map(|user| server.login(user)).collect();
    for from in 0..clients.len() {
        let to = (from + 1) % clients.len();
        let user = clients[to].user.0;
        clients[from].say(6001, user, "m1", "hello");
        let message = clients[to].message();
        clients[to].ack(message.id);
        assert_eq!(clients[from].outcome("m1"), Outcome::Delivered);
    }
    clients.iter_mut().for_each(|client| client.join(7));
    clients[0].say(5555, 7, "m2", "all of you");
    for client in &mut clients[1..] {
        assert_eq!(client.message().client_msg_id.as_str(), "m2");
    }
    assert!(matches!(clients[0].outcome_beside_messages("m2"), Outcome::Sequenced { .. }));
    server.connect().stream.shutdown(std::net::Shutdown::Both).unwrap();
    server.signal(Signal::TERM);
    for client in &mut clients[1..] {
        client.expect_farewell(NoticeCode::Draining);
    }
    drop(clients);
    assert_eq!(server.wait().code(), Some(0));
}

/// Nobody is silent because the process did not listen.
fn stands_still_on(engine: &str) {
    let heartbeat = ["--set", "heartbeat.period_ms=1000", "--set", "heartbeat.grace_ms=1000"];
    let server = Server::start(&[&["--engine", engine][..], &heartbeat].concat());
    let mut clients: Vec<_> = (1..=20).map(|user| server.login(user)).collect();
    let _beats = Beats::of(&clients);
    std::thread::sleep(Duration::from_millis(1_500));
    server.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(4_000));
    server.signal(Signal::CONT);
    std::thread::sleep(Duration::from_millis(1_000));
    for (at, client) in clients.iter_mut().enumerate() {
        client.say(6001, 1 + (at as i64 + 1) % 20, "m", "still here?");
    }
    for client in &mut clients {
        let message = client.message_beside_answers();
        client.ack(message.id);
    }
    assert_eq!(server.metric("sailfish_notices_total", ""), 0.0, "{engine}");
}

/// Whether this kernel gives the engine what it needs.
fn is_refused(engine: &str) -> bool {
    last_line(engine).contains("cannot run here")
}

/// What ends a start on the engine. It is one line; of an engine that cannot run, it names what is missing.
fn last_line(engine: &str) -> String {
    // A listen address that is no address of this machine ends it either way.
    let arguments = ["up", "--listen", "192.0.2.1:1", "--admin", "127.0.0.1:0", "--engine", engine];
    let output = output(sailfish().args(arguments).env("SAILFISH_TOKEN__SECRET", SECRET), "");
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.trim_end().lines().count()), (Some(1), 1), "{line}");
    line
}

#[test]
fn every_engine_that_the_kernel_allows_runs_a_node() {
    let glommio = cfg!(feature = "glommio").then_some("glommio");
    for engine in ["uring", "monoio", "epoll"].into_iter().chain(glommio) {
        if is_refused(engine) {
            assert_ne!(engine, "epoll", "epoll runs everywhere");
            println!("{engine} is refused by this kernel");
        } else {
            works_on(engine);
            stands_still_on(engine);
        }
    }
}

#[cfg(not(feature = "glommio"))]
#[test]
fn an_engine_that_is_left_out_of_the_build_is_refused() {
    let sentence =
        "engine glommio is not in this build, which has no feature glommio; use uring, epoll or auto";
    assert!(last_line("glommio").contains(sentence));
}
