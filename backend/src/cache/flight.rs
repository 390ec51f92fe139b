//! Single flight: if several want the same at once, one works and all get its result.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::error::Error;

/// How many counters of forgotten keys there are: few enough to cost nothing, enough that keys seldom share
/// one.
const STRIPES: usize = 4_096;

/// Work under way, by key.
pub struct Flights {
    cells: Mutex<HashMap<String, Arc<OnceCell<String>>>>,
    /// How often a key of this stripe was forgotten.
    forgotten: Vec<AtomicU64>,
    hasher: RandomState,
}

impl Default for Flights {
    fn default() -> Self {
        let forgotten = (0..STRIPES).map(|_| AtomicU64::new(0)).collect();
        Self { cells: Mutex::default(), forgotten, hasher: RandomState::new() }
    }
}

impl Flights {
    /// The result of `work`, or of the same work if that is under way. After an error the next waiter works.
    pub async fn join<F>(&self, key: &str, work: impl FnOnce() -> F) -> Result<String, Error>
    where
        F: Future<Output = Result<String, Error>>,
    {
        let cell = self.lock().entry(key.to_owned()).or_default().clone();
        let result = cell.get_or_try_init(work).await.cloned();
        // Callers from here on begin anew; those that wait have the cell.
        let mut cells = self.lock();
        if cells.get(key).is_some_and(|known| Arc::ptr_eq(known, &cell)) {
            cells.remove(key);
        }
        result
    }

    /// Makes work under way on `key` outdated: callers from here on begin anew.
    pub fn forget(&self, key: &str) {
        self.stripe(key).fetch_add(1, Ordering::AcqRel);
        self.lock().remove(key);
    }

    /// A number that changes when `key` is forgotten.
    pub fn era(&self, key: &str) -> u64 {
        self.stripe(key).load(Ordering::Acquire)
    }

    fn stripe(&self, key: &str) -> &AtomicU64 {
        &self.forgotten[self.hasher.hash_one(key) as usize % STRIPES]
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<OnceCell<String>>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_work_once() {
        let flights = Arc::new(Flights::default());
        let works = Arc::new(AtomicU32::new(0));
        let asks = (0..1000).map(|_| {
            let (flights, works) = (flights.clone(), works.clone());
            tokio::spawn(async move {
                let work = || async {
                    works.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Ok("found".to_owned())
                };
                flights.join("key", work).await
            })
        });
        let asks: Vec<_> = asks.collect();
        for ask in asks {
            assert_eq!(ask.await.unwrap().unwrap(), "found");
        }
        assert_eq!(works.load(Ordering::Relaxed), 1);
        assert!(flights.lock().is_empty(), "nothing is remembered");
    }

    #[tokio::test]
    async fn an_error_is_not_shared_with_who_comes_later() {
        let flights = Flights::default();
        let failed = flights.join("key", || async { Err(Error::internal("no")) }).await;
        assert!(failed.is_err());
        assert_eq!(flights.join("key", || async { Ok("yes".to_owned()) }).await.unwrap(), "yes");
    }
}
