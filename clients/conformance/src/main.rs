//! Plays scenarios against a client: see `clients/README.md`.
#![allow(clippy::disallowed_methods)] // a tool may read the clock

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use conformance::{Over, SCENARIOS, Scenario};

/// Plays scenarios against a client of the protocol, and judges it. The contract stands in clients/README.md.
#[derive(Parser)]
enum Arguments {
    /// Starts the client once for each scenario and transport; ends with 1 if a scenario failed.
    Run {
        /// Over this transport only.
        #[arg(long)]
        over: Option<Transport>,
        /// This scenario only; may come several times.
        #[arg(long, value_parser = scenario)]
        only: Vec<&'static Scenario>,
        /// Shows frames and events.
        #[arg(long)]
        verbose: bool,
        /// The client's program and its own arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Plays one scenario with a client that you start yourself, whose output comes in by stdin.
    Serve {
        /// Which one.
        #[arg(value_parser = scenario)]
        scenario: &'static Scenario,
    },
    /// Lists the scenarios.
    List,
}

#[derive(Clone, Copy, ValueEnum)]
enum Transport {
    Tcp,
    Ws,
}

fn main() -> ExitCode {
    let failed = match Arguments::parse() {
        Arguments::Run { over, only, verbose, command } => run(over, &only, verbose, &command),
        Arguments::Serve { scenario } => {
            let verdict = conformance::serve(scenario);
            println!("{}", line(scenario, "", &verdict));
            u32::from(verdict.is_err())
        }
        Arguments::List => {
            SCENARIOS.iter().for_each(|scenario| println!("{:20} {}", scenario.name, scenario.wants));
            0
        }
    };
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number of scenarios that failed.
fn run(over: Option<Transport>, only: &[&'static Scenario], verbose: bool, command: &[String]) -> u32 {
    let transports = match over {
        Some(Transport::Tcp) => &[Over::Tcp][..],
        Some(Transport::Ws) => &[Over::Ws],
        None => &[Over::Tcp, Over::Ws],
    };
    let (mut passed, mut failed) = (0, 0);
    for over in transports {
        for scenario in SCENARIOS {
            if !only.is_empty() && !only.iter().any(|one| one.name == scenario.name) {
                continue;
            }
            let start = Instant::now();
            let verdict = conformance::play(scenario, *over, command, verbose);
            let took = format!("{over}, {:.1} s", start.elapsed().as_secs_f32());
            println!("{}", line(scenario, &took, &verdict));
            *if verdict.is_ok() { &mut passed } else { &mut failed } += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    failed
}

fn line(scenario: &Scenario, how: &str, verdict: &Result<(), String>) -> String {
    match verdict {
        Ok(()) => format!("PASS {} ({how})", scenario.name),
        Err(fault) => {
            format!("FAIL {} ({how}): {fault}\n    it wants a client that {}", scenario.name, scenario.wants)
        }
    }
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    let named = SCENARIOS.iter().find(|scenario| scenario.name == name);
    named.ok_or_else(|| "no scenario has that name; `list` shows them".to_owned())
}
