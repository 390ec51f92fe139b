//! The report of a run: a page and its plots.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::plot::{Chart, Line};
use super::watch::Sample;
use super::{CHAT_RATE, GATEWAYS, Outcome, Plan, ROOM_RATE, count, dropped, namespace};
use crate::bench::machine::{date, describe};
use crate::root;

const QUANTILES: [(&str, &str); 6] =
    [("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"), ("p99.99", "p9999"), ("max", "max")];
const PHASES: [&str; 3] = ["hold", "storm", "router killed"];

/// A line of a plot: its name, and its value at a sample.
type Kind = (&'static str, fn(&Sample) -> f64);

/// Writes page and plots to `target`, or, when the run was a whole one, to docs/measurements; the page's
/// file.
pub fn write(plan: &Plan, outcome: &Outcome, target: &Path, is_whole: bool) -> anyhow::Result<PathBuf> {
    let folder = if is_whole { root().join("docs/measurements") } else { target.to_owned() };
    fs::create_dir_all(&folder)?;
    let name = format!("{}-million", date());
    let marks = marks(plan, outcome);
    let plots = [
        ("connections", "Pairs of sockets, and sessions", connections(&outcome.samples), false),
        ("cpu", "Cores in use", cpu(&outcome.samples), false),
        ("memory", "Memory, bytes", memory(&outcome.samples), false),
        ("latency", "Latency by percentile, us", latency(outcome), true),
    ];
    let mut page = text(plan, outcome);
    for (plot, title, lines, is_latency) in &plots {
        let places: Vec<&str> =
            if *is_latency { QUANTILES.map(|(name, _)| name).to_vec() } else { Vec::new() };
        let marks = if *is_latency { &[][..] } else { &marks };
        let chart = Chart { title, lines, marks, places: &places, logarithmic: *is_latency };
        fs::write(folder.join(format!("{name}-{plot}.svg")), chart.svg())?;
        writeln!(page, "\n![{title}]({name}-{plot}.svg)")?;
    }
    let file = folder.join(format!("{name}.md"));
    fs::write(&file, page)?;
    Ok(file)
}

/// When the measured time began: the router is killed at a known moment of it.
fn measured_from(plan: &Plan, outcome: &Outcome) -> Option<f64> {
    let from_kill = outcome.killed_s.map(|at| at - plan.hold_s - plan.storm_s);
    from_kill.or(outcome.connected_s)
}

fn marks(plan: &Plan, outcome: &Outcome) -> Vec<(f64, &'static str)> {
    let from = measured_from(plan, outcome);
    let marks = [
        (from, "hold"),
        (from.map(|from| from + plan.hold_s), "storm"),
        (outcome.killed_s, "router killed"),
        (outcome.reachable_s, "all reachable"),
    ];
    marks.into_iter().filter_map(|(at, name)| Some((at?, name))).collect()
}

fn connections(samples: &[Sample]) -> Vec<Line> {
    let mut sockets = Line::new("connections");
    sockets.points.extend(samples.iter().map(|sample| (sample.at_s, sample.connections)));
    let mut sessions = Line::new("known to their owners");
    let known = samples.iter().filter_map(|sample| Some((sample.at_s, sample.sessions? as f64)));
    sessions.points.extend(known);
    vec![sockets, sessions]
}

/// Cores that each role used between two looks. A process that went took its time with it.
fn cpu(samples: &[Sample]) -> Vec<Line> {
    let kinds: [Kind; 5] = [
        ("gateways", |sample| sample.gateways.cpu_s()),
        ("routers", |sample| sample.routers.cpu_s()),
        ("load", |sample| sample.load.cpu_s()),
        ("machine", |sample| sample.busy_s),
        ("of it, the kernel", |sample| sample.kernel_s),
    ];
    let line = |(name, value): &Kind| {
        let mut line = Line::new(name);
        for pair in samples.windows(2) {
            let seconds = (pair[1].at_s - pair[0].at_s).max(1e-3);
            line.points.push((pair[1].at_s, ((value(&pair[1]) - value(&pair[0])) / seconds).max(0.0)));
        }
        line
    };
    kinds.iter().map(line).collect()
}

fn memory(samples: &[Sample]) -> Vec<Line> {
    let kinds: [Kind; 4] = [
        ("kernel", |sample| sample.kernel_bytes),
        ("gateways", |sample| sample.gateways.bytes),
        ("routers", |sample| sample.routers.bytes),
        ("load", |sample| sample.load.bytes),
    ];
    let line = |(name, value): &Kind| {
        let mut line = Line::new(name);
        line.points.extend(samples.iter().map(|sample| (sample.at_s, value(sample))));
        line
    };
    kinds.iter().map(line).collect()
}

fn latency(outcome: &Outcome) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, figures) in distributions(outcome) {
        if figures["max"].as_f64().is_some_and(|max| max > 0.0) {
            let points = QUANTILES.iter().enumerate();
            let points =
                points.filter_map(|(at, (_, key))| Some((at as f64, figures[*key].as_f64()?))).collect();
            lines.push(Line { name, points });
        }
    }
    lines
}

/// What was measured in each phase, and its percentiles.
fn distributions(outcome: &Outcome) -> Vec<(String, &Value)> {
    let mut all = vec![("connect to login".to_owned(), &outcome.chat["login_us"])];
    for (at, phase) in PHASES.iter().enumerate() {
        all.push((format!("1:1, {phase}"), &outcome.chat["parts"][at]));
        all.push((format!("room, {phase}"), &outcome.room["parts"][at]));
    }
    all.push(("reset to login".to_owned(), &outcome.storm["reconnect_us"]));
    all
}

fn text(plan: &Plan, outcome: &Outcome) -> String {
    let mut page = String::new();
    let mut put = |line: &str| {
        page.push_str(line);
        page.push('\n');
    };
    put(&format!("# {} connections on one machine, {}\n", plan.connections(), date()));
    put(&format!("- Machine: {}, {:.1} GiB of memory", describe(), memory_gib()));
    put(&format!(
        "- Command: `cargo xtask million --connections {} --minutes {} --connect-rate {}`; no setting of the system is changed.",
        plan.connections(),
        plan.hold_s / 60.0,
        plan.connect_rate
    ));
    put(&format!(
        "- Processes: two routers, {GATEWAYS} gateways of one shard (nice 5), and {} load processes (nice 10) with one that leads each.",
        plan.loads(0).len()
    ));
    put(&format!(
        "- Limit met: {} open files a process. What is past it are direct descriptors of io_uring, which are bounded for each ring and not \
         for the process.",
        plan.open_files
    ));
    if let Ok(buckets) = namespace::buckets() {
        put(&format!(
            "- TCP's table of connections: {buckets} buckets. A network namespace of the command's own may have more than the machine; \
             with too few, the kernel looks through many sockets for each packet."
        ));
    }
    put(&format!(
        "- Load: {} users in pairs, {CHAT_RATE} reliable messages a second of all; {} members of one room that hears {ROOM_RATE} message a second; \
         {} users that are reset at once. Heartbeats at the period that the server tells.",
        plan.chat, plan.room, plan.storm
    ));
    put("\n## What came of it\n");
    match outcome.faults.as_slice() {
        [] => put("Nobody was dropped, and nothing was lost."),
        faults => faults.iter().for_each(|fault| put(&format!("- **{fault}**"))),
    }
    put("");
    let most = outcome.samples.iter().map(|sample| sample.connections).fold(0.0, f64::max);
    put(&format!("- Most connections at once: {most:.0}"));
    if let Some(at) = outcome.connected_s {
        put(&format!("- All were logged in after {at:.0} s."));
    }
    if let Some(seconds) = outcome.storm["storm"]["reconnect_seconds"].as_f64() {
        put(&format!("- After the reset of {} the last was back after {seconds:.1} s.", plan.storm));
    }
    if let Some((killed, reachable)) = outcome.killed_s.zip(outcome.reachable_s) {
        put(&format!(
            "- One of two routers was killed: the other knew every session, and all gateways agreed, {:.1} s later.",
            reachable - killed
        ));
    }
    put(&format!(
        "- Links that a living router gave up: {}; when all clients left at once, after that: {}",
        outcome.gateways_lost,
        outcome.gateways_lost_at_end - outcome.gateways_lost
    ));
    put("\n## Losses\n");
    put(
        "| load | connected | dropped | sent | accepted | delivered | lost | duplicated | out of order | unanswered | handed over | busy |",
    );
    put("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (name, report, resets) in [
        ("pairs", &outcome.chat, 0),
        ("room", &outcome.room, 0),
        ("storm", &outcome.storm, u64::from(plan.storm)),
    ] {
        let keys = [
            "sent",
            "accepted",
            "delivered",
            "lost",
            "duplicated",
            "out_of_order",
            "unanswered",
            "handed_over",
            "busy",
        ];
        let cells = keys.map(|key| count(report, key).to_string()).join(" | ");
        put(&format!("| {name} | {} | {} | {cells} |", count(report, "connected"), dropped(report, resets)));
    }
    put(
        "\nHanded over: the sender was told that the receiver was away. Busy: refused for the moment, and sent again.",
    );
    for (name, report) in [("pairs", &outcome.chat), ("room", &outcome.room), ("storm", &outcome.storm)] {
        for kind in ["disconnected", "connect_errors", "notices"] {
            for (why, times) in report[kind].as_object().into_iter().flatten() {
                put(&format!("- {name}: {} {why} x {times}", kind.replace('_', " ")));
            }
        }
    }
    put("\n## Latency\n");
    put(&format!("| us | {} |", QUANTILES.map(|(name, _)| name).join(" | ")));
    put("|---|---:|---:|---:|---:|---:|---:|");
    for (name, figures) in distributions(outcome) {
        let cells =
            QUANTILES.map(|(_, key)| figures[key].as_f64().map_or(String::new(), |us| format!("{us:.0}")));
        put(&format!("| {name} | {} |", cells.join(" | ")));
    }
    put(&format!(
        "\nThe generator's schedule lag (from the intended time to the write), pairs: p99 {} us, max {} us.",
        outcome.chat["schedule_lag_us"]["p99"], outcome.chat["schedule_lag_us"]["max"]
    ));
    put("\n## CPU\n");
    put(
        "Cores, on average; the kernel's part of each process is in its role, and once more in the last column with all interrupts.\n",
    );
    put("| phase | gateways | routers | load | machine | of it, the kernel |");
    put("|---|---:|---:|---:|---:|---:|");
    for (name, from, until) in phases(plan, outcome) {
        if let Some(cells) = mean_cores(&outcome.samples, from, until) {
            let cells: Vec<_> = cells.iter().map(|cores| format!("{cores:.2}")).collect();
            put(&format!("| {name} | {} |", cells.join(" | ")));
        }
    }
    put("\n## Memory\n");
    let at = measured_from(plan, outcome).map_or(f64::MAX, |from| from + plan.hold_s);
    if let Some(sample) = outcome.samples.iter().rfind(|sample| sample.at_s <= at) {
        put(&format!(
            "At {:.0} s, with {:.0} connections (both ends are here):\n",
            sample.at_s, sample.connections
        ));
        put("| kind | MB | bytes a connection |");
        put("|---|---:|---:|");
        for line in memory(std::slice::from_ref(sample)) {
            let bytes = line.points.first().map_or(0.0, |(_, bytes)| *bytes);
            put(&format!(
                "| {} | {:.0} | {:.0} |",
                line.name,
                bytes / 1e6,
                bytes / sample.connections.max(1.0)
            ));
        }
        put(&format!("\nStill available: {:.1} GB.", sample.available_bytes / 1e9));
    }
    page
}

fn phases(plan: &Plan, outcome: &Outcome) -> Vec<(&'static str, f64, f64)> {
    let end = outcome.samples.last().map_or(0.0, |sample| sample.at_s);
    let Some(from) = measured_from(plan, outcome) else { return vec![("all", 0.0, end)] };
    let (storm, killed) = (from + plan.hold_s, from + plan.hold_s + plan.storm_s);
    vec![
        ("connect and log in", 0.0, from),
        (PHASES[0], from, storm),
        (PHASES[1], storm, killed),
        (PHASES[2], killed, killed + plan.killed_s),
    ]
}

/// The mean of each line of the plot of CPU between two times.
fn mean_cores(samples: &[Sample], from: f64, until: f64) -> Option<Vec<f64>> {
    let within: Vec<Sample> =
        samples.iter().filter(|sample| (from..=until).contains(&sample.at_s)).cloned().collect();
    let seconds = within.last()?.at_s - within.first()?.at_s;
    let mean = |line: &Line| {
        let mut before = within[0].at_s;
        let mut sum = 0.0;
        for (at, cores) in &line.points {
            sum += cores * (at - before);
            before = *at;
        }
        sum / seconds
    };
    (seconds > 0.0).then(|| cpu(&within).iter().map(mean).collect())
}

fn memory_gib() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::million::watch::Use;

    fn sample(at_s: f64, user_s: f64) -> Sample {
        let gateways = Use { user_s, ..Use::default() };
        Sample { at_s, gateways, connections: 10.0, ..Sample::default() }
    }

    #[test]
    fn means_weigh_by_time_and_a_role_that_ends_uses_nothing() {
        let samples = [sample(0.0, 0.0), sample(1.0, 1.0), sample(4.0, 1.0), sample(5.0, 0.0)];
        assert_eq!(mean_cores(&samples, 0.0, 4.0).unwrap_or_default()[0], 0.25);
        assert_eq!(mean_cores(&samples, 4.0, 5.0).unwrap_or_default()[0], 0.0);
        assert_eq!(mean_cores(&samples, 9.0, 10.0), None);
    }

    #[test]
    fn a_run_without_reports_has_a_page_all_the_same() {
        let plan = Plan {
            chat: 800,
            room: 100,
            storm: 100,
            connect_rate: 10.0,
            open_files: 1000,
            hold_s: 60.0,
            storm_s: 20.0,
            killed_s: 20.0,
        };
        let faults = vec!["nobody came".to_owned()];
        let page = text(&plan, &Outcome { faults, samples: vec![sample(1.0, 0.0)], ..Outcome::default() });
        assert!(page.contains("**nobody came**") && page.contains("## Memory"), "{page}");
    }
}
