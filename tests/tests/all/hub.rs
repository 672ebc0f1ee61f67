//! Downloads end to end, from a small server on loopback that serves the toy model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::backend::Flex;
use rewire_model::{Hub, ModelError, Transformer, resolve_repository};
use rewire_tests::hub_server::HubServer;
use rewire_toy::Toy;

const REPOSITORY: &str = "rewire/toy-gpt2";

fn files() -> BTreeMap<String, Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models/toy-gpt2");
    let read = |name: &str| (name.to_owned(), std::fs::read(directory.join(name)).unwrap());
    ["config.json", "model.safetensors", "tokenizer.json"].map(read).into()
}

fn is_the_toy(files: &rewire_model::ModelFiles) {
    let device = Default::default();
    let fetched: Transformer<Flex> = Transformer::load(files, &device).unwrap();
    let embedded: Transformer<Flex> = Toy::Gpt2.load(&device).unwrap();
    assert_eq!(rewire_model::tensors_to_save(&fetched), rewire_model::tensors_to_save(&embedded));
    assert!(files.tokenizer().unwrap().is_some());
}

#[test]
fn a_model_is_downloaded_once_and_then_read_from_the_cache() {
    let server = HubServer::start(REPOSITORY, files());
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(cache.path().into(), Some(server.endpoint()));
    is_the_toy(&hub.fetch(REPOSITORY, "main").unwrap());
    let requests = server.requests();
    assert!(requests >= 3, "only {requests} requests");
    is_the_toy(&hub.fetch(REPOSITORY, "main").unwrap());
    assert_eq!(server.requests(), requests, "the cache was not used");

    // Offline, the cache is enough.
    let nowhere = Hub::new(cache.path().into(), Some("http://127.0.0.1:9".to_owned()));
    is_the_toy(&nowhere.offline().fetch(REPOSITORY, "main").unwrap());
}

#[test]
fn offline_without_a_cache_names_the_file_and_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(cache.path().into(), None).offline();
    let refused = hub.fetch(REPOSITORY, "main").unwrap_err();
    let ModelError::Offline { repository, file, .. } = &refused else { panic!("{refused}") };
    assert_eq!([repository.as_str(), file.as_str()], [REPOSITORY, "config.json"]);
    assert!(refused.to_string().contains(&cache.path().display().to_string()), "{refused}");
}

#[test]
fn an_interrupted_download_resumes_at_its_last_byte() {
    let server = HubServer::start(REPOSITORY, files());
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(cache.path().into(), Some(server.endpoint()));
    // The server interrupts the first attempt and its three repetitions.
    server.break_downloads_after(4, 50_000);
    let refused = hub.fetch(REPOSITORY, "main").unwrap_err();
    let ModelError::Hub { file, .. } = &refused else { panic!("{refused}") };
    assert_eq!(file, "model.safetensors");
    server.break_downloads_after(1, 50_000);
    is_the_toy(&hub.fetch(REPOSITORY, "main").unwrap());
    let downloads = server.downloads_of("model.safetensors");
    assert_eq!(downloads.len(), 6, "{downloads:?}");
    assert!(downloads.is_sorted_by(|a, b| a < b), "not resumed at the last byte: {downloads:?}");
}

#[test]
fn a_revision_that_leads_out_of_the_cache_is_refused() {
    let server = HubServer::start(REPOSITORY, files());
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(folder.path().join("cache"), Some(server.endpoint()));
    let (repository, revision) = resolve_repository("rewire/toy-gpt2@../../../../X").unwrap();
    let refused = hub.fetch(&repository, &revision).unwrap_err();
    let ModelError::Hub { reason, .. } = &refused else { panic!("{refused}") };
    assert!(reason.contains("is not a valid revision"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(server.requests(), 0);
}

#[test]
fn a_damaged_file_in_the_cache_is_named_offline_and_replaced_online() {
    let server = HubServer::start(REPOSITORY, files());
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(cache.path().into(), Some(server.endpoint()));
    hub.fetch(REPOSITORY, "main").unwrap();
    let blobs = cache.path().join("models--rewire--toy-gpt2/blobs");
    for blob in std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::write(&blob, "<html></html>").unwrap();
    }
    let refused = hub.clone().offline().fetch(REPOSITORY, "main").unwrap_err().to_string();
    assert!(refused.contains(blobs.to_str().unwrap()) && refused.contains("delete it"), "{refused}");
    is_the_toy(&hub.fetch(REPOSITORY, "main").unwrap());
    is_the_toy(&hub.offline().fetch(REPOSITORY, "main").unwrap());
}

#[test]
fn files_missing_on_the_hub_are_reported() {
    let server = HubServer::start(REPOSITORY, files());
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(cache.path().into(), Some(server.endpoint()));
    let missing = |repository: &str, revision: &str| hub.fetch(repository, revision).unwrap_err().to_string();
    let repository = missing("rewire/nothing", "main");
    assert!(repository.contains("rewire/nothing") && repository.contains("not found"), "{repository}");
    let revision = missing(REPOSITORY, "step1");
    assert!(revision.contains("step1") && revision.contains("not found"), "{revision}");

    let without_weights = BTreeMap::from_iter(files().into_iter().filter(|(name, _)| name == "config.json"));
    let server = HubServer::start("rewire/empty", without_weights);
    let hub = Hub::new(cache.path().into(), Some(server.endpoint()));
    let refused = hub.fetch("rewire/empty", "main").unwrap_err().to_string();
    assert!(refused.contains("model.safetensors") && refused.contains("not found"), "{refused}");
}

#[test]
fn sharded_weights_are_downloaded_by_their_index() {
    let mut files = files();
    let weights = files.remove("model.safetensors").unwrap();
    let index = r#"{"weight_map": {"wte.weight": "model-00001-of-00001.safetensors"}}"#;
    files.insert("model.safetensors.index.json".to_owned(), index.into());
    files.insert("model-00001-of-00001.safetensors".to_owned(), weights);
    let server = HubServer::start(REPOSITORY, files);
    let cache = tempfile::tempdir().unwrap();
    is_the_toy(&Hub::new(cache.path().into(), Some(server.endpoint())).fetch(REPOSITORY, "main").unwrap());
}

#[test]
fn checkpoints_and_vocabularies_are_downloaded_if_there_is_nothing_newer() {
    let toy = files().remove("tokenizer.json").unwrap();
    let toy: serde_json::Value = serde_json::from_slice(&toy).unwrap();
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints/gpt2");
    let read = |name: &str| (name.to_owned(), std::fs::read(checkpoint.join(name)).unwrap());
    let mut files = BTreeMap::from(["config.json", "pytorch_model.bin"].map(read));
    files.insert("vocab.json".to_owned(), toy["model"]["vocab"].to_string().into_bytes());
    files.insert("merges.txt".to_owned(), b"#version: 0.2\nh e\n".to_vec());
    files.insert("added_tokens.json".to_owned(), br#"{"<pad>": 920}"#.to_vec());
    let server = HubServer::start(REPOSITORY, files);
    let cache = tempfile::tempdir().unwrap();
    let check = |hub: Hub| {
        let files = hub.fetch(REPOSITORY, "main").unwrap();
        Transformer::<Flex>::load(&files, &Default::default()).unwrap();
        let (path, tokenizer) = files.tokenizer().unwrap().unwrap();
        assert!(path.ends_with("vocab.json"), "{}", path.display());
        assert!(String::from_utf8(tokenizer).unwrap().contains("<pad>"));
    };
    check(Hub::new(cache.path().into(), Some(server.endpoint())));
    // Offline, the cache is enough.
    check(Hub::new(cache.path().into(), None).offline());
}

#[test]
fn names_resolve_to_repositories_and_revisions() {
    let resolve = |name: &str| resolve_repository(name).ok();
    let pair = |repository: &str, revision: &str| Some((repository.to_owned(), revision.to_owned()));
    assert_eq!(resolve("gpt2"), pair("openai-community/gpt2", "main"));
    assert_eq!(resolve("pythia-160m@step3000"), pair("EleutherAI/pythia-160m", "step3000"));
    assert_eq!(resolve("some/model@v1"), pair("some/model", "v1"));
    for unknown in ["gpt5", "../escape", "a/b/c", "", "gpt2@", "/etc"] {
        assert_eq!(resolve(unknown), None, "{unknown}");
    }
}
