//! How sources and docs are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{members, name, root};

/// A file that grows past this has a concept in it that asks for a file of its own.
const SOURCE_LINES_MAX: usize = 800;
const ARCHITECTURE_LINES_MAX: usize = 300;
const COMMENT_COLUMNS_MAX: usize = 110;
const SUBJECT_CHARS_MAX: usize = 72;

/// Where unsafe code may stand: the engine, the raw loops that measurements are held against or driven by,
/// and a counting allocator.
const UNSAFE_PLACES: [&str; 4] =
    ["engine", "benches/src/raw", "benches/src/peer/epoll.rs", "shard/tests/allocations.rs"];

#[test]
fn every_crate_stands_in_the_code_map() {
    let path = root().join("docs/ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("docs/ARCHITECTURE.md: {error}; it must be there, with a Code Map that names every crate")
    });
    let lines = text.lines().count();
    assert!(
        lines <= ARCHITECTURE_LINES_MAX,
        "docs/ARCHITECTURE.md: {lines} lines, at most {ARCHITECTURE_LINES_MAX}"
    );
    let map = section(&text, "Code Map").expect("docs/ARCHITECTURE.md: no heading `Code Map`");
    let packages = members();
    let missing: Vec<&str> = packages
        .iter()
        .map(name)
        .filter(|name| !map.contains(&format!("`{name}/`")) && !map.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md: the Code Map does not name {missing:?} (as `name/`)");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for package in members() {
        let path = package["manifest_path"].as_str().expect("a package has a manifest");
        let manifest = fs::read_to_string(path).expect("the manifest is readable");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{path}: add `[lints]` with `workspace = true`"
        );
    }
}

#[test]
fn sources_are_short() {
    let long = sources().into_iter().filter_map(|path| {
        let lines = lines_without_tests(&path, &read(&path));
        (lines > SOURCE_LINES_MAX).then(|| format!("{}: {lines} lines without its tests", path.display()))
    });
    let long: Vec<String> = long.collect();
    assert!(
        long.is_empty(),
        "\n{}\nAt most {SOURCE_LINES_MAX}: which concept asks for its own file?",
        long.join("\n")
    );
}

/// rustfmt keeps code in these columns, and leaves comments alone.
#[test]
fn comments_are_narrow() {
    let wide: Vec<String> = files(&[".rs", ".ts", ".java"])
        .into_iter()
        .flat_map(|path| {
            let text = read(&path);
            wide_comments(&text).map(|line| format!("{}:{line}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(wide.is_empty(), "\n{}\nComments over {COMMENT_COLUMNS_MAX} columns", wide.join("\n"));
}

/// What has landed is not rewritten, so only commits that the main branch has not are looked at.
#[test]
fn subjects_of_commits_are_short() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // A copy of the sources without their history has nothing to look at.
    for main in ["origin/main", "main"] {
        if let Some(subjects) = git(&["log", "--format=%s", &format!("{main}..HEAD"), "--"]) {
            let long: Vec<&str> = subjects.lines().filter(|subject| is_long_subject(subject)).collect();
            assert!(long.is_empty(), "{long:#?}\nSubjects of commits over {SUBJECT_CHARS_MAX} characters");
        }
    }
}

#[test]
fn unsafe_stays_where_it_belongs() {
    let strays = sources().into_iter().filter(|path| {
        !UNSAFE_PLACES.iter().any(|place| path.starts_with(place)) && read(path).lines().any(has_unsafe)
    });
    let strays: Vec<PathBuf> = strays.collect();
    assert!(strays.is_empty(), "unsafe code in {strays:?}; it may stand in {UNSAFE_PLACES:?} only");
}

#[test]
fn every_place_of_unsafe_has_some() {
    let sources = sources();
    let stale = UNSAFE_PLACES.iter().filter(|place| {
        !sources.iter().any(|path| path.starts_with(place) && read(path).lines().any(has_unsafe))
    });
    let stale: Vec<&&str> = stale.collect();
    assert!(stale.is_empty(), "no unsafe code in {stale:?}; take them off the list");
}

/// Without `biased`, chance decides when two are ready, and at a stop they are: a task's end for an order's
/// effect, or a deadline before the work that was done in time.
#[test]
fn every_select_has_an_order_and_its_reason() {
    let unordered = sources().into_iter().flat_map(|path| {
        let text = read(&path);
        unordered_selects(&text).map(|line| format!("{}:{line}", path.display())).collect::<Vec<_>>()
    });
    let unordered: Vec<String> = unordered.collect();
    assert!(
        unordered.is_empty(),
        "\n{}\nBegin each `select!` with `biased; // why in this order`",
        unordered.join("\n")
    );
}

#[test]
fn the_checks_see_what_they_look_for() {
    let select = |first: &str| {
        unordered_selects(&format!("a;\n    tokio::{} {{\n{first}\n}}", "select!")).collect::<Vec<_>>()
    };
    assert_eq!(
        (select("        biased; // why"), select("        biased;"), select("        x => {}")),
        (vec![], vec![2], vec![2])
    );
    let comment = |width: usize| format!("x\n    // {}\n", "a".repeat(width - 7));
    assert_eq!(wide_comments(&comment(110)).count(), 0);
    assert_eq!(wide_comments(&comment(111)).collect::<Vec<_>>(), [2]);
    let behind = format!("{}; // b", "a".repeat(110));
    assert_eq!(wide_comments(&behind).count() + wide_comments(&format!("\"{behind}\"")).count(), 1);
    assert!(is_long_subject(&"ä".repeat(73)) && !is_long_subject(&"ä".repeat(72)));
    assert!(has_unsafe("    let x = unsafe { read(p) };") && has_unsafe("unsafe impl Sync for X {}"));
    assert!(
        !has_unsafe("// unsafe { } is not needed")
            && !has_unsafe(&["let x = ", "unsafe { }", ";"].join("\""))
    );
    assert!(has_unsafe("#[unsafe(no_mangle)]") && !has_unsafe("#![allow(unsafe_code)]"));
    let file = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(lines_without_tests(Path::new("wire/src/lib.rs"), file), 2);
    assert_eq!(lines_without_tests(Path::new("wire/src/client/tests.rs"), file), 0);
    assert_eq!(lines_without_tests(Path::new("gateway/tests/login.rs"), file), 0);
    assert_eq!(section("# A\n## Map\nx\n### y\nz\n## B\n", "Map"), Some("x\n### y\nz\n"));
    assert!(sources().contains(&PathBuf::from("xtask/tests/checks/tidy.rs")));
}

/// Every Rust source of the workspace, relative to the root.
pub fn sources() -> Vec<PathBuf> {
    files(&[".rs"])
}

/// Every file of the repository whose name ends so, relative to the root; none that was downloaded or built.
fn files(ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            let name = path.file_name().map_or("".into(), |name| name.to_string_lossy());
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "node_modules", "dist"].contains(&&*name) {
                    folders.push(path);
                }
            } else if ends.iter().any(|end| name.ends_with(end)) {
                found.push(path.strip_prefix(root()).expect("the walk begins there").to_owned());
            }
        }
    }
    found.sort();
    found
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).expect("the source is readable")
}

pub(crate) fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

/// Unit tests stand at a file's end, or in files and folders named `tests`.
fn lines_without_tests(path: &Path, text: &str) -> usize {
    if is_test(path) {
        return 0;
    }
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

/// The lines with a comment that go past the last column.
fn wide_comments(text: &str) -> impl Iterator<Item = usize> {
    let is_comment = |line: &str| {
        let is_whole = ["//", "* ", "/*"].iter().any(|start| line.trim_start().starts_with(start));
        let mut behind = line.match_indices(" // ").map(|(at, _)| line[..at].matches('"').count());
        is_whole || behind.any(|quotes| quotes % 2 == 0)
    };
    let is_wide = move |line: &str| line.chars().count() > COMMENT_COLUMNS_MAX && is_comment(line);
    text.lines().enumerate().filter(move |(_, line)| is_wide(line)).map(|(at, _)| at + 1)
}

fn is_long_subject(subject: &str) -> bool {
    subject.chars().count() > SUBJECT_CHARS_MAX
}

/// The lines with a `select!` that does not begin with an order and the reason for it.
fn unordered_selects(text: &str) -> impl Iterator<Item = usize> {
    let mut lines = text.lines().enumerate().peekable();
    std::iter::from_fn(move || {
        while let Some((at, line)) = lines.next() {
            let is_select = line.trim_end().ends_with(concat!("select", "! {"));
            let first = lines.peek().map_or("", |(_, first)| first.trim());
            if is_select && !(first.starts_with("biased; // ") && first.len() > "biased; // ".len()) {
                return Some(at + 1);
            }
        }
        None
    })
}

/// Whether a line has unsafe code; a comment, a string or the name of a lint is none.
fn has_unsafe(line: &str) -> bool {
    let without_strings: String = line.split('"').step_by(2).collect();
    let code = without_strings.split("//").next().unwrap_or_default();
    ["{", "fn ", "impl ", "impl<", "extern ", "trait "]
        .iter()
        .any(|what| code.contains(&format!("unsafe {what}")))
        || code.contains("#[unsafe(")
}

/// The lines under a heading, up to the next of its rank or above.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let mut at = 0;
    let mut start = None;
    for line in text.split_inclusive('\n') {
        let rank = line.bytes().take_while(|byte| *byte == b'#').count();
        match start {
            None if rank > 0 && line[rank..].trim() == heading => start = Some((at + line.len(), rank)),
            Some((from, own)) if rank > 0 && rank <= own => return Some(&text[from..at]),
            _ => {}
        }
        at += line.len();
    }
    start.map(|(from, _)| &text[from..])
}
