//! The exporter against collectors of all tempers, on real sockets.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests wait for real sockets, and may panic

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use traces::{Config, Context, Kind, Moment, QUEUE_MAX, Sampling, Source, Span, Traces};

const PATIENCE: Duration = Duration::from_secs(20);

/// A collector that answers each request with the next of these; the last one stays.
async fn collector(answers: &'static [&'static str]) -> (String, mpsc::UnboundedReceiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answers = answers.iter().peekable();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let (head, body) = loop {
                assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "a whole request");
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let _ = told.send((head, serde_json::from_str(&body).unwrap()));
            let answer = if answers.len() > 1 { answers.next() } else { answers.peek().copied() };
            let _ = stream.write_all(answer.unwrap().as_bytes()).await;
        }
    });
    (url, requests)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
const BUSY: &str =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BUSY_FOR_NO_TIME: &str =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const WRONG: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const PARTIAL: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"partialSuccess\":{\"rejectedSpans\":\"1\",\"errorMessage\":\"late\"}}";

fn config(url: &str) -> Config {
    Config { otlp_url: url.into(), ..Config::default() }
}

fn span(name: &'static str) -> Span {
    let source = Source { service: "test", node: None };
    Span::since(Moment::now(), source, Kind::Internal, Context::begin(Sampling::default()), None).named(name)
}

fn names(body: &Value) -> Vec<&str> {
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    spans.iter().map(|span| span["name"].as_str().unwrap()).collect()
}

async fn next(requests: &mut mpsc::UnboundedReceiver<(String, Value)>) -> (String, Value) {
    timeout(PATIENCE, requests.recv()).await.expect("a request in time").unwrap()
}

#[tokio::test]
async fn spans_leave_together_and_by_the_end_all_have_left() {
    let (url, mut requests) = collector(&[OK]).await;
    let (traces, exporter) = Traces::start(&config(&url)).unwrap();
    let unsampled = Context { is_sampled: false, ..Context::begin(Sampling::default()) };
    assert!(!traces.wants(&unsampled));
    traces.record(Span { context: unsampled, ..span("not sampled") });
    traces.record(span("a"));
    traces.record(span("b"));
    let (head, body) = next(&mut requests).await;
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("\r\ncontent-type: application/json\r\n"), "{head}");
    assert_eq!(names(&body), ["a", "b"]);
    traces.record(span("c"));
    exporter.unwrap().finish(PATIENCE).await;
    assert_eq!(names(&next(&mut requests).await.1), ["c"]);
    assert_eq!(traces.spans(), [("exported", 3), ("queue_full", 0), ("refused", 0), ("unreachable", 0)]);
}

#[tokio::test]
async fn a_collector_that_is_busy_is_left_alone_for_as_long_as_it_says() {
    let (url, mut requests) = collector(&[BUSY, OK]).await;
    let (traces, _exporter) = Traces::start(&config(&url)).unwrap();
    traces.record(span("a"));
    let first = next(&mut requests).await.1;
    let refused = Instant::now();
    assert_eq!(next(&mut requests).await.1, first, "the same batch");
    assert!(refused.elapsed() >= Duration::from_millis(1_900), "{:?}", refused.elapsed());
    while traces.spans()[0].1 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((traces.spans()[0], traces.tries_failed()), (("exported", 1), 1));
}

#[tokio::test]
async fn a_collector_that_asks_for_no_wait_is_left_alone_for_the_usual_time() {
    let (url, mut requests) = collector(&[BUSY_FOR_NO_TIME, OK]).await;
    let (traces, _exporter) = Traces::start(&config(&url)).unwrap();
    traces.record(span("a"));
    let first = next(&mut requests).await.1;
    let refused = Instant::now();
    assert_eq!(next(&mut requests).await.1, first, "the same batch");
    assert!(refused.elapsed() >= Duration::from_millis(450), "{:?}", refused.elapsed());
}

#[tokio::test]
async fn a_collector_of_endless_interim_answers_is_left_after_a_few() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (traces, _exporter) = Traces::start(&config(&url)).unwrap();
    traces.record(span("a"));
    let mut times = Vec::new();
    for _ in 0..3 {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        times.push(Instant::now());
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(40);
        let flood = async { while stream.write_all(&interim).await.is_ok() {} };
        timeout(Duration::from_secs(5), flood).await.expect("the exporter closes the connection");
    }
    let waits = [times[1] - times[0], times[2] - times[1]];
    assert!(waits[0] >= Duration::from_millis(450) && waits[1] >= Duration::from_millis(900), "{waits:?}");
    assert_eq!((traces.spans()[0].1, traces.tries_failed()), (0, 3));
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_nobody() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (traces, exporter) = Traces::start(&config(&url)).unwrap();
    let begun = Instant::now();
    // One batch is under way, the queue fills, and the rest is dropped.
    for _ in 0..4 * QUEUE_MAX {
        traces.record(span("a"));
        if begun.elapsed() < Duration::from_millis(100) {
            tokio::task::yield_now().await;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let dropped = traces.spans()[1].1;
    assert!((2 * QUEUE_MAX as u64..3 * QUEUE_MAX as u64).contains(&dropped), "{dropped}");
    assert_eq!(traces.spans()[0], ("exported", 0));
    let ending = Instant::now();
    exporter.unwrap().finish(Duration::from_millis(300)).await;
    assert!(ending.elapsed() < Duration::from_secs(2), "it does not hold up the end: {:?}", ending.elapsed());
}

#[tokio::test]
async fn what_a_collector_refuses_is_dropped_and_counted() {
    let (url, mut requests) = collector(&[WRONG, PARTIAL]).await;
    let (traces, exporter) = Traces::start(&config(&url)).unwrap();
    traces.record(span("a"));
    assert_eq!(names(&next(&mut requests).await.1), ["a"]);
    traces.record(span("b"));
    traces.record(span("c"));
    exporter.unwrap().finish(PATIENCE).await;
    assert_eq!(traces.spans(), [("exported", 1), ("queue_full", 0), ("refused", 2), ("unreachable", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_away_costs_a_batch_after_its_tries() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (traces, _exporter) = Traces::start(&config(&format!("http://{gone}"))).unwrap();
    traces.record(span("a"));
    while traces.spans()[3].1 == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((traces.spans()[3], traces.tries_failed()), (("unreachable", 1), 5));
}

#[tokio::test]
async fn without_a_collector_nothing_is_kept() {
    let (traces, exporter) = Traces::start(&Config::default()).unwrap();
    assert!(!traces.is_on() && exporter.is_none());
    traces.record(span("a"));
    assert_eq!(traces.spans()[0], ("exported", 0));
}
