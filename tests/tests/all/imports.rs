//! No source files in a crate import each other, directly or through other files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lists the paths in a `use` tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &str, into: &mut Vec<String>) {
    let tree = tree.trim();
    match tree.split_once('{') {
        Some((head, rest)) => {
            let inner = rest.strip_suffix('}').unwrap_or(rest);
            let (mut depth, mut from) = (0, 0);
            for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        if !inner[from..at].trim().is_empty() {
                            expand(&inner[from..at], &format!("{prefix}{}", head.trim()), into);
                        }
                        from = at + 1;
                    }
                    _ => {}
                }
            }
        }
        None => into.push(format!("{prefix}{}", tree.split(" as ").next().unwrap_or(tree))),
    }
}

/// Returns a file without its comments and tests.
fn code(text: &str) -> String {
    let code = text.split("\nmod tests {").next().unwrap_or(text);
    let lines: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or(line)).collect();
    lines.join("\n")
}

/// Returns every path in a file that starts at the crate root or at the parent module.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let statement = statement.trim_start();
        let start = statement.rfind("use crate::").or_else(|| statement.rfind("use super::"));
        if let Some(start) = start {
            expand(&statement[start + "use ".len()..].replace('\n', " "), "", &mut found);
        }
    }
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            found.push(rest[..end].trim_end_matches(':').to_owned());
        }
    }
    found
}

fn modules(directory: &Path, prefix: &str, into: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let inside = if prefix.is_empty() { name.clone() } else { format!("{prefix}::{name}") };
        if path.is_dir() {
            modules(&path, &inside, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let module = if ["lib", "main", "mod"].contains(&name.as_str()) { prefix.to_owned() } else { inside };
            into.insert(module, path);
        }
    }
}

/// Returns the module in `modules` that a path in module `from` leads into.
fn target(path: &str, from: &str, modules: &BTreeMap<String, PathBuf>) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = path;
    if let Some(inside) = rest.strip_prefix("crate::") {
        rest = inside;
    } else {
        parts = from.split("::").filter(|part| !part.is_empty()).collect();
        while let Some(inside) = rest.strip_prefix("super::") {
            parts.pop();
            rest = inside;
        }
    }
    parts.extend(rest.split("::"));
    (0..=parts.len()).rev().map(|n| parts[..n].join("::")).find(|module| modules.contains_key(module))
}

/// Returns a circle of imports, if there is one.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        arrows: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(from) = way.iter().position(|seen| seen == at) {
            return Some(way[from..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        way.push(at.to_owned());
        let found = arrows[at].iter().find_map(|next| walk(next, arrows, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|start| walk(start, arrows, &mut Vec::new(), &mut done))
}

fn arrows_of(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = BTreeMap::new();
    modules(source, "", &mut files);
    let arrows = |(module, path): (&String, &PathBuf)| {
        let text = code(&std::fs::read_to_string(path).unwrap());
        let named = paths(&text);
        let mut targets: BTreeSet<String> = named.iter().filter_map(|path| target(path, module, &files)).collect();
        // A module can name its children without a path.
        let reaches = |child: &&String| {
            let name = child.rsplit("::").next().unwrap_or(child);
            let is_child = child.strip_suffix(name).is_some_and(|p| p.trim_end_matches(':') == module);
            let begins = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            is_child && text.match_indices(&format!("{name}::")).any(|(at, _)| begins(at))
        };
        targets.extend(files.keys().filter(reaches).cloned());
        targets.remove(module);
        (module.clone(), targets)
    };
    files.iter().map(arrows).collect()
}

#[test]
fn source_files_have_no_circular_imports() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut arrows = 0;
    for entry in std::fs::read_dir(crates).unwrap() {
        let path = entry.unwrap().path();
        let found = arrows_of(&path.join("src"));
        arrows += found.values().map(BTreeSet::len).sum::<usize>();
        let circle = circle(&found);
        assert!(circle.is_none(), "{}: these import each other in a circle: {circle:?}", path.display());
    }
    assert!(arrows > 300, "only {arrows} imports were found");
}

#[test]
fn circular_imports_are_detected() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("lib.rs", "mod a;\nmod b;\npub use a::A;\n");
    write("a.rs", "use crate::b::{B, C};\n");
    write("b.rs", "use std::fmt;\n\nfn b() -> super::c::C { c() }\n");
    write("c.rs", "//! use crate::a::A;\n");
    assert_eq!(circle(&arrows_of(directory.path())), None);
    write("c.rs", "use crate::{\n    a::A,\n};\n");
    assert_eq!(circle(&arrows_of(directory.path())).map(|circle| circle.len()), Some(3));
    write("c.rs", "use crate::A;\n");
    assert_eq!(circle(&arrows_of(directory.path())).map(|circle| circle.len()), Some(4));
    // A parent that calls its child without a `use`.
    write("c.rs", "");
    std::fs::create_dir(directory.path().join("b")).unwrap();
    write("b.rs", "mod d;\n\npub struct B;\n\nfn b() { d::d() }\n");
    write("b/d.rs", "fn d() {}\n");
    assert_eq!(circle(&arrows_of(directory.path())), None);
    write("b/d.rs", "use super::B;\n");
    assert_eq!(circle(&arrows_of(directory.path())).map(|circle| circle.len()), Some(2));
}
