//! The page of `/metrics`: the text format of Prometheus, version 0.0.4.

use std::time::Duration;

use http_server::process::Process;

use super::text::Text;
use crate::app::App;
use crate::queue::{Queue, Topic};

/// The page. A part that does not answer in time is left out, and its `_up` is 0.
pub async fn text(app: &App) -> String {
    let mut page = Text::default();
    page.family("build_info", "gauge", "The version that runs.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    app.metrics.write_requests(&mut page);
    app.metrics.write_counters(&mut page);
    write_http(app, &mut page);
    write_queue(app, &mut page).await;
    write_gifts(app, &mut page);
    write_webhooks(app, &mut page);
    write_traces(app, &mut page);
    let (hits, misses) = app.store.cache.counts();
    page.family("cache_reads_total", "counter", "Reads through the cache.");
    page.sample(&[("result", "hit")], hits);
    page.sample(&[("result", "miss")], misses);
    write_pools(app, &mut page);
    write_replicas(app, &mut page);
    page.process(Process::read());
    page.into_text()
}

/// Spans for the trace collector.
fn write_traces(app: &App, page: &mut Text) {
    page.family("trace_spans_total", "counter", "Spans, by outcome.");
    for (outcome, count) in app.store.traces.spans() {
        page.sample(&[("outcome", outcome)], count);
    }
    page.family("trace_tries_failed_total", "counter", "Batches of spans that were not taken, each try.");
    page.sample(&[], app.store.traces.tries_failed());
}

/// Connections to the database.
fn write_pools(app: &App, page: &mut Text) {
    let pools = app.store.db.pools();
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
fn write_gifts(app: &App, page: &mut Text) {
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
fn write_webhooks(app: &App, page: &mut Text) {
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
    page.family("webhook_events_total", "counter", "Events for webhooks, by result.");
    for events in app.hooks.events() {
        for (result, count) in events.counts() {
            page.sample(&[("hook", events.webhook().name()), ("result", result)], count);
        }
    }
    page.family("webhook_events_waiting", "gauge", "About how many events wait for webhooks.");
    for events in app.hooks.events() {
        page.sample(&[("hook", events.webhook().name())], events.waiting());
    }
    page.family("before_send_under_way", "gauge", "Messages that wait for a webhook's decision.");
    if let Some(hook) = &app.hooks.before_send {
        page.sample(&[], hook.under_way());
    }
}

/// The port itself.
fn write_http(app: &App, page: &mut Text) {
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

async fn write_queue(app: &App, page: &mut Text) {
    let mut counts = Vec::new();
    for topic in Topic::ALL {
        match tokio::time::timeout(COUNT_TIME, app.store.queue.count(topic)).await {
            Ok(Ok(count)) => counts.push((topic.name(), count)),
            _ => break, // nor would it for the next one
        }
    }
    page.family("queue_up", "gauge", "1 if the durable queue answers.");
    page.sample(&[], u8::from(counts.len() == Topic::COUNT));
    page.family("queue_jobs", "gauge", "Jobs that wait or are worked on.");
    for (topic, (jobs, _)) in &counts {
        page.sample(&[("topic", topic)], jobs);
    }
    page.family("queue_dead_letters", "gauge", "Jobs that failed too often.");
    for (topic, (_, dead)) in &counts {
        page.sample(&[("topic", topic)], dead);
    }
}

fn write_replicas(app: &App, page: &mut Text) {
    let lags = app.store.db.replica_lags_ms();
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

/// How long a scrape waits for the queue.
const COUNT_TIME: Duration = Duration::from_secs(2);
