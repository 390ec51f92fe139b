//! Clients that come by TLS, with rustls as the client, and the certificates of a node.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;
use wire::client::{Business, ClientFrame, Deframer, Encoding, NoticeCode, ServerFrame};
use wire::{BizCode, RoomId, UserId};

use crate::common::{APP, Folder, PATIENCE, SECRET, Server, output, sailfish, token, until};

const ROOT: &[u8] = include_bytes!("../../../edge/tests/pem/ca.pem");

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A folder with the files of a certificate.
struct Certificate(Folder);

impl Certificate {
    /// One that is for `one.example` and in force.
    fn new() -> Self {
        let certificate = Self(Folder::new("tls"));
        certificate.put(
            include_bytes!("../../../edge/tests/pem/one.pem"),
            include_bytes!("../../../edge/tests/pem/one.key"),
        );
        certificate
    }

    fn put(&self, chain: &[u8], key: &[u8]) {
        std::fs::write(self.0.path("im.pem"), chain).unwrap();
        std::fs::write(self.0.path("im.key"), key).unwrap();
        self.set_mode(0o640);
    }

    fn set_mode(&self, mode: u32) {
        std::fs::set_permissions(self.0.path("im.key"), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn key(&self) -> String {
        let (chain, key) = (self.0.path("im.pem"), self.0.path("im.key"));
        format!("node.certificates=[{{ chain = {chain:?}, key = {key:?} }}]")
    }

    /// The certificate of the authority, as a file.
    fn ca(&self) -> String {
        std::fs::write(self.0.path("ca.pem"), ROOT).unwrap();
        self.0.path("ca.pem")
    }

    fn start(&self, arguments: &[&str]) -> Server {
        let ports = ["--listen-tls", "127.0.0.1:0", "--listen-wss", "127.0.0.1:0", "--set", &self.key()];
        Server::start(&[&ports, arguments].concat())
    }
}

/// A connection to a host, after its handshake; or why there is none.
fn connect(address: SocketAddr, host: &str) -> std::io::Result<Stream> {
    connect_as(address, host, false)
}

/// The same of a client that may have a certificate.
fn connect_as(address: SocketAddr, host: &str, is_certified: bool) -> std::io::Result<Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ROOT).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = if is_certified {
        let chain =
            CertificateDer::from_pem_slice(include_bytes!("../../../edge/tests/pem/one.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../edge/tests/pem/one.key")).unwrap();
        config.with_client_auth_cert(vec![chain], key).unwrap()
    } else {
        config.with_no_client_auth()
    };
    let config = Arc::new(config);
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A client that speaks binary.
struct Client {
    stream: Stream,
    user: UserId,
    deframer: Deframer,
    heard: VecDeque<ServerFrame<'static>>,
}

impl Client {
    fn login(address: SocketAddr, user: i64) -> Self {
        Self::on(connect(address, "one.example").unwrap(), user)
    }

    fn on(stream: Stream, user: i64) -> Self {
        let mut client =
            Self { stream, user: UserId(user), deframer: Deframer::default(), heard: VecDeque::new() };
        client.say(&ClientFrame::Login { token: token(user, 3_600).into() });
        assert!(matches!(client.hear(), Some(ServerFrame::LoggedIn { .. })));
        client
    }

    fn say(&mut self, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(Encoding::Binary, APP, self.user, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame; `None` at a clean end.
    fn hear(&mut self) -> Option<ServerFrame<'static>> {
        let mut buffer = [0; 16 * 1024];
        while self.heard.is_empty() {
            let count = self.stream.read(&mut buffer).unwrap();
            if count == 0 {
                return None;
            }
            let mut bytes = &buffer[..count];
            while let Some(frame) = self.deframer.next(&mut bytes, 1 << 20).unwrap() {
                self.heard.push_back(ServerFrame::decode(&frame).unwrap().into_owned());
            }
        }
        self.heard.pop_front()
    }

    fn is_alive(&mut self) -> bool {
        self.say(&ClientFrame::Heartbeat { echo: b"?" });
        matches!(self.hear(), Some(ServerFrame::Heartbeat { .. }))
    }
}

/// Clients of TCP, of TLS and of WebSocket over TLS talk to each other, and are told when the node goes.
fn works_on(engine: &str) {
    let certificate = Certificate::new();
    let mut server = certificate.start(&["--engine", engine]);
    let mut plain = server.login(1);
    plain.join(7);
    let mut tls = Client::login(server.port("tls"), 2);
    tls.say(&ClientFrame::Join { room: RoomId(7), want: None });
    assert!(matches!(tls.hear(), Some(ServerFrame::Joined { .. })));
    let stream = connect(server.port("wss"), "one.example").unwrap();
    let mut request = "wss://one.example/".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "sailfish.v1.json".parse().unwrap());
    let (mut web, _) = tungstenite::client::client(request, stream).unwrap();
    web.send(Message::text(json!({"code": 1001, "token": token(3, 3_600)}).to_string())).unwrap();
    web.send(Message::text(json!({"code": 1010, "target": 7}).to_string())).unwrap();
    let mut next = || loop {
        match web.read().unwrap() {
            Message::Text(text) => return serde_json::from_str::<Value>(&text).unwrap(),
            Message::Close(close) => return json!({"close": u16::from(close.unwrap().code)}),
            _ => {}
        }
    };
    let codes = [next()["code"].clone(), next()["code"].clone()];
    assert!(codes.contains(&1001.into()) && codes.contains(&1010.into()), "{codes:?}");

    let long = "long ".repeat(600);
    plain.say(5555, 7, "m1", &long);
    let Some(ServerFrame::Deliver(message)) = tls.hear() else { panic!("a message") };
    assert_eq!(message.payload, long.as_bytes());
    assert_eq!(next()["data"], long.as_str());
    tls.say(&ClientFrame::Business(Business {
        biz_code: BizCode(5555),
        target: 7,
        client_msg_id: "m2".into(),
        payload: b"from TLS"[..].into(),
    }));
    assert_eq!(next()["data"], "from TLS");

    server.signal(Signal::TERM);
    let close = std::iter::repeat_with(&mut next).find_map(|said| said["close"].as_u64());
    assert_eq!(close, Some(4002), "draining, after the notice");
    let farewell = std::iter::from_fn(|| tls.hear()).last();
    assert!(matches!(farewell, Some(ServerFrame::Notice { code: NoticeCode::Draining, .. })), "{farewell:?}");
    drop((plain, tls, web));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn tls_works_on_uring() {
    works_on("uring");
}

#[test]
fn tls_works_on_monoio() {
    works_on("monoio");
}

#[test]
fn tls_works_on_epoll() {
    works_on("epoll");
}

#[cfg(feature = "glommio")]
#[test]
fn tls_works_on_glommio() {
    works_on("glommio");
}

#[test]
fn certificates_are_replaced_without_dropping_a_connection() {
    let certificate = Certificate::new();
    let server = certificate.start(&[]);
    let address = server.port("tls");
    let mut before = Client::login(address, 1);
    assert!(connect(address, "two.example").is_err(), "it has no such certificate yet");

    certificate.put(
        include_bytes!("../../../edge/tests/pem/two.pem"),
        include_bytes!("../../../edge/tests/pem/two.key"),
    );
    server.signal(Signal::HUP);
    until("the new one is taken", || connect(address, "two.example").is_ok());
    assert!(connect(address, "one.example").is_err(), "the old one is gone");
    assert!(before.is_alive());

    certificate.put(
        include_bytes!("../../../edge/tests/pem/expired.pem"),
        include_bytes!("../../../edge/tests/pem/one.key"),
    );
    server.signal(Signal::HUP);
    until("the log says why", || server.log().contains("im.pem: a certificate that expired"));
    assert!(server.log().contains("reload refused"), "{}", server.log());
    assert!(connect(address, "two.example").is_ok(), "the one before stays");
    assert!(before.is_alive());
}

#[test]
fn certificates_whose_files_change_are_taken_without_a_signal() {
    let certificate = Certificate::new();
    let server = certificate.start(&[]);
    let address = server.port("tls");
    let mut before = Client::login(address, 1);
    certificate.put(
        include_bytes!("../../../edge/tests/pem/expired.pem"),
        include_bytes!("../../../edge/tests/pem/one.key"),
    );
    until("the log says why", || server.log().contains("im.pem: a certificate that expired"));
    assert!(connect(address, "one.example").is_ok(), "the one before stays");
    certificate.put(
        include_bytes!("../../../edge/tests/pem/two.pem"),
        include_bytes!("../../../edge/tests/pem/two.key"),
    );
    until("the new one is taken", || connect(address, "two.example").is_ok());
    assert!(before.is_alive());
    assert_eq!(server.log().matches("those before stay").count(), 1, "said once: {}", server.log());
}

#[test]
fn certificates_that_are_wrong_are_refused_at_the_start() {
    let certificate = Certificate::new();
    let refused = || {
        let arguments =
            ["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"];
        let mut command = sailfish();
        command.args(arguments).args(["--set", &certificate.key()]).env("SAILFISH_TOKEN__SECRET", SECRET);
        let done = output(&mut command, "");
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).unwrap()
    };
    let one = (
        include_bytes!("../../../edge/tests/pem/one.pem"),
        include_bytes!("../../../edge/tests/pem/one.key"),
    );
    certificate.put(include_bytes!("../../../edge/tests/pem/expired.pem"), one.1);
    let line = refused();
    assert!(
        line.starts_with("sailfish: node.certificates: ")
            && line.contains("im.pem: a certificate that expired"),
        "{line}"
    );
    certificate.put(one.0, include_bytes!("../../../edge/tests/pem/two.key"));
    let line = refused();
    assert!(
        line.contains("im.key: not the key of the certificate in ") && line.lines().count() == 1,
        "{line}"
    );
    certificate.put(b"", one.1);
    assert!(refused().contains("im.pem: no certificate in PEM"));
    certificate.put(one.0, one.1);
    certificate.set_mode(0o644);
    assert!(refused().contains("im.key: every user of this machine may read or write it"));
    std::fs::remove_file(certificate.0.path("im.key")).unwrap();
    assert!(refused().contains("im.key: No such file"));
}

#[test]
fn a_port_with_tls_wants_a_certificate() {
    for (flag, value, wanted) in [
        (
            "--listen-tls",
            "127.0.0.1:0",
            "node.listen_tls: want a certificate and its key in node.certificates",
        ),
        ("--listen-wss", "yes", "node.listen_wss = \"yes\": want ADDRESS:PORT or off"),
    ] {
        let done = output(sailfish().args(["up", flag, value]).env("SAILFISH_TOKEN__SECRET", SECRET), "");
        let line = String::from_utf8(done.stderr).unwrap();
        assert_eq!((line, done.status.code()), (format!("sailfish: {flag}: {wanted}\n"), Some(2)));
    }
}

/// Each gets one answer that it can read, and the log says it once.
#[test]
fn who_comes_to_the_wrong_port_is_told() {
    let certificate = Certificate::new();
    let server = certificate.start(&["--listen-ws", "127.0.0.1:0"]);
    for name in ["tls", "wss"] {
        let mut plain = TcpStream::connect(server.port(name)).unwrap();
        plain.set_read_timeout(Some(PATIENCE)).unwrap();
        plain.write_all(b"SF\0\0\x03\xe9\0\0\0\0").unwrap();
        let mut answer = Vec::new();
        let ended = plain.read_to_end(&mut answer);
        assert!(ended.is_ok_and(|_| answer == [21, 3, 3, 0, 2, 2, 10]), "an alert: {answer:?}");
    }
    for address in [server.clients, server.port("websocket")] {
        let error = connect(address, "one.example").map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "no TLS: {error}");
    }
    assert_eq!(server.metric("sailfish_edge_refusals_total", "reason=\"tls_handshake\""), 2.0);
    assert_eq!(server.metric("sailfish_notices_total", "notice=\"bad_magic\""), 1.0);
    until("the log says so", || server.log().contains("connections were refused before their first frame"));
}

/// `load` and `chat`, the Rust client under it, reach a node on each of its ports.
#[test]
fn load_and_chat_come_by_tls_and_websocket() {
    let certificate = Certificate::new();
    let server = certificate.start(&["--listen-ws", "127.0.0.1:0"]);
    let (ca, plain) = (certificate.ca(), server.clients.to_string());
    let targets = [
        format!("ws://{}", server.port("websocket")),
        format!("tls://{}", server.port("tls")),
        format!("wss://{}", server.port("wss")),
    ];
    for target in &targets {
        let (code, text) = run(&[
            "load",
            "chat",
            "--connections=20",
            "--rate=200",
            "--seconds=1",
            "--target",
            target,
            "--ca",
            &ca,
        ]);
        assert_eq!(code, Some(0), "{target}: {text}");
        let mut reader = server.login(1);
        reader.join(7);
        let mut command = sailfish();
        command.args(["chat", "--user", "2", "--room", "7", "--target", target, "--ca", &ca]);
        let done = output(command.env("SAILFISH_TOKEN__SECRET", SECRET), &format!("by {target}\n"));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && said.contains("sequenced #"), "{target}: {said}");
        assert_eq!(reader.message().payload, format!("by {target}"));
    }
    let all = [plain, targets.join(",")].join(",");
    let (code, text) = run(&[
        "load",
        "room",
        "--encoding=json",
        "--connections=40",
        "--processes=2",
        "--seconds=1",
        "--target",
        &all,
        "--ca",
        &ca,
    ]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("wss://127.0.0.1:"), "{text}");
    let (code, text) = run(&["load", "storm", "--connections=50", "--target", &targets[2], "--insecure"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn load_and_chat_say_why_they_do_not_trust_a_server() {
    let certificate = Certificate::new();
    let server = certificate.start(&["--listen-ws", "127.0.0.1:0"]);
    let (tls, ca) = (format!("tls://{}", server.port("tls")), certificate.ca());
    let load = |target: &str, more: &[&str]| {
        run(&[&["load", "chat", "--connections=4", "--seconds=1", "--target", target], more].concat())
    };
    let (code, text) = load(&tls, &[]);
    assert!(code == Some(1) && text.contains("certificate_unknown_issuer x 4 (nobody that"), "{text}");
    certificate.put(
        include_bytes!("../../../edge/tests/pem/two.pem"),
        include_bytes!("../../../edge/tests/pem/two.key"),
    );
    server.signal(Signal::HUP);
    until("the new one is taken", || connect(server.port("tls"), "two.example").is_ok());
    let (code, text) = load(&tls, &["--ca", &ca]);
    assert!(code == Some(1) && text.contains("certificate_other_host x 4"), "{text}");
    let (code, text) = load(&server.port("tls").to_string(), &[]);
    assert!(code == Some(1) && text.contains("tls_port x 4 (a port with TLS"), "{text}");
    let (code, text) = load(&format!("ws://{}", server.clients), &[]);
    assert!(code == Some(1) && text.contains("websocket_no_http x 4"), "{text}");
    let (code, text) = run(&["chat", "--user=2", "--room=7", "--target", &tls, "--ca", &ca]);
    assert!(code == Some(2) && text.contains("certificate not valid for name"), "{text}");
    assert_eq!(run(&["chat", "--user=2", "--room=7", "--target", &tls, "--ca", "/nowhere"]).0, Some(2));
}

/// Runs the binary: its exit code, and what it printed.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let done = output(sailfish().args(arguments).env("SAILFISH_TOKEN__SECRET", SECRET), "");
    let text = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn clients_may_be_asked_for_certificates() {
    let certificate = Certificate::new();
    let ca = format!("node.client_ca={}", certificate.ca());
    let server = certificate.start(&["--set", &ca]);
    let address = server.port("tls");
    let refused = |is_certified| {
        // With TLS 1.3 a client hears of it after its own part of the handshake. One that is taken hears, in
        // the end, that it should log in.
        let stream = connect_as(address, "one.example", is_certified);
        let heard = stream.and_then(|mut stream| stream.read(&mut [0]));
        heard.map_or_else(|refused| refused.to_string(), |_| "taken".to_owned())
    };
    assert!(refused(false).contains("CertificateRequired"), "{}", refused(false));
    let mut certified = Client::on(connect_as(address, "one.example", true).unwrap(), 1);
    assert!(certified.is_alive());
    // Another authority takes the place of the first.
    std::fs::write(certificate.0.path("ca.pem"), include_bytes!("../../../edge/tests/pem/two.pem")).unwrap();
    server.signal(Signal::HUP);
    until("the new one is taken", || {
        connect_as(address, "one.example", true).is_err() || refused(true).contains("UnknownCA")
    });
    assert!(certified.is_alive());
    assert!(server.metric("sailfish_edge_refusals_total", "reason=\"tls_client\"") >= 2.0);

    let optional = certificate.start(&["--set", &ca, "--set", "node.client_certificate=optional"]);
    assert!(Client::login(optional.port("tls"), 1).is_alive());
    let wrong = output(
        sailfish().args(["up", "--set", "node.client_certificate=yes"]).env("SAILFISH_TOKEN__SECRET", SECRET),
        "",
    );
    let line = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(2) && line.contains("want required or optional"), "{line}");
}
