//! What the machine is, and how a program is bound to one of its cores.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::root;

/// `program` bound to `core`, with as many open files as it may have.
pub fn pinned(core: u32, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n "$(ulimit -Hn)"; exec taskset -c "$0" "$@""#]);
    command.arg(core.to_string()).arg(program);
    command
}

/// Model, cores, kernel, commit: what a figure is worth nothing without.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The version alone; what a distributor or a host appends says nothing about speed.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("{model}, {cores} cores, Linux {kernel}, commit {}", commit())
}

/// How long a core has worked so far, and how long it has been there, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreTime {
    /// For anybody: user, system, interrupts, and what the host took away.
    pub busy: u64,
    /// Busy or not.
    pub all: u64,
}

impl CoreTime {
    /// Reads it now.
    pub fn of(core: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let prefix = format!("cpu{core} ");
        let line =
            stat.lines().find_map(|line| line.strip_prefix(&prefix)).context("/proc/stat lacks a core")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in the first two.
        let ticks = line.split_whitespace().take(8).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let all = ticks.iter().sum();
        Ok(Self { busy: all - ticks.iter().skip(3).take(2).sum::<u64>(), all })
    }
}

/// The CPU time of a process so far, in ticks.
pub fn process_ticks(pid: u32) -> anyhow::Result<u64> {
    ticks(&pid.to_string(), 11)
}

/// The CPU time of this process's children that have ended, in ticks.
pub fn children_ticks() -> anyhow::Result<u64> {
    ticks("self", 13)
}

/// Two neighbouring times of a stat line, user and system, counted from the bracket that ends the name, which
/// may hold anything.
fn ticks(process: &str, field: usize) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').context("a stat line names its process")?.1.split_whitespace();
    let times = fields.skip(field).take(2).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    Ok(times.iter().sum())
}

/// The date in UTC, as YYYY-MM-DD.
pub fn date() -> String {
    output(Command::new("date").args(["-u", "+%F"]))
}

fn commit() -> String {
    let commit = output(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
    let changed = output(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]));
    if changed.is_empty() { commit } else { format!("{commit} with changes") }
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
