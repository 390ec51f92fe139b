//! `cargo xtask faults`: `kill -9` in the middle of a storm of gifts.
//!
//! `sailfish load gift` accounts for every gift and compares the backend's books with what clients were told; here its backend,
//! bridge, Redis and database are killed at random moments, each many times, and started again.

use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::bench::build;
use crate::stack::{Stack, Storage};

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
    /// Any of them, by chance.
    All,
}

impl Victim {
    const fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Bridge => "bridge",
            Self::Redis => "redis",
            Self::Database => "database",
            Self::All => "all",
        }
    }
}

/// Every run: what stores, and who dies.
const RUNS: [(Storage, Victim); 7] = [
    (Storage::Embedded, Victim::Backend),
    (Storage::Embedded, Victim::Bridge),
    (Storage::Servers, Victim::Backend),
    (Storage::Servers, Victim::Bridge),
    (Storage::Servers, Victim::Redis),
    (Storage::Servers, Victim::Database),
    (Storage::Servers, Victim::All),
];

/// Runs the storms and prints what came of them; fails when anything was lost, invented or doubled.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let names: Vec<_> = RUNS.iter().map(|(_, victim)| victim.name()).collect();
    let is_wanted = |victim: Victim| arguments.only.as_deref().is_none_or(|only| only == victim.name());
    ensure!(RUNS.iter().any(|(_, victim)| is_wanted(*victim)), "--only: want one of {}", names.join(", "));
    let programs = build()?;
    let mut chance = Chance::new(arguments.seed);
    println!("seed {}", chance.seed);
    println!(
        "{:<16} {:<9} {:>5} {:>7} {:>9} {:>8} {:>6} {:>8} {:>12}  verdict",
        "storage", "killed", "kills", "sent", "answered", "refused", "lost", "doubled", "redelivered"
    );
    let mut failed = Vec::new();
    for (storage, victim) in RUNS.iter().copied().filter(|(_, victim)| is_wanted(*victim)) {
        match storm(arguments, &programs, storage, victim, &mut chance) {
            Ok(()) => {}
            Err(error) => {
                println!("{:<16} {:<9} FAILED: {error:#}", storage.name(), victim.name());
                failed.push(format!("{} with {}", victim.name(), storage.name()));
            }
        }
    }
    ensure!(failed.is_empty(), "faults: {}", failed.join(", "));
    Ok(())
}

fn storm(
    arguments: &Arguments,
    programs: &Path,
    storage: Storage,
    victim: Victim,
    chance: &mut Chance,
) -> anyhow::Result<()> {
    let mut stack = Stack::start(programs, storage)?;
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
        let killed = kill(&mut stack, victim, chance, pause);
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
        storage.name(),
        victim.name(),
        arguments.kills,
        count("sent"),
        count("accepted"),
        refused,
        count("lost"),
        count("duplicated"),
        count("redelivered"),
        if passed { "the books balance" } else { "FAILED" },
    );
    ensure!(passed, "{}", text());
    Ok(())
}

fn kill(stack: &mut Stack, victim: Victim, chance: &mut Chance, pause: Duration) -> anyhow::Result<()> {
    let victim = match victim {
        Victim::All => {
            [Victim::Backend, Victim::Bridge, Victim::Redis, Victim::Database][chance.below(4) as usize]
        }
        one => one,
    };
    let missing = "this storage has none";
    match victim {
        Victim::Backend | Victim::Bridge => {
            let node = if victim == Victim::Backend { &mut stack.backend } else { &mut stack.bridge };
            node.kill();
            sleep(pause);
            node.start_again()
        }
        Victim::Redis | Victim::Database | Victim::All => {
            let server: &testbed::Server = match victim {
                Victim::Redis => stack.redis.as_ref().context(missing)?,
                _ => stack.database.as_ref().context(missing)?,
            };
            server.kill();
            sleep(pause);
            server.start_again();
            Ok(())
        }
    }
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
