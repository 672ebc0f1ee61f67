//! Finished results in an output directory: the run that wrote them, and whether another run may
//! replace them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;
use indicatif::HumanDuration;
use rewire_input::cut;
use serde_json::Value;

/// Name of the file that describes results.
const DESCRIPTION: &str = "effects.json";

/// Key in [`DESCRIPTION`] of the identity of a run.
const RUN: &str = "run";

/// Refuses to replace results that another run wrote. `results` are the names of the files that
/// this run will write, and `run` is its identity.
///
/// # Errors
/// If a file with one of these names exists, and no description says that the same run wrote it.
pub(super) fn check(directory: &Path, results: &[&str], run: &Value) -> anyhow::Result<()> {
    let exists = |name: &str| directory.join(name).exists();
    let Some(found) = results.iter().copied().find(|name| exists(name)) else { return Ok(()) };
    let path = directory.display();
    let remedy = "choose another --out, or give --force to replace them";
    let described = description(directory);
    if !described["command"].is_array() {
        bail!(
            "{path} holds a file {found} that no rewire command describes; choose another --out, or give --force to \
             replace it"
        );
    }
    let run = from_text(run)?;
    if described[RUN] == run {
        return Ok(());
    }
    let command = command(&described);
    let age = age(directory);
    match differences(&described[RUN], &run) {
        Some(differs) => bail!(
            "{path} holds the results of another run (`{command}`, finished {age}; this run differs in: {differs}); \
             {remedy}"
        ),
        None => bail!("{path} holds the results of another run (`{command}`, finished {age}); {remedy}"),
    }
}

/// Returns whether a directory holds the files with the names `results`, and the run with the
/// identity `run` wrote them.
pub(super) fn is_of(directory: &Path, results: &[&str], run: &Value) -> bool {
    let is_whole = results.iter().all(|name| directory.join(name).exists());
    is_whole && from_text(run).is_ok_and(|run| description(directory)[RUN] == run)
}

/// Returns the contents of the description; null if there is none.
fn description(directory: &Path) -> Value {
    let described = std::fs::read(directory.join(DESCRIPTION)).ok();
    described.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Returns a value as it is read from its text: the same number can be read back differently.
fn from_text(value: &Value) -> serde_json::Result<Value> {
    serde_json::from_slice(&serde_json::to_vec(value)?)
}

/// Returns the command line that wrote results, in one line.
fn command(described: &Value) -> String {
    let words = described["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
    cut(&["rewire"].into_iter().chain(words).collect::<Vec<_>>().join(" "))
}

/// Returns how long ago results were finished.
fn age(directory: &Path) -> String {
    let written = std::fs::metadata(directory.join(DESCRIPTION)).and_then(|found| found.modified());
    match written.ok().and_then(|at| at.elapsed().ok()) {
        Some(age) => format!("{} ago", HumanDuration(age)),
        None => "at an unknown time".to_owned(),
    }
}

/// Returns the names of the settings that differ. `None` if the results do not list theirs, as
/// results of an earlier version, or if another kind of command wrote them.
fn differences(found: &Value, run: &Value) -> Option<String> {
    let (found, run) = (found.as_object()?, run.as_object()?);
    if found.get("command") != run.get("command") {
        return None;
    }
    let names: BTreeSet<&String> = found.keys().chain(run.keys()).collect();
    let differing = names.into_iter().filter(|name| found.get(*name) != run.get(*name));
    Some(differing.map(String::as_str).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_with(description: &Value, run: &Value) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(DESCRIPTION), description.to_string()).unwrap();
        check(directory.path(), &[DESCRIPTION, "report.html"], run).map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_run_may_replace_its_results() {
        // 0.1 + 0.2 is a number that a parser may round otherwise.
        let run = json!({ "command": "sweep", "metric": "kl", "tolerance": 0.1 + 0.2 });
        assert_eq!(check_with(&json!({ "command": ["sweep"], "run": run }), &run), Ok(()));
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(DESCRIPTION), json!({ "run": run }).to_string()).unwrap();
        assert!(is_of(directory.path(), &[DESCRIPTION], &run));
        assert!(!is_of(directory.path(), &[DESCRIPTION, "report.html"], &run));
        assert!(!is_of(directory.path(), &[DESCRIPTION], &json!({ "command": "sweep" })));
        let empty = tempfile::tempdir().unwrap();
        check(empty.path(), &[DESCRIPTION], &run).unwrap();
    }

    #[test]
    fn results_of_another_run_are_refused_with_its_command_and_the_differences() {
        let run = |metric: &str| json!({ "command": "sweep", "metric": metric, "seed": 0 });
        let written = json!({ "command": ["sweep", "--metric", "kl"], "run": run("kl") });
        let refused = check_with(&written, &run("accuracy")).unwrap_err();
        for words in ["`rewire sweep --metric kl`, finished ", "ago; this run differs in: metric)", "--out", "--force"]
        {
            assert!(refused.contains(words), "{refused}");
        }
        let older = json!({ "command": ["sweep"] });
        assert!(check_with(&older, &run("kl")).unwrap_err().contains("`rewire sweep`, finished"));
    }

    #[test]
    fn files_that_no_command_describes_are_refused() {
        let run = json!({ "command": "sweep" });
        for description in [json!("mine"), json!({ "command": "mine" })] {
            let refused = check_with(&description, &run).unwrap_err();
            assert!(refused.contains("a file effects.json that no rewire command describes"), "{refused}");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("report.html"), "mine").unwrap();
        assert!(check(directory.path(), &["report.html"], &run).unwrap_err().to_string().contains("report.html"));
    }
}
