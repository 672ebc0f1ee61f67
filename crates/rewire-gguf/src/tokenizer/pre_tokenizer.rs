//! How a byte-level BPE splits a text into words before it merges, by the name in the metadata.

use rewire_input::{did_you_mean, quoted};
use serde_json::{Value, json};

use crate::error::GgufError;
use crate::read::metadata::Metadata;

const KEY: &str = "tokenizer.ggml.pre";

/// A way to split. Each is that of the `tokenizer.json` of the models that it is named for, except
/// [`Default`](PreTokenizer::Default), which only llama.cpp has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreTokenizer {
    Gpt2,
    Llama3,
    Qwen2,
    Qwen2Unnormalized,
    SmolLm,
    Tekken,
    Default,
}

/// The names that llama.cpp gives to each way.
const NAMES: [(&str, PreTokenizer); 13] = [
    ("gpt-2", PreTokenizer::Gpt2),
    ("phi-2", PreTokenizer::Gpt2),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("falcon3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2Unnormalized),
    ("smollm", PreTokenizer::SmolLm),
    ("starcoder", PreTokenizer::SmolLm),
    ("refact", PreTokenizer::SmolLm),
    ("tekken", PreTokenizer::Tekken),
    ("default", PreTokenizer::Default),
];

/// GPT-2's words.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3's words: up to three digits, and letters with the character before them.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen2's words: Llama 3's with one digit.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Words of Mistral's Tekken: a change from small to capital letters begins a word.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl PreTokenizer {
    /// Reads the name. A file without one, or with one that is not known, is refused: with other
    /// words, a prompt would silently become other tokens.
    pub(crate) fn read(metadata: &Metadata<'_>) -> Result<Self, GgufError> {
        let known = NAMES.map(|(name, _)| name);
        let given = match metadata.text(KEY)? {
            Some(given) => given,
            // GPT-2 itself has only ever had one.
            None if metadata.architecture()? == "gpt2" => "gpt-2",
            None => {
                let reason = "the metadata lacks it, so the words that are tokenized are unknown; take a newer file of \
                              this model";
                return Err(metadata.refuse(KEY, reason));
            }
        };
        NAMES.into_iter().find(|(name, _)| *name == given).map(|(_, way)| way).ok_or_else(|| {
            let suggested = did_you_mean(given, known);
            metadata.refuse(
                KEY,
                format!("{} is not supported; Rewire reads {}{suggested}", quoted(given), known.join(", ")),
            )
        })
    }

    /// Returns the pre-tokenizer for a `tokenizer.json`.
    pub(crate) fn json(self) -> Value {
        let parts = match self {
            Self::Gpt2 => return byte_level(Words::OfGpt2),
            Self::SmolLm => vec![json!({ "type": "Digits", "individual_digits": true }), byte_level(Words::OfGpt2)],
            Self::Llama3 => vec![split(LLAMA3), byte_level(Words::Given)],
            Self::Qwen2 | Self::Qwen2Unnormalized => vec![split(QWEN2), byte_level(Words::Given)],
            Self::Tekken => vec![split(TEKKEN), byte_level(Words::Given)],
            Self::Default => vec![
                split(r"[\p{P}\$\+<=>\^~\|]+"),
                split(GPT2),
                split(r"\p{N}+"),
                split(r"[0-9][0-9][0-9]"),
                byte_level(Words::Given),
            ],
        };
        json!({ "type": "Sequence", "pretokenizers": parts })
    }

    /// Returns the normalizer for a `tokenizer.json`. Only that of Qwen composes characters.
    pub(crate) fn normalizer(self) -> Value {
        match self {
            Self::Qwen2 => json!({ "type": "NFC" }),
            _ => Value::Null,
        }
    }

    /// Returns whether a word that is a token becomes this token, whatever the merges.
    pub(crate) fn takes_whole_words(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }
}

/// Splits at the matches of a pattern, and keeps them.
fn split(pattern: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

/// The words whose bytes become letters.
#[derive(PartialEq)]
enum Words {
    /// GPT-2's words.
    OfGpt2,
    /// The pieces that the parts before have made.
    Given,
}

/// Turns the bytes of words into letters.
fn byte_level(words: Words) -> Value {
    let use_regex = words == Words::OfGpt2;
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}
