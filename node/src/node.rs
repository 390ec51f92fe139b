//! The composition itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gateway::Gateway;
use link::{Effect as LinkEffect, Links, News};
use router::Router;
use shard::{ConnId, Effect, Event, Instant, SendBatch, Shard, ShardId};
use wire::MessageId;
use wire::client::{FailReason, Outcome};
use wire::node::link::Role;
use wire::node::{
    Answer, FromBridge, Handed, LinkMessage, Question, ToBridge, ToDirectory, ToGateway, ToRouter,
};

use crate::bridging::{Bridge, Bridging, Origin};
use crate::cores::Cores;
use crate::handover::{HandoverLimits, HandoverMetrics};
use crate::mail::{Control, Mail, Peer, Report, ShardMetrics, Unbridged};

mod ask;
mod bridge;

/// What lies outside of the cores and the links.
pub trait Outside {
    /// Hands an event over to the bridge of this process. The result comes back as [`Control::Taken`].
    fn bridge(&mut self, now: Instant, of: Origin, handed: Handed);

    /// An event finds no bridge. Its waiter gets a refusal.
    fn no_bridge(&mut self, now: Instant, event: &ToBridge);

    /// Takes a record for the directory.
    fn directory(&mut self, now: Instant, record: ToDirectory);

    /// Counts of events that found no bridge.
    fn unbridged(&self) -> Unbridged;

    /// When [`Outside::timeout`] is wanted.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The time of [`Outside::poll_timeout`] has come.
    fn timeout(&mut self, now: Instant);

    /// The shard ends.
    fn end(&mut self, now: Instant);
}

/// How a shard is composed.
pub struct Setup<O> {
    /// Which shard it is.
    pub id: ShardId,
    /// How many shards its node has.
    pub shards: u16,
    /// Which life of its process it is: the later the higher.
    pub incarnation: u64,
    /// Where its bridge is.
    pub bridge: Bridge,
    /// Limits of what it keeps for the bridge.
    pub handover: HandoverLimits,
    /// Cores that have seen nothing yet.
    pub cores: Cores,
    /// What lies outside.
    pub outside: O,
    /// How long a gateway waits for routers that do not answer before it goes without them.
    pub patience: Duration,
}

/// The cores of one shard.
pub struct Node<O> {
    id: ShardId,
    cores: Cores,
    outside: O,
    bridging: Bridging,
    /// Effects of the node itself: reports, and the end.
    own: VecDeque<Effect<Mail, Report>>,
    drain: Drain,
    /// When the gateway goes on without missing routers: some time after the first one came.
    begin_by: Option<Instant>,
    patience: Duration,
    /// Whether mail of this process waits for room.
    mail_waits: bool,
    /// What the gateway was last told.
    are_clients_unread: bool,
    /// Whether it knows the nodes to link with.
    knows_nodes: bool,
    /// The control thread's questions that wait for the outcome of a message.
    pushed: BTreeMap<MessageId, u64>,
    link_overflows: u64,
}

/// How far a drain is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    Open,
    /// Clients get their notices, or gateways look for other routers.
    Draining,
    /// The last messages are on their way to other nodes.
    Leaving,
    Drained,
}

impl<O: Outside> Node<O> {
    /// A shard at its start. The routers of the own process are there at once.
    pub fn new(now: Instant, setup: Setup<O>) -> Self {
        let Setup { id, shards, incarnation, bridge, handover, mut cores, outside, patience } = setup;
        cores.begin(now, id, shards);
        let bridging = Bridging::new(bridge, Origin { shard: id, incarnation }, handover);
        if let Some(router) = cores.router_mut().filter(|_| bridging.is_on()) {
            router.expect_bridge();
        }
        Self {
            id,
            cores,
            outside,
            bridging,
            own: VecDeque::new(),
            drain: Drain::Open,
            begin_by: None,
            patience,
            mail_waits: false,
            are_clients_unread: false,
            knows_nodes: false,
            pushed: BTreeMap::new(),
            link_overflows: 0,
        }
    }

    /// The cores.
    pub fn cores(&self) -> &Cores {
        &self.cores
    }

    /// What is handed over to a bridge, if there is one.
    pub fn handover(&self) -> Option<HandoverMetrics> {
        self.bridging.metrics()
    }

    /// What lies outside.
    pub fn outside(&mut self) -> &mut O {
        &mut self.outside
    }

    /// Own-state invariants of all cores; called after every step of a test or simulation.
    pub fn check_invariants(&self) {
        self.cores.check_invariants();
        self.bridging.check_invariants();
    }

    fn control(&mut self, now: Instant, control: Control) {
        match control {
            Control::Stats { ask } => {
                let metrics = Box::new(self.metrics());
                self.report(Report::Stats { ask, metrics });
            }
            Control::Peers { ask } => {
                let peers = self.peers(now);
                self.report(Report::Peers { ask, peers });
            }
            Control::Ask { ask, question } => self.ask(now, ask, question),
            Control::PushAll { ask, push } => self.push_all(now, ask, push),
            Control::Push { ask, target, push } => self.push(now, ask, target, push),
            Control::Reload(config) => {
                if let Some(gateway) = self.cores.gateway_mut() {
                    gateway.reload(*config);
                }
            }
            Control::Keys(keys) => {
                if let Some(gateway) = self.cores.gateway_mut() {
                    gateway.set_keys(keys);
                }
            }
            Control::Nodes { routers, bridges } => {
                if let Some(links) = self.cores.links_mut() {
                    links.set_nodes(&routers, &bridges);
                    self.knows_nodes = true;
                }
            }
            Control::Taken { of, results } => self.taken_here(now, of, results),
            Control::Found { app, user, seats } => {
                if let Some(router) = self.cores.router_mut() {
                    router.found(now, app, user, &seats);
                }
            }
            Control::Stream(stream) => {
                if let Some(router) = self.cores.router_mut() {
                    router.take_stream(now, *stream);
                }
            }
            Control::StreamIsAhead { app, room, refused } => {
                if let Some(router) = self.cores.router_mut() {
                    router.stream_is_ahead(now, app, room, refused);
                }
            }
            Control::Resync => {
                if let Some(router) = self.cores.router_mut() {
                    router.tell_directory_all(now);
                }
            }
            Control::Drain => self.begin_drain(now),
            Control::Stop => {
                self.outside.end(now);
                self.own.push_back(Effect::Stop);
            }
        }
    }

    fn metrics(&self) -> ShardMetrics {
        ShardMetrics {
            gateway: self.cores.gateway().map(Gateway::metrics),
            router: self.cores.router().map(Router::metrics),
            links: self.cores.links().map(Links::metrics),
            link_overflows: self.link_overflows,
            handover: self.bridging.metrics(),
            unbridged: self.outside.unbridged(),
        }
    }

    fn peers(&self, now: Instant) -> Vec<Peer> {
        let owners: Vec<ShardId> = self.cores.gateway().into_iter().flat_map(Gateway::owners).collect();
        let infos = self.cores.links().into_iter().flat_map(Links::peers);
        infos.map(|info| Peer { info, is_owner: owners.contains(&info.shard), now }).collect()
    }

    fn report(&mut self, report: Report) {
        self.own.push_back(Effect::Report(report));
    }

    fn begin_drain(&mut self, now: Instant) {
        if self.drain != Drain::Open {
            return;
        }
        self.drain = Drain::Draining;
        self.cores.leave(now);
    }

    /// Goes on with a drain as far as it can.
    fn drain_on(&mut self) {
        let is_done = self.cores.has_left() && self.bridging.is_empty();
        if self.drain == Drain::Draining && is_done && self.cores.links().is_none_or(Links::are_flushed) {
            self.drain = Drain::Leaving;
            self.with_links(Links::say_bye);
        }
        if self.drain == Drain::Leaving && self.cores.links().is_none_or(Links::are_closed) {
            self.drain = Drain::Drained;
            self.report(Report::Drained);
        }
    }

    /// Lets the gateway say which routers it reaches, once all are linked or have had their time.
    fn begin(&mut self, now: Instant) {
        let Some(by) = self.begin_by else { return };
        let (Cores::Gateway { gateway, links } | Cores::Bridge { gateway, links }) = &mut self.cores else {
            return;
        };
        if gateway.routers().next().is_none() {
            self.begin_by = None; // the next one is the first again
            return;
        }
        if now >= by || self.knows_nodes && links.are_routers_complete() {
            self.begin_by = None;
            gateway.begin(now);
        }
    }

    fn tell_gateway(&mut self, now: Instant, from: ShardId, mail: ToGateway) {
        if let Some(gateway) = self.cores.gateway_mut() {
            gateway.mail(now, from, mail);
        }
    }

    fn tell_router(&mut self, now: Instant, from: ShardId, mail: ToRouter) {
        if let Some(router) = self.cores.router_mut() {
            router.mail(now, from, mail);
        }
    }

    /// Takes a message of a peer whose role may send it.
    fn link_message(&mut self, now: Instant, from: ShardId, message: LinkMessage) {
        match message {
            LinkMessage::ToRouter(ToRouter::Ask { ask, question: Question::Drain { node } })
                if node == self.id.node() =>
            {
                self.report(Report::DrainAsked);
                let answer = Answer::Told { shards: 1 };
                self.tell_peer(now, from, LinkMessage::ToGateway(ToGateway::Answer { ask, answer }));
            }
            LinkMessage::ToRouter(mail) => self.tell_router(now, from, mail),
            LinkMessage::ToGateway(mail) => self.tell_gateway(now, from, mail),
            LinkMessage::Handed(handed) => self.handed(now, from, *handed),
            LinkMessage::FromBridge(FromBridge::Taken { results }) => self.taken(now, results),
        }
    }

    fn take_news(&mut self, now: Instant) -> bool {
        let Some(news) = self.cores.links_mut().and_then(Links::poll_news) else { return false };
        match news {
            News::Up { peer, role, shards, incarnation } => self.up(now, peer, role, shards, incarnation),
            News::Cut { peer } => {
                if let Some(router) = self.cores.router_mut() {
                    router.gateway_cut(peer);
                }
            }
            News::Down { peer } => self.down(now, peer),
            // A router tells the later process. Other nodes only log it.
            News::SameNumber { peer } => {
                if self.cores.router().is_some() {
                    self.tell_peer(now, peer, LinkMessage::ToGateway(ToGateway::SameNumber));
                }
            }
            News::Message { from, message } => self.link_message(now, from, message),
        }
        true
    }

    /// A peer is up.
    fn up(&mut self, now: Instant, peer: ShardId, role: Role, shards: u16, incarnation: u64) {
        if self.cores.is_bridge() {
            self.bridging.peer_up(peer, incarnation);
        }
        match role {
            Role::Gateway => {
                if let Some(router) = self.cores.router_mut() {
                    router.gateway_up(now, peer, shards, false, incarnation);
                }
            }
            Role::Bridge => {
                if let Some(router) = self.cores.router_mut() {
                    router.bridge_up(now, peer, shards, incarnation);
                }
            }
            Role::Router => {
                if let Some(gateway) = self.cores.gateway_mut() {
                    if gateway.routers().next().is_none() {
                        self.begin_by = Some(now + self.patience);
                    }
                    gateway.router_up(now, peer);
                }
            }
        }
        if role == Role::Bridge {
            self.bridge_up(peer);
        }
    }

    fn down(&mut self, now: Instant, peer: ShardId) {
        self.bridging.peer_down(peer);
        self.cores.down(now, peer);
    }

    /// Carries out an effect of the gateway core; returns it if the engine is to do it.
    fn do_of_gateway(&mut self, now: Instant, effect: gateway::Effect) -> Option<Effect<Mail, Report>> {
        match effect {
            gateway::Effect::ToRouter { to, mail } if to == self.id => self.tell_router(now, to, mail),
            gateway::Effect::ToRouter { to, mail } if to.node() == self.id.node() => {
                return Some(Effect::Mail { to, mail: Mail::ToRouter(mail) });
            }
            gateway::Effect::ToRouter { to, mail } => self.tell_peer(now, to, LinkMessage::ToRouter(mail)),
            gateway::Effect::ToSibling { to, mail } => {
                return Some(Effect::Mail { to, mail: Mail::ToGateway(mail) });
            }
            gateway::Effect::ToBridge(event) => self.event(now, event),
            gateway::Effect::ToControl(mail) => self.tell_control(mail),
            gateway::Effect::Transmit { conn } => return Some(Effect::Transmit { conn }),
            gateway::Effect::Close { conn, linger } => return Some(Effect::Close { conn, linger }),
            gateway::Effect::StopAccepting => return Some(Effect::StopAccepting),
        }
        None
    }

    /// Carries out an effect of the router core; returns it if the engine is to do it.
    fn do_of_router(&mut self, now: Instant, effect: router::Effect) -> Option<Effect<Mail, Report>> {
        match effect {
            router::Effect::ToGateway { to, mail } if to == self.id => self.tell_gateway(now, to, mail),
            router::Effect::ToGateway { to, mail } if to.node() == self.id.node() => {
                return Some(Effect::Mail { to, mail: Mail::ToGateway(mail) });
            }
            router::Effect::ToGateway { to, mail } => self.tell_peer(now, to, LinkMessage::ToGateway(mail)),
            router::Effect::ToBridge(event) => self.event(now, event),
            router::Effect::ToDirectory(record) => self.outside.directory(now, record),
        }
        None
    }

    /// A full link takes no lossy message; one that is far too full fails reliable ones to sessions, and
    /// their router hands them over. What is left is bounded by what clients may have under way.
    fn tell_peer(&mut self, now: Instant, to: ShardId, message: LinkMessage) {
        let Some(links) = self.cores.links_mut() else { return };
        if !links.is_full(to) {
            return links.send(now, to, message);
        }
        match message {
            LinkMessage::ToGateway(ToGateway::Deliver { delivery: None, .. } | ToGateway::All { .. }) => {
                self.link_overflows += 1;
            }
            LinkMessage::ToGateway(ToGateway::Broadcast { message, .. }) if !message.ack_wanted => {
                self.link_overflows += 1;
            }
            // Members ask again, and the next owner says which messages are missing.
            LinkMessage::ToGateway(ToGateway::Recalled(_) | ToGateway::Moved(_))
            | LinkMessage::ToRouter(ToRouter::Kept(_)) => self.link_overflows += 1,
            LinkMessage::ToGateway(ToGateway::Deliver { session, delivery: Some(delivery), .. })
                if links.is_stuffed(to) =>
            {
                self.link_overflows += 1;
                let outcome = Outcome::Failed(FailReason::Overflow);
                let settle = ToRouter::Settle { delivery, session, outcome };
                self.tell_router(now, to, settle);
            }
            message => links.send(now, to, message),
        }
    }
}

impl<O: Outside> Shard for Node<O> {
    type Mail = Mail;
    type Report = Report;

    /// Connections that were opened are links; those that were accepted are clients where there is a gateway.
    fn handle(&mut self, now: Instant, event: Event<'_, Mail>) {
        self.look_whether_clients_are_read(now);
        match event {
            Event::Mail { from, mail: Mail::ToGateway(mail) } => self.tell_gateway(now, from, mail),
            Event::Mail { from, mail: Mail::ToRouter(mail) } => self.tell_router(now, from, mail),
            Event::Mail { from: _, mail: Mail::Control(control) } => self.control(now, control),
            Event::Timeout => self.timeout(now),
            Event::Clocks(clocks) => self.cores.set_clocks(clocks),
            Event::MailWaits(waits) => self.mail_waits(waits),
            Event::InputWaits(waits) => self.cores.set_input_waits(waits),
            Event::Accepted { conn, peer, listener } => self.cores.accepted(now, conn, peer, listener),
            Event::Connected { conn, token } => self.with_links(|links| links.connected(now, conn, token)),
            Event::ConnectFailed { token, error: _ } => {
                self.with_links(|links| links.connect_failed(now, token));
            }
            Event::Received { conn, bytes } => self.cores.received(now, conn, bytes),
            Event::Sent { conn, bytes: _ } => self.cores.sent(conn),
            Event::Finished { conn } => self.cores.finished(conn),
            Event::Closed { conn, reason: _ } => self.cores.closed(now, conn),
        }
        while self.take_news(now) {}
        self.begin(now);
    }

    fn poll_effect(&mut self, now: Instant) -> Option<Effect<Mail, Report>> {
        // The router goes first, and the gateway sends to it before it wants to transmit: so the two cores
        // have exchanged all of this turn before bytes leave, in one write for each connection. Links come
        // last.
        loop {
            if let Some(effect) = self.cores.router_mut().and_then(Router::poll_effect) {
                if let Some(outward) = self.do_of_router(now, effect) {
                    return Some(outward);
                }
                continue;
            }
            match self.cores.gateway_mut().and_then(|gateway| gateway.poll_effect(now)) {
                Some(effect) => {
                    if let Some(outward) = self.do_of_gateway(now, effect) {
                        return Some(outward);
                    }
                }
                // A peer may have been given up because its queue was too long.
                None if self.take_news(now) || self.hand_over(now) || self.retell() => {}
                None => break,
            }
        }
        self.drain_on();
        if let Some(effect) = self.cores.links_mut().and_then(Links::poll_effect) {
            return Some(match effect {
                LinkEffect::Transmit { conn } => Effect::Transmit { conn },
                LinkEffect::Close { conn, linger } => Effect::Close { conn, linger },
                LinkEffect::Connect { token, peer } => Effect::Connect { token, peer, source: None },
            });
        }
        self.own.pop_front()
    }

    fn has_more(&self) -> bool {
        self.cores.gateway().is_some_and(Gateway::has_more)
    }

    fn poll_transmit(&mut self, now: Instant, conn: ConnId, batch: &mut SendBatch) {
        self.cores.poll_transmit(now, conn, batch);
    }

    fn is_pushed_back(&self) -> bool {
        self.cores.is_pushed_back()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let instants = [
            self.cores.gateway().and_then(Gateway::poll_timeout),
            self.cores.router().and_then(Router::poll_timeout),
            self.cores.links().and_then(Links::poll_timeout),
            self.outside.poll_timeout(),
            self.begin_by,
        ];
        instants.into_iter().flatten().min()
    }
}

impl<O: Outside> Node<O> {
    /// Siblings have no room for more: messages of other nodes that would become mail wait, as clients do.
    fn mail_waits(&mut self, waits: bool) {
        self.mail_waits = waits;
        self.with_links(|links| links.hold(waits));
    }

    /// The gateway judges no client that the engine does not read.
    fn look_whether_clients_are_read(&mut self, now: Instant) {
        let are_unread = self.mail_waits || self.cores.is_pushed_back();
        if let Some(gateway) = self.cores.gateway_mut()
            && std::mem::replace(&mut self.are_clients_unread, are_unread) != are_unread
        {
            gateway.set_unread(now, are_unread);
        }
    }

    fn timeout(&mut self, now: Instant) {
        if let Some(router) = self.cores.router_mut() {
            router.timeout(now);
        }
        self.with_links(|links| links.timeout(now));
        self.outside.timeout(now);
        self.cores.spare_slow_routers();
        if let Some(gateway) = self.cores.gateway_mut() {
            gateway.timeout(now);
        }
    }

    fn with_links(&mut self, then: impl FnOnce(&mut Links)) {
        if let Some(links) = self.cores.links_mut() {
            then(links);
        }
    }
}

#[cfg(test)]
mod tests;
