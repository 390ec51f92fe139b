//! `cargo xtask site`: the documentation as web pages with search, made by MkDocs.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::root;

const CONFIG: &str = include_str!("site/mkdocs.yml");
const ANCHORS: &str = include_str!("site/anchors.py");
/// The generator, as pip names it.
const MKDOCS: &str = "mkdocs==1.6.1";
/// Where pages are. Folders that have other Markdown files, such as test data, are not among them.
const PAGES: [&str; 6] =
    [":(glob)*.md", "docs", "clients", "web/README.md", "deploy/README.md", ":(exclude)*.rs"];

/// Copies the pages to target/site/ and renders them. A link or an anchor that leads nowhere is an error.
pub fn run() -> anyhow::Result<()> {
    let folder = root().join("target/site");
    let pages = pages()?;
    let staged = folder.join("pages");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    for page in &pages {
        stage(page, &pages, &staged).with_context(|| format!("{}", page.display()))?;
    }
    fs::write(folder.join("mkdocs.yml"), CONFIG.replace("MEASUREMENTS", &measurements(&pages)))?;
    fs::write(folder.join("anchors.py"), ANCHORS)?;
    let tool = install(&folder)?;
    let mut mkdocs = Command::new("python3");
    mkdocs.args(["-m", "mkdocs", "build", "--strict", "--quiet"]).current_dir(&folder);
    // Its plug-ins want to know who runs it; ours needs none of that.
    mkdocs.env("PYTHONPATH", &tool).stdin(Stdio::null());
    if !mkdocs.status().context("cannot start python3")?.success() {
        bail!("the site has warnings, see above");
    }
    println!("{} pages: {}", pages.len(), folder.join("html/index.html").display());
    Ok(())
}

/// All pages, relative to the root.
fn pages() -> anyhow::Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(PAGES)
        .current_dir(root());
    let listed = git.output().context("cannot start git")?;
    let listed = String::from_utf8(listed.stdout).context("a file's name")?;
    Ok(listed.lines().filter(|name| name.ends_with(".md")).map(PathBuf::from).collect())
}

/// The pages of docs/measurements/ as a list of MkDocs, the latest first.
fn measurements(pages: &[PathBuf]) -> String {
    let mut names: Vec<&PathBuf> =
        pages.iter().filter(|page| page.starts_with("docs/measurements")).collect();
    names.sort_by_key(|page| std::cmp::Reverse(page.file_stem()));
    let lines = names.iter().map(|page| format!("\n      - {}", page.display()));
    lines.collect()
}

/// Copies a page, with the files that it links to. A link to a folder becomes one to its page, or a mere text
/// if it has none.
fn stage(page: &Path, pages: &[PathBuf], staged: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(root().join(page))?;
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once("](") {
        let Some((target, end)) = after.split_once(')') else { break };
        out.push_str(before);
        out.push_str("](");
        match place(page, target) {
            Some(place) if root().join(&place).is_dir() => {
                let own_page = place.join("README.md");
                match pages.contains(&own_page) {
                    true => out.push_str(&format!("{}/README.md", target.trim_end_matches('/'))),
                    false => bail!("the link to {target} leads to a folder without a page"),
                }
            }
            Some(place) if !pages.contains(&place) => {
                copy(&place, staged).with_context(|| format!("the link to {target}"))?;
                out.push_str(target);
            }
            _ => out.push_str(target),
        }
        out.push(')');
        rest = end;
    }
    out.push_str(rest);
    let file = staged.join(page);
    fs::create_dir_all(file.parent().expect("it has a folder"))?;
    Ok(fs::write(file, out)?)
}

/// The place in the repository that a link of a page leads to; `None` for a link out of it, or within the
/// page.
fn place(page: &Path, target: &str) -> Option<PathBuf> {
    let target = target.split('#').next().filter(|target| !target.is_empty() && !target.contains(':'))?;
    let mut place = page.parent()?.to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            Component::Normal(name) => place.push(name),
            _ => {}
        }
    }
    root().join(&place).exists().then_some(place)
}

fn copy(place: &Path, staged: &Path) -> anyhow::Result<()> {
    let file = staged.join(place);
    fs::create_dir_all(file.parent().expect("it has a folder"))?;
    fs::copy(root().join(place), file)?;
    Ok(())
}

/// Installs the generator beside the site, once.
fn install(folder: &Path) -> anyhow::Result<PathBuf> {
    let tool = folder.join("tool");
    if !tool.join("mkdocs").exists() {
        println!("=== installing {MKDOCS}");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        pip.arg(&tool).arg(MKDOCS).env("PIP_ROOT_USER_ACTION", "ignore").stdin(Stdio::null());
        if !pip.status().is_ok_and(|status| status.success()) {
            bail!("cannot install {MKDOCS}; it needs python3 with pip");
        }
    }
    Ok(tool)
}
