//! What is counted, and the page of `/metrics`: the text format of Prometheus, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_server::process::Process;

use crate::app::App;
use crate::queue::{Queue, Topic};

/// Upper bounds of the latency buckets, in ms.
const BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 30_000];

/// Counts since the start of the process.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Route, Requests>>,
    /// By the names of their families.
    counters: Mutex<BTreeMap<&'static str, Counters>>,
}

/// A family, and its counts by the label's value.
type Counters = (&'static Family, BTreeMap<&'static str, u64>);

/// Counters of one name, told apart by one label.
pub struct Family {
    /// With the prefix `sailfish_backend_`, ending in `_total`.
    pub name: &'static str,
    /// What it counts, as a sentence.
    pub help: &'static str,
    /// The label's name.
    pub label: &'static str,
}

/// A method, and a path with the names of its parameters.
type Route = (String, String);

#[derive(Default)]
struct Requests {
    by_status: BTreeMap<u16, u64>,
    /// The last one is of those above all bounds.
    buckets: [u64; BUCKETS_MS.len() + 1],
    sum: Duration,
}

impl Metrics {
    /// Counts.
    pub fn add(&self, family: &'static Family, value: &'static str, by: u64) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, values) = counters.entry(family.name).or_insert_with(|| (family, BTreeMap::new()));
        *values.entry(value).or_default() += by;
    }

    /// A request that was answered.
    pub fn request(&self, method: &str, path: &str, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = requests.entry((method.to_owned(), path.to_owned())).or_default();
        *requests.by_status.entry(status).or_default() += 1;
        let bucket = BUCKETS_MS.partition_point(|bound_ms| Duration::from_millis(*bound_ms) < took);
        requests.buckets[bucket] += 1;
        requests.sum += took;
    }

    fn write_requests(&self, page: &mut Page) {
        let all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        page.family("requests_total", "counter", "Requests that were answered.");
        for ((method, path), requests) in &*all {
            for (status, count) in &requests.by_status {
                let status = status.to_string();
                page.sample(&[("method", method), ("path", path), ("status", &status)], count);
            }
        }
        page.family("request_seconds", "histogram", "Duration of requests.");
        for ((method, path), requests) in &*all {
            let labels = [("method", method.as_str()), ("path", path.as_str())];
            let mut below = 0;
            for (count, bound_ms) in requests.buckets.iter().zip(BUCKETS_MS) {
                below += count;
                page.bucket(&labels, &(bound_ms as f64 / 1_000.0).to_string(), below);
            }
            let all = below + requests.buckets[BUCKETS_MS.len()];
            page.bucket(&labels, "+Inf", all);
            page.end_of_histogram(&labels, requests.sum.as_secs_f64(), all);
        }
    }

    fn write_counters(&self, page: &mut Page) {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        for (family, values) in counters.values() {
            page.family(family.name.trim_start_matches(PREFIX), "counter", family.help);
            for (value, count) in values {
                page.sample(&[(family.label, value)], count);
            }
        }
    }
}

/// The page. What does not answer in time is left out, and its `_up` is 0.
pub async fn text(app: &App) -> String {
    let mut page = Page::default();
    page.family("build_info", "gauge", "The version that runs.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    app.metrics.write_requests(&mut page);
    app.metrics.write_counters(&mut page);
    write_http(app, &mut page);
    write_queue(app, &mut page).await;
    write_gifts(app, &mut page);
    write_webhooks(app, &mut page);
    let (hits, misses) = app.cache.counts();
    page.family("cache_reads_total", "counter", "Reads through the cache.");
    page.sample(&[("result", "hit")], hits);
    page.sample(&[("result", "miss")], misses);
    write_pools(app, &mut page);
    write_replicas(app, &mut page);
    page.process(Process::read());
    page.text
}

/// Connections to the database.
fn write_pools(app: &App, page: &mut Page) {
    let pools = app.db.pools();
    page.family("database_connections", "gauge", "Connections of each pool.");
    for (pool, counts) in &pools {
        page.sample(&[("pool", pool), ("state", "idle")], counts.idle);
        page.sample(&[("pool", pool), ("state", "used")], counts.used);
    }
    page.family("database_waiting", "gauge", "Callers that wait for a connection of the pool.");
    for (pool, counts) in &pools {
        page.sample(&[("pool", pool)], counts.waiting);
    }
    page.family(
        "database_connections_closed_total",
        "counter",
        "Connections closed because a statement on them was abandoned, or the database failed.",
    );
    for (pool, counts) in &pools {
        page.sample(&[("pool", pool)], counts.closed);
    }
}

/// Gifts, and what is pushed to clients.
fn write_gifts(app: &App, page: &mut Page) {
    page.family("gift_events_total", "counter", "Results of gifts, and of their batches.");
    for (event, count) in app.gifts.counts() {
        page.sample(&[("event", event)], count);
    }
    page.family("gifts_under_way", "gauge", "Gifts with a caller that waits.");
    page.sample(&[], app.gifts.under_way());
    let [(_, held), (_, pushed), (_, lost)] = app.outbox.counts();
    page.family("outbox_messages", "gauge", "Messages to clients in memory.");
    page.sample(&[("state", "waiting")], held.saturating_sub(pushed));
    page.sample(&[("state", "pushed")], pushed);
    page.family("outbox_lost_total", "counter", "Messages to clients that were dropped.");
    page.sample(&[], lost);
    page.family("push_events_total", "counter", "Calls of the push API, and their messages.");
    for (event, count) in app.push.counts() {
        page.sample(&[("event", event)], count);
    }
}

/// Calls of an operator's services, and what they are still to be told.
fn write_webhooks(app: &App, page: &mut Page) {
    page.family("webhook_calls_total", "counter", "Calls of webhooks, by their outcomes.");
    for webhook in app.hooks.webhooks() {
        for (outcome, count) in webhook.counts() {
            page.sample(&[("hook", webhook.name()), ("outcome", outcome)], count);
        }
    }
    page.family("webhook_seconds_total", "counter", "How long calls of webhooks took together.");
    for webhook in app.hooks.webhooks() {
        page.sample(&[("hook", webhook.name())], webhook.took().as_secs_f64());
    }
    page.family("webhook_breaker_open", "gauge", "1 if the webhook's breaker is open.");
    for webhook in app.hooks.webhooks() {
        page.sample(&[("hook", webhook.name())], u8::from(webhook.is_open()));
    }
    page.family("webhook_events_total", "counter", "Events for webhooks, by what became of them.");
    for events in app.hooks.events() {
        for (result, count) in events.counts() {
            page.sample(&[("hook", events.webhook().name()), ("result", result)], count);
        }
    }
    page.family("webhook_events_waiting", "gauge", "Events that webhooks are to be told, about.");
    for events in app.hooks.events() {
        page.sample(&[("hook", events.webhook().name())], events.waiting());
    }
    page.family("before_send_under_way", "gauge", "Messages that a webhook is being asked about.");
    if let Some(hook) = &app.hooks.before_send {
        page.sample(&[], hook.under_way());
    }
}

/// The port itself.
fn write_http(app: &App, page: &mut Page) {
    let http = app.http.counts();
    page.family("http_connections", "gauge", "Open HTTP connections.");
    page.sample(&[], http.connections);
    page.family("http_requests", "gauge", "HTTP requests at work.");
    page.sample(&[], http.requests);
    page.family("http_bodies_bytes", "gauge", "Bytes of requests' bodies in memory.");
    page.sample(&[], http.bodies_bytes);
    page.family("http_accepted_total", "counter", "Accepted HTTP connections.");
    page.sample(&[], http.accepted);
    page.family("http_accept_errors_total", "counter", "Failed accepts of HTTP connections.");
    page.sample(&[], http.accept_errors);
    page.family(
        "http_refused_total",
        "counter",
        "HTTP connections and requests refused at a limit, by limit.",
    );
    for (reason, count) in http.refused {
        page.sample(&[("reason", reason)], count);
    }
    page.family("http_cut_total", "counter", "HTTP connections that the server closed first.");
    for (reason, count) in http.cut {
        page.sample(&[("reason", reason)], count);
    }
}

async fn write_queue(app: &App, page: &mut Page) {
    let mut counts = Vec::new();
    for topic in Topic::ALL.into_iter().filter(|topic| *topic != Topic::Probe) {
        match tokio::time::timeout(COUNT_TIME, app.queue.count(topic)).await {
            Ok(Ok(count)) => counts.push((topic.name(), count)),
            _ => break, // nor would it for the next one
        }
    }
    page.family("queue_up", "gauge", "1 if the durable queue answers.");
    page.sample(&[], u8::from(counts.len() == Topic::COUNT - 1));
    page.family("queue_jobs", "gauge", "Jobs that wait or are worked on.");
    for (topic, (jobs, _)) in &counts {
        page.sample(&[("topic", topic)], jobs);
    }
    page.family("queue_dead_letters", "gauge", "Jobs that failed too often.");
    for (topic, (_, dead)) in &counts {
        page.sample(&[("topic", topic)], dead);
    }
}

fn write_replicas(app: &App, page: &mut Page) {
    let lags = app.db.replica_lags_ms();
    page.family("replica_up", "gauge", "1 if the replica is in use.");
    for (index, (is_good, _)) in lags.iter().enumerate() {
        page.sample(&[("replica", &index.to_string())], u8::from(*is_good));
    }
    page.family("replica_lag_seconds", "gauge", "How far the replica is behind, if it answers.");
    for (index, (_, lag_ms)) in lags.iter().enumerate() {
        if let Some(lag_ms) = lag_ms {
            page.sample(&[("replica", &index.to_string())], *lag_ms as f64 / 1_000.0);
        }
    }
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Its samples follow.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.line("", &written(labels), value);
    }

    fn bucket(&mut self, labels: &[(&str, &str)], bound: &str, count: u64) {
        let labels = [labels, &[("le", bound)]].concat();
        self.line("_bucket", &written(&labels), count);
    }

    fn end_of_histogram(&mut self, labels: &[(&str, &str)], sum: f64, count: u64) {
        let labels = written(labels);
        self.line("_sum", &labels, sum);
        self.line("_count", &labels, count);
    }

    /// Under the names that Prometheus clients give them.
    fn process(&mut self, process: Process) {
        let text = &mut self.text;
        for (name, help, value) in process.gauges() {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        let (name, help) = ("process_cpu_seconds_total", "CPU time, user and system.");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", process.cpu_seconds);
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

const PREFIX: &str = "sailfish_backend_";
/// How long a scrape waits for the queue.
const COUNT_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_to_theirs() {
        let metrics = Metrics::default();
        for ms in [0, 1, 3, 40_000] {
            metrics.request("GET", "/a", 200, Duration::from_millis(ms));
        }
        let mut page = Page::default();
        metrics.write_requests(&mut page);
        for line in [
            "sailfish_backend_requests_total{method=\"GET\",path=\"/a\",status=\"200\"} 4",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"0.001\"} 2",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"0.005\"} 3",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"30\"} 3",
            "sailfish_backend_request_seconds_bucket{method=\"GET\",path=\"/a\",le=\"+Inf\"} 4",
            "sailfish_backend_request_seconds_count{method=\"GET\",path=\"/a\"} 4",
        ] {
            assert!(page.text.lines().any(|known| known == line), "{line}\n{}", page.text);
        }
    }
}
