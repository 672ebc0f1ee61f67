//! Tests the training of the toy models, and commands on a model that cannot do the task.

use std::path::Path;
use std::process::{Command, Output};

const PAIR: &str = r#"{"clean": "When John and Mary went to the shops, John gave the bag to", "corrupt": "When John and Mary went to the shops, Mary gave the bag to", "answers": [" Mary"], "wrong_answers": [" John"]}"#;

fn xtask(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).current_dir(directory).output().unwrap()
}

/// Runs a command that must succeed; returns its standard output and standard error.
fn run(directory: &Path, arguments: &[&str]) -> [String; 2] {
    let output = xtask(directory, arguments);
    let [printed, message] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{message}");
    [printed, message]
}

#[test]
fn a_short_training_writes_a_model_that_loads() {
    let directory = tempfile::tempdir().unwrap();
    let train = ["train-toy", "--model", "toy-gpt2", "--steps", "3", "--batch", "4", "--out", "models"];
    let [printed, _] = run(directory.path(), &train);
    assert!(printed.contains("held-out prompts"));
    let manifest = std::fs::read_to_string(directory.path().join("models/toy-gpt2/training.json")).unwrap();
    assert!(manifest.contains("\"steps\": 3"), "{manifest}");
    std::fs::write(directory.path().join("pairs.jsonl"), PAIR).unwrap();
    let sweep = ["sweep", "--pairs", "pairs.jsonl", "--model", "models/toy-gpt2", "--metric", "logit-diff"];
    run(directory.path(), &sweep);
    let again = xtask(directory.path(), &train);
    let message = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(2), "{message}");
    assert!(message.contains("toy-gpt2") && message.contains("--force"), "{message}");
    run(directory.path(), &[&train[..], &["--force"]].concat());
}

#[test]
fn a_model_that_cannot_do_the_task_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &["train-toy", "--model", "toy-neox", "--steps", "1", "--batch", "4", "--out", "untrained"]);
    // An untrained model has small logit differences, so their span is small.
    let study = ["reproduce-ig", "--model", "untrained/toy-neox", "--prompts", "4", "--seed", "1"];
    let [printed, message] = run(directory.path(), &study);
    assert!(message.starts_with("warning: effects are shares of") && message.lines().count() == 1, "{message}");
    assert!(printed.contains("the model never gets the task right"), "{printed}");
    let report = std::fs::read_to_string(directory.path().join("out/reproduce-ig/report.html")).unwrap();
    assert!(report.contains("the comparison below means nothing"));
}

#[test]
fn meaningless_training_arguments_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        let output = xtask(directory.path(), arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    };
    refused(&["train-toy", "--model", "toy-bert"], &["toy-bert", "toy-gpt2"]);
    refused(&["train-toy", "--steps", "0"], &["--steps"]);
    refused(&["soak", "--minutes", "0"], &["--minutes must be above 0"]);
    refused(&["fuzz", "--seconds", "0"], &["--seconds must be above 0"]);
    refused(&["fuzz", "--target", "reports"], &["reports", "safetensors"]);
}
