//! `cargo xtask faults`: `kill -9` in the middle of a storm of gifts.
//!
//! `sailfish load gift` accounts for every gift and compares the backend's books with what clients were told;
//! here its backend, bridge, Redis and database are killed at random moments, each many times, and started
//! again.

use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::bench::build;
use crate::stack::{Node, Stack, Storage};

/// The longest time between two kills, and between a kill and the start.
const LIFE_MS_MAX: u64 = 2_000;
const DEATH_MS_MAX: u64 = 500;
/// How long a load may go on after the last kill.
const END_TIME: Duration = Duration::from_secs(180);

/// Options of `cargo xtask faults`.
#[derive(clap::Args)]
pub struct Arguments {
    /// How often each is killed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    kills: u32,
    /// Gifts a second.
    #[arg(long, value_name = "R", default_value_t = 300)]
    rate: u32,
    /// Kill only this: backend, bridge, redis, database or all.
    #[arg(long, value_name = "VICTIM")]
    only: Option<String>,
    /// Chooses the moments [default: the time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// What is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Backend,
    Bridge,
    Redis,
    Database,
}

impl Victim {
    const fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Bridge => "bridge",
            Self::Redis => "redis",
            Self::Database => "database",
        }
    }
}

/// A run: what stores, and who dies; of several, one each time, by chance.
#[derive(Clone, Copy)]
struct Run {
    storage: Storage,
    victims: &'static [Victim],
}

impl Run {
    /// Who dies, for tables.
    const fn name(self) -> &'static str {
        match self.victims {
            [one] => one.name(),
            _ => "all",
        }
    }
}

/// Every run.
const RUNS: [Run; 7] = {
    use Victim::{Backend, Bridge, Database, Redis};
    let embedded = Run { storage: Storage::Embedded, victims: &[] };
    let servers = Run { storage: Storage::Servers, victims: &[] };
    [
        Run { victims: &[Backend], ..embedded },
        Run { victims: &[Bridge], ..embedded },
        Run { victims: &[Backend], ..servers },
        Run { victims: &[Bridge], ..servers },
        Run { victims: &[Redis], ..servers },
        Run { victims: &[Database], ..servers },
        Run { victims: &[Backend, Bridge, Redis, Database], ..servers },
    ]
};

/// Runs the storms and prints what came of them; fails when anything was lost, invented or doubled.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let names: Vec<_> =
        RUNS.iter().filter(|run| run.storage == Storage::Servers).map(|run| run.name()).collect();
    let is_wanted = |run: &Run| arguments.only.as_deref().is_none_or(|only| only == run.name());
    ensure!(RUNS.iter().any(is_wanted), "--only: want one of {}", names.join(", "));
    let programs = build(&["sailfish"])?;
    let mut chance = Chance::new(arguments.seed);
    println!("seed {}", chance.seed);
    println!(
        "{:<16} {:<9} {:>5} {:>7} {:>9} {:>8} {:>6} {:>8} {:>12}  verdict",
        "storage", "killed", "kills", "sent", "answered", "refused", "lost", "doubled", "redelivered"
    );
    let mut failed = Vec::new();
    for run in RUNS.into_iter().filter(is_wanted) {
        let passed = storm(arguments, &programs, run, &mut chance).unwrap_or_else(|error| {
            println!("{:<16} {:<9} FAILED: {error:#}", run.storage.name(), run.name());
            false
        });
        if !passed {
            failed.push(format!("{} with {}", run.name(), run.storage.name()));
        }
    }
    ensure!(failed.is_empty(), "faults: {}", failed.join(", "));
    Ok(())
}

/// One run, and its line of the table; whether it passed.
///
/// # Errors
/// What kept it from having a line.
fn storm(arguments: &Arguments, programs: &Path, run: Run, chance: &mut Chance) -> anyhow::Result<bool> {
    let mut stack = Stack::start(programs, run.storage, 2)?;
    // On average half of the longest times; the rest of the load is calm.
    let seconds = u64::from(arguments.kills) * (LIFE_MS_MAX + DEATH_MS_MAX) / 2 / 1000 + 5;
    let json = stack.file("load.json");
    let flags = format!(
        "--connections 60 --rooms 6 --rate {} --seconds {seconds} --repeat 3 --drain 60 --chaos 0:true",
        arguments.rate
    );
    let flags: Vec<_> = flags.split(' ').collect();
    let log = std::fs::File::create(stack.file("load.log"))?;
    let mut load = stack.load(programs, &json, &flags).stdout(log.try_clone()?).stderr(log).spawn()?;
    sleep(Duration::from_secs(2)); // it connects, and the first gifts are on their way
    for _ in 0..arguments.kills {
        sleep(Duration::from_millis(chance.below(LIFE_MS_MAX)));
        let pause = Duration::from_millis(chance.below(DEATH_MS_MAX));
        let victim = run.victims[chance.below(run.victims.len() as u64) as usize];
        let killed = kill(&mut stack, victim, pause);
        if let Err(error) = killed {
            let _ = load.kill(); // it has nobody to talk to any more
            let _ = load.wait();
            return Err(error);
        }
    }
    let passed = wait(&mut load)?;
    let text = || std::fs::read_to_string(stack.file("load.log")).unwrap_or_default();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?).with_context(text)?;
    let count = |key: &str| report[key].as_u64().unwrap_or(0);
    let refused: u64 = report["refused"]
        .as_object()
        .into_iter()
        .flat_map(|reasons| reasons.values())
        .filter_map(Value::as_u64)
        .sum();
    println!(
        "{:<16} {:<9} {:>5} {:>7} {:>9} {:>8} {:>6} {:>8} {:>12}  {}",
        run.storage.name(),
        run.name(),
        arguments.kills,
        count("sent"),
        count("accepted"),
        refused,
        count("lost"),
        count("duplicated"),
        count("redelivered"),
        if passed { "the books balance" } else { "FAILED" },
    );
    if !passed {
        println!("{}", text());
    }
    Ok(passed)
}

fn kill(stack: &mut Stack, victim: Victim, pause: Duration) -> anyhow::Result<()> {
    let missing = "this storage has none";
    match victim {
        Victim::Backend => kill_node(&mut stack.backend, pause),
        Victim::Bridge => kill_node(&mut stack.bridge, pause),
        Victim::Redis => {
            kill_server(stack.redis.as_ref().context(missing)?, pause);
            Ok(())
        }
        Victim::Database => {
            kill_server(stack.database.as_ref().context(missing)?, pause);
            Ok(())
        }
    }
}

fn kill_node(node: &mut Node, pause: Duration) -> anyhow::Result<()> {
    node.kill();
    sleep(pause);
    node.start_again()
}

fn kill_server(server: &testbed::Server, pause: Duration) {
    server.kill();
    sleep(pause);
    server.start_again();
}

/// Whether the load passed.
fn wait(load: &mut Child) -> anyhow::Result<bool> {
    let deadline = Instant::now() + END_TIME;
    loop {
        if let Some(status) = load.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            load.kill()?;
            load.wait()?;
            bail!("the load did not end");
        }
        sleep(Duration::from_millis(100));
    }
}

/// Numbers by chance (SplitMix64).
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    fn new(seed: Option<u64>) -> Self {
        let by_time =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let seed = seed.unwrap_or_else(by_time);
        Self { seed, state: seed }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
