//! Developer commands: `cargo xtask ci`.

#![expect(clippy::disallowed_methods, reason = "a tool may read the clock")]

use std::path::Path;

use clap::{Parser, Subcommand};

mod ci;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Ci => ci::run(),
    }
}

/// The workspace's root, where every command runs.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the workspace")
}
