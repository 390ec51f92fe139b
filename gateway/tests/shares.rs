//! What one may send fits what another may get, and what one has of a pool is not taken from others.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{APP, World};
use gateway::Push;
use wire::client::{ClientFrame, Encoding, FailReason, NoticeCode, Outcome, ServerFrame};
use wire::node::{Class, Target, ToBridge, ToGateway};
use wire::{BizCode, ClientMsgId, DeviceClass, UserId};

const SECOND: Duration = Duration::from_secs(1);
const BUSY: Outcome = Outcome::Failed(FailReason::Busy);

/// Reads and acks until nothing comes any more; how many messages came, each once.
fn read_and_ack(world: &mut World, client: u32) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let ids: Vec<u64> = world.messages(client).iter().map(|message| message.id.0).collect();
        if ids.is_empty() {
            return seen.len();
        }
        for id in ids {
            assert!(seen.insert(id), "{id} came twice");
            world.ack(client, id);
        }
    }
}

// -- what a receiver gets

#[test]
fn a_burst_into_a_room_comes_to_every_member_that_reads() {
    let mut world = World::new();
    world.check_every = 100;
    let members = [1, 2, 3].map(|user| world.login(user));
    for member in members {
        world.join(member, 7);
        // All of it comes within one turn, before any of them could read.
        world.stop_reading(member);
    }
    for id in 1..=2_000 {
        world.broadcast(7, id, true, "m");
    }
    for member in members {
        world.go_on_reading(member);
        assert_eq!(read_and_ack(&mut world, member), 2_000);
        assert!(world.is_open(member));
    }
    assert!(!world.to_bridge.iter().any(|event| matches!(event, ToBridge::Undelivered { .. })));
}

/// What four rooms of a member may say at once, by the defaults of routers.
#[test]
fn bursts_into_four_rooms_at_once_come_to_a_member_that_reads() {
    let mut world = World::new();
    world.check_every = 10_000;
    let member = world.login(1);
    let rooms = [7, 8, 9, 10];
    for room in rooms {
        world.join(member, room);
    }
    world.stop_reading(member);
    for number in 1..=4_096 {
        for (room, place) in rooms.into_iter().zip(0..) {
            world.broadcast(room, 4 * number + place, true, "m");
        }
    }
    world.go_on_reading(member);
    assert_eq!(read_and_ack(&mut world, member), 4 * 4_096);
    assert!(world.is_open(member));
    assert!(!world.to_bridge.iter().any(|event| matches!(event, ToBridge::Undelivered { .. })));
}

#[test]
fn a_burst_to_a_user_comes_whole_in_any_encoding() {
    for (encoding, count, payload) in [
        (Encoding::Binary, 2_000, "m".to_owned()),
        (Encoding::Binary, 12, "x".repeat(60_000)),
        // Each of them is six bytes in JSON.
        (Encoding::Json, 12, "\u{1}".repeat(10_000)),
    ] {
        let mut world = World::new();
        world.check_every = 100;
        let client = world.login_as(1, DeviceClass::Phone, encoding);
        world.stop_reading(client);
        for id in 1..=count {
            world.deliver(client, id, &payload);
        }
        world.go_on_reading(client);
        assert_eq!(read_and_ack(&mut world, client), count as usize);
        assert!(world.is_open(client));
        assert!(world.settled().iter().all(|(_, outcome)| *outcome == Outcome::Delivered));
    }
}

#[test]
fn a_burst_that_overtakes_the_answer_to_a_join_waits_for_it() {
    let mut world = World::new();
    let client = world.login(1);
    world.router_answers = false;
    world.join(client, 7);
    for id in 1..=2_000 {
        world.broadcast(7, id, true, "m");
    }
    let (app, room, sequence) = (APP, wire::RoomId(7), common::SEQUENCE);
    world.tell(ToGateway::Joined { app, room, sequence });
    assert_eq!((read_and_ack(&mut world, client), world.metrics().room_late), (2_000, 0));
}

/// However much comes, a connection ends only when its client acks nothing.
#[test]
fn a_reader_that_cannot_follow_stays_and_what_is_too_much_is_handed_over() {
    let mut world = World::with(|config| config.limits.reliable_messages_max = 100);
    let client = world.login(1);
    let mut id = 0;
    for _ in 0..200 {
        for _ in 0..200 {
            id += 1;
            world.deliver(client, id, "m");
        }
        world.pass(SECOND);
        let first = world.messages(client)[0].id.0;
        world.ack(client, first);
        assert!(world.is_open(client));
        world.say(client, ClientFrame::Heartbeat { echo: b"" });
    }
    let overflow = Outcome::Failed(FailReason::Overflow);
    assert!(world.settled().iter().any(|(_, outcome)| *outcome == overflow));
}

#[test]
fn time_in_which_the_process_stood_still_is_not_held_against_a_reader() {
    let mut world = World::with(|config| {
        config.delivery.window = 2;
        config.limits.reliable_messages_max = 2;
    });
    let client = world.login(1);
    world.stop_reading(client);
    for id in 1..=3 {
        world.deliver(client, id, "m");
    }
    // The clock jumps, and mail is read before the sockets are.
    world.now += 120 * SECOND;
    world.deliver(client, 4, "m");
    assert!(world.is_open(client));
    world.go_on_reading(client);
    assert_eq!(read_and_ack(&mut world, client), 2);
    assert!(world.is_open(client));
}

#[test]
fn connections_that_hold_much_leave_the_others_their_part() {
    let mut world = World::with(|config| config.limits.outbox_bytes_max = 17 << 20);
    world.check_every = 100;
    let greedy: Vec<u32> = (1..=40).map(|user| world.login(user)).collect();
    let payload = "x".repeat(60_000);
    let mut id = 0;
    for &client in &greedy {
        world.stop_reading(client);
        for _ in 0..20 {
            id += 1;
            world.deliver(client, id, &payload);
        }
    }
    assert!(world.metrics().outbox_bytes > 8 << 20, "they have most of it");
    let (client, first) = (world.login(99), id + 1);
    for id in first..first + 5 {
        world.deliver(client, id, &payload[..1_000]);
    }
    assert_eq!(read_and_ack(&mut world, client), 5);
    assert!(greedy.iter().all(|client| world.is_open(*client)));
}

/// Very many connections of one address that read nothing, in a busy room. What they took while there was
/// room they give up.
#[test]
fn those_who_do_not_read_give_way_to_those_who_do() {
    let mut world = World::with(|config| config.limits.outbox_bytes_max = 17 << 20);
    world.check_every = 1_000;
    let greedy: Vec<u32> = (1..=300).map(|user| world.login(user)).collect();
    for &client in &greedy {
        world.join(client, 7);
        world.stop_reading(client);
    }
    let (client, payload) = (
        world.login_from([127, 0, 0, 2].into(), 999, DeviceClass::Phone, Encoding::Binary),
        "x".repeat(10_000),
    );
    for id in 1..=100 {
        world.broadcast(7, id, id % 2 == 0, &payload);
        world.pass(SECOND / 20);
    }
    world.stop_reading(client);
    for id in 1_001..=2_000 {
        world.deliver(client, id, "m");
    }
    world.go_on_reading(client);
    assert_eq!(read_and_ack(&mut world, client), 1_000);
    assert!(greedy.iter().all(|client| world.is_open(*client)));
    assert!(world.metrics().outbox_bytes < 17 << 20);
}

#[test]
fn all_that_a_client_may_send_at_once_is_answered_at_once() {
    let mut world = World::with(|config| config.limits.submitted_max = 1);
    world.check_every = 100;
    let client = world.login_as(1, DeviceClass::Phone, Encoding::Json);
    world.stop_reading(client);
    // The login was one, and half a turn's worth waits for its answers.
    let count = 1_999;
    for n in 0..count {
        world.send(client, 6001, 9, &format!("{n:064}"), "x");
    }
    assert!(world.is_open(client));
    world.go_on_reading(client);
    assert_eq!(world.hear(client).len(), count - 1, "all but the one that waits for its owner");
}

// -- what a client that does not ack holds up

#[test]
fn one_message_that_is_never_acked_steps_aside_and_holds_up_none() {
    let mut world = World::with(|config| config.delivery.window = 2);
    let client = world.login(1);
    for id in 1..=50 {
        world.deliver(client, id, "m");
    }
    let mut acked = Vec::new();
    for _ in 0..60 {
        for message in world.messages(client) {
            if message.id.0 != 1 && !acked.contains(&message.id.0) {
                acked.push(message.id.0);
                world.ack(client, message.id.0);
            }
        }
    }
    assert!(acked.iter().copied().eq(2..=50), "the others pass it by: {acked:?}");
    assert_eq!(world.settled().len(), 49);
    for _ in 0..4 {
        world.pass(9 * SECOND);
        world.say(client, ClientFrame::Heartbeat { echo: b"" });
    }
    assert_eq!(world.settled(), [(1, Outcome::Failed(FailReason::Unacked))]);
    assert!(world.is_open(client));
}

#[test]
fn what_a_client_that_reads_and_never_acks_has_goes_on_after_the_tries() {
    let mut world = World::with(|config| config.delivery.window = 2);
    let client = world.login(1);
    for id in 1..=6 {
        world.deliver(client, id, "m");
    }
    for _ in 0..12 {
        world.pass(10 * SECOND);
        world.say(client, ClientFrame::Heartbeat { echo: b"" });
    }
    let settled = world.settled();
    assert_eq!(settled, (1..=6).map(|id| (id, Outcome::Failed(FailReason::Unacked))).collect::<Vec<_>>());
    assert_eq!(world.metrics().outbox_bytes, 0);
}

// -- submitted

/// What a client was told is busy, by names.
fn busy(world: &mut World, client: u32) -> Vec<String> {
    let heard = world.hear(client).into_iter();
    let busy = heard.filter_map(|frame| match frame {
        ServerFrame::SendAck(ack) if ack.outcome == BUSY => Some(ack.client_msg_id.as_str().to_owned()),
        _ => None,
    });
    busy.collect()
}

fn push(class: Class, payload: &'static [u8]) -> Push {
    Push {
        app: APP,
        sender: UserId(1),
        biz_code: BizCode(6001),
        class,
        client_msg_id: ClientMsgId::default(),
        payload: Bytes::from_static(payload),
        stored: false,
        device: None,
    }
}

#[test]
fn a_user_fills_its_share_of_what_waits_for_owners_and_no_other_notices() {
    let mut world = World::with(|config| {
        config.limits.submitted_max = 100;
        config.limits.submitted_user_max = 10;
    });
    let greedy = world.login(1);
    for n in 0..12 {
        world.send(greedy, 6001, 9, &format!("g{n}"), "x");
    }
    assert_eq!(busy(&mut world, greedy), ["g10", "g11"]);
    // On another device, and after its session has ended, it has the same share: its messages wait still.
    let tablet = world.login_as(1, DeviceClass::Tablet, Encoding::Binary);
    world.reset(greedy);
    let again = world.login(1);
    for client in [tablet, again] {
        world.send(client, 6001, 9, "more", "x");
        assert_eq!(busy(&mut world, client), ["more"]);
    }
    let other = world.login(2);
    for n in 0..10 {
        world.send(other, 6001, 9, &format!("o{n}"), "x");
    }
    assert!(busy(&mut world, other).is_empty());
    let id = world.gateway.push(world.now, Target::User(UserId(9)), push(Class::Reliable, b"p"));
    assert!(id.is_some(), "in the name of that user, and not in its share");
    world.run();
    assert_eq!(world.metrics().submitted, 21);
}

#[test]
fn bytes_are_shared_as_messages_are() {
    let mut world = World::with(|config| {
        config.limits.frame_bytes_max = 1_000;
        config.limits.submitted_user_bytes_max = 1_000;
    });
    let (greedy, other) = (world.login(1), world.login(2));
    for name in ["a", "b"] {
        world.send(greedy, 6001, 9, name, &"x".repeat(600));
    }
    world.send(other, 6001, 9, "c", &"x".repeat(600));
    assert_eq!((busy(&mut world, greedy), busy(&mut world, other)), (vec!["b".to_owned()], vec![]));
}

#[test]
fn pushes_and_clients_do_not_take_each_others_places() {
    let mut world = World::with(|config| config.limits.submitted_max = 5);
    let mut pushed = || world.gateway.push(world.now, Target::User(UserId(9)), push(Class::Reliable, b"p"));
    assert_eq!((0..7).filter(|_| pushed().is_some()).count(), 5);
    world.run();
    let client = world.login(1);
    for n in 0..7 {
        world.send(client, 6001, 9, &format!("m{n}"), "x");
    }
    assert_eq!(busy(&mut world, client), ["m5", "m6"]);
    assert_eq!(world.metrics().submitted, 10);
}

#[test]
fn what_is_answered_gives_its_place_back() {
    let mut world = World::with(|config| config.limits.submitted_user_max = 1);
    world.answer_submit = Some(Outcome::Delivered);
    let client = world.login(1);
    for n in 0..100 {
        world.send(client, 6001, 9, &format!("m{n}"), "x");
    }
    assert!(busy(&mut world, client).is_empty());
    assert_eq!((world.metrics().submitted, world.metrics().submitted_bytes), (0, 0));
}

#[test]
fn a_room_message_without_a_name_is_refused_by_notice() {
    let mut world = World::with(|config| {
        let (biz_code, to, class) = (BizCode(7001), gateway::Destination::Room, Class::Reliable);
        let reliable = gateway::Route::new(biz_code, to, class);
        let routes: Vec<_> = config.routes.iter().copied().chain([reliable]).collect();
        config.routes = routes.into();
    });
    world.answer_submit = Some(BUSY);
    let client = world.login(1);
    world.join(client, 7);
    world.hear(client);
    world.send(client, 7001, 7, "", "x");
    assert!(matches!(world.hear(client)[..], [ServerFrame::Notice { code: NoticeCode::Busy, .. }]));
    // One to a user is handed over in its place.
    world.send(client, 6001, 9, "", "x");
    assert_eq!(world.hear(client), []);
}

// -- refusals

#[test]
fn what_is_refused_counts_against_the_rate() {
    let mut world = World::with(|config| {
        config.limits.frames_per_second = 10;
        config.limits.frames_burst = 20;
        config.limits.submitted_user_max = 1;
    });
    for (user, biz_code, target) in [(1, 1, 2), (2, 5555, 7), (3, 6001, 9)] {
        let client = world.login(user);
        let mut said = 0;
        while world.is_open(client) {
            world.send(client, biz_code, target, "m", "x");
            said += 1;
            assert!(said <= 20, "the rate has no end");
        }
        assert_eq!(world.closing_notice(client), NoticeCode::RateLimited);
    }
}
