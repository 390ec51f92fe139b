use super::*;

#[path = "../../tests/cases/websocket.rs"]
mod cases;

use cases::Case;

const TEXT_BYTES_MAX: usize = 1 << 16;

/// What was said, owned, pieces of the stream put together.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    Frames(Vec<u8>),
    MessageEnd,
    Text(Vec<u8>),
    Alive,
    Close,
}

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_header(first & 0x0f, payload.len(), &mut frame);
    frame[0] = first;
    frame[1] |= MASKED;
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn fin(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | opcode, payload)
}

#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    said: Vec<Said>,
    ended: Result<(), Refusal>,
    /// What is written at the end.
    out: Vec<u8>,
}

fn give(form: Form, pieces: &[&[u8]]) -> Outcome {
    let mut websocket = WebSocket::new(form);
    let (mut scratch, mut said, mut ended) = (Vec::new(), Vec::new(), Ok(()));
    for piece in pieces {
        ended = ended.and_then(|()| {
            websocket.received(piece, TEXT_BYTES_MAX, &mut scratch, &mut |input| {
                match (input, said.last_mut()) {
                    (Input::Frames(bytes), Some(Said::Frames(before))) => before.extend_from_slice(bytes),
                    (Input::Frames(bytes), _) => said.push(Said::Frames(bytes.to_vec())),
                    (Input::MessageEnd, _) => said.push(Said::MessageEnd),
                    (Input::Text(text), _) => said.push(Said::Text(text.to_vec())),
                    (Input::Piece | Input::Silent, _) => {}
                    (Input::Alive, _) => said.push(Said::Alive),
                    (Input::Close, _) => said.push(Said::Close),
                    (Input::Client(_) | Input::Open(_) | Input::Login { .. }, _) => {
                        panic!("other layers say that")
                    }
                }
                true
            })
        });
    }
    let mut out = Vec::new();
    websocket.put_before(0, &mut out);
    websocket.put_close(&mut out);
    websocket.put_close(&mut out);
    Outcome { said, ended, out }
}

/// What comes of frames, which is the same at every split into two, and byte by byte.
fn taken(form: Form, frames: &[Vec<u8>]) -> Outcome {
    let whole = frames.concat();
    let outcome = give(form, &[&whole]);
    for split in 0..=whole.len() {
        let (first, second) = whole.split_at(split);
        assert_eq!(give(form, &[first, second]), outcome, "split at {split} of {whole:x?}");
    }
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(give(form, &bytes), outcome, "byte by byte");
    outcome
}

fn binary(frames: &[Vec<u8>]) -> Outcome {
    taken(Form::Binary, frames)
}

fn json(frames: &[Vec<u8>]) -> Outcome {
    taken(Form::Json, frames)
}

/// A Close frame of the server.
fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut close = vec![FIN | CLOSE, 2 + reason.len() as u8];
    close.extend_from_slice(&code.to_be_bytes());
    close.extend_from_slice(reason.as_bytes());
    close
}

fn refused(outcome: Outcome) -> Refusal {
    let refusal = outcome.ended.expect_err("it is refused");
    let code = match refusal {
        Refusal::WebSocketProtocol => 1002,
        Refusal::WebSocketKind => 1003,
        Refusal::WebSocketUtf8 => 1007,
        Refusal::WebSocketTooBig => 1009,
        other => panic!("{other:?}"),
    };
    let close = close_frame(code, refusal.name());
    assert!(outcome.out.ends_with(&close), "{:x?}", outcome.out);
    refusal
}

#[test]
fn a_binary_message_is_a_piece_of_the_stream() {
    for len in [0, 1, 7, 8, 9, 125, 126, 127, 300] {
        let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let outcome = binary(&[fin(BINARY, &payload)]);
        let wanted = if len == 0 { vec![] } else { vec![Said::Frames(payload)] };
        assert_eq!(outcome.said, [wanted, vec![Said::MessageEnd]].concat());
        assert_eq!((outcome.ended, outcome.out), (Ok(()), vec![]));
    }
    let long = vec![9; 70_000];
    let outcome = give(Form::Binary, &[&fin(BINARY, &long)]);
    assert_eq!(outcome.said, [Said::Frames(long), Said::MessageEnd]);
}

#[test]
fn fragments_are_one_message_and_control_frames_stand_between_them() {
    let frames = [
        frame(BINARY, b"one"),
        fin(PING, b"there?"),
        frame(CONTINUATION, b""),
        fin(PONG, b"unasked"),
        fin(CONTINUATION, b"two"),
        fin(BINARY, b"next"),
    ];
    let outcome = binary(&frames);
    let wanted = [
        Said::Frames(b"one".to_vec()),
        Said::Alive,
        Said::Alive,
        Said::Frames(b"two".to_vec()),
        Said::MessageEnd,
        Said::Frames(b"next".to_vec()),
        Said::MessageEnd,
    ];
    assert_eq!(outcome.said, wanted);
    assert_eq!(outcome.out, [&[FIN | PONG, 6][..], b"there?"].concat());
}

#[test]
fn of_many_pings_the_last_is_answered() {
    let outcome = binary(&[fin(PING, b"a"), fin(PING, b"b"), fin(PING, &[7; 125])]);
    assert_eq!(outcome.said, [Said::Alive, Said::Alive, Said::Alive]);
    assert_eq!(outcome.out, [&[FIN | PONG, 125][..], &[7; 125]].concat());
}

#[test]
fn a_text_message_is_whole_however_it_comes() {
    let text = "{\"data\":\"ü € 😀\"}";
    for split in 0..=text.len() {
        let (first, second) = text.as_bytes().split_at(split);
        let frames = [frame(TEXT, first), fin(PING, b""), fin(CONTINUATION, second)];
        assert_eq!(json(&frames).said, [Said::Alive, Said::Text(text.into())]);
    }
    assert_eq!(json(&[fin(TEXT, text.as_bytes())]).said, [Said::Text(text.into())]);
    assert_eq!(json(&[fin(TEXT, b"")]).said, [Said::Text(vec![])]);
}

#[test]
fn text_that_is_no_utf8_is_refused_at_its_byte() {
    for text in [&b"a\xff"[..], b"\xed\xa0\x80", b"\xe2\x82", b"\xc0\xaf"] {
        assert_eq!(refused(json(&[fin(TEXT, text)])), Refusal::WebSocketUtf8);
    }
    let frames = [frame(TEXT, b"\xf4"), frame(CONTINUATION, b"\x90")];
    assert_eq!(refused(json(&frames)), Refusal::WebSocketUtf8, "before the message ends");
}

#[test]
fn each_form_has_its_kind_of_message() {
    assert_eq!(refused(binary(&[fin(TEXT, b"hi")])), Refusal::WebSocketKind);
    assert_eq!(refused(json(&[fin(BINARY, b"hi")])), Refusal::WebSocketKind);
}

#[test]
fn frames_that_the_rfc_does_not_allow_are_refused() {
    let unmasked = vec![FIN | BINARY, 1, 0];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("unmasked", vec![unmasked]),
        ("reserved bit 1", vec![frame(FIN | 0x40 | BINARY, b"")]),
        ("reserved bit 2", vec![frame(FIN | 0x20 | PING, b"")]),
        ("reserved bit 3", vec![frame(FIN | 0x10 | CLOSE, b"")]),
        ("reserved opcode", vec![fin(3, b"")]),
        ("reserved opcode", vec![fin(7, b"")]),
        ("reserved control opcode", vec![fin(11, b"")]),
        ("reserved control opcode", vec![fin(15, b"")]),
        ("fragmented control", vec![frame(PING, b"")]),
        ("long control", vec![fin(PING, &[0; 126])]),
        ("continuation of nothing", vec![fin(CONTINUATION, b"")]),
        ("continuation after the end", vec![fin(BINARY, b""), frame(CONTINUATION, b"")]),
        ("message within a message", vec![frame(BINARY, b"a"), fin(BINARY, b"b")]),
        ("length of 16 bits for 125", vec![vec![FIN | BINARY, MASKED | 126, 0, 125]]),
        ("length of 64 bits for 65535", vec![vec![FIN | BINARY, MASKED | 127, 0, 0, 0, 0, 0, 0, 255, 255]]),
        ("length of 2^63", vec![vec![FIN | BINARY, MASKED | 127, 0x80, 0, 0, 0, 0, 0, 0, 0]]),
        ("close of one byte", vec![fin(CLOSE, b"\x03")]),
    ];
    for (what, frames) in cases {
        assert_eq!(refused(binary(&frames)), Refusal::WebSocketProtocol, "{what}");
    }
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_length() {
    let claims = |first: u8, len: u64| [&[first, MASKED | 127][..], &len.to_be_bytes(), &[0; 4]].concat();
    for len in [BINARY_BYTES_MAX + 1, (1 << 63) - 1] {
        assert_eq!(refused(binary(&[claims(FIN | BINARY, len)])), Refusal::WebSocketTooBig);
    }
    assert_eq!(binary(&[claims(FIN | BINARY, BINARY_BYTES_MAX)]).ended, Ok(()));
    let frames = [frame(BINARY, b"a"), claims(CONTINUATION, BINARY_BYTES_MAX)];
    assert_eq!(refused(binary(&frames)), Refusal::WebSocketTooBig, "all fragments count");
    let most = TEXT_BYTES_MAX as u64;
    assert_eq!(refused(json(&[claims(FIN | TEXT, most + 1)])), Refusal::WebSocketTooBig);
    assert_eq!(json(&[claims(FIN | TEXT, most)]).ended, Ok(()));
}

#[test]
fn a_close_is_answered_with_its_code_and_nothing_is_heard_after_it() {
    for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        let payload = [&u16::to_be_bytes(code)[..], b"bye"].concat();
        let outcome = binary(&[fin(CLOSE, &payload), vec![0xff; 3]]);
        assert_eq!((outcome.said, outcome.ended), (vec![Said::Close], Ok(())));
        assert_eq!(outcome.out, close_frame(code, ""));
    }
    let outcome = binary(&[fin(CLOSE, b""), fin(BINARY, b"late")]);
    assert_eq!((outcome.said, outcome.out), (vec![Said::Close], vec![FIN | CLOSE, 0]));
}

#[test]
fn a_close_with_a_code_that_nobody_may_send_is_refused() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(refused(binary(&[fin(CLOSE, &u16::to_be_bytes(code))])), Refusal::WebSocketProtocol);
    }
    assert_eq!(refused(binary(&[fin(CLOSE, b"\x03\xe8\xff")])), Refusal::WebSocketUtf8);
}

#[test]
fn what_the_server_says_is_framed_as_short_as_it_can_be() {
    let header = |len| {
        let mut out = Vec::new();
        WebSocket::new(Form::Binary).put_before(len, &mut out);
        out
    };
    assert_eq!(header(0), [0; 0]);
    assert_eq!(header(125), [0x82, 125]);
    assert_eq!(header(126), [0x82, 126, 0, 126]);
    assert_eq!(header(65_535), [0x82, 126, 255, 255]);
    assert_eq!(header(65_536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    let mut text = Vec::new();
    put_text_header(2, &mut text);
    assert_eq!(text, [0x81, 2]);
    assert_eq!(header(usize::MAX).len(), TEXT_HEADER_BYTES_MAX);
}

#[test]
fn a_ping_of_the_server_is_empty_and_the_first_close_counts() {
    let mut websocket = WebSocket::new(Form::Json);
    let mut out = Vec::new();
    assert!(!websocket.has_output());
    websocket.ping();
    assert!(websocket.has_output());
    websocket.put_before(7, &mut out);
    websocket.close(Some(4001), "kicked");
    websocket.close(Some(1000), "");
    websocket.put_close(&mut out);
    assert_eq!(out, [vec![FIN | PING, 0], close_frame(4001, "kicked")].concat());
    assert!(!websocket.has_output());
}

#[test]
fn nothing_is_held_between_messages_nor_for_a_length_that_is_claimed() {
    let mut websocket = WebSocket::new(Form::Json);
    let mut scratch = Vec::new();
    let claim = frame(FIN | TEXT, &vec![b' '; TEXT_BYTES_MAX]);
    websocket.received(&claim[..20], TEXT_BYTES_MAX, &mut scratch, &mut |_| true).unwrap();
    assert!(websocket.text.capacity() < 64);
    websocket.received(&claim[20..], TEXT_BYTES_MAX, &mut scratch, &mut |_| true).unwrap();
    assert_eq!((websocket.text.capacity(), websocket.control.capacity()), (0, 0));
    assert!(size_of::<WebSocket>() <= 176, "{}", size_of::<WebSocket>());
}

/// The list of cases, in one piece, in two and in single bytes.
#[test]
fn every_case_of_the_list_comes_to_its_end() {
    for Case { name, is_json, bytes, heartbeats, pong, code } in cases::cases() {
        let form = if is_json { Form::Json } else { Form::Binary };
        let outcome = taken(form, &[bytes]);
        let is_text = |said: &&Said| matches!(said, Said::Text(text) if text.starts_with(b"{\"code\":1004"));
        let texts = outcome.said.iter().filter(is_text).count();
        let of_frames = |said: &Said| if let Said::Frames(bytes) = said { bytes.len() } else { 0 };
        let frames_bytes: usize = outcome.said.iter().map(of_frames).sum();
        assert_eq!(texts + frames_bytes / cases::HEARTBEAT_FRAME.len(), heartbeats, "{name}");
        let mut wanted = Vec::new();
        if let Some(pong) = &pong {
            put_frame(PONG, pong, &mut wanted);
        }
        assert!(outcome.out.starts_with(&wanted), "{name}: {:x?}", outcome.out);
        let close = &outcome.out[wanted.len()..];
        let has_no_code = close == [FIN | CLOSE, 0] && code == 1000;
        assert!(has_no_code || close[2..].starts_with(&code.to_be_bytes()), "{name}: {close:x?}");
        assert_eq!(outcome.ended.is_ok(), outcome.said.contains(&Said::Close), "{name}");
    }
}
