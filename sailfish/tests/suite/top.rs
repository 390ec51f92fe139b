//! `sailfish top`: what an operator sees of nodes.

use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use testbed::free_port;

use crate::common::cluster::Cluster;
use crate::common::terminal::Terminal;
use crate::common::{Server, output, sailfish, signal, until};

/// A `top` that asks these nodes five times a second.
fn top(admins: &[String]) -> Command {
    let mut command = sailfish();
    command.args(["top", "--interval", "0.2", "--admin", &admins.join(",")]);
    command
}

/// The words of the table's row that begins with these.
fn row<'t>(table: &'t str, begin: &[&str]) -> Vec<&'t str> {
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|words| words.starts_with(begin)).unwrap_or_else(|| panic!("no {begin:?}: {table}"))
}

#[test]
fn once_is_a_table_with_each_node() {
    let mut cluster = Cluster::start(1, 1, &[]);
    let nobody = format!("127.0.0.1:{}", free_port());
    let gateway = cluster.gateway(0);
    let admins = [gateway.admin.to_string(), nobody.clone()];
    let mut clients = [gateway.login(1), gateway.login(2)];
    clients[0].join(7);
    let done = output(top(&admins).arg("--once"), "");
    let (table, line) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert_eq!(row(&table, &["NODE"])[..6], ["NODE", "ROLE", "STATE", "CONNS", "SESS", "ROOMS"], "{table}");
    assert_eq!(row(&table, &["33"])[..6], ["33", "gateway", "up", "2", "2", "1"], "{table}");
    assert_eq!(row(&table, &["1", "router"])[..4], ["1", "router", "linked", "-"], "{table}");
    assert_eq!(row(&table, &[&nobody])[..4], [&nobody, "?", "no", "answer"], "{table}");
    assert_eq!((table.lines().count(), done.status.code()), (4, Some(1)), "{table}");
    assert!(line.starts_with(&format!("sailfish: {nobody} does not answer: Connection refused")), "{line}");

    // Without a terminal there is nobody to press keys.
    let router = cluster.router(0).admin.to_string();
    let done = output(&mut top(&[admins[0].clone(), router]), "");
    let table = String::from_utf8(done.stdout).unwrap();
    assert_eq!(row(&table, &["1", "router"])[..5], ["1", "router", "up", "-", "2"], "{table}");
    assert_eq!((table.lines().count(), done.status.code()), (3, Some(0)), "{table}");
    assert!(done.stderr.is_empty());
}

#[test]
fn the_secret_is_that_of_ctl() {
    let secret = "the secret of the admin port";
    let server = Server::start(&["--set", &format!("control.secret={secret}")]);
    let admins = [server.admin.to_string()];
    let done = output(top(&admins).arg("--once"), "");
    let (table, line) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert_eq!(row(&table, &admins.each_ref().map(String::as_str))[1..3], ["up", "up"], "{table}");
    assert!(line.contains("refuses the secret") && done.status.code() == Some(1), "{line}");
    let done = output(top(&admins).arg("--once").env("SAILFISH_CONTROL__SECRET", secret), "");
    let table = String::from_utf8(done.stdout).unwrap();
    assert_eq!((row(&table, &["0", "up", "up"])[3], done.status.code()), ("0", Some(0)), "{table}");
}

/// Starts `top` on a terminal of this size, and waits until it shows the node.
fn shown(server: &Server, terminal: &Terminal) -> (Child, Arc<Mutex<String>>) {
    terminal.resize(80, 24);
    let written = terminal.watch();
    let child = terminal.run(&mut top(&[server.admin.to_string()]));
    until("the node is shown", || last_screen(&written).contains("0    up"));
    (child, written)
}

/// What was drawn last, without escape sequences.
fn last_screen(written: &Mutex<String>) -> String {
    let written = written.lock().unwrap();
    // A screen begins with the cursor at home, and ends with the rest cleared.
    let screens: Vec<&str> = written.split("\x1b[H").collect();
    let whole = screens.iter().rev().find_map(|screen| Some(screen.split_once("\x1b[J")?.0));
    let mut out = String::new();
    for part in whole.unwrap_or_default().split('\x1b') {
        let text = part.strip_prefix('[').map_or(part, |sequence| {
            sequence
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == '?')
                .get(1..)
                .unwrap_or("")
        });
        out.push_str(text);
    }
    out
}

#[test]
fn a_terminal_shows_the_node_and_obeys_keys() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::open();
    let before = terminal.modes();
    let (mut child, written) = shown(&server, &terminal);
    let lines = |screen: String| screen.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    let screen = lines(last_screen(&written));
    assert_eq!(screen.len(), 24, "{screen:#?}");
    assert!(screen.iter().all(|line| line.chars().count() <= 80), "{screen:#?}");
    assert!(screen[2].starts_with("NODE ROLE    STATE"), "{screen:#?}");
    let mut client = server.login(1);
    client.join(7);
    until("a session is shown", || last_screen(&written).contains("1 connection  1 session"));
    client.say(5555, 7, "m1", "hi");
    until("a latency is shown", || last_screen(&written).contains("room lossy"));
    terminal.press("\x1b[B");
    let details = format!("Node 0, up, at {}", server.admin);
    until("the node is selected", || last_screen(&written).contains(&details));
    terminal.resize(120, 40);
    until("the size is followed", || {
        let screen = lines(last_screen(&written));
        screen.len() == 40 && screen[2].contains("P50")
    });
    terminal.press("q");
    assert_eq!((child.wait().unwrap().code(), terminal.modes()), (Some(0), before));
    until("the screen is left", || written.lock().unwrap().ends_with("\x1b[?25h\x1b[?1049l"));
}

#[test]
fn every_end_leaves_the_terminal_as_it_was() {
    let server = Server::start(&[]);
    for (keys, ended_by, code) in
        [("\x03", None, 0), ("", Some(Signal::TERM), 143), ("", Some(Signal::INT), 130)]
    {
        let mut terminal = Terminal::open();
        let before = terminal.modes();
        let (mut child, written) = shown(&server, &terminal);
        assert_ne!(terminal.modes(), before);
        terminal.press(keys);
        ended_by.into_iter().for_each(|by| signal(&child, by));
        assert_eq!((child.wait().unwrap().code(), terminal.modes()), (Some(code), before), "{ended_by:?}");
        until("the screen is left", || written.lock().unwrap().ends_with("\x1b[?25h\x1b[?1049l"));
    }
}

#[test]
fn a_node_that_ends_is_told_of_until_it_is_back() {
    let mut cluster = Cluster::start(1, 1, &[]);
    let terminal = Terminal::open();
    terminal.resize(120, 40);
    let written = terminal.watch();
    let admins = [cluster.gateway(0).admin.to_string(), cluster.router(0).admin.to_string()];
    let mut child = terminal.run(&mut top(&admins));
    until("both are up", || {
        let screen = last_screen(&written);
        screen.contains("33   gateway up") && screen.contains("1    router  up")
    });
    cluster.gateways[0].kill();
    until("its end is told", || {
        let screen = last_screen(&written);
        screen.contains("33   gateway no answer") && screen.contains("1 without an answer")
    });
    cluster.gateways[0].start();
    until("it is back", || last_screen(&written).contains("33   gateway up"));
    child.kill().unwrap();
    child.wait().unwrap();
}
