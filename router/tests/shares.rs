//! What one sender, receiver or room has of what waits, and what the others keep.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use wire::client::{FailReason, Outcome};
use wire::node::{DeliveryId, SessionId, Submission, Taken, Target, ToBridge, ToGateway};
use wire::{RoomId, UserId};

const CAROL: UserId = UserId(10_003);
const DAVE: UserId = UserId(10_004);
const BUSY: Outcome = Outcome::Failed(FailReason::Busy);

/// ALICE and CAROL send from A; BOB and DAVE are on B.
fn bench(change: impl FnOnce(&mut router::Limits)) -> Bench {
    let mut bench = Bench::with(|config| change(&mut config.limits));
    bench.bind(A, ALICE, PHONE, 1);
    bench.bind(A, CAROL, PHONE, 2);
    bench.bind(B, BOB, PHONE, 3);
    bench.bind(B, DAVE, PHONE, 4);
    bench
}

fn of(sender: UserId, submission: Submission) -> Submission {
    Submission { sender, ..submission }
}

/// Whether a sender was told `busy`, and nothing else happened.
fn is_busy(said: &Mail) -> bool {
    match said.as_slice() {
        [(_, Said::ToGateway(ToGateway::SendAck { ack, .. }))] => ack.outcome == BUSY,
        _ => false,
    }
}

/// Submits so many messages with names of their own; how many were not told `busy`.
fn taken(bench: &mut Bench, session: u64, submission: &Submission, count: usize) -> usize {
    let shard = A;
    let mut taken = 0;
    for n in 0..count {
        let name = format!("{}-{:?}-{n}", submission.sender.0, submission.target);
        let named = Submission { client_msg_id: to_user(BOB, &name).client_msg_id, ..submission.clone() };
        taken += usize::from(!is_busy(&bench.submit(shard, session, named)));
    }
    taken
}

#[test]
fn a_sender_fills_its_share_of_what_waits_and_no_other_notices() {
    let mut bench = bench(|limits| (limits.pending_max, limits.pending_sender_max) = (100, 10));
    assert_eq!(taken(&mut bench, 1, &to_user(BOB, ""), 20), 10);
    assert_eq!(taken(&mut bench, 1, &to_user(DAVE, ""), 20), 0, "nor to anybody else");
    assert_eq!(taken(&mut bench, 2, &of(CAROL, to_user(BOB, "")), 10), 10);
}

#[test]
fn what_waits_for_one_receiver_takes_no_place_of_others() {
    let mut bench = bench(|limits| (limits.pending_max, limits.pending_receiver_max) = (100, 10));
    assert_eq!(taken(&mut bench, 1, &to_user(BOB, ""), 20), 10);
    assert_eq!(taken(&mut bench, 2, &of(CAROL, to_user(BOB, "")), 5), 0, "the share is the receiver's");
    assert_eq!(taken(&mut bench, 1, &to_user(DAVE, ""), 10), 10);
}

#[test]
fn a_receiver_has_a_share_of_bytes_too() {
    let mut bench = bench(|limits| limits.pending_receiver_bytes_max = 1_000);
    let long = |receiver| Submission { payload: Bytes::from_static(&[b'x'; 400]), ..to_user(receiver, "") };
    assert_eq!(taken(&mut bench, 1, &long(BOB), 5), 2);
    assert_eq!(taken(&mut bench, 1, &long(DAVE), 2), 2);
}

#[test]
fn what_is_settled_gives_its_place_back() {
    let mut bench = bench(|limits| (limits.pending_sender_max, limits.pending_receiver_max) = (1, 1));
    for n in 0..50 {
        let (delivery, _) = delivery(bench.submit(A, 1, to_user(BOB, &n.to_string())));
        assert!(is_busy(&bench.submit(A, 1, to_user(BOB, "more"))));
        bench.settle(B, 3, delivery, Outcome::Delivered);
    }
    let (_, message) = delivery(bench.submit(A, 1, to_user(BOB, "last")));
    bench.pass(Duration::from_secs(10_800));
    assert_eq!(bench.router.metrics().expired, 1);
    assert!(!is_busy(&bench.submit(A, 1, to_user(BOB, "after"))), "{message:?} gave way");
}

/// It counts in the share of its first sender.
#[test]
fn a_repeat_by_another_session_leaves_the_shares_as_they_are() {
    let mut bench = bench(|limits| limits.pending_sender_max = 1);
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "m")));
    let by_operator = Submission { id: message.id, ..to_user(BOB, "m") };
    bench.submit(C, SessionId::CONTROL.0, by_operator);
    bench.settle(B, 3, delivery, Outcome::Delivered);
    assert!(!is_busy(&bench.submit(A, 1, to_user(BOB, "n"))));
}

#[test]
fn operators_have_half_and_leave_half() {
    let mut bench = bench(|limits| limits.pending_max = 10);
    let control = SessionId::CONTROL.0;
    assert_eq!(taken(&mut bench, control, &to_user(BOB, ""), 10), 5);
    assert_eq!(taken(&mut bench, 1, &to_user(DAVE, ""), 10), 5, "whatever sender a push names");
}

#[test]
fn one_without_a_name_is_handed_over_when_its_sender_has_its_share() {
    let mut bench = bench(|limits| limits.pending_sender_max = 1);
    bench.submit(A, 1, to_user(BOB, "m1"));
    let said = bench.submit(A, 1, to_user(DAVE, ""));
    assert!(matches!(&said[0].1, Said::ToBridge(ToBridge::Undelivered { user: DAVE, .. })), "{said:?}");
    assert_eq!(said[1..], [send_ack(A, 1, "", bench.last_id, bench.last_id, BUSY)]);
}

/// The deliveries under which undelivered messages wait for the bridge.
fn handed(said: &Mail) -> Vec<DeliveryId> {
    let delivery = |(_, mail): &(shard::ShardId, Said)| match mail {
        Said::ToBridge(ToBridge::Undelivered { delivery, .. }) if *delivery != DeliveryId::NONE => {
            Some(*delivery)
        }
        _ => None,
    };
    said.iter().filter_map(delivery).collect()
}

#[test]
fn a_sender_whose_messages_wait_for_the_bridge_takes_no_place_of_others() {
    let mut bench = bench(|limits| limits.pending_sender_max = 3);
    bench.router.expect_bridge();
    let mut waiting = Vec::new();
    for n in 0..10 {
        waiting.extend(handed(&bench.submit(A, 1, to_user(UserId(500 + n), "m"))));
    }
    assert_eq!(waiting.len(), 3, "the others are told at once that they failed");
    let said = bench.submit(A, 2, of(CAROL, to_user(UserId(500), "m")));
    let [its] = handed(&said)[..] else { panic!("{said:?}") };
    bench.router.kept(bench.now, its, Taken::Ok);
    let said = bench.taken();
    assert!(
        matches!(&said[..], [(_, Said::ToGateway(ToGateway::SendAck { ack, .. }))] if ack.outcome == Outcome::Stored)
    );
}

#[test]
fn what_is_held_back_is_shared_among_senders_and_targets() {
    let mut bench = bench(|limits| {
        (limits.pending_max, limits.pending_sender_max, limits.pending_receiver_max) = (100, 10, 6);
    });
    for shard in [A, B, C] {
        bench.view(shard, 1, true);
    }
    bench.view(A, 2, false);
    let absent = |n: i64| to_user(UserId(600 + n), "");
    assert_eq!(taken(&mut bench, 1, &absent(1), 20), 6, "for one target");
    assert_eq!(taken(&mut bench, 1, &absent(2), 20), 4, "of one sender");
    assert_eq!(taken(&mut bench, 2, &of(CAROL, to_room(RoomId(9), "")), 20), 6, "a room is a target too");
    assert_eq!(bench.router.metrics().parked, 16);
    for shard in [A, B, C] {
        bench.view(shard, 2, true);
    }
    assert_eq!(bench.router.metrics().parked, 0);
    bench.view(A, 3, false);
    assert_eq!(taken(&mut bench, 1, &absent(7), 20), 6, "what was let go gave its place back");
}

#[test]
fn a_sender_that_sends_much_is_forgotten_by_itself() {
    let mut bench = bench(|limits| (limits.dedupe_max, limits.dedupe_sender_max) = (1_000, 10));
    let absent = UserId(404);
    let first = of(CAROL, to_user(absent, "first"));
    bench.submit(A, 2, first.clone());
    for n in 0..2_000 {
        bench.submit(A, 1, to_user(absent, &n.to_string()));
    }
    assert_eq!(bench.router.metrics().remembered, 11);
    let repeats = bench.router.metrics().repeats_done;
    bench.submit(A, 2, first);
    bench.submit(A, 1, to_user(absent, "1990"));
    assert_eq!(bench.router.metrics().repeats_done, repeats + 2);
    bench.submit(A, 1, to_user(absent, "1989"));
    assert_eq!(bench.router.metrics().repeats_done, repeats + 2, "its own oldest are gone");
}

// -- rooms

/// How many of so many reliable messages of ten members a room took.
fn placed(bench: &mut Bench, session: u64, room: RoomId, count: usize, payload: usize) -> usize {
    let is_placed = |said: Mail| {
        said.iter().any(|(_, mail)| matches!(mail, Said::ToGateway(ToGateway::Broadcast { .. })))
    };
    let named = |n: usize| Submission {
        sender: UserId(1_000 + n as i64 % 10),
        payload: vec![0; payload].into(),
        ..submission(Target::Room(room), &format!("{session}-{n}"))
    };
    (0..count).filter(|n| is_placed(bench.submit(A, session, named(*n)))).count()
}

#[test]
fn a_room_gives_reliable_messages_at_a_rate_that_members_can_follow() {
    let mut bench = bench(|limits| (limits.room_messages_per_second, limits.room_burst) = (10, 50));
    bench.join(A, ROOM);
    bench.join(B, RoomId(8));
    assert_eq!(placed(&mut bench, 1, ROOM, 60, 100), 50);
    assert!(is_busy(&bench.submit(A, 1, to_room(ROOM, "more"))));
    assert_eq!(placed(&mut bench, 1, RoomId(8), 60, 100), 50, "another room has its own");
    assert!(
        !is_busy(&bench.submit(A, 1, lossy(to_room(ROOM, "lossy")))),
        "lossy ones are dropped where they must be"
    );
    bench.pass(Duration::from_millis(300));
    assert_eq!(placed(&mut bench, 5, ROOM, 10, 100), 3);
}

#[test]
fn a_member_that_says_much_leaves_a_part_of_its_rooms_rate_to_others() {
    let mut bench = bench(|limits| (limits.room_messages_per_second, limits.room_burst) = (100, 500));
    bench.join(A, ROOM);
    let of = |user: i64, n: i64| Submission { sender: UserId(user), ..to_room(ROOM, &format!("{user}-{n}")) };
    for tenth in 0..50 {
        for n in 0..100 {
            bench.submit(A, 1, of(1, 100 * tenth + n));
        }
        assert!(!is_busy(&bench.submit(A, 2, of(2, tenth))), "after {tenth} tenths of a second");
        bench.pass(Duration::from_millis(100));
    }
    assert!(bench.router.metrics().busy > 4_000);
}

#[test]
fn long_messages_take_more_of_a_rooms_rate() {
    let mut bench = bench(|limits| (limits.room_messages_per_second, limits.room_burst) = (10, 50));
    bench.join(A, ROOM);
    assert_eq!(placed(&mut bench, 1, ROOM, 60, 4 * 1024), 10);
}

#[test]
fn what_operators_push_is_not_held_up_by_a_rooms_rate_nor_takes_of_it() {
    let mut bench = bench(|limits| (limits.room_messages_per_second, limits.room_burst) = (1, 5));
    bench.join(A, ROOM);
    assert_eq!(placed(&mut bench, SessionId::CONTROL.0, ROOM, 20, 100), 20);
    assert_eq!(placed(&mut bench, 1, ROOM, 20, 100), 5);
    assert_eq!(placed(&mut bench, SessionId::CONTROL.0, ROOM, 20, 101), 0, "repeats");
}

/// A refused message has no place in the room, so members see no gap.
#[test]
fn a_message_that_is_refused_takes_no_sequence() {
    let mut bench = bench(|limits| (limits.room_messages_per_second, limits.room_burst) = (1, 1));
    bench.join(A, ROOM);
    let sequence = |said: Mail| match &said[0].1 {
        Said::ToGateway(ToGateway::Broadcast { message, .. }) => message.sequence,
        other => panic!("{other:?}"),
    };
    let first = sequence(bench.submit(A, 1, to_room(ROOM, "m1")));
    assert!(is_busy(&bench.submit(A, 1, to_room(ROOM, "m2"))));
    bench.pass(Duration::from_secs(1));
    assert_eq!(sequence(bench.submit(A, 1, to_room(ROOM, "m2"))), first + 1, "busy is not remembered");
}
