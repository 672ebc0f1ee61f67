//! Damaged or oversized files and settings: a command refuses them quickly, with a short error, and
//! leaves its directory unchanged.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rewire_tests::gguf_file::{Entry, File};
use rewire_tests::gguf_gpt2::gpt2;
use serde_json::{Value, json};
use tempfile::TempDir;

fn toy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models/toy-gpt2")
}

/// Creates a directory with `pairs.jsonl` and a copy of the toy model in `model`.
fn directory(pairs: &[u8]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(toy().join(file), model.join(file)).unwrap();
    }
    std::fs::write(directory.path().join("pairs.jsonl"), pairs).unwrap();
    directory
}

fn sweep(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(["sweep", "--model", "model", "--metric", "logit-diff"])
        .args(arguments)
        .current_dir(directory)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// Asserts that a sweep is refused in one short line with `words`, within seconds.
fn assert_refused_with(directory: &Path, arguments: &[&str], environment: &[(&str, &str)], words: &[&str]) -> String {
    let started = Instant::now();
    let output = sweep(directory, arguments, environment);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", &message[..message.len().min(2000)]);
    assert!(message.len() < 1500, "{} bytes: {:?}", message.len(), &message[..1000]);
    for word in words {
        assert!(message.contains(word), "does not say {word:?}: {message}");
    }
    assert!(!directory.join("out").exists(), "{message}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}: {message}", started.elapsed());
    message
}

fn assert_refused(directory: &Path, words: &[&str]) -> String {
    assert_refused_with(directory, &["--pairs", "pairs.jsonl"], &[], words)
}

/// Asserts that a sweep over these lines is refused.
fn assert_pairs_refused(lines: &[u8], words: &[&str]) {
    let message = assert_refused(directory(lines).path(), words);
    assert!(!message.contains("panicked"), "{message}");
}

const GOOD: &str = r#"{"clean": [0, 1, 2], "corrupt": [0, 3, 2], "answers": [4], "wrong_answers": [5]}"#;

#[test]
fn megabytes_of_text_are_refused_before_tokenization() {
    let pair = |clean: &str, answer: &str| {
        let pair = json!({ "clean": clean, "corrupt": " John", "answers": [answer], "wrong_answers": [" John"] });
        pair.to_string().into_bytes()
    };
    let long = " Mary".repeat(2 << 20);
    let fits = ["line 1", "\" Mary Mary", "(10485760 characters) has 10485760 bytes", "context of 48 tokens"];
    assert_pairs_refused(&pair(&long, " Mary"), &fits);
    assert_pairs_refused(&pair(" John", &long), &fits);
    // An answer within the size limit that has many tokens.
    assert_pairs_refused(&pair(" John", &" Mary".repeat(40)), &["40 tokens ( Mary| Mary|", "not one"]);
    let with_normalizer = directory(&pair(&long, " Mary"));
    edit(with_normalizer.path(), "tokenizer.json", |file| file["normalizer"] = json!({ "type": "NFC" }));
    assert_refused(with_normalizer.path(), &["10485760 bytes", "the limit is 1048576"]);
    std::fs::remove_file(with_normalizer.path().join("model/tokenizer.json")).unwrap();
    assert_refused(with_normalizer.path(), &["\" Mary Mary", "(10485760 characters) is text"]);
}

#[test]
fn endless_lines_are_refused() {
    let directory = directory(b"");
    let one_line = vec![b'x'; (16 << 20) + 1];
    std::fs::write(directory.path().join("pairs.jsonl"), one_line).unwrap();
    assert_refused(directory.path(), &["pairs.jsonl, line 1", "more than 16777216 bytes"]);
    if cfg!(unix) {
        let zero = ["--pairs", "/dev/zero"];
        assert_refused_with(directory.path(), &zero, &[], &["/dev/zero, line 1", "more than 16777216 bytes"]);
    }
    assert_refused_with(directory.path(), &["--pairs", "model"], &[], &["cannot read model", "directory"]);
}

#[test]
fn lines_that_are_not_pairs_are_refused_by_number() {
    let after_good = |line: &[u8]| [GOOD.as_bytes(), b"\r\n\r\n", line, b"\n"].concat();
    let with_clean = |ids: &str| GOOD.replace("[0, 1, 2]", ids).into_bytes();
    let whole = "expected a whole number from 0 to 4294967295";
    assert_pairs_refused(&with_clean("[0, -1, 2]"), &["line 1", "`clean` holds -1", whole]);
    assert_pairs_refused(&with_clean("[0, 1.5, 2]"), &["line 1", "`clean` holds 1.5", whole]);
    assert_pairs_refused(&with_clean("[0, 4294967296, 2]"), &["line 1", "`clean` holds 4294967296", whole]);
    assert_pairs_refused(&with_clean("[0, 1e308, 2]"), &["line 1", "`clean` holds 1e", whole]);
    assert_pairs_refused(&with_clean("[0, [1], 2]"), &["line 1", "`clean` holds a list", whole]);
    let ids = format!("[{}0]", "0,".repeat(4 << 20));
    assert_pairs_refused(&with_clean(&ids), &["line 1", "clean prompt has 4194305 tokens"]);
    assert_pairs_refused(&GOOD.replace("[4]", "[-1]").into_bytes(), &["line 1", "`answers` holds -1", whole]);
    assert_pairs_refused(&after_good(b"\0"), &["line 3"]);
    assert_pairs_refused(&after_good(b"{\"clean\": \"\xff\"}"), &["line 3", "byte 12 of the line is not UTF-8"]);
    let twice = GOOD.replacen('{', r#"{"clean": [0], "#, 1);
    assert_pairs_refused(&after_good(twice.as_bytes()), &["line 3", "the key `clean` is there twice"]);
    let unknown = GOOD.replacen('{', &format!("{{\"{}\": 1, ", "\\u001b".repeat(100_000)), 1);
    assert_pairs_refused(unknown.as_bytes(), &["line 1", "unknown key `\\u{1b}"]);
    assert_pairs_refused(&[b"{\"clean\": ".as_slice(), &[b'['; 100_000]].concat(), &["line 1"]);
    // Windows line ends and a byte order mark are accepted.
    let windows = directory(format!("\u{feff}{GOOD}\r\n\r\n{GOOD}\r\n").as_bytes());
    let output = sweep(windows.path(), &["--pairs", "pairs.jsonl", "--nodes", "attn_out"], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Changes a JSON file of the model.
fn edit(directory: &Path, name: &str, change: impl Fn(&mut Value)) {
    let mut file: Value = serde_json::from_slice(&std::fs::read(toy().join(name)).unwrap()).unwrap();
    change(&mut file);
    std::fs::write(directory.join("model").join(name), file.to_string()).unwrap();
}

#[test]
fn tokenizers_that_panic_their_library_are_refused_by_file() {
    let directory =
        directory(br#"{"clean": " John", "corrupt": " Mary", "answers": [" Mary"], "wrong_answers": [" John"]}"#);
    let with = |part: &str, value: Value| edit(directory.path(), "tokenizer.json", |file| file[part] = value.clone());
    let known: [(&str, Value, &str); 3] = [
        ("normalizer", json!({ "type": "Replace", "pattern": { "Regex": "" }, "content": "x" }), "`Replace`"),
        ("normalizer", json!({ "type": "Prepend", "prepend": "" }), "`Prepend`"),
        ("pre_tokenizer", json!({ "type": "FixedLength", "length": 0 }), "`FixedLength`"),
    ];
    for (part, value, word) in known {
        with(part, value);
        let message = assert_refused(directory.path(), &["model/tokenizer.json is not a tokenizer", word]);
        assert!(!message.contains("panicked"), "{message}");
    }
    let id = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let found: [(&str, Value); 2] = [
        ("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "////" })),
        (
            "post_processor",
            json!({ "type": "TemplateProcessing", "single": [id("B")], "pair": [id("A"), id("B")], "special_tokens": {} }),
        ),
    ];
    for (part, value) in found {
        with(part, value);
        assert_refused_with(
            directory.path(),
            &["--pairs", "pairs.jsonl"],
            &[("RUST_BACKTRACE", "0")],
            &["error: model/tokenizer.json is not a tokenizer: the tokenizers library cannot work with its settings"],
        );
    }
}

#[test]
fn configurations_of_impossible_models_are_refused() {
    let directory = directory(GOOD.as_bytes());
    let fields = ["n_layer", "n_head", "n_embd", "n_inner", "n_positions", "vocab_size"];
    for field in fields {
        for value in ["0", "-1", "1e308", "18446744073709551615", "4294967295", "1000000000", "null", "[1]"] {
            let value: Value = serde_json::from_str(value).unwrap();
            // A null MLP width means four times the model width.
            edit(directory.path(), "config.json", |file| file[field] = value.clone());
            let message = assert_refused(directory.path(), &["model/"]);
            assert!(!message.contains("panicked"), "{message}");
        }
    }
    edit(directory.path(), "config.json", |file| file["layer_norm_epsilon"] = json!(1e308));
    assert_refused(directory.path(), &["`layer_norm_epsilon`"]);
}

#[test]
fn impossible_numbers_of_threads_are_refused() {
    let directory = directory(GOOD.as_bytes());
    for variable in ["RAYON_NUM_THREADS", "RAYON_RS_NUM_CPUS"] {
        for value in ["100000", "1025", "0", "-1", "abc", "2.5"] {
            let words = [variable, value, "is not a whole number from 1 to 1024"];
            assert_refused_with(directory.path(), &["--pairs", "pairs.jsonl"], &[(variable, value)], &words);
        }
    }
    let bench = Command::new(env!("CARGO_BIN_EXE_rewire")).args(["bench", "--threads", "100000"]).output().unwrap();
    assert_eq!(bench.status.code(), Some(2));
    for value in ["", "2"] {
        let one = ["--pairs", "pairs.jsonl", "--nodes", "attn_out"];
        let output = sweep(directory.path(), &one, &[("RAYON_NUM_THREADS", value)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_dir_all(directory.path().join("out")).unwrap();
    }
}

#[test]
fn given_activations_named_twice_are_refused() {
    let directory = directory(GOOD.as_bytes());
    let given = |path: &str, words: &[&str]| {
        let arguments = ["--pairs", "pairs.jsonl", "--method", "integrated-gradients", "--baseline", path];
        let message = assert_refused_with(directory.path(), &arguments, &[], words);
        assert!(!message.contains("panicked"), "{message}");
    };
    let header = r#"{"blocks.0.attn.hook_z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"blocks.0.attn.hook_z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    let write = |header: &str| {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        std::fs::write(directory.path().join("given"), bytes).unwrap();
    };
    write(header);
    given("given", &["given names `blocks.0.attn.hook_z` twice"]);
    let long = format!(r#"{{"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}}}"#, "h".repeat(1 << 20));
    write(&long);
    given("given", &["given, tensor `hhh", ".. (1048576 characters)"]);
    write(r#"{"blocks.0.attn.hook_z":{"dtype":"F32","shape":[1,0,8,16],"data_offsets":[0,0]}}"#);
    given("given", &["blocks.0.attn.hook_z"]);
    given("model", &["`model` is neither", "nor a file"]);
    if cfg!(unix) {
        given("/dev/zero", &["`/dev/zero` is neither", "nor a file"]);
    }
}

#[test]
fn damaged_gguf_files_are_refused_by_key_and_tensor() {
    let directory = directory(GOOD.as_bytes());
    let model = directory.path().join("model");
    let whole = gpt2(&toy());
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::remove_file(model.join(file)).unwrap();
    }
    let refused = |bytes: &[u8], words: &[&str]| {
        std::fs::write(model.join("toy.gguf"), bytes).unwrap();
        let message = assert_refused(directory.path(), words);
        assert!(message.contains("toy.gguf") && message.lines().count() == 1, "{message}");
    };
    let bytes = whole.bytes();
    refused(&bytes[..20], &["the file is cut off: 8 bytes should follow byte 16, and 4 do"]);
    refused(&bytes[..1000], &["key `tokenizer.ggml.tokens`: the file is cut off"]);
    refused(&bytes[..bytes.len() - 512], &["tensor `token_embd.weight`: its 468992 bytes begin at byte"]);
    refused(b"<html>", &["it is not a GGUF file"]);
    let with = |kind: u32, offset: u64| {
        let entry = Entry { name: b"extra".to_vec(), sizes: vec![256], kind, offset };
        whole.clone().with_entry(entry, &[]).bytes()
    };
    refused(&with(23, 0), &["tensor `extra`: it has the type IQ4_XS, and Rewire reads F32, F16, BF16"]);
    refused(&with(0, 1 << 40), &["tensor `extra`: its 1024 bytes begin at byte 1099511627776 of the data"]);
    let other = File::of("gpt2").with_text("tokenizer.ggml.model", "rwkv");
    refused(&other.bytes(), &["key `gpt2.attention.head_count`: the metadata lacks it"]);
    refused(&File::of("mamba").bytes(), &["key `general.architecture`: \"mamba\" is not supported; Rewire reads gpt2"]);
    let tokenizer = whole.replacing_text("tokenizer.ggml.model", "rwkv");
    refused(&tokenizer.bytes(), &["key `tokenizer.ggml.model`: the tokenizer \"rwkv\" is not supported"]);
    let words = whole.replacing_text("tokenizer.ggml.pre", "gpt-4o");
    refused(&words.bytes(), &["key `tokenizer.ggml.pre`: \"gpt-4o\" is not supported; Rewire reads gpt-2"]);
}
