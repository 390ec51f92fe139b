//! Secrets and what is kept on disk: who may read them, and how strong they are.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, Folder, Server, output, sailfish, until};

/// A `sailfish backend` whose state is in this folder.
fn backend(folder: &Folder) -> Server {
    let mut command = sailfish();
    command.args(["backend", "--listen=127.0.0.1:0"]).env("XDG_STATE_HOME", &folder.0);
    Server::spawn(&mut command)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A backend that is the first program to run on a machine makes its state for its user alone, and shuts
/// others out of a state that was made open.
#[test]
fn what_a_backend_keeps_is_its_owners_alone() {
    let folder = Folder::new("private");
    let state = folder.0.join("sailfish");
    for _ in 0..2 {
        let server = backend(&folder);
        assert_eq!(mode(&state), 0o700);
        // The log goes with the last connection to the database and comes with the next one, so it may go
        // while it is looked at.
        let mut files = Vec::new();
        until("all files are there, and the owner's alone", || {
            files = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).collect();
            let modes = |file: &PathBuf| {
                fs::metadata(file).ok().map(|data| (file.clone(), data.permissions().mode() & 0o777))
            };
            let modes: Vec<_> = files.iter().filter_map(modes).collect();
            let open: Vec<_> = modes.iter().filter(|(_, mode)| *mode != 0o600).collect();
            assert!(open.is_empty(), "{open:?}");
            ["backend.db", "backend.db-wal", "internal-secret"]
                .iter()
                .all(|name| modes.iter().any(|(file, _)| file.ends_with(name)))
        });
        drop(server);
        set_mode(&state, 0o755);
        files.iter().filter(|file| file.exists()).for_each(|file| set_mode(file, 0o644));
    }
}

/// `sailfish token` with this file as the secret: its exit code, and what it says.
fn token(file: &Path) -> (Option<i32>, String) {
    let set = format!("token.secret_file={}", file.display());
    let done = output(sailfish().args(["token", "--user=1", "--set", &set]), "");
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

#[test]
fn a_secret_that_others_may_read_or_that_is_short_is_refused() {
    let folder = Folder::new("secrets");
    let path = folder.0.join("secret");
    fs::write(&path, "0123456789abcdef\n").unwrap();
    for (mode, code) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)] {
        set_mode(&path, mode);
        let (status, line) = token(&path);
        assert_eq!(status, Some(code), "{mode:o}: {line}");
        assert!(code == 0 || line.contains("every user of this machine may"), "{line}");
    }
    set_mode(&path, 0o600);
    fs::write(&path, "0123456789abcde\n").unwrap();
    let (status, line) = token(&path);
    assert!(status == Some(1) && line.contains("want a secret of at least 16 bytes, not 15"), "{line}");
}

/// A file that somebody has cut short: the hint names a key that there is.
#[test]
fn a_short_secret_of_the_state_folder_is_refused_with_its_key() {
    let folder = Folder::new("short");
    let state = folder.0.join("sailfish");
    fs::create_dir_all(&state).unwrap();
    for (name, key, arguments) in [
        ("internal-secret", "backend.internal_secret", &["backend", "--listen=127.0.0.1:0"][..]),
        ("token-secret", "token.secret_file", &["token", "--user=1"]),
    ] {
        let path = state.join(name);
        fs::write(&path, "short").unwrap();
        let done = output(sailfish().args(arguments).env("XDG_STATE_HOME", &folder.0), "");
        let line = String::from_utf8(done.stderr).unwrap();
        let wish = format!("set {key}: want a secret of at least 16 bytes, not 5");
        assert!(done.status.code() == Some(1) && line.contains(&wish), "{line}");
        fs::remove_file(&path).unwrap();
    }
}

/// Arguments stand in the list of processes, which every user may read.
#[test]
fn a_secret_as_an_argument_is_warned_of() {
    let stderr = |command: &mut Command| String::from_utf8(output(command, "").stderr).unwrap();
    let secret = "0123456789abcdef";
    let set = format!("token.secret={secret}");
    let line = stderr(sailfish().args(["token", "--user=1", "--set", &set]));
    assert!(line.contains("--set shows token.secret") && line.contains("SAILFISH_TOKEN__SECRET"), "{line}");
    assert!(!line.contains(secret), "{line}");
    let from_environment =
        stderr(sailfish().args(["token", "--user=1"]).env("SAILFISH_TOKEN__SECRET", secret));
    assert_eq!(from_environment, "");
    let line = stderr(sailfish().args(["ctl", "--admin=127.0.0.1:9", "nodes", "--secret", secret]));
    assert!(
        line.contains("--secret shows the secret") && line.contains("SAILFISH_CONTROL__SECRET"),
        "{line}"
    );
    let chat = || {
        let mut command = sailfish();
        command.args(["chat", "--user=1", "--target=127.0.0.1:9"]);
        command
    };
    let given = common::token(3, 60);
    let line = stderr(chat().args(["--token", &given]));
    assert!(line.contains("--token shows the secret") && line.contains("SAILFISH_CHAT_TOKEN"), "{line}");
    let line = stderr(chat().env("SAILFISH_CHAT_TOKEN", &given));
    assert!(line.contains("it is user 3's") && !line.contains("warning"), "it is used all the same: {line}");

    let folder = Folder::new("open configuration");
    let file = folder.file("sailfish.toml", &format!("[token]\nsecret = \"{secret}\"\n"));
    for (mode, is_warned) in [(0o600, false), (0o644, true)] {
        set_mode(Path::new(&file), mode);
        let line = stderr(sailfish().args(["token", "--user=1", "--config", &file]));
        assert_eq!(line.contains("may read token.secret in"), is_warned, "{line}");
    }
}
