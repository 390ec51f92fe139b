//! A server with real sockets: what callers may hold, and for how long.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // tests may panic, and wait for sockets

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Caller, Site, until};
use http_server::Limits;
use tokio::task::JoinSet;

/// A request that a handler works on until the site goes on.
const WAIT: &str = "POST /wait HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn a_caller_that_sends_no_whole_header_is_closed() {
    let site = Site::start(Limits { header_timeout_ms: 300, ..Limits::default() }).await;
    let mut silent = site.connect(1).await;
    let mut half = site.connect(1).await;
    half.send("GET /ok HTTP/1.1\r\nX-").await;
    let mut slow = site.connect(1).await;
    for _ in 0..100 {
        if slow.try_send("GET /ok HTTP/1.1\r\n").await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for caller in [&mut silent, &mut half, &mut slow] {
        assert_eq!(caller.rest().await, "");
    }
    assert_eq!(site.cut("header"), 3);
    until(|| site.counts().connections == 0).await;
}

/// The caller's request lies in the socket all the while.
#[tokio::test]
async fn a_process_that_stood_still_reads_before_it_judges() {
    let site = Site::start(Limits { header_timeout_ms: 300, ..Limits::default() }).await;
    let mut caller = site.connect(1).await;
    until(|| site.counts().connections == 1).await;
    caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
    std::thread::sleep(Duration::from_millis(700)); // this thread is the server's too
    assert_eq!(caller.answer().await, (200, "ok".into()));
    assert_eq!(site.cut("header"), 0);
}

#[tokio::test]
async fn a_connection_that_asks_no_more_is_closed() {
    let site = Site::start(Limits { idle_timeout_ms: 300, ..Limits::default() }).await;
    let mut caller = site.connect(1).await;
    for _ in 0..3 {
        caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
        assert_eq!(caller.answer().await, (200, "ok".into()));
    }
    assert_eq!(caller.rest().await, "");
    assert_eq!((site.cut("idle"), site.cut("header")), (1, 0));
}

#[tokio::test]
async fn a_second_request_has_the_time_of_a_header_from_its_first_byte() {
    let limits = Limits { header_timeout_ms: 300, idle_timeout_ms: 3_600_000, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut caller = site.connect(1).await;
    caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
    assert_eq!(caller.answer().await.0, 200);
    caller.send("GET /ok").await;
    assert_eq!(caller.rest().await, "");
    assert_eq!(site.cut("header"), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408() {
    let site = Site::start(Limits { body_timeout_ms: 300, ..Limits::default() }).await;
    let mut caller = site.connect(1).await;
    caller.send("POST /short HTTP/1.1\r\nContent-Length: 5\r\n\r\n1234").await;
    assert_eq!(caller.answer().await.0, 408);
    assert_eq!(site.cut("body"), 1);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let site = Site::start(Limits { answer_timeout_ms: 300, ..Limits::default() }).await;
    let mut caller = site.connect(1).await;
    caller.send("GET /large HTTP/1.1\r\n\r\n").await;
    until(|| site.cut("answer") == 1).await;
    until(|| site.counts().connections == 0).await;
}

#[tokio::test]
async fn a_caller_that_has_said_all_gets_its_answer() {
    let site = Site::start(Limits::default()).await;
    let mut caller = site.connect(1).await;
    caller.send("POST /wait HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}").await;
    caller.end().await;
    until(|| site.waiting() == 1).await;
    site.go_on();
    assert_eq!(caller.answer().await, (200, "done".into()));
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_what_it_asked_for() {
    let site = Site::start(Limits::default()).await;
    let mut caller = site.connect(1).await;
    caller.send("POST /wait HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}").await;
    until(|| site.waiting() == 1).await;
    drop(caller);
    // Time for a server that looks at the connection meanwhile to find that it has ended.
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.go_on();
    until(|| site.done() == 1).await;
}

#[tokio::test]
async fn silent_callers_keep_nobody_out() {
    let limits = Limits { connections_max: 8, address_connections_max: 4, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut silent = Vec::new();
    for address in [1, 2, 3] {
        for _ in 0..6 {
            silent.push(site.connect(address).await);
        }
    }
    for address in [1, 2, 3, 4] {
        let mut caller = site.connect(address).await;
        caller.send("GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert_eq!(caller.answer().await, (200, "ok".into()), "127.0.0.{address}");
    }
    assert!(site.counts().connections <= 8);
    assert!(site.cut("evicted") >= 10, "{}", site.cut("evicted"));
    assert_eq!(silent[0].rest().await, "", "the oldest has gone");
}

/// Their requests lie in the sockets before the server takes the first one.
#[tokio::test]
async fn callers_of_a_crowd_do_not_push_each_other_out() {
    let limits = Limits { connections_max: 8, address_connections_max: 4, ..Limits::default() };
    let site = Site::start(limits).await;
    // This thread is the server's too.
    let crowd: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(site.address()).unwrap();
            stream.write_all(b"GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    for stream in crowd {
        let mut caller = Caller::from(tokio::net::TcpStream::from_std(stream).unwrap());
        assert_eq!(caller.answer().await, (200, "ok".into()));
    }
}

#[tokio::test]
async fn who_just_came_has_time_to_ask() {
    let limits = Limits { connections_max: 4, address_connections_max: 2, ..Limits::default() };
    let site = Site::start(limits).await;
    let start = Instant::now();
    let (_first, _second) = (site.connect(1).await, site.connect(1).await);
    until(|| site.counts().connections == 2).await;
    let _third = site.connect(1).await;
    until(|| site.cut("evicted") == 1).await;
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
}

/// However many are opened: those who come are let in, nearly all the time at once.
#[tokio::test]
async fn a_flood_of_connections_keeps_nobody_out() {
    let limits = Limits { connections_max: 8, address_connections_max: 4, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        flood.spawn(connect_for_ever(site.address()));
    }
    until(|| site.cut("evicted") >= 1_000).await;
    for _ in 0..10 {
        let mut caller = site.connect(2).await;
        caller.send("GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert_eq!(caller.answer().await, (200, "ok".into()));
    }
    assert!(site.counts().connections <= 8);
}

async fn connect_for_ever(to: SocketAddr) {
    let mut last = None;
    loop {
        let caller = Caller::connect(to, 1).await.ok();
        drop(last.replace(caller));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The server does not run meanwhile: this thread is its own.
#[tokio::test]
async fn few_connections_are_open_that_nobody_took() {
    let site = Site::start(Limits::default()).await;
    let connect = || TcpStream::connect_timeout(&site.address(), Duration::from_millis(100)).ok();
    let open: Vec<TcpStream> = std::iter::from_fn(connect).take(400).collect();
    assert!(open.len() < 200, "{}", open.len());
}

#[tokio::test]
async fn callers_whose_share_is_at_work_are_refused_and_others_are_not() {
    let limits = Limits { connections_max: 3, address_connections_max: 2, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut at_work = Vec::new();
    for address in [1, 1, 2] {
        let mut caller = site.connect(address).await;
        caller.send("POST /wait HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}").await;
        at_work.push(caller);
        until(|| site.waiting() == at_work.len()).await;
    }
    for (address, reason) in [(1, "address_connections"), (3, "connections")] {
        let mut caller = site.connect(address).await;
        caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
        let answer = caller.rest().await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        assert_eq!(site.refused(reason), 1);
    }
    site.go_on();
    for mut caller in at_work {
        assert_eq!(caller.answer().await, (200, "done".into()));
    }
    let mut caller = site.connect(3).await;
    caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
    assert_eq!(caller.answer().await.0, 200, "an idle connection goes for it");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_not_read() {
    let site = Site::start(Limits::default()).await;
    let mut caller = site.connect(1).await;
    caller.send("POST /short HTTP/1.1\r\nContent-Length: 1025\r\n\r\n").await; // and no byte of it
    assert_eq!(caller.answer().await, (413, "want a body of at most 1024 bytes".into()));
    let mut caller = site.connect(1).await;
    caller.send("POST /short HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..5 {
        caller.send(&format!("100\r\n{}\r\n", "x".repeat(256))).await;
    }
    assert_eq!(caller.answer().await.0, 413);
    let mut caller = site.connect(1).await;
    caller.send("POST /short HTTP/1.1\r\nContent-Length: 1024\r\n\r\n").await;
    caller.send(&"x".repeat(1_024)).await;
    assert_eq!(caller.answer().await, (200, "1024".into()));
    assert_eq!(site.counts().bodies_bytes, 0);
}

#[tokio::test]
async fn who_sends_all_of_a_body_that_is_too_long_gets_to_read_the_answer() {
    let site = Site::start(Limits::default()).await;
    let mut caller = site.connect(1).await;
    let length = 4 << 20;
    caller.send(&format!("POST /short HTTP/1.1\r\nContent-Length: {length}\r\n\r\n")).await;
    caller.send(&"x".repeat(length)).await;
    assert_eq!(caller.answer().await.0, 413);
}

#[tokio::test]
async fn bodies_share_a_budget() {
    let limits = Limits { bodies_bytes_max: 3 << 20, address_bodies_bytes_max: 2 << 20, ..Limits::default() };
    let site = Site::start(limits).await;
    let length = 3 << 19; // 1.5 MiB
    let held_back =
        format!("POST /long HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length - 1));
    let mut first = site.connect(1).await;
    first.send(&held_back).await;
    until(|| site.counts().bodies_bytes == length as u64).await;
    let mut second = site.connect(1).await;
    second.send(&held_back).await;
    assert_eq!(second.answer().await.0, 503, "its address has its share");
    assert_eq!(site.refused("address_bodies"), 1);
    let mut third = site.connect(2).await;
    third.send(&held_back).await;
    until(|| site.counts().bodies_bytes == 2 * length as u64).await;
    let mut fourth = site.connect(3).await;
    fourth.send("POST /long HTTP/1.1\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!((fourth.answer().await.0, site.refused("bodies")), (503, 1));
    first.send("x").await;
    assert_eq!(first.answer().await, (200, length.to_string()));
    drop(third);
    until(|| site.counts().bodies_bytes == 0).await;
    let mut fourth = site.connect(3).await;
    fourth.send("POST /long HTTP/1.1\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(fourth.answer().await.0, 200);
}

#[tokio::test]
async fn an_address_whose_requests_are_refused_is_looked_at_no_more() {
    let site = Site::start(Limits { address_refusals_per_second: 1, ..Limits::default() }).await;
    let mut caller = site.connect(1).await;
    for _ in 0..50 {
        caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
        assert_eq!(caller.answer().await.0, 200, "what is not refused does not count");
    }
    let mut statuses = Vec::new();
    for _ in 0..30 {
        caller.send("GET /nothing HTTP/1.1\r\n\r\n").await;
        statuses.push(caller.answer().await.0);
    }
    let refused = statuses.iter().filter(|status| **status == 404).count();
    assert!((10..20).contains(&refused) && statuses.last() == Some(&429), "{statuses:?}");
    caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
    assert_eq!(caller.answer().await.0, 429);
    let mut other = site.connect(2).await;
    other.send("GET /ok HTTP/1.1\r\n\r\n").await;
    assert_eq!(other.answer().await.0, 200);
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_callers() {
    let limits = Limits {
        connections_max: 4,
        address_connections_max: 1,
        address_refusals_per_second: 1,
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
        ..Limits::default()
    };
    let site = Site::start(limits).await;
    let mut kept = site.connect(1).await;
    let mut proxy = site.connect(1).await;
    let mut status = async |caller: &str, path: &str| {
        proxy.send(&format!("GET {path} HTTP/1.1\r\nX-Forwarded-For: {caller}\r\n\r\n")).await;
        proxy.answer().await
    };
    assert_eq!(status("9.9.9.9", "/who").await, (200, "9.9.9.9".into()));
    for _ in 0..30 {
        status("9.9.9.9", "/nothing").await;
    }
    assert_eq!(status("9.9.9.9", "/ok").await.0, 429);
    assert_eq!(status("8.8.8.8", "/ok").await.0, 200);
    kept.send("GET /ok HTTP/1.1\r\n\r\n").await;
    assert_eq!(kept.answer().await.0, 200, "a proxy has no share of its own");
}

#[tokio::test]
async fn the_end_finishes_what_is_under_way_and_waits_for_nobody_silent() {
    let site = Site::start(Limits { header_timeout_ms: 3_600_000, ..Limits::default() }).await;
    let mut silent = site.connect(1).await;
    let mut half = site.connect(1).await;
    half.send("GET /ok HTTP/1.1\r\nX-").await;
    let mut idle = site.connect(1).await;
    idle.send("GET /ok HTTP/1.1\r\n\r\n").await;
    assert_eq!(idle.answer().await.0, 200);
    let mut at_work = site.connect(1).await;
    at_work.send("POST /wait HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}").await;
    until(|| site.waiting() == 1).await;
    site.stop();
    for caller in [&mut silent, &mut half, &mut idle] {
        assert_eq!(caller.rest().await, "");
    }
    assert!(Caller::connect(site.address(), 1).await.is_err(), "nobody is let in");
    site.go_on();
    assert_eq!(at_work.answer().await, (200, "done".into()));
    site.ended().await;
}

/// It has the share of an address at work, and three times as many connections that wait for their turn.
#[tokio::test]
async fn an_address_with_many_requests_waits_behind_its_own_only() {
    let limits = Limits { requests_max: 6, address_requests_max: 4, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut many = Vec::new();
    for _ in 0..16 {
        let mut caller = site.connect(1).await;
        caller.send(WAIT).await;
        many.push(caller);
    }
    until(|| site.waiting() == 4 && site.counts().connections == 16).await;
    let mut other = site.connect(2).await;
    other.send("GET /who HTTP/1.1\r\n\r\n").await;
    assert_eq!(other.answer().await, (200, "127.0.0.2".into()));
    assert_eq!((site.waiting(), site.counts().requests), (4, 4));
    site.go_on();
    for mut caller in many {
        assert_eq!(caller.answer().await, (200, "done".into()));
    }
    assert_eq!(site.counts().requests, 0);
}

#[tokio::test]
async fn callers_leave_the_places_of_services_alone() {
    let limits = Limits { requests_max: 2, address_requests_max: 2, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut many = Vec::new();
    for _ in 0..4 {
        let mut caller = site.connect(1).await;
        caller.send(WAIT).await;
        many.push(caller);
    }
    until(|| site.waiting() == 2).await;
    let mut service = site.connect(1).await;
    service.send("GET /service HTTP/1.1\r\n\r\n").await;
    assert_eq!(service.answer().await, (200, "ok".into()));
    assert_eq!(site.waiting(), 2);
}

/// Bodies that are held back take no turns.
#[tokio::test]
async fn a_request_that_waits_for_its_body_is_not_at_work() {
    let limits = Limits { requests_max: 1, address_requests_max: 1, ..Limits::default() };
    let site = Site::start(limits).await;
    let mut slow = site.connect(1).await;
    slow.send("POST /short HTTP/1.1\r\nContent-Length: 2\r\n\r\n1").await;
    until(|| site.counts().bodies_bytes == 1).await;
    let mut other = site.connect(1).await;
    other.send("GET /who HTTP/1.1\r\n\r\n").await;
    assert_eq!(other.answer().await, (200, "127.0.0.1".into()));
    slow.send("2").await;
    assert_eq!(slow.answer().await, (200, "2".into()));
}

/// When all connections are taken, one that waits for its turn goes for a caller of another address.
#[tokio::test]
async fn requests_that_wait_keep_no_connection_from_others() {
    let limits = Limits {
        connections_max: 6,
        address_connections_max: 4,
        requests_max: 4,
        address_requests_max: 1,
        ..Limits::default()
    };
    let site = Site::start(limits).await;
    let mut many = Vec::new();
    for address in [1, 1, 1, 1, 2, 2] {
        let mut caller = site.connect(address).await;
        caller.send(WAIT).await;
        many.push(caller);
    }
    until(|| site.waiting() == 2 && site.counts().connections == 6).await;
    let mut other = site.connect(3).await;
    other.send("GET /who HTTP/1.1\r\n\r\n").await;
    assert_eq!(other.answer().await, (200, "127.0.0.3".into()));
    assert_eq!((site.waiting(), site.cut("evicted")), (2, 1));
}
