//! Files of prompt pairs in the formats of the field, with GPT-2's own tokenizer: their token ids
//! are those of the published files, and words split as they do there.

use std::path::Path;
use std::process::{Command, Output};

use rewire_model::{Transformer, TransformerConfig};
use rewire_tests::gpt2_tokenizer::copy_to;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with a random model of GPT-2's vocabulary in `model`, or `None` if the tokenizer was
/// not fetched.
fn directory() -> Option<TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    let config = TransformerConfig { bos_token: Some(50_256), ..TransformerConfig::gpt2(1, 2, 8, 50_257, 64) };
    Transformer::<burn_flex::Flex>::random(&config, 0, &Default::default()).save(&model).unwrap();
    copy_to(&model).then_some(directory)
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(arguments)
        .args(["--model", "model"])
        .current_dir(directory)
        .output()
        .unwrap()
}

/// Checks a file; returns standard output and standard error.
fn checked(directory: &TempDir, content: &str, arguments: &[&str]) -> [String; 2] {
    std::fs::write(directory.path().join("pairs"), content).unwrap();
    let output = run(directory.path(), &[&["pairs", "check", "pairs"], arguments].concat());
    let [printed, complaints] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(0), "{complaints}");
    [printed, complaints]
}

/// Asserts that a file is accepted without a warning, and that these lines are shown.
fn assert_shown(directory: &TempDir, content: &str, lines: &[&str]) {
    let [printed, complaints] = checked(directory, content, &[]);
    assert_eq!(complaints, "");
    for line in lines {
        assert!(printed.lines().any(|found| found.trim() == *line), "{line:?} is not in {printed}");
    }
}

/// Asserts that a file is refused with these words.
fn assert_refused(directory: &TempDir, content: &str, arguments: &[&str], words: &[&str]) {
    std::fs::write(directory.path().join("pairs"), content).unwrap();
    let output = run(directory.path(), &[&["pairs", "check", "pairs"], arguments].concat());
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaints}");
    for word in words {
        assert!(complaints.contains(word), "{word:?} is not in {complaints}");
    }
}

/// Sweeps the file that was checked last.
fn assert_sweeps(directory: &TempDir, metric: &str) {
    let arguments = ["sweep", "--pairs", "pairs", "--metric", metric, "--nodes", "head_z", "--out", "o", "--force"];
    let output = run(directory.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

const FEUD: &str = "The feud went on from the year";

#[test]
fn greater_than_years_are_tokens_of_two_digits() {
    let Some(directory) = directory() else { return };
    let row = |year: u32, base: u32| format!("{FEUD} {year} to the year {0},{FEUD} {base} to the year {0}", year / 100);
    let table = format!("clean,corrupted,correct_idx\n{},31\n{},2\n", row(1731, 1701), row(1402, 1401));
    let tokens = "clean      <|endoftext|>|The| feud| went| on| from| the| year| 17|31| to| the| year| 17";
    assert_shown(&directory, &table, &[tokens, "they differ at 9 (\"31\" and \"01\")"]);
    assert_sweeps(&directory, "prob-diff");
    let shown = checked(&directory, &table, &[])[0].clone();
    assert!(shown.contains("answers    \"32|33|") && shown.contains("|98|99\", wrong \"00|01|"), "{shown}");
    assert!(shown.contains("answers    \"03|04|") && shown.contains("wrong \"00|01|02\""), "{shown}");
    // GPT-2 has one token for the year 1800.
    let whole = format!("clean,corrupted,correct_idx\n{},10\n", row(1800, 1801));
    let words =
        ["pairs, line 2: the clean prompt has 13 tokens and the corrupted prompt has 14", "clean is \" 1800| to|"];
    assert_refused(&directory, &whole, &[], &words);
}

/// Rows of an IOI table with these ids of " Rachel" and " Kevin".
fn names(rachel: u32, kevin: u32) -> String {
    let row = |number: u32, [io, s]: [&str; 2], [right, wrong]: [u32; 2]| {
        let prompt = |name: &str| format!("\"While {io} and {s} walked home, {name} handed the map to\"");
        format!("{number},{},{},{},{right},{wrong}\n", prompt(s), prompt("Thomas"), prompt(io))
    };
    let rows = row(3, ["Rachel", "Kevin"], [rachel, kevin]) + &row(8, ["Kevin", "Rachel"], [kevin, rachel]);
    format!(",clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n{rows}")
}

#[test]
fn ids_of_names_are_those_of_the_names_in_the_prompt() {
    let Some(directory) = directory() else { return };
    let lines = ["answers    \" Rachel\", wrong \" Kevin\"", "they differ at 8 (\" Kevin\" and \" Thomas\")"];
    assert_shown(&directory, &names(15_984, 7939), &lines);
    assert_sweeps(&directory, "logit-diff");
    let [hard, _] = checked(&directory, &names(15_984, 7939), &["--counterfactual", "corrupted_hard"]);
    assert!(hard.contains("they differ at 8 (\" Kevin\" and \" Rachel\")"), "{hard}");
    let other = ["2 pairs that cannot be used", "line 2: token id 30274 is \" ideally\"", "of another tokenizer"];
    assert_refused(&directory, &names(30_274, 26_876), &[], &other);
    let outside = ["line 2: token id 128001 is outside the vocabulary of 50257"];
    assert_refused(&directory, &names(128_001, 7939), &[], &outside);
}

#[test]
fn countries_of_several_tokens_are_their_first_token_with_a_warning() {
    let Some(directory) = directory() else { return };
    let header =
        "clean,capital,country,country_idx,corrupted,corrupted_capital,corrupted_country,corrupted_country_idx";
    let row = |[capital, country, id]: [&str; 3], [other, of_other, other_id]: [&str; 3]| {
        let prompt = |capital: &str| format!("\" {capital}, the capital of\"");
        format!("{},{capital},{country},{id},{},{other},{of_other},{other_id}\n", prompt(capital), prompt(other))
    };
    let [lima, oslo] = [["Lima", "Peru", "25768"], ["Oslo", "Norway", "15238"]];
    let [wellington, bern] = [["Wellington", "New Zealand", "968"], ["Bern", "Switzerland", "14679"]];
    let clean = "clean      <|endoftext|>| Lima|,| the| capital| of";
    assert_shown(
        &directory,
        &format!("{header}\n{}", row(lima, oslo)),
        &[clean, "answers    \" Peru\", wrong \" Norway\""],
    );
    let [printed, complaints] = checked(&directory, &format!("{header}\n{}", row(wellington, bern)), &[]);
    assert!(printed.contains("answers    \" New\", wrong \" Switzerland\""), "{printed}");
    let warning = "warning: 1 answer has several tokens; the first token stands for the whole answer";
    assert!(complaints.starts_with(warning) && complaints.contains("\"New Zealand\" (line 2)"), "{complaints}");
    // Another tokenizer's id, and capitals of two and of three tokens.
    let foreign = format!("{header}\n{}", row(["Lima", "Peru", "15238"], oslo));
    assert_refused(
        &directory,
        &foreign,
        &[],
        &["token id 15238 is \" Norway\" for this model, and the file has it for \"Peru\""],
    );
    let unequal = format!("{header}\n{}", row(["Suva", "Fiji", "43676"], ["Nairobi", "Kenya", "21506"]));
    assert_refused(&directory, &unequal, &[], &["clean is \" Su|va|,|", "corrupted \" N|airo|bi|,|"]);

    let text = "clean,answer,corrupted,wrong_answer\n\" Wellington, the capital of\",New Zealand,\" Bern, the capital of\",Switzerland\n";
    let words = ["\" New Zealand\" is 2 tokens ( New| Zealand), not one", "--answers first-token"];
    assert_refused(&directory, text, &[], &words);
    let [first, complaints] = checked(&directory, text, &["--answers", "first-token"]);
    assert!(
        first.contains("answers    \" New\"") && complaints.contains("\" New Zealand\" (line 2)"),
        "{first}{complaints}"
    );
}

#[test]
fn pronouns_and_hypernyms_come_from_their_ids() {
    let Some(directory) = directory() else { return };
    let pronouns = "clean,corrupted,clean_answer_idx,corrupted_answer_idx,label\n\
        The pilot yawned because,The woman yawned because,339,673,1\nThe nurse yawned because,The man yawned because,673,339,0\n";
    assert_shown(&directory, pronouns, &["answers    \" he\", wrong \" she\"", "answers    \" she\", wrong \" he\""]);
    let hypernyms = |right: &str| {
        format!(
            "clean,h1,hypernym,answers,answers_idx,corrupted,c1,corrupted_hypernym,corrupted_answers,corrupted_answers_idx\n\
             \", violins and other\",violins,instrument,\"['instruments', 'instrument']\",\"{right}\",\", hammers and other\",\
             hammers,tool,\"['tools', 'tool']\",\"[4899, 2891]\"\n"
        )
    };
    let answers = "answers    \" instruments| instrument\", wrong \" tools| tool\"";
    assert_shown(&directory, &hypernyms("[12834, 8875]"), &[answers]);
    assert_sweeps(&directory, "prob-diff");
    assert_refused(&directory, &hypernyms("[4899, 8875]"), &[], &["token id 4899 is \" tools\""]);
}

#[test]
fn rows_of_other_projects_split_as_gpt2_splits_them() {
    let Some(directory) = directory() else { return };
    let line = |row: Value| format!("{row}\n");
    let nouns =
        line(json!({"clean_prefix": "The singers behind the wall", "patch_prefix": "The singer behind the wall",
        "clean_answer": " are", "patch_answer": " is", "case": "plural_singular"}));
    assert_shown(&directory, &nouns, &["clean      <|endoftext|>|The| singers| behind| the| wall"]);
    let sums = line(json!({"prompt": "The sum of 21 and 34 is ", "label": "55",
        "random_counterfactual": {"prompt": "The sum of 12 and 70 is ", "label": 82}}));
    let lines = ["clean      <|endoftext|>|The| sum| of| 21| and| 34| is|", "answers    \"55\", wrong \"82\""];
    assert_shown(&directory, &sums, &lines);
    let blimp = |name: &str, [good, bad]: [&str; 2]| {
        line(
            json!({"one_prefix_prefix": format!("{name} could see"), "one_prefix_word_good": good, "one_prefix_word_bad": bad}),
        )
    };
    let rows = blimp("Rachel", ["herself", "himself"]) + &blimp("Kevin", ["himself", "herself"]);
    assert_shown(
        &directory,
        &rows,
        &["2 pairs from JSON Lines of BLiMP", "answers    \" herself\", wrong \" himself\""],
    );
}

#[test]
fn positions_of_another_tokenizer_are_not_used() {
    let Some(directory) = directory() else { return };
    // Some tokenizers have one token for the line break and its indentation; GPT-2 has four.
    let pair = |name: &str| format!("def f({name}):\n   return");
    let object = json!({
        "seq_labels": ["def", " f", "(", "A", "):", "indent", " return"], "word_idxs": {"indent": 5},
        "prompts": [{"clean": pair("x"), "corrupt": pair("y"), "answers": [" x"], "wrong_answers": [" y"]}],
    });
    let reason = "the file was made for another tokenizer: it names 7 positions, and the prompt of pair 1 has 9 tokens";
    let [printed, complaints] = checked(&directory, &object.to_string(), &[]);
    assert!(complaints.starts_with("warning: ") && complaints.contains(reason), "{complaints}");
    assert!(!printed.contains("marked"), "{printed}");
    assert_refused(&directory, &object.to_string(), &["--mark", "indent"], &[reason, "give a `position`"]);
}

#[test]
fn files_without_pairs_are_named() {
    let Some(directory) = directory() else { return };
    let refused = |content: &str, words: &[&str]| assert_refused(&directory, content, &[], words);
    let circuit = json!({"cfg": {"n_layers": 1}, "edges": {}, "nodes": {"input": {}}});
    refused(&circuit.to_string(), &["found `cfg`, `edges`, `nodes`; such a file is a circuit"]);
    refused(&format!("{circuit:#}"), &["a list `prompts`", "such a file is a circuit"]);
    let facts = json!([{"case_id": 1, "requested_rewrite": {"prompt": "{} is in"}}]);
    refused(&format!("{facts:#}"), &["JSON array of objects", "`requested_rewrite`", "CounterFact"]);
    refused("idx,sing,plur\n_,sees,see\n", &["`clean` and `corrupted`", "list of verbs"]);
    refused("clean,corrupted,group,plural\nThe cat that,The cats that,g,0\n", &["subject-verb tables name no answers"]);
}
