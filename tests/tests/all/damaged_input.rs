//! Files damaged by a disk, an editor or a download: every reader returns a value or an error, and
//! never panics.

use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::backend::Flex;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rewire_model::{ModelFiles, Transformer, TransformerConfig};
use rewire_tasks::{PairsSource, Tokenizer, read_pairs};
use tempfile::TempDir;

/// Replacement values for a field.
const HOSTILE: [&str; 15] = [
    "1e308",
    "-1",
    "0",
    "18446744073709551615",
    "4294967295",
    "9223372036854775808",
    "1e999",
    "0.5",
    "null",
    "true",
    "\"\"",
    "\"\\u0000\\ud83d\\ude00\"",
    "[]",
    "{}",
    "[[[[{\"a\":[[]]}]]]]",
];

/// Damage to a file.
#[derive(Debug, Clone)]
enum Damage {
    /// Flips one bit.
    Flip { at: Index, bit: u32 },
    /// Truncates the file.
    Cut { at: Index },
    /// Repeats a piece.
    Repeat { at: Index, length: usize },
    /// Exchanges two JSON values.
    Swap { a: Index, b: Index },
    /// Replaces a JSON value.
    Replace { at: Index, value: usize },
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<Index>;
    let one = prop_oneof![
        2 => (index(), 0..8_u32).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        1 => index().prop_map(|at| Damage::Cut { at }),
        1 => (index(), 1..200_usize).prop_map(|(at, length)| Damage::Repeat { at, length }),
        3 => (index(), index()).prop_map(|(a, b)| Damage::Swap { a, b }),
        5 => (index(), 0..HOSTILE.len()).prop_map(|(at, value)| Damage::Replace { at, value }),
    ];
    prop::collection::vec(one, 1..4)
}

/// Returns the byte ranges of the numbers, strings and words in a JSON text.
fn values(json: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < json.len() {
        let from = at;
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(json.len());
                found.push(from..at);
            }
            b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' => {
                while at < json.len() && matches!(json[at], b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') {
                    at += 1;
                }
                found.push(from..at);
            }
            _ => at += 1,
        }
    }
    found
}

fn damaged(mut bytes: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        let places = values(&bytes);
        if bytes.is_empty() || places.is_empty() {
            return bytes;
        }
        let place = |index: &Index| places[index.index(places.len())].clone();
        match one {
            Damage::Flip { at, bit } => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Damage::Cut { at } => bytes.truncate(at.index(bytes.len())),
            Damage::Repeat { at, length } => {
                let from = at.index(bytes.len());
                let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
                bytes.splice(from..from, piece);
            }
            Damage::Swap { a, b } => {
                let (a, b) = (place(a), place(b));
                let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
                if first.end <= second.start {
                    let [one, other] = [&first, &second].map(|range| bytes[range.clone()].to_vec());
                    bytes.splice(second, one);
                    bytes.splice(first, other);
                }
            }
            Damage::Replace { at, value } => drop(bytes.splice(place(at), HOSTILE[*value].bytes())),
        }
    }
    bytes
}

/// Runs `read` on damaged copies of `bytes`. The damage is the same in each run of the test.
fn survives(cases: u32, bytes: &[u8], read: impl Fn(Vec<u8>)) {
    let config = Config { cases, rng_seed: RngSeed::Fixed(11), failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&damage(), |damage| {
        read(damaged(bytes.to_vec(), &damage));
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models/toy-gpt2")
}

fn toy_file(name: &str) -> Vec<u8> {
    std::fs::read(toy().join(name)).unwrap()
}

/// A copy of the toy model without its tokenizer.
fn copy() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(toy().join(name), directory.path().join(name)).unwrap();
    }
    directory
}

fn load(directory: &Path) -> Result<Transformer<Flex>, rewire_model::ModelError> {
    Transformer::load(&ModelFiles::directory(directory)?, &Default::default())
}

/// Returns the error from loading a directory, with its causes.
fn refusal(directory: &Path) -> String {
    match load(directory) {
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(found) = cause {
                text = format!("{text}: {found}");
                cause = found.source();
            }
            text
        }
        Ok(_) => panic!("{} was not refused", directory.display()),
    }
}

#[test]
fn damaged_configurations_load_or_are_refused() {
    let directory = copy();
    let path = directory.path().join("config.json");
    survives(400, &toy_file("config.json"), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let from_file = TransformerConfig::from_file(&path);
        assert_eq!(from_file.is_ok(), ModelFiles::directory(directory.path()).unwrap().config().is_ok());
        if from_file.is_ok() {
            let _ = load(directory.path());
        }
    });
}

#[test]
fn damaged_headers_load_or_are_refused() {
    let directory = copy();
    let whole = toy_file("model.safetensors");
    let length = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let (header, data) = whole[8..].split_at(length);
    let write = |length: u64, header: &[u8]| {
        let bytes = [&length.to_le_bytes(), header, data].concat();
        std::fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
    };
    survives(150, header, |header| {
        for length in [header.len() as u64, length as u64] {
            write(length, &header);
            let _ = load(directory.path());
        }
    });
    for length in [0, 1, 7, 1 << 20, 1 << 31, 1 << 63, u64::MAX, length as u64 - 1, length as u64 + 1] {
        write(length, header);
        let refused = refusal(directory.path());
        assert!(refused.contains("model.safetensors"), "{refused}");
    }
    write(1 << 63, header);
    assert!(refusal(directory.path()).contains("claims 9223372036854775808 bytes; at most 16777216 are allowed"));
    for end in [0, 7, 8, 9, whole.len() - 1] {
        std::fs::write(directory.path().join("model.safetensors"), &whole[..end]).unwrap();
        assert!(refusal(directory.path()).contains("model.safetensors is not a whole safetensors file"));
    }
    std::fs::write(directory.path().join("model.safetensors"), [whole, vec![0; 9]].concat()).unwrap();
    assert!(refusal(directory.path()).contains("model.safetensors is not a whole safetensors file"));
}

#[test]
fn damaged_indexes_load_or_are_refused() {
    let directory = copy();
    let shard = directory.path().join("shard.safetensors");
    std::fs::rename(directory.path().join("model.safetensors"), shard).unwrap();
    let index = br#"{"metadata": {"total_size": 5}, "weight_map": {"wte.weight": "shard.safetensors", "wpe.weight": "shard.safetensors"}}"#;
    let path = directory.path().join("model.safetensors.index.json");
    survives(200, index, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let _ = load(directory.path());
    });
}

#[test]
fn damaged_tokenizers_load_or_are_refused() {
    survives(400, &toy_file("tokenizer.json"), |bytes| {
        let Ok(tokenizer) = Tokenizer::from_bytes(&bytes, Path::new("tokenizer.json")) else { return };
        for text in ["When Mary and John went", " Mary", "", "\u{e9}\u{0}\n"] {
            if let Ok(tokens) = tokenizer.encode(text) {
                let _ = tokenizer.decode(&tokens);
            }
            let _ = (tokenizer.single_token(text), tokenizer.surrounding(), tokenizer.decode(&[0, 7, u32::MAX]));
        }
    });
    // Most values in the file are words and merges, so this copy has only the settings.
    let settings = br#"{"version": "1.0", "truncation": {"direction": "Left", "max_length": 3, "strategy": "LongestFirst",
        "stride": 0}, "padding": {"strategy": {"Fixed": 3}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "a"}, "added_tokens": [{"id": 5, "content": "x", "single_word": false, "lstrip": true,
        "rstrip": true, "normalized": true, "special": false}], "normalizer": {"type": "Sequence", "normalizers":
        [{"type": "Replace", "pattern": {"Regex": "b+"}, "content": "b"}, {"type": "Prepend", "prepend": "a"},
        {"type": "Strip", "strip_left": true, "strip_right": true}]}, "pre_tokenizer": {"type": "Sequence", "pretokenizers":
        [{"type": "Split", "pattern": {"Regex": "a|b"}, "behavior": "Isolated", "invert": false}, {"type": "FixedLength",
        "length": 2}, {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence":
        {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id":
        1}}], "special_tokens": {"x": {"id": "x", "ids": [5], "tokens": ["x"]}}}, "decoder": {"type": "BPEDecoder", "suffix":
        "b"}, "model": {"type": "BPE", "dropout": 0.5, "unk_token": "a", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": {"a": 0, "b": 1,
        "ab": 2, "c": 3}, "merges": [["a", "b"]]}}"#;
    assert!(Tokenizer::from_bytes(settings, Path::new("tokenizer.json")).is_ok());
    survives(2000, settings, |bytes| {
        let Ok(tokenizer) = Tokenizer::from_bytes(&bytes, Path::new("tokenizer.json")) else { return };
        for text in ["ab a", "x ab", "", "bbb"] {
            let _ = (tokenizer.encode(text), tokenizer.single_token(text), tokenizer.surrounding());
        }
    });
}

#[test]
fn damaged_pairs_are_read_or_refused() {
    let tokenizer = Tokenizer::from_bytes(&toy_file("tokenizer.json"), Path::new("tokenizer.json")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let pairs =
        br#"{"clean": [0, 1, 2], "corrupt": [0, 3, 2], "answers": [4], "wrong_answers": [5, " Mary"], "position": 1}
{"clean": " John gave", "corrupt": " Mary gave", "answers": [" Mary"], "wrong_answers": [" John"], "position": 0}"#;
    let table =
        b"clean,corrupted,correct_idx,incorrect_idx\n John gave, Mary gave,4,5\n John gave, Mary gave,\"[1, 2]\",3\n";
    let mib = br#"{"prompt": " John gave", "choices": ["Mary", "John"], "answerKey": 0, "abc_counterfactual": {"prompt": " Mary gave", "choices": ["Mary", "John"], "answerKey": 1}}"#;
    let object = br#"{"seq_labels": ["a", "b"], "word_idxs": {"a": 0},
 "prompts": [{"clean": " John gave", "corrupt": " Mary gave", "answers": [" Mary"], "wrong_answers": [" John"]}]}"#;
    let blimp = br#"{"one_prefix_prefix": " John gave", "one_prefix_word_good": "Mary", "one_prefix_word_bad": "John"}
{"one_prefix_prefix": " Mary gave", "one_prefix_word_good": "John", "one_prefix_word_bad": "Mary"}"#;
    for content in [&pairs[..], table, mib, object, blimp] {
        survives(200, content, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            for tokenizer in [None, Some(&tokenizer)] {
                let _ = read_pairs(&path, &PairsSource::new(tokenizer, Some(0), 512, 48));
            }
        });
    }
}

#[test]
fn an_index_without_shards_is_refused() {
    let directory = copy();
    std::fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let index = directory.path().join("model.safetensors.index.json");
    let refused = |text: &str| {
        std::fs::write(&index, text).unwrap();
        refusal(directory.path())
    };
    let empty = refused(r#"{"weight_map": {}}"#);
    assert!(empty.contains("model.safetensors.index.json: `weight_map` names no shard"), "{empty}");
    let twice = refused(r#"{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}"#);
    assert!(twice.contains("index.json: it names `a` twice"), "{twice}");
    let deep = refused(&"[".repeat(1_000_000));
    assert!(deep.contains("recursion limit"), "{deep}");
    let large = refused(&" ".repeat((16 << 20) + 1));
    assert!(large.contains("more than 16777216 bytes"), "{large}");
    let name = "\u{1b}x".repeat(1 << 20);
    let long = refused(&serde_json::json!({ "weight_map": { "a": name } }).to_string());
    assert!(long.len() < 2000 && !long.contains('\u{1b}'), "{} bytes", long.len());
    let none = ModelFiles::at(directory.path().join("config.json"), Vec::new(), None);
    let refused = Transformer::<Flex>::load(&none, &Default::default()).unwrap_err().to_string();
    assert!(refused.contains("no weight file"), "{refused}");
}

#[test]
fn directories_in_place_of_model_files_are_refused() {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let directory = copy();
        let _ = std::fs::remove_file(directory.path().join(name));
        std::fs::create_dir(directory.path().join(name)).unwrap();
        let refused = refusal(directory.path());
        assert!(refused.contains(name) && refused.contains("it is a directory"), "{refused}");
    }
}

#[test]
fn endless_configurations_and_repeated_fields_are_refused() {
    let directory = copy();
    let refused = |text: String| {
        std::fs::write(directory.path().join("config.json"), text).unwrap();
        refusal(directory.path())
    };
    let config = String::from_utf8(toy_file("config.json")).unwrap();
    let twice = refused(config.replacen('{', r#"{"n_head": 8,"#, 1));
    assert!(twice.contains("config.json: it names `n_head` twice"), "{twice}");
    let large = refused(config.clone() + &" ".repeat(16 << 20));
    assert!(large.contains("at most 16777216 are allowed"), "{large}");
    let kind = refused(config.replace("\"gpt2\"", &format!("{:?}", "b".repeat(1 << 20))));
    assert!(kind.len() < 1000 && kind.contains(".. (1048576 characters)"), "{} bytes", kind.len());
    // A reader that reserves memory for all blocks first would fail here.
    let layers = refused(config.replace("\"n_layer\": 4", "\"n_layer\": 4294967295"));
    assert!(layers.contains("lacks the tensor `h.4."), "{layers}");
}

#[test]
fn repeated_weights_are_refused() {
    let directory = copy();
    let path = directory.path().join("model.safetensors");
    let whole = toy_file("model.safetensors");
    let length = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let (header, data) = whole[8..].split_at(length);
    let header = std::str::from_utf8(header).unwrap();
    let refused = |header: &str, more: &[u8]| {
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data, more].concat()).unwrap();
        refusal(directory.path())
    };
    let end = data.len();
    let another = |name: &str, end: usize| {
        header.replacen(
            '{',
            &format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{end},{}]}},"#, end + 4),
            1,
        )
    };
    // A header with one name twice: the reader keeps one entry, and the file does not look too
    // short.
    let twice =
        refused(&header.replacen('{', r#"{"wpe.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"#, 1), &[]);
    assert!(twice.contains("`wpe.weight`") && twice.contains("the same weight; keep one"), "{twice}");
    let prefixed = refused(&another("transformer.wte.weight", end), &[0; 4]);
    for part in ["the tensor `transformer.wte.weight` in ", "the tensor `wte.weight` in ", "model.safetensors"] {
        assert!(prefixed.contains(part), "{prefixed}");
    }

    std::fs::write(directory.path().join("one.safetensors"), &whole).unwrap();
    std::fs::write(directory.path().join("two.safetensors"), &whole).unwrap();
    std::fs::remove_file(&path).unwrap();
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    std::fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
    let sharded = refusal(directory.path());
    assert!(sharded.contains("one.safetensors") && sharded.contains("two.safetensors"), "{sharded}");
}
