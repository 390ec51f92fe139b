//! The client for browsers and Node plays all scenarios, over WebSocket.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs that play at the same time: scenarios mostly wait.
const RUNS: usize = 4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("clients/ is above").join("typescript")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn it_plays_all_scenarios() {
    for arguments in [&["ci", "--no-audit", "--no-fund", "--prefer-offline"][..], &["run", "build"]] {
        let output = Command::new("npm").args(arguments).current_dir(folder()).output();
        let output = output.expect("npm is there; `cargo xtask ci` installs it");
        assert!(output.status.success(), "npm {}: {}", arguments.join(" "), text(&output));
    }
    let conformance = || Command::new(env!("CARGO_BIN_EXE_conformance"));
    let list = text(&conformance().arg("list").output().expect("the suite starts"));
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > RUNS, "{list}");
    let runs: Vec<_> = (0..RUNS)
        .map(|run| {
            let only = names.iter().skip(run).step_by(RUNS).flat_map(|name| ["--only", name]);
            conformance()
                .args(["run", "--over", "ws"])
                .args(only)
                .args(["--", "node", "dist/conformance.js"])
                .current_dir(folder())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the suite starts")
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().expect("the suite ends");
        assert!(output.status.success(), "{}", text(&output));
    }
}
