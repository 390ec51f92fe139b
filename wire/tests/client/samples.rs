//! Frames to test with, and ways to compare them.

use std::borrow::Cow;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use wire::client::{
    ALTERNATIVES_MAX, AckIds, Business, ClientFrame, Deframer, Encoding, FailReason, Frame, Message,
    NoticeCode, Outcome, Recovery, SendAck, ServerFrame, Want,
};
use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

pub const APP: AppId = AppId(1);
pub const USER: UserId = UserId(10_001);
pub const ENCODINGS: [Encoding; 3] = [Encoding::Binary, Encoding::Json, Encoding::JsonOld];
pub const BODY_BYTES_MAX: usize = 64 * 1024;

pub fn id(text: &'static str) -> ClientMsgId {
    ClientMsgId::new(Bytes::from_static(text.as_bytes()))
}

/// What a binary body must measure: `fixed` bytes, then a tail that fills the rest of the body, if it has
/// one.
pub struct Sample<F> {
    pub frame: F,
    pub fixed: usize,
    pub tail: Option<usize>,
}

fn sample<F>(frame: F, fixed: usize, tail: Option<usize>) -> Sample<F> {
    Sample { frame, fixed, tail }
}

pub fn client_samples() -> Vec<Sample<ClientFrame<'static>>> {
    let chat = Business {
        biz_code: BizCode(5555),
        target: 7,
        client_msg_id: Cow::Borrowed("c-1"),
        payload: Cow::Borrowed("grüß \"dich\"\n".as_bytes()),
    };
    let bare = Business {
        biz_code: BizCode(-1),
        target: i64::MIN,
        client_msg_id: Cow::Borrowed(""),
        payload: Cow::Borrowed(b""),
    };
    let raw = Business { payload: Cow::Borrowed(b"\xff\0\x80"), target: 0, ..chat.clone() };
    let object = Business { payload: Cow::Borrowed(br#"{"roomId":9}"#), target: 0, ..bare.clone() };
    vec![
        sample(ClientFrame::Login { token: Cow::Borrowed("a.b.c") }, 0, Some(5)),
        sample(ClientFrame::Logout, 0, None),
        sample(ClientFrame::Business(chat), 16, Some(14)),
        sample(ClientFrame::Business(bare), 13, Some(0)),
        sample(ClientFrame::Business(raw), 16, Some(3)),
        sample(ClientFrame::Business(object), 13, Some(12)),
        sample(ClientFrame::Heartbeat { echo: b"" }, 0, Some(0)),
        sample(ClientFrame::Heartbeat { echo: b"12345678" }, 0, Some(8)),
        sample(ClientFrame::Ack(AckIds::Packed(&[1; 8])), 8, Some(0)),
        sample(ClientFrame::Ack(AckIds::Packed(&[0xfe; 24])), 8, Some(16)),
        sample(ClientFrame::Join { room: RoomId(7), want: None }, 8, None),
        sample(ClientFrame::Leave { room: RoomId(i64::MAX) }, 8, None),
    ]
}

pub fn server_samples() -> Vec<Sample<ServerFrame<'static>>> {
    let chat = Message {
        id: MessageId(77),
        app: APP,
        sender: UserId(10_002),
        biz_code: BizCode(5555),
        room: Some(RoomId(7)),
        sequence: 1_000,
        ack_wanted: false,
        client_msg_id: id("c-1"),
        payload: Bytes::from_static(b"hello \\ \"there\""),
    };
    let direct = Message { room: None, sequence: 0, ack_wanted: true, client_msg_id: id(""), ..chat.clone() };
    let raw = Message { payload: Bytes::from_static(b"\xc3\x28"), ack_wanted: true, ..chat.clone() };
    let mut samples = vec![
        sample(ServerFrame::LoggedIn { heartbeat_ms: 30_000 }, 4, None),
        sample(ServerFrame::LoggedOut, 0, None),
        sample(ServerFrame::Deliver(Cow::Owned(chat)), 41, Some(15)),
        sample(ServerFrame::Deliver(Cow::Owned(direct)), 22, Some(15)),
        sample(ServerFrame::Deliver(Cow::Owned(raw)), 41, Some(2)),
        sample(ServerFrame::Heartbeat { echo: b"" }, 0, Some(0)),
        sample(ServerFrame::Heartbeat { echo: &[9; 64] }, 0, Some(64)),
        sample(ServerFrame::Joined { room: RoomId(7), sequence: u64::MAX, recovery: None }, 16, None),
        sample(ServerFrame::Left { room: RoomId(-7) }, 8, None),
    ];
    let outcomes = [
        Outcome::Delivered,
        Outcome::Stored,
        Outcome::Sequenced { sequence: 1_001 },
        Outcome::Answered,
        Outcome::Failed(FailReason::NotMember),
    ];
    for outcome in outcomes.into_iter().chain(FailReason::ALL.map(Outcome::Failed)) {
        let ack = SendAck { client_msg_id: id("c-1"), id: MessageId(77), outcome };
        samples.push(sample(ServerFrame::SendAck(ack), 21, None));
    }
    for code in NoticeCode::ALL {
        let text = Cow::Borrowed("\"go\" \u{1f40b}");
        let notice = ServerFrame::Notice { code, text, retry_after_ms: 250, alternatives: Vec::new() };
        samples.push(sample(notice, 6, Some(9)));
    }
    let alternatives = vec![Cow::Borrowed("10.0.0.2:5346"), Cow::Borrowed("[::1]:5346")];
    let notice = ServerFrame::Notice {
        code: NoticeCode::Draining,
        text: Cow::Borrowed("bye"),
        retry_after_ms: 0,
        alternatives,
    };
    samples.push(sample(notice, 6, Some(28)));
    samples
}

pub fn client_bytes(frame: &ClientFrame<'_>, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(encoding, APP, USER, &mut out);
    out
}

pub fn server_bytes(frame: &ServerFrame<'_>, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(encoding, APP, USER, &mut out);
    out
}

/// The one frame of `bytes`.
pub fn only_frame(bytes: &[u8]) -> Frame<'_> {
    let mut input = bytes;
    let mut deframer = Deframer::default();
    let frame = deframer.next(&mut input, BODY_BYTES_MAX).unwrap().expect("a whole frame");
    let Frame { encoding, code, body } = frame;
    let body_bytes = body.len();
    assert!(input.is_empty(), "bytes after the frame");
    Frame { encoding, code, body: &bytes[bytes.len() - body_bytes..] }
}

/// Every sample of both directions in every encoding, one after another.
pub fn capture() -> Vec<u8> {
    let mut out = Vec::new();
    for encoding in ENCODINGS {
        client_samples().iter().for_each(|sample| out.extend(client_bytes(&sample.frame, encoding)));
        server_samples().iter().for_each(|sample| out.extend(server_bytes(&sample.frame, encoding)));
    }
    out
}

/// Whether a decoded frame says what the encoded one did, as far as the encoding carries it.
pub fn same_client(decoded: &ClientFrame<'_>, encoded: &ClientFrame<'_>, encoding: Encoding) -> bool {
    match (decoded, encoded) {
        (ClientFrame::Ack(decoded), ClientFrame::Ack(encoded)) => decoded.iter().eq(encoded.iter()),
        (ClientFrame::Heartbeat { echo }, ClientFrame::Heartbeat { .. }) if encoding != Encoding::Binary => {
            echo.is_empty()
        }
        _ => decoded == encoded,
    }
}

/// The same for the other direction.
pub fn same_server(decoded: &ServerFrame<'_>, encoded: &ServerFrame<'_>, encoding: Encoding) -> bool {
    match (decoded, encoded) {
        (ServerFrame::Deliver(decoded), ServerFrame::Deliver(encoded)) if encoding == Encoding::Binary => {
            **decoded == Message { app: AppId(0), ..encoded.clone().into_owned() }
        }
        (ServerFrame::Heartbeat { echo }, ServerFrame::Heartbeat { .. }) if encoding != Encoding::Binary => {
            echo.is_empty()
        }
        _ => decoded == encoded,
    }
}

/// Text with everything that JSON must escape, up to `chars_max` characters of up to 4 bytes.
fn any_text(chars_max: usize) -> impl Strategy<Value = String> {
    let char = prop_oneof![any::<char>(), select(vec!['"', '\\', '\0', '\n', '{', '7', '\u{2028}'])];
    vec(char, 0..=chars_max).prop_map(|chars| chars.into_iter().collect())
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), any_text(50).prop_map(String::into_bytes)]
}

fn any_client_msg_id() -> impl Strategy<Value = ClientMsgId> {
    any_text(16).prop_map(|text| ClientMsgId::new(Bytes::from(text)))
}

/// The frames borrow their echo and their ids; a test may leak a few bytes.
fn leak(bytes: Vec<u8>) -> &'static [u8] {
    Vec::leak(bytes)
}

pub fn any_client_frame() -> impl Strategy<Value = ClientFrame<'static>> {
    let business = (any::<i32>(), any::<i64>(), any_text(16), any_payload()).prop_map(
        |(biz_code, target, client_msg_id, payload)| {
            ClientFrame::Business(Business {
                biz_code: BizCode(biz_code),
                target,
                client_msg_id: client_msg_id.into(),
                payload: payload.into(),
            })
        },
    );
    let ids = vec(any::<[u8; 8]>(), 1..=128).prop_map(|ids| AckIds::Packed(leak(ids.concat())));
    prop_oneof![
        any_text(1024).prop_map(|token| ClientFrame::Login { token: token.into() }),
        Just(ClientFrame::Logout),
        business,
        vec(any::<u8>(), 0..=64).prop_map(|echo| ClientFrame::Heartbeat { echo: leak(echo) }),
        ids.prop_map(ClientFrame::Ack),
        (any::<i64>(), any_want()).prop_map(|(room, want)| ClientFrame::Join { room: RoomId(room), want }),
        any::<i64>().prop_map(|room| ClientFrame::Leave { room: RoomId(room) }),
    ]
}

fn any_want() -> impl Strategy<Value = Option<Want>> {
    let want = prop_oneof![any::<u64>().prop_map(Want::Since), any::<u64>().prop_map(Want::Last)];
    option::of(want)
}

fn any_message() -> impl Strategy<Value = Message> {
    let ids = (any::<u64>(), any::<i32>(), any::<i64>(), any::<i32>());
    let room = option::of((any::<i64>(), any::<u64>()));
    (ids, room, any::<bool>(), any_client_msg_id(), any_payload()).prop_map(
        |((id, app, sender, biz_code), room, ack_wanted, client_msg_id, payload)| Message {
            id: MessageId(id),
            app: AppId(app),
            sender: UserId(sender),
            biz_code: BizCode(biz_code),
            room: room.map(|(room, _)| RoomId(room)),
            sequence: room.map_or(0, |(_, sequence)| sequence),
            ack_wanted,
            client_msg_id,
            payload: payload.into(),
        },
    )
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Delivered),
        Just(Outcome::Stored),
        any::<u64>().prop_map(|sequence| Outcome::Sequenced { sequence }),
        Just(Outcome::Answered),
        select(&FailReason::ALL[..]).prop_map(Outcome::Failed),
    ]
}

pub fn any_server_frame() -> impl Strategy<Value = ServerFrame<'static>> {
    let ack = (any_client_msg_id(), any::<u64>(), any_outcome()).prop_map(|(client_msg_id, id, outcome)| {
        ServerFrame::SendAck(SendAck { client_msg_id, id: MessageId(id), outcome })
    });
    let line = || any_text(40).prop_map(|text| Cow::Owned(text.replace('\n', "")));
    let alternatives = vec(line(), 0..=ALTERNATIVES_MAX);
    let notice = (select(&NoticeCode::ALL[..]), line(), any::<u32>(), alternatives).prop_map(
        |(code, text, retry_after_ms, alternatives)| ServerFrame::Notice {
            code,
            text,
            retry_after_ms,
            alternatives,
        },
    );
    prop_oneof![
        any::<u32>().prop_map(|heartbeat_ms| ServerFrame::LoggedIn { heartbeat_ms }),
        Just(ServerFrame::LoggedOut),
        any_message().prop_map(|message| ServerFrame::Deliver(Cow::Owned(message))),
        vec(any::<u8>(), 0..=64).prop_map(|echo| ServerFrame::Heartbeat { echo: leak(echo) }),
        ack,
        notice,
        (any::<i64>(), any::<u64>(), option::of(select(&Recovery::ALL[..]))).prop_map(
            |(room, sequence, recovery)| ServerFrame::Joined { room: RoomId(room), sequence, recovery }
        ),
        any::<i64>().prop_map(|room| ServerFrame::Left { room: RoomId(room) }),
    ]
}
