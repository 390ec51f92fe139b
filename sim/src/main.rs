//! Runs seeds: `sim --seed N [--trace]` one, `sim --seeds A..B` many, up to the first that fails. `--scenario NAME` before these
//! runs that scenario, and not what the seed draws.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::{Plan, SCENARIOS, Scenario};

/// The seed of the run under way, for a core that panics.
static SEED: AtomicU64 = AtomicU64::new(0);

const USAGE: &str = "usage: sim [--scenario NAME] (--seed N [--trace] | --seeds A..B)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, rest) = match arguments[..] {
        ["--scenario", name, ref rest @ ..] => (Some(name), rest),
        ref rest => (None, rest),
    };
    let scenario = name.map(|name| SCENARIOS.iter().find(|scenario| scenario.name == name));
    let (seeds, prints) = match rest {
        ["--seed", seed] => (one(seed), false),
        ["--seed", seed, "--trace"] => (one(seed), true),
        ["--seeds", seeds] => (range(seeds), false),
        _ => (None, false),
    };
    let (Some(seeds), None | Some(Some(_))) = (seeds, scenario) else {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("{USAGE}\nscenarios: {}", names.join(", "));
        return ExitCode::from(2);
    };
    run(seeds, scenario.flatten(), prints)
}

fn run(seeds: Range<u64>, scenario: Option<&'static Scenario>, prints: bool) -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        say_replay(scenario, SEED.load(Ordering::Relaxed));
    }));
    let count = seeds.end - seeds.start;
    let (mut events, mut messages, mut delivered, mut handed_over) = (0, 0, 0, 0);
    for seed in seeds {
        SEED.store(seed, Ordering::Relaxed);
        let plan = scenario.map_or_else(|| Plan::of_seed(seed), |scenario| scenario.plan(seed));
        if count == 1 {
            println!("{plan:?}");
        }
        match sim::run(&plan, prints.then_some(print_line)) {
            Ok(report) if count == 1 => println!("{report:?}"),
            Ok(report) => {
                events += report.events;
                messages += report.messages;
                delivered += report.delivered;
                handed_over += report.handed_over;
            }
            Err(failure) => {
                eprintln!("{failure}");
                say_replay(scenario, seed);
                return ExitCode::FAILURE;
            }
        }
    }
    if count > 1 {
        println!(
            "{count} seeds: {events} events, {messages} messages, {delivered} delivered, {handed_over} handed over"
        );
    }
    ExitCode::SUCCESS
}

fn print_line(line: &str) {
    println!("{line}");
}

fn say_replay(scenario: Option<&Scenario>, seed: u64) {
    let scenario = scenario.map(|scenario| format!("--scenario {} ", scenario.name)).unwrap_or_default();
    eprintln!("replay: cargo run --release -p sim -- {scenario}--seed {seed} --trace");
}

fn one(seed: &str) -> Option<Range<u64>> {
    let seed: u64 = seed.parse().ok()?;
    Some(seed..seed + 1)
}

fn range(seeds: &str) -> Option<Range<u64>> {
    let (from, to) = seeds.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?).filter(|range| !range.is_empty())
}
