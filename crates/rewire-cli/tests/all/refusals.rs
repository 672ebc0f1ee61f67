//! Bad input gives one clear error and exit code 2, and nothing is written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rewire_store::{Key, OutputDirectory, Record, Waiting};
use tempfile::TempDir;

/// Runs a command in a directory.
fn run_in(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(arguments)
        .current_dir(directory)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", directory.join("no-cache"))
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .env_remove("HF_ENDPOINT")
        .output()
        .unwrap()
}

/// Returns every file below a directory.
fn contents(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    found
}

/// Asserts that a command is refused with `words` on standard error, and leaves its directory
/// unchanged.
fn assert_refused_in(directory: &TempDir, arguments: &[&str], words: &[&str]) {
    let before = contents(directory.path());
    let output = run_in(directory.path(), arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{arguments:?} does not say {word:?}: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(contents(directory.path()), before, "{arguments:?} wrote something");
}

/// Asserts that a sweep over a `pairs.jsonl` with these lines is refused.
fn assert_pairs_refused(lines: &str, words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), lines).unwrap();
    assert_refused_in(&directory, &["sweep", "--pairs", "pairs.jsonl"], words);
}

const GOOD: &str = r#"{"clean": [0, 1, 2], "corrupt": [0, 3, 2], "answers": [4], "wrong_answers": [5]}"#;

/// Asserts that a sweep over a good pair with further arguments is refused.
fn assert_sweep_refused(arguments: &[&str], words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), GOOD).unwrap();
    assert_refused_in(&directory, &[&["sweep", "--pairs", "pairs.jsonl"], arguments].concat(), words);
}

#[test]
fn unusable_pairs_are_refused() {
    let after_good = |line: &str| format!("{GOOD}\n\n{line}\n");
    assert_pairs_refused("", &["pairs.jsonl", "no prompt pairs"]);
    assert_pairs_refused("\n  \n", &["pairs.jsonl", "no prompt pairs"]);
    assert_pairs_refused(&after_good(r#"{"clean": [0, 1"#), &["pairs.jsonl, line 3", "EOF"]);
    assert_pairs_refused(
        &after_good(r#"{"clean": [0], "corrupt": [1], "answers": [2]}"#),
        &["line 3", "wrong_answers"],
    );
    let named_wrong = r#"{"clean": [0], "corupt": [1], "answers": [2], "wrong_answers": [3]}"#;
    assert_pairs_refused(named_wrong, &["line 1", "unknown key `corupt`", "`corrupt`"]);
    let both = r#"{"clean": [0], "corrupt": [1], "corrupted": [1], "answers": [2], "wrong_answers": [3]}"#;
    assert_pairs_refused(both, &["line 1", "`corrupt` and `corrupted` are the same key"]);
    let both_ways = r#"{"clean": [0], "corrupt": [1], "answers": [2], "wrong_answers": [3, 2]}"#;
    assert_pairs_refused(&after_good(both_ways), &["line 3", "both an answer and a wrong answer"]);
    let several = format!("{both_ways}\n{GOOD}\n{both}\n");
    assert_pairs_refused(&several, &["2 pairs that cannot be used", "line 1: ", "line 3: "]);
    assert_pairs_refused(&format!("[{GOOD}]"), &["one JSON object per line", "a JSON array"]);
    assert_pairs_refused(&format!("# pairs\n{GOOD}"), &["begins with a comment"]);
    assert_pairs_refused(&format!("{GOOD}\n# pairs\n"), &["line 2", "this is a comment"]);
    assert_pairs_refused(&format!("{GOOD},\n{GOOD}\n"), &["line 1", "text follows the JSON object"]);
    assert_pairs_refused("{\n \"clean\": [0],\n \"corrupt\": [1]\n}\n", &["object over several lines", "jq -c"]);
    assert_pairs_refused("just some text", &["plain text"]);
    assert_pairs_refused("clean;corrupted;answer\na;b;c", &["separated by semicolons", "by commas"]);
    assert_pairs_refused("a,b\n1,2\n", &["columns `clean` and `corrupted`", "found a, b"]);
    let wrong_type = r#"{"clean": 7, "corrupt": [1], "answers": [2], "wrong_answers": [3]}"#;
    assert_pairs_refused(wrong_type, &["line 1", "text or a list of token ids"]);
    let unequal = r#"{"clean": [0, 1], "corrupt": [1], "answers": [2], "wrong_answers": [3]}"#;
    assert_pairs_refused(&after_good(unequal), &["line 3", "clean prompt has 2 tokens and the corrupted prompt has 1"]);
    let no_answer = r#"{"clean": [0], "corrupt": [1], "answers": [], "wrong_answers": [3]}"#;
    assert_pairs_refused(no_answer, &["line 1", "no answer"]);
    let empty = r#"{"clean": [], "corrupt": [], "answers": [2], "wrong_answers": [3]}"#;
    assert_pairs_refused(empty, &["line 1", "no tokens"]);
    let several = r#"{"clean": " John", "corrupt": " Mary", "answers": [" Mary Mary"], "wrong_answers": [" John"]}"#;
    assert_pairs_refused(several, &["line 1", "\" Mary Mary\"", "2 tokens ( Mary| Mary)", "not one", "first-token"]);
    let spaceless = several.replace(" Mary Mary", "Mary");
    assert_pairs_refused(&spaceless, &["(M|ar|y)", "answers start with a space"]);
    let outside = r#"{"clean": [0, 99999], "corrupt": [0, 1], "answers": [2], "wrong_answers": [3]}"#;
    assert_pairs_refused(&after_good(outside), &["line 3", "99999", "outside the vocabulary"]);
    let outside = r#"{"clean": [0, 1], "corrupt": [0, 2], "answers": [2], "wrong_answers": [4000000]}"#;
    assert_pairs_refused(outside, &["line 1", "4000000", "outside the vocabulary"]);
    let long = vec!["1"; 200].join(",");
    let long = format!(r#"{{"clean": [{long}], "corrupt": [{long}], "answers": [2], "wrong_answers": [3]}}"#);
    assert_pairs_refused(&long, &["line 1", "200 tokens", "context of 48"]);
    let same = r#"{"clean": [0, 1], "corrupt": [0, 1], "answers": [2], "wrong_answers": [3]}"#;
    assert_pairs_refused(same, &["no difference to normalize by", "logit-diff"]);
}

#[test]
fn files_of_the_field_that_do_not_fit_are_refused() {
    assert_pairs_refused(r#"[{"case_id": 1, "requested_rewrite": {}}]"#, &["array of objects", "is CounterFact"]);
    assert_pairs_refused(r#"{"edges": {}, "nodes": {}}"#, &["found `edges`, `nodes`; such a file is a circuit"]);
    let prompts = "\"When John and Mary met, John gave it to\",\"When John and Mary met, Mary gave it to\"";
    let header = "clean,corrupted,corrupted_hard,correct_idx,incorrect_idx";
    let other = ["line 2: token id 5 is \"%\"", "of another tokenizer", "`answer` and `wrong_answer`"];
    assert_pairs_refused(&format!("{header}\n{prompts},,5,6\n"), &other);
    let answers = ["\" Montgomery\" is 7 tokens", "--answers first-token"];
    assert_pairs_refused(&format!("clean,corrupted,answer,wrong_answer\n{prompts},Montgomery,John\n"), &answers);

    let pair =
        r#"{"clean": "When Mary came", "corrupt": "When John came", "answers": [" to"], "wrong_answers": [" and"]}"#;
    let object = format!(r#"{{"prompts": [{pair}], "seq_labels": ["When", "name"], "word_idxs": {{"name": 1}}}}"#);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.json"), object).unwrap();
    let reason = "it names 2 positions, and the prompt of pair 1 has 3 tokens";
    assert_refused_in(&directory, &["sweep", "--pairs", "pairs.json", "--mark", "name"], &[reason, "`position`"]);
    let check = run_in(directory.path(), &["pairs", "check", "pairs.json"]);
    let [printed, complaints] = [check.stdout, check.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(check.status.code(), Some(0), "{complaints}");
    assert!(complaints.starts_with("warning: ") && complaints.contains(reason), "{complaints}");
    assert!(!printed.contains("marked"), "{printed}");
}

#[test]
fn meaningless_sweep_arguments_are_refused() {
    assert_sweep_refused(&["--nodes", "head_y"], &["head_y", "head_z"]);
    assert_sweep_refused(&["--nodes", ""], &["list of nodes is empty"]);
    assert_sweep_refused(&["--nodes", "head_z,head_z"], &["head_z twice"]);
    assert_sweep_refused(&["--nodes", "head_z", "--by", "cell"], &["head_z@cell", "only attention patterns"]);
    assert_sweep_refused(&["--model", "toy-neox", "--nodes", "resid_mid"], &["resid_mid", "parallel"]);
    assert_sweep_refused(&["--method", "guesswork"], &["guesswork", "attribution-patching"]);
    assert_sweep_refused(&["--direction", "sideways"], &["sideways", "noising"]);
    assert_sweep_refused(&["--metric", "vibes"], &["vibes", "logit-diff-normalized"]);
    assert_sweep_refused(&["--method", "attribution-patching", "--metric", "accuracy"], &["accuracy", "gradient"]);
    assert_sweep_refused(&["--nodes", "head_edges"], &["head_edges", "needs --method attribution-patching"]);
    assert_sweep_refused(&["--by", "marked"], &["head_z@marked", "mark no position"]);
    assert_sweep_refused(&["--norm", "frozen"], &["--norm frozen needs --nodes head_edges"]);
    let edges = ["--method", "attribution-patching", "--nodes", "head_edges", "--by", "position"];
    assert_sweep_refused(&edges, &["head_edges are not nodes", "remove --by"]);
    let of_edges = |more: &[&str], words: &[&str]| {
        assert_sweep_refused(&[&["--nodes", "edges", "--method", "attribution-patching"], more].concat(), words);
    };
    of_edges(&["--by", "position"], &["edges are not nodes", "remove --by"]);
    let one = ["--nodes", "a0.h0->m1", "--method", "attribution-patching", "--verify", "3"];
    assert_sweep_refused(&one, &["--verify ranks all edges, and a0.h0->m1 is one edge"]);
    of_edges(&["--intervals"], &["--intervals does not go with --nodes edges"]);
    of_edges(&["--metric", "kl", "--direction", "noising"], &["edge attribution", "kl"]);
    of_edges(&["--steps", "3"], &["--steps needs --method integrated-gradients, or --integrate"]);
    assert_sweep_refused(&["--nodes", "edges,head_z"], &["edges and nodes", "two commands"]);
    assert_sweep_refused(
        &["--nodes", "edges", "--method", "ablation"],
        &["activation-patching or attribution-patching"],
    );
    assert_sweep_refused(&["--integrate", "inputs"], &["--integrate needs --nodes edges"]);
    assert_sweep_refused(&["--backward", "lrp"], &["unknown backward rule `lrp`; use gradient, relp or gim"]);
    assert_sweep_refused(&["--backward", "relp"], &["--backward relp needs --method attribution-patching"]);
    assert_sweep_refused(
        &["--backward", "gim", "--method", "integrated-gradients"],
        &["--backward gim does not go with --method integrated-gradients", "--integrate inputs"],
    );
    assert_sweep_refused(
        &["--backward", "relp", "--method", "attribution-patching", "--nodes", "head_edges", "--norm", "exact"],
        &["--backward relp holds the scales of norms constant; remove --norm exact"],
    );
    assert_sweep_refused(&["--memory-budget", "much"], &["it is no size", "such as 8GiB"]);
    let unknown = ["--method", "path-patching", "--receivers", "L3H7"];
    assert_sweep_refused(&unknown, &["there are logits (the last residual stream), resid_pre:L3"]);
    let attribution = ["--method", "attribution-patching"];
    let refused = |more: &[&str], words: &[&str]| assert_sweep_refused(&[&attribution, more].concat(), words);
    refused(&["--verify", "33"], &["the 33 nodes of largest attribution", "only 32"]);
    refused(&["--verify", "0"], &["--verify", "at least 1"]);
    assert_sweep_refused(&["--intervals"], &["--intervals needs at least 2 prompt pairs"]);
    let mirrored = GOOD.replace("clean", "other").replace("corrupt", "clean").replace("other", "corrupt");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), format!("{GOOD}\n{mirrored}")).unwrap();
    let intervals = ["sweep", "--pairs", "pairs.jsonl", "--intervals"];
    assert_refused_in(&directory, &intervals, &["all 2 pairs in pairs.jsonl are the same two prompts"]);
    refused(&["--verify", "3", "--nodes", "head_edges"], &["head_edges are not nodes"]);
    refused(&["--nodes", "head_edges", "--norm", "melted"], &["melted", "use exact or frozen"]);
    assert_sweep_refused(&["--verify", "3"], &["--verify", "attribution-patching"]);
    let half_marked = format!("{}\n{GOOD}", GOOD.replace('}', ", \"position\": 1}"));
    assert_pairs_refused(&half_marked, &["line 2", "`position` is missing"]);
    assert_pairs_refused(&GOOD.replace('}', ", \"position\": 3}"), &["line 1", "marked position is 3", "3 tokens"]);
    let nowhere = tempfile::tempdir().unwrap();
    assert_refused_in(&nowhere, &["sweep", "--pairs", "absent.jsonl"], &["absent.jsonl", "No such file"]);
    assert_refused_in(&nowhere, &["sweep"], &["--pairs"]);
    assert_refused_in(&nowhere, &["reproduce-ioi", "--corruption", "swap"], &["swap", "s2-io"]);
    let unfetched = ["smollm2 is not fetched", "no-cache/hub/rewire/smollm2/SmolLM2", "`cargo xtask fetch-smollm2`"];
    assert_refused_in(&nowhere, &["pairs", "check", "absent.jsonl", "--model", "smollm2"], &unfetched);
}

#[test]
fn meaningless_path_arguments_are_refused() {
    let refused = |arguments: &[&str], words: &[&str]| {
        assert_sweep_refused(&[&["--method", "path-patching", "--metric", "logit-diff"], arguments].concat(), words);
    };
    refused(&[], &["--method path-patching needs --receivers"]);
    refused(
        &["--receivers", "q:9.1"],
        &["no receiver head_q:L9H1", "layer 9 is out of range (the model has 4 layers of 8 heads"],
    );
    refused(
        &["--receivers", "q:1.9"],
        &["no receiver head_q:L1H9", "head 9 is out of range (the model has 4 layers of 8 heads"],
    );
    refused(&["--receivers", "z:1.1"], &["no receiver `z:1.1`", "mlp_in:L"]);
    refused(&["--receivers", "resid_post:1.1"], &["no receiver `resid_post:1.1`"]);
    refused(&["--receivers", "q:1.1@3"], &["head_q:L1H1@3", "position 3 is out of range (there are 3"]);
    refused(&["--receivers", "q:1.1@last"], &["no position `last`", "end"]);
    refused(&["--receivers", "q:1.1@marked"], &["head_q:L1H1@marked", "mark no position"]);
    refused(&["--receivers", "q:1.1,q:1.1"], &["names head_q:L1H1 twice"]);
    refused(&["--receivers", "q:1.1", "--freeze", "nothing"], &["no policy `nothing`", "redwood"]);
    refused(
        &["--receivers", "q:1.1", "--nodes", "head_pattern"],
        &["head_pattern:L0H0 writes nothing", "cannot be a sender", "cannot be a sender"],
    );
    refused(&["--receivers", "q:1.1", "--nodes", "head_w"], &["head_w", "mlp_post"]);
    refused(&["--model", "toy-neox", "--receivers", "resid_mid:1"], &["resid_mid:L1", "parallel"]);
    assert_sweep_refused(&["--receivers", "q:1.1"], &["--receivers needs --method path-patching"]);
    assert_sweep_refused(&["--freeze", "direct"], &["--freeze needs --method path-patching"]);
    let attribution = ["--method", "logit-attribution"];
    let refused = |more: &[&str], words: &[&str]| assert_sweep_refused(&[&attribution, more].concat(), words);
    refused(&["--nodes", "head_q"], &["head_q", "writes nothing to the residual stream itself"]);
    refused(&["--nodes", "head_z", "--by", "position"], &["head_z@position", "read at one position"]);
    refused(&["--metric", "kl"], &["measures the logit difference only", "kl"]);
    refused(&["--direction", "denoising"], &["uses the clean run only"]);
    let nowhere = tempfile::tempdir().unwrap();
    let pythia = |more: &[&str], words: &[&str]| {
        assert_refused_in(&nowhere, &[&["reproduce-pythia"], more].concat(), words);
    };
    pythia(&["--prompts", "1"], &["--prompts must be at least 2"]);
    pythia(&["--threshold", "0"], &["--threshold", "above 0"]);
    pythia(&["--choose-prompts", "9"], &["--choose-prompts must be at least 10"]);
    pythia(&["--judge-prompts", "9"], &["--judge-prompts must be at least 10"]);
    pythia(&["--show", "70"], &["--show 70 is not one of the 70 prompts"]);
    pythia(&["--model", "pythia-160m"], &["EleutherAI/pythia-160m", "HF_HUB_OFFLINE"]);
    assert_refused_in(&nowhere, &["reproduce-facts", "--model", "gpt2-xl"], &["gpt2-xl", "HF_HUB_OFFLINE"]);
}

#[test]
fn missing_and_incomplete_models_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |model: &str, words: &[&str]| {
        assert_refused_in(&directory, &["reproduce-ioi", "--model", model], words);
    };
    refused("gpt5", &["unknown model `gpt5`", "toy-gpt2", "pythia-160m"]);
    refused("gpt2", &["config.json", "openai-community/gpt2", "HF_HUB_OFFLINE", "no-cache"]);
    refused("somebody/something@v2", &["somebody/something", "v2", "HF_HUB_OFFLINE"]);

    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models/toy-gpt2");
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    refused("model", &["model has no config.json"]);
    std::fs::copy(toy.join("config.json"), model.join("config.json")).unwrap();
    refused("model", &["no model.safetensors"]);
    let weights = std::fs::read(toy.join("model.safetensors")).unwrap();
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    refused("model", &["no tokenizer.json"]);
    std::fs::write(model.join("tokenizer.json"), "{}").unwrap();
    refused("model", &["tokenizer.json is not a tokenizer"]);
    std::fs::copy(toy.join("tokenizer.json"), model.join("tokenizer.json")).unwrap();
    refused("model", &["model.safetensors", "ends before the last tensor"]);

    let mut damaged = weights.clone();
    let last = damaged.len() - 4;
    damaged[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), damaged).unwrap();
    refused("model", &["model.safetensors: tensor `", "holds NaN"]);
    std::fs::write(model.join("model.safetensors"), &weights).unwrap();
    let config = std::fs::read_to_string(toy.join("config.json")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        std::fs::write(model.join("config.json"), config.replace(from, to)).unwrap();
    };
    with("\"n_layer\": 4", "\"n_layer\": 5");
    refused("model", &["model.safetensors lacks the tensor `h.4."]);
    with("\"n_layer\": 4", "\"n_layer\": 3");
    refused("model", &["model.safetensors holds the tensor `h.3."]);
    with("\"n_inner\": 256", "\"n_inner\": 255");
    refused("model", &["tensor `h.0.mlp.c_fc.bias` has shape [256]", "implies [255]"]);
    std::fs::write(model.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    refused("model", &["config.json", "`bert` is not supported"]);
}

#[test]
fn unavailable_devices_and_directories_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        assert_refused_in(&directory, &[&["reproduce-ioi"], arguments].concat(), words);
    };
    if !cfg!(feature = "cuda") {
        refused(&["--device", "cuda"], &["cuda:0", "without CUDA"]);
    }
    refused(&["--device", "cuda:7"], &["cuda:7"]);
    refused(&["--device", "tpu"], &["no device `tpu`"]);
    std::fs::write(directory.path().join("file"), "here before").unwrap();
    refused(&["--out", "file"], &["output directory", "file"]);
    refused(&["--out", "file/below"], &["output directory", "file/below"]);
    refused(&["--out", "/proc/rewire"], &["output directory", "/proc/rewire"]);
    assert_eq!(std::fs::read_to_string(directory.path().join("file")).unwrap(), "here before");
}

#[test]
fn meaningless_numbers_and_sizes_are_refused() {
    assert_sweep_refused(&["--device", "flex", "--tf32"], &["--tf32", "NVIDIA", "--device flex"]);
    assert_sweep_refused(&["--dtype", "f8"], &["unknown dtype `f8`", "use f32 or bf16"]);
    assert_sweep_refused(&["--memory-budget", "much"], &["--memory-budget", "8GiB"]);
    assert_sweep_refused(&["--memory-budget", "0"], &["--memory-budget", "more than 0"]);
    let directory = tempfile::tempdir().unwrap();
    assert_refused_in(&directory, &["bench", "--sizes", "huge"], &["huge", "gpt2-xl"]);
    assert_refused_in(&directory, &["bench", "--pairs", "0"], &["at least 1"]);
    assert_refused_in(&directory, &["bench", "--pairs", "3"], &["must be even"]);
    let no_such_numbers: &[&str] = match cfg!(feature = "ndarray") {
        true => &["--dtype bf16", "--device ndarray"],
        false => &["--device ndarray", "built without", "--features ndarray"],
    };
    assert_sweep_refused(&["--device", "ndarray", "--dtype", "bf16"], no_such_numbers);
}

#[test]
fn an_output_directory_with_another_runs_record_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), GOOD).unwrap();
    let out = directory.path().join("o");
    std::fs::create_dir(&out).unwrap();
    let taken = OutputDirectory::take(&out, &[], "other", Waiting::Refuse).unwrap();
    let other = Record::open(&taken, &serde_json::json!({ "metric": "kl" })).unwrap();
    other.store(Key { portion: 0, number: 0, plan: 0 }, &[0.0]).unwrap();
    let sweep = ["sweep", "--pairs", "pairs.jsonl", "--out", "o"];
    assert_refused_in(&directory, &sweep, &["another run is writing to o (other, process", "--wait"]);
    drop(other);
    drop(taken);
    let unfinished = out.join("unfinished.jsonl");
    let before = std::fs::read(&unfinished).unwrap();
    assert_refused_in(&directory, &sweep, &["unfinished run of another command", "metric", "choose another --out"]);
    assert_eq!(std::fs::read(&unfinished).unwrap(), before);
    for mine in ["notes of my own\n", "without a newline"] {
        std::fs::write(&unfinished, mine).unwrap();
        assert_refused_in(&directory, &sweep, &["unfinished.jsonl was not written by rewire", "choose another --out"]);
        assert_eq!(std::fs::read_to_string(&unfinished).unwrap(), mine);
    }
}

#[test]
fn meaningless_integrals_and_ablations_are_refused() {
    let integral = |more: &[&str], words: &[&str]| {
        assert_sweep_refused(&[&["--method", "integrated-gradients"], more].concat(), words);
    };
    integral(&["--steps", "0"], &["--steps", "at least 1"]);
    integral(&["--rule", "simpson"], &["simpson", "gauss-legendre", "trapezoid"]);
    integral(&["--rule", "trapezoid", "--steps", "1"], &["trapezoid needs at least 2 steps"]);
    integral(&["--tolerance", "0"], &["--tolerance", "above 0"]);
    integral(&["--steps", "99999999999"], &["99999999999 steps", "at most 1000000 are allowed"]);
    // Such a coarse rule misses more than the rounding of the metric, which every tolerance allows.
    integral(
        &["--rule", "riemann-left", "--steps", "2", "--tolerance", "1e-12"],
        &["head_z, layer", "give more steps or a larger tolerance"],
    );
    integral(&["--baseline", "nowhere"], &["nowhere", "neither corrupt, zero or mean nor a file"]);
    integral(&["--nodes", "head_q"], &["head_q", "only nodes that are added to the residual stream"]);
    integral(&["--nodes", "head_pattern", "--by", "cell"], &["by position"]);
    integral(&["--direction", "denoising"], &["uses the clean run only", "remove --direction denoising"]);
    integral(&["--metric", "accuracy"], &["accuracy", "gradient"]);
    integral(&["--ablate", "zero"], &["--ablate needs --method ablation"]);
    integral(&["--reference", "pairs.jsonl"], &["--reference needs"]);
    assert_sweep_refused(&["--steps", "5"], &["--steps needs --method integrated-gradients, or --integrate"]);
    assert_sweep_refused(&["--baseline", "zero"], &["--baseline needs"]);
    let ablation = |more: &[&str], words: &[&str]| {
        assert_sweep_refused(&[&["--method", "ablation"], more].concat(), words);
    };
    ablation(&["--mean-over", "position"], &["--mean-over needs"]);
    ablation(&["--ablate", "bleach"], &["bleach", "resample"]);
    ablation(&["--ablate", "mean", "--nodes", "head_pattern"], &["attn.hook_pattern", "no mean over prompts"]);
    ablation(&["--ablate", "mean", "--model", "toy-neox", "--nodes", "head_k"], &["head_k", "rotates"]);
    ablation(&["--ablate", "mean", "--reference", "absent.jsonl"], &["reference set", "absent.jsonl"]);

    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), GOOD).unwrap();
    std::fs::write(directory.path().join("empty.jsonl"), "\n").unwrap();
    let refused = |more: &[&str], words: &[&str]| {
        let sweep = ["sweep", "--pairs", "pairs.jsonl", "--metric", "logit-diff"];
        assert_refused_in(&directory, &[&sweep, more].concat(), words);
    };
    let empty = ["--method", "ablation", "--ablate", "mean", "--reference", "empty.jsonl"];
    refused(&empty, &["reference set", "empty.jsonl", "no prompt pairs"]);
    let given = |name: &str, shape: Vec<usize>| {
        let zeros = vec![0_u8; 4 * shape.iter().product::<usize>()];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &zeros).unwrap();
        std::fs::write(directory.path().join("given"), safetensors::serialize([(name, view)], None).unwrap()).unwrap();
    };
    let to_file = ["--method", "integrated-gradients", "--baseline", "given"];
    let zeros = [0_u8; 4 * 8 * 7];
    let views = (0..4).map(|layer| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1, 8, 7], &zeros).unwrap();
        (format!("blocks.{layer}.attn.hook_z"), view)
    });
    std::fs::write(directory.path().join("given"), safetensors::serialize(views, None).unwrap()).unwrap();
    refused(&to_file, &["`blocks.0.attn.hook_z`", "[1, 1, 8, 7]", "[1, 3, 8, 16]"]);
    given("blocks.0.attn.hook_z", vec![8, 8]);
    refused(&to_file, &["given, tensor `blocks.0.attn.hook_z`", "2 dimensions"]);
    given("blocks.4.attn.hook_z", vec![1, 1, 8, 16]);
    refused(&to_file, &["blocks.4.attn.hook_z", "4 layers"]);
    given("blocks.0.attn.hook_y", vec![8, 8]);
    refused(&to_file, &["given", "hook_y", "not a hook point"]);
    given("blocks.0.attn.hook_z", vec![1, 1, 8, 16]);
    refused(&to_file, &["given has no tensor `blocks.1.attn.hook_z`", "in every layer"]);
    let nan = f32::NAN.to_le_bytes().repeat(128);
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1, 8, 16], &nan).unwrap();
    let bytes = safetensors::serialize([("blocks.0.attn.hook_z", view)], None).unwrap();
    std::fs::write(directory.path().join("given"), bytes).unwrap();
    refused(&to_file, &["given, tensor `blocks.0.attn.hook_z`", "number 0 is NaN"]);
    std::fs::write(directory.path().join("given"), "no tensors").unwrap();
    refused(&to_file, &["given is no safetensors file"]);

    let nowhere = tempfile::tempdir().unwrap();
    let compare =
        |more: &[&str], words: &[&str]| assert_refused_in(&nowhere, &[&["reproduce-ig"], more].concat(), words);
    compare(&["--heads", "1.2,1.2"], &["--heads names L1H2 twice"]);
    compare(&["--heads", "4.0"], &["L4H0", "4 layers of 8 heads"]);
    compare(&["--heads", "head6"], &["head6", "as L9H6 or 9.6"]);
    compare(&["--steps", "0"], &["--steps", "at least 1"]);
    compare(&["--panels", "0"], &["--panels", "at least 1"]);
    compare(&["--rule", "simpson"], &["simpson", "riemann-left"]);
    compare(&["--tolerance", "0"], &["--tolerance", "above 0"]);
    compare(&["--prompts", "99999999999999"], &["--prompts", "at most 1000000"]);
    compare(&["--range", "0.2", "0.5"], &["--range", "all from 0 to 1"]);
    compare(&["--range", "0", "inf"], &["--range", "all from 0 to 1"]);
}

/// Writes a toy model to `directory/model`, with the numbers in one tensor multiplied by `times`.
fn spoiled_model(directory: &TempDir, tensor: &str, times: f32) {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models/toy-gpt2");
    let model = directory.path().join("model");
    std::fs::create_dir_all(&model).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(toy.join(file), model.join(file)).unwrap();
    }
    let mut bytes = std::fs::read(toy.join("model.safetensors")).unwrap();
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let (from, to) = metadata.info(tensor).unwrap().data_offsets;
    for number in bytes[8 + header..][from..to].chunks_exact_mut(4) {
        let value = f32::from_le_bytes(number.try_into().unwrap()) * times;
        number.copy_from_slice(&value.to_le_bytes());
    }
    std::fs::write(model.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_their_hook_point() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), GOOD).unwrap();
    // The square of the residual stream overflows, and a norm that divides by infinity gives zeros,
    // so the metric would be finite.
    spoiled_model(&directory, "h.1.mlp.c_proj.weight", 1e30);
    let refused = |arguments: &[&str], words: &[&str]| {
        let sweep = ["sweep", "--pairs", "pairs.jsonl", "--model", "model", "--out", "out/sweep"];
        assert_refused_in(&directory, &[&sweep, arguments].concat(), words);
    };
    let place = ["prompt 0", "`blocks.2.ln1.hook_scale`"];
    for metric in ["logit-diff-normalized", "logit-diff", "probability", "accuracy", "kl"] {
        refused(&["--metric", metric], &place);
        refused(&["--metric", metric, "--method", "ablation"], &place);
        refused(&["--metric", metric, "--method", "path-patching", "--receivers", "q:3.1"], &place);
        if metric != "accuracy" {
            refused(&["--metric", metric, "--method", "attribution-patching"], &place);
            refused(&["--metric", metric, "--method", "integrated-gradients"], &place);
        }
    }
    refused(&["--method", "logit-attribution"], &place);
    refused(&["--method", "attribution-patching", "--nodes", "head_edges"], &place);
    for command in ["reproduce-ioi", "reproduce-ig", "reproduce-facts", "reproduce-pythia"] {
        assert_refused_in(
            &directory,
            &[command, "--model", "model", "--prompts", "4"][..if command == "reproduce-facts" { 3 } else { 5 }],
            &["blocks.2.ln1.hook_scale"],
        );
    }

    // An overflow in a patched run is found after other passes were recorded. The record is
    // removed.
    spoiled_model(&directory, "wte.weight", 1.0);
    let given: Vec<_> = (0..4)
        .map(|layer| {
            let mut values = vec![0.0_f32; 128];
            values[..16].fill(if layer == 3 { 1e38 } else { 0.0 });
            (format!("blocks.{layer}.attn.hook_z"), values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
        })
        .collect();
    let views = given.iter().map(|(name, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1, 8, 16], bytes).unwrap())
    });
    std::fs::write(directory.path().join("given"), safetensors::serialize(views, None).unwrap()).unwrap();
    let to_given = ["--method", "integrated-gradients", "--baseline", "given", "--metric", "logit-diff"];
    refused(&to_given, &["head_z, layer 3", "range of float32", "prompt 0"]);
}

#[test]
fn vanishing_gradients_are_refused() {
    for nodes in ["head_z", "head_edges"] {
        let arguments =
            ["--method", "attribution-patching", "--metric", "kl", "--direction", "noising", "--nodes", nodes];
        assert_sweep_refused(&arguments, &["`kl`", "clean run", "gradient is 0", "denoising", "integrated gradients"]);
    }
    let screened = ["--method", "attribution-patching", "--metric", "kl", "--direction", "noising", "--verify", "3"];
    assert_sweep_refused(&screened, &["`kl`", "gradient is 0"]);
}

#[test]
fn a_reference_that_is_too_short_for_means_at_positions_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), GOOD).unwrap();
    std::fs::write(directory.path().join("short.jsonl"), GOOD.replace(", 2]", "]")).unwrap();
    let mean = ["--method", "ablation", "--ablate", "mean", "--mean-over", "position", "--reference", "short.jsonl"];
    let sweep = [&["sweep", "--pairs", "pairs.jsonl"][..], &mean].concat();
    assert_refused_in(&directory, &sweep, &["more than 2 tokens", "has 3", "--mean-over all"]);
}
