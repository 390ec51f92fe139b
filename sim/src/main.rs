//! Runs seeds: `sim --seed N [--without I,J] [--trace]` one, `sim --seeds A..B` many, up to the first that
//! fails. `--scenario NAME` before these runs that scenario, and not what the seed draws. Of a seed that
//! fails, the faults are left out that it fails without, by their places in its plan.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::{Plan, SCENARIOS, Scenario};

/// The seed of the run under way, for a core that panics.
static SEED: AtomicU64 = AtomicU64::new(0);

const USAGE: &str = "usage: sim [--scenario NAME] (--seed N [--without I,J] [--trace] | --seeds A..B)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, rest) = match arguments[..] {
        ["--scenario", name, ref rest @ ..] => (Some(name), rest),
        ref rest => (None, rest),
    };
    let scenario = name.map(|name| SCENARIOS.iter().find(|scenario| scenario.name == name));
    let (seeds, without, prints) = match rest {
        ["--seed", seed] => (one(seed), Some(Vec::new()), false),
        ["--seed", seed, "--trace"] => (one(seed), Some(Vec::new()), true),
        ["--seed", seed, "--without", faults] => (one(seed), places(faults), false),
        ["--seed", seed, "--without", faults, "--trace"] => (one(seed), places(faults), true),
        ["--seeds", seeds] => (range(seeds), Some(Vec::new()), false),
        _ => (None, None, false),
    };
    let (Some(seeds), Some(without), None | Some(Some(_))) = (seeds, without, scenario) else {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("{USAGE}\nscenarios: {}", names.join(", "));
        return ExitCode::from(2);
    };
    run(seeds, scenario.flatten(), &without, prints)
}

fn run(seeds: Range<u64>, scenario: Option<&'static Scenario>, without: &[usize], prints: bool) -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        say_replay(scenario, SEED.load(Ordering::Relaxed), &[]);
    }));
    let count = seeds.end - seeds.start;
    let (mut events, mut messages, mut delivered, mut handed_over, mut announced) = (0, 0, 0, 0, 0);
    let (mut hash, mut tls) = (0_u64, [0, 0]);
    let mut whole_ms: Vec<u64> = Vec::new();
    for seed in seeds {
        SEED.store(seed, Ordering::Relaxed);
        let plan = scenario.map_or_else(|| Plan::of_seed(seed), |scenario| scenario.plan(seed));
        let plan = plan.without(without);
        if count == 1 {
            println!("{plan:?}");
        }
        match sim::run(&plan, prints.then_some(print_line)) {
            Ok(report) if count == 1 => println!("{report:?}"),
            Ok(report) => {
                hash = hash.rotate_left(5) ^ report.hash;
                tls = [0, 1].map(|kind| tls[kind] + report.tls_handshakes[kind]);
                events += report.events;
                messages += report.messages;
                delivered += report.delivered;
                handed_over += report.handed_over;
                announced += report.announced;
                whole_ms.extend(report.whole_after_ms);
            }
            Err(failure) => {
                eprintln!("{failure}");
                let without = if count == 1 { without.to_vec() } else { shrink(&plan) };
                say_replay(scenario, seed, &without);
                return ExitCode::FAILURE;
            }
        }
    }
    if count > 1 {
        println!(
            "{count} seeds: {events} events, {messages} messages, {delivered} delivered, {handed_over} handed over, {announced} announced"
        );
        println!(
            "TLS handshakes at gateways that lived: {} full, {} with a ticket; hash {hash:016x}",
            tls[0], tls[1]
        );
        println!(
            "whole after the last fault: {} ms at most, {} on average",
            whole_ms.iter().max().copied().unwrap_or_default(),
            whole_ms.iter().sum::<u64>() / whole_ms.len().max(1) as u64
        );
    }
    ExitCode::SUCCESS
}

fn print_line(line: &str) {
    println!("{line}");
}

/// The places of the faults that a run fails without: one after the other is left out, if what is left still
/// fails.
fn shrink(plan: &Plan) -> Vec<usize> {
    (0..plan.faults.len()).fold(Vec::new(), |without, place| {
        let fewer: Vec<usize> = without.iter().copied().chain([place]).collect();
        if sim::run(&plan.clone().without(&fewer), None).is_err() { fewer } else { without }
    })
}

fn say_replay(scenario: Option<&Scenario>, seed: u64, without: &[usize]) {
    let scenario = scenario.map(|scenario| format!("--scenario {} ", scenario.name)).unwrap_or_default();
    let without: Vec<String> = without.iter().map(usize::to_string).collect();
    let without =
        if without.is_empty() { String::new() } else { format!("--without {} ", without.join(",")) };
    eprintln!("replay: cargo run --release -p sim -- {scenario}--seed {seed} {without}--trace");
}

fn one(seed: &str) -> Option<Range<u64>> {
    let seed: u64 = seed.parse().ok()?;
    Some(seed..seed + 1)
}

fn places(faults: &str) -> Option<Vec<usize>> {
    faults.split(',').map(|place| place.parse().ok()).collect()
}

fn range(seeds: &str) -> Option<Range<u64>> {
    let (from, to) = seeds.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?).filter(|range| !range.is_empty())
}
