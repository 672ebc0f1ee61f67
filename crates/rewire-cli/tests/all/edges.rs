//! Sweeps of all edges, end to end.

use crate::shared::{self, PAIRS};

#[test]
fn sweep_writes_every_edge_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| shared::sweep(directory.path(), &[&["--nodes", "edges"], arguments].concat());
    let (exact, about, printed) = sweep(&["--direction", "noising"]);
    assert_eq!(exact["edges"].0, [37, 101]);
    assert_eq!(about["tensors"][0]["labels"]["writer"][1], "a0.h0");
    assert_eq!(about["tensors"][0]["labels"]["reader"][100], "logits");
    assert!(printed.contains("1519 edges (exact, noising"), "{printed}");
    assert_eq!(printed.lines().filter(|line| line.contains("->")).count(), 20, "{printed}");
    let csv = std::fs::read_to_string(directory.path().join("o/effects.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 1519);
    assert!(csv.contains("\nedges,m3->logits,36,100,"), "{csv}");
    let (estimated, about, printed) =
        sweep(&["--method", "attribution-patching", "--direction", "noising", "--per-prompt"]);
    assert_eq!(estimated["edges"].0, [2, 37, 101]);
    assert_eq!(about["axes"]["edges"], serde_json::json!(["prompt", "writer", "reader"]));
    assert!(printed.contains("1519 edges (estimated, noising"), "{printed}");
    let (line, ..) = sweep(&["--method", "attribution-patching", "--integrate", "inputs", "--direction", "noising"]);
    let largest = |values: &[f32]| values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!(largest(&line["edges"].1) > 0.05 && largest(&exact["edges"].1) > 0.05);
    assert_ne!(line["edges"].1, exact["edges"].1);
}

#[test]
fn sweep_names_the_backward_rule_of_its_estimates() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| {
        let all = ["--method", "attribution-patching", "--direction", "noising"];
        shared::sweep(directory.path(), &[&all, arguments].concat())
    };
    let report = || std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    let mut found = Vec::new();
    for (rule, named) in
        [("gradient", "estimated, noising"), ("relp", "rule relp, noising"), ("gim", "rule gim, noising")]
    {
        for nodes in ["edges", "head_z", "head_edges", "head_z:L1H2"] {
            let (tensors, about, printed) = sweep(&["--nodes", nodes, "--backward", rule]);
            assert_eq!([&about["notes"]["backward"], &about["run"]["backward"]], [rule, rule]);
            assert!(printed.contains(named), "{printed}");
            assert_eq!(report().contains(&format!("by the backward rule {rule}")), rule != "gradient");
            if nodes == "head_edges" {
                assert_eq!(about["notes"]["norm"], if rule == "gradient" { "exact" } else { "frozen" });
            }
            found.push((nodes, tensors.into_values().map(|(_, values)| values).collect::<Vec<_>>()));
        }
    }
    for (number, one) in found.iter().enumerate() {
        assert!(found[..number].iter().all(|other| other != one), "two rules agree on {}", one.0);
    }
    let (_, about, printed) = sweep(&["--backward", "relp", "--verify", "3"]);
    assert_eq!(about["notes"]["screening"]["verified"], 3);
    assert!(printed.contains("rule relp"), "{printed}");
}

#[test]
fn chosen_edges_have_the_effects_that_a_sweep_of_all_edges_gives_them() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let names = ["a0.h1->a2.h3<v>", "input->m1", "m3->logits"];
    for method in ["activation-patching", "attribution-patching"] {
        let sweep = |nodes: &str, more: &[&str]| {
            let arguments = [&["--nodes", nodes, "--method", method, "--direction", "noising"], more].concat();
            shared::sweep(directory.path(), &arguments)
        };
        let (chosen, about, printed) = sweep(&names.join(","), &[]);
        assert_eq!(chosen["edges"].0, [3]);
        assert_eq!(about["tensors"][0]["labels"]["edge"], serde_json::json!(names));
        assert!(printed.contains("3 edges (e"), "{printed}");
        let csv = std::fs::read_to_string(directory.path().join("o/effects.csv")).unwrap();
        assert!(csv.contains("\nedges,input->m1,"), "{csv}");
        let (per_prompt, ..) = sweep(&names.join(","), &["--per-prompt"]);
        assert_eq!(per_prompt["edges"].0, [2, 3]);
        let (all, about, _) = sweep("edges", &[]);
        let labels = &about["tensors"][0]["labels"];
        let place = |axis: &str, name: &str| labels[axis].as_array().unwrap().iter().position(|l| l == name).unwrap();
        for (number, name) in names.iter().enumerate() {
            let (writer, reader) = name.split_once("->").unwrap();
            let expected = all["edges"].1[place("writer", writer) * 101 + place("reader", reader)];
            let found = chosen["edges"].1[number];
            assert!((found - expected).abs() <= 1e-6 + 1e-4 * expected.abs(), "{method} {name}: {found} {expected}");
            let mean = (per_prompt["edges"].1[number] + per_prompt["edges"].1[3 + number]) / 2.0;
            assert!((found - mean).abs() <= 1e-6 + 1e-4 * mean.abs(), "{method} {name}: {found} {mean}");
        }
    }
}

#[test]
fn edges_that_do_not_exist_are_refused_with_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let refused = |nodes: &str, expected: &str| {
        let arguments = ["sweep", "--pairs", "pairs.jsonl", "--out", "o", "--nodes", nodes];
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_rewire"))
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{nodes}: {message}");
        assert!(message.contains(expected), "{nodes}: {message}");
    };
    refused("a0.h1->a2.h3.v", "did you mean `a0.h1->a2.h3<v>`?");
    refused("a0.h1->a9.h3<v>", "the model has 4 layers of 8 heads");
    refused("m3->m1", "the writer comes after the reader");
    refused("edges,m1->logits", "all edges and the edge m1->logits");
    refused("head_z,m1->logits", "edges and nodes");
}

#[test]
fn verified_edges_have_exact_effects_and_each_estimate_its_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| {
        let all = ["--nodes", "edges", "--direction", "noising"];
        shared::sweep(directory.path(), &[&all, arguments].concat())
    };
    let (exact, ..) = sweep(&["--method", "activation-patching"]);
    let estimated = ["--method", "attribution-patching"];
    let (found, about, printed) = sweep(&[&estimated[..], &["--verify", "all"]].concat());
    assert_eq!(found["verified/edges"], exact["edges"]);
    let agreement = &about["notes"]["agreement_of_edges"];
    assert_eq!([&agreement["edges"], &agreement["verified"]], [1519, 1519]);
    let names: Vec<&str> =
        agreement["estimates"].as_array().unwrap().iter().map(|e| e["estimate"].as_str().unwrap()).collect();
    let expected = ["eap", "eap relp", "eap gim", "clean-corrupted", "eap-ig-inputs", "eap-ig-activations"];
    assert_eq!(names, expected);
    // The error of the sweep's own estimate, from its own table.
    let size = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let [estimates, effects] = [&found["edges"].1, &exact["edges"].1];
    let errors: Vec<f64> = estimates.iter().zip(effects).map(|(a, b)| f64::from(a - b)).collect();
    let error = size(&errors) / size(&effects.iter().map(|e| f64::from(*e)).collect::<Vec<_>>());
    let recorded = agreement["estimates"][0]["relative_error"].as_f64().unwrap();
    assert!((recorded - error).abs() < 1e-5 * error, "{recorded} {error}");
    assert!(printed.contains("1519 edges patched exactly; no edge was skipped"), "{printed}");
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    assert!(report.contains("Error against cost"));

    // The same estimates alone have the same numbers, and are first if the flags choose them.
    let (alone, ..) = sweep(&[&estimated[..], &["--integrate", "inputs", "--backward", "relp"]].concat());
    let chosen = ["--integrate", "inputs", "--backward", "relp", "--verify", "5"];
    let (few, about, printed) = sweep(&[&estimated[..], &chosen].concat());
    assert_eq!(few["edges"], alone["edges"]);
    let agreement = &about["notes"]["agreement_of_edges"];
    assert_eq!(agreement["estimates"][0]["estimate"], "eap-ig-inputs relp");
    assert_eq!(agreement["estimates"].as_array().unwrap().len(), 7);
    let verified = few["verified/edges"].1.iter().filter(|effect| **effect != 0.0 && !effect.is_nan()).count();
    assert_eq!(agreement["verified"], verified);
    assert!((5..=35).contains(&verified) && printed.contains(&format!("{verified} edges patched exactly")));

    // KL has no gradient on the clean run.
    let (_, about, _) =
        sweep(&[&estimated[..], &["--integrate", "inputs", "--metric", "kl", "--verify", "3"]].concat());
    let estimates = about["notes"]["agreement_of_edges"]["estimates"].as_array().unwrap();
    assert!(estimates.len() == 3 && estimates.iter().all(|e| !e["estimate"].as_str().unwrap().starts_with("eap ")));
}
