//! What users were told of what rooms had said before. A question is small and its answer is not, so each
//! user may ask for so much in a time only, by however many connections one after the other.

use std::collections::{BTreeMap, BTreeSet};

use shard::{Bucket, Instant, Rate};
use wire::{AppId, UserId};

use crate::limits::{TOLD_KIB_BURST, TOLD_KIB_PER_SECOND};

type Who = (AppId, UserId);

/// Users that were told something of late. What is longer ago than it counts for is forgotten.
#[derive(Default)]
pub(crate) struct Told {
    buckets: BTreeMap<Who, Bucket>,
    by_end: BTreeSet<(Instant, Who)>,
}

impl Told {
    /// Whether a user may be told more. What it is told then counts as a whole.
    pub(crate) fn may_ask(&self, now: Instant, who: Who) -> bool {
        self.buckets.get(&who).is_none_or(|bucket| !bucket.owes(now, rate()))
    }

    /// A user was told so many bytes.
    pub(crate) fn count(&mut self, now: Instant, who: Who, bytes: usize) {
        while let Some((_, known)) = self.by_end.first().copied().filter(|(end, _)| *end <= now) {
            self.by_end.pop_first();
            self.buckets.remove(&known);
        }
        if bytes == 0 {
            return;
        }
        let bucket = self.buckets.entry(who).or_default();
        self.by_end.remove(&(bucket.full_at(), who));
        bucket.owe(now, rate(), bytes.div_ceil(1024) as u32);
        self.by_end.insert((bucket.full_at(), who));
    }

    /// Own-state invariants.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.buckets.len(), self.by_end.len());
        let is_known = |(who, bucket): (&Who, &Bucket)| self.by_end.contains(&(bucket.full_at(), *who));
        assert!(self.buckets.iter().all(is_known), "each user is forgotten in time");
    }
}

fn rate() -> Rate {
    Rate::new(TOLD_KIB_PER_SECOND, TOLD_KIB_BURST)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ANNA: Who = (AppId(1), UserId(1));
    const BEN: Who = (AppId(1), UserId(2));

    #[test]
    fn a_user_that_was_told_too_much_waits_and_no_other() {
        let (mut told, mut now) = (Told::default(), Instant::from_unix_nanos(1 << 60));
        for _ in 0..16 {
            assert!(told.may_ask(now, ANNA));
            told.count(now, ANNA, 1 << 20);
        }
        assert!(told.may_ask(now, ANNA), "that was all of it");
        told.count(now, ANNA, 4 << 20);
        assert!(!told.may_ask(now, ANNA) && told.may_ask(now, BEN));
        now += Duration::from_millis(3_900);
        assert!(!told.may_ask(now, ANNA));
        now += Duration::from_millis(200);
        assert!(told.may_ask(now, ANNA));
        told.check_invariants();
    }

    #[test]
    fn who_was_told_little_is_soon_forgotten() {
        let (mut told, mut now) = (Told::default(), Instant::from_unix_nanos(1 << 60));
        for user in 0..10_000 {
            told.count(now, (AppId(1), UserId(user)), 100);
            now += Duration::from_micros(100);
        }
        assert!(told.buckets.len() < 20, "{}", told.buckets.len());
        told.check_invariants();
    }
}
