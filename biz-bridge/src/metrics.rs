//! What the bridge counts.

use std::sync::atomic::{AtomicU64, Ordering};

use traces::Traces;

use crate::event::EventKind;

/// A number that others may read at any time.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn take(&self, number: u64) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// What a bridge counts. All but `waiting`, `redis_volatile` and the breaker's state only grow.
#[derive(Default, Debug)]
pub struct Metrics {
    /// Batches of which the backend answered every event, or that Redis stored.
    pub batches_taken: Counter,
    /// Batches that failed: not connected, no answer in time, or a malformed answer.
    pub batches_failed: Counter,
    /// Batches that the backend rejected as a whole, so that they were halved.
    pub batches_rejected: Counter,
    /// Events that the backend took or Redis stored, by kind.
    taken: [Counter; EventKind::ALL.len()],
    /// Events that were refused for good, by kind.
    refused: [Counter; EventKind::ALL.len()],
    /// Events that were sent again, once each time.
    pub retries: Counter,
    /// Events that were handed over once more while they waited here.
    pub repeated: Counter,
    /// Events that are here and not yet done.
    pub waiting: Counter,
    /// How often the breaker has opened.
    pub breaker_opened: Counter,
    breaker: Counter,
    pushes: [Counter; PushOutcome::ALL.len()],
    /// 1 if Redis is known to reply before its writes are on disk.
    pub redis_volatile: Counter,
    /// Failed connects, broken connections and refused commands of the push stream.
    pub push_stream_errors: Counter,
    /// Where spans go, which counts them.
    pub traces: Traces,
}

impl Metrics {
    pub(crate) fn with(traces: Traces) -> Self {
        Self { traces, ..Self::default() }
    }

    /// Events of that kind that were taken.
    pub fn taken(&self, kind: EventKind) -> &Counter {
        &self.taken[kind as usize]
    }

    /// Events of that kind that were refused for good.
    pub fn refused(&self, kind: EventKind) -> &Counter {
        &self.refused[kind as usize]
    }

    /// Entries of the push stream with this outcome.
    pub fn pushes(&self, outcome: PushOutcome) -> &Counter {
        &self.pushes[outcome as usize]
    }

    /// The state of the breaker.
    pub fn breaker(&self) -> BreakerState {
        let states = [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open];
        let shown = self.breaker.get();
        states.into_iter().find(|state| *state as u64 == shown).expect("it is set from a state only")
    }

    pub(crate) fn set_breaker(&self, state: BreakerState) {
        self.breaker.set(state as u64);
    }
}

/// Whether the breaker lets batches pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// All of them.
    Closed = 0,
    /// One, to see whether it succeeds.
    HalfOpen = 1,
    /// None.
    Open = 2,
}

/// What became of an entry of the push stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushOutcome {
    /// A session has acked it.
    Delivered,
    /// It has its place in its room.
    Sequenced,
    /// It is lossy and on its way.
    Sent,
    /// It failed, and the backend gets it as undelivered if it is reliable and for a user.
    Failed,
    /// It will be tried again.
    Again,
    /// It went to the dead-letter stream.
    Dead,
}

impl PushOutcome {
    /// Every outcome.
    pub const ALL: [PushOutcome; 6] =
        [Self::Delivered, Self::Sequenced, Self::Sent, Self::Failed, Self::Again, Self::Dead];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Sequenced => "sequenced",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Again => "again",
            Self::Dead => "dead",
        }
    }
}
