//! Leaves a backend alone that fails again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use logs::{info, warn};
use tokio::sync::Notify;

use crate::config::Config;
use crate::metrics::{BreakerState, Metrics};

/// How long a backend that has never answered may take to start.
const START_TIME: Duration = Duration::from_secs(30);

/// A circuit breaker that all lanes share: after too many failures in a row no lane sends for a pause, then
/// one does.
pub struct Breaker {
    circuit: Mutex<Circuit>,
    changed: Notify,
    metrics: Arc<Metrics>,
    begun: Instant,
    has_answered: AtomicBool,
}

impl Breaker {
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        let circuit = Circuit::new(config.breaker_failures, config.breaker_pause);
        let (begun, has_answered) = (Instant::now(), AtomicBool::new(false));
        Self { circuit: Mutex::new(circuit), changed: Notify::new(), metrics, begun, has_answered }
    }

    /// Waits until the caller may send. It must report the result afterwards.
    pub async fn enter(&self) {
        loop {
            let changed = self.changed.notified();
            let entry = self.circuit().enter(Instant::now());
            self.show();
            match entry {
                Entry::Go => return,
                Entry::From(time) => tokio::time::sleep_until(time.into()).await,
                Entry::AfterProbe => changed.await,
            }
        }
    }

    /// The backend has answered.
    pub fn succeeded(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        if self.circuit().succeeded() {
            info!("the backend accepts events again");
        }
        self.show();
        self.changed.notify_waiters();
    }

    /// The backend has not answered, or answered wrongly.
    pub fn failed(&self, why: &str) {
        if is_refusal(why) {
            warn!(
                error = why,
                "the backend refuses this bridge, and events wait; look whether bridge.secret is the same at both"
            );
        }
        if self.circuit().failed(Instant::now()) {
            self.metrics.breaker_opened.add(1);
            // An operator who starts both at once starts one of them first.
            match self.has_answered.load(Ordering::Relaxed) || self.begun.elapsed() > START_TIME {
                true => warn!(error = why, "the backend does not accept events; they wait"),
                false => info!(error = why, "the backend does not accept events yet; they wait"),
            }
        }
        self.show();
        self.changed.notify_waiters();
    }

    fn show(&self) {
        self.metrics.set_breaker(self.circuit().state());
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the backend, or a proxy before it, rejects this bridge. That does not pass by itself.
fn is_refusal(why: &str) -> bool {
    ["status 401", "status 403"].iter().any(|status| why.starts_with(status))
}

/// The breaker's state, without its clock.
struct Circuit {
    failures_max: u32,
    pause: Duration,
    /// Failures in a row.
    failures: u32,
    /// Set while it is open or half open.
    open: Option<Open>,
}

struct Open {
    until: Instant,
    probing: bool,
}

#[derive(PartialEq, Eq, Debug)]
enum Entry {
    Go,
    From(Instant),
    AfterProbe,
}

impl Circuit {
    fn new(failures_max: u32, pause: Duration) -> Self {
        Self { failures_max, pause, failures: 0, open: None }
    }

    fn enter(&mut self, now: Instant) -> Entry {
        match &mut self.open {
            None => Entry::Go,
            Some(open) if now < open.until => Entry::From(open.until),
            Some(open) if open.probing => Entry::AfterProbe,
            Some(open) => {
                open.probing = true;
                Entry::Go
            }
        }
    }

    /// Notes a success. Returns whether it closes the breaker.
    fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// Notes a failure. Returns whether it opens a closed breaker.
    fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let was_closed = self.open.is_none();
        // A batch that was under way when it opened is no probe, and does not make the pause longer.
        let opens = self.open.as_ref().map_or(self.failures >= self.failures_max, |open| open.probing);
        if opens {
            self.open = Some(Open { until: now + self.pause, probing: false });
        }
        opens && was_closed
    }

    fn state(&self) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(Open { probing: true, .. }) => BreakerState::HalfOpen,
            Some(Open { probing: false, .. }) => BreakerState::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new(3, PAUSE);
        assert_eq!([(); 3].map(|()| circuit.failed(now)), [false, false, true]);
        circuit
    }

    #[test]
    fn a_wrong_secret_is_told_from_a_backend_that_is_away() {
        let status = |status| format!("status {}", hyper::StatusCode::from_u16(status).unwrap());
        assert_eq!(
            [401, 403, 404, 500, 503].map(|code| is_refusal(&status(code))),
            [true, true, false, false, false]
        );
        assert!(!is_refusal("no answer within 5000 ms"));
    }

    #[test]
    fn failures_in_a_row_open_it_and_others_do_not() {
        let now = Instant::now();
        let mut circuit = Circuit::new(3, PAUSE);
        for _ in 0..5 {
            assert!(!circuit.failed(now) && !circuit.failed(now) && !circuit.succeeded());
        }
        assert_eq!(circuit.enter(now), Entry::Go);
        assert_eq!(opened(now).enter(now), Entry::From(now + PAUSE));
    }

    #[test]
    fn after_the_pause_one_may_try() {
        let now = Instant::now();
        let mut circuit = opened(now);
        let later = now + PAUSE;
        assert_eq!((circuit.enter(later), circuit.state()), (Entry::Go, BreakerState::HalfOpen));
        assert_eq!(circuit.enter(later), Entry::AfterProbe);
        assert!(!circuit.failed(later), "it was open before");
        assert_eq!(circuit.enter(later), Entry::From(later + PAUSE));
        let later = later + PAUSE;
        assert_eq!(circuit.enter(later), Entry::Go);
        assert!(circuit.succeeded());
        assert_eq!((circuit.enter(later), circuit.state()), (Entry::Go, BreakerState::Closed));
    }

    #[test]
    fn a_batch_from_before_does_not_prolong_the_pause() {
        let now = Instant::now();
        let mut circuit = opened(now);
        assert!(!circuit.failed(now + PAUSE / 2));
        assert_eq!((circuit.enter(now + PAUSE), circuit.state()), (Entry::Go, BreakerState::HalfOpen));
    }
}
