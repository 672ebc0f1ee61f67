//! What `sweep` writes and prints beside its numbers: effects.json as docs/results.md describes it,
//! the CSV file, warnings, units, and whether the model does the task.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shared::{self, PAIRS};

const DOCUMENTATION: &str = include_str!("../../../../docs/results.md");

/// Returns one pair of prompts as a line.
fn pair(clean: &str, corrupted: &str, answer: &str, wrong_answer: &str) -> String {
    let pair = json!({
        "clean": clean, "corrupt": corrupted, "answers": [answer], "wrong_answers": [wrong_answer],
    });
    format!("{pair}\n")
}

/// A sweep that may warn.
struct Ran {
    printed: String,
    warnings: Vec<String>,
    about: Value,
    directory: TempDir,
}

impl Ran {
    /// Sweeps these pairs. Checks that every warning is printed once, and that it is in the report.
    fn sweep(lines: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pairs.jsonl"), lines).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
            .args(["sweep", "--pairs", "pairs.jsonl", "--out", "o"])
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        let [printed, message] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{arguments:?}: {message}");
        let about = shared::json(&directory.path().join("o/effects.json"));
        let warnings: Vec<String> = serde_json::from_value(about["warnings"].clone()).unwrap();
        let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
        let report = report.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
        for warning in &warnings {
            assert_eq!(message.matches(warning.as_str()).count(), 1, "{warning:?} in {message}");
            assert!(report.contains(warning), "the report lacks {warning:?}");
        }
        Self { printed, warnings, about, directory }
    }

    /// Asserts that exactly one warning contains these words.
    fn assert_warned(&self, words: &[&str]) {
        let found = self.warnings.iter().filter(|warning| words.iter().all(|word| warning.contains(word)));
        assert_eq!(found.count(), 1, "{words:?} in {:?}", self.warnings);
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("o").join(name)
    }
}

/// Returns the header and the records of a CSV file without quotation marks or newlines in cells.
fn csv(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let text = std::fs::read_to_string(path).unwrap();
    let cells = |line: &str| {
        // Every second part is inside quotation marks, and its commas are not separators.
        let parts = line.split('"').enumerate();
        let parts = parts.map(|(i, part)| if i % 2 == 1 { part.replace(',', "\t") } else { part.to_owned() });
        let line: String = parts.collect();
        line.split(',').map(|cell| cell.replace('\t', ",")).collect::<Vec<_>>()
    };
    let mut lines = text.lines().map(cells);
    let header = lines.next().unwrap();
    (header, lines.collect())
}

/// Returns the example of effects.json in the documentation.
fn example() -> Value {
    let block = DOCUMENTATION.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    serde_json::from_str(block).unwrap()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn effects_json_has_the_keys_that_the_documentation_names() {
    let line = format!("{}\n", PAIRS.lines().next().unwrap());
    let ran = Ran::sweep(&line, &["--nodes", "resid_pre", "--by", "position"]);
    let (about, example) = (&ran.about, example());
    assert_eq!(keys(about), keys(&example));
    assert!(keys(&about["files"]).is_superset(&keys(&example["files"])));
    assert_eq!(keys(&about["baselines"]), keys(&example["baselines"]));
    assert_eq!(keys(&about["files"]["effects.csv"]), keys(&example["files"]["effects.csv"]));
    // The example is this sweep.
    for exact in ["schema", "pairs", "labels", "axes", "tensors", "warnings", "tokenization", "computed", "metric"] {
        assert_eq!(about[exact], example[exact], "{exact}");
    }
    for key in keys(about) {
        assert!(DOCUMENTATION.contains(&format!("`{key}`")), "docs/results.md does not describe `{key}`");
    }
    for key in keys(&about["tensors"][0]) {
        assert!(DOCUMENTATION.contains(&format!("`{key}`")), "docs/results.md does not describe `{key}`");
    }
    assert_eq!([&about["schema"], &example["schema"]], [1, 1]);
}

#[test]
fn effects_json_describes_pairs_units_signs_and_axes() {
    let ran = Ran::sweep(PAIRS, &["--nodes", "resid_pre", "--by", "position"]);
    let pairs = &ran.about["pairs"];
    assert_eq!([&pairs["file"], &pairs["format"]], ["pairs.jsonl", "JSON Lines"]);
    assert_eq!(pairs["number"], 2);
    assert_eq!(pairs["file_sha256"], rewire_store::sha256(PAIRS.as_bytes()));
    let first = &pairs["list"][0];
    assert_eq!(first["answers"]["tokens"], json!([" Mary"]));
    assert_eq!(first["corrupted"]["tokens"][10], " Mary");
    assert_eq!([&first["first_difference"], &first["end"]], [10, 14]);
    assert_eq!(first["clean"]["ids"].as_array().unwrap().len(), 15);

    let table = &ran.about["tensors"][0];
    assert_eq!([&table["name"], &table["quantity"], &table["scale"]], ["resid_pre@position", "effect", "normalized"]);
    assert_eq!(table["unit"], "share of the clean–corrupted difference");
    assert!(table["sign"].as_str().unwrap().starts_with("positive: moves toward clean"), "{table}");
    assert_eq!(table["labels"]["layer"], json!(["L0", "L1", "L2", "L3"]));
    let positions = &table["labels"]["pos"];
    // Both prompts begin with the BOS and "When"; the names differ.
    assert_eq!([&positions[0], &positions[1], &positions[2]], ["BOS_0", "When_1", "pos 2"]);
    assert_eq!(positions.as_array().unwrap().len(), 15);

    let ran = Ran::sweep(PAIRS, &["--method", "ablation", "--ablate", "zero", "--metric", "logit-diff"]);
    let table = &ran.about["tensors"][0];
    assert_eq!([&table["quantity"], &table["unit"]], ["metric-after", "logits"]);
    let ran = Ran::sweep(PAIRS, &["--intervals", "--metric", "probability"]);
    let quantities = ran.about["tensors"].as_array().unwrap().iter();
    let quantities: Vec<_> = quantities.map(|table| (table["quantity"].clone(), table["unit"].clone())).collect();
    for (quantity, unit) in [
        ("effect", "probability"),
        ("standard-error", "probability"),
        ("interval-end", "probability"),
        ("p-value", "p-value"),
    ] {
        assert!(quantities.contains(&(json!(quantity), json!(unit))), "{quantity}: {quantities:?}");
    }
}

#[test]
fn hashes_of_two_runs_on_the_same_pairs_are_equal() {
    let [first, second] = [0, 1].map(|_| Ran::sweep(PAIRS, &[]));
    for key in ["pairs", "files"] {
        assert_eq!(first.about[key], second.about[key], "{key}");
    }
    let other = Ran::sweep(PAIRS.lines().next().unwrap(), &[]);
    for key in ["sha256", "file_sha256"] {
        assert_ne!(first.about["pairs"][key], other.about["pairs"][key], "{key}");
    }
    // Another file with the same pairs has another hash of the file, and the same hash of the
    // pairs.
    let spaced = Ran::sweep(&format!("{PAIRS}\n"), &[]);
    assert_eq!(first.about["pairs"]["sha256"], spaced.about["pairs"]["sha256"]);
    assert_ne!(first.about["pairs"]["file_sha256"], spaced.about["pairs"]["file_sha256"]);
}

#[test]
fn no_column_of_the_csv_file_is_empty() {
    let ran = Ran::sweep(PAIRS, &["--nodes", "head_z", "--intervals"]);
    let (header, rows) = csv(&ran.file("effects.csv"));
    assert_eq!(header, ["table", "node", "layer", "head", "value", "unit"]);
    assert_eq!(rows.len(), 5 * 32);
    assert!(rows.iter().all(|row| row.len() == header.len() && row.iter().all(|cell| !cell.is_empty())));
    let found = rows.iter().find(|row| row[0] == "head_z" && row[1] == "L3H7").unwrap();
    assert_eq!([found[2].as_str(), &found[3], &found[5]], ["3", "7", "share of the clean–corrupted difference"]);

    let ran = Ran::sweep(PAIRS, &["--nodes", "resid_pre", "--by", "position", "--metric", "logit-diff"]);
    let (header, rows) = csv(&ran.file("effects.csv"));
    assert_eq!(header, ["table", "node", "layer", "pos", "token", "value", "unit"]);
    let token = |pos: &str| rows.iter().find(|row| row[3] == pos).unwrap()[4].clone();
    assert_eq!([token("0"), token("1"), token("2"), token("9")], ["<|endoftext|>", "When", "", ","]);
    assert_eq!(rows[14][1], "L0@14");
    assert!(rows.iter().all(|row| row[6] == "logits"));

    let ran = Ran::sweep(PAIRS, &["--nodes", "head_pattern", "--by", "cell", "--per-prompt"]);
    let (header, rows) = csv(&ran.file("effects.csv"));
    let columns =
        ["table", "node", "prompt", "layer", "head", "dest", "src", "dest_token", "src_token", "value", "unit"];
    assert_eq!(header, columns);
    // Each prompt has its own tokens: the names of the first and the second pair.
    let token = |prompt: &str| rows.iter().find(|row| row[2] == prompt && row[5] == "2").unwrap()[7].clone();
    assert_eq!([token("0"), token("1")], [" John", " Tom"]);
}

#[test]
fn the_marked_position_is_shown_with_its_token() {
    let marked = PAIRS.replace('}', ", \"position\": 10}");
    let ran = Ran::sweep(&marked, &["--by", "marked"]);
    for (pair, token) in [(0, " John"), (1, " James")] {
        let found = &ran.about["pairs"]["list"][pair];
        assert_eq!(found["marked_position"], 10);
        assert_eq!(found["clean"]["tokens"][10], token, "position 0 is the BOS");
    }
    let ran = Ran::sweep(&marked, &["--by", "marked", "--per-prompt"]);
    let (header, rows) = csv(&ran.file("effects.csv"));
    assert_eq!(header, ["table", "node", "prompt", "layer", "head", "token", "value", "unit"]);
    assert_eq!([&rows[0][5], &rows[32][5]], [" John", " James"]);
    let words = "marked positions, counted from 0: 10 (\" John\"), 10 (\" James\")";
    let report = std::fs::read_to_string(ran.file("report.html")).unwrap().replace("&quot;", "\"");
    assert!(ran.printed.contains(words) && report.contains(words), "{}", ran.printed);
    let help = shared::run(ran.directory.path(), &["sweep", "--help"], &[]);
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains("Positions count from 0; the BOS is position 0"), "{help}");
}

#[test]
fn exchanged_answers_and_a_task_not_done_are_warned_of() {
    let line = PAIRS.lines().next().unwrap();
    let exchanged: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| exchanged[key].as_str().unwrap().to_owned();
    let exchanged = pair(&text("clean"), &text("corrupt"), " John", " Mary");
    for model in ["toy-gpt2", "toy-neox"] {
        let ran = Ran::sweep(&exchanged, &["--model", model]);
        ran.assert_warned(&["not above its corrupted value", "not above on 1 of 1 pairs"]);
        ran.assert_warned(&["the model is right on only 0 of 1 clean prompts", "exchanged"]);
        assert_eq!(ran.about["baselines"]["clean_correct"], 0);
        assert_eq!(ran.about["baselines"]["corrupted_correct"], 1);
    }
    // One exchanged pair among others.
    let ran = Ran::sweep(&format!("{PAIRS}{PAIRS}{exchanged}"), &[]);
    ran.assert_warned(&["lower on the clean than on the corrupted prompt in 1 of 5 pairs (4, counted from 0)"]);
    // The toy models do not do the task on prompts of another form.
    let failed = pair(
        "<b> Mary and John, John gave the drink to",
        "<b> Mary and John, Mary gave the drink to",
        " Mary",
        " John",
    );
    Ran::sweep(&failed, &["--model", "toy-gpt2"]).assert_warned(&["not above its corrupted value"]);
    Ran::sweep(&failed, &["--model", "toy-neox"]).assert_warned(&["right on only 0 of 1 clean prompts"]);
}

#[test]
fn every_metric_counts_the_same_prompts_as_right() {
    for metric in ["logit-diff-normalized", "logit-diff", "probability", "prob-diff", "kl", "accuracy"] {
        let ran = Ran::sweep(PAIRS, &["--metric", metric]);
        assert_eq!(ran.warnings, Vec::<String>::new(), "{metric}");
        let baselines = &ran.about["baselines"];
        assert_eq!([&baselines["clean_correct"], &baselines["corrupted_correct"]], [2, 0], "{metric}");
        let sentence = "The model is right on 2 of 2 clean prompts and on 0 of 2 corrupted prompts";
        assert!(ran.printed.contains(sentence), "{metric}: {}", ran.printed);
        let report = std::fs::read_to_string(ran.file("report.html")).unwrap();
        assert!(report.contains(sentence), "{metric}");
    }
}

#[test]
fn identical_prompts_have_effects_of_exactly_0_and_a_warning() {
    let clean = "When John and Mary went to the shops, John gave the bag to";
    let ran = Ran::sweep(&pair(clean, clean, " Mary", " John"), &["--metric", "logit-diff"]);
    ran.assert_warned(&["not above its corrupted value", "not above on 1 of 1 pairs"]);
    let effects = shared::tensors(&ran.file("effects.safetensors"));
    assert!(effects["head_z"].1.iter().all(|effect| *effect == 0.0));
    assert!(ran.printed.contains("head_z (exact, denoising; logits)\n  All effects are 0.\n"), "{}", ran.printed);
    assert!(!ran.printed.contains("L0H0"), "{}", ran.printed);
}

#[test]
fn prompts_that_end_in_a_space_are_warned_of() {
    let line = PAIRS.lines().next().unwrap().replace("bag to\"", "bag to \"");
    let ran = Ran::sweep(&line, &[]);
    ran.assert_warned(&["ends in a space", "line 1"]);
}

#[test]
fn places_where_both_runs_are_the_same_are_warned_of() {
    let before = ["before the first token in which the prompts differ", "in 2 of 2 pairs"];
    let ran = Ran::sweep(PAIRS, &["--metric", "kl", "--metric-position", "3"]);
    ran.assert_warned(&[&["the metric is read"], &before[..]].concat());
    let marked = PAIRS.replace("\"wrong_answers\"", "\"position\": 0, \"wrong_answers\"");
    Ran::sweep(&marked, &["--by", "marked"]).assert_warned(&[&["the marked position is"], &before[..]].concat());
    let one = PAIRS.lines().next().unwrap();
    let mean = ["--method", "ablation", "--ablate", "mean", "--mean-over", "position"];
    Ran::sweep(one, &mean).assert_warned(&["the mean at each position is over one prompt"]);
}

#[test]
fn headers_on_the_screen_have_units() {
    let lines = |arguments: &[&str]| Ran::sweep(PAIRS, arguments).printed;
    let printed = lines(&[]);
    for part in [
        "logit-diff (logits): clean ",
        "head_z (exact, denoising; share of the clean–corrupted difference)",
        "effect (share)",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    let printed = lines(&["--metric", "kl", "--method", "attribution-patching", "--nodes", "head_z,head_edges"]);
    for part in ["kl (nats): clean ", "head_z (estimated, denoising; nats)", "effect (nats)", "head_edges (estimated"] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    let printed = lines(&["--metric", "probability", "--method", "ablation", "--ablate", "zero"]);
    assert!(printed.contains("probability: clean ") && printed.contains("metric after (probability)"), "{printed}");
}

#[test]
fn a_cause_is_printed_once() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [["sweep", "--pairs", "absent.jsonl"], ["reproduce-ioi", "--out", "/proc/rewire"]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory.path()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert_eq!(message.matches("(os error").count(), 1, "{message}");
    }
}
