//! Ids of messages.

use shard::{Instant, ShardId};
use wire::{EPOCH_UNIX_MS, MessageId};

const NUMBER_BITS: u32 = 15;
const COUNTER_BITS: u32 = 8;
/// The bits of the shard's number that are its index, unless its node is alone.
const INDEX_BITS: u32 = 5;

/// Hands out message ids: 41 bits of ms since 2024, 15 bits that name the shard, 8 bits of counter.
///
/// They increase strictly. When a ms has used up its counter, the next ms is used early. They are unique in
/// the cluster as shard numbers are, and across a restart unless the clock was set back behind the last id.
#[derive(Debug)]
pub(crate) struct MessageIds {
    number: u64,
    ms: u64,
    counter: u64,
}

impl MessageIds {
    /// Node ids of a cluster go up to 1023 and its gateways have up to 32 shards; node 0 is alone and may
    /// have more.
    pub(crate) fn new(shard: ShardId) -> Self {
        let number = (u64::from(shard.node()) << INDEX_BITS) + u64::from(shard.index());
        Self { number: number % (1 << NUMBER_BITS), ms: 0, counter: 0 }
    }

    pub(crate) fn next(&mut self, now: Instant) -> MessageId {
        // At least 1: id 0 names no message.
        let now_ms = now.unix_millis().saturating_sub(EPOCH_UNIX_MS).max(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Instant {
        Instant::from_unix_nanos((EPOCH_UNIX_MS + ms) * 1_000_000)
    }

    #[test]
    fn an_id_is_time_number_and_counter() {
        let mut ids = MessageIds::new(ShardId::new(3, 1));
        assert_eq!(ids.next(at_ms(1000)), MessageId(1000 << 23 | 97 << 8));
        assert_eq!(ids.next(at_ms(1000)), MessageId(1000 << 23 | 97 << 8 | 1));
        assert_eq!(ids.next(at_ms(1001)), MessageId(1001 << 23 | 97 << 8));
    }

    #[test]
    fn a_full_millisecond_spills_into_the_next() {
        let mut ids = MessageIds::new(ShardId::new(1023, 31));
        let mut last = MessageId(0);
        for _ in 0..600 {
            let id = ids.next(at_ms(7));
            assert!(id > last && (id.0 >> 8) & 0x7fff == 0x7fff);
            last = id;
        }
        assert_eq!(last.0 >> 23, 7 + 2);
        assert!(ids.next(at_ms(8)) > last, "real time has not caught up");
        assert_eq!(ids.next(at_ms(100)).0 >> 23, 100);
    }

    #[test]
    fn no_id_is_zero_before_2024() {
        assert_ne!(MessageIds::new(ShardId::new(0, 0)).next(Instant::default()), MessageId(0));
    }
}
