//! The arrows between modules of a crate: none of them closes a circle, but those between a module and the
//! modules inside it.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::path::{Path, PathBuf};

use crate::rust_text::{code, without_unit_tests};
use crate::tidy::{is_test, read, sources};
use crate::{members, name, root};

/// The names from the crate's root to an item, or to a module.
type ItemPath = Vec<String>;

#[derive(Default)]
struct Module {
    /// The paths in its code, as they are written.
    mentions: Vec<ItemPath>,
    /// What `use` makes visible in it, and how it is written there.
    imports: BTreeMap<String, ItemPath>,
}

/// The modules of a crate by their paths. The root's path is empty.
struct Modules(BTreeMap<ItemPath, Module>);

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let circles: Vec<String> = members().iter().flat_map(circles_of).collect();
    assert!(circles.is_empty(), "\n{circles:#?}\nWhat belongs below all of them?");
}

#[test]
fn a_circle_is_seen() {
    let circles = |files: &[(&str, &str)]| {
        let modules = files.iter().map(|(path, text)| (item_path(path), Module::parse(text))).collect();
        Modules(modules).circles()
    };
    let both = [
        ("", "pub use a::A; mod a; mod b;"),
        ("a", "use crate::{b::B, x::y};"),
        ("b", "fn f(_: super::a::A) {}"),
    ];
    assert_eq!(circles(&both), ["a b"]);
    let reexported =
        [("", "pub use a::A; pub mod a; mod b;"), ("a", "use crate::b;"), ("b", "use crate::A as C;")];
    assert_eq!(circles(&reexported), ["a b"]);
    let child = [("a", "use inner::B; mod inner;"), ("a::inner", "use super::A; use crate::A as C;")];
    assert_eq!(circles(&child), [""; 0]);
    let through_a_child =
        [("a", "use crate::b;"), ("a::inner", "use super::A;"), ("b", "use crate::a::inner::C;")];
    assert_eq!(circles(&through_a_child), ["a b"]);
    assert_eq!(
        circles(&[("a", "use crate::b;"), ("b", "// crate::a\n#[cfg(test)]\nmod tests { use crate::a; }")]),
        [""; 0]
    );
}

#[test]
fn imports_are_read() {
    let paths = |tree: &str| {
        imports(tree)
            .into_iter()
            .map(|(name, path)| format!("{name}={}", path.join("::")))
            .collect::<Vec<_>>()
    };
    assert_eq!(paths("a::{self, b::{C, d as E}, f::*}"), ["a=a", "C=a::b::C", "E=a::b::d", "*=a::f"]);
    assert_eq!(chains("x(a::b::<C>(), d . e, f::g!())"), [item_path("a::b"), item_path("f::g")]);
}

/// A line for each circle of the package.
fn circles_of(package: &serde_json::Value) -> Vec<String> {
    let manifest = Path::new(package["manifest_path"].as_str().expect("a package has a manifest"));
    let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root()).ok());
    let source = folder.expect("crates lie in the root").join("src");
    let files = sources().into_iter().filter(|path| path.starts_with(&source) && !is_test(path));
    let modules = files.map(|path| (module_of(&path, &source), Module::parse(&read(&path))));
    Modules(modules.collect())
        .circles()
        .into_iter()
        .map(|circle| format!("{}: {circle}", name(package)))
        .collect()
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`; `src/lib.rs` and `src/main.rs` are the root.
fn module_of(path: &Path, source: &Path) -> ItemPath {
    let inside: PathBuf = path.strip_prefix(source).expect("it lies there").with_extension("");
    let mut names: ItemPath = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| ["lib", "main", "mod"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

impl Module {
    fn parse(text: &str) -> Module {
        let code = code(without_unit_tests(text));
        let mut module = Module::default();
        let mut rest = code.as_str();
        while let Some((before, tree, after)) = next_use(rest) {
            module.mentions.extend(chains(before));
            for (name, path) in imports(tree) {
                module.mentions.push(path.clone());
                module.imports.insert(name, path);
            }
            rest = after;
        }
        module.mentions.extend(chains(rest));
        module
    }
}

/// The first `use` of a text: what is before it, its tree, what is after it.
fn next_use(text: &str) -> Option<(&str, &str, &str)> {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let start = text.match_indices("use ").map(|(at, _)| at).find(|at| !text[..*at].ends_with(is_word))?;
    let end = start + text[start..].find(';')?;
    Some((&text[..start], &text[start + "use ".len()..end], &text[end..]))
}

/// What a tree of `use` makes visible: the names, and what each stands for.
fn imports(tree: &str) -> Vec<(String, ItemPath)> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let (path, alias) =
            tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
        let mut path = item_path(path);
        path.retain(|name| name != "*" && !name.is_empty());
        if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let own = if tree.ends_with('*') { "*" } else { path.last().map_or("", String::as_str) };
        return vec![(alias.unwrap_or(own).to_owned(), path)];
    };
    let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
    parts(group).into_iter().flat_map(|part| imports(&format!("{prefix}{}", part.trim()))).collect()
}

/// The parts between the commas that are in no inner group.
fn parts(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let is_end = |char: char| {
        depth += i32::from(char == '{') - i32::from(char == '}');
        char == ',' && depth == 0
    };
    group.split(is_end).filter(|part| !part.trim().is_empty()).collect()
}

/// All paths of two names and more in a text without `use`.
fn chains(text: &str) -> Vec<ItemPath> {
    let is_part = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
    let paths = text.split(|char| !is_part(char)).map(|path| path.trim_matches(':'));
    paths.filter(|path| path.contains("::")).map(item_path).collect()
}

fn item_path(text: &str) -> ItemPath {
    text.split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

impl Modules {
    /// Each circle as the names of its modules.
    fn circles(&self) -> Vec<String> {
        let arrows = self.arrows();
        let reached: BTreeMap<&ItemPath, BTreeSet<&ItemPath>> =
            self.0.keys().map(|from| (from, reach(&arrows, from))).collect();
        let mut circles = BTreeSet::new();
        for from in self.0.keys().filter(|from| reached[from].contains(from)) {
            let circle = self.0.keys().filter(|to| reached[from].contains(to) && reached[to].contains(from));
            circles.insert(circle.map(|path| path.join("::")).collect::<Vec<_>>().join(" "));
        }
        circles.into_iter().collect()
    }

    /// Who imports from whom. A module may import from those that it lies in; that is no arrow. But who
    /// imports from it from outside of those, imports from them too.
    fn arrows(&self) -> BTreeMap<&ItemPath, BTreeSet<&ItemPath>> {
        let direct: BTreeMap<&ItemPath, BTreeSet<&ItemPath>> = self
            .0
            .iter()
            .map(|(path, module)| {
                let targets = module.mentions.iter().filter_map(|mention| self.target(path, mention, 0));
                (path, targets.filter(|target| *target != path).collect())
            })
            .collect();
        let is_up = |from: &ItemPath, to: &ItemPath| from.starts_with(to);
        let mut arrows = BTreeMap::new();
        for (&from, targets) in &direct {
            let mut all: BTreeSet<&ItemPath> =
                targets.iter().copied().filter(|to| !is_up(from, to)).collect();
            let mut looked_at: Vec<&ItemPath> = all.iter().copied().collect();
            while let Some(to) = looked_at.pop() {
                for above in direct[to].iter().filter(|above| is_up(to, above) && !is_up(from, above)) {
                    if all.insert(above) {
                        looked_at.push(above);
                    }
                }
            }
            arrows.insert(from, all);
        }
        arrows
    }

    /// The module in which the item is that a path leads to; None if that is another crate.
    fn target(&self, module: &ItemPath, path: &[String], depth: usize) -> Option<&ItemPath> {
        const DEPTH_MAX: usize = 8;
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                rest = &path[ups..];
                module[..module.len().checked_sub(ups)?].to_vec()
            }
            _ => {
                let child = join(module, first);
                if !self.0.contains_key(&child) {
                    let import = self.0.get(module)?.imports.get(first)?;
                    let whole: ItemPath = import.iter().chain(rest).cloned().collect();
                    return if depth < DEPTH_MAX { self.target(module, &whole, depth + 1) } else { None };
                }
                child
            }
        };
        while let Some((next, after)) = rest.split_first() {
            let child = join(&at, next);
            if self.0.contains_key(&child) {
                (at, rest) = (child, after);
                continue;
            }
            let is_imported = self.0.get(&at).is_some_and(|module| module.imports.contains_key(next));
            if is_imported && depth < DEPTH_MAX {
                return self.target(&at, rest, depth + 1);
            }
            break;
        }
        self.0.get_key_value(&at).map(|(path, _)| path)
    }
}

fn join(module: &ItemPath, name: &str) -> ItemPath {
    module.iter().cloned().chain(iter::once(name.to_owned())).collect()
}

/// All modules that arrows lead to from one, over others too.
fn reach<'a>(
    arrows: &BTreeMap<&'a ItemPath, BTreeSet<&'a ItemPath>>,
    from: &ItemPath,
) -> BTreeSet<&'a ItemPath> {
    let mut reached = BTreeSet::new();
    let mut looked_at: Vec<&ItemPath> = arrows[from].iter().copied().collect();
    while let Some(to) = looked_at.pop() {
        if reached.insert(to) {
            looked_at.extend(arrows[to].iter().copied());
        }
    }
    reached
}
