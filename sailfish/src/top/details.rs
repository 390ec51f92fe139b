//! The details below the table: rates over time, latencies, drops and links, of one node or of all.

use std::time::Duration;

use super::lines::{Line, Style};
use super::model::{Model, Moment};
use super::page::Histogram;
use super::reading::{Counter, Latency, ROUTES, Role, Stage};
use super::rows::{Row, Subject};
use super::units;
use super::watched::Watched;

/// The narrowest and the widest graph.
const GRAPH_MIN: usize = 8;
const GRAPH_MAX: usize = 40;
/// The width of the texts beside the three graphs of a line.
const GRAPH_WORDS: usize = 38;

/// The details of the selected node, or of all that are asked.
pub fn lines(model: &Model, rows: &[Row], moment: Moment, width: usize) -> Vec<Line> {
    let nodes: Vec<&Watched> = match model.selected {
        Some(Subject::Known(id)) => return vec![title_of_known(id)],
        Some(Subject::Asked(at)) => model.nodes.get(at).into_iter().collect(),
        None => model.nodes.iter().collect(),
    };
    let mut lines = vec![title(model, rows)];
    lines.push(graphs(&nodes, width));
    lines.extend(latencies(&nodes));
    lines.extend(drops(&nodes, width));
    lines.extend(links(&nodes, moment.unix));
    lines
}

fn title_of_known(id: u16) -> Line {
    let mut line = Line::of(Style::Strong, format!("Node {id}"));
    line.push(Style::Plain, " is known by the word of others. Name its admin port by --admin to see more.");
    line
}

fn title(model: &Model, rows: &[Row]) -> Line {
    let selected = rows.iter().find(|row| Some(row.subject) == model.selected);
    let Some(row) = selected else { return Line::of(Style::Strong, "All nodes that are asked") };
    let name = row.id.map_or_else(|| "Node".to_owned(), |id| format!("Node {id}"));
    let mut line = Line::of(Style::Strong, name);
    if let Some(role) = row.role {
        line.push(Style::Plain, format!(", {}", role.name()));
    }
    if let Subject::Asked(at) = row.subject {
        line.push(Style::Plain, format!(", at {}", model.nodes[at].admin));
    }
    line
}

/// Messages in and out, and CPU, of the last readings.
fn graphs(nodes: &[&Watched], width: usize) -> Line {
    let graph = (width.saturating_sub(GRAPH_WORDS) / 3).clamp(GRAPH_MIN, GRAPH_MAX);
    let mut line = Line::default();
    for (name, counter, text) in [
        ("in/s", Counter::In, units::count as fn(f64) -> String),
        ("out/s", Counter::Out, units::count),
        ("cpu", Counter::Cpu, units::percent),
    ] {
        let of: Vec<&&Watched> =
            nodes.iter().filter(|node| counter == Counter::Cpu || counts(nodes, node)).collect();
        let rates = summed(&of, counter, graph);
        let latest = of.iter().filter_map(|node| node.rate(counter)).reduce(|sum, rate| sum + rate);
        line.push(Style::Quiet, format!("{name} "));
        line.push(Style::Good, units::sparkline(&rates, graph));
        line.push(Style::Strong, format!(" {:<6} ", latest.map_or_else(|| "-".into(), text)));
    }
    line
}

/// Whether a node's messages count in the sum of all: a message passes a gateway, a router, and maybe a
/// bridge, and must count once.
fn counts(nodes: &[&Watched], node: &Watched) -> bool {
    let has_clients =
        |node: &Watched| node.last().is_some_and(|last| matches!(last.role, Role::Up | Role::Gateway));
    has_clients(node) || !nodes.iter().any(|node| has_clients(node))
}

/// The sums of the last rates of several nodes, the latest at the end.
fn summed(nodes: &[&&Watched], counter: Counter, count: usize) -> Vec<Option<f64>> {
    let mut sums: Vec<Option<f64>> = Vec::new();
    for node in nodes {
        let rates = node.rates(counter, count);
        if sums.len() < rates.len() {
            sums.splice(0..0, std::iter::repeat_n(None, rates.len() - sums.len()));
        }
        let skipped = sums.len() - rates.len();
        for (sum, rate) in sums[skipped..].iter_mut().zip(rates) {
            *sum = rate.map(|rate| sum.unwrap_or_default() + rate).or(*sum);
        }
    }
    sums
}

/// A line for each class of routes that had messages.
fn latencies(nodes: &[&Watched]) -> Vec<Line> {
    let mut all = Latency::default();
    let mut span = Duration::ZERO;
    for node in nodes {
        let (latency, of_node) = node.latency();
        span = span.max(of_node);
        for (stage, other) in all.iter_mut().zip(&latency) {
            stage.iter_mut().zip(other).for_each(|(route, other)| route.add(other));
        }
    }
    let has_messages = |route: &usize| all.iter().any(|stage| stage[*route].count() > 0.0);
    let routes: Vec<usize> = (0..ROUTES.len()).filter(has_messages).collect();
    if routes.is_empty() {
        return match span {
            Duration::ZERO => Vec::new(),
            _ => vec![Line::of(
                Style::Quiet,
                format!("no message was timed in {}", units::age(span.as_secs_f64())),
            )],
        };
    }
    let title = format!("latency, {}", units::age(span.as_secs_f64().max(1.0)));
    let stages = Stage::ALL.map(|stage| beside(format!("{} p50", stage.name()), "p99".into()));
    let mut lines = vec![Line::of(Style::Quiet, format!("{title:<14}{}", stages.concat()))];
    for route in routes {
        let mut line = Line::of(Style::Plain, format!("{:<14}", ROUTES[route].replace('_', " ")));
        for histogram in all.iter().map(|stage| &stage[route]) {
            line.push(Style::Strong, percentiles(histogram));
        }
        lines.push(line);
    }
    lines
}

fn percentiles(histogram: &Histogram) -> String {
    let text = |part| histogram.quantile(part).map_or_else(|| "-".into(), units::seconds);
    beside(text(0.5), text(0.99))
}

/// The two columns of a stage.
fn beside(median: String, slowest: String) -> String {
    format!("{median:>13}{slowest:>7}")
}

/// How much is refused, dropped and lost in a second.
fn drops(nodes: &[&Watched], width: usize) -> Vec<Line> {
    let counters = [
        (Counter::Refused, "refused"),
        (Counter::Lossy, "lossy dropped"),
        (Counter::Undelivered, "undelivered"),
        (Counter::SlowReaders, "slow readers"),
        (Counter::LinkOverflows, "link overflows"),
        (Counter::LinkLosses, "lost with links"),
        (Counter::OtherDrops, "other drops"),
    ];
    let mut lines = Vec::new();
    let mut line = Line::of(Style::Quiet, "each second:");
    for (counter, name) in counters {
        let rates = nodes.iter().filter_map(|node| node.rate(counter));
        let Some(rate) = rates.reduce(|sum, rate| sum + rate) else { continue };
        let number = units::count(rate);
        if line.width() + name.len() + number.len() + 3 > width {
            lines.push(std::mem::replace(&mut line, Line::of(Style::Quiet, "            ")));
        }
        line.push(if number == "0" { Style::Plain } else { Style::Bad }, format!("  {name} {number}"));
    }
    if line.width() > 12 {
        lines.push(line);
    }
    lines
}

/// A line for each link, those without a connection first.
fn links(nodes: &[&Watched], now_unix: Duration) -> Vec<Line> {
    let mut links = Vec::new();
    for reading in nodes.iter().filter_map(|node| node.current()) {
        links.extend(reading.links.iter().map(|link| (link.is_up, reading.id, link)));
    }
    links.sort_by_key(|(is_up, id, link)| (*is_up, *id, link.node, link.shard));
    let line = |(is_up, id, link): &(bool, Option<u16>, &super::reading::Link)| {
        let from = id.map_or_else(|| "?".into(), |id| id.to_string());
        let age = now_unix.as_secs_f64() - link.since_ms as f64 / 1e3;
        let mut line = Line::of(Style::Quiet, format!("link {from} -> "));
        line.push(Style::Plain, format!("{} {} shard {}  ", link.role.name(), link.node, link.shard));
        line.push(if *is_up { Style::Good } else { Style::Bad }, if *is_up { "up" } else { "away" });
        let owner = if link.is_owner { ", owner," } else { "" };
        let queued = units::bytes(link.queued_bytes as f64);
        line.push(Style::Plain, format!("{owner} for {}, {queued} bytes queued", units::age(age)));
        line
    };
    links.iter().map(line).collect()
}
