//! Links between the pages of the repository lead somewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::root;

/// The pages, with their texts.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]).current_dir(root());
    let listed = String::from_utf8(git.output().expect("git runs").stdout).expect("names are text");
    let read = |name: &str| {
        let text = fs::read_to_string(root().join(name)).unwrap_or_default(); // it may have just been removed
        (PathBuf::from(name), text)
    };
    listed.lines().map(read).collect()
}

/// The lines of a page that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ")
    })
}

/// The anchors of a page's headings, as the sites that show Markdown make them.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors = Vec::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let is_kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
        let anchor: String =
            heading.chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect();
        let repeats = anchors.iter().filter(|known| **known == anchor).count();
        anchors.push(if repeats == 0 { anchor } else { format!("{anchor}-{repeats}") });
    }
    anchors
}

/// The targets of the links of a page.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

fn place(page: &Path, target: &str) -> PathBuf {
    let mut place = page.parent().expect("a page lies in a folder").to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => assert!(place.pop(), "{target} leads out of the repository"),
            Component::Normal(name) => place.push(name),
            _ => {}
        }
    }
    place
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut seen = 0;
    let mut broken = Vec::new();
    for (page, text) in &pages {
        for link in links(text).into_iter().filter(|link| !link.contains(':')) {
            seen += 1;
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let place = if target.is_empty() { page.clone() } else { place(page, target) };
            let is_there = root().join(&place).exists();
            let has_anchor = anchor.is_empty()
                || pages.get(&place).is_some_and(|text| anchors(text).iter().any(|known| known == anchor));
            if !is_there || !has_anchor {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 100, "{seen} links");
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let text = "# One\n```sh\n# no heading\n```\n## What `x.y` costs, and why\n## A / B\n## A / B\n";
    assert_eq!(anchors(text), ["one", "what-xy-costs-and-why", "a--b", "a--b-1"]);
    assert_eq!(links("[a](b.md#c) and ![d](e.png)\n    [code](x)\n"), ["b.md#c", "e.png"]);
}
