//! The readers of a user's files, each as a function of the bytes of one file.
//!
//! The fuzz targets in `fuzz/` give these functions random bytes, and the tests replay the kept
//! inputs in `fuzz/corpus`. Each reader must return a value or a typed error with a message. A
//! panic is a bug.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use burn::backend::Flex;
use rewire_model::{Architecture, ModelFiles, Transformer, TransformerConfig, read_activations};
use rewire_tasks::{AnswerTokens, Choices, PairsSource, Tokenizer, read_pairs};
use rewire_toy::Toy;
use tempfile::{NamedTempFile, TempDir};

/// Vocabulary, context and layers of the toy models.
const D_VOCAB: usize = 916;
const N_CTX: usize = 48;
const N_LAYERS: usize = 4;

/// Configurations so small that a whole weights file is one small input.
const SMALL: [(&str, &str); 2] = [
    (
        "gpt2.json",
        r#"{"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 2, "n_inner": 2, "n_positions": 2,
            "vocab_size": 3}"#,
    ),
    (
        "neox.json",
        r#"{"model_type": "gpt_neox", "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 2,
            "intermediate_size": 2, "max_position_embeddings": 2, "vocab_size": 3, "rotary_pct": 1.0}"#,
    ),
];

/// Texts that every tokenizer encodes.
const TEXTS: [&str; 4] = ["When Mary and John went", " Mary", "", "\u{e9}\u{0}\n"];

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Toy::Gpt2.tokenizer().expect("a tokenizer that is whole"));

/// Reads a file of prompt pairs of any format, with and without a tokenizer.
///
/// # Panics
/// If the reader has a bug.
pub fn pairs(bytes: &[u8]) {
    let file = on_disk(bytes);
    let named = Choices { counterfactual: Some("random"), mark: Some("end") };
    for tokenizer in [None, Some(&*TOKENIZER)] {
        for answers in [AnswerTokens::Single, AnswerTokens::First, AnswerTokens::Whole] {
            for choices in [Choices::default(), named] {
                let source = PairsSource::new(tokenizer, Some(0), D_VOCAB, N_CTX);
                displayed(read_pairs(file.path(), &PairsSource { answers, choices, ..source }));
            }
        }
    }
}

/// Reads a `config.json`, and loads the weights of a toy model with it: those of the same
/// architecture, if there is one.
///
/// # Panics
/// If the reader has a bug.
pub fn config(bytes: &[u8]) {
    let file = on_disk(bytes);
    let Some(config) = displayed(TransformerConfig::from_file(file.path())) else { return };
    let toy = match config.architecture {
        Architecture::GptNeoX => Toy::NeoX,
        _ => Toy::Gpt2,
    };
    let files = ModelFiles::at(file.path().into(), vec![weights_of(toy)], None);
    assert_eq!(displayed(files.config()), Some(config), "the two ways to read a configuration differ");
    load(&files);
}

/// Reads a weights file, header and data, as the only file of two small models.
///
/// # Panics
/// If the reader has a bug.
pub fn safetensors(bytes: &[u8]) {
    let directory = TempDir::new().expect("a directory for temporary files");
    let weights = directory.path().join("model.safetensors");
    std::fs::write(&weights, bytes).expect("room for a temporary file");
    for (name, config) in SMALL {
        let path = directory.path().join(name);
        std::fs::write(&path, config).expect("room for a temporary file");
        load(&ModelFiles::at(path, vec![weights.clone()], None));
    }
}

/// Reads a PyTorch checkpoint as the only weights file of two small models.
///
/// # Panics
/// If the reader has a bug.
pub fn checkpoint(bytes: &[u8]) {
    let directory = TempDir::new().expect("a directory for temporary files");
    let weights = directory.path().join("pytorch_model.bin");
    std::fs::write(&weights, bytes).expect("room for a temporary file");
    for (name, config) in SMALL {
        let path = directory.path().join(name);
        std::fs::write(&path, config).expect("room for a temporary file");
        load(&ModelFiles::at(path, vec![weights.clone()], None));
    }
}

/// Reads a GGUF file: the model in it, and its tokenizer, which encodes texts.
///
/// # Panics
/// If the reader has a bug.
pub fn gguf(bytes: &[u8]) {
    let directory = TempDir::new().expect("a directory for temporary files");
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("room for a temporary file");
    let Some(files) = displayed(ModelFiles::gguf(&path)) else { return };
    load(&files);
    let Some(Some((path, json))) = displayed(files.tokenizer()) else { return };
    let Some(tokenizer) = displayed(Tokenizer::from_bytes(&json, &path)) else { return };
    for text in TEXTS {
        encode(&tokenizer, text);
    }
}

/// Reads the files of a byte-level BPE, and encodes texts with it. Zero bytes separate
/// `vocab.json`, `merges.txt`, and the three files of special tokens.
///
/// # Panics
/// If the reader has a bug.
pub fn vocabulary(bytes: &[u8]) {
    let directory = TempDir::new().expect("a directory for temporary files");
    let names = ["vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"];
    let mut contents = bytes.split(|byte| *byte == 0);
    let files = names.map(|name| {
        let path = directory.path().join(name);
        let content = contents.next()?;
        std::fs::write(&path, content).expect("room for a temporary file");
        Some(path)
    });
    let [Some(vocabulary), Some(merges), settings @ ..] = files else { return };
    let files = ModelFiles::at(PathBuf::new(), Vec::new(), None);
    let files = files.with_vocabulary(vocabulary, merges, settings.into_iter().flatten().collect());
    let Some(Some((path, json))) = displayed(files.tokenizer()) else { return };
    let Some(tokenizer) = displayed(Tokenizer::from_bytes(&json, &path)) else { return };
    for text in TEXTS {
        encode(&tokenizer, text);
    }
}

/// Reads a `tokenizer.json`, and encodes texts with it.
///
/// If the input has a zero byte, the file ends before the first one. The bytes after it are a text
/// that this tokenizer and the toy models' tokenizer encode.
///
/// # Panics
/// If the reader has a bug.
pub fn tokenizer(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (file, rest) = bytes.split_at(end);
    let text = String::from_utf8_lossy(rest.get(1..).unwrap_or_default());
    encode(&TOKENIZER, &text);
    let Some(tokenizer) = displayed(Tokenizer::from_bytes(file, Path::new("tokenizer.json"))) else { return };
    for text in TEXTS.into_iter().chain([&*text]) {
        encode(&tokenizer, text);
    }
    displayed(tokenizer.surrounding());
    let _ = tokenizer.decode(&[0, 7, u32::MAX]);
}

/// Reads a file of activations for a model with as many layers as the toy models.
///
/// # Panics
/// If the reader has a bug.
pub fn activations(bytes: &[u8]) {
    displayed(read_activations::<Flex>(bytes, Path::new("given.safetensors"), N_LAYERS, &Default::default()));
}

/// Encodes a text, and decodes its tokens.
fn encode(tokenizer: &Tokenizer, text: &str) {
    displayed(tokenizer.check_fits(text, N_CTX));
    displayed(tokenizer.single_token(text));
    if let Some(tokens) = displayed(tokenizer.encode_prompt(text, Some(0))) {
        let _ = tokenizer.decode(&tokens);
    }
}

fn load(files: &ModelFiles) {
    displayed(Transformer::<Flex>::load(files, &Default::default()));
}

/// Returns the value of a reader. An error must have a message.
fn displayed<T, E: Error>(outcome: Result<T, E>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!error.to_string().is_empty(), "{error:?} has no message");
            None
        }
    }
}

/// A temporary file with these bytes.
fn on_disk(bytes: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a directory for temporary files");
    std::fs::write(file.path(), bytes).expect("room for a temporary file");
    file
}

/// The weights file of a toy model.
fn weights_of(toy: Toy) -> PathBuf {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models");
    models.join(toy.name()).join("model.safetensors")
}
