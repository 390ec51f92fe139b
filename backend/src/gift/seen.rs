//! What this process has seen: the catalogue within the last second, and users.
//!
//! Most gifts are of a few kinds, and asking the cache for each would cost a round trip a gift. An entry of
//! the last second may be outdated: a refusal is checked again, and the transaction compares each paid gift
//! with the database.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::types::Gift;

const AGE_MAX: Duration = Duration::from_secs(1);

/// Gifts that exist.
#[derive(Default)]
pub struct SeenGifts {
    gifts: Mutex<HashMap<i64, (Instant, Arc<Gift>)>>,
}

impl SeenGifts {
    /// A gift that was seen of late.
    pub fn get(&self, id: i64) -> Option<Arc<Gift>> {
        let gifts = self.lock();
        let (since, gift) = gifts.get(&id)?;
        (since.elapsed() < AGE_MAX).then(|| gift.clone())
    }

    /// Notes a gift.
    pub fn put(&self, gift: Gift) -> Arc<Gift> {
        let gift = Arc::new(gift);
        self.lock().insert(gift.id, (Instant::now(), gift.clone()));
        gift
    }

    /// Forgets a gift that has changed.
    pub fn forget(&self, id: i64) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, (Instant, Arc<Gift>)>> {
        self.gifts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Users that this process has seen in the database. A user stays for good, so entries here stay right;
/// others are looked up.
#[derive(Default)]
pub struct SeenUsers(Mutex<HashSet<i64>>);

impl SeenUsers {
    /// Splits ids into those that were seen and the others.
    pub fn split(&self, ids: BTreeSet<i64>) -> (BTreeSet<i64>, Vec<i64>) {
        let seen = self.lock();
        let (known, unknown): (BTreeSet<i64>, BTreeSet<i64>) =
            ids.into_iter().partition(|id| seen.contains(id));
        (known, unknown.into_iter().collect())
    }

    /// Notes users in the database. If there are too many, all are forgotten.
    pub fn put(&self, ids: &[i64]) {
        let mut seen = self.lock();
        if seen.len() + ids.len() > USERS_MAX {
            seen.clear();
        }
        seen.extend(ids);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Users that are remembered: some 16 MB.
const USERS_MAX: usize = 1_000_000;
