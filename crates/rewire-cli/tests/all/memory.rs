//! Where the weights are, and what a sweep says that it will take of the memory.

use std::path::Path;
use std::process::{Command, Stdio};

use rewire_model::TransformerConfig;
use tempfile::TempDir;

use crate::shared::{self, PAIRS};

/// A directory with pairs of token ids, and a folder `model` with this configuration and weights.
fn directory(config: &TransformerConfig, weights: &[u8]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.json"), config.to_hugging_face().to_string()).unwrap();
    std::fs::write(model.join("model.safetensors"), weights).unwrap();
    write_pairs(directory.path(), 8);
    directory
}

/// Writes pairs of token ids that all differ.
fn write_pairs(directory: &Path, number: usize) {
    let pairs = (0..number).map(|pair| {
        let prompt =
            |changed: usize| (0..15).map(|at| 7 * pair + at + usize::from(at >= 10) * changed).collect::<Vec<_>>();
        let [clean, corrupt] = [prompt(0), prompt(1)];
        format!("{}\n", serde_json::json!({ "clean": clean, "corrupt": corrupt, "answers": [3], "wrong_answers": [5] }))
    });
    std::fs::write(directory.join("pairs.jsonl"), pairs.collect::<String>()).unwrap();
}

#[test]
fn the_place_of_the_weights_does_not_change_the_results() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    for model in ["toy-gpt2", "toy-neox"] {
        for method in ["activation-patching", "attribution-patching", "ablation"] {
            let [memory, stored] = ["float32", "stored"].map(|weights| {
                let arguments = ["--model", model, "--method", method, "--weights", weights];
                shared::sweep(directory.path(), &arguments).0
            });
            assert!(memory == stored, "{model}, {method}");
        }
    }
}

fn refusal(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(["sweep", "--model", "model", "--pairs", "pairs.jsonl", "--out", "o"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(!directory.join("o").exists(), "{message}");
    message
}

#[test]
fn a_sweep_that_cannot_fit_is_refused_with_what_to_change() {
    // A trillion weights, in a file with holes.
    let large = TransformerConfig::llama(1000, 64, 8192, 1000, 64);
    let directory = directory(&large, b"");
    let weights = std::fs::File::create(directory.path().join("model/model.safetensors")).unwrap();
    weights.set_len(400 << 30).unwrap();
    let message = refusal(directory.path(), &["--weights", "float32"]);
    assert!(message.starts_with("error: the sweep takes about ") && message.contains(" TiB (weights "), "{message}");
    assert!(message.contains("are free; leave the weights in their files with --weights stored"), "{message}");

    let wide = TransformerConfig { d_mlp: 1 << 31, ..TransformerConfig::llama(1, 4, 32, 1000, 64) };
    std::fs::write(directory.path().join("model/config.json"), wide.to_hugging_face().to_string()).unwrap();
    let message = refusal(directory.path(), &["--weights", "stored", "--no-process-weights"]);
    assert!(message.contains("converted weights ") && message.contains("smaller batches"), "{message}");
}

/// The peak of a process's memory without mapped files, in bytes, as Linux counts it; and what the
/// process printed.
#[cfg(target_os = "linux")]
fn peak(directory: &Path, arguments: &[&str]) -> (u64, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(["sweep", "--model", "model", "--pairs", "pairs.jsonl", "--out", "o", "--force"])
        .args(arguments)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0);
        peak = peak.max(1024 * kilobytes);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    (peak, String::from_utf8(output.stderr).unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn the_peak_is_near_the_estimate() {
    use burn::backend::Flex;
    use rewire_model::Transformer;

    let config = TransformerConfig::gpt2(6, 8, 512, 20_000, 64);
    let model = Transformer::<Flex>::random(&config, 0, &Default::default());
    let [_, (_, weights)] = model.to_files().unwrap();
    let directory = directory(&config, &weights);
    let both = [vec![], vec!["--method", "attribution-patching", "--nodes", "head_z,mlp_post"]];
    for arguments in both
        .iter()
        .flat_map(|method| ["float32", "stored"].map(|weights| [method.as_slice(), &["--weights", weights]].concat()))
    {
        let (peak, printed) = peak(directory.path(), &arguments);
        let line = printed.lines().find_map(|line| line.split_once("model: memory: about ")).unwrap().1;
        let says = line.contains("the weights stay in files") && line.contains("converted weights");
        assert_eq!(says, arguments.contains(&"stored"), "{line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let estimate = words[0].parse::<f64>().unwrap() * if words[1] == "GiB" { 1024.0 } else { 1.0 };
        let peak = peak as f64 / f64::from(1 << 20);
        eprintln!("{arguments:?}: {peak:.0} MiB, estimated {estimate:.0} MiB");
        // The program itself takes some memory.
        assert!(peak < 1.25 * estimate + 64.0, "{arguments:?}: {peak} MiB, and {line}");
        assert!(estimate < 2.5 * peak, "{arguments:?}: {peak} MiB, and {line}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_peak_of_10000_prompts_is_that_of_100() {
    use burn::backend::Flex;
    use rewire_model::Transformer;

    // A large vocabulary makes a model of half the size of GPT-2 small, with a short sweep.
    let config = TransformerConfig::gpt2(2, 4, 64, 400_000, 64);
    let model = Transformer::<Flex>::random(&config, 0, &Default::default());
    let [_, (_, weights)] = model.to_files().unwrap();
    let directory = directory(&config, &weights);
    for arguments in [&["--intervals"] as &[&str], &["--method", "attribution-patching"]] {
        let [some, many] = [100, 10_000].map(|prompts| {
            write_pairs(directory.path(), prompts);
            peak(directory.path(), arguments).0
        });
        let ratio = many as f64 / some as f64;
        eprintln!("{arguments:?}: {} MiB for 100 prompts, {} MiB for 10,000", some >> 20, many >> 20);
        assert!(ratio < 1.1, "{arguments:?}: {ratio}");
        let of_pair = many.saturating_sub(some) / 9_900;
        assert!(of_pair < 4096, "{arguments:?}: {of_pair} bytes for each pair");
    }
}
