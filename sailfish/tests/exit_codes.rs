//! The exit codes that docs/OPERATIONS.md promises, of every subcommand.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests wait for real processes, and may panic

mod common;

use common::{SECRET, output, sailfish};
use testbed::free_port;

#[test]
fn codes_mean_the_same_for_all_subcommands() {
    let nobody = format!("127.0.0.1:{}", free_port()); // nobody listens there
    let (url, set) = (format!("http://{nobody}"), format!("token.secret={SECRET}"));
    let done: [&[&str]; 6] = [
        &["--help"],
        &["--version"],
        &["token", "--user", "1", "--set", &set],
        &["up", "--print-config"],
        &["backend", "--print-config"],
        &["load", "--help"],
    ];
    let not_done: [&[&str]; 6] = [
        &["up", "--listen", "203.0.113.1:7700", "--admin", "127.0.0.1:0", "--set", &set],
        &["backend", "--listen", "127.0.0.1:0", "--database", "sqlite:/no/such/folder/x.db"],
        &["ctl", "nodes", "--admin", &nobody],
        &["demo", "--backend", &url, "--backend-secret", "the secret of the test"],
        &["load", "gift", "--backend", &url, "--backend-secret", "the secret of the test", "--set", &set],
        &["load", "chat", "--connections", "2", "--seconds", "0.1", "--target", &nobody, "--set", &set],
    ];
    let refused: [&[&str]; 16] = [
        &[],
        &["nothing"],
        &["token"],
        &["token", "--user", "1", "--ttl", "1w"],
        &["token", "--user", "1", "--set", "nothing=1"],
        &["up", "--shards", "5000"],
        &["up", "--config", "/no/such/file"],
        &["gateway", "--listen", "nowhere"],
        &["router", "--set", "cluster.secret=x"],
        &["bridge"],
        &["backend", "--database", "postgres://x"],
        &["chat", "--user", "1", "--encoding", "xml"],
        &["chat", "--user", "1", "--target", "nonsense", "--set", &set],
        &["ctl", "nodes", "--admin", "nonsense"],
        &["demo", "--backend", "nonsense", "--backend-secret", "the secret of the test"],
        &["load", "chat", "--connections", "3"],
    ];
    for (code, commands) in [(0, &done[..]), (1, &not_done), (2, &refused)] {
        for arguments in commands {
            let output = output(sailfish().args(*arguments), "");
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
        }
    }
}
