use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};

use super::*;

/// One segment after the other, until it is told to fail or to hang.
#[derive(Default)]
struct Fake {
    next: AtomicI64,
    fetches: AtomicU32,
    fails: AtomicBool,
    hangs: AtomicBool,
}

impl Source for Arc<Fake> {
    async fn fetch(&self, _name: &str, length: i64) -> Result<i64, Error> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::unavailable("away", "for a test"));
        }
        Ok(self.next.fetch_add(length, Ordering::Relaxed))
    }
}

fn generator(order: Order) -> (Arc<Generator<Arc<Fake>>>, Arc<Fake>) {
    let fake = Arc::new(Fake { next: AtomicI64::new(1), ..Fake::default() });
    (Generator::new("test", order, fake.clone()), fake)
}

/// Lets what was spawned come as far as it can.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// What is there at the first look, without any wait.
fn at_once(generator: &Arc<Generator<Arc<Fake>>>, count: usize) -> Option<Vec<i64>> {
    let take = std::pin::pin!(generator.take(count));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match take.poll(&mut context) {
        std::task::Poll::Ready(ids) => Some(ids.unwrap()),
        std::task::Poll::Pending => None,
    }
}

/// B5: the next segment is there before the current one runs out, and the early refill wastes none.
#[tokio::test]
async fn the_end_of_a_segment_is_not_waited_at_and_no_id_is_lost() {
    let (generator, fake) = generator(Order::Ascending);
    assert_eq!(generator.take(749).await.unwrap(), (1..750).collect::<Vec<_>>());
    settle().await;
    assert_eq!(fake.fetches.load(Ordering::Relaxed), 1, "a quarter and one are left");
    assert_eq!(at_once(&generator, 1).unwrap(), [750]);
    settle().await;
    assert_eq!(fake.fetches.load(Ordering::Relaxed), 2, "three quarters are used");
    fake.hangs.store(true, Ordering::Relaxed);
    for id in 751..=3_000 {
        assert_eq!(at_once(&generator, 1), Some(vec![id]), "the database hangs, and is not needed");
    }
    assert_eq!(generator.waits(), 1, "for the first segment only");
}

#[tokio::test]
async fn a_call_across_segments_waits_for_as_many_and_gets_them_in_order() {
    let (generator, _) = generator(Order::Ascending);
    let mut all = Vec::new();
    for count in [999, 1_000, 1, 7, 1_000, 1_000, 993] {
        all.extend(generator.take(count).await.unwrap());
    }
    assert_eq!(all, (1..=5_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn shuffled_ids_are_a_permutation_of_their_segment() {
    let (generator, _) = generator(Order::Shuffled);
    let ids = generator.take(1_000).await.unwrap();
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), (1..=1_000).collect());
    let risen = ids.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((400..600).contains(&risen), "{risen} of 999 rise: half of them do by chance");
}

#[tokio::test]
async fn a_failed_fetch_is_told_to_those_who_wait_and_loses_nothing() {
    let (generator, fake) = generator(Order::Ascending);
    fake.fails.store(true, Ordering::Relaxed);
    assert_eq!(generator.take(1).await.unwrap_err().code, "away");
    fake.fails.store(false, Ordering::Relaxed);
    assert_eq!(generator.take(1).await.unwrap(), [1]);
    fake.fails.store(true, Ordering::Relaxed);
    assert_eq!(generator.take(900).await.unwrap().len(), 900);
    settle().await;
    assert_eq!(generator.take(1_000).await.unwrap_err().code, "away");
    assert_eq!(generator.take(99).await.unwrap(), (902..=1_000).collect::<Vec<_>>(), "what is here is given");
    fake.fails.store(false, Ordering::Relaxed);
    assert_eq!(generator.take(1).await.unwrap(), [1_001]);
}

#[tokio::test]
async fn all_who_wait_share_a_fetch() {
    let (generator, fake) = generator(Order::Ascending);
    let takes = (0..500).map(|_| {
        let generator = generator.clone();
        tokio::spawn(async move { generator.take(1).await })
    });
    let takes: Vec<_> = takes.collect();
    let mut ids = BTreeSet::new();
    for take in takes {
        ids.extend(take.await.unwrap().unwrap());
    }
    assert_eq!(ids, (1..=500).collect());
    assert_eq!(fake.fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn segments_grow_when_they_are_used_up_quickly_and_shrink_again() {
    let (generator, fake) = generator(Order::Ascending);
    for _ in 0..1_000 {
        generator.take(1_000).await.unwrap();
    }
    settle().await;
    let fetches = fake.fetches.load(Ordering::Relaxed);
    assert!(fetches < 30, "{fetches} fetches of a million ids");
    assert_eq!(generator.lock().next_length(), LENGTH_MAX);
    tokio::time::advance(SLOW + Duration::from_secs(1)).await;
    assert_eq!(generator.lock().next_length(), LENGTH_MAX / 2);
}
