//! What clients of the Java platform write, and how leniently it is read.

use std::borrow::Cow;

use wire::client::{AckIds, Business, ClientFrame, Code, DecodeError, Encoding, Frame, ServerFrame, Want};
use wire::{BizCode, MessageId, RoomId};

fn client(code: Code, body: &str) -> Result<ClientFrame<'_>, DecodeError> {
    let frame = |encoding| Frame { encoding, code, body: body.as_bytes() };
    let decoded = ClientFrame::decode(&frame(Encoding::Json));
    assert_eq!(decoded, ClientFrame::decode(&frame(Encoding::JsonOld)), "both magics read alike");
    decoded
}

fn business(body: &str) -> Business<'_> {
    match client(Code::Business, body) {
        Ok(ClientFrame::Business(business)) => business,
        other => panic!("{body} is {other:?}"),
    }
}

const BAD: Result<ClientFrame<'static>, DecodeError> = Err(DecodeError::BadBody);
/// Of a business packet, which has its form and a value of no use.
const OF_NO_USE: Result<ClientFrame<'static>, DecodeError> = Err(DecodeError::BadContent);

#[test]
fn the_exact_bodies_of_the_java_clients_decode() {
    let login = r#"{"appId":10001,"userId":101,"token":"eyJhbGciOi.JIUzI1.NiJ9","bizCode":0,"msgId":null,"data":null}"#;
    let token = Cow::Borrowed("eyJhbGciOi.JIUzI1.NiJ9");
    assert_eq!(client(Code::Login, login), Ok(ClientFrame::Login { token }));

    let heartbeat = r#"{"appId":10001,"bizCode":0,"userId":101}"#;
    assert_eq!(client(Code::Heartbeat, heartbeat), Ok(ClientFrame::Heartbeat { echo: b"" }));
    assert_eq!(client(Code::Logout, heartbeat), Ok(ClientFrame::Logout));

    let chat = r#"{"appId":10001,"userId":101,"bizCode":5555,"msgId":"9f0c","data":"{\"roomId\":7,\"type\":1,\"content\":\"hi\"}"}"#;
    let decoded = business(chat);
    assert_eq!((decoded.biz_code, decoded.target), (BizCode(5555), 7));
    assert_eq!(decoded.client_msg_id, "9f0c");
    assert_eq!(*decoded.payload, *br#"{"roomId":7,"type":1,"content":"hi"}"#);

    let ack = r#"{"appId":10001,"userId":101,"bizCode":5555,"msgId":"18446744073709551615"}"#;
    assert_eq!(client(Code::Ack, ack), Ok(ClientFrame::Ack(AckIds::One(MessageId(u64::MAX)))));
}

#[test]
fn fields_are_optional_and_unknown_ones_ignored() {
    for body in ["{}", " \n{ } ", r#"{"token":null}"#, r#"{"token":"","x":{"y":[1,2.5,true]}}"#] {
        assert_eq!(client(Code::Login, body), Ok(ClientFrame::Login { token: Cow::Borrowed("") }), "{body}");
    }
    let empty = business("{}");
    assert_eq!((empty.biz_code, empty.target), (BizCode(0), 0));
    assert!(empty.client_msg_id.is_empty() && empty.payload.is_empty());
    assert!(business(r#"{"msgId":""}"#).client_msg_id.is_empty());
    assert_eq!(client(Code::Heartbeat, ""), Ok(ClientFrame::Heartbeat { echo: b"" }));
    assert_eq!(client(Code::Logout, ""), Ok(ClientFrame::Logout));
}

#[test]
fn fields_that_the_frame_does_not_use_may_hold_anything() {
    let body =
        r#"{"appId":{},"userId":[1],"bizCode":"x","msgId":1e99,"data":{"a":1},"target":"?","token":"t"}"#;
    assert_eq!(client(Code::Login, body), Ok(ClientFrame::Login { token: Cow::Borrowed("t") }));
    assert_eq!(client(Code::Heartbeat, body), Ok(ClientFrame::Heartbeat { echo: b"" }));
}

#[test]
fn numbers_and_text_stand_for_each_other() {
    let decoded = business(r#"{"bizCode":"5555","msgId":12345678901234567890,"target":"-7","data":17}"#);
    assert_eq!((decoded.biz_code, decoded.target), (BizCode(5555), -7));
    assert_eq!(decoded.client_msg_id, "12345678901234567890");
    assert_eq!(*decoded.payload, *b"17");
}

#[test]
fn the_target_is_found() {
    let target = |body: &str| business(body).target;
    assert_eq!(target(r#"{"target":5,"data":"{\"objectId\":6,\"roomId\":7}"}"#), 5);
    assert_eq!(target(r#"{"target":0,"data":"{\"objectId\":6}"}"#), 0, "said to be none");
    assert_eq!(target(r#"{"target":null,"data":"{\"objectId\":6,\"roomId\":7}"}"#), 6);
    assert_eq!(target(r#"{"data":"{\"objectId\":\"6\"}"}"#), 6);
    assert_eq!(target(r#"{"data":"{\"objectId\":null,\"roomId\":\"7\"}"}"#), 7);
    assert_eq!(target(r#"{"data":"{\"objectId\":0,\"roomId\":7}"}"#), 7);
    assert_eq!(target(r#"{"data":"{\"objectId\":\"x\",\"roomId\":7}"}"#), 7);
    assert_eq!(target(r#"{"data":" {\"roomId\":7} "}"#), 7);
    assert_eq!(target(r#"{"data":"{\"roomId\":7"}"#), 0, "data is no JSON");
    assert_eq!(target(r#"{"data":"[7]"}"#), 0, "data is no object");
    assert_eq!(target(r#"{"data":"7"}"#), 0, "data is no object");
    assert_eq!(client(Code::Business, r#"{"target":"x"}"#), OF_NO_USE);
    assert_eq!(client(Code::Business, r#"{"target":9223372036854775808}"#), OF_NO_USE);
}

#[test]
fn the_room_to_join_is_found() {
    for (code, make) in [
        (Code::Join, (|room| ClientFrame::Join { room, want: None }) as fn(RoomId) -> ClientFrame<'static>),
        (Code::Leave, |room| ClientFrame::Leave { room }),
    ] {
        let bodies = [
            r#"{"target":7}"#,
            r#"{"target":"7","data":"{\"roomId\":8}"}"#,
            r#"{"data":"{\"roomId\":7}"}"#,
            r#"{"data":"{\"roomId\":\"7\",\"userId\":1}"}"#,
            r#"{"data":"7"}"#,
            r#"{"data":7}"#,
        ];
        for body in bodies {
            assert_eq!(client(code, body), Ok(make(RoomId(7))), "{body}");
        }
        let bad = [
            "",
            "{}",
            r#"{"data":""}"#,
            r#"{"data":"{}"}"#,
            r#"{"data":"x"}"#,
            r#"{"data":"{\"objectId\":7}"}"#,
        ];
        for body in bad {
            assert_eq!(client(code, body), BAD, "{body}");
        }
    }
}

#[test]
fn a_join_may_want_what_was_said_before() {
    let room = RoomId(7);
    let join = |want| Ok(ClientFrame::Join { room, want });
    let wants = [
        (r#"{"target":7,"since":9}"#, Some(Want::Since(9))),
        (r#"{"data":"7","since":"18446744073709551615"}"#, Some(Want::Since(u64::MAX))),
        (r#"{"target":7,"last":"20"}"#, Some(Want::Last(20))),
        (r#"{"target":7,"last":0,"since":null}"#, Some(Want::Last(0))),
        (r#"{"target":7,"since":""}"#, None),
    ];
    for (body, want) in wants {
        assert_eq!(client(Code::Join, body), join(want), "{body}");
    }
    let bad = [
        r#"{"target":7,"since":1,"last":1}"#,
        r#"{"target":7,"since":-1}"#,
        r#"{"target":7,"last":1.5}"#,
        r#"{"target":7,"last":"x"}"#,
        r#"{"target":7,"since":18446744073709551616}"#,
        r#"{"since":9}"#,
    ];
    for body in bad {
        assert_eq!(client(Code::Join, body), BAD, "{body}");
    }
    assert_eq!(client(Code::Leave, r#"{"target":7,"since":-1}"#), Ok(ClientFrame::Leave { room }));
}

#[test]
fn an_ack_of_no_decimal_names_no_message() {
    let none = Ok(ClientFrame::Ack(AckIds::One(MessageId(0))));
    for id in ["null", "\"\"", "\"abc\"", "-1", "\"18446744073709551616\"", "1.5", "{}", "true"] {
        assert_eq!(client(Code::Ack, &format!(r#"{{"msgId":{id}}}"#)), none, "{id}");
    }
    assert_eq!(client(Code::Ack, "{}"), none);
    assert_eq!(client(Code::Ack, r#"{"msgId":42}"#), Ok(ClientFrame::Ack(AckIds::One(MessageId(42)))));
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for code in
        [Code::Login, Code::Logout, Code::Business, Code::Heartbeat, Code::Ack, Code::Join, Code::Leave]
    {
        for body in ["null", "[]", "1", "\"x\"", " ", "{", "{}}", "{'a':1}", "SF", "[1,2]"] {
            assert_eq!(client(code, body), BAD, "{code:?} {body}");
        }
        let frame = Frame {
            encoding: Encoding::Json,
            code,
            body: b"{\"token\":\"\xff\",\"data\":\"\xff\",\"msgId\":\"\xff\"}",
        };
        let refused = if code == Code::Business { OF_NO_USE } else { BAD };
        assert_eq!(ClientFrame::decode(&frame), refused, "{code:?}: no UTF-8");
    }
}

#[test]
fn text_is_bounded() {
    let login = |len: usize| client(Code::Login, &format!(r#"{{"token":"{}"}}"#, "a".repeat(len))).is_ok();
    assert!(login(4096) && !login(4097));
    let id = |len: usize| client(Code::Business, &format!(r#"{{"msgId":"{}"}}"#, "a".repeat(len))).is_ok();
    assert!(id(64) && !id(65));
}

#[test]
fn binary_payloads_travel_as_base64() {
    assert_eq!(*business(r#"{"data":"/wA=","dataEncoding":"base64"}"#).payload, *b"\xff\0");
    assert_eq!(*business(r#"{"data":"/wA=","dataEncoding":null}"#).payload, *b"/wA=");
    assert_eq!(client(Code::Business, r#"{"data":"/wA","dataEncoding":"base64"}"#), OF_NO_USE);
    assert_eq!(client(Code::Business, r#"{"data":"x","dataEncoding":"hex"}"#), OF_NO_USE);
}

/// A client that repeats what it has no answer for would else be closed by it again and again.
#[test]
fn a_packet_with_a_value_of_no_use_is_told_apart_from_one_that_is_no_json() {
    let name = |body: &'static str| {
        let frame = Frame { encoding: Encoding::Json, code: Code::Business, body: body.as_bytes() };
        assert_eq!(ClientFrame::decode(&frame), OF_NO_USE, "{body}");
        ClientFrame::client_msg_id_of_refused(&frame).into_owned()
    };
    assert_eq!(name(r#"{"bizCode":6001,"msgId":"m1","data":"\ud83d","target":2}"#), "m1");
    assert_eq!(name(r#"{"msgId":7,"data":"\ude00 text \ud83d\u0041"}"#), "7");
    assert_eq!(name(r#"{"bizCode":6001.5,"msgId":"m1"}"#), "m1");
    assert_eq!(name(r#"{"bizCode":6001,"bizCode":6001,"msgId":"m1"}"#), "m1");
    assert_eq!(name(r#"{"msgId":"\ud83d","data":"x"}"#), "", "the name itself is of no use");
    assert_eq!(client(Code::Business, r#"{"data":"\ud83d""#), BAD, "the object has no end");
    assert_eq!(client(Code::Business, r#"{"data":"\uzzzz"}"#), BAD, "no escape");
}

#[test]
fn text_without_escapes_is_borrowed() {
    let Ok(ClientFrame::Business(plain)) = client(Code::Business, r#"{"msgId":"m","data":"plain"}"#) else {
        panic!("decodes")
    };
    assert!(matches!(plain.payload, Cow::Borrowed(b"plain")));
    assert!(matches!(plain.client_msg_id, Cow::Borrowed("m")));
    assert!(matches!(business(r#"{"data":"a\nb"}"#).payload, Cow::Owned(_)));
}

#[test]
fn deep_nesting_is_refused_or_skipped_without_a_deep_stack() {
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(client(Code::Heartbeat, &deep), Ok(ClientFrame::Heartbeat { echo: b"" }));
    let open = format!(r#"{{"data":{}"#, "{\"a\":".repeat(10_000));
    assert_eq!(client(Code::Business, &open), BAD);
}

#[test]
fn a_login_answer_must_say_true() {
    let server = |body: &'static str| {
        ServerFrame::decode(&Frame { encoding: Encoding::Json, code: Code::Login, body: body.as_bytes() })
    };
    assert_eq!(server(r#"{"data":"true"}"#), Ok(ServerFrame::LoggedIn { heartbeat_ms: 0 }));
    assert_eq!(server(r#"{"data":"false"}"#), Err(DecodeError::BadBody));
    assert_eq!(server("{}"), Err(DecodeError::BadBody));
}
