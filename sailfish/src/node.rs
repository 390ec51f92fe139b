//! One shard of a node: the gateway core and the router core on one thread, and what stands in for the bridge.
//!
//! Only composition: events go to the core they are for, mail between the two goes over within the turn, and mail to other
//! shards leaves for the engine. No protocol and no business rule lives here.

mod mail;
mod no_bridge;

use std::collections::VecDeque;

use gateway::Gateway;
use router::Router;
use shard::{ConnId, Effect, Event, Instant, SendBatch, Shard, ShardId};
use wire::node::NodeMessage;

pub use mail::{Control, Mail, Presence, Report, ShardMetrics};
use no_bridge::NoBridge;
pub use no_bridge::Unbridged;

/// The cores of one shard.
pub struct Node {
    id: ShardId,
    gateway: Gateway,
    router: Router,
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
    pub fn new(id: ShardId, gateway: Gateway, router: Router) -> Self {
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
            Control::Stop => {
                self.bridge.handle_end(now);
                self.own.push_back(Effect::Stop);
            }
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

#[cfg(test)]
mod tests {
    use gateway::{Claims, Setup, TokenKeys, mint_hs256};
    use shard::Linger;
    use wire::client::{ClientFrame, Code, Deframer, Encoding};
    use wire::node::Owners;
    use wire::{AppId, DeviceClass, UserId};

    use super::*;

    const ME: ShardId = ShardId::new(0, 0);
    const NOW: Instant = Instant::from_unix_nanos(1_800_000_000_000_000_000);
    const CONN: ConnId = ConnId { index: 0, generation: 1 };

    /// The only shard of its node, so it owns everything.
    fn node() -> Node {
        let setup = Setup {
            owners: Owners::new(vec![ME.as_u32()]),
            keys: TokenKeys::hs256(b"secret"),
            config: gateway::Config::default(),
            seed: 1,
        };
        Node::new(ME, Gateway::new(NOW, setup), Router::new(router::Config::default()))
    }

    fn effects(node: &mut Node) -> Vec<Effect<Mail>> {
        std::iter::from_fn(|| node.poll_effect(NOW)).collect()
    }

    fn login(node: &mut Node, conn: ConnId) {
        let claims = Claims { app: AppId(1), user: UserId(7), device: DeviceClass::Phone, exp: u64::MAX };
        let token = mint_hs256(b"secret", &claims).into();
        let mut bytes = Vec::new();
        ClientFrame::Login { token }.encode(Encoding::Binary, claims.app, claims.user, &mut bytes);
        node.handle(NOW, Event::Accepted { conn, peer: [127, 0, 0, 1].into() });
        node.handle(NOW, Event::Received { conn, bytes: &bytes });
    }

    fn written(node: &mut Node, conn: ConnId) -> Vec<Code> {
        let mut batch = SendBatch::new();
        node.poll_transmit(NOW, conn, &mut batch);
        let bytes: Vec<u8> = batch.segments().flatten().copied().collect();
        let (mut deframer, mut bytes) = (Deframer::default(), &bytes[..]);
        let mut codes = Vec::new();
        while let Some(frame) = deframer.next(&mut bytes, 1024).unwrap() {
            codes.push(frame.code);
        }
        codes
    }

    #[test]
    fn what_the_cores_say_to_each_other_is_settled_within_the_turn() {
        let mut node = node();
        login(&mut node, CONN);
        // The login went to the router and back: no mail leaves, and one write has the answer.
        assert!(matches!(effects(&mut node)[..], [Effect::Transmit { conn: CONN }]));
        assert_eq!(written(&mut node, CONN), [Code::Login]);
        assert_eq!(node.bridge.counts().online, 1);
    }

    #[test]
    fn it_answers_the_control_thread() {
        let mut node = node();
        login(&mut node, CONN);
        effects(&mut node);
        let users = vec![UserId(8), UserId(7)];
        let mail = Mail::Control(Control::Online { ask: 5, app: AppId(1), users });
        node.handle(NOW, Event::Mail { from: ShardId::CONTROL, mail });
        let mail = Mail::Control(Control::Stats { ask: 6 });
        node.handle(NOW, Event::Mail { from: ShardId::CONTROL, mail });
        let reports = effects(&mut node);
        let [
            Effect::Mail { to: ShardId::CONTROL, mail: Mail::Report(Report::Online { ask: 5, users }) },
            Effect::Mail { to: ShardId::CONTROL, mail: Mail::Report(Report::Stats { ask: 6, metrics }) },
        ] = &reports[..]
        else {
            panic!("two reports, in the order asked");
        };
        assert!(users[0].devices.is_empty());
        assert_eq!((users[1].user, &users[1].devices[..]), (UserId(7), &[DeviceClass::Phone][..]));
        assert_eq!((metrics.gateway.sessions, metrics.router.bindings), (1, 1));
    }

    #[test]
    fn it_reports_once_when_the_last_client_is_gone() {
        let mut node = node();
        login(&mut node, CONN);
        effects(&mut node);
        written(&mut node, CONN);
        node.handle(NOW, Event::Sent { conn: CONN, bytes: 1 });
        node.handle(NOW, Event::Mail { from: ShardId::CONTROL, mail: Mail::Control(Control::Drain) });
        let drained = |effect: &Effect<Mail>| {
            matches!(effect, Effect::Mail { mail: Mail::Report(Report::Drained), .. })
        };
        let farewell = effects(&mut node);
        let close = |effect: &Effect<Mail>| matches!(effect, Effect::Close { linger: Linger::Flush, .. });
        assert!(farewell.iter().any(close) && !farewell.iter().any(drained));
        assert_eq!(written(&mut node, CONN), [Code::Notice]);
        node.handle(NOW, Event::Closed { conn: CONN, reason: shard::CloseReason::Local });
        assert_eq!(effects(&mut node).iter().filter(|effect| drained(effect)).count(), 1);
        node.handle(NOW, Event::Timeout);
        assert_eq!(effects(&mut node).len(), 0);
    }
}
