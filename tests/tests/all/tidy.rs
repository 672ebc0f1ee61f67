//! Tests the rules of the repository: dependencies between crates, how files start, and how long
//! they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the repository's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the files with an extension, except build output and tools' files.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "out" && !name.starts_with('.') {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 5, "found only {found:?}");
    found
}

/// The crates that `rewire` re-exports.
const LIBRARIES: [&str; 7] =
    ["rewire-tensor", "rewire-hooks", "rewire-model", "rewire-tasks", "rewire-toy", "rewire-analysis", "rewire-report"];

#[test]
fn crates_depend_only_on_lower_ones() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("rewire-tensor", [].as_slice()),
        ("rewire-input", &[]),
        ("rewire-gguf", &["rewire-input"]),
        ("rewire-hooks", &["rewire-tensor", "rewire-input"]),
        ("rewire-hub", &[]),
        ("rewire-store", &[]),
        (
            "rewire-model",
            &["rewire-tensor", "rewire-hooks", "rewire-gguf", "rewire-hub", "rewire-input", "rewire-store"],
        ),
        ("rewire-tasks", &["rewire-input"]),
        ("rewire-toy", &["rewire-model", "rewire-store", "rewire-tasks"]),
        ("rewire-analysis", &["rewire-tensor", "rewire-hooks", "rewire-input", "rewire-model", "rewire-tasks"]),
        ("rewire-circuits", &["rewire-analysis", "rewire-hooks", "rewire-input", "rewire-model", "rewire-tasks"]),
        ("rewire-report", &["rewire-analysis", "rewire-store", "rewire-tasks"]),
        (
            "rewire-studies",
            &[
                "rewire-tensor",
                "rewire-hooks",
                "rewire-model",
                "rewire-tasks",
                "rewire-toy",
                "rewire-analysis",
                "rewire-circuits",
            ],
        ),
        ("rewire", &LIBRARIES),
        (
            "rewire-python",
            &[
                "rewire-analysis",
                "rewire-circuits",
                "rewire-hooks",
                "rewire-input",
                "rewire-model",
                "rewire-report",
                "rewire-studies",
                "rewire-tasks",
            ],
        ),
    ]);
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let dependencies = package["dependencies"].as_array().unwrap();
        // Dependencies of tests do not count.
        let normal = dependencies.iter().filter(|d| d["kind"].is_null()).map(|d| d["name"].as_str().unwrap());
        for dependency in normal {
            assert!(
                !["xtask", "rewire-tests", "rewire-cli"].contains(&dependency) || name == "xtask",
                "{name} depends on {dependency}"
            );
            if let Some(allowed) = allowed.get(name) {
                let ours = dependency.starts_with("rewire-");
                assert!(!ours || allowed.contains(&dependency), "{name} must not depend on {dependency}");
                assert!(dependency != "anyhow" && dependency != "clap", "{name} depends on {dependency}");
            }
        }
        seen += usize::from(allowed.contains_key(name));
    }
    assert_eq!(seen, allowed.len(), "a crate is missing");
}

#[test]
fn every_source_file_starts_with_a_doc_comment_and_is_short() {
    for path in files("rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with //!", path.display());
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines; split it by idea", path.display());
    }
}

#[test]
fn unsafe_code_is_only_in_the_memory_map_and_the_search_for_cuda_libraries() {
    let allowed = ["crates/rewire-model/src/files/file.rs", "crates/rewire-tensor/src/cuda/driver.rs"].map(Path::new);
    for path in files("rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root()).unwrap();
        if name.ends_with("lib.rs") && name.starts_with("crates") && !name.starts_with("crates/rewire-model") {
            let forbids = text.contains("#![forbid(unsafe_code)]")
                || text.contains("#![cfg_attr(not(feature = \"cuda\"), forbid(unsafe_code))]");
            assert!(forbids, "{} does not forbid unsafe code", name.display());
        }
        let has_block = text.lines().any(|line| line.contains("unsafe {") && !line.contains('"'));
        assert!(!has_block || allowed.contains(&name), "{} is unsafe", name.display());
    }
}
