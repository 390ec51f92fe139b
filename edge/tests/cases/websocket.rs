//! What clients of WebSocket may send, and what comes of it: one list for the layer by itself and for a
//! server. After RFC 6455, and after the list of Autobahn's test suite.
//!
//! Each case begins on a connection that is open and logged in. Each ends with a Close frame of the server.

/// One case.
pub struct Case {
    /// What is tried.
    pub name: String,
    /// Messages are JSON texts, or binary frames.
    pub is_json: bool,
    /// What the client sends.
    pub bytes: Vec<u8>,
    /// Heartbeats in it that are understood, and answered.
    pub heartbeats: usize,
    /// The payload of the ping in it.
    pub pong: Option<Vec<u8>>,
    /// The code in the Close frame of the server.
    pub code: u16,
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The longest text, and the longest binary message.
const TEXT_BYTES_MAX: u64 = 64 << 10;
const BINARY_BYTES_MAX: u64 = 4 << 20;

/// A heartbeat as a text, with characters of two, three and four bytes, and as a frame.
pub const HEARTBEAT_TEXT: &str = "{\"code\":1004,\"data\":\"ü€😀\"}";
/// The same as a frame.
pub const HEARTBEAT_FRAME: &[u8] = b"SF\0\0\x03\xec\0\0\0\0";

/// The list.
pub fn cases() -> Vec<Case> {
    [messages(), control_frames(), ends(), violations(), lengths(), texts()].into_iter().flatten().collect()
}

/// Masked, with the shortest length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = match payload.len() {
        len @ ..126 => vec![first, MASKED | len as u8],
        len => [&[first, MASKED | 126][..], &(len as u16).to_be_bytes()].concat(),
    };
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn fin(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | opcode, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    fin(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// Frames that are fine, and then the client's Close.
fn taken(name: &str, is_json: bool, frames: &[Vec<u8>], heartbeats: usize) -> Case {
    let bytes = [frames.concat(), close(1000, b"")].concat();
    Case { name: name.into(), is_json, bytes, heartbeats, pong: None, code: 1000 }
}

/// Frames that end the connection.
fn refused(name: &str, is_json: bool, frames: &[Vec<u8>], code: u16) -> Case {
    Case { name: name.into(), is_json, bytes: frames.concat(), heartbeats: 0, pong: None, code }
}

fn messages() -> Vec<Case> {
    let (text, binary) = (HEARTBEAT_TEXT.as_bytes(), HEARTBEAT_FRAME);
    let long = format!("{{\"code\":1004,\"data\":\"{}\"}}", "a".repeat(300));
    vec![
        taken("a text", true, &[fin(TEXT, text)], 1),
        taken("texts one after the other", true, &[fin(TEXT, text), fin(TEXT, text)], 2),
        taken("a text with a length of 16 bits", true, &[fin(TEXT, long.as_bytes())], 1),
        taken("a binary message", false, &[fin(BINARY, binary)], 1),
        taken("a binary message of several frames", false, &[fin(BINARY, &binary.repeat(30))], 30),
        taken("an empty binary message", false, &[fin(BINARY, b""), fin(BINARY, binary)], 1),
        taken(
            "a binary message in fragments, some of them empty",
            false,
            &[
                frame(BINARY, b""),
                frame(CONTINUATION, &binary[..3]),
                frame(CONTINUATION, b""),
                fin(CONTINUATION, &binary[3..]),
            ],
            1,
        ),
        taken(
            "a fragment of each byte",
            false,
            &[
                [frame(BINARY, &binary[..1])].to_vec(),
                binary[1..].iter().map(|byte| frame(CONTINUATION, &[*byte])).collect(),
                vec![fin(CONTINUATION, b"")],
            ]
            .concat(),
            1,
        ),
    ]
}

fn control_frames() -> Vec<Case> {
    let binary = HEARTBEAT_FRAME;
    let pinged = |name: &str, payload: &[u8], case: Case| Case {
        name: name.into(),
        pong: Some(payload.to_vec()),
        ..case
    };
    let ping = |name: &str, payload: &[u8]| {
        pinged(name, payload, taken("", false, &[fin(PING, payload), fin(BINARY, binary)], 1))
    };
    vec![
        ping("an empty ping", b""),
        ping("a ping of bytes that are no text", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        ping("a ping of 125 bytes", &[7; 125]),
        pinged(
            "a ping between fragments",
            b"there?",
            taken(
                "",
                false,
                &[frame(BINARY, &binary[..4]), fin(PING, b"there?"), fin(CONTINUATION, &binary[4..])],
                1,
            ),
        ),
        pinged(
            "a ping within a character of a text",
            b"",
            taken(
                "",
                true,
                &[
                    frame(TEXT, &HEARTBEAT_TEXT.as_bytes()[..22]),
                    fin(PING, b""),
                    fin(CONTINUATION, &HEARTBEAT_TEXT.as_bytes()[22..]),
                ],
                1,
            ),
        ),
        taken("a pong that nobody asked for", false, &[fin(PONG, b"x"), fin(BINARY, binary)], 1),
    ]
}

fn ends() -> Vec<Case> {
    let mut cases = vec![
        Case { bytes: fin(CLOSE, b""), ..taken("a close without a code", false, &[], 0) },
        Case {
            bytes: [close(1000, b"bye"), fin(BINARY, HEARTBEAT_FRAME), fin(PING, b"x"), vec![0xff; 20]]
                .concat(),
            ..taken("what follows a close is not heard", false, &[], 0)
        },
        Case {
            bytes: [close(1000, b""), close(1001, b"")].concat(),
            ..taken("the first of two closes counts", false, &[], 0)
        },
        Case {
            bytes: [frame(BINARY, b"SF"), close(1000, b"")].concat(),
            ..taken("a close between fragments", false, &[], 0)
        },
        refused("a close of one byte", false, &[fin(CLOSE, b"\x03")], 1002),
        refused("a close whose reason is no UTF-8", false, &[close(1000, b"\xce\xba\xff")], 1007),
        refused(
            "a close that is too long",
            false,
            &[fin(CLOSE, &[&[3, 0xe8][..], &[b'a'; 124]].concat())],
            1002,
        ),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let bytes = close(code, b"why");
        cases.push(Case { bytes, code, ..taken(&format!("a close with the code {code}"), false, &[], 0) });
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push(refused(&format!("a close with the code {code}"), false, &[close(code, b"")], 1002));
    }
    cases
}

fn violations() -> Vec<Case> {
    let binary = HEARTBEAT_FRAME;
    let mut cases = vec![
        refused("a frame without a mask", false, &[[&[FIN | BINARY, 10][..], binary].concat()], 1002),
        refused("a control frame without a mask", false, &[vec![FIN | PING, 0]], 1002),
        refused("a fragmented ping", false, &[frame(PING, b"a"), fin(CONTINUATION, b"b")], 1002),
        refused("a ping of 126 bytes", false, &[fin(PING, &[7; 126])], 1002),
        refused("a continuation of nothing", false, &[fin(CONTINUATION, binary)], 1002),
        refused("a continuation of nothing that goes on", false, &[frame(CONTINUATION, binary)], 1002),
        refused("a message within a message", false, &[frame(BINARY, b"SF"), fin(BINARY, b"SF")], 1002),
        refused("a text in the binary form", false, &[fin(TEXT, b"hi")], 1003),
        refused("a binary message in the JSON form", true, &[fin(BINARY, binary)], 1003),
    ];
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [BINARY, PING, CLOSE] {
            let name = format!("the reserved bit {bit:#x} with the opcode {opcode}");
            cases.push(refused(&name, false, &[frame(FIN | bit | opcode, b"")], 1002));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(refused(&format!("the reserved opcode {opcode}"), false, &[fin(opcode, b"")], 1002));
    }
    cases
}

fn lengths() -> Vec<Case> {
    let claims =
        |opcode: u8, len: u64| [&[FIN | opcode, MASKED | 127][..], &len.to_be_bytes(), &[0; 4]].concat();
    vec![
        refused("a length of 2^63", false, &[claims(BINARY, 1 << 63)], 1002),
        refused("a length of 2^64 - 1", true, &[claims(TEXT, u64::MAX)], 1002),
        refused("a length of 2^63 - 1", false, &[claims(BINARY, (1 << 63) - 1)], 1009),
        refused("a binary message that is too long", false, &[claims(BINARY, BINARY_BYTES_MAX + 1)], 1009),
        refused("a text that is too long", true, &[claims(TEXT, TEXT_BYTES_MAX + 1)], 1009),
        refused(
            "fragments that are too long together",
            false,
            &[frame(BINARY, b""), frame(CONTINUATION, b""), claims(CONTINUATION, BINARY_BYTES_MAX + 1)],
            1009,
        ),
        refused(
            "125 bytes with a length of 16 bits",
            false,
            &[vec![FIN | BINARY, MASKED | 126, 0, 125]],
            1002,
        ),
        refused("65,535 bytes with a length of 64 bits", false, &[claims(BINARY, 65_535)], 1002),
        refused("a ping with a length of 16 bits", false, &[vec![FIN | PING, MASKED | 126, 0, 126]], 1002),
    ]
}

/// Texts that are UTF-8, and that are not, whole and in two fragments that part at every byte.
fn texts() -> Vec<Case> {
    let mut cases = Vec::new();
    let text = HEARTBEAT_TEXT.as_bytes();
    for split in 0..=text.len() {
        let fragments = [frame(TEXT, &text[..split]), fin(CONTINUATION, &text[split..])];
        cases.push(taken(&format!("a text that parts at byte {split}"), true, &fragments, 1));
    }
    let wrong: [(&str, &[u8]); 9] = [
        ("a byte that is never there", b"ab\xffcd"),
        ("a continuation byte alone", b"ab\x80cd"),
        ("a character without its end", b"ab\xe2\x82"),
        ("a character that another one cuts off", b"ab\xf0\x9fcd"),
        ("a slash in two bytes", b"ab\xc0\xafcd"),
        ("a slash in three bytes", b"ab\xe0\x80\xafcd"),
        ("a slash in four bytes", b"ab\xf0\x80\x80\xafcd"),
        ("half of a surrogate pair", b"ab\xed\xa0\x80cd"),
        ("a character above U+10FFFF", b"ab\xf4\x90\x80\x80cd"),
    ];
    for (name, text) in wrong {
        cases.push(refused(name, true, &[fin(TEXT, text)], 1007));
        for split in 0..=text.len() {
            let fragments = [frame(TEXT, &text[..split]), fin(CONTINUATION, &text[split..])];
            cases.push(refused(&format!("{name}, which parts at byte {split}"), true, &fragments, 1007));
        }
    }
    cases
}
