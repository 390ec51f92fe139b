//! The client for browsers and Node: its own tests, then runs against a server that is killed, or whose
//! connections are cut, and against a cluster whose nodes are killed.

use std::time::Duration;

use crate::common::storm::Storm;
use crate::common::{run, token};

const FOLDER: &str = "clients/typescript";

#[test]
fn it_passes_its_tests_and_survives_kills_and_cuts() {
    run(FOLDER, "npm", &["ci", "--no-audit", "--no-fund", "--prefer-offline"]);
    run(FOLDER, "npm", &["test"]);
    std::thread::scope(|scope| {
        for fault in ["kill", "cut"] {
            scope.spawn(move || {
                run(FOLDER, "node", &["dist/chaos.js", env!("CARGO_BIN_EXE_sailfish"), "6", fault])
            });
        }
    });
    let mut storm = Storm::gather();
    let url = format!("ws://{}", storm.websocket());
    let tokens = [101, 102, 103].map(|user| token(user, 3_600)).join(",");
    std::thread::scope(|scope| {
        scope.spawn(|| run(FOLDER, "node", &["dist/chaos.js", &url, "12", &tokens]));
        assert!(storm.rage(Duration::from_secs(10)) >= 2);
    });
}
