//! A model's `tokenizer.json`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use tokenizers::{Encoding, ModelWrapper};

/// Converts text to token ids and back, as the model's own `tokenizer.json` does.
///
/// Tokens stand for the whole text and nothing else: truncation, padding and merge dropout are off,
/// whatever the file says, and the tokens that the file puts around a text
/// ([`surrounding`](Self::surrounding)) are left out. The BOS is a matter of the model's
/// configuration.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    unknown: Option<Unknown>,
    changed: Arc<OnceLock<ChangedText>>,
}

/// The token that stands for words outside the vocabulary.
#[derive(Debug, Clone)]
struct Unknown {
    id: u32,
    text: String,
}

/// A text that its own tokens do not spell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedText {
    /// The text.
    pub text: String,
    /// What its tokens spell.
    pub spelled: String,
}

/// Tokens that `tokenizer.json` puts around a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surrounding {
    /// Those in front.
    pub before: Vec<u32>,
    /// Those at the end.
    pub after: Vec<u32>,
}

/// A text to see what a tokenizer puts around it.
const PROBE: &str = "When Mary and John went to the store, John gave a drink to";

/// Why text could not be turned into tokens as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file is no tokenizer.
    #[error("{path} is not a tokenizer: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// The text could not be encoded.
    #[error("cannot tokenize {text:?}: {reason}")]
    Encode {
        /// The text.
        text: String,
        /// What the tokenizer said.
        reason: String,
    },
    /// The tokenizer has no token for a part of the text.
    #[error("the tokenizer has no token for {part:?} in {text:?}; use other words")]
    Unknown {
        /// The text.
        text: String,
        /// The part that would be lost, or become the token for unknown words.
        part: String,
    },
    /// What must be one token is several, or none.
    #[error("{text:?} is {} tokens ({}), not one; answers start with a space (\" Mary\")", pieces.len(), pieces.join("|"))]
    NotOneToken {
        /// The text.
        text: String,
        /// The tokens that it is.
        pieces: Vec<String>,
    },
}

impl Tokenizer {
    /// Reads the contents of a `tokenizer.json`; `path` stands for it in messages.
    ///
    /// # Errors
    /// [`TokenizerError::Unreadable`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let unreadable = |reason: String| TokenizerError::Unreadable { path: path.into(), reason };
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| unreadable(e.to_string()))?;
        inner.with_truncation(None).map_err(|e| unreadable(e.to_string()))?;
        inner.with_padding(None);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(bpe);
        }
        let unknown = unknown(bytes, &inner).map_err(|e| unreadable(e.to_string()))?;
        Ok(Self { inner, unknown, changed: Arc::default() })
    }

    /// Returns the tokens of `text`, without any special token around them.
    ///
    /// # Errors
    /// [`TokenizerError::Unknown`] if a part of the text has no token, [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.encoding(text, false)?;
        if let Some(part) = self.unknown_part(text, &encoding) {
            return Err(TokenizerError::Unknown { text: text.to_owned(), part: part.to_owned() });
        }
        let spelled = self.decode(encoding.get_ids());
        if spelled != text {
            self.changed.get_or_init(|| ChangedText { text: text.to_owned(), spelled });
        }
        Ok(encoding.get_ids().to_vec())
    }

    fn encoding(&self, text: &str, with_special_tokens: bool) -> Result<Encoding, TokenizerError> {
        let encoding = self.inner.encode(text, with_special_tokens);
        encoding.map_err(|e| TokenizerError::Encode { text: text.to_owned(), reason: e.to_string() })
    }

    /// The first part of `text` that became the token for unknown words, or no token at all.
    fn unknown_part<'a>(&self, text: &'a str, encoding: &Encoding) -> Option<&'a str> {
        let mut covered = vec![false; text.len()];
        for (id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let part = text.get(start..end).unwrap_or(text);
            if self.unknown.as_ref().is_some_and(|unknown| unknown.id == *id && unknown.text != part) {
                return Some(part);
            }
            covered[start.min(text.len())..end.min(text.len())].fill(true);
        }
        // Offsets leave out the whitespace around a token.
        let mut characters = text.char_indices();
        let lost = characters.find(|(at, character)| !covered[*at] && !character.is_whitespace());
        lost.map(|(at, character)| &text[at..at + character.len_utf8()])
    }

    /// Returns the first text that was encoded into tokens that do not spell it, if there was one:
    /// a normalizer, a prefix space or an added token that takes the spaces beside it changed it.
    #[must_use]
    pub fn changed_text(&self) -> Option<&ChangedText> {
        self.changed.get()
    }

    /// Returns the tokens that `tokenizer.json` puts around a text and that
    /// [`encode`](Self::encode) leaves out.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn surrounding(&self) -> Result<Surrounding, TokenizerError> {
        let [plain, whole] = [false, true].map(|special| self.encoding(PROBE, special));
        let (plain, whole) = (plain?, whole?);
        let (plain, whole) = (plain.get_ids(), whole.get_ids());
        let start = (0..=whole.len().saturating_sub(plain.len())).find(|&i| whole[i..].starts_with(plain));
        Ok(match start {
            Some(start) => {
                Surrounding { before: whole[..start].to_vec(), after: whole[start + plain.len()..].to_vec() }
            }
            None => Surrounding { before: whole.to_vec(), after: Vec::new() },
        })
    }

    /// The text of `tokens`, special tokens included.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.inner.decode(tokens, false).unwrap_or_default()
    }

    /// The one token that `text` is.
    ///
    /// # Errors
    /// [`TokenizerError::NotOneToken`], with the tokens that it is.
    pub fn single_token(&self, text: &str) -> Result<u32, TokenizerError> {
        match self.encode(text)?.as_slice() {
            [token] => Ok(*token),
            several => {
                let pieces = several.iter().map(|&t| self.decode(&[t])).collect();
                Err(TokenizerError::NotOneToken { text: text.to_owned(), pieces })
            }
        }
    }

    /// Number of tokens, added ones included.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

/// The token for unknown words, as the file names it.
fn unknown(bytes: &[u8], inner: &tokenizers::Tokenizer) -> serde_json::Result<Option<Unknown>> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        unk_token: Option<String>,
        unk_id: Option<u32>,
    }
    let Model { unk_token, unk_id } = serde_json::from_slice::<File>(bytes)?.model;
    let named = unk_token.and_then(|text| Some(Unknown { id: inner.token_to_id(&text)?, text }));
    Ok(named.or_else(|| unk_id.and_then(|id| Some(Unknown { id, text: inner.id_to_token(id)? }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of whole words whose file has these parts changed.
    fn tokenizer(changes: serde_json::Value) -> Tokenizer {
        let words =
            ["[UNK]", "[CLS]", "[SEP]", "When", "Mary", "when", "mary", "and", "John", "went", "to", "the", "store"];
        let vocabulary: serde_json::Map<_, _> =
            words.iter().zip(0..).map(|(w, id)| ((*w).to_owned(), id.into())).collect();
        let mut file = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
        });
        file.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Tokenizer::from_bytes(file.to_string().as_bytes(), Path::new("tokenizer.json")).unwrap()
    }

    const TEXT: &str = "When Mary and John went to the store";

    #[test]
    fn truncation_and_padding_are_off() {
        let plain = tokenizer(serde_json::json!({})).encode(TEXT).unwrap();
        assert_eq!(plain.len(), 8);
        for direction in ["Left", "Right"] {
            let truncated = serde_json::json!({ "truncation": {
                "direction": direction, "max_length": 3, "strategy": "LongestFirst", "stride": 0,
            } });
            let padded = serde_json::json!({ "padding": {
                "strategy": { "Fixed": 20 }, "direction": direction, "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]",
            } });
            assert_eq!(tokenizer(truncated).encode(TEXT).unwrap(), plain, "{direction}");
            assert_eq!(tokenizer(padded).encode(TEXT).unwrap(), plain, "{direction}");
        }
    }

    #[test]
    fn merges_are_never_left_out_at_random() {
        let with_dropout = |dropout: serde_json::Value| {
            tokenizer(serde_json::json!({ "pre_tokenizer": null, "model": {
                "type": "BPE", "dropout": dropout, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": { "a": 0, "b": 1, "ab": 2, "abab": 3 }, "merges": [["a", "b"], ["ab", "ab"]],
            } }))
        };
        for _ in 0..20 {
            assert_eq!(with_dropout(0.9.into()).encode("abab").unwrap(), [3]);
        }
        let unknown = TokenizerError::Unknown { text: "abc".to_owned(), part: "c".to_owned() };
        assert_eq!(with_dropout(serde_json::Value::Null).encode("abc"), Err(unknown), "a character was lost");
    }

    #[test]
    fn words_without_a_token_are_named() {
        let tokenizer = tokenizer(serde_json::json!({}));
        let refused = tokenizer.encode("When Zoe and John went").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the tokenizer has no token for \"Zoe\" in \"When Zoe and John went\"; use other words"
        );
        assert!(matches!(tokenizer.single_token("Zoe"), Err(TokenizerError::Unknown { .. })));
        assert_eq!(tokenizer.encode("[UNK]"), Ok(vec![0]));
    }

    #[test]
    fn tokens_around_a_text_are_left_out_and_known() {
        let plain = tokenizer(serde_json::json!({}));
        assert_eq!(plain.surrounding(), Ok(Surrounding::default()));
        let special = |token: &str, id: u32| serde_json::json!({ "id": token, "ids": [id], "tokens": [token] });
        let around = tokenizer(serde_json::json!({ "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 0 } },
            ],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "[CLS]": special("[CLS]", 1), "[SEP]": special("[SEP]", 2) },
        } }));
        assert_eq!(around.encode(TEXT), plain.encode(TEXT));
        assert_eq!(around.surrounding(), Ok(Surrounding { before: vec![1], after: vec![2] }));
    }

    #[test]
    fn a_text_that_its_tokens_do_not_spell_is_known() {
        let plain = tokenizer(serde_json::json!({}));
        plain.encode(TEXT).unwrap();
        assert_eq!(plain.changed_text(), None);
        let lowercase = tokenizer(serde_json::json!({ "normalizer": { "type": "Lowercase" } }));
        assert_eq!(lowercase.encode("When Mary").unwrap(), [5, 6]);
        let ChangedText { text, spelled } = lowercase.changed_text().unwrap();
        assert_eq!([text.as_str(), spelled.as_str()], ["When Mary", "when mary"]);
    }
}
