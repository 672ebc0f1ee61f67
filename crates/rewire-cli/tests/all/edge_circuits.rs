//! `rewire circuit`: files are exchanged and checked, circuits are found on some prompts and judged
//! on others, and `sweep --circuits` gives MIB's figures.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::shared::{complaints, json as json_of, tensors};

const PLACES: [&str; 4] = ["shops", "park", "school", "store"];
const NAMES: [[&str; 2]; 2] = [["John", "Mary"], ["Tom", "James"]];

/// Writes eight pairs, each with its mirror, to `pairs.jsonl`.
fn write_pairs(directory: &Path) {
    let mut lines = String::new();
    for place in PLACES {
        for [a, b] in NAMES {
            let prompt = |name: &str| format!("When {a} and {b} went to the {place}, {name} gave the bag to");
            for (right, wrong) in [(a, b), (b, a)] {
                let row = json!({
                    "clean": prompt(wrong), "corrupt": prompt(right),
                    "answers": [format!(" {right}")], "wrong_answers": [format!(" {wrong}")],
                });
                lines += &format!("{row}\n");
            }
        }
    }
    std::fs::write(directory.join("pairs.jsonl"), lines).unwrap();
}

/// Runs a command that must be refused, and returns what it complains of.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    complaints(&output.stderr)
}

/// Runs a command that may warn and must succeed.
fn run(directory: &Path, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", complaints(&output.stderr));
}

/// Returns a circuit file of the model with these edges inside; all others are outside.
fn circuit(inside: &[&str]) -> Value {
    let edges: serde_json::Map<String, Value> =
        inside.iter().map(|name| ((*name).to_owned(), json!({"score": 1.0, "in_graph": true}))).collect();
    json!({
        "cfg": {"n_layers": 4, "n_heads": 8, "parallel_attn_mlp": false, "d_model": 128},
        "nodes": {}, "edges": edges,
    })
}

fn write(directory: &Path, name: &str, contents: &Value) {
    std::fs::write(directory.join(name), contents.to_string()).unwrap();
}

#[test]
fn a_found_circuit_is_judged_on_other_prompts_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_pairs(at);
    let find = ["circuit", "find", "--pairs", "pairs.jsonl", "--search", "greedy", "--edges", "300", "--out", "f"];
    run(at, &find);
    let about = json_of(&at.join("f/effects.json"));
    let notes = &about["notes"];
    assert_eq!([&notes["choosing_prompts"], &notes["judging_prompts"]], [8, 8]);
    assert_eq!(notes["judged_on_the_choosing_prompts"], false);
    let kept = notes["faithfulness"][0][0].as_f64().unwrap();
    assert!(kept > 0.2, "{kept}");
    let evaluate =
        ["circuit", "evaluate", "f/circuit.json", "--pairs", "pairs.jsonl", "--prompt-batch", "3", "--out", "e"];
    run(at, &evaluate);
    let judged = json_of(&at.join("e/effects.json"));
    assert_eq!(judged["notes"]["circuits"][0]["edges"], notes["edges"]);
    assert!(judged["warnings"].to_string().contains("do not say which prompts they were found on"));
    let (shape, metric) = &tensors(&at.join("e/effects.safetensors"))["circuit.metric"];
    assert_eq!(shape, &[16, 2]);
    assert!(metric.iter().all(|value| value.is_finite()));
    run(at, &["circuit", "convert", "f/circuit.json", "--to", "dot", "--out", "c.dot"]);
    assert!(std::fs::read_to_string(at.join("c.dot")).unwrap().contains("digraph circuit"));
    run(at, &["circuit", "convert", "f/circuit.json", "--out", "again.json"]);
    assert_eq!(std::fs::read(at.join("again.json")).unwrap(), std::fs::read(at.join("f/circuit.json")).unwrap());
}

#[test]
fn sweeps_judge_circuits_of_the_best_edges() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_pairs(at);
    let sweep = ["sweep", "--pairs", "pairs.jsonl", "--nodes", "edges", "--method", "attribution-patching"];
    let flags = ["--direction", "noising", "--circuits", "signed", "--sizes", ".01,.1,.5,1", "--out", "s"];
    run(at, &[sweep.as_slice(), &flags].concat());
    let found = tensors(&at.join("s/effects.safetensors"));
    let (shape, faithfulness) = &found["circuit.faithfulness"];
    assert_eq!(shape, &[4]);
    assert!((faithfulness[3] - 1.0).abs() < 1e-6);
    let (_, kept) = &found["circuit.kept"];
    assert!(kept[0] <= 15.0 && kept[3] == 1519.0, "{kept:?}");
    let area = |f: &dyn Fn(f32) -> f32| {
        let sizes = [0.01, 0.1, 0.5, 1.0];
        (0..3).map(|i| (sizes[i + 1] - sizes[i]) * (f(faithfulness[i]) + f(faithfulness[i + 1])) / 2.0).sum::<f32>()
    };
    let (_, areas) = &found["circuit.area"];
    assert!((areas[0] - area(&|f| f)).abs() < 1e-5 && (areas[1] - area(&|f| (1.0 - f).abs())).abs() < 1e-5);
    for end in ["prompts.low", "prompts.high", "choice.low", "choice.high", "choice"] {
        assert_eq!(found[&format!("circuit.faithfulness.{end}")].0, [4], "{end}");
    }
    assert!(refused(at, &[sweep.as_slice(), &["--sizes", ".1"]].concat()).contains("--circuits"));
    let decreasing = [sweep.as_slice(), &["--circuits", "absolute", "--sizes", ".5,.1"]].concat();
    assert!(refused(at, &decreasing).contains("increasing shares"));
    let heads = ["sweep", "--pairs", "pairs.jsonl", "--circuits", "absolute"];
    assert!(refused(at, &heads).contains("--circuits needs --nodes edges"));
}

#[test]
fn circuits_that_cannot_be_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_pairs(at);
    let evaluated = |contents: &Value| {
        write(at, "c.json", contents);
        refused(at, &["circuit", "evaluate", "c.json", "--pairs", "pairs.jsonl", "--out", "o"])
    };
    let mut other = circuit(&["input->logits"]);
    other["cfg"]["n_layers"] = json!(12);
    let said = evaluated(&other);
    assert!(said.contains("cannot use c.json: it is a circuit of another model"), "{said}");
    assert!(said.contains("number of layers (n_layers) is 12, and the model's is 4"), "{said}");
    assert!(evaluated(&circuit(&["m1->m0"])).contains("there is no edge m1->m0: the writer comes after the reader"));
    assert!(evaluated(&circuit(&[])).contains("no edge of the circuit lies on a path"));
    assert!(evaluated(&circuit(&["m0->logits"])).contains("no edge of the circuit lies on a path"));
    assert!(evaluated(&json!([1, 2])).contains("no circuit of EAP-IG or MIB"));
    write(at, "c.json", &circuit(&["input->logits"]));
    let two = ["circuit", "evaluate", "c.json", "c.json", "--select", "signed", "--pairs", "pairs.jsonl"];
    assert!(refused(at, &two).contains("--select takes the scores of one file, and there are 2"));
    assert!(refused(at, &["circuit", "evaluate", "none.json", "--pairs", "pairs.jsonl"]).contains("none.json"));
    write(at, "old.json", &circuit(&["input->logits"]));
    let mut old = circuit(&["input->logits"]);
    old["edges"]["input->logits"]["score"] = json!(-0.5);
    write(at, "old.json", &old);
    let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(["circuit", "convert", "old.json", "--out", "-"])
        .current_dir(at)
        .output()
        .unwrap();
    assert!(complaints(&output.stderr).contains("the opposite sign"), "{output:?}");
}

#[test]
fn too_few_prompts_to_divide_are_judged_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_pairs(at);
    let all = std::fs::read_to_string(at.join("pairs.jsonl")).unwrap();
    let two: Vec<&str> = all.lines().take(2).collect();
    std::fs::write(at.join("two.jsonl"), two.join("\n")).unwrap();
    let find = ["circuit", "find", "--pairs", "two.jsonl", "--search", "greedy", "--edges", "200", "--out", "f"];
    run(at, &find);
    let about = json_of(&at.join("f/effects.json"));
    assert_eq!(about["notes"]["judged_on_the_choosing_prompts"], true);
    assert!(about["warnings"].to_string().contains("judged on the prompts that it was chosen on"));
}
