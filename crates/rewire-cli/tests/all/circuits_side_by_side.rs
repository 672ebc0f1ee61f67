//! `rewire circuit draw`, `compare` and `scores`, and what `evaluate` says of single edges.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::shared::{complaints, json as json_of, tensors};

/// Writes 16 pairs, in eight clusters, to `pairs.jsonl`.
fn write_pairs(directory: &Path) {
    let mut lines = String::new();
    for place in ["shops", "park", "school", "store"] {
        for [a, b] in [["John", "Mary"], ["Tom", "James"]] {
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

/// Writes a circuit of the embedded GPT-2 with these edges inside.
fn write_circuit(directory: &Path, name: &str, edges: &[(&str, f64)]) {
    let edges: serde_json::Map<String, Value> =
        edges.iter().map(|(name, score)| ((*name).to_owned(), json!({"score": score, "in_graph": true}))).collect();
    write(directory, name, &json!({ "cfg": cfg(4), "nodes": {}, "edges": edges }));
}

fn cfg(layers: usize) -> Value {
    json!({"n_layers": layers, "n_heads": 8, "parallel_attn_mlp": false, "d_model": 128})
}

fn write(directory: &Path, name: &str, contents: &Value) {
    std::fs::write(directory.join(name), contents.to_string()).unwrap();
}

/// Runs a command that may warn and must succeed, and returns its output.
fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", complaints(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must be refused, and returns what it complains of.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    complaints(&output.stderr)
}

const EDGES: [(&str, f64); 5] = [
    ("input->a0.h1<q>", 2.0),
    ("a0.h1->m0", 1.0),
    ("m0->a3.h7<v>", 0.5),
    ("a3.h7->logits", 4.0),
    ("m0->logits", -0.25),
];

#[test]
fn a_circuit_is_drawn_as_a_picture_and_as_a_graph() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_circuit(at, "c.json", &EDGES);
    let said = run(at, &["circuit", "draw", "c.json"]);
    assert_eq!(said, "circuit of 5 edges drawn in circuit.svg\n");
    let svg = std::fs::read_to_string(at.join("circuit.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && !svg.contains("href"), "{svg}");
    assert_eq!(svg.matches("class=\"supports\" d=\"M").count(), 4 + 1, "four edges, and the legend");
    assert_eq!(svg.matches("class=\"opposes\" d=\"M").count(), 1 + 1);
    assert!(svg.contains("<title>m0 → logits: 0.2500</title>") && svg.contains(">layer 3 heads<"), "{svg}");
    let dot = run(at, &["circuit", "draw", "c.json", "--out", "-"]);
    assert!(dot.contains("\"m0\" -> \"logits\" [label=\"0.250\", color=\"#b2182b\""), "{dot}");
    run(at, &["circuit", "draw", "c.json", "--out", "c.dot"]);
    assert_eq!(std::fs::read_to_string(at.join("c.dot")).unwrap(), dot);
    let said = run(at, &["circuit", "draw", "c.json", "--edges", "2", "--out", "two.svg"]);
    assert!(said.starts_with("2 of 5 edges of the circuit"), "{said}");
    assert!(refused(at, &["circuit", "draw", "c.json"]).contains("circuit.svg"));
    assert!(refused(at, &["circuit", "draw", "c.json", "--out", "c.png"]).contains("must end in .svg"));
    write_circuit(at, "empty.json", &[]);
    let said = refused(at, &["circuit", "draw", "empty.json", "--out", "e.svg"]);
    assert!(said.contains("empty.json: the circuit has no edges"), "{said}");
}

#[test]
fn a_circuit_of_nodes_is_drawn_by_the_scores_of_its_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let node = |score: f64| json!({"in_graph": true, "score": score});
    let nodes =
        json!({"input": {"in_graph": true}, "m0": node(2.0), "a1.h2": node(-1.0), "logits": {"in_graph": true}});
    write(at, "n.json", &json!({"cfg": cfg(4), "nodes": nodes}));
    let said = run(at, &["circuit", "draw", "n.json"]);
    assert_eq!(said, "circuit of 4 nodes drawn in circuit.svg\n");
    let svg = std::fs::read_to_string(at.join("circuit.svg")).unwrap();
    let node =
        |name: &str| svg.split("<rect").find(|rect| rect.contains(&format!("<title>{name}"))).unwrap().to_owned();
    assert!(node("m0").contains("stroke=\"#2166ac\" stroke-width=\"5.00\""), "{svg}");
    assert!(node("a1.h2").contains("stroke=\"#b2182b\""), "{svg}");
    assert_eq!(svg.matches("stroke-opacity").count(), 0, "no edges");
}

#[test]
fn circuits_are_compared_by_edges_nodes_and_scores() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_pairs(at);
    write_circuit(at, "a.json", &EDGES);
    let other = [&EDGES[1..4], &[("input->m0", 1.0), ("input->a0.h1<v>", 1.0)]].concat();
    write_circuit(at, "b.json", &other);
    let said = run(at, &["circuit", "compare", "a.json", "b.json", "--out", "c"]);
    assert!(said.contains("A: a.json (5 edges)") && said.contains("3, 2, 2"), "{said}");
    let compared = &json_of(&at.join("c/effects.json"))["notes"]["compared"][0];
    let [edges, nodes] = ["edges", "nodes"].map(|what| &compared[what]);
    assert_eq!([&edges["both"], &edges["only_first"], &edges["only_second"]], [3, 2, 2]);
    assert!((edges["jaccard"].as_f64().unwrap() - 3.0 / 7.0).abs() < 1e-9);
    assert_eq!([&nodes["both"], &nodes["only_first"], &nodes["only_second"]], [4, 0, 0]);
    assert_eq!([&compared["pearson"], &compared["spearman"]], [1.0, 1.0]);
    assert_eq!(compared["edges_only_of_first"], json!(["input->a0.h1<q>", "m0->logits"]));
    assert!(tensors(&at.join("c/effects.safetensors")).is_empty());

    let judged = ["circuit", "compare", "a.json", "b.json", "a.json", "--pairs", "pairs.jsonl", "--out", "j"];
    let said = run(at, &judged);
    assert!(said.contains("minus the first (95%)"), "{said}");
    let notes = &json_of(&at.join("j/effects.json"))["notes"];
    assert_eq!(notes["compared"].as_array().unwrap().len(), 3);
    let faithfulness = |i: usize| notes["judged"]["faithfulness"][i].as_f64().unwrap();
    assert!((faithfulness(0) - faithfulness(2)).abs() < 1e-6 && (faithfulness(0) - faithfulness(1)).abs() > 1e-6);
    // The interval of a circuit's difference from itself is a point.
    let differences = &notes["judged"]["intervals_of_the_difference_from_the_first"];
    assert!((0..2).all(|end| differences[1][end].as_f64().unwrap().abs() < 1e-6), "{differences}");
    let [low, high] = [0, 1].map(|end| differences[0][end].as_f64().unwrap());
    let difference = faithfulness(1) - faithfulness(0);
    assert!(low <= difference && difference <= high && low < high, "{differences}, {difference}");
    assert_eq!(tensors(&at.join("j/effects.safetensors"))["circuit.metric"].0, [16, 3]);
}

#[test]
fn circuits_of_different_models_are_not_compared() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_circuit(at, "a.json", &EDGES);
    write(at, "b.json", &json!({"cfg": cfg(12), "nodes": {}, "edges": {}}));
    let said = refused(at, &["circuit", "compare", "a.json", "b.json", "--out", "c"]);
    assert!(said.contains("a.json and b.json are circuits of different models"), "{said}");
    assert!(said.contains("(n_layers) is 4 in the first and 12 in the second"), "{said}");
    assert!(refused(at, &["circuit", "compare", "a.json"]).contains("2"), "one circuit");
    let said = refused(at, &["circuit", "compare", "b.json", "b.json", "--out", "c"]);
    assert!(said.contains("the model's is 4"), "{said}");
}

#[test]
fn the_marginal_effect_of_an_edge_is_what_its_circuit_loses() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_pairs(at);
    let find = ["circuit", "find", "--pairs", "pairs.jsonl", "--search", "greedy", "--edges", "60", "--out", "f"];
    run(at, &find);
    let evaluate = ["circuit", "evaluate", "f/circuit.json", "--pairs", "pairs.jsonl", "--marginal", "3", "--out", "e"];
    let said = run(at, &evaluate);
    assert!(said.contains("accuracy") && said.contains(" of 3"), "{said}");
    let circuit = &json_of(&at.join("e/effects.json"))["notes"]["circuits"][0];
    let accuracy = circuit["accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy), "{accuracy}");
    let marginal = circuit["marginal"].as_array().unwrap();
    assert_eq!(marginal.len(), 3);
    let found = tensors(&at.join("e/effects.safetensors"));
    assert_eq!(found["circuit.marginal.0"].0, [3]);
    // The circuit without its first edge, as a file, has what is left.
    let mut file: Value =
        serde_json::from_str(&std::fs::read_to_string(at.join("f/circuit.json")).unwrap().replace("NaN", "null"))
            .unwrap();
    file["edges"][marginal[0][0].as_str().unwrap()]["in_graph"] = json!(false);
    write(at, "without.json", &file);
    let evaluate = ["circuit", "evaluate", "without.json", "--pairs", "pairs.jsonl", "--marginal", "0", "--out", "w"];
    run(at, &evaluate);
    let without = &json_of(&at.join("w/effects.json"))["notes"]["circuits"][0];
    let lost = circuit["faithfulness"].as_f64().unwrap() - without["faithfulness"].as_f64().unwrap();
    let effect = marginal[0][1].as_f64().unwrap();
    assert!((effect - lost).abs() < 1e-5, "{effect} and {lost}");
    assert!(without["marginal"].as_array().unwrap().is_empty());
    assert!(std::fs::read_to_string(at.join("e/report.html")).unwrap().contains("<svg class=\"graph\""));
}

#[test]
fn ways_to_score_edges_are_judged_on_prompts_that_did_not_choose() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write_pairs(at);
    let ways = "eap,eap-ig-inputs,exact,exact-greedy,random";
    let scores = ["circuit", "scores", "--pairs", "pairs.jsonl", "--scores", ways, "--halves", "2", "--out", "s"];
    run(at, &scores);
    let notes = &json_of(&at.join("s/effects.json"))["notes"];
    let of = |i: usize, figure: &str| notes["scores"][i][figure].as_f64().unwrap();
    assert_eq!(notes["scores"].as_array().unwrap().len(), 5);
    for i in 0..5 {
        assert!(of(i, "cmd") >= 0.0);
        assert!((notes["scores"][i]["faithfulness_signed"][9].as_f64().unwrap() - 1.0).abs() < 1e-6);
        let [low, high] = [0, 1].map(|end| notes["scores"][i]["cpr_interval"][end].as_f64().unwrap());
        assert!(low <= of(i, "cpr") + 0.05 && of(i, "cpr") <= high + 0.05, "{notes}");
    }
    assert!((2..4).all(|exact| of(exact, "cmd") < of(4, "cmd") / 2.0), "random edges are no circuit: {notes}");
    let found = tensors(&at.join("s/effects.safetensors"));
    assert_eq!(found["exact-greedy/circuit.area.choice"].0, [2]);
    let first: String =
        std::fs::read_to_string(at.join("pairs.jsonl")).unwrap().lines().take(2).collect::<Vec<_>>().join("\n");
    std::fs::write(at.join("two.jsonl"), first).unwrap();
    let said = refused(at, &["circuit", "scores", "--pairs", "two.jsonl", "--out", "t"]);
    assert!(said.contains("two.jsonl") && said.contains("give at least 4"), "{said}");
}
