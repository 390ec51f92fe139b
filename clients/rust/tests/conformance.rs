//! The conformance suite, with this client.
// The suite waits for a real program, and may panic.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]
#![cfg(feature = "layers")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::{Over, SCENARIOS, Scenario, play};

/// Most of a scenario is waiting, so several at once take no longer than one.
const AT_ONCE: usize = 6;

fn passes(over: Over, more: &[&str]) {
    let command: Vec<String> = [env!("CARGO_BIN_EXE_conformance-client")]
        .iter()
        .chain(more)
        .map(|word| (*word).to_owned())
        .collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(scenario) = SCENARIOS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Scenario { name, wants, .. } = scenario;
                    if let Err(fault) = play(scenario, over, &command, false) {
                        failed.lock().unwrap().push(format!("{name} over {over}: {fault}\n    it {wants}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn over_tcp() {
    passes(Over::Tcp, &[]);
}

#[test]
fn over_tcp_in_json() {
    passes(Over::Tcp, &["--json", "yes"]);
}

#[test]
fn over_websocket() {
    passes(Over::Ws, &[]);
}
