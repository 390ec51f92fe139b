//! Each frame: round trip, exact size, truncation at every prefix, trailing bytes, limits.

use std::borrow::Cow;

use proptest::prelude::*;
use wire::client::{
    ALTERNATIVES_MAX, AckIds, ClientFrame, Code, DecodeError, Encoding, FailReason, Frame, HEADER_BYTES,
    Message, NoticeCode, Recovery, ServerFrame, Want,
};
use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

use crate::samples::{
    ENCODINGS, any_client_frame, any_server_frame, client_bytes, client_samples, only_frame, same_client,
    same_server, server_bytes, server_samples,
};

const BINARY: Encoding = Encoding::Binary;

fn binary(code: Code, body: &[u8]) -> Frame<'_> {
    Frame { encoding: BINARY, code, body }
}

fn assert_client_round_trip(frame: &ClientFrame<'_>, encoding: Encoding) {
    let bytes = client_bytes(frame, encoding);
    if let (ClientFrame::Ack(ids), Encoding::Json | Encoding::JsonOld) = (frame, encoding) {
        // One id a frame.
        let singles = ids.iter().map(|id| client_bytes(&ClientFrame::Ack(AckIds::One(id)), encoding));
        let singles: Vec<Vec<u8>> = singles.collect();
        assert_eq!(bytes, singles.concat());
        for (single, id) in singles.iter().zip(ids.iter()) {
            let decoded = ClientFrame::decode(&only_frame(single));
            assert_eq!(decoded, Ok(ClientFrame::Ack(AckIds::One(id))));
        }
        return;
    }
    let header = only_frame(&bytes);
    assert_eq!((header.encoding, header.code), (encoding, frame.code()));
    let decoded = ClientFrame::decode(&header).expect("a frame decodes");
    assert!(same_client(&decoded, frame, encoding), "{encoding:?}: {decoded:?} was {frame:?}");
}

fn assert_server_round_trip(frame: &ServerFrame<'_>, encoding: Encoding) {
    let bytes = server_bytes(frame, encoding);
    let header = only_frame(&bytes);
    assert_eq!((header.encoding, header.code), (encoding, frame.code()));
    let decoded = ServerFrame::decode(&header).expect("a frame decodes");
    assert!(same_server(&decoded, frame, encoding), "{encoding:?}: {decoded:?} was {frame:?}");
}

#[test]
fn samples_round_trip() {
    for encoding in ENCODINGS {
        client_samples().iter().for_each(|sample| assert_client_round_trip(&sample.frame, encoding));
        server_samples().iter().for_each(|sample| assert_server_round_trip(&sample.frame, encoding));
    }
}

#[test]
fn samples_cover_every_code() {
    let mut codes: Vec<Code> = client_samples().iter().map(|sample| sample.frame.code()).collect();
    codes.extend(server_samples().iter().map(|sample| sample.frame.code()));
    assert!(Code::ALL.iter().all(|code| codes.contains(code)));
}

proptest! {
    #[test]
    fn client_frames_round_trip(frame in any_client_frame()) {
        ENCODINGS.iter().for_each(|encoding| assert_client_round_trip(&frame, *encoding));
    }

    #[test]
    fn server_frames_round_trip(frame in any_server_frame()) {
        ENCODINGS.iter().for_each(|encoding| assert_server_round_trip(&frame, *encoding));
    }
}

#[test]
fn binary_sizes_are_exact() {
    for sample in client_samples() {
        let bytes = client_bytes(&sample.frame, BINARY).len();
        assert_eq!(bytes, HEADER_BYTES + sample.fixed + sample.tail.unwrap_or(0), "{:?}", sample.frame);
    }
    for sample in server_samples() {
        let bytes = server_bytes(&sample.frame, BINARY).len();
        assert_eq!(bytes, HEADER_BYTES + sample.fixed + sample.tail.unwrap_or(0), "{:?}", sample.frame);
    }
}

#[test]
fn encoding_appends() {
    for encoding in ENCODINGS {
        let mut out = b"before".to_vec();
        let frame = ClientFrame::Logout;
        frame.encode(encoding, crate::samples::APP, crate::samples::USER, &mut out);
        assert_eq!(out[6..], client_bytes(&frame, encoding));
        assert_eq!(&out[..6], b"before");
    }
}

/// Cuts a body everywhere and adds to it, and checks what a decoder that gives `Ok(whether it is the sample)`
/// says.
fn assert_exact(
    body: &[u8],
    fixed: usize,
    tail: Option<usize>,
    decode: impl Fn(&[u8]) -> Result<bool, DecodeError>,
) {
    for cut in 0..body.len() {
        match decode(&body[..cut]) {
            Ok(same) => assert!(cut >= fixed && tail.is_some() && !same, "cut at {cut} of {body:?}"),
            Err(error) => assert_eq!(error, DecodeError::BadBody),
        }
    }
    let longer = [body, b"x"].concat();
    match decode(&longer) {
        Ok(same) => assert!(tail.is_some() && !same, "trailing byte of {longer:?}"),
        Err(error) => assert_eq!(error, DecodeError::BadBody),
    }
}

#[test]
fn binary_bodies_are_neither_cut_nor_longer() {
    for sample in client_samples() {
        let bytes = client_bytes(&sample.frame, BINARY);
        assert_exact(&bytes[HEADER_BYTES..], sample.fixed, sample.tail, |body| {
            ClientFrame::decode(&binary(sample.frame.code(), body))
                .map(|decoded| same_client(&decoded, &sample.frame, BINARY))
        });
    }
    for sample in server_samples() {
        let bytes = server_bytes(&sample.frame, BINARY);
        assert_exact(&bytes[HEADER_BYTES..], sample.fixed, sample.tail, |body| {
            ServerFrame::decode(&binary(sample.frame.code(), body))
                .map(|decoded| same_server(&decoded, &sample.frame, BINARY))
        });
    }
}

/// A join has one of two lengths, and so has its answer.
#[test]
fn a_binary_join_is_8_or_17_bytes_and_its_answer_16_or_17() {
    let room = RoomId(0x0707_0707_0707_0707);
    let value = u64::from_be_bytes([7; 8]);
    for (kind, want) in [(1, Some(Want::Since(value))), (2, Some(Want::Last(value))), (0, None), (3, None)] {
        let body = [&[7; 8][..], &[kind], &[7; 9]].concat();
        for len in 0..=body.len() {
            let decoded = ClientFrame::decode(&binary(Code::Join, &body[..len]));
            let expected = match (len, want) {
                (8, _) => Ok(ClientFrame::Join { room, want: None }),
                (17, Some(_)) => Ok(ClientFrame::Join { room, want }),
                _ => Err(DecodeError::BadBody),
            };
            assert_eq!(decoded, expected, "{len} bytes of kind {kind}");
        }
    }
    let answers = [(1, Some(Recovery::Complete)), (2, Some(Recovery::TooOld)), (0, None), (3, None)];
    for (number, recovery) in answers {
        let body = [&[7; 16][..], &[number, 7]].concat();
        for len in 0..=body.len() {
            let decoded = ServerFrame::decode(&binary(Code::Join, &body[..len]));
            let expected = match (len, recovery) {
                (16, _) => Ok(ServerFrame::Joined { room, sequence: value, recovery: None }),
                (17, Some(_)) => Ok(ServerFrame::Joined { room, sequence: value, recovery }),
                _ => Err(DecodeError::BadBody),
            };
            assert_eq!(decoded, expected, "{len} bytes of recovery {number}");
        }
    }
}

#[test]
fn json_bodies_are_neither_cut_nor_longer() {
    let may_be_empty = |code| matches!(code, Code::Heartbeat | Code::Logout);
    let assert_exact = |frame: Frame<'_>, decodes: &dyn Fn(&Frame<'_>) -> Option<DecodeError>| {
        for cut in 0..frame.body.len() {
            let error = decodes(&Frame { body: &frame.body[..cut], ..frame });
            let expected = (cut > 0 || !may_be_empty(frame.code)).then_some(DecodeError::BadBody);
            assert_eq!(error, expected, "{:?} cut at {cut}", frame.code);
        }
        for tail in ["x", "{}", "\0"] {
            let body = [frame.body, tail.as_bytes()].concat();
            assert_eq!(decodes(&Frame { body: &body, ..frame }), Some(DecodeError::BadBody));
        }
    };
    // The last sample of acks has several ids, so it is several frames.
    let single = |frame: &ClientFrame<'_>| !matches!(frame, ClientFrame::Ack(ids) if ids.iter().count() > 1);
    for sample in client_samples().iter().filter(|sample| single(&sample.frame)) {
        let bytes = client_bytes(&sample.frame, Encoding::Json);
        assert_exact(only_frame(&bytes), &|frame| ClientFrame::decode(frame).err());
    }
    for sample in server_samples() {
        let bytes = server_bytes(&sample.frame, Encoding::Json);
        assert_exact(only_frame(&bytes), &|frame| ServerFrame::decode(frame).err());
    }
}

#[test]
fn codes_of_the_other_direction_are_refused() {
    for encoding in ENCODINGS {
        for code in [Code::SendAck, Code::Notice] {
            let frame = Frame { encoding, code, body: b"{}" };
            assert_eq!(ClientFrame::decode(&frame), Err(DecodeError::BadCode));
        }
        let frame = Frame { encoding, code: Code::Ack, body: b"{}" };
        assert_eq!(ServerFrame::decode(&frame), Err(DecodeError::BadCode));
    }
}

#[test]
fn binary_limits_hold_at_the_border() {
    let client = |code, len: usize| ClientFrame::decode(&binary(code, &vec![b'a'; len])).is_ok();
    assert!(client(Code::Login, 4096) && !client(Code::Login, 4097));
    assert!(client(Code::Heartbeat, 64) && !client(Code::Heartbeat, 65));
    assert!(client(Code::Ack, 128 * 8) && !client(Code::Ack, 129 * 8));
    assert!(!client(Code::Ack, 0) && !client(Code::Ack, 12));

    let business = |id_len: u8, id: &[u8]| {
        let body = [&[0; 12][..], &[id_len], id].concat();
        ClientFrame::decode(&binary(Code::Business, &body)).err()
    };
    assert_eq!(business(64, &[b'a'; 64]), None);
    assert_eq!(business(65, &[b'a'; 65]), Some(DecodeError::BadContent), "an id past 64 bytes");
    assert_eq!(business(2, b"\xc3\x28"), Some(DecodeError::BadContent), "an id that is no UTF-8");
    assert_eq!(business(3, b"ab"), Some(DecodeError::BadBody), "an id past the body's end");
}

/// The longest body of a frame that delivers it, over all encodings, senders, rooms and sequences.
fn longest_body(client_msg_id: &str, payload: &[u8]) -> usize {
    let message = Message {
        id: MessageId(u64::MAX),
        app: AppId(i32::MIN),
        sender: UserId(i64::MIN),
        biz_code: BizCode(i32::MIN),
        room: Some(RoomId(i64::MIN)),
        sequence: u64::MAX,
        ack_wanted: true,
        client_msg_id: ClientMsgId::new(client_msg_id.to_owned().into()),
        payload: payload.to_vec().into(),
    };
    let frame = ServerFrame::Deliver(Cow::Owned(message));
    let bodies = ENCODINGS.map(|encoding| server_bytes(&frame, encoding).len() - HEADER_BYTES);
    bodies.into_iter().max().unwrap_or_default()
}

#[test]
fn a_message_fits_when_its_longest_frame_does() {
    const LIMIT: usize = 1024;
    let texts: [&[u8]; 6] = [b"a", b"\x01", b"\"", "\u{e4}".as_bytes(), "\u{1f600}".as_bytes(), b"\xff"];
    for unit in texts {
        for id in ["", "m1", &"\x02".repeat(64), &"a".repeat(64)] {
            for units in (0..1_030).step_by(3) {
                let payload = unit.repeat(units);
                let is_within = longest_body(id, &payload) <= LIMIT;
                let fits = Message::fits(id.as_bytes(), &payload, LIMIT);
                // Without an id or base64 some bytes of what stands around the payload are spared.
                assert!(fits || !is_within || longest_body(id, &payload) + 80 > LIMIT, "{units} of {unit:?}");
                assert!(!fits || is_within, "{units} of {unit:?}, {id:?}: {}", longest_body(id, &payload));
            }
        }
    }
    assert!(Message::fits(b"", &[b'a'; 764], LIMIT) && !Message::fits(b"", &[1; 140], LIMIT));
}

#[test]
fn binary_fields_out_of_range_are_refused() {
    let server = |code, body: &[u8]| ServerFrame::decode(&binary(code, body)).err();
    let bad = Some(DecodeError::BadBody);

    assert_eq!(server(Code::Business, &[&[4][..], &[0; 21]].concat()), bad, "an unknown flag");
    let ack = |outcome: u8, detail: u64| {
        server(Code::SendAck, &[&[outcome][..], &detail.to_be_bytes(), &[0; 8], b"\x01a"].concat())
    };
    assert_eq!(ack(1, 0), None);
    assert_eq!(ack(0, 0), bad, "an unknown outcome");
    assert_eq!(ack(6, 0), bad, "an unknown outcome");
    assert_eq!(ack(1, 1), bad, "a detail where there is none");
    assert_eq!(ack(5, 0), bad, "an unknown reason");
    assert_eq!(ack(5, 10), bad, "an unknown reason");
    assert_eq!(ack(5, (1 << 16) + 1), bad, "a reason past 16 bits");
    assert_eq!(server(Code::Notice, &[0, 1, 0, 0, 0, 0]), None);
    assert_eq!(server(Code::Notice, &[0, 0, 0, 0, 0, 0]), bad, "an unknown notice");
    assert_eq!(server(Code::Notice, &[0, 1, 0, 0, 0, 0, 0xff]), bad, "a text that is no UTF-8");
    let lines = |count| [&[0, 1, 0, 0, 0, 0][..], &vec![b'\n'; count]].concat();
    assert_eq!(server(Code::Notice, &lines(ALTERNATIVES_MAX)), None);
    assert_eq!(server(Code::Notice, &lines(ALTERNATIVES_MAX + 1)), bad, "too many alternatives");
    let client = |code, body: &[u8]| ClientFrame::decode(&binary(code, body)).err();
    assert_eq!(client(Code::Login, b"\xff"), bad, "a token that is no UTF-8");
}

#[test]
fn numbers_name_what_they_should() {
    for number in -1..2000 {
        let code = Code::from_i32(number);
        assert_eq!(code, Code::ALL.into_iter().find(|code| *code as i32 == number));
    }
    for number in 0..200 {
        let notice = NoticeCode::from_u16(number);
        assert!(notice.is_none_or(|notice| notice as u16 == number && notice.closes() == (number < 100)));
        let reason = FailReason::from_u16(number);
        assert!(reason.is_none_or(|reason| reason as u16 == number));
    }
    assert!(NoticeCode::ALL.into_iter().all(|notice| NoticeCode::from_u16(notice as u16) == Some(notice)));
    assert!(FailReason::ALL.into_iter().all(|reason| FailReason::from_u16(reason as u16) == Some(reason)));
    assert!(ENCODINGS.into_iter().all(|encoding| Encoding::from_magic(encoding.magic()) == Some(encoding)));
    assert_eq!(Encoding::from_magic(0x5347), None);
}
