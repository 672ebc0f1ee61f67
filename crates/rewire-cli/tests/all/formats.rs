//! One question in each format that `--pairs` reads gives the same effects, bit for bit.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shared::{Tensors, complaints, json as json_of, run, tensors};

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
    let complaints = complaints(&output.stderr);
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
    let (other, _, complaints) = swept(&object, &[&arguments[..], &["--mark", "S1"]].concat());
    assert_ne!(other, expected);
    assert!(complaints.contains("the marked position is before the first token"), "{complaints}");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs"), &object).unwrap();
    let unnamed = ["sweep", "--pairs", "pairs", "--by", "marked"];
    let output = Command::new(env!("CARGO_BIN_EXE_rewire")).args(unnamed).current_dir(directory.path()).output();
    let message = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(message.contains("name the word of `word_idxs` in pairs with --mark"), "{message}");
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

/// Asserts that a check of a file is refused with these words.
fn assert_refused(content: &str, arguments: &[&str], words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs"), content).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(["pairs", "check", "pairs"])
        .args(arguments)
        .current_dir(directory.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in words {
        assert!(message.contains(word), "does not say {word:?}: {message}");
    }
}

#[test]
fn a_choice_that_the_format_does_not_have_is_refused() {
    let own = lines(own);
    assert_refused(&own, &["--counterfactual", "abc"], &["--counterfactual names", "this file is JSON Lines"]);
    assert_refused(&own, &["--mark", "S2"], &["--mark names a word of auto-circuit's `word_idxs`"]);
    let object = json!({ "prompts": PAIRS.map(self::own) }).to_string();
    assert_refused(&object, &["--mark", "S2"], &["there is no `word_idxs`", "`S2`"]);
    assert_refused(&object, &["--counterfactual", "abc"], &["this file is a JSON object of auto-circuit"]);
}

#[test]
fn all_problems_of_an_auto_circuit_object_are_listed() {
    let mut pairs = PAIRS.map(own).to_vec();
    pairs.push(json!("no pair"));
    pairs[0]["clean"] = json!(7);
    let object = json!({ "prompts": pairs }).to_string();
    assert_refused(
        &object,
        &[],
        &["2 pairs that cannot be used", "pair 1: `clean` is a number", "pair 3: expected a JSON object"],
    );
    assert_refused(r#"{"prompts": [], "prompts": []}"#, &[], &["the key `prompts` is there twice"]);
    let hostile = json!({ "prompts": PAIRS.map(own), "word_idxs": { "a\u{1b}[31m": -1 } }).to_string();
    assert_refused(&hostile, &[], &["`a\\u{1b}[31m` holds -1"]);
}

#[test]
fn rows_of_mib_and_blimp_that_lack_a_field_are_explained() {
    let mib = |change: fn(&mut Value)| {
        let mut row = json!({"prompt": JOHN, "choices": ["Mary", "John"], "answerKey": 0,
            "abc_counterfactual": {"prompt": MARY, "choices": ["Mary", "John"], "answerKey": 1}});
        change(&mut row);
        row.to_string()
    };
    let refused = |change: fn(&mut Value), words: &[&str]| assert_refused(&mib(change), &[], words);
    refused(|row| row["answerKey"] = json!("A"), &["`answerKey` of the row is \"A\"", "number of a choice"]);
    refused(|row| row["abc_counterfactual"] = json!({}), &["`abc_counterfactual` has neither `choices`"]);
    refused(
        |row| drop(row["abc_counterfactual"].as_object_mut().unwrap().remove("prompt")),
        &["`abc_counterfactual` has no `prompt`"],
    );
    refused(|row| drop(row.as_object_mut().unwrap().remove("abc_counterfactual")), &["ends in `_counterfactual`"]);
    let blimp = json!({"one_prefix_prefix": JOHN, "one_prefix_word_good": "Mary", "one_prefix_word_bad": "John"});
    assert_refused(&blimp.to_string(), &[], &["its only row makes no pair"]);
    assert_refused(r#"{"sentence_good": "a", "sentence_bad": "b"}"#, &[], &["`one_prefix_prefix` is missing"]);
}

#[test]
fn ids_of_another_tokenizer_and_empty_cells_are_refused() {
    let header = "clean,corrupted,country_idx,corrupted_country_idx,country,corrupted_country";
    let [_, john] = ids(tempfile::tempdir().unwrap().path());
    let row = format!("{header}\n\"{JOHN}\",\"{MARY}\",8037,{john},Mary,John\n");
    assert_refused(&row, &[], &["line 2", "token id 8037 is outside the vocabulary"]);
    let row = format!("{header}\n\"{JOHN}\",\"{MARY}\",{john},5,John,Mary\n");
    assert_refused(&row, &[], &["line 2", "token id 5 is", "the ids are of another tokenizer"]);
    let empty = format!("clean,corrupted,answer,wrong_answer\n\"{JOHN}\",,Mary,John\n");
    assert_refused(&empty, &[], &["line 2", "the column `corrupted` is empty"]);
}

#[test]
fn doubtful_pairs_are_used_with_a_warning() {
    let two_bos = |text: &str| format!("<|endoftext|><|endoftext|>{text}");
    let rows = |change: fn(&mut Value)| {
        lines(|pair| {
            let mut row = own(pair);
            change(&mut row);
            row
        })
    };
    let twice = lines(|[clean, corrupted, right, wrong]| own([&two_bos(clean), &two_bos(corrupted), right, wrong]));
    let (.., complaints) = swept(twice.as_bytes(), &[]);
    assert!(complaints.contains("2 prompts begin with two BOS tokens"), "{complaints}");
    for end in ["\t", "\n", " "] {
        let ends =
            twice.replace("<|endoftext|><|endoftext|>", "").replace(" to\"", &format!(" to{}\"", end.escape_default()));
        let (.., complaints) = swept(ends.as_bytes(), &[]);
        assert!(complaints.contains("2 prompts end in a space, tab or line break"), "{end:?}: {complaints}");
    }
    let equal = rows(|row| row["corrupt"] = row["clean"].clone());
    let (.., complaints) = swept(equal.as_bytes(), &[]);
    assert!(complaints.contains("2 pairs have a corrupted prompt that equals the clean one"), "{complaints}");
}
