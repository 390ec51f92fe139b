//! The licences of everything the binary and its tests are built from on this platform.

use std::process::Command;

use crate::{name, packages, root};

/// The licences that deny.toml allows, by their SPDX names.
fn allowed() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is readable");
    let lines = text.lines().skip_while(|line| *line != "allow = [").skip(1).take_while(|line| *line != "]");
    lines.map(|line| line.trim().trim_end_matches(',').trim_matches('"').to_owned()).collect()
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let packages = packages(&["--filter-platform", &host()]);
    assert!(packages.len() > 50, "cargo metadata lists {} packages only", packages.len());
    let allowed = allowed();
    let refused = packages.iter().filter_map(|package| {
        let licence = package["license"].as_str().unwrap_or("no licence named");
        (!is_allowed(licence, &allowed))
            .then(|| format!("{} {}: {licence}", name(package), package["version"]))
    });
    let refused: Vec<String> = refused.collect();
    assert!(refused.is_empty(), "\n{}\ndeny.toml has the list of allowed licences.", refused.join("\n"));
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let list = allowed();
    assert!(list.len() > 10 && list.iter().all(|licence| !licence.contains('"')), "{list:?}");
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "MPL-2.0+",
        "MIT OR Apache-2.0 AND GPL-3.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(is_allowed(allowed, &list), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND AGPL-3.0",
        "GPL-2.0 WITH Classpath-exception-2.0",
    ] {
        assert!(!is_allowed(refused, &list), "{refused}");
    }
}

/// Whether an SPDX expression can be met with allowed licences. `/` is the old way to write `OR`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) && rest.is_empty()
}

/// `all OR all ...`
fn any(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = all(rest, allowed);
    while let Some(("OR", tail)) = rest.split_first().map(|(word, tail)| (*word, tail)) {
        *rest = tail;
        met |= all(rest, allowed);
    }
    met
}

/// `one AND one ...`, which binds tighter.
fn all(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = one(rest, allowed);
    while let Some(("AND", tail)) = rest.split_first().map(|(word, tail)| (*word, tail)) {
        *rest = tail;
        met &= one(rest, allowed);
    }
    met
}

/// A licence (`+` adds its later versions), one with an exception, or an expression in brackets.
fn one(rest: &mut &[&str], allowed: &[String]) -> bool {
    let is_listed = |licence: &str| allowed.iter().any(|listed| listed == licence);
    match **rest {
        ["(", ref tail @ ..] => {
            *rest = tail;
            let met = any(rest, allowed);
            *rest = rest.strip_prefix(&[")"]).unwrap_or_default();
            met
        }
        [licence, "WITH", exception, ref tail @ ..] => {
            *rest = tail;
            is_listed(&format!("{licence} WITH {exception}"))
        }
        [licence, ref tail @ ..] => {
            *rest = tail;
            is_listed(licence.trim_end_matches('+'))
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
