//! What a subcommand cannot write to stdout is an error: nobody takes silence for a token, a configuration or
//! an outcome.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::common::stack::{INTERNAL_SECRET, Up};
use crate::common::{Folder, SECRET, Server, sailfish, signal};

#[test]
fn a_full_stdout_is_1_and_one_line() {
    let server = Server::start(&[]);
    let (admin, clients) = (server.admin.to_string(), server.clients.to_string());
    let load = ["load", "idle", "--connections", "1", "--seconds", "0.1", "--target", &clients];
    let commands: [&[&str]; 12] = [
        &["token", "--user", "1"],
        &["up", "--print-config"],
        &["backend", "--print-config"],
        &["--help"],
        &["chat", "--help"],
        &["--version"],
        &["completions", "bash"],
        &["man"],
        &["ctl", "nodes", "--admin", &admin],
        &["top", "--once", "--interval", "0.1", "--admin", &admin],
        &["chat", "--user", "1", "--target", &clients],
        &load,
    ];
    for arguments in commands {
        let mut command = sailfish();
        command.env("SAILFISH_TOKEN__SECRET", SECRET).args(arguments).stdin(Stdio::null());
        ends_with_1_and_one_line(&mut command, arguments);
    }
}

/// Runs a command whose stdout is full.
fn ends_with_1_and_one_line(command: &mut Command, arguments: &[&str]) {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let done = child.wait_with_output().unwrap();
    let line = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), line.lines().count()), (Some(1), 1), "{arguments:?}: {line}");
    assert!(line.starts_with("sailfish: stdout: No space left"), "{arguments:?}: {line}");
}

/// `sailfish token --user 1 >&-`: the runtime of Rust opens `/dev/null` in its place, and nobody has the
/// token.
#[test]
fn a_closed_stdout_is_1_and_one_line() {
    let commands: [&[&str]; 6] = [
        &["token", "--user", "1"],
        &["up", "--print-config"],
        &["backend", "--print-config"],
        &["--help"],
        &["--version"],
        &["completions", "bash"],
    ];
    for arguments in commands {
        let program = sailfish().get_program().to_owned();
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(program).args(arguments);
        let done = command.env("SAILFISH_TOKEN__SECRET", SECRET).output().unwrap();
        let line = String::from_utf8(done.stderr).unwrap();
        assert_eq!(
            (done.status.code(), &*line),
            (Some(1), "sailfish: stdout: it is closed\n"),
            "{arguments:?}"
        );
    }
    // A reader that is there but reads nothing is none of these.
    let done = sailfish().arg("--version").stdout(Stdio::null()).status().unwrap();
    assert_eq!(done.code(), Some(0));
}

/// The users of the demonstration are made, and nobody gets their tokens.
#[test]
fn a_demonstration_on_a_full_stdout_is_1_and_one_line() {
    let up = Up::start(SECRET);
    let backend = format!("http://{}", up.api.0);
    let arguments = ["demo", "--backend", &backend];
    let mut command = sailfish();
    command.env("SAILFISH_BACKEND__INTERNAL_SECRET", INTERNAL_SECRET).args(arguments);
    ends_with_1_and_one_line(&mut command, &arguments);
}

/// As in `sailfish ... | head -1`: it is no success, and not worth a word.
#[test]
fn a_reader_that_went_away_is_1_and_no_line() {
    for arguments in [&["up", "--print-config"][..], &["--help"], &["token", "--user", "1"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = sailfish()
            .env("SAILFISH_TOKEN__SECRET", SECRET)
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(
            (done.status.code(), String::from_utf8(done.stderr).unwrap().as_str()),
            (Some(1), ""),
            "{arguments:?}"
        );
    }
}

/// The disk of the log is full, or who reads it is gone. That is no reason to end.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let folder = Folder::new("full-log");
    let mut command = sailfish();
    command.env("XDG_STATE_HOME", &folder.0).env("SAILFISH_TOKEN__SECRET", SECRET).args([
        "up",
        "--listen",
        "127.0.0.1:0",
    ]);
    command.args(["--admin", "127.0.0.1:0", "--set", "backend.listen=127.0.0.1:0"]);
    command.stdout(Stdio::piped()).stderr(full);
    let mut child = command.spawn().unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(ready.starts_with("ready "), "{ready}");
    signal(&child, Signal::HUP); // a line of the log
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it has ended");
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
