//! Nobody outside fills the log: lines above DEBUG go through the gate of `logs`.

use std::path::Path;

use crate::tidy::{read, sources};

/// Where lines go past the gate: the file, how many of them at most, and why an outsider cannot cause many.
const UNGATED: &[(&str, usize, &str)] = &[
    ("backend/src/migrations.rs", 2, "steps of a start"),
    ("sailfish/src/backend.rs", ANY, "start and end of the process, and signals"),
    ("sailfish/src/directory/sidecar.rs", ANY, "Redis; it has a gate with the totals of its metrics"),
    ("sailfish/src/certificates.rs", ANY, "an operator's files that have changed"),
    (
        "sailfish/src/keys.rs",
        ANY,
        "an operator's file that has changed, and what it was tried to fetch; tries have pauses",
    ),
    ("sailfish/src/outside.rs", ANY, "it has a gate whose last line comes at the end of the process"),
    ("sailfish/src/serve/ready.rs", ANY, "the start of the process"),
    ("sailfish/src/serve/run.rs", ANY, "signals and the end of the process"),
    ("sailfish/src/serve/watch.rs", ANY, "a timer's look at counters; it has a gate with their totals"),
];

const ANY: usize = usize::MAX;

#[test]
fn lines_that_outsiders_cause_go_through_the_gate() {
    let mut faults = Vec::new();
    for path in sources().iter().filter(|path| is_product(path)) {
        let count = ungated(&read(path));
        let allowed = UNGATED.iter().find(|(file, ..)| Path::new(file) == path).map_or(0, |entry| entry.1);
        if count > allowed {
            faults.push(format!("{}: {count} lines past the gate, {allowed} allowed", path.display()));
        }
    }
    let hint = "Use `logs::{error, warn, info}`, or say in xtask/tests/checks/logs.rs why no outsider can cause many.";
    assert!(faults.is_empty(), "\n{}\n{hint}", faults.join("\n"));
}

/// Who has not the names cannot forget the gate in a line that is written later.
#[test]
fn only_listed_sources_import_levels_of_tracing() {
    let listed = |path: &Path| UNGATED.iter().any(|(file, ..)| Path::new(file) == path);
    let sources = sources();
    let importing = sources.iter().filter(|path| is_product(path) && imported(&read(path)) > 0);
    let faults: Vec<_> = importing.filter(|path| !listed(path)).collect();
    assert!(faults.is_empty(), "import error, warn and info from `logs` in {faults:?}");
    let unused = UNGATED.iter().filter(|(file, ..)| ungated(&read(Path::new(file))) == 0);
    let unused: Vec<_> = unused.map(|(file, ..)| file).collect();
    assert!(unused.is_empty(), "nothing goes past the gate any more in {unused:?}");
}

#[test]
fn a_line_past_the_gate_is_seen() {
    let several = "use tracing::{\n    debug,\n    warn,\n};\nfn f() {\n    warn!(1, \"a\");\n}\n";
    assert_eq!((ungated(several), imported(several)), (1, 1));
    assert_eq!(imported("use tracing::{debug, trace};\nuse logs::warn;\n"), 0);
    assert_eq!(
        ungated("use tracing::{debug, warn};\nfn f() {\n    warn!(1, \"a\");\n    debug!(\"b\");\n}\n"),
        1
    );
    assert_eq!(ungated("fn f() {\n    tracing::error!(\"a\");\n    tracing::event!(LEVEL, \"b\");\n}\n"), 2);
    assert_eq!(ungated("use logs::warn;\nfn f() {\n    warn!(\"a\");\n    logs::info!(\"b\");\n}\n"), 0);
    assert_eq!(ungated("#[cfg(test)]\nmod tests {\n    tracing::warn!(\"a\");\n}\n"), 0);
    assert_eq!(ungated("use tracing::*;\nfn f() {\n    info!(\"a\");\n}\n"), 1);
}

/// What runs in production, but for the gate itself.
fn is_product(path: &Path) -> bool {
    let tools = ["logs", "xtask", "benches", "testbed", "sim"];
    path.components().any(|part| part.as_os_str() == "src")
        && !tools.iter().any(|tool| path.starts_with(tool))
}

/// How many lines of log a source writes by itself.
fn ungated(text: &str) -> usize {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let imports = imports(text);
    LEVELS
        .iter()
        .map(|level| {
            let call = format!("{level}!(");
            let is_imported =
                imports.iter().any(|line| line.contains('*') || names(line).any(|name| name == *level));
            let calls = |line: &str| {
                let code = line.trim_start();
                code.contains(&format!("tracing::{call}"))
                    || is_imported && code.match_indices(&call).any(|(at, _)| is_bare(code, at))
            };
            text.lines().filter(|line| !line.trim_start().starts_with("//") && calls(line)).count()
        })
        .sum()
}

/// What is taken from `tracing`, in one line or several.
fn imports(text: &str) -> Vec<&str> {
    let begins = text.match_indices("use tracing::").map(|(at, _)| &text[at..]);
    begins.map(|rest| rest.split(';').next().unwrap_or_default()).collect()
}

/// The levels above DEBUG that a source takes from `tracing`.
fn imported(text: &str) -> usize {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let levels = |import: &str| names(import).filter(|name| LEVELS.contains(name)).count();
    imports(text).into_iter().map(levels).sum()
}

fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !(char.is_alphanumeric() || char == '_')).filter(|name| !name.is_empty())
}

/// Whether the call at this place has no path before it.
fn is_bare(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == ':')
}

const LEVELS: [&str; 4] = ["error", "warn", "info", "event"];
