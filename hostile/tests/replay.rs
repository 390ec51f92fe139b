//! The corpus of each fuzz target, as it is and mutated by seed. What libFuzzer found once stays found.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use hostile::{TARGETS, Target, mutate};
use shard::Prng;

/// Mutations of each target. `FUZZ_ROUNDS` and `FUZZ_SEED` widen or replay them.
const ROUNDS: u64 = 1_000;
const SEED: u64 = 0x5346_0001;
/// What all corpora together may take.
const CORPUS_BYTES_MAX: u64 = 300 << 10;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name);
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

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a decimal u64"))
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
    let (seed, rounds) = (from_env("FUZZ_SEED", SEED), from_env("FUZZ_ROUNDS", ROUNDS));
    for target in TARGETS {
        let mut inputs: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
        inputs.extend((target.seeds)());
        for round in 0..rounds {
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let folders =
        fs::read_dir(folder).expect("the corpus is there").map(|entry| entry.expect("readable").path());
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
