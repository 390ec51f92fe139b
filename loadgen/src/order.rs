//! Which sequence numbers of one stream have come: what is lost, late or there twice.

use std::collections::VecDeque;
use std::ops::Range;

use wire::MessageId;

/// How many of a stream's last server ids are known. A repeat of an older message counts as a duplicate.
const IDS_MAX: usize = 4096;

/// The sequence numbers that came, of a stream that should bring each once and in order.
#[derive(Debug)]
pub(crate) struct Order {
    /// The first number after the highest that came.
    next: u64,
    /// What did not come below `next`, ascending.
    missing: Vec<Range<u64>>,
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
        Self { next: first, missing: Vec::new() }
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
        self.next = self.next.max(next);
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

    /// How many numbers below the highest that came did not.
    pub(crate) fn gaps(&self) -> u64 {
        self.missing.iter().map(|gap| gap.end - gap.start).sum()
    }
}

/// The server ids of a stream's last messages, to tell a repeat by the server (same id) from a duplicate (another id).
#[derive(Debug, Default)]
pub(crate) struct Ids {
    /// The sequence number of `ids[0]`.
    first: u64,
    ids: VecDeque<MessageId>,
}

impl Ids {
    /// Remembers the id of a message. Numbers go up, gaps and late ones allowed.
    pub(crate) fn put(&mut self, sequence: u64, id: MessageId) {
        if self.ids.is_empty() || sequence >= self.first + (self.ids.len() + IDS_MAX) as u64 {
            self.ids.clear();
            self.first = sequence;
        }
        let Some(at) = sequence.checked_sub(self.first) else { return };
        // The check above bounds the surplus by the length.
        let surplus = (at + 1).saturating_sub(IDS_MAX as u64) as usize;
        self.ids.drain(..surplus);
        self.first += surplus as u64;
        let at = at as usize - surplus;
        if at >= self.ids.len() {
            self.ids.resize(at + 1, MessageId(0));
        }
        self.ids[at] = id;
    }

    /// The id of that message, if it is remembered.
    pub(crate) fn get(&self, sequence: u64) -> Option<MessageId> {
        let at = sequence.checked_sub(self.first)?;
        self.ids.get(usize::try_from(at).ok()?).copied().filter(|id| id.0 != 0)
    }

    /// The first number after those remembered.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.ids.len() as u64
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
        assert_eq!(order.gaps(), 3);
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
    }

    #[test]
    fn the_last_ids_are_known() {
        let mut ids = Ids::default();
        assert_eq!(ids.get(0), None);
        for n in 10..10 + 2 * IDS_MAX as u64 {
            ids.put(n, MessageId(n * 100));
        }
        let last = 9 + 2 * IDS_MAX as u64;
        assert_eq!(ids.get(last), Some(MessageId(last * 100)));
        assert_eq!(ids.get(last + 1 - IDS_MAX as u64), Some(MessageId((last + 1 - IDS_MAX as u64) * 100)));
        assert_eq!(ids.get(last - IDS_MAX as u64), None);
        assert_eq!(ids.get(last + 1), None);
    }

    #[test]
    fn ids_leave_gaps_and_take_late_ones() {
        let mut ids = Ids::default();
        ids.put(3, MessageId(30));
        ids.put(6, MessageId(60));
        assert_eq!(ids.get(5), None);
        ids.put(5, MessageId(50));
        assert_eq!([3, 5, 6].map(|n| ids.get(n).map(|id| id.0)), [Some(30), Some(50), Some(60)]);
        ids.put(1_000_000, MessageId(7));
        assert_eq!((ids.get(6), ids.get(1_000_000)), (None, Some(MessageId(7))));
        assert_eq!(ids.next(), 1_000_001);
    }
}
