//! What broken and hostile clients get: the notice that names it, and nobody else notices.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;
use wire::RoomId;
use wire::client::{ClientFrame, Encoding, FailReason, Message, NoticeCode, Outcome, ServerFrame};

use crate::common::{Client, Server, token, until};

/// Two users who chat; nothing that others do may disturb them.
struct Bystanders {
    one: Client,
    two: Client,
    said: u32,
}

impl Bystanders {
    fn new(server: &Server) -> Self {
        Self { one: server.login(9001), two: server.login(9002), said: 0 }
    }

    fn chat(&mut self) {
        self.said += 1;
        let id = format!("m{}", self.said);
        self.one.say(6001, 9002, &id, "still here?");
        let message = self.two.message();
        assert_eq!(message.client_msg_id.as_str(), id);
        self.two.ack(message.id);
        assert_eq!(self.one.outcome(&id), Outcome::Delivered);
    }
}

fn header(magic: u16, code: i32, len: i32) -> Vec<u8> {
    let mut header = magic.to_be_bytes().to_vec();
    header.extend(code.to_be_bytes());
    header.extend(len.to_be_bytes());
    header
}

#[test]
fn each_broken_stream_gets_the_notice_that_names_it() {
    let server = Server::start(&[]);
    let mut bystanders = Bystanders::new(&server);
    let forged = {
        let good = token(1, 3_600);
        let (claims, signature) = good.rsplit_once('.').unwrap();
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        format!("{claims}.{flipped}{}", &signature[1..])
    };
    let login = |token: &str| {
        let mut bytes = header(0x5346, 1001, token.len() as i32);
        bytes.extend(token.as_bytes());
        bytes
    };
    let cases: [(&str, Vec<u8>, NoticeCode); 11] = [
        ("garbage", b"GET / HTTP/1.1\r\nHost: sailfish\r\n\r\n".to_vec(), NoticeCode::BadMagic),
        ("wrong magic", header(0x1234, 1001, 0), NoticeCode::BadMagic),
        ("unknown code", header(0x5346, 999, 0), NoticeCode::BadCode),
        ("negative length", header(0x5346, 1001, -1), NoticeCode::BadLength),
        ("huge length", header(0x5346, 1001, i32::MAX), NoticeCode::BadLength),
        ("no JSON", [header(18677, 1001, 4), b"nope".to_vec()].concat(), NoticeCode::BadBody),
        ("heartbeat before login", header(0x5346, 1004, 0), NoticeCode::LoginRequired),
        ("join before login", [header(0x5346, 1010, 8), vec![0; 8]].concat(), NoticeCode::LoginRequired),
        ("forged token", login(&forged), NoticeCode::TokenInvalid),
        ("expired token", login(&token(1, -1)), NoticeCode::TokenExpired),
        ("no token at all", login("x"), NoticeCode::TokenInvalid),
    ];
    let count = cases.len() as f64;
    for (name, bytes, notice) in cases {
        let mut client = server.connect();
        if bytes.starts_with(&18677_u16.to_be_bytes()) {
            client.encoding = Encoding::Json;
        }
        client.stream.write_all(&bytes).unwrap();
        println!("{name}");
        client.expect_farewell(notice);
        bystanders.chat();
    }
    assert_eq!(server.metric("sailfish_notices_total", ""), count, "each notice is counted");
}

#[test]
fn a_logged_in_client_is_held_to_the_rules_too() {
    let server = Server::start(&["--set", "limits.frames_per_second=10", "--set", "limits.frames_burst=20"]);
    let mut bystanders = Bystanders::new(&server);

    let mut twice = server.login(1);
    twice.send_login(&token(2, 3_600));
    twice.expect_farewell(NoticeCode::AlreadyLoggedIn);

    let mut turncoat = server.login(1);
    turncoat.encoding = Encoding::Json;
    turncoat.send(&ClientFrame::Heartbeat { echo: &[] });
    turncoat.expect_farewell(NoticeCode::BadMagic);

    let mut short = server.login(1);
    short.stream.write_all(&[header(0x5346, 1010, 7), vec![0; 7]].concat()).unwrap();
    short.expect_farewell(NoticeCode::BadBody);

    let mut flood = server.login(1);
    let heartbeat = flood.encoded(&ClientFrame::Heartbeat { echo: &[] });
    flood.stream.write_all(&heartbeat.repeat(100)).unwrap();
    let mut answered = 0;
    loop {
        match flood.next() {
            Some(ServerFrame::Heartbeat { .. }) => answered += 1,
            Some(ServerFrame::Notice { code, .. }) => {
                assert_eq!(code, NoticeCode::RateLimited);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((15..100).contains(&answered), "{answered} of a burst of 20");

    let mut greedy = server.login(2);
    for room in 1..=17 {
        greedy.send(&ClientFrame::Join { room: RoomId(room), want: None });
    }
    let answers: Vec<_> = std::iter::from_fn(|| greedy.next()).take(17).collect();
    let is_limit =
        |answer: &ServerFrame<'_>| matches!(answer, ServerFrame::Notice { code: NoticeCode::RoomLimit, .. });
    assert_eq!(answers.iter().filter(|answer| is_limit(answer)).count(), 1, "{answers:?}");
    greedy.heartbeat();
    bystanders.chat();
}

#[test]
fn a_slow_login_ends_at_the_deadline() {
    let server = Server::start(&["--set", "limits.login_deadline_ms=600"]);
    let mut bystanders = Bystanders::new(&server);
    let mut silent = server.connect();
    let mut slow = server.connect();
    let login = slow.encoded(&ClientFrame::Login { token: token(1, 3_600).into() });
    // A byte now and then: each is activity, and none is a login.
    for byte in &login[..5] {
        slow.stream.write_all(&[*byte]).unwrap();
        bystanders.chat();
        std::thread::sleep(Duration::from_millis(20));
    }
    slow.expect_farewell(NoticeCode::LoginTimeout);
    silent.expect_farewell(NoticeCode::LoginTimeout);
    bystanders.chat();
}

fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap(); // the drop that follows sends RST
}

#[test]
fn what_broken_connections_held_is_given_back() {
    let server = Server::start(&[]);
    let mut bystanders = Bystanders::new(&server);
    bystanders.chat();
    let gauges = || {
        let names = ["sailfish_connections", "sailfish_sessions", "sailfish_timers", "sailfish_outbox_bytes"];
        let more = ["sailfish_sockets", "sailfish_router_bindings", "sailfish_memberships", "sailfish_rooms"];
        names.into_iter().chain(more).map(|name| (name, server.metric(name, ""))).collect::<Vec<_>>()
    };
    let before = gauges();
    for round in 0..50 {
        // In the middle of a header, of a login, and of a frame after the login and a join.
        let mut header = server.connect();
        header.stream.write_all(&[0x53, 0x46, 0]).unwrap();
        let mut login = server.connect();
        let frame = login.encoded(&ClientFrame::Login { token: token(1, 3_600).into() });
        login.stream.write_all(&frame[..frame.len() / 2]).unwrap();
        let mut member = server.login(1 + round);
        member.join(7);
        let frame = member.encoded(&ClientFrame::Heartbeat { echo: &[1; 60] });
        member.stream.write_all(&frame[..20]).unwrap();
        for client in [&header, &login, &member] {
            reset(&client.stream);
        }
        if round % 10 == 0 {
            bystanders.chat();
        }
    }
    // One that is gone before it could be accepted counts as refused.
    let seen =
        || server.metric("sailfish_accepted_total", "") + server.metric("sailfish_accepts_refused_total", "");
    until("all have been seen", || seen() == 152.0);
    until("everything is given back", || gauges() == before);
    bystanders.chat();
}

#[test]
fn one_address_has_so_many_connections_and_no_more() {
    let server = Server::start(&["--shards", "1", "--set", "limits.address_connections_max=10"]);
    let mut bystanders = Bystanders::new(&server);
    let mut idle: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    until("all are counted", || server.metric("sailfish_connections", "") == 10.0);
    let mut resident = 0.0;
    for wave in 1..=10 {
        let mut refused: Vec<Client> = (0..1_000).map(|_| server.connect()).collect();
        refused[0].expect_farewell(NoticeCode::AddressLimit);
        refused[999].expect_farewell(NoticeCode::AddressLimit);
        drop(refused);
        let notices = || server.metric("sailfish_notices_total", "notice=\"address_limit\"");
        until("each was told", || notices() == f64::from(wave) * 1_000.0);
        until("all are gone", || server.metric("sailfish_connections", "") == 10.0);
        if wave == 2 {
            resident = server.metric("process_resident_memory_bytes", "");
        }
    }
    let grown = server.metric("process_resident_memory_bytes", "") - resident;
    assert!(grown < 4.0 * 1024.0 * 1024.0, "8,000 refused connections left {grown} bytes behind");
    bystanders.chat();
    // Another address has its own count, and a place that is given back is free again.
    let from_elsewhere = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    from_elsewhere.bind(&"127.0.0.2:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    from_elsewhere.connect(&server.clients.into()).unwrap();
    until("the other address is in", || server.metric("sailfish_connections", "") == 11.0);
    idle.pop();
    until("one is gone", || server.metric("sailfish_connections", "") == 10.0);
    server.login(1).heartbeat();
}

#[test]
fn a_full_shard_says_so() {
    let server = Server::start(&["--shards", "1", "--set", "limits.connections_max=4"]);
    let mut bystanders = Bystanders::new(&server);
    let _idle = [server.connect(), server.connect()];
    until("it is full", || server.metric("sailfish_connections", "") == 4.0);
    server.connect().expect_farewell(NoticeCode::ServerFull);
    bystanders.chat();
}

/// A reader that stopped is bounded: its lossy messages are dropped, then it is told and closed; the others
/// get everything.
#[test]
fn a_reader_that_stopped_harms_nobody() {
    let mut arguments = Vec::new();
    for setting in [
        "routes=[{biz_code=5555,to=\"room\",class=\"lossy\"},{biz_code=7001,to=\"room\",class=\"reliable\"},{biz_code=6001,to=\"user\",class=\"reliable\"}]",
        "limits.lossy_bytes_max=65536",
        "limits.reliable_bytes_max=131072",
        "limits.reliable_messages_max=64",
        "limits.frames_per_second=1000000",
        "limits.frames_burst=1000000",
        "router.pending_receiver_max=16",
        "router.pending_receiver_bytes_max=65536",
        "router.room_burst=48",
        "router.room_messages_per_second=1000000",
        "delivery.ack_timeout_ms=500",
        "delivery.tries=2",
        "engine.send_buffer_bytes=16384",
    ] {
        arguments.extend(["--set", setting]);
    }
    let server = Server::start(&arguments);
    let mut stopped = server.login(1);
    let mut reader = server.login(2);
    let mut sender = server.login(3);
    SockRef::from(&stopped.stream).set_recv_buffer_size(4096).unwrap();
    stopped.join(7);
    reader.join(7);
    sender.join(7);
    let payload = "x".repeat(16 * 1024);
    let mut outbox_bytes: f64 = 0.0;
    for round in 0..200 {
        let id = format!("m{round}");
        sender.say(5555, 7, &id, &payload);
        assert_eq!(reader.message().client_msg_id.as_str(), id);
        assert!(matches!(sender.outcome_beside_messages(&id), Outcome::Sequenced { .. }));
        if round % 20 == 0 {
            outbox_bytes = outbox_bytes.max(server.metric("sailfish_outbox_bytes", ""));
        }
    }
    assert!(server.metric("sailfish_lossy_dropped_total", "") > 0.0);
    // What is for it alone waits within its share, and its senders hear the rest at once.
    for round in 0..20 {
        sender.say(6001, 1, &format!("r{round}"), &payload);
    }
    for _ in 0..16 {
        assert_eq!(next_outcome(&mut sender), Outcome::Failed(FailReason::Busy));
    }
    // Reliable ones of its room are not dropped: once no more fit, and it acks none, the connection ends.
    let mut round = 0;
    until("the reader that stopped is closed", || {
        round += 1;
        let id = format!("s{round}");
        sender.say(7001, 7, &id, &payload);
        // On a busy machine an ack may be late, and a message comes again.
        while acked(&mut reader).client_msg_id.as_str() != id {}
        loop {
            match sender.next().expect("the sender stays") {
                ServerFrame::SendAck(ack) if ack.client_msg_id.as_str() == id => break,
                ServerFrame::Deliver(message) if message.ack_wanted => sender.ack(message.id),
                ServerFrame::SendAck(_) | ServerFrame::Deliver(_) => {}
                other => panic!("{other:?}"),
            }
        }
        outbox_bytes = outbox_bytes.max(server.metric("sailfish_outbox_bytes", ""));
        server.metric("sailfish_slow_reader_closes_total", "") == 1.0
    });
    assert!(outbox_bytes < 1e6, "{outbox_bytes} bytes wait");
    until("nothing waits", || server.metric("sailfish_outbox_bytes", "") == 0.0);
    sender.say(5555, 7, "last", "after");
    while acked(&mut reader).client_msg_id.as_str() != "last" {}
}

/// The outcome of any message, whatever messages come in between.
fn next_outcome(client: &mut Client) -> Outcome {
    loop {
        match client.next().expect("the server keeps the sender") {
            ServerFrame::SendAck(ack) => return ack.outcome,
            ServerFrame::Deliver(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The next message, acked if it wants that.
fn acked(client: &mut Client) -> Message {
    let message = client.message();
    if message.ack_wanted {
        client.ack(message.id);
    }
    message
}
