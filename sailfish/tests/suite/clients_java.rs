//! The client in Java: its own tests, then bots that chat while their server is killed, their connections are
//! cut, or the nodes of their cluster are killed.

use std::time::Duration;

use crate::common::storm::Storm;
use crate::common::{run, token};

const FOLDER: &str = "clients/java";

#[test]
fn it_passes_its_tests_and_survives_faults() {
    run(FOLDER, "sh", &["test.sh"]);
    let classes = "target/sailfish-client.jar:target/javac/programs";
    for (scheme, fault) in [("tcp", "kill"), ("wss", "kill"), ("ws", "cut")] {
        run(
            FOLDER,
            "java",
            &["-cp", classes, "ChaosRun", env!("CARGO_BIN_EXE_sailfish"), "6", scheme, fault],
        );
    }
    let mut storm = Storm::gather();
    let address = format!("tcp://{}", storm.tcp());
    let tokens = [101, 102, 103].map(|user| token(user, 3_600)).join(",");
    std::thread::scope(|scope| {
        scope.spawn(|| run(FOLDER, "java", &["-cp", classes, "ChaosRun", &address, "12", &tokens]));
        assert!(storm.rage(Duration::from_secs(10)) >= 2);
    });
}
