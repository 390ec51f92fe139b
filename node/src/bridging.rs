//! Which bridge the events of this shard go to, and what shards have handed over to the bridge of this
//! process.

use std::collections::{BTreeMap, BTreeSet};

use shard::ShardId;
use wire::node::{Handed, Owners, Taken};
use wire::{AppId, UserId};

use crate::handover::{
    self, Handover, HandoverLimits, HandoverMetrics, Told, WINDOW_BYTES_MAX, WINDOW_MESSAGES,
};

/// Where the bridge of a shard is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bridge {
    /// Nowhere, unless one links.
    None,
    /// In this process.
    Inside,
    /// In other processes, of which at least one will be linked.
    Linked,
}

/// A shard to which events belong, and which life of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Origin {
    /// Which shard.
    pub shard: ShardId,
    /// Which life of its process.
    pub incarnation: u64,
}

/// What a shard has to do with bridges.
pub(crate) struct Bridging {
    bridge: Bridge,
    own: Origin,
    handover: Handover,
    /// The bridge shards that are linked.
    linked: BTreeSet<ShardId>,
    /// The one of them that the events go to.
    chosen: Option<ShardId>,
    /// Of a bridge: the shards that hand events over to it.
    handed_over: BTreeMap<ShardId, HandedOver>,
}

/// The way of an event to the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// The bridge is in this process.
    Inside,
    /// By the link to this bridge shard.
    Link(ShardId),
}

/// What becomes of an event that another shard hands over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handing {
    /// It goes to the bridge, as an event of this shard.
    Goes(Origin),
    /// That shard is not linked.
    Unknown,
    /// That shard hands over more than it may at once.
    Flood,
}

impl Bridging {
    pub(crate) fn new(bridge: Bridge, own: Origin, limits: HandoverLimits) -> Self {
        let seed = own.incarnation ^ u64::from(own.shard.as_u32());
        Self {
            bridge,
            own,
            handover: Handover::new(limits, seed),
            linked: BTreeSet::new(),
            chosen: None,
            handed_over: BTreeMap::new(),
        }
    }

    /// The name by which the bridge of this process knows this shard.
    pub(crate) fn own(&self) -> Origin {
        self.own
    }

    /// Whether events are kept for a bridge.
    pub(crate) fn is_on(&self) -> bool {
        self.bridge != Bridge::None
    }

    /// Whether a bridge has taken everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.handover.is_empty()
    }

    pub(crate) fn metrics(&self) -> Option<HandoverMetrics> {
        self.is_on().then(|| self.handover.metrics())
    }

    pub(crate) fn check_invariants(&self) {
        self.handover.check_invariants();
        assert!(
            self.chosen.is_none_or(|chosen| self.linked.contains(&chosen)),
            "the chosen bridge is linked"
        );
    }

    /// Events for a bridge go here; `None` where there is no bridge.
    pub(crate) fn handover(&mut self) -> Option<&mut Handover> {
        (self.bridge != Bridge::None).then_some(&mut self.handover)
    }

    /// How events reach the bridge at the moment, if they can.
    pub(crate) fn way(&self) -> Option<Way> {
        match (self.bridge, self.chosen) {
            (Bridge::Inside, _) => Some(Way::Inside),
            (Bridge::Linked, Some(to)) => Some(Way::Link(to)),
            (Bridge::Linked, None) | (Bridge::None, _) => None,
        }
    }

    /// The next event to hand over, if the window lets it.
    pub(crate) fn next(&mut self) -> Option<Handed> {
        self.handover.next()
    }

    /// A bridge has reported the result of an event of this shard. Returns the answer for its waiter.
    pub(crate) fn taken(&mut self, seq: u64, taken: Taken) -> Option<Told> {
        self.handover.taken(seq, taken)
    }

    /// Whether the cores must report to the bridge again where everybody is; true only once.
    pub(crate) fn take_behind(&mut self) -> bool {
        self.handover.take_behind()
    }

    /// How much may be reported again at once; `None` while there is no room for it.
    pub(crate) fn retelling_step(&self) -> Option<usize> {
        self.handover.has_room().then(|| self.handover.step())
    }

    /// A shard that may hand events over to this bridge is linked.
    pub(crate) fn peer_up(&mut self, peer: ShardId, incarnation: u64) {
        self.handed_over.insert(peer, HandedOver::new(incarnation));
    }

    /// A peer is gone, whatever it was.
    pub(crate) fn peer_down(&mut self, peer: ShardId) {
        self.handed_over.remove(&peer);
        self.down(peer);
    }

    /// Another shard hands an event over to the bridge of this process.
    pub(crate) fn handed(&mut self, from: ShardId, handed: &Handed) -> Handing {
        let Some(known) = self.handed_over.get_mut(&from) else { return Handing::Unknown };
        match known.put(handed) {
            true => Handing::Goes(Origin { shard: from, incarnation: known.incarnation }),
            false => Handing::Flood,
        }
    }

    /// The bridge of this process has reported results of another shard's events. Returns whether to send
    /// them on. An unlinked shard has begun again elsewhere, or will. Another life of it uses these numbers
    /// for other events.
    pub(crate) fn taken_of(&mut self, of: Origin, results: &[(u64, Taken)]) -> bool {
        let known = self.handed_over.get_mut(&of.shard);
        let Some(known) = known.filter(|known| known.incarnation == of.incarnation) else { return false };
        results.iter().for_each(|(seq, _)| known.taken(*seq));
        true
    }

    /// A bridge is linked.
    pub(crate) fn up(&mut self, bridge: ShardId) {
        if self.bridge == Bridge::None {
            self.bridge = Bridge::Linked;
        }
        self.linked.insert(bridge);
        self.choose();
    }

    fn down(&mut self, bridge: ShardId) {
        self.linked.remove(&bridge);
        if self.chosen == Some(bridge) {
            self.chosen = None;
            self.handover.begin_again();
            self.choose();
        }
    }

    /// Events of one user stay in order as long as they go to one bridge, so another is chosen only while
    /// nothing is under way. The own number picks it, so that shards spread over bridges.
    pub(crate) fn choose(&mut self) {
        if self.linked.is_empty() || !self.handover.is_idle() {
            return;
        }
        let bridges = Owners::new(self.linked.iter().map(|bridge| bridge.as_u32()).collect());
        let own = UserId(self.own.shard.as_u32().into());
        self.chosen = Some(ShardId::from_u32(bridges.of_user(AppId(0), own)));
    }
}

/// What a linked shard has handed over and the bridge of this process has not taken: the other end of its
/// [`Handover`].
struct HandedOver {
    /// Which life of its process.
    incarnation: u64,
    /// The weight of each event, by number.
    events: BTreeMap<u64, u64>,
    bytes: u64,
}

impl HandedOver {
    fn new(incarnation: u64) -> Self {
        Self { incarnation, events: BTreeMap::new(), bytes: 0 }
    }

    /// Notes an event. False if it exceeds the window that every shard keeps to.
    fn put(&mut self, handed: &Handed) -> bool {
        if self.events.len() >= WINDOW_MESSAGES || self.bytes >= WINDOW_BYTES_MAX {
            return false;
        }
        let bytes = handover::weight(&handed.event);
        self.bytes += bytes;
        self.bytes -= self.events.insert(handed.seq, bytes).unwrap_or(0);
        true
    }

    fn taken(&mut self, seq: u64) {
        self.bytes -= self.events.remove(&seq).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use wire::node::{Login, SessionId, ToBridge};
    use wire::{BizCode, ClientMsgId, DeviceClass};

    use super::*;

    const LIMITS: HandoverLimits = HandoverLimits {
        queue_messages_max: 100,
        queue_bytes_max: 1 << 20,
        user_messages_max: 100,
        user_bytes_max: 1 << 20,
        window_bytes: 1 << 20,
    };

    fn bridging(shard: u32, bridge: Bridge) -> Bridging {
        let own = Origin { shard: ShardId::from_u32(shard), incarnation: 1 };
        Bridging::new(bridge, own, LIMITS)
    }

    fn event() -> ToBridge {
        let (app, user, device, login) = (AppId(1), UserId(1), DeviceClass::Web, Login(1));
        ToBridge::Online { app, user, device, login }
    }

    #[test]
    fn shards_spread_over_bridges_whichever_comes_first() {
        let bridges = [ShardId::new(9, 0), ShardId::new(9, 1), ShardId::new(10, 0)];
        let mut shards_of = [0; 3];
        for shard in 0..300 {
            let mut one = bridging(shard << 16, Bridge::Linked);
            let mut other = bridging(shard << 16, Bridge::Linked);
            bridges.into_iter().for_each(|bridge| one.up(bridge));
            bridges.into_iter().rev().for_each(|bridge| other.up(bridge));
            assert_eq!(one.chosen, other.chosen);
            let chosen = bridges.iter().position(|bridge| Some(*bridge) == one.chosen).unwrap();
            shards_of[chosen] += 1;
            one.check_invariants();
        }
        assert!(shards_of.iter().all(|count| (60..140).contains(count)), "{shards_of:?}");
    }

    #[test]
    fn another_bridge_is_chosen_when_nothing_is_under_way() {
        // One whose choice of the two is the second.
        let (first, second) = (ShardId::new(9, 0), ShardId::new(9, 1));
        let prefers_second = |shard: &u32| {
            let mut it = bridging(*shard, Bridge::Linked);
            [first, second].into_iter().for_each(|bridge| it.up(bridge));
            it.chosen == Some(second)
        };
        let shard = (0..100).find(prefers_second).unwrap();
        let mut it = bridging(shard, Bridge::Linked);
        it.up(first);
        it.handover.put(event());
        let handed = it.handover.next().unwrap();
        it.up(second);
        assert_eq!(it.chosen, Some(first), "it sticks to the one that has something");
        it.handover.taken(handed.seq, Taken::Ok);
        it.choose();
        assert_eq!(it.chosen, Some(second));
        it.handover.put(event());
        it.handover.next().unwrap();
        it.down(second);
        assert_eq!(it.chosen, Some(first), "the bridge is gone, and what it had goes again");
        assert_eq!(it.handover.next().map(|handed| handed.seq), Some(2));
        it.down(first);
        assert_eq!(it.chosen, None);
        it.check_invariants();
    }

    #[test]
    fn a_shard_that_keeps_to_no_window_is_noticed() {
        let mut known = HandedOver::new(1);
        let handed = |seq| Handed { seq, event: event() };
        assert!((1..=WINDOW_MESSAGES as u64).all(|seq| known.put(&handed(seq))));
        assert!(!known.put(&handed(u64::MAX)));
        known.taken(7);
        known.taken(7);
        assert!(known.put(&handed(u64::MAX)) && !known.put(&handed(7)));
        let mut known = HandedOver::new(1);
        let (app, user, device) = (AppId(1), UserId(1), DeviceClass::Web);
        let payload = vec![0; 1 << 20].into();
        let (session, room, biz_code, received_ms) = (SessionId(1), None, BizCode(1), 0);
        let client_msg_id = ClientMsgId::default();
        let sender = user;
        let large = ToBridge::Request {
            session,
            device,
            room,
            app,
            sender,
            biz_code,
            received_ms,
            client_msg_id,
            payload,
        };
        let large = |seq| Handed { seq, event: large.clone() };
        assert!((1..=4).all(|seq| known.put(&large(seq))) && !known.put(&large(5)));
        (1..=4).for_each(|seq| known.taken(seq));
        assert_eq!((known.bytes, known.put(&large(5))), (0, true));
    }

    #[test]
    fn a_bridge_that_links_unasked_is_used_from_then_on() {
        let mut it = bridging(1, Bridge::None);
        assert!(!it.is_on());
        it.up(ShardId::new(9, 0));
        it.down(ShardId::new(9, 0));
        assert!(it.is_on());
    }
}
