//! Connections by TLS, with rustls as the client.
#![allow(clippy::unwrap_used)] // a failing unwrap is a failing test

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use common::{APP, TLS, TLS_WEBSOCKET, World};
use gateway::{HELLOS_PER_TURN, Refusal, Rules};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use shard::{Event, Linger};
use wire::client::{ClientFrame, Deframer, Encoding, NoticeCode, ServerFrame};
use wire::{DeviceClass, UserId};

/// A client and its connection, whose bytes leave in pieces of a size.
struct TlsClient {
    client: u32,
    connection: ClientConnection,
    piece: usize,
    /// Plain text that came.
    heard: Vec<u8>,
    /// The server has said that nothing follows.
    has_ended: bool,
    deframer: Deframer,
}

impl TlsClient {
    fn connect(world: &mut World, port: u16, piece: usize) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(include_bytes!("../../edge/tests/pem/ca.pem")).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let connection = ClientConnection::new(config, ServerName::try_from("one.example").unwrap()).unwrap();
        let client = world.connect_by(port, [10, 0, 0, 1].into());
        Self { client, connection, piece, heard: Vec::new(), has_ended: false, deframer: Deframer::default() }
    }

    /// Says bytes in plain text, and carries all that there is both ways.
    fn say(&mut self, world: &mut World, plain: &[u8]) {
        self.connection.writer().write_all(plain).unwrap();
        loop {
            let (mut bytes, mut heard) = (Vec::new(), Vec::new());
            while self.connection.wants_write() {
                self.connection.write_tls(&mut bytes).unwrap();
            }
            for piece in bytes.chunks(self.piece) {
                world.say_bytes(self.client, piece);
            }
            heard.extend(world.hear_bytes(self.client));
            let mut rest = &heard[..];
            while !rest.is_empty() {
                self.connection.read_tls(&mut rest).unwrap();
                self.connection.process_new_packets().unwrap();
                self.has_ended |= self.connection.reader().read_to_end(&mut self.heard).is_ok();
            }
            if bytes.is_empty() && heard.is_empty() {
                return;
            }
        }
    }

    /// What came in plain text, and whether the server has said that nothing follows.
    fn hear_bytes(&mut self, world: &mut World) -> (Vec<u8>, bool) {
        self.say(world, b"");
        (std::mem::take(&mut self.heard), self.has_ended)
    }

    fn hear(&mut self, world: &mut World) -> Vec<ServerFrame<'static>> {
        let (bytes, _) = self.hear_bytes(world);
        let (mut rest, mut heard) = (&bytes[..], Vec::new());
        while let Some(frame) = self.deframer.next(&mut rest, 1 << 20).unwrap() {
            heard.push(ServerFrame::decode(&frame).unwrap().into_owned());
        }
        heard
    }
}

fn frame(frame: &ClientFrame<'_>, user: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(Encoding::Binary, APP, UserId(user), &mut bytes);
    bytes
}

fn login(world: &World, user: i64) -> Vec<u8> {
    let token = world.token(user, DeviceClass::Web);
    frame(&ClientFrame::Login { token: token.into() }, user)
}

#[test]
fn a_client_logs_in_and_is_told_however_its_bytes_come() {
    for piece in [1, 2, 5, 50, usize::MAX] {
        let mut world = World::new();
        let mut client = TlsClient::connect(&mut world, TLS, piece);
        let frames = login(&world, 7);
        client.say(&mut world, &frames);
        assert!(matches!(client.hear(&mut world)[..], [ServerFrame::LoggedIn { .. }]), "pieces of {piece}");
        world.deliver_lossy(client.client, 42, &"long ".repeat(12_000));
        let heard = client.hear(&mut world);
        let [ServerFrame::Deliver(message)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(message.payload.len(), 60_000);
        client.say(&mut world, &frame(&ClientFrame::Logout, 7));
        let (_, has_ended) = client.hear_bytes(&mut world);
        assert!(has_ended, "the server says that nothing follows");
        assert_eq!(world.client(client.client).closed, Some(Linger::Flush));
    }
}

#[test]
fn websocket_goes_over_tls() {
    let mut world = World::new();
    let mut client = TlsClient::connect(&mut world, TLS_WEBSOCKET, 7);
    client.say(&mut world, b"GET / HTTP/1.1\r\nHost: im\r\n\r\n");
    let (answer, has_ended) = client.hear_bytes(&mut world);
    assert!(answer.starts_with(b"HTTP/1.1 426 ") && has_ended);
    let mut client = TlsClient::connect(&mut world, TLS_WEBSOCKET, 7);
    client.say(
        &mut world,
        b"GET / HTTP/1.1\r\nHost: im\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x89\x80\0\0\0\0",
    );
    let (answer, _) = client.hear_bytes(&mut world);
    assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(&[0x8a, 0]), "and a pong");
    assert_eq!(world.metrics().websockets, 1);
}

#[test]
fn a_clean_end_of_the_client_ends_its_session() {
    let mut world = World::new();
    let mut client = TlsClient::connect(&mut world, TLS, usize::MAX);
    let frames = login(&world, 7);
    client.say(&mut world, &frames);
    assert_eq!(world.metrics().sessions, 1);
    client.connection.send_close_notify();
    client.say(&mut world, b"");
    assert_eq!(world.metrics().sessions, 0);
    assert!(client.hear_bytes(&mut world).1, "and so does the server");
}

#[test]
fn a_client_that_ends_with_a_notice_reads_it() {
    let mut world = World::new();
    let mut client = TlsClient::connect(&mut world, TLS, usize::MAX);
    client.say(&mut world, b"GET / HTTP/1.1\r\n\r\n");
    let heard = client.hear(&mut world);
    assert!(matches!(heard[..], [ServerFrame::Notice { code: NoticeCode::BadMagic, .. }]), "{heard:?}");
}

/// Frames in clear get an alert, which is all that a client of TLS could read; and it is counted.
#[test]
fn who_speaks_no_tls_gets_an_alert() {
    let mut world = World::new();
    for port in [TLS, TLS_WEBSOCKET] {
        for bytes in [&login(&world, 7)[..], b"GET / HTTP/1.1\r\n\r\n", b"P"] {
            let client = world.connect_by(port, [10, 0, 0, 1].into());
            world.say_bytes(client, bytes);
            assert_eq!(world.hear_bytes(client), [21, 3, 3, 0, 2, 2, 10]);
            assert_eq!(world.client(client).closed, Some(Linger::Flush));
        }
    }
    assert_eq!(world.metrics().edge_refusals[Refusal::TlsHandshake.index()], 6);
    world.gateway.check_invariants();
}

/// Handshakes that never end are ended by the deadline of logins, and do not count for good.
#[test]
fn a_slow_handshake_is_bounded_by_time() {
    let mut world = World::new();
    for _ in 0..5 {
        let client = world.connect_by(TLS, [10, 0, 0, 1].into());
        for byte in [22, 3, 1, 0, 200, 1] {
            world.say_bytes(client, &[byte]);
            world.pass(Duration::from_secs(1));
        }
        assert!(world.is_open(client));
        world.pass(Duration::from_secs(5));
        assert!(!world.is_open(client));
        assert_eq!(world.hear_bytes(client), [0; 0], "it could not read a notice");
        world.gateway.check_invariants();
    }
}

/// A connection whose hello never comes is no handshake, and bytes of hellos have shares too.
#[test]
fn hellos_that_never_end_keep_nobody_out() {
    for (first, count, most) in
        [(&[22u8][..], 4096, 0), (&[22, 3, 1, 0x3f, 0xf0, 1, 0, 0x3f, 0xec], 1000, 884)]
    {
        let mut world = World::new();
        world.check_every = 500;
        let mut bytes = first.to_vec();
        if first.len() > 1 {
            bytes.resize(16_000, 0);
        }
        for _ in 0..count {
            let client = world.connect_by(TLS, [10, 0, 0, 9].into());
            world.say_bytes(client, &bytes);
        }
        assert_eq!(world.metrics().edge_refusals[Refusal::TlsBusy.index()], most);
        let mut client = TlsClient::connect(&mut world, TLS, 50);
        let frames = login(&world, 7);
        client.say(&mut world, &frames);
        assert!(matches!(client.hear(&mut world)[..], [ServerFrame::LoggedIn { .. }]));
        world.gateway.check_invariants();
    }
}

/// An address has a ninth of all handshakes under way, an eighth of what it leaves free.
#[test]
fn handshakes_that_never_end_keep_nobody_else_out() {
    let mut world = World::new();
    world.check_every = 500;
    let mut hello = Vec::new();
    TlsClient::connect(&mut world, TLS, 1).connection.write_tls(&mut hello).unwrap();
    let begin = |world: &mut World, address: [u8; 4]| {
        let client = world.connect_by(TLS, address.into());
        world.say_bytes(client, &hello);
        while world.gateway.poll_timeout().is_some_and(|due| due <= world.now) {
            world.handle(Event::Timeout);
        }
        client
    };
    let begun: Vec<_> = (0..1030).map(|_| begin(&mut world, [10, 0, 0, 9])).collect();
    assert_eq!(begun.iter().filter(|client| !world.is_open(**client)).count(), 1030 - 4096 / 9);
    assert_eq!(world.hear_bytes(begun[1029]), [21, 3, 3, 0, 2, 2, 80]);
    let other = begin(&mut world, [10, 0, 0, 8]);
    assert!(world.is_open(other) && world.hear_bytes(other).len() > 100);
    world.reset(begun[0]);
    let again = begin(&mut world, [10, 0, 0, 9]);
    assert!(world.is_open(again), "what has ended counts no more");
}

/// Each of many addresses keeps all that it gets: a newcomer takes the place of the oldest.
#[test]
fn handshakes_of_however_many_addresses_keep_no_newcomer_out() {
    let mut world = World::new();
    world.check_every = 2_000;
    let mut hello = Vec::new();
    TlsClient::connect(&mut world, TLS, 1).connection.write_tls(&mut hello).unwrap();
    let (part, rest) = hello.split_at(100);
    let begun: Vec<_> = (0..5_000_u16)
        .map(|at| {
            let [high, low] = (at / 4).to_be_bytes();
            let client = world.connect_by(TLS, [10, 0, high, low].into());
            world.say_bytes(client, part);
            world.say_bytes(client, rest);
            while world.gateway.poll_timeout().is_some_and(|due| due <= world.now) {
                world.handle(Event::Timeout);
            }
            client
        })
        .collect();
    let open = |world: &World| begun.iter().filter(|client| world.is_open(**client)).count();
    assert_eq!(open(&world), 4096);
    let mut client = TlsClient::connect(&mut world, TLS, 50);
    let frames = login(&world, 7);
    client.say(&mut world, &frames);
    assert!(matches!(client.hear(&mut world)[..], [ServerFrame::LoggedIn { .. }]));
    assert_eq!(open(&world), 4095);
    let busy = world.metrics().edge_refusals[Refusal::TlsBusy.index()];
    assert_eq!(busy as usize, begun.len() - open(&world));
    world.gateway.check_invariants();
}

/// The same of hellos, and of requests of WebSocket.
#[test]
fn unfinished_hellos_of_however_many_addresses_keep_no_newcomer_out() {
    let mut world = World::new();
    world.check_every = 500;
    let mut bytes = vec![22, 3, 1, 0x3f, 0xf0, 1, 0, 0x3f, 0xec];
    bytes.resize(16_000, 0);
    let begun: Vec<_> = (0..1_200_u16)
        .map(|at| {
            let [high, low] = at.to_be_bytes();
            let client = world.connect_by(TLS, [10, 0, high, low].into());
            world.say_bytes(client, &bytes);
            client
        })
        .collect();
    assert_eq!(begun.iter().filter(|client| world.is_open(**client)).count(), (16 << 20) / 16_000);
    assert_eq!(world.hear_bytes(begun[0]), [21, 3, 3, 0, 2, 2, 80], "the oldest made place");
    let mut client = TlsClient::connect(&mut world, TLS, 500);
    let frames = login(&world, 7);
    client.say(&mut world, &frames);
    assert!(matches!(client.hear(&mut world)[..], [ServerFrame::LoggedIn { .. }]));
    let mut client = TlsClient::connect(&mut world, TLS, 100);
    client.say(&mut world, &frames);
    assert!(matches!(client.hear(&mut world)[..], [ServerFrame::LoggedIn { .. }]));
    world.gateway.check_invariants();
}

/// A record that is not whole is held as well as a frame.
#[test]
fn records_that_never_end_have_shares_before_a_login() {
    let mut world = World::new();
    world.check_every = 500;
    let mut record = vec![23, 3, 3, 0x40, 0x11];
    record.resize(16_400, 0);
    let clients: Vec<_> = (0..280)
        .map(|_| {
            let mut client = TlsClient::connect(&mut world, TLS, usize::MAX);
            client.say(&mut world, b"");
            world.say_bytes(client.client, &record);
            client.client
        })
        .collect();
    let refused = clients.iter().filter(|client| !world.is_open(**client)).count();
    assert_eq!(refused, 280 - (16 << 20) / 9 / 16_400, "an address has an eighth of what it leaves free");
    world.gateway.check_invariants();
}

/// Changes of keys bring no frame and take time.
#[test]
fn a_flood_of_records_without_frames_is_rate_limited() {
    let mut world = World::new();
    let mut client = TlsClient::connect(&mut world, TLS, usize::MAX);
    let frames = login(&world, 7);
    client.say(&mut world, &frames);
    client.hear(&mut world);
    let business = frame(&ClientFrame::Heartbeat { echo: b"" }, 7);
    let mut changes = 0;
    'flood: for byte in business.iter().cycle() {
        for _ in 0..31 {
            client.connection.refresh_traffic_keys().unwrap();
            changes += 1;
            if changes > 1_000 {
                break 'flood;
            }
        }
        client.say(&mut world, &[*byte]);
        if !world.is_open(client.client) {
            break;
        }
    }
    assert!((450..600).contains(&changes), "{changes} of 2,000 frames at once");
    let heard = client.hear(&mut world);
    assert!(
        matches!(heard.last(), Some(ServerFrame::Notice { code: NoticeCode::RateLimited, .. })),
        "{heard:?}"
    );
}

/// Each byte in a record of its own is no reason to end a connection.
#[test]
fn a_frame_in_many_records_counts_as_one() {
    let mut world = World::new();
    world.check_every = 100;
    let mut client = TlsClient::connect(&mut world, TLS, usize::MAX);
    let frames = login(&world, 7);
    client.say(&mut world, &frames);
    client.hear(&mut world);
    let heartbeat = frame(&ClientFrame::Heartbeat { echo: b"123456" }, 7);
    assert_eq!(heartbeat.len(), 16);
    for _ in 0..1_950 {
        for byte in &heartbeat {
            client.connection.writer().write_all(&[*byte]).unwrap();
        }
        client.say(&mut world, b"");
    }
    assert!(world.is_open(client.client));
    assert_eq!(client.hear(&mut world).len(), 1_950);
}

#[test]
fn a_proxy_may_stand_before_tls() {
    let rules = Rules { proxy_from: vec!["10.0.0.0/16".parse().unwrap()], origins: vec![] };
    let mut world = World::with(|config| config.edge = rules);
    let mut client = TlsClient::connect(&mut world, TLS, 3);
    world.say_bytes(client.client, b"PROXY TCP4 192.0.2.1 10.1.0.1 40000 5346\r\n");
    let frames = login(&world, 7);
    client.say(&mut world, &frames);
    assert_eq!(world.metrics().logins, 1);
}

/// Hellos of a storm are answered some in each turn, in their order; clients that are logged in are answered
/// in every turn.
#[test]
fn a_storm_of_hellos_leaves_the_others_their_turns() {
    const STORM: usize = 50;
    let mut world = World::new();
    world.check_every = 1;
    let other = world.login(1);
    let mut clients: Vec<_> = (0..=STORM).map(|_| TlsClient::connect(&mut world, TLS, usize::MAX)).collect();
    let mut hellos = clients.iter_mut().map(|client| {
        let mut hello = Vec::new();
        while client.connection.wants_write() {
            client.connection.write_tls(&mut hello).unwrap();
        }
        (client.client, hello)
    });
    let mut hellos: Vec<_> = hellos.by_ref().collect();
    let (late, late_hello) = hellos.pop().unwrap();
    for (client, hello) in &hellos {
        let conn = world.client(*client).conn;
        world.gateway.received(world.now, conn, hello); // all in one turn
    }
    world.run();
    let mut answered = Vec::new();
    for turn in 1.. {
        let before = answered.len();
        for (at, client) in clients.iter().enumerate() {
            if world.client(client.client).writes > 0 && !answered.contains(&at) {
                answered.push(at);
            }
        }
        let in_turn = answered.len() - before;
        assert!(in_turn <= HELLOS_PER_TURN as usize, "{in_turn} in turn {turn}");
        if world.gateway.poll_timeout().is_none_or(|due| due > world.now) {
            break;
        }
        assert_eq!(in_turn, HELLOS_PER_TURN as usize);
        if turn == 2 {
            world.say_bytes(late, &late_hello);
            assert_eq!(world.client(late).writes, 0, "it stands behind the others");
            world.say(other, ClientFrame::Heartbeat { echo: b"?" });
            let heard = world.hear(other);
            assert!(matches!(heard[..], [ServerFrame::Heartbeat { .. }]), "{heard:?}");
        }
        world.handle(Event::Timeout);
    }
    assert!(answered.is_sorted() && answered.len() == STORM + 1, "{answered:?}");
    for (at, client) in clients.iter_mut().enumerate() {
        let frames = login(&world, 100 + at as i64);
        client.say(&mut world, &frames);
        assert!(matches!(client.hear(&mut world)[..], [ServerFrame::LoggedIn { .. }]));
    }
    assert_eq!(world.metrics().tls_handshakes, [STORM as u64 + 1, 0]);
}

/// A connection that ends while its hello waits is forgotten.
#[test]
fn who_leaves_while_its_hello_waits_is_not_answered() {
    let mut world = World::new();
    world.check_every = 1;
    let mut clients: Vec<_> = (0..20).map(|_| TlsClient::connect(&mut world, TLS, usize::MAX)).collect();
    for client in &mut clients {
        let (mut hello, conn) = (Vec::new(), world.client(client.client).conn);
        client.connection.write_tls(&mut hello).unwrap();
        world.gateway.received(world.now, conn, &hello);
    }
    for client in &clients[10..] {
        let conn = world.client(client.client).conn;
        world.gateway.closed(conn);
    }
    world.run();
    while world.gateway.poll_timeout().is_some_and(|due| due <= world.now) {
        world.handle(Event::Timeout);
    }
    let answered = clients[..10].iter().filter(|client| world.client(client.client).writes > 0).count();
    assert_eq!(answered, 10);
}
