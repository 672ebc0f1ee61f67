//! A BPE of SentencePiece, as Llama 2, Mistral and Gemma have it.
//!
//! SentencePiece merges the two neighbors whose union has the highest score. `tokenizer.json` has a
//! list of merges instead; this module makes it as transformers' converter does
//! (`generate_merges` in `convert_slow_tokenizer.py`).

use std::cmp::Reverse;

use serde_json::{Value, json};

use crate::error::GgufError;
use crate::read::metadata::Metadata;
use crate::tokenizer::tokens::{Kind, TOKENS, Tokens};

const SCORES: &str = "tokenizer.ggml.scores";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const EXTRA_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";

/// The letter that stands for a space.
const SPACE: &str = "\u{2581}";

/// Returns the `tokenizer.json` of a BPE of SentencePiece.
pub(crate) fn sentence_piece_bpe(metadata: &Metadata<'_>, tokens: &Tokens<'_>) -> Result<Value, GgufError> {
    if metadata.flag(EXTRA_SPACES)? == Some(true) {
        return Err(metadata.refuse(EXTRA_SPACES, "it is true, and Rewire does not support it"));
    }
    let has_space_prefix = metadata.flag(SPACE_PREFIX)?.unwrap_or(true);
    let scores = metadata.required(SCORES, metadata.floats(SCORES)?)?;
    if scores.len() != tokens.texts.len() {
        let reason = format!("it has {} entries, and `{TOKENS}` has {}", scores.len(), tokens.texts.len());
        return Err(metadata.refuse(SCORES, reason));
    }
    let has_bytes = tokens.kinds.contains(&Kind::Byte);
    let replace = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "String": pattern }, "content": content });
    let mut normalizers = vec![replace(" ", SPACE)];
    let mut decoders = vec![replace(SPACE, " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
    if has_space_prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens.added(spelled),
        "normalizer": { "type": "Sequence", "normalizers": normalizers }, "pre_tokenizer": null,
        "post_processor": null, "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown(metadata, tokens)?, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": has_bytes, "ignore_merges": false,
            "vocab": tokens.vocabulary(spelled), "merges": merges(tokens, &scores),
        },
    }))
}

/// Tokens that the user defined are found in the text as it is written.
fn spelled(text: &str, kind: Kind) -> String {
    match kind {
        Kind::UserDefined => text.replace(SPACE, " "),
        _ => text.to_owned(),
    }
}

/// Returns the text of the token for unknown text, or null.
fn unknown(metadata: &Metadata<'_>, tokens: &Tokens<'_>) -> Result<Value, GgufError> {
    let given = metadata.whole(UNKNOWN)?.map(|id| {
        let text = usize::try_from(id).ok().and_then(|id| tokens.texts.get(id));
        text.copied().ok_or_else(|| metadata.refuse(UNKNOWN, format!("there is no token {id}")))
    });
    let marked = || tokens.iter().find(|(_, _, kind)| *kind == Kind::Unknown).map(|(_, text, _)| text);
    Ok(given.transpose()?.or_else(marked).map_or(Value::Null, Value::from))
}

/// Returns the merges: all ways to make a piece of text out of two tokens, those of the piece with
/// the highest score first, and among equals those with the longer left token.
fn merges<'a>(tokens: &Tokens<'a>, scores: &[f32]) -> Vec<[&'a str; 2]> {
    let mut merges = Vec::new();
    for (id, text, kind) in tokens.iter() {
        if kind != Kind::Normal {
            continue;
        }
        let mut ways: Vec<(u32, u32, [&str; 2])> = Vec::new();
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(left_id), Some(right_id)) = (tokens.ids.get(left), tokens.ids.get(right)) {
                ways.push((*left_id, *right_id, [left, right]));
            }
        }
        ways.sort_by_key(|(left, right, _)| (*left, *right));
        merges.extend(ways.into_iter().map(|(_, _, pair)| (scores[id as usize], pair)));
    }
    let lengths = |pair: &[&str; 2]| pair.map(|part| Reverse(part.chars().count()));
    // The sort is stable, as Python's.
    merges.sort_by(|(score, pair), (other, other_pair)| {
        other.total_cmp(score).then_with(|| lengths(pair).cmp(&lengths(other_pair)))
    });
    merges.into_iter().map(|(_, pair)| pair).collect()
}
