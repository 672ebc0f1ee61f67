//! Chooses the kind of tokenizer.

use rewire_input::quoted;
use serde_json::Value;

use crate::error::GgufError;
use crate::read::file::Gguf;
use crate::tokenizer::byte_level::byte_level_bpe;
use crate::tokenizer::sentence_piece::sentence_piece_bpe;
use crate::tokenizer::tokens::Tokens;

/// Returns the `tokenizer.json` of the model, or `None` if the file has no tokenizer.
///
/// A byte-level BPE (`gpt2`) has the vocabulary, the merges, the special tokens and the
/// pre-tokenizer of the file. A BPE of SentencePiece (`llama`) has the merges that transformers'
/// converter derives from the scores of its tokens. Neither puts tokens around a text: the BOS
/// token is in [`config_json`](crate::config_json).
///
/// # Errors
/// [`GgufError::Key`] if the tokenizer or its pre-tokenizer is not supported, or a list is damaged.
pub fn tokenizer_json(file: &Gguf<'_>) -> Result<Option<Value>, GgufError> {
    const MODEL: &str = "tokenizer.ggml.model";
    let metadata = file.metadata();
    match metadata.text(MODEL)? {
        None | Some("no_vocab" | "none") => Ok(None),
        Some("gpt2") => byte_level_bpe(metadata, &Tokens::read(metadata)?).map(Some),
        Some("llama") => sentence_piece_bpe(metadata, &Tokens::read(metadata)?).map(Some),
        Some(other) => Err(metadata.refuse(
            MODEL,
            format!(
                "the tokenizer {} is not supported; Rewire reads gpt2 (byte-level BPE) and llama (SentencePiece)",
                quoted(other)
            ),
        )),
    }
}
