//! Connections that come by a proxy, or by WebSocket.
#![allow(clippy::unwrap_used)] // a failing unwrap is a failing test

mod common;

use std::time::Duration;

use common::{APP, PLAIN, WEBSOCKET, World};
use gateway::{Refusal, Rules};
use shard::{Event, Linger};
use wire::client::{ClientFrame, Code, Deframer, Encoding, NoticeCode, ServerFrame};
use wire::{DeviceClass, UserId};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn upgrade(protocol: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: im\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
}

/// A frame of a client.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The frames of the server: opcode and payload.
fn unframed(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(first & 0xf0, 0x80, "whole messages only");
        let (len, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            len => (usize::from(*len), rest),
        };
        frames.push((first & 0x0f, rest[..len].to_vec()));
        bytes = &rest[len..];
    }
    frames
}

fn close(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A client whose WebSocket is open.
fn open(world: &mut World, protocol: &str) -> u32 {
    let client = world.connect_by(WEBSOCKET, [10, 0, 0, 1].into());
    world.say_bytes(client, upgrade(protocol).as_bytes());
    let answer = String::from_utf8(world.hear_bytes(client)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(protocol), "{answer}");
    client
}

fn login_frame(world: &World, user: i64) -> Vec<u8> {
    let token = world.token(user, DeviceClass::Web);
    let mut frame = Vec::new();
    ClientFrame::Login { token: token.into() }.encode(Encoding::Binary, APP, UserId(user), &mut frame);
    frame
}

/// A client that is logged in by binary messages.
fn logged_in(world: &mut World, user: i64) -> u32 {
    let client = open(world, "sailfish.v1.binary");
    let login = login_frame(world, user);
    world.say_bytes(client, &masked(BINARY, &login));
    let heard = heard(world, client);
    assert!(matches!(heard.as_slice(), [ServerFrame::LoggedIn { .. }]), "{heard:?}");
    client
}

/// The frames in the one binary message that came.
fn heard(world: &mut World, client: u32) -> Vec<ServerFrame<'static>> {
    let frames = unframed(&world.hear_bytes(client));
    let [(BINARY, message)] = frames.as_slice() else { panic!("{frames:?} is not one message") };
    let (mut deframer, mut rest, mut heard) = (Deframer::default(), &message[..], Vec::new());
    while let Some(frame) = deframer.next(&mut rest, 1 << 20).unwrap() {
        heard.push(ServerFrame::decode(&frame).unwrap().into_owned());
    }
    assert!(!deframer.has_partial(), "a message has whole frames");
    heard
}

fn refusals(world: &World, refusal: Refusal) -> u64 {
    world.metrics().edge_refusals[refusal.index()]
}

#[test]
fn a_message_carries_any_number_of_frames_and_so_does_the_answer() {
    let mut world = World::new();
    let client = logged_in(&mut world, 7);
    let mut frames = Vec::new();
    for echo in [b"1", b"2", b"3"] {
        ClientFrame::Heartbeat { echo }.encode(Encoding::Binary, APP, UserId(7), &mut frames);
    }
    let writes = world.client(client).writes;
    world.say_bytes(client, &masked(BINARY, &frames));
    let heard = heard(&mut world, client);
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard.iter().all(|frame| frame.code() == Code::Heartbeat));
    assert_eq!(world.client(client).writes - writes, 1, "one write");
    assert_eq!(world.metrics().websockets, 1);
}

#[test]
fn a_login_is_taken_at_every_split() {
    let whole = {
        let world = World::new();
        [upgrade("sailfish.v1.binary").into_bytes(), masked(BINARY, &login_frame(&world, 7))].concat()
    };
    for split in 0..=whole.len() {
        let mut world = World::new();
        world.check_every = 1;
        let client = world.connect_by(WEBSOCKET, [10, 0, 0, 1].into());
        world.say_bytes(client, &whole[..split]);
        world.say_bytes(client, &whole[split..]);
        assert_eq!(world.metrics().logins, 1, "split at {split}");
    }
}

#[test]
fn a_text_message_is_a_frame_and_so_is_the_answer() {
    let mut world = World::new();
    let client = open(&mut world, "sailfish.v1.json");
    let login = format!(r#"{{"code":1001,"token":"{}"}}"#, world.token(7, DeviceClass::Web));
    world.say_bytes(client, &masked(TEXT, login.as_bytes()));
    let wanted = r#"{"code":1001,"appId":1,"userId":7,"data":"true","heartbeatMs":30000}"#;
    assert_eq!(unframed(&world.hear_bytes(client)), [(TEXT, wanted.into())]);
    world.say_bytes(client, &masked(TEXT, br#"{"code":1010,"target":5}"#));
    let wanted = r#"{"code":1010,"appId":1,"userId":7,"data":"{\"roomId\":5,\"sequence\":40}"}"#;
    assert_eq!(unframed(&world.hear_bytes(client)), [(TEXT, wanted.into())]);
    world.deliver_lossy(client, 42, "hi");
    let [(TEXT, text)] = &unframed(&world.hear_bytes(client))[..] else { panic!("one message") };
    let text: serde_json::Value = serde_json::from_slice(text).unwrap();
    assert_eq!((&text["code"], &text["data"]), (&1003.into(), &"hi".into()));
    world.say_bytes(client, &masked(TEXT, br#"{"target":5}"#));
    let frames = unframed(&world.hear_bytes(client));
    let [(TEXT, notice), end] = &frames[..] else { panic!("{frames:?}") };
    assert!(notice.starts_with(br#"{"code":1007,"#));
    assert_eq!(*end, close(4011, "bad_code"));
}

/// A text of the server as the Java platform's clients read it: code and body.
fn java_text(frame: &(u8, Vec<u8>)) -> (i64, String) {
    assert_eq!(frame.0, TEXT);
    let text: serde_json::Value = serde_json::from_slice(&frame.1).unwrap();
    assert_eq!(text["magic"], 18_677);
    let body =
        text["body"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect::<Vec<_>>();
    assert_eq!(text["len"], body.len());
    (text["code"].as_i64().unwrap(), String::from_utf8(body).unwrap())
}

/// A client of the Java platform, with what it hears when the path has logged it in.
fn java(world: &mut World, path: &str) -> (u32, Vec<(i64, String)>) {
    let client = world.connect_by(WEBSOCKET, [10, 0, 0, 1].into());
    let request = upgrade("x").replacen("GET /", &format!("GET {path}"), 1).replacen(
        "Sec-WebSocket-Protocol",
        "X-Y",
        1,
    );
    world.say_bytes(client, request.as_bytes());
    let heard = world.hear_bytes(client);
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(heard.starts_with(b"HTTP/1.1 101 "));
    (client, unframed(&heard[end..]).iter().filter(|frame| frame.0 == TEXT).map(java_text).collect())
}

#[test]
fn a_client_of_the_java_platform_logs_in_and_joins_by_its_path() {
    let mut world = World::new();
    let token = world.token(7, DeviceClass::Web);
    let (client, heard) = java(&mut world, &format!("/{token}/7/1001/5"));
    assert_eq!(heard[0], (1001, r#"{"appId":1,"userId":7,"data":"true","heartbeatMs":30000}"#.into()));
    let joined = r#"{"appId":1,"userId":7,"data":"{\"roomId\":5,\"sequence\":40}"}"#;
    let heard = match heard.get(1) {
        Some(heard) => heard.clone(),
        None => java_text(&unframed(&world.hear_bytes(client))[0]),
    };
    assert_eq!(heard, (1010, joined.into()));
    let heartbeat = br#"{"magic":18673,"code":1004,"len":26,"body":"{\"userId\":7,\"appId\":1}"}"#;
    world.say_bytes(client, &masked(TEXT, heartbeat));
    let heard = java_text(&unframed(&world.hear_bytes(client))[0]);
    assert_eq!(heard, (1004, r#"{"appId":1,"userId":7}"#.into()));
    world.deliver_lossy(client, 42, "\u{4e2d}");
    let (code, body) = java_text(&unframed(&world.hear_bytes(client))[0]);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &body["data"]), (1003, &"\u{4e2d}".into()));
}

#[test]
fn a_client_of_the_java_platform_need_join_no_room() {
    let mut world = World::new();
    let token = world.token(7, DeviceClass::Web);
    let (_, heard) = java(&mut world, &format!("/{token}/7/1001"));
    assert_eq!((heard.len(), heard[0].0, world.metrics().logins), (1, 1001, 1));
}

#[test]
fn a_client_of_the_java_platform_hears_why_it_ends() {
    let mut world = World::new();
    let (client, heard) = java(&mut world, "/t.k.n/7/1001");
    let [(1007, notice)] = &heard[..] else { panic!("{heard:?}") };
    assert!(notice.contains("token_invalid"), "{notice}");
    assert_eq!(world.client(client).closed, Some(Linger::Flush));
    // A body may be as long as a frame's, however long its text is; one byte more is refused.
    let limit = 64 << 10;
    for (bytes, refused) in [(limit, false), (limit + 1, true)] {
        let token = world.token(8, DeviceClass::Web);
        let (client, _) = java(&mut world, &format!("/{token}/8/1001"));
        let fill = " ".repeat(bytes - r#"{"x":"A"}"#.len());
        let text = format!(r#"{{"code":1004,"body":"{{\"x\":\"\u0041\"}}{fill}"}}"#);
        world.say_bytes(client, &masked(TEXT, text.as_bytes()));
        let (code, said) = java_text(&unframed(&world.hear_bytes(client))[0]);
        assert_eq!(code, if refused { 1007 } else { 1004 }, "{said}");
        assert_eq!(said.contains("bad_length"), refused);
    }
}

#[test]
fn a_close_frame_says_what_the_notice_says() {
    let mut world = World::new();
    let client = logged_in(&mut world, 7);
    world.say_bytes(client, &masked(BINARY, b"GET "));
    assert_eq!(world.client(client).closed, Some(Linger::Flush));
    let frames = unframed(&world.hear_bytes(client));
    let [(BINARY, _), end] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(*end, close(4010, "bad_magic"));
}

#[test]
fn a_logout_and_a_close_end_the_session_with_1000() {
    let mut world = World::new();
    let client = logged_in(&mut world, 7);
    let mut logout = Vec::new();
    ClientFrame::Logout.encode(Encoding::Binary, APP, UserId(7), &mut logout);
    world.say_bytes(client, &masked(BINARY, &logout));
    let frames = unframed(&world.hear_bytes(client));
    let [(BINARY, _), end] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(*end, close(1000, ""));

    let client = logged_in(&mut world, 8);
    world.say_bytes(client, &masked(CLOSE, &[3, 233]));
    assert_eq!(world.client(client).closed, Some(Linger::Flush));
    assert_eq!(unframed(&world.hear_bytes(client)), [close(1001, "")]);
    assert_eq!(world.metrics().sessions, 0);
}

#[test]
fn a_message_that_ends_within_a_frame_is_refused() {
    let mut world = World::new();
    let client = open(&mut world, "sailfish.v1.binary");
    let login = login_frame(&world, 7);
    world.say_bytes(client, &masked(BINARY, &login[..20]));
    let frames = unframed(&world.hear_bytes(client));
    assert_eq!(frames.last(), Some(&close(4012, "bad_length")));
}

#[test]
fn what_breaks_the_protocol_is_closed_by_name_and_counted() {
    let mut world = World::new();
    for (bytes, refusal, end) in [
        (vec![0x82, 0], Refusal::WebSocketProtocol, close(1002, "websocket_protocol")),
        (masked(TEXT, b"{}"), Refusal::WebSocketKind, close(1003, "websocket_kind")),
        (
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x40, 0, 1],
            Refusal::WebSocketTooBig,
            close(1009, "websocket_too_big"),
        ),
    ] {
        let client = open(&mut world, "sailfish.v1.binary");
        world.say_bytes(client, &bytes);
        assert_eq!(world.client(client).closed, Some(Linger::Flush));
        assert_eq!(unframed(&world.hear_bytes(client)), [end]);
        assert_eq!(refusals(&world, refusal), 1);
    }
}

#[test]
fn pings_are_answered_and_a_flood_of_them_is_rate_limited() {
    let mut world = World::with(|config| config.limits.frames_burst = 10);
    let client = logged_in(&mut world, 7);
    world.say_bytes(client, &masked(PING, b"there?"));
    assert_eq!(unframed(&world.hear_bytes(client)), [(PONG, b"there?".to_vec())]);
    world.say_bytes(client, &masked(PING, b"").repeat(20));
    let frames = unframed(&world.hear_bytes(client));
    assert_eq!(frames.last(), Some(&close(4003, "rate_limited")));
}

/// A shard that is behind gives twice the time, and no more.
#[test]
fn pings_do_not_prolong_the_time_without_a_login() {
    let mut world = World::new();
    let client = world.connect_by(WEBSOCKET, [10, 0, 0, 1].into());
    world.say_bytes(client, upgrade("sailfish.v1.binary").as_bytes());
    world.handle(Event::InputWaits(true));
    for second in 0..25 {
        assert_eq!(world.is_open(client), second < 21, "after {second} s");
        world.say_bytes(client, &masked(PING, b""));
        world.pass(Duration::from_secs(1));
    }
}

/// A frame may come in many fragments, and what brings no frame counts as some.
#[test]
fn a_flood_of_fragments_is_rate_limited() {
    let fragment = |first: u8| [first, 0x80, 1, 2, 3, 4];
    for flood in [fragment(0), fragment(0x80 | BINARY)] {
        let mut world = World::new();
        let client = logged_in(&mut world, 1);
        if flood[0] == 0 {
            world.say_bytes(client, &fragment(BINARY));
        }
        let mut sent = 0;
        while world.is_open(client) && sent < 100_000 {
            world.say_bytes(client, &flood.repeat(1_000));
            sent += 1_000;
        }
        assert!((31_000..=33_000).contains(&sent), "{sent}");
        let frames = unframed(&world.hear_bytes(client));
        assert_eq!(frames.last(), Some(&close(4003, "rate_limited")));
    }
    let mut world = World::new();
    world.check_every = 100;
    let client = logged_in(&mut world, 1);
    let mut heartbeat = Vec::new();
    ClientFrame::Heartbeat { echo: b"12345" }.encode(Encoding::Binary, APP, UserId(1), &mut heartbeat);
    let mut message: Vec<u8> = heartbeat.chunks(1).flat_map(|byte| masked(0, byte)).collect();
    assert_eq!(heartbeat.len(), 15);
    (0..15).for_each(|at| {
        message[at * 7] = if at == 0 {
            BINARY
        } else if at == 14 {
            0x80
        } else {
            0
        }
    });
    for _ in 0..1_999 {
        world.say_bytes(client, &message);
        world.hear_bytes(client);
    }
    assert!(world.is_open(client), "{:?}", unframed(&world.hear_bytes(client)));
}

/// A text before the login is as short as a frame.
#[test]
fn a_text_before_a_login_is_short() {
    for piece in [7, 100_000] {
        let mut world = World::new();
        let client = open(&mut world, "sailfish.v1.json");
        let text = masked(TEXT, format!(r#"{{"code":1001,"token":"{}"}}"#, "a".repeat(60_000)).as_bytes());
        let mut sent = 0;
        for piece in text.chunks(piece) {
            sent += if world.is_open(client) { piece.len() } else { 0 };
            world.say_bytes(client, piece);
        }
        assert!(!world.is_open(client) && (sent < 8_300 || piece > 60_000), "{sent}");
        let frames = unframed(&world.hear_bytes(client));
        assert_eq!(frames.last(), Some(&close(4012, "bad_length")));
    }
    let mut world = World::new();
    let client = open(&mut world, "sailfish.v1.json");
    let token = world.token(1, DeviceClass::Phone);
    let login = masked(TEXT, format!(r#"{{"code":1001,"token":"{token}"}}"#).as_bytes());
    for piece in login.chunks(10) {
        world.say_bytes(client, piece);
    }
    world.hear_bytes(client);
    world.say_bytes(client, &masked(TEXT, &[b'a'; 60_000])[..50_000]);
    assert!(world.is_open(client));
}

#[test]
fn a_pong_that_waits_for_a_slow_socket_is_not_forgotten() {
    let mut world = World::new();
    let client = logged_in(&mut world, 7);
    world.stop_reading(client);
    world.deliver_lossy(client, 42, "hi");
    world.say_bytes(client, &masked(PING, b"1"));
    world.say_bytes(client, &masked(PING, b"2"));
    let frames = unframed(&world.hear_bytes(client));
    assert!(matches!(frames[..], [(BINARY, _)]), "{frames:?}");
    world.go_on_reading(client);
    assert_eq!(unframed(&world.hear_bytes(client)), [(PONG, b"2".to_vec())]);
}

#[test]
fn what_comes_after_the_end_changes_nothing_in_the_notice() {
    let mut world = World::new();
    let client = logged_in(&mut world, 7);
    let messages = [masked(BINARY, b"GET "), masked(BINARY, &[0x55; 100])].concat();
    let (conn, now) = (world.client(client).conn, world.now);
    for piece in [&messages[..30], &messages[30..]] {
        world.gateway.received(now, conn, piece); // both come in one turn
    }
    world.run();
    let frames = unframed(&world.hear_bytes(client));
    assert_eq!(frames.last(), Some(&close(4010, "bad_magic")), "{frames:?}");
    assert_eq!(refusals(&world, Refusal::WebSocketProtocol), 0);
}

#[test]
fn a_silent_client_is_pinged_and_its_pong_is_a_sign_of_life() {
    let mut world = World::new();
    let client = logged_in(&mut world, 7);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.hear_bytes(client), [0; 0]);
    for _ in 0..5 {
        world.pass(Duration::from_secs(31));
        assert_eq!(unframed(&world.hear_bytes(client)), [(PING, vec![])]);
        world.say_bytes(client, &masked(PONG, b""));
    }
    world.pass(Duration::from_secs(61));
    let frames = unframed(&world.hear_bytes(client));
    assert_eq!(frames.last(), Some(&close(4004, "idle_timeout")), "{frames:?}");
}

#[test]
fn http_that_is_no_upgrade_is_answered() {
    let mut world = World::new();
    let client = world.connect_by(WEBSOCKET, [10, 0, 0, 1].into());
    world.say_bytes(client, b"GET /metrics HTTP/1.1\r\nHost: im\r\n\r\n");
    let answer = String::from_utf8(world.hear_bytes(client)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("PROTOCOL.md"), "{answer}");
    assert_eq!(world.client(client).closed, Some(Linger::Flush));
    assert_eq!(refusals(&world, Refusal::HttpNoUpgrade), 1);
}

#[test]
fn a_connection_that_ends_before_it_is_open_is_told_in_http() {
    let mut world = World::with(|config| config.limits.connections_max = 1);
    let slow = world.connect_by(WEBSOCKET, [10, 0, 0, 1].into());
    world.say_bytes(slow, b"GET / HT");
    let late = world.connect_by(WEBSOCKET, [10, 0, 0, 2].into());
    let answer = String::from_utf8(world.hear_bytes(late)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nserver_full\n"), "{answer}");
    world.pass(Duration::from_secs(11));
    let answer = String::from_utf8(world.hear_bytes(slow)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("login_timeout\n"), "{answer}");
    world.gateway.check_invariants();
}

/// A world whose proxies are in 10.1.0.0/16, and where an address may have two connections.
fn with_proxies() -> World {
    World::with(|config| {
        config.limits.address_connections_max = 2;
        config.edge = Rules { proxy_from: vec!["10.1.0.0/16".parse().unwrap()], origins: vec![] };
    })
}

#[test]
fn limits_for_an_address_are_those_of_whom_a_proxy_names() {
    let mut world = with_proxies();
    let proxy = [10, 1, 0, 1].into();
    for client in 0..5 {
        let it = world.connect_by(PLAIN, proxy);
        world.say_bytes(it, format!("PROXY TCP4 192.0.2.{client} 10.1.0.1 40000 5346\r\n").as_bytes());
        let login = login_frame(&world, client + 1);
        world.say_bytes(it, &login);
        assert!(matches!(world.hear(it)[..], [ServerFrame::LoggedIn { .. }]), "client {client}");
    }
    for client in 0..2 {
        let it = world.connect_by(PLAIN, proxy);
        let login = login_frame(&world, 10 + client);
        world.say_bytes(it, &[b"PROXY TCP4 192.0.2.0 10.1.0.1 40000 5346\r\n", &login[..]].concat());
        if client == 1 {
            assert_eq!(world.closing_notice(it), NoticeCode::AddressLimit);
        }
    }
}

/// Its request is read, whatever pieces it comes in, so that it is not told that it spoke no HTTP.
#[test]
fn a_client_that_is_turned_away_behind_its_proxy_hears_why() {
    let mut world = with_proxies();
    let request = format!("PROXY TCP4 192.0.2.0 10.1.0.1 40000 5346\r\n{}", upgrade("sailfish.v1.binary"));
    for client in 0..3 {
        let it = world.connect_by(WEBSOCKET, [10, 1, 0, 1].into());
        let (conn, now) = (world.client(it).conn, world.now);
        for piece in request.as_bytes().chunks(80) {
            world.gateway.received(now, conn, piece);
        }
        world.run();
        let answer = world.hear_bytes(it);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 101 "), "client {client}: {text}");
        assert_eq!(text.ends_with(NoticeCode::AddressLimit.name()), client == 2, "{text}");
    }
}

/// A client that is where the proxy is counts once.
#[test]
fn a_client_at_the_address_of_its_proxy_is_one() {
    let mut world = with_proxies();
    for user in 1..=3 {
        let it = world.connect_by(PLAIN, [10, 1, 0, 1].into());
        let login = login_frame(&world, user);
        world.say_bytes(it, &[b"PROXY TCP4 10.1.0.1 10.1.0.2 40000 5346\r\n", &login[..]].concat());
        if user == 3 {
            assert_eq!(world.closing_notice(it), NoticeCode::AddressLimit);
        }
    }
    assert_eq!(world.metrics().logins, 2);
}

#[test]
fn a_proxy_must_say_whose_connection_it_passes_on_and_others_may_not() {
    let mut world = with_proxies();
    let it = world.connect_by(PLAIN, [10, 1, 0, 1].into());
    let login = login_frame(&world, 1);
    world.say_bytes(it, &login);
    assert_eq!(world.client(it).closed, Some(Linger::Flush));
    assert_eq!(refusals(&world, Refusal::ProxyHeader), 1);
    let line = b"PROXY TCP4 192.0.2.1 10.1.0.1 40000 5346\r\n";
    let it = world.connect_by(PLAIN, [10, 2, 0, 1].into());
    world.say_bytes(it, line);
    assert_eq!(world.closing_notice(it), NoticeCode::BadMagic);
    let it = world.connect_by(WEBSOCKET, [10, 2, 0, 1].into());
    world.say_bytes(it, line);
    assert_eq!(world.client(it).closed, Some(Linger::Flush));
    assert_eq!(refusals(&world, Refusal::ProxyStranger), 1);
}

#[test]
fn a_proxy_may_stand_before_websocket() {
    let mut world = with_proxies();
    let header =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 1, 10, 1, 0, 1, 1, 0, 2, 0]].concat();
    let login = masked(BINARY, &login_frame(&world, 1));
    let whole = [header, upgrade("sailfish.v1.binary").into_bytes(), login].concat();
    let it = world.connect_by(WEBSOCKET, [10, 1, 0, 1].into());
    whole.chunks(1).for_each(|byte| world.say_bytes(it, byte));
    assert_eq!(world.metrics().logins, 1);
}
