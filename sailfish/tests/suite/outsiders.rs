//! What people without any right can do to the log.

use serde_json::json;

use crate::common::stack::Api;
use crate::common::{Folder, Server, sailfish, until};

/// A backend on SQLite, with these flags.
fn backend(folder: &Folder, flags: &[&str]) -> (Server, Api) {
    let mut command = sailfish();
    command.args(["backend", "--listen=127.0.0.1:0"]).args(flags).env("XDG_STATE_HOME", &folder.0);
    let server = Server::spawn(&mut command);
    let api = Api(server.clients);
    (server, api)
}

/// Each kind of line is written once a minute, with the count, whatever causes it.
#[test]
fn a_flood_of_requests_is_a_few_lines() {
    let folder = Folder::new("flood");
    let (server, api) = backend(&folder, &["--set=backend.mock=true"]);
    for number in 0..200 {
        let forged = json!({ "order_id": number, "trade_no": "a\nERROR forged", "amount_cents": 1 });
        assert_eq!(api.ask("POST", "/payment/callback/default", "", &forged).0, 401);
        if number < 30 {
            api.post("/login/code", "", json!({ "phone": format!("+86137{number:08}") }));
        }
    }
    until("the log is written", || server.log().contains("a payment callback is refused"));
    let log = server.log();
    assert_eq!(log.matches("a payment callback is refused").count(), 1, "{log}");
    assert_eq!(log.matches("a login code").count(), 1, "{log}");
}

/// With a sender, no code stands in the log, at any level.
#[test]
fn a_login_code_is_in_no_log() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--set=backend.sms_url=http://{}/", listener.local_addr().unwrap());
    let service = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        while !request.contains("expires_ms") || !request.ends_with('}') {
            let mut bytes = [0; 4_096];
            let length = stream.read(&mut bytes).unwrap();
            request.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<serde_json::Value>(body).unwrap()["code"].as_str().unwrap().to_owned()
    });
    let folder = Folder::new("codes");
    let flags = [&url, "--set=backend.sms_secret=the SMS service's secret", "--set=log.filter=trace"];
    let (mut server, api) = backend(&folder, &flags);
    let phone = "+8613700000001";
    api.post("/login/code", "", json!({ "phone": phone }));
    let code = service.join().unwrap();
    api.post("/login", "", json!({ "phone": phone, "code": code }));
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
    until("the log is written", || server.log().contains("stopped"));
    let log = server.log();
    assert!(log.contains("/login/code") && !log.contains(phone), "the requests are there");
    let mut words = log.lines().flat_map(|line| {
        let (_, after_timestamp) = line.split_once(' ').unwrap_or_default();
        after_timestamp.split(|char: char| !char.is_ascii_digit())
    });
    assert!(!words.any(|word| word == code), "{code} is in the log");
}
