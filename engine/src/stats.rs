//! What a shard's engine counts. One thread writes, any may read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a [`Histogram`]: the last takes everything from about 9 minutes on.
pub const HISTOGRAM_BUCKETS: usize = 40;

/// A number with one writer: no read-modify-write, no ordering.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value, as it was a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.set(self.get() + more);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Durations by the power of two of their nanoseconds.
#[derive(Debug)]
pub struct Histogram([Counter; HISTOGRAM_BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Histogram {
    /// How many durations fell into each bucket: bucket 0 counts those under 2 ns, bucket `i` those from
    /// `2^i` ns to under `2^(i+1)` ns, the last one everything longer too.
    pub fn buckets(&self) -> [u64; HISTOGRAM_BUCKETS] {
        std::array::from_fn(|bucket| self.0[bucket].get())
    }

    pub(crate) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (nanos.max(1).ilog2() as usize).min(HISTOGRAM_BUCKETS - 1);
        self.0[bucket].add(1);
    }
}

/// The counters of one shard's engine, from its start on.
#[derive(Debug, Default)]
#[repr(align(128))] // each shard writes its own cache lines
pub struct Stats {
    /// Turns of the loop.
    pub turns: Counter,
    /// Time of a turn, without the wait at its end.
    pub turn_time: Histogram,
    /// How long the shard stood still, in ms: it was not run when it wanted to.
    pub stillness_ms: Counter,
    /// Events handed to the core.
    pub events: Counter,
    /// Bytes received and handed to the core.
    pub bytes_in: Counter,
    /// Bytes written to sockets, complete batches only.
    pub bytes_out: Counter,
    /// Receives that brought bytes.
    pub receives: Counter,
    /// Sends started, one for each batch.
    pub sends: Counter,
    /// Connections taken from the listener.
    pub accepts: Counter,
    /// Failed accepts: out of file descriptors or memory.
    pub accept_errors: Counter,
    /// Connections closed right after the accept: the shard was full, or the peer already gone.
    pub accepts_refused: Counter,
    /// Connections opened by the core.
    pub connects: Counter,
    /// Connections open at the moment.
    pub connections: Counter,
    /// Mail handed to the core.
    pub mail_in: Counter,
    /// Mail from the core to other shards, and its reports to the control thread.
    pub mail_out: Counter,
    /// Mail that found the mailbox full and waited with its sender.
    pub mail_overflows: Counter,
    /// Mail dropped: no such shard, a shard that has stopped; and reports, when their channel was full.
    pub mail_dropped: Counter,
    /// Times a receive found no free buffer and had to be started again.
    pub receive_exhaustions: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_bucket_of_its_power_of_two() {
        let histogram = Histogram::default();
        for nanos in [0, 1, 2, 3, 1023, 1024, u64::MAX] {
            histogram.record(Duration::from_nanos(nanos));
        }
        let buckets = histogram.buckets();
        let filled = [(0, 2), (1, 2), (9, 1), (10, 1), (HISTOGRAM_BUCKETS - 1, 1)];
        for (bucket, count) in buckets.into_iter().enumerate() {
            let wanted = filled.iter().find(|(at, _)| *at == bucket).map_or(0, |(_, count)| *count);
            assert_eq!(count, wanted, "bucket {bucket}");
        }
    }
}
