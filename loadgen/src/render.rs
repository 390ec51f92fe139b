//! The figures of a run, as people get them.

use std::fmt::Write;

use crate::report::{Percentiles, Report};

/// The widest line: a terminal of the usual width shows it whole.
const LINE_CHARS: usize = 80;
/// The widest bar of the plot.
const BAR_CHARS: f64 = 50.0;
/// Figures of a line; the others follow below them.
const CELLS_MAX: usize = 2;

/// The report as text: a table, a plot of the percentiles, and what should be known.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let line = |text: &mut String, title: &str, cells: &[(String, &str)]| {
        for (at, cells) in cells.chunks(CELLS_MAX).enumerate() {
            let title = if at == 0 { title } else { "" };
            let cells: Vec<_> = cells.iter().map(|(value, unit)| format!("{value:>13} {unit:<18}")).collect();
            put(text, format!("  {title:<12}{}", cells.concat()).trim_end());
        }
    };
    let count = |value: u64| grouped(&value.to_string());
    let decimal = |value: f64| grouped(&format!("{value:.1}"));
    line(
        &mut text,
        "connections",
        &[(count(report.connected), "connected"), (count(report.failed), "failed")],
    );
    line(
        &mut text,
        "operations",
        &[
            (count(report.sent), "sent"),
            (count(report.accepted), "accepted"),
            (count(report.delivered), "delivered"),
            (count(report.acked), "acked"),
        ],
    );
    line(
        &mut text,
        "faults",
        &[
            (count(report.lost), "lost"),
            (count(report.duplicated), "duplicated"),
            (count(report.out_of_order), "out of order"),
            (count(report.handed_over), "handed over"),
        ],
    );
    line(&mut text, "throughput", &[(decimal(report.per_second), "a second")]);
    if let Some(storm) = &report.storm {
        let figures = |seconds: f64, rate: f64, cpu: Option<f64>| {
            let mut figures = vec![(format!("{seconds:.3}"), "s"), (decimal(rate), "a second")];
            figures.extend(cpu.map(|cpu| (decimal(cpu), "us CPU of the server each")));
            figures
        };
        let (connect, back) = (storm.connect_cpu_us, storm.reconnect_cpu_us);
        line(&mut text, "connect", &figures(storm.connect_seconds, storm.connects_per_second, connect));
        line(&mut text, "all back", &figures(storm.reconnect_seconds, storm.reconnects_per_second, back));
    }
    if report.on_targets.len() > 1 {
        let on_targets =
            report.on_targets.iter().map(|(target, clients)| format!("{} on {target}", count(*clients)));
        let on_targets = on_targets.collect::<Vec<_>>().join(", ");
        put_wrapped(&mut text, &format!("  {:<12}  ", "at the end"), &on_targets);
    }
    let mut cost = Vec::new();
    if let Some(cpu) = report.server.cpu_us_per_op {
        cost.push((decimal(cpu), "us CPU an operation"));
    }
    // A server that held as many connections before does not grow again.
    if let Some(rss) = report.server.rss_bytes_per_connection.filter(|rss| *rss > 0.0) {
        cost.push((grouped(&format!("{rss:.0}")), "bytes a connection"));
    }
    if !cost.is_empty() {
        line(&mut text, "server", &cost);
    }
    let mut cost = vec![(format!("{:.2}", report.generator.cores), "cores")];
    if let Some(cpu) = report.generator.cpu_us_per_op {
        cost.insert(0, (decimal(cpu), "us CPU an operation"));
    }
    line(&mut text, "generator", &cost);
    if report.login_us.max > 0.0 {
        distributions(&mut text, report);
    }
    plot(&mut text, report);
    let remarks = report.remarks();
    if !remarks.is_empty() {
        put(&mut text, "");
    }
    for remark in remarks {
        put_wrapped(&mut text, "  ! ", &remark);
    }
    text
}

fn distributions(text: &mut String, report: &Report) {
    put(text, "");
    let heads = ["p50", "p90", "p99", "p99.9", "p99.99", "max"].map(|head| format!("{head:>10}"));
    put(text, &format!("  {:<16}{}", "us", heads.concat()));
    let mut row = |title: &str, figures: &Percentiles| {
        if figures.max > 0.0 {
            let figures = [figures.p50, figures.p90, figures.p99, figures.p999, figures.p9999, figures.max];
            let cells: Vec<_> = figures.iter().map(|us| format!("{:>10}", narrow(*us))).collect();
            put(text, &format!("  {title:<16}{}", cells.concat()));
        }
    };
    if report.storm.is_none() {
        row("latency", &report.latency_us);
    }
    for (at, part) in report.parts.iter().enumerate() {
        row(&format!("  part {}", at + 1), part);
    }
    row("send-ack", &report.send_ack_us);
    row("connect to login", &report.login_us);
    match &report.storm {
        Some(storm) => row("reset to login", &storm.reconnect_us),
        None => row("end to login", &report.reconnect_us),
    }
    let lag = report.schedule_lag_us;
    if lag.max > 0.0 {
        put(text, &format!("  {:<16}{:>30}{:>30}", "schedule lag", narrow(lag.p99), narrow(lag.max)));
    }
}

/// Bars as long as the logarithm of the latency.
fn plot(text: &mut String, report: &Report) {
    let samples = &report.latency;
    if samples.is_empty() {
        return;
    }
    let (least, most) = (samples.min_us().max(0.1), samples.max_us().max(0.2));
    put(text, "");
    let steps =
        [("min", 0.0), ("p10", 0.1), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95)];
    let tail = [("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];
    for (name, quantile) in steps.into_iter().chain(tail) {
        let us = samples.quantile_us(quantile);
        let share = ((us.max(least) / least).ln() / (most / least).ln().max(1e-9)).clamp(0.0, 1.0);
        let bar = "#".repeat(1 + (share * (BAR_CHARS - 1.0)).round() as usize);
        put(text, &format!("  {name:>7} {:>12} us |{bar}", grouped(&format!("{us:.1}"))));
    }
    put(text, &format!("  {:>24}(logarithmic, {} samples)", "", grouped(&samples.len().to_string())));
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes everything");
}

/// Puts words after a beginning, on as many lines as they take, each under the first.
fn put_wrapped(text: &mut String, beginning: &str, words: &str) {
    let indent = " ".repeat(beginning.chars().count());
    let mut line = beginning.to_owned();
    let mut is_first = true;
    for word in words.split(' ') {
        if !is_first && line.chars().count() + 1 + word.chars().count() > LINE_CHARS {
            put(text, &line);
            line.clone_from(&indent);
            is_first = true;
        }
        if !is_first {
            line.push(' ');
        }
        line.push_str(word);
        is_first = false;
    }
    put(text, &line);
}

/// A time in us in at most 9 characters; one of 10 s and more is in ms, and says so.
fn narrow(us: f64) -> String {
    match us {
        ..99_999.95 => grouped(&format!("{us:.1}")),
        ..9_999_999.5 => grouped(&format!("{us:.0}")),
        _ => format!("{:.0}ms", us / 1e3),
    }
}

/// A number with commas between its thousands.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_of_80_columns_shows_it_whole() {
        let mut text = String::new();
        put_wrapped(&mut text, "  ! ", &"words and more words ".repeat(10));
        put_wrapped(&mut text, "  ! ", &format!("a {} b", "x".repeat(100)));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= LINE_CHARS || line.contains("xxx")), "{text}");
        assert!(lines[1].starts_with("    ") && !lines[1].starts_with("     "), "{text}");
        for (us, wanted) in [
            (0.04, "0.0"),
            (99_999.9, "99,999.9"),
            (99_999.96, "100,000"),
            (9_999_999.0, "9,999,999"),
            (9_999_999.5, "10000ms"),
            (3.6e9, "3600000ms"),
        ] {
            assert_eq!(narrow(us), wanted);
            assert!(narrow(us).len() < 10, "it does not touch its neighbour");
        }
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(grouped("0"), "0");
        assert_eq!(grouped("999"), "999");
        assert_eq!(grouped("1000"), "1,000");
        assert_eq!(grouped("-1234567.8"), "-1,234,567.8");
    }
}
