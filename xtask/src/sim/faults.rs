//! `cargo xtask sim faults`: plants each fault of the table into a copy of the tree, and looks how many seeds
//! find it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io::Read};

use anyhow::{Context, bail, ensure};

use super::planted::{ALL, Planted};
use crate::ci::cargo;
use crate::root;

/// Which fault is on in a process.
const VARIABLE: &str = "SIM_PLANTED";
/// A run that takes longer hangs, which counts as found.
const PATIENCE: Duration = Duration::from_secs(240);
/// Options of `cargo xtask sim faults`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Within so many seeds each fault is to be found.
    #[arg(long, value_name = "N", default_value_t = 500)]
    seeds: u64,
    /// Only the fault of this name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Writes the table to this file too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Builds the copy once, runs it for each fault, and prints which seed finds it. An error if one is not
/// found.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let is_wanted = |fault: &Planted| arguments.only.as_deref().is_none_or(|name| fault.name == name);
    let wanted: Vec<(usize, &Planted)> =
        ALL.iter().enumerate().filter(|(_, fault)| is_wanted(fault)).collect();
    ensure!(!wanted.is_empty(), "no fault has that name");
    let tree = root().join("target/planted/tree");
    plant(&tree)?;
    let program = build(&tree)?;
    let mut table = String::from("| fault | promise | seeds |\n|---|---|---|\n");
    let mut missed = Vec::new();
    if look(&program, usize::MAX, arguments.seeds.min(20))?.is_some() {
        bail!("a seed fails without any fault");
    }
    for (number, fault) in wanted {
        let seeds = match look(&program, number, arguments.seeds)? {
            Some(seeds) => seeds.to_string(),
            None => {
                missed.push(fault.name);
                format!("none of {}", arguments.seeds)
            }
        };
        println!("{:45} {seeds}", fault.name);
        table += &format!("| {} | {} | {seeds} |\n", fault.name.replace('_', " "), fault.breaks);
    }
    if let Some(file) = &arguments.report {
        fs::write(file, table).with_context(|| format!("cannot write {}", file.display()))?;
    }
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(())
}

/// Copies what git knows of the tree, with all faults. What is as it was stays untouched, so that little is
/// built again.
fn plant(tree: &Path) -> anyhow::Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output()?;
    ensure!(listed.status.success(), "git cannot list the tree");
    let mut planted = planted(root())?;
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let text = match planted.remove(name) {
            Some(text) => text.into_bytes(),
            None => match fs::read(root().join(name)) {
                Ok(text) => text,
                Err(_) => continue, // deleted, and git does not know yet
            },
        };
        let to = tree.join(name);
        if fs::read(&to).is_ok_and(|known| known == text) {
            continue;
        }
        fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

/// The text of each file with faults.
fn planted(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    const ASKED: &str = "shard/src/lib.rs";
    let mut files = BTreeMap::new();
    for (number, fault) in ALL.iter().enumerate() {
        let text = match files.remove(fault.file) {
            Some(text) => text,
            None => {
                fs::read_to_string(root.join(fault.file)).with_context(|| format!("no {}", fault.file))?
            }
        };
        let found = text.matches(fault.find).count();
        ensure!(found == 1, "{}: its text stands {found} times in {}", fault.name, fault.file);
        let of = if fault.file.starts_with("shard/") { "crate" } else { "shard" };
        let plant = fault.plant.replace("PLANTED", &format!("{of}::is_planted({number})"));
        files.insert(fault.file.into(), text.replacen(fault.find, &plant, 1));
    }
    let asked = fs::read_to_string(root.join(ASKED))?;
    let question = format!(
        "\n/// Whether this fault is on.\npub fn is_planted(number: usize) -> bool {{\n    static ON: std::sync::OnceLock<usize> = \
         std::sync::OnceLock::new();\n    let on = || std::env::var(\"{VARIABLE}\").ok().and_then(|on| on.parse().ok());\n    \
         *ON.get_or_init(|| on().unwrap_or(usize::MAX)) == number\n}}\n"
    );
    files.insert(ASKED.into(), asked + &question);
    Ok(files)
}

fn build(tree: &Path) -> anyhow::Result<PathBuf> {
    let target = root().join("target/planted/build");
    let status = cargo(&["build", "--quiet", "--locked", "--release", "--package", "sim"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", &target)
        .envs([("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_DEBUG", "0")])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the copy with the faults does not build ({status})");
    Ok(target.join("release/sim"))
}

/// How many seeds it takes to find a fault; none: all of them pass.
fn look(program: &Path, fault: usize, seeds: u64) -> anyhow::Result<Option<u64>> {
    let mut child = Command::new(program)
        .args(["--scenario", "short", "--seeds", &format!("0..{seeds}")])
        .env(VARIABLE, fault.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the simulation")?;
    let Some(passed) = wait(&mut child)? else { return Ok(Some(seeds)) };
    if passed {
        return Ok(None);
    }
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said)?;
    let seed = said.rsplit_once("--seed ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    let seed: u64 = seed.with_context(|| format!("no seed in what it says: {said}"))?;
    Ok(Some(seed + 1))
}

/// Whether it ended well; none: it hung.
fn wait(child: &mut Child) -> anyhow::Result<Option<bool>> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_place_in_the_tree() {
        planted(root()).expect("a text that faults replace is changed together with them");
        assert!(ALL.len() >= 30);
    }
}
