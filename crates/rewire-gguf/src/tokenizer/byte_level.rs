//! A byte-level BPE, as GPT-2, Llama 3, Qwen and SmolLM have it.

use rewire_input::quoted;
use serde_json::{Value, json};

use crate::error::GgufError;
use crate::read::metadata::Metadata;
use crate::tokenizer::pre_tokenizer::PreTokenizer;
use crate::tokenizer::tokens::Tokens;

const MERGES: &str = "tokenizer.ggml.merges";

/// Returns the `tokenizer.json` of a byte-level BPE.
pub(crate) fn byte_level_bpe(metadata: &Metadata<'_>, tokens: &Tokens<'_>) -> Result<Value, GgufError> {
    let pre_tokenizer = PreTokenizer::read(metadata)?;
    let merges = read_merges(metadata, tokens)?;
    let decoder = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    let same = |text: &str, _| text.to_owned();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens.added(same),
        "normalizer": pre_tokenizer.normalizer(), "pre_tokenizer": pre_tokenizer.json(), "post_processor": null,
        "decoder": decoder,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre_tokenizer.takes_whole_words(), "vocab": tokens.vocabulary(same), "merges": merges,
        },
    }))
}

/// Reads the merges, the most frequent first. Both parts and the whole must be tokens.
fn read_merges<'a>(metadata: &Metadata<'a>, tokens: &Tokens<'_>) -> Result<Vec<[&'a str; 2]>, GgufError> {
    let texts = metadata.required(MERGES, metadata.texts(MERGES)?)?;
    let mut merges = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        let Some((left, right)) = text.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty())
        else {
            let reason = format!("merge {index} is {}, not two tokens and a space between them", quoted(text));
            return Err(metadata.refuse(MERGES, reason));
        };
        let joined = format!("{left}{right}");
        if let Some(absent) = [left, right, &joined].into_iter().find(|token| !tokens.ids.contains_key(*token)) {
            let reason =
                format!("merge {index}, {}, needs the token {}, and there is none", quoted(text), quoted(absent));
            return Err(metadata.refuse(MERGES, reason));
        }
        merges.push([left, right]);
    }
    Ok(merges)
}
