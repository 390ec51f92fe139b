//! Pushes of a backend by the push stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use biz_bridge::{Bridge, Config, Mode, Push, PushOutcome, PushTarget, Pushed, Pushes};
use tokio::sync::Semaphore;
use wire::UserId;
use wire::client::FailReason;
use wire::node::Class;

use crate::world::{Ledger, PATIENCE, Redis, config, until};

type Answer = dyn Fn(&Push) -> Pushed + Send + Sync;

/// A node that answers as its test wants.
#[derive(Clone)]
struct Node {
    answer: Arc<Answer>,
    pushed: Arc<Mutex<Vec<Push>>>,
}

impl Node {
    fn new(answer: impl Fn(&Push) -> Pushed + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), pushed: Arc::default() }
    }

    fn count(&self) -> usize {
        self.pushed.lock().unwrap().len()
    }

    /// The payloads, in the order in which they were pushed.
    fn texts(&self) -> Vec<String> {
        let pushed = self.pushed.lock().unwrap();
        pushed.iter().map(|push| str::from_utf8(&push.payload).unwrap().to_owned()).collect()
    }
}

impl Pushes for Node {
    async fn push(&self, pushes: Vec<Push>) -> Vec<Pushed> {
        self.pushed.lock().unwrap().extend(pushes.iter().cloned());
        tokio::task::yield_now().await; // an answer comes later
        pushes.iter().map(|push| (self.answer)(push)).collect()
    }
}

fn delivered(_: &Push) -> Pushed {
    Pushed::Delivered
}

fn redis(server: &Redis) -> Config {
    config(Mode::Redis { url: server.url(), prefix: "t".into() })
}

fn start(config: Config, node: &Node) -> Bridge {
    Bridge::start(config, Arc::new(Ledger::default()), node.clone()).unwrap()
}

fn add(server: &Redis, user: i64, text: &str) -> String {
    let body =
        serde_json::json!({ "app": 1, "user": user, "biz_code": 5557, "client_msg_id": text, "data": text });
    server.ask(&["XADD", "t:push", "*", "p", &body.to_string()])
}

fn is_empty(server: &Redis) -> bool {
    server.ask(&["XLEN", "t:push"]) == "0" && server.ask(&["XPENDING", "t:push", "bridge"]).starts_with('0')
}

/// The dead letters: the fields of each.
fn dead(server: &Redis) -> Vec<HashMap<String, String>> {
    let entries: Vec<(String, HashMap<String, String>)> = server.query(&["XRANGE", "t:push:dead", "-", "+"]);
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// Lets a consumer of the group read everything, and die.
fn read_as(server: &Redis, consumer: &str, after: &str) {
    let _: ::redis::Value = server.query(&[
        "XREADGROUP",
        "GROUP",
        "bridge",
        consumer,
        "COUNT",
        "1000",
        "STREAMS",
        "t:push",
        after,
    ]);
}

fn make_group(server: &Redis) {
    assert_eq!(server.ask(&["XGROUP", "CREATE", "t:push", "bridge", "0", "MKSTREAM"]), "OK");
}

#[test]
fn entries_are_pushed_in_order_and_removed() {
    let server = Redis::start();
    // Some are there before the bridge, some come while it runs.
    let texts: Vec<String> = (0..300).map(|number| format!("m{number}")).collect();
    texts[..150].iter().for_each(|text| drop(add(&server, 5, text)));
    let node = Node::new(delivered);
    let bridge = start(redis(&server), &node);
    texts[150..].iter().for_each(|text| drop(add(&server, 5, text)));
    until("all are pushed", || node.count() >= texts.len());
    assert_eq!(node.texts(), texts);
    until("the stream is empty", || is_empty(&server));
    let metrics = bridge.metrics();
    assert_eq!(metrics.pushes(PushOutcome::Delivered).get(), 300);
    assert_eq!(metrics.push_stream_errors.get(), 0);
    let first = node.pushed.lock().unwrap()[0].clone();
    assert_eq!((first.target, first.class), (PushTarget::User(UserId(5)), Class::Reliable));
    assert_eq!(first.client_msg_id.as_str(), "m0");
    assert_eq!(bridge.stop(Duration::from_secs(20)), 0);
}

#[test]
fn what_a_dead_consumer_holds_is_taken_over() {
    let server = Redis::start();
    make_group(&server);
    (0..200).for_each(|number| drop(add(&server, number, "x")));
    read_as(&server, "bridge-2", ">");
    let node = Node::new(delivered);
    let _bridge = start(Config { reclaim: Duration::from_millis(100), ..redis(&server) }, &node);
    until("the stream is empty", || is_empty(&server));
    assert_eq!(node.count(), 200);
}

#[test]
fn what_it_held_in_an_earlier_life_is_taken_up_at_once() {
    let server = Redis::start();
    make_group(&server);
    (0..200).for_each(|number| drop(add(&server, number, "x")));
    read_as(&server, "bridge-1", ">");
    let node = Node::new(delivered);
    let _bridge = start(Config { reclaim: Duration::from_secs(3_600), ..redis(&server) }, &node);
    until("the stream is empty", || is_empty(&server));
    assert_eq!(node.count(), 200);
}

#[test]
fn an_entry_is_a_dead_letter_after_so_many_tries() {
    let server = Redis::start();
    let node = Node::new(|push| match &push.payload[..] {
        b"busy" => Pushed::Failed(FailReason::Busy),
        b"late" => Pushed::Pending,
        b"wrong" => Pushed::Refused("too large".into()),
        _ => Pushed::Delivered,
    });
    let bridge = start(Config { tries_max: 3, ..redis(&server) }, &node);
    let ids: HashMap<&str, String> =
        ["busy", "good", "late", "wrong"].into_iter().map(|text| (text, add(&server, 5, text))).collect();
    until("the stream is empty", || is_empty(&server));
    let tries = |text: &str| node.texts().iter().filter(|pushed| *pushed == text).count();
    assert_eq!(["busy", "good", "late", "wrong"].map(tries), [3, 1, 3, 1]);
    let dead: HashMap<String, HashMap<String, String>> =
        dead(&server).into_iter().map(|fields| (fields["id"].clone(), fields)).collect();
    assert_eq!(dead.len(), 3);
    for (text, reason, tries) in [
        ("busy", "tried 3 times, the last time busy", "3"),
        ("late", "tried 3 times, the last time without an outcome in time", "3"),
        ("wrong", "too large", "1"),
    ] {
        let letter = &dead[&ids[text]];
        assert_eq!((letter["reason"].as_str(), letter["tries"].as_str()), (reason, tries));
        assert!(letter["p"].contains(text));
    }
    assert_eq!(bridge.metrics().pushes(PushOutcome::Dead).get(), 3);
}

#[test]
fn an_entry_that_ends_every_bridge_that_reads_it_is_a_dead_letter() {
    let server = Redis::start();
    make_group(&server);
    let id = add(&server, 5, "x");
    read_as(&server, "bridge-1", ">");
    read_as(&server, "bridge-1", "0");
    read_as(&server, "bridge-1", "0");
    let node = Node::new(delivered);
    let _bridge = start(Config { tries_max: 3, ..redis(&server) }, &node);
    until("the stream is empty", || is_empty(&server));
    assert_eq!((dead(&server)[0]["id"].as_str(), node.count()), (id.as_str(), 0));
}

#[test]
fn what_cannot_be_read_is_a_dead_letter_and_what_is_gone_is_nothing() {
    let server = Redis::start();
    make_group(&server);
    let gone = add(&server, 5, "gone");
    read_as(&server, "bridge-1", ">");
    assert_eq!(server.ask(&["XDEL", "t:push", &gone]), "1");
    server.ask(&["XADD", "t:push", "*", "p", "'; DROP TABLE pushes; --"]);
    server.ask(&["XADD", "t:push", "*", "q", "{}"]);
    server.ask(&["XADD", "t:push", "*", "p", r#"{"app":1,"biz_code":1,"data":"to all"}"#]);
    let node = Node::new(|_| Pushed::Sent);
    let _bridge = start(redis(&server), &node);
    until("the stream is empty", || is_empty(&server));
    assert_eq!(node.texts(), ["to all"]);
    let reasons: Vec<String> = dead(&server).into_iter().map(|fields| fields["reason"].clone()).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().all(|reason| reason.starts_with("field p: ")), "{reasons:?}");
}

#[test]
fn a_failed_push_is_done_as_the_backend_hears_of_it_otherwise() {
    let server = Redis::start();
    let node = Node::new(|_| Pushed::Failed(FailReason::Offline));
    let bridge = start(redis(&server), &node);
    add(&server, 5, "x");
    until("the stream is empty", || is_empty(&server) && node.count() > 0);
    assert_eq!((node.count(), bridge.metrics().pushes(PushOutcome::Failed).get()), (1, 1));
    assert!(dead(&server).is_empty());
}

#[test]
fn while_nobody_can_be_asked_entries_wait_in_order_for_as_long_as_that_takes() {
    let server = Redis::start();
    let is_up = Arc::new(AtomicBool::new(false));
    let done = Arc::new(Mutex::new(Vec::new()));
    let (asked, noting) = (is_up.clone(), done.clone());
    let node = Node::new(move |push| {
        if !asked.load(Ordering::SeqCst) {
            return Pushed::Unavailable;
        }
        noting.lock().unwrap().push(str::from_utf8(&push.payload).unwrap().to_owned());
        Pushed::Delivered
    });
    let wait = Duration::from_millis(300);
    let _bridge = start(Config { tries_max: 2, retry_first: wait, retry_max: wait, ..redis(&server) }, &node);
    let texts: Vec<String> = (0..100).map(|number| format!("m{number}")).collect();
    texts[..50].iter().for_each(|text| drop(add(&server, 5, text)));
    until("each was tried more often than is allowed otherwise", || {
        texts[..50].iter().all(|text| node.texts().iter().filter(|pushed| *pushed == text).count() > 3)
    });
    // These come while the others wait, and could leave at once.
    is_up.store(true, Ordering::SeqCst);
    texts[50..].iter().for_each(|text| drop(add(&server, 5, text)));
    until("the stream is empty", || is_empty(&server));
    assert_eq!(*done.lock().unwrap(), texts);
    assert!(dead(&server).is_empty());
}

#[test]
fn an_entry_that_is_read_again_while_it_is_under_way_is_pushed_once() {
    #[derive(Clone)]
    struct Gate(Arc<Semaphore>, Arc<Mutex<Vec<Push>>>);
    impl Pushes for Gate {
        async fn push(&self, pushes: Vec<Push>) -> Vec<Pushed> {
            self.1.lock().unwrap().extend(pushes.iter().cloned());
            self.0.acquire().await.unwrap().forget();
            vec![Pushed::Delivered; pushes.len()]
        }
    }
    let server = Redis::start();
    let gate = Gate(Arc::new(Semaphore::new(0)), Arc::default());
    let bridge = Bridge::start(redis(&server), Arc::new(Ledger::default()), gate.clone()).unwrap();
    let count = || gate.1.lock().unwrap().len();
    add(&server, 5, "first");
    until("it is under way", || count() == 1);
    // The reader connects again and reads first what this consumer has not done.
    server.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("it has noticed", || bridge.metrics().push_stream_errors.get() > 0);
    add(&server, 5, "second");
    until("it reads again", || count() >= 2);
    gate.0.add_permits(10);
    until("the stream is empty", || is_empty(&server));
    assert_eq!(count(), 2);
}

#[test]
fn a_redis_that_is_killed_or_emptied_costs_no_entry_that_is_there() {
    let mut server = Redis::start();
    let node = Node::new(delivered);
    let bridge = start(Config { timeout: Duration::from_secs(2), ..redis(&server) }, &node);
    for round in 0..3 {
        (0..200).for_each(|number| drop(add(&server, number, &format!("{round}-{number}"))));
        server.kill();
        server.start_again();
        until("the stream is empty", || is_empty(&server));
        let mut texts = node.texts();
        texts.retain(|text| text.starts_with(&format!("{round}-")));
        texts.sort_unstable();
        texts.dedup(); // one whose removal was lost is pushed again, under its client_msg_id
        assert_eq!(texts.len(), 200);
    }
    assert_eq!(server.ask(&["FLUSHALL"]), "OK");
    add(&server, 5, "after");
    until("it is pushed", || node.texts().contains(&"after".to_owned()));
    assert_eq!(bridge.stop(Duration::from_secs(20)), 0);
}

#[test]
fn a_stop_leaves_what_is_to_be_tried_again() {
    let server = Redis::start();
    let node = Node::new(|push| match &push.payload[..] {
        b"good" => Pushed::Delivered,
        _ => Pushed::Unavailable,
    });
    let bridge = start(redis(&server), &node);
    add(&server, 5, "good");
    add(&server, 5, "later");
    until("it is tried", || node.count() > 5);
    let from = Instant::now();
    assert_eq!(bridge.stop(2 * PATIENCE), 0);
    assert!(from.elapsed() < PATIENCE, "it waits for what does not come");
    assert_eq!((server.ask(&["XLEN", "t:push"]), node.texts()[0].as_str()), ("1".into(), "good"));
    let healed = Node::new(delivered);
    let _bridge = start(redis(&server), &healed);
    until("the stream is empty", || is_empty(&server));
    assert_eq!(healed.texts(), ["later"]);
}

#[test]
fn a_panic_in_a_push_ends_the_bridge() {
    let server = Redis::start();
    let node = Node::new(|_| panic!("of the test"));
    let bridge = start(redis(&server), &node);
    add(&server, 5, "x");
    until("it ends", || !bridge.is_alive());
}

/// A push that takes long is not taken over by another bridge, nor counted as a try.
#[test]
fn what_is_under_way_is_kept_fresh() {
    struct Slow;
    impl Pushes for Slow {
        async fn push(&self, _: Vec<Push>) -> Vec<Pushed> {
            std::future::pending().await
        }
    }
    let server = Redis::start();
    let config = Config { reclaim: Duration::from_millis(300), ..redis(&server) };
    let bridge = Bridge::start(config, Arc::new(Ledger::default()), Slow).unwrap();
    add(&server, 5, "x");
    let pending = || -> Vec<(String, String, u64, u64)> {
        server.query(&["XPENDING", "t:push", "bridge", "-", "+", "10"])
    };
    let (mut last, mut freshened) = (0, 0);
    until("it is freshened", || {
        for (_, consumer, idle, tries) in pending() {
            assert_eq!((consumer.as_str(), tries), ("bridge-1", 1));
            freshened += u32::from(idle < last);
            last = idle;
        }
        freshened >= 3
    });
    assert_eq!(bridge.metrics().push_stream_errors.get(), 0);
}
