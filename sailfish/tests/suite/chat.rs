//! Clients that talk with each other, over real sockets, on a node of two shards.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::process::Signal;
use testbed::free_port;
use wire::client::{Encoding, FailReason, Message, Outcome};
use wire::{BizCode, RoomId, UserId};

use crate::common::java::Java;
use crate::common::proxy::Proxy;
use crate::common::terminal::Terminal;
use crate::common::{Client, SECRET, Server, expect_one_order, output, sailfish, signal, token, until};

/// Enough that all of them on one shard is no matter of chance: 2 in 2^16.
const CLIENTS: i64 = 16;

fn payload(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

fn on_two_shards(server: &Server) -> Vec<Client> {
    let clients = (0..CLIENTS)
        .map(|at| server.login_as(100 + at, if at % 2 == 0 { Encoding::Binary } else { Encoding::Json }));
    let clients: Vec<_> = clients.collect();
    for shard in ["shard=\"0\"", "shard=\"1\""] {
        assert!(server.metric("sailfish_sessions", shard) >= 1.0, "nobody is on {shard}");
    }
    clients
}

#[test]
fn users_on_different_shards_and_encodings_reach_each_other() {
    let server = Server::start(&[]);
    let mut clients = on_two_shards(&server);
    for from in 0..clients.len() {
        let to = (from + 1) % clients.len();
        let receiver = clients[to].user;
        clients[from].say(6001, receiver.0, "m1", "are you there?");
        let message = clients[to].message();
        assert_eq!((message.sender, payload(&message)), (clients[from].user, "are you there?"));
        assert!(message.ack_wanted && message.room.is_none());
        assert_eq!(message.client_msg_id.as_str(), "m1");
        clients[to].ack(message.id);
        assert_eq!(clients[from].outcome("m1"), Outcome::Delivered);
    }
}

#[test]
fn a_room_has_one_order_for_all_members() {
    let server = Server::start(&[]);
    let mut clients = on_two_shards(&server);
    clients.iter_mut().for_each(|client| client.join(7));
    const EACH: usize = 3;
    for round in 0..EACH {
        for client in &mut clients {
            client.say(5555, 7, &format!("m{round}"), "hi all");
        }
    }
    let count = EACH * clients.len();
    expect_one_order(&mut clients, count, EACH);
}

#[test]
fn a_sender_is_told_why_a_message_fails() {
    let server = Server::start(&["--set", "delivery.ack_timeout_ms=50", "--set", "delivery.tries=2"]);
    let mut sender = server.login(1);
    for (biz_code, target, reason) in [
        (6001, 404, FailReason::Offline),
        (5555, 7, FailReason::NotMember),
        (4711, 1, FailReason::NoRoute),
        (5558, 0, FailReason::NoRoute),
        // What only the backend may say to clients.
        (5556, 7, FailReason::NoRoute),
        (5557, 2, FailReason::NoRoute),
        (5561, 2, FailReason::NoRoute),
    ] {
        sender.say(biz_code, target, "m1", "");
        assert_eq!(sender.outcome("m1"), Outcome::Failed(reason), "business code {biz_code}");
    }
    // A receiver that never acks sees the same message twice, by the same id.
    let mut receiver = server.login(2);
    sender.say(6001, 2, "m2", "ack me");
    let (first, second) = (receiver.message(), receiver.message());
    assert_eq!(first, second);
    assert_eq!(sender.outcome("m2"), Outcome::Failed(FailReason::Unacked));
    assert_eq!(server.metric("sailfish_retries_total", ""), 1.0);
    assert_eq!(server.metric("sailfish_bridge_undelivered_total", "reason=\"unacked\""), 1.0);
    until("losses are logged", || server.log().contains("messages for the backend were dropped"));
}

/// A client that says what only the backend says is refused, and nobody gets it.
#[test]
fn what_only_the_backend_says_no_client_says() {
    let server = Server::start(&[]);
    let (mut sender, mut receiver) = (server.login(1), server.login(2));
    sender.join(7);
    receiver.join(7);
    for biz_code in [5556, 5557, 5558, 5561, 5562] {
        for target in [7, 2] {
            sender.say(biz_code, target, "m", "{}");
            // A 5558 is a gift for the backend, in a room that its sender is in.
            let is_elsewhere = (biz_code, target) == (5558, 2);
            let reason = if is_elsewhere { FailReason::NotMember } else { FailReason::NoRoute };
            assert_eq!(sender.outcome("m"), Outcome::Failed(reason), "{biz_code} to {target}");
        }
    }
    sender.say(5555, 7, "m", "hi");
    let first = receiver.message();
    assert_eq!((first.biz_code, &first.payload[..]), (BizCode(5555), &b"hi"[..]), "nothing came before");
}

#[test]
fn a_repeated_message_is_delivered_once() {
    let server = Server::start(&[]);
    let (mut sender, mut receiver) = (server.login(1), server.login(2));
    sender.say(6001, 2, "m1", "once");
    sender.say(6001, 2, "m1", "once");
    let message = receiver.message();
    receiver.ack(message.id);
    assert_eq!(sender.outcome("m1"), Outcome::Delivered);
    drop(sender);
    let mut sender = server.login(1);
    sender.say(6001, 2, "m1", "once");
    assert_eq!(sender.outcome("m1"), Outcome::Delivered);
    sender.say(6001, 2, "m2", "twice");
    assert_eq!(payload(&receiver.message()), "twice", "no repeat of the first came before");
}

#[test]
fn a_newer_login_kicks_the_older_session_and_stays_reachable() {
    let server = Server::start(&[]);
    let mut older = server.login(1);
    let mut newer = server.login(1);
    older.expect_farewell(wire::client::NoticeCode::Kicked);
    drop(older);
    until("the older connection is gone", || server.metric("sailfish_connections", "") == 1.0);
    let mut sender = server.login(2);
    sender.say(6001, 1, "m1", "hello");
    let message = newer.message();
    newer.ack(message.id);
    assert_eq!(sender.outcome("m1"), Outcome::Delivered);
}

/// The very bytes that clients of the Java platform write and read.
#[test]
fn clients_of_the_java_platform_work_unchanged() {
    let server = Server::start(&[]);
    let mut other = server.login(2);
    other.join(7);
    let mut java = Java(server.connect().stream);
    java.write(1001, &format!(r#"{{"appId":1,"userId":1,"token":"{}","data":null}}"#, token(1, 3_600)));
    java.expect(1001, r#"{"appId":1,"userId":1,"data":"true","heartbeatMs":30000}"#);
    java.write(1004, r#"{"appId":1,"userId":1}"#);
    java.expect(1004, r#"{"appId":1,"userId":1}"#);
    java.write(1010, r#"{"appId":1,"userId":1,"data":"{\"roomId\":7}"}"#);
    assert!(java.read(1010).contains(r#"\"roomId\":7"#));

    // Room chat, with the sender forged: what counts is the session.
    let chat = r#"{"appId":1,"userId":666,"bizCode":5555,"msgId":"9f0c","data":"{\"roomId\":7,\"content\":\"hi\"}"}"#;
    java.write(1003, chat);
    let message = other.message();
    assert_eq!((message.sender, message.room), (UserId(1), Some(RoomId(7))));
    assert_eq!(payload(&message), r#"{"roomId":7,"content":"hi"}"#);
    let mut frames = [java.read_any(), java.read_any()];
    frames.sort();
    let own = r#"{"appId":1,"userId":1,"bizCode":5555,"msgId":""#;
    assert!(frames[0].0 == 1003 && frames[0].1.starts_with(own), "{frames:?}");
    assert!(frames[1].0 == 1006 && frames[1].1.contains("sequenced"), "{frames:?}");

    // A message for it, acked by the id as a decimal string.
    other.say(6001, 1, "m1", "hello");
    let delivered = java.read(1003);
    let id = delivered.split(r#""msgId":""#).nth(1).unwrap().split('"').next().unwrap();
    let wanted = format!(
        r#"{{"appId":1,"userId":2,"bizCode":6001,"msgId":"{id}","data":"hello","clientMsgId":"m1","ack":true}}"#
    );
    assert_eq!(delivered, wanted);
    java.write(1005, &format!(r#"{{"appId":1,"userId":1,"msgId":"{id}"}}"#));
    assert_eq!(other.outcome("m1"), Outcome::Delivered);
    java.write(1002, r#"{"appId":1,"userId":1}"#);
    java.expect(1002, r#"{"appId":1,"userId":1}"#);
    assert_eq!(java.0.read(&mut [0]).unwrap(), 0, "the server closes after a logout");
}

/// `sailfish chat` with stdin from a pipe: sends, waits for the outcome, and its exit code says how it went.
#[test]
fn the_terminal_client_tells_what_became_of_its_messages() {
    let server = Server::start(&[]);
    let target = server.clients.to_string();
    let run = |more: &[&str], input: &str| {
        let mut command = sailfish();
        command.args(["chat", "--user", "1", "--target", &target]).args(more);
        command.env("SAILFISH_TOKEN__SECRET", SECRET);
        let output = output(&mut command, input);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for encoding in ["binary", "json"] {
        let mut receiver = server.login(2);
        receiver.join(7);
        let reader = std::thread::spawn(move || {
            // Messages to different targets have no order among them.
            let mut both = [receiver.message(), receiver.message()];
            both.sort_by_key(|message| message.room.is_none());
            receiver.ack(both[1].id);
            both.map(|message| payload(&message).to_owned())
        });
        let (code, said) = run(&["--room", "7", "--encoding", encoding], "to all\n/to 2\nto you\n");
        assert_eq!(reader.join().unwrap(), ["to all", "to you"]);
        assert!(said.contains("sequenced #") && said.contains(": to all"), "{said}");
        assert!(said.contains("delivered: to you"), "{said}");
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = run(&["--to", "404"], "anybody?\n");
    assert!(code == Some(1) && said.contains("failed (offline): anybody?"), "{said}");
    let forged = format!("{}forged", token(1, 60));
    let (code, said) = run(&["--to", "2", "--token", &forged], "hi\n");
    assert!(code == Some(1) && said.contains("notice token_invalid"), "{said}");
    for (given, told) in
        [(token(3, 60), "it is user 3's, and --user is 1"), ("0a1b".into(), "POST /im/token")]
    {
        let (code, text) = self::said(server.clients, &["--to", "2", "--token", &given], b"hi\n");
        assert!(code == Some(2) && text.contains(told), "{text}");
    }
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--target", &target]).env("SAILFISH_CHAT_TOKEN", token(3, 60));
    let line = String::from_utf8(output(&mut command, "").stderr).unwrap();
    assert!(line.starts_with("sailfish: SAILFISH_CHAT_TOKEN: it is user 3's"), "{line}");
}

/// A `chat` of user 1 that is told where the server is, and what it says, with its code.
fn said(server: SocketAddr, more: &[&str], input: &[u8]) -> (Option<i32>, String) {
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--target", &server.to_string()]);
    command.args(["--set", &format!("token.secret={SECRET}")]).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // it may have ended
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A revocation is of tokens that were made until then: those that the program makes later are good.
#[test]
fn a_fresh_token_is_good_after_a_revocation() {
    let server = Server::start(&[]);
    let done = output(sailfish().args(["ctl", "revoke", "1", "--admin", &server.admin.to_string()]), "");
    assert!(done.status.success(), "{done:?}");
    let (code, said) = said(server.clients, &["--room", "7"], b"hi\n");
    assert!(code == Some(0) && said.contains("logged in"), "{said}");
}

/// What other users write is text on the terminal, whatever they write.
#[test]
fn what_others_write_is_printed_as_text() {
    let server = Server::start(&[]);
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--room", "7", "--target", &server.clients.to_string()]);
    command.args(["--set", &format!("token.secret={SECRET}")]);
    let mut chat = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    until("it is in its room", || server.metric("sailfish_rooms", "") == 1.0);
    let mut other = server.login(2);
    other.join(7);
    let nasty = "\x1b]0;owned\x07\x1b[2J\r\n[room 7 #1] 3: forged\u{9b}31m\u{202e}end";
    for (number, payload) in [nasty.as_bytes(), b"\xff\x9b31m end"].into_iter().enumerate() {
        other.send(&wire::client::ClientFrame::Business(wire::client::Business {
            biz_code: BizCode(5555),
            target: 7,
            client_msg_id: format!("m{number}").into(),
            payload: payload.into(),
        }));
    }
    let mut lines = BufReader::new(chat.stdout.take().unwrap()).lines().map(Result::unwrap);
    let shown: Vec<String> = lines.by_ref().filter(|line| line.contains("] 2: ")).take(2).collect();
    let wanted = r"2: \u{1b}]0;owned\u{7}\u{1b}[2J\r\n[room 7 #1] 3: forged\u{9b}31m\u{202e}end";
    assert!(shown[0].ends_with(wanted), "{shown:?}");
    assert!(shown[1].ends_with("2: \u{fffd}\u{fffd}31m end"), "{shown:?}");
    drop(chat.stdin.take());
    assert!(chat.wait().unwrap().success());
}

#[test]
fn a_line_that_is_no_text_is_told_and_those_after_it_are_sent() {
    let server = Server::start(&[]);
    let mut receiver = server.login(2);
    let acking = std::thread::spawn(move || {
        let [one, three] = [receiver.message(), receiver.message()];
        receiver.ack(one.id);
        receiver.ack(three.id);
        [one, three].map(|message| payload(&message).to_owned())
    });
    let (code, said) = said(server.clients, &["--to", "2"], b"one\n\xff\xfe\nthree\n");
    assert_eq!(acking.join().unwrap(), ["one", "three"]);
    assert!(
        code == Some(1) && said.contains("line 2 is no UTF-8") && said.contains("delivered: three"),
        "{said}"
    );
}

/// As on a terminal, also while the pipe is open.
#[test]
fn a_script_may_quit() {
    let server = Server::start(&[]);
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--room", "7", "--target", &server.clients.to_string()]);
    command.env("SAILFISH_TOKEN__SECRET", SECRET).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut chat = command.spawn().unwrap();
    let mut stdin = chat.stdin.take().unwrap();
    stdin.write_all(b"hi\n/quit\nnever said\n").unwrap();
    let mut said = String::new();
    chat.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(chat.wait().unwrap().success(), "{said}");
    assert!(said.contains(": hi") && !said.contains("never said"), "{said}");
    drop(stdin);
}

/// A long file is sent at a pace that a server takes.
#[test]
fn a_long_script_is_not_cut_off() {
    const LINES: usize = 3_000;
    let server = Server::start(&[]);
    let lines: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    let (code, said) = said(server.clients, &["--room", "7"], lines.as_bytes());
    assert_eq!((code, said.matches("sequenced #").count()), (Some(0), LINES));
    assert_eq!(said.matches("rate_limited").count(), 0);
}

/// A pipe may be faster than any server. What it writes waits in the pipe.
#[test]
fn a_script_waits_while_nothing_has_its_outcome() {
    const LINES_MAX: u64 = 2_000;
    let server = Server::start(&[]);
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--to", "2", "--target", &server.clients.to_string()]);
    command.env("SAILFISH_TOKEN__SECRET", SECRET).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut chat = command.spawn().unwrap();
    let mut said = BufReader::new(chat.stdout.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().starts_with("logged in"));
    server.signal(Signal::STOP);
    let (mut stdin, taken) = (chat.stdin.take().unwrap(), Arc::new(AtomicU64::new(0)));
    let writer = std::thread::spawn({
        let taken = taken.clone();
        move || {
            while taken.fetch_add(1, Relaxed) < LINES_MAX
                && stdin.write_all(&[[b'x'; 999].as_slice(), b"\n"].concat()).is_ok()
            {}
        }
    });
    let mut before = 0;
    until("no more is taken", || {
        std::thread::sleep(Duration::from_millis(500));
        let now = taken.load(Relaxed);
        now > 100 && now == std::mem::replace(&mut before, now)
    });
    server.signal(Signal::CONT);
    chat.kill().unwrap();
    chat.wait().unwrap();
    writer.join().unwrap();
    assert!(before < LINES_MAX, "{before} lines wait");
}

#[test]
fn lines_are_about_what_the_user_says() {
    let server = Server::start(&["--set", r#"routes=[{ biz_code = 77, to = "user", class = "reliable" }]"#]);
    let mut receiver = server.login(2);
    let reading = std::thread::spawn(move || {
        let message = receiver.message();
        receiver.ack(message.id);
        message.biz_code.0
    });
    let (code, said) = said(server.clients, &["--to", "2", "--biz-code", "77"], b"other\n");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(reading.join().unwrap(), 77);
}

/// Where no gateway is, there is nothing to wait for: the code is 2, and the line says what is there.
#[test]
fn a_target_without_a_gateway_is_2_and_a_sentence() {
    let server = Server::start(&[]);
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    for (target, part) in
        [(server.admin, "it answers \"HTTP/1.1 400 Bad Request\""), (nobody, "Connection refused")]
    {
        let (code, said) = said(target, &["--to", "2"], b"hi\n");
        let last = said.lines().last().unwrap();
        assert_eq!(code, Some(2), "{said}");
        let begin = format!("sailfish: --target {target}: no gateway of Sailfish is there: ");
        assert!(last.starts_with(&begin) && last.contains(part), "{said}");
    }
}

/// A gateway that has no router is there, and says that nothing answers the login. Of a server that only
/// takes the connection nobody knows what it is.
#[test]
fn a_login_that_is_not_answered_is_1_and_a_sentence() {
    let server = Server::spawn(sailfish().args([
        "gateway",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        &format!("--routers=127.0.0.1:{}", free_port()),
        "--set=limits.login_deadline_ms=500",
        &format!("--set=token.secret={SECRET}"),
        &format!("--set=cluster.secret={SECRET}"),
    ]));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (target, parts) in [
        (server.clients, ["notice login_timeout", "may have no router yet"]),
        (silent.local_addr().unwrap(), ["does not answer the login", "or another server"]),
    ] {
        let (code, said) = said(target, &["--to", "2"], b"hi\n");
        assert!(code == Some(1) && parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

/// On a terminal, what comes stands above the line that is being typed, which stays whole.
#[test]
fn a_message_does_not_break_the_line_being_typed() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::open();
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--to", "2", "--target", &server.clients.to_string()]);
    command.args(["--set", &format!("token.secret={SECRET}")]);
    let mut chat = terminal.run(&mut command);
    let screen = terminal.watch();
    let shows = |text: &str| screen.lock().unwrap().contains(text);
    until("it is logged in", || shows("logged in") && shows("> "));
    terminal.press("half a li");
    until("what is typed is shown", || shows("half a li"));
    let mut other = server.login(2);
    other.say(6001, 1, "m1", "hello in between");
    until("what comes is shown", || shows("hello in between"));
    until("and the line again", || {
        let screen = screen.lock().unwrap();
        screen.rsplit("hello in between").next().unwrap().contains("half a li")
    });
    assert_eq!(other.outcome("m1"), Outcome::Delivered);
    terminal.press("nd\x7fne\r"); // with a slip of the finger, taken back
    let message = other.message();
    assert_eq!(payload(&message), "half a linne");
    other.ack(message.id);
    until("the outcome is shown", || shows("delivered: half a linne"));
    terminal.press("\x04");
    assert!(chat.wait().unwrap().success());
}

/// Who ends it finds the terminal as it was.
#[test]
fn the_end_leaves_the_terminal_as_it_was() {
    let server = Server::start(&[]);
    let terminal = Terminal::open();
    let before = terminal.modes();
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--to", "2", "--target", &server.clients.to_string()]);
    command.args(["--set", &format!("token.secret={SECRET}")]);
    let mut chat = terminal.run(&mut command);
    until("keys come one by one", || terminal.modes() != before);
    signal(&chat, Signal::TERM);
    assert_eq!((chat.wait().unwrap().code(), terminal.modes()), (Some(143), before));
}

/// The connection breaks while a message has no outcome: the client connects again and repeats it, and the
/// receiver gets it once.
#[test]
fn the_terminal_client_outlives_its_connection() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.clients);
    let mut receiver = server.login(2);
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--to", "2", "--target", &proxy.address.to_string()]);
    command.args(["--set", &format!("token.secret={SECRET}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut chat = command.spawn().unwrap();
    let mut stdin = chat.stdin.take().unwrap();
    stdin.write_all(b"will it come?\n").unwrap();
    let message = receiver.message();
    proxy.cut();
    let repeats = || server.metric("sailfish_router_repeats_total", "");
    until("the message is repeated", || repeats() == 1.0);
    receiver.ack(message.id);
    drop(stdin);
    let mut said = String::new();
    chat.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(chat.wait().unwrap().success(), "{said}");
    assert!(said.contains("connection lost") && said.contains("delivered: will it come?"), "{said}");
    receiver.heartbeat();
}

/// One node goes and names two others, of which one is not there.
#[test]
fn the_terminal_client_goes_where_a_draining_node_sends_it() {
    let other = Server::start(&[]);
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let alternatives = format!("drain.alternatives=[\"{nobody}\", \"{}\"]", other.clients);
    let mut server = Server::start(&["--set", &alternatives, "--set", "drain.spread_ms=0"]);
    let mut command = sailfish();
    command.args(["chat", "--user", "1", "--to", "2", "--target", &server.clients.to_string()]);
    command.args(["--set", &format!("token.secret={SECRET}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut chat = command.spawn().unwrap();
    until("it is logged in", || server.metric("sailfish_sessions", "") == 1.0);
    server.signal(Signal::TERM);
    until("it is on the other node", || other.metric("sailfish_sessions", "") == 1.0);
    assert_eq!(server.wait().code(), Some(0));
    drop(chat.stdin.take());
    let mut said = String::new();
    chat.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(chat.wait().unwrap().success(), "{said}");
    assert!(said.contains(&format!("logged in to {} as user 1", other.clients)), "{said}");
}
