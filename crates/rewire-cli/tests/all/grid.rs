//! Grids: a cell is the sweep that its command describes, a failed cell is named, an interrupted
//! grid goes on, and the example of the docs runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rewire_tests::model_files::{self, Stored};
use serde_json::Value;
use tempfile::TempDir;

use crate::shared::{self, PAIRS};

const FILES: [&str; 4] = ["effects.safetensors", "effects.json", "effects.csv", "report.html"];

const GRID: &str = r#"
title = "Heads during training"
seeds = [0, 5]

[sweep]
nodes = "head_z"

[[models]]
model = "family"
revisions = ["step1", "step2", "step3"]

[[tasks]]
ioi = 4

[[tasks]]
pairs = "pairs.jsonl"
"#;

/// Returns the tensor times a factor.
fn scaled(stored: &Stored, factor: f32) -> Stored {
    let bytes = model_files::floats(stored).into_iter().flat_map(|v| (v * factor).to_le_bytes()).collect();
    Stored { bytes, ..stored.clone() }
}

/// Creates a directory with pairs, and a family of toys: earlier steps have smaller attention
/// outputs, and do less of the task.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models/toy-gpt2");
    let tensors = model_files::read(&toy.join("model.safetensors"));
    for (step, factor) in [("step1", 0.1), ("step2", 0.5), ("step3", 1.0)] {
        let model = directory.path().join("family").join(step);
        fs::create_dir_all(&model).unwrap();
        let mut tensors = tensors.clone();
        for (_, stored) in tensors.iter_mut().filter(|(name, _)| name.ends_with("attn.c_proj.weight")) {
            *stored = scaled(stored, factor);
        }
        model_files::write(&model.join("model.safetensors"), &tensors);
        for name in ["config.json", "tokenizer.json"] {
            fs::copy(toy.join(name), model.join(name)).unwrap();
        }
    }
    fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    fs::write(directory.path().join("grid.toml"), GRID).unwrap();
    directory
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
    command.args(arguments).current_dir(directory);
    command
}

fn grid(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, &[&["grid", "grid.toml", "--out", "o"], arguments].concat()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the cells in grid.json.
fn cells(directory: &Path) -> Vec<Value> {
    shared::json(&directory.join("o/grid.json"))["cells"].as_array().unwrap().clone()
}

/// Returns the rows of grid.csv by column.
fn rows(directory: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let text = fs::read_to_string(directory.join("o/grid.csv")).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|line| header.iter().cloned().zip(line).collect()).collect()
}

#[test]
fn each_cell_is_the_sweep_of_its_command_and_the_table_has_its_numbers() {
    let directory = directory();
    let output = grid(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("cell 9 of 9: family at step3, pairs\n"), "{printed}");
    let cells = cells(directory.path());
    let coordinates = |cell: &Value| [&cell["revision"], &cell["task"], &cell["seed"]].map(Value::to_string).join(" ");
    let found: Vec<String> = cells.iter().map(coordinates).collect();
    assert_eq!(found[..3], [r#""step1" "ioi" 0"#, r#""step1" "ioi" 5"#, r#""step1" "pairs" null"#]);
    assert_eq!(found.len(), 9);

    // The numbers of the table are those of the cell, and these are those of the sweep alone.
    let rows = rows(directory.path());
    assert_eq!(rows.len(), 9 * 32);
    for (number, cell) in cells.iter().enumerate().filter(|(number, _)| [1, 5].contains(number)) {
        let path = directory.path().join(cell["directory"].as_str().unwrap());
        let of_cell = &shared::tensors(&path.join(FILES[0]))["head_z"].1;
        let row = |i: usize| rows[32 * number + i]["value"].parse::<f32>().unwrap();
        assert!((0..32).all(|i| row(i) == of_cell[i]), "cell {number}");
        assert_eq!(cell["effects"]["head_z"]["nodes"]["L0H1"].as_f64().unwrap() as f32, of_cell[1]);
        let words: Vec<&str> = cell["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(shared::json(&path.join(FILES[1]))["command"], cell["command"]);
        let words: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with("--out")).collect();
        let alone = command(directory.path(), &[&words[..], &["--out", "alone", "--force"]].concat()).output().unwrap();
        assert!(alone.status.success(), "{}", text(&alone.stderr));
        assert_eq!(&shared::tensors(&directory.path().join("alone").join(FILES[0]))["head_z"].1, of_cell);
    }
    // The model learns the task, and the heads their effects.
    let largest = |cell: &Value| {
        let nodes = cell["effects"]["head_z"]["nodes"].as_object().unwrap();
        nodes.values().map(|value| value.as_f64().unwrap().abs()).fold(0.0, f64::max)
    };
    assert!(largest(&cells[0]) < largest(&cells[6]), "{} {}", largest(&cells[0]), largest(&cells[6]));

    let report = fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    let json = shared::json(&directory.path().join("o/grid.json"));
    let finding: Vec<&str> = json["grid"]["finding"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    assert_eq!(finding.len(), 3);
    assert!(finding[0].starts_with("The largest effect in head_z is that of L"), "{finding:?}");
    assert!(finding[1].starts_with("From step1 to step3, the effect of L"), "{finding:?}");
    assert!(finding[2].ends_with("All 9 cells are finished."), "{finding:?}");
    let text = shared::text_of(&report);
    assert!(finding.iter().all(|sentence| text.contains(sentence)), "{finding:?}");
    let expected = ["How to read this", "Does the model do the task?", "head_z", "Cells"];
    assert_eq!(shared::headings(&report)[..4], expected.map(str::to_owned));
}

#[test]
fn finished_cells_are_skipped_and_a_grid_can_grow() {
    let directory = directory();
    let of_two = GRID.replace(r#", "step3""#, "").replace("seeds = [0, 5]", "seeds = [0]");
    fs::write(directory.path().join("grid.toml"), of_two).unwrap();
    assert_eq!(grid(directory.path(), &[]).status.code(), Some(0));
    let first = directory.path().join("o/family/step1/ioi/seed-0/effects.json");
    let before = fs::read(&first).unwrap();
    fs::write(directory.path().join("grid.toml"), GRID).unwrap();
    let output = grid(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert_eq!(printed.matches(": finished before\n").count(), 4, "{printed}");
    assert_eq!(printed.matches(": finished in ").count(), 5, "{printed}");
    assert_eq!(fs::read(&first).unwrap(), before);
    // Another metric is another run, which replaces no results.
    fs::write(directory.path().join("grid.toml"), GRID.replace("[sweep]", "[sweep]\nmetric = \"prob-diff\"")).unwrap();
    let output = grid(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("holds the results of another run"), "{}", text(&output.stderr));
    assert_eq!(fs::read(&first).unwrap(), before);
}

#[test]
fn a_failed_cell_is_one_line_that_names_it_and_the_others_go_on() {
    let directory = directory();
    let failing = GRID.replace("step2", "step9").replace("seeds = [0, 5]", "seeds = [0]")
        + "\n[[tasks]]\nname = \"facts\"\npairs = \"missing.jsonl\"\n";
    fs::write(directory.path().join("grid.toml"), failing).unwrap();
    let output = grid(directory.path(), &[]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error: ")).collect();
    let expected = [
        "error: cell 3 of 9, family at step1, facts: cannot read missing.jsonl",
        "error: cell 4 of 9, family at step9, ioi, seed 0: there is no directory family/step9; the revisions of a local",
        "error: cell 5 of 9, family at step9, pairs: there is no directory",
        "error: cell 6 of 9, family at step9, facts: there is no directory",
        "error: cell 9 of 9, family at step3, facts: cannot read missing.jsonl",
        "error: 5 of 9 cells failed: family at step1, facts; family at step9, ioi, seed 0; ",
    ];
    assert_eq!(errors.len(), expected.len(), "{message}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error}");
    }
    let status: Vec<String> = cells(directory.path()).iter().map(|cell| cell["status"].to_string()).collect();
    assert_eq!(status.iter().filter(|status| *status == "\"finished\"").count(), 4, "{status:?}");
    assert!(cells(directory.path())[3]["error"].as_str().unwrap().contains("family/step9"));
    assert_eq!(rows(directory.path()).iter().filter(|row| row["status"] == "failed").count(), 5);
    let report = fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    assert!(report.contains("family at step1, facts failed: "));
    assert!(report.contains("4 of 9 cells are finished; the others failed."));
}

#[test]
fn a_dry_run_prints_the_cells_and_writes_nothing() {
    let directory = directory();
    let output = grid(directory.path(), &["--dry-run"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let printed = text(&output.stdout);
    assert_eq!(printed.lines().count(), 10, "{printed}");
    let words: Vec<&str> = printed.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(words, ["2", "family", "step1", "ioi", "5", "o/family/step1/ioi/seed-5"]);
    assert!(!directory.path().join("o").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_grid_goes_on_after_the_last_finished_cell() {
    let (whole, directory) = (directory(), directory());
    assert_eq!(grid(whole.path(), &[]).status.code(), Some(0));
    let child = crate::shared::interruptible()
        .args(["grid", "grid.toml", "--out", "o"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let second = directory.path().join("o/family/step1/ioi/seed-5/effects.json");
    while !second.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(!directory.path().join("o/grid.json").exists());
    let output = grid(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cell 2 of 9: finished before\n"));
    let table = |directory: &TempDir| fs::read(directory.path().join("o/grid.csv")).unwrap();
    assert_eq!(table(&directory), table(&whole));
}

#[test]
fn files_of_others_are_not_replaced() {
    let directory = directory();
    fs::create_dir(directory.path().join("o")).unwrap();
    fs::write(directory.path().join("o/report.html"), "mine").unwrap();
    let output = grid(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(message.contains("a file report.html that `rewire grid` did not write"), "{message}");
    assert!(!directory.path().join("o/family").exists());
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[test]
fn the_examples_of_the_docs_are_grids_and_the_first_one_runs() {
    let page = fs::read_to_string(docs().join("grid.md")).unwrap();
    let examples: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() > 1, "{} examples", examples.len());
    let directory = directory();
    fs::copy(docs().join("guide/pairs.jsonl"), directory.path().join("pairs.jsonl")).unwrap();
    for (number, example) in examples.iter().enumerate() {
        fs::write(directory.path().join("grid.toml"), example).unwrap();
        let output = grid(directory.path(), if number == 0 { &[] } else { &["--dry-run"] });
        assert_eq!(output.status.code(), Some(0), "{example}{}", text(&output.stderr));
    }
    assert!(directory.path().join("o/report.html").exists());
}
