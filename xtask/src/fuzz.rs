//! `cargo xtask fuzz`: libFuzzer on each target of `hostile/`, guided by coverage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::ci::cargo;
use crate::root;

/// What runs libFuzzer, in the version that was tried.
const CARGO_FUZZ: (&str, &str) = ("cargo-fuzz", "^0.13");

/// Inputs of one target that are kept.
const KEPT_MAX: usize = 60;

#[derive(Args)]
pub struct Arguments {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// One target alone, by its name in `fuzz/fuzz_targets/`.
    #[arg(long)]
    target: Option<String>,
    /// Puts what was found into the corpus that is kept, and takes out of that what covers nothing of its
    /// own.
    #[arg(long)]
    minimize: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = match &arguments.target {
        Some(name) => targets.iter().filter(|target| *target == name).collect(),
        None => targets.iter().collect(),
    };
    ensure!(!chosen.is_empty(), "no such target; there are {}", targets.join(", "));
    install()?;
    for target in chosen {
        println!("\n=== {target}: {} s", arguments.seconds);
        let found = root().join("fuzz/target/found").join(target);
        let kept = root().join("fuzz/corpus").join(target);
        for folder in [&found, &kept] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let time = format!("-max_total_time={}", arguments.seconds);
        // What is found goes into the first folder; the corpus that is kept is read only.
        let folders = [found.as_path(), kept.as_path()];
        fuzz(
            "run",
            target,
            &folders,
            &[time.as_str(), "-timeout=10", "-max_len=4096", "-print_final_stats=1"],
        )?;
        if arguments.minimize {
            minimize(target, &folders)?;
        }
    }
    println!("\n=== clean");
    Ok(())
}

/// The names of all targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut targets: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| stem(entry.ok()?.path()))
        .collect();
    targets.sort();
    Ok(targets)
}

/// Merges both folders into one that covers the same by few inputs, and keeps some of these, small and large.
fn minimize(target: &str, folders: &[&Path]) -> anyhow::Result<()> {
    let merged = root().join("fuzz/target/merged").join(target);
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged)?;
    let all = [&[merged.as_path()], folders].concat();
    fuzz("run", target, &all, &["-set_cover_merge=1", "-max_len=4096"])?;
    let mut found = Vec::new();
    for file in fs::read_dir(&merged)? {
        let file = file?;
        found.push((file.metadata()?.len(), file.file_name()));
    }
    found.sort();
    let kept = folders[1];
    fs::remove_dir_all(kept)?;
    fs::create_dir_all(kept)?;
    let step = found.len().div_ceil(KEPT_MAX).max(1);
    for (_, name) in found.iter().step_by(step) {
        fs::copy(merged.join(name), kept.join(name))?;
    }
    Ok(())
}

/// Runs a subcommand of cargo-fuzz. No sanitizer: there is no unsafe code below the targets, and without one
/// stable Rust will do.
fn fuzz(subcommand: &str, target: &str, folders: &[&Path], flags: &[&str]) -> anyhow::Result<()> {
    let mut command = cargo(&["fuzz", subcommand, "--sanitizer", "none", target]);
    command.args(folders).arg("--").args(flags);
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!(
            "{target} failed ({status}); the input is in fuzz/artifacts/{target}/. To repeat it: cargo fuzz run --sanitizer none {target} FILE"
        );
    }
    Ok(())
}

fn install() -> anyhow::Result<()> {
    let (name, version) = CARGO_FUZZ;
    let mut known = cargo(&["fuzz", "--version"]);
    let is_there = known.output().is_ok_and(|output| output.status.success());
    if is_there {
        return Ok(());
    }
    println!("=== installing {name}");
    let mut install: Command = cargo(&["install", name, "--version", version, "--locked"]);
    let status = install.status().with_context(|| format!("cannot start {install:?}"))?;
    ensure!(status.success(), "fuzzing needs {name}; install it by hand: cargo install {name}");
    Ok(())
}
