//! From rows to figures.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::load::{self, Report};
use super::machine::{CoreTime, children_ticks, pinned, process_ticks};
use super::rows::{Contestant, Group, Load, Method, Metric, Row};
use super::server::{self, Running, Server};
use crate::root;

/// The measured row.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub row: Row,
    /// The median of the runs.
    pub value: f64,
    /// Of `value` and `floor`.
    pub unit: &'static str,
    /// The median of what it is compared with.
    pub floor: Option<f64>,
    /// What else there is to say; mostly empty.
    pub note: String,
}

/// Where the programs are and how long a run takes.
pub struct Bench {
    programs: PathBuf,
    /// Logs and reports of the last run.
    scratch: PathBuf,
    seconds: u32,
    rounds: usize,
    /// Both cores during all runs so far: what was not the server's, or the load's.
    others: Cell<[CoreTime; 2]>,
}

/// Runs of a figure; odd, so that the median is one of them.
const ROUNDS: usize = 3;
const SECONDS: u32 = 4;
const SECONDS_QUICK: u32 = 2;

/// Steps on the way to the saturating rate, each this much above the last.
const TAIL_FIRST_RATE: f64 = 8_000.0;
const STEPS_MAX: usize = 12;
const STEP: f64 = 1.4;
/// A rate saturates when less than this share of it gets through.
const THROUGH_MIN: f64 = 0.95;
/// The median message stands in a queue when it takes this many times as long as at the first rate.
const QUEUED: f64 = 10.0;
const TAIL_SHARE: f64 = 0.7;

/// Builds the programs of these packages in release mode; the folder they are in.
pub fn build(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(|profile| profile.parent()).context("xtask lies in target/PROFILE")?;
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--bins"])
        .args(packages.iter().flat_map(|package| ["-p", package]))
        .arg("--target-dir")
        .arg(target)
        .current_dir(root())
        .status()?;
    ensure!(status.success(), "the release build failed");
    ensure!(std::thread::available_parallelism()?.get() >= 2, "server and load need a core each");
    Ok(target.join("release"))
}

impl Bench {
    /// Builds the programs in release mode.
    pub fn build(quick: bool) -> anyhow::Result<Self> {
        let programs = build(&["sailfish", "benches"])?;
        let scratch = programs.with_file_name("bench");
        fs::create_dir_all(&scratch)?;
        let seconds = if quick { SECONDS_QUICK } else { SECONDS };
        Ok(Self { programs, scratch, seconds, rounds: ROUNDS, others: Cell::default() })
    }

    /// The figures of a group's rows; those of servers that are not installed are left out.
    pub fn measure(&self, group: &Group) -> anyhow::Result<Vec<Figure>> {
        match group.method {
            Method::Ratio { floor, .. } if !floor.server.is_installed() => {
                eprintln!("bench: {} is left out: {} is not installed", group.name, floor.server.name());
                Ok(Vec::new())
            }
            Method::Ratio { floor, metric } => self.in_turns(&group.rows, Some(floor), metric),
            Method::Alone(metric) => self.in_turns(&group.rows, None, metric),
            Method::Wheel => self.wheel(&group.rows),
            Method::Tail => self.tail(&group.rows),
            Method::Redis if !Server::ClusterRedis.is_installed() => {
                eprintln!("bench: {} is left out: redis-server is not installed", group.name);
                Ok(Vec::new())
            }
            Method::Redis => group.rows.iter().map(|row| self.redis(row)).collect(),
            Method::Stopped => self.stopped(&group.rows[0]).map(|figure| vec![figure]),
        }
    }

    /// Runs floor and rows in turns, so that a slow minute of the machine hits them alike.
    fn in_turns(
        &self,
        rows: &[Row],
        floor: Option<Contestant>,
        metric: Metric,
    ) -> anyhow::Result<Vec<Figure>> {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.contestant.server.is_installed()).collect();
        let contestants: Vec<Contestant> = rows.iter().map(|row| row.contestant).chain(floor).collect();
        let mut numbers = vec![Vec::new(); contestants.len()];
        let mut lost = vec![0; contestants.len()];
        for round in 1..=self.rounds {
            for (at, contestant) in contestants.iter().enumerate().rev() {
                // Memory does not depend on how long it is looked at.
                let seconds = if metric == Metric::RssBytes { SECONDS_QUICK } else { self.seconds };
                let report = self.run(*contestant, seconds)?;
                let number = report.metric(metric)?;
                eprintln!(
                    "{round}/{}  {:<12} {:?}: {number:.2} {}",
                    self.rounds,
                    contestant.server.name(),
                    contestant.load,
                    metric.unit()
                );
                numbers[at].push(number);
                lost[at] += report.lost;
            }
        }
        let floor_number = floor.is_some().then(|| median(&mut numbers[rows.len()]));
        let figure = |(at, row): (usize, &&Row)| Figure {
            row: (*row).clone(),
            value: median(&mut numbers[at]),
            unit: metric.unit(),
            floor: floor_number,
            note: if lost[at] > 0 { format!("{} lost", lost[at]) } else { String::new() },
        };
        Ok(rows.iter().enumerate().map(figure).collect())
    }

    fn wheel(&self, rows: &[Row]) -> anyhow::Result<Vec<Figure>> {
        #[derive(Deserialize)]
        struct Wheel {
            arm_cancel_ns: f64,
            arm_cancel_random_ns: f64,
        }
        let mut runs = Vec::new();
        for _ in 0..self.rounds {
            let output = pinned(0, &self.programs.join("wheel")).output()?;
            ensure!(output.status.success(), "wheel failed: {}", String::from_utf8_lossy(&output.stderr));
            runs.push(serde_json::from_slice::<Wheel>(&output.stdout)?);
        }
        let figure = |row: &Row| {
            let number = |run: &Wheel| {
                if row.name == "wheel" { run.arm_cancel_ns } else { run.arm_cancel_random_ns }
            };
            let value = median(&mut runs.iter().map(number).collect::<Vec<_>>());
            Figure { row: row.clone(), value, unit: "ns", floor: None, note: String::new() }
        };
        Ok(rows.iter().map(figure).collect())
    }

    fn tail(&self, rows: &[Row]) -> anyhow::Result<Vec<Figure>> {
        let subject = rows[0].contestant;
        let (saturating, unqueued) = self.saturating_rate(subject)?;
        let figure = |row: &Row| {
            let limit = if row.name == "tail" { saturating } else { unqueued };
            let rate = (limit * TAIL_SHARE) as u32;
            let floor = Contestant { server: Server::RawUring, load: Load::Echo { rate } };
            let subject = Contestant { load: Load::Chat { rate }, ..subject };
            let (mut ratios, mut floors) = (Vec::new(), Vec::new());
            for round in 1..=self.rounds {
                floors.push(self.run(floor, self.seconds)?.tail()?);
                let report = self.run(subject, self.seconds)?;
                let (p50, p999) = report.latency_us.map_or((0.0, 0.0), |latency| (latency.p50, latency.p999));
                eprintln!("{round}/{}  at {rate}/s: p50 {p50:.0} us, p99.9 {p999:.0} us", self.rounds);
                ratios.push(report.tail()?);
            }
            let note = format!("at {rate}/s; the raw echo loop at this rate: {:.1} x", median(&mut floors));
            Ok(Figure { row: row.clone(), value: median(&mut ratios), unit: "x", floor: None, note })
        };
        rows.iter().map(figure).collect()
    }

    /// What gets through when more is offered, and the last rate at which the median message stands in no
    /// queue.
    fn saturating_rate(&self, subject: Contestant) -> anyhow::Result<(f64, f64)> {
        let mut rate = TAIL_FIRST_RATE;
        let mut saturating = rate;
        let mut unqueued = None;
        let mut p50_max = f64::INFINITY;
        for step in 0..STEPS_MAX {
            let load = Load::Chat { rate: rate as u32 };
            let report = self.run(Contestant { load, ..subject }, SECONDS_QUICK)?;
            let p50 = report.latency_us.context("chat reports its latency")?.p50;
            eprintln!("offered {rate:.0}/s, through {:.0}/s, p50 {p50:.0} us", report.per_second);
            if step == 0 {
                p50_max = QUEUED * p50;
            }
            if p50 > p50_max {
                unqueued.get_or_insert(rate / STEP);
            }
            saturating = report.per_second;
            if report.per_second < rate * THROUGH_MIN {
                break;
            }
            rate *= STEP;
        }
        Ok((saturating, unqueued.unwrap_or(saturating)))
    }

    /// The larger of two losses: of deliveries that came through, and of deliveries that a second of CPU time
    /// makes.
    fn stopped(&self, row: &Row) -> anyhow::Result<Figure> {
        let Load::FanOut { receivers, rate, .. } = row.contestant.load else {
            unreachable!("stopped readers are measured with fan-out");
        };
        let all_read = Contestant { load: Load::FanOut { receivers, stopped: 0, rate }, ..row.contestant };
        let (mut cpu, mut cpu_all_read) = (Vec::new(), Vec::new());
        let mut through = Vec::new();
        for round in 1..=self.rounds {
            let before = self.run(all_read, self.seconds)?;
            let with = self.run(row.contestant, self.seconds)?;
            cpu_all_read.push(before.metric(Metric::CpuUs)?);
            cpu.push(with.metric(Metric::CpuUs)?);
            through.push(with.per_second / before.per_second);
            eprintln!(
                "{round}/{}  {:.0}/s without, {:.0}/s with",
                self.rounds, before.per_second, with.per_second
            );
        }
        let (cpu, cpu_all_read) = (median(&mut cpu), median(&mut cpu_all_read));
        let lost = (1.0 - median(&mut through)).max(1.0 - cpu_all_read / cpu).max(0.0);
        let note = format!("CPU a delivery {cpu_all_read:.2} -> {cpu:.2} us");
        Ok(Figure { row: row.clone(), value: lost * 100.0, unit: "%", floor: None, note })
    }

    /// Commands for bindings and look-ups that the nodes sent, for each login or for each heartbeat; leases,
    /// which are for each node and not for each user, go by themselves.
    fn redis(&self, row: &Row) -> anyhow::Result<Figure> {
        let server = row.contestant.start(&self.programs, &self.scratch)?;
        let report = load::run(row.contestant, &server, self.seconds, &self.programs, &self.scratch)?;
        let sum = |name: &str, label: &str| {
            let pages = server.admins.iter().map(|admin| server::get(*admin, "/metrics"));
            let pages = pages.collect::<std::io::Result<Vec<_>>>()?;
            let samples = pages.iter().flat_map(|page| page.lines()).filter(|line| line.starts_with(name));
            let samples = samples.filter(|line| line.contains(label));
            let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            anyhow::Ok(values.sum::<f64>())
        };
        let logins = sum("sailfish_logins_total", "")?;
        let binds = sum("sailfish_directory_commands_total", "kind=\"bind\"")?;
        let leases = sum("sailfish_directory_commands_total", "kind=\"lease\"")?;
        let all = sum("sailfish_directory_commands_total", "")?;
        let heartbeats = sum("sailfish_frames_in_total", "code=\"heartbeat\"")?;
        ensure!(logins > 0.0 && binds > 0.0, "no login reached Redis");
        let value = match row.contestant.load {
            Load::Idle => binds / logins,
            // Unbinds are of clients that went when the load ended.
            _ => {
                (all - leases - binds - sum("sailfish_directory_commands_total", "kind=\"unbind\"")?)
                    / heartbeats
            }
        };
        let note = format!(
            "{logins:.0} logins, {heartbeats:.0} heartbeats, {leases:.0} lease commands, {} lost",
            report.lost
        );
        Ok(Figure { row: row.clone(), value, unit: "", floor: None, note })
    }

    /// One run against a fresh server.
    fn run(&self, contestant: Contestant, seconds: u32) -> anyhow::Result<Report> {
        let server = contestant.start(&self.programs, &self.scratch)?;
        let before = Times::now(&server)?;
        let report = load::run(contestant, &server, seconds, &self.programs, &self.scratch)
            .with_context(|| format!("{} under {:?}", contestant.server.name(), contestant.load))?;
        let after = Times::now(&server)?;
        let mut others = self.others.get();
        for (core, others) in others.iter_mut().enumerate() {
            let busy = after.cores[core].busy - before.cores[core].busy;
            others.busy += busy.saturating_sub(after.own[core] - before.own[core]);
            others.all += after.cores[core].all - before.cores[core].all;
        }
        self.others.set(others);
        Ok(report)
    }

    /// How much of the server's and of the load's core other programs took, in percent.
    pub fn others_percent(&self) -> [f64; 2] {
        self.others.get().map(|others| 100.0 * others.busy as f64 / others.all.max(1) as f64)
    }
}

/// Times so far, of core 0 with the server and of core 1 with the load.
struct Times {
    cores: [CoreTime; 2],
    /// Of what is measured there. A load counts once it has ended.
    own: [u64; 2],
}

impl Times {
    fn now(server: &Running) -> anyhow::Result<Self> {
        let cores = [CoreTime::of(server::CORE)?, CoreTime::of(load::CORE)?];
        Ok(Self {
            cores,
            own: [server.pids().map(process_ticks).sum::<anyhow::Result<u64>>()?, children_ticks()?],
        })
    }
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
