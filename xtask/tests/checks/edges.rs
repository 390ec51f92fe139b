//! The arrows between crates.

use std::process::Command;

use serde_json::{Value, json};

use crate::{members, name, root};

/// Each crate with those of ours that it may depend on, for its tests too.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "sailfish",
        &[
            "backend",
            "biz-bridge",
            "edge",
            "engine",
            "gateway",
            "http-server",
            "link",
            "loadgen",
            "node",
            "router",
            "sailfish-client",
            "shard",
            "testbed",
            "traces",
            "trust",
            "wire",
        ],
    ),
    ("backend", &["http-server", "logs", "testbed", "traces", "trust"]),
    ("http-server", &["edge", "logs"]),
    ("logs", &[]),
    ("trust", &[]),
    ("traces", &["logs", "trust"]),
    ("testbed", &[]),
    ("sim", &["edge", "gateway", "link", "loadgen", "node", "router", "shard", "wire"]),
    ("node", &["gateway", "link", "router", "shard", "wire"]),
    ("link", &["edge", "shard", "wire"]),
    ("edge", &["shard"]),
    ("gateway", &["edge", "shard", "wire"]),
    ("router", &["shard", "wire"]),
    ("loadgen", &["edge", "shard", "wire"]),
    ("engine", &["shard"]),
    ("biz-bridge", &["logs", "testbed", "traces", "trust", "wire"]),
    ("shard", &[]),
    ("wire", &[]),
    // Fuzz targets of all that takes bytes from outside.
    ("hostile", &["backend", "biz-bridge", "edge", "gateway", "link", "node", "router", "shard", "wire"]),
    // Measures everything below the binary.
    ("benches", &["backend", "engine", "gateway", "loadgen", "router", "shard", "wire"]),
    // Plays a server of the protocol, and runs clients as programs.
    ("conformance", &["wire"]),
    // One of the client libraries.
    ("sailfish-client", &["conformance", "edge", "shard", "wire"]),
    // Builds and runs the others as programs.
    ("xtask", &["testbed"]),
];

/// Crates that know no I/O, clock or thread.
const CORES: [&str; 9] = ["wire", "shard", "edge", "node", "sim", "link", "gateway", "router", "loadgen"];

/// What would let a core reach a runtime, a socket, the operating system or its randomness.
const BANNED_IN_CORES: [&str; 14] = [
    "async-std",
    "compio",
    "fastrand",
    "getrandom",
    "glommio",
    "io-uring",
    "libc",
    "mio",
    "monoio",
    "nix",
    "rand",
    "rustix",
    "socket2",
    "tokio",
];

#[test]
fn crates_depend_only_on_what_is_below_them() {
    let faults = faults(&members());
    assert!(
        faults.is_empty(),
        "\n{}\nThe allowed arrows stand in xtask/tests/checks/edges.rs.",
        faults.join("\n")
    );
}

#[test]
fn a_wrong_arrow_is_found() {
    let package =
        |name: &str, dependency: &str| json!({ "name": name, "dependencies": [{ "name": dependency }] });
    let others = [package("shard", "bytes"), package("engine", "libc"), package("wire", "serde")];
    assert_eq!(faults(&others), [""; 0]);
    for (from, to) in [("engine", "wire"), ("shard", "wire"), ("gateway", "tokio"), ("newcomer", "bytes")] {
        let packages: Vec<Value> = others.iter().cloned().chain([package(from, to)]).collect();
        assert_eq!(faults(&packages).len(), 1, "{from} -> {to}");
    }
}

#[test]
fn glommio_is_in_no_build_without_its_feature() {
    let has_glommio = |features: &[&str]| {
        let output = Command::new(std::env::var("CARGO").expect("cargo runs the tests"))
            .args(["tree", "--locked", "--package=engine", "--package=sailfish", "--edges=normal,build"])
            .args(features)
            .current_dir(root())
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).contains("glommio v")
    };
    assert!(has_glommio(&[]));
    assert!(!has_glommio(&["--no-default-features"]));
}

/// One line for each arrow that should not be there.
fn faults(packages: &[Value]) -> Vec<String> {
    let ours: Vec<&str> = packages.iter().map(name).collect();
    let mut faults = Vec::new();
    for package in packages {
        let from = name(package);
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == from) else {
            faults.push(format!("{from}: a crate without a place; say what it may depend on"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("a list of dependencies") {
            let to = name(dependency);
            if is_ours(to, &ours) && !allowed.contains(&to) {
                faults.push(format!("{from} -> {to}: this arrow points up or sideways"));
            }
            if CORES.contains(&from) && BANNED_IN_CORES.contains(&to) {
                faults.push(format!("{from} -> {to}: a core knows no I/O, clock, thread or OS randomness"));
            }
        }
    }
    faults
}

fn is_ours(dependency: &str, ours: &[&str]) -> bool {
    ours.contains(&dependency) || ALLOWED.iter().any(|(name, _)| *name == dependency)
}
