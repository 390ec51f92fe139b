//! Calls of an operator's service: signed as the bridge's events are, with a time limit, a bounded answer and
//! a circuit breaker. docs/BACKEND.md ("Webhooks") is the contract.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use logs::warn;
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use traces::Context;
use trust::{HttpClient, Kept, Roots};

use crate::hex;

/// One address of an operator's service.
pub struct Webhook {
    /// Its name in metrics and logs.
    name: &'static str,
    /// An error says why there is none: the system has no root certificates.
    client: Result<HttpClient, String>,
    url: String,
    secret: Vec<u8>,
    /// How long a call may take, the wait for its turn included.
    timeout: Duration,
    turns: Semaphore,
    breaker: Mutex<Breaker>,
    counts: [AtomicU64; Outcome::ALL.len()],
    took_us: AtomicU64,
}

/// The outcome of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// 2xx.
    Answered,
    /// 400, 413 or 422: the service will never take this.
    Refused,
    /// Another status.
    Status,
    /// No answer in time.
    Late,
    /// The answer is longer than [`ANSWER_BYTES_MAX`], or breaks off.
    Cut,
    /// No connection, or one that ended.
    Unreachable,
    /// The answer is not in the format.
    Wrong,
    /// Not sent: the breaker is open.
    Open,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Answered,
        Self::Refused,
        Self::Status,
        Self::Late,
        Self::Cut,
        Self::Unreachable,
        Self::Wrong,
        Self::Open,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Status => "status",
            Self::Late => "late",
            Self::Cut => "cut",
            Self::Unreachable => "unreachable",
            Self::Wrong => "wrong",
            Self::Open => "breaker_open",
        }
    }
}

/// A call without a usable answer.
#[derive(Clone, Debug)]
pub struct Failure {
    pub outcome: Outcome,
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Webhook {
    /// Connects as needed.
    pub fn new(name: &'static str, url: &str, secret: &str, timeout: Duration, roots: &Roots) -> Self {
        Self {
            name,
            client: roots.http_client(url, timeout, Kept { count: CALLS_MAX, time: IDLE_TIME }),
            url: url.to_owned(),
            secret: secret.as_bytes().to_vec(),
            timeout,
            turns: Semaphore::new(CALLS_MAX),
            breaker: Mutex::default(),
            counts: Default::default(),
            took_us: AtomicU64::new(0),
        }
    }

    /// Posts `body` for `trace` and has `read` parse the answer's body; an error of `read` counts as a
    /// failure of the service.
    pub async fn call<T>(
        &self,
        body: Vec<u8>,
        now_ms: i64,
        trace: Option<&Context>,
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        if !self.breaker().may_send(begun) {
            self.count(Outcome::Open);
            return Err(failure(
                Outcome::Open,
                "the service failed again and again; it is not called for a while",
            ));
        }
        let posted = tokio::time::timeout(self.timeout, self.post(body, now_ms, trace)).await;
        let posted = posted.unwrap_or_else(|_| {
            Err(failure(Outcome::Late, format!("no answer within {} ms", self.timeout.as_millis())))
        });
        let answer = posted.and_then(|bytes| read(&bytes).map_err(|why| failure(Outcome::Wrong, why)));
        self.took_us.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        let outcome = answer.as_ref().map_or_else(|failure| failure.outcome, |_| Outcome::Answered);
        self.count(outcome);
        // A service that refuses is up.
        let works = matches!(outcome, Outcome::Answered | Outcome::Refused);
        if self.breaker().record(works, Instant::now()) {
            warn!(hook = self.name, "a webhook failed {FAILURES_MAX} times in a row; its breaker opens");
        }
        answer.inspect_err(|failure| warn!(hook = self.name, why = failure.why, "a webhook failed"))
    }

    async fn post(&self, body: Vec<u8>, now_ms: i64, trace: Option<&Context>) -> Result<Bytes, Failure> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-sailfish-timestamp", now_ms)
            .header("x-sailfish-signature", sign(&self.secret, now_ms, &body));
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.child().to_string());
        }
        let request = request.body(Full::from(body)).map_err(|error| failure(Outcome::Unreachable, error))?;
        let client = self.client.as_ref().map_err(|why| failure(Outcome::Unreachable, why))?;
        let sent = trust::ask(client, request).await;
        let response = sent.map_err(|why| failure(Outcome::Unreachable, why))?;
        let status = response.status();
        // A body that is not read to its end costs the connection.
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| failure(Outcome::Cut, format!("the answer is cut off: {error}")))?;
        match status {
            status if status.is_success() => Ok(body.to_bytes()),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(failure(Outcome::Refused, format!("status {status}")))
            }
            _ => Err(failure(Outcome::Status, format!("status {status}"))),
        }
    }

    /// Whether the breaker is open, so that a call would fail at once.
    pub fn is_open(&self) -> bool {
        self.breaker().open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Calls by their outcomes.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Outcome::ALL
            .into_iter()
            .map(|outcome| (outcome.name(), self.counts[outcome as usize].load(Ordering::Relaxed)))
    }

    /// How long all calls took together.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_us.load(Ordering::Relaxed))
    }

    fn count(&self, outcome: Outcome) {
        self.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends nothing for a pause after [`FAILURES_MAX`] failures in a row, then one call as a probe.
#[derive(Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    fn may_send(&mut self, now: Instant) -> bool {
        match self.open_until {
            Some(until) if now < until => false,
            // This call is the probe; others wait for its end.
            Some(_) => {
                self.open_until = Some(now + PAUSE);
                true
            }
            None => true,
        }
    }

    /// Notes a result. Returns whether it opens the breaker.
    fn record(&mut self, works: bool, now: Instant) -> bool {
        if works {
            *self = Self::default();
            return false;
        }
        self.failures += 1;
        let was_open = self.open_until.is_some();
        if self.failures >= FAILURES_MAX {
            self.open_until = Some(now + PAUSE);
        }
        !was_open && self.open_until.is_some()
    }
}

fn failure(outcome: Outcome, why: impl fmt::Display) -> Failure {
    Failure { outcome, why: why.to_string() }
}

/// The signature of the bridge's events: HMAC-SHA-256 of `timestamp "." body`, in lower-case hexadecimal.
fn sign(secret: &[u8], timestamp_ms: i64, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    let mac = mac.chain_update(timestamp_ms.to_string()).chain_update(b".").chain_update(body);
    hex::text(&mac.finalize().into_bytes())
}

/// Failures in a row after which the breaker opens, and for how long.
pub const FAILURES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// Calls under way to one address.
const CALLS_MAX: usize = 64;
/// How long a connection is kept without a call: shorter than servers keep one.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// The longest answer: a payload of 64 KiB in base64, and its JSON.
const ANSWER_BYTES_MAX: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '%s' '1763000000123.{"events":[]}' | openssl dgst -sha256 -hmac 'it is secret'`
    #[test]
    fn it_is_signed_as_the_bridges_events_are() {
        assert_eq!(
            sign(b"it is secret", 1_763_000_000_123, br#"{"events":[]}"#),
            "2c1c8c0e5a4baf9fdad472a2b547dba17e8e5870b6d0c50a4098825baafad930"
        );
    }

    #[test]
    fn the_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..2 * FAILURES_MAX {
            assert!(breaker.may_send(now));
            breaker.record(false, now);
            breaker.record(true, now);
        }
        let opened: Vec<bool> = (0..FAILURES_MAX).map(|_| breaker.record(false, now)).collect();
        assert_eq!(opened, [false, false, false, false, true]);
        assert!(!breaker.may_send(now) && !breaker.may_send(now + PAUSE / 2));
        assert!(breaker.may_send(now + PAUSE), "a probe");
        assert!(!breaker.may_send(now + PAUSE), "only one");
        assert!(!breaker.record(false, now + PAUSE), "it was open");
        assert!(!breaker.may_send(now + PAUSE * 3 / 2));
        assert!(breaker.may_send(now + PAUSE * 2));
        breaker.record(true, now + PAUSE * 2);
        assert!(breaker.may_send(now + PAUSE * 2) && breaker.may_send(now + PAUSE * 2));
    }
}
