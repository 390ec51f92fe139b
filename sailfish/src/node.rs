//! One shard of a node: the gateway core and the router core on one thread, and what stands in for the bridge.
//!
//! Only composition: events go to the core they are for, mail between the two goes over within the turn, and mail to other
//! shards leaves for the engine. No protocol and no business rule lives here.

mod mail;
mod no_bridge;

use std::collections::VecDeque;

use shard::{ConnId, Effect, Event, Instant, SendBatch, Shard, ShardId};
use wire::node::NodeMessage;

pub use mail::{Control, Mail, Presence, Report, ShardMetrics};
use no_bridge::NoBridge;
pub use no_bridge::Unbridged;

/// The cores of one shard.
pub struct Node {
    id: ShardId,
    gateway: gateway::Gateway,
    router: router::Router,
    bridge: NoBridge,
    /// Effects of the node itself: reports, and the end.
    own: VecDeque<Effect<Mail>>,
    drain: Drain,
}

/// How far the shard's farewell is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    Open,
    Draining,
    Drained,
}

impl Node {
    /// The shard `id` of two cores that have seen nothing yet.
    pub fn new(id: ShardId, gateway: gateway::Gateway, router: router::Router) -> Self {
        Self { id, gateway, router, bridge: NoBridge::default(), own: VecDeque::new(), drain: Drain::Open }
    }

    fn control(&mut self, now: Instant, control: Control) {
        match control {
            Control::Stats { ask } => {
                let metrics = ShardMetrics {
                    gateway: self.gateway.metrics(),
                    router: self.router.metrics(),
                    unbridged: self.bridge.counts(),
                };
                self.report(Report::Stats { ask, metrics: Box::new(metrics) });
            }
            Control::Online { ask, app, users } => {
                let router = &self.router;
                let users = users
                    .into_iter()
                    .map(|user| Presence {
                        user,
                        devices: router.online(app, user).map(|(device, _)| device).collect(),
                    })
                    .collect();
                self.report(Report::Online { ask, users });
            }
            Control::Reload(config) => self.gateway.reload(*config),
            Control::Drain => {
                self.gateway.drain(now);
                self.drain = Drain::Draining;
            }
            Control::Stop => self.own.push_back(Effect::Stop),
        }
    }

    fn report(&mut self, report: Report) {
        self.own.push_back(Effect::Mail { to: ShardId::CONTROL, mail: Mail::Report(report) });
    }

    fn node_message(&mut self, now: Instant, from: ShardId, mail: NodeMessage) {
        match mail {
            NodeMessage::ToGateway(_) => self.gateway.handle(now, Event::Mail { from, mail }),
            NodeMessage::ToRouter(_) => self.router.handle(now, Event::Mail { from, mail }),
            NodeMessage::ToBridge(to_bridge) => {
                if let Some(answer) = self.bridge.handle(now, to_bridge) {
                    let mail = NodeMessage::ToGateway(answer);
                    self.gateway.handle(now, Event::Mail { from: ShardId::BRIDGE, mail });
                }
            }
        }
    }

    /// What a core wants done, as the engine knows it; `None` when it was mail that stayed within this shard.
    fn outward(&mut self, now: Instant, effect: Effect<NodeMessage>) -> Option<Effect<Mail>> {
        Some(match effect {
            // Each shard stands in for the bridge itself.
            Effect::Mail { to, mail } if to == self.id || to == ShardId::BRIDGE => {
                self.node_message(now, self.id, mail);
                return None;
            }
            Effect::Mail { to, mail } => Effect::Mail { to, mail: Mail::Node(mail) },
            Effect::Transmit { conn } => Effect::Transmit { conn },
            Effect::Close { conn, linger } => Effect::Close { conn, linger },
            Effect::Connect { token, peer, source } => Effect::Connect { token, peer, source },
            Effect::StopAccepting => Effect::StopAccepting,
            Effect::Stop => Effect::Stop,
        })
    }
}

impl Shard for Node {
    type Mail = Mail;

    fn handle(&mut self, now: Instant, event: Event<'_, Mail>) {
        // Connections are the gateway's: it alone listens.
        let event = match event {
            Event::Mail { from, mail: Mail::Node(mail) } => return self.node_message(now, from, mail),
            Event::Mail { from: _, mail: Mail::Control(control) } => return self.control(now, control),
            Event::Mail { from: _, mail: Mail::Report(_) } => {
                unreachable!("reports go to the control thread only")
            }
            Event::Timeout => {
                self.router.handle(now, Event::Timeout);
                self.bridge.handle_timeout(now);
                Event::Timeout
            }
            Event::Accepted { conn, peer } => Event::Accepted { conn, peer },
            Event::Connected { conn, token } => Event::Connected { conn, token },
            Event::ConnectFailed { token, error } => Event::ConnectFailed { token, error },
            Event::Received { conn, bytes } => Event::Received { conn, bytes },
            Event::Sent { conn, bytes } => Event::Sent { conn, bytes },
            Event::Finished { conn } => Event::Finished { conn },
            Event::Closed { conn, reason } => Event::Closed { conn, reason },
        };
        self.gateway.handle(now, event);
    }

    fn poll_effect(&mut self, now: Instant) -> Option<Effect<Mail>> {
        // The router goes first, and the gateway speaks to it before it wants to transmit: so what the two cores say to each
        // other in this turn is settled before bytes leave, and leaves in one write for each connection.
        while let Some(effect) = self.router.poll_effect(now).or_else(|| self.gateway.poll_effect(now)) {
            if let Some(outward) = self.outward(now, effect) {
                return Some(outward);
            }
        }
        if self.drain == Drain::Draining && self.gateway.is_drained() {
            self.drain = Drain::Drained;
            self.report(Report::Drained);
        }
        self.own.pop_front()
    }

    fn poll_transmit(&mut self, now: Instant, conn: ConnId, batch: &mut SendBatch) {
        self.gateway.poll_transmit(now, conn, batch);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let instants = [self.gateway.poll_timeout(), self.router.poll_timeout(), self.bridge.poll_timeout()];
        instants.into_iter().flatten().min()
    }
}
