//! Gifts: what a sender may send, what it is answered, and that each gift is debited once.
//!
//! A gift's identity is its sender and a key that the sender chose; whatever comes under it gets the first
//! answer. On its way a gift is checked against the catalogue, its coins are held in the cache (so that
//! floods end there), it goes to the consumer (through the durable queue, if that has enough in memory), and
//! the [consumer](consumer) commits many in one transaction with their debits, ledger rows and messages. A
//! sender is answered what is committed or refused for good; if neither is known in time nothing was
//! promised, and the same gift may be sent again.
//!
//! What keeps money right is the consumer's transaction alone. The hold may be wrong in one direction: it may
//! let a gift pass that the transaction then refuses. Only the transaction refuses for good, so a refusal is
//! in the table before anybody is told. Gifts that the cache would refuse go there too, but only so many a
//! minute of one sender; past that, as past the gifts of a second, the sender is told to wait and nothing is
//! promised.

mod consumer;
mod decide;
mod floor;
mod message;
mod old_refusals;
mod refusals;
mod seen;
mod submit;
mod waiters;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::batches::Batches;
use crate::queue::JobId;
pub(crate) use consumer::run;
pub use floor::floor;
use refusals::Refusals;
use seen::{SeenGifts, SeenUsers};
pub(crate) use submit::{Decided, Limit, refuse_bad, submit};
use waiters::Waiters;

/// Names a gift: of one sender, compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Who sends it, and pays.
    pub sender_id: i64,
    /// The sender's name for it, of 1 to 64 bytes.
    pub key: String,
}

/// What a gift is. The same identity with other contents is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Of the catalogue.
    pub gift_id: i64,
    /// Where it is shown.
    pub room_id: i64,
    /// Whom it is for.
    pub receiver_id: i64,
    /// How many pieces.
    pub count: i64,
    /// The business code under which it is shown: 5556, or 5558 in a PK.
    pub code: i32,
}

/// A gift that a sender wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiftRequest {
    /// Its name.
    pub identity: Identity,
    /// What it is.
    pub contents: Contents,
    /// The price of one piece that the sender saw, if it says. Else the gift costs what the catalogue says
    /// when it is committed.
    pub price: Option<i64>,
    /// The gateway has seen the sender in the room. Else the table of members says whether it is there.
    pub is_in_room: bool,
}

/// What a sender is answered, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is paid and will be shown.
    Committed {
        /// What it cost, in coins.
        total: i64,
    },
    /// It is not paid, and will not be.
    Refused(Reason),
}

/// Why a gift was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The sender has not enough coins.
    InsufficientBalance,
    /// It costs something else than the sender saw.
    PriceChanged,
    /// The catalogue has no such gift.
    NoSuchGift,
    /// It cannot be had at the moment.
    NotOnSale,
    /// There is no such receiver.
    NoSuchReceiver,
    /// There is no such room.
    NoSuchRoom,
    /// The room is closed.
    RoomClosed,
    /// The sender is not in the room.
    NotMember,
    /// Another gift has this id.
    IdReused,
    /// The sender sent too many, or too many that were refused. The only one that is not for good.
    RateLimited,
    /// A field is not as it is wanted.
    BadRequest,
}

/// A gift that was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What it is.
    pub contents: Contents,
    /// What its sender was answered.
    pub answer: Answer,
}

/// A gift in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parcel {
    identity: Identity,
    contents: Contents,
    /// Of one piece, if the sender has named it.
    price: Option<i64>,
    /// See [`GiftRequest::is_in_room`].
    #[serde(default = "yes")]
    is_in_room: bool,
}

/// Of a gift that waits in the queue since a version that asked gateways only.
fn yes() -> bool {
    true
}

/// Gifts that are committed together.
#[derive(Debug, Default)]
struct Batch {
    parcels: Vec<Parcel>,
    /// The job of each, unless it came without.
    jobs: Vec<Option<JobId>>,
}

/// Gifts under way in this process.
pub struct Gifts {
    /// What gifts cost.
    pub(crate) catalogue: SeenGifts,
    /// Who can be given something.
    receivers: SeenUsers,
    /// Gifts that the cache would refuse, on their way to the consumer.
    doubted: Refusals,
    /// Gifts that the consumer has refused for what the cache does not know, and packets that are no gifts.
    refused: Refusals,
    /// What senders were told from here of packets that are no gifts, or too many.
    told: Refusals,
    waiters: Waiters,
    /// Gifts that the consumer of this process has at once.
    direct: mpsc::Sender<Parcel>,
    direct_to_consumer: Mutex<Option<mpsc::Receiver<Parcel>>>,
    /// Gifts on their way into the queue, when those are too many.
    pushes: Batches<Parcel, ()>,
    /// Gifts that are looked up in the database.
    looks: Batches<Identity, Option<Order>>,
    /// Gifts that are out of the queue.
    taken: mpsc::Sender<Batch>,
    taken_by_consumer: Mutex<Option<mpsc::Receiver<Batch>>>,
    under_way: AtomicUsize,
    counters: Counters,
}

/// What was done, for the metrics.
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
    /// Nothing under way.
    pub fn new() -> Self {
        let (taken, taken_by_consumer) = mpsc::channel(TAKEN_MAX);
        let (direct, direct_to_consumer) = mpsc::channel(DIRECT_MAX);
        Self {
            direct,
            direct_to_consumer: Mutex::new(Some(direct_to_consumer)),
            catalogue: SeenGifts::default(),
            receivers: SeenUsers::default(),
            doubted: Refusals::default(),
            refused: Refusals::default(),
            told: Refusals::default(),
            waiters: Waiters::default(),
            pushes: Batches::new(WAITING_MAX),
            looks: Batches::new(WAITING_MAX),
            taken,
            taken_by_consumer: Mutex::new(Some(taken_by_consumer)),
            under_way: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    /// What was done, by name.
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

    /// Gifts that somebody waits for.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }
}

impl Default for Gifts {
    fn default() -> Self {
        Self::new()
    }
}

fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl Order {
    /// What whoever sends `contents` under this order's identity is answered.
    fn answer_for(&self, contents: &Contents) -> Answer {
        match self.contents == *contents {
            true => self.answer,
            false => Answer::Refused(Reason::IdReused),
        }
    }
}

impl Reason {
    const ALL: [Self; 11] = [
        Self::InsufficientBalance,
        Self::PriceChanged,
        Self::NoSuchGift,
        Self::NotOnSale,
        Self::NoSuchReceiver,
        Self::NoSuchRoom,
        Self::RoomClosed,
        Self::NotMember,
        Self::IdReused,
        Self::RateLimited,
        Self::BadRequest,
    ];

    /// Its name for clients and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::InsufficientBalance => "insufficient_balance",
            Self::PriceChanged => "price_changed",
            Self::NoSuchGift => "no_such_gift",
            Self::NotOnSale => "not_on_sale",
            Self::NoSuchReceiver => "no_such_receiver",
            Self::NoSuchRoom => "no_such_room",
            Self::RoomClosed => "room_closed",
            Self::NotMember => "not_member",
            Self::IdReused => "id_reused",
            Self::RateLimited => "rate_limited",
            Self::BadRequest => "bad_request",
        }
    }

    /// What it means, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::InsufficientBalance => "there are not enough coins in the wallet",
            Self::PriceChanged => "price: the gift costs something else; read the catalogue again",
            Self::NoSuchGift => "gift_id: there is no such gift",
            Self::NotOnSale => "gift_id: the gift cannot be had at the moment",
            Self::IdReused => "id: another gift was sent under it; the answer that it got stands",
            Self::NoSuchReceiver => "receiver_id: there is no such user",
            Self::NoSuchRoom => "room_id: there is no such room",
            Self::RoomClosed => "room_id: the room is closed",
            Self::NotMember => "room_id: the sender is not in the room",
            Self::RateLimited => {
                "too many gifts, or too many that were refused; wait, and send the same again"
            }
            Self::BadRequest => "a field is not as it is wanted",
        }
    }

    /// Whether the cache knows nothing of what it is refused for.
    fn is_of_place(self) -> bool {
        matches!(self, Self::NoSuchReceiver | Self::NoSuchRoom | Self::RoomClosed | Self::NotMember)
    }

    /// Whether what comes under the same name again gets the same answer.
    pub fn is_final(self) -> bool {
        self != Self::RateLimited
    }

    /// The one with this name.
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.name() == name).unwrap_or(Self::BadRequest)
    }
}

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 64;
/// Pieces of one gift.
pub const COUNT_MAX: i64 = 9_999;
/// The price of one piece, in coins: small enough that no sum of a batch overflows.
pub const PRICE_MAX: i64 = 1_000_000_000;
/// The business code of a gift that is shown.
pub const SHOWN: i32 = 5556;
/// The business code of a gift that failed.
pub const FAILED: i32 = 5557;
/// The business code of a gift in a PK: of the request, and of what is shown.
pub const PK: i32 = 5558;
/// The business code of a request.
pub const SEND: i32 = 5560;
/// Gifts that wait for the queue, or for a look into the table, in one process.
const WAITING_MAX: usize = 20_000;
/// Gifts that wait for the consumer in memory.
const DIRECT_MAX: usize = 2_048;
/// Batches out of the queue that wait for the consumer.
const TAKEN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_names_of_their_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), reason);
            assert!(reason.name().len() <= 32, "t_gift_order.answer has no more");
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.name()));
        }
    }

    #[test]
    fn the_sum_of_a_batch_does_not_overflow() {
        assert!(PRICE_MAX.checked_mul(COUNT_MAX).and_then(|total| total.checked_mul(100_000)).is_some());
    }
}
