//! Metrics of the sweep: answers of several tokens, and the position that a metric reads.

use std::path::Path;
use std::process::Command;

use crate::shared::{PAIRS, Tensors, json, run, tensors};
use rewire_store::{Key, OutputDirectory, Record, Waiting};
use serde_json::Value;
use tempfile::TempDir;

/// Prompts of 15 tokens with answers of one to three tokens and no wrong answers.
const WHOLE: &str = r#"{"clean": "When John and Mary went to the shops, John gave the bag to", "corrupt": "When John and Mary went to the shops, Mary gave the bag to", "answers": [" Mary and John"]}
{"clean": "When Tom and James went to the park, James gave the ball to", "corrupt": "When Tom and James went to the park, Tom gave the ball to", "answers": " Tom"}
{"clean": "When Tom and James went to the park, James gave the ball to", "corrupt": "When Tom and James went to the park, Tom gave the ball to", "answers": [" Tom and", " Tom to"]}
"#;

fn directory(lines: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), lines).unwrap();
    directory
}

/// Sweeps the `pairs.jsonl` in a directory; returns the effects and their description. The sweep
/// may warn that the toys hardly do such a task.
fn sweep(directory: &Path, arguments: &[&str]) -> (Tensors, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
    command.args(["sweep", "--pairs", "pairs.jsonl", "--out", "o", "--force"]).args(arguments);
    let output = command.current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    (tensors(&directory.join("o/effects.safetensors")), json(&directory.join("o/effects.json")))
}

fn numbers(about: &Value, run: &str) -> Vec<f64> {
    serde_json::from_value(about["baselines"][run].clone()).unwrap()
}

/// Asserts that a command on a `pairs.jsonl` with these lines is refused with `words` on standard
/// error.
fn assert_refused(lines: &str, arguments: &[&str], words: &[&str]) {
    let directory = directory(lines);
    let output =
        Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?} does not say {word:?}: {message}");
    }
    assert!(!directory.path().join("out").exists(), "{arguments:?} wrote something");
}

fn assert_sweep_refused(lines: &str, arguments: &[&str], words: &[&str]) {
    assert_refused(lines, &[&["sweep", "--pairs", "pairs.jsonl"], arguments].concat(), words);
}

#[test]
fn log_probabilities_of_whole_answers_are_swept_by_every_method() {
    let directory = directory(WHOLE);
    let found = |arguments: &[&str]| sweep(directory.path(), &[&["--metric", "log-prob"], arguments].concat());
    for model in ["toy-gpt2", "toy-neox"] {
        let (heads, about) = found(&["--model", model]);
        assert_eq!(heads["head_z"].0, [4, 8]);
        assert_eq!(about["metric"], "log-prob");
        assert_eq!(about["notes"]["metric_position"], "answer");
        assert!(numbers(&about, "clean").iter().chain(&numbers(&about, "corrupted")).all(|value| *value < 0.0));
        for method in [
            &["--method", "attribution-patching"][..],
            &["--method", "attribution-patching", "--verify", "3"],
            &["--method", "path-patching", "--receivers", "q:3.1,resid_post:3"],
            &["--method", "integrated-gradients"],
            &["--method", "ablation"],
            &["--direction", "noising", "--per-prompt"],
        ] {
            let (effects, _) = found(&[&["--model", model], method].concat());
            assert!(effects["head_z"].1.iter().any(|value| value.abs() > 1e-3), "{model} {method:?}");
        }
        // The longest prompt has the first two tokens of its answer, too.
        let (positions, _) = found(&["--model", model, "--by", "position"]);
        assert_eq!(positions["head_z@position"].0, [4, 8, 17]);
    }
}

#[test]
fn the_log_probability_of_one_token_is_the_log_of_its_probability() {
    let directory = directory(PAIRS);
    let after = |metric: &str| {
        let (effects, about) = sweep(directory.path(), &["--metric", metric, "--per-prompt"]);
        let base = numbers(&about, "corrupted");
        let values = effects["head_z"].1.iter().enumerate();
        values.map(|(i, effect)| f64::from(*effect) + base[i / 32]).collect::<Vec<f64>>()
    };
    let (logs, probabilities) = (after("log-prob"), after("probability"));
    assert_eq!(logs.len(), 64);
    for (log, probability) in logs.into_iter().zip(probabilities) {
        assert!((log.exp() - probability).abs() < 1e-5, "{log} is not the log of {probability}");
    }
}

#[test]
fn whole_answers_that_cannot_be_used_are_refused() {
    let whole = ["--metric", "log-prob"];
    let parting = WHOLE.replace(" Tom to", " James to");
    assert_sweep_refused(&parting, &whole, &["line 3", "differ before their last token"]);
    assert_sweep_refused(&WHOLE.replace("\" Tom\"", "\"\""), &whole, &["line 2", "an answer has no tokens"]);
    assert_sweep_refused(WHOLE, &[], &["line 1", "wrong_answers"]);
    assert_sweep_refused(PAIRS, &["--answers", "whole"], &["--answers whole needs --metric log-prob"]);
    let other = ["--answers", "whole", "--metric", "kl"];
    assert_sweep_refused(PAIRS, &other, &["--answers whole needs --metric log-prob", "--metric kl"]);
    let there = [&whole[..], &["--metric-position", "3"]].concat();
    assert_sweep_refused(WHOLE, &there, &["remove --metric-position"]);
    let at_end = [&whole[..], &["--method", "path-patching", "--receivers", "resid_post:3@end"]].concat();
    assert_sweep_refused(WHOLE, &at_end, &["@end", "several positions"]);
    let gradient = [&whole[..], &["--method", "logit-attribution"]].concat();
    assert_sweep_refused(WHOLE, &gradient, &["measures the logit difference only", "log-prob"]);
    let convert = ["pairs", "convert", "pairs.jsonl", "--answers", "whole", "--out", "other.jsonl"];
    assert_refused(WHOLE, &convert, &["remove --answers whole"]);
    let long = format!(r#"{{"clean": [1, 2], "corrupt": [1, 3], "answers": ["{}"]}}"#, " Mary".repeat(60));
    assert_sweep_refused(&long, &whole, &["line 1", "context of 48"]);
}

#[test]
fn pairs_check_shows_the_answer_in_the_prompts() {
    let directory = directory(WHOLE);
    let shown = run(directory.path(), &["pairs", "check", "pairs.jsonl", "--answers", "whole"], &[]);
    assert!(shown.contains("pair 0, 17 tokens"), "{shown}");
    assert!(shown.contains("end in the first 2 tokens of the answer"), "{shown}");
    assert!(shown.contains("pair 1, 15 tokens"), "{shown}");
}

#[test]
fn a_metric_reads_the_position_that_is_asked_for() {
    let marked = PAIRS.replace("\"wrong_answers\"", "\"position\": 14, \"wrong_answers\"");
    let directory = directory(&marked);
    let found = |arguments: &[&str]| sweep(directory.path(), &[&["--metric", "logit-diff"], arguments].concat());
    let (at_end, about) = found(&[]);
    assert_eq!(about["notes"]["metric_position"], "-1");
    for position in ["-1", "14", "marked"] {
        let (effects, about) = found(&["--metric-position", position]);
        assert_eq!(effects, at_end, "{position}");
        assert_eq!(about["notes"]["metric_position"], position);
    }
    let (earlier, _) = found(&["--metric-position", "13"]);
    assert_ne!(earlier, at_end);
    assert_eq!(found(&["--metric-position", "-2"]).0, earlier);
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    assert!(report.contains("logit-diff at position -2"), "the report does not name the position");
    for metric in ["probability", "prob-diff", "accuracy", "kl", "logit-diff-normalized"] {
        let moved = |position: &str| sweep(directory.path(), &["--metric", metric, "--metric-position", position]);
        assert_eq!(moved("14").0, sweep(directory.path(), &["--metric", metric]).0, "{metric}");
    }
    // A divergence from the clean run at the same position is 0 on the clean run.
    let (_, about) = sweep(directory.path(), &["--metric", "kl", "--metric-position", "10"]);
    assert!(numbers(&about, "clean").iter().all(|value| value.abs() < 1e-5));
    assert!(numbers(&about, "corrupted").iter().any(|value| *value > 1e-5));
}

#[test]
fn positions_that_a_prompt_lacks_are_refused() {
    let refused = |position: &str, words: &[&str]| {
        assert_sweep_refused(PAIRS, &["--metric-position", position], words);
    };
    refused("15", &["--metric-position 15", "prompt 0", "15 tokens", "no position 15"]);
    refused("-16", &["--metric-position -16", "15 tokens", "no position -16"]);
    refused("marked", &["mark no position", "`position`"]);
    refused("end", &["no position `end`", "-1", "marked"]);
    let attribution = ["--method", "logit-attribution", "--metric-position", "3"];
    assert_sweep_refused(PAIRS, &attribution, &["logit-attribution reads the last token"]);
}

#[test]
fn an_unfinished_run_of_another_metric_position_is_not_resumed() {
    let directory = directory(PAIRS);
    let out = directory.path().join("o");
    std::fs::create_dir(&out).unwrap();
    let taken = OutputDirectory::take(&out, &[], "other", Waiting::Refuse).unwrap();
    let other = Record::open(&taken, &serde_json::json!({ "metric position": "3" })).unwrap();
    other.store(Key { portion: 0, number: 0, plan: 0 }, &[0.0]).unwrap();
    drop(other);
    drop(taken);
    // The error lists the settings that differ.
    let refused = |arguments: &[&str]| {
        let sweep = ["sweep", "--pairs", "pairs.jsonl", "--out", "o"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
        let output = command.args(sweep).args(arguments).current_dir(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&[]).contains("metric position"), "{}", refused(&[]));
    let same = refused(&["--metric-position", "3"]);
    assert!(same.contains("unfinished run of another command") && !same.contains("metric position"), "{same}");
}
