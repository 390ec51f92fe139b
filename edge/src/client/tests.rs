//! Clients against the layers of the server, with the bytes between them in pieces.
#![allow(clippy::unwrap_used)] // a failing unwrap is a failing test

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use shard::{ConnId, SendBatch};

use super::*;
use crate::{CertificatePem, Form, Input, Layers, Port, Refusal, Rules, Scratch, TlsServer};

const ROOT: &[u8] = include_bytes!("../../tests/pem/ca.pem");
/// 2030.
const NOW_SECS: u64 = 1_900_000_000;

fn server() -> TlsServer {
    let certificate = CertificatePem {
        chain: include_bytes!("../../tests/pem/one.pem").to_vec(),
        chain_name: "one.pem".into(),
        key: include_bytes!("../../tests/pem/one.key").to_vec(),
        key_name: "one.key".into(),
    };
    TlsServer::new(&[certificate], None, NOW_SECS).unwrap()
}

fn client(host: &str, tickets_max: usize) -> TlsClient {
    let roots = [CertificateDer::from_pem_slice(ROOT).unwrap()];
    TlsClient::new(host, Some(&roots), tickets_max).unwrap()
}

fn upgrade() -> Option<Upgrade> {
    Some(Upgrade { host: "one.example:1".into(), path: "/im?x=1".into() })
}

/// A client and the server's end.
struct Pair {
    client: ClientLayers,
    server: Layers,
    scratch: Scratch,
    /// What each end says in pieces of this size.
    piece: usize,
    /// Frames that reached each end.
    heard: Vec<u8>,
    answered: Vec<u8>,
    form: Option<Form>,
    ended: bool,
    /// Bytes that the client sent.
    sent: usize,
}

impl Pair {
    fn new(server: &Port, client: &ClientPort, piece: usize) -> Self {
        Self {
            client: ClientLayers::new(client, 7).unwrap().unwrap(),
            server: Layers::new(server, ConnId::from_u64(0), [10, 0, 0, 1].into(), false).unwrap(),
            scratch: Scratch::default(),
            piece,
            heard: Vec::new(),
            answered: Vec::new(),
            form: None,
            ended: false,
            sent: 0,
        }
    }

    /// Carries bytes both ways until there are none.
    fn run(&mut self) -> Result<(), Broken> {
        while self.client.has_output() || self.server.has_output() {
            let bytes = self.client.take_output();
            self.sent += bytes.len();
            for piece in bytes.chunks(self.piece) {
                let Self { server, scratch, heard, form, ended, .. } = self;
                let taken = server.received(&Rules::default(), 1 << 16, scratch, piece, &mut |input| {
                    match input {
                        Input::Open(opened) => *form = Some(opened),
                        Input::Frames(bytes) => heard.extend_from_slice(bytes),
                        Input::MessageEnd | Input::Piece | Input::Silent | Input::Alive => {}
                        Input::Close => *ended = true,
                        other => panic!("{other:?}"),
                    }
                    true
                });
                if taken == Err(Refusal::TlsHandshake) {
                    return Ok(());
                }
                taken.unwrap();
            }
            self.answer(b"", false)?;
        }
        Ok(())
    }

    /// The server writes frames, and what else it has to say.
    fn answer(&mut self, frames: &[u8], is_last: bool) -> Result<(), Broken> {
        let mut batch = SendBatch::new();
        batch.copy(frames);
        if is_last {
            self.server.close(Some(4002), "draining", &mut self.scratch);
        }
        self.server.transmit(&mut batch, is_last, &mut self.scratch);
        let bytes: Vec<u8> = batch.segments().flatten().copied().collect();
        for piece in bytes.chunks(self.piece) {
            let answered = &mut self.answered;
            self.client.received(piece, &mut |bytes| answered.extend_from_slice(bytes))?;
        }
        Ok(())
    }
}

#[test]
fn frames_pass_both_ways_however_their_bytes_come() {
    let (server, tls) = (server(), client("one.example", 8));
    for (has_tls, has_websocket) in [(true, false), (false, true), (true, true)] {
        let port = Port { tls: has_tls.then(|| server.clone()), websocket: has_websocket };
        let to =
            ClientPort { tls: has_tls.then(|| tls.clone()), websocket: upgrade().filter(|_| has_websocket) };
        for piece in [1, 7, 100_000] {
            let mut pair = Pair::new(&port, &to, piece);
            assert!(!pair.client.is_open());
            pair.run().unwrap();
            assert!(pair.client.is_open(), "tls {has_tls}, websocket {has_websocket}");
            assert_eq!(pair.form, has_websocket.then_some(Form::Binary));
            let long: Vec<u8> = (0..70_000).map(|at| at as u8).collect();
            let mut said = Vec::new();
            for frames in [&b"a"[..], &long[..300], &long] {
                pair.client.put(frames);
                pair.run().unwrap();
                pair.server.ping();
                pair.answer(frames, false).unwrap();
                pair.run().unwrap();
                said.extend_from_slice(frames);
            }
            assert!(pair.heard == said && pair.answered == said, "in pieces of {piece}");
            pair.answer(b"bye", true).unwrap();
            pair.client.put(b"late");
            pair.run().unwrap();
            assert!(pair.answered.ends_with(b"bye"));
            assert!(
                !has_websocket || !pair.client.is_open() && pair.heard == said,
                "nothing follows a Close"
            );
        }
    }
}

/// What connects, and then says nothing.
#[test]
fn idle_layers_hold_no_buffer_and_their_end_is_told_in_each() {
    let (server, tls) = (server(), client("one.example", 8));
    for (has_tls, has_websocket) in [(true, false), (false, true), (true, true)] {
        let port = Port { tls: has_tls.then(|| server.clone()), websocket: has_websocket };
        let to =
            ClientPort { tls: has_tls.then(|| tls.clone()), websocket: upgrade().filter(|_| has_websocket) };
        let mut pair = Pair::new(&port, &to, 7);
        pair.run().unwrap();
        pair.answer(b"x", false).unwrap();
        assert_eq!((pair.server.held_bytes(), pair.client.has_ended()), (0, false));
        pair.answer(b"", true).unwrap();
        assert!(pair.client.has_ended(), "tls {has_tls}, websocket {has_websocket}");
    }
}

#[test]
fn a_port_without_layers_has_none() {
    assert!(ClientLayers::new(&ClientPort::default(), 1).unwrap().is_none());
}

#[test]
fn a_server_that_is_another_is_refused_by_name() {
    let port = Port { tls: Some(server()), websocket: false };
    let why = |tls: TlsClient| {
        let broken =
            Pair::new(&port, &ClientPort { tls: Some(tls), websocket: None }, 1 << 20).run().unwrap_err();
        assert!(Broken::is_hopeless(broken.name), "{broken:?}");
        broken.name
    };
    assert_eq!(why(client("two.example", 8)), "certificate_other_host");
    assert_eq!(why(client("127.0.0.2", 8)), "certificate_other_host");
    let other = [CertificateDer::from_pem_slice(include_bytes!("../../tests/pem/two.pem")).unwrap()];
    assert_eq!(why(TlsClient::new("one.example", Some(&other), 8).unwrap()), "certificate_unknown_issuer");
    for host in ["127.0.0.1", "a.one.example"] {
        Pair::new(&port, &ClientPort { tls: Some(client(host, 8)), websocket: None }, 1 << 20).run().unwrap();
    }
    for host in ["two.example", "[::1]"] {
        let anybody = TlsClient::new(host, None, 0).unwrap();
        Pair::new(&port, &ClientPort { tls: Some(anybody), websocket: None }, 1 << 20).run().unwrap();
    }
    assert!(TlsClient::new("no host", None, 0).is_err() && TlsClient::new("a.b", Some(&[]), 0).is_err());
}

#[test]
fn who_comes_again_says_less_unless_tickets_are_not_kept() {
    let port = Port { tls: Some(server()), websocket: false };
    let answer_bytes = |tls: &TlsClient| {
        let mut pair = Pair::new(&port, &ClientPort { tls: Some(tls.clone()), websocket: None }, 1 << 20);
        pair.run().unwrap();
        pair.answer(b"x", false).unwrap();
        assert_eq!(pair.answered, b"x");
        pair.sent
    };
    let (keeps, forgets) = (client("one.example", 8), client("one.example", 0));
    assert_eq!(answer_bytes(&forgets), answer_bytes(&forgets));
    assert_ne!(answer_bytes(&keeps), answer_bytes(&keeps), "a ticket is in the second hello");
}

#[test]
fn what_is_no_websocket_is_refused() {
    let answers = |answer: &[u8]| {
        let to = ClientPort { tls: None, websocket: upgrade() };
        let mut outcomes = Vec::new();
        for piece in [1, 1 << 20] {
            let mut layers = ClientLayers::new(&to, 7).unwrap().unwrap();
            let mut pieces = answer.chunks(piece);
            outcomes.push(pieces.find_map(|piece| layers.received(piece, &mut |_| {}).err()));
        }
        outcomes[1].clone().filter(|last| outcomes[0].as_ref().map(|first| first.name) == Some(last.name))
    };
    let name = |answer: &[u8]| answers(answer).map(|broken| broken.name);
    let refused = answers(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\nnot you\r\n").unwrap();
    assert!(refused.name == "websocket_refused" && refused.text.contains("403: not you"), "{refused:?}");
    assert_eq!(name(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), Some("websocket_busy"));
    assert_eq!(name(b"SF\0\0\x03\xf0"), Some("websocket_no_http"));
    let accept = {
        let mut request = Vec::new();
        let websocket = WebSocket::new(&upgrade().unwrap(), Prng::new(7), &mut request);
        assert!(!websocket.is_open());
        let request = String::from_utf8(request).unwrap();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        crate::websocket::accept_of(key.as_bytes())
    };
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\nsec-websocket-protocol: sailfish.v1.binary\r\n\r\n"
    );
    let with = |frame: &[u8]| name(&[head.as_bytes(), frame].concat());
    assert_eq!(with(b"\x82\x01a\x8a\x00\x89\x00"), None);
    assert_eq!(name(head.replacen(&accept, "x", 1).as_bytes()), Some("websocket_no_http"));
    assert_eq!(name(head.replacen("binary", "json", 1).as_bytes()), Some("websocket_no_http"));
    for wrong in [
        &b"\x82\x81\0\0\0\0a"[..],
        b"\xc2\x01a",
        b"\x81\x01a",
        b"\x09\x00",
        b"\x89\x7e\x00\x7e",
        b"\x83\x00",
        &[0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(with(wrong), Some("websocket_protocol"), "{wrong:x?}");
    }
}
