//! `cargo xtask bench gift`: gifts committed a second, beside the bare transaction, and how long a client
//! waits for the effect.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::machine;
use super::measure::build;
use crate::stack::{Stack, Storage};

/// What must be reached of the floor's rate.
const MUST: f64 = 0.5;
/// How long the floor runs, and the committed gifts are counted.
const SECONDS: u64 = 8;
const SECONDS_QUICK: u64 = 3;
/// Floor and rate are measured in turn so often, since a machine has moods; what is told is the round in the
/// middle.
const ROUNDS: usize = 3;
/// A router that has just started holds what is for rooms back until it knows of all gateways
/// (`router.settle_ms`, 5 s).
const ROUTER_SETTLES: Duration = Duration::from_secs(6);
/// Before the count begins.
const SETTLE: Duration = Duration::from_secs(3);
/// Of the rate that was reached, latency is measured at this share.
const CALM: f64 = 0.5;
/// What clients send in the first round, of the floor's rate, and in those that follow, of what the last one
/// reached.
const FIRST_SHARE: f64 = 0.65;
const SURPLUS: f64 = 1.1;
/// Rooms of two: what a gift costs is measured, and not what it costs to show it to many.
const LOAD: &str = "--connections 400 --rooms 200 --repeat 0";

/// Measures both forms of storage and prints the table.
pub fn run(quick: bool) -> anyhow::Result<()> {
    let programs = build(&["sailfish", "benches"])?;
    let seconds = if quick { SECONDS_QUICK } else { SECONDS };
    println!(
        "{:<16} {:>12} {:>12} {:>7} {:>6} {:>10} {:>10} {:>10}",
        "storage", "floor /s", "gifts /s", "ratio", "must", "at /s", "p50 ms", "p99 ms"
    );
    let turns = if quick { 1 } else { ROUNDS };
    for storage in [Storage::Embedded, Storage::Servers] {
        let mut rounds: Vec<(f64, f64)> = Vec::with_capacity(ROUNDS);
        for _ in 0..turns {
            let floor = floor(&programs, storage, seconds)?;
            // More than can be committed, and not much more: what is sent in vain takes time from what is
            // committed.
            let rate = rounds.last().map_or(floor * FIRST_SHARE, |(_, reached)| reached * SURPLUS);
            let reached = reached(&programs, storage, rate, seconds)?;
            println!("  {:<14} {floor:>12.0} {reached:>12.0} {:>7.2}", "", reached / floor);
            rounds.push((floor, reached));
        }
        rounds.sort_by(|(floor, reached), (other_floor, other)| {
            (reached / floor).total_cmp(&(other / other_floor))
        });
        let (floor, reached) = rounds[rounds.len() / 2];
        let calm = (reached * CALM).max(1.0);
        let (p50_ms, p99_ms) = latency(&programs, storage, calm, seconds)?;
        let ratio = reached / floor;
        println!(
            "{:<16} {floor:>12.0} {reached:>12.0} {ratio:>7.2} {MUST:>6} {calm:>10.0} {p50_ms:>10.1} {p99_ms:>10.1}{}",
            storage.name(),
            if ratio < MUST { "  SHORT" } else { "" },
        );
    }
    println!(
        "\nfloor: the same transaction on the same storage, one batch of 512 after the other, nothing else running;\n\
         each line is the middle one of {turns} rounds by its ratio"
    );
    println!("{}", machine::describe());
    Ok(())
}

/// Gifts a second of the bare transaction.
fn floor(programs: &Path, storage: Storage, seconds: u64) -> anyhow::Result<f64> {
    let mut stack = Stack::start(programs, storage, 1)?;
    stack.backend.kill();
    let output = Command::new(programs.join("gift_floor"))
        .args(["--database", &stack.database_url, "--seconds", &seconds.to_string()])
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the floor failed: {}", String::from_utf8_lossy(&output.stderr));
    text.trim().parse().context("the floor tells a rate")
}

fn settled(programs: &Path, storage: Storage) -> anyhow::Result<Stack> {
    let stack = Stack::start(programs, storage, 1)?;
    sleep(ROUTER_SETTLES);
    Ok(stack)
}

/// Gifts a second that are committed while clients send more than that.
fn reached(programs: &Path, storage: Storage, rate: f64, seconds: u64) -> anyhow::Result<f64> {
    let stack = settled(programs, storage)?;
    let json = stack.file("load.json");
    let rate = rate.to_string();
    let flags: Vec<&str> =
        LOAD.split(' ').chain(["--rate", &rate, "--seconds", "60", "--drain", "1"]).collect();
    let mut load = stack.load(programs, &json, &flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let before_any = stack.committed()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while stack.committed()? == before_any {
        ensure!(Instant::now() < deadline && load.try_wait()?.is_none(), "no gift is committed");
        sleep(Duration::from_millis(50));
    }
    sleep(SETTLE);
    let (from, before) = (Instant::now(), stack.committed()?);
    sleep(Duration::from_secs(seconds));
    let (committed, took) = (stack.committed()? - before, from.elapsed());
    load.kill()?;
    load.wait()?;
    Ok(committed as f64 / took.as_secs_f64())
}

/// Half of the effects are seen by their senders within the first, 99 of 100 within the second time, in ms.
fn latency(programs: &Path, storage: Storage, rate: f64, seconds: u64) -> anyhow::Result<(f64, f64)> {
    let stack = settled(programs, storage)?;
    let json = stack.file("load.json");
    let (rate, seconds) = (rate.to_string(), seconds.to_string());
    let flags: Vec<&str> =
        LOAD.split(' ').chain(["--rate", &rate, "--seconds", &seconds, "--warmup", "2"]).collect();
    let output = stack.load(programs, &json, &flags).output()?;
    ensure!(
        output.status.success(),
        "a calm run failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let us = |name: &str| report["latency_us"][name].as_f64().context("a report has its latency");
    Ok((us("p50")? / 1000.0, us("p99")? / 1000.0))
}
