//! One notation: every name of a head, node or receiver gives the same numbers, single nodes have a
//! table of their own, positions can be counted from END, and unknown names get a suggestion.

use std::path::Path;
use std::process::Command;

use crate::shared::{self, PAIRS, Tensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two prompts of 15 and 14 tokens, with the BOS.
const LENGTHS: &str = r#"{"clean": "When John and Mary went to the shops, John gave the bag to", "corrupt": "When John and Mary went to the shops, Mary gave the bag to", "answers": [" Mary"], "wrong_answers": [" John"]}
{"clean": "Before Tom and James left the park, James sold the ball to", "corrupt": "Before Tom and James left the park, Tom sold the ball to", "answers": [" Tom"], "wrong_answers": [" James"]}
"#;

/// Returns a directory with these pairs.
fn directory(pairs: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), pairs).unwrap();
    directory
}

/// Runs `sweep` with flags separated by spaces.
fn sweep(directory: &TempDir, flags: &str) -> (Tensors, Value, String) {
    shared::sweep(directory.path(), &flags.split_whitespace().collect::<Vec<_>>())
}

/// Asserts that `sweep` is refused with `words` on standard error.
fn refused(directory: &Path, flags: &str, words: &[&str]) {
    let arguments = ["sweep", "--pairs", "pairs.jsonl", "--out", "refused"];
    let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(arguments)
        .args(flags.split_whitespace())
        .current_dir(directory)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{flags}: {message}");
    for word in words {
        assert!(message.contains(word), "{flags} does not say {word:?}: {message}");
    }
    assert!(!directory.join("refused").exists(), "{flags} wrote something");
}

/// Asserts that two numbers of the same effect agree, computed in runs of different shapes.
fn close(found: f32, expected: f32, what: &str) {
    assert!((found - expected).abs() < 1e-4, "{what}: {found} and {expected}");
}

#[test]
fn every_name_of_a_kind_gives_the_same_table() {
    let directory = directory(PAIRS);
    let (expected, ..) = sweep(&directory, "--nodes head_z,mlp_out");
    for names in ["z,mlp-out", "HEAD_Z,mlp_out", "attn.hook_z,hook_mlp_out"] {
        let (found, ..) = sweep(&directory, &format!("--nodes {names}"));
        assert_eq!(found, expected, "{names}");
    }
}

#[test]
fn every_name_of_a_receiver_gives_the_same_table() {
    let directory = directory(PAIRS);
    let paths = |receivers: &str| {
        let (found, about, _) = sweep(&directory, &format!("--method path-patching --receivers {receivers}"));
        (found, about["notes"]["paths"]["receivers"].clone())
    };
    let (expected, names) = paths("head_q:L3H7");
    assert_eq!(names, json!(["head_q:L3H7"]));
    for receiver in ["q:3.7", "q:L3H7", "head-q:l3h7", "attn.hook_q:3.7"] {
        assert_eq!(paths(receiver), (expected.clone(), names.clone()), "{receiver}");
    }
    let (last, names) = paths("resid_post:3");
    assert_eq!(names, json!(["resid_post:L3"]));
    let (logits, names) = paths("logits");
    assert_eq!(names, json!(["logits"]));
    assert_eq!(logits, last);
}

#[test]
fn single_nodes_have_the_effects_of_their_kinds() {
    let directory = directory(PAIRS);
    let nodes = "--nodes head_z:L3H7,mlp_out:L2";
    for method in [
        "--method activation-patching",
        "--method activation-patching --direction noising",
        "--method attribution-patching",
        "--method ablation",
        "--method ablation --ablate mean",
        "--method path-patching --receivers logits",
    ] {
        let (all, ..) = sweep(&directory, &format!("{method} --nodes head_z,mlp_out"));
        let (found, about, printed) = sweep(&directory, &format!("{method} {nodes}"));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["nodes"], "{method}");
        let (shape, values) = &found["nodes"];
        assert_eq!(shape, &[2], "{method}");
        close(values[0], all["head_z"].1[3 * 8 + 7], method);
        close(values[1], all["mlp_out"].1[2], method);
        assert_eq!(about["axes"]["nodes"], json!(["node"]));
        assert_eq!(about["notes"]["nodes"], json!(["head_z:L3H7", "mlp_out:L2"]));
        assert!(printed.contains("head_z:L3H7") && printed.contains("mlp_out:L2"), "{method}: {printed}");
        let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
        assert!(report.contains("head_z:L3H7") && report.contains("mlp_out:L2"), "{method}");
    }
}

#[test]
fn every_name_of_a_single_node_gives_the_same_number() {
    let directory = directory(PAIRS);
    let (expected, ..) = sweep(&directory, "--nodes head_z:L3H7");
    for name in ["z:3.7", "head-z:l3h7", "L3H7", "3.7", "attn.hook_z:L3H7"] {
        let (found, ..) = sweep(&directory, &format!("--nodes {name}"));
        assert_eq!(found, expected, "{name}");
    }
    // All heads of a layer together are the attention output of the layer.
    let (together, ..) = sweep(&directory, "--nodes blocks.3.attn.hook_z,attn_out:L3");
    let values = &together["nodes"].1;
    close(values[0], values[1], "all heads of a layer");
}

#[test]
fn single_nodes_can_be_at_a_position_or_divided_by_position() {
    let directory = directory(PAIRS);
    let (all, ..) = sweep(&directory, "--nodes resid_pre --by position");
    let of_layer = &all["resid_pre@position"].1[2 * 15..3 * 15];
    let (divided, about, _) = sweep(&directory, "--nodes resid_pre:L2 --by position");
    let (shape, values) = &divided["nodes"];
    assert_eq!(shape, &[1, 15]);
    assert_eq!(about["axes"]["nodes"], json!(["node", "pos"]));
    values.iter().zip(of_layer).for_each(|(found, expected)| close(*found, *expected, "by position"));
    let (at, about, _) = sweep(&directory, "--nodes resid_pre:L2@10,resid_pre:L2@end --per-prompt");
    assert_eq!(about["notes"]["nodes"], json!(["resid_pre:L2@10", "resid_pre:L2@end"]));
    let table = std::fs::read_to_string(directory.path().join("o/effects.csv")).unwrap();
    assert!(table.contains("resid_pre:L2@end") && !table.contains("@marked"), "{table}");
    let (shape, values) = &at["nodes"];
    assert_eq!(shape, &[2, 2]);
    close((values[0] + values[2]) / 2.0, of_layer[10], "at a position");
    close((values[1] + values[3]) / 2.0, of_layer[14], "at the end");
    let (apart, ..) =
        sweep(&directory, "--method path-patching --nodes z:0.1 --receivers logits,q:3.7 --receivers-apart");
    assert_eq!(apart.keys().collect::<Vec<_>>(), ["nodes>head_q:L3H7", "nodes>logits"]);
}

#[test]
fn prompts_of_different_lengths_can_be_aligned_at_end() {
    let directory = directory(LENGTHS);
    let flags = "--metric logit-diff --nodes resid_pre --by position";
    let (start, ..) = sweep(&directory, &format!("{flags} --per-prompt"));
    let (end, about, _) = sweep(&directory, &format!("{flags} --per-prompt --align end"));
    assert_eq!(about["axes"]["resid_pre@position"], json!(["prompt", "layer", "pos_from_end"]));
    let ((shape, start), (_, end)) = (&start["resid_pre@position"], &end["resid_pre@position"]);
    assert_eq!(shape, &[2, 4, 15]);
    for (prompt, length) in [(0, 15), (1, 14)] {
        for layer in 0..4 {
            let of = |values: &[f32]| values[(prompt * 4 + layer) * 15..][..length].to_vec();
            let mut reversed = of(end);
            reversed.reverse();
            assert_eq!(reversed, of(start), "prompt {prompt}, layer {layer}");
        }
    }

    // In the last layer, END matters to both prompts. From the start, the longer prompt has it
    // alone.
    let (means, about, _) = sweep(&directory, &format!("{flags} --align end"));
    let mean = &means["resid_pre@position"].1[3 * 15..];
    close(mean[0], (end[3 * 15] + end[(4 + 3) * 15]) / 2.0, "END");
    let prompts: Vec<usize> = (0..15).map(|position| if position < 14 { 2 } else { 1 }).collect();
    assert_eq!(about["tensors"][0]["prompts_by_position"], json!(prompts));
    assert_eq!(about["notes"]["positions_from_end"][14], "END-14");
    let lines = std::fs::read_to_string(directory.path().join("o/effects.csv")).unwrap();
    assert!(lines.lines().next().unwrap().contains("pos_from_end"), "{lines}");
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    for word in ["to_END", "END-14", "END-14 exists in 1 of 2 prompts"] {
        assert!(report.contains(word), "{word} is not in the report");
    }

    let (nodes, about, _) = sweep(&directory, "--metric logit-diff --nodes resid_pre:L3 --by position --align end");
    assert_eq!(about["axes"]["nodes"], json!(["node", "pos_from_end"]));
    close(nodes["nodes"].1[0], mean[0], "a single node at END");
}

#[test]
fn reports_label_positions_by_their_token_only_where_all_prompts_share_it() {
    let directory = directory(LENGTHS);
    sweep(&directory, "--metric logit-diff --nodes resid_pre --by position");
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    // Both prompts have ` and` at position 3, and different names at position 2.
    for word in ["BOS_0", "and_3", "pos 2"] {
        assert!(report.contains(word), "{word} is not in the report");
    }
    assert!(!report.contains("John_2"), "a token of one prompt names the position of all");
}

#[test]
fn unknown_names_get_a_suggestion() {
    let directory = directory(PAIRS);
    let refused = |flags: &str, words: &[&str]| refused(directory.path(), flags, words);
    refused("--nodes head_zz", &["unknown node kind `head_zz`", "did you mean `head_z`?"]);
    refused("--nodes mlp_uot:L1", &["unknown node kind `mlp_uot`", "did you mean `mlp_out`?"]);
    refused("--nodes head_edge --method attribution-patching", &["did you mean `head_edges`?"]);
    refused("--method activation-paching", &["activation-patching"]);
    refused("--metric logit-dif", &["logit-diff"]);
    let path = |receivers: &str, words: &[&str]| {
        refused(&format!("--method path-patching --receivers {receivers}"), words);
    };
    path("logit", &["no receiver `logit`", "did you mean `logits`?"]);
    path("resid_pst:3", &["no receiver `resid_pst:3`", "did you mean `resid_post`?"]);
    path("logits@marke", &["no position `marke`", "did you mean `marked`?"]);
    refused("--model toy-gpt", &["unknown model `toy-gpt`", "did you mean `toy-gpt2`?"]);
    refused("--method integrated-gradients --rule trapezoidal", &["did you mean `trapezoid`?"]);
    refused("--method integrated-gradients --baseline zeros", &["did you mean `zero`?"]);
}

#[test]
fn names_outside_the_model_say_what_it_has() {
    let directory = directory(PAIRS);
    let refused = |flags: &str, words: &[&str]| refused(directory.path(), flags, words);
    refused("--nodes head_z:L9H0", &["no head_z:L9H0", "layer 9", "the model has 4 layers of 8 heads"]);
    refused("--nodes 3.8", &["no head_z:L3H8", "head 8", "the model has 4 layers of 8 heads"]);
    refused("--nodes mlp_out:L4", &["no mlp_out:L4", "layer 4", "there are 4"]);
    refused("--nodes mlp_post:L1N256", &["no mlp_post:L1N256", "neuron 256", "there are 256"]);
    refused("--nodes head_z:L1H2@99", &["no head_z:L1H2@99", "position 99", "there are 15"]);
    refused("--nodes head_z:L1N2", &["`L1N2` is no place for head_z", "L9H6 or 9.6"]);
}

#[test]
fn meaningless_single_nodes_and_alignments_are_refused() {
    let directory = directory(LENGTHS);
    let refused = |flags: &str, words: &[&str]| refused(directory.path(), flags, words);
    for method in ["integrated-gradients", "logit-attribution"] {
        let flags = format!("--method {method} --metric logit-diff --nodes head_z:L0H0");
        refused(&flags, &["takes kinds of nodes only", "activation-patching", "ablation take single nodes"]);
    }
    refused("--nodes head_z,head_z:L0H0", &["all nodes of head_z and the single node head_z:L0H0"]);
    refused("--nodes head_z:L0H0,0.0", &["names head_z:L0H0 twice"]);
    refused("--nodes z,head_z", &["names head_z twice"]);
    refused("--nodes head_z@3", &["`head_z@3` names no single node", "--by"]);
    refused("--nodes L0H0@3 --by position", &["head_z:L0H0@3 names its positions"]);
    refused("--nodes L0H0@14", &["prompt 1 (counted from 0) has only 14 tokens", "@end"]);
    refused("--nodes L0H0@marked", &["head_z:L0H0@marked: the pairs mark no position"]);
    refused("--nodes L0H0 --by cell", &["only attention patterns have cells"]);
    refused("--nodes L0H0 --method attribution-patching --verify 1", &["--verify ranks all nodes"]);
    refused("--nodes head_q:L0H0 --method path-patching --receivers logits", &["head_q:L0H0 writes nothing"]);
    refused("--method path-patching --receivers logits,resid_post:3", &["names resid_post:L3 twice"]);
    refused("--align end", &["--align end needs --by position"]);
    let attribution = "--method attribution-patching --by position --align end";
    refused(&format!("{attribution} --nodes head_z,head_edges"), &["--align end", "head_edges"]);
    refused(&format!("{attribution} --verify 2"), &["--align end", "--verify"]);
}
