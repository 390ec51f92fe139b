//! When routers had no link with a gateway, or had not heard yet whom it has, by what they know themselves.

use std::collections::BTreeMap;

use shard::ShardId;

use crate::network::Host;

/// Of each router shard that runs, and each gateway shard.
#[derive(Default)]
pub(crate) struct Outages {
    /// Since when they are not linked; `None` while they are.
    unlinked: BTreeMap<(ShardId, ShardId), Option<u64>>,
    /// Which gateway, from when on and until when.
    over: Vec<(Host, u64, u64)>,
}

impl Outages {
    /// A router begins, without links.
    pub(crate) fn begin(&mut self, at: u64, router: ShardId, gateways: impl Iterator<Item = ShardId>) {
        self.unlinked.extend(gateways.map(|gateway| ((router, gateway), Some(at))));
    }

    /// A router ends: nobody misses its links.
    pub(crate) fn end(&mut self, at: u64, router: Host) {
        let Self { unlinked, over } = self;
        unlinked.retain(|(of, gateway), since| {
            let stays = of.node() != router;
            if !stays && let Some(from) = since {
                over.push((gateway.node(), *from, at));
            }
            stays
        });
    }

    /// A router is linked with these gateway shards, which have announced what they have.
    pub(crate) fn note(&mut self, at: u64, router: ShardId, gateways: &[ShardId]) {
        let Self { unlinked, over } = self;
        for ((_, gateway), since) in unlinked.iter_mut().filter(|((of, _), _)| *of == router) {
            if !gateways.contains(gateway) {
                since.get_or_insert(at);
            } else if let Some(from) = since.take() {
                over.push((gateway.node(), from, at));
            }
        }
    }

    /// Whether some router had no link with a gateway at some time of these.
    pub(crate) fn was_apart(&self, gateway: Host, from: u64, until: u64) -> bool {
        let mut over = self.over.iter();
        let mut going_on = self.unlinked.iter();
        over.any(|(of, began, ended)| *of == gateway && *began <= until && from <= *ended)
            || going_on.any(|((_, of), since)| of.node() == gateway && since.is_some_and(|at| at <= until))
    }
}

/// A fault, from when on and for how long it may be felt.
pub(crate) struct Trouble {
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) of: [Host; 2],
    /// Owners change, or may, and messages are held back. What becomes of a gateway that ends is felt by its
    /// own clients only, and of a bridge, by events.
    pub(crate) moves: bool,
}

impl Trouble {
    pub(crate) fn is_felt(&self, from: u64, until: u64) -> bool {
        self.from <= until && from <= self.until
    }
}
