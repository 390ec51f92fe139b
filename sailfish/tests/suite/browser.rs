//! The page with a live room: its built files are those of its sources, and it works in a browser.

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("sailfish/ lies in the workspace").join("web")
}

fn npm(arguments: &[&str]) {
    let output = Command::new("npm")
        .args(arguments)
        .current_dir(folder())
        .env("SAILFISH", env!("CARGO_BIN_EXE_sailfish"))
        .output()
        .unwrap_or_else(|error| panic!("npm: {error}; `cargo xtask ci` installs it"));
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "npm {}: {}\n{stdout}\n{stderr}", arguments.join(" "), output.status);
}

#[test]
fn the_page_is_built_from_its_sources_and_works_in_a_browser() {
    npm(&["ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"]);
    npm(&["run", "check"]);
    npm(&["test"]);
}
