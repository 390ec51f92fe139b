//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use http_server::process::Process;

use super::PREFIX;

/// Families of metrics, and their samples.
#[derive(Default)]
pub struct Text {
    text: String,
    name: &'static str,
}

impl Text {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
    }

    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.line("", &written(labels), value);
    }

    pub fn bucket(&mut self, labels: &[(&str, &str)], bound: &str, count: u64) {
        let labels = [labels, &[("le", bound)]].concat();
        self.line("_bucket", &written(&labels), count);
    }

    pub fn end_of_histogram(&mut self, labels: &[(&str, &str)], sum: f64, count: u64) {
        let labels = written(labels);
        self.line("_sum", &labels, sum);
        self.line("_count", &labels, count);
    }

    /// Writes the process's metrics, under the names that Prometheus clients use.
    pub fn process(&mut self, process: Process) {
        let text = &mut self.text;
        for (name, help, value) in process.gauges() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        let (name, help) = ("process_cpu_seconds_total", "CPU time, user and system.");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", process.cpu_seconds);
    }

    /// What was written.
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{PREFIX}{}{suffix}{labels} {value}", self.name);
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    let pairs = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", value.escape_default()));
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}
