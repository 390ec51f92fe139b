//! `sailfish load` against `sailfish up`, as a user runs them.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests wait for real processes, and may panic

mod common;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{SECRET, Server, sailfish};
use serde_json::Value;

/// `sailfish load` with the secret of the tests and a report of its own.
struct Load {
    command: Command,
    json: PathBuf,
}

impl Load {
    fn new(target: std::net::SocketAddr, arguments: &str) -> Self {
        let unique = format!("sailfish-load-{}-{:?}.json", std::process::id(), std::thread::current().id());
        let json = std::env::temp_dir().join(unique);
        let mut command = sailfish();
        command.args(["load", "--set", &format!("token.secret={SECRET}"), "--target", &target.to_string()]);
        command.arg("--json").arg(&json).args(arguments.split(' '));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, json }
    }

    /// Runs it to its end: what it printed, and its report.
    fn run(mut self) -> (Output, Value) {
        let output = self.command.output().unwrap();
        let report = self.report();
        (output, report)
    }

    fn report(&self) -> Value {
        let text = std::fs::read_to_string(&self.json).unwrap();
        std::fs::remove_file(&self.json).unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

fn numbers<const N: usize>(report: &Value, keys: [&str; N]) -> [u64; N] {
    keys.map(|key| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}")))
}

/// Runs a load that must pass; its report.
fn passes(server: &Server, arguments: &str) -> Value {
    let (output, report) = Load::new(server.clients, arguments).run();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{arguments}\n{text}");
    assert_eq!(numbers(&report, ["failed", "lost", "duplicated", "out_of_order"]), [0; 4], "{text}");
    report
}

#[test]
fn every_scenario_passes_and_tells_its_figures() {
    let server = Server::start(&[]);
    let pid = server.pid();
    let chat = passes(&server, &format!("chat --connections 100 --rate 500 --seconds 1 --server-pid {pid}"));
    assert_eq!(
        numbers(&chat, ["connections", "connected", "sent", "accepted", "delivered", "acked"]),
        [100, 100, 500, 500, 500, 500]
    );
    assert!(chat["latency_us"]["p50"].as_f64().unwrap() > 1.0);
    assert!(chat["server"]["cpu_us_per_op"].as_f64().is_some());
    let room = passes(&server, "room --connections 99 --rooms 3 --publishers 2 --rate 60 --seconds 1");
    assert_eq!(numbers(&room, ["sent", "accepted", "delivered"]), [60, 60, 60 * 33]);
    assert!(room["server"]["cpu_us_per_op"].is_null());
    let echo = passes(&server, "echo --connections 50 --rate 500 --seconds 1");
    assert_eq!(numbers(&echo, ["sent", "delivered"]), [500, 500]);
    let idle = passes(&server, "idle --connections 50 --heartbeat 0.5 --seconds 1");
    assert!(idle["delivered"].as_u64().unwrap() >= 50, "{idle}");
    let storm = passes(&server, "storm --connections 200 --seconds 0.1");
    assert_eq!(numbers(&storm, ["connected", "delivered"]), [200, 400]);
    assert!(storm["storm"]["reconnects_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn processes_and_json_bodies_change_nothing() {
    let server = Server::start(&[]);
    let chat = passes(&server, "chat --connections 90 --rate 300 --seconds 1 --processes 4 --encoding json");
    assert_eq!(numbers(&chat, ["connected", "sent", "delivered", "acked"]), [90, 300, 300, 300]);
    let room = passes(&server, "room --connections 91 --rate 20 --seconds 1 --processes 3");
    assert_eq!(numbers(&room, ["connected", "sent", "delivered"]), [91, 20, 20 * 91]);
}

#[test]
fn stopped_readers_harm_nobody() {
    let server = Server::start(&["--set", "limits.lossy_bytes_max=65536"]);
    let room =
        passes(&server, "room --connections 100 --stopped-readers 2 --rate 400 --payload 4000 --seconds 1");
    assert_eq!(numbers(&room, ["connected", "sent", "delivered"]), [98, 400, 400 * 98]);
    assert_eq!(
        room["stopped_readers"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>(),
        2
    );
}

#[test]
fn a_closed_port_and_a_wrong_secret_are_named() {
    let server = Server::start(&[]);
    let (output, report) = Load::new(server.clients, "chat --connections 4 --set token.secret=another").run();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["failed"]), (Some(1), &Value::from(4)), "{text}");
    assert!(text.contains("token_invalid"), "{text}");
    let target = server.clients;
    drop(server);
    let (output, report) = Load::new(target, "chat --connections 4 --processes 2").run();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["failed"]), (Some(1), &Value::from(4)), "{text}");
    assert!(text.contains("is a gateway listening there?"), "{text}");
}

#[test]
fn a_usage_error_is_2_and_one_line() {
    let server = Server::start(&[]);
    let mut load = Load::new(server.clients, "chat --connections 3");
    let output = load.command.output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.contains("even"), "{line}");
}

#[test]
fn a_killed_server_loses_nothing_that_was_promised() {
    let server = Server::start(&[]);
    let target = server.clients;
    let mut load = Load::new(target, "chat --connections 100 --rate 500 --seconds 3");
    let child = load.command.spawn().unwrap();
    common::until("messages flow", || server.metric("sailfish_deliveries_total", "") > 100.0);
    drop(server); // SIGKILL
    std::thread::sleep(Duration::from_millis(300));
    let mut command = sailfish();
    command.args(["up", "--listen", &target.to_string(), "--admin", "127.0.0.1:0", "--shards", "2"]);
    let _server = Server::spawn(command.args(["--set", &format!("token.secret={SECRET}")]));
    let output = child.wait_with_output().unwrap();
    let report = load.report();
    let text = String::from_utf8(output.stdout).unwrap();
    let faults = numbers(&report, ["failed", "lost", "duplicated", "out_of_order", "unanswered"]);
    assert_eq!(faults, [0; 5], "{text}");
    let rejected: u64 = report["rejected"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    let [sent, accepted] = numbers(&report, ["sent", "accepted"]);
    assert_eq!((sent, accepted + rejected), (1500, 1500), "{text}");
    assert!(text.contains("closed by the server"), "{text}");
}
