//! Doubtful results are warned of on the screen, in the files and in the report.

use std::path::Path;
use std::process::Command;

use crate::shared::{PAIRS, complaints, json};

#[test]
fn reproduce_ig_reports_gaps_that_stay() {
    let directory = tempfile::tempdir().unwrap();
    let of = ["reproduce-ig", "--prompts", "0", "--generated-pairs", "2", "--rule", "riemann-left", "--steps", "2"];
    let [_, message] = run_with_warnings(directory.path(), &[&of[..], &["--panels", "1"]].concat());
    let about = json(&directory.path().join("out/reproduce-ig/effects.json"));
    let warnings: Vec<String> = serde_json::from_value(about["warnings"].clone()).unwrap();
    let report = std::fs::read_to_string(directory.path().join("out/reproduce-ig/report.html")).unwrap();
    for what in ["zero baseline", "corrupted baseline", "generated pairs, corrupted baseline"] {
        let start = format!("integrated gradients, {what}: the attributions of head_result do not sum to");
        let found = warnings.iter().find(|warning| warning.starts_with(&start));
        let warning = found.unwrap_or_else(|| panic!("no warning about {what} in {warnings:?}"));
        assert!(warning.contains("L0 (gap ") && warning.contains(" allowed, 2 steps)"), "{warning}");
        assert!(message.contains(&format!("warning: {warning}")), "{message}");
    }
    assert!(report.contains("<h2>Warnings</h2>"));
}

/// Runs a command that must succeed; returns its standard output and standard error.
fn run_with_warnings(directory: &Path, arguments: &[&str]) -> [String; 2] {
    let output = Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory).output().unwrap();
    let (printed, message) = (String::from_utf8(output.stdout).unwrap(), complaints(&output.stderr));
    assert!(output.status.success(), "{message}");
    [printed, message]
}

/// Sweeps token ids; returns standard error, the warnings in effects.json, and the clean minus the
/// corrupted metric of each prompt. Checks that the report has the warnings, too.
fn warned(lines: &str, arguments: &[&str]) -> (String, Vec<String>, Vec<f64>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), lines).unwrap();
    let sweep = ["sweep", "--pairs", "pairs.jsonl", "--out", "o"];
    let [_, message] = run_with_warnings(directory.path(), &[&sweep, arguments].concat());
    let out = directory.path().join("o");
    let about = json(&out.join("effects.json"));
    let warnings: Vec<String> = serde_json::from_value(about["warnings"].clone()).unwrap();
    let [clean, corrupted]: [Vec<f64>; 2] =
        ["clean", "corrupted"].map(|run| serde_json::from_value(about["baselines"][run].clone()).unwrap());
    let differences = clean.iter().zip(&corrupted).map(|(clean, corrupted)| clean - corrupted).collect();
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(report.contains("<h2>Warnings</h2>"), !warnings.is_empty());
    assert!(warnings.iter().all(|warning| report.contains(warning)), "{warnings:?}");
    (message, warnings, differences)
}

#[test]
fn small_spans_warn_on_the_screen_in_the_files_and_in_the_report() {
    // The toy model cannot do these two prompts, and their spans have opposite signs.
    let noise = r#"{"clean": [0, 1, 2, 7], "corrupt": [0, 3, 2, 7], "answers": [4], "wrong_answers": [5]}
{"clean": [0, 9, 2, 8], "corrupt": [0, 3, 2, 8], "answers": [6], "wrong_answers": [5]}
"#;
    for method in ["activation-patching", "attribution-patching", "ablation"] {
        let (message, warnings, differences) = warned(noise, &["--method", method]);
        let printed: Vec<String> = warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        assert_eq!(message.lines().collect::<Vec<_>>(), printed);
        // The spans have opposite signs, and the model is right on one of the two clean prompts.
        let [of_span, of_pairs, of_task] = &warnings[..] else { panic!("{message}") };
        assert!(of_span.starts_with("effects are shares"), "{message}");
        assert!(of_pairs.contains("in 1 of 2 pairs (1, counted from 0)"), "{message}");
        assert!(of_task.contains("right on only 1 of 2 clean prompts"), "{message}");
        // For two numbers, the standard deviation is their distance over the root of 2, and the
        // standard error is half their distance.
        let [first, second] = differences[..] else { panic!("{differences:?}") };
        let (mean, distance) = ((first + second) / 2.0, (first - second).abs());
        assert!(mean.abs() < distance, "the pairs are no longer noise: {differences:?}");
        let [sd, error] = [distance / 2.0_f64.sqrt(), distance / 2.0];
        let spread = format!("only {mean:.4}, standard error {error:.4}, standard deviation {sd:.4} over 2 prompts");
        assert!(message.contains(&spread) && message.contains("less than two standard errors"), "{message}");
    }
    // On the scale of the metric, nothing is divided by the span, and the runs hardly differ
    // nevertheless.
    let (message, ..) = warned(noise, &["--metric", "logit-diff"]);
    assert!(message.contains("the clean minus the corrupted logit-diff is only"), "{message}");
    let (message, warnings, _) = warned(PAIRS, &[]);
    assert_eq!((message.as_str(), warnings.len()), ("", 0));
}
