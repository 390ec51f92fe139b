//! The exact bytes of every frame: they are the protocol. A change here breaks clients.

use std::borrow::Cow;

use bytes::Bytes;
use wire::client::{
    AckIds, Business, ClientFrame, Code, Encoding, FailReason, Message, NoticeCode, Outcome, Recovery,
    SendAck, ServerFrame, Want,
};
use wire::{BizCode, MessageId, RoomId, UserId};

use crate::samples::{APP, client_bytes, id, only_frame, server_bytes};

const IDS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 42, 0x80, 0, 0, 0, 0, 0, 0, 1];

fn client_frames() -> Vec<(ClientFrame<'static>, &'static str, &'static str)> {
    let chat = Business {
        biz_code: BizCode(5555),
        target: 7,
        client_msg_id: Cow::Borrowed("m1"),
        payload: Cow::Borrowed(b"hi"),
    };
    vec![
        (
            ClientFrame::Login { token: Cow::Borrowed("t.k.n") },
            "5346 000003e9 00000005 742e6b2e6e",
            r#"{"appId":1,"userId":10001,"token":"t.k.n"}"#,
        ),
        (ClientFrame::Logout, "5346 000003ea 00000000", r#"{"appId":1,"userId":10001}"#),
        (
            ClientFrame::Business(chat),
            "5346 000003eb 00000011 000015b3 0000000000000007 02 6d31 6869",
            r#"{"appId":1,"userId":10001,"bizCode":5555,"msgId":"m1","data":"hi","target":7}"#,
        ),
        (
            ClientFrame::Heartbeat { echo: b"\x01\x02" },
            "5346 000003ec 00000002 0102",
            r#"{"appId":1,"userId":10001}"#,
        ),
        (
            ClientFrame::Ack(AckIds::Packed(&IDS)),
            "5346 000003ed 00000010 000000000000002a 8000000000000001",
            r#"{"appId":1,"userId":10001,"msgId":"42"} {"appId":1,"userId":10001,"msgId":"9223372036854775809"}"#,
        ),
        (
            ClientFrame::Join { room: RoomId(7), want: None },
            "5346 000003f2 00000008 0000000000000007",
            r#"{"appId":1,"userId":10001,"target":7}"#,
        ),
        (
            ClientFrame::Join { room: RoomId(7), want: Some(Want::Since(9)) },
            "5346 000003f2 00000011 0000000000000007 01 0000000000000009",
            r#"{"appId":1,"userId":10001,"target":7,"since":9}"#,
        ),
        (
            ClientFrame::Join { room: RoomId(7), want: Some(Want::Last(20)) },
            "5346 000003f2 00000011 0000000000000007 02 0000000000000014",
            r#"{"appId":1,"userId":10001,"target":7,"last":20}"#,
        ),
        (
            ClientFrame::Leave { room: RoomId(-2) },
            "5346 000003f3 00000008 fffffffffffffffe",
            r#"{"appId":1,"userId":10001,"target":-2}"#,
        ),
    ]
}

fn server_frames() -> Vec<(ServerFrame<'static>, &'static str, &'static str)> {
    let room_chat = Message {
        id: MessageId(42),
        app: APP,
        sender: UserId(10_002),
        biz_code: BizCode(5555),
        room: Some(RoomId(7)),
        sequence: 9,
        ack_wanted: false,
        client_msg_id: id("m1"),
        payload: Bytes::from_static(b"hi"),
    };
    let direct = Message {
        room: None,
        sequence: 0,
        ack_wanted: true,
        client_msg_id: id(""),
        payload: Bytes::from_static(b"\xff\0"),
        ..room_chat.clone()
    };
    let ack = |outcome| ServerFrame::SendAck(SendAck { client_msg_id: id("m1"), id: MessageId(42), outcome });
    vec![
        (
            ServerFrame::LoggedIn { heartbeat_ms: 30_000 },
            "5346 000003e9 00000004 00007530",
            r#"{"appId":1,"userId":10001,"data":"true","heartbeatMs":30000}"#,
        ),
        (ServerFrame::LoggedOut, "5346 000003ea 00000000", r#"{"appId":1,"userId":10001}"#),
        (
            ServerFrame::Deliver(Cow::Owned(room_chat)),
            "5346 000003eb 0000002a 02 000015b3 000000000000002a 0000000000002712 \
             0000000000000007 0000000000000009 02 6d31 6869",
            r#"{"appId":1,"userId":10002,"bizCode":5555,"msgId":"42","data":"hi","clientMsgId":"m1","roomId":7,"sequence":9}"#,
        ),
        (
            ServerFrame::Deliver(Cow::Owned(direct)),
            "5346 000003eb 00000018 01 000015b3 000000000000002a 0000000000002712 00 ff00",
            r#"{"appId":1,"userId":10002,"bizCode":5555,"msgId":"42","data":"/wA=","dataEncoding":"base64","ack":true}"#,
        ),
        (
            ServerFrame::Heartbeat { echo: b"\x01\x02" },
            "5346 000003ec 00000002 0102",
            r#"{"appId":1,"userId":10001}"#,
        ),
        (
            ack(Outcome::Delivered),
            "5346 000003ee 00000014 01 0000000000000000 000000000000002a 02 6d31",
            r#"{"appId":1,"userId":10001,"msgId":"m1","data":"{\"outcome\":\"delivered\",\"messageId\":\"42\"}"}"#,
        ),
        (
            ack(Outcome::Stored),
            "5346 000003ee 00000014 02 0000000000000000 000000000000002a 02 6d31",
            r#"{"appId":1,"userId":10001,"msgId":"m1","data":"{\"outcome\":\"stored\",\"messageId\":\"42\"}"}"#,
        ),
        (
            ack(Outcome::Sequenced { sequence: 9 }),
            "5346 000003ee 00000014 03 0000000000000009 000000000000002a 02 6d31",
            r#"{"appId":1,"userId":10001,"msgId":"m1","data":"{\"outcome\":\"sequenced\",\"messageId\":\"42\",\"sequence\":9}"}"#,
        ),
        (
            ack(Outcome::Answered),
            "5346 000003ee 00000014 04 0000000000000000 000000000000002a 02 6d31",
            r#"{"appId":1,"userId":10001,"msgId":"m1","data":"{\"outcome\":\"answered\",\"messageId\":\"42\"}"}"#,
        ),
        (
            ack(Outcome::Failed(FailReason::NotMember)),
            "5346 000003ee 00000014 05 0000000000000005 000000000000002a 02 6d31",
            r#"{"appId":1,"userId":10001,"msgId":"m1","data":"{\"outcome\":\"failed\",\"messageId\":\"42\",\"reason\":\"not_member\"}"}"#,
        ),
        (
            ServerFrame::Notice {
                code: NoticeCode::Draining,
                text: Cow::Borrowed("bye"),
                retry_after_ms: 1500,
                alternatives: Vec::new(),
            },
            "5346 000003ef 00000009 0002 000005dc 627965",
            r#"{"appId":1,"userId":10001,"data":"{\"code\":2,\"name\":\"draining\",\"text\":\"bye\",\"retryAfterMs\":1500}"}"#,
        ),
        (
            ServerFrame::Notice {
                code: NoticeCode::Draining,
                text: Cow::Borrowed("bye"),
                retry_after_ms: 1500,
                alternatives: vec![Cow::Borrowed("b:1"), Cow::Borrowed("c:2")],
            },
            "5346 000003ef 00000011 0002 000005dc 627965 0a 623a31 0a 633a32",
            r#"{"appId":1,"userId":10001,"data":"{\"code\":2,\"name\":\"draining\",\"text\":\"bye\",\"retryAfterMs\":1500,\"alternatives\":[\"b:1\",\"c:2\"]}"}"#,
        ),
        (
            ServerFrame::Joined { room: RoomId(7), sequence: 9, recovery: None },
            "5346 000003f2 00000010 0000000000000007 0000000000000009",
            r#"{"appId":1,"userId":10001,"data":"{\"roomId\":7,\"sequence\":9}"}"#,
        ),
        (
            ServerFrame::Joined { room: RoomId(7), sequence: 9, recovery: Some(Recovery::Complete) },
            "5346 000003f2 00000011 0000000000000007 0000000000000009 01",
            r#"{"appId":1,"userId":10001,"data":"{\"roomId\":7,\"sequence\":9,\"recovery\":\"complete\"}"}"#,
        ),
        (
            ServerFrame::Joined { room: RoomId(7), sequence: 9, recovery: Some(Recovery::TooOld) },
            "5346 000003f2 00000011 0000000000000007 0000000000000009 02",
            r#"{"appId":1,"userId":10001,"data":"{\"roomId\":7,\"sequence\":9,\"recovery\":\"too_old\"}"}"#,
        ),
        (
            ServerFrame::Left { room: RoomId(7) },
            "5346 000003f3 00000008 0000000000000007",
            r#"{"appId":1,"userId":10001,"data":"{\"roomId\":7}"}"#,
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON frame of that code, or several when the bodies are separated by a space.
fn json_frames(magic: u16, code: i32, bodies: &str) -> Vec<u8> {
    let frame = |body: &str| {
        let len = (body.len() as i32).to_be_bytes();
        [&magic.to_be_bytes()[..], &code.to_be_bytes(), &len, body.as_bytes()].concat()
    };
    bodies.split(' ').flat_map(frame).collect()
}

const PROTOCOL_MD: &str = include_str!("../../../docs/PROTOCOL.md");

#[test]
fn protocol_md_shows_every_frame_and_every_number() {
    let server = server_frames().into_iter().map(|(_, binary, json)| (binary, json));
    for (binary, json) in client_frames().into_iter().map(|(_, binary, json)| (binary, json)).chain(server) {
        assert!(PROTOCOL_MD.contains(binary), "{binary} is not drawn");
        let json = json.split(' ').next().expect("a split gives one part at least");
        assert!(PROTOCOL_MD.contains(&format!("`{json}`")), "{json} is not shown");
    }
    let notices = NoticeCode::ALL.map(|code| (code as u16, code.name()));
    let reasons = FailReason::ALL.map(|reason| (reason as u16, reason.name()));
    for (number, name) in notices.into_iter().chain(reasons) {
        assert!(
            PROTOCOL_MD.contains(&format!("\n| {number} | `{name}` | ")),
            "{number} {name} is not listed"
        );
    }
    for code in Code::ALL {
        assert!(PROTOCOL_MD.contains(&format!("\n| {} | ", code as i32)), "{code:?} is not listed");
    }
}

#[test]
fn client_frames_are_these_bytes() {
    for (frame, binary, json) in client_frames() {
        assert_eq!(hex(&client_bytes(&frame, Encoding::Binary)), binary.replace(' ', ""), "{frame:?}");
        for (encoding, magic) in [(Encoding::Json, 18677), (Encoding::JsonOld, 18673)] {
            let expected = json_frames(magic, frame.code() as i32, json);
            assert_eq!(client_bytes(&frame, encoding), expected, "{frame:?} is not {json}");
        }
    }
}

#[test]
fn server_frames_are_these_bytes() {
    for (frame, binary, json) in server_frames() {
        assert_eq!(hex(&server_bytes(&frame, Encoding::Binary)), binary.replace(' ', ""), "{frame:?}");
        for (encoding, magic) in [(Encoding::Json, 18677), (Encoding::JsonOld, 18673)] {
            let bytes = server_bytes(&frame, encoding);
            assert_eq!(String::from_utf8_lossy(only_frame(&bytes).body), json);
            assert_eq!(bytes, json_frames(magic, frame.code() as i32, json));
        }
    }
}

#[test]
fn codes_outcomes_and_reasons_have_these_numbers() {
    let notices = NoticeCode::ALL.map(|code| (code as u16, code.name()));
    let expected = [
        (1, "kicked"),
        (2, "draining"),
        (3, "rate_limited"),
        (4, "idle_timeout"),
        (5, "slow_reader"),
        (10, "bad_magic"),
        (11, "bad_code"),
        (12, "bad_length"),
        (13, "bad_body"),
        (20, "login_required"),
        (21, "login_timeout"),
        (22, "token_invalid"),
        (23, "token_expired"),
        (24, "already_logged_in"),
        (30, "address_limit"),
        (31, "server_full"),
        (100, "not_member"),
        (101, "no_route"),
        (102, "room_limit"),
        (103, "busy"),
        (104, "too_long"),
        (105, "bad_content"),
    ];
    assert_eq!(notices, expected);
    let reasons = FailReason::ALL.map(|reason| (reason as u16, reason.name()));
    let expected = [
        (1, "offline"),
        (2, "unacked"),
        (3, "disconnected"),
        (4, "overflow"),
        (5, "not_member"),
        (6, "no_route"),
        (7, "busy"),
        (8, "too_long"),
        (9, "bad_content"),
    ];
    assert_eq!(reasons, expected);
}
