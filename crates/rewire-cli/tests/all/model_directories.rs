//! Model directories as they are found: older files are read, and doubtful ones give a warning on
//! the screen, in the report and in `effects.json`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::shared::{self, PAIRS, Tensors};
use rewire_tests::gguf_gpt2;
use rewire_tests::model_files::{self, Stored};
use serde_json::{Value, json};
use tempfile::TempDir;

fn toy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models").join(name)
}

/// Creates a directory with pairs and a copy of a toy in `model`, with changed tensors and
/// configuration.
fn directory(name: &str, change: impl Fn(&mut model_files::Tensors, &mut Value)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let mut tensors = model_files::read(&toy(name).join("model.safetensors"));
    let mut config = shared::json(&toy(name).join("config.json"));
    change(&mut tensors, &mut config);
    model_files::write(&model.join("model.safetensors"), &tensors);
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(toy(name).join("tokenizer.json"), model.join("tokenizer.json")).unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    directory
}

fn sweep(directory: &Path) -> Output {
    let arguments = ["sweep", "--model", "model", "--pairs", "pairs.jsonl", "--metric", "logit-diff", "--out", "o"];
    Command::new(env!("CARGO_BIN_EXE_rewire")).args(arguments).current_dir(directory).output().unwrap()
}

/// Returns the effects of a sweep, and its warnings. They must be the same lines on the screen and
/// in `effects.json`, and the report must have them.
fn effects(directory: &Path) -> (Tensors, Vec<String>) {
    let output = sweep(directory);
    let screen = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{screen}");
    let screen: Vec<String> =
        screen.lines().filter_map(|line| line.strip_prefix("warning: ")).map(str::to_owned).collect();
    let out = directory.join("o");
    assert_eq!(shared::json(&out.join("effects.json"))["warnings"], json!(screen));
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    for warning in screen.iter().filter(|warning| warning.starts_with("model")) {
        let start = &warning[..warning.find(';').unwrap_or(warning.len())];
        assert!(report.contains(start), "the report does not have {start}");
    }
    (shared::tensors(&out.join("effects.safetensors")), screen)
}

/// Returns the error of a sweep that is refused.
fn refusal(directory: &Path) -> String {
    let output = sweep(directory);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    error
}

#[test]
fn a_tied_unembedding_that_differs_is_ignored_with_a_warning() {
    let (expected, none) = effects(directory("toy-gpt2", |_, _| ()).path());
    assert_eq!(none, Vec::<String>::new());
    let with_unembedding = |change: &dyn Fn(&mut Stored)| {
        let directory = directory("toy-gpt2", |tensors, _| {
            let name = tensors.keys().find(|name| name.ends_with("wte.weight")).unwrap();
            let mut unembedding = tensors[name].clone();
            change(&mut unembedding);
            tensors.insert("lm_head.weight".to_owned(), unembedding);
        });
        effects(directory.path())
    };
    assert_eq!(with_unembedding(&|_| ()), (expected.clone(), Vec::new()), "an equal unembedding");
    let (found, warnings) = with_unembedding(&|stored| stored.bytes.fill(0));
    assert_eq!(found, expected);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(
        warning.contains("the tensor `lm_head.weight` is ignored") && warning.contains("largest difference"),
        "{warning}"
    );

    let neox = directory("toy-neox", |_, config| config["tie_word_embeddings"] = true.into());
    let (_, warnings) = effects(neox.path());
    let is_ours = |warning: &String| warning.contains("the tensor `embed_out.weight` is ignored");
    assert!(warnings.iter().any(is_ours), "{warnings:?}");
}

#[test]
fn a_wrapped_model_is_read_without_its_prefix() {
    let (expected, _) = effects(directory("toy-neox", |_, _| ()).path());
    let prefixed = |prefix: &str| {
        directory("toy-neox", |tensors, _| {
            *tensors =
                std::mem::take(tensors).into_iter().map(|(name, stored)| (prefix.to_owned() + &name, stored)).collect();
        })
    };
    let (found, warnings) = effects(prefixed("module.").path());
    assert_eq!(found, expected);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains("begin with `module.`"), "{warning}");
    let refused = refusal(prefixed("net.").path());
    assert!(
        refused.contains("`net.gpt_neox.embed_in.weight`") && refused.contains("remove the prefix `net.`"),
        "{refused}"
    );
}

#[test]
fn vocabulary_and_merges_replace_a_tokenizer_json() {
    let directory = directory("toy-gpt2", |_, _| ());
    let (expected, _) = effects(directory.path());
    let model = directory.path().join("model");
    let bpe = shared::json(&model.join("tokenizer.json"))["model"].clone();
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    let refused = refusal(directory.path());
    assert!(refused.contains("no tokenizer.json, nor both vocab.json and merges.txt"), "{refused}");

    let merges = bpe["merges"].as_array().unwrap().iter();
    let merges: String = merges.map(|m| format!("{} {}\n", m[0].as_str().unwrap(), m[1].as_str().unwrap())).collect();
    std::fs::write(model.join("vocab.json"), bpe["vocab"].to_string()).unwrap();
    std::fs::write(model.join("merges.txt"), format!("{merges}Mary\n")).unwrap();
    let refused = refusal(directory.path());
    let line = merges.lines().count() + 1;
    assert!(refused.contains(&format!("merges.txt, line {line}: a merge is two tokens")), "{refused}");
    std::fs::write(model.join("merges.txt"), format!("#version: 0.2\n{merges}")).unwrap();
    // The first sweep's results are there.
    std::fs::remove_dir_all(directory.path().join("o")).unwrap();
    assert_eq!(effects(directory.path()).0, expected);
}

#[test]
fn a_checkpoint_sweeps_like_a_safetensors_file() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/checkpoints/gpt2");
    let with = |file: &str, name: &str| {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::copy(fixture.join("config.json"), model.join("config.json")).unwrap();
        std::fs::copy(fixture.join(file), model.join(name)).unwrap();
        let pair = json!({ "clean": [0, 1, 2], "corrupt": [0, 3, 2], "answers": [4], "wrong_answers": [1] });
        std::fs::write(directory.path().join("pairs.jsonl"), pair.to_string()).unwrap();
        directory
    };
    let checkpoint = with("pytorch_model.bin", "pytorch_model.bin");
    assert_eq!(effects(checkpoint.path()).0, effects(with("expected.safetensors", "model.safetensors").path()).0);
    std::fs::write(checkpoint.path().join("model/pytorch_model.bin"), "PK").unwrap();
    std::fs::remove_dir_all(checkpoint.path().join("o")).unwrap();
    let refused = refusal(checkpoint.path());
    assert!(refused.contains("pytorch_model.bin cannot be read as a PyTorch checkpoint"), "{refused}");
}

#[test]
fn scores_by_inverse_layer_change_the_effects() {
    let (plain, _) = effects(directory("toy-gpt2", |_, _| ()).path());
    let flag = "scale_attn_by_inverse_layer_idx";
    let (scaled, warnings) = effects(directory("toy-gpt2", |_, config| config[flag] = true.into()).path());
    assert!(warnings.iter().all(|warning| !warning.contains(flag)), "{warnings:?}");
    assert_ne!(plain, scaled);
    let (off, _) = effects(directory("toy-gpt2", |_, config| config[flag] = false.into()).path());
    assert_eq!(plain, off);
}

#[test]
fn a_byte_order_mark_in_front_of_config_json_is_accepted() {
    let plain = directory("toy-gpt2", |_, _| {});
    let (expected, warnings) = effects(plain.path());
    let config = plain.path().join("model/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("\u{feff}{text}")).unwrap();
    std::fs::remove_dir_all(plain.path().join("o")).unwrap();
    assert_eq!(effects(plain.path()), (expected, warnings));
}

#[test]
fn a_gguf_file_gives_the_effects_of_the_model_that_it_was_made_from() {
    let directory = directory("toy-gpt2", |_, _| ());
    std::fs::write(directory.path().join("toy.gguf"), gguf_gpt2::gpt2(&toy("toy-gpt2")).bytes()).unwrap();
    let effects = |model: &str| {
        shared::run(directory.path(), &["sweep", "--pairs", "pairs.jsonl", "--out", "o", "--model", model], &[]);
        std::fs::read(directory.path().join("o/effects.safetensors")).unwrap()
    };
    let expected = effects("toy-gpt2");
    assert!(effects("toy.gguf") == expected, "a file");
    std::fs::create_dir(directory.path().join("only")).unwrap();
    std::fs::rename(directory.path().join("toy.gguf"), directory.path().join("only/toy.gguf")).unwrap();
    assert!(effects("only") == expected, "a directory");
}
