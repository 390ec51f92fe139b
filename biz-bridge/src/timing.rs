//! Waits, and how often something is logged.

use std::time::{Duration, Instant};

/// How often one kind of trouble is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Waits until then; without a time for ever.
pub async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Lets one line through at a time.
#[derive(Default)]
pub struct LogGate {
    opens: Option<Instant>,
}

impl LogGate {
    /// Whether a line may be logged: then the next one may after a while.
    pub fn pass(&mut self) -> bool {
        let now = Instant::now();
        let is_open = self.opens.is_none_or(|opens| opens <= now);
        if is_open {
            self.opens = Some(now + LOG_EVERY);
        }
        is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_one_line_through() {
        let mut gate = LogGate::default();
        assert_eq!([(); 3].map(|()| gate.pass()), [true, false, false]);
        gate.opens = Some(Instant::now());
        assert!(gate.pass());
    }
}
