//! Completions and manual pages, made of the command line.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::common::{Folder, output, sailfish};

/// The subcommands that `--help` of a command lists.
fn subcommands(words: &[&str]) -> Vec<String> {
    let done = output(sailfish().args(words).arg("--help"), "");
    let help = String::from_utf8(done.stdout).unwrap();
    let commands = help.split_once("\nCommands:\n").map_or("", |(_, commands)| commands);
    let lines = commands.lines().take_while(|line| !line.is_empty());
    // What an item's line is continued by stands further to the right.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn each_subcommand_has_a_page() {
    let folder = Folder::new("man");
    let done = output(sailfish().args(["man", "--out", &folder.path("man1")]), "");
    assert!(done.status.success(), "{done:?}");
    let pages: BTreeSet<String> = fs::read_dir(folder.path("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let first = subcommands(&[]);
    assert!(first.len() >= 12 && first.contains(&"top".to_owned()), "{first:?}");
    let mut names = vec!["sailfish.1".to_owned()];
    for name in first.iter().filter(|name| *name != "help") {
        names.push(format!("sailfish-{name}.1"));
        for below in subcommands(&[name]).iter().filter(|below| *below != "help") {
            names.push(format!("sailfish-{name}-{below}.1"));
        }
    }
    for name in &names {
        assert!(pages.contains(name), "no {name}: {pages:?}");
        let page = fs::read_to_string(folder.path(&format!("man1/{name}"))).unwrap();
        assert!(page.contains(".TH ") && page.contains("SYNOPSIS"), "{name}: {page}");
    }
    assert!(!pages.iter().any(|name| name.contains("worker")), "it is no subcommand for people: {pages:?}");
    let top = fs::read_to_string(folder.path("man1/sailfish-top.1")).unwrap();
    assert!(top.contains("interval") && top.contains("once"), "{top}");
}

#[test]
fn a_page_is_printed_too() {
    let page = |words: &[&str]| output(sailfish().arg("man").args(words), "");
    let (whole, push) = (page(&[]), page(&["ctl", "push"]));
    assert!(whole.status.success() && String::from_utf8_lossy(&whole.stdout).contains("sailfish\\-gateway"));
    let push = String::from_utf8(push.stdout).unwrap();
    assert!(push.contains("client\\-msg\\-id"), "{push}");
    let none = page(&["ctl", "pull"]);
    let line = String::from_utf8(none.stderr).unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(line.contains("no subcommand \"pull\"; there are: online, where, kick"), "{line}");
    for hidden in ["bogus", "load-worker"] {
        let none = page(&[hidden]);
        let line = String::from_utf8(none.stderr).unwrap();
        assert_eq!(none.status.code(), Some(2));
        assert!(line.contains("completions, man") && line.matches("load-worker").count() < 2, "{line}");
        assert!(hidden != "bogus" || !line.contains("load-worker"), "{line}");
    }
}

#[test]
fn shells_get_completions() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = output(sailfish().args(["completions", shell]), "");
        let script = String::from_utf8(done.stdout).unwrap();
        assert!(
            done.status.success() && script.contains("gateway") && script.contains("interval"),
            "{shell}"
        );
        let file = folder.file(shell, &script);
        // Those shells that are there read it.
        let parsed = Command::new(shell).args(["-n", &file]).output();
        if shell == "bash" {
            assert!(parsed.as_ref().is_ok_and(|parsed| parsed.status.success()), "{parsed:?}");
        }
    }
}

#[test]
fn bash_completes_subcommands_and_flags() {
    let folder = Folder::new("completions");
    let done = output(sailfish().args(["completions", "bash"]), "");
    let file = folder.file("sailfish.bash", &String::from_utf8(done.stdout).unwrap());
    let complete = |words: &str| {
        let script = format!(
            "source {file}; COMP_WORDS=(sailfish {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _sailfish sailfish \"${{COMP_WORDS[COMP_CWORD]}}\" x; echo \"${{COMPREPLY[@]}}\""
        );
        String::from_utf8(output(Command::new("bash").args(["-c", &script]), "").stdout).unwrap()
    };
    assert_eq!(complete("gat").trim(), "gateway");
    assert_eq!(complete("top --int").trim(), "--interval");
    assert_eq!(complete("ctl dr").trim(), "drain");
}
