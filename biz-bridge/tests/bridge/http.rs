//! Events to a backend by HTTP.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use biz_bridge::{BreakerState, Bridge, Config, EventKind, Item, Mode, Shards};
use serde_json::{Value, json};
use testbed::free_port;
use wire::client::FailReason;
use wire::node::Taken;

use crate::backend::{Backend, Call, Reply, all_ok, results};
use crate::world::{
    INCARNATION, NoPushes, PATIENCE, SECRET, SHARD, config, id, item, online, request, start, undelivered,
    until,
};

fn http(port: u16) -> Config {
    config(Mode::Http { url: format!("http://127.0.0.1:{port}"), secret: SECRET.to_vec() })
}

/// What a backend has done, each event once, in its order.
#[derive(Default)]
struct Book {
    seen: HashSet<String>,
    of_user: HashMap<i64, Vec<u64>>,
    repeats: usize,
}

impl Book {
    fn note(&mut self, event: &Value) {
        let id = event["id"].as_str().unwrap();
        if !self.seen.insert(id.to_owned()) {
            self.repeats += 1;
            return;
        }
        let seq = u64::from_str_radix(id.rsplit('-').next().unwrap(), 16).unwrap();
        self.of_user.entry(event["user"].as_i64().unwrap()).or_default().push(seq);
    }

    fn assert_order(&self) {
        assert!(self.of_user.values().all(|seqs| seqs.is_sorted()), "{:?}", self.of_user);
    }
}

#[test]
fn every_event_is_done_and_users_stay_in_order_under_all_kinds_of_trouble() {
    const EVENTS: u64 = 3_000;
    let book = Arc::new(Mutex::new(Book::default()));
    let noting = book.clone();
    let backend = Backend::start(move |call| {
        let mut book = noting.lock().unwrap();
        let events = call.events();
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"results\":[".to_vec();
        match call.number % 9 {
            1 => Reply::Json(500, json!({})),
            2 => Reply::Raw(Vec::new()),
            3 => {
                // Done, but the answer is lost.
                events.iter().for_each(|event| book.note(event));
                Reply::Raw(half)
            }
            4 if events.len() > 1 => Reply::Json(413, json!({})),
            // The first half is done; of the others there is no word, or they are to come again.
            number @ (5 | 6) => {
                let users: HashSet<i64> =
                    events.iter().map(|event| event["user"].as_i64().unwrap()).collect();
                let later = |event: &&Value| event["user"].as_i64().unwrap() % 2 == 0 && users.len() > 1;
                events.iter().filter(|event| !later(event)).for_each(|event| book.note(event));
                let results: Vec<Value> = events
                    .iter()
                    .filter(|event| number == 5 || !later(event))
                    .map(|event| json!({ "id": event["id"], "status": if later(&event) { "retry" } else { "ok" } }))
                    .collect();
                Reply::Json(200, json!({ "results": results }))
            }
            _ => {
                events.iter().for_each(|event| book.note(event));
                all_ok(call)
            }
        }
    });
    let (bridge, ledger) = start(Config { batch_max: 32, ..http(backend.port) });
    let inbox = bridge.inbox();
    for seq in 1..=EVENTS {
        let user = i64::try_from(seq * 7 % 50).unwrap();
        inbox.push(item(seq, if seq % 3 == 0 { online(user) } else { request(user, b"{}") }));
    }
    ledger.wait_for(EVENTS.try_into().unwrap());
    assert_eq!(bridge.stop(Duration::from_secs(20)), 0);
    ledger.assert_all_ok(1..=EVENTS);
    let book = book.lock().unwrap();
    book.assert_order();
    assert_eq!(book.seen.len(), usize::try_from(EVENTS).unwrap());
    assert!(book.repeats > 0, "answers were lost, so events came again");
    assert!(backend.calls() > 100);
}

#[test]
fn a_backend_that_is_away_loses_nothing() {
    let port = free_port();
    let (bridge, ledger) = start(http(port));
    let (inbox, metrics) = (bridge.inbox(), bridge.metrics());
    let book = Arc::new(Mutex::new(Book::default()));
    for round in 0..3 {
        let failed = metrics.batches_failed.get();
        let seqs = 1 + round * 500..=(round + 1) * 500;
        seqs.for_each(|seq| inbox.push(item(seq, online(i64::try_from(seq % 20).unwrap()))));
        until("it fails", || metrics.batches_failed.get() > failed + 3);
        assert_eq!(ledger.count(), usize::try_from(round * 500).unwrap());
        let noting = book.clone();
        let _backend = Backend::start_at(port, move |call| {
            call.events().iter().for_each(|event| noting.lock().unwrap().note(event));
            all_ok(call)
        });
        ledger.wait_for(usize::try_from((round + 1) * 500).unwrap());
    }
    assert_eq!(bridge.stop(Duration::from_secs(20)), 0);
    ledger.assert_all_ok(1..=1_500);
    book.lock().unwrap().assert_order();
    assert_eq!(metrics.taken(EventKind::Online).get(), 1_500);
    assert!(metrics.retries.get() > 0);
}

#[test]
fn whatever_is_no_answer_means_once_more() {
    let ok = |text: &str| Reply::Raw(format!("HTTP/1.1 200 OK\r\n\r\n{text}").into_bytes());
    type Case = Box<dyn Fn() -> Reply + Send + Sync>;
    let cases: Vec<(&str, Case)> = vec![
        ("500", Box::new(|| Reply::Json(500, json!({ "results": [{ "id": id(1), "status": "ok" }] })))),
        ("401", Box::new(|| Reply::Json(401, json!({})))),
        ("201", Box::new(|| Reply::Json(201, json!({ "results": [{ "id": id(1), "status": "ok" }] })))),
        (
            "a redirect",
            Box::new(|| Reply::Raw(b"HTTP/1.1 302 x\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ),
        ("no HTTP", Box::new(|| Reply::Raw(b"\0\xffwhat?\r\n\r\n".to_vec()))),
        ("no bytes", Box::new(|| Reply::Raw(Vec::new()))),
        ("no body", Box::new(|| Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()))),
        ("half a head", Box::new(|| Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()))),
        (
            "half a body",
            Box::new(|| {
                let body = json!({ "results": [{ "id": id(1), "status": "ok" }] }).to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() + 1);
                Reply::Raw((head + &body).into_bytes())
            }),
        ),
        ("no JSON", Box::new(move || ok("<html>it works</html>"))),
        ("no results", Box::new(move || ok("{}"))),
        ("a result without an id", Box::new(move || ok(r#"{"results":[{"status":"ok"}]}"#))),
        (
            "nobody's id",
            Box::new(|| Reply::Json(200, json!({ "results": [{ "id": "0-0-0", "status": "ok" }] }))),
        ),
        ("an odd status", Box::new(|| results(&[id(1)], |_| "OK"))),
        ("retry", Box::new(|| results(&[id(1)], |_| "retry"))),
        (
            "a body that is too long",
            Box::new(move || {
                ok(&format!(r#"{{"results":[{{"id":"{}","status":"ok"}}]}}{}"#, id(1), " ".repeat(5 << 20)))
            }),
        ),
    ];
    for (name, case) in cases {
        let ids = Arc::new(Mutex::new(Vec::new()));
        let noting = ids.clone();
        let backend = Backend::start(move |call| {
            noting.lock().unwrap().extend(call.ids());
            if call.number < 2 { case() } else { all_ok(call) }
        });
        let (bridge, ledger) = start(http(backend.port));
        bridge.inbox().push(item(1, request(1, b"{}")));
        ledger.wait_for(1);
        ledger.assert_all_ok([1]);
        assert_eq!(*ids.lock().unwrap(), [id(1), id(1), id(1)], "after {name}");
    }
}

#[test]
fn an_answer_that_does_not_come_in_time_means_once_more() {
    let backend = Backend::start(|call| if call.number == 0 { Reply::Never } else { all_ok(call) });
    let (bridge, ledger) = start(Config { timeout: Duration::from_millis(100), ..http(backend.port) });
    bridge.inbox().push(item(1, request(1, b"{}")));
    ledger.wait_for(1);
    ledger.assert_all_ok([1]);
    let metrics = bridge.metrics();
    assert_eq!((backend.calls(), metrics.batches_failed.get(), metrics.batches_taken.get()), (2, 1, 1));
}

/// What is under way may fail, so it counts as nothing yet: a counter that goes back looks like a restart.
#[test]
fn a_batch_is_counted_when_it_is_answered() {
    let backend = Backend::start(|_| Reply::Never);
    let (bridge, _) = start(http(backend.port));
    bridge.inbox().push(item(1, online(1)));
    until("it is under way", || backend.calls() == 1);
    let metrics = bridge.metrics();
    assert_eq!((metrics.batches_taken.get(), metrics.batches_failed.get()), (0, 0));
}

#[test]
fn what_is_refused_is_told_so_and_the_others_go_on() {
    let backend = Backend::start(|call| {
        // Of each ten one is poison that the backend cannot even read, one is refused.
        let is = |id: &String, digit| {
            u64::from_str_radix(id.rsplit('-').next().unwrap(), 16).unwrap() % 10 == digit
        };
        let ids = call.ids();
        match ids.iter().any(|id| is(id, 3)) {
            true => Reply::Json(422, json!({ "code": "bad_event" })),
            false => results(&ids, |id| if is(&id.to_owned(), 7) { "refused" } else { "ok" }),
        }
    });
    let (bridge, ledger) = start(http(backend.port));
    for seq in 1..=200 {
        let user = i64::try_from(seq).unwrap();
        bridge.inbox().push(item(
            seq,
            if seq <= 100 { request(user, b"{}") } else { undelivered(user, FailReason::Unacked) },
        ));
    }
    ledger.wait_for(200);
    for seq in 1..=200 {
        let reason = if seq <= 100 { FailReason::NoRoute } else { FailReason::Unacked };
        let wanted = if [3, 7].contains(&(seq % 10)) { Taken::Refused(reason) } else { Taken::Ok };
        assert_eq!(ledger.of(seq), [wanted], "event {seq}");
    }
    let metrics = bridge.metrics();
    assert_eq!(
        (metrics.refused(EventKind::Request).get(), metrics.taken(EventKind::Request).get()),
        (20, 80)
    );
    assert_eq!((metrics.refused(EventKind::Undelivered).get(), metrics.batches_failed.get()), (20, 0));
    assert_eq!(metrics.waiting.get(), 0);
}

#[test]
fn the_breaker_opens_and_leaves_the_backend_alone() {
    let backend = Backend::start(|_| Reply::Json(503, json!({})));
    let (bridge, ledger) = start(Config {
        breaker_failures: 4,
        breaker_pause: Duration::from_secs(3_600),
        lanes: 1,
        ..http(backend.port)
    });
    let metrics = bridge.metrics();
    (1..=50).for_each(|seq| bridge.inbox().push(item(seq, online(1))));
    until("it opens", || metrics.breaker() == BreakerState::Open);
    (51..=100).for_each(|seq| bridge.inbox().push(item(seq, online(1))));
    assert_eq!(bridge.stop(Duration::from_millis(200)), 100, "all of it is left to the shards");
    assert_eq!((backend.calls(), ledger.count()), (4, 0));
}

#[test]
fn the_breaker_probes_and_closes() {
    let (heals, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (healed, counted) = (heals.clone(), calls.clone());
    let backend = Backend::start(move |call| match healed.load(Ordering::SeqCst) {
        true => all_ok(call),
        false => {
            counted.fetch_add(1, Ordering::SeqCst);
            Reply::Json(503, json!({}))
        }
    });
    let (bridge, ledger) = start(Config { breaker_failures: 3, ..http(backend.port) });
    let metrics = bridge.metrics();
    (1..=500).for_each(|seq| bridge.inbox().push(item(seq, online(i64::try_from(seq).unwrap()))));
    until("it opens", || metrics.breaker_opened.get() == 1);
    let opened_at = calls.load(Ordering::SeqCst);
    until("it probes", || calls.load(Ordering::SeqCst) > opened_at + 8);
    assert_eq!(metrics.breaker_opened.get(), 1, "a failed probe leaves it open");
    heals.store(true, Ordering::SeqCst);
    ledger.wait_for(500);
    ledger.assert_all_ok(1..=500);
    until("it closes", || metrics.breaker() == BreakerState::Closed);
}

#[test]
fn requests_are_signed_and_dated() {
    let backend = Backend::start(|call: &Call| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let sent: u128 = call.header("x-sailfish-timestamp").parse().unwrap();
        assert!(now.abs_diff(sent) < 60_000);
        assert_eq!(call.path, "/im/bridge/events");
        assert_eq!(call.header("content-type"), "application/json");
        assert!(call.header("host").starts_with("127.0.0.1:"));
        match call.is_signed() {
            true => all_ok(call),
            false => Reply::Json(401, json!({})),
        }
    });
    let signed = |secret: &[u8]| http_with(format!("{}/im/", backend.url()), secret);
    let (bridge, ledger) = start(signed(SECRET));
    bridge.inbox().push(item(1, request(1, "\u{1f381}\0'; --".as_bytes())));
    ledger.wait_for(1);
    ledger.assert_all_ok([1]);
    let (bridge, ledger) = start(signed(b"another secret"));
    bridge.inbox().push(item(1, request(1, b"{}")));
    until("it fails", || bridge.metrics().batches_failed.get() > 2);
    assert_eq!(ledger.count(), 0);
}

fn http_with(url: String, secret: &[u8]) -> Config {
    config(Mode::Http { url, secret: secret.to_vec() })
}

#[test]
fn payloads_of_all_kinds_arrive() {
    let text = "\0\u{1}\r\n\t\"\\ \u{2028} \u{1f381} '; DROP TABLE users; --";
    let large = "0123456789abcdef".repeat(4_096);
    let events = Arc::new(Mutex::new(HashMap::new()));
    let noting = events.clone();
    let backend = Backend::start(move |call| {
        for event in call.events() {
            noting.lock().unwrap().insert(event["id"].as_str().unwrap().to_owned(), event);
        }
        all_ok(call)
    });
    let (bridge, ledger) = start(http(backend.port));
    for seq in 1..=100 {
        bridge.inbox().push(item(seq, request(1, large.as_bytes())));
    }
    bridge.inbox().push(item(101, request(1, text.as_bytes())));
    bridge.inbox().push(item(102, request(1, &[0xff, 0, 0xfe, 0x80])));
    ledger.wait_for(102);
    let events = events.lock().unwrap();
    assert!((1..=100).all(|seq| events[&id(seq)]["data"] == large.as_str()));
    assert_eq!(events[&id(101)]["data"], text);
    assert_eq!(events[&id(102)]["data_base64"], "/wD+gA==");
    assert!(backend.calls() >= 6, "100 x 64 KiB are more than one batch");
}

#[test]
fn an_event_that_waits_here_is_not_sent_twice_and_a_done_one_keeps_its_id() {
    let port = free_port();
    let (bridge, ledger) = start(http(port));
    let metrics = bridge.metrics();
    let push = |seq| bridge.inbox().push(item(seq, online(1)));
    for _ in 0..3 {
        (1..=10).for_each(push);
    }
    until("all are taken in", || metrics.repeated.get() == 20 && metrics.waiting.get() == 10);
    let ids = Arc::new(Mutex::new(Vec::new()));
    let noting = ids.clone();
    let _backend = Backend::start_at(port, move |call| {
        noting.lock().unwrap().extend(call.ids());
        all_ok(call)
    });
    ledger.wait_for(10);
    assert_eq!(*ids.lock().unwrap(), (1..=10).map(id).collect::<Vec<_>>());
    // Its shard has not heard of it, hands it over again, and is told again.
    push(3);
    until("it is told again", || ledger.of(3).len() == 2);
    assert_eq!(ids.lock().unwrap().last(), Some(&id(3)));
    // The same number in another life is another event.
    bridge.inbox().push(Item { incarnation: INCARNATION + 1, ..item(3, online(1)) });
    ledger.wait_for(11);
    assert_eq!(ids.lock().unwrap().last(), Some(&format!("{SHARD:x}-{:x}-3", INCARNATION + 1)));
}

#[test]
fn a_stop_sends_what_waits() {
    let backend =
        Backend::start(|call| if call.number < 5 { Reply::Json(500, json!({})) } else { all_ok(call) });
    let (bridge, ledger) = start(http(backend.port));
    (1..=2_000).for_each(|seq| bridge.inbox().push(item(seq, online(i64::try_from(seq).unwrap()))));
    let inbox = bridge.inbox();
    assert_eq!(bridge.stop(Duration::from_secs(60)), 0);
    ledger.assert_all_ok(1..=2_000);
    inbox.push(item(9_999, online(1)));
    assert!(ledger.of(9_999).is_empty());
}

/// Seven of the lanes have nothing to do and end at once. That they do is no fault, and the eighth goes on.
#[test]
fn a_stop_waits_for_the_lane_that_has_something() {
    let backend = Backend::start(|call| {
        thread::sleep(Duration::from_millis(10)); // in which the other lanes end
        all_ok(call)
    });
    for round in 1..=40 {
        let (bridge, ledger) = start(http(backend.port));
        bridge.inbox().push(item(round, online(1)));
        assert_eq!(bridge.stop(PATIENCE), 0, "round {round}");
        ledger.assert_all_ok([round]);
    }
}

#[test]
fn a_stop_ends_while_events_still_come() {
    let backend = Backend::start(|call| {
        thread::sleep(Duration::from_millis(5)); // in which more come
        all_ok(call)
    });
    let (bridge, ledger) = start(Config { lanes: 1, ..http(backend.port) });
    let (inbox, metrics) = (bridge.inbox(), bridge.metrics());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=200_000 {
                inbox.push(item(seq, online(i64::try_from(seq).unwrap())));
                thread::sleep(Duration::from_micros(200));
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        ledger.wait_for(100);
        let from = Instant::now();
        let left = bridge.stop(Duration::from_secs(30));
        is_over.store(true, Ordering::SeqCst);
        assert!(from.elapsed() < Duration::from_secs(20), "it ran to its deadline");
        assert_eq!(left, 0);
    });
    assert_eq!(metrics.waiting.get(), 0, "what came too late does not wait here");
}

/// A lane that is gone would hold up its users, and nobody would know.
#[test]
fn a_panic_in_a_lane_ends_the_bridge() {
    struct Broken;
    impl Shards for Broken {
        fn taken(&self, shard: u32, _: u64, _: Vec<(u64, Taken)>) {
            panic!("of the test: shard {shard}");
        }
    }
    let backend = Backend::start(all_ok);
    let bridge = Bridge::start(http(backend.port), Arc::new(Broken), NoPushes).unwrap();
    assert!(bridge.is_alive());
    bridge.inbox().push(item(1, online(1)));
    until("it ends", || !bridge.is_alive());
}

#[test]
fn a_stop_without_a_backend_ends_at_its_deadline() {
    let backend = Backend::start(|_| Reply::Never);
    let (bridge, ledger) = start(http(backend.port));
    (1..=100).for_each(|seq| bridge.inbox().push(item(seq, online(i64::try_from(seq).unwrap()))));
    assert_eq!(bridge.stop(Duration::from_millis(100)), 100);
    assert_eq!(ledger.count(), 0);
}

#[test]
fn connections_are_kept() {
    let backend = Backend::start(all_ok);
    let (bridge, ledger) = start(http(backend.port));
    for seq in 1..=300 {
        bridge.inbox().push(item(seq, online(i64::try_from(seq).unwrap())));
        ledger.wait_for(usize::try_from(seq).unwrap());
    }
    assert_eq!(backend.calls(), 300);
    assert!(backend.accepted() <= 8, "{} connections for 8 lanes", backend.accepted());
}
