//! `rewire verify`: an untouched run holds, a changed number is found, a changed input is named.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shared::{PAIRS, json as read, tensors};

/// A directory with the results of a sweep in `o`.
fn swept(pairs: &str, more: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), pairs).unwrap();
    let (code, _, error) =
        rewire(directory.path(), &[&["sweep", "--pairs", "pairs.jsonl", "--out", "o"], more].concat());
    assert_eq!(code, Some(0), "{more:?}: {error}");
    directory
}

/// Runs a command; returns its exit code, standard output and standard error.
fn rewire(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
    let output = command.args(arguments).current_dir(directory).output().unwrap();
    let [printed, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), printed, error)
}

fn verify(directory: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    rewire(directory, &[&["verify", "o"], more].concat())
}

/// Returns the contents of all files of the results.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory.join("o")).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

/// Asserts that untouched results hold, with a share and whole, and that nothing is written.
fn assert_holds(times: usize, more: &[&str], recomputed: &str) {
    let directory = swept(&PAIRS.repeat(times), more);
    let before = files(directory.path());
    for (share, what) in [("0.3", recomputed), ("1", "computed again: all numbers, over ")] {
        let (code, printed, error) = verify(directory.path(), &["--share", share]);
        assert_eq!(code, Some(0), "{more:?} --share {share}: {printed}{error}");
        assert!(printed.contains("inputs: as recorded\n"), "{more:?}: {printed}");
        assert!(printed.contains(what) && printed.ends_with("the numbers hold\n"), "{more:?}: {printed}");
    }
    // On the same machine, the same passes give the same bits.
    let (_, printed, _) = verify(directory.path(), &["--share", "1"]);
    assert!(printed.contains("all are equal\ntolerance: 0 ("), "{more:?}: {printed}");
    assert!(files(directory.path()) == before, "{more:?}: verify changed a file");
    let other: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(other.len(), 2, "{more:?}: {other:?}");
}

#[test]
fn untouched_patches_hold() {
    assert_holds(
        20,
        &["--nodes", "head_z,mlp_out"],
        "computed again: 11 of 36 nodes (seed 0), each over 40 prompt pairs",
    );
    assert_holds(
        1,
        &["--nodes", "resid_pre,head_q", "--by", "position", "--per-prompt"],
        " nodes (seed 0), each over ",
    );
    assert_holds(1, &["--nodes", "head_pattern", "--by", "cell", "--align", "end"], " nodes (seed 0), each over ");
    assert_holds(3, &["--intervals", "--model", "toy-neox", "--metric", "logit-diff"], " nodes (seed 0), each over ");
}

#[test]
fn untouched_ablations_paths_lists_and_edges_hold() {
    let share = " (seed 0), each over ";
    assert_holds(3, &["--method", "ablation", "--ablate", "mean", "--metric", "probability"], share);
    let paths = ["--method", "path-patching", "--receivers", "head_q:L3H1,logits", "--receivers-apart"];
    assert_holds(1, &paths, share);
    assert_holds(3, &["--nodes", "head_z:L0H1,head_z:L3H7@end,mlp_out:L2", "--prompt-batch", "2"], share);
    assert_holds(1, &["--nodes", "head_z:L0H1,mlp_out:L2", "--by", "position"], share);
    assert_holds(1, &["--nodes", "edges"], " edges (seed 0), each over ");
}

#[test]
fn untouched_estimates_hold_and_are_computed_whole() {
    let attribution = ["--method", "attribution-patching", "--nodes", "head_z,mlp_out,head_edges", "--verify", "5"];
    assert_holds(3, &attribution, "computed again: all numbers, over 6 prompt pairs (one backward pass");
    assert_holds(1, &["--method", "integrated-gradients", "--steps", "5"], "(the gradients of a line");
    assert_holds(1, &["--method", "logit-attribution"], "(one run gives all contributions)");
}

#[test]
fn prompts_of_different_lengths_hold() {
    let longer = r#"{"clean": "Then John and Mary went to the big old shops, John gave the bag to", "corrupt": "Then John and Mary went to the big old shops, Mary gave the bag to", "answers": [" Mary"], "wrong_answers": [" John"]}"#;
    let pairs = format!("{PAIRS}{longer}\n");
    for (more, what) in [
        (&["--nodes", "head_z,resid_mid", "--by", "position"][..], " nodes (seed 0), each over 3 prompt pairs"),
        (&["--nodes", "head_z", "--by", "position", "--align", "end"], "(a node that is counted from END"),
    ] {
        let directory = swept(&pairs, more);
        let (code, printed, error) = verify(directory.path(), &["--share", "0.5"]);
        assert_eq!(code, Some(0), "{more:?}: {printed}{error}");
        assert!(printed.contains(what), "{more:?}: {printed}");
    }
}

/// Changes one number in a tensor, and the SHA-256 of the file in effects.json if `hide` writes it.
fn change_number(directory: &Path, tensor: &str, at: usize, by: f32) {
    let path = directory.join("o/effects.safetensors");
    let mut all = tensors(&path);
    all.get_mut(tensor).unwrap().1[at] += by;
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = all
        .into_iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views =
        data.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Writes the SHA-256 of the changed tensors into effects.json.
fn hide(directory: &Path) {
    use sha2::{Digest, Sha256};
    let bytes = std::fs::read(directory.join("o/effects.safetensors")).unwrap();
    let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    edit(directory, |about| about["files"]["effects.safetensors"]["sha256"] = json!(sum));
}

/// Changes effects.json.
fn edit(directory: &Path, change: impl FnOnce(&mut Value)) {
    let path = directory.join("o/effects.json");
    let mut about = read(&path);
    change(&mut about);
    std::fs::write(&path, about.to_string()).unwrap();
}

#[test]
fn a_changed_number_is_found_if_it_is_in_the_share() {
    let directory = swept(PAIRS, &["--nodes", "head_z,mlp_out"]);
    let directory = directory.path();
    change_number(directory, "head_z", 13, 0.01);
    // The hash tells that some number was changed, in any share.
    let (code, printed, error) = verify(directory, &["--share", "0.01"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("effects.safetensors: its SHA-256 is not the one in effects.json"), "{printed}");
    assert!(error.contains("hold"), "{error}");
    // The comparison tells which, with seeds that choose the node.
    hide(directory);
    let mut found = 0;
    for seed in 0..8 {
        let (code, printed, error) = verify(directory, &["--share", "0.5", "--seed", &seed.to_string()]);
        let is_found = printed.contains("  head_z, layer 1, head ");
        assert_eq!(code, Some(i32::from(is_found)), "seed {seed}: {printed}{error}");
        found += i32::from(is_found);
    }
    assert!((1..8).contains(&found), "found with {found} of 8 seeds");
    let (code, printed, error) = verify(directory, &["--share", "1"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("  head_z, layer 1, head "), "{printed}");
    assert!(error.starts_with("the numbers do not hold: "), "{error}");
}

#[test]
fn a_changed_number_of_the_description_is_found() {
    type Case = (fn(&mut Value), &'static str, &'static str);
    let cases: [Case; 5] = [
        (|about| about["baselines"]["clean"][1] = json!(3.5), "0.1", "baselines.clean[1]"),
        (|about| about["baselines"]["corrupted_mean"] = json!(-0.25), "0.1", "baselines.corrupted_mean"),
        (|about| about["baselines"]["clean_correct"] = json!(77), "1", "baselines.clean_correct"),
        (|about| about["notes"]["uncertainty"]["clusters"] = json!(77), "1", "notes.uncertainty"),
        (|about| about["tensors"][0]["shape"][0] = json!(77), "1", "tensors[0].shape[0]"),
    ];
    for (change, share, place) in cases {
        let directory = swept(PAIRS, &[]);
        edit(directory.path(), change);
        let (code, printed, error) = verify(directory.path(), &["--share", share]);
        assert_eq!(code, Some(1), "{place}: {printed}{error}");
        assert!(printed.contains(place), "{place}: {printed}");
    }
}

#[test]
fn changed_inputs_are_named() {
    let directory = swept(PAIRS, &[]);
    let path = directory.path();
    // The same prompts in another file hold.
    std::fs::write(path.join("pairs.jsonl"), PAIRS.replace("{\"clean\"", "{ \"clean\"")).unwrap();
    let (code, printed, error) = verify(path, &[]);
    assert_eq!(code, Some(0), "{printed}{error}");
    assert!(printed.contains("  pairs.jsonl: recorded SHA-256 "), "{printed}");
    // Other prompts are another question.
    std::fs::write(path.join("pairs.jsonl"), PAIRS.replace("shops", "park")).unwrap();
    let (code, printed, error) = verify(path, &[]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("  pairs: the prompts or answers are others"), "{printed}");
    assert!(error.contains("nothing was computed again"), "{error}");
    // The recorded prompts in another place.
    std::fs::write(path.join("mine.jsonl"), PAIRS).unwrap();
    let (code, printed, error) = verify(path, &["--pairs", "mine.jsonl"]);
    assert_eq!(code, Some(0), "{printed}{error}");
    assert!(printed.contains("inputs: as recorded\n"), "{printed}");
    let (code, printed, error) = verify(path, &["--pairs", "mine.jsonl", "--share", "1"]);
    assert_eq!(code, Some(0), "{printed}{error}");
    // Another model.
    let (code, printed, error) = verify(path, &["--pairs", "mine.jsonl", "--model", "toy-neox"]);
    assert_eq!(code, Some(1), "{printed}{error}");
    assert!(printed.contains("  model.safetensors: recorded SHA-256 "), "{printed}");
    // Another version and another machine.
    edit(path, |about| {
        about["run"]["version"] = json!("0.0.1");
        about["provenance"]["machine"]["processor"] = json!("Pentium");
    });
    let (code, printed, error) = verify(path, &["--pairs", "mine.jsonl", "--share", "1"]);
    assert_eq!(code, Some(0), "{printed}{error}");
    for line in ["  version: recorded 0.0.1, now ", "  processor: recorded Pentium, now ", "on the scale of the metric"]
    {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}

#[test]
fn results_that_cannot_be_verified_are_one_error() {
    let directory = swept(PAIRS, &[]);
    let path = directory.path();
    let refused = |says: &str| {
        let (code, printed, error) = verify(path, &[]);
        assert_eq!((code, printed.as_str()), (Some(2), ""), "{error}");
        assert!(error.starts_with("error: ") && error.lines().count() == 1 && error.contains(says), "{says}: {error}");
    };
    let whole = std::fs::read(path.join("o/effects.json")).unwrap();
    for (contents, says) in [
        (&whole[..whole.len() / 2], "o/effects.json is damaged: it is no JSON"),
        (&b"{}"[..], "describes no sweep"),
        (&br#"{"command": ["sweep", 1], "run": {"command": "sweep"}}"#[..], "describes no sweep"),
        (&br#"{"command": ["reproduce-ioi"], "run": {"command": "reproduce-ioi"}}"#[..], "results of reproduce-ioi"),
        (&br#"{"command": ["sweep", "--fast"], "run": {"command": "sweep"}}"#[..], "not a sweep of this version"),
    ] {
        std::fs::write(path.join("o/effects.json"), contents).unwrap();
        refused(says);
    }
    std::fs::write(path.join("o/effects.json"), &whole).unwrap();
    let tensors = std::fs::read(path.join("o/effects.safetensors")).unwrap();
    std::fs::write(path.join("o/effects.safetensors"), &tensors[..20]).unwrap();
    refused("o/effects.safetensors is damaged");
    std::fs::remove_file(path.join("o/effects.json")).unwrap();
    refused("cannot read o/effects.json; give the output directory of a sweep");
    for share in ["0", "2", "NaN"] {
        let (code, _, error) = verify(path, &["--share", share]);
        assert!(code == Some(2) && error.contains("at most 1"), "{error}");
    }
}

#[test]
fn the_provenance_names_the_files_the_program_and_the_machine() {
    let directory = swept(PAIRS, &["--metric", "logit-diff"]);
    let about = read(&directory.path().join("o/effects.json"));
    let provenance = &about["provenance"];
    for name in ["config.json", "model.safetensors"] {
        assert_eq!(provenance["model_files"][name].as_str().unwrap().len(), 64, "{provenance}");
    }
    assert_eq!(provenance["tokenizer_sha256"].as_str().unwrap().len(), 64);
    assert_eq!([&provenance["rewire"], &provenance["backend"]], [&json!(env!("CARGO_PKG_VERSION")), &json!("flex")]);
    assert_eq!(provenance["precision"]["weights_and_activations"], "f32");
    assert!(provenance["machine"]["threads"].as_u64() > Some(0), "{provenance}");
    let started = about["started"].as_str().unwrap();
    assert!(started.len() == 20 && started.starts_with("20") && started.ends_with('Z'), "{started}");
}
