//! Encrypted links: who is let in, and what goes over the wire.

use link::TlsMode::{self, Off, Optional, Required};
use link::{Effect, Links};
use shard::{ConnId, Instant, Linger, SendBatch, ShardId};
use wire::node::link::{Frame, Identity, Refusal, Role};

use crate::world::{SECRET, World, address, address_of, millis};

const ROUTER: ShardId = ShardId::new(2, 0);
const GATEWAY: ShardId = ShardId::new(1, 0);

/// A gateway (node 0) that knows of a router (node 1).
fn pair(gateway: TlsMode, router: TlsMode, secrets: [&[u8]; 2]) -> World {
    let mut world = World::new(1);
    world.wire = vec![Vec::new(); 2];
    world.tls = gateway;
    world.add(Role::Gateway, GATEWAY, 1, 1000, secrets[0]);
    world.tls = router;
    world.add(Role::Router, ROUTER, 1, 2000, secrets[1]);
    world.nodes[0].links.set_nodes(&[address(2000)], &[]);
    world
}

fn linked(gateway: TlsMode, router: TlsMode) -> World {
    let mut world = pair(gateway, router, [SECRET; 2]);
    world.run(millis(100));
    assert_eq!(world.take_changes(0), [(2, true)], "{gateway:?} {router:?}");
    assert_eq!(world.take_changes(1), [(1, true)], "{gateway:?} {router:?}");
    world
}

/// Says something both ways, which must be heard.
fn talk(world: &mut World, count: usize) {
    let before = [world.progress(0, 1).0, world.progress(1, 0).0];
    (0..count).for_each(|_| world.say(0, ROUTER));
    (0..count).for_each(|_| world.say(1, GATEWAY));
    world.run(millis(200));
    for (at, (from, to)) in [(0, 1), (1, 0)].into_iter().enumerate() {
        let (heard, said) = world.progress(from, to);
        assert_eq!((heard, said), (before[at] + count as i64, heard), "from {from} to {to}");
    }
}

fn clear(world: &World) -> [u64; 2] {
    [0, 1].map(|node| world.nodes[node].links.metrics().peers_clear)
}

/// What both ends counted as refused.
fn refused(world: &World) -> [Vec<Refusal>; 2] {
    [0, 1].map(|node| {
        let counts = world.nodes[node].links.metrics();
        counts.refused_by_reason().filter(|(_, count)| *count > 0).map(|(reason, _)| reason).collect()
    })
}

#[test]
fn nodes_link_whatever_they_want_but_in_clear_with_one_that_wants_tls() {
    for gateway in [Off, Optional, Required] {
        for router in [Off, Optional, Required] {
            if (gateway, router) == (Off, Required) {
                continue;
            }
            let mut world = linked(gateway, router);
            assert_eq!(clear(&world), [u64::from(gateway == Off); 2], "{gateway:?} {router:?}");
            talk(&mut world, 50);
            world.run(millis(10_000));
            talk(&mut world, 1);
            assert_eq!(refused(&world), [[], []]);
        }
    }
}

#[test]
fn a_node_in_clear_is_told_that_tls_is_wanted() {
    let mut world = pair(Off, Required, [SECRET; 2]);
    world.run(millis(2_000));
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
    assert_eq!(refused(&world), [[Refusal::NoTls], [Refusal::NoTls]]);
    // It is restarted with TLS.
    world.tls = Optional;
    world.restart(0);
    world.nodes[0].links.set_nodes(&[address(2000)], &[]);
    world.run(millis(1_000));
    assert_eq!(world.take_changes(0), [(2, true)]);
    talk(&mut world, 10);
}

#[test]
fn another_secret_is_refused_by_both_ends_as_that() {
    let mut world = pair(Required, Required, [SECRET, b"another secret of a cluster"]);
    world.run(millis(2_000));
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
    assert_eq!(refused(&world), [[Refusal::Secret], [Refusal::Secret]]);
}

#[test]
fn nothing_of_what_is_said_is_seen_on_the_wire() {
    let archive = |world: &World| {
        let is_seen = |seen: &Vec<u8>| seen.windows(4).any(|bytes| bytes == b"SFLK");
        (world.wire.iter().any(is_seen), world.wire.iter().map(Vec::len).sum::<usize>() > 10_000)
    };
    for (mode, is_seen) in [(Off, true), (Required, false)] {
        let mut world = linked(mode, mode);
        talk(&mut world, 500);
        assert_eq!(archive(&world), (is_seen, true), "{mode:?}");
    }
    // The same messages are other bytes each time.
    let wires = [0, 1].map(|_| {
        let mut world = linked(Required, Required);
        talk(&mut world, 500);
        world.wire
    });
    let lens = wires.each_ref().map(|wire| wire.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(lens[0], lens[1]);
    assert_ne!(wires[0], wires[1]);
}

#[test]
fn bytes_may_come_in_any_pieces_and_connections_break() {
    for chunk in [1, 2, 3, 7, 64, 1_000, 40_000] {
        for seed in 0..3 {
            let mut world = World::new(seed);
            world.tls = Required;
            (world.is_slow, world.chunk) = (false, chunk);
            world.add(Role::Gateway, GATEWAY, 1, 1000, SECRET);
            world.add(Role::Router, ROUTER, 1, 2000, SECRET);
            world.nodes[0].links.set_nodes(&[address(2000)], &[]);
            world.run(millis(300));
            assert_eq!(world.take_changes(0), [(2, true)]);
            for after in [1, 100, 1_000, 5_000] {
                (0..100).for_each(|_| world.say(0, ROUTER));
                world.reset_after = Some(after);
                world.run(millis(500));
            }
            talk(&mut world, 200 * chunk.min(10));
            assert_eq!(world.take_changes(0), [], "the session went on");
            assert!(world.nodes[1].links.metrics().resumed >= 4);
        }
    }
}

#[test]
fn a_changed_record_costs_its_connection_and_no_message() {
    let mut world = linked(Required, Required);
    for round in 1..=5 {
        (0..10).for_each(|_| world.say(0, ROUTER));
        (0..10).for_each(|_| world.say(1, GATEWAY));
        world.tamper = true;
        world.run(millis(1_000));
        assert!(!world.tamper);
        talk(&mut world, 10);
        assert_eq!(world.nodes[1].links.metrics().resumed, round);
    }
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
    assert_eq!(refused(&world), [[Refusal::BadTls], [Refusal::BadTls]]);
}

/// The link core of one node, by hand.
fn alone(role: Role, tls: TlsMode) -> (Links, Instant) {
    let mut world = World::new(1);
    world.tls = tls;
    let shard = if role == Role::Gateway { GATEWAY } else { ROUTER };
    let identity = Identity { shard: shard.as_u32(), shards: 1, role, incarnation: world.now.unix_nanos() };
    let setup = world.setup(identity, SECRET);
    (Links::new(world.now, setup), world.now)
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 1 }
}

fn said(links: &mut Links, now: Instant, conn: ConnId) -> Vec<u8> {
    let mut batch = SendBatch::new();
    links.poll_transmit(now, conn, &mut batch);
    if !batch.is_empty() {
        links.sent(conn);
    }
    batch.segments().flatten().copied().collect()
}

/// What a gateway says first on a connection.
fn hello(gateway: &mut Links, now: Instant) -> Vec<u8> {
    gateway.set_nodes(&[address(2000)], &[]);
    gateway.timeout(now);
    let Some(Effect::Connect { token, .. }) = gateway.poll_effect() else { panic!("it connects") };
    gateway.connected(now, conn(0), token);
    assert_eq!(gateway.poll_effect(), Some(Effect::Transmit { conn: conn(0) }));
    said(gateway, now, conn(0))
}

fn closes(links: &mut Links) -> Vec<(ConnId, Linger)> {
    let effects = std::iter::from_fn(|| links.poll_effect());
    let close = |effect| match effect {
        Effect::Close { conn, linger } => Some((conn, linger)),
        Effect::Transmit { .. } | Effect::Connect { .. } => None,
    };
    effects.filter_map(close).collect()
}

#[test]
fn nonsense_costs_its_connection_and_nothing_else() {
    for bytes in [&[22, 3, 1, 0, 0][..], &[22, 9, 9, 0, 1, 1], &[22; 3_000], b"\x16\x03\x01\x08\x00\x01\x00"]
    {
        let (mut router, now) = alone(Role::Router, Required);
        router.accepted(now, conn(1), address_of(0));
        let bytes = [bytes, &[0; 4_000]].concat();
        for byte in bytes.chunks(1) {
            router.received(now, conn(1), byte);
            router.check_invariants();
        }
        assert_eq!(closes(&mut router), [(conn(1), Linger::Flush)]);
        let alert = said(&mut router, now, conn(1));
        assert!(alert.is_empty() || alert[0] == 21, "{alert:?}");
        assert!(said(&mut router, now, conn(1)).is_empty());
        let counts: Vec<_> = router.metrics().refused_by_reason().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(Refusal::BadTls, 1)]);
        router.closed(now, conn(1));
        assert!(router.are_closed());
    }
}

/// Advice about `cluster.tls` is only for nodes, not for a scanner of ports.
#[test]
fn a_router_that_wants_tls_tells_a_hello_in_clear_from_nonsense() {
    let (mut clear, now) = alone(Role::Gateway, Off);
    let hello = hello(&mut clear, now);
    let mut of_another_version = hello.clone();
    of_another_version[3] -= 1; // a shorter body,
    of_another_version[9] ^= 1; // and what follows the magic
    for (bytes, reason) in [
        (&hello[..], Refusal::NoTls),
        (&of_another_version, Refusal::NoTls),
        (b"GET / HTTP/1.1\r\n\r\n", Refusal::BadFrame),
        (b"\x15\x03\x03\x00\x02\x02\x28", Refusal::BadFrame), // an alert
        (&[0; 40], Refusal::BadFrame),
        (b"\x9a\x16\x03\x01\x77", Refusal::BadFrame),
        (b"\x00\x00\x00\x30\x01SFLX", Refusal::BadFrame),
        (b"\x00\x16\x03\x01", Refusal::BadFrame),
    ] {
        for piece in [1, 3, 100] {
            let (mut router, now) = alone(Role::Router, Required);
            router.accepted(now, conn(1), address_of(0));
            for bytes in bytes.chunks(piece) {
                router.received(now, conn(1), bytes);
                router.check_invariants();
            }
            assert_eq!(closes(&mut router), [(conn(1), Linger::Flush)], "{bytes:?}");
            let mut answer = Vec::new();
            Frame::Refused { reason }.encode(&mut answer);
            assert_eq!(said(&mut router, now, conn(1)), answer, "{bytes:?}");
            let counts = router.metrics().refused_by_reason();
            assert_eq!(
                counts.filter(|(_, count)| *count > 0).collect::<Vec<_>>(),
                [(reason, 1)],
                "{bytes:?}"
            );
        }
    }
}

/// As a node of a version without TLS does, or a server of HTTP.
#[test]
fn an_answer_in_clear_is_known_as_that() {
    let mut clear = Vec::new();
    Frame::Refused { reason: Refusal::TooLong }.encode(&mut clear);
    for answer in [&clear[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let (mut gateway, now) = alone(Role::Gateway, Optional);
        hello(&mut gateway, now);
        gateway.received(now, conn(0), answer);
        assert_eq!(closes(&mut gateway), [(conn(0), Linger::Flush)]);
        assert!(said(&mut gateway, now, conn(0)).is_empty(), "nothing is said in clear");
        let counts: Vec<_> = gateway.metrics().refused_by_reason().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(Refusal::NoTls, 1)]);
    }
}

#[test]
fn a_handshake_that_stops_half_way_has_its_time_and_ends() {
    for (from, to) in [(0, 5), (1, 0)] {
        let (mut gateway, now) = alone(Role::Gateway, Required);
        let (mut router, _) = alone(Role::Router, Required);
        let first = hello(&mut gateway, now);
        router.accepted(now, conn(1), address_of(0));
        let len = first.len();
        router.received(now, conn(1), &first[..if to == 5 { 5 } else { len }]);
        let answer = said(&mut router, now, conn(1));
        assert_eq!(answer.is_empty(), to == 5);
        let links = if from == 0 { &mut router } else { &mut gateway };
        let conn = if from == 0 { conn(1) } else { conn(0) };
        closes(links);
        let late = now + millis(5_100);
        links.timeout(late);
        assert_eq!(closes(links), [(conn, Linger::Flush)]);
        assert!(said(links, late, conn).is_empty(), "nothing is said in clear");
        links.closed(late, conn);
        links.check_invariants();
        // The other one finds that the connection is gone.
        gateway.finished(self::conn(0));
    }
}

#[test]
fn a_turn_answers_a_few_hellos_and_the_others_in_their_order() {
    let (mut router, now) = alone(Role::Router, Optional);
    let (mut gateway, _) = alone(Role::Gateway, Required);
    let first = hello(&mut gateway, now);
    for index in 0..20 {
        router.accepted(now, conn(index), address_of(0));
        router.received(now, conn(index), &first);
    }
    let mut answered = Vec::new();
    for turn in 1..=3 {
        let effects: Vec<Effect> = std::iter::from_fn(|| router.poll_effect()).collect();
        for effect in effects {
            let Effect::Transmit { conn } = effect else { panic!("{effect:?}") };
            assert!(!said(&mut router, now, conn).is_empty());
            answered.push(conn.index);
        }
        assert_eq!(answered.len(), [8, 16, 20][turn - 1]);
        if turn < 3 {
            assert!(router.poll_timeout().is_some_and(|at| at <= now), "the next turn is at once");
        }
        router.timeout(now);
    }
    assert!(answered.is_sorted());
    assert!(router.poll_timeout().is_none_or(|at| at > now));
}
