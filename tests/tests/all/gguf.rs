//! GGUF files load like the Hugging Face files of the same model. Damaged ones are refused by name.
//! `fixtures/gguf_files.py` made the fixture.

use std::path::{Path, PathBuf};

use burn::backend::Flex;
use rewire_model::{ModelError, ModelFiles, SavedTensor, Transformer, tensors_to_save};
use rewire_tasks::Tokenizer;
use rewire_tests::gguf_file::File;
use rewire_tests::gguf_gpt2::gpt2;
use rewire_tests::hub_server::HubServer;
use rewire_tests::model_files;
use rewire_toy::Toy;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn load(files: &ModelFiles) -> Result<Vec<SavedTensor>, ModelError> {
    let (model, warnings) = Transformer::<Flex>::load_with_warnings(files, &Default::default())?;
    assert!(warnings.is_empty(), "warnings about a whole file: {warnings:?}");
    Ok(tensors_to_save(&model).unwrap())
}

/// A directory with a file of these bytes.
fn directory(name: &str, bytes: &[u8]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(name), bytes).unwrap();
    directory
}

/// toy-gpt2, as a GGUF file.
fn toy() -> File {
    gpt2(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models/toy-gpt2"))
}

#[test]
fn a_gguf_file_loads_like_the_safetensors_file_of_the_same_model() {
    let expected = ModelFiles::directory(&fixture("tiny-gpt2/model")).unwrap();
    let found = ModelFiles::gguf(&fixture("gguf/tiny-gpt2.gguf")).unwrap();
    assert_eq!(found.config().unwrap(), expected.config().unwrap());
    assert!(load(&found).unwrap() == load(&expected).unwrap(), "other weights");
    assert!(found.tokenizer().unwrap().is_none());
}

#[test]
fn gguf_files_of_every_architecture_load_like_their_hugging_face_files() {
    let configs = std::fs::read(fixture("gguf/configs.json")).unwrap();
    let configs: serde_json::Value = serde_json::from_slice(&configs).unwrap();
    let tensors = model_files::read(&fixture("gguf/models.safetensors"));
    for (architecture, config) in configs.as_object().unwrap() {
        let directory = directory("config.json", config.to_string().as_bytes());
        let named = tensors.iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix(&format!("{architecture}/"))?;
            Some((name.to_owned(), tensor.clone()))
        });
        model_files::write(&directory.path().join("model.safetensors"), &named.collect());
        let expected = ModelFiles::directory(directory.path()).unwrap();
        let found = ModelFiles::gguf(&fixture(&format!("gguf/{architecture}.gguf"))).unwrap();
        assert_eq!(found.config().unwrap(), expected.config().unwrap(), "{architecture}");
        assert!(load(&found).unwrap() == load(&expected).unwrap(), "{architecture} has other weights");
    }
}

#[test]
fn a_toy_as_a_gguf_file_is_the_toy_with_its_tokenizer() {
    let directory = directory("toy.gguf", &toy().bytes());
    let found = ModelFiles::gguf(&directory.path().join("toy.gguf")).unwrap();
    let expected = Toy::Gpt2.files();
    assert_eq!(found.config().unwrap(), expected.config().unwrap());
    assert!(load(&found).unwrap() == load(&expected).unwrap(), "other weights");
    let (path, bytes) = found.tokenizer().unwrap().unwrap();
    assert!(path.ends_with("toy.gguf"));
    let [ours, theirs] = [Tokenizer::from_bytes(&bytes, &path).unwrap(), Toy::Gpt2.tokenizer().unwrap()];
    assert_eq!(ours.vocabulary_size(), theirs.vocabulary_size());
    for text in ["When Mary and John went to the store", " Mary", "\u{e9}\u{0}\n", "<|endoftext|>a", "two  spaces 2024"]
    {
        assert_eq!(ours.encode(text).unwrap(), theirs.encode(text).unwrap(), "{text:?}");
    }
}

#[test]
fn a_directory_without_other_weights_may_have_one_gguf_file() {
    let directory = directory("a.gguf", &std::fs::read(fixture("gguf/tiny-gpt2.gguf")).unwrap());
    let expected = load(&ModelFiles::directory(&fixture("tiny-gpt2/model")).unwrap()).unwrap();
    assert!(load(&ModelFiles::directory(directory.path()).unwrap()).unwrap() == expected);
    std::fs::write(directory.path().join("config.json"), "{}").unwrap();
    assert!(load(&ModelFiles::directory(directory.path()).unwrap()).unwrap() == expected);

    std::fs::write(directory.path().join("b.gguf"), "").unwrap();
    let refused = ModelFiles::directory(directory.path()).unwrap_err().to_string();
    assert!(refused.contains("has 2 GGUF files (a.gguf, b.gguf); give the path of one of them"), "{refused}");

    // Other weights are preferred.
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("tiny-gpt2/model").join(name), directory.path().join(name)).unwrap();
    }
    assert!(load(&ModelFiles::directory(directory.path()).unwrap()).unwrap() == expected);
}

#[test]
fn names_of_models_on_disk_are_directories_and_gguf_files() {
    let path = fixture("gguf/tiny-gpt2.gguf");
    assert!(ModelFiles::on_disk(path.to_str().unwrap()).unwrap().is_some());
    assert!(ModelFiles::on_disk(fixture("tiny-gpt2/model").to_str().unwrap()).unwrap().is_some());
    for name in ["gpt2", "owner/name", "owner/name:model.gguf"] {
        assert!(ModelFiles::on_disk(name).unwrap().is_none(), "{name}");
    }
    let absent = ModelFiles::on_disk("no/such/model.gguf").unwrap_err();
    assert_eq!(absent.to_string(), "cannot read no/such/model.gguf");
}

#[cfg(feature = "flex")]
#[test]
fn a_gguf_file_of_a_repository_is_fetched_alone() {
    let bytes = std::fs::read(fixture("gguf/tiny-gpt2.gguf")).unwrap();
    let server = HubServer::start("owner/name", [("tiny.gguf".to_owned(), bytes)].into());
    let cache = tempfile::tempdir().unwrap();
    let hub = rewire_model::Hub::new(cache.path().into(), Some(server.endpoint()));
    let (repository, revision) = rewire_model::resolve_repository("owner/name@main:tiny.gguf").unwrap();
    assert_eq!([repository.as_str(), revision.as_str()], ["owner/name:tiny.gguf", "main"]);
    let found = load(&hub.fetch(&repository, &revision).unwrap()).unwrap();
    assert!(found == load(&ModelFiles::directory(&fixture("tiny-gpt2/model")).unwrap()).unwrap());
    let absent = hub.fetch("owner/name:other.gguf", "main").unwrap_err();
    let ModelError::Hub { repository, file, .. } = &absent else { panic!("{absent}") };
    assert_eq!([repository.as_str(), file.as_str()], ["owner/name", "other.gguf"]);
    for name in ["owner/name:model.bin", "owner/name@:tiny.gguf", "name:tiny.gguf"] {
        assert!(rewire_model::resolve_repository(name).is_err(), "{name}");
    }
}

#[test]
fn damaged_gguf_files_load_or_are_refused_by_file() {
    let whole = std::fs::read(fixture("gguf/tiny-gpt2.gguf")).unwrap();
    let directory = directory("m.gguf", &whole);
    let path = directory.path().join("m.gguf");
    let try_one = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let outcome = Transformer::<Flex>::load(&ModelFiles::gguf(&path).unwrap(), &Default::default());
        if let Err(error) = &outcome {
            assert!(error.to_string().contains("m.gguf"), "{error}");
        }
        outcome.is_ok()
    };
    for end in (0..whole.len()).step_by(997) {
        assert!(!try_one(&whole[..end]), "a file of {end} bytes was loaded");
    }
    // The header, the metadata and the entries of the tensors.
    for at in (0..3000).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        try_one(&damaged);
    }
}

#[test]
fn a_gguf_weight_that_is_not_finite_is_named() {
    let mut bytes = std::fs::read(fixture("gguf/tiny-gpt2.gguf")).unwrap();
    let end = bytes.len();
    // The last four bytes are the last weight of the last tensor, or padding after it.
    let at = (0..end / 4).map(|i| end - 4 * (i + 1)).find(|&at| bytes[at..at + 4] != [0; 4]).unwrap();
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let directory = directory("m.gguf", &bytes);
    let refused = load(&ModelFiles::gguf(&directory.path().join("m.gguf")).unwrap()).unwrap_err();
    let ModelError::NotFinite { path, tensor, .. } = &refused else { panic!("{refused}") };
    assert!(path.ends_with("m.gguf") && !tensor.is_empty(), "{refused}");
}
