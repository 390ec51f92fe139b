//! The rules of the house that no compiler knows: which crate may depend on which, under what licences, and
//! how the sources are kept.

mod circles;
mod deploy;
mod edges;
mod licences;
mod links;
mod logs;
mod panics;
mod rust_text;
mod tidy;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the workspace")
}

/// The packages that `cargo metadata` tells of. It reads the lock file, and the registry only for packages
/// that no build has fetched yet.
fn packages(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(std::env::var("CARGO").expect("cargo runs the tests"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

/// The packages of this workspace.
fn members() -> Vec<Value> {
    packages(&["--no-deps"])
}

fn name(package: &Value) -> &str {
    package["name"].as_str().expect("a package has a name")
}
