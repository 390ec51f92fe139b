//! The text format of Prometheus, version 0.0.4: `# HELP` and `# TYPE` once a family, then its samples.

use std::fmt::{Display, Write};

/// A page of metrics.
#[derive(Default)]
pub struct Exposition(String);

/// Whether a value only grows.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Since the start; the name ends in `_total`.
    Counter,
    /// At the moment.
    Gauge,
}

impl Exposition {
    /// Begins a family. Its samples follow.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
        Family { page: &mut self.0, name }
    }

    /// A histogram family; `buckets` are upper bounds with cumulative counts, without `+Inf`.
    pub fn histogram<'b>(
        &mut self,
        name: &'static str,
        help: &str,
        series: impl Iterator<Item = (Labels<'b>, Vec<(f64, u64)>, u64, f64)>,
    ) {
        self.head(name, "histogram", help);
        for (labels, buckets, count, sum) in series {
            for (bound, cumulative) in buckets {
                let _ = writeln!(self.0, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}");
            }
            let _ = writeln!(self.0, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(self.0, "{name}_sum{{{labels}}} {sum}");
            let _ = writeln!(self.0, "{name}_count{{{labels}}} {count}");
        }
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// The samples of one family.
pub struct Family<'p> {
    page: &'p mut String,
    name: &'static str,
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        let name = self.name;
        let _ = match labels.0 {
            [] => writeln!(self.page, "{name} {value}"),
            _ => writeln!(self.page, "{name}{{{labels}}} {value}"),
        };
    }
}

/// Names and values; the values are plain words and numbers, so nothing is escaped.
#[derive(Clone, Copy)]
pub struct Labels<'a>(pub &'a [(&'static str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}=\"{value}\"")?;
        }
        Ok(())
    }
}
