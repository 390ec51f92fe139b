//! The composition itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use gateway::Gateway;
use link::{Effect as LinkEffect, Links, News};
use router::Router;
use shard::{Clocks, ConnId, Effect, Event, Instant, SendBatch, Shard, ShardId};
use wire::MessageId;
use wire::client::{FailReason, Outcome};
use wire::node::link::Role;
use wire::node::{
    Answer, FromBridge, Handed, LinkMessage, Question, ToBridge, ToDirectory, ToGateway, ToRouter,
};

use crate::bridge::{Bridge, Bridging, HandedOver, Origin};
use crate::handover::{HandoverLimits, HandoverMetrics};
use crate::mail::{Control, Mail, Peer, Report, ShardMetrics, Unbridged};

/// What lies outside of the cores and the links.
pub trait Outside {
    /// Hands an event over to the bridge of this process. What becomes of it comes back as
    /// [`Control::Taken`].
    fn bridge(&mut self, now: Instant, of: Origin, handed: Handed);

    /// An event finds no bridge. Whoever waits for it is told so.
    fn no_bridge(&mut self, now: Instant, event: &ToBridge);

    /// Takes a record for the directory.
    fn directory(&mut self, now: Instant, record: ToDirectory);

    /// What would have gone to the bridge and met none.
    fn unbridged(&self) -> Unbridged;

    /// When [`Outside::timeout`] is wanted.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The time of [`Outside::poll_timeout`] has come.
    fn timeout(&mut self, now: Instant);

    /// The shard ends.
    fn end(&mut self, now: Instant);
}

/// The cores of a shard. Everything that a node is follows from which of them it has.
pub struct Cores {
    /// It holds clients; every connection that it accepts is one. A bridge has it for what it sends, and has
    /// no clients.
    pub gateway: Option<Gateway>,
    /// It owns users and rooms.
    pub router: Option<Router>,
    /// To the shards of other nodes. A router or a bridge takes every connection for a link.
    pub links: Option<Links>,
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
    /// What it keeps for that.
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
    pub(crate) id: ShardId,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) router: Option<Router>,
    pub(crate) links: Option<Links>,
    pub(crate) outside: O,
    pub(crate) bridging: Bridging,
    /// Of a bridge: those that hand events over, as the news tell of them.
    pub(crate) handed_over: BTreeMap<ShardId, HandedOver>,
    /// Effects of the node itself: reports, and the end.
    own: VecDeque<Effect<Mail, Report>>,
    drain: Drain,
    /// When the gateway goes on without the routers that are missing: some time after the first one came.
    begin_by: Option<Instant>,
    patience: Duration,
    /// Mail of this process waits for room.
    mail_waits: bool,
    /// As the gateway was told last.
    are_clients_unread: bool,
    /// It has been told which nodes to be linked with.
    knows_nodes: bool,
    /// The questions of the control thread that wait for what becomes of a message.
    pub(crate) pushed: BTreeMap<MessageId, u64>,
    link_overflows: u64,
}

/// How far the farewell is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    Open,
    /// Clients are told, or gateways look for other routers.
    Draining,
    /// What is left to say is on its way to other nodes.
    Leaving,
    Drained,
}

impl<O: Outside> Node<O> {
    /// A shard at its start. The routers of the own process are there at once.
    pub fn new(now: Instant, setup: Setup<O>) -> Self {
        let Setup { id, shards, incarnation, bridge, handover, cores, outside, patience } = setup;
        let Cores { mut gateway, mut router, links } = cores;
        if let (Some(gateway), Some(router)) = (&mut gateway, &mut router) {
            let all = || (0..shards).map(|index| ShardId::new(id.node(), index));
            all().for_each(|shard| router.gateway_up(now, shard, shards, true, 0));
            all().for_each(|shard| gateway.router_up(now, shard));
            gateway.begin(now);
        }
        let bridging = Bridging::new(bridge, Origin { shard: id, incarnation }, handover);
        if let Some(router) = router.as_mut().filter(|_| bridging.is_on()) {
            router.expect_bridge();
        }
        Self {
            id,
            gateway,
            router,
            links,
            outside,
            bridging,
            handed_over: BTreeMap::new(),
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

    /// The gateway core.
    pub fn gateway(&self) -> Option<&Gateway> {
        self.gateway.as_ref()
    }

    /// The router core.
    pub fn router(&self) -> Option<&Router> {
        self.router.as_ref()
    }

    /// The links.
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
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
        self.gateway.iter().for_each(Gateway::check_invariants);
        self.router.iter().for_each(Router::check_invariants);
        self.links.iter().for_each(Links::check_invariants);
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
                if let Some(gateway) = &mut self.gateway {
                    gateway.reload(*config);
                }
            }
            Control::Keys(keys) => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.set_keys(keys);
                }
            }
            Control::Nodes { routers, bridges } => {
                if let Some(links) = &mut self.links {
                    links.set_nodes(&routers, &bridges);
                    self.knows_nodes = true;
                }
            }
            Control::Taken { of, results } => self.taken_here(now, of, results),
            Control::Found { app, user, seats } => {
                if let Some(router) = &mut self.router {
                    router.found(now, app, user, &seats);
                }
            }
            Control::Stream(stream) => {
                if let Some(router) = &mut self.router {
                    router.take_stream(now, *stream);
                }
            }
            Control::Resync => {
                if let Some(router) = &mut self.router {
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
            gateway: self.gateway.as_ref().map(Gateway::metrics),
            router: self.router.as_ref().map(Router::metrics),
            links: self.links.as_ref().map(Links::metrics),
            link_overflows: self.link_overflows,
            handover: self.bridging.metrics(),
            unbridged: self.outside.unbridged(),
        }
    }

    fn peers(&self, now: Instant) -> Vec<Peer> {
        let owners: Vec<ShardId> = self.gateway.iter().flat_map(Gateway::owners).collect();
        let infos = self.links.iter().flat_map(Links::peers);
        infos.map(|info| Peer { info, is_owner: owners.contains(&info.shard), now }).collect()
    }

    pub(crate) fn report(&mut self, report: Report) {
        self.own.push_back(Effect::Report(report));
    }

    fn begin_drain(&mut self, now: Instant) {
        if self.drain != Drain::Open {
            return;
        }
        self.drain = Drain::Draining;
        match (&mut self.gateway, &mut self.router) {
            (Some(gateway), _) => gateway.drain(now),
            (None, Some(router)) => router.leave(now),
            (None, None) => {}
        }
    }

    /// Goes on with a farewell as far as it can.
    fn drain_on(&mut self) {
        let is_done = match (&self.gateway, &self.router) {
            (Some(gateway), _) => gateway.is_drained(),
            (None, Some(router)) => router.has_left(),
            (None, None) => true,
        };
        let is_done = is_done && self.bridging.is_empty();
        if self.drain == Drain::Draining && is_done && self.links.as_ref().is_none_or(Links::are_flushed) {
            self.drain = Drain::Leaving;
            if let Some(links) = &mut self.links {
                links.say_bye();
            }
        }
        if self.drain == Drain::Leaving && self.links.as_ref().is_none_or(Links::are_closed) {
            self.drain = Drain::Drained;
            self.report(Report::Drained);
        }
    }

    /// The gateway says which routers it reaches once all are there, or have had their time.
    fn begin(&mut self, now: Instant) {
        let (Some(by), Some(gateway), Some(links)) = (self.begin_by, &mut self.gateway, &self.links) else {
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
        if let Some(gateway) = &mut self.gateway {
            gateway.mail(now, from, mail);
        }
    }

    fn tell_router(&mut self, now: Instant, from: ShardId, mail: ToRouter) {
        if let Some(router) = &mut self.router {
            router.mail(now, from, mail);
        }
    }

    /// A peer says what its role may say.
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
        let Some(news) = self.links.as_mut().and_then(Links::poll_news) else { return false };
        match news {
            News::Up { peer, role, shards, incarnation } => self.up(now, peer, role, shards, incarnation),
            News::Down { peer } => self.down(now, peer),
            News::Message { from, message } => self.link_message(now, from, message),
        }
        true
    }

    /// A peer is there. To a router, a bridge is a gateway without clients.
    fn up(&mut self, now: Instant, peer: ShardId, role: Role, shards: u16, incarnation: u64) {
        if self.is_bridge() {
            self.handed_over.insert(peer, HandedOver::new(incarnation));
        }
        match (role, &mut self.router, &mut self.gateway) {
            (Role::Gateway | Role::Bridge, Some(router), _) => {
                router.gateway_up(now, peer, shards, false, incarnation);
            }
            (Role::Router, _, Some(gateway)) => {
                if gateway.routers().next().is_none() {
                    self.begin_by = Some(now + self.patience);
                }
                gateway.router_up(now, peer);
            }
            _ => {}
        }
        if role == Role::Bridge {
            self.bridge_up(peer);
        }
    }

    fn down(&mut self, now: Instant, peer: ShardId) {
        self.handed_over.remove(&peer);
        self.bridge_down(peer);
        if let Some(router) = &mut self.router {
            router.gateway_down(now, peer);
        } else if let Some(gateway) = &mut self.gateway {
            gateway.router_down(now, peer);
        }
    }

    fn is_bridge(&self) -> bool {
        self.links.as_ref().is_some_and(|links| links.role() == Role::Bridge)
    }

    /// Does what the gateway core wants done; the effect for the engine, if that is to do it.
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

    /// Does what the router core wants done; the effect for the engine, if that is to do it.
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

    /// A link for which too much waits takes no lossy message; when it is far too much, reliable ones to
    /// sessions fail, and their router hands them over. What is left is bounded by what clients may have
    /// under way.
    pub(crate) fn tell_peer(&mut self, now: Instant, to: ShardId, message: LinkMessage) {
        let Some(links) = &mut self.links else { return };
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
            // Members ask again, and the next owner says what it has not got.
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
            Event::Clocks(clocks) => self.set_clocks(clocks),
            Event::MailWaits(waits) => self.mail_waits(waits),
            Event::Accepted { conn, peer, listener } => self.accepted(now, conn, peer, listener),
            Event::Connected { conn, token } => self.with_links(|links| links.connected(now, conn, token)),
            Event::ConnectFailed { token, error: _ } => {
                self.with_links(|links| links.connect_failed(now, token));
            }
            Event::Received { conn, bytes } => match self.party(conn) {
                Some(Party::Links(links)) => links.received(now, conn, bytes),
                Some(Party::Gateway(gateway)) => gateway.received(now, conn, bytes),
                None => {}
            },
            Event::Sent { conn, bytes: _ } => match self.party(conn) {
                Some(Party::Links(links)) => links.sent(conn),
                Some(Party::Gateway(gateway)) => gateway.sent(conn),
                None => {}
            },
            Event::Finished { conn } => match self.party(conn) {
                Some(Party::Links(links)) => links.finished(conn),
                Some(Party::Gateway(gateway)) => gateway.finished(conn),
                None => {}
            },
            Event::Closed { conn, reason: _ } => match self.party(conn) {
                Some(Party::Links(links)) => links.closed(now, conn),
                Some(Party::Gateway(gateway)) => gateway.closed(conn),
                None => {}
            },
        }
        while self.take_news(now) {}
        self.begin(now);
    }

    fn poll_effect(&mut self, now: Instant) -> Option<Effect<Mail, Report>> {
        // The router goes first, and the gateway speaks to it before it wants to transmit: so what the two
        // cores say to each other in this turn is settled before bytes leave, and leaves in one write for
        // each connection. Links come last.
        loop {
            if let Some(effect) = self.router.as_mut().and_then(Router::poll_effect) {
                if let Some(outward) = self.do_of_router(now, effect) {
                    return Some(outward);
                }
                continue;
            }
            match self.gateway.as_mut().and_then(|gateway| gateway.poll_effect(now)) {
                Some(effect) => {
                    if let Some(outward) = self.do_of_gateway(now, effect) {
                        return Some(outward);
                    }
                }
                // A peer may have been given up, because too much waited for it.
                None if self.take_news(now) || self.hand_over(now) || self.retell() => {}
                None => break,
            }
        }
        self.drain_on();
        if let Some(effect) = self.links.as_mut().and_then(Links::poll_effect) {
            return Some(match effect {
                LinkEffect::Transmit { conn } => Effect::Transmit { conn },
                LinkEffect::Close { conn, linger } => Effect::Close { conn, linger },
                LinkEffect::Connect { token, peer } => Effect::Connect { token, peer, source: None },
            });
        }
        self.own.pop_front()
    }

    fn poll_transmit(&mut self, now: Instant, conn: ConnId, batch: &mut SendBatch) {
        match self.party(conn) {
            Some(Party::Links(links)) => links.poll_transmit(now, conn, batch),
            Some(Party::Gateway(gateway)) => gateway.poll_transmit(now, conn, batch),
            None => {}
        }
    }

    /// A link for which too much waits makes clients wait. A router's and a bridge's links are their clients:
    /// they take what these say, and what they have no room for fails.
    fn is_pushed_back(&self) -> bool {
        let links = self.links.as_ref().filter(|links| links.role() == Role::Gateway);
        links.is_some_and(Links::is_pushed_back)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let instants = [
            self.gateway.as_ref().and_then(Gateway::poll_timeout),
            self.router.as_ref().and_then(Router::poll_timeout),
            self.links.as_ref().and_then(Links::poll_timeout),
            self.outside.poll_timeout(),
            self.begin_by,
        ];
        instants.into_iter().flatten().min()
    }
}

impl<O: Outside> Node<O> {
    /// Siblings have no room for more: messages of other nodes that would become mail wait with what clients
    /// say.
    fn mail_waits(&mut self, waits: bool) {
        self.mail_waits = waits;
        self.with_links(|links| links.hold(waits));
    }

    /// The gateway judges no client that the engine does not read.
    fn look_whether_clients_are_read(&mut self, now: Instant) {
        let are_unread = self.mail_waits || self.is_pushed_back();
        if let Some(gateway) = &mut self.gateway
            && std::mem::replace(&mut self.are_clients_unread, are_unread) != are_unread
        {
            gateway.set_unread(now, are_unread);
        }
    }

    fn set_clocks(&mut self, clocks: Clocks) {
        if let Some(router) = &mut self.router {
            router.set_clocks(clocks);
        }
        if let Some(gateway) = &mut self.gateway {
            gateway.set_clocks(clocks);
        }
    }

    fn timeout(&mut self, now: Instant) {
        if let Some(router) = &mut self.router {
            router.timeout(now);
        }
        self.with_links(|links| links.timeout(now));
        self.outside.timeout(now);
        if let Some(gateway) = &mut self.gateway {
            if gateway.is_announcing() {
                let links = self.links.as_ref();
                let is_slow = |router: &ShardId| links.is_some_and(|links| links.is_slow(*router));
                let slow = gateway.routers().filter(is_slow).collect();
                gateway.set_slow(slow);
            }
            gateway.timeout(now);
        }
    }

    fn accepted(&mut self, now: Instant, conn: ConnId, peer: IpAddr, listener: u16) {
        match (&mut self.links, &mut self.gateway) {
            (Some(links), _) if links.role() != Role::Gateway => links.accepted(now, conn),
            (_, Some(gateway)) => gateway.accepted(now, conn, peer, listener),
            (_, None) => {}
        }
    }

    fn with_links(&mut self, then: impl FnOnce(&mut Links)) {
        if let Some(links) = &mut self.links {
            then(links);
        }
    }

    /// Which core a connection is of.
    fn party(&mut self, conn: ConnId) -> Option<Party<'_>> {
        match (&mut self.links, &mut self.gateway) {
            (Some(links), _) if links.owns(conn) => Some(Party::Links(links)),
            (_, gateway) => gateway.as_mut().map(Party::Gateway),
        }
    }
}

/// The core that a connection is of.
enum Party<'a> {
    Links(&'a mut Links),
    Gateway(&'a mut Gateway),
}
