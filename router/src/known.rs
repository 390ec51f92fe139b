//! A summary of each gateway shard's bindings: how many there are, and a digest for each range of users.
//!
//! When a gateway shard is linked again after its link was lost, the two ends compare these digests, so that
//! only what differs is announced (`wire::node::Digests`). Guesses are not in the digests: their gateway has
//! not announced them.

use std::collections::BTreeMap;

use shard::ShardId;
use wire::node::{Digests, RANGES, RangeSet};

/// What is known of the bindings of all gateway shards that have some.
#[derive(Debug, Default)]
pub(crate) struct Known {
    shards: BTreeMap<ShardId, OfShard>,
    /// Shards of which all bindings are away.
    away: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct OfShard {
    digests: Digests,
    bindings: u32,
    /// Bindings that are marked as away one by one.
    marked: u32,
    /// All of them are away.
    is_away: bool,
}

/// What one binding adds to the summary of its shard.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) range: usize,
    /// 0 for a guess.
    pub(crate) digest: u64,
    pub(crate) is_marked: bool,
}

impl Known {
    /// Adds a binding of a shard.
    pub(crate) fn enter(&mut self, shard: ShardId, part: Part) {
        let known = self.shards.entry(shard).or_default();
        known.digests.toggle(part.range, part.digest);
        known.bindings += 1;
        known.marked += u32::from(part.is_marked);
    }

    /// Undoes `enter`.
    pub(crate) fn exit(&mut self, shard: ShardId, part: Part) {
        let Some(known) = self.shards.get_mut(&shard) else { return };
        known.digests.toggle(part.range, part.digest);
        known.bindings -= 1;
        known.marked -= u32::from(part.is_marked);
        if known.bindings == 0 && !known.is_away {
            self.shards.remove(&shard);
        }
    }

    /// How many bindings a shard has.
    pub(crate) fn bindings(&self, shard: ShardId) -> u32 {
        self.shards.get(&shard).map_or(0, |known| known.bindings)
    }

    /// How many bindings are away, of all shards.
    pub(crate) fn away(&self) -> u64 {
        let away = |known: &OfShard| if known.is_away { known.bindings } else { known.marked };
        self.shards.values().map(|known| u64::from(away(known))).sum()
    }

    /// Whether there is a shard whose bindings are all away.
    pub(crate) fn are_some_away(&self) -> bool {
        self.away > 0
    }

    /// Whether all bindings of a shard are away. This is asked for each receiver of a message, and nearly
    /// always nobody is away.
    pub(crate) fn is_away(&self, shard: ShardId) -> bool {
        self.away > 0 && self.shards.get(&shard).is_some_and(|known| known.is_away)
    }

    /// How many bindings of a shard are marked as away one by one.
    pub(crate) fn marked(&self, shard: ShardId) -> u32 {
        self.shards.get(&shard).map_or(0, |known| known.marked)
    }

    /// Whether some bindings of a shard are marked as away one by one.
    pub(crate) fn has_marked(&self, shard: ShardId) -> bool {
        self.marked(shard) > 0
    }

    /// Sets whether all bindings of a shard are away, or only the marked ones. False if the shard has no
    /// binding.
    pub(crate) fn set_away(&mut self, shard: ShardId, is_away: bool) -> bool {
        let Some(known) = self.shards.get_mut(&shard) else { return false };
        if std::mem::replace(&mut known.is_away, is_away) != is_away {
            if is_away { self.away += 1 } else { self.away -= 1 }
        }
        if known.bindings == 0 && !is_away {
            self.shards.remove(&shard);
        }
        true
    }

    /// The digests of a shard's bindings.
    pub(crate) fn digests(&self, shard: ShardId) -> Digests {
        self.shards.get(&shard).map(|known| known.digests.clone()).unwrap_or_default()
    }

    /// Whether every range in which a shard has bindings is one of these.
    pub(crate) fn is_within(&self, shard: ShardId, ranges: &RangeSet) -> bool {
        let is_in =
            |known: &OfShard| (0..RANGES).all(|range| known.digests.of(range) == 0 || ranges.contains(range));
        self.shards.get(&shard).is_none_or(is_in)
    }

    /// The shards that have bindings, or all of whose bindings are away, ascending.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.keys().copied()
    }

    /// `parts` are of all bindings there are.
    pub(crate) fn check_invariants(&self, parts: impl Iterator<Item = (ShardId, Part)>) {
        let mut again = Known::default();
        parts.for_each(|(shard, part)| again.enter(shard, part));
        for (shard, known) in self.shards.iter().filter(|(_, known)| known.is_away) {
            again.shards.entry(*shard).or_default().is_away = known.is_away;
        }
        assert_eq!(again.shards, self.shards, "what is known of shards is the sum of their bindings");
        assert_eq!(self.away, self.shards.values().filter(|known| known.is_away).count());
    }
}
