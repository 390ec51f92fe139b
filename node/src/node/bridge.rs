//! Events on their way to the bridge, and what comes back.

use shard::{Instant, ShardId};
use wire::client::FailReason;
use wire::node::link::Refusal;
use wire::node::{FromBridge, Handed, LinkMessage, Taken, ToBridge};

use super::{Node, Outside};
use crate::bridging::{Handing, Origin, Way};
use crate::handover::{self, Told};

impl<O: Outside> Node<O> {
    /// A core has an event for the bridge.
    pub(super) fn event(&mut self, now: Instant, event: ToBridge) {
        let answer = match self.bridging.handover() {
            Some(handover) => handover.put(event),
            None => {
                self.outside.no_bridge(now, &event);
                handover::answer(event, Taken::Refused(FailReason::NoRoute))
            }
        };
        self.tell(now, answer);
    }

    fn tell(&mut self, now: Instant, told: Option<Told>) {
        match told {
            Some(Told::Session { session, ack }) => {
                if let Some(gateway) = self.cores.gateway_mut() {
                    gateway.say_answer(session, ack);
                }
            }
            Some(Told::Router { delivery, taken }) => {
                if let Some(router) = self.cores.router_mut() {
                    router.kept(now, delivery, taken);
                }
            }
            None => {}
        }
    }

    /// Hands over as much as the window allows. Returns whether that was anything.
    pub(super) fn hand_over(&mut self, now: Instant) -> bool {
        let Some(way) = self.bridging.way() else { return false };
        let mut any = false;
        while let Some(handed) = self.bridging.next() {
            match way {
                Way::Inside => self.outside.bridge(now, self.bridging.own(), handed),
                Way::Link(to) => self.tell_peer(now, to, LinkMessage::Handed(Box::new(handed))),
            }
            any = true;
        }
        any
    }

    /// Has the cores report to the bridge again where everybody is, if it missed some, as far as there is
    /// room. Returns whether that was anything.
    pub(super) fn retell(&mut self) -> bool {
        if self.bridging.take_behind() {
            self.cores.begin_retelling();
        }
        self.bridging.retelling_step().is_some_and(|step| self.cores.retell(step))
    }

    /// Another shard hands an event over to the bridge of this process.
    pub(super) fn handed(&mut self, now: Instant, from: ShardId, handed: Handed) {
        match self.bridging.handed(from, &handed) {
            Handing::Goes(origin) => self.outside.bridge(now, origin, handed),
            Handing::Flood => self.with_links(|links| links.refuse_peer(from, Refusal::Flood)),
            Handing::Unknown => {}
        }
    }

    /// The bridge of this process has reported the results of a shard's events.
    pub(super) fn taken_here(&mut self, now: Instant, of: Origin, results: Vec<(u64, Taken)>) {
        if of == self.bridging.own() {
            self.taken(now, results);
        } else if self.bridging.taken_of(of, &results) {
            self.tell_peer(now, of.shard, LinkMessage::FromBridge(FromBridge::Taken { results }));
        }
    }

    /// A bridge has reported the results of events of this shard.
    pub(super) fn taken(&mut self, now: Instant, results: Vec<(u64, Taken)>) {
        for (seq, taken) in results {
            let told = self.bridging.taken(seq, taken);
            self.tell(now, told);
        }
        self.bridging.choose();
    }

    /// A bridge is linked.
    pub(super) fn bridge_up(&mut self, bridge: ShardId) {
        self.bridging.up(bridge);
        if let Some(router) = self.cores.router_mut() {
            router.expect_bridge();
        }
    }
}
