//! Ids of messages and the base of room sequences.

use shard::Instant;
use wire::MessageId;

use crate::limits::NUMBER_MAX;

/// 2024-01-01T00:00:00Z in ms since the UNIX epoch: where message ids and room sequences begin to count.
const EPOCH_UNIX_MS: u64 = 1_704_067_200_000;
const NUMBER_BITS: u32 = 10;
const COUNTER_BITS: u32 = 12;
/// Room messages that one ms of a room's base stands for.
const SEQUENCE_BITS: u32 = 12;

const _: () = assert!(NUMBER_MAX as u32 == (1 << NUMBER_BITS) - 1);

/// Hands out message ids: 42 bits of ms since 2024, 10 bits of router number, 12 bits of counter.
///
/// They increase strictly. When a ms has used up its counter, the next ms is used before it comes. They are unique in the
/// cluster while numbers are, and across a restart while the clock has not gone back behind the last id.
#[derive(Debug)]
pub(crate) struct MessageIds {
    number: u64,
    ms: u64,
    counter: u64,
}

impl MessageIds {
    pub(crate) fn new(number: u16) -> Self {
        assert!(number <= NUMBER_MAX, "a router number takes 10 bits");
        Self { number: number.into(), ms: 0, counter: 0 }
    }

    pub(crate) fn next(&mut self, now: Instant) -> MessageId {
        let now_ms = since_epoch_ms(now);
        if now_ms > self.ms {
            self.ms = now_ms;
            self.counter = 0;
        } else if self.counter + 1 < 1 << COUNTER_BITS {
            self.counter += 1;
        } else {
            self.ms += 1;
            self.counter = 0;
        }
        MessageId(self.ms << (NUMBER_BITS + COUNTER_BITS) | self.number << COUNTER_BITS | self.counter)
    }
}

/// What a room's sequence begins after: it grows with time faster than a room can, so a room that is forgotten and comes
/// again continues higher, on another router too. Below 2^53 until the year 2093, so JSON clients read it exactly.
pub(crate) fn sequence_base(now: Instant) -> u64 {
    since_epoch_ms(now) << SEQUENCE_BITS
}

/// At least 1: id 0 names no message.
fn since_epoch_ms(now: Instant) -> u64 {
    now.unix_millis().saturating_sub(EPOCH_UNIX_MS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Instant {
        Instant::from_unix_nanos((EPOCH_UNIX_MS + ms) * 1_000_000)
    }

    #[test]
    fn an_id_is_time_number_and_counter() {
        let mut ids = MessageIds::new(5);
        assert_eq!(ids.next(at_ms(1000)), MessageId(1000 << 22 | 5 << 12));
        assert_eq!(ids.next(at_ms(1000)), MessageId(1000 << 22 | 5 << 12 | 1));
        assert_eq!(ids.next(at_ms(1001)), MessageId(1001 << 22 | 5 << 12));
    }

    #[test]
    fn a_full_millisecond_spills_into_the_next() {
        let mut ids = MessageIds::new(NUMBER_MAX);
        let mut last = MessageId(0);
        for _ in 0..10_000 {
            let id = ids.next(at_ms(7));
            assert!(id > last && (id.0 >> 12) as u16 & NUMBER_MAX == NUMBER_MAX);
            last = id;
        }
        assert_eq!(last.0 >> 22, 7 + 2);
        assert!(ids.next(at_ms(8)) > last, "real time has not caught up");
        assert_eq!(ids.next(at_ms(100)).0 >> 22, 100);
    }

    #[test]
    fn no_id_is_zero_before_2024() {
        assert_ne!(MessageIds::new(0).next(Instant::default()), MessageId(0));
    }

    #[test]
    fn sequences_stay_exact_in_json() {
        let year_2093 = 69 * 365 * 24 * 60 * 60 * 1000;
        assert!(sequence_base(at_ms(year_2093)) < 1 << 53);
        assert!(sequence_base(at_ms(1)) < sequence_base(at_ms(2)));
    }
}
