//! No frame of the server is longer than its limit, and contents of no use end no connection.

mod common;

use common::{World, message};
use wire::client::{Encoding, FailReason, HEADER_BYTES, NoticeCode, Outcome, ServerFrame};
use wire::node::{DeliveryId, ToBridge, ToGateway};
use wire::{DeviceClass, RoomId};

/// The limit in these tests.
const LIMIT: u32 = 4096;

fn world() -> World {
    World::with(|config| config.limits.frame_bytes_max = LIMIT)
}

fn failed(frame: &ServerFrame<'_>) -> Option<FailReason> {
    match frame {
        ServerFrame::SendAck(ack) => match ack.outcome {
            Outcome::Failed(reason) => Some(reason),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn a_message_that_some_receiver_could_not_be_sent_is_refused_to_its_sender() {
    for (encoding, payload) in [
        (Encoding::Binary, "a".repeat(4_000)),
        (Encoding::Binary, "\u{1}".repeat(700)),
        (Encoding::Json, "\"".repeat(1_950)),
    ] {
        let mut world = world();
        let sender = world.login_as(1, DeviceClass::Phone, encoding);
        world.join(sender, 7);
        world.hear(sender);
        world.to_router.clear();
        for (code, target) in [(6001, 2), (6002, 2), (5555, 7)] {
            world.send(sender, code, target, "m", &payload);
            world.send(sender, code, target, "", &payload);
            match world.hear(sender).as_slice() {
                [ack, ServerFrame::Notice { code: NoticeCode::TooLong, .. }] => {
                    assert_eq!(failed(ack), Some(FailReason::TooLong), "{code}");
                }
                other => panic!("{code}: {other:?}"),
            }
        }
        assert!(world.is_open(sender) && world.to_router.is_empty());
        // The backend is no client: what it is sent is in no frame to one.
        world.to_bridge.clear();
        world.send(sender, 5560, 7, "g", &payload);
        assert!(matches!(world.to_bridge.make_contiguous(), [ToBridge::Request { .. }]));
    }
}

#[test]
fn a_message_within_the_limit_is_within_it_in_every_encoding() {
    for payload in ["a".repeat(3_800), "\u{1}".repeat(630), "\"".repeat(1_900)] {
        let mut world = world();
        let sender = world.login(1);
        world.send(sender, 6001, 2, "m", &payload);
        assert_eq!(world.submissions().len(), 1, "it is taken");
        for (user, encoding) in [(2, Encoding::Binary), (3, Encoding::Json), (4, Encoding::JsonOld)] {
            let receiver = world.login_as(user, DeviceClass::Phone, encoding);
            world.deliver(receiver, 5, &payload);
            let [delivered] = world.messages(receiver).try_into().unwrap();
            assert_eq!(delivered.payload, payload.as_bytes(), "{encoding:?}");
        }
    }
}

/// A node with another limit took it, or it was taken before the limit changed.
#[test]
fn a_message_that_comes_all_the_same_is_not_written() {
    let payload = "\u{1}".repeat(700);
    let mut world = world();
    let binary = world.login(1);
    let json = world.login_as(2, DeviceClass::Phone, Encoding::Json);
    for client in [binary, json] {
        world.join(client, 7);
        world.hear(client);
        world.deliver(client, 5, &payload);
        world.deliver_lossy(client, 6, &payload);
    }
    let too_long = Outcome::Failed(FailReason::TooLong);
    assert_eq!(world.settled(), [(5, too_long)], "of the one who speaks JSON");
    world.to_bridge.clear();
    world.broadcast(7, 50, true, &payload);
    world.broadcast(7, 51, false, &payload);
    match world.to_bridge.make_contiguous() {
        [ToBridge::Undelivered { user, reason: FailReason::TooLong, delivery: DeliveryId::NONE, .. }] => {
            assert_eq!(user.0, 2);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.messages(binary).len(), 4);
    assert_eq!(world.hear(json), []);
    assert!(world.is_open(json));
    assert_eq!(world.metrics().lossy_dropped, 2);
}

#[test]
fn messages_that_leave_together_are_frames_of_their_own() {
    let mut world = World::with(|config| {
        config.limits.frame_bytes_max = LIMIT;
        config.delivery.room_interval_ms = 25;
    });
    let json = world.login_as(1, DeviceClass::Phone, Encoding::Json);
    world.join(json, 7);
    world.hear(json);
    let writes = world.client(json).writes;
    for (id, payload) in [(50, "first"), (51, "a"), (52, &*"\u{1}".repeat(700)), (53, "b")] {
        let message = message(id, Some(7), false, payload);
        world.tell(ToGateway::Broadcast { message, shards: Vec::new() });
    }
    world.pass(std::time::Duration::from_millis(30));
    assert_eq!(world.client(json).writes - writes, 2, "the first, and those within its interval");
    let heard = world.messages(json);
    assert_eq!(heard.iter().map(|message| message.id.0).collect::<Vec<_>>(), [50, 51, 53]);
}

fn json(code: i32, body: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend(18677_u16.to_be_bytes());
    frame.extend(code.to_be_bytes());
    frame.extend((body.len() as i32).to_be_bytes());
    frame.extend(body.as_bytes());
    frame
}

#[test]
fn contents_of_no_use_are_refused_and_the_connection_stays() {
    let mut world = World::new();
    let client = world.login_as(1, DeviceClass::Phone, Encoding::Json);
    world.to_router.clear();
    world.say_bytes(client, &json(1003, r#"{"bizCode":6001,"msgId":"m1","target":2,"data":"\ud83d"}"#));
    match world.hear(client).as_slice() {
        [ack, ServerFrame::Notice { code: NoticeCode::BadContent, .. }] => {
            assert_eq!(failed(ack), Some(FailReason::BadContent), "so that it is not sent again");
        }
        other => panic!("{other:?}"),
    }
    world.say_bytes(client, &json(1003, r#"{"bizCode":6001,"msgId":"\ud83d","target":2,"data":"x"}"#));
    assert!(matches!(
        world.hear(client).as_slice(),
        [ServerFrame::Notice { code: NoticeCode::BadContent, .. }]
    ));
    assert!(world.is_open(client) && world.submissions().is_empty());
    // What follows is read as ever.
    world.say_bytes(client, &json(1003, r#"{"bizCode":6001,"msgId":"m2","target":2,"data":"x"}"#));
    assert_eq!(world.submissions().len(), 1);
    world.join(client, 7);
    assert!(matches!(world.hear(client).as_slice(), [ServerFrame::Joined { room: RoomId(7), .. }]));
    // Before a login nothing else may come, whatever its contents.
    let stranger = world.connect();
    world.client(stranger).encoding = Encoding::Json;
    world.say_bytes(stranger, &json(1003, r#"{"data":"\ud83d"}"#));
    assert_eq!(world.closing_notice(stranger), NoticeCode::LoginRequired);
}
