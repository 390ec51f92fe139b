//! The client for browsers and Node: its own tests, then runs against a server that is killed, or whose
//! connections are cut.

use crate::common::run;

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
}
