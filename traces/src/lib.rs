//! Traces: which packet or request caused which work, and how long each step of it took.
//!
//! [`Context`] is a place in a trace as headers carry it (<https://www.w3.org/TR/trace-context/>).
//! [`Traces`] takes finished [`Span`]s and sends them in batches to an OpenTelemetry collector, by OTLP over
//! HTTP in JSON (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>, `opentelemetry-proto` 1.x).
//!
//! *Invariants:* work never waits for the collector: a span that finds the queue full is dropped and counted.
//! Memory is bounded by the queue and one batch. *Absent:* what is traced, and the names of spans.
#![allow(clippy::disallowed_methods, reason = "spans have times of the wall clock, and a task sends them")]

mod context;
mod export;
mod otlp;
mod span;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Uri;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use trust::Roots;

pub use context::{Context, Sampling};
pub use span::{Kind, Moment, Source, Span, Value};

/// Spans that wait for the exporter.
pub const QUEUE_MAX: usize = 4_096;

/// The section `[trace]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the collector is: `http://HOST:PORT`, to which `/v1/traces` is appended; empty: no spans.
    pub otlp_url: String,
    /// How many traces of a million are sampled.
    pub sampled_per_million: u32,
    /// Whom `https://` trusts.
    #[serde(skip)]
    pub roots: Roots,
}

impl Default for Config {
    fn default() -> Self {
        Self { otlp_url: String::new(), sampled_per_million: 1_000_000, roots: Roots::default() }
    }
}

impl Config {
    /// Whether it will do.
    ///
    /// # Errors
    /// The first key that will not, and what it wants.
    pub fn check(&self) -> Result<(), String> {
        if !self.otlp_url.is_empty() && spans_uri(&self.otlp_url).is_none() {
            return Err(
                "trace.otlp_url: want http://HOST:PORT or http://HOST:PORT/PATH, or the same with https"
                    .into(),
            );
        }
        if self.sampled_per_million > 1_000_000 {
            let given = self.sampled_per_million;
            return Err(format!("trace.sampled_per_million = {given}: want a number from 0 to 1000000"));
        }
        Ok(())
    }

    /// Which traces are sampled.
    pub fn sampling(&self) -> Sampling {
        Sampling::per_million(self.sampled_per_million)
    }
}

/// Where spans go, given `trace.otlp_url`.
fn spans_uri(url: &str) -> Option<Uri> {
    let uri: Uri = format!("{}/v1/traces", url.trim_end_matches('/')).parse().ok()?;
    let authority = uri.authority()?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    (is_known && !authority.host().is_empty() && !authority.as_str().contains('@')).then_some(uri)
}

/// Takes spans and has them exported. Clones share one queue. The default takes none.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    queue: mpsc::Sender<Span>,
    counts: Arc<Counts>,
}

/// Ends the exporter of [`Traces::start`].
pub struct Exporter {
    end: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// What became of spans.
#[derive(Default)]
struct Counts {
    exported: AtomicU64,
    /// The queue was full.
    dropped_full: AtomicU64,
    /// The collector refused them.
    dropped_refused: AtomicU64,
    /// The collector did not take them in their tries, or before the end.
    dropped_unreachable: AtomicU64,
    /// Batches that were not taken, once for each try.
    tries_failed: AtomicU64,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").field("is_on", &self.is_on()).finish()
    }
}

impl Traces {
    /// Starts the exporter on the runtime of the caller. `None` for a configuration without a collector.
    ///
    /// # Errors
    /// It is `https://`, and the system has no roots of certificates.
    pub fn start(config: &Config) -> Result<(Self, Option<Exporter>), String> {
        let Some(uri) = spans_uri(&config.otlp_url) else { return Ok((Self::default(), None)) };
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let (end, ended) = oneshot::channel();
        let counts = Arc::<Counts>::default();
        let exporter = export::Export::new(uri, &config.roots, counts.clone())?;
        let task = tokio::spawn(exporter.run(spans, ended));
        Ok((Self(Some(Arc::new(Inner { queue, counts }))), Some(Exporter { end, task })))
    }

    /// Whether a span of this trace would be exported.
    pub fn wants(&self, context: &Context) -> bool {
        self.0.is_some() && context.is_sampled
    }

    /// Takes a span that has ended. Drops it, and counts that, if too many wait.
    pub fn record(&self, span: Span) {
        let Some(inner) = &self.0 else { return };
        if span.context.is_sampled && inner.queue.try_send(span).is_err() {
            inner.counts.dropped_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether spans are exported.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Spans by what became of them.
    pub fn spans(&self) -> [(&'static str, u64); 4] {
        let get = |of: fn(&Counts) -> &AtomicU64| {
            self.0.as_ref().map_or(0, |inner| of(&inner.counts).load(Ordering::Relaxed))
        };
        [
            ("exported", get(|counts| &counts.exported)),
            ("queue_full", get(|counts| &counts.dropped_full)),
            ("refused", get(|counts| &counts.dropped_refused)),
            ("unreachable", get(|counts| &counts.dropped_unreachable)),
        ]
    }

    /// Tries to export a batch that failed.
    pub fn tries_failed(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.counts.tries_failed.load(Ordering::Relaxed))
    }
}

impl Exporter {
    /// Sends what waits, for `deadline` at most, and ends.
    pub async fn finish(mut self, deadline: Duration) {
        let _ = self.end.send(()); // the task may have ended
        if tokio::time::timeout(deadline, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_collector_is_checked() {
        let uri = |url| spans_uri(url).map(|uri| uri.to_string());
        assert_eq!(uri("http://c:4318").as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!(uri("https://c/otlp/").as_deref(), Some("https://c/otlp/v1/traces"));
        for wrong in ["c:4318", "http://", "http://u:geheim@c", "http://c?x=1", "grpc://c:4317", "/v1"] {
            let config = Config { otlp_url: wrong.into(), ..Config::default() };
            let said = config.check().unwrap_err();
            assert!(said.starts_with("trace.otlp_url: want ") && !said.contains("geheim"), "{said}");
        }
        assert_eq!(Config::default().check(), Ok(()));
        let config = Config { sampled_per_million: 1_000_001, ..Config::default() };
        assert!(config.check().unwrap_err().starts_with("trace.sampled_per_million = 1000001: want "));
    }
}
