//! Nodes, the network between them, and what must hold of what they hear.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use link::{Config, Effect, Links, News, Setup, TlsMode};
use shard::{ConnId, Instant, Linger, Prng, SendBatch, ShardId};
use wire::client::{Outcome, SendAck};
use wire::node::link::{Identity, Role};
use wire::node::{DeliveryId, LinkMessage, SessionId, ToGateway, ToRouter};
use wire::{AppId, ClientMsgId, MessageId, RoomId};

pub const SECRET: &[u8] = b"the secret of the cluster";

pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Where the connections of a process come from.
pub fn address_of(node: usize) -> IpAddr {
    IpAddr::from([127, 0, 1, node as u8])
}

/// A process of one shard.
pub struct Node {
    pub links: Links,
    pub id: ShardId,
    pub identity: Identity,
    pub address: SocketAddr,
    /// Everything heard since it was last taken.
    pub news: Vec<News>,
    pub is_alive: bool,
    /// Nothing reaches it, time neither. Its kernel still takes connections.
    pub is_frozen: bool,
    /// Bytes do not reach it, time does.
    pub is_deaf: bool,
    /// It has said Bye.
    pub has_left: bool,
    /// Its cores have yet to ask what there is to hear.
    pub hears_later: bool,
    /// What it hears is not the numbered messages.
    pub takes_anything: bool,
    /// Bytes it has written.
    pub written: usize,
    /// The most news that it heard in one turn.
    pub most_heard: usize,
    turn_heard: usize,
    heard: BTreeMap<ShardId, Heard>,
    said: BTreeMap<ShardId, Said>,
    sessions: i32,
    free: Vec<u32>,
}

/// The session as its receiver sees it: whose it is, and how many messages came.
#[derive(Default)]
struct Heard {
    of: Option<(i64, AppId)>,
    count: i64,
}

/// The session as its sender sees it.
struct Said {
    session: AppId,
    count: i64,
}

struct Pipe {
    ends: [End; 2],
    is_reset: bool,
}

struct End {
    node: usize,
    conn: ConnId,
    dial: Option<u64>,
    is_announced: bool,
    is_told: bool,
    is_closing: bool,
    fin_sent: bool,
    fin_told: bool,
    pending: Vec<u8>,
    inbox: Vec<u8>,
}

pub struct World {
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub prng: Prng,
    pub config: Config,
    /// Of nodes that are added or begin another life.
    pub tls: TlsMode,
    /// How far the clock jumps.
    pub step: Duration,
    /// Bytes that a socket holds.
    pub socket_bytes: usize,
    /// The most that moves at once.
    pub chunk: usize,
    /// Not everything moves in each step, and pieces have any size.
    pub is_slow: bool,
    /// The next connection breaks when so many more bytes have been delivered.
    pub reset_after: Option<usize>,
    /// The archive of the next batch is broken.
    pub corrupt: bool,
    /// A bit of the next bytes that arrive is changed on its way.
    pub tamper: bool,
    /// Everything that arrived, by who received it.
    pub wire: Vec<Vec<u8>>,
    pipes: Vec<Pipe>,
    connects: Vec<(usize, u64, SocketAddr)>,
    generation: u32,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::from_unix_nanos(1_700_000_000_000_000_000),
            nodes: Vec::new(),
            prng: Prng::new(seed),
            config: Config::default(),
            tls: TlsMode::Off,
            step: millis(5),
            socket_bytes: 64 << 10,
            chunk: 16 << 10,
            is_slow: false,
            reset_after: None,
            corrupt: false,
            tamper: false,
            wire: Vec::new(),
            pipes: Vec::new(),
            connects: Vec::new(),
            generation: 0,
        }
    }

    pub fn setup(&mut self, identity: Identity, secret: &[u8]) -> Setup {
        let (tls, seed, config) = (self.tls, self.prng.next_u64(), self.config.clone());
        Setup { identity, secret: secret.to_vec(), tls, seed, config }
    }

    /// A node of that role; its number in `nodes`.
    pub fn add(&mut self, role: Role, id: ShardId, shards: u16, port: u16, secret: &[u8]) -> usize {
        let incarnation = self.now.unix_nanos() + self.nodes.len() as u64;
        let identity = Identity { shard: id.as_u32(), shards, role, incarnation };
        let setup = self.setup(identity, secret);
        let links = Links::new(self.now, setup);
        self.nodes.push(Node::new(links, id, identity, address(port)));
        self.nodes.len() - 1
    }

    /// A gateway (node 0) that knows of a router (node 1).
    pub fn pair(seed: u64) -> Self {
        Self::pair_with(seed, |_| {})
    }

    pub fn pair_with(seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::new(seed);
        change(&mut world.config);
        world.add(Role::Gateway, ShardId::new(1, 0), 1, 1000, SECRET);
        world.add(Role::Router, ShardId::new(2, 0), 1, 2000, SECRET);
        world.nodes[0].links.set_nodes(&[address(2000)], &[]);
        world
    }

    pub fn linked_pair(seed: u64) -> Self {
        let mut world = Self::pair(seed);
        world.run(millis(100));
        assert_eq!(world.take_changes(0), [(2, true)]);
        assert_eq!(world.take_changes(1), [(1, true)]);
        world
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
        for pipe in &mut self.pipes {
            pipe.is_reset |= pipe.ends.iter().any(|end| end.node == node);
            for end in pipe.ends.iter_mut().filter(|end| end.node == node) {
                end.is_told = true;
            }
        }
        self.connects.retain(|(from, ..)| *from != node);
    }

    /// Another life of the process.
    pub fn restart(&mut self, node: usize) {
        self.kill(node);
        let mut identity = self.nodes[node].identity;
        identity.incarnation = identity.incarnation.max(self.now.unix_nanos()) + 1;
        let setup = self.setup(identity, SECRET);
        let links = Links::new(self.now, setup);
        let old = &mut self.nodes[node];
        *old = Node::new(links, old.id, identity, old.address);
    }

    /// One message of the node to the peer, which the peer checks.
    pub fn say(&mut self, node: usize, to: ShardId) {
        let node = &mut self.nodes[node];
        let Some(said) = node.said.get_mut(&to) else { return };
        let message = numbered(node.identity.role, said.session, said.count, node.identity.incarnation);
        said.count += 1;
        node.links.send(self.now, to, message);
        node.hear();
    }

    pub fn reset_all(&mut self) {
        self.pipes.iter_mut().for_each(|pipe| pipe.is_reset = true);
    }

    pub fn reset_one(&mut self) {
        if !self.pipes.is_empty() {
            let which = self.prng.below(self.pipes.len() as u64) as usize;
            self.pipes[which].is_reset = true;
        }
    }

    /// Lets time pass, and everything happen that can.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let mut turns = 0;
            while self.turn() && !self.is_slow {
                turns += 1;
                assert!(turns < 100_000, "the world comes to rest");
            }
            if self.now >= end {
                return;
            }
            self.now += self.step;
            for node in self.nodes.iter_mut().filter(|node| node.is_alive && !node.is_frozen) {
                if node.links.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.links.timeout(self.now);
                    node.hear();
                }
            }
        }
    }

    /// Peers that came (true) and went, by node.
    pub fn take_changes(&mut self, node: usize) -> Vec<(u16, bool)> {
        let change = |news| match news {
            News::Up { peer, .. } => Some((peer.node(), true)),
            News::Down { peer } => Some((peer.node(), false)),
            News::Cut { .. } | News::SameNumber { .. } | News::Message { .. } => None,
        };
        std::mem::take(&mut self.nodes[node].news).into_iter().filter_map(change).collect()
    }

    /// How many messages of the peer came in the session, and how many it said.
    pub fn progress(&self, from: usize, to: usize) -> (i64, i64) {
        let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
        let heard = receiver.heard.get(&sender.id).map_or(0, |heard| heard.count);
        (heard, sender.said.get(&receiver.id).map_or(0, |said| said.count))
    }

    /// Whether anything happened.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for node in 0..self.nodes.len() {
            moved |= self.carry_out(node);
        }
        for (from, token, to) in std::mem::take(&mut self.connects) {
            moved = true;
            self.connect(from, token, to);
        }
        for pipe in 0..self.pipes.len() {
            for end in [0, 1] {
                moved |= self.move_bytes(pipe, end);
            }
        }
        for pipe in std::mem::take(&mut self.pipes) {
            if !pipe.ends.iter().all(|end| end.is_told) {
                self.pipes.push(pipe);
            }
        }
        self.nodes.iter().for_each(|node| node.links.check_invariants());
        moved
    }

    fn can_act(&self, node: usize) -> bool {
        self.nodes[node].is_alive && !self.nodes[node].is_frozen
    }

    fn carry_out(&mut self, node: usize) -> bool {
        if !self.can_act(node) {
            return false;
        }
        let mut moved = false;
        while let Some(effect) = self.nodes[node].links.poll_effect() {
            moved = true;
            match effect {
                Effect::Connect { token, peer } => self.connects.push((node, token, peer)),
                Effect::Transmit { conn } => {
                    if let Some((pipe, end)) = self.find(node, conn)
                        && self.pipes[pipe].ends[end].pending.is_empty()
                        && !self.pipes[pipe].ends[end].is_closing
                    {
                        self.transmit(pipe, end);
                    }
                }
                Effect::Close { conn, linger } => {
                    let Some((pipe, end)) = self.find(node, conn) else { continue };
                    assert!(!self.pipes[pipe].ends[end].is_closing, "closed once");
                    self.pipes[pipe].ends[end].is_closing = true;
                    match linger {
                        Linger::Abort => self.pipes[pipe].is_reset = true,
                        Linger::Flush => while self.transmit(pipe, end) {},
                    }
                }
            }
        }
        let node = &mut self.nodes[node];
        node.turn_heard = 0;
        node.hear(); // what there was no time for in that turn
        moved || node.turn_heard > 0
    }

    fn find(&self, node: usize, conn: ConnId) -> Option<(usize, usize)> {
        let at = |(number, pipe): (usize, &Pipe)| {
            let end =
                pipe.ends.iter().position(|end| (end.node, end.conn) == (node, conn) && !end.is_told)?;
            Some((number, end))
        };
        self.pipes.iter().enumerate().find_map(at)
    }

    fn transmit(&mut self, pipe: usize, end: usize) -> bool {
        let end = &mut self.pipes[pipe].ends[end];
        let node = &mut self.nodes[end.node];
        let mut batch = SendBatch::new();
        node.links.poll_transmit(self.now, end.conn, &mut batch);
        node.written += batch.len();
        let from = end.pending.len();
        batch.segments().for_each(|piece| end.pending.extend_from_slice(piece));
        if self.corrupt && end.pending.get(from + 4) == Some(&6) {
            self.corrupt = false;
            end.pending[from + 13..].fill(0xff);
        }
        node.hear();
        !batch.is_empty()
    }

    fn connect(&mut self, from: usize, token: u64, to: SocketAddr) {
        let target = self.nodes.iter().position(|node| node.address == to && node.is_alive);
        let Some(target) = target else {
            let node = &mut self.nodes[from];
            node.links.connect_failed(self.now, token);
            return node.hear();
        };
        self.generation += 1;
        let generation = self.generation;
        let mut end = |node: usize, dial| {
            let index = self.nodes[node].free.pop().expect("connections are given back");
            End {
                node,
                conn: ConnId { index, generation },
                dial,
                is_announced: false,
                is_told: false,
                is_closing: false,
                fin_sent: false,
                fin_told: false,
                pending: Vec::new(),
                inbox: Vec::new(),
            }
        };
        let ends = [end(from, Some(token)), end(target, None)];
        self.pipes.push(Pipe { ends, is_reset: false });
    }

    fn move_bytes(&mut self, pipe: usize, end: usize) -> bool {
        let mut moved = self.send_on(pipe, end);
        if !self.can_act(self.pipes[pipe].ends[end].node) {
            return moved;
        }
        let (socket_bytes, is_slow, chunk) = (self.socket_bytes, self.is_slow, self.chunk);
        let Pipe { ends, is_reset } = &mut self.pipes[pipe];
        let [first, second] = ends;
        let (this, other) = if end == 0 { (first, second) } else { (second, first) };
        if this.is_told {
            return moved;
        }
        let node = &mut self.nodes[this.node];
        if !this.is_announced {
            this.is_announced = true;
            match this.dial {
                Some(token) => node.links.connected(self.now, this.conn, token),
                None => node.links.accepted(self.now, this.conn, address_of(other.node)),
            }
            moved = true;
        } else if *is_reset {
            this.is_told = true;
            node.free.insert(0, this.conn.index);
            node.links.closed(self.now, this.conn);
            moved = true;
        } else if !this.inbox.is_empty() && !node.is_deaf {
            let most = chunk.min(this.inbox.len());
            let mut bytes = if is_slow { self.prng.below(most as u64 + 1) as usize } else { most };
            if let Some(left) = &mut self.reset_after {
                bytes = bytes.min(*left);
                *left -= bytes;
                if *left == 0 {
                    self.reset_after = None;
                    *is_reset = true;
                }
            }
            let mut piece: Vec<u8> = this.inbox.drain(..bytes).collect();
            if let Some(last) = piece.last_mut()
                && std::mem::take(&mut self.tamper)
            {
                *last ^= 1;
            }
            if let Some(seen) = self.wire.get_mut(this.node) {
                seen.extend_from_slice(&piece);
            }
            if !this.is_closing && !piece.is_empty() {
                node.links.received(self.now, this.conn, &piece);
            }
            moved = true;
        } else if other.fin_sent && this.inbox.is_empty() && !this.fin_told {
            this.fin_told = true;
            if this.is_closing {
                *is_reset = true;
            } else {
                node.links.finished(this.conn);
            }
            moved = true;
        }
        assert!(this.inbox.len() <= socket_bytes);
        node.hear();
        moved
    }

    /// Moves what this end has to write into the socket of the other.
    fn send_on(&mut self, pipe: usize, end: usize) -> bool {
        let Pipe { ends, is_reset } = &mut self.pipes[pipe];
        if *is_reset {
            return false;
        }
        let [first, second] = ends;
        let (this, other) = if end == 0 { (first, second) } else { (second, first) };
        let room = self.socket_bytes - other.inbox.len();
        let bytes = this.pending.len().min(room);
        let was_empty = this.pending.is_empty();
        other.inbox.extend(this.pending.drain(..bytes));
        if this.pending.is_empty() && this.is_closing && !this.fin_sent {
            this.fin_sent = true;
            return true;
        }
        let node = &mut self.nodes[this.node];
        if !was_empty && this.pending.is_empty() && !this.is_closing {
            // Told at once, also to a frozen one: it is only told.
            node.links.sent(this.conn);
        }
        bytes > 0
    }
}

impl Node {
    fn new(links: Links, id: ShardId, identity: Identity, address: SocketAddr) -> Self {
        Self {
            links,
            id,
            identity,
            address,
            news: Vec::new(),
            is_alive: true,
            is_frozen: false,
            is_deaf: false,
            has_left: false,
            hears_later: false,
            takes_anything: false,
            written: 0,
            most_heard: 0,
            turn_heard: 0,
            heard: BTreeMap::new(),
            said: BTreeMap::new(),
            sessions: 0,
            free: (0..64).rev().collect(),
        }
    }

    /// Takes the news in, and checks them: within a session each message comes once and in order.
    pub fn hear(&mut self) {
        while !self.hears_later
            && let Some(news) = self.links.poll_news()
        {
            match &news {
                News::Up { peer, .. } => {
                    self.sessions += 1;
                    assert!(self.heard.insert(*peer, Heard::default()).is_none(), "up twice");
                    self.said.insert(*peer, Said { session: AppId(self.sessions), count: 0 });
                }
                News::Down { peer } => {
                    assert!(self.heard.remove(peer).is_some(), "down without up");
                    self.said.remove(peer);
                }
                News::SameNumber { peer } => {
                    assert!(self.heard.contains_key(peer), "the later one is linked")
                }
                News::Cut { peer } => assert!(self.heard.contains_key(peer), "cut without up"),
                News::Message { .. } if self.takes_anything => {}
                News::Message { from, message } => {
                    let heard = self.heard.get_mut(from).expect("a message comes in a session");
                    let (app, count, incarnation) = read(message);
                    let of = (incarnation as i64, app);
                    assert_eq!(*heard.of.get_or_insert(of), of, "one session hears one session");
                    assert_eq!(count, heard.count, "once and in order");
                    heard.count += 1;
                }
            }
            self.turn_heard += 1;
            self.most_heard = self.most_heard.max(self.turn_heard);
            self.news.push(news);
        }
    }
}

/// The `count`-th message of a session; every second one may wait for company.
fn numbered(role: Role, session: AppId, count: i64, incarnation: u64) -> LinkMessage {
    // The low half tells lives apart, and is within what sequences and ids may be.
    let incarnation = incarnation & u64::from(u32::MAX);
    let (app, room, sequence) = (session, RoomId(count), incarnation);
    let of_session = SessionId(session.0 as u64);
    match (role, count % 2) {
        (Role::Bridge, _) => unreachable!("a bridge says other things"),
        (Role::Gateway, 0) => LinkMessage::ToRouter(ToRouter::Join { app, room, sequence }),
        (Role::Router, 0) => LinkMessage::ToGateway(ToGateway::Joined { app, room, sequence }),
        (Role::Gateway, _) => LinkMessage::ToRouter(ToRouter::Settle {
            delivery: DeliveryId((count as u64) << 16 | of_session.0),
            session: SessionId(incarnation),
            outcome: Outcome::Delivered,
        }),
        (Role::Router, _) => {
            let ack = SendAck {
                client_msg_id: ClientMsgId::default(),
                id: MessageId(incarnation),
                outcome: Outcome::Delivered,
            };
            let submitted = MessageId(count as u64);
            LinkMessage::ToGateway(ToGateway::SendAck { session: of_session, submitted, ack })
        }
    }
}

/// Session, count and incarnation of a message.
fn read(message: &LinkMessage) -> (AppId, i64, u64) {
    match message {
        LinkMessage::ToRouter(ToRouter::Join { app, room, sequence })
        | LinkMessage::ToGateway(ToGateway::Joined { app, room, sequence }) => (*app, room.0, *sequence),
        LinkMessage::ToRouter(ToRouter::Settle { delivery, session, .. }) => {
            (AppId((delivery.0 & 0xffff) as i32), (delivery.0 >> 16) as i64, session.0)
        }
        LinkMessage::ToGateway(ToGateway::SendAck { session, submitted, ack }) => {
            (AppId(session.0 as i32), submitted.0 as i64, ack.id.0)
        }
        _ => panic!("{message:?} was never said"),
    }
}
