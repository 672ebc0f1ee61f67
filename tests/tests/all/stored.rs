//! Weights that stay in their files give the effects of weights in memory, bit for bit: in every
//! family, from safetensors and GGUF files, by patching and by gradients.

use std::path::{Path, PathBuf};

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use rewire_analysis::Outcome;
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::node::NodeKind;
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution};
use rewire_model::{ModelError, ModelFiles, Transformer, TransformerConfig, WeightProcessing, WeightStorage};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};
use rewire_tests::fixture::{Fixture, processings};
use rewire_tests::model_files::{halved, read, write};
use rewire_tests::{asked, on_every_backend};
use safetensors::tensor::Dtype;

on_every_backend!(effects_are_the_same_bits);

/// Models of every family in bfloat16, and GGUF files of every architecture, each with its name.
/// The directories are kept as long as the models are used.
fn models() -> Vec<(String, ModelFiles, Option<tempfile::TempDir>)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let families = std::fs::read_dir(fixtures.join("families")).unwrap().map(|entry| entry.unwrap().path());
    let families = families.map(|path| path.join("model")).filter(|path| path.is_dir());
    let own = Fixture::all().into_iter().map(|fixture| fixture.model_directory());
    let directories: Vec<PathBuf> = families.chain(own).collect();
    assert!(directories.len() >= 9, "only {directories:?}");
    let shortened = directories.into_iter().map(|source| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(source.join("config.json"), directory.path().join("config.json")).unwrap();
        let mut tensors = read(&source.join("model.safetensors"));
        for stored in tensors.values_mut().filter(|stored| stored.dtype == Dtype::F32) {
            *stored = halved(stored, Dtype::BF16);
        }
        write(&directory.path().join("model.safetensors"), &tensors);
        (source.display().to_string(), ModelFiles::directory(directory.path()).unwrap(), Some(directory))
    });
    let gguf = ["llama", "qwen2", "qwen3", "gemma2", "tiny-gpt2"].map(|name| {
        (format!("{name}.gguf"), ModelFiles::gguf(&fixtures.join(format!("gguf/{name}.gguf"))).unwrap(), None)
    });
    shortened.chain(gguf).collect()
}

/// Three pairs of six tokens that differ from the third on.
fn pairs(config: &TransformerConfig) -> PromptPairs {
    let token = |n: usize| (n % config.d_vocab) as u32;
    let pair = |i: usize| PromptPair {
        clean: (0..6).map(|at| token(7 * i + 3 * at + 1)).collect(),
        corrupted: (0..6).map(|at| token(7 * i + 3 * at + 1 + usize::from(at == 2))).collect(),
        answers: vec![token(i)],
        wrong_answers: vec![token(i + 4)],
    };
    PromptPairs::new((0..3).map(pair).collect()).unwrap()
}

fn kinds(names: &[&str]) -> Vec<NodeKind> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn bits(outcome: &Outcome) -> Vec<u32> {
    let baselines = outcome.baselines.clean.iter().chain(&outcome.baselines.corrupted);
    let effects = outcome.effects.iter().flat_map(|effects| effects.values.iter());
    baselines.chain(effects).map(|value| value.to_bits()).collect()
}

/// Returns the effects by patching and by gradients.
fn effects<B: Backend>(files: &ModelFiles, storage: WeightStorage, processing: WeightProcessing) -> [Vec<u32>; 2] {
    let (model, _) = Transformer::<Autodiff<B>>::load_in(files, storage, &Default::default()).unwrap();
    let model = model.processed(processing);
    let pairs = pairs(model.config());
    let metric = LogitDiff::new(&pairs);
    let (to, execution) = (Direction::Denoising, Execution::default());
    let nodes = kinds(&["head_z", "head_q@position", "head_k", "resid_pre@position", "mlp_out", "mlp_post"]);
    let patched = activation_patching(&model.valid(), asked(&pairs, &metric), &nodes, to, &execution).unwrap();
    let estimated = attribution_patching(&model, asked(&pairs, &metric), &nodes, to, &execution).unwrap();
    [bits(&patched), bits(&estimated)]
}

fn effects_are_the_same_bits<B: Backend>() {
    for (name, files, _directory) in models() {
        for (_, processing) in processings() {
            let [memory, stored] =
                [WeightStorage::Float32, WeightStorage::Stored].map(|at| effects::<B>(&files, at, processing));
            assert!(memory == stored, "{name}, {processing:?}");
            assert!(memory.iter().all(|effects| effects.iter().any(|bits| *bits != 0)), "{name}");
        }
    }
}

#[test]
fn weights_of_pytorch_checkpoints_cannot_stay_in_their_files() {
    for name in ["gpt2", "neox"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints").join(name);
        let files = ModelFiles::directory(&directory).unwrap();
        assert!(!files.can_stay_stored());
        let found = Transformer::<Flex>::load_in(&files, WeightStorage::Stored, &Default::default());
        let Err(ModelError::StoredCheckpoint { path }) = found else { panic!("{name} was not refused by its name") };
        assert!(path.starts_with(&directory), "{}", path.display());
    }
}

#[test]
fn damaged_weights_are_refused_where_they_lie() {
    for fixture in Fixture::all() {
        let directory = tempfile::tempdir().unwrap();
        let source = fixture.model_directory();
        std::fs::copy(source.join("config.json"), directory.path().join("config.json")).unwrap();
        let mut tensors = read(&source.join("model.safetensors"));
        let name = tensors.keys().find(|n| n.contains("0.mlp") && n.ends_with("weight")).unwrap().clone();
        tensors.get_mut(&name).unwrap().bytes[20..24].copy_from_slice(&f32::INFINITY.to_le_bytes());
        write(&directory.path().join("model.safetensors"), &tensors);
        let files = ModelFiles::directory(directory.path()).unwrap();
        let refused = [WeightStorage::Float32, WeightStorage::Stored]
            .map(|storage| Transformer::<Flex>::load_in(&files, storage, &Default::default()).unwrap_err().to_string());
        let name = name.trim_start_matches("transformer.");
        assert!(refused[1].contains(name) && refused[1].contains("index 5"), "{}", refused[1]);
        assert_eq!(refused[0], refused[1]);
    }
}
