//! Messages sent again on the same connection, because their send-ack is long in coming.

use std::time::Duration;

use shard::Instant;

use super::Fleet;
use super::traffic::OUT_BYTES_MAX;
use crate::client::State;

/// All clients are looked at so many times within the time after which a message is repeated.
const LOOKS: u32 = 8;

/// Goes over the clients, some at a time.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The client to look at next.
    next: usize,
    /// Until when all that was due has been looked at.
    at: Instant,
}

impl Sweep {
    /// How many of `clients` are to be looked at, when all are once a period.
    fn advance(&mut self, now: Instant, period: Duration, clients: usize) -> usize {
        let periods = now.since(self.at).as_secs_f64() / period.as_secs_f64();
        let count = (clients as f64 * periods) as usize;
        if count > 0 {
            self.at = now;
        }
        count.min(clients)
    }
}

impl Fleet {
    /// Looks at some of the clients, and sends again what they wait for too long.
    pub(super) fn repeat_unanswered(&mut self, now: Instant) {
        let patience = Duration::from_nanos(self.plan.repeat_ns);
        if patience.is_zero() {
            return;
        }
        let since = Instant::from_unix_nanos(now.unix_nanos().saturating_sub(self.plan.repeat_ns));
        for _ in 0..self.sweep.advance(now, patience / LOOKS, self.clients.len()) {
            let c = self.sweep.next;
            self.sweep.next = (c + 1) % self.clients.len();
            let client = &self.clients[c];
            if client.state != State::Ready || client.out.len() > OUT_BYTES_MAX {
                continue;
            }
            let due: Vec<_> = client.outbox.unanswered_since(since).collect();
            for number in due {
                self.write_message(now, c, number);
            }
        }
    }
}
