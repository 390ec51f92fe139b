//! The ids of one name in one process.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logs::warn;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Order, TAKE_MAX};
use crate::error::Error;
use crate::random;

/// Where segments come from.
pub trait Source: Send + Sync + 'static {
    /// The first of `length` ids of `name` that nobody else gets.
    fn fetch(&self, name: &str, length: i64) -> impl Future<Output = Result<i64, Error>> + Send;
}

/// Gives ids from segments of a source.
pub struct Generator<S> {
    name: String,
    order: Order,
    source: S,
    state: Mutex<State>,
    /// Notifies that a fetch has ended.
    fetched: Notify,
    waits: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The segment in use, and the next one. Each has its ids in the order in which they leave.
    segments: VecDeque<Segment>,
    is_fetching: bool,
    /// How long the last one was, and when it was fetched.
    last: Option<(i64, Instant)>,
    /// How many fetches have failed, and the last error.
    failures: u64,
    failure: Option<Error>,
}

struct Segment {
    length: usize,
    ids: VecDeque<i64>,
}

impl<S: Source> Generator<S> {
    pub fn new(name: &str, order: Order, source: S) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            order,
            source,
            state: Mutex::default(),
            fetched: Notify::new(),
            waits: AtomicU64::new(0),
        })
    }

    /// Takes `count` ids at once. Waits only while there are too few here.
    pub async fn take(self: &Arc<Self>, count: usize) -> Result<Vec<i64>, Error> {
        let mut failures = None;
        loop {
            let mut fetched = std::pin::pin!(self.fetched.notified());
            fetched.as_mut().enable(); // from here on no end of a fetch is missed
            {
                let mut state = self.lock();
                let ids = state.take(count);
                let has_failed = failures.is_some_and(|before| before < state.failures);
                if ids.is_none() && has_failed {
                    return Err(state.failure.clone().expect("a failure is kept when it is counted"));
                }
                if (ids.is_none() || state.is_short()) && !state.is_fetching {
                    state.is_fetching = true;
                    tokio::spawn(self.clone().refill());
                }
                if let Some(ids) = ids {
                    return Ok(ids);
                }
                if failures.is_none() {
                    failures = Some(state.failures);
                    self.waits.fetch_add(1, Ordering::Relaxed);
                }
            }
            fetched.await;
        }
    }

    /// How often somebody waited.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    async fn refill(self: Arc<Self>) {
        let length = self.lock().next_length();
        let fetched = self.source.fetch(&self.name, length).await;
        let segment = fetched.map(|first| {
            let mut ids: Vec<i64> = (first..first + length).collect();
            if self.order == Order::Shuffled {
                shuffle(&mut ids);
            }
            Segment { length: ids.len(), ids: ids.into() }
        });
        let mut state = self.lock();
        state.is_fetching = false;
        match segment {
            Ok(segment) => {
                state.last = Some((length, Instant::now()));
                state.segments.push_back(segment);
            }
            Err(error) => {
                warn!(name = self.name, %error, "no segment of ids");
                state.failures += 1;
                state.failure = Some(error);
            }
        }
        drop(state);
        self.fetched.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes all of them or none, so that none are lost if there are too few.
    fn take(&mut self, count: usize) -> Option<Vec<i64>> {
        let here: usize = self.segments.iter().map(|segment| segment.ids.len()).sum();
        if here < count {
            return None;
        }
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let segment = self.segments.front_mut().expect("there are as many");
            let most = segment.ids.len().min(count - ids.len());
            ids.extend(segment.ids.drain(..most));
            if segment.ids.is_empty() {
                self.segments.pop_front();
            }
        }
        Some(ids)
    }

    /// Whether at most a quarter of a segment is left in all.
    fn is_short(&self) -> bool {
        let here: usize = self.segments.iter().map(|segment| segment.ids.len()).sum();
        let quarter = self.segments.front().map_or(0, |segment| segment.length / 4);
        here <= quarter
    }

    fn next_length(&self) -> i64 {
        let Some((length, at)) = self.last else { return LENGTH_MIN };
        let lasted = at.elapsed();
        let length = match lasted {
            _ if lasted < QUICK => length * 2,
            _ if lasted > SLOW => length / 2,
            _ => length,
        };
        length.clamp(LENGTH_MIN, LENGTH_MAX)
    }
}

/// Fisher and Yates's shuffle, by a generator (Vigna's splitmix64) with a seed for each segment: nobody can
/// predict the ids of a segment that was not begun. Asking the operating system for each number would cost
/// more than the id.
fn shuffle(ids: &mut [i64]) {
    let mut seed = u64::from_ne_bytes(random::bytes());
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    for last in (1..ids.len()).rev() {
        ids.swap(last, (next() % (last as u64 + 1)) as usize);
    }
}

/// The shortest segment: so many ids of a rarely used name are lost when a process ends.
const LENGTH_MIN: i64 = 1_000;
/// The longest one.
const LENGTH_MAX: i64 = 65_536;
/// A segment that lasts less than this is followed by one twice as long.
const QUICK: Duration = Duration::from_secs(10);
/// A segment that lasts longer than this is followed by one half as long.
const SLOW: Duration = Duration::from_secs(600);

const _: () = assert!(LENGTH_MIN >= TAKE_MAX as i64, "one more segment is enough for any call");

#[cfg(test)]
mod tests;
