//! Every code that a client may send, in every encoding.

mod common;

use common::{SEQUENCE, World};
use wire::client::{AckIds, Business, ClientFrame, Code, Encoding, NoticeCode, Outcome, ServerFrame};
use wire::node::{Target, ToRouter};
use wire::{BizCode, DeviceClass, MessageId, RoomId, UserId};

const ENCODINGS: [Encoding; 3] = [Encoding::Binary, Encoding::Json, Encoding::JsonOld];

fn each_encoding(test: impl Fn(&mut World, u32)) {
    for encoding in ENCODINGS {
        let mut world = World::new();
        let client = world.login_as(10_001, DeviceClass::Phone, encoding);
        world.to_router.clear();
        test(&mut world, client);
    }
}

#[test]
fn login_1001() {
    each_encoding(|world, _| assert_eq!(world.metrics().logins, 1));
}

#[test]
fn logout_1002() {
    each_encoding(|world, client| {
        world.say(client, ClientFrame::Logout);
        assert_eq!(world.hear(client), [ServerFrame::LoggedOut]);
        assert!(world.client(client).closed.is_some());
        assert!(matches!(world.to_router.make_contiguous(), [ToRouter::Unbind { .. }]));
    });
}

#[test]
fn business_1003() {
    each_encoding(|world, client| {
        world.say(
            client,
            ClientFrame::Business(Business {
                biz_code: BizCode(6001),
                target: 10_002,
                client_msg_id: "m-1".into(),
                payload: b"hello"[..].into(),
            }),
        );
        let [submission] = world.submissions().try_into().unwrap();
        assert_eq!((submission.sender, submission.target), (UserId(10_001), Target::User(UserId(10_002))));
        assert_eq!((submission.client_msg_id.as_str(), &submission.payload[..]), ("m-1", &b"hello"[..]));
    });
}

#[test]
fn heartbeat_1004() {
    each_encoding(|world, client| {
        world.say(client, ClientFrame::Heartbeat { echo: b"" });
        assert_eq!(world.hear(client), [ServerFrame::Heartbeat { echo: b"" }]);
    });
}

#[test]
fn ack_1005() {
    each_encoding(|world, client| {
        world.deliver(client, 5, "hello");
        world.hear(client);
        world.say(client, ClientFrame::Ack(AckIds::One(MessageId(5))));
        assert_eq!(world.settled(), [(5, Outcome::Delivered)]);
    });
}

#[test]
fn join_1010_and_leave_1011() {
    each_encoding(|world, client| {
        let room = RoomId(7);
        world.say(client, ClientFrame::Join { room, want: None });
        assert_eq!(world.hear(client), [ServerFrame::Joined { room, sequence: SEQUENCE, recovery: None }]);
        assert_eq!(world.metrics().memberships, 1);
        world.say(client, ClientFrame::Leave { room });
        assert_eq!(world.hear(client), [ServerFrame::Left { room }]);
        assert_eq!(world.metrics().memberships, 0);
    });
}

#[test]
fn any_other_code_is_refused() {
    for code in [0, 1000, 1008, 1012, -1, i32::MAX, Code::SendAck as i32, Code::Notice as i32] {
        each_encoding(|world, client| {
            let mut frame = Vec::new();
            ClientFrame::Heartbeat { echo: b"" }.encode(
                world.client(client).encoding,
                common::APP,
                UserId(10_001),
                &mut frame,
            );
            frame[2..6].copy_from_slice(&code.to_be_bytes());
            world.say_bytes(client, &frame);
            assert_eq!(world.closing_notice(client), NoticeCode::BadCode, "code {code}");
        });
    }
}
