//! Writes the result files of one run together.

use std::path::Path;

use rewire_store::{OutputDirectory, StoreError, sha256};
use serde_json::{Value, json};

use crate::axis_labels::AxisLabels;
use crate::csv_lines::lines;
use crate::description::description;
use crate::error::ReportError;
use crate::tables::{About, Table, tensors};

/// Names of the files that [`write_results`] makes from tables.
pub const TABLE_FILES: [&str; 3] = ["effects.safetensors", "effects.csv", "effects.json"];

/// Writes `effects.safetensors`, `effects.csv` and `effects.json` from these tables into
/// `directory`, together with `others` (name and contents). All files appear together, or none.
///
/// `effects.json` lists the files of the run with their sizes and SHA-256, to identify files from
/// another run next to them. Files that the previous `effects.json` lists and this run does not
/// write are removed, if nobody changed them.
///
/// # Errors
/// [`ReportError`].
pub fn write_results(
    directory: &OutputDirectory,
    tables: &[Table],
    about: &About,
    others: Vec<(&str, Vec<u8>)>,
) -> Result<(), ReportError> {
    let files = result_files(tables, about, others)?;
    let outdated = outdated(directory.path(), &files);
    Ok(directory.publish(&files, &outdated)?)
}

/// Returns the names and contents of the files that [`write_results`] writes.
///
/// # Errors
/// [`ReportError`].
pub fn result_files<'n>(
    tables: &[Table],
    about: &About,
    others: Vec<(&'n str, Vec<u8>)>,
) -> Result<Vec<(&'n str, Vec<u8>)>, ReportError> {
    let labels = AxisLabels::new(&about.labels);
    let csv = lines(tables, &about.metric, &labels)?;
    let mut files = vec![(TABLE_FILES[0], tensors(tables)?), (TABLE_FILES[1], csv)];
    files.extend(others);
    let described = files.iter().map(|(name, bytes)| (*name, describe(bytes))).collect();
    let mut json = serde_json::to_vec_pretty(&description(tables, about, &labels, described)?)?;
    json.push(b'\n');
    files.push((TABLE_FILES[2], json));
    Ok(files)
}

fn describe(bytes: &[u8]) -> Value {
    json!({ "bytes": bytes.len(), "sha256": sha256(bytes) })
}

/// Returns the unchanged files of the previous run that the new run does not replace.
fn outdated(directory: &Path, files: &[(&str, Vec<u8>)]) -> Vec<String> {
    let former = std::fs::read(directory.join(TABLE_FILES[2])).unwrap_or_default();
    let former: Value = serde_json::from_slice(&former).unwrap_or_default();
    let listed = former["files"].as_object().into_iter().flatten();
    let listed = listed.filter(|(name, _)| files.iter().all(|(new, _)| new != name));
    let is_unchanged = |name: &str, described: &Value| {
        let is_plain = Path::new(name).file_name().is_some_and(|plain| plain == name);
        is_plain && std::fs::read(directory.join(name)).is_ok_and(|bytes| describe(&bytes) == *described)
    };
    listed.filter(|(name, described)| is_unchanged(name, described)).map(|(name, _)| name.clone()).collect()
}

impl From<StoreError> for ReportError {
    fn from(error: StoreError) -> Self {
        ReportError::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use rewire_store::Waiting;

    use super::*;
    use crate::labels::Labels;

    fn about() -> About<'static> {
        About {
            command: vec![],
            run: Value::Null,
            model: String::new(),
            config: Value::Null,
            processed_weights: true,
            metric: String::new(),
            device: String::new(),
            computed: Value::Null,
            seed: None,
            labels: Labels::None,
            baselines: Value::Null,
            finding: vec![],
            warnings: vec![],
            notes: Value::Null,
            tokenization: Value::Null,
            provenance: Value::Null,
            started: None,
            wall_time_s: 0.0,
            versions: Value::Null,
        }
    }

    fn write(path: &Path, others: Vec<(&str, Vec<u8>)>) {
        let directory = OutputDirectory::take(path, &TABLE_FILES, "test", Waiting::Refuse).unwrap();
        write_results(&directory, &[], &about(), others).unwrap();
    }

    #[test]
    fn unchanged_files_of_the_previous_run_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        let both = || vec![("report.html", b"1".to_vec()), ("circuit.dot", b"1".to_vec()), ("graph", b"1".to_vec())];
        write(temporary.path(), both());
        std::fs::write(path("graph"), "my notes").unwrap();
        std::fs::write(path("mine"), "mine").unwrap();
        write(temporary.path(), vec![("report.html", b"2".to_vec())]);
        assert!(!path("circuit.dot").exists());
        assert!(path("graph").exists() && path("mine").exists());
        assert_eq!(std::fs::read(path("report.html")).unwrap(), b"2");
    }

    #[test]
    fn every_result_file_is_listed_with_its_hash() {
        let temporary = tempfile::tempdir().unwrap();
        write(temporary.path(), vec![("report.html", b"abc".to_vec())]);
        let read = std::fs::read(temporary.path().join("effects.json")).unwrap();
        let listed = &serde_json::from_slice::<Value>(&read).unwrap()["files"];
        assert_eq!(listed.as_object().unwrap().len(), 3);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(listed["report.html"], json!({ "bytes": 3, "sha256": abc }));
    }
}
