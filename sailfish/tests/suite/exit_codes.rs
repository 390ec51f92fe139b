//! The exit codes that docs/OPERATIONS.md promises, of every subcommand.

use std::fs;
use std::path::Path;
use std::process::Command;

use testbed::free_port;

use crate::common::{SECRET, output, sailfish};

#[test]
fn codes_mean_the_same_for_all_subcommands() {
    let nobody = format!("127.0.0.1:{}", free_port()); // nobody listens there
    let (url, set) = (format!("http://{nobody}"), format!("token.secret={SECRET}"));
    let admin = format!("node.admin={nobody}");
    let done: [&[&str]; 8] = [
        &["--help"],
        &["--version"],
        &["token", "--user", "1", "--set", &set],
        &["up", "--print-config"],
        &["backend", "--print-config"],
        &["load", "--help"],
        &["completions", "zsh"],
        &["man"],
    ];
    let not_done: [&[&str]; 9] = [
        &["up", "--listen", "203.0.113.1:7700", "--admin", "127.0.0.1:0", "--set", &set],
        &["backend", "--listen", "127.0.0.1:0", "--database", "sqlite:/no/such/folder/x.db"],
        &["ctl", "nodes", "--admin", &nobody],
        &["ctl", "nodes", "--set", &admin],
        &["top", "--once", "--admin", &nobody],
        &["man", "--out", "/dev/null/man1"],
        &["demo", "--backend", &url, "--backend-secret", "the secret of the test"],
        &["load", "gift", "--backend", &url, "--backend-secret", "the secret of the test", "--set", &set],
        &["load", "chat", "--connections", "2", "--seconds", "0.1", "--target", &nobody, "--set", &set],
    ];
    let refused: [&[&str]; 24] = [
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
        &["chat", "--user", "1", "--target", "127.0.0.1", "--set", &set],
        &["chat", "--user", "1", "--target", "tls://127.0.0.1:1", "--ca", "/no/such/file", "--set", &set],
        &["ctl", "nodes", "--admin", "nonsense"],
        &["ctl", "nodes", "--config", "/no/such/file"],
        &["up", "--set", "log.filter=warning"],
        &["top", "--admin", "nonsense"],
        &["top", "--interval", "0"],
        &["completions", "csh"],
        &["man", "nothing"],
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

/// The words of a YAML list of quoted words, up to its end.
fn words(mut rest: &str) -> Vec<&str> {
    let mut words = Vec::new();
    loop {
        let at = rest.find(['"', '\'', ']']).expect("the list ends");
        let (quote, after) = rest[at..].split_at(1);
        if quote == "]" {
            return words;
        }
        let (word, after) = after.split_once(quote).expect("the word ends");
        words.push(word);
        rest = after;
    }
}

/// A line of a chart, with a value in place of each expression.
fn rendered(line: &str) -> String {
    let mut parts = line.split("{{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (expression, after) = part.split_once("}}").expect("the expression ends");
        let value = match expression {
            _ if expression.contains("include") => "",
            _ if expression.contains(".Release.Name") => "sailfish",
            _ => "1",
        };
        out += value;
        out += after;
    }
    out
}

/// The compose file and the chart start nodes with flags and keys that the program has.
#[test]
fn the_program_takes_the_commands_of_deploy() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy");
    let secrets =
        ["TOKEN", "CLUSTER", "CONTROL", "BRIDGE"].map(|of| (format!("SAILFISH_{of}__SECRET"), SECRET));
    let check = |command: &mut Command, what: &str| {
        let output = output(command.envs(secrets.clone()), "");
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{what}: {line}");
    };
    let compose = fs::read_to_string(folder.join("compose.yaml")).unwrap();
    let roles = ["router", "bridge", "gateway", "backend"];
    let of_nodes = |words: &Vec<&str>| words.first().is_some_and(|first| roles.contains(first));
    let lists: Vec<_> = compose.split("command: [").skip(1).map(words).filter(of_nodes).collect();
    assert_eq!(lists.len(), 6, "{lists:?}");
    for words in lists {
        check(sailfish().args(&words).arg("--print-config"), &words.join(" "));
    }
    for role in roles {
        let template = fs::read_to_string(folder.join(format!("helm/templates/{role}.yaml"))).unwrap();
        let (_, command) = template.split_once("exec sailfish ").expect("it starts the program");
        let lines = command.lines().scan(true, |goes_on, line| {
            let this = goes_on.then_some(line);
            *goes_on = line.ends_with('\\');
            this
        });
        let line: String = lines.map(|line| rendered(line.trim_end_matches('\\'))).collect();
        let mut shell = Command::new("sh");
        shell.args(["-euc", &format!("exec \"$0\" {line} --print-config"), env!("CARGO_BIN_EXE_sailfish")]);
        shell.envs([("POD_IP", "127.0.0.1"), ("HOSTNAME", "x-1"), ("bridges", "\"127.0.0.1:5400\"")]);
        check(&mut shell, &line);
    }
}
