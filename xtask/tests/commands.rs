//! The commands end to end, on the embedded models.

#[path = "../../tests/src/hub_server.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod hub_server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;
use serde_json::Value;

/// Runs a command that must succeed; returns what it printed.
fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .current_dir(directory)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    // No terminal, no progress bar.
    assert_eq!(told, "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |view: safetensors::tensor::TensorView<'_>| {
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (view.shape().to_vec(), values)
    };
    file.tensors().into_iter().map(|(name, view)| (name, read(view))).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const PAIRS: &str = r#"{"clean": "When John and Mary went to the shops, John gave the bag to", "corrupt": "When John and Mary went to the shops, Mary gave the bag to", "answers": [" Mary"], "wrong_answers": [" John"]}
{"clean": "When Tom and James went to the park, James gave the ball to", "corrupt": "When Tom and James went to the park, Tom gave the ball to", "answers": [" Tom"], "wrong_answers": [" James"]}
"#;

#[test]
fn reproduce_ioi_finds_heads_that_matter_and_writes_all_of_it() {
    for model in ["toy-gpt2", "toy-neox"] {
        let directory = tempfile::tempdir().unwrap();
        let printed =
            run(directory.path(), &["reproduce-ioi", "--model", model, "--prompts", "12", "--seed", "5"], &[]);
        for word in ["8 demo prompts", "12 generated prompts", "denoising", "noising", "Pearson", "report.html"] {
            assert!(printed.contains(word), "{model}: {word} is not in {printed}");
        }
        let out = directory.path().join("out/reproduce-ioi");
        let tensors = tensors(&out.join("effects.safetensors"));
        let (shape, exact) = &tensors["demo/activation-patching/denoising/head_z"];
        assert_eq!(shape, &[8, 4, 8]);
        let strongest = (0..32).map(|h| (0..8).map(|p| exact[p * 32 + h]).sum::<f32>() / 8.0).fold(0.0, f32::max);
        assert!(strongest > 0.1, "{model}: no head does anything");
        assert_eq!(tensors["demo/activation-patching/denoising/resid_pre@position"].0, [8, 4, 15]);
        assert_eq!(tensors["demo/attention-attribution"].0, [8, 4, 8, 15, 15]);
        assert_eq!(tensors["generated/attribution-patching/noising/head_z"].0, [12, 4, 8]);
        assert!(tensors.values().all(|(_, values)| values.iter().all(|v| v.is_finite())));

        // All of the behaviour enters at the token that differs: there the residual stream before layer 0 brings all back,
        // and positions before it nothing.
        let (_, residual) = &tensors["demo/activation-patching/denoising/resid_pre@position"];
        let at = |pos: usize| (0..8).map(|p| residual[p * 60 + pos]).sum::<f32>() / 8.0;
        assert!((at(10) - 1.0).abs() < 1e-4, "{model}: {}", at(10));
        assert!((0..10).all(|pos| at(pos) == 0.0), "{model}: something before the difference matters");

        let about = json(&out.join("effects.json"));
        assert_eq!([&about["seed"], &about["device"]], [&Value::from(5), &Value::from("flex")]);
        assert_eq!(about["tensors"].as_array().unwrap().len(), tensors.len());
        assert!(about["labels"]["demo"][0][2] == " John");
        assert_eq!(about["baselines"]["generated"]["clean"].as_array().unwrap().len(), 12);
        let lines = std::fs::read_to_string(out.join("effects.csv")).unwrap();
        let numbers: usize = tensors.values().map(|(_, values)| values.len()).sum();
        assert_eq!(lines.lines().count(), numbers + 1);

        let report = std::fs::read_to_string(out.join("report.html")).unwrap();
        for word in ["Attention attribution", "Residual stream by position", "Pearson", "Plotly.newPlot", "John_10"] {
            assert!(report.contains(word), "{model}: {word} is not in the report");
        }
        assert!(!report.contains("<script src="), "the report needs a network");
        assert!(report.len() < 8_000_000, "{} bytes", report.len());
    }
}

#[test]
fn sweep_writes_what_its_contract_says() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| {
        run(directory.path(), &[&["sweep", "--pairs", "pairs.jsonl", "--out", "o"], arguments].concat(), &[]);
        (tensors(&directory.path().join("o/effects.safetensors")), json(&directory.path().join("o/effects.json")))
    };
    let (heads, about) = sweep(&[]);
    assert_eq!(heads.keys().collect::<Vec<_>>(), ["head_z"]);
    assert_eq!(heads["head_z"].0, [4, 8]);
    assert_eq!(about["metric"], "logit-diff-normalised");
    assert_eq!(about["axes"]["head_z"], serde_json::json!(["layer", "head"]));
    assert!(about["baselines"]["clean_mean"].as_f64().unwrap() > 3.0);
    // The bar is 5 s for a sweep of all heads; it takes a fraction of one.
    assert!(about["wall_time_s"].as_f64().unwrap() < 5.0, "{}", about["wall_time_s"]);

    let (each, _) = sweep(&["--per-prompt"]);
    assert_eq!(each["head_z"].0, [2, 4, 8]);
    let mean: Vec<f32> = (0..32).map(|i| (each["head_z"].1[i] + each["head_z"].1[32 + i]) / 2.0).collect();
    assert!(mean.iter().zip(&heads["head_z"].1).all(|(a, b)| (a - b).abs() < 1e-6));

    let all = "resid_pre,resid_mid,resid_post,attn_out,mlp_out,head_q,head_k,head_v,head_z,head_result,head_pattern";
    for method in ["activation-patching", "attribution-patching"] {
        let (positions, _) = sweep(&["--method", method, "--nodes", all, "--by", "position", "--direction", "noising"]);
        assert_eq!(positions.len(), 11);
        assert_eq!(positions["head_z@position"].0, [4, 8, 15]);
        assert_eq!(positions["resid_mid@position"].0, [4, 15]);
        let (cells, _) = sweep(&["--method", method, "--nodes", "head_pattern", "--by", "cell"]);
        assert_eq!(cells["head_pattern@cell"].0, [4, 8, 15, 15]);
        let (neurons, _) = sweep(&["--method", method, "--nodes", "mlp_post"]);
        assert_eq!(neurons["mlp_post"].0, [4, 256]);
        for metric in ["logit-diff", "probability", "kl"] {
            let (effects, _) = sweep(&["--method", method, "--metric", metric]);
            assert!(effects["head_z"].1.iter().any(|v| v.abs() > 1e-4), "{method} {metric}");
        }
    }
    let (result, _) = sweep(&["--nodes", "head_result"]);
    assert_eq!(result["head_result"], heads["head_z"], "a head's output is a linear image of its mixed values");
    let (ndarray, about) = sweep(&["--device", "ndarray"]);
    assert_eq!(about["device"], "ndarray");
    assert!(ndarray["head_z"].1.iter().zip(&heads["head_z"].1).all(|(a, b)| (a - b).abs() < 1e-4));
    let (raw, about) = sweep(&["--no-process-weights"]);
    assert_eq!(about["processed_weights"], false);
    assert!(raw["head_z"].1.iter().zip(&heads["head_z"].1).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn the_same_command_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = |out: &str| {
        run(directory.path(), &["reproduce-ioi", "--prompts", "5", "--out", out], &[]);
        std::fs::read(directory.path().join(out).join("effects.safetensors")).unwrap()
    };
    assert!(bytes("first") == bytes("second"));
}

#[test]
fn a_model_from_a_directory_and_from_the_hub_is_the_embedded_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models/toy-neox");
    let files = ["config.json", "model.safetensors", "tokenizer.json"];
    let files = files.map(|name| (name.to_owned(), std::fs::read(toy.join(name)).unwrap()));
    let server = hub_server::HubServer::start("rewire/toy-neox", files.into());
    let home = directory.path().join("hub").display().to_string();
    let endpoint = server.endpoint();
    let environment = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
    let effects = |model: &str| {
        run(directory.path(), &["sweep", "--pairs", "pairs.jsonl", "--out", "o", "--model", model], &environment);
        std::fs::read(directory.path().join("o/effects.safetensors")).unwrap()
    };
    let embedded = effects("toy-neox");
    assert!(effects(&toy.display().to_string()) == embedded);
    assert!(effects("rewire/toy-neox") == embedded);
    assert!(server.requests() > 0);
}

#[test]
fn a_short_training_writes_a_model_that_loads() {
    let directory = tempfile::tempdir().unwrap();
    let train = ["train-toy", "--model", "toy-gpt2", "--steps", "3", "--batch", "4", "--out", "models"];
    assert!(run(directory.path(), &train, &[]).contains("held-out prompts"));
    let model = directory.path().join("models/toy-gpt2");
    assert_eq!(json(&model.join("training.json"))["options"]["steps"], 3);
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let path = model.display().to_string();
    run(directory.path(), &["sweep", "--pairs", "pairs.jsonl", "--model", &path, "--metric", "logit-diff"], &[]);
}
