//! Developer commands: `cargo xtask ci`, `cargo xtask sim`, `cargo xtask faults`, `cargo xtask fuzz`,
//! `cargo xtask bench`, `cargo xtask million`, `cargo xtask site`, `cargo xtask release`.

#![expect(clippy::disallowed_methods, reason = "a tool may read the clock")]

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod faults;
mod fuzz;
mod million;
mod release;
mod sim;
mod site;
mod stack;

/// Developer commands of Sailfish.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks all that the main branch must pass: format, lints, tests, docs.
    Ci,
    /// Simulates clusters with faults, many seeds of them.
    Sim(sim::Arguments),
    /// Kills backend, bridge, Redis and database under a storm of gifts, again and again, and compares the
    /// sums.
    Faults(faults::Arguments),
    /// Lets libFuzzer look for inputs at which a target fails: whatever takes bytes from outside.
    Fuzz(fuzz::Arguments),
    /// Measures the table of ratios: the gateway beside the raw loops and its peers.
    Bench(bench::Arguments),
    /// Holds a million connections on this machine, through traffic, a storm and the death of a router, and
    /// reports on it.
    Million(million::Arguments),
    /// Renders the documentation as web pages with search.
    Site,
    /// Packs a static binary with manual pages, completions and units, and writes its checksum.
    Release,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Ci => ci::run(),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Million(arguments) => million::run(&arguments),
        Command::Site => site::run(),
        Command::Release => release::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root, where every command runs.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the workspace")
}
