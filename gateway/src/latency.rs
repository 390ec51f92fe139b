//! How long messages take, in histograms of fixed size. Nothing here allocates or reads a clock.
//!
//! Times are those of turns, which a core is given: a message that leaves in the turn in which it came took
//! no time. Each histogram compares two times of one shard, so no clock of another node matters.

use shard::Instant;
use wire::node::{Class, Target};

/// The kind of a message: to a user or a room, reliable or lossy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteClass {
    /// To a user, acked by its client.
    UserReliable,
    /// To a user, without an ack.
    UserLossy,
    /// To the members of a room, acked by their clients.
    RoomReliable,
    /// To the members of a room, without acks.
    RoomLossy,
}

impl RouteClass {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::UserReliable, Self::UserLossy, Self::RoomReliable, Self::RoomLossy];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserReliable => "user_reliable",
            Self::UserLossy => "user_lossy",
            Self::RoomReliable => "room_reliable",
            Self::RoomLossy => "room_lossy",
        }
    }

    pub(crate) fn of(target: Target, class: Class) -> Self {
        match (target, class) {
            (Target::User(_), Class::Reliable) => Self::UserReliable,
            (Target::User(_), Class::Lossy) => Self::UserLossy,
            (Target::Room(_), Class::Reliable) => Self::RoomReliable,
            (Target::Room(_), Class::Lossy) => Self::RoomLossy,
        }
    }
}

/// A time of this shard in units of 1.024 us, which wraps after 73 minutes: longer than any message waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stamp(u32);

impl Stamp {
    pub(crate) fn of(now: Instant) -> Self {
        Self((now.unix_nanos() >> UNIT_BITS) as u32)
    }
}

/// Durations, counted in buckets that double: the first ends at 0.13 ms, the last but one at 69 s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    units: u64,
}

impl Histogram {
    /// Counts `messages` that took from `since` to `now`.
    pub(crate) fn record(&mut self, since: Stamp, now: Stamp, messages: u64) {
        let units = now.0.wrapping_sub(since.0);
        let bits = (u32::BITS - units.leading_zeros()) as usize;
        self.counts[bits.saturating_sub(FIRST_BITS).min(BUCKETS - 1)] += messages;
        self.units += u64::from(units) * messages;
    }

    /// The upper bound of each bucket but the last, in seconds, with how many took up to that long.
    pub fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bound = |bucket: usize| ((1_u64 << (FIRST_BITS + bucket)) << UNIT_BITS) as f64 / 1e9;
        let mut below = 0;
        self.counts[..BUCKETS - 1].iter().enumerate().map(move |(bucket, count)| {
            below += count;
            (bound(bucket), below)
        })
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all took together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.units as f64 * (1 << UNIT_BITS) as f64 / 1e9
    }
}

/// Where a write is counted.
pub(crate) struct Written<'a> {
    pub(crate) now: Stamp,
    pub(crate) latency: &'a mut Latency,
}

impl Written<'_> {
    pub(crate) fn count(&mut self, route: RouteClass, since: Stamp, messages: u32) {
        self.latency.write[route as usize].record(since, self.now, u64::from(messages));
    }
}

/// The histograms of one shard, each for every [`RouteClass`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// At the sender's shard, from a message's arrival to its outcome: the receiver's ack for a user, the
    /// place in the order for a room. It covers all nodes on the way.
    pub outcome: [Histogram; RouteClass::ALL.len()],
    /// At the receiver's shard, from the router's mail to the hand-over to the socket.
    pub write: [Histogram; RouteClass::ALL.len()],
    /// At the receiver's shard, from the router's mail to the ack of the client.
    pub ack: [Histogram; RouteClass::ALL.len()],
}

const UNIT_BITS: u32 = 10;
/// The first bucket has durations of up to this many bits.
const FIRST_BITS: usize = 7;
const BUCKETS: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bounds_enclose_it() {
        for (nanos, bucket) in
            [(0, 0), (131_071, 0), (131_072, 1), (262_143, 1), (1_000_000, 3), (u64::MAX >> 22, 20)]
        {
            let mut histogram = Histogram::default();
            let begun = 1 << 41; // some units before the stamps wrap
            let [since, now] = [begun, begun + nanos].map(|nanos| Stamp::of(Instant::from_unix_nanos(nanos)));
            histogram.record(since, now, 3);
            assert_eq!(histogram.counts.iter().position(|count| *count == 3), Some(bucket), "{nanos}");
            assert_eq!(histogram.count(), 3);
            let enclosing = histogram.cumulated().find(|(_, below)| *below == 3).map(|(bound, _)| bound);
            assert!(enclosing.is_none_or(|bound| bound > nanos as f64 / 1e9), "{nanos}: {enclosing:?}");
            assert!((histogram.sum_seconds() - 3.0 * nanos as f64 / 1e9).abs() < 1e-5, "{nanos}");
        }
    }
}
