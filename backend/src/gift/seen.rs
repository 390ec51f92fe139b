//! The catalogue as this process has seen it within the last second.
//!
//! Most gifts are of a few kinds, and to ask the cache for each would cost a round trip a gift. What is a second old may be wrong: a
//! refusal is looked at again, and whoever pays is compared with the database by the transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::gift::Gift;

const AGE_MAX: Duration = Duration::from_secs(1);

/// Gifts that there are.
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

    /// A gift is seen.
    pub fn put(&self, gift: Gift) -> Arc<Gift> {
        let gift = Arc::new(gift);
        self.lock().insert(gift.id, (Instant::now(), gift.clone()));
        gift
    }

    /// A gift has changed.
    pub fn forget(&self, id: i64) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, (Instant, Arc<Gift>)>> {
        self.gifts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
