//! Reads the files in an output directory and checks that they are complete.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use rewire_store::{INCOMPLETE, RECORD, sha256};
use serde_json::Value;

/// Files by name. Descriptions are reduced to the parts that do not change between runs.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Reads a directory of results; a directory inside it is an error.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(entry.file_type()?.is_file(), "{name} is left in {}", directory.display());
        files.insert(name, std::fs::read(entry.path())?);
    }
    Ok(files)
}

/// Returns the content that must be equal in two runs of one command: everything except times, and
/// hashes of files with times.
fn comparable(files: &Files) -> anyhow::Result<Files> {
    let mut files = files.clone();
    for (name, contents) in &mut files {
        if name.ends_with(".json") {
            let mut value: Value = serde_json::from_slice(contents).with_context(|| format!("{name} is no JSON"))?;
            for key in ["wall_time_s", "started", "command", "files", "seconds"] {
                value.as_object_mut().map(|object| object.remove(key));
            }
            *contents = serde_json::to_vec(&value)?;
        }
    }
    Ok(files)
}

/// Returns an error if results differ from the reference in more than times, or if leftovers exist.
pub(crate) fn check_equal(found: &Files, reference: &Files) -> anyhow::Result<()> {
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    ensure!(names(found) == names(reference), "files {:?}, and not {:?}", names(found), names(reference));
    let (found, reference) = (comparable(found)?, comparable(reference)?);
    for (name, contents) in &found {
        ensure!(*contents == reference[name], "{name} differs from an undisturbed run's");
    }
    Ok(())
}

/// Returns an error if the results of two runs are mixed and no file says so.
pub(crate) fn check_one_run(directory: &Path) -> anyhow::Result<()> {
    if !directory.join("effects.json").exists() || directory.join(INCOMPLETE).exists() {
        let stray = ["effects.safetensors", "effects.csv", "report.html", "circuit.json"];
        let stray: Vec<_> = stray.iter().filter(|name| directory.join(name).exists()).collect();
        ensure!(
            stray.is_empty() || directory.join(INCOMPLETE).exists(),
            "{stray:?} without effects.json, and nothing says so"
        );
        return Ok(());
    }
    let about: Value = serde_json::from_slice(&std::fs::read(directory.join("effects.json"))?)?;
    for (name, described) in about["files"].as_object().context("effects.json lists no files")? {
        let contents = std::fs::read(directory.join(name)).with_context(|| format!("{name} of this run is missing"))?;
        ensure!(
            described["sha256"] == sha256(&contents).as_str(),
            "{name} is not of the run that effects.json describes"
        );
    }
    Ok(())
}

/// Returns whether a record of an unfinished run exists.
pub(crate) fn has_record(directory: &Path) -> bool {
    directory.join(RECORD).exists()
}
