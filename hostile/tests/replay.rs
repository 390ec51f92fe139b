//! The corpus of each fuzz target, as it is and mutated for some seconds. What libFuzzer found once stays
//! found.
#![allow(clippy::disallowed_methods)] // a run has a seed of its own, and ends in time

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hostile::{TARGETS, Target, mutate};
use shard::Prng;

/// How long each target gets mutations, and how many at least. `FUZZ_ROUNDS` sets their number, and
/// `FUZZ_SEED` replays them.
const TIME: Duration = Duration::from_secs(2);
const ROUNDS_MIN: u64 = 500;
/// What each file of a target says.
const PROGRAM: &str =
    "#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::run(\"NAME\", bytes));\n";
/// What all corpora together may take.
const CORPUS_BYTES_MAX: u64 = 300 << 10;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz_folder().join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry is readable").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file is readable"))).collect()
}

/// Runs an input; the message tells how to have it again.
fn check(target: &Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!(
            "{}: {what}\nThe input, in hexadecimal: {hex}\nMend the cause, and keep the input in fuzz/corpus/{}/.",
            target.name, target.name
        );
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a decimal u64"))
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

#[test]
fn every_target_stands_its_corpus() {
    for target in TARGETS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{}: an empty corpus", target.name);
        for (path, bytes) in corpus {
            check(target, &bytes, &path.display().to_string());
        }
    }
}

#[test]
fn every_target_stands_well_formed_inputs() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}: no inputs", target.name);
        for (number, bytes) in seeds.iter().enumerate() {
            check(target, bytes, &format!("well-formed input {number}"));
        }
    }
}

#[test]
fn every_target_stands_mutations_of_its_corpus() {
    let drawn =
        || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64;
    let (seed, rounds) = (from_env("FUZZ_SEED").unwrap_or_else(drawn), from_env("FUZZ_ROUNDS"));
    for target in TARGETS {
        let start = Instant::now();
        let goes_on = |round: u64| match rounds {
            Some(rounds) => round < rounds,
            None => round < ROUNDS_MIN || start.elapsed() < TIME,
        };
        let mut inputs: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
        inputs.extend((target.seeds)());
        for round in (0..).take_while(|round| goes_on(*round)) {
            let round_seed = seed.wrapping_add(round);
            let mut prng = Prng::new(round_seed);
            let pick = |prng: &mut Prng| prng.below(inputs.len() as u64) as usize;
            let (first, other) = (pick(&mut prng), pick(&mut prng));
            let mut bytes = inputs[first].clone();
            mutate(&mut bytes, &inputs[other], &mut prng);
            check(target, &bytes, &format!("FUZZ_SEED={round_seed} FUZZ_ROUNDS=1 cargo test -p hostile"));
        }
    }
}

#[test]
fn the_corpus_is_small_and_of_targets_that_are_there() {
    let folders = fs::read_dir(fuzz_folder().join("corpus"))
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").path());
    let mut bytes = 0;
    for path in folders {
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        assert!(TARGETS.iter().any(|target| target.name == name), "fuzz/corpus/{name} is of no target");
        let files = fs::read_dir(path).expect("a folder for each target");
        bytes +=
            files.map(|file| file.expect("readable").metadata().expect("it is there").len()).sum::<u64>();
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes; `cargo xtask fuzz --minimize` makes it smaller");
}

/// libFuzzer's programs are a workspace of their own, which is built only for fuzzing.
#[test]
fn every_target_has_its_program() {
    let folder = fuzz_folder().join("fuzz_targets");
    for target in TARGETS {
        let path = folder.join(target.name).with_extension("rs");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, PROGRAM.replace("NAME", target.name));
    }
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("it has a manifest");
    assert_eq!(fs::read_dir(&folder).expect("there are programs").count(), TARGETS.len());
    let is_named = |target: &&Target| manifest.contains(&format!("name = \"{}\"", target.name));
    assert_eq!(TARGETS.iter().filter(is_named).count(), TARGETS.len());
}
