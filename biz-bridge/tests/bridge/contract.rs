//! docs/BACKEND.md by its word: the example behind a real bridge, and the commands as they stand there.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use biz_bridge::Mode;
use serde_json::{Value, json};
use testbed::free_port;
use wire::client::FailReason;

use crate::backend::{Backend, Reply};
use crate::world::{SECRET, config, id, item, online, request, start, undelivered, until};

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// docs/examples/backend.py, as a program.
struct Example {
    child: Child,
    port: u16,
    stdout: BufReader<ChildStdout>,
}

impl Example {
    fn start(control: &str) -> Self {
        let port = free_port();
        let mut child = Command::new("python3")
            .arg(docs().join("examples/backend.py"))
            .args([&format!("127.0.0.1:{port}"), control])
            .env("BRIDGE_SECRET", str::from_utf8(SECRET).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start python3 ({error}): install it"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut example = Self { child, port, stdout };
        assert_eq!(example.line(), "ready");
        example
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// An event that it has done.
    fn event(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

#[test]
fn the_example_takes_events_and_echoes_requests() {
    let pushes = Arc::new(Mutex::new(Vec::new()));
    let noting = pushes.clone();
    // The control API answers in the third try.
    let control = Backend::start(move |call| {
        assert_eq!(call.path, "/v1/push");
        if call.number < 1 {
            return Reply::Json(503, json!({ "code": "no_router", "message": "no router is linked" }));
        }
        noting.lock().unwrap().extend(call.json()["pushes"].as_array().unwrap().clone());
        Reply::Json(200, json!({ "results": [] }))
    });
    let mut example = Example::start(&control.url());
    let (bridge, ledger) = start(config(Mode::Http { url: example.url(), secret: SECRET.to_vec() }));
    let text = "\0\r\n\u{1f381} '; DROP TABLE users; --";
    let events =
        [request(5, text.as_bytes()), request(5, &[0xff, 0]), online(5), undelivered(5, FailReason::Offline)];
    for (seq, event) in (1..).zip(events) {
        bridge.inbox().push(item(seq, event));
    }
    ledger.wait_for(4);
    ledger.assert_all_ok(1..=4);
    let done: Vec<Value> = (0..4).map(|_| example.event()).collect();
    assert_eq!(
        done.iter().map(|event| event["id"].clone()).collect::<Vec<_>>(),
        (1..=4).map(id).collect::<Vec<_>>()
    );
    assert_eq!((&done[0]["data"], &done[1]["data_base64"]), (&json!(text), &json!("/wA=")));
    until("both are echoed", || pushes.lock().unwrap().len() == 2);
    let pushes = pushes.lock().unwrap();
    assert_eq!((&pushes[0]["user"], &pushes[1]["data_base64"]), (&json!(5), &json!("/wA=")));
    assert_ne!(pushes[0]["client_msg_id"], pushes[1]["client_msg_id"]);
}

#[test]
fn the_example_refuses_what_is_not_signed() {
    let example = Example::start("http://127.0.0.1:9");
    let (bridge, ledger) = start(config(Mode::Http { url: example.url(), secret: b"another".to_vec() }));
    bridge.inbox().push(item(1, online(1)));
    until("it fails", || bridge.metrics().batches_failed.get() > 2);
    assert_eq!(ledger.count(), 0);
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let mut example = Example::start("http://127.0.0.1:9");
    let page = std::fs::read_to_string(docs().join("BACKEND.md")).unwrap();
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let run = |block: &str| {
        let output = Command::new("sh")
            .args(["-euc", block])
            .env("BACKEND", example.url())
            .env("BRIDGE_SECRET", str::from_utf8(SECRET).unwrap())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{block}\n{stderr}: install curl and openssl");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let [signed, unsigned] = blocks[..] else { panic!("{} blocks of commands", blocks.len()) };
    let answer = r#"{"results": [{"id": "1-1-1", "status": "ok"}]}"#;
    assert!(page.contains(answer));
    assert_eq!([run(signed), run(signed), run(unsigned)], [answer, answer, "401"]);
    assert_eq!(example.event()["id"], "1-1-1");
    example.child.kill().unwrap();
    assert_eq!(example.line(), "", "it was done once");
}

/// The events of the page have the fields that the bridge sends, and no others.
#[test]
fn the_events_of_the_page_are_those_of_the_bridge() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let noting = sent.clone();
    let backend = Backend::start(move |call| {
        noting.lock().unwrap().extend(call.events());
        crate::backend::all_ok(call)
    });
    let (bridge, ledger) = start(config(Mode::Http { url: backend.url(), secret: SECRET.to_vec() }));
    for (seq, event) in (1..).zip([request(1, b"hi"), online(1), undelivered(1, FailReason::Offline)]) {
        bridge.inbox().push(item(seq, event));
    }
    ledger.wait_for(3);
    let page = std::fs::read_to_string(docs().join("BACKEND.md")).unwrap();
    let shown = page.lines().filter(|line| line.starts_with("    {\"type\""));
    let shown: Vec<Value> = shown.map(|line| serde_json::from_str(line.trim()).unwrap()).collect();
    let fields = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for event in sent.lock().unwrap().iter() {
        let like = shown.iter().find(|shown| shown["type"] == event["type"]).unwrap();
        assert_eq!(fields(event), fields(like));
    }
}
