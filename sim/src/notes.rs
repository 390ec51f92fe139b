//! What lies outside of a shard's cores: here, notes of what they say.

use node::Origin;
use shard::Instant;
use wire::node::{Handed, ToBridge, ToDirectory};

/// Takes notes; the world reads them after each turn.
#[derive(Default)]
pub(crate) struct Notes {
    /// Where there is no bridge.
    pub(crate) lost: Vec<ToBridge>,
    /// What a bridge is to take.
    pub(crate) handed: Vec<(Origin, Handed)>,
    pub(crate) directory: Vec<ToDirectory>,
}

impl node::Outside for Notes {
    fn bridge(&mut self, _now: Instant, of: Origin, handed: Handed) {
        self.handed.push((of, handed));
    }

    fn no_bridge(&mut self, _now: Instant, event: &ToBridge) {
        // The sender of a request is told.
        if !matches!(event, ToBridge::Request { .. }) {
            self.lost.push(event.clone());
        }
    }

    fn directory(&mut self, _now: Instant, record: ToDirectory) {
        self.directory.push(record);
    }

    fn unbridged(&self) -> node::Unbridged {
        node::Unbridged::default()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant) {}

    fn end(&mut self, _now: Instant) {}
}
