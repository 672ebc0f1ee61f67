//! Replays the kept inputs of the fuzz targets, without libFuzzer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rewire_tasks::{Format, PairsSource, read_pairs};
use rewire_tests::fuzzed;
use rewire_toy::Toy;

/// Reads an input as a fuzz target does.
type Target = fn(&[u8]);

/// The fuzz targets, and the functions that they call.
const TARGETS: [(&str, Target); 8] = [
    ("pairs", fuzzed::pairs),
    ("config", fuzzed::config),
    ("safetensors", fuzzed::safetensors),
    ("checkpoint", fuzzed::checkpoint),
    ("gguf", fuzzed::gguf),
    ("tokenizer", fuzzed::tokenizer),
    ("vocabulary", fuzzed::vocabulary),
    ("activations", fuzzed::activations),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The files in a directory, in the order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    let (_, read) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let inputs = files(&fuzz().join("corpus").join(target));
    assert!(inputs.len() >= 5, "{target} has only {inputs:?}");
    for input in inputs {
        let bytes = std::fs::read(&input).unwrap();
        assert!(bytes.len() < 2048, "{} has {} bytes; an input has fewer than 2048", input.display(), bytes.len());
        // The last name that a failed test prints is that of the input that failed.
        println!("{}", input.display());
        read(&bytes);
    }
}

#[test]
fn kept_pairs_are_read_or_refused() {
    replay("pairs");
}

#[test]
fn kept_configurations_load_or_are_refused() {
    replay("config");
}

#[test]
fn kept_weights_load_or_are_refused() {
    replay("safetensors");
}

#[test]
fn kept_checkpoints_load_or_are_refused() {
    replay("checkpoint");
}

#[test]
fn kept_gguf_files_load_or_are_refused() {
    replay("gguf");
}

#[test]
fn kept_vocabularies_load_or_are_refused() {
    replay("vocabulary");
}

#[test]
fn kept_tokenizers_load_or_are_refused() {
    replay("tokenizer");
}

#[test]
fn kept_activations_are_read_or_refused() {
    replay("activations");
}

#[test]
fn every_target_has_inputs_and_a_replay() {
    let replayed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for directory in ["corpus", "fuzz_targets"] {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        let found: BTreeSet<String> = files(&fuzz().join(directory)).iter().map(stem).collect();
        assert_eq!(found, replayed, "fuzz/{directory}");
    }
}

#[test]
fn the_kept_pairs_have_every_format() {
    let tokenizer = Toy::Gpt2.tokenizer().unwrap();
    let formats = [
        ("json-lines.jsonl", Format::JsonLines),
        ("feature-circuits.jsonl", Format::FeatureCircuits),
        ("mib.jsonl", Format::Mib),
        ("blimp.jsonl", Format::Blimp),
        ("auto-circuit.json", Format::AutoCircuit),
        ("table.csv", Format::Csv),
    ];
    for (name, format) in formats {
        let path = fuzz().join("corpus/pairs").join(name);
        let read = read_pairs(&path, &PairsSource::new(Some(&tokenizer), Some(0), 916, 48));
        let read = read.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.format, format, "{name}");
    }
}
