//! One question in each format that `--pairs` reads gives the same effects, bit for bit.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shared::{Tensors, json as json_of, run, tensors};

const JOHN: &str = "When John and Mary went to the shops, John gave the bag to";
const MARY: &str = "When John and Mary went to the shops, Mary gave the bag to";

/// Position of the second name in both prompts, the BOS included.
const SECOND_NAME: usize = 10;

/// The clean prompt, the corrupted one, the right name and the wrong one of each pair.
const PAIRS: [[&str; 4]; 2] = [[JOHN, MARY, "Mary", "John"], [MARY, JOHN, "John", "Mary"]];

/// Writes `content` and sweeps it; returns the effects, their description, and standard error.
fn swept(content: &[u8], arguments: &[&str]) -> (Tensors, Value, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs"), content).unwrap();
    let fixed = ["sweep", "--pairs", "pairs", "--metric", "logit-diff", "--per-prompt", "--out", "o"];
    let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(fixed)
        .args(arguments)
        .current_dir(directory.path())
        .output()
        .unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{complaints}");
    let out = directory.path().join("o");
    (tensors(&out.join("effects.safetensors")), json_of(&out.join("effects.json")), complaints)
}

fn lines(row: impl Fn([&str; 4]) -> Value) -> String {
    PAIRS.map(|pair| format!("{}\n", row(pair))).concat()
}

fn own(pair: [&str; 4]) -> Value {
    let [clean, corrupt, right, wrong] = pair;
    json!({"clean": clean, "corrupt": corrupt, "answers": [format!(" {right}")], "wrong_answers": [format!(" {wrong}")]})
}

/// Asserts that a file gives the effects of the same pairs in JSON Lines, without a warning.
fn assert_same(content: &[u8], arguments: &[&str]) {
    let (expected, ..) = swept(lines(own).as_bytes(), &[]);
    let (found, _, complaints) = swept(content, arguments);
    assert_eq!(complaints, "");
    assert_eq!(found, expected);
    assert!(expected.values().any(|(_, values)| values.iter().any(|v| v.abs() > 0.1)), "no effect to compare");
}

#[test]
fn aliases_and_single_answers_are_json_lines() {
    let aliases = lines(
        |[clean, corrupted, right, wrong]| json!({"clean": clean, "corrupted": corrupted, "answer": format!(" {right}"), "wrong_answer": format!(" {wrong}")}),
    );
    assert_same(aliases.as_bytes(), &[]);
    let windows = format!("\u{feff}{}", aliases.replace('\n', "\r\n\r\n"));
    assert_same(windows.as_bytes(), &[]);
}

#[test]
fn feature_circuits_rows_reach_the_effects() {
    let rows = lines(|[clean, patch, right, wrong]| {
        json!({"clean_prefix": clean, "patch_prefix": patch, "clean_answer": format!(" {right}"),
               "patch_answer": format!(" {wrong}"), "case": "names"})
    });
    assert_same(rows.as_bytes(), &[]);
}

#[test]
fn mib_rows_reach_the_effects() {
    let row = |[clean, corrupted, right, wrong]: [&str; 4]| {
        let other = "When Tom and James went to the park, James gave the ball to";
        json!({"template": "t", "metadata": {"subject": wrong}, "prompt": clean, "choices": [right, wrong], "answerKey": 0,
               "s2_io_flip_counterfactual": {"prompt": corrupted, "choices": [right, wrong], "answerKey": 1},
               "abc_counterfactual": {"prompt": other, "choices": ["Tom", "James"], "answerKey": 0}})
    };
    assert_same(lines(row).as_bytes(), &[]);
    assert_same(lines(row).as_bytes(), &["--counterfactual", "s2_io_flip"]);
    // Another counterfactual has other effects.
    let (named, ..) = swept(lines(row).as_bytes(), &["--counterfactual", "abc"]);
    assert_ne!(named, swept(lines(own).as_bytes(), &[]).0);
}

#[test]
fn two_blimp_rows_become_two_pairs() {
    let rows = lines(|[prefix, _, good, bad]| {
        json!({"sentence_good": format!("{prefix} {good}."), "sentence_bad": format!("{prefix} {bad}."),
               "one_prefix_prefix": prefix, "one_prefix_word_good": good, "one_prefix_word_bad": bad,
               "one_prefix_method": true, "UID": "made", "pairID": "0"})
    });
    assert_same(rows.as_bytes(), &[]);
    // A row without a partner is left out, with a warning.
    let alone = json!({"one_prefix_prefix": "When Tom and James went to the park, James gave the ball to",
                       "one_prefix_word_good": "Tom", "one_prefix_word_bad": "James"});
    let (found, _, complaints) = swept(format!("{rows}{alone}\n").as_bytes(), &[]);
    assert_eq!(found, swept(lines(own).as_bytes(), &[]).0);
    assert!(complaints.starts_with("warning: ") && complaints.lines().count() == 1, "{complaints}");
}

#[test]
fn auto_circuits_object_reaches_the_effects_with_its_marked_position() {
    let object = json!({
        "seq_labels": JOHN.replace(',', " ,").split(' ').collect::<Vec<_>>(),
        "word_idxs": {"S1": 1, "S2": SECOND_NAME - 1},
        "prompts": PAIRS.map(own),
    });
    let object = serde_json::to_vec_pretty(&object).unwrap();
    assert_same(&object, &[]);
    let marked = lines(|pair| {
        let mut row = own(pair);
        row["position"] = json!(SECOND_NAME);
        row
    });
    let arguments = ["--by", "marked", "--nodes", "resid_pre,head_v"];
    let (expected, ..) = swept(marked.as_bytes(), &arguments);
    let (found, ..) = swept(&object, &[&arguments[..], &["--mark", "S2"]].concat());
    assert_eq!(found, expected);
    let (other, ..) = swept(&object, &[&arguments[..], &["--mark", "S1"]].concat());
    assert_ne!(other, expected);
}

#[test]
fn tables_of_text_and_of_ids_reach_the_effects() {
    let row = |[clean, corrupted, right, wrong]: [&str; 4]| format!("\"{clean}\",{right},\"{corrupted}\",{wrong}\r\n");
    let text = format!("question,answer,corrupted,corrupt_answer\r\n{}", PAIRS.map(row).concat());
    assert_same(text.as_bytes(), &[]);

    let directory: TempDir = tempfile::tempdir().unwrap();
    let [mary, john] = ids(directory.path());
    let row = |[clean, corrupted, right, _]: [&str; 4]| {
        let (right, wrong) = if right == "Mary" { (mary, john) } else { (john, mary) };
        format!("7,\"{clean}\",\"{corrupted}\",\"{clean}\",{right},{wrong}\n")
    };
    let ids = format!(",clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n{}", PAIRS.map(row).concat());
    assert_same(ids.as_bytes(), &[]);
    // `corrupted_hard` equals the clean prompt here, and so has no effect.
    let (none, ..) = swept(ids.as_bytes(), &["--counterfactual", "corrupted_hard"]);
    assert!(none.values().all(|(_, values)| values.iter().all(|v| *v == 0.0)));
}

/// The ids of " Mary" and " John", from converted pairs.
fn ids(directory: &Path) -> [u64; 2] {
    std::fs::write(directory.join("pairs"), lines(own)).unwrap();
    run(directory, &["pairs", "convert", "pairs", "--out", "ids.jsonl"], &[]);
    let converted = std::fs::read_to_string(directory.join("ids.jsonl")).unwrap();
    let first: Value = serde_json::from_str(converted.lines().next().unwrap()).unwrap();
    ["answers", "wrong_answers"].map(|key| first[key][0].as_u64().unwrap())
}

#[test]
fn converted_pairs_have_the_same_effects() {
    let directory = tempfile::tempdir().unwrap();
    ids(directory.path());
    let converted = std::fs::read(directory.path().join("ids.jsonl")).unwrap();
    assert_same(&converted, &[]);
}
