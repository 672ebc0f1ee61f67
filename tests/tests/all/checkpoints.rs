//! PyTorch checkpoints load like safetensors files of the same weights. Damaged and hostile ones
//! are refused. `fixtures/checkpoints.py` made the files.

use std::path::{Path, PathBuf};

use burn::backend::Flex;
use rewire_model::{ModelError, ModelFiles, SavedTensor, Transformer, tensors_to_save};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints")
}

fn load(files: &ModelFiles) -> Result<Vec<SavedTensor>, ModelError> {
    let (model, warnings) = Transformer::<Flex>::load_with_warnings(files, &Default::default())?;
    assert!(warnings.is_empty(), "warnings about a whole file: {warnings:?}");
    Ok(tensors_to_save(&model).unwrap())
}

/// Returns the weights of a fixture, from its safetensors file.
fn expected(name: &str) -> Vec<SavedTensor> {
    let directory = fixtures().join(name);
    load(&ModelFiles::at(directory.join("config.json"), vec![directory.join("expected.safetensors")], None)).unwrap()
}

/// Creates a directory with the configuration of `gpt2` and this checkpoint.
fn directory(checkpoint: &[u8]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join("gpt2/config.json"), directory.path().join("config.json")).unwrap();
    std::fs::write(directory.path().join("pytorch_model.bin"), checkpoint).unwrap();
    directory
}

fn load_checkpoint(checkpoint: &[u8]) -> Result<Vec<SavedTensor>, ModelError> {
    load(&ModelFiles::directory(directory(checkpoint).path())?)
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).unwrap()
}

#[test]
fn checkpoints_load_like_safetensors_files() {
    // GPT-2 has the buffers and the tied unembedding of old exports; NeoX is bfloat16, in shards.
    for name in ["gpt2", "neox"] {
        assert_eq!(load(&ModelFiles::directory(&fixtures().join(name)).unwrap()).unwrap(), expected(name), "{name}");
    }
    // The format before PyTorch 1.6.
    assert_eq!(load_checkpoint(&file("gpt2/legacy.bin")).unwrap(), expected("gpt2"));
}

#[test]
fn a_safetensors_file_is_preferred_to_a_checkpoint() {
    let directory = directory(b"not a checkpoint");
    std::fs::copy(fixtures().join("gpt2/expected.safetensors"), directory.path().join("model.safetensors")).unwrap();
    assert_eq!(load(&ModelFiles::directory(directory.path()).unwrap()).unwrap(), expected("gpt2"));
}

#[test]
fn a_hostile_pickle_is_not_executed() {
    let refused = load_checkpoint(&file("hostile.bin")).unwrap_err().to_string();
    assert!(refused.contains("pytorch_model.bin lacks the tensor `wte.weight`"), "{refused}");
    assert!(!Path::new("executed").exists(), "the pickle was executed");
}

#[test]
fn a_tensor_larger_than_its_file_is_refused() {
    let refused = load_checkpoint(&file("expanded.bin")).unwrap_err().to_string();
    assert!(refused.contains("its tensor `wte.weight` has 4294967296 bytes, more than the file's 1"), "{refused}");
}

#[test]
fn files_that_are_no_checkpoints_are_refused() {
    let safetensors = file("gpt2/expected.safetensors");
    let contents: [&[u8]; 5] = [b"", b"PK\x03\x04", b"\x80\x02", b"<html></html>", &safetensors];
    for bytes in contents {
        let refused = load_checkpoint(bytes).unwrap_err();
        assert!(matches!(refused, ModelError::Checkpoint { .. }), "{refused}");
        let refused = refused.to_string();
        assert!(refused.contains("pytorch_model.bin cannot be read as a PyTorch checkpoint"), "{refused}");
        assert!(refused.contains("save the model again, as model.safetensors"), "{refused}");
    }
}

#[test]
fn damaged_checkpoints_load_or_are_refused_by_file() {
    let try_one = |bytes: &[u8]| {
        let directory = directory(bytes);
        let files = ModelFiles::directory(directory.path()).unwrap();
        if let Err(error) = Transformer::<Flex>::load(&files, &Default::default()) {
            assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
        }
    };
    for whole in [file("gpt2/pytorch_model.bin"), file("gpt2/legacy.bin")] {
        for end in (0..whole.len()).step_by(61) {
            try_one(&whole[..end]);
        }
        for at in (0..whole.len()).step_by(19) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            try_one(&damaged);
        }
    }
}

#[test]
fn a_directory_without_weights_names_the_files_that_are_read() {
    let directory = directory(b"");
    std::fs::remove_file(directory.path().join("pytorch_model.bin")).unwrap();
    let refused = ModelFiles::directory(directory.path()).unwrap_err().to_string();
    assert!(
        refused.contains("has no model.safetensors (nor its index, nor pytorch_model.bin, nor its index)"),
        "{refused}"
    );
}
