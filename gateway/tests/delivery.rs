//! Reliable delivery: recorded before the write, repeated with the same id, acked or handed over.

mod common;

use std::time::Duration;

use common::{ROUTER, ROUTER_2, ROUTER_3, World, message, send_ack};
use shard::{Event, ShardId};
use wire::client::{ClientFrame, Encoding, FailReason, NoticeCode, Outcome, ServerFrame};
use wire::node::{Class, DeliveryId, Target, ToBridge, ToGateway, ToRouter};
use wire::{DeviceClass, UserId};

const SECOND: Duration = Duration::from_secs(1);

fn failed(reason: FailReason) -> Outcome {
    Outcome::Failed(reason)
}

#[test]
fn an_acked_message_is_settled_once_and_never_repeated() {
    let mut world = World::new();
    let client = world.login(1);
    world.deliver(client, 5, "hello");
    assert_eq!(world.messages(client), [message(5, None, true, "hello")].map(without_app));
    world.ack(client, 5);
    assert_eq!(world.settled(), [(5, Outcome::Delivered)]);
    world.ack(client, 5);
    world.pass(60 * SECOND);
    assert_eq!(world.settled(), []);
    let metrics = world.metrics();
    assert_eq!((metrics.acks, metrics.acks_unknown, metrics.retries, metrics.outbox_bytes), (1, 1, 0, 0));
}

#[test]
fn an_unacked_message_is_repeated_with_its_id_and_then_handed_over() {
    let mut world = World::with(|config| config.heartbeat.grace_ms = 600_000);
    let client = world.login(1);
    world.deliver(client, 5, "hello");
    let first = world.hear(client);
    for wait in [5, 10] {
        world.pass(wait * SECOND - Duration::from_millis(5));
        assert_eq!(world.hear(client), [], "before {wait} s");
        world.pass(Duration::from_millis(8));
        assert_eq!(world.hear(client), first, "after {wait} s, byte for byte");
    }
    assert_eq!(world.settled(), []);
    world.pass(20 * SECOND);
    assert_eq!(world.hear(client), []);
    assert_eq!(world.settled(), [(5, failed(FailReason::Unacked))]);
    let metrics = world.metrics();
    assert_eq!((metrics.retries, metrics.outbox_bytes, metrics.timers), (2, 0, 1));
}

#[test]
fn an_ack_that_lies_unread_is_not_missed() {
    let mut world = World::new();
    let client = world.login(1);
    world.deliver(client, 5, "hello");
    world.handle(Event::MailWaits(true));
    world.pass(50 * SECOND);
    world.handle(Event::MailWaits(false));
    world.ack(client, 5);
    assert_eq!(world.settled(), [(5, Outcome::Delivered)]);
    assert_eq!((world.messages(client).len(), world.metrics().retries), (1, 0));
}

#[test]
fn a_late_ack_stops_the_repeats() {
    let mut world = World::new();
    let client = world.login(1);
    world.deliver(client, 5, "hello");
    world.pass(6 * SECOND);
    assert_eq!(world.messages(client).len(), 2);
    world.ack(client, 5);
    assert_eq!(world.settled(), [(5, Outcome::Delivered)]);
    world.pass(20 * SECOND);
    assert_eq!((world.messages(client).len(), world.settled()), (0, vec![]));
}

#[test]
fn an_ack_for_an_unknown_id_changes_nothing() {
    let mut world = World::new();
    let client = world.login(1);
    world.ack(client, 99);
    world.deliver(client, 5, "hello");
    world.ack(client, 99);
    assert_eq!(world.settled(), []);
    assert_eq!(world.metrics().acks_unknown, 2);
    world.ack(client, 5);
    assert_eq!(world.settled(), [(5, Outcome::Delivered)]);
}

#[test]
fn one_ack_frame_may_carry_many_ids_in_any_order() {
    let mut world = World::new();
    let client = world.login(1);
    for id in 1..=3 {
        world.deliver(client, id, "m");
    }
    let ids: Vec<u8> = [3_u64, 1, 2].into_iter().flat_map(u64::to_be_bytes).collect();
    world.say(client, ClientFrame::Ack(wire::client::AckIds::Packed(&ids)));
    assert_eq!(world.settled(), [3, 1, 2].map(|id| (id, Outcome::Delivered)));
}

#[test]
fn the_window_bounds_what_is_in_flight_and_keeps_the_order() {
    let mut world = World::with(|config| config.delivery.window = 2);
    let client = world.login(1);
    for id in 1..=5 {
        world.deliver(client, id, "m");
    }
    let ids = |world: &mut World| -> Vec<u64> { world.messages(client).iter().map(|m| m.id.0).collect() };
    assert_eq!(ids(&mut world), [1, 2]);
    world.ack(client, 2);
    assert_eq!(ids(&mut world), [3]);
    world.ack(client, 1);
    world.ack(client, 3);
    assert_eq!(ids(&mut world), [4, 5]);
}

#[test]
fn a_message_is_in_flight_before_it_is_written() {
    let mut world = World::new();
    let client = world.login(1);
    world.stop_reading(client);
    world.deliver(client, 5, "hello");
    world.ack(client, 5);
    assert_eq!(world.settled(), [(5, Outcome::Delivered)], "even while the write is with the engine");
}

#[test]
fn a_connection_that_dies_hands_over_all_it_had_oldest_first() {
    let mut world = World::with(|config| config.delivery.window = 2);
    let client = world.login(1);
    for id in 1..=4 {
        world.deliver(client, id, "m");
    }
    world.reset(client);
    assert_eq!(world.settled(), [1, 2, 3, 4].map(|id| (id, failed(FailReason::Disconnected))));
    let metrics = world.metrics();
    assert_eq!((metrics.outbox_bytes, metrics.timers), (0, 0));
}

#[test]
fn a_delivery_to_a_session_that_is_gone_fails_at_once() {
    let mut world = World::new();
    let client = world.login(1);
    let session = world.session(client);
    world.reset(client);
    let message = message(5, None, true, "m");
    world.tell(ToGateway::Deliver { session, delivery: Some(DeliveryId(1005)), again: false, message });
    assert_eq!(world.settled(), [(5, failed(FailReason::Disconnected))]);
}

/// What routers were told of deliveries.
fn settlements(world: &mut World) -> Vec<(ShardId, u64, Outcome)> {
    let told = std::mem::take(&mut world.to_routers);
    let settle = |(to, mail)| match mail {
        ToRouter::Settle { delivery, outcome, .. } => Some((to, delivery.0, outcome)),
        _ => None,
    };
    told.into_iter().filter_map(settle).collect()
}

fn deliver_again(world: &mut World, client: u32, router: ShardId, delivery: u64) {
    let session = world.session(client);
    let (message, delivery) = (message(5, None, true, "hello"), Some(DeliveryId(delivery)));
    world.tell_from(router, ToGateway::Deliver { session, delivery, again: true, message });
}

#[test]
fn a_message_that_another_owner_sends_again_is_written_once_and_all_owners_hear_of_its_end() {
    for is_acked in [true, false] {
        let mut world = World::with(|config| config.delivery.window = 1);
        let client = world.login(1);
        world.deliver(client, 4, "in flight");
        world.deliver(client, 5, "hello");
        deliver_again(&mut world, client, ROUTER_2, 77);
        world.ack(client, 4);
        for _ in 0..2 {
            deliver_again(&mut world, client, ROUTER_3, 78);
            deliver_again(&mut world, client, ROUTER, 1005);
        }
        assert_eq!(world.messages(client).iter().map(|m| m.id.0).collect::<Vec<_>>(), [4, 5]);
        settlements(&mut world);
        let outcome = match is_acked {
            true => Outcome::Delivered,
            false => failed(FailReason::Disconnected),
        };
        if is_acked {
            world.ack(client, 5)
        } else {
            world.reset(client)
        }
        let expected = [(ROUTER, 1005), (ROUTER_2, 77), (ROUTER_3, 78)];
        assert_eq!(settlements(&mut world), expected.map(|(router, id)| (router, id, outcome)));
    }
}

#[test]
fn a_message_that_its_first_owner_delivers_last_is_written_once() {
    for other in [None, Some(4)] {
        let mut world = World::new();
        let client = world.login(1);
        other.into_iter().for_each(|id| world.deliver(client, id, "before"));
        deliver_again(&mut world, client, ROUTER_2, 77);
        world.deliver(client, 5, "hello");
        world.deliver(client, 6, "after");
        let ids: Vec<u64> = world.messages(client).iter().map(|m| m.id.0).collect();
        assert_eq!(ids.iter().filter(|id| **id == 5).count(), 1, "{ids:?}");
        settlements(&mut world);
        world.ack(client, 5);
        let both = [(ROUTER_2, 77, Outcome::Delivered), (ROUTER, 1005, Outcome::Delivered)];
        assert_eq!(settlements(&mut world), both);
    }
}

#[test]
fn a_message_that_is_sent_again_after_its_ack_is_written_again() {
    let mut world = World::new();
    let client = world.login(1);
    world.deliver(client, 5, "hello");
    world.ack(client, 5);
    settlements(&mut world);
    deliver_again(&mut world, client, ROUTER_2, 77);
    assert_eq!(world.messages(client).len(), 2, "nobody remembers it");
    world.ack(client, 5);
    assert_eq!(settlements(&mut world), [(ROUTER_2, 77, Outcome::Delivered)]);
}

#[test]
fn many_messages_of_one_turn_leave_in_one_write() {
    let mut world = World::new();
    let client = world.login(1);
    world.stop_reading(client);
    world.deliver(client, 1, "first");
    let writes = world.client(client).writes;
    for id in 2..=20 {
        world.deliver(client, id, "m");
    }
    world.say(client, ClientFrame::Heartbeat { echo: b"" });
    assert_eq!(world.client(client).writes, writes);
    world.go_on_reading(client);
    assert_eq!(world.client(client).writes, writes + 1);
    assert_eq!(world.hear(client).len(), 21);
}

#[test]
fn a_submission_names_the_sessions_user_whatever_the_packet_says() {
    let mut world = World::new();
    let client = world.login_as(10_001, DeviceClass::Phone, Encoding::Json);
    let forged =
        br#"{"appId":9,"userId":666,"token":"x","bizCode":6001,"msgId":"m-1","target":10002,"data":"hi"}"#;
    world.say_bytes(client, &frame(18677, 1003, forged));
    let [submission] = world.submissions().try_into().unwrap();
    assert_eq!((submission.app, submission.sender), (common::APP, UserId(10_001)));
    assert_eq!((submission.target, submission.class), (Target::User(UserId(10_002)), Class::Reliable));
    assert_eq!((submission.client_msg_id.as_str(), &submission.payload[..]), ("m-1", &b"hi"[..]));
}

#[test]
fn what_has_no_route_is_refused_by_send_ack_or_notice() {
    let mut world = World::new();
    let client = world.login(1);
    for (biz_code, target) in [(1, 2), (6001, 0), (6001, -4)] {
        world.send(client, biz_code, target, "m", "x");
        match world.hear(client).as_slice() {
            [ServerFrame::SendAck(ack)] => assert_eq!(ack.outcome, failed(FailReason::NoRoute)),
            other => panic!("{other:?}"),
        }
        world.send(client, biz_code, target, "", "x");
        match world.hear(client).as_slice() {
            [ServerFrame::Notice { code: NoticeCode::NoRoute, .. }] => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(world.submissions().is_empty() && world.client(client).closed.is_none());
}

#[test]
fn a_business_packet_for_the_backend_goes_to_the_bridge() {
    let mut world = World::new();
    let client = world.login(1);
    world.join(client, 7);
    world.to_bridge.clear();
    let received = world.now.unix_nanos() / 1_000_000;
    world.send(client, 5558, 7, "pk-1", "{}");
    match world.to_bridge.pop_front() {
        Some(ToBridge::Request { sender: UserId(1), room: Some(room), biz_code, received_ms, .. }) => {
            assert_eq!((room.0, biz_code.0, received_ms), (7, 5558, received));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_send_ack_reaches_its_session() {
    let mut world = World::new();
    let client = world.login(1);
    let session = world.session(client);
    world.send(client, 6001, 10_002, "m-1", "x");
    let [submission] = world.submissions().try_into().unwrap();
    let (submitted, ack) = (submission.id, send_ack("m-1", Outcome::Delivered));
    for _ in 0..2 {
        world.tell(ToGateway::SendAck { session, submitted, ack: ack.clone() });
    }
    assert_eq!(world.hear(client), [ServerFrame::SendAck(ack)], "once");
    assert_eq!(world.metrics().submitted, 0);
}

#[test]
fn a_json_client_gets_and_acks_by_decimal_id() {
    let mut world = World::new();
    let client = world.login_as(1, DeviceClass::Phone, Encoding::JsonOld);
    world.deliver(client, 5, "hello");
    let [heard] = world.messages(client).try_into().unwrap();
    assert_eq!((heard.sender, &heard.payload[..]), (UserId(77), &b"hello"[..]));
    world.say_bytes(client, &frame(18673, 1005, br#"{"appId":1,"userId":1,"msgId":"5"}"#));
    assert_eq!(world.settled(), [(5, Outcome::Delivered)]);
}

fn frame(magic: u16, code: i32, body: &[u8]) -> Vec<u8> {
    let mut frame = magic.to_be_bytes().to_vec();
    frame.extend(code.to_be_bytes());
    frame.extend((body.len() as i32).to_be_bytes());
    frame.extend(body);
    frame
}

/// A binary frame does not carry the app: the client knows its own.
fn without_app(message: wire::client::Message) -> wire::client::Message {
    wire::client::Message { app: wire::AppId(0), ..message }
}
