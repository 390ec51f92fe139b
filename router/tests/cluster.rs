//! Gateways and routers that come and go: what goes with them, and what waits until all agree.

mod common;

use std::time::Duration;

use common::*;
use shard::ShardId;
use wire::client::{FailReason, Message, Outcome};
use wire::node::{
    DeliveryId, FoundSeat, Login, SessionId, Submission, Target, ToBridge, ToDirectory, ToGateway, ToRouter,
};
use wire::{DeviceClass, MessageId, RoomId, UserId};

const CAROL: UserId = UserId(10_003);
const TV: DeviceClass = DeviceClass::Tv;
const NOBODY: UserId = UserId(404);

fn common(shard: ShardId, routers: &[u32]) -> (ShardId, Said) {
    (shard, Said::ToGateway(ToGateway::Common { routers: routers.to_vec(), clock: login(0) }))
}

fn reach(bench: &mut Bench, shard: ShardId, routers: &[u32]) -> Mail {
    bench.tell(shard, ToRouter::Reach { routers: routers.to_vec(), clock: login(0) })
}

/// All gateways have the view 1; A has the view 2 and announces.
fn unsettled() -> Bench {
    unsettled_with(100)
}

fn unsettled_with(pending_max: u32) -> Bench {
    let mut bench = Bench::with(|config| config.limits.pending_max = pending_max);
    for shard in [A, B, C] {
        bench.view(shard, 1, false);
        assert_eq!(bench.view(shard, 1, true), []);
    }
    assert_eq!(bench.router.metrics().unsettled, 0);
    bench.view(A, 2, false);
    assert_eq!(bench.router.metrics().unsettled, 1);
    bench
}

/// The same, where all reach this router alone; and the view in which it owns everything.
fn unsettled_under_one_owner() -> (Bench, u64) {
    let mut bench = unsettled();
    let me = ROUTER.as_u32();
    for shard in [A, B, C] {
        reach(&mut bench, shard, &[me]);
    }
    (bench, wire::node::Owners::new(vec![me]).name())
}

/// All gateways agree, C at last.
fn settle(bench: &mut Bench) -> Mail {
    for shard in [A, B] {
        assert_eq!(bench.view(shard, 2, true), [], "C disagrees");
    }
    assert_eq!(bench.view(C, 2, false), [], "C has yet to announce");
    let said = bench.view(C, 2, true);
    assert_eq!((bench.router.metrics().unsettled, bench.router.metrics().parked), (0, 0));
    said
}

/// A gateway's process dies and its next life links, in one turn in which a message to a session of the life
/// before was dealt with already. That session's name may mean another session in the next life.
#[test]
fn what_was_for_the_life_before_is_not_told_to_the_next() {
    let mut bench = Bench::new();
    bench.bind(C, BOB, PHONE, 5);
    let submission = Submission { id: MessageId(77), ..to_user(BOB, "m1") };
    bench.router.mail(bench.now, C, ToRouter::Submit { session: SessionId(1), submission });
    bench.router.gateway_up(bench.now, C, 1, false, 2_000);
    let said = bench.taken();
    let is_for_a_session = |mail: &Said| match mail {
        Said::ToGateway(mail) => !matches!(mail, ToGateway::Common { .. }),
        _ => false,
    };
    assert!(!said.iter().any(|(to, mail)| *to == C && is_for_a_session(mail)), "{said:?}");
}

/// The one router stood still for half a lease, so every gateway has given its session up and links anew, one
/// after the other. Until they have chosen owners again they say no view; two of them have, and the third,
/// which has BOB, is a moment later.
#[test]
fn a_gateway_that_has_yet_to_say_what_it_goes_by_is_waited_for() {
    let mut bench = Bench::new();
    for shard in [A, B, C] {
        bench.view(shard, 1, false);
        bench.view(shard, 1, true);
    }
    bench.bind(C, BOB, PHONE, 5);
    for shard in [A, B, C] {
        bench.up(shard); // the session before ends, another begins
    }
    for shard in [A, B] {
        bench.view(shard, 1, false);
        bench.view(shard, 1, true);
    }
    assert_eq!(bench.submit(A, 9, to_user(BOB, "m1")), [], "BOB is live at C, which has yet to announce him");
    let seat = wire::node::Seat { device: PHONE, shard: C.as_u32(), login: login(0) };
    bench.found(BOB, &[FoundSeat { seat, session: SessionId(5), incarnation: incarnation(C) }]);
    let said = bench.view(C, 1, false);
    assert!(!said.iter().any(|(to, _)| *to == BRIDGE), "he is not offline: {said:?}");
    bench.announce(C, BOB, PHONE, 5, login(1));
    let said = bench.view(C, 1, true);
    assert!(!said.iter().any(|(to, _)| *to == BRIDGE), "nor then: {said:?}");
    assert_eq!((bench.router.metrics().unsettled, bench.online(BOB)), (0, vec![(PHONE, C)]));
}

/// The messages in some mail and where they go.
fn sent(mail: &Mail) -> Vec<(ShardId, &Message)> {
    let message = |mail| match mail {
        &(
            to,
            Said::ToGateway(
                ToGateway::Deliver { ref message, .. } | ToGateway::Broadcast { ref message, .. },
            ),
        ) => Some((to, message)),
        _ => None,
    };
    mail.iter().filter_map(message).collect()
}

fn names(mail: &Mail) -> Vec<&str> {
    sent(mail).into_iter().map(|(_, message)| message.client_msg_id.as_str()).collect()
}

// -- gateways that go

#[test]
fn a_gateway_that_goes_takes_its_sessions_and_memberships_and_fails_what_waits_for_them() {
    let mut bench = Bench::new();
    bench.bind(B, BOB, PHONE, 1);
    bench.bind(C, BOB, WEB, 2);
    bench.announce(B, CAROL, PHONE, 3, login(7));
    bench.join(B, ROOM);
    bench.join(C, ROOM);
    bench.join(B, RoomId(8));
    let both = deliveries(bench.submit(A, 1, to_user(BOB, "both")));
    let (late, message) = delivery(bench.submit(A, 1, to_user(CAROL, "m")));
    bench.directory.clear();
    let failed = Outcome::Failed(FailReason::Disconnected);
    assert_eq!(
        bench.down(B),
        [
            offline(BOB, PHONE, login(0)),
            offline(CAROL, PHONE, login(7)),
            undelivered(CAROL, FailReason::Disconnected, &message),
            send_ack(A, 1, "m", message.id, message.id, failed),
        ]
    );
    assert_eq!(bench.directory.len(), 2);
    assert_eq!((bench.online(BOB), bench.online(CAROL)), (vec![(WEB, C)], vec![]));
    assert_eq!(bench.router.room_shards(APP, ROOM), [C]);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.rooms, metrics.pending, metrics.gateways, metrics.gateways_lost), (1, 1, 2, 1));
    assert_eq!(bench.settle(B, 3, late, Outcome::Delivered), [], "it is not linked");
    let at_c = both.iter().find(|one| one.to == C).unwrap();
    let said = bench.settle(C, 2, at_c.delivery.unwrap(), Outcome::Delivered);
    let id = at_c.message.id;
    assert_eq!(said, [send_ack(A, 1, "both", id, id, Outcome::Delivered)]);
    assert_eq!(bench.down(B), [], "once");
}

#[test]
fn a_gateway_that_comes_up_again_has_gone_in_between() {
    let mut bench = Bench::new();
    bench.bind(B, BOB, PHONE, 1);
    bench.join(B, ROOM);
    assert_eq!(bench.up(B), [offline(BOB, PHONE, login(0))]);
    assert_eq!((bench.online(BOB), bench.router.metrics().rooms), (vec![], 0));
    assert_eq!(bench.unbind(B, BOB, PHONE, 1), []);
    assert_eq!(bench.bind(B, BOB, PHONE, 1).len(), 2);
}

#[test]
fn mail_of_a_shard_that_is_not_linked_changes_nothing() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    bench.down(C);
    assert_eq!(bench.bind(C, ALICE, PHONE, 1), []);
    assert_eq!(bench.tell(C, ToRouter::Join { app: APP, room: ROOM, sequence: 9 }), []);
    assert_eq!(bench.submit(C, 1, to_user(ALICE, "m")), []);
    assert_eq!(reach(&mut bench, C, &[1]), []);
    assert_eq!(bench.view(C, 2, false), []);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.strangers, metrics.unsettled, metrics.rooms, metrics.pending), (5, 0, 0, 0));
    assert_eq!(bench.online(ALICE), [(PHONE, A)]);
    assert!(bench.directory.len() == 1);
}

// -- what all reach

#[test]
fn what_everybody_reaches_is_told_to_all_when_it_changes_and_else_to_who_asks() {
    let mut bench = Bench::new();
    let to_all = |routers: &[u32]| [A, B, C].map(|shard| common(shard, routers));
    assert_eq!(reach(&mut bench, A, &[1, 2, 3]), to_all(&[1, 2, 3]));
    assert_eq!(reach(&mut bench, B, &[2, 3]), to_all(&[2, 3]));
    assert_eq!(reach(&mut bench, C, &[1, 2, 3, 4]), [common(C, &[2, 3])]);
    assert_eq!(bench.down(B), [A, C].map(|shard| common(shard, &[1, 2, 3])));
    assert_eq!(bench.up(B), [], "it has yet to say what it reaches");
    assert_eq!(bench.router.metrics().common, 3);
}

#[test]
fn a_router_that_leaves_takes_itself_out_and_has_left_when_nobody_needs_it() {
    let mut bench = Bench::new();
    // The other shards of its node leave too.
    let (me, sibling, other) = (ROUTER.as_u32(), ROUTER.as_u32() + 1, ShardId::new(77, 0).as_u32());
    for shard in [A, B, C] {
        reach(&mut bench, shard, &[me, sibling, other]);
    }
    bench.bind(A, ALICE, PHONE, 1);
    bench.join(B, ROOM);
    let (delivery, _) = delivery(bench.submit(B, 1, to_user(ALICE, "m")));
    assert!(!bench.router.has_left());
    bench.router.leave(bench.now);
    assert_eq!(bench.taken(), [A, B, C].map(|shard| common(shard, &[other])));
    assert_eq!(bench.move_away(A, ALICE, PHONE, 1), []);
    bench.leave(B, ROOM);
    assert!(!bench.router.has_left(), "a sender waits");
    bench.settle(A, 1, delivery, Outcome::Delivered);
    assert!(bench.router.has_left());
    bench.view(A, 2, false);
    bench.view(B, 1, true);
    bench.submit(B, 1, to_user(ALICE, "n"));
    assert!(!bench.router.has_left(), "a message is held back");
    bench.pass(Duration::from_millis(5_000));
    assert!(bench.router.has_left());
}

// -- warming up

#[test]
fn a_router_that_has_just_come_up_waits_for_gateways_that_it_has_not_heard_of() {
    let mut bench = Bench::without_gateways(|_| {});
    bench.up(C);
    assert_eq!(bench.submit(C, 1, to_user(BOB, "m")), []);
    assert_eq!(bench.directory, [ToDirectory::LookUp { app: APP, user: BOB }]);
    assert_eq!(bench.view(C, 1, true), [], "others may come");
    assert_eq!(bench.pass(Duration::from_millis(1_999)), []);
    let offline = Outcome::Failed(FailReason::Offline);
    let said = bench.pass(Duration::from_millis(1));
    assert_eq!(said[1..], [send_ack(C, 1, "m", bench.last_id, bench.last_id, offline)]);
    assert!(matches!(&said[0].1, Said::ToBridge(ToBridge::Undelivered { user: BOB, .. })));
    assert_eq!((bench.router.metrics().unsettled, bench.router.poll_timeout()), (0, None));
}

#[test]
fn a_router_of_a_gateways_own_process_does_not_wait() {
    let mut bench = Bench::without_gateways(|_| {});
    bench.up(A);
    assert_eq!(bench.submit(A, 1, to_user(BOB, "m")).len(), 2);
    assert_eq!(bench.router.metrics().unsettled, 0);
}

// -- disagreement

#[test]
fn a_message_to_a_user_that_is_not_known_yet_waits_for_the_announcement() {
    let mut bench = unsettled();
    bench.bind(B, ALICE, PHONE, 1);
    assert_eq!(sent(&bench.submit(A, 1, to_user(ALICE, "known"))).len(), 1);
    for name in ["m1", "m2", "m3"] {
        assert_eq!(bench.submit(A, 1, to_user(BOB, name)), []);
    }
    assert_eq!(bench.router.metrics().parked, 3);
    let looked_up = bench.directory.iter().filter(|it| matches!(it, ToDirectory::LookUp { .. }));
    assert_eq!(looked_up.count(), 1, "once");
    let said = bench.announce(C, BOB, PHONE, 2, login(1));
    assert_eq!(said[..2], [online(BOB, PHONE, login(1)), bound(C, 2, login(1))]);
    assert_eq!(names(&said[2..].to_vec()), ["m1", "m2", "m3"], "in the order they came");
    assert_eq!(names(&bench.submit(A, 1, to_user(BOB, "m4"))), ["m4"]);
    assert_eq!(settle(&mut bench), []);
}

// -- a user with several devices

/// Of BOB, B has announced a phone, and C has a web session that it has yet to announce.
fn known_in_part() -> Bench {
    let mut bench = unsettled();
    bench.announce(B, BOB, PHONE, 1, login(1));
    bench
}

fn delivered_to(mail: &Mail) -> Vec<(ShardId, &str)> {
    sent(mail).into_iter().map(|(to, message)| (to, message.client_msg_id.as_str())).collect()
}

#[test]
fn a_device_that_is_announced_later_gets_what_others_were_given_meanwhile() {
    let mut bench = known_in_part();
    let (first, _) = delivery(bench.submit(A, 9, to_user(BOB, "m1")));
    let (second, _) = delivery(bench.submit(A, 9, to_user(BOB, "m2")));
    let id = bench.last_id;
    let said = bench.settle(B, 1, first, Outcome::Delivered);
    assert_eq!(said.len(), 1, "its sender hears so: {said:?}");
    let said = bench.announce(C, BOB, WEB, 2, login(2));
    assert_eq!(delivered_to(&said), [(C, "m1"), (C, "m2")], "in the order they came");
    assert_eq!(bench.announce(C, BOB, WEB, 2, login(2)), [bound(C, 2, login(2))], "once");
    let failed = Outcome::Failed(FailReason::Disconnected);
    assert_eq!(bench.settle(B, 1, second, failed), [], "the other may ack it");
    let said = bench.settle(C, 2, second, Outcome::Delivered);
    assert_eq!(said, [send_ack(A, 9, "m2", id, id, Outcome::Delivered)]);
    assert_eq!(bench.settle(C, 2, DeliveryId::NONE, Outcome::Delivered), [], "that of the first");
    settle(&mut bench);
    bench.view(A, 3, false);
    let said = bench.announce(A, BOB, TV, 3, login(3));
    assert_eq!(sent(&said), [], "what is settled is not given again");
}

/// Its link was lost and is back before gateways agree.
#[test]
fn a_device_that_acked_a_message_and_is_announced_again_does_not_get_it_again() {
    let mut bench = known_in_part();
    let (first, _) = delivery(bench.submit(A, 9, to_user(BOB, "m1")));
    bench.settle(B, 1, first, Outcome::Delivered);
    bench.submit(A, 9, to_user(BOB, "m2"));
    bench.down(B);
    bench.up(B);
    let said = bench.announce(B, BOB, PHONE, 1, login(1));
    assert_eq!(delivered_to(&said), [(B, "m2")]);
}

/// It moved to another owner and back. The message may be on its way to it, and is not to be written twice.
#[test]
fn a_device_that_is_announced_again_may_have_what_it_is_given_again() {
    let mut bench = known_in_part();
    bench.submit(A, 9, to_user(BOB, "m"));
    bench.unbind(B, BOB, PHONE, 1);
    let said = bench.announce(B, BOB, PHONE, 1, login(2));
    let given: Vec<bool> = deliveries(said[2..].to_vec()).iter().map(|given| given.again).collect();
    assert_eq!(given, [true], "its gateway looks whether it has the message");
}

#[test]
fn what_a_device_that_is_known_fails_waits_for_the_others() {
    let mut bench = known_in_part();
    let (delivery, _) = delivery(bench.submit(A, 9, to_user(BOB, "m")));
    let id = bench.last_id;
    assert_eq!(bench.settle(B, 1, delivery, Outcome::Failed(FailReason::Unacked)), []);
    assert_eq!(bench.router.metrics().parked, 1);
    bench.unbind(B, BOB, PHONE, 1);
    let said = bench.announce(C, BOB, WEB, 2, login(2));
    assert_eq!(delivered_to(&said), [(C, "m")]);
    let (_, Said::ToGateway(ToGateway::Deliver { delivery: Some(delivery), .. })) = said[2] else {
        panic!("{said:?}")
    };
    let said = bench.settle(C, 2, delivery, Outcome::Delivered);
    assert_eq!(said, [send_ack(A, 9, "m", id, id, Outcome::Delivered)]);

    let (delivery, _) = common::delivery(bench.submit(A, 9, to_user(BOB, "n")));
    let id = bench.last_id;
    assert_eq!(bench.settle(C, 2, delivery, Outcome::Failed(FailReason::Disconnected)), []);
    bench.unbind(C, BOB, WEB, 2);
    let said = settle(&mut bench);
    let offline = Outcome::Failed(FailReason::Offline);
    assert_eq!(said[1..], [send_ack(A, 9, "n", id, id, offline)], "there was no other");
}

/// The shard of its sender may be behind, and have the message for the owner that the whole user is with
/// soon.
#[test]
fn a_message_to_a_user_that_is_moving_away_waits() {
    let mut bench = Bench::new();
    bench.bind(B, BOB, PHONE, 1);
    bench.bind(C, BOB, WEB, 2);
    for shard in [A, B, C] {
        bench.view(shard, 1, true);
    }
    bench.view(B, 2, false);
    assert_eq!(bench.submit(A, 9, to_user(BOB, "m1")).len(), 2, "both are here");
    bench.move_away(B, BOB, PHONE, 1);
    assert_eq!(bench.submit(A, 9, to_user(BOB, "m2")), []);
    let (id, target) = (bench.last_id, Target::User(BOB));
    bench.tell(A, ToRouter::Withdraw { app: APP, target, id });
    assert_eq!(bench.router.metrics().parked, 0);
}

#[test]
fn what_is_held_back_for_a_user_is_not_overtaken() {
    let mut bench = Bench::new();
    bench.bind(B, BOB, PHONE, 1);
    bench.bind(C, BOB, WEB, 2);
    for shard in [A, B, C] {
        bench.view(shard, 1, true);
    }
    bench.view(B, 2, false);
    bench.move_away(B, BOB, PHONE, 1);
    bench.announce(A, BOB, PHONE, 3, login(9));
    assert_eq!(bench.submit(A, 9, to_user(BOB, "m1")), [], "the web session is about to leave");
    bench.unbind(C, BOB, WEB, 2);
    assert_eq!(bench.submit(A, 9, to_user(BOB, "m2")), [], "after the first");
    let said = settle(&mut bench);
    assert_eq!(delivered_to(&said), [(A, "m1"), (A, "m2")]);
}

#[test]
fn a_user_that_was_known_when_all_agreed_is_known_in_full() {
    let mut bench = Bench::new();
    bench.bind(B, BOB, PHONE, 1);
    for shard in [A, B, C] {
        bench.view(shard, 1, true);
    }
    bench.view(A, 2, false);
    let (delivery, _) = delivery(bench.submit(A, 9, to_user(BOB, "m")));
    bench.bind(C, BOB, WEB, 2);
    let said = bench.settle(B, 1, delivery, Outcome::Failed(FailReason::Unacked));
    assert_eq!(said.len(), 2, "handed over: {said:?}");
}

#[test]
fn what_finds_no_room_to_be_kept_for_other_devices_waits() {
    let mut bench = unsettled_with(1);
    bench.announce(B, BOB, PHONE, 1, login(1));
    let (first, _) = delivery(bench.submit(A, 9, to_user(BOB, "m1")));
    bench.settle(B, 1, first, Outcome::Delivered);
    assert_eq!(bench.submit(A, 9, to_user(BOB, "m2")), []);
    assert_eq!(delivered_to(&settle(&mut bench)), [(B, "m2")]);
}

#[test]
fn what_is_held_back_is_decided_once_all_agree() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(NOBODY, "m"));
    let id = bench.last_id;
    bench.submit(A, 1, lossy(to_user(NOBODY, "l")));
    let said = settle(&mut bench);
    let offline = Outcome::Failed(FailReason::Offline);
    assert_eq!(said[1..], [send_ack(A, 1, "m", id, id, offline)]);
    assert_eq!(bench.router.metrics().lossy_offline, 1);
    assert_eq!(bench.submit(A, 1, to_user(NOBODY, "n")).len(), 2, "nothing waits any more");
}

#[test]
fn a_gateway_that_goes_disagrees_no_more() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(NOBODY, "m"));
    bench.view(A, 2, true);
    bench.view(B, 2, true);
    let said = bench.down(C);
    assert_eq!((said.len(), bench.router.metrics().unsettled), (2, 0));
}

#[test]
fn no_agreement_holds_nothing_back_for_ever() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(NOBODY, "m"));
    bench.pass(Duration::from_millis(1_000));
    assert_eq!(bench.view(B, 2, false), [], "another view takes its time");
    bench.pass(Duration::from_millis(2_000));
    assert_eq!(bench.view(B, 2, false), [], "the same takes no more");
    assert_eq!(bench.pass(Duration::from_millis(2_999)), []);
    assert_eq!(bench.pass(Duration::from_millis(1)).len(), 2);
    assert_eq!(bench.router.metrics().unsettled, 0);
}

#[test]
fn a_room_that_may_have_members_elsewhere_waits_and_one_known_before_does_not() {
    let mut bench = Bench::new();
    let old = RoomId(8);
    bench.join(B, old);
    bench.view(B, 1, true);
    bench.view(C, 1, true);
    bench.view(A, 2, false);
    assert_eq!(names(&bench.submit(B, 1, to_room(old, "old"))), ["old"]);
    bench.join(A, ROOM);
    assert_eq!(bench.submit(A, 1, to_room(ROOM, "m1")), []);
    assert_eq!(bench.submit(A, 1, to_room(ROOM, "m2")), []);
    assert_eq!(bench.submit(A, 1, to_room(RoomId(9), "unknown")), []);
    let unknown = bench.last_id;
    bench.join(C, ROOM);
    bench.view(A, 2, true);
    bench.view(B, 2, true);
    let said = bench.view(C, 2, true);
    let to: Vec<_> = sent(&said).iter().map(|(to, it)| (*to, it.client_msg_id.as_str())).collect();
    assert_eq!(to, [(A, "m1"), (C, "m1"), (A, "m2"), (C, "m2")]);
    let busy = Outcome::Failed(FailReason::Busy);
    assert!(said.contains(&send_ack(A, 1, "unknown", unknown, MessageId(0), busy)));
}

#[test]
fn a_message_that_another_owner_gets_is_forgotten_here() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(NOBODY, "m1"));
    let first = bench.last_id;
    bench.submit(A, 1, to_user(NOBODY, "m2"));
    let second = bench.last_id;
    let target = Target::User(NOBODY);
    let withdraw = |id| ToRouter::Withdraw { app: APP, target, id };
    assert_eq!(bench.tell(B, withdraw(second)), [], "it is not of that shard");
    assert_eq!(bench.router.metrics().parked, 2);
    assert_eq!(bench.tell(A, withdraw(first)), []);
    assert_eq!(bench.tell(A, withdraw(first)), []);
    assert_eq!(bench.router.metrics().parked, 1);
    let said = settle(&mut bench);
    let offline = Outcome::Failed(FailReason::Offline);
    assert_eq!(said[1..], [send_ack(A, 1, "m2", second, second, offline)]);
}

/// If it lives, it gives them to other owners; here they would come late, or be handed over.
#[test]
fn what_is_held_back_goes_with_the_shard_that_submitted_it() {
    let mut bench = unsettled();
    bench.submit(B, 1, to_user(NOBODY, "m"));
    bench.submit(B, 1, lossy(to_room(ROOM, "")));
    bench.submit(A, 1, to_user(NOBODY, "n"));
    bench.down(B);
    assert_eq!(bench.router.metrics().parked, 1);
}

/// If it finds other owners, what it sends them is not to come before this. It keeps no copy of what has no
/// answer.
#[test]
fn what_is_held_back_and_has_no_answer_goes_with_the_connection() {
    let mut bench = unsettled();
    bench.submit(B, 1, lossy(to_room(ROOM, "")));
    bench.submit(B, 1, to_user(NOBODY, "m"));
    bench.submit(A, 1, lossy(to_room(ROOM, "")));
    bench.router.gateway_cut(B);
    assert_eq!(bench.router.metrics().parked, 2);
    bench.router.gateway_cut(B);
    assert_eq!(bench.router.metrics().parked, 2);
}

#[test]
fn so_many_are_held_back_at_most() {
    let mut bench = unsettled_with(1);
    bench.submit(A, 1, to_user(NOBODY, "m1"));
    let busy = Outcome::Failed(FailReason::Busy);
    let said = bench.submit(A, 1, to_user(BOB, "m2"));
    assert_eq!(said, [send_ack(A, 1, "m2", bench.last_id, MessageId(0), busy)]);
    let said = bench.submit(A, 1, to_user(BOB, ""));
    assert!(
        matches!(&said[0].1, Said::ToBridge(ToBridge::Undelivered { user: BOB, .. })),
        "who cannot send again has it handed over: {said:?}"
    );
    assert_eq!(said[1..], [send_ack(A, 1, "", bench.last_id, bench.last_id, busy)]);
    let said = bench.submit(A, 1, lossy(to_user(BOB, "")));
    assert!(!said.iter().any(|(to, _)| *to == BRIDGE), "a lossy one is not: {said:?}");
    assert_eq!(bench.router.metrics().busy, 3);
}

#[test]
fn a_repeat_of_what_is_held_back_is_delivered_once() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(BOB, "m"));
    let first = bench.last_id;
    bench.submit(C, 9, to_user(BOB, "m"));
    let said = bench.announce(B, BOB, PHONE, 2, login(1));
    assert_eq!(names(&said), ["m"]);
    assert_eq!(said[3..], [superseded(A, first)]);
}

#[test]
fn a_receivers_shard_hears_that_it_may_have_the_message_already() {
    let mut bench = Bench::new();
    bench.bind(B, BOB, PHONE, 2);
    let again = Submission { again: true, ..to_user(BOB, "m") };
    assert!(deliveries(bench.submit(A, 1, again))[0].again);
    assert!(!deliveries(bench.submit(A, 1, to_user(BOB, "n")))[0].again);
}

/// A gateway that changes its view for ever has what it submits itself held back no longer than others.
#[test]
fn views_that_never_agree_hold_nothing_back_for_ever() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(BOB, "m"));
    let settle_ms = u64::from(router::Limits::default().settle_ms);
    let mut said = Mail::new();
    for view in 0..50 {
        said.extend(bench.view(B, 1_000 + view, false));
        said.extend(bench.pass(Duration::from_millis(settle_ms / 10)));
    }
    let is_out =
        |(_, mail): &(ShardId, Said)| matches!(mail, Said::ToBridge(ToBridge::Undelivered { user: BOB, .. }));
    assert!(said.iter().any(is_out), "{said:?}");
}

// -- the directory

fn found(shard: ShardId, session: u64, device: DeviceClass, login: Login) -> FoundSeat {
    let seat = wire::node::Seat { device, shard: shard.as_u32(), login };
    FoundSeat { seat, session: SessionId(session), incarnation: incarnation(shard) }
}

#[test]
fn what_the_directory_finds_is_as_good_as_announced() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(BOB, "m"));
    let seats = vec![found(B, 2, PHONE, login(1)), found(C, 3, WEB, login(2))];
    let said = bench.found(BOB, &seats);
    let mut to: Vec<ShardId> = sent(&said).iter().map(|(to, _)| *to).collect();
    to.sort();
    assert_eq!(to, [B, C], "every session gets it");
    let stamp = login(2);
    assert_eq!(bench.announce(B, BOB, PHONE, 2, stamp), [online(BOB, PHONE, stamp), bound(B, 2, stamp)]);
    assert_eq!(bench.router.metrics().parked, 0);
}

#[test]
fn what_the_directory_finds_of_another_life_or_too_late_means_nothing() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(BOB, "m"));
    let earlier = FoundSeat { incarnation: 1, ..found(B, 2, PHONE, login(1)) };
    let elsewhere = found(ShardId::new(77, 0), 2, PHONE, login(1));
    let tell = |bench: &mut Bench, seats: &[FoundSeat]| bench.found(BOB, seats);
    assert_eq!(tell(&mut bench, &[earlier, elsewhere]), []);
    assert_eq!(bench.router.metrics().parked, 1);
    settle(&mut bench);
    assert_eq!(tell(&mut bench, &[found(B, 2, PHONE, login(1))]), [], "nothing waits for it");
    assert_eq!(bench.online(BOB), []);
}

/// The directory was behind: the session had ended before this router became its owner.
#[test]
fn what_the_directory_found_and_nobody_announced_is_forgotten_once_all_agree() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(BOB, "m"));
    let seats = vec![found(B, 2, PHONE, login(1)), found(C, 3, WEB, login(2)), found(C, 4, TV, login(2))];
    bench.found(BOB, &seats);
    bench.announce(B, BOB, PHONE, 2, login(2));
    bench.bind_at(A, BOB, TV, 9, login(3), true);
    assert_eq!(settle(&mut bench), [], "its owner, if it lives, tells");
    assert_eq!(bench.online(BOB), [(PHONE, B), (TV, A)]);
    bench.view(A, 3, false);
    assert_eq!(bench.pass(Duration::from_secs(2)), [], "no guess is left");
}

#[test]
fn what_the_directory_found_and_nobody_announced_to_its_owner_is_told_offline() {
    let (mut bench, view) = unsettled_under_one_owner();
    bench.submit(A, 1, to_user(BOB, "m"));
    let seats = vec![found(C, 3, WEB, login(2))];
    bench.found(BOB, &seats);
    for shard in [A, B] {
        assert_eq!(bench.view(shard, view, true), []);
    }
    assert_eq!(bench.view(C, view, true), [offline(BOB, WEB, login(2))]);
}

/// Another router may own it all the while, as the shard goes by that one. It has to hear what was told.
#[test]
fn a_shard_that_is_back_hears_that_a_session_of_the_directory_was_told_offline() {
    let (mut bench, view) = unsettled_under_one_owner();
    bench.submit(A, 1, to_user(BOB, "m"));
    bench.found(BOB, &[found(C, 3, WEB, login(2))]);
    for shard in [A, B] {
        bench.view(shard, view, true);
    }
    let said = bench.down(C);
    assert!(said.contains(&offline(BOB, WEB, login(2))), "{said:?}");
    let ended = (C, Said::ToGateway(ToGateway::Ended { session: SessionId(3), login: login(2) }));
    assert!(bench.up(C).contains(&ended));
    bench.down(C);
    assert!(!bench.up(C).contains(&ended), "it was told");
}

#[test]
fn what_the_directory_found_stays_when_only_the_time_is_over() {
    let mut bench = unsettled();
    bench.submit(A, 1, to_user(BOB, "m"));
    let seats = vec![found(B, 2, PHONE, login(1)), found(C, 3, WEB, login(2))];
    bench.found(BOB, &seats);
    assert_eq!(bench.pass(Duration::from_secs(2)), []);
    assert_eq!(bench.online(BOB), [(PHONE, B), (WEB, C)], "C may be about to announce it");
    bench.announce(C, BOB, WEB, 3, login(3));
    for shard in [A, B] {
        assert_eq!(bench.view(shard, 2, true), []);
    }
    assert_eq!(bench.view(C, 2, true), []);
    assert_eq!(bench.online(BOB), [(WEB, C)]);
}

/// It is that owner's to end: this one would end a session that lives, as the bridge sees it, under the
/// other's stamp.
#[test]
fn a_stamp_that_another_owner_gave_is_not_taken_from_the_directory() {
    let mut bench = unsettled();
    bench.announce(B, BOB, PHONE, 2, login(1));
    bench.submit(A, 1, Submission { device: Some(WEB), ..to_user(BOB, "m") });
    assert_eq!(bench.router.metrics().parked, 1);
    bench.found(BOB, &[found(B, 2, PHONE, login(5))]);
    assert_eq!(bench.unbind(B, BOB, PHONE, 2), [offline(BOB, PHONE, login(1))]);
}
