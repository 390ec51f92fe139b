//! Rooms: one join a shard, one order, and nobody harmed by a member that is gone.

mod common;

use std::time::Duration;

use common::{APP, SEQUENCE, World};
use shard::Prng;
use wire::client::{ClientFrame, Encoding, FailReason, Message, NoticeCode, Outcome, ServerFrame};
use wire::node::{Class, DeliveryId, Login, Target, ToBridge, ToGateway, ToRouter};
use wire::{DeviceClass, RoomId, UserId};

const ROOM: RoomId = RoomId(7);

fn joins(world: &World) -> usize {
    world.to_router.iter().filter(|mail| matches!(mail, ToRouter::Join { .. })).count()
}

fn leaves(world: &World) -> usize {
    world.to_router.iter().filter(|mail| matches!(mail, ToRouter::Leave { .. })).count()
}

#[test]
fn the_owner_hears_of_the_first_member_and_of_the_last() {
    let mut world = World::new();
    let (one, two) = (world.login(1), world.login(2));
    for client in [one, two, one] {
        world.join(client, 7);
        assert_eq!(
            world.hear(client),
            [ServerFrame::Joined { room: ROOM, sequence: SEQUENCE, recovery: None }]
        );
    }
    assert_eq!(joins(&world), 1);
    world.say(one, ClientFrame::Leave { room: ROOM });
    assert_eq!(world.hear(one), [ServerFrame::Left { room: ROOM }]);
    assert_eq!(leaves(&world), 0);
    world.reset(two);
    assert_eq!(leaves(&world), 1);
    let told = |mail: &ToBridge| match *mail {
        ToBridge::Joined { app: APP, user, device: DeviceClass::Phone, login, room: ROOM } => {
            (user.0, true, login)
        }
        ToBridge::Left { app: APP, user, device: DeviceClass::Phone, login, room: ROOM } => {
            (user.0, false, login)
        }
        ref mail => panic!("{mail:?}"),
    };
    let told: Vec<_> = world.to_bridge.iter().map(told).collect();
    let (first, second) = (told[0].2, told[1].2);
    assert!(first > Login(0));
    assert_eq!(told, [(1, true, first), (2, true, second), (1, false, first), (2, false, second)]);
}

/// A stamp that the owner has yet to raise would make the event look older than those of an earlier session.
#[test]
fn the_bridge_hears_of_a_membership_once_its_session_is_bound() {
    let mut world = World::new();
    world.router_answers = false;
    let [gone, client] = [1, 2].map(|user| {
        let client = world.connect();
        let token = world.token(user, DeviceClass::Phone);
        world.say(client, ClientFrame::Login { token: token.into() });
        [7, 8]
            .into_iter()
            .for_each(|room| world.say(client, ClientFrame::Join { room: RoomId(room), want: None }));
        client
    });
    world.say(client, ClientFrame::Leave { room: RoomId(8) });
    world.reset(gone);
    assert_eq!(world.to_bridge, []);
    let session = world.session(client);
    let raised = Login(world.now.unix_nanos() + 5);
    world.tell(ToGateway::Bound { session, login: raised });
    let (user, device, login) = (UserId(2), DeviceClass::Phone, raised);
    assert_eq!(world.to_bridge, [ToBridge::Joined { app: APP, user, device, login, room: ROOM }]);
}

#[test]
fn a_join_is_answered_only_when_the_owner_has_answered() {
    let mut world = World::new();
    let (one, two) = (world.login(1), world.login(2));
    world.router_answers = false;
    world.join(one, 7);
    world.join(two, 7);
    assert_eq!((world.hear(one), world.hear(two)), (vec![], vec![]));
    world.tell(ToGateway::Joined { app: APP, room: ROOM, sequence: 3 });
    for client in [one, two] {
        assert_eq!(world.hear(client), [ServerFrame::Joined { room: ROOM, sequence: 3, recovery: None }]);
    }
    assert_eq!(joins(&world), 1);
}

#[test]
fn a_room_that_is_deserted_before_the_owner_answers_is_given_up_then() {
    let mut world = World::new();
    let one = world.login(1);
    world.router_answers = false;
    world.join(one, 7);
    world.say(one, ClientFrame::Leave { room: ROOM });
    assert_eq!(leaves(&world), 0, "a leave now would cross the join's answer");
    world.tell(ToGateway::Joined { app: APP, room: ROOM, sequence: 3 });
    assert_eq!((leaves(&world), world.metrics().rooms), (1, 0));
}

#[test]
fn a_late_joiner_is_told_the_last_sequence_seen() {
    let mut world = World::new();
    let (one, two) = (world.login(1), world.login(2));
    world.join(one, 7);
    world.broadcast(7, 5, false, "m");
    world.join(two, 7);
    assert_eq!(world.hear(two), [ServerFrame::Joined { room: ROOM, sequence: SEQUENCE + 5, recovery: None }]);
}

#[test]
fn a_broadcast_reaches_members_only_each_in_its_encoding_and_in_order() {
    let mut world = World::new();
    let members = [Encoding::Binary, Encoding::Json, Encoding::JsonOld]
        .map(|it| world.login_as(1, DeviceClass::Tv, it));
    let (stranger, elsewhere) = (world.login(8), world.login(9));
    members.iter().for_each(|member| world.join(*member, 7));
    world.join(elsewhere, 8);
    world.hear(elsewhere);
    members.iter().for_each(|member| drop(world.hear(*member)));
    for id in 1..=3 {
        world.broadcast(7, id, id == 2, "hello");
    }
    for member in members {
        let heard = world.messages(member);
        let order: Vec<(u64, u64)> = heard.iter().map(|m| (m.id.0, m.sequence)).collect();
        assert_eq!(order, [(1, SEQUENCE + 1), (2, SEQUENCE + 2), (3, SEQUENCE + 3)]);
        assert!(heard.iter().all(|m| m.room == Some(ROOM) && &m.payload[..] == b"hello"));
    }
    assert_eq!((world.hear(stranger), world.hear(elsewhere)), (vec![], vec![]));
}

#[test]
fn a_reliable_broadcast_that_one_member_never_acks_is_handed_over_for_that_member() {
    let mut world = World::with(|config| config.heartbeat.grace_ms = 600_000);
    let (one, two) = (world.login(1), world.login(2));
    world.join(one, 7);
    world.join(two, 7);
    world.to_bridge.clear();
    world.broadcast(7, 5, true, "gift");
    world.ack(one, 5);
    world.pass(Duration::from_secs(36));
    match world.to_bridge.make_contiguous() {
        [
            ToBridge::Undelivered {
                user: UserId(2),
                reason: FailReason::Unacked,
                message,
                delivery: DeliveryId::NONE,
            },
        ] => {
            assert_eq!((message.id.0, &message.payload[..]), (5, &b"gift"[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_member_may_send_to_a_room() {
    let mut world = World::new();
    let client = world.login(1);
    world.send(client, 5555, 7, "m", "x");
    match world.hear(client).as_slice() {
        [ServerFrame::SendAck(ack)] => assert_eq!(ack.outcome, Outcome::Failed(FailReason::NotMember)),
        other => panic!("{other:?}"),
    }
    world.send(client, 5555, 7, "", "x");
    match world.hear(client).as_slice() {
        [ServerFrame::Notice { code: NoticeCode::NotMember, .. }] => {}
        other => panic!("{other:?}"),
    }
    assert!(world.submissions().is_empty());
    world.join(client, 7);
    world.send(client, 5555, 7, "m", "x");
    world.send(client, 5555, 0, "n", "the only room is meant");
    let submitted: Vec<_> = world.submissions().iter().map(|it| (it.target, it.class)).collect();
    assert_eq!(submitted, [(Target::Room(ROOM), Class::Lossy); 2]);
    world.say(client, ClientFrame::Leave { room: ROOM });
    world.send(client, 5555, 7, "o", "x");
    assert!(world.submissions().is_empty());
}

#[test]
fn a_session_is_in_so_many_rooms_at_most() {
    let mut world = World::with(|config| config.limits.rooms_max = 2);
    let client = world.login(1);
    for room in 1..=3 {
        world.join(client, room);
    }
    match world.hear(client).as_slice() {
        [_, _, ServerFrame::Notice { code: NoticeCode::RoomLimit, .. }] => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(world.metrics().memberships, 2);
}

#[test]
fn ten_thousand_members_leave_at_random_and_every_broadcast_reaches_just_the_rest() {
    let seed = 20_260_101;
    println!("seed {seed}");
    let mut prng = Prng::new(seed);
    let mut world = World::with(|config| config.limits.address_connections_max = 20_000);
    world.check_every = 500;
    let mut members: Vec<u32> = (0..10_000)
        .map(|user| {
            let client = world.login(user + 1);
            world.join(client, 7);
            world.hear(client);
            client
        })
        .collect();
    for round in 1..=5 {
        for _ in 0..1_000 {
            let client = members.swap_remove(prng.below(members.len() as u64) as usize);
            match prng.below(3) {
                0 => world.reset(client),
                1 => world.say(client, ClientFrame::Logout),
                _ => {
                    world.say(client, ClientFrame::Leave { room: ROOM });
                    world.hear(client);
                }
            }
        }
        world.broadcast(7, round, round % 2 == 0, "m");
        assert_eq!(world.metrics().memberships, members.len() as u64);
        for client in &members {
            let heard: Vec<u64> = world.messages(*client).iter().map(|m| m.id.0).collect();
            assert_eq!(heard, [round], "round {round}");
        }
    }
    assert_eq!(world.metrics().frames_out[2], 9_000 + 8_000 + 7_000 + 6_000 + 5_000);
}

/// A turn that wrote to all members of a large room would read nothing meanwhile, and the clients that wait
/// for an answer would wait behind the room.
#[test]
fn a_large_room_is_written_to_in_turns_and_answers_go_first() {
    const MEMBERS: i64 = 3_000;
    const PER_TURN: usize = 512;
    let mut world = World::with(|config| config.limits.address_connections_max = 4_000);
    world.check_every = 500;
    let members: Vec<u32> = (1..=MEMBERS).map(|user| world.login(user)).collect();
    for member in &members {
        world.join(*member, 7);
        world.hear(*member);
    }
    world.one_turn_at_a_time = true;
    let next_turn = |world: &mut World| world.now += Duration::from_millis(1);
    let have_heard =
        |world: &mut World| -> usize { members.iter().map(|member| world.messages(*member).len()).sum() };
    next_turn(&mut world);
    world.broadcast(7, 1, false, "m");
    assert_eq!(have_heard(&mut world), PER_TURN);

    let (last, one) = (members[2_999], members[2_900]);
    next_turn(&mut world);
    world.say(last, ClientFrame::Heartbeat { echo: b"" });
    let answer = world.hear(last);
    assert!(matches!(answer.as_slice(), [ServerFrame::Heartbeat { .. }, _]), "{answer:?}");
    next_turn(&mut world);
    world.deliver(one, 2, "reliable");
    let heard: Vec<u64> = world.messages(one).iter().map(|message| message.id.0).collect();
    assert_eq!(heard, [1, 2]);
    assert_eq!(have_heard(&mut world), 2 * PER_TURN - 2, "two turns, but for the two that went first");

    // Of what goes first there is more than a turn writes: what is lossy has its share all the same.
    for (at, member) in members[..1_000].iter().enumerate() {
        world.deliver(*member, 10 + at as u64, "reliable");
    }
    assert_eq!(have_heard(&mut world), 0, "the turn has written to as many as it may");
    next_turn(&mut world);
    world.run();
    let heard = members.iter().flat_map(|member| world.messages(*member)).collect::<Vec<_>>();
    let lossy = heard.iter().filter(|message| message.id.0 == 1).count();
    assert_eq!((heard.len(), lossy), (PER_TURN, PER_TURN / 4));
    world.one_turn_at_a_time = false;
    world.run();
    let all = PER_TURN + 1 + 2 + (2 * PER_TURN - 2) + PER_TURN + have_heard(&mut world);
    assert_eq!(all, MEMBERS as usize + 1 + 1_000, "each hears all of it, and once");
}

#[test]
fn a_dense_room_leaves_once_an_interval_and_a_quiet_one_at_once() {
    let mut world = World::with(|config| config.delivery.room_interval_ms = 20);
    let (one, two) = (world.login(1), world.login_as(2, DeviceClass::Phone, Encoding::Json));
    world.join(one, 7);
    world.join(two, 7);
    world.hear(one);
    world.hear(two);
    let writes = world.client(one).writes;
    world.broadcast(7, 1, false, "at once");
    assert_eq!(world.client(one).writes, writes + 1);
    for id in 2..=5 {
        world.pass(Duration::from_millis(3));
        world.broadcast(7, id, false, "waits");
    }
    assert_eq!(world.client(one).writes, writes + 1);
    world.pass(Duration::from_millis(10));
    assert_eq!(world.client(one).writes, writes + 2, "the rest left together");
    world.pass(Duration::from_millis(21));
    world.broadcast(7, 6, false, "at once again");
    assert_eq!(world.client(one).writes, writes + 3);
    for member in [one, two] {
        let order: Vec<u64> = world.messages(member).iter().map(|m| m.id.0).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6]);
    }
    assert_eq!(world.metrics().deliveries_lossy, 12);
}

#[test]
fn what_waits_in_a_room_leaves_before_a_reliable_message_and_before_a_join_is_answered() {
    let mut world = World::with(|config| config.delivery.room_interval_ms = 20);
    let (one, two) = (world.login(1), world.login(2));
    world.join(one, 7);
    world.hear(one);
    for (id, ack_wanted) in [(1, false), (2, false), (3, true), (4, false)] {
        world.broadcast(7, id, ack_wanted, "m");
    }
    let order = |world: &mut World| world.messages(one).iter().map(|m| m.id.0).collect::<Vec<_>>();
    assert_eq!(order(&mut world), [1, 2, 3]);
    world.join(two, 7);
    assert_eq!(world.hear(two), [ServerFrame::Joined { room: ROOM, sequence: SEQUENCE + 4, recovery: None }]);
    assert_eq!(order(&mut world), [4]);
    world.pass(Duration::from_millis(50));
    assert_eq!((world.hear(one), world.hear(two)), (vec![], vec![]), "each message once");
}

#[test]
fn a_room_that_is_deserted_while_messages_wait_harms_nobody() {
    let mut world = World::with(|config| config.delivery.room_interval_ms = 20);
    let (one, two) = (world.login(1), world.login(2));
    world.join(one, 7);
    world.broadcast(7, 1, false, "m");
    world.broadcast(7, 2, false, "m");
    world.reset(one);
    world.join(two, 8);
    world.hear(two);
    world.broadcast(8, 3, false, "m");
    world.broadcast(8, 4, false, "m");
    world.pass(Duration::from_millis(50));
    let heard: Vec<u64> = world.messages(two).iter().map(|m| m.id.0).collect();
    assert_eq!(heard, [3, 4]);
}

/// It was on its way from an owner before while another one's came.
#[test]
fn a_message_that_comes_after_a_newer_one_is_dropped_or_handed_over() {
    let mut world = World::new();
    let (one, two) = (world.login(1), world.login(2));
    for client in [one, two] {
        world.join(client, 7);
        world.hear(client);
    }
    world.to_bridge.clear();
    world.broadcast(7, 5, false, "m");
    world.broadcast(7, 4, false, "late");
    world.broadcast(7, 5, false, "twice");
    assert!(world.to_bridge.is_empty());
    world.broadcast(7, 3, true, "late gift");
    let mut handed: Vec<(i64, FailReason, u64)> = Vec::new();
    for mail in &world.to_bridge {
        let ToBridge::Undelivered { user, reason, message, delivery: DeliveryId::NONE } = mail else {
            panic!("{mail:?}")
        };
        handed.push((user.0, *reason, message.id.0));
    }
    assert_eq!(handed, [(1, FailReason::Unacked, 3), (2, FailReason::Unacked, 3)]);
    world.broadcast(7, 6, false, "m");
    for client in [one, two] {
        let heard: Vec<u64> = world.messages(client).iter().map(|m| m.id.0).collect();
        assert_eq!(heard, [5, 6]);
    }
    assert_eq!(world.metrics().room_late, 3);
}

/// Else every message that follows would come too late.
#[test]
fn a_sequence_from_the_future_is_not_believed() {
    let mut world = World::new();
    let client = world.login(1);
    world.router_answers = false;
    world.join(client, 7);
    world.tell(ToGateway::Joined { app: APP, room: ROOM, sequence: u64::MAX });
    let most = wire::node::sequence_believed_max(world.now.unix_nanos());
    assert_eq!(world.hear(client), [ServerFrame::Joined { room: ROOM, sequence: most, recovery: None }]);

    let mut world = World::new();
    let client = world.login(1);
    world.join(client, 7);
    world.hear(client);
    let future = Message { sequence: u64::MAX, ..common::message(1, Some(7), false, "future") };
    world.tell(ToGateway::Broadcast { message: future, shards: vec![] });
    world.broadcast(7, 2, false, "now");
    let payloads: Vec<_> = world.messages(client).into_iter().map(|message| message.payload).collect();
    assert_eq!(payloads, [&b"now"[..]]);
    assert_eq!(world.metrics().room_late, 1);
}

/// An owner that never answers, and sends.
#[test]
fn what_waits_for_an_owner_is_bounded_by_bytes() {
    let mut world = World::new();
    let client = world.login(1);
    world.router_answers = false;
    world.join(client, 7);
    let almost_half = "x".repeat(7 << 19);
    (1..=3).for_each(|id| world.broadcast(7, id, true, &almost_half));
    assert_eq!(world.metrics().room_late, 1, "the third comes too late");
    let undelivered = world.to_bridge.iter().filter(|mail| matches!(mail, ToBridge::Undelivered { .. }));
    assert_eq!(undelivered.count(), 1);
}

#[test]
fn a_room_whose_owner_is_full_has_no_members() {
    let mut world = World::new();
    let (one, two) = (world.login(1), world.login(2));
    world.router_answers = false;
    [one, two].into_iter().for_each(|client| world.join(client, 7));
    world.tell_from(common::ROUTER_2, ToGateway::Full { app: APP, room: ROOM });
    assert_eq!(world.hear(one), [], "that one is not its owner");
    world.tell(ToGateway::Full { app: APP, room: ROOM });
    for client in [one, two] {
        let heard = world.hear(client);
        assert!(matches!(heard[..], [ServerFrame::Notice { code: NoticeCode::Busy, .. }]), "{heard:?}");
    }
    let metrics = world.metrics();
    assert_eq!((metrics.rooms, metrics.memberships), (0, 0));
    world.router_answers = true;
    world.join(one, 7);
    assert_eq!(world.hear(one), [ServerFrame::Joined { room: ROOM, sequence: SEQUENCE, recovery: None }]);
}
