//! What nobody acked goes to the bridge: whether that keeps it is what the sender hears.

mod common;

use std::time::Duration;

use common::*;
use router::Limits;
use shard::ShardId;
use wire::client::{FailReason, Message, Outcome};
use wire::node::{DeliveryId, Submission, Taken, Target, ToBridge, ToGateway};
use wire::{MessageId, UserId};

const OFFLINE: FailReason = FailReason::Offline;

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.router.expect_bridge();
    bench
}

fn concluded(shard: ShardId, submitted: MessageId, reason: FailReason) -> (ShardId, Said) {
    (shard, Said::ToGateway(ToGateway::Concluded { submitted, reason }))
}

/// The one message that is handed over, of which its sender's shard is told so.
fn handed(said: &Mail) -> (DeliveryId, Message) {
    match &said[..] {
        [(BRIDGE, Said::ToBridge(event)), told] => match event {
            ToBridge::Undelivered { user: BOB, reason: OFFLINE, message, delivery } => {
                assert_ne!(*delivery, DeliveryId::NONE, "its sender waits");
                assert_eq!(*told, concluded(told.0, message.id, OFFLINE));
                (*delivery, message.clone())
            }
            other => panic!("{other:?}"),
        },
        other => panic!("one hand-over, not {other:?}"),
    }
}

fn kept(bench: &mut Bench, delivery: DeliveryId, taken: Taken) -> Mail {
    bench.kept(delivery, taken)
}

#[test]
fn its_sender_hears_that_it_is_stored_once_the_bridge_has_it() {
    let mut bench = bench();
    let (delivery, message) = handed(&bench.submit(A, 1, to_user(BOB, "m1")));
    let id = bench.last_id;
    assert_eq!((message.id, bench.router.metrics().handed), (id, 1));
    assert_eq!(kept(&mut bench, delivery, Taken::Ok), [send_ack(A, 1, "m1", id, id, Outcome::Stored)]);
    bench.bind(B, BOB, PHONE, 2);
    let again = bench.submit(C, 8, to_user(BOB, "m1"));
    assert_eq!(again, [send_ack(C, 8, "m1", bench.last_id, id, Outcome::Stored)], "a repeat hears the same");
    assert_eq!(kept(&mut bench, delivery, Taken::Ok), [], "told twice, it is of no consequence");
    let metrics = bench.router.metrics();
    assert_eq!((metrics.handed, metrics.stored, metrics.settles_stale), (0, 1, 1));
}

#[test]
fn one_that_was_on_its_way_to_a_session_is_handed_over_when_that_fails() {
    let mut bench = bench();
    bench.bind(B, BOB, PHONE, 2);
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "")));
    let said = bench.settle(B, 2, delivery, Outcome::Failed(FailReason::Unacked));
    let [(_, Said::ToBridge(ToBridge::Undelivered { reason, delivery: handed, .. })), told] = said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert_eq!(*reason, FailReason::Unacked);
    assert_eq!(*told, concluded(A, message.id, FailReason::Unacked));
    let stored = [send_ack(A, 1, "", message.id, message.id, Outcome::Stored)];
    assert_eq!(kept(&mut bench, *handed, Taken::Ok), stored, "its shard waits, though it has no name");
}

#[test]
fn one_that_nobody_keeps_has_failed_for_the_first_reason() {
    let mut bench = bench();
    let (delivery, _) = handed(&bench.submit(A, 1, to_user(BOB, "m1")));
    let id = bench.last_id;
    let failed = Outcome::Failed(OFFLINE);
    let said = kept(&mut bench, delivery, Taken::Refused(FailReason::NoRoute));
    assert_eq!(said, [send_ack(A, 1, "m1", id, id, failed)]);
    let again = bench.submit(A, 1, to_user(BOB, "m1"));
    assert_eq!(again, [send_ack(A, 1, "m1", bench.last_id, id, failed)]);
    assert_eq!(bench.router.metrics().stored, 0);
}

#[test]
fn one_of_which_the_bridge_says_nothing_has_failed_after_a_time() {
    let mut bench = bench();
    let (delivery, _) = handed(&bench.submit(A, 1, to_user(BOB, "m1")));
    let id = bench.last_id;
    assert_eq!(bench.pass(Duration::from_millis(29_999)), []);
    let said = bench.pass(Duration::from_millis(1));
    assert_eq!(said, [send_ack(A, 1, "m1", id, id, Outcome::Failed(OFFLINE))]);
    assert_eq!(kept(&mut bench, delivery, Taken::Ok), [], "too late");
}

#[test]
fn a_repeat_meanwhile_takes_the_answer() {
    let mut bench = bench();
    let (delivery, message) = handed(&bench.submit(A, 1, to_user(BOB, "m1")));
    bench.bind(B, BOB, PHONE, 2);
    let said = bench.submit(C, 8, to_user(BOB, "m1"));
    let last = bench.last_id;
    let told = [superseded(A, message.id), concluded(C, last, OFFLINE)];
    assert_eq!(said, told, "it is not delivered after all");
    let stored = [send_ack(C, 8, "m1", last, message.id, Outcome::Stored)];
    assert_eq!(kept(&mut bench, delivery, Taken::Ok), stored);
}

#[test]
fn past_the_limit_the_bridge_gets_it_and_nobody_waits() {
    let limits = Limits { pending_max: 2, ..Limits::default() };
    let mut bench = Bench::with(|config| config.limits = limits);
    bench.router.expect_bridge();
    handed(&bench.submit(A, 1, to_user(BOB, "m1")));
    handed(&bench.submit(A, 1, to_user(BOB, "m2")));
    let said = bench.submit(A, 1, to_user(BOB, "m3"));
    let id = bench.last_id;
    assert!(matches!(
        &said[0].1,
        Said::ToBridge(ToBridge::Undelivered { reason: OFFLINE, delivery: DeliveryId::NONE, .. })
    ));
    assert_eq!(said[1..], [send_ack(A, 1, "m3", id, id, Outcome::Failed(OFFLINE))]);
}

/// It is told so by the sender's shard: the owner that handed it over is gone, and may have died before the
/// bridge had it.
#[test]
fn what_an_owner_before_has_concluded_is_handed_over_and_not_delivered() {
    let mut bench = bench();
    bench.bind(B, BOB, PHONE, 2);
    let given = Submission { again: true, concluded: Some(OFFLINE), ..to_user(BOB, "m1") };
    let (delivery, message) = handed(&bench.submit(A, 1, given.clone()));
    let id = message.id;
    assert_eq!(kept(&mut bench, delivery, Taken::Ok), [send_ack(A, 1, "m1", id, id, Outcome::Stored)]);
    bench.view(A, 1, false);
    let unknown = Submission { target: Target::User(UserId(404)), ..given };
    assert_eq!(bench.submit(A, 1, unknown).len(), 2, "no device that is announced later is to get it");
}

#[test]
fn a_router_goes_when_the_bridge_has_said_what_it_keeps() {
    let mut bench = bench();
    let (delivery, _) = handed(&bench.submit(A, 1, to_user(BOB, "m1")));
    bench.router.leave(bench.now);
    assert!(!bench.router.has_left());
    kept(&mut bench, delivery, Taken::Ok);
    assert!(bench.router.has_left());
}

fn from_inbox(client_msg_id: &str) -> Submission {
    Submission { stored: true, ..to_user(BOB, client_msg_id) }
}

/// The original is remembered as stored; what comes from the inbox is to be delivered all the same, once.
#[test]
fn what_comes_from_an_inbox_is_apart_from_the_original() {
    let mut bench = bench();
    let (stored, _) = handed(&bench.submit(A, 1, to_user(BOB, "m1")));
    kept(&mut bench, stored, Taken::Ok);
    bench.bind(B, BOB, PHONE, 2);
    let (delivery, message) = delivery(bench.submit(C, 9, from_inbox("m1")));
    let id = bench.last_id;
    assert_eq!((message.sender, message.client_msg_id.as_str()), (ALICE, "m1"), "as its sender named it");
    let said = bench.settle(B, 2, delivery, Outcome::Delivered);
    assert_eq!(said, [send_ack(C, 9, "m1", id, id, Outcome::Delivered)]);
    let again = bench.submit(C, 9, from_inbox("m1"));
    assert_eq!(again, [send_ack(C, 9, "m1", bench.last_id, id, Outcome::Delivered)]);
    let original = bench.submit(A, 1, to_user(BOB, "m1"));
    assert!(matches!(&original[0].1, Said::ToGateway(_)));
    assert_eq!(bench.router.metrics().forwarded, 1);
}

#[test]
fn what_stays_in_an_inbox_is_not_handed_over_and_may_come_again() {
    let mut bench = bench();
    let said = bench.submit(C, 9, from_inbox("m1"));
    let id = bench.last_id;
    assert_eq!(said, [send_ack(C, 9, "m1", id, id, Outcome::Failed(OFFLINE))], "and no hand-over");
    bench.bind(B, BOB, PHONE, 2);
    let (delivery, message) = delivery(bench.submit(C, 9, from_inbox("m1")));
    assert_eq!(message.id, bench.last_id);
    let said = bench.settle(B, 2, delivery, Outcome::Failed(FailReason::Disconnected));
    let failed = Outcome::Failed(FailReason::Disconnected);
    assert_eq!(said, [send_ack(C, 9, "m1", message.id, message.id, failed)]);
}

/// Each session has a hand-over of its own: a silent one keeps nothing from another, which comes later.
#[test]
fn what_comes_from_an_inbox_for_one_device_waits_for_no_other() {
    let mut bench = bench();
    let to = |device| Submission { device: Some(device), ..from_inbox("m1") };
    bench.bind(B, BOB, WEB, 2);
    let (silent, _) = delivery(bench.submit(C, 9, to(WEB)));
    let first = bench.last_id;
    let said = bench.submit(C, 9, to(PHONE));
    let id = bench.last_id;
    assert_eq!(said, [send_ack(C, 9, "m1", id, id, Outcome::Failed(OFFLINE))], "the web is none");
    bench.bind(C, BOB, PHONE, 3);
    let (phone, message) = delivery(bench.submit(C, 9, to(PHONE)));
    assert_ne!(message.id, first);
    let said = bench.settle(C, 3, phone, Outcome::Delivered);
    assert_eq!(said, [send_ack(C, 9, "m1", message.id, message.id, Outcome::Delivered)]);
    assert_eq!(bench.submit(C, 9, to(WEB)).len(), 1, "which supersedes the first, and waits like it");
    let last = bench.last_id;
    let said = bench.settle(B, 2, silent, Outcome::Failed(FailReason::Unacked));
    assert_eq!(said, [send_ack(C, 9, "m1", last, first, Outcome::Failed(FailReason::Unacked))]);
}
