//! The client in Java plays all scenarios, over TCP and over WebSocket.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs that play at the same time: scenarios mostly wait.
const RUNS: usize = 4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("clients/ is above").join("java")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn it_plays_all_scenarios() {
    let output = Command::new("sh").arg("build.sh").current_dir(folder()).output().expect("a shell is there");
    assert!(output.status.success(), "build.sh (`cargo xtask ci` installs javac): {}", text(&output));
    let conformance = || Command::new(env!("CARGO_BIN_EXE_conformance"));
    let list = text(&conformance().arg("list").output().expect("the suite starts"));
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > RUNS, "{list}");
    let classes = "target/sailfish-client.jar:target/javac/programs";
    let runs: Vec<_> = (0..RUNS)
        .map(|run| {
            let only = names.iter().skip(run).step_by(RUNS).flat_map(|name| ["--only", name]);
            conformance()
                .arg("run")
                .args(only)
                .args(["--", "java", "-XX:TieredStopAtLevel=1", "-cp", classes, "ConformanceClient"])
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
