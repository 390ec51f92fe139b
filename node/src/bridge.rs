//! Which bridge the events of this shard go to, and what comes back.

use std::collections::{BTreeMap, BTreeSet};

use gateway::Gateway;
use router::Router;
use shard::{Instant, ShardId};
use wire::client::FailReason;
use wire::node::link::Refusal;
use wire::node::{FromBridge, Handed, LinkMessage, Owners, Taken, ToBridge};
use wire::{AppId, UserId};

use crate::handover::{
    self, Handover, HandoverLimits, HandoverMetrics, Told, WINDOW_BYTES_MAX, WINDOW_MESSAGES,
};
use crate::node::{Node, Outside};

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

/// A shard whose events they are, and which life of it.
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
    pub(crate) own: Origin,
    handover: Handover,
    /// The bridge shards that are linked.
    linked: BTreeSet<ShardId>,
    /// The one of them that the events go to.
    chosen: Option<ShardId>,
}

impl Bridging {
    pub(crate) fn new(bridge: Bridge, own: Origin, limits: HandoverLimits) -> Self {
        let seed = own.incarnation ^ u64::from(own.shard.as_u32());
        Self { bridge, own, handover: Handover::new(limits, seed), linked: BTreeSet::new(), chosen: None }
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

    fn up(&mut self, bridge: ShardId) {
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
    /// nothing is under way. Which one, the own number says: so shards spread over bridges.
    fn choose(&mut self) {
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
pub(crate) struct HandedOver {
    /// Which life of its process.
    incarnation: u64,
    /// The weight of each event, by number.
    events: BTreeMap<u64, u64>,
    bytes: u64,
}

impl HandedOver {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self { incarnation, events: BTreeMap::new(), bytes: 0 }
    }

    /// Takes note of an event. False when the window that every shard keeps to has no room for it.
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

impl<O: Outside> Node<O> {
    /// A core has an event for the bridge.
    pub(crate) fn event(&mut self, now: Instant, event: ToBridge) {
        let answer = match self.bridging.is_on() {
            true => self.bridging.handover.put(event),
            false => {
                self.outside.no_bridge(now, &event);
                handover::answer(event, Taken::Refused(FailReason::NoRoute))
            }
        };
        self.tell(now, answer);
    }

    fn tell(&mut self, now: Instant, told: Option<Told>) {
        match (told, &mut self.gateway, &mut self.router) {
            (Some(Told::Session { session, ack }), Some(gateway), _) => gateway.say_answer(session, ack),
            (Some(Told::Router { delivery, taken }), _, Some(router)) => router.kept(now, delivery, taken),
            (Some(_) | None, _, _) => {}
        }
    }

    /// Hands over what the window lets; whether that was anything.
    pub(crate) fn hand_over(&mut self, now: Instant) -> bool {
        let mut any = false;
        match (self.bridging.bridge, self.bridging.chosen) {
            (Bridge::Inside, _) => {
                while let Some(handed) = self.bridging.handover.next() {
                    self.outside.bridge(now, self.bridging.own, handed);
                    any = true;
                }
            }
            (Bridge::Linked, Some(to)) => {
                while let Some(handed) = self.bridging.handover.next() {
                    self.tell_peer(now, to, LinkMessage::Handed(Box::new(handed)));
                    any = true;
                }
            }
            (Bridge::Linked, None) | (Bridge::None, _) => {}
        }
        any
    }

    /// Has the cores tell the bridge again where everybody is, when it was not told of some, as far as there
    /// is room; whether that was anything.
    pub(crate) fn retell(&mut self) -> bool {
        if self.bridging.handover.take_behind() {
            self.router.iter_mut().for_each(Router::begin_retelling);
            self.gateway.iter_mut().for_each(Gateway::begin_retelling);
        }
        let step = self.bridging.handover.step();
        self.bridging.handover.has_room()
            && (self.router.as_mut().is_some_and(|router| router.retell(step))
                || self.gateway.as_mut().is_some_and(|gateway| gateway.retell(step)))
    }

    /// Another shard hands an event over to the bridge of this process.
    pub(crate) fn handed(&mut self, now: Instant, from: ShardId, handed: Handed) {
        let Some(known) = self.handed_over.get_mut(&from) else { return };
        if known.put(&handed) {
            let origin = Origin { shard: from, incarnation: known.incarnation };
            self.outside.bridge(now, origin, handed);
        } else if let Some(links) = &mut self.links {
            links.refuse_peer(from, Refusal::Flood);
        }
    }

    /// The bridge of this process has said what has become of a shard's events.
    pub(crate) fn taken_here(&mut self, now: Instant, of: Origin, results: Vec<(u64, Taken)>) {
        if of == self.bridging.own {
            return self.taken(now, results);
        }
        // One that is not linked any more has begun again elsewhere, or will. Another life of it has other
        // events under these numbers.
        let known = self.handed_over.get_mut(&of.shard);
        if let Some(known) = known.filter(|known| known.incarnation == of.incarnation) {
            results.iter().for_each(|(seq, _)| known.taken(*seq));
            self.tell_peer(now, of.shard, LinkMessage::FromBridge(FromBridge::Taken { results }));
        }
    }

    /// A bridge has said what has become of events of this shard.
    pub(crate) fn taken(&mut self, now: Instant, results: Vec<(u64, Taken)>) {
        for (seq, taken) in results {
            let told = self.bridging.handover.taken(seq, taken);
            self.tell(now, told);
        }
        self.bridging.choose();
    }

    pub(crate) fn bridge_up(&mut self, bridge: ShardId) {
        self.bridging.up(bridge);
        if let Some(router) = &mut self.router {
            router.expect_bridge();
        }
    }

    pub(crate) fn bridge_down(&mut self, bridge: ShardId) {
        self.bridging.down(bridge);
    }
}

#[cfg(test)]
mod tests {
    use wire::node::{Login, SessionId};
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
        let (session, room, biz_code) = (SessionId(1), None, BizCode(1));
        let client_msg_id = ClientMsgId::default();
        let large =
            ToBridge::Request { session, device, room, app, sender: user, biz_code, client_msg_id, payload };
        let large = |seq| Handed { seq, event: large.clone() };
        assert!((1..=4).all(|seq| known.put(&large(seq))) && !known.put(&large(5)));
        (1..=4).for_each(|seq| known.taken(seq));
        assert_eq!((known.bytes, known.put(&large(5))), (0, true));
    }

    /// Takes what is handed over when it is told to.
    #[derive(Default)]
    struct Slow {
        handed: Vec<(Origin, Handed)>,
    }

    impl Outside for Slow {
        fn bridge(&mut self, _now: Instant, of: Origin, handed: Handed) {
            self.handed.push((of, handed));
        }

        fn no_bridge(&mut self, _now: Instant, event: &ToBridge) {
            panic!("there is a bridge for {event:?}");
        }

        fn directory(&mut self, _now: Instant, _record: wire::node::ToDirectory) {}

        fn unbridged(&self) -> crate::Unbridged {
            crate::Unbridged::default()
        }

        fn poll_timeout(&self) -> Option<Instant> {
            None
        }

        fn timeout(&mut self, _now: Instant) {}

        fn end(&mut self, _now: Instant) {}
    }

    fn node_of_all(now: Instant, handover: HandoverLimits) -> Node<Slow> {
        let id = ShardId::new(1, 0);
        let router = Router::new(router::Config {
            id,
            seed: 1,
            limits: router::Limits::default(),
            keeps: router::Keeps::default(),
        });
        let (keys, config) = (gateway::TokenKeys::hs256(b"a secret"), gateway::Config::default());
        let gateway = Gateway::new(now, gateway::Setup { id, keys, config, ports: Vec::new(), seed: 2 });
        let cores = crate::Cores { gateway: Some(gateway), router: Some(router), links: None };
        let (outside, patience) = (Slow::default(), std::time::Duration::from_secs(1));
        let setup = crate::Setup {
            id,
            shards: 1,
            incarnation: 1,
            bridge: Bridge::Inside,
            handover,
            cores,
            outside,
            patience,
        };
        Node::new(now, setup)
    }

    #[test]
    fn a_bridge_that_fell_behind_is_told_again_where_everybody_is() {
        use shard::{Event, Shard};
        use wire::node::ToRouter;
        let now = Instant::from_unix_nanos(1_800_000_000_000_000_000);
        let mut node = node_of_all(now, HandoverLimits { queue_messages_max: 8, ..LIMITS });
        let (app, device, me) = (AppId(1), DeviceClass::Web, node.id);
        let turn = |node: &mut Node<Slow>, mail| {
            node.handle(now, Event::Mail { from: me, mail });
            while node.poll_effect(now).is_some() {}
            node.check_invariants();
        };
        let say = |node: &mut Node<Slow>, mail| {
            turn(node, crate::Mail::ToRouter(mail));
        };
        for user in (1..=40).map(UserId) {
            let (session, login, fresh) = (SessionId(user.0 as u64), Login(now.unix_nanos()), true);
            say(&mut node, ToRouter::Bind { app, user, device, session, login, fresh });
        }
        for user in (1..=10).map(UserId) {
            let (session, moved) = (SessionId(user.0 as u64), false);
            say(&mut node, ToRouter::Unbind { app, user, device, session, moved });
        }
        let dropped = |node: &Node<Slow>| node.handover().map_or(0, |metrics| metrics.dropped.iter().sum());
        assert_eq!(dropped(&node), 32 + 10, "the bridge takes nothing");
        // Of each user whether it is online, by the last that was told.
        let mut told = BTreeMap::new();
        for turns in 0.. {
            assert!(turns < 100, "it comes to an end");
            let handed = std::mem::take(&mut node.outside.handed);
            let Some((of, _)) = handed.first() else { break };
            let (of, mut results) = (*of, Vec::new());
            for (_, Handed { seq, event }) in handed {
                results.push((seq, Taken::Ok));
                match event {
                    ToBridge::Online { user, .. } => told.insert(user, true),
                    ToBridge::Offline { user, .. } => told.insert(user, false),
                    other => panic!("{other:?}"),
                };
            }
            turn(&mut node, crate::Mail::Control(crate::Control::Taken { of, results }));
        }
        assert_eq!(told, (1..=40).map(|user| (UserId(user), user > 10)).collect());
        assert_eq!(dropped(&node), 42, "what is told again finds room");
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
