//! The licences of everything the binary and its tests are built from on this platform.

use std::process::Command;

use crate::{name, packages};

/// Licences that an Apache-2.0 program may be linked and shipped with, by their SPDX names.
const ALLOWED: [&str; 16] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_an_allowed_licence() {
    let packages = packages(&["--filter-platform", &host()]);
    assert!(packages.len() > 50, "cargo metadata told of {} packages only", packages.len());
    let refused = packages.iter().filter_map(|package| {
        let licence = package["license"].as_str().unwrap_or("no licence named");
        (!is_allowed(licence)).then(|| format!("{} {}: {licence}", name(package), package["version"]))
    });
    let refused: Vec<String> = refused.collect();
    assert!(
        refused.is_empty(),
        "\n{}\nThe list stands in xtask/tests/checks/licences.rs.",
        refused.join("\n")
    );
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "MPL-2.0+",
        "MIT OR Apache-2.0 AND GPL-3.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND AGPL-3.0",
        "GPL-2.0 WITH Classpath-exception-2.0",
    ] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

/// Whether an SPDX expression can be met with allowed licences. `/` is the old way to write `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest) && rest.is_empty()
}

/// `all OR all ...`
fn any(rest: &mut &[&str]) -> bool {
    let mut met = all(rest);
    while let Some(("OR", tail)) = rest.split_first().map(|(word, tail)| (*word, tail)) {
        *rest = tail;
        met |= all(rest);
    }
    met
}

/// `one AND one ...`, which binds tighter.
fn all(rest: &mut &[&str]) -> bool {
    let mut met = one(rest);
    while let Some(("AND", tail)) = rest.split_first().map(|(word, tail)| (*word, tail)) {
        *rest = tail;
        met &= one(rest);
    }
    met
}

/// A licence (`+` adds its later versions), one with an exception, or an expression in brackets.
fn one(rest: &mut &[&str]) -> bool {
    match **rest {
        ["(", ref tail @ ..] => {
            *rest = tail;
            let met = any(rest);
            *rest = rest.strip_prefix(&[")"]).unwrap_or_default();
            met
        }
        [licence, "WITH", exception, ref tail @ ..] => {
            *rest = tail;
            ALLOWED.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, ref tail @ ..] => {
            *rest = tail;
            ALLOWED.contains(&licence.trim_end_matches('+'))
        }
        [] => false,
    }
}

/// The platform of the compiler in use, such as `x86_64-unknown-linux-gnu`.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc starts");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}
