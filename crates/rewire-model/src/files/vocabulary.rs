//! Converts `vocab.json` and `merges.txt`, the older files of GPT-2's tokenizer, to the
//! `tokenizer.json` that transformers makes from them.
//!
//! The result is a byte-level BPE. Special tokens come from `added_tokens.json`,
//! `special_tokens_map.json` and `tokenizer_config.json`, and `<|endoftext|>` is one if the
//! vocabulary has it. A special token without an id in any of the files is left out. Of the other
//! settings, `add_prefix_space` is honored. `add_bos_token` is not: the BOS of prompts comes from
//! `config.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rewire_input::{cut, quoted, read_regular, repeated_key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::files::config_file::BYTE_ORDER_MARK;

/// The files that may name special tokens.
pub(crate) const SETTINGS: [&str; 3] = ["added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"];

/// Maximum size in bytes of each file. GPT-2's have 1.1 million together.
const MOST_BYTES: u64 = 32 << 20;

/// GPT-2's only special token.
const END_OF_TEXT: &str = "<|endoftext|>";

/// The files of a byte-level BPE.
#[derive(Debug, Clone)]
pub(crate) struct VocabularyFiles {
    pub(crate) vocabulary: PathBuf,
    pub(crate) merges: PathBuf,
    /// Those of [`SETTINGS`] that exist.
    pub(crate) settings: Vec<PathBuf>,
}

/// The id of each token.
type Vocabulary = BTreeMap<String, u32>;

/// A token that is found in a text before it is split into words.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct AddedToken {
    id: Option<u32>,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl VocabularyFiles {
    /// Returns the contents of the `tokenizer.json`.
    pub(crate) fn to_tokenizer_json(&self) -> Result<Vec<u8>, ModelError> {
        let mut vocabulary: Vocabulary = read_json(&self.vocabulary)?;
        check_ids(&vocabulary, &self.vocabulary)?;
        let merges = read_merges(&self.merges, &vocabulary)?;
        let mut settings = Settings::default();
        for path in &self.settings {
            settings.read(path)?;
        }
        let added = settings.added_tokens(&vocabulary);
        // The library numbers added tokens that are not in the vocabulary anew.
        vocabulary.extend(added.iter().filter_map(|token| Some((token.content.clone(), token.id?))));
        check_ids(&vocabulary, &self.vocabulary)?;
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": byte_level(settings.add_prefix_space), "post_processor": null, "decoder": byte_level(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocabulary, "merges": merges,
            },
        });
        Ok(tokenizer.to_string().into_bytes())
    }
}

/// Returns a pre-tokenizer or decoder of bytes.
fn byte_level(add_prefix_space: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true })
}

/// The settings of the files that name special tokens.
#[derive(Default)]
struct Settings {
    add_prefix_space: bool,
    /// By content. The first file that describes a token decides.
    tokens: BTreeMap<String, AddedToken>,
}

impl Settings {
    fn read(&mut self, path: &Path) -> Result<(), ModelError> {
        let refuse = |reason: String| ModelError::Vocabulary { path: path.into(), line: None, reason };
        let fields: Map<String, Value> = read_json(path)?;
        if path.file_name().is_some_and(|name| name == SETTINGS[0]) {
            for (content, id) in fields {
                let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = number.ok_or_else(|| refuse(format!("the id of {} is {}", quoted(&content), shown(&id))))?;
                self.add(AddedToken { id: Some(id), content, ..AddedToken::default() });
            }
            return Ok(());
        }
        for (id, value) in fields.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
            let number = id.parse::<u32>().map_err(|_| refuse(format!("{} is not the id of a token", quoted(id))))?;
            if let Some(token) = described(value).map_err(refuse)? {
                self.add(AddedToken { id: Some(number), ..token });
            }
        }
        for (name, value) in &fields {
            let values = match value {
                Value::Array(values) if name == "additional_special_tokens" => values.as_slice(),
                value if name.ends_with("_token") => std::slice::from_ref(value),
                _ => &[],
            };
            for value in values {
                if let Some(token) = described(value).map_err(refuse)? {
                    self.add(AddedToken { special: true, ..token });
                }
            }
        }
        match fields.get("add_prefix_space") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(flag)) => self.add_prefix_space = *flag,
            Some(other) => {
                return Err(refuse(format!("`add_prefix_space` is {}, not true or false", shown(other))));
            }
        }
        Ok(())
    }

    /// Adds a token, or an id or a mark to a token that is there. A token without text is left out.
    fn add(&mut self, token: AddedToken) {
        if token.content.is_empty() {
            return;
        }
        let known = self.tokens.entry(token.content.clone()).or_insert_with(|| token.clone());
        known.id = known.id.or(token.id);
        known.special |= token.special;
    }

    /// Returns the tokens that have an id, in the order of their ids. The vocabulary decides on the
    /// id of a token that it has.
    fn added_tokens(&self, vocabulary: &Vocabulary) -> Vec<AddedToken> {
        let mut tokens = self.tokens.clone();
        if vocabulary.contains_key(END_OF_TEXT) {
            let default = AddedToken { content: END_OF_TEXT.to_owned(), special: true, ..AddedToken::default() };
            tokens.entry(END_OF_TEXT.to_owned()).or_insert(default);
        }
        let with_id = |token: AddedToken| {
            let id = vocabulary.get(&token.content).copied().or(token.id)?;
            Some(AddedToken { id: Some(id), ..token })
        };
        let mut tokens: Vec<AddedToken> = tokens.into_values().filter_map(with_id).collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }
}

/// Returns the token that a value describes: its text, or an object with its properties.
fn described(value: &Value) -> Result<Option<AddedToken>, String> {
    match value {
        Value::String(content) => Ok(Some(AddedToken { content: content.clone(), ..AddedToken::default() })),
        Value::Object(_) => match AddedToken::deserialize(value) {
            Ok(token) => Ok(Some(token)),
            Err(error) => Err(format!("a token is malformed: {}", cut(&error.to_string()))),
        },
        _ => Ok(None),
    }
}

/// Reads a JSON file. No key may be there twice.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let refuse = |reason: String| ModelError::Vocabulary { path: path.into(), line: None, reason };
    let text = read_regular(path, MOST_BYTES).map_err(|source| ModelError::Read { path: path.into(), source })?;
    // The message of the parser has line and column.
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let value = serde_json::from_slice(text).map_err(|e| refuse(format!("malformed JSON: {}", cut(&e.to_string()))))?;
    match repeated_key(text) {
        Some(key) => Err(refuse(format!("it names `{}` twice; keep one", cut(&key)))),
        None => Ok(value),
    }
}

/// Refuses two tokens with one id.
fn check_ids(vocabulary: &Vocabulary, path: &Path) -> Result<(), ModelError> {
    let mut by_id = BTreeMap::new();
    for (token, id) in vocabulary {
        if let Some(other) = by_id.insert(id, token) {
            let reason =
                format!("the tokens {} and {} have the id {id}; each needs its own", quoted(other), quoted(token));
            return Err(ModelError::Vocabulary { path: path.into(), line: None, reason });
        }
    }
    Ok(())
}

/// Reads the merges, one a line, the most frequent first.
fn read_merges(path: &Path, vocabulary: &Vocabulary) -> Result<Vec<[String; 2]>, ModelError> {
    let refuse = |line: usize, reason: String| ModelError::Vocabulary { path: path.into(), line: Some(line), reason };
    let bytes = read_regular(path, MOST_BYTES).map_err(|source| ModelError::Read { path: path.into(), source })?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let before = &bytes[..e.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        refuse(line, "the line is not UTF-8; save the file as UTF-8".to_owned())
    })?;
    let mut merges = Vec::new();
    let mut lines: BTreeMap<[&str; 2], usize> = BTreeMap::new();
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        if line.is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(left), Some(right), None) = (words.next(), words.next(), words.next()) else {
            let reason = format!("a merge is two tokens and a space between them, not {}", quoted(line));
            return Err(refuse(index + 1, reason));
        };
        let joined = format!("{left}{right}");
        if let Some(absent) = [left, right, joined.as_str()].into_iter().find(|token| !vocabulary.contains_key(*token))
        {
            let [left, right, absent] = [left, right, absent].map(quoted);
            let reason =
                format!("the merge of {left} and {right} needs the token {absent}, and vocab.json has no such token");
            return Err(refuse(index + 1, reason));
        }
        // The later line would decide the order in which words are merged.
        if let Some(earlier) = lines.insert([left, right], index + 1) {
            let [left, right] = [left, right].map(quoted);
            return Err(refuse(
                index + 1,
                format!("the merge of {left} and {right} is on line {earlier} too; keep one"),
            ));
        }
        merges.push([left.to_owned(), right.to_owned()]);
    }
    Ok(merges)
}

/// Returns a value as text for a message.
fn shown(value: &Value) -> String {
    cut(&value.to_string())
}
