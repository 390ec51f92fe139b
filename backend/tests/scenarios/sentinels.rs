//! Redis with Sentinels: the backend follows the master.

use std::time::{Duration, Instant};

use backend::{Answer, Queue, Topic};
use testbed::{MASTER, SentinelPlan, Sentinels};
use tokio::task::JoinSet;

use crate::common::{Node, Stack, until};
use crate::gift::{audit, grant, insist, new_gift, request, unlimited};
use crate::pushes::FakePush;

/// No worker of these tests takes its jobs.
const TOPIC: Topic = Topic::OrderExpiry;
const LONG: Duration = Duration::from_secs(60);
/// How long a failover may be felt: the sentinels miss a master after 1 s.
const FAILOVER_TIME: Duration = Duration::from_secs(20);

/// Three sentinels, of which two must agree; Redis and sentinels want passwords of their own.
const THREE: SentinelPlan = SentinelPlan {
    count: 3,
    quorum: 2,
    password: Some("of-redis"),
    sentinel_password: Some("of-sentinels"),
    tls: None,
};
const ONE: SentinelPlan =
    SentinelPlan { count: 1, quorum: 1, password: None, sentinel_password: None, tls: None };

/// Blocks while they start.
async fn start(plan: SentinelPlan) -> Sentinels {
    tokio::task::spawn_blocking(move || Sentinels::start(plan)).await.unwrap()
}

async fn set(node: &Node, key: &str) -> Result<(), backend::Error> {
    node.app().store.cache.set(key, "1", LONG).await
}

/// How long it takes until a command succeeds. Meanwhile each fails as a server's that is away.
async fn writes_again(node: &Node, key: &str) -> Duration {
    let start = Instant::now();
    loop {
        match set(node, key).await {
            Ok(()) => return start.elapsed(),
            Err(error) => {
                assert_eq!((error.status.as_u16(), error.code), (503, "redis_unavailable"), "{error}")
            }
        }
        assert!(start.elapsed() < FAILOVER_TIME, "the new master is not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_there(redis: &testbed::Redis, stack: &Stack, key: &str) -> bool {
    redis.number(&["EXISTS", &format!("{}:cache:{key}", stack.config().prefix)]) == 1
}

/// The master is killed in a storm of gifts, and a sentinel before it. Each gift is paid once, and what needs
/// Redis goes on with the new master.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_dies_and_each_gift_is_paid_once() {
    let redis = start(THREE).await;
    let stack = Stack::production().await.with_sentinels(&redis);
    let fake = FakePush::start().await;
    let mut config = unlimited(&stack);
    (config.push_url, config.gift_wait_ms) = (fake.url(), 1_000);
    let node = stack.backend_with(config).await;
    let gift = new_gift(&node, 10).await;
    for user_id in 1..=20 {
        grant(&node, user_id, 1_000, "a").await;
    }
    let mut sends = JoinSet::new();
    for number in 0..1_000 {
        sends.spawn(insist(&node, request(1 + number % 20, &format!("g{number}"), gift)).await);
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match number {
            100 => redis.sentinels[0].kill(),
            300 => redis.first.kill(),
            _ => {}
        }
    }
    let answers = sends.join_all().await;
    assert!(answers.iter().all(|answer| *answer == Answer::Committed { total: 10 }), "{answers:?}");
    assert_eq!(audit(&node).await, (10_000, 1_000));
    writes_again(&node, "after").await;
    assert!(is_there(&redis.second, &stack, "after"));
    until("effects are shown", || async { fake.shown(5556).len() == 1_000 }).await;

    // The old master comes back as a replica of the new one.
    redis.first.start_again();
    until("it is a replica", async || redis.first.has_role("slave")).await;
    writes_again(&node, "late").await;
    assert!(is_there(&redis.second, &stack, "late"));
    node.stop().await;
}

/// Jobs that the replica has outlive the master, and who waits for jobs waits at the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_follows_the_master() {
    let redis = start(ONE).await;
    let stack = Stack::embedded().await.with_sentinels(&redis);
    let app = stack.app().await; // without workers, who would take the jobs
    let queue = &app.store.queue;
    let job = |number: u32| [format!("job {number}")];
    queue.push(TOPIC, &job(0), Duration::ZERO).await.unwrap();
    assert_eq!(queue.take(TOPIC, 1, Duration::ZERO).await.unwrap().len(), 1);
    queue.push(TOPIC, &job(1), Duration::ZERO).await.unwrap();
    redis.replicate();
    let jobs = queue.take(TOPIC, 1, Duration::ZERO).await.unwrap();
    assert_eq!(jobs[0].payload, "job 1");
    queue.done(TOPIC, &[jobs[0].id.clone()]).await.unwrap();
    redis.replicate();
    let waits = async {
        let start = Instant::now();
        loop {
            match queue.take(TOPIC, 1, LONG).await {
                Ok(jobs) => return jobs,
                Err(error) => assert_eq!(error.status, 503, "{error}"),
            }
            assert!(start.elapsed() < LONG, "the new master is not found");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let pushes = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis.first.kill();
        until("a job is pushed", async || queue.push(TOPIC, &job(2), Duration::ZERO).await.is_ok()).await;
    };
    let (jobs, ()) = tokio::join!(waits, pushes);
    assert_eq!(jobs[0].payload, "job 2");
    queue.done(TOPIC, &[jobs[0].id.clone()]).await.unwrap();
    assert_eq!(queue.count(TOPIC).await.unwrap(), (1, 0), "the first, which is taken");
}

/// A master that stands still is replaced. When it goes on, it does not know that yet, and gets no writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_stood_still_gets_no_writes() {
    let redis = start(ONE).await;
    let stack = Stack::embedded().await.with_sentinels(&redis);
    let node = stack.backend().await;
    set(&node, "before").await.unwrap();
    assert!(is_there(&redis.first, &stack, "before"));
    redis.first.freeze(true);
    let took = writes_again(&node, "meanwhile").await;
    println!("the failover was felt for {} ms", took.as_millis());
    redis.first.freeze(false);
    for number in 0..100 {
        let key = format!("after {number}");
        writes_again(&node, &key).await;
        assert!(is_there(&redis.second, &stack, &key), "{key}");
    }
    until("it is a replica", async || redis.first.has_role("slave")).await;
    node.stop().await;
}

/// An operator moves the master. Both servers live on, and at most one command of each connection fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_is_followed() {
    let redis = start(ONE).await;
    let stack = Stack::embedded().await.with_sentinels(&redis);
    let node = stack.backend().await;
    set(&node, "before").await.unwrap();
    redis.ask(0, &["SENTINEL", "FAILOVER", MASTER]);
    until("the other is the master", async || redis.second.has_role("master")).await;
    until("the first is a replica", async || redis.first.has_role("slave")).await;
    for number in 0..100 {
        let key = format!("after {number}");
        writes_again(&node, &key).await;
        assert!(is_there(&redis.second, &stack, &key), "{key}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.stop().await;
}

/// A master that takes no writes any more is used no more, although its connections live and the sentinels
/// still name it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_master_gets_no_writes() {
    let redis = start(ONE).await;
    let stack = Stack::embedded().await.with_sentinels(&redis);
    let node = stack.backend().await;
    set(&node, "before").await.unwrap();
    let port = redis.second.address().port().to_string();
    redis.second.command(&["REPLICAOF", "NO", "ONE"]);
    redis.first.command(&["REPLICAOF", "127.0.0.1", &port]);
    let error = set(&node, "meanwhile").await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (503, "redis_unavailable"));
    assert!(error.to_string().contains("read only replica"), "{error}");
    let error = set(&node, "meanwhile").await.unwrap_err();
    assert!(error.to_string().contains("no master"), "{error}");
    redis.first.command(&["REPLICAOF", "NO", "ONE"]);
    writes_again(&node, "after").await;
    node.stop().await;
}

/// Redis and sentinels speak TLS, among themselves and with the backend, which checks who they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_speak_tls_are_followed() {
    const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/tests/pem/ca.pem");
    const CHAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/tests/pem/one.pem");
    const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/tests/pem/one.key");
    let redis = start(SentinelPlan { tls: Some([CHAIN, KEY, CA]), password: Some("hush"), ..ONE }).await;
    let stack = Stack::embedded().await.with_sentinels(&redis);
    let mut config = stack.config();
    config.roots = trust::Roots::read(CA.as_ref()).unwrap();
    config.validate().unwrap();
    let node = stack.backend_with(config).await;
    set(&node, "before").await.unwrap();
    redis.first.kill();
    writes_again(&node, "after").await;
    assert!(is_there(&redis.second, &stack, "after"));
    node.stop().await;
    let node = stack.backend().await; // which trusts the system's authorities only
    assert_eq!(set(&node, "strange").await.unwrap_err().status, 503);
    node.stop().await;
}
