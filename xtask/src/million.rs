//! `cargo xtask million`: a million logged-in connections on one machine, with nothing of the system changed.
//!
//! Two routers, two gateways and three loads: what a process may not have open as files, its io_uring has as
//! direct descriptors, in several rings. Routers go before gateways, and these before the load, where there
//! is too little CPU. All connect and log in; then they hold, with heartbeats at the period that the server
//! tells, while random pairs write to each other and a room hears a message a second; then a tenth of them is
//! reset at once and comes back; then one of the routers is killed. It fails when anybody was dropped or
//! anything was lost.

mod namespace;
mod page;
mod plot;
mod watch;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use testbed::{Folder, free_port};

use self::watch::{Routers, Sample, Watch};
use crate::bench::build;
use crate::stack::{Node, SECRETS};

/// Gateways, of one shard each.
const GATEWAYS: u32 = 2;
/// What each role is started by. A role that others wait for runs first; each ends with this process, however
/// that ends.
const ROUTER_BY: &[&str] = &["setpriv", "--pdeathsig", "KILL"];
const GATEWAY_BY: &[&str] = &["nice", "-n", "5", "setpriv", "--pdeathsig", "KILL"];
const LOAD_BY: &[&str] = &["nice", "-n", "10", "setpriv", "--pdeathsig", "KILL"];
/// Messages of pairs, and of the room, a second.
const CHAT_RATE: f64 = 200.0;
const ROOM_RATE: f64 = 1.0;
/// How much later the storm comes than the end of the hold: the loads do not begin at quite the same moment.
const STORM_DELAY_S: f64 = 5.0;
/// How often everything is looked at, and, while a router is missed, the other one.
const LOOK: Duration = Duration::from_secs(2);
const CLOSE_LOOK: Duration = Duration::from_millis(250);
/// Below this, the run is given up before the machine does.
const AVAILABLE_BYTES_MIN: f64 = 1e9;
/// A cluster whose routers, after they have lost gateways, know less than this share of the sessions for so
/// long does not heal.
const KNOWN_SHARE: f64 = 0.5;
const COLLAPSE_S: f64 = 60.0;
/// How much longer than planned the run may take, beside twice the time to connect.
const SURPLUS_S: f64 = 300.0;

/// Options of `cargo xtask million`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Connections, at least 1,000.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    connections: u32,
    /// How long all hold before the storm.
    #[arg(long, value_name = "M", default_value_t = 10.0)]
    minutes: f64,
    /// New connections a second.
    #[arg(long, value_name = "R", default_value_t = 3500.0)]
    connect_rate: f64,
    /// Members of the room [default: a tenth of the connections, 100,000 at most].
    #[arg(long, value_name = "N")]
    members: Option<u32>,
    /// Stays in the network namespace where it is started [default: one of its own, with a larger table of
    /// TCP connections].
    #[arg(long)]
    in_place: bool,
}

/// What a run is to be.
struct Plan {
    /// Connections of each load; pairs are even.
    chat: u32,
    room: u32,
    storm: u32,
    connect_rate: f64,
    open_files: u64,
    hold_s: f64,
    /// How long the storm and the loss of the router are looked at.
    storm_s: f64,
    killed_s: f64,
}

impl Plan {
    fn new(arguments: &Arguments, open_files: u64) -> anyhow::Result<Self> {
        let all = arguments.connections;
        let members = arguments.members.unwrap_or((all / 10).min(100_000));
        let storm = all / 10;
        ensure!(members >= 1 && members <= all / 2, "--members {members}: want 1 to half of the connections");
        ensure!(
            (0.1..=600.0).contains(&arguments.minutes),
            "--minutes {}: want 0.1 to 600",
            arguments.minutes
        );
        ensure!(arguments.connect_rate >= 1.0, "--connect-rate {}: want 1 at least", arguments.connect_rate);
        Ok(Self {
            chat: (all - members - storm) & !1,
            room: members,
            storm,
            connect_rate: arguments.connect_rate,
            open_files,
            hold_s: arguments.minutes * 60.0,
            storm_s: 20.0 + f64::from(storm) / 2000.0,
            killed_s: 20.0 + f64::from(all) / 12_500.0,
        })
    }

    fn connections(&self) -> u32 {
        self.chat + self.room + self.storm
    }

    fn measured_s(&self) -> f64 {
        self.hold_s + self.storm_s + self.killed_s
    }

    /// The ends of the hold and of the storm, for `--split`.
    fn split(&self) -> String {
        format!("{},{}", self.hold_s, self.hold_s + self.storm_s)
    }

    /// What each load is called and told. Together they connect at the rate that is asked for, and are done
    /// at about the same time.
    fn loads(&self, router: u32) -> [(&'static str, String); 3] {
        let common = |connections: u32| {
            let rate = self.connect_rate * f64::from(connections) / f64::from(self.connections());
            format!("--connections {connections} --connect-rate {rate:.2} --connect-window 4096")
        };
        let (measured, split) = (self.measured_s(), self.split());
        let kill_at = self.hold_s + self.storm_s;
        let stay = self.storm_s + self.killed_s;
        [
            (
                "chat",
                format!(
                    "{} --rate {CHAT_RATE} --seconds {measured} --split {split} --first-user 1000000 --chaos {kill_at}:kill~-9~{router}",
                    common(self.chat)
                ),
            ),
            (
                "room",
                format!(
                    "{} --rate {ROOM_RATE} --seconds {measured} --split {split} --first-user 101000000 --chaos 0:true",
                    common(self.room)
                ),
            ),
            (
                "storm",
                format!(
                    "{} --seconds {} --stay {stay} --first-user 201000000 --chaos 0:true",
                    common(self.storm),
                    self.hold_s + STORM_DELAY_S
                ),
            ),
        ]
    }
}

/// What came of a run.
#[derive(Default)]
struct Outcome {
    samples: Vec<Sample>,
    /// When every connection was there and its session known, when the router was killed and when the other
    /// one knew all, in s.
    connected_s: Option<f64>,
    killed_s: Option<f64>,
    reachable_s: Option<f64>,
    /// Gateways that the router which lived has lost; and with those that it lost when all clients left.
    gateways_lost: u64,
    gateways_lost_at_end: u64,
    /// The reports of the loads; `Null` for one that made none.
    chat: Value,
    room: Value,
    storm: Value,
    /// Why the run is no success, a line each.
    faults: Vec<String>,
}

/// Copies what the processes have written, as their folder goes with this one; where to.
fn keep_logs(folder: &Folder, to: &Path) -> anyhow::Result<PathBuf> {
    let _ = fs::remove_dir_all(to); // there may be none of an earlier run
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(to.to_owned())
}

/// Runs it, writes the report and prints where that is.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let plan = Plan::new(arguments, watch::open_files_max())?;
    let programs = build(&["sailfish"])?;
    if let Some(way) = namespace::way().filter(|_| !arguments.in_place) {
        return namespace::run_again(way);
    }
    let folder = Folder::on_disk("million");
    println!(
        "{} connections: {} in pairs, {} in the room, {} in the storm; {GATEWAYS} gateways, though a process may open {} files",
        plan.connections(),
        plan.chat,
        plan.room,
        plan.storm,
        plan.open_files
    );
    let outcome = hold(&plan, &programs, &folder)?;
    let target = programs.with_file_name("million");
    let is_whole = plan.connections() >= 1_000_000;
    let page = page::write(&plan, &outcome, &target, is_whole)?;
    println!("{}", fs::read_to_string(&page)?);
    println!("kept as {}", page.display());
    if !outcome.faults.is_empty() {
        let logs = keep_logs(&folder, &target.join("logs"))?;
        bail!("{}\nlogs are in {}", outcome.faults.join("\n"), logs.display());
    }
    Ok(())
}

/// Starts everything, and watches it until the loads have ended.
fn hold(plan: &Plan, programs: &Path, folder: &Folder) -> anyhow::Result<Outcome> {
    let start =
        |by: &[&str], name: &str, line: String| Node::start_by(by, programs, folder.path(), name, &line);
    let address = |host: u32| SocketAddr::from(([127, 0, (host >> 8) as u8, host as u8], free_port()));
    let (links, admins) = ([address(1), address(1)], [address(1), address(1)]);
    let watch = Watch::start();
    let mut routers = Vec::new();
    for (at, (listen, admin)) in links.iter().zip(&admins).enumerate() {
        let line = format!("router --id {} --listen {listen} --admin {admin} --shards 1", at + 1);
        routers.push(start(ROUTER_BY, &format!("router{}", at + 1), line)?);
    }
    let targets: Vec<SocketAddr> = (0..GATEWAYS).map(|at| address(at + 2)).collect();
    let mut gateways = Vec::new();
    for (at, listen) in targets.iter().enumerate() {
        let line = format!(
            "gateway --id {} --listen {listen} --routers {},{} --admin 127.0.0.1:0 --shards 1",
            33 + at,
            links[0],
            links[1]
        );
        let gateway = start(GATEWAY_BY, &format!("gateway{at}"), line)?;
        let engine = gateway.engine().unwrap_or_default();
        ensure!(engine == "uring", "the engine is {engine}: without io_uring, a connection is an open file");
        gateways.push(gateway);
    }
    wait_for_links(&admins)?;
    let victim = routers[0].pid().context("a router runs")?;
    let mut loads = Vec::new();
    for (name, line) in plan.loads(victim) {
        loads.push(Load::start(programs, folder, name, &targets, &line)?);
    }
    let mut outcome = Outcome::default();
    let gateway_pids: Vec<u32> = gateways.iter().filter_map(Node::pid).collect();
    let gave_up = follow(plan, &watch, &gateway_pids, &mut routers, &mut loads, &admins, &mut outcome)?;
    outcome.faults.extend(gave_up);
    if gateways.iter_mut().any(Node::has_ended) || routers[1].has_ended() {
        outcome.faults.push("a node ended by itself: its log tells why".to_owned());
    }
    for load in &mut loads {
        let report = load.end(&mut outcome.faults);
        match load.name {
            "chat" => outcome.chat = report,
            "room" => outcome.room = report,
            _ => outcome.storm = report,
        }
    }
    judge(plan, &mut outcome);
    Ok(outcome)
}

fn wait_for_links(admins: &[SocketAddr]) -> anyhow::Result<()> {
    for _ in 0..60 {
        let routers = watch::ask(admins);
        if routers.gateways == 2 * u64::from(GATEWAYS) && routers.unsettled == 0 {
            return Ok(());
        }
        sleep(Duration::from_secs(1));
    }
    bail!("not every gateway is linked with both routers after a minute")
}

/// Watches until every load has ended; what made it give up, if anything did.
fn follow(
    plan: &Plan,
    watch: &Watch,
    gateways: &[u32],
    routers: &mut [Node],
    loads: &mut [Load],
    admins: &[SocketAddr; 2],
    outcome: &mut Outcome,
) -> anyhow::Result<Option<String>> {
    let all = u64::from(plan.connections());
    let deadline_s = 2.0 * f64::from(plan.connections()) / plan.connect_rate + plan.measured_s() + SURPLUS_S;
    let load_pids: Vec<u32> = loads.iter().map(|load| load.child.id()).collect();
    let router_pids: Vec<u32> = routers.iter().filter_map(Node::pid).collect();
    let mut known_s = 0.0;
    loop {
        let mut sample = watch.look(gateways, &router_pids, &watch::with_children(&load_pids));
        let asked = watch::ask(if outcome.killed_s.is_some() { &admins[1..] } else { admins });
        let Routers { bindings, gateways_lost, unsettled, .. } = asked;
        sample.sessions = asked.sessions();
        if gateways_lost == 0 || bindings as f64 >= KNOWN_SHARE * sample.connections {
            known_s = watch.now_s();
        }
        if bindings >= all && outcome.connected_s.is_none() {
            outcome.connected_s = Some(watch.now_s());
        }
        if outcome.killed_s.is_some() && outcome.reachable_s.is_none() && bindings >= all && unsettled == 0 {
            outcome.reachable_s = Some(watch.now_s());
        }
        outcome.gateways_lost_at_end = outcome.gateways_lost_at_end.max(gateways_lost);
        if outcome.killed_s.is_none_or(|killed| watch.now_s() < killed + plan.killed_s) {
            outcome.gateways_lost = outcome.gateways_lost_at_end;
        }
        eprintln!(
            "{:>5.0} s  {:>9.0} connections  {bindings:>9} sessions  {:>5.1} GB available",
            sample.at_s,
            sample.connections,
            sample.available_bytes / 1e9
        );
        let available_bytes = sample.available_bytes;
        outcome.samples.push(sample);
        if available_bytes < AVAILABLE_BYTES_MIN {
            return Ok(Some("the machine ran out of memory: the run was given up".to_owned()));
        }
        if watch.now_s() - known_s > COLLAPSE_S {
            let share = 100.0 * KNOWN_SHARE;
            return Ok(Some(format!(
                "collapsed: for {COLLAPSE_S} s routers that had lost gateways knew less than {share:.0} % of the sessions"
            )));
        }
        if watch.now_s() > deadline_s {
            return Ok(Some(format!("the loads did not end within {deadline_s:.0} s")));
        }
        let is_missed = outcome.killed_s.is_some() && outcome.reachable_s.is_none();
        for _ in 0..LOOK.as_millis() / CLOSE_LOOK.as_millis() {
            sleep(CLOSE_LOOK);
            if outcome.killed_s.is_none() && routers[0].has_ended() {
                outcome.killed_s = Some(watch.now_s());
                break;
            }
            if is_missed {
                break;
            }
        }
        let mut has_all_ended = true;
        for load in loads.iter_mut() {
            has_all_ended &= load.child.try_wait()?.is_some();
        }
        if has_all_ended {
            return Ok(None);
        }
    }
}

/// One `sailfish load`.
struct Load {
    name: &'static str,
    child: Child,
    json: PathBuf,
}

impl Load {
    fn start(
        programs: &Path,
        folder: &Folder,
        name: &'static str,
        targets: &[SocketAddr],
        line: &str,
    ) -> anyhow::Result<Self> {
        let json = folder.path().join(format!("{name}.json"));
        let log = File::create(folder.path().join(format!("{name}.log")))?;
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let mut command = Command::new(LOAD_BY[0]);
        command.args(&LOAD_BY[1..]).arg(programs.join("sailfish"));
        command.args(["load", name, "--target", &targets.join(","), "--json"]).arg(&json);
        // A command of --chaos has spaces of its own.
        command.args(line.split(' ').map(|word| word.replace('~', " ")));
        command.envs(SECRETS).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { name, child: command.spawn().context("starting a load")?, json })
    }

    /// Its report, after its end; one that still runs is killed.
    fn end(&mut self, faults: &mut Vec<String>) -> Value {
        let passed = matches!(self.child.try_wait(), Ok(Some(status)) if status.success());
        if !passed {
            faults.push(format!("sailfish load {} did not pass", self.name));
        }
        let text = fs::read_to_string(&self.json).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

/// Sessions that ended and should not have, whether they came back or not.
fn dropped(report: &Value, resets: u64) -> u64 {
    count(report, "reconnects").saturating_sub(resets) + count(report, "failed")
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or(0)
}

/// Says what keeps the run from being a success.
fn judge(plan: &Plan, outcome: &mut Outcome) {
    let mut faults = Vec::new();
    for (name, report, wanted, resets) in [
        ("chat", &outcome.chat, plan.chat, 0),
        ("room", &outcome.room, plan.room, 0),
        ("storm", &outcome.storm, plan.storm, u64::from(plan.storm)),
    ] {
        if report.is_null() {
            faults.push(format!("{name}: no report"));
            continue;
        }
        let connected = count(report, "connected");
        if connected < u64::from(wanted) {
            faults.push(format!("{name}: {connected} of {wanted} ever logged in"));
        }
        for (what, number) in [
            ("dropped", dropped(report, resets)),
            ("lost", count(report, "lost")),
            ("unanswered", count(report, "unanswered")),
        ] {
            if number > 0 {
                faults.push(format!("{name}: {number} {what}"));
            }
        }
    }
    if outcome.killed_s.is_none() {
        faults.push("the router was never killed".to_owned());
    } else if outcome.reachable_s.is_none() {
        faults.push("not every user was reachable again after the router was killed".to_owned());
    }
    if outcome.gateways_lost > 0 {
        faults.push(format!(
            "{} links of gateways were given up by a router that lived",
            outcome.gateways_lost
        ));
    }
    outcome.faults.extend(faults);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(connections: u32) -> Plan {
        let arguments =
            Arguments { connections, minutes: 10.0, connect_rate: 3500.0, members: None, in_place: true };
        Plan::new(&arguments, 20_000).expect("a plan")
    }

    #[test]
    fn everybody_is_in_one_load() {
        for connections in [1000, 20_000, 1_000_000] {
            let plan = plan(connections);
            assert_eq!(plan.connections(), connections);
            assert!(plan.chat.is_multiple_of(2) && plan.room <= 100_000);
        }
    }

    #[test]
    fn a_run_is_no_success_when_somebody_was_dropped_or_something_lost() {
        let good =
            |connected: u32, reconnects: u32| json!({ "connected": connected, "reconnects": reconnects });
        let plan = plan(20_000);
        let outcome = || Outcome {
            killed_s: Some(1.0),
            reachable_s: Some(2.0),
            chat: good(plan.chat, 0),
            room: good(plan.room, 0),
            storm: good(plan.storm, plan.storm),
            ..Outcome::default()
        };
        let faults = |change: fn(&mut Outcome)| {
            let mut outcome = outcome();
            change(&mut outcome);
            judge(&plan, &mut outcome);
            outcome.faults
        };
        assert!(faults(|_| {}).is_empty());
        assert_eq!(faults(|outcome| outcome.chat["reconnects"] = json!(1)), ["chat: 1 dropped"]);
        assert_eq!(faults(|outcome| outcome.room["lost"] = json!(3)), ["room: 3 lost"]);
        assert_eq!(faults(|outcome| outcome.storm["failed"] = json!(2)), ["storm: 2 dropped"]);
        assert_eq!(faults(|outcome| outcome.reachable_s = None).len(), 1);
        assert_eq!(faults(|outcome| outcome.room = Value::Null), ["room: no report"]);
    }
}
