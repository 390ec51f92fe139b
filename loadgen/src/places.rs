//! A set of room sequences, kept as ranges: what is sequenced one after the other takes one.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Room sequences, as ascending ranges that do not touch.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Places(Vec<Range<u64>>);

impl Places {
    /// Adds one. They come nearly in order, so this works at the end of the list.
    pub(crate) fn insert(&mut self, sequence: u64) {
        self.join(sequence..sequence + 1);
    }

    /// Adds all of another set.
    pub(crate) fn merge(&mut self, other: &Places) {
        other.0.iter().filter(|range| !range.is_empty()).for_each(|range| self.join(range.clone()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those within `range`.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let from = self.0.partition_point(|place| place.end <= range.start);
        let touching = self.0[from..].iter().take_while(move |place| place.start < range.end);
        touching.map(move |place| place.start.max(range.start)..place.end.min(range.end))
    }

    /// Adds a range, and melts it with those that it touches.
    fn join(&mut self, range: Range<u64>) {
        let from = self.0.partition_point(|place| place.end < range.start);
        let until = self.0.partition_point(|place| place.start <= range.end);
        let touched = &self.0[from..until];
        let start = touched.first().map_or(range.start, |place| place.start.min(range.start));
        let end = touched.last().map_or(range.end, |place| place.end.max(range.end));
        self.0.splice(from..until, std::iter::once(start..end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_range() {
        let mut places = Places::default();
        for sequence in [5, 7, 6, 1, 100, 6] {
            places.insert(sequence);
        }
        assert_eq!(places.0, [1..2, 5..8, 100..101]);
        let mut other = Places::default();
        other.merge(&places);
        other.join(2..5);
        assert_eq!(other.0, [1..8, 100..101]);
    }

    #[test]
    fn a_range_cuts_out_what_is_within_it() {
        let mut places = Places::default();
        [1..4, 6..9, 20..21].into_iter().for_each(|range| places.join(range));
        let within = |range| places.within(range).collect::<Vec<_>>();
        assert_eq!(within(2..8), [2..4, 6..8]);
        assert_eq!(within(8..u64::MAX), [8..9, 20..21]);
        assert!(within(4..6).is_empty() && within(21..u64::MAX).is_empty());
    }
}
