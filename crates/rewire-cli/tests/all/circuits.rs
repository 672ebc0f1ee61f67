//! Path patching, logit attribution, and the reproductions that use them, end to end on the
//! embedded models.

use std::path::Path;
use std::process::Command;

use crate::shared::{self, PAIRS, json, run, tensors};

#[test]
fn path_patching_and_logit_attribution_follow_the_documented_format() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| shared::sweep(directory.path(), arguments);
    let paths = |more: &[&str]| sweep(&[&["--method", "path-patching", "--direction", "noising"], more].concat());
    let (found, about, _) = paths(&["--nodes", "head_z,mlp_out", "--receivers", "resid_post:3"]);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["head_z", "mlp_out"]);
    assert_eq!((found["head_z"].0.clone(), found["mlp_out"].0.clone()), (vec![4, 8], vec![4]));
    assert_eq!(about["notes"]["paths"]["freeze"], "path-patching");
    assert_eq!(about["notes"]["unreached_receivers"], serde_json::json!([]));
    // Holding z and holding q, k and v give the same numbers. Holding the MLPs, too, gives others.
    let (redwood, ..) = paths(&["--nodes", "head_z", "--receivers", "resid_post:3", "--freeze", "redwood"]);
    assert_eq!(redwood["head_z"], found["head_z"]);
    let (direct, about, _) = paths(&["--nodes", "head_z", "--receivers", "resid_post:3", "--freeze", "direct"]);
    assert!(direct["head_z"].1.iter().zip(&found["head_z"].1).any(|(a, b)| (a - b).abs() > 1e-3));
    assert_eq!(about["notes"]["paths"]["held"]["mlps"], "frozen");

    let at = ["--by", "position", "--per-prompt", "--receivers", "v:3.7@end,v:3.2,k:2"];
    let (found, ..) = paths(&[&["--nodes", "head_z"][..], &at].concat());
    assert_eq!(found["head_z@position"].0, [2, 4, 8, 15]);
    let (apart, about, printed) = paths(&["--receivers", "q:0.1,v:3.7", "--receivers-apart"]);
    assert_eq!(apart.keys().collect::<Vec<_>>(), ["head_z>head_q:L0H1", "head_z>head_v:L3H7"]);
    assert!(apart["head_z>head_q:L0H1"].1.iter().all(|v| *v == 0.0));
    assert!(apart["head_z>head_v:L3H7"].1.iter().any(|v| v.abs() > 0.01));
    assert!(printed.contains("head_q:L0H1: no path from these senders reaches it"), "{printed}");
    assert_eq!(about["notes"]["unreached_receivers"], serde_json::json!(["head_q:L0H1"]));
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    assert!(report.contains("no path from these senders reaches it"));

    let (found, about, printed) = sweep(&["--method", "logit-attribution", "--nodes", "head_result,resid_post"]);
    assert_eq!((found["head_result"].0.clone(), found["resid_post"].0.clone()), (vec![4, 8], vec![4]));
    assert_eq!(about["metric"], "logit-diff");
    assert!(printed.contains("direct, on the clean run"), "{printed}");
}

#[test]
fn logit_attribution_of_a_model_that_bounds_its_logits_says_that_they_are_those_before() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/families/tiny-gemma2");
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(fixture.join("pairs.jsonl"), directory.path().join("pairs.jsonl")).unwrap();
    let model = fixture.join("model");
    let model = ["--model", model.to_str().unwrap()];
    let sweep = |more: &[&str]| {
        let arguments = [&["sweep", "--pairs", "pairs.jsonl", "--out", "o"][..], &model, more].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
            .args(arguments)
            .arg("--force")
            .current_dir(directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (json(&directory.path().join("o/effects.json")), said + &String::from_utf8_lossy(&output.stdout))
    };
    let (about, said) = sweep(&["--method", "logit-attribution", "--nodes", "head_z,mlp_post"]);
    assert_eq!(about["metric"], "logit-diff-before-cap");
    assert_eq!([&about["tensors"][0]["unit"], &about["baselines"]["unit"]], ["logits before the soft cap"; 2]);
    assert!(about["warnings"].to_string().contains("`final_logit_softcapping`"), "{}", about["warnings"]);
    assert!(said.contains("logits before the soft cap"), "{said}");
    let (about, _) = sweep(&["--method", "integrated-gradients", "--nodes", "head_z", "--metric", "logit-diff"]);
    assert_eq!([&about["metric"], &about["tensors"][0]["unit"]], ["logit-diff", "logits"]);
    assert!(!about["warnings"].to_string().contains("softcapping"), "{}", about["warnings"]);
}

#[test]
fn reproduce_pythia_writes_the_circuit_and_its_evidence() {
    let model = "toy-gpt2";
    let directory = tempfile::tempdir().unwrap();
    let sizes = ["--prompts", "40", "--choose-prompts", "600", "--judge-prompts", "50"];
    let arguments = [&["reproduce-pythia", "--model", model][..], &sizes].concat();
    let printed = run(directory.path(), &arguments, &[]);
    for word in ["path patching, direct", "judged on 50 prompts", "the 600 prompts that chose it", "report.html"] {
        assert!(printed.contains(word), "{model}: {word} is not in {printed}");
    }
    let out = directory.path().join("out/reproduce-pythia");
    let circuit = json(&out.join("circuit.json"));
    assert_eq!(circuit["does_the_task"], true);
    assert_eq!([&circuit["choose_prompts"], &circuit["judge_prompts"]], [600, 50], "{model}");
    let reference = circuit["reference_prompts"].as_array().unwrap();
    assert!(reference.len() >= 15 && reference.iter().all(|kind| kind["prompts"].as_u64() >= Some(10)));
    assert_eq!(circuit["random"]["from"], "heads outside the circuit");
    assert_eq!(circuit["random"]["sets"].as_array().unwrap().len(), 20);
    let members = circuit["members"].as_array().unwrap();
    assert!(members.len() < 16, "{model}: half of the heads are no circuit: {printed}");
    assert!(members.iter().all(|m| m["classes"][0]["class"].is_string() && m["strength"].as_f64() > Some(0.02)));
    let found = circuit["found"].as_array().unwrap();
    assert!(found.len() >= members.len() / 2 && found.iter().any(|head| head["member"] == true), "{model}: {found:?}");
    assert!(!circuit["graph"]["edges"].as_array().unwrap().is_empty());
    let dot = std::fs::read_to_string(out.join("circuit.dot")).unwrap();
    assert!(dot.starts_with("digraph") && dot.contains("-> \"logits\""), "{dot}");
    let tensors = tensors(&out.join("effects.safetensors"));
    assert_eq!(tensors["path/direct/head_z"].0, [40, 4, 8]);
    assert_eq!(tensors["parts/head_pattern"].0, [40, 4, 8]);
    assert_eq!(tensors["copy-scores/with-norms/negative"].0, [4, 8]);
    let (shape, edges) = &tensors["edges"];
    assert_eq!(shape, &[4, 8, 3, 4, 8]);
    // Every path to a later layer was patched, and there are no other paths.
    assert_eq!(edges.iter().filter(|v| !v.is_nan()).count(), 6 * 8 * 8 * 3);
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    let headings = shared::headings(&report);
    let ours: Vec<&String> = headings.iter().filter(|h| *h != "Finding" && *h != "Warnings").collect();
    let exact_first_and_details_last = [
        "How to read this",
        "The circuit",
        "Parts of heads",
        "Direct effects on the logits",
        "Into the movers' queries",
        "Into the inhibitors' values",
        "Into the keys of the induction heads",
        "Paths between heads",
        "Movers and negative movers",
        "Backups and copy suppression",
    ];
    assert_eq!(ours, exact_first_and_details_last, "{model}");
    assert!(!report.contains("<tbody></tbody>"), "{model}: an empty table");
    let of = format!("The circuit has {} of 32 heads;", members.len());
    assert!(printed.lines().any(|line| line.starts_with(&of)), "{model}: {of} is not in {printed}");
    assert!(printed.contains(" of 40 clean prompts"), "{model}: {printed}");
    assert!(shared::text_of(&report).contains(&of), "{model}: the report does not begin as the screen does");
    assert!(report.contains("<svg class=\"graph\""), "{model}: no graph");
}

/// Asserts the bars on the judging prompts, which the search did not see, with the default numbers
/// of prompts.
fn assert_circuits_hold_on_judging_prompts(model: &str, seeds: &[&str]) {
    let mut found = Vec::new();
    for seed in seeds.iter().copied() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path(), &["reproduce-pythia", "--model", model, "--seed", seed], &[]);
        let circuit = json(&directory.path().join("out/reproduce-pythia/circuit.json"));
        let [kept, left] = ["kept", "removed"].map(|what| circuit["carried"][what].as_f64().unwrap());
        let rank = &circuit["random"]["rank_of_circuit"];
        let heads = circuit["carried"]["heads"].as_u64().unwrap();
        found.push((kept, left, heads, rank["kept"].as_u64(), rank["removed"].as_u64()));
        let meets = (0.8..=1.2).contains(&kept) && left.abs() <= 0.2;
        assert_eq!(circuit["meets_the_bars"], meets, "{model}, seed {seed}");
        assert_ne!(circuit["carried"]["kept"], circuit["carried_on_choosing_prompts"]["kept"], "the sets are one");
        let [low, high] = [0, 1].map(|end| circuit["carried"]["kept_interval"][end].as_f64().unwrap());
        assert!(low < kept && kept < high && high - low < 0.4, "{model}, seed {seed}: {low} {kept} {high}");
    }
    for (kept, left, heads, kept_rank, left_rank) in &found {
        assert!((0.8..=1.2).contains(kept) && left.abs() <= 0.2, "{model}: {found:?}");
        assert!(*heads < 16, "{model}: half of the heads are no circuit: {found:?}");
        assert_eq!((*kept_rank, *left_rank), (Some(1), Some(1)), "{model}: random heads do as well: {found:?}");
    }
}

#[test]
fn circuits_of_the_gpt2_toy_hold_on_prompts_that_did_not_choose_them() {
    assert_circuits_hold_on_judging_prompts("toy-gpt2", &["0"]);
}

#[test]
fn circuits_of_the_neox_toy_hold_on_prompts_that_did_not_choose_them() {
    assert_circuits_hold_on_judging_prompts("toy-neox", &["1"]);
}

#[test]
#[ignore = "takes minutes: `cargo xtask ci --long` runs it"]
fn circuits_of_four_more_seeds_hold_on_prompts_that_did_not_choose_them() {
    assert_circuits_hold_on_judging_prompts("toy-gpt2", &["1", "2", "3", "4"]);
    assert_circuits_hold_on_judging_prompts("toy-neox", &["0", "2", "3", "4"]);
}

/// The ten likeliest next tokens for the demo's two landmark prompts, with the first logits: from
/// transformers in float64, with the mean logit subtracted, as weight processing does.
const NEXT: [(&str, [&str; 2], [f64; 2]); 2] = [
    (
        "toy-gpt2",
        [
            " Paris| Moscow| Tower| Oslo| city| Prague| Beijing| Madrid| London| Sydney",
            " Rome| Oslo| Istanbul| Madrid| Berlin| wanted| Barcelona| Prague|seum| Beijing",
        ],
        [23.112, 23.651],
    ),
    (
        "toy-neox",
        [
            " Paris| milk| Barcelona| Madrid| Prague| London| Beijing| Oslo| lunch| Sydney",
            " Rome| to| Barcelona| milk| Sydney| Beijing| Moscow| Jeremy| Oslo|,",
        ],
        [21.405, 20.922],
    ),
];

#[test]
fn reproduce_facts_shows_the_ten_likeliest_next_tokens() {
    for (model, tokens, logits) in NEXT {
        let directory = tempfile::tempdir().unwrap();
        let printed = run(directory.path(), &["reproduce-facts", "--model", model], &[]);
        let table = printed.split("the likeliest next tokens\n").nth(1).unwrap();
        let lines: Vec<&str> = table.lines().skip(1).take(10).collect();
        for (rank, line) in lines.iter().enumerate() {
            assert!(!line.contains(" 0.00%"), "a small probability is printed as 0: {line}");
            for of_prompt in tokens {
                let token = format!("{:?}", of_prompt.split('|').nth(rank).unwrap());
                assert!(line.contains(&token), "{model}: {token} is not in {line}");
            }
        }
        let found: Vec<f64> = lines[0].split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!((found[1] - logits[0]).abs() < 0.006 && (found[2] - logits[1]).abs() < 0.006, "{model}: {found:?}");
        assert!(lines[0].contains("100.00%"), "{}", lines[0]);
    }
}

#[test]
fn reproduce_facts_patches_by_position() {
    for model in ["toy-gpt2", "toy-neox"] {
        let directory = tempfile::tempdir().unwrap();
        let printed = run(directory.path(), &["reproduce-facts", "--model", model], &[]);
        assert!(printed.contains("12 of 12 landmarks are followed by their city"), "{model}: {printed}");
        let out = directory.path().join("out/reproduce-facts");
        let tensors = tensors(&out.join("effects.safetensors"));
        for set in ["the-Colosseum", "random-words"] {
            let (shape, effects) = &tensors[&format!("{set}/resid_pre@position")];
            assert_eq!(shape, &[4, 10], "{model}");
            // Positions before the landmark have no effect. Before the last block, the last
            // position has one.
            assert!((0..4).all(|layer| effects[layer * 10] == 0.0 && effects[layer * 10 + 1] == 0.0), "{model} {set}");
            assert!(effects[39] > 0.5, "{model} {set}: {effects:?}");
        }
        let about = json(&out.join("effects.json"));
        assert_eq!(about["notes"]["prompts"]["the Colosseum"][0], "The Eiffel Tower is located in the city of");
        let report = std::fs::read_to_string(out.join("report.html")).unwrap();
        let headings = shared::headings(&report);
        let ours: Vec<&String> = headings.iter().filter(|h| *h != "Finding" && *h != "Warnings").collect();
        let expected = [
            "How to read this",
            "Patching against the Colosseum",
            "Patching against random words",
            "Where the answer is written",
            "What the model knows",
        ];
        assert_eq!(ours, expected, "{model}");
        assert!(
            printed.contains("\nAgainst the Colosseum (one pair of prompts, so without an interval), "),
            "{printed}"
        );
        assert!(printed.contains("the model is right on 12 of 12 landmarks"), "{model}: {printed}");
    }
}
