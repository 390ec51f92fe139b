//! Log lines that outsiders can cause, whether they send bytes, requests or callbacks, or make a server fail.
//!
//! [`error!`], [`warn!`] and [`info!`] are written like those of `tracing`. Each place in the code writes one
//! line a minute at its level, with `unlogged`: how many others it had since its last one. The others are
//! written at DEBUG. So nobody fills the log, and an operator who wants every line can still have it.
//! `xtask/tests/checks/logs.rs` lists the few places that go past the gate.
//!
//! *Absent:* how a line looks; the binary makes it printable and bounds it.
#![allow(clippy::disallowed_methods)] // a gate reads the clock; cores log nothing

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[doc(hidden)]
pub use tracing;

/// How often one place writes a line at most.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Lets one line through in `LOG_EVERY` and counts the others. Each use of a macro has one of its own.
#[derive(Default)]
pub struct LogGate(Mutex<State>);

#[derive(Default)]
struct State {
    opens: Option<Instant>,
    unlogged: u64,
}

impl LogGate {
    /// An open gate.
    pub const fn new() -> Self {
        Self(Mutex::new(State { opens: None, unlogged: 0 }))
    }

    /// Lets a line through, with the number of those that were not let through since the last one; `None`
    /// keeps it back.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.opens.is_some_and(|opens| now < opens) {
            state.unlogged += 1;
            return None;
        }
        state.opens = Some(now + LOG_EVERY);
        Some(std::mem::take(&mut state.unlogged))
    }
}

/// Writes a line at ERROR, or at DEBUG within a minute of the last one.
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::gated!(error, $($line)+) };
}

/// Writes a line at WARN, or at DEBUG within a minute of the last one.
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::gated!(warn, $($line)+) };
}

/// Writes a line at INFO, or at DEBUG within a minute of the last one.
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::gated!(info, $($line)+) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! gated {
    ($level:ident, $($line:tt)+) => {{
        static GATE: $crate::LogGate = $crate::LogGate::new();
        match GATE.pass() {
            Some(0) => $crate::tracing::$level!($($line)+),
            Some(unlogged) => $crate::tracing::$level!(unlogged, $($line)+),
            None => $crate::tracing::debug!($($line)+),
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_one_line_a_minute_through_and_counts_the_others() {
        let (gate, start) = (LogGate::new(), Instant::now());
        assert_eq!([0, 0, 59].map(|s| gate.pass_at(start + Duration::from_secs(s))), [Some(0), None, None]);
        assert_eq!(gate.pass_at(start + LOG_EVERY), Some(2));
        assert_eq!(gate.pass_at(start + 3 * LOG_EVERY), Some(0));
    }

    #[test]
    fn each_place_has_a_gate_of_its_own() {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            for at in 0..3 {
                warn!(at, "here");
            }
            warn!("there");
        });
        assert_eq!(*lines.0.lock().unwrap(), ["WARN", "DEBUG", "DEBUG", "WARN"]);
    }

    /// The levels of the lines that were written.
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().unwrap().push(event.metadata().level().to_string());
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }
}
