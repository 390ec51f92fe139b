//! Bridges, which take their time.

use node::Origin;
use shard::ShardId;
use wire::client::FailReason;
use wire::node::{Handed, Taken, ToBridge};

use crate::host::Power;
use crate::world::{Event, World};

/// One in so many undelivered messages is refused.
const REFUSED_ONE_IN: u64 = 40;

impl World {
    /// A bridge takes an event after a while, in the order in which its shard got them. Until then it is lost
    /// with the process.
    pub(crate) fn bridge_note(&mut self, bridge: ShardId, life: u32, of: Origin, handed: Handed) {
        let most_ns = if self.prng.below(16) == 0 { 400_000_000 } else { 20_000_000 };
        let at = self.now + self.prng.below(most_ns);
        let earliest = self.takes_until.get(&bridge).copied().unwrap_or(0);
        let at = at.max(earliest + 1);
        self.takes_until.insert(bridge, at);
        self.schedule(at, Event::Take { bridge, life, of, handed: Box::new(handed) });
    }

    pub(crate) fn take_event(&mut self, bridge: ShardId, life: u32, of: Origin, handed: Box<Handed>) {
        let node = &self.nodes[&bridge.node()];
        if node.life != life || node.power != Power::Up {
            return;
        }
        if let Some((_, until)) = node.frozen {
            return self.schedule(until, Event::Take { bridge, life, of, handed });
        }
        let Handed { seq, event } = *handed;
        let name = (of.shard, of.incarnation, seq);
        if let Some(taken) = self.taken.get(&name).copied() {
            return self.answer_taken(bridge, life, of, seq, taken);
        }
        let is_refused =
            matches!(event, ToBridge::Undelivered { .. }) && self.prng.below(REFUSED_ONE_IN) == 0;
        self.trace
            .line(self.now, || format!("{bridge:?} takes {seq} of {of:?}: {event:?}, refused: {is_refused}"));
        let (found, taken) = match is_refused {
            true => (self.model.refused(&event), Taken::Refused(FailReason::NoRoute)),
            false => (self.model.bridge(self.now, event), Taken::Ok),
        };
        self.check(found);
        self.taken.insert(name, taken);
        self.answer_taken(bridge, life, of, seq, taken);
    }

    fn answer_taken(&mut self, bridge: ShardId, life: u32, of: Origin, seq: u64, taken: Taken) {
        let results = vec![(seq, taken)];
        let mail = node::Mail::Control(node::Control::Taken { of, results });
        self.sibling_mail(ShardId::CONTROL, bridge, life, mail);
    }
}
