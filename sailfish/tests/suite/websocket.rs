//! Clients that come by WebSocket, spoken by an implementation that is not ours, beside those of TCP; and by
//! a proxy.

#[path = "../../../edge/tests/cases/websocket.rs"]
mod cases;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};
use wire::client::{ClientFrame, Deframer, Encoding, NoticeCode, Outcome, ServerFrame};
use wire::{RoomId, UserId};

use crate::common::{APP, PATIENCE, SECRET, Server, output, sailfish, token};
use cases::Case;

const ANYWHERE: [&str; 2] = ["--listen-ws", "127.0.0.1:0"];

fn connect(address: SocketAddr, headers: &[(&'static str, &str)]) -> Result<WebSocket<TcpStream>, String> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("ws://{address}/").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match tungstenite::client::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(error)) => Err(error.to_string()),
        Err(HandshakeError::Interrupted(_)) => panic!("no answer to the handshake"),
    }
}

fn open(server: &Server, protocol: &str) -> WebSocket<TcpStream> {
    connect(server.websocket.unwrap(), &[("sec-websocket-protocol", protocol)]).unwrap()
}

fn say(socket: &mut WebSocket<TcpStream>, text: &Value) {
    socket.send(Message::text(text.to_string())).unwrap();
}

fn hear(socket: &mut WebSocket<TcpStream>) -> Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?} is no text"),
        }
    }
}

fn close_code(socket: &mut WebSocket<TcpStream>) -> (u16, String) {
    loop {
        match socket.read().unwrap() {
            Message::Close(Some(close)) => return (close.code.into(), close.reason.to_string()),
            Message::Close(None) => panic!("no code"),
            _ => {}
        }
    }
}

/// A client that speaks JSON, logged in and in room 7.
fn in_room(server: &Server, user: i64) -> WebSocket<TcpStream> {
    let mut socket = open(server, "sailfish.v1.json");
    say(&mut socket, &json!({"code": 1001, "token": token(user, 3_600)}));
    assert_eq!(hear(&mut socket)["code"], 1001);
    say(&mut socket, &json!({"code": 1010, "target": 7}));
    assert_eq!(hear(&mut socket)["code"], 1010);
    socket
}

/// Clients of TCP and of WebSocket in both forms talk to each other, and are told when the node goes.
fn works_on(engine: &str) {
    let mut server = Server::start(&[&["--engine", engine][..], &ANYWHERE].concat());
    let mut plain = server.login(1);
    plain.join(7);
    let mut json = in_room(&server, 2);
    let mut binary = open(&server, "sailfish.v1.binary");
    let mut frames = Vec::new();
    let login = ClientFrame::Login { token: token(3, 3_600).into() };
    login.encode(Encoding::Binary, APP, UserId(3), &mut frames);
    ClientFrame::Join { room: RoomId(7), want: None }.encode(Encoding::Binary, APP, UserId(3), &mut frames);
    binary.send(Message::binary(frames)).unwrap();
    let (mut deframer, mut heard) = (Deframer::default(), Vec::new());
    let mut next = |binary: &mut WebSocket<TcpStream>| {
        while heard.is_empty() {
            let message = binary.read().unwrap().into_data();
            let mut bytes = &message[..];
            while let Some(frame) = deframer.next(&mut bytes, 1 << 20).unwrap() {
                heard.push(ServerFrame::decode(&frame).unwrap().into_owned());
            }
            assert!(!deframer.has_partial(), "a message has whole frames");
        }
        heard.remove(0)
    };
    let answers = [next(&mut binary), next(&mut binary)];
    assert!(answers.iter().any(|frame| matches!(frame, ServerFrame::LoggedIn { .. })), "{answers:?}");

    plain.say(5555, 7, "m1", "from TCP");
    let text = hear(&mut json);
    assert_eq!(
        (&text["code"], &text["data"], &text["userId"]),
        (&1003.into(), &"from TCP".into(), &1.into())
    );
    let ServerFrame::Deliver(message) = next(&mut binary) else { panic!("a message") };
    assert_eq!(&message.payload[..], b"from TCP");
    assert!(matches!(plain.outcome_beside_messages("m1"), Outcome::Sequenced { .. }));

    say(
        &mut json,
        &json!({"code": 1003, "bizCode": 6001, "target": 1, "msgId": "m2", "data": "from a browser"}),
    );
    // Its own message to the room comes before its send-ack or after it.
    let message = std::iter::repeat_with(|| plain.message()).find(|message| message.room.is_none()).unwrap();
    assert_eq!((&message.payload[..], message.sender), (&b"from a browser"[..], UserId(2)));
    plain.ack(message.id);
    let ack = hear(&mut json);
    assert_eq!((&ack["code"], &ack["msgId"]), (&1006.into(), &"m2".into()));
    assert!(ack["data"].as_str().unwrap().contains("delivered"), "{ack}");

    json.send(Message::Ping(b"there?".to_vec().into())).unwrap();
    assert_eq!(json.read().unwrap(), Message::Pong(b"there?".to_vec().into()));
    json.close(None).unwrap();
    assert!(matches!(json.read().unwrap(), Message::Close(_)));

    server.signal(Signal::TERM);
    assert_eq!(close_code(&mut binary), (4002, "draining".into()));
    plain.expect_farewell(NoticeCode::Draining);
    drop((plain, binary, json));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn websocket_works_on_uring() {
    works_on("uring");
}

#[test]
fn websocket_works_on_monoio() {
    works_on("monoio");
}

#[test]
fn websocket_works_on_epoll() {
    works_on("epoll");
}

#[cfg(feature = "glommio")]
#[test]
fn websocket_works_on_glommio() {
    works_on("glommio");
}

#[test]
fn what_is_wrong_is_closed_with_its_code_and_counted() {
    let server = Server::start(&ANYWHERE);
    let mut socket = open(&server, "sailfish.v1.json");
    say(&mut socket, &json!({"code": 1004}));
    assert_eq!(close_code(&mut socket), (4020, "login_required".into()));
    let mut socket = open(&server, "sailfish.v1.json");
    socket.send(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(close_code(&mut socket).0, u16::from(CloseCode::Unsupported));
    assert_eq!(server.metric("sailfish_edge_refusals_total", "reason=\"websocket_kind\""), 1.0);
    assert_eq!(server.metric("sailfish_websockets_total", ""), 2.0);
    let (status, head, body) = crate::common::http(server.websocket.unwrap(), "GET / HTTP/1.1\r\n", "");
    assert_eq!(status, 426, "{head}");
    assert!(head.contains("upgrade: websocket") && body.contains("PROTOCOL.md"), "{head} {body}");
}

/// A frame on the port of WebSocket, and a request of HTTP on the port of frames.
#[test]
fn who_comes_to_the_wrong_port_is_told() {
    let server = Server::start(&ANYWHERE);
    let mut stream = TcpStream::connect(server.websocket.unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"SF\0\0\x03\xe9\0\0\0\0").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("WebSocket"), "{answer}");
    let mut plain = server.connect();
    plain.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    plain.expect_farewell(NoticeCode::BadMagic);
}

/// A text of the server in the Java platform's form: its code, and the JSON in its bytes.
fn hear_java(socket: &mut WebSocket<TcpStream>) -> (i64, Value) {
    let text = hear(socket);
    let bytes: Vec<u8> =
        text["body"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
    assert_eq!((&text["magic"], &text["len"]), (&18_677.into(), &bytes.len().into()));
    (text["code"].as_i64().unwrap(), serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn clients_of_the_java_platform_work_unchanged() {
    let server = Server::start(&ANYWHERE);
    let mut plain = server.login(1);
    plain.join(7);
    let address = server.websocket.unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let url = format!("ws://{address}/{}/10001/1001/7", token(10_001, 3_600));
    let (mut socket, _) = tungstenite::client::client(url, stream).unwrap();
    let mut heard = [hear_java(&mut socket), hear_java(&mut socket)];
    heard.sort_by_key(|(code, _)| *code);
    let [(1001, login), (1010, _)] = &heard else {
        panic!("{heard:?}: login and room of the path are answered")
    };
    assert_eq!((&login["userId"], &login["data"]), (&10_001.into(), &"true".into()));

    let body = json!({"appId": 1, "userId": 10_001, "bizCode": 5555, "msgId": "9f0c",
                      "data": r#"{"roomId":7,"content":"你好"}"#});
    say(&mut socket, &json!({"magic": 18_673, "code": 1003, "len": 0, "body": body.to_string()}));
    let message = plain.message();
    assert_eq!(message.payload, r#"{"roomId":7,"content":"你好"}"#.as_bytes());
    let heard = [hear_java(&mut socket), hear_java(&mut socket)];
    let own = heard.iter().find(|(code, _)| *code == 1003).unwrap();
    assert_eq!(own.1["data"], r#"{"roomId":7,"content":"你好"}"#);
    assert!(heard.iter().any(|(code, body)| *code == 1006 && body["msgId"] == "9f0c"), "{heard:?}");
}

#[test]
fn only_pages_of_listed_origins_connect() {
    let server =
        Server::start(&[&["--set", "node.origins=[\"https://chat.example\"]"][..], &ANYWHERE].concat());
    let address = server.websocket.unwrap();
    assert!(connect(address, &[("origin", "https://chat.example")]).is_ok());
    assert!(connect(address, &[]).is_ok(), "no browser");
    let refused = connect(address, &[("origin", "https://evil.example")]).unwrap_err();
    assert!(refused.contains("403"), "{refused}");
}

#[test]
fn a_proxy_names_its_client() {
    let server = Server::start(&[
        "--set",
        "node.proxy_from=[\"127.0.0.1\"]",
        "--set",
        "limits.address_connections_max=1",
        "--shards",
        "1",
    ]);
    let mut clients = Vec::new();
    for user in 1..=3 {
        let mut client = server.connect();
        let line = format!("PROXY TCP4 192.0.2.{user} 127.0.0.1 40000 5346\r\n");
        client.stream.write_all(line.as_bytes()).unwrap();
        client.login(user);
        clients.push(client);
    }
    let mut again = server.connect();
    again.stream.write_all(b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 5346\r\n").unwrap();
    again.expect_farewell(NoticeCode::AddressLimit);
    let mut silent = server.connect();
    silent.send_login(&token(9, 60));
    assert!(silent.next().is_none(), "no header");
    assert_eq!(server.metric("sailfish_edge_refusals_total", "reason=\"proxy_header\""), 1.0);
}

/// `up` with its defaults has a port for browsers; one that is told where to listen has none unless it is
/// told of that, too.
#[test]
fn the_port_is_configuration() {
    let printed = output(sailfish().args(["up", "--print-config"]), "");
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("listen_ws = \"auto\"") && text.contains("127.0.0.1:5349"), "{text}");
    assert_eq!(Server::start(&[]).websocket, None);
    let wrong =
        output(sailfish().args(["up", "--listen-ws", "yes"]).env("SAILFISH_TOKEN__SECRET", SECRET), "");
    let line = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(line, "sailfish: --listen-ws: node.listen_ws = \"yes\": want ADDRESS:PORT, auto or off\n");
    assert_eq!(wrong.status.code(), Some(2));
}

/// The frames of the server in some bytes, each with its opcode; the bytes of one that is not whole stay.
fn frames_of(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let (len, head) = match bytes[..] {
            [_, 126, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
            [_, len @ ..126, ..] => (usize::from(len), 2),
            _ => return frames,
        };
        if bytes.len() < head + len {
            return frames;
        }
        frames.push((bytes[0], bytes[head..head + len].to_vec()));
        bytes.drain(..head + len);
    }
}

/// A connection by WebSocket without a library, logged in.
fn raw(server: &Server, user: i64, is_json: bool) -> TcpStream {
    let mut stream = TcpStream::connect(server.websocket.unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let protocol = if is_json { "sailfish.v1.json" } else { "sailfish.v1.binary" };
    let request = format!(
        "GET / HTTP/1.1\r\nHost: im\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let login = token(user, 3_600);
    let (opcode, login) = if is_json {
        (0x81, json!({"code": 1001, "token": login}).to_string().into_bytes())
    } else {
        let (mut frame, token) = (Vec::new(), login.into());
        ClientFrame::Login { token }.encode(Encoding::Binary, APP, UserId(user), &mut frame);
        (0x82, frame)
    };
    let mut frame = vec![opcode, 0x80 | 126];
    frame.extend_from_slice(&(login.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0; 4]); // a mask that changes nothing
    frame.extend_from_slice(&login);
    stream.write_all(&frame).unwrap();
    stream
}

/// What a server says to a case up to its Close frame: heartbeats, the last pong, the code.
fn played(mut stream: TcpStream, case: &Case, piece: usize) -> (usize, Option<Vec<u8>>, u16) {
    for piece in case.bytes.chunks(piece) {
        if stream.write_all(piece).is_err() {
            break; // it has been refused at an earlier byte
        }
    }
    let (mut heartbeats, mut pong, mut code) = (0, None, 0);
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while code == 0 {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}: it ends without a Close", case.name);
        bytes.extend_from_slice(&buffer[..count]);
        for (first, payload) in frames_of(&mut bytes) {
            match first {
                0x81 => {
                    heartbeats += usize::from(String::from_utf8_lossy(&payload).contains("\"code\":1004"))
                }
                0x82 => heartbeats += payload.windows(6).filter(|frame| frame == b"SF\0\0\x03\xec").count(),
                0x8a => pong = Some(payload),
                0x88 => code = payload.first_chunk().map_or(1000, |code| u16::from_be_bytes(*code)),
                0x89 => {}
                first => panic!("{}: {first:x}", case.name),
            }
        }
    }
    (heartbeats, pong, code)
}

/// The list of cases against a server, each in one write and in writes of single bytes.
#[test]
fn every_case_of_the_list_comes_to_its_end() {
    let server = Server::start(&["--listen-ws", "127.0.0.1:0"]);
    let mut users = 1..;
    for case in cases::cases() {
        for piece in [usize::MAX, 1] {
            let Case { name, is_json, heartbeats, pong, code, .. } = &case;
            let heard = played(raw(&server, users.next().unwrap(), *is_json), &case, piece);
            assert_eq!(heard, (*heartbeats, pong.clone(), *code), "{name}");
        }
    }
}
