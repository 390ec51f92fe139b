//! What a client's socket brings to the layers between it and its frames: PROXY, TLS, HTTP, WebSocket.

use std::sync::LazyLock;

use edge::{CertificatePem, Form, Input, Layers, Port, Refusal, Rules, Scratch, TlsServer};
use shard::{ConnId, SendBatch};

const TEXT_BYTES_MAX: usize = 4096;

static TLS: LazyLock<TlsServer> = LazyLock::new(|| {
    let one = CertificatePem {
        chain: include_bytes!("../../edge/tests/pem/one.pem").to_vec(),
        chain_name: "one.pem".into(),
        key: include_bytes!("../../edge/tests/pem/one.key").to_vec(),
        key_name: "one.key".into(),
    };
    TlsServer::new(&[one], None, 1_800_000_000).expect("the certificate is valid until 2099")
});

/// All that a connection said and heard.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    said: Vec<Said>,
    ended: Result<(), Refusal>,
    /// What was written. How many pings are answered depends on when it is, and TLS is random.
    heard: Option<Vec<u8>>,
}

/// An [`Input`], owned; pieces of the stream are put together.
#[derive(PartialEq, Eq, Debug)]
enum Said {
    Client(Option<std::net::IpAddr>),
    Open(Form),
    Login(String, Option<i64>),
    Frames(Vec<u8>),
    MessageEnd,
    Text(Vec<u8>),
    Alive,
    Close,
}

/// The first byte says which layers there are, the second where the stream is cut, the rest is the stream.
pub(crate) fn run(bytes: &[u8]) {
    let [layers, cut, stream @ ..] = bytes else { return };
    let tls = (layers & 4 != 0).then(|| TLS.clone());
    let port = &Port { tls, websocket: layers & 1 != 0 };
    let is_from_proxy = layers & 2 != 0;
    let whole = outcome(port, is_from_proxy, &[stream]);
    let (first, second) = stream.split_at(usize::from(*cut) % (stream.len() + 1));
    assert_eq!(
        outcome(port, is_from_proxy, &[first, second]),
        whole,
        "it depends on where the stream is cut"
    );
    let single: Vec<&[u8]> = stream.chunks(1).take(512).collect();
    if single.len() == stream.len() {
        assert_eq!(outcome(port, is_from_proxy, &single), whole, "it depends on single bytes");
    }
}

fn outcome(port: &Port, is_from_proxy: bool, pieces: &[&[u8]]) -> Outcome {
    let Some(mut layers) = Layers::new(port, ConnId::from_u64(0), [10, 0, 0, 1].into(), is_from_proxy) else {
        return Outcome { said: Vec::new(), ended: Ok(()), heard: None };
    };
    let rules = Rules { origins: vec!["https://a.b".into()], ..Rules::default() };
    let (mut scratch, mut said, mut ended) = (Scratch::default(), Vec::new(), Ok(()));
    let mut pings = false;
    for piece in pieces {
        if ended.is_err() {
            break;
        }
        ended = layers.received(&rules, TEXT_BYTES_MAX, &mut scratch, piece, &mut |input| {
            pings |= input == Input::Alive;
            say(&mut said, input);
            true
        });
        scratch.check_invariants(std::iter::once(&layers));
    }
    layers.close(Some(4001), "kicked", &mut scratch);
    let mut batch = SendBatch::new();
    batch.copy(b"frames");
    layers.transmit(&mut batch, true, &mut scratch);
    let heard = batch.segments().flatten().copied().collect();
    layers.release(&mut scratch);
    assert_eq!(
        (scratch.unfinished_bytes(), scratch.handshakes()),
        (0, 0),
        "what ends gives back what it held"
    );
    Outcome { said, ended, heard: (!pings && port.tls.is_none()).then_some(heard) }
}

fn say(said: &mut Vec<Said>, input: Input<'_>) {
    match (input, said.last_mut()) {
        (Input::Frames(bytes), Some(Said::Frames(before))) => before.extend_from_slice(bytes),
        (Input::Frames(bytes), _) => said.push(Said::Frames(bytes.to_vec())),
        (Input::Client(client), _) => said.push(Said::Client(client)),
        (Input::Open(form), _) => said.push(Said::Open(form)),
        (Input::Login { token, room }, _) => {
            assert!(token.is_ascii() && !token.contains(['"', '\\']));
            said.push(Said::Login(token.to_owned(), room));
        }
        (Input::MessageEnd, _) => said.push(Said::MessageEnd),
        (Input::Text(text), _) => {
            assert!(text.len() <= 2 * TEXT_BYTES_MAX + 128 && std::str::from_utf8(text).is_ok());
            said.push(Said::Text(text.to_vec()));
        }
        (Input::Piece | Input::Silent, _) => {}
        (Input::Alive, _) => said.push(Said::Alive),
        (Input::Close, _) => said.push(Said::Close),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let upgrade = |form: Form| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            form.subprotocol().unwrap_or_default()
        )
    };
    let frame = |first: u8, payload: &[u8]| {
        let mask = [7, 1, 9, 3];
        let mut frame = vec![first, 0x80 | payload.len() as u8];
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    };
    let v2 =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0e"[..], &[10, 1, 2, 3, 10, 0, 0, 1, 1, 2, 3, 4, 5, 6]].concat();
    let binary = [upgrade(Form::Binary).into_bytes(), frame(0x82, b"SF\0\0\x03\xea\0\0\0\0")].concat();
    let json = upgrade(Form::Json).into_bytes();
    let text = [
        json,
        frame(0x01, b"{\"code\":"),
        frame(0x89, b"there?"),
        frame(0x80, "1004,\"x\":\"ü\"}".as_bytes()),
    ];
    // A hello of TLS 1.3 as far as its cipher suites, in two records, and an alert.
    let hello = [&[1, 0, 0, 0x2b, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 0]].concat();
    let record = |kind: u8, bytes: &[u8]| [&[kind, 3, 1, 0, bytes.len() as u8][..], bytes].concat();
    let hello = [record(22, &hello[..20]), record(22, &hello[20..]), record(21, &[2, 40])].concat();
    let java = upgrade(Form::Json).replacen("/ HTTP", "/t.k.n/1/1001/7 HTTP", 1);
    let java = java.replacen("Sec-WebSocket-Protocol", "X-Other", 1).into_bytes();
    let java = [java, frame(0x81, br#"{"code":1004,"body":"{}"}"#)].concat();
    let streams: [(u8, Vec<u8>); 10] = [
        (1, java),
        (4, hello.clone()),
        (7, [&b"PROXY UNKNOWN\r\n"[..], &hello].concat()),
        (2, b"PROXY TCP4 192.0.2.1 10.0.0.1 40000 5346\r\nSF\0\0".to_vec()),
        (2, [&v2[..], b"SF\0\0"].concat()),
        (1, binary.clone()),
        (3, [v2, binary.clone()].concat()),
        (1, text.concat()),
        (1, [binary, frame(0x88, &[3, 232])].concat()),
        (1, b"GET /metrics HTTP/1.1\r\nHost: a\r\nOrigin: https://c.d\r\n\r\n".to_vec()),
    ];
    streams.into_iter().map(|(layers, stream)| [vec![layers, 40], stream].concat()).collect()
}
