//! `sailfish load` against `sailfish up`, as a user runs them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testbed::free_port;

use crate::common::{Folder, SECRET, Server, sailfish};

/// `sailfish load` with the secret of the tests and a report of its own.
struct Load {
    command: Command,
    json: PathBuf,
}

impl Load {
    fn new(target: SocketAddr, arguments: &str) -> Self {
        let unique = format!("sailfish-load-{}-{:?}.json", std::process::id(), std::thread::current().id());
        let json = std::env::temp_dir().join(unique);
        let mut command = sailfish();
        command.args(["load", "--target", &target.to_string()]).env("SAILFISH_TOKEN__SECRET", SECRET);
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
    let chat = passes(
        &server,
        &format!("chat --connections 100 --rate 500 --seconds 1 --split 0.4 --server-pid {pid}"),
    );
    assert_eq!(
        numbers(&chat, ["connections", "connected", "sent", "accepted", "delivered", "acked"]),
        [100, 100, 500, 500, 500, 500]
    );
    assert!(chat["latency_us"]["p50"].as_f64().unwrap() > 1.0);
    assert!(chat["server"]["cpu_us_per_op"].as_f64().is_some());
    assert!(chat["generator"]["cpu_us_per_op"].as_f64().is_some());
    assert_eq!(chat["parts"].as_array().map(Vec::len), Some(2));
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
    // Each is sent 3.2 MB; a reader on a busy machine may be late by all of it.
    let server = Server::start(&["--set", "limits.lossy_bytes_max=4194304"]);
    let room =
        passes(&server, "room --connections 100 --stopped-readers 2 --rate 100 --payload 16000 --seconds 2");
    assert_eq!(numbers(&room, ["connected", "sent", "delivered"]), [98, 200, 200 * 98]);
    assert_eq!(
        room["stopped_readers"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>(),
        2
    );
}

#[test]
fn a_closed_port_and_a_wrong_secret_are_named() {
    let server = Server::start(&[]);
    let (output, report) =
        Load::new(server.clients, "chat --connections 4 --set token.secret=another-secret-than-that").run();
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
    crate::common::until("messages flow", || server.metric("sailfish_deliveries_total", "") > 100.0);
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

/// A server that shell commands start and restart on one address; killed when dropped.
struct Restarted {
    folder: Folder,
    address: SocketAddr,
}

impl Restarted {
    fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let server = Self { folder: Folder::new("restarted"), address };
        let started = Command::new("sh").args(["-c", &server.command("true")]).status().unwrap();
        assert!(started.success());
        crate::common::until("it listens", || std::net::TcpStream::connect(address).is_ok());
        server
    }

    fn pid_file(&self) -> String {
        self.folder.path("pid")
    }

    /// A shell command that ends the process of `$PID` in some way, and starts the server anew.
    fn command(&self, end: &str) -> String {
        let (program, pid_file, address) = (env!("CARGO_BIN_EXE_sailfish"), self.pid_file(), self.address);
        format!(
            "PID=$(cat {pid_file} 2>/dev/null); {end}; {program} up --listen {address} --admin 127.0.0.1:0 --shards 2 \
             --set 'token.secret={SECRET}' --set bridge.mode=off --set drain.spread_ms=100 </dev/null >/dev/null 2>&1 & echo $! > {pid_file}"
        )
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.pid_file()).ok().and_then(|pid| pid.trim().parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL); // it may have ended
        }
    }
}

/// Runs a load with commands: its exit code, report, and what it printed.
fn with_commands(
    server: &Restarted,
    arguments: &str,
    commands: &[(&str, String)],
) -> (Option<i32>, Value, String) {
    let mut load = Load::new(server.address, arguments);
    for (option, command) in commands {
        load.command.args([option, command.as_str()]);
    }
    let (output, report) = load.run();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code(), report, text)
}

#[test]
fn chaos_kills_the_server_in_the_middle_and_nothing_promised_is_lost() {
    let server = Restarted::start();
    let kill = format!("1:{}", server.command("kill -KILL $PID; sleep 0.3"));
    let arguments = "chat --connections 100 --rate 500 --seconds 3 --repeat 5";
    let (code, report, text) = with_commands(&server, arguments, &[("--chaos", kill)]);
    assert_eq!(
        numbers(&report, ["failed", "lost", "duplicated", "out_of_order", "unanswered"]),
        [0; 5],
        "{text}"
    );
    let [sent, accepted, handed_over, reconnects] =
        numbers(&report, ["sent", "accepted", "handed_over", "reconnects"]);
    assert_eq!((sent, accepted + handed_over, reconnects), (1500, 1500, 100), "{text}");
    assert!(report["reconnect_us"]["max"].as_f64().unwrap() > 100_000.0, "{text}");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("at 1.0 s: PID=") && text.contains("ended well"), "{text}");
}

#[test]
fn a_command_that_fails_fails_the_run() {
    let server = Restarted::start();
    let arguments = "chat --connections 10 --rate 50 --seconds 1";
    let commands = [("--chaos", "0.1:echo said; exit 7".to_owned()), ("--chaos", "0.2:true".to_owned())];
    let (code, report, text) = with_commands(&server, arguments, &commands);
    assert_eq!((code, numbers(&report, ["sent", "acked"])), (Some(1), [50, 50]), "{text}");
    assert!(text.contains("said\n") && text.contains("exit status: 7: echo said; exit 7"), "{text}");
}

#[test]
fn a_storm_restarts_under_load() {
    let server = Restarted::start();
    let restart = server.command("kill -TERM $PID; sleep 0.3");
    let arguments = "storm --connections 100 --rate 500 --seconds 0.5 --repeat 5";
    let commands = [("--restart", restart.clone()), ("--restart", restart)];
    let (code, report, text) = with_commands(&server, arguments, &commands);
    assert_eq!((code, &report["scenario"]), (Some(0), &Value::from("storm")), "{text}");
    assert_eq!(
        numbers(&report, ["failed", "lost", "duplicated", "out_of_order", "unanswered"]),
        [0; 5],
        "{text}"
    );
    let [sent, accepted, handed_over, reconnects] =
        numbers(&report, ["sent", "accepted", "handed_over", "reconnects"]);
    assert_eq!((accepted + handed_over, reconnects), (sent, 200), "{text}");
    // Half a second, and a second after each restart.
    assert!(sent >= 1250 && report["notices"]["draining"] == 200, "{text}");
    assert!(report["latency_us"]["p50"].as_f64().unwrap() > 1.0 && report["storm"].is_null(), "{text}");
}

#[test]
fn clients_go_round_several_targets() {
    let server = Server::start(&[]);
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let report = passes(&server, &format!("chat --connections 10 --rate 50 --seconds 1 --target {nobody}"));
    assert_eq!(report["on_targets"][server.clients.to_string()], 10, "{report}");
    assert_eq!(report["connect_errors"]["refused"], 5, "{report}");
}
