//! What a backend says in its log: at its first start, and while its disk fails.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::common::stack::{Api, INTERNAL_SECRET};
use crate::common::{Folder, Server, sailfish, until};

/// A backend whose state is in this folder, by a command that a shell begins with.
fn backend(folder: &Folder, before: &str) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sailfish")]);
    command.args(["backend", "--listen=127.0.0.1:0"]);
    // The shell has the environment of `sailfish()`.
    for (name, value) in sailfish().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("SAILFISH_BACKEND__INTERNAL_SECRET", INTERNAL_SECRET).env("XDG_STATE_HOME", &folder.0);
    Server::spawn(&mut command)
}

fn lines(server: &Server, word: &str) -> Vec<String> {
    server.log().lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}

/// All steps of a fresh database are one line, and a database that is up to date is none.
#[test]
fn a_fresh_backend_says_one_line_about_migrations() {
    let folder = Folder::new("fresh");
    for expected in [1, 0] {
        let server = backend(&folder, ":");
        let said = lines(&server, "migrat");
        assert_eq!(said.len(), expected, "{}", server.log());
        assert!(said.iter().all(|line| line.contains("migrated the database")), "{said:?}");
    }
}

/// A disk that fails under many requests: each is 503, the log has a few lines with the cause, and operators
/// see the connections that were closed.
#[test]
fn a_disk_that_fails_is_a_few_lines_with_the_cause() {
    let folder = Folder::new("disk");
    drop(backend(&folder, ":")); // the steps of a fresh database need more room than what follows
    // No file grows over 2 MB, or 4 MB if the shell has blocks of 1 KiB.
    let server = backend(&folder, "trap '' XFSZ; ulimit -f 4000");
    let api = Api(server.clients);
    let mut granted = 0;
    let mut grant = || -> (u16, Value) {
        granted += 1;
        let id = granted.to_string();
        let grants: Vec<_> =
            (1..=500).map(|user| json!({ "user_id": user, "amount": 1, "id": id })).collect();
        api.ask("POST", "/internal/wallet/grants", INTERNAL_SECRET, &json!({ "grants": grants }))
    };
    until("the disk fails", || grant().0 != 200);
    let began = Instant::now();
    for _ in 0..100 {
        let (status, answer) = grant();
        assert_eq!((status, &answer["code"]), (503, &json!("database_unavailable")), "{answer}");
    }
    let said = server.log();
    // Each kind has one a minute, and this may take some.
    let minutes = 1 + began.elapsed().as_secs() as usize / 60;
    assert!((1..=15 * minutes).contains(&said.lines().count()), "{} lines:\n{said}", said.lines().count());
    assert!(!lines(&server, "disk I/O error").is_empty(), "the cause:\n{said}");
    let closed = lines(&server, "closed a connection to the database").len();
    assert!((1..=1 + minutes).contains(&closed), "{said}");
    let closed = "sailfish_backend_database_connections_closed_total";
    assert!(server.metric(closed, "pool=\"primary\"") >= 100.0, "{}", server.get("/metrics").1);
    assert_eq!(server.get("/readyz").0, 503);
}
