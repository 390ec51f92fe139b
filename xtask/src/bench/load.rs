//! One run: a load on core 1 against a server, and what it reports.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::machine::pinned;
use super::rows::{Contestant, Load, Metric};
use super::server::{Running, SECRET};

/// Where it runs.
pub const CORE: u32 = 1;
/// How long a load may take beyond the time it measures.
const OVERHEAD: Duration = Duration::from_secs(120);

const ECHO_CONNECTIONS: u32 = 1_000;
const CHAT_CONNECTIONS: u32 = 1_000;
/// As many as 20,000 open files allow: what a server allocates once weighs less.
const IDLE_CONNECTIONS: u32 = 18_000;
/// Each says something twice a second.
const HEARTBEAT_CONNECTIONS: u32 = 10_000;
/// Above those of the connections before.
const FIRST_USER_OF_GROWTH: u32 = 1_000_000;
/// How long after the last connection came nothing more is done for those before.
const SETTLE: Duration = Duration::from_secs(3);
/// Files of its own that a server may close meanwhile: a backend has some open at its start only.
const OWN_FILES: usize = 50;
const STORM_CONNECTIONS: u32 = 9_500;
/// As `peer` does by default.
const WARM_UP_SECONDS: u32 = 1;
const PAYLOAD_BYTES: u32 = 200;

/// What a load reports; both `sailfish load --json` and `peer` write this.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Operations that failed, whichever are counted.
    #[serde(default)]
    pub lost: u64,
    /// Operations a second.
    pub per_second: f64,
    /// From the intended send time; `peer` does not measure it.
    pub latency_us: Option<Latency>,
    /// What the server used.
    pub server: Option<ServerReport>,
    /// What the load used; `peer` does not tell.
    generator: Option<GeneratorReport>,
    /// What connecting took.
    #[serde(default)]
    storm: Option<StormReport>,
}

/// Percentiles.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// One in a thousand is slower.
    pub p999: f64,
}

/// What the server used.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ServerReport {
    cpu_us_per_op: Option<f64>,
    rss_bytes_per_connection: Option<f64>,
}

/// What the load used.
#[derive(Clone, Copy, Debug, Deserialize)]
struct GeneratorReport {
    cpu_us_per_op: Option<f64>,
}

/// What the server used for each login of a storm.
#[derive(Clone, Copy, Debug, Deserialize)]
struct StormReport {
    connect_cpu_us: Option<f64>,
    reconnect_cpu_us: Option<f64>,
}

impl Report {
    /// p99.9 / p50.
    pub fn tail(&self) -> anyhow::Result<f64> {
        let latency = self.latency_us.context("the load reports no latency")?;
        Ok(latency.p999 / latency.p50)
    }

    /// The number that is asked for.
    pub fn metric(&self, metric: Metric) -> anyhow::Result<f64> {
        let number = match metric {
            Metric::CpuUs => self.server.and_then(|server| server.cpu_us_per_op),
            Metric::RssBytes => self.server.and_then(|server| server.rss_bytes_per_connection),
            Metric::P999Us => self.latency_us.map(|latency| latency.p999),
            Metric::LoadCpu => {
                let server = self.server.and_then(|server| server.cpu_us_per_op);
                let load = self.generator.and_then(|generator| generator.cpu_us_per_op);
                server.zip(load).map(|(server, load)| load / server)
            }
            Metric::PerSecond => Some(self.per_second),
            Metric::FirstLogins => self.storm.and_then(|storm| Some(1e6 / storm.connect_cpu_us?)),
            Metric::LoginsAgain => self.storm.and_then(|storm| Some(1e6 / storm.reconnect_cpu_us?)),
        };
        number.filter(|number| number.is_finite()).with_context(|| format!("the load reports no {metric:?}"))
    }
}

/// Runs the load of `contestant` against its running server.
pub fn run(
    contestant: Contestant,
    server: &Running,
    seconds: u32,
    programs: &Path,
    scratch: &Path,
) -> anyhow::Result<Report> {
    let json = scratch.join("load.json");
    let mut command = match contestant.load {
        Load::FanOut { receivers, stopped, rate } => {
            let mut command = pinned(CORE, &programs.join("peer"));
            command.args([contestant.server.protocol(), "--secret", SECRET]);
            arguments(&mut command, "--receivers", receivers);
            arguments(&mut command, "--stopped", stopped);
            arguments(&mut command, "--rate", rate);
            command.stdout(fs::File::create(&json)?);
            command
        }
        Load::Echo { rate } => {
            let mut command = sailfish_load(programs, "echo", ECHO_CONNECTIONS, &json);
            arguments(&mut command, "--rate", rate);
            command
        }
        Load::Chat { rate } => {
            let mut command = sailfish_load(programs, "chat", CHAT_CONNECTIONS, &json);
            arguments(&mut command, "--rate", rate);
            arguments(&mut command, "--payload", PAYLOAD_BYTES);
            command
        }
        Load::Room { members, rate } => {
            let mut command = sailfish_load(programs, "room", members, &json);
            arguments(&mut command, "--rate", rate);
            arguments(&mut command, "--payload", PAYLOAD_BYTES);
            command
        }
        Load::Idle => sailfish_load(programs, "idle", IDLE_CONNECTIONS, &json),
        Load::Heartbeats { rate } => {
            let mut command = sailfish_load(programs, "idle", HEARTBEAT_CONNECTIONS, &json);
            let period = f64::from(HEARTBEAT_CONNECTIONS) / f64::from(rate);
            arguments(&mut command, "--heartbeat", period);
            command
        }
        Load::Growth { from, to } => {
            let mut command = sailfish_load(programs, "idle", to - from, &json);
            arguments(&mut command, "--first-user", FIRST_USER_OF_GROWTH);
            command
        }
        // Connections a second do not depend on the seconds that everybody stays.
        Load::Storm => sailfish_load(programs, "storm", STORM_CONNECTIONS, &json),
    };
    targets(&mut command, server);
    arguments(&mut command, "--seconds", seconds);
    let pids: Vec<String> = server.measured.iter().map(ToString::to_string).collect();
    arguments(&mut command, "--server-pid", pids.join(","));
    let before = match contestant.load {
        Load::Growth { from, .. } => Some(Before::there(from, server, programs, scratch)?),
        _ => None,
    };
    let log = scratch.join("load.log");
    command.stdin(Stdio::null()).stderr(fs::File::create(&log)?);
    // A report left by another run must not be taken for this one's.
    if !matches!(contestant.load, Load::FanOut { .. }) && json.exists() {
        fs::remove_file(&json)?;
    }
    let status =
        wait(command.spawn().context("starting the load")?, Duration::from_secs(seconds.into()) + OVERHEAD)?;
    drop(before);
    // `sailfish load` fails when something was lost, and reports all the same.
    let report = fs::read(&json).ok().and_then(|text| serde_json::from_slice(&text).ok());
    report.with_context(|| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        format!("the load ended ({status}) without a report: {}", log.trim())
    })
}

/// Connections that are there before what is measured, until this is dropped.
struct Before(Child);

impl Before {
    /// Waits until they are logged in.
    fn there(connections: u32, server: &Running, programs: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let files = || -> anyhow::Result<usize> {
            server.measured.iter().map(|pid| Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())).sum()
        };
        let wanted = files()? + connections as usize - OWN_FILES;
        let mut command = sailfish_load(programs, "idle", connections, &scratch.join("before.json"));
        targets(&mut command, server);
        arguments(&mut command, "--seconds", OVERHEAD.as_secs());
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let before = Self(command.spawn().context("starting the load")?);
        let deadline = Instant::now() + OVERHEAD / 2;
        while files()? < wanted {
            ensure!(Instant::now() < deadline, "{connections} connections do not come");
            sleep(Duration::from_millis(20));
        }
        sleep(SETTLE); // the last of them log in, and a backend hears of all
        Ok(before)
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sailfish_load(programs: &Path, scenario: &str, connections: u32, json: &Path) -> Command {
    let mut command = pinned(CORE, &programs.join("sailfish"));
    command.args(["load", scenario, "--json"]).arg(json);
    arguments(&mut command, "--connections", connections);
    arguments(&mut command, "--warmup", WARM_UP_SECONDS);
    command.env("SAILFISH_TOKEN__SECRET", SECRET).stdout(Stdio::null());
    command
}

fn targets(command: &mut Command, server: &Running) {
    let targets: Vec<String> =
        server.addresses.iter().map(|address| format!("{}{address}", server.scheme)).collect();
    arguments(command, "--target", targets.join(","));
    if !server.scheme.is_empty() {
        command.arg("--insecure"); // whom it trusts costs the server nothing
    }
}

fn arguments(command: &mut Command, option: &str, value: impl ToString) {
    command.arg(option).arg(value.to_string());
}

fn wait(mut child: Child, timeout: Duration) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("the load did not end within {timeout:?}");
        }
        sleep(Duration::from_millis(20));
    }
}
