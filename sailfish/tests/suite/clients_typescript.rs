//! The client for browsers and Node: its own tests, then runs against a server that is killed, or whose
//! connections are cut.

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("sailfish/ lies in the workspace")
        .join("clients/typescript")
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask ci` installs it"));
    let line = format!("{program} {}", arguments.join(" "));
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{line} ended with {}\n{stdout}\n{stderr}", output.status);
}

#[test]
fn it_passes_its_tests_and_survives_kills_and_cuts() {
    run("npm", &["ci", "--no-audit", "--no-fund", "--prefer-offline"]);
    run("npm", &["test"]);
    std::thread::scope(|scope| {
        for fault in ["kill", "cut"] {
            scope.spawn(move || run("node", &["dist/chaos.js", env!("CARGO_BIN_EXE_sailfish"), "6", fault]));
        }
    });
}
