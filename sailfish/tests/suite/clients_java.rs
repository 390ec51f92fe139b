//! The client in Java: its own tests, then bots that chat while their server is killed or their connections
//! are cut.

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("sailfish/ lies in the workspace")
        .join("clients/java")
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
fn it_passes_its_tests_and_survives_faults() {
    run("sh", &["test.sh"]);
    for (scheme, fault) in [("tcp", "kill"), ("wss", "kill"), ("ws", "cut")] {
        let classes = "target/sailfish-client.jar:target/javac/programs";
        run("java", &["-cp", classes, "ChaosRun", env!("CARGO_BIN_EXE_sailfish"), "6", scheme, fault]);
    }
}
