//! Which sequence numbers of one stream have come: what is lost, late or there twice.

use std::collections::VecDeque;
use std::ops::Range;

/// How many of a stream's last server ids are known. A repeat of an older message counts as a duplicate.
pub(crate) const IDS_MAX: usize = 4096;

/// The sequence numbers that came, of a stream that should bring each once and in order.
#[derive(Debug)]
pub(crate) struct Order {
    first: u64,
    /// The first number after the highest that came.
    next: u64,
    /// What did not come below `next`, ascending.
    missing: Vec<Range<u64>>,
    /// What is not expected below `next`, ascending.
    skipped: Vec<Range<u64>>,
}

/// What a sequence number is to the stream so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// The highest so far; there may be a gap before it.
    Next,
    /// It fills a gap: a later one was faster.
    Late,
    /// It came before.
    Again,
}

impl Order {
    /// A stream whose first number is `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { first, next: first, missing: Vec::new(), skipped: Vec::new() }
    }

    /// The first number after the highest that came.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes a number that came.
    pub(crate) fn take(&mut self, sequence: u64) -> Seen {
        if sequence >= self.next {
            if sequence > self.next {
                self.missing.push(self.next..sequence);
            }
            self.next = sequence + 1;
            return Seen::Next;
        }
        let at = self.missing.partition_point(|gap| gap.end <= sequence);
        let Some(gap) = self.missing.get(at).filter(|gap| gap.contains(&sequence)).cloned() else {
            return Seen::Again;
        };
        let rest = [gap.start..sequence, sequence + 1..gap.end].into_iter().filter(|gap| !gap.is_empty());
        self.missing.splice(at..=at, rest);
        Seen::Late
    }

    /// Goes on at `next`: what is between is not expected.
    pub(crate) fn skip_to(&mut self, next: u64) {
        if next > self.next {
            self.skipped.push(self.next..next);
            self.next = next;
        }
    }

    /// Whether that number came.
    pub(crate) fn has(&self, number: u64) -> bool {
        let is_in = |ranges: &[Range<u64>]| {
            let at = ranges.partition_point(|range| range.end <= number);
            ranges.get(at).is_some_and(|range| range.contains(&number))
        };
        (self.first..self.next).contains(&number) && !is_in(&self.missing) && !is_in(&self.skipped)
    }

    /// Every number up to `last` that did not come.
    pub(crate) fn missing_until(&self, last: u64) -> impl Iterator<Item = u64> + '_ {
        let tail = self.next..(last + 1).max(self.next);
        self.missing
            .iter()
            .cloned()
            .chain(std::iter::once(tail))
            .flatten()
            .take_while(move |number| *number <= last)
    }

    /// The numbers below the highest that came which did not.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.missing.iter().cloned()
    }

    /// The numbers past the highest that came.
    pub(crate) fn tail(&self) -> Range<u64> {
        self.next..u64::MAX
    }

    /// The numbers that were not expected.
    pub(crate) fn skipped(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.skipped.iter().cloned()
    }
}

/// A value, not 0, for each of a stream's last `MAX` numbers, such as the server's id: it tells a repeat by
/// the server (same id) from a duplicate (another id).
#[derive(Debug, Default)]
pub(crate) struct Recent<const MAX: usize> {
    /// The number of `values[0]`.
    first: u64,
    values: VecDeque<u64>,
}

impl<const MAX: usize> Recent<MAX> {
    /// Remembers a number's value. Numbers go up, gaps and late ones allowed.
    pub(crate) fn put(&mut self, number: u64, value: u64) {
        if self.values.is_empty() || number >= self.first + (self.values.len() + MAX) as u64 {
            self.values.clear();
            self.first = number;
        }
        let Some(at) = number.checked_sub(self.first) else { return };
        // The check above bounds the surplus by the length.
        let surplus = (at + 1).saturating_sub(MAX as u64) as usize;
        self.values.drain(..surplus);
        self.first += surplus as u64;
        let at = at as usize - surplus;
        if at >= self.values.len() {
            self.values.resize(at + 1, 0);
        }
        self.values[at] = value;
    }

    /// The value of that number, if it is remembered.
    pub(crate) fn get(&self, number: u64) -> Option<u64> {
        let at = number.checked_sub(self.first)?;
        self.values.get(usize::try_from(at).ok()?).copied().filter(|value| *value != 0)
    }

    /// The first number after those remembered.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.values.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(order: &Order, last: u64) -> Vec<u64> {
        order.missing_until(last).collect()
    }

    #[test]
    fn in_order_nothing_is_missing_but_the_tail() {
        let mut order = Order::new(5);
        assert_eq!([5, 6, 7].map(|n| order.take(n)), [Seen::Next; 3]);
        assert!(missing(&order, 7).is_empty());
        assert_eq!(missing(&order, 9), [8, 9]);
        assert!(missing(&order, 3).is_empty());
    }

    #[test]
    fn a_gap_is_missing_until_it_is_filled() {
        let mut order = Order::new(1);
        order.take(1);
        assert_eq!(order.take(6), Seen::Next);
        assert_eq!(missing(&order, 6), [2, 3, 4, 5]);
        assert_eq!(order.take(4), Seen::Late);
        assert_eq!(missing(&order, 6), [2, 3, 5]);
        assert_eq!(missing(&order, 2), [2]);
        assert_eq!(order.gaps().collect::<Vec<_>>(), [2..4, 5..6]);
        assert!(order.has(4) && !order.has(5) && !order.has(7) && !order.has(0));
        assert_eq!(order.take(4), Seen::Again);
        assert_eq!([2, 3, 5].map(|n| order.take(n)), [Seen::Late; 3]);
        assert!(missing(&order, 6).is_empty());
        assert_eq!(order.take(1), Seen::Again);
    }

    #[test]
    fn what_is_skipped_is_not_missing() {
        let mut order = Order::new(1);
        order.take(1);
        order.skip_to(10);
        assert_eq!(order.take(10), Seen::Next);
        assert!(missing(&order, 10).is_empty());
        assert_eq!(order.skipped().next(), Some(2..10));
        assert!(order.has(1) && !order.has(2) && !order.has(9) && order.has(10));
    }

    #[test]
    fn the_last_values_are_known() {
        let mut recent = Recent::<IDS_MAX>::default();
        assert_eq!(recent.get(0), None);
        for n in 10..10 + 2 * IDS_MAX as u64 {
            recent.put(n, n * 100);
        }
        let last = 9 + 2 * IDS_MAX as u64;
        assert_eq!(recent.get(last), Some(last * 100));
        assert_eq!(recent.get(last + 1 - IDS_MAX as u64), Some((last + 1 - IDS_MAX as u64) * 100));
        assert_eq!(recent.get(last - IDS_MAX as u64), None);
        assert_eq!(recent.get(last + 1), None);
    }

    #[test]
    fn values_leave_gaps_and_take_late_ones() {
        let mut recent = Recent::<IDS_MAX>::default();
        recent.put(3, 30);
        recent.put(6, 60);
        assert_eq!(recent.get(5), None);
        recent.put(5, 50);
        assert_eq!([3, 5, 6].map(|n| recent.get(n)), [Some(30), Some(50), Some(60)]);
        recent.put(1_000_000, 7);
        assert_eq!((recent.get(6), recent.get(1_000_000)), (None, Some(7)));
        assert_eq!(recent.next(), 1_000_001);
    }
}
