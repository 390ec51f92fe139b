//! A sender repeats a message until it hears its outcome: one delivery, one answer.

mod common;

use std::time::Duration;

use common::*;
use wire::client::{FailReason, Outcome};
use wire::node::{Submission, Target, ToGateway};
use wire::{AppId, MessageId, RoomId, UserId};

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.bind(B, BOB, PHONE, 2);
    bench
}

#[test]
fn while_it_is_pending_the_latest_session_waits_for_the_answer() {
    let mut bench = bench();
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    assert_eq!(bench.submit(A, 1, to_user(BOB, "m1")), [superseded(A, message.id)]);
    let repeat = bench.last_id;
    let said = bench.submit(C, 8, to_user(BOB, "m1"));
    assert_eq!(said, [superseded(A, repeat)], "the sender has come back elsewhere");
    let last = bench.last_id;
    let said = bench.settle(B, 2, delivery, Outcome::Delivered);
    assert_eq!(said, [send_ack(C, 8, "m1", last, message.id, Outcome::Delivered)]);
    assert_eq!(bench.router.metrics().repeats_pending, 2);
}

#[test]
fn once_it_is_done_the_repeat_gets_the_same_answer() {
    let mut bench = bench();
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    bench.settle(B, 2, delivery, Outcome::Delivered);
    let again = bench.submit(C, 8, to_user(BOB, "m1"));
    assert_eq!(again, [send_ack(C, 8, "m1", bench.last_id, message.id, Outcome::Delivered)]);
    assert_eq!(bench.router.metrics().repeats_done, 1);
}

/// It has been handed over; to deliver it after all would make two of it.
#[test]
fn a_failed_one_stays_failed_when_the_receiver_comes() {
    let mut bench = bench();
    bench.unbind(B, BOB, PHONE, 2);
    let failed = Outcome::Failed(FailReason::Offline);
    let first = bench.submit(A, 1, to_user(BOB, "m1"));
    let id = bench.last_id;
    assert_eq!(first[1..], [send_ack(A, 1, "m1", id, id, failed)]);
    bench.bind(B, BOB, PHONE, 3);
    let said = bench.submit(A, 1, to_user(BOB, "m1"));
    let again = send_ack(A, 1, "m1", bench.last_id, id, failed);
    assert_eq!(said, [again], "the answer, and no second hand-over");
}

#[test]
fn a_room_message_keeps_its_place() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    let first = bench.submit(A, 1, to_room(ROOM, "m1"));
    let [(_, Said::ToGateway(ToGateway::Broadcast { message, .. })), _] = first.as_slice() else {
        panic!("{first:?}")
    };
    bench.submit(A, 1, to_room(ROOM, "m2"));
    let sequenced = Outcome::Sequenced { sequence: base + 1 };
    let said = bench.submit(B, 9, to_room(ROOM, "m1"));
    assert_eq!(said, [send_ack(B, 9, "m1", bench.last_id, message.id, sequenced)]);
    assert_eq!(bench.join(A, ROOM), base + 2, "the repeat took no place");
}

#[test]
fn a_lossy_one_is_delivered_once_without_an_answer() {
    let mut bench = bench();
    assert_eq!(bench.submit(A, 1, lossy(to_user(BOB, "m1"))).len(), 1);
    assert_eq!(bench.submit(A, 1, lossy(to_user(BOB, "m1"))), []);
    bench.submit(A, 1, lossy(to_user(ALICE, "m2")));
    bench.bind(B, ALICE, PHONE, 4);
    assert_eq!(bench.submit(A, 1, lossy(to_user(ALICE, "m2"))).len(), 1, "the first met nobody");
}

#[test]
fn app_sender_target_and_name_tell_messages_apart() {
    let mut bench = Bench::new();
    let base = to_user(UserId(404), "m1");
    let others = [
        base.clone(),
        Submission { app: AppId(2), ..base.clone() },
        Submission { sender: BOB, ..base.clone() },
        Submission { target: Target::User(UserId(405)), ..base.clone() },
        Submission { target: Target::Room(RoomId(404)), ..base.clone() },
        Submission { device: Some(PHONE), ..base.clone() },
        Submission { device: Some(WEB), ..base.clone() },
        to_user(UserId(404), "m2"),
        to_user(UserId(404), "m1 "),
    ];
    bench.join(A, RoomId(404));
    for other in others {
        bench.submit(A, 1, other);
    }
    assert_eq!(bench.router.metrics().repeats_done, 0);
    bench.submit(A, 1, base);
    assert_eq!(bench.router.metrics().repeats_done, 1);
}

/// The window begins with the outcome, however late that comes.
#[test]
fn the_answer_is_remembered_for_the_window() {
    let mut bench = bench();
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    bench.pass(Duration::from_secs(250));
    let said = bench.submit(A, 1, to_user(BOB, "m1"));
    assert_eq!(said, [superseded(A, message.id)], "pending, however old");
    bench.settle(B, 2, delivery, Outcome::Delivered);
    bench.pass(Duration::from_millis(119_999));
    let again = bench.submit(A, 1, to_user(BOB, "m1"));
    assert_eq!(again, [send_ack(A, 1, "m1", bench.last_id, message.id, Outcome::Delivered)]);
    bench.pass(Duration::from_millis(1));
    let (_, anew) = common::delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    assert!(anew.id > message.id);
}

#[test]
fn the_oldest_answer_makes_room_but_never_a_pending_message() {
    let mut bench = Bench::with(|config| config.limits.dedupe_max = 2);
    bench.bind(B, BOB, PHONE, 2);
    let (pending, message) = delivery(bench.submit(A, 1, to_user(BOB, "pending")));
    for name in ["m1", "m2", "m3"] {
        bench.submit(A, 1, to_user(UserId(404), name));
    }
    assert_eq!(bench.router.metrics().remembered, 2);
    assert_eq!(bench.submit(A, 1, to_user(BOB, "pending")), [superseded(A, message.id)]);
    assert_eq!(bench.submit(A, 1, to_user(UserId(404), "m3")).len(), 1, "remembered");
    assert_eq!(bench.submit(A, 1, to_user(UserId(404), "m1")).len(), 2, "forgotten");
    let said = bench.settle(B, 2, pending, Outcome::Failed(FailReason::Unacked));
    assert_eq!(said[0], undelivered(BOB, FailReason::Unacked, &message));
}

/// Its sender was told nothing of the lossy one, and is owed an answer to this one.
#[test]
fn a_reliable_message_is_no_repeat_of_a_lossy_one_of_its_name() {
    let mut bench = bench();
    bench.submit(A, 1, lossy(to_user(BOB, "m1")));
    let (delivery, _) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    let id = bench.last_id;
    let said = bench.settle(B, 2, delivery, Outcome::Delivered);
    assert_eq!(said, [send_ack(A, 1, "m1", id, id, Outcome::Delivered)]);
}

#[test]
fn a_lossy_repeat_takes_no_answer_from_a_reliable_one() {
    let mut bench = bench();
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    assert_eq!(bench.submit(C, 8, lossy(to_user(BOB, "m1"))), []);
    let said = bench.settle(B, 2, delivery, Outcome::Delivered);
    assert_eq!(said, [send_ack(A, 1, "m1", message.id, message.id, Outcome::Delivered)]);
}

/// The sender has come back, and has sent the message again, before the shard of the session that it had
/// gives it to the next owner.
#[test]
fn what_is_given_here_because_owners_changed_takes_no_answer_from_a_newer_session() {
    let mut bench = bench();
    let old = |id| Submission { id: MessageId(id), again: true, ..to_user(BOB, "m1") };
    let new = Submission { id: MessageId(7), ..to_user(BOB, "m1") };
    let (delivery, message) = delivery(bench.submit_as(C, 22, new));
    assert_eq!(bench.submit_as(A, 11, old(1)), [superseded(A, MessageId(1))]);
    assert_eq!(bench.submit_as(A, 11, old(9)), [superseded(A, MessageId(9))], "its clock may be ahead");
    let said = bench.settle(B, 2, delivery, Outcome::Delivered);
    assert_eq!(said, [send_ack(C, 22, "m1", message.id, message.id, Outcome::Delivered)]);
}

#[test]
fn of_two_that_are_given_here_because_owners_changed_the_later_gets_the_answer() {
    for ids in [[1, 2], [2, 1]] {
        let mut bench = bench();
        let given = |id| Submission { id: MessageId(id), again: true, ..to_user(BOB, "m1") };
        let (delivery, message) = delivery(bench.submit_as(A, ids[0], given(ids[0])));
        assert_eq!(bench.submit_as(A, ids[1], given(ids[1])), [superseded(A, MessageId(1))]);
        let said = bench.settle(B, 2, delivery, Outcome::Delivered);
        assert_eq!(said, [send_ack(A, 2, "m1", MessageId(2), message.id, Outcome::Delivered)]);
    }
}
