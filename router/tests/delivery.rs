//! A message to a user, from its submission to its outcome.

mod common;

use std::time::Duration;

use common::*;
use wire::client::{FailReason, Outcome};
use wire::node::{DeliveryId, ToGateway};
use wire::{MessageId, UserId};

const FAILED: Outcome = Outcome::Failed(FailReason::Disconnected);

/// BOB is on shard B; ALICE sends from A.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    bench.bind(B, BOB, PHONE, 2);
    bench.bind(C, UserId(3), PHONE, 3);
    bench
}

#[test]
fn only_the_shard_of_the_target_gets_it() {
    let mut bench = bench();
    let submitted = to_user(BOB, "m1");
    let delivered = deliveries(bench.submit(A, 1, submitted.clone()));
    let [one] = delivered.as_slice() else { panic!("{delivered:?}") };
    assert_eq!((one.to, one.session), (B, 2));
    let message = &one.message;
    assert_eq!((message.app, message.sender, message.biz_code), (APP, ALICE, submitted.biz_code));
    assert_eq!((message.room, message.sequence, message.ack_wanted), (None, 0, true));
    assert_eq!((&message.client_msg_id, &message.payload), (&submitted.client_msg_id, &submitted.payload));
    assert_eq!(message.payload.as_ptr(), submitted.payload.as_ptr(), "the payload is shared, not copied");
    assert_eq!(bench.router.metrics().forwarded, 1);
}

#[test]
fn the_ack_of_the_receiver_reaches_the_sender() {
    let mut bench = bench();
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    assert_eq!(bench.router.metrics().pending, 1);
    let said = bench.settle(B, 2, delivery, Outcome::Delivered);
    assert_eq!(said, [send_ack(A, 1, "m1", message.id, message.id, Outcome::Delivered)]);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.pending, metrics.delivered), (0, 1));
}

#[test]
fn every_device_gets_it_and_the_first_ack_counts() {
    let mut bench = bench();
    bench.bind(C, BOB, WEB, 2);
    let mut delivered = deliveries(bench.submit(A, 1, to_user(BOB, "m1")));
    delivered.sort_by_key(|one| one.to);
    let [on_b, on_c] = delivered.as_slice() else { panic!("{delivered:?}") };
    assert_eq!((on_b.to, on_b.session, on_c.to, on_c.session), (B, 2, C, 2));
    assert_eq!(on_b.message, on_c.message);
    let (id, at_b, at_c) = (on_b.message.id, on_b.delivery.unwrap(), on_c.delivery.unwrap());
    assert_eq!(bench.settle(B, 2, at_b, FAILED), []);
    assert_eq!(
        bench.settle(C, 2, at_c, Outcome::Delivered),
        [send_ack(A, 1, "m1", id, id, Outcome::Delivered)]
    );
    assert_eq!(bench.settle(C, 2, at_c, Outcome::Delivered), [], "it is done");
    assert_eq!(bench.router.metrics().settles_stale, 1);
}

#[test]
fn it_is_undelivered_once_all_have_failed_for_the_last_reason() {
    let mut bench = bench();
    bench.bind(C, BOB, WEB, 4);
    let delivered = deliveries(bench.submit(A, 1, to_user(BOB, "m1")));
    let at = |shard| delivered.iter().find(|one| one.to == shard).unwrap().delivery.unwrap();
    assert_eq!(bench.settle(B, 2, at(B), FAILED), []);
    assert_eq!(bench.settle(B, 2, at(B), FAILED), [], "the same session does not fail twice");
    let last = FailReason::Overflow;
    let said = bench.settle(C, 4, at(C), Outcome::Failed(last));
    let message = &delivered[0].message;
    assert_eq!(
        said,
        [
            undelivered(BOB, last, message),
            send_ack(A, 1, "m1", message.id, message.id, Outcome::Failed(last))
        ]
    );
    let by_reason: Vec<_> =
        bench.router.metrics().undelivered_by_reason().filter(|(_, count)| *count > 0).collect();
    assert_eq!(by_reason, [(last, 1)]);
}

#[test]
fn nobody_there_is_undelivered_at_once() {
    let mut bench = bench();
    bench.unbind(B, BOB, PHONE, 2);
    let said = bench.submit(A, 1, to_user(BOB, "m1"));
    let [(_, Said::ToBridge(wire::node::ToBridge::Undelivered { message, .. })), _] = said.as_slice() else {
        panic!("{said:?}")
    };
    let reason = FailReason::Offline;
    assert_eq!(
        said,
        [
            undelivered(BOB, reason, message),
            send_ack(A, 1, "m1", message.id, message.id, Outcome::Failed(reason))
        ]
    );
    assert_eq!(bench.router.metrics().pending, 0);
}

#[test]
fn a_foreign_settlement_changes_nothing() {
    let mut bench = bench();
    let (delivery, _) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    assert_eq!(bench.settle(B, 99, delivery, Outcome::Delivered), [], "another session");
    assert_eq!(bench.settle(A, 2, delivery, Outcome::Delivered), [], "another shard");
    assert_eq!(bench.settle(B, 2, DeliveryId(delivery.0 ^ 1), Outcome::Delivered), [], "another delivery");
    assert_eq!(bench.settle(B, 2, DeliveryId(u64::MAX), Outcome::Delivered), []);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.pending, metrics.settles_stale), (1, 4));
}

#[test]
fn a_settlement_of_an_earlier_life_means_nothing() {
    let (delivery, _) = delivery(bench().submit(A, 1, to_user(BOB, "m1")));
    let mut restarted = Bench::with(|config| config.seed = 43);
    restarted.bind(B, BOB, PHONE, 2);
    restarted.submit(A, 1, to_user(BOB, "m2"));
    assert_eq!(restarted.settle(B, 2, delivery, Outcome::Delivered), []);
    assert_eq!(restarted.router.metrics().pending, 1);
}

#[test]
fn a_settled_delivery_does_not_settle_the_next_one_in_its_place() {
    let mut bench = bench();
    let (first, _) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    bench.settle(B, 2, first, Outcome::Delivered);
    let (second, _) = delivery(bench.submit(A, 1, to_user(BOB, "m2")));
    assert_ne!(first, second);
    assert_eq!(bench.settle(B, 2, first, Outcome::Delivered), []);
    assert_eq!(bench.settle(B, 2, second, Outcome::Delivered).len(), 1);
}

/// Else it would come after messages that were sent later.
#[test]
fn a_session_that_binds_later_does_not_get_it() {
    let mut bench = bench();
    let (delivery, message) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    assert_eq!(bench.bind(C, BOB, WEB, 5), [online(BOB, WEB, login(0)), bound(C, 5, login(0))]);
    let reason = FailReason::Disconnected;
    let said = bench.settle(B, 2, delivery, FAILED);
    assert_eq!(said[0], undelivered(BOB, reason, &message));
}

#[test]
fn messages_of_one_sender_keep_their_order_and_their_ids() {
    let mut bench = bench();
    let mut last = MessageId(0);
    for n in 0..500 {
        let (_, message) = delivery(bench.submit(A, 1, to_user(BOB, &n.to_string())));
        assert_eq!(message.id, bench.last_id);
        assert!(message.id > last);
        last = message.id;
    }
}

#[test]
fn without_a_name_only_the_senders_shard_is_told_and_nothing_is_lost() {
    let mut bench = bench();
    let (first, earlier) = delivery(bench.submit(A, 1, to_user(BOB, "")));
    let (second, message) = delivery(bench.submit(A, 1, to_user(BOB, "")));
    assert_ne!(first, second, "nothing tells a repeat");
    let said = bench.settle(B, 2, first, Outcome::Delivered);
    assert_eq!(said, [send_ack(A, 1, "", earlier.id, earlier.id, Outcome::Delivered)]);
    let reason = FailReason::Disconnected;
    assert_eq!(
        bench.settle(B, 2, second, FAILED),
        [undelivered(BOB, reason, &message), send_ack(A, 1, "", message.id, message.id, FAILED)]
    );
    assert_eq!(bench.router.metrics().remembered, 0);
}

#[test]
fn a_lossy_message_is_sent_and_forgotten() {
    let mut bench = bench();
    let delivered = deliveries(bench.submit(A, 1, lossy(to_user(BOB, "m1"))));
    let [one] = delivered.as_slice() else { panic!("{delivered:?}") };
    assert_eq!((one.to, one.session, one.delivery, one.message.ack_wanted), (B, 2, None, false));
    assert_eq!(bench.router.metrics().pending, 0);
    assert_eq!(bench.submit(A, 1, lossy(to_user(UserId(404), "m2"))), []);
    assert_eq!(bench.router.metrics().lossy_offline, 1);
}

#[test]
fn one_that_no_shard_settles_is_handed_over_in_the_end() {
    let mut bench = bench();
    let (_, early) = delivery(bench.submit(A, 1, to_user(BOB, "early")));
    assert_eq!(bench.pass(Duration::from_secs(10_700)), []);
    let (late, _) = delivery(bench.submit(A, 1, to_user(BOB, "late")));
    assert_eq!(bench.pass(Duration::from_millis(99_999)), []);
    let reason = FailReason::Unacked;
    assert_eq!(
        bench.pass(Duration::from_millis(1)),
        [
            undelivered(BOB, reason, &early),
            send_ack(A, 1, "early", early.id, early.id, Outcome::Failed(reason))
        ]
    );
    let metrics = bench.router.metrics();
    assert_eq!((metrics.pending, metrics.expired), (1, 1));
    bench.settle(B, 2, late, Outcome::Delivered);
    assert_eq!(bench.router.poll_timeout(), None, "nothing to wait for");
}

#[test]
fn past_the_pending_limit_the_sender_is_to_try_again() {
    let mut bench = Bench::with(|config| config.limits.pending_max = 1);
    bench.bind(B, BOB, PHONE, 2);
    let (first, _) = delivery(bench.submit(A, 1, to_user(BOB, "m1")));
    let busy = Outcome::Failed(FailReason::Busy);
    let said = bench.submit(A, 1, to_user(BOB, "m2"));
    assert_eq!(said, [send_ack(A, 1, "m2", bench.last_id, MessageId(0), busy)]);
    let said = bench.submit(A, 1, to_user(BOB, ""));
    assert_eq!(said[1..], [send_ack(A, 1, "", bench.last_id, bench.last_id, busy)]);
    assert!(
        matches!(&said[..1], [(_, Said::ToBridge(_))]),
        "who cannot send again has it handed over: {said:?}"
    );
    assert_eq!(bench.submit(A, 1, to_user(UserId(404), "m3")).len(), 2, "offline needs no place");
    bench.settle(B, 2, first, Outcome::Delivered);
    let said = bench.submit(A, 1, to_user(BOB, "m2"));
    assert!(matches!(said[0].1, Said::ToGateway(ToGateway::Deliver { .. })), "busy is not remembered");
    assert_eq!(bench.router.metrics().busy, 2);
}
