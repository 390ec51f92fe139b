//! The cache: what it saves the database, and what happens without it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backend::{Cache, Error, Hold, HoldAsk};

use crate::common::{Redis, Stack, servers};

/// Without a limit.
pub fn ask(user_id: i64, id: &str, amount: i64) -> HoldAsk {
    HoldAsk { user_id, id: id.to_owned(), amount, ttl: TTL, rate_max: None }
}

/// Says what a user has, unless that is known.
pub async fn set_available(cache: &Cache, user_id: i64, amount: i64) {
    cache.fill_available(user_id, TTL, async || Ok(amount)).await.unwrap();
}

const TTL: Duration = Duration::from_secs(100);

/// A load that counts how often it ran.
#[derive(Clone, Default)]
struct Loads(Arc<AtomicU32>);

impl Loads {
    async fn find(&self, value: Option<u32>) -> Result<Option<u32>, Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await; // others come meanwhile
        Ok(value)
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

both!(
    /// B3: a hot miss is one read of the database, however many ask; C1: that there is nothing is remembered
    /// too.
    a_thousand_who_ask_read_once,
    |stack| async move {
        let app = stack.app().await;
        for (key, value) in [("there", Some(7)), ("absent", None)] {
            let loads = Loads::default();
            let asks = (0..1_000).map(|_| {
                let (app, loads) = (app.clone(), loads.clone());
                tokio::spawn(async move { app.store.cache.read(key, TTL, || loads.find(value)).await.unwrap() })
            });
            for ask in asks.collect::<Vec<_>>() {
                assert_eq!(ask.await.unwrap(), value);
            }
            assert_eq!(loads.count(), 1, "{key}");
            assert_eq!(app.store.cache.read(key, TTL, || loads.find(Some(9))).await.unwrap(), value);
            assert_eq!(loads.count(), 1, "{key}: it is cached");
        }
        let (hits, misses) = app.store.cache.counts();
        assert_eq!(hits + misses, 2_002);
        assert!(hits >= 2);
    }
);

both!(
    /// B3: a batch reads only what is not cached, each in its place, absent ones included.
    a_batch_reads_what_is_missing,
    |stack| async move {
        let app = stack.app().await;
        let keys: Vec<String> = (0..10).map(|number| format!("key{number}")).collect();
        app.store.cache.read(&keys[3], TTL, async || Ok(Some(333_u32))).await.unwrap();
        let asked = async |expected: Vec<usize>| {
            app.store.cache
                .read_many::<u32, _>(&keys, TTL, async |missing: Vec<usize>| {
                    assert_eq!(missing, expected);
                    Ok(missing.iter().map(|index| (index % 2 == 0).then_some(*index as u32)).collect())
                })
                .await
                .unwrap()
        };
        let first = asked(vec![0, 1, 2, 4, 5, 6, 7, 8, 9]).await;
        let expected = [Some(0), None, Some(2), Some(333), Some(4), None, Some(6), None, Some(8), None];
        assert_eq!(first, expected);
        let loaded = async |_: Vec<usize>| -> Result<Vec<Option<u32>>, Error> { panic!("all is cached") };
        assert_eq!(app.store.cache.read_many(&keys, TTL, loaded).await.unwrap(), expected);
    }
);

both!(
    /// A load that fails is not remembered, and each who asks is told.
    a_failed_load_is_not_cached,
    |stack| async move {
        let app = stack.app().await;
        let failing = async || -> Result<Option<u32>, Error> { Err(Error::unavailable("away", "away")) };
        assert_eq!(app.store.cache.read("key", TTL, failing).await.unwrap_err().code, "away");
        assert_eq!(app.store.cache.read("key", TTL, async || Ok(Some(1_u32))).await.unwrap(), Some(1));
    }
);

both!(
    /// B3: keys that were cached together do not expire together.
    lives_are_spread,
    |stack| async move {
        let app = stack.app().await;
        let keys: Vec<String> = (0..200).map(|number| format!("key{number}")).collect();
        let all = async |missing: Vec<usize>| Ok(vec![Some(1_u32); missing.len()]);
        app.store.cache.read_many(&keys, TTL, all).await.unwrap();
        let config = stack.config();
        if config.redis.is_empty() {
            let alive = async |at_ms| {
                stack.clock().advance_ms(at_ms);
                app.store.cache.get_many(&keys).await.unwrap().into_iter().flatten().count()
            };
            assert_eq!(alive(99_000).await, 200);
            let half = alive(13_500).await;
            assert!((20..180).contains(&half), "{half} of 200 at 112.5 s");
            assert_eq!(alive(12_500).await, 0);
        } else {
            let mut lives = BTreeSet::new();
            for key in &keys {
                let key = format!("{}:cache:{key}", config.prefix);
                lives.insert(servers().redis.number(&["PTTL", &key]));
            }
            let (least, most) = (lives.first().unwrap(), lives.last().unwrap());
            assert!((80_000..112_000).contains(least), "{least}");
            assert!((112_000..=125_000).contains(most), "{most}");
            assert!(lives.len() > 100, "{}", lives.len());
        }
    }
);

both!(
    /// C3: check and hold are one step: of 1,000 at once, exactly those for whom there is enough.
    holds_never_go_below_zero,
    |stack| async move {
        let (app, other) = (stack.app().await, stack.app().await);
        let cache_of = |number: u32| if stack.config().redis.is_empty() || number.is_multiple_of(2) { &app } else { &other };
        assert_eq!(app.store.cache.hold(ask(1, "first", 1)).await.unwrap(), Hold::Unknown);
        set_available(&app.store.cache, 1, 1_000).await;
        set_available(&app.store.cache, 1, 5_000).await; // known already
        let holds = (0..1_000).map(|number| {
            let app = cache_of(number).clone();
            tokio::spawn(async move { app.store.cache.hold(ask(1, &format!("gift{number}"), 10)).await.unwrap() })
        });
        let mut held = Vec::new();
        for hold in holds.collect::<Vec<_>>() {
            held.push(hold.await.unwrap());
        }
        assert_eq!(held.iter().filter(|hold| **hold == Hold::Held).count(), 100);
        assert_eq!(held.iter().filter(|hold| **hold == Hold::Short).count(), 900);
        let number = held.iter().position(|hold| *hold == Hold::Held).unwrap();
        assert_eq!(app.store.cache.hold(ask(1, &format!("gift{number}"), 10)).await.unwrap(), Hold::Repeat);
        app.store.cache.forget_available(&[1]).await.unwrap();
        assert_eq!(app.store.cache.hold(ask(1, "last", 1)).await.unwrap(), Hold::Unknown);
        set_available(&app.store.cache, 2, 1_000).await;
        let limited = |id: &str| HoldAsk { rate_max: Some(2), ..ask(2, id, 1) };
        for (id, hold) in [("a", Hold::Held), ("a", Hold::Repeat), ("b", Hold::TooMany)] {
            assert_eq!(app.store.cache.hold(limited(id)).await.unwrap(), hold, "in one second");
        }
        assert_eq!(app.store.cache.hold(ask(2, "b", 999)).await.unwrap(), Hold::Held, "too many set nothing aside");
    }
);

both!(
    /// Counts for rate limits: one for all processes, and each window begins with its first.
    counts_are_shared,
    |stack| async move {
        let app = stack.app().await;
        let counts = (0..50).map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.store.cache.count("limit", TTL).await.unwrap() })
        });
        let mut seen = BTreeSet::new();
        for count in counts.collect::<Vec<_>>() {
            seen.insert(count.await.unwrap());
        }
        assert_eq!(seen, (1..=50).collect());
        assert_eq!(app.store.cache.count("another", TTL).await.unwrap(), 1);
    }
);

both!(
    /// What is there stays, and is what the second one gets.
    the_first_text_stands,
    |stack| async move {
        let (app, other) = (stack.app().await, stack.app().await);
        let other = if stack.config().redis.is_empty() { &app } else { &other };
        assert_eq!(app.store.cache.set_if_absent("answer", "refused", TTL).await.unwrap(), None);
        let there = other.store.cache.set_if_absent("answer", "paid", TTL).await.unwrap();
        assert_eq!(there.as_deref(), Some("refused"));
        assert_eq!(app.store.cache.get("answer").await.unwrap().as_deref(), Some("refused"));
    }
);

both!(
    /// Of several who take what one may take, one succeeds.
    one_takes,
    |stack| async move {
        let app = stack.app().await;
        app.store.cache.set("code", "123456", TTL).await.unwrap();
        assert!(!app.store.cache.take_if("code", "123457").await.unwrap());
        let takes = (0..50).map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.store.cache.take_if("code", "123456").await.unwrap() })
        });
        let mut taken = 0;
        for take in takes.collect::<Vec<_>>() {
            taken += u32::from(take.await.unwrap());
        }
        assert_eq!(taken, 1);
    }
);

/// A text of another version of this program is read anew instead of failing every request until it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_parse_is_read_anew() {
    let app = Stack::embedded().await.app().await;
    app.store.cache.set("key", "[\"another\"]", TTL).await.unwrap();
    assert_eq!(app.store.cache.read("key", TTL, async || Ok(Some(5_u32))).await.unwrap(), Some(5));
    assert_eq!(app.store.cache.get("key").await.unwrap().as_deref(), Some("5"));
}

/// Redis flushed: what was cached is read again. Redis away: reads work without it, and what needs it is told
/// 503 at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_flushed_and_goes_and_comes() {
    let redis = Redis::start();
    let app = Stack::embedded().await.with_redis(&redis).app().await;
    let loads = Loads::default();
    let read = async || app.store.cache.read("key", TTL, || loads.find(Some(5))).await.unwrap();
    set_available(&app.store.cache, 1, 100).await;
    assert_eq!((read().await, read().await, loads.count()), (Some(5), Some(5), 1));

    redis.command(&["FLUSHALL"]);
    assert_eq!((read().await, loads.count()), (Some(5), 2));
    assert_eq!(app.store.cache.hold(ask(1, "id", 1)).await.unwrap(), Hold::Unknown, "the database is asked");

    redis.kill();
    assert_eq!((read().await, read().await, loads.count()), (Some(5), Some(5), 4));
    let keys = ["key".to_owned()];
    let many =
        app.store.cache.read_many(&keys, TTL, async |_: Vec<usize>| Ok(vec![Some(6_u32)])).await.unwrap();
    assert_eq!(many, [Some(6)]);
    for error in [
        app.store.cache.hold(ask(1, "id", 1)).await.unwrap_err(),
        app.store.cache.count("limit", TTL).await.unwrap_err(),
        app.store
            .write_through(&keys, async { panic!("it must not be written") })
            .await
            .map(|(): ()| ())
            .unwrap_err(),
    ] {
        assert_eq!((error.status.as_u16(), error.code), (503, "redis_unavailable"));
    }

    redis.start_again();
    crate::common::until("the cache is back", async || app.store.cache.set("key", "5", TTL).await.is_ok())
        .await;
    assert_eq!((read().await, loads.count()), (Some(5), 4));
}
