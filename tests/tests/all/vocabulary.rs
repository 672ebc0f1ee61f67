//! `vocab.json` and `merges.txt` give the tokens that transformers gives, and errors name the file
//! and the line.

use std::path::Path;

use rewire_model::ModelFiles;
use rewire_tasks::Tokenizer;
use rewire_toy::Toy;
use serde_json::{Value, json};
use tempfile::TempDir;

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Creates a copy of toy-gpt2 with its tokenizer as `vocab.json` and `merges.txt`.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models/toy-gpt2");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(toy.join(name), directory.path().join(name)).unwrap();
    }
    let model = json_of(&toy.join("tokenizer.json"))["model"].clone();
    let merges = model["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    write(&directory, "vocab.json", &model["vocab"].to_string());
    write(&directory, "merges.txt", &["#version: 0.2\n".to_owned()].into_iter().chain(merges).collect::<String>());
    directory
}

fn write(directory: &TempDir, name: &str, text: &str) {
    std::fs::write(directory.path().join(name), text).unwrap();
}

fn read(directory: &TempDir) -> Result<Tokenizer, String> {
    let files = ModelFiles::directory(directory.path()).map_err(|e| e.to_string())?;
    let (path, bytes) = files.tokenizer().map_err(|e| e.to_string())?.ok_or("no tokenizer")?;
    Tokenizer::from_bytes(&bytes, &path).map_err(|e| e.to_string())
}

#[test]
fn vocabulary_and_merges_give_the_ids_of_transformers() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints/tokenizer/ids.json");
    let directory = directory();
    let plain = read(&directory).unwrap();
    write(
        &directory,
        "tokenizer_config.json",
        r#"{"add_prefix_space": true, "add_bos_token": true, "pad_token": null}"#,
    );
    let spaced = read(&directory).unwrap();
    for row in json_of(&fixture).as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        assert_eq!(json!(plain.encode(text).unwrap()), row["ids"], "{text:?}");
        assert_eq!(json!(spaced.encode(text).unwrap()), row["with_prefix_space"], "{text:?}, prefix space");
    }
}

#[test]
fn vocabulary_and_merges_are_the_tokenizer_that_they_came_from() {
    let ours = read(&directory()).unwrap();
    let toy = Toy::Gpt2.tokenizer().unwrap();
    assert_eq!(ours.vocabulary_size(), toy.vocabulary_size());
    for text in
        ["When Mary and John went to the store, John gave the drink to", " Mary", "\u{e9}\u{0}\n", "<|endoftext|> a"]
    {
        let tokens = toy.encode(text).unwrap();
        assert_eq!(ours.encode(text).unwrap(), tokens, "{text:?}");
        assert_eq!(ours.decode(&tokens), toy.decode(&tokens), "{text:?}");
    }
}

#[test]
fn special_tokens_come_from_the_files_that_name_them() {
    let directory = directory();
    assert!(read(&directory).unwrap().encode("<pad>").unwrap().len() > 1);
    write(&directory, "added_tokens.json", r#"{"<pad>": 920}"#);
    let map =
        r#"{"bos_token": {"content": "<|endoftext|>", "lstrip": false}, "pad_token": "<pad>", "sep_token": "<none>"}"#;
    write(&directory, "special_tokens_map.json", map);
    let decoder = r#"{"added_tokens_decoder": {"930": {"content": "<sep>", "lstrip": true, "special": true}}}"#;
    write(&directory, "tokenizer_config.json", decoder);
    let tokenizer = read(&directory).unwrap();
    let ids = tokenizer.encode("<|endoftext|><pad> Mary <sep>").unwrap();
    assert_eq!(ids, [0, 920, tokenizer.single_token(" Mary").unwrap(), 930]);
    assert!(tokenizer.encode("<none>").unwrap().len() > 1, "a token without an id");
}

#[test]
fn a_tokenizer_json_is_preferred() {
    let directory = directory();
    write(&directory, "tokenizer.json", "{}");
    assert!(read(&directory).unwrap_err().contains("tokenizer.json is not a tokenizer"));
}

#[test]
fn damaged_vocabularies_are_refused_by_file_and_line() {
    let refused = |name: &str, text: &str, words: &[&str]| {
        let directory = directory();
        write(&directory, name, text);
        let error = read(&directory).unwrap_err();
        for word in [name].iter().chain(words) {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
        assert!(error.len() < 1000 && !error.contains('\n'), "{error}");
    };
    refused("vocab.json", "{\n \"a\": 1,\n", &["malformed JSON", "line 3"]);
    refused("vocab.json", "[]", &["malformed JSON", "line 1"]);
    refused("vocab.json", r#"{"a": "b"}"#, &["line 1"]);
    refused("vocab.json", r#"{"a": -1}"#, &["line 1"]);
    refused("vocab.json", r#"{"a": 1, "a": 2}"#, &["names `a` twice"]);
    refused("vocab.json", r#"{"a": 1, "b": 1}"#, &["\"a\" and \"b\" have the id 1"]);
    refused("merges.txt", "#version: 0.2\nh e\nh e l\n", &["merges.txt, line 3", "not \"h e l\""]);
    refused("merges.txt", "h e\n\nh e\r\n", &["merges.txt, line 3", "the merge of \"h\" and \"e\" is on line 1 too"]);
    refused("merges.txt", "h e\n\nhe\r\n", &["merges.txt, line 3", "not \"he\""]);
    refused("merges.txt", "h \u{e9}\n", &["merges.txt, line 1", "needs the token \"h\u{e9}\""]);
    let long = format!("{} b c", "x".repeat(1 << 20));
    refused("merges.txt", &long, &["merges.txt, line 1", "(1048580 characters)"]);
    refused("added_tokens.json", r#"{"<pad>": "x"}"#, &["the id of \"<pad>\" is \"x\""]);
    refused("special_tokens_map.json", r#"{"pad_token": {"content": 5}}"#, &["a token is malformed"]);
    refused("tokenizer_config.json", r#"{"add_prefix_space": "x"}"#, &["`add_prefix_space` is \"x\""]);
    refused("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": "y"}}"#, &["\"x\" is not the id"]);
    // A token whose id is another token's.
    let directory = directory();
    write(&directory, "added_tokens.json", r#"{"<pad>": 5}"#);
    assert!(read(&directory).unwrap_err().contains("have the id 5"));
    std::fs::write(directory.path().join("merges.txt"), b"h e\nh \xff\n").unwrap();
    assert!(read(&directory).unwrap_err().contains("merges.txt, line 2: the line is not UTF-8"));
}

#[test]
fn one_of_the_two_files_alone_is_no_tokenizer() {
    for name in ["vocab.json", "merges.txt"] {
        let directory = directory();
        std::fs::remove_file(directory.path().join(name)).unwrap();
        assert!(ModelFiles::directory(directory.path()).unwrap().tokenizer().unwrap().is_none());
    }
}
