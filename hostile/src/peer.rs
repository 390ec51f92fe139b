//! A shard with two peers that both know the cluster's secret. One says anything, in any order. It may lose
//! its link; the other keeps its own, and every invariant of the shard's cores holds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use gateway::{Claims, Gateway, TokenKeys, mint_hs256};
use link::{Effect as LinkEffect, Links, TlsMode};
use node::{Bridge, Control, Cores, HandoverLimits, Mail, Node, Origin, Outside, Report, Unbridged};
use router::Router;
use shard::{CloseReason, ConnId, ConnectError, Effect, Event, Instant, SendBatch, Shard, ShardId};
use wire::client::{AckIds, Business, ClientFrame, Encoding, Want};
use wire::node::link::{BODY_BYTES_MAX, Deframer, Frame, Identity, Role};
use wire::node::{Handed, Taken, ToBridge, ToDirectory, decode_batch, encode_batch};
use wire::{AppId, BizCode, DeviceClass, MessageId, RoomId, UserId};

use crate::input::{Input, NOW};
use crate::said::Said;

const SECRET: &[u8] = b"the secret of the cluster";
const TOKENS: &[u8] = b"a secret of the fuzz targets";
const APP: AppId = AppId(1);
/// The node of the shard, of the honest peer, of the other.
const NODES: [u16; 3] = [1, 2, 3];
/// Clients of a gateway.
const CLIENTS: u32 = 4;
/// Steps of one input.
const STEPS_MAX: usize = 200;
/// How far the clock jumps at most: links are alive that long without a word.
const STEP: Duration = Duration::from_millis(100);

/// The first two bytes say the roles, the rest is steps.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let role = Role::ALL[input.byte() as usize % 3];
    let hostile = input.byte();
    let mut world = World::new(role, hostile);
    assert!(world.are_linked(), "a true handshake links");
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.settle();
        world.shard.check_invariants();
    }
    assert!(world.is_linked(HONEST), "the honest peer has lost its link");
}

/// Places of the two peers.
const HONEST: usize = 0;
const HOSTILE: usize = 1;

struct World {
    now: Instant,
    shard: Node<Notes>,
    role: Role,
    peers: [Peer; 2],
    said: Said,
    /// What the shard says to the hostile peer.
    heard: Deframer,
    clients: u32,
    generation: u32,
}

/// A peer: the other end of a link, by the same code.
struct Peer {
    identity: Identity,
    links: Links,
    /// The connection as the shard names it.
    conn: Option<ConnId>,
}

impl Peer {
    /// What this end calls its connection.
    const CONN: ConnId = ConnId { index: 0, generation: 0 };
}

/// Takes what a bridge is handed.
#[derive(Default)]
struct Notes {
    handed: Vec<(Origin, u64)>,
}

impl Outside for Notes {
    fn bridge(&mut self, _now: Instant, of: Origin, handed: Handed) {
        self.handed.push((of, handed.seq));
    }

    fn no_bridge(&mut self, _now: Instant, _event: &ToBridge) {}

    fn directory(&mut self, _now: Instant, _record: ToDirectory) {}

    fn unbridged(&self) -> Unbridged {
        Unbridged::default()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant) {}

    fn end(&mut self, _now: Instant) {}
}

impl World {
    fn new(role: Role, hostile: u8) -> Self {
        // Roles that this one links with.
        let others: &[Role] = match role {
            Role::Gateway => &[Role::Router, Role::Bridge],
            Role::Router => &[Role::Gateway, Role::Bridge],
            Role::Bridge => &[Role::Gateway, Role::Router],
        };
        let peer = |place: usize, role| {
            let identity = identity(NODES[place + 1], role);
            let links = links(identity);
            Peer { identity, links, conn: None }
        };
        let peers = [peer(HONEST, others[0]), peer(HOSTILE, others[hostile as usize % 2])];
        let mut world = Self {
            now: NOW,
            shard: shard(role),
            role,
            peers,
            said: Said::default(),
            heard: Deframer::default(),
            clients: 0,
            generation: 0,
        };
        let dialled = |wanted| {
            let of_role = world.peers.iter().filter(move |peer| peer.identity.role == wanted);
            let is_dialled = move |peer: &&Peer| peer.identity.role.takes(role);
            of_role.filter(is_dialled).map(|peer| address(peer.identity)).collect::<Vec<_>>()
        };
        let nodes = Control::Nodes { routers: dialled(Role::Router), bridges: dialled(Role::Bridge) };
        world.shard.handle(NOW, Event::Mail { from: ShardId::CONTROL, mail: Mail::Control(nodes) });
        for peer in &mut world.peers {
            if role.takes(peer.identity.role) {
                let node = [address(identity(NODES[0], role))];
                let (routers, bridges) =
                    if role == Role::Router { (&node[..], &[][..]) } else { (&[][..], &node[..]) };
                peer.links.set_nodes(routers, bridges);
            }
        }
        world.pass(Duration::from_millis(20));
        world.settle();
        world
    }

    fn are_linked(&self) -> bool {
        self.is_linked(HONEST) && self.is_linked(HOSTILE)
    }

    fn is_linked(&self, place: usize) -> bool {
        let links = self.shard.cores().links().expect("the shard has links");
        let peer = &self.peers[place];
        let is_up = |of: &Links, shard: u32| {
            of.peers().any(|info| info.shard == ShardId::from_u32(shard) && info.is_connected)
        };
        is_up(links, peer.identity.shard) && is_up(&peer.links, identity(NODES[0], self.role).shard)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=7 => {
                let count = 1 + input.byte() % 3;
                let messages = (0..count).map(|_| self.said.message(input)).collect();
                self.say(&Frame::Batch { received: 0, archive: &encode_batch(&messages) });
            }
            8 => {
                let frame = match input.byte() % 6 {
                    0 => Frame::Batch { received: input.number(), archive: input.some(80) },
                    1 => Frame::Credit { received: input.number() },
                    2 => Frame::Bye,
                    3 => Frame::Welcome { session: input.number(), received: input.number(), proof: [0; 32] },
                    4 => Frame::Proof { session: input.number(), received: 0, proof: [0; 32] },
                    _ => Frame::Hello { identity: self.peers[HOSTILE].identity, nonce: [0; 16] },
                };
                self.say(&frame);
            }
            9 => {
                let bytes = input.some(80).to_vec();
                self.receive(HOSTILE, &bytes);
            }
            10 => self.hang_up(),
            11 => self.pass(STEP / 2),
            12 => self.pass(STEP),
            13 => self.take(input),
            _ => self.client(input),
        }
    }

    fn say(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.receive(HOSTILE, &bytes);
    }

    fn receive(&mut self, place: usize, bytes: &[u8]) {
        if let Some(conn) = self.peers[place].conn.filter(|_| !bytes.is_empty()) {
            self.shard.handle(self.now, Event::Received { conn, bytes });
        }
    }

    /// The hostile peer's connection breaks; it comes again, by a true handshake, when time passes.
    fn hang_up(&mut self) {
        if let Some(conn) = self.peers[HOSTILE].conn {
            self.closed(conn);
        }
    }

    /// A connection is gone, for both ends.
    fn closed(&mut self, conn: ConnId) {
        self.shard.handle(self.now, Event::Closed { conn, reason: CloseReason::Reset });
        for peer in self.peers.iter_mut().filter(|peer| peer.conn == Some(conn)) {
            peer.conn = None;
            peer.links.closed(self.now, Peer::CONN);
            while peer.links.poll_news().is_some() {}
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        if self.shard.poll_timeout().is_some_and(|due| due <= self.now) {
            self.shard.handle(self.now, Event::Timeout);
        }
        for peer in &mut self.peers {
            peer.links.timeout(self.now);
        }
    }

    /// The bridge of this process says what has become of what it was handed, or of something else.
    fn take(&mut self, input: &mut Input<'_>) {
        let handed = std::mem::take(&mut self.shard.outside().handed);
        let other =
            (Origin { shard: ShardId::new(NODES[2], 0), incarnation: input.number() }, input.number());
        for (of, seq) in handed.into_iter().chain([other]) {
            let control = Control::Taken { of, results: vec![(seq, Taken::Ok)] };
            self.shard.handle(self.now, Event::Mail { from: ShardId::CONTROL, mail: Mail::Control(control) });
        }
    }

    /// A client of a gateway does something, so that peers have whom to speak of.
    fn client(&mut self, input: &mut Input<'_>) {
        if self.role != Role::Gateway {
            return;
        }
        let choice = input.byte();
        if self.clients < CLIENTS && choice & 1 == 0 {
            let conn = self.client_conn(self.clients);
            self.clients += 1;
            let peer = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
            self.shard.handle(self.now, Event::Accepted { conn, peer, listener: 0 });
            let (user, device) = (UserId(i64::from(self.clients)), DeviceClass::Web);
            let exp = self.now.unix_secs() + 60;
            let token = mint_hs256(TOKENS, &Claims { app: APP, user, device, exp });
            return self.client_says(conn, &ClientFrame::Login { token: token.into() });
        }
        let conn = self.client_conn(u32::from(input.byte()) % CLIENTS);
        let room = RoomId(input.pick(&[7, 8]));
        let packed = input.number().to_be_bytes();
        let business = |biz_code, target| {
            let (client_msg_id, payload) = ("m-1".into(), b"hi"[..].into());
            ClientFrame::Business(Business { biz_code: BizCode(biz_code), target, client_msg_id, payload })
        };
        let frame = match choice % 7 {
            0 => ClientFrame::Join { room, want: None },
            1 => {
                let value = u64::from(choice);
                let want = if value % 2 == 0 { Want::Last(value) } else { Want::Since(value << 40) };
                ClientFrame::Join { room, want: Some(want) }
            }
            2 => ClientFrame::Leave { room },
            3 => business(6001, 1 + i64::from(choice / 7 % 4)),
            4 => business(5555, room.0),
            5 => business(5560, 0),
            _ => {
                let heard = self.said.messages.last().map(|id| id.to_be_bytes());
                let id = MessageId(u64::from_be_bytes(heard.unwrap_or(packed)));
                return self.client_says(conn, &ClientFrame::Ack(AckIds::Packed(&id.0.to_be_bytes())));
            }
        };
        self.client_says(conn, &frame);
    }

    fn client_conn(&self, number: u32) -> ConnId {
        ConnId { index: 100 + number, generation: 1 }
    }

    fn client_says(&mut self, conn: ConnId, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(Encoding::Binary, APP, UserId(0), &mut bytes);
        self.shard.handle(self.now, Event::Received { conn, bytes: &bytes });
    }

    /// Carries out what all want, until nobody wants anything.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            while let Some(effect) = self.shard.poll_effect(self.now) {
                moved = true;
                self.carry_out(effect);
            }
            for place in [HONEST, HOSTILE] {
                moved |= self.carry_out_of(place);
            }
            if !moved {
                return;
            }
        }
    }

    fn carry_out(&mut self, effect: Effect<Mail, Report>) {
        match effect {
            Effect::Transmit { conn } => self.transmit(conn),
            Effect::Close { conn, .. } => {
                self.transmit(conn);
                self.closed(conn);
            }
            Effect::Connect { token, peer: to, .. } => {
                let free = |peer: &Peer| address(peer.identity) == to && peer.conn.is_none();
                match self.peers.iter().position(free) {
                    Some(place) => {
                        let conn = self.link_conn(place);
                        self.peers[place].links.accepted(self.now, Peer::CONN, [127, 0, 0, 1].into());
                        self.shard.handle(self.now, Event::Connected { conn, token });
                    }
                    None => {
                        let error = ConnectError::Refused;
                        self.shard.handle(self.now, Event::ConnectFailed { token, error });
                    }
                }
            }
            Effect::Mail { .. } | Effect::Report(_) | Effect::StopAccepting | Effect::Stop => {}
        }
    }

    fn link_conn(&mut self, place: usize) -> ConnId {
        self.generation += 1;
        let conn = ConnId { index: place as u32, generation: self.generation };
        self.peers[place].conn = Some(conn);
        if place == HOSTILE {
            self.heard = Deframer::default();
        }
        conn
    }

    fn transmit(&mut self, conn: ConnId) {
        let mut batch = SendBatch::new();
        self.shard.poll_transmit(self.now, conn, &mut batch);
        let bytes: Vec<u8> = batch.segments().flatten().copied().collect();
        if bytes.is_empty() {
            return;
        }
        self.shard.handle(self.now, Event::Sent { conn, bytes: bytes.len() });
        if self.peers[HOSTILE].conn == Some(conn) {
            self.overhear(&bytes);
        }
        for (place, peer) in self.peers.iter_mut().enumerate().filter(|(_, peer)| peer.conn == Some(conn)) {
            // The hostile one listens until it is let in. What is said for it later means nothing to its own
            // end.
            if place == HONEST || peer.links.peers().all(|info| !info.is_connected) {
                peer.links.received(self.now, Peer::CONN, &bytes);
                while peer.links.poll_news().is_some() {}
            }
        }
    }

    /// The hostile peer learns which names the shard knows.
    fn overhear(&mut self, bytes: &[u8]) {
        let (said, now_ns) = (&mut self.said, self.now.unix_nanos());
        let fed = self.heard.feed(bytes, BODY_BYTES_MAX, |kind, body| {
            if let Frame::Batch { archive, .. } = Frame::decode(kind, body)? {
                decode_batch(archive, now_ns, |message| {
                    said.hear(&message);
                    Ok(())
                })?;
            }
            Ok(BODY_BYTES_MAX)
        });
        assert_eq!(fed, Ok(()), "what the shard says is sound");
    }

    /// Whether a peer wanted anything.
    fn carry_out_of(&mut self, place: usize) -> bool {
        let mut moved = false;
        while let Some(effect) = self.peers[place].links.poll_effect() {
            moved = true;
            match effect {
                LinkEffect::Transmit { .. } => {
                    let peer = &mut self.peers[place];
                    let mut batch = SendBatch::new();
                    peer.links.poll_transmit(self.now, Peer::CONN, &mut batch);
                    let bytes: Vec<u8> = batch.segments().flatten().copied().collect();
                    if !bytes.is_empty() {
                        peer.links.sent(Peer::CONN);
                        self.receive(place, &bytes);
                    }
                }
                LinkEffect::Close { .. } => {
                    if let Some(conn) = self.peers[place].conn {
                        self.closed(conn);
                    }
                }
                LinkEffect::Connect { token, .. } => {
                    if self.peers[place].conn.is_some() {
                        self.peers[place].links.connect_failed(self.now, token);
                        continue;
                    }
                    let conn = self.link_conn(place);
                    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
                    self.shard.handle(self.now, Event::Accepted { conn, peer, listener: 0 });
                    self.peers[place].links.connected(self.now, Peer::CONN, token);
                }
            }
        }
        moved
    }
}

fn identity(node: u16, role: Role) -> Identity {
    let incarnation = NOW.unix_nanos() - u64::from(node);
    Identity { shard: ShardId::new(node, 0).as_u32(), shards: 1, role, incarnation }
}

/// Where the shard of an identity takes links.
fn address(identity: Identity) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 7000 + (identity.shard >> 16) as u16))
}

fn links(identity: Identity) -> Links {
    let (secret, seed, config) = (SECRET.to_vec(), u64::from(identity.shard), link::Config::default());
    Links::new(NOW, link::Setup { identity, secret, tls: TlsMode::Off, seed, config })
}

fn shard(role: Role) -> Node<Notes> {
    let own = identity(NODES[0], role);
    let id = ShardId::from_u32(own.shard);
    let gateway = || {
        let mut config = gateway::Config::default();
        config.delivery.ack_timeout_ms = 100;
        Gateway::new(
            NOW,
            gateway::Setup { id, keys: TokenKeys::hs256(TOKENS), config, ports: Vec::new(), seed: 1 },
        )
    };
    let router = || {
        let limits = router::Limits { settle_ms: 200, pending_max: 8, ..router::Limits::default() };
        Router::new(router::Config { id, seed: 1, limits, keeps: router::Keeps::default() })
    };
    let cores = match role {
        Role::Gateway => Cores::Gateway { gateway: gateway(), links: links(own) },
        Role::Router => Cores::Router { router: router(), links: links(own) },
        Role::Bridge => Cores::Bridge { gateway: gateway(), links: links(own) },
    };
    let bridge = if role == Role::Bridge { Bridge::Inside } else { Bridge::None };
    let handover = HandoverLimits {
        queue_messages_max: 8,
        queue_bytes_max: 4096,
        user_messages_max: 4,
        user_bytes_max: 2048,
        window_bytes: 2048,
    };
    Node::new(
        NOW,
        node::Setup {
            id,
            shards: 1,
            incarnation: own.incarnation,
            bridge,
            handover,
            cores,
            outside: Notes::default(),
            patience: Duration::from_millis(50),
        },
    )
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for role in 0..3u8 {
        for hostile in 0..2u8 {
            // Clients that log in and join, then each kind of message, then time.
            let mut seed = vec![role, hostile, 14, 0, 14, 0, 12, 14, 1, 0, 0, 14, 1, 1, 0, 12];
            for kind in 0..Said::KINDS {
                seed.extend([0, 0, kind, 0, 0, 0, 0, 1, 0, 1, 0, 0]);
            }
            seed.extend([12, 10, 12, 12, 12, 13, 0, 0]);
            seeds.push(seed);
        }
    }
    seeds
}
