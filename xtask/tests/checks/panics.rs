//! Where code that bytes of others reach could panic. A panic ends the process with all its clients
//! (`panic = "abort"`), so each such place is known, with the reason why no bytes bring it about.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::root;
use crate::tidy::{is_test, sources};

/// What reads bytes of clients, peers, bridges, backends, databases and callers over HTTP, or acts on what
/// was read. The engine is not among it: it passes bytes on and looks at none.
const REACHED: [&str; 15] = [
    "backend/src",
    "biz-bridge/src",
    "edge/src",
    "gateway/src",
    "http-server/src",
    "link/src",
    "node/src",
    "router/src",
    "sailfish/src/admin",
    "sailfish/src/control.rs",
    "sailfish/src/directory",
    "sailfish/src/outside.rs",
    "shard/src",
    "traces/src",
    "wire/src",
];

/// Calls that panic by themselves.
const CALLS: [&str; 15] = [
    "unreachable!(",
    "panic!(",
    "todo!(",
    "unimplemented!(",
    ".expect(",
    ".unwrap(",
    "assert!(",
    "assert_eq!(",
    "assert_ne!(",
    ".unwrap_err(",
    ".expect_err(",
    ".split_at(",
    ".split_at_mut(",
    ".swap_remove(",
    ".copy_from_slice(",
];

/// The list: a file with the reason, then its lines, indented.
const LIST: &str = "xtask/tests/checks/panics.txt";

/// Lines of files.
type Places = BTreeMap<String, BTreeSet<String>>;

#[test]
fn every_place_that_could_panic_is_known() {
    let (found, listed) = (found(), listed());
    let strays = difference(&found, &listed);
    assert!(
        strays.is_empty(),
        "\n{}\nA peer's bytes may reach this, and a panic ends the process with all its clients. Close the connection or answer an error \
         instead. If only the program's own state decides it, whatever bytes come, put the line under its file in {LIST} and see that the \
         reason there holds for it.",
        strays.join("\n")
    );
    let stale = difference(&listed, &found);
    assert!(stale.is_empty(), "\n{}\nThese are no more; take them off {LIST}.", stale.join("\n"));
}

#[test]
fn the_check_sees_what_it_looks_for() {
    for line in
        ["x.unwrap()", "map[&key]", "f(x)[0]", "unreachable!()", "assert_eq!(a, b)", "rows[..4].iter()"]
    {
        assert!(may_panic(line), "{line}");
    }
    for line in [
        "x.unwrap_or(1)",
        "&[1, 2]",
        "let x: [u8; 4];",
        "vec![1]",
        "\"a[0]\"",
        "// x[0]",
        "Fn(&[u8])",
        "x?[]",
    ] {
        assert!(!may_panic(line), "{line}");
    }
    let file = "fn check_invariants() {\n    assert!(x);\n}\n#[cfg(test)]\nmod tests;\nfn f() {\n    a[1];\n}\n#[cfg(test)]\nmod tests {\n b[1];\n}\n\
                fn g() {\n    c[1];\n}\n";
    assert_eq!(places(file), BTreeSet::from(["a[1];".to_owned(), "c[1];".to_owned()]));
    for place in REACHED {
        assert!(root().join(place).exists(), "{place} is not there");
    }
}

/// The lines of `left` that are not in `right`, each after its file.
fn difference(left: &Places, right: &Places) -> Vec<String> {
    let none = BTreeSet::new();
    let of_file = |(file, lines): (&String, &BTreeSet<String>)| {
        let other = right.get(file).unwrap_or(&none);
        lines.difference(other).map(|line| format!("{file}: {line}")).collect::<Vec<_>>()
    };
    left.iter().flat_map(of_file).collect()
}

fn found() -> Places {
    let reached = |path: &PathBuf| REACHED.iter().any(|place| path.starts_with(place)) && !is_test(path);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).expect("the source is readable");
        (path.display().to_string(), places(&text))
    };
    sources().into_iter().filter(reached).map(read).filter(|(_, lines)| !lines.is_empty()).collect()
}

fn listed() -> Places {
    let text = fs::read_to_string(root().join(LIST)).unwrap_or_else(|error| panic!("{LIST}: {error}"));
    let mut listed = Places::new();
    let mut file = None;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix("    "), &file) {
            (Some(code), Some(file)) => {
                listed.entry(String::clone(file)).or_default().insert(code.into());
            }
            (Some(_), None) => panic!("{LIST}: a line before the first file"),
            (None, _) => {
                let (name, why) =
                    line.split_once(": ").unwrap_or_else(|| panic!("{LIST}: {line}: want a reason"));
                assert!(Path::new(name).extension().is_some() && !why.is_empty(), "{LIST}: {line}");
                file = Some(name.to_owned());
            }
        }
    }
    listed
}

/// The lines that may panic, without tests, and without what only tests and the simulator call.
fn places(text: &str) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    let mut skipped = None;
    let mut is_test = false;
    for line in text.lines() {
        let code = line.trim();
        let indent = line.len() - line.trim_start().len();
        match skipped {
            Some(from) if code == "}" && indent == from => skipped = None,
            Some(_) => {}
            None if code.starts_with("#[cfg(test)]") => is_test = true,
            // The item that is for tests only: a line, or all up to the bracket that ends it.
            None if is_test && !code.starts_with('#') => {
                is_test = false;
                skipped = (!code.ends_with(';') && !code.ends_with('}')).then_some(indent);
            }
            None if code.contains("fn check_invariants(") => skipped = Some(indent),
            None if code.starts_with('#') || code.starts_with("const _:") => {}
            None if may_panic(code) => drop(places.insert(code.to_owned())),
            None => {}
        }
    }
    places
}

/// Whether a line has a call that panics, or an index.
fn may_panic(line: &str) -> bool {
    let without_strings: String = line.split('"').step_by(2).collect();
    let code = without_strings.split("//").next().unwrap_or_default();
    let indexes = code.as_bytes().windows(3).any(|three| {
        let [before, bracket, after] = three else { return false };
        let is_value = before.is_ascii_alphanumeric() || matches!(before, b'_' | b')' | b']' | b'?');
        is_value && *bracket == b'[' && *after != b']'
    });
    indexes || CALLS.iter().any(|call| code.contains(call))
}
