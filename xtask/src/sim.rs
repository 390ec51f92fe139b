//! `cargo xtask sim`: many seeds of the simulation, up to the first that fails.

use anyhow::{Context, ensure};

use crate::ci::cargo;

/// Options of `cargo xtask sim`.
#[derive(clap::Args)]
pub struct Arguments {
    /// So many seeds, from 0 on.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    seeds: u64,
}

/// Builds the simulation in release and runs it; it prints the seed that fails and how to replay it.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let seeds = format!("0..{}", arguments.seeds);
    let status = cargo(&["run", "--locked", "--release", "--package", "sim", "--", "--seeds", &seeds])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "a seed failed, see above ({status})");
    Ok(())
}
