//! Gifts: which may be sent, what their senders are answered, and that each is debited once.
//!
//! A gift's identity is its sender and a key that the sender chose; every request under it gets the first
//! answer. A gift is checked against the catalogue, the cache holds its coins (so that floods end there), and
//! it goes to the consumer (through the durable queue, if that has enough in memory). The
//! [consumer](consumer) commits many in one transaction with their debits, ledger rows and messages. A
//! sender's answer is committed or a refusal for good; without either in time, nothing was promised, and the
//! sender may repeat it.
//!
//! Only the consumer's transaction keeps money right. The hold may be wrong in one direction: it may let a
//! gift pass that the transaction then refuses. Only the transaction refuses for good, so a refusal is in the
//! table before anybody gets it. Gifts that the cache would refuse go there too, but only a limited number a
//! minute for one sender; beyond that, as beyond the gifts of a second, the sender has to wait and nothing is
//! promised.
//!
//! A gift passes three files: [`submit`] brings it to the consumer and its answer back, [`consumer`] commits
//! it, [`decide`] says whether it is paid.

mod catalogue;
mod consumer;
mod decide;
mod message;
mod old_refusals;
mod refusals;
mod seen;
mod submit;
mod types;
mod waiters;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::batches::Batches;
use crate::hooks::events::Events;
use crate::outbox::Outbox;
use crate::queue::JobId;
use crate::store::Store;
use catalogue::Catalogue;
pub(crate) use consumer::run;
use refusals::Refusals;
use seen::SeenUsers;
pub(crate) use submit::{Decided, Limit};
pub use types::{
    Answer, COUNT_MAX, Contents, Gift, GiftRequest, Identity, KEY_BYTES_MAX, Order, PK, PRICE_MAX, Reason,
    SEND, SHOWN,
};
use waiters::Waiters;

/// Gifts that are committed together.
#[derive(Debug, Default)]
struct Batch {
    requests: Vec<GiftRequest>,
    /// The job of each gift; `None` if it did not come through the queue.
    jobs: Vec<Option<JobId>>,
}

/// Gifts under way in this process.
pub struct Gifts {
    store: Arc<Store>,
    outbox: Arc<Outbox>,
    /// Gets the paid gifts.
    after_gift: Option<Arc<Events>>,
    /// What gifts cost.
    pub(crate) catalogue: Catalogue,
    /// Users who can get a gift.
    receivers: SeenUsers,
    /// Gifts that the cache would refuse, and that go to the consumer.
    doubted: Refusals,
    /// Gifts that the consumer refused for reasons that the cache does not know, and packets that are none.
    refused: Refusals,
    /// Messages to senders about packets that are no gifts, or too many.
    told: Refusals,
    waiters: Waiters,
    /// Gifts that go to this process's consumer without the queue.
    direct: mpsc::Sender<GiftRequest>,
    direct_to_consumer: Mutex<Option<mpsc::Receiver<GiftRequest>>>,
    /// Gifts on their way into the queue, when those are too many.
    pushes: Batches<GiftRequest, ()>,
    /// Gifts that are looked up in the database.
    looks: Batches<Identity, Option<Order>>,
    /// Gifts that are out of the queue.
    taken: mpsc::Sender<Batch>,
    taken_by_consumer: Mutex<Option<mpsc::Receiver<Batch>>>,
    under_way: AtomicUsize,
    counters: Counters,
}

/// Counters for the metrics.
#[derive(Default)]
struct Counters {
    committed: AtomicU64,
    refused: AtomicU64,
    rate_limited: AtomicU64,
    repeats: AtomicU64,
    unanswered: AtomicU64,
    batches: AtomicU64,
    batches_failed: AtomicU64,
    poison: AtomicU64,
}

impl Gifts {
    /// Begins without gifts.
    pub fn new(store: &Arc<Store>, outbox: &Arc<Outbox>, after_gift: Option<Arc<Events>>) -> Self {
        let (taken, taken_by_consumer) = mpsc::channel(TAKEN_MAX);
        let (direct, direct_to_consumer) = mpsc::channel(DIRECT_MAX);
        Self {
            store: store.clone(),
            outbox: outbox.clone(),
            after_gift,
            direct,
            direct_to_consumer: Mutex::new(Some(direct_to_consumer)),
            catalogue: Catalogue::new(store),
            receivers: SeenUsers::default(),
            doubted: Refusals::of_days(),
            refused: Refusals::of_days(),
            told: Refusals::of_minutes(),
            waiters: Waiters::default(),
            pushes: Batches::new(WAITING_MAX),
            looks: Batches::new(WAITING_MAX),
            taken,
            taken_by_consumer: Mutex::new(Some(taken_by_consumer)),
            under_way: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    /// The counters, by name.
    pub fn counts(&self) -> [(&'static str, u64); 8] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        [
            ("committed", get(&counters.committed)),
            ("refused", get(&counters.refused)),
            ("rate_limited", get(&counters.rate_limited)),
            ("repeat", get(&counters.repeats)),
            ("unanswered", get(&counters.unanswered)),
            ("batch", get(&counters.batches)),
            ("batch_failed", get(&counters.batches_failed)),
            ("poison", get(&counters.poison)),
        ]
    }

    /// How many gifts have a caller that waits.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// Gifts that wait for the queue, or for a look into the table, in one process.
const WAITING_MAX: usize = 20_000;
/// Gifts that wait for the consumer in memory.
const DIRECT_MAX: usize = 2_048;
/// Batches out of the queue that wait for the consumer.
const TAKEN_MAX: usize = 4;
