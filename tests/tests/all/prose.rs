//! The measurable part of plain English: the width of comments, phrases that say nothing to a
//! stranger, and one spelling.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Phrases that no text of ours has, as whole words in any case.
const BANNED: [&str; 16] = [
    "told",
    "tells of",
    "looked at",
    "has a say",
    "have no say",
    "begun again",
    "reckon",
    "reckoned",
    "for want of",
    "the same of",
    "worked out",
    "taken for",
    "one a prompt",
    "products of float32",
    "rounding of float32",
    "noise of float32",
];

/// The beginnings of words in British spelling.
const BRITISH: [&str; 14] = [
    "behaviour",
    "colour",
    "centre",
    "centring",
    "normalis",
    "optimis",
    "summaris",
    "neighbour",
    "favour",
    "labelled",
    "modelled",
    "cancelled",
    "analysed",
    "linearis",
];

/// The most columns of a line of comment.
const COLUMNS: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that git has, with these extensions. This file is left out: it holds the lists.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let wanted = |path: &&str| extensions.iter().any(|extension| path.ends_with(extension));
    let ours = |path: &&str| !path.ends_with("all/prose.rs") && !path.ends_with("CHANGELOG.md");
    listed.lines().filter(wanted).filter(ours).map(|path| root().join(path)).collect()
}

/// Whether `line` has `phrase` as whole words.
fn has(line: &str, phrase: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(phrase)
        .any(|(at, _)| !line[..at].ends_with(is_letter) && !line[at + phrase.len()..].starts_with(is_letter))
}

#[test]
fn no_text_has_a_banned_phrase_or_a_british_spelling() {
    let mut found = Vec::new();
    for path in files(&[".rs", ".md"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let banned = BANNED.iter().find(|phrase| has(&lower, phrase));
            let british = BRITISH.iter().find(|word| lower.contains(*word) && !is_alias(line));
            for phrase in banned.into_iter().chain(british) {
                found.push(format!("{}:{}: {phrase}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

/// Old names that are still accepted are written as they were.
fn is_alias(line: &str) -> bool {
    line.contains("alias")
}

#[test]
fn comments_have_at_most_a_hundred_columns() {
    let mut found = Vec::new();
    for path in files(&[".rs"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            // A table is as wide as its content, and a link cannot be broken.
            let is_comment = line.trim_start().starts_with("//");
            let is_row = line.trim_start().trim_start_matches(['/', '!', ' ']).starts_with('|');
            let may_be_wide = line.contains("://") || is_row;
            if is_comment && !may_be_wide && line.chars().count() > COLUMNS {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

#[test]
fn phrases_are_found_as_whole_words() {
    assert!(has("what is told here", "told") && !has("retold", "told") && !has("told_once", "told"));
}
