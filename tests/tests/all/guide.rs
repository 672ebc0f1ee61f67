//! Tests the documents: their links lead to files and headings that exist, and the guide's table of
//! contents names every page.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::tidy::{files, root};

/// The most lines of a page of the guide.
const LINES: usize = 200;

/// A document without its blocks of code.
fn without_blocks(text: &str) -> String {
    let mut is_code = false;
    let mut kept = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// Returns the targets of links and pictures. Text between backticks has no links.
fn targets(text: &str) -> Vec<String> {
    let text: String = without_blocks(text).split('`').step_by(2).collect();
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// Returns the anchors of the headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = without_blocks(text);
    let headings =
        headings.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(anchor).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => _ = normal.pop(),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Returns why a link of a document leads nowhere, or nothing.
fn fault(document: &Path, text: &str, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = match file {
        "" => document.to_owned(),
        file => normal(&document.parent().unwrap().join(file)),
    };
    if !path.exists() {
        return Some(format!("{target} does not exist"));
    }
    let is_page = path.extension().is_some_and(|e| e == "md");
    // mdBook makes every link to a `.md` file one to a `.html` file of the book.
    let docs = root().join("docs");
    if is_page && document.starts_with(&docs) && !path.starts_with(&docs) {
        return Some(format!("{target} is not in the book; link to its folder"));
    }
    let anchor = anchor.filter(|_| is_page)?;
    let found = match file {
        "" => anchors(text),
        _ => anchors(&std::fs::read_to_string(&path).unwrap()),
    };
    (!found.contains(anchor)).then(|| format!("{target}: there is no such heading"))
}

#[test]
fn the_guide_links_to_files_that_exist() {
    let mut faults = Vec::new();
    let mut links = 0;
    for path in files("md") {
        let text = std::fs::read_to_string(&path).unwrap();
        for target in targets(&text).iter().filter(|target| !target.contains("://")) {
            links += 1;
            faults.extend(fault(&path, &text, target).map(|fault| format!("{}: {fault}", path.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(links > 100, "only {links} links were checked");
}

#[test]
fn the_table_of_contents_has_every_page() {
    let docs = root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = targets(&summary).iter().map(|target| docs.join(target)).collect();
    let pages = files("md").into_iter().filter(|path| path.starts_with(&docs) && !path.ends_with("SUMMARY.md"));
    let missing: Vec<PathBuf> = pages.filter(|page| !listed.contains(page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
}

#[test]
fn pages_of_the_guide_are_short_and_name_the_language_of_their_code() {
    for path in files("md").into_iter().filter(|path| path.starts_with(root().join("docs/guide"))) {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        assert!(lines <= LINES, "{} has {lines} lines; split it", path.display());
        // rustdoc compiles a block without a language as Rust.
        let fences = text.lines().filter(|line| line.starts_with("```")).step_by(2);
        let unnamed = fences.filter(|fence| *fence == "```").count();
        assert_eq!(unnamed, 0, "{}: {unnamed} blocks of code name no language", path.display());
    }
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let document = root().join("docs/conventions.md");
    let text = "# Text of `a` page\n[link](nowhere.md)";
    let faulty = |target| fault(&document, text, target).is_some();
    assert!(!faulty("devices.md") && !faulty("#text-of-a-page") && !faulty("../crates/rewire"));
    assert!(faulty("nowhere.md") && faulty("#text-of-another-page") && faulty("devices.md#nowhere"));
    assert!(faulty("../CONTRIBUTING.md"));
    assert_eq!(targets("[`a`](b.md), `[c](d.md)`\n```sh\n[e](f.md)\n```\n"), ["b.md"]);
}
