//! What every queue has to pass: the table on SQLite and on MariaDB, and Redis.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::{AnyQueue, App, Job, JobId, Queue, TAKE_TIME, TRIES_MAX, Topic};

use crate::common::{MariaDb, Redis, Stack, until};

/// Defines a test that runs on all of them.
macro_rules! all {
    ($(#[$meta:meta])* $name:ident, |$stack:ident| $body:expr) => {
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn scenario($stack: Stack) {
                $body.await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn table_of_sqlite() {
                scenario(Stack::embedded().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn table_of_mariadb() {
                scenario(Stack::production().await.without_redis()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                scenario(Stack::production().await).await;
            }
        }
    };
}

/// No worker of these tests takes its jobs.
const TOPIC: Topic = Topic::OrderExpiry;
const NOW: Duration = Duration::ZERO;
/// No test waits for it; an answer comes sooner or it is a failure.
const LONG: Duration = Duration::from_secs(30);

/// One process's queue.
async fn queue(stack: &Stack, take_time: Duration) -> (Arc<App>, Arc<AnyQueue>) {
    let app = stack.app().await;
    let queue = AnyQueue::open_with(
        &stack.config(),
        app.store.redis.as_ref(),
        &app.store.db,
        stack.clock().source(),
        take_time,
    )
    .unwrap();
    (app, Arc::new(queue))
}

fn payloads(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("job {number}")).collect()
}

async fn take_all(queue: &AnyQueue, count: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    while jobs.len() < count {
        let taken = queue.take(TOPIC, 64, LONG).await.unwrap();
        assert!(!taken.is_empty(), "{} of {count} jobs after {LONG:?}", jobs.len());
        jobs.extend(taken);
    }
    jobs
}

fn ids(jobs: &[Job]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id.clone()).collect()
}

fn texts(jobs: &[Job]) -> Vec<String> {
    jobs.iter().map(|job| job.payload.clone()).collect()
}

all!(jobs_come_in_the_order_in_which_they_were_pushed, |stack| async move {
    let (_app, queue) = queue(&stack, TAKE_TIME).await;
    for first in [0, 1, 100] {
        queue.push(TOPIC, &payloads(first..(first * 2).max(1)), NOW).await.unwrap();
    }
    queue.push(TOPIC, &payloads(200..1_500), NOW).await.unwrap();
    let jobs = take_all(&queue, 1 + 1 + 100 + 1_300).await;
    let expected: Vec<String> = [0..1, 1..2, 100..200, 200..1_500].into_iter().flat_map(payloads).collect();
    assert_eq!(texts(&jobs), expected);
    assert!(jobs.iter().all(|job| job.tries == 1));
    queue.done(TOPIC, &ids(&jobs)).await.unwrap();
    assert_eq!(queue.count(TOPIC).await.unwrap(), (0, 0));
    assert_eq!(queue.take(TOPIC, 10, NOW).await.unwrap(), []);
});

all!(a_delayed_job_is_not_taken_before_it_is_due, |stack| async move {
    let (_app, queue) = queue(&stack, TAKE_TIME).await;
    let hour = Duration::from_secs(3_600);
    let same = ["same".to_owned(), "same".to_owned()];
    queue.push(TOPIC, &same, hour).await.unwrap();
    queue.push(TOPIC, &payloads(0..2), 2 * hour).await.unwrap();
    queue.push(TOPIC, &payloads(7..8), NOW).await.unwrap();
    assert_eq!(queue.count(TOPIC).await.unwrap(), (5, 0));
    let first = take_all(&queue, 1).await;
    assert_eq!(texts(&first), ["job 7"]);
    queue.done(TOPIC, &ids(&first)).await.unwrap();
    stack.clock().advance_ms(hour.as_millis() as i64 - 10_000);
    assert_eq!(queue.take(TOPIC, 10, NOW).await.unwrap(), []);
    stack.clock().advance_ms(10_000);
    let second = take_all(&queue, 2).await;
    assert_eq!(texts(&second), same, "equal payloads are two jobs");
    queue.done(TOPIC, &ids(&second)).await.unwrap();
    stack.clock().advance_ms(hour.as_millis() as i64);
    let third = take_all(&queue, 2).await;
    assert_eq!(texts(&third), ["job 0", "job 1"]);
});

all!(a_job_that_comes_due_wakes_whoever_waits, |stack| async move {
    let (_app, queue) = queue(&stack, TAKE_TIME).await;
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.take(TOPIC, 10, LONG).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await; // it waits
    queue.push(TOPIC, &payloads(0..1), Duration::from_millis(50)).await.unwrap();
    assert_eq!(texts(&waiting.await.unwrap()), ["job 0"]);
});

all!(a_job_whose_taker_died_is_taken_again_and_not_before, |stack| async move {
    let take_time = Duration::from_secs(3);
    let (_app, queue) = queue(&stack, take_time).await;
    let (app, dying) = self::queue(&stack, take_time).await;
    dying.push(TOPIC, &payloads(0..3), NOW).await.unwrap();
    let first = take_all(&dying, 3).await;
    dying.done(TOPIC, &ids(&first[..1])).await.unwrap();
    drop((app, dying));
    assert_eq!(queue.take(TOPIC, 10, NOW).await.unwrap(), [], "they are the other's");
    assert_eq!(queue.count(TOPIC).await.unwrap(), (2, 0));
    let again = take_all(&queue, 2).await;
    assert_eq!(texts(&again), ["job 1", "job 2"]);
    assert!(again.iter().all(|job| job.tries == 2));
    queue.done(TOPIC, &ids(&again)).await.unwrap();
    queue.done(TOPIC, &ids(&again)).await.unwrap(); // harms nobody
    assert_eq!(queue.count(TOPIC).await.unwrap(), (0, 0));
});

all!(several_processes_never_have_one_job_at_a_time, |stack| async move {
    let (app, first) = queue(&stack, TAKE_TIME).await;
    let (other, second) = queue(&stack, TAKE_TIME).await;
    const JOBS: usize = 3_000;
    let takers = (0..6).map(|taker| {
        let queue = if taker % 2 == 0 { first.clone() } else { second.clone() };
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let jobs = queue.take(TOPIC, 17, Duration::from_secs(3)).await.unwrap();
                if jobs.is_empty() {
                    return taken;
                }
                queue.done(TOPIC, &ids(&jobs)).await.unwrap();
                taken.extend(jobs);
            }
        })
    });
    let takers: Vec<_> = takers.collect();
    // Many producers at once.
    let producers = (0..30).map(|producer| {
        let queue = if producer % 3 == 0 { first.clone() } else { second.clone() };
        tokio::spawn(async move {
            for call in 0..10 {
                let from = producer * 100 + call * 10;
                queue.push(TOPIC, &payloads(from..from + 10), NOW).await.unwrap();
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.unwrap();
    }
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    assert_eq!(all.len(), JOBS);
    assert_eq!(texts(&all).into_iter().collect::<BTreeSet<_>>().len(), JOBS);
    assert!(all.iter().all(|job| job.tries == 1));
    assert_eq!(first.count(TOPIC).await.unwrap(), (0, 0));
    drop((app, other));
});

all!(a_job_that_nobody_can_end_is_a_dead_letter, |stack| async move {
    let (_app, queue) = queue(&stack, Duration::from_millis(40)).await;
    queue.push(TOPIC, &["poison".to_owned()], NOW).await.unwrap();
    let (start, mut tries) = (Instant::now(), Vec::new());
    while queue.count(TOPIC).await.unwrap() != (0, 1) {
        let jobs = queue.take(TOPIC, 10, Duration::from_millis(200)).await.unwrap();
        tries.extend(jobs.iter().map(|job| job.tries));
        assert!(tries.len() <= TRIES_MAX as usize, "{tries:?}");
        assert!(start.elapsed() < LONG, "{tries:?} in {LONG:?}");
    }
    assert_eq!(tries, (1..=TRIES_MAX).collect::<Vec<_>>());
    assert_eq!(queue.take(TOPIC, 10, Duration::from_millis(200)).await.unwrap(), []);
});

all!(payloads_are_any_text, |stack| async move {
    let (_app, queue) = queue(&stack, TAKE_TIME).await;
    let texts_in = [
        String::new(),
        "'); DROP TABLE t_job; --".into(),
        "\u{0}\u{1}\r\n\t\\\"'`;%_".into(),
        "\u{1f381} gift \u{202e} \u{fffd}".into(),
        r#"{"a":[1,2,{"b":null}]}"#.into(),
        "x".repeat(200_000),
    ];
    queue.push(TOPIC, &texts_in, NOW).await.unwrap();
    queue.push(TOPIC, &texts_in, Duration::from_millis(1)).await.unwrap();
    let jobs = take_all(&queue, 2 * texts_in.len()).await;
    let sorted = |texts: Vec<String>| texts.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(texts(&jobs)[..6], texts_in);
    assert_eq!(sorted(texts(&jobs)[6..].to_vec()), sorted(texts_in.to_vec()));
});

all!(topics_are_queues_of_their_own, |stack| async move {
    let (_app, queue) = queue(&stack, TAKE_TIME).await;
    queue.push(Topic::Gift, &payloads(0..1), NOW).await.unwrap();
    assert_eq!(queue.take(TOPIC, 10, NOW).await.unwrap(), []);
    assert_eq!(queue.take(Topic::Gift, 10, NOW).await.unwrap().len(), 1);
});

/// kill -9 of Redis loses no job, and none that was taken: what was pushed is in its append-only file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back() {
    let redis = Redis::start();
    let stack = Stack::embedded().await.with_redis(&redis);
    let (_app, queue) = queue(&stack, Duration::from_secs(2)).await;
    queue.push(TOPIC, &payloads(0..500), NOW).await.unwrap();
    queue.push(TOPIC, &payloads(500..600), Duration::from_secs(3_600)).await.unwrap();
    let taken = queue.take(TOPIC, 50, LONG).await.unwrap();
    queue.done(TOPIC, &ids(&taken[..20])).await.unwrap();
    redis.kill();
    let error = queue.push(TOPIC, &payloads(0..1), NOW).await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (503, "redis_unavailable"));
    assert_eq!(queue.take(TOPIC, 1, NOW).await.unwrap_err().status.as_u16(), 503);
    redis.start_again();
    until("the queue is back", async || queue.count(TOPIC).await.is_ok()).await;
    assert_eq!(queue.count(TOPIC).await.unwrap(), (580, 0));
    stack.clock().advance_ms(3_600_000);
    let mut jobs = Vec::new();
    while queue.count(TOPIC).await.unwrap() != (0, 0) {
        let taken = queue.take(TOPIC, 64, LONG).await.unwrap();
        queue.done(TOPIC, &ids(&taken)).await.unwrap();
        jobs.extend(taken);
    }
    assert_eq!(jobs.iter().filter(|job| job.tries == 2).count(), 30, "they were taken before");
    let distinct: BTreeSet<String> = texts(&jobs).into_iter().collect();
    assert_eq!(distinct, payloads(20..600).into_iter().collect());
}

/// A flushed Redis has lost the consumer group too; it is made again, for what comes after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_flushed() {
    let redis = Redis::start();
    let stack = Stack::embedded().await.with_redis(&redis);
    let (_app, queue) = queue(&stack, TAKE_TIME).await;
    queue.push(TOPIC, &payloads(0..10), NOW).await.unwrap();
    let taken = queue.take(TOPIC, 5, LONG).await.unwrap();
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut jobs = queue.take(TOPIC, 5, LONG).await.unwrap();
            jobs.extend(queue.take(TOPIC, 5, LONG).await.unwrap());
            jobs
        }
    });
    until("the rest is taken", async || redis.number(&["XPENDING", &stack.stream(TOPIC), "backend"]) == 10)
        .await;
    redis.command(&["FLUSHALL"]);
    queue.done(TOPIC, &ids(&taken)).await.unwrap(); // what is gone is done
    queue.push(TOPIC, &payloads(10..11), NOW).await.unwrap();
    assert_eq!(texts(&waiting.await.unwrap()).last().unwrap(), "job 10");
}

/// A job that ends in the transaction of the business ends with it or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_ends_with_its_transaction() {
    for stack in [Stack::embedded().await, Stack::production().await.without_redis()] {
        let (app, queue) = queue(&stack, TAKE_TIME).await;
        let AnyQueue::Table(table) = &*queue else { panic!("no table") };
        queue.push(TOPIC, &payloads(0..2), NOW).await.unwrap();
        let jobs = take_all(&queue, 2).await;
        let mut tx = app.store.db.begin().await.unwrap();
        table.done_with(&mut tx, &ids(&jobs)).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(queue.count(TOPIC).await.unwrap(), (2, 0));
        let mut tx = app.store.db.begin().await.unwrap();
        table.done_with(&mut tx, &ids(&jobs[..1])).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(queue.count(TOPIC).await.unwrap(), (1, 0));
    }
}

/// While the database is away, jobs that need it are not taken: each taking is a try, and after some they
/// would be dead letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_wait_for_the_database() {
    let (redis, database) = (Redis::start(), MariaDb::primary());
    let stack = Stack::embedded().await.with_redis(&redis).with_database(&database);
    let node = stack.backend().await;
    database.kill();
    until("it is noticed", async || !node.app().store.db.is_up().await).await;
    tokio::time::sleep(Duration::from_secs(6)).await; // longer than a take that began before may wait
    for topic in [Topic::Gift, Topic::OrderExpiry] {
        node.app().store.queue.push(topic, &payloads(0..1), NOW).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for topic in [Topic::Gift, Topic::OrderExpiry] {
        let taken = redis.command(&["XPENDING", &stack.stream(topic), "backend"]);
        assert!(taken.starts_with("NOGROUP") || taken.starts_with("0\n"), "{topic:?}: {taken}");
        assert_eq!(node.app().store.queue.count(topic).await.unwrap(), (1, 0));
    }
    database.start_again();
    until("the order's job is done", async || {
        node.app().store.queue.count(Topic::OrderExpiry).await.unwrap() == (0, 0)
    })
    .await;
    node.stop().await;
}

/// A transaction of the queue that MariaDB undoes, since it and another one waited for each other, is done
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_the_queue_s_own_matter() {
    let server = MariaDb::primary();
    let stack = Stack::embedded().await.with_database(&server);
    let (app, queue) = queue(&stack, TAKE_TIME).await;
    queue.push(TOPIC, &payloads(0..2), NOW).await.unwrap();
    let jobs = take_all(&queue, 2).await;
    let [JobId::Row(first), JobId::Row(second)] = ids(&jobs)[..] else { panic!("no rows: {jobs:?}") };
    let touch = |id: i64| sqlx::query("UPDATE t_job SET due_ms = due_ms + 1 WHERE id = ?").bind(id);
    // It has changed more rows than the queue, so the queue's transaction is the one that is undone.
    let mut other = app.store.db.begin().await.unwrap();
    for user_id in 0..50_i64 {
        let insert = sqlx::query("INSERT INTO t_account (user_id, balance) VALUES (?, 0)").bind(user_id);
        insert.execute(&mut *other).await.unwrap();
    }
    touch(second).execute(&mut *other).await.unwrap();
    let ending = tokio::spawn({
        let queue = queue.clone();
        async move { queue.done(TOPIC, &ids(&jobs)).await }
    });
    server.until("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'", 1);
    touch(first).execute(&mut *other).await.expect("the other one goes on");
    other.commit().await.unwrap();
    ending.await.unwrap().unwrap();
    assert_eq!(queue.count(TOPIC).await.unwrap(), (0, 0));
    let deadlocks = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
                     WHERE variable_name = 'innodb_deadlocks'";
    assert_eq!(server.number(deadlocks), 1, "there was one");
}
