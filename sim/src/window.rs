//! What a client has in flight: messages that it was sent and has not acked.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::host::{FLIGHT_MS, WINDOW};

#[derive(Default)]
pub(crate) struct Window {
    /// By id, with the time when each came first.
    unacked: BTreeMap<u64, u64>,
    /// When a message came that made it full.
    full: Vec<u64>,
}

impl Window {
    /// A message comes that the client is to ack.
    pub(crate) fn takes(&mut self, at: u64, id: u64) {
        self.unacked.entry(id).or_insert(at);
        self.unacked.retain(|_, came| at < *came + FLIGHT_MS * 1_000_000);
        if self.unacked.len() >= WINDOW {
            self.full.push(at);
        }
    }

    pub(crate) fn acks(&mut self, id: u64) {
        self.unacked.remove(&id);
    }

    /// Whether it was full at some time of these.
    pub(crate) fn was_full(&self, times: &Range<u64>) -> bool {
        self.full.iter().any(|at| times.contains(at))
    }
}
