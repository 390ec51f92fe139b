//! `cargo xtask sim`: many seeds of the simulation, up to the first that fails; or with planted faults, which
//! it is to find.

use anyhow::{Context, ensure};

use crate::ci::cargo;

mod faults;
mod planted;

/// Options of `cargo xtask sim`.
#[derive(clap::Args)]
pub struct Arguments {
    /// So many seeds, from 0 on.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    seeds: u64,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// Plants faults into a copy of the tree and looks how many seeds find each.
    Faults(faults::Arguments),
}

/// Builds the simulation in release and runs it; it prints the seed that fails and how to replay it.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(What::Faults(arguments)) = &arguments.what {
        return faults::run(arguments);
    }
    let seeds = format!("0..{}", arguments.seeds);
    let status = cargo(&["run", "--locked", "--release", "--package", "sim", "--", "--seeds", &seeds])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "a seed failed, see above ({status})");
    Ok(())
}
