//! Heartbeats, admission, slow readers, bad input, drain: what a connection may do, and what becomes of it
//! otherwise.

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::{APP, World};
use shard::{Event, Linger};
use wire::client::{ClientFrame, Code, Encoding, FailReason, NoticeCode, Outcome, ServerFrame};
use wire::node::ToRouter;
use wire::{DeviceClass, UserId};

const SECOND: Duration = Duration::from_secs(1);

fn heartbeat(world: &mut World, client: u32) {
    world.say(client, ClientFrame::Heartbeat { echo: b"" });
}

// -- heartbeats

#[test]
fn a_silent_client_is_offline_after_period_and_grace() {
    let mut world = World::new();
    let client = world.login(1);
    world.to_router.clear();
    world.pass(59 * SECOND);
    assert!(world.client(client).closed.is_none());
    world.pass(SECOND + Duration::from_millis(2));
    assert_eq!(world.closing_notice(client), NoticeCode::IdleTimeout);
    assert!(matches!(world.to_router.make_contiguous(), [ToRouter::Unbind { .. }]));
}

#[test]
fn heartbeats_keep_a_client_and_cost_no_call_and_no_timer() {
    let mut world = World::new();
    let client = world.login(1);
    world.to_router.clear();
    world.to_bridge.clear();
    for _ in 0..1_000 {
        world.pass(30 * SECOND);
        heartbeat(&mut world, client);
        assert_eq!(world.hear(client), [ServerFrame::Heartbeat { echo: b"" }]);
        assert_eq!(world.metrics().timers, 1);
    }
    assert!(world.to_router.is_empty() && world.to_bridge.is_empty(), "nobody else hears of a heartbeat");
}

/// A shard that leaves something unread in each turn may not have come to its heartbeat. It reads everybody
/// in turn, so a client that is silent for twice as long is gone.
#[test]
fn a_client_that_is_read_late_has_twice_as_long() {
    let mut world = World::new();
    let (client, early) = (world.login(1), world.login(2));
    let fresh = world.connect();
    world.handle(Event::InputWaits(true));
    world.pass(19 * SECOND);
    assert!(world.client(fresh).closed.is_none());
    world.pass(2 * SECOND);
    assert_eq!(world.closing_notice(fresh), NoticeCode::LoginTimeout);
    heartbeat(&mut world, early);
    world.pass(98 * SECOND);
    assert!(world.client(client).closed.is_none() && world.client(early).closed.is_none());
    world.pass(2 * SECOND);
    assert_eq!(world.closing_notice(client), NoticeCode::IdleTimeout);
    world.handle(Event::InputWaits(false));
    world.pass(2 * SECOND);
    assert_eq!(world.closing_notice(early), NoticeCode::IdleTimeout, "all is read, and it said nothing");
}

/// Its heartbeats may lie in its socket.
#[test]
fn a_client_that_is_not_read_is_not_silent() {
    let mut world = World::new();
    let client = world.login(1);
    let fresh = world.connect();
    world.handle(Event::MailWaits(true));
    world.pass(600 * SECOND);
    world.handle(Event::MailWaits(false));
    world.pass(SECOND / 2);
    for client in [client, fresh] {
        assert!(world.client(client).closed.is_none());
    }
    heartbeat(&mut world, client);
    world.pass(2 * SECOND);
    assert_eq!(world.closing_notice(fresh), NoticeCode::LoginTimeout);
    world.pass(56 * SECOND);
    assert!(world.client(client).closed.is_none());
    world.pass(3 * SECOND);
    assert_eq!(world.closing_notice(client), NoticeCode::IdleTimeout);
}

#[test]
fn half_a_frame_is_no_sign_of_life() {
    let mut world = World::new();
    let client = world.login(1);
    for byte in [0x53, 0x46, 0, 0, 3, 0xec, 0] {
        world.pass(9 * SECOND);
        world.say_bytes(client, &[byte]);
    }
    assert_eq!(world.closing_notice(client), NoticeCode::IdleTimeout);
}

#[test]
fn a_connection_without_a_login_ends_at_the_deadline_however_it_dribbles() {
    let mut world = World::new();
    let (mute, slow) = (world.connect(), world.connect());
    for byte in [0x53, 0x46, 0, 0, 3, 0xe9, 0, 0, 0, 9] {
        world.say_bytes(slow, &[byte]);
        world.pass(SECOND);
    }
    world.pass(Duration::from_millis(2));
    for client in [mute, slow] {
        assert_eq!(world.closing_notice(client), NoticeCode::LoginTimeout);
    }
    assert_eq!((world.metrics().connections, world.metrics().timers), (0, 0));
}

// -- admission

#[test]
fn an_address_has_so_many_connections_and_gets_them_back() {
    let mut world = World::with(|config| config.limits.address_connections_max = 2);
    let [here, there]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
    let (first, _second, third) =
        (world.connect_from(here), world.connect_from(here), world.connect_from(here));
    assert_eq!(world.closing_notice(third), NoticeCode::AddressLimit);
    let other = world.connect_from(there);
    assert!(world.client(other).closed.is_none());
    world.reset(first);
    let again = world.connect_from(here);
    assert!(world.client(again).closed.is_none());
    assert_eq!(world.metrics().notices_of(NoticeCode::AddressLimit), 1);
}

/// A site has 2^64 addresses of IPv6, and an IPv4 address may be written as one of IPv6.
#[test]
fn the_addresses_of_one_site_are_one() {
    for [one, two, other] in [
        ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"],
        ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.2"],
    ] {
        let mut world = World::with(|config| config.limits.address_connections_max = 1);
        let [one, two, other]: [IpAddr; 3] = [one, two, other].map(|text| text.parse().unwrap());
        let first = world.connect_from(one);
        let second = world.connect_from(two);
        assert_eq!(world.closing_notice(second), NoticeCode::AddressLimit);
        let third = world.connect_from(other);
        assert!(world.is_open(first) && world.is_open(third));
    }
}

/// The header of a frame and so much of its body.
fn begun(code: i32, len: i32, bytes: usize) -> Vec<u8> {
    let mut frame = [&[0x53, 0x46][..], &code.to_be_bytes(), &len.to_be_bytes()].concat();
    frame.resize(frame.len() + bytes, b'a');
    frame
}

/// Before a login nothing else comes, and it is short.
#[test]
fn what_is_held_before_a_login_is_short() {
    for (bytes, notice) in [
        (begun(1001, 8_193, 0), NoticeCode::BadLength),
        (begun(1003, 8_000, 0), NoticeCode::LoginRequired),
        (begun(1003, 8_000, 100)[..6].to_vec(), NoticeCode::LoginRequired),
        (begun(1003, 65_536, 65_535), NoticeCode::LoginRequired),
        (begun(1003, -1, 0), NoticeCode::LoginRequired),
    ] {
        for piece in [1, 7, usize::MAX] {
            let mut world = World::new();
            let client = world.connect();
            for piece in bytes.chunks(piece) {
                world.say_bytes(client, piece);
            }
            assert_eq!(world.closing_notice(client), notice);
        }
    }
    // With the login, a long frame may come at once.
    let mut world = World::new();
    world.router_answers = false;
    let client = world.connect();
    let mut bytes = Vec::new();
    let token = world.token(1, DeviceClass::Phone);
    ClientFrame::Login { token: token.into() }.encode(Encoding::Binary, APP, UserId(1), &mut bytes);
    bytes.extend(begun(1003, 60_000, 50_000));
    world.say_bytes(client, &bytes);
    assert!(world.is_open(client), "{:?}", world.hear(client));
}

#[test]
fn addresses_have_shares_of_what_is_held_before_logins() {
    let mut world = World::new();
    world.check_every = 100;
    let [here, there]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
    let held = begun(1001, 8_192, 8_191);
    let mut clients = Vec::new();
    for _ in 0..600 {
        let client = world.connect_from(here);
        world.say_bytes(client, &held);
        clients.push(client);
    }
    let refused = clients.iter().filter(|client| !world.is_open(**client)).count();
    assert!((365..385).contains(&refused), "{refused} beyond a ninth of 16 MiB");
    assert_eq!(world.closing_notice(clients[599]), NoticeCode::ServerFull);
    let other = world.connect_from(there);
    world.say_bytes(other, &held);
    assert!(world.is_open(other));
    for client in &clients[..200] {
        world.reset(*client);
    }
    let again = world.connect_from(here);
    world.say_bytes(again, &held);
    assert!(world.is_open(again), "what has ended holds nothing");
    // A session has no part in it.
    let client = world.login(9);
    world.say_bytes(client, &begun(1003, 60_000, 50_000));
    assert!(world.is_open(client));
    world.gateway.check_invariants();
}

/// Each of many addresses keeps all that it gets.
#[test]
fn addresses_that_hold_all_before_logins_keep_no_newcomer_out() {
    let mut world = World::new();
    world.check_every = 500;
    let held = begun(1001, 8_192, 8_191);
    let mut clients = Vec::new();
    for address in 0..100 {
        for _ in 0..40 {
            let client = world.connect_from([10, 0, 0, address].into());
            world.say_bytes(client, &held);
            clients.push(client);
        }
    }
    let open = clients.iter().filter(|client| world.is_open(**client)).count();
    assert!((2_000..2_048).contains(&open), "16 MiB are held: {open}");
    let newcomer = world.connect_from([127, 0, 0, 2].into());
    world.say_bytes(newcomer, &held);
    assert!(world.is_open(newcomer));
    let ended: Vec<u32> = clients.into_iter().filter(|client| !world.is_open(*client)).collect();
    assert_eq!(world.closing_notice(ended[0]), NoticeCode::ServerFull);
    world.gateway.check_invariants();
}

#[test]
fn addresses_have_shares_of_what_users_hold() {
    let mut world = World::with(|config| config.limits.address_connections_max = 10_000);
    world.check_every = 500;
    let [here, there]: [IpAddr; 2] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
    let held = begun(1003, 65_000, 64_990);
    let mut clients = Vec::new();
    for user in 1..=1200 {
        let client = world.connect_from(here);
        world.say(client, ClientFrame::Login { token: world.token(user, DeviceClass::Phone).into() });
        // A client that writes slowly holds as much in the end.
        held.chunks(2000).for_each(|piece| world.say_bytes(client, piece));
        clients.push(client);
    }
    let refused = clients.iter().filter(|client| !world.is_open(**client)).count();
    assert!((735..750).contains(&refused), "{refused} beyond a ninth of 256 MiB");
    let other = world.connect_from(there);
    world.say(other, ClientFrame::Login { token: world.token(5000, DeviceClass::Phone).into() });
    world.say_bytes(other, &held);
    assert!(world.is_open(other));
    world.gateway.check_invariants();
}

#[test]
fn a_shard_holds_so_many_connections() {
    let mut world = World::with(|config| config.limits.connections_max = 2);
    let (_one, _two, three) = (world.connect(), world.connect(), world.connect());
    assert_eq!(world.closing_notice(three), NoticeCode::ServerFull);
}

#[test]
fn a_flood_of_frames_ends_the_connection() {
    let mut world = World::with(|config| {
        config.limits.frames_per_second = 10;
        config.limits.frames_burst = 5;
    });
    let client = world.login(1);
    for _ in 0..4 {
        heartbeat(&mut world, client);
    }
    assert_eq!(world.hear(client).len(), 4, "the login was the fifth");
    world.pass(SECOND / 10);
    heartbeat(&mut world, client);
    assert_eq!(world.hear(client).len(), 1);
    heartbeat(&mut world, client);
    assert_eq!(world.closing_notice(client), NoticeCode::RateLimited);
}

#[test]
fn a_client_is_not_bounded_by_acks_that_others_cause_but_by_those_it_makes_up() {
    let mut world = World::with(|config| {
        config.limits.frames_per_second = 10;
        config.limits.frames_burst = 5;
    });
    let client = world.login(1);
    for id in 1..=100 {
        world.deliver(client, id, "m");
        world.ack(client, id);
    }
    assert_eq!(world.settled().len(), 100);
    assert!(world.is_open(client));
    world.hear(client);
    for id in 200..206 {
        world.ack(client, id);
    }
    assert_eq!(world.closing_notice(client), NoticeCode::RateLimited);
}

// -- slow readers

#[test]
fn lossy_messages_for_a_slow_reader_drop_oldest_first_within_the_bound() {
    let mut world = World::new();
    let (slow, other) = (world.login(1), world.login(2));
    world.stop_reading(slow);
    let payload = "x".repeat(1_000);
    for id in 1..=1_000 {
        world.deliver_lossy(slow, id, &payload);
        world.deliver_lossy(other, id, "y");
        assert!(world.metrics().outbox_bytes <= 128 * 1024, "what keeps the messages counts too");
    }
    assert_eq!(world.messages(other).len(), 1_000, "others feel nothing");
    world.go_on_reading(slow);
    let kept: Vec<u64> = world.messages(slow).iter().map(|m| m.id.0).collect();
    let dropped = world.metrics().lossy_dropped;
    assert!((110..120).contains(&(kept.len() - 1)), "{} kept", kept.len());
    assert_eq!(kept[0], 1, "in flight before the socket filled up");
    assert!(kept[1..].iter().copied().eq(dropped + 2..=1_000), "the newest are kept, in order");
    assert_eq!(world.metrics().outbox_bytes, 0);
}

#[test]
fn reliable_messages_for_a_slow_reader_wait_and_are_then_handed_over_and_end_it() {
    let mut world = World::with(|config| config.limits.reliable_messages_max = 100);
    let slow = world.login(1);
    world.stop_reading(slow);
    for id in 1..=100 {
        world.deliver(slow, id, "m");
    }
    assert!(world.is_open(slow) && world.settled().is_empty());
    world.deliver(slow, 101, "m");
    let failed = Outcome::Failed(FailReason::Overflow);
    assert_eq!(world.settled(), [(2, failed)], "the oldest but that which the socket has");
    assert!(world.is_open(slow), "it may be about to read");
    let (mut id, bytes) = (101, world.metrics().outbox_bytes);
    while world.is_open(slow) {
        world.pass(SECOND / 2);
        for _ in 0..100 {
            id += 1;
            world.deliver(slow, id, "m");
        }
        assert!(world.metrics().outbox_bytes <= 2 * bytes, "what waits is bounded");
        heartbeat(&mut world, slow);
        assert!(id < 20_000, "it never ends");
    }
    assert_eq!(world.client(slow).closed, Some(Linger::Flush));
    assert_eq!(world.metrics().notices_of(NoticeCode::SlowReader), 1);
    let settled = world.settled();
    assert_eq!(settled.len() as u64, id - 1, "every one is handed over, the second before");
    assert!(settled.iter().all(|(_, outcome)| matches!(outcome, Outcome::Failed(_))));
    let order: Vec<u64> = settled.iter().map(|(id, _)| *id).filter(|id| *id != 1).collect();
    assert!(order.is_sorted(), "in the order they came: {order:?}");
    assert_eq!((world.metrics().outbox_bytes, world.metrics().timers), (0, 0));
}

#[test]
fn a_full_shard_fails_messages_and_closes_nobody() {
    let mut world = World::with(|config| {
        config.limits.lossy_bytes_max = 64 * 1024;
        config.limits.reliable_bytes_max = 64 * 1024;
        config.limits.outbox_bytes_max = 128 * 1024;
    });
    let clients = [1, 2, 3].map(|user| world.login(user));
    let payload = "x".repeat(60 * 1024);
    for (id, client) in (1..).zip(clients) {
        world.deliver(client, id, &payload);
        world.deliver_lossy(client, id + 10, "y");
    }
    assert_eq!(world.settled(), [(3, Outcome::Failed(FailReason::Overflow))]);
    assert!(clients.iter().all(|client| world.is_open(*client)));
    world.ack(clients[0], 1);
    world.deliver(clients[2], 4, &payload);
    assert_eq!(world.settled(), [(1, Outcome::Delivered)], "there is room again");
}

#[test]
fn a_client_that_asks_and_never_reads_is_ended() {
    let mut world = World::new();
    let client = world.login(1);
    world.stop_reading(client);
    let mut said = 0;
    while world.is_open(client) {
        world.say(client, ClientFrame::Heartbeat { echo: &[7; 64] });
        world.pass(SECOND / 1_000);
        said += 1;
        assert!(said < 100_000, "it never ends");
    }
    assert!(said > 2_000, "what it may send at once is answered");
    assert_eq!(world.metrics().notices_of(NoticeCode::SlowReader), 1);
    assert_eq!(world.metrics().outbox_bytes, 0);
}

// -- bad input

#[test]
fn bad_bytes_end_the_connection_with_the_notice_that_names_them() {
    let mut world = World::new();
    let bystander = world.login(9);
    let header = |magic: u16, code: i32, len: i32| {
        [&magic.to_be_bytes()[..], &code.to_be_bytes(), &len.to_be_bytes()].concat()
    };
    use wire::client::Encoding::{Binary, Json};
    for (encoding, bytes, code) in [
        (Binary, b"GET / HTTP/1.1\r\n".to_vec(), NoticeCode::BadMagic),
        (Binary, header(0x5346, 999, 0), NoticeCode::BadCode),
        (Binary, header(0x5346, Code::Notice as i32, 0), NoticeCode::BadCode),
        (Binary, header(0x5346, 1004, -1), NoticeCode::BadLength),
        (Binary, header(0x5346, 1004, 1 << 30), NoticeCode::BadLength),
        (Json, [header(18677, 1001, 3), b"{x}".to_vec()].concat(), NoticeCode::BadBody),
        (Binary, [header(0x5346, 1005, 3), b"abc".to_vec()].concat(), NoticeCode::BadBody),
        (Binary, [header(0x5346, 1004, 0), header(18677, 1004, 0)].concat(), NoticeCode::BadMagic),
    ] {
        let client = world.login_as(1, DeviceClass::Phone, encoding);
        world.say_bytes(client, &bytes);
        assert_eq!(world.closing_notice(client), code, "{bytes:?}");
    }
    assert!(world.client(bystander).closed.is_none());
    assert_eq!((world.metrics().connections, world.metrics().sessions), (1, 1));
}

#[test]
fn nothing_is_taken_from_a_connection_that_is_ending() {
    let mut world = World::new();
    let client = world.login(1);
    world.to_router.clear();
    let mut bytes = vec![0xff; 2];
    ClientFrame::Logout.encode(Encoding::Binary, APP, UserId(1), &mut bytes);
    world.say_bytes(client, &bytes);
    assert_eq!(world.closing_notice(client), NoticeCode::BadMagic);
    assert_eq!(world.metrics().frames_in[1], 0);
}

// -- drain

#[test]
fn a_drain_tells_everyone_waits_for_acks_and_ends() {
    let mut world = World::new();
    let (idle, busy) = (world.login(1), world.login(2));
    world.deliver(busy, 5, "m");
    world.hear(busy);
    let now = world.now;
    world.gateway.drain(now);
    world.run();
    assert!(world.stopped_accepting && !world.gateway.is_drained());
    match world.hear(idle).as_slice() {
        [ServerFrame::Notice { code: NoticeCode::Draining, retry_after_ms, .. }] => {
            assert!(*retry_after_ms <= 10_000);
        }
        other => panic!("{other:?}"),
    }
    assert!(world.client(busy).closed.is_none(), "its ack is awaited");
    world.ack(busy, 5);
    assert_eq!(world.closing_notice(busy), NoticeCode::Draining);
    assert_eq!(world.settled(), [(5, Outcome::Delivered)]);
    assert!(world.gateway.is_drained());
}

#[test]
fn a_drain_names_the_alternatives_each_first_for_some() {
    let mut world =
        World::with(|config| config.drain.alternatives = ["a:1", "b:2", "c:3"].map(String::from).to_vec());
    let clients: Vec<_> = (1..=60).map(|user| world.login(user)).collect();
    let now = world.now;
    world.gateway.drain(now);
    world.run();
    let mut firsts = std::collections::BTreeMap::new();
    for client in clients {
        match world.hear(client).as_slice() {
            [ServerFrame::Notice { alternatives, .. }] => {
                let first = alternatives[0].clone().into_owned();
                let mut sorted = alternatives.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, ["a:1", "b:2", "c:3"]);
                *firsts.entry(first).or_insert(0) += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(firsts.len() == 3 && firsts.values().all(|count| (10..30).contains(count)), "{firsts:?}");
}

#[test]
fn a_drain_ends_at_its_deadline_and_hands_over_the_rest() {
    let mut world = World::new();
    let busy = world.login(2);
    world.deliver(busy, 5, "m");
    let now = world.now;
    world.gateway.drain(now);
    world.run();
    world.pass(10 * SECOND + Duration::from_millis(2));
    assert_eq!(world.closing_notice(busy), NoticeCode::Draining);
    assert_eq!(world.settled(), [(5, Outcome::Failed(FailReason::Disconnected))]);
    assert!(world.gateway.is_drained());
}

// -- the whole

#[test]
fn the_same_seed_and_events_give_the_same_effects() {
    let run = || {
        let mut world = World::new();
        let clients = [1, 2, 3].map(|user| world.login(user));
        for client in clients {
            world.join(client, 7);
            world.deliver(client, u64::from(client) + 1, "m");
        }
        world.broadcast(7, 9, true, "all");
        world.pass(7 * SECOND);
        let now = world.now;
        world.gateway.drain(now);
        world.run();
        world.pass(60 * SECOND);
        (clients.map(|client| world.hear(client)), world.to_router, world.to_bridge)
    };
    assert_eq!(run(), run());
}
