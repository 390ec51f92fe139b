//! Sends batches of spans to the collector, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use logs::warn;
use tokio::sync::{mpsc, oneshot};
use trust::{HttpClient, Kept, Roots, ask};

use crate::otlp;
use crate::span::Span;
use crate::{Counts, Sampling};

/// Spans of a request.
const BATCH_MAX: usize = 512;
/// How long spans wait for others before they leave.
const GATHER_TIME: Duration = Duration::from_secs(1);
/// How long a try may take, as OpenTelemetry's exporters do it.
const TRY_TIME: Duration = Duration::from_secs(10);
/// Tries of a batch before its spans are dropped, and the wait after the first; it doubles with each.
const TRIES_MAX: u32 = 5;
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait that a collector may ask for.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long an unused connection is kept: shorter than servers commonly do.
const IDLE_TIME: Duration = Duration::from_secs(15);

pub struct Export {
    client: HttpClient,
    uri: Uri,
    counts: Arc<Counts>,
}

/// What came of a try.
enum Tried {
    /// The collector has them, but for so many.
    Taken { refused: u64 },
    /// It will never take them.
    Refused(String),
    /// Another try may do, after this time at least if the collector says one.
    Failed(String, Option<Duration>),
}

impl Export {
    pub fn new(uri: Uri, roots: &Roots, counts: Arc<Counts>) -> Result<Self, String> {
        let kept = Kept { count: 1, time: IDLE_TIME };
        let client = roots.http_client(&uri.to_string(), TRY_TIME, kept)?;
        Ok(Self { client, uri, counts })
    }

    /// Exports until `ended`, and then what waits, with one try for each batch.
    pub async fn run(self, mut spans: mpsc::Receiver<Span>, mut ended: oneshot::Receiver<()>) {
        let (mut is_ending, mut batch) = (false, Vec::new());
        loop {
            tokio::select! {
                biased; // from the end on nothing is waited for
                _ = &mut ended, if !is_ending => { // or dropped: then nobody waits for the end
                    is_ending = true;
                    spans.close();
                    continue;
                }
                () = gather(&mut spans, &mut batch) => {}
            }
            if batch.is_empty() {
                return; // nobody can record any more
            }
            self.deliver(&batch, &mut ended, &mut is_ending).await;
            batch.clear();
            if is_ending {
                spans.close();
            }
        }
    }

    /// Sends a batch until it is taken, refused, or out of tries.
    async fn deliver(&self, batch: &[Span], ended: &mut oneshot::Receiver<()>, is_ending: &mut bool) {
        let body = Bytes::from(otlp::body(batch));
        let count = batch.len() as u64;
        for tries in 1.. {
            let (why, asked) = match self.send(body.clone(), count).await {
                Tried::Taken { refused } => {
                    add(&self.counts.exported, count - refused);
                    return add(&self.counts.dropped_refused, refused);
                }
                Tried::Refused(why) => {
                    add(&self.counts.tries_failed, 1);
                    add(&self.counts.dropped_refused, count);
                    return warn!(why, spans = count, "the trace collector refused spans; they are dropped");
                }
                Tried::Failed(why, asked) => (why, asked),
            };
            add(&self.counts.tries_failed, 1);
            if tries >= TRIES_MAX || *is_ending {
                add(&self.counts.dropped_unreachable, count);
                return warn!(why, spans = count, "the trace collector takes no spans; they are dropped");
            }
            let usual = jittered(RETRY_FIRST * (1 << (tries - 1)));
            let wait = asked.unwrap_or_default().max(usual).min(RETRY_MAX);
            tokio::select! {
                biased; // no further wait once it is time to end
                _ = &mut *ended, if !*is_ending => *is_ending = true,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn send(&self, body: Bytes, count: u64) -> Tried {
        match tokio::time::timeout(TRY_TIME, self.post(body, count)).await {
            Ok(Ok(tried)) => tried,
            Ok(Err(why)) => Tried::Failed(why, None),
            Err(_) => Tried::Failed(format!("no answer within {} s", TRY_TIME.as_secs()), None),
        }
    }

    async fn post(&self, body: Bytes, count: u64) -> Result<Tried, String> {
        let host = self.uri.authority().expect("the address was checked").as_str();
        let request = Request::post(self.uri.clone())
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("OTel-OTLP-Exporter-sailfish/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .expect("all of it is made of sound parts");
        let response = ask(&self.client, request).await?;
        let (status, asked) = (response.status(), retry_after(&response));
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map(|answer| answer.to_bytes());
        Ok(match status {
            StatusCode::OK => {
                let (refused, why) = otlp::rejected(&answer.unwrap_or_default(), count);
                if refused > 0 {
                    warn!(why, spans = refused, "the trace collector refused some spans");
                }
                Tried::Taken { refused }
            }
            status if status.is_success() => Tried::Taken { refused: 0 },
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Tried::Failed(format!("status {status}"), asked),
            status => Tried::Refused(format!("status {status}")),
        })
    }
}

/// Waits for a span, and then a while for more.
async fn gather(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    if batch.is_empty() && spans.recv_many(batch, BATCH_MAX).await == 0 {
        return;
    }
    let more = async {
        while batch.len() < BATCH_MAX && spans.recv_many(batch, BATCH_MAX - batch.len()).await > 0 {}
    };
    let _ = tokio::time::timeout(GATHER_TIME, more).await; // then they leave as they are
}

/// How long the collector asks to be left alone: in seconds, the form that OTLP's servers use.
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Half of a wait to all of it, so that nodes that failed together do not come back together.
fn jittered(wait: Duration) -> Duration {
    let chance = crate::Context::begin(Sampling::default()).span;
    wait / 2 + (wait / 2).mul_f64(chance as f64 / u64::MAX as f64)
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
