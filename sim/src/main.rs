//! Runs seeds: `sim --seed N [--trace]` one, `sim --seeds A..B` many, up to the first that fails.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::Plan;

/// The seed of the run under way, for a core that panics.
static SEED: AtomicU64 = AtomicU64::new(0);

const USAGE: &str = "usage: sim --seed N [--trace] | --seeds A..B";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (seeds, prints) = match arguments[..] {
        ["--seed", seed] => (one(seed), false),
        ["--seed", seed, "--trace"] => (one(seed), true),
        ["--seeds", seeds] => (range(seeds), false),
        _ => (None, false),
    };
    let Some(seeds) = seeds else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        replay(SEED.load(Ordering::Relaxed));
    }));
    let is_one = seeds.end - seeds.start == 1;
    let count = seeds.end - seeds.start;
    let (mut events, mut messages, mut delivered, mut handed_over) = (0, 0, 0, 0);
    for seed in seeds {
        SEED.store(seed, Ordering::Relaxed);
        let plan = Plan::of_seed(seed);
        if is_one {
            println!("{plan:?}");
        }
        match sim::run(&plan, prints) {
            Ok(report) if is_one => println!("{report:?}"),
            Ok(report) => {
                events += report.events;
                messages += report.messages;
                delivered += report.delivered;
                handed_over += report.handed_over;
            }
            Err(failure) => {
                eprintln!("seed {seed} failed at {:.6} s: {}", failure.at_ns as f64 / 1e9, failure.what);
                replay(seed);
                return ExitCode::FAILURE;
            }
        }
    }
    if !is_one {
        println!(
            "{count} seeds: {events} events, {messages} messages, {delivered} delivered, {handed_over} handed over"
        );
    }
    ExitCode::SUCCESS
}

fn replay(seed: u64) {
    eprintln!("replay: cargo run --release -p sim -- --seed {seed} --trace");
}

fn one(seed: &str) -> Option<std::ops::Range<u64>> {
    let seed: u64 = seed.parse().ok()?;
    Some(seed..seed + 1)
}

fn range(seeds: &str) -> Option<std::ops::Range<u64>> {
    let (from, to) = seeds.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?).filter(|range| !range.is_empty())
}
