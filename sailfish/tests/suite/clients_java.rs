//! The client in Java: its own tests, then bots that chat while their server is killed or their connections
//! are cut.

use crate::common::run;

const FOLDER: &str = "clients/java";

#[test]
fn it_passes_its_tests_and_survives_faults() {
    run(FOLDER, "sh", &["test.sh"]);
    for (scheme, fault) in [("tcp", "kill"), ("wss", "kill"), ("ws", "cut")] {
        let classes = "target/sailfish-client.jar:target/javac/programs";
        run(
            FOLDER,
            "java",
            &["-cp", classes, "ChaosRun", env!("CARGO_BIN_EXE_sailfish"), "6", scheme, fault],
        );
    }
}
