//! Who is let in, and why not.

use hmac::{Hmac, KeyInit, Mac};
use link::{Config, Effect, Links, News, SameNumber, Setup, TlsMode};
use sha2::Sha256;
use shard::{ConnId, Instant, Linger, SendBatch, ShardId};
use wire::node::link::{Deframer, Frame, Identity, Refusal, Role};
use wire::node::{
    FromBridge, Handed, LinkMessage, Login, Taken, ToBridge, ToGateway, ToRouter, encode_batch,
};
use wire::{AppId, DeviceClass, RoomId, UserId};

use crate::world::{SECRET, World, address, address_of, millis};

const CONN: ConnId = ConnId { index: 3, generation: 1 };
const START: Instant = Instant::from_unix_nanos(1_000_000_000);
const ROUTER: Identity = Identity { shard: 0x2_0000, shards: 1, role: Role::Router, incarnation: 50 };
const GATEWAY: Identity = Identity { shard: 0x1_0000, shards: 1, role: Role::Gateway, incarnation: 50 };

/// A router at one end, the test at the other.
struct Raw {
    links: Links,
    now: Instant,
}

impl Raw {
    fn new() -> Self {
        let setup = Setup {
            identity: ROUTER,
            secret: SECRET.to_vec(),
            tls: TlsMode::Off,
            seed: 1,
            config: Config::default(),
        };
        let mut raw = Self { links: Links::new(START, setup), now: START };
        raw.links.accepted(START, CONN, address_of(0));
        raw
    }

    fn say(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.links.received(self.now, CONN, &bytes);
        self.links.check_invariants();
    }

    /// Kind and body of each frame that the router says.
    fn hear(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut bytes = Vec::new();
        loop {
            let mut batch = SendBatch::new();
            self.links.poll_transmit(self.now, CONN, &mut batch);
            if batch.is_empty() {
                break;
            }
            bytes.extend(batch.segments().flatten());
            self.links.sent(CONN);
        }
        let mut out = Vec::new();
        let take = |kind, body: &[u8]| {
            out.push((kind, body.to_vec()));
            Ok(1 << 20)
        };
        Deframer::default().feed(&bytes, 1 << 20, take).unwrap();
        out
    }

    fn is_refused(&mut self, reason: Refusal) {
        let close = Effect::Close { conn: CONN, linger: Linger::Flush };
        let effects: Vec<Effect> = std::iter::from_fn(|| self.links.poll_effect()).collect();
        assert!(effects.contains(&close), "{reason:?}: {effects:?}");
        assert_eq!(effects.last(), Some(&close), "nothing is wanted after the end");
        assert_eq!(self.hear().last(), Some(&(5, vec![reason as u8])));
        let counts: Vec<_> =
            self.links.metrics().refused_by_reason().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(reason, 1)]);
        self.links.closed(self.now, CONN);
        assert!(!self.links.owns(CONN));
        assert_eq!(self.links.peers().count(), 0);
    }

    /// Says hello and gets the challenge.
    fn greet(&mut self) -> Vec<u8> {
        self.say(&Frame::Hello { identity: GATEWAY, nonce: [1; 16] });
        let said = self.hear();
        assert_eq!((said.len(), said[0].0), (1, 2));
        said[0].1.clone()
    }

    /// A link, by hand.
    fn link(&mut self) {
        let challenge = self.greet();
        let Ok(challenge) = Frame::decode(2, &challenge) else { panic!("a challenge") };
        let hello = Frame::Hello { identity: GATEWAY, nonce: [1; 16] };
        let proof = proof(SECRET, b"sailfish connector", [&hello, &challenge], 0, 0);
        self.say(&Frame::Proof { session: 0, received: 0, proof });
        assert!(matches!(self.links.poll_news(), Some(News::Up { .. })));
        let said = self.hear();
        let Ok(Frame::Welcome { session: 1, received: 0, proof: theirs }) =
            Frame::decode(said[0].0, &said[0].1)
        else {
            panic!("{said:?}")
        };
        assert_eq!(theirs, self::proof(SECRET, b"sailfish acceptor", [&hello, &challenge], 1, 0));
    }
}

/// As docs/PROTOCOL.md has it.
fn proof(secret: &[u8], label: &[u8], said: [&Frame<'_>; 2], session: u64, received: u64) -> [u8; 32] {
    let mut bytes = label.to_vec();
    said.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes.extend_from_slice(&session.to_be_bytes());
    bytes.extend_from_slice(&received.to_be_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(&bytes);
    mac.finalize().into_bytes().into()
}

#[test]
fn two_nodes_link_and_idle_links_stay() {
    let mut world = World::linked_pair(1);
    world.run(millis(20_000));
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
    assert!(world.nodes[0].links.are_routers_complete());
    for node in &world.nodes {
        let metrics = node.links.metrics();
        assert_eq!((metrics.peers, metrics.peers_away, metrics.sessions, metrics.resumed), (1, 0, 1, 0));
        assert!(node.written > 1_000 / 250 * 13 * 15, "it pings");
    }
}

#[test]
fn a_link_by_hand() {
    let mut raw = Raw::new();
    raw.link();
    raw.say(&Frame::Bye);
    assert_eq!(raw.links.poll_news(), Some(News::Down { peer: ShardId::new(1, 0) }));
}

#[test]
fn another_secret_is_refused() {
    let mut raw = Raw::new();
    raw.greet();
    raw.say(&Frame::Proof { session: 0, received: 0, proof: [0; 32] });
    raw.is_refused(Refusal::Secret);

    let mut world = World::new(1);
    world.add(Role::Gateway, ShardId::new(1, 0), 1, 1000, b"guessed");
    world.add(Role::Router, ShardId::new(2, 0), 1, 2000, SECRET);
    world.nodes[0].links.set_nodes(&[address(2000)], &[]);
    world.run(millis(2_000));
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
    let refused = |node: usize| world.nodes[node].links.metrics().refused[0];
    assert!(refused(0) == refused(1) && (2..10).contains(&refused(0)), "said at both ends: {}", refused(0));
    assert!(!world.nodes[0].links.are_routers_complete());
}

fn gateway() -> Links {
    let (secret, config) = (SECRET.to_vec(), Config::default());
    Links::new(START, Setup { identity: GATEWAY, secret, tls: TlsMode::Off, seed: 1, config })
}

/// An acceptor that does not know the secret has the connector's proof, and no use of it.
#[test]
fn an_acceptor_has_to_prove_itself_too() {
    let mut links = gateway();
    links.set_nodes(&[address(2000)], &[]);
    links.timeout(START);
    let Some(Effect::Connect { token, .. }) = links.poll_effect() else { panic!("it dials") };
    links.connected(START, CONN, token);
    let mut raw = Raw { links, now: START };
    assert_eq!(raw.hear()[0].0, 1);
    raw.say(&Frame::Challenge { identity: ROUTER, nonce: [2; 16] });
    let said = raw.hear();
    let Ok(Frame::Proof { proof, .. }) = Frame::decode(said[0].0, &said[0].1) else { panic!("{said:?}") };
    raw.say(&Frame::Welcome { session: 1, received: 0, proof });
    raw.is_refused(Refusal::Secret);
}

/// A gateway dials a router's two addresses at once, and asks on both connections to go on with the session.
#[test]
fn of_two_handshakes_at_once_only_one_goes_on() {
    let conns = [1, 2, 3].map(|index| ConnId { index, generation: 1 });
    let mut links = gateway();
    let dialled = |links: &mut Links, now| {
        links.timeout(now);
        let token = |effect| match effect {
            Effect::Connect { token, .. } => Some(token),
            Effect::Transmit { .. } | Effect::Close { .. } => None,
        };
        std::iter::from_fn(|| links.poll_effect()).filter_map(token).collect::<Vec<_>>()
    };
    let say = |links: &mut Links, conn, frame: &Frame<'_>| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        links.received(START, conn, &bytes);
        links.check_invariants();
    };
    let heard = |links: &mut Links, conn| {
        let mut batch = SendBatch::new();
        links.poll_transmit(START, conn, &mut batch);
        links.sent(conn);
        batch.segments().flatten().copied().collect::<Vec<u8>>()
    };
    // The proof of a welcome, after hello, challenge and proof have been said.
    let shake = |links: &mut Links, conn, token, session, received| {
        links.connected(START, conn, token);
        let hello = heard(links, conn);
        let hello = Frame::decode(1, &hello[5..]).unwrap();
        let challenge = Frame::Challenge { identity: ROUTER, nonce: [2; 16] };
        say(links, conn, &challenge);
        assert_eq!(heard(links, conn)[4], 3);
        let proof = proof(SECRET, b"sailfish acceptor", [&hello, &challenge], session, received);
        Frame::Welcome { session, received, proof }
    };
    let archive = encode_batch(&vec![LinkMessage::ToGateway(ToGateway::Drain)]);

    links.set_nodes(&[address(2000)], &[]);
    let first = dialled(&mut links, START)[0];
    let welcome = shake(&mut links, conns[0], first, 9, 0);
    say(&mut links, conns[0], &welcome);
    say(&mut links, conns[0], &Frame::Batch { received: 0, archive: &archive });
    links.closed(START, conns[0]);
    links.set_nodes(&[address(2000), address(3000)], &[]);
    let tokens = dialled(&mut links, START + millis(100));
    let welcomes = [(1, 0), (2, 1)].map(|(conn, token)| shake(&mut links, conns[conn], tokens[token], 9, 0));
    say(&mut links, conns[1], &welcomes[0]);
    say(&mut links, conns[1], &Frame::Batch { received: 0, archive: &archive });
    links.closed(START, conns[1]);
    // The router goes on with what it was told on this connection: the second batch would come twice.
    say(&mut links, conns[2], &welcomes[1]);
    assert_eq!(heard(&mut links, conns[2]), [0, 0, 0, 1, 5, Refusal::Stale as u8]);
    let mut news: Vec<News> = std::iter::from_fn(|| links.poll_news()).collect();
    assert_eq!(news.extract_if(.., |news| matches!(news, News::Cut { .. })).count(), 2);
    assert_eq!((news.len(), &news[3]), (4, &News::Down { peer: ShardId::new(2, 0) }));
}

#[test]
fn what_is_out_of_turn_or_no_frame_is_refused() {
    let proof = Frame::Proof { session: 0, received: 0, proof: [0; 32] };
    for frame in
        [proof, Frame::Bye, Frame::Credit { received: 0 }, Frame::Batch { received: 0, archive: &[] }]
    {
        let mut raw = Raw::new();
        raw.say(&frame);
        raw.is_refused(Refusal::BadFrame);
    }
    let mut raw = Raw::new();
    raw.links.received(START, CONN, &[0, 0, 0, 0, 99]);
    raw.is_refused(Refusal::BadFrame);

    let mut raw = Raw::new();
    raw.link();
    raw.say(&Frame::Hello { identity: GATEWAY, nonce: [1; 16] });
    raw.is_refused(Refusal::BadFrame);

    let mut raw = Raw::new();
    raw.link();
    raw.say(&Frame::Credit { received: 1 });
    raw.is_refused(Refusal::BadFrame);
}

#[test]
fn a_long_body_is_refused_before_it_comes() {
    let mut raw = Raw::new();
    raw.links.received(START, CONN, &129u32.to_be_bytes());
    raw.is_refused(Refusal::TooLong);
    let mut raw = Raw::new();
    raw.link();
    raw.links.received(START, CONN, &(4u32 << 20).to_be_bytes());
    assert!(raw.links.owns(CONN) && raw.links.peers().count() == 1);
    let mut raw = Raw::new();
    raw.link();
    raw.links.received(START, CONN, &((4u32 << 20) + 1).to_be_bytes());
    raw.is_refused(Refusal::TooLong);
}

#[test]
fn another_version_and_role_are_refused() {
    let mut bytes = Vec::new();
    Frame::Hello { identity: GATEWAY, nonce: [1; 16] }.encode(&mut bytes);
    bytes[5 + 5] += 1;
    let mut raw = Raw::new();
    raw.links.received(START, CONN, &bytes);
    raw.is_refused(Refusal::Version);
    let mut raw = Raw::new();
    raw.say(&Frame::Hello { identity: Identity { shard: 7, ..ROUTER }, nonce: [1; 16] });
    raw.is_refused(Refusal::Role);
    for (from, to) in Role::ALL.iter().flat_map(|from| Role::ALL.map(|to| (*from, to))) {
        for wants_bridge in [false, true] {
            let mut world = World::new(1);
            world.add(from, ShardId::new(1, 0), 1, 1000, SECRET);
            world.add(to, ShardId::new(2, 0), 1, 2000, SECRET);
            let node = [address(2000)];
            let (routers, bridges) = if wants_bridge { (&[][..], &node[..]) } else { (&node[..], &[][..]) };
            world.nodes[0].links.set_nodes(routers, bridges);
            world.run(millis(500));
            let links = match (from, to) {
                (Role::Gateway | Role::Bridge, Role::Router) => !wants_bridge,
                (Role::Gateway, Role::Bridge) => wants_bridge,
                _ => false,
            };
            let up = |peer| if links { vec![(peer, true)] } else { vec![] };
            assert_eq!((world.take_changes(0), world.take_changes(1)), (up(2), up(1)), "{from:?} to {to:?}");
        }
    }
}

/// The ids of the control thread, the bridge and the directory are packed ids of shards too.
#[test]
fn an_identity_that_no_shard_has_is_refused() {
    let of = |shard, shards, incarnation| Identity { shard, shards, incarnation, ..GATEWAY };
    let (now, day) = (START.unix_nanos(), 24 * 60 * 60 * 1_000_000_000);
    let wrong = [
        of(u32::MAX, u16::MAX, 1),
        of(u32::MAX - 1, 1, 1),
        of(u32::MAX - 2, 1, 1),
        of(0, 1, 1),
        of(0x400_0000, 1, 1),
        of(0x1_0001, 1, 1),
        of(0x1_0020, u16::MAX, 1),
        of(0x1_0000, 0, 1),
        of(0x2_0007, 8, 1),
        of(0x1_0000, 1, u64::MAX),
        of(0x1_0000, 1, now + day + 1),
    ];
    for identity in wrong {
        let mut raw = Raw::new();
        raw.say(&Frame::Hello { identity, nonce: [1; 16] });
        raw.is_refused(Refusal::Identity);

        // The same of a router that a gateway of that router's node or of another dials.
        let own = Identity { shard: 0x2_0000, ..GATEWAY };
        let setup = Setup {
            identity: own,
            secret: SECRET.to_vec(),
            tls: TlsMode::Off,
            seed: 1,
            config: Config::default(),
        };
        let mut links = Links::new(START, setup);
        links.set_nodes(&[address(2000)], &[]);
        links.timeout(START);
        let Some(Effect::Connect { token, .. }) = links.poll_effect() else { panic!("it dials") };
        links.connected(START, CONN, token);
        let mut raw = Raw { links, now: START };
        raw.hear();
        let identity = Identity { role: Role::Router, ..identity };
        raw.say(&Frame::Challenge { identity, nonce: [2; 16] });
        raw.is_refused(Refusal::Identity);
    }
}

/// What came before it in the same bytes is not acted on.
#[test]
fn a_message_that_no_gateway_says_ends_the_link_and_is_counted() {
    let leave = || LinkMessage::ToRouter(ToRouter::Leave { app: AppId(1), room: RoomId(1) });
    let bad = [
        LinkMessage::ToGateway(ToGateway::Drain),
        LinkMessage::FromBridge(FromBridge::Taken { results: vec![] }),
        LinkMessage::ToRouter(ToRouter::Join { app: AppId(1), room: RoomId(1), sequence: u64::MAX }),
        LinkMessage::ToRouter(ToRouter::Reach { routers: vec![2, 1], clock: Login(1) }),
    ];
    for bad in bad {
        let mut raw = Raw::new();
        raw.link();
        let archive = encode_batch(&vec![leave(), bad]);
        raw.say(&Frame::Batch { received: 0, archive: &archive });
        assert_eq!(raw.links.poll_news(), Some(News::Down { peer: ShardId::new(1, 0) }));
        assert_eq!(raw.links.poll_news(), None);
        raw.is_refused(Refusal::BadMessage);
    }
    let mut raw = Raw::new();
    raw.link();
    raw.say(&Frame::Batch { received: 0, archive: &encode_batch(&vec![leave()]) });
    assert!(matches!(raw.links.poll_news(), Some(News::Message { .. })));
    raw.links.refuse_peer(ShardId::new(1, 0), Refusal::Flood);
    assert_eq!(raw.links.poll_news(), Some(News::Down { peer: ShardId::new(1, 0) }));
    raw.is_refused(Refusal::Flood);
    raw.links.refuse_peer(ShardId::new(1, 0), Refusal::Flood);
    assert_eq!(raw.links.metrics().refused.iter().sum::<u64>(), 1, "it is gone");
}

/// Whoever says what does not go that way is given up.
#[test]
fn events_go_to_bridges_and_what_became_of_them_comes_back() {
    let online =
        ToBridge::Online { app: AppId(1), user: UserId(1), device: DeviceClass::Tv, login: Login(1) };
    let handed = || LinkMessage::Handed(Box::new(Handed { seq: 1, event: online.clone() }));
    let taken = || LinkMessage::FromBridge(FromBridge::Taken { results: vec![(1, Taken::Ok)] });
    let leave = || LinkMessage::ToRouter(ToRouter::Leave { app: AppId(1), room: RoomId(1) });
    let drain = || LinkMessage::ToGateway(ToGateway::Drain);
    let ways: [(usize, u16, LinkMessage, bool); 11] = [
        (0, 3, handed(), true),
        (0, 3, taken(), false),
        (0, 3, leave(), false),
        (0, 2, handed(), false),
        (1, 3, handed(), true),
        (1, 3, drain(), true),
        (1, 1, handed(), false),
        (2, 1, taken(), true),
        (2, 1, drain(), false),
        (2, 2, taken(), true),
        (2, 2, leave(), true),
    ];
    for (from, to, message, goes) in ways {
        let mut world = World::new(1);
        let roles = [Role::Gateway, Role::Router, Role::Bridge];
        for (number, role) in roles.into_iter().enumerate() {
            let number = number as u16 + 1;
            world.add(role, ShardId::new(number, 0), 1, 1000 * number, SECRET);
        }
        world.nodes[0].links.set_nodes(&[address(2000)], &[address(3000)]);
        world.nodes[2].links.set_nodes(&[address(2000)], &[]);
        world.run(millis(200));
        assert_eq!(world.take_changes(0), [(2, true), (3, true)]);
        let line = format!("{message:?} from {from} to {to}");
        world.nodes[from].links.send(world.now, ShardId::new(to, 0), message);
        world.nodes[usize::from(to) - 1].takes_anything = true;
        world.run(millis(100));
        let lost = world.nodes[from].links.metrics().lost;
        assert_eq!(lost, u64::from(!goes), "{line}");
    }
}

#[test]
fn a_handshake_has_its_time() {
    for has_greeted in [false, true] {
        let mut raw = Raw::new();
        if has_greeted {
            raw.greet();
        }
        raw.now = START + millis(4_999);
        raw.links.timeout(raw.now);
        assert!(raw.links.poll_effect().is_none_or(|effect| matches!(effect, Effect::Transmit { .. })));
        raw.now = raw.links.poll_timeout().unwrap();
        raw.links.timeout(raw.now);
        raw.is_refused(Refusal::Late);
    }
}

/// Strangers that connect and say nothing take the places of each other.
#[test]
fn a_crowd_of_strangers_is_bounded() {
    let mut raw = Raw::new();
    raw.link();
    let conn = |number: u32| ConnId { index: 10 + number, generation: 0 };
    let mut closed = Vec::new();
    for number in 0..10_000 {
        raw.links.accepted(raw.now, conn(number), address_of(0));
        while let Some(effect) = raw.links.poll_effect() {
            if let Effect::Close { conn, .. } = effect {
                raw.links.closed(raw.now, conn);
                closed.push(conn);
            }
        }
    }
    assert_eq!(closed, (0..10_000 - 4_096).map(conn).collect::<Vec<_>>(), "the oldest go, and no link does");
    assert!(raw.links.owns(CONN));
}

#[test]
fn what_comes_behind_the_end_does_not_count() {
    let mut raw = Raw::new();
    raw.link();
    let mut bytes = Vec::new();
    Frame::Bye.encode(&mut bytes);
    Frame::Batch { received: 0, archive: &[0xff; 300] }.encode(&mut bytes);
    bytes.extend_from_slice(&[0xff; 50]);
    raw.links.received(START, CONN, &bytes);
    assert_eq!(raw.links.poll_news(), Some(News::Down { peer: ShardId::new(1, 0) }));
    assert!(raw.links.metrics().refused.iter().all(|count| *count == 0));
    assert_eq!(raw.links.poll_effect(), Some(Effect::Close { conn: CONN, linger: Linger::Abort }));
    assert_eq!(raw.links.poll_effect(), None);
}

#[test]
fn one_shard_two_processes() {
    // The older gateway is refused while the newer is linked.
    let mut world = World::linked_pair(1);
    let newer = world.add(Role::Gateway, ShardId::new(1, 0), 1, 1001, SECRET);
    world.nodes[newer].links.set_nodes(&[address(2000)], &[]);
    world.run(millis(1_000));
    assert_eq!(world.take_changes(1), [(1, false), (1, true)]);
    assert_eq!(world.take_changes(newer), [(2, true)]);
    world.run(millis(3_000));
    assert_eq!(world.take_changes(0), [(2, false)]);
    assert!(world.nodes[0].links.metrics().refused[Refusal::Stale as usize - 1] > 1);
    let (earlier, later) = (Some(address_of(0)), Some(address_of(newer)));
    let same_number = SameNumber { node: 1, earlier, later };
    assert_eq!(world.nodes[1].links.metrics().same_number, Some(same_number));
    assert_eq!(world.nodes[0].links.metrics().same_number, None, "it is told no more than that it is stale");
    let is_told = |news: &News| *news == News::SameNumber { peer: ShardId::new(1, 0) };
    assert!(world.nodes[1].news.iter().any(is_told));
    assert_eq!((world.take_changes(1), world.take_changes(newer)), (vec![], vec![]));
}

#[test]
fn of_two_routers_of_one_id_the_newer_is_taken() {
    let mut world = World::linked_pair(1);
    let newer = world.add(Role::Router, ShardId::new(2, 0), 1, 3000, SECRET);
    world.nodes[0].links.set_nodes(&[address(2000), address(3000)], &[]);
    world.run(millis(3_000));
    assert_eq!(world.take_changes(0), [(2, false), (2, true)]);
    let incarnation = world.nodes[newer].identity.incarnation;
    assert_eq!(world.nodes[0].links.peers().next().unwrap().incarnation, incarnation);
    let [earlier, later] = [2000, 3000].map(|port| Some(address(port).ip()));
    let same_number = SameNumber { node: 2, earlier, later };
    assert_eq!(world.nodes[0].links.metrics().same_number, Some(same_number));
    assert!(world.nodes[0].links.metrics().refused[Refusal::Stale as usize - 1] > 1);
}

#[test]
fn a_second_way_to_a_shard_leaves_the_first_alone() {
    let mut world = World::linked_pair(1);
    world.nodes[0].links.set_nodes(&[], &[]);
    world.run(millis(1_000));
    world.nodes[0].links.set_nodes(&[address(2000)], &[]);
    world.run(millis(3_000));
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
    assert_eq!(world.nodes[0].links.metrics().resumed, 0);
    assert!(world.nodes[0].links.are_routers_complete());
    world.reset_all();
    world.run(millis(2_000));
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
    assert_eq!(world.nodes[0].links.metrics().resumed, 1);
}

#[test]
fn siblings_are_dialled() {
    let mut world = World::new(1);
    world.add(Role::Gateway, ShardId::new(1, 0), 1, 1000, SECRET);
    for index in 0..3 {
        world.add(Role::Router, ShardId::new(2, index), 3, 2000 + index, SECRET);
    }
    world.nodes[3].is_alive = false;
    world.nodes[0].links.set_nodes(&[address(2000)], &[]);
    world.run(millis(500));
    assert_eq!(world.nodes[0].links.peers().count(), 2);
    assert!(!world.nodes[0].links.are_routers_complete());
    world.nodes[3].is_alive = true;
    world.run(millis(1_500));
    let peers: Vec<_> = world.nodes[0].links.peers().map(|peer| peer.shard).collect();
    assert_eq!(peers, [0, 1, 2].map(|index| ShardId::new(2, index)));
    assert!(world.nodes[0].links.are_routers_complete());
    assert!(world.nodes[0].links.metrics().connect_failures > 0);
}
