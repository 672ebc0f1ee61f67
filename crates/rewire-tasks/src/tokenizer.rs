//! The tokenizer of a model, from its `tokenizer.json`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rewire_input::{cut, quoted};
use tokenizers::{Encoding, ModelWrapper};

use crate::guard::{Model, PROBES, Settings, guarded};

/// Converts text to token ids and back, as the model's own `tokenizer.json` does.
///
/// The tokens stand for the whole text and nothing else. Truncation, padding and merge dropout are
/// off, even if the file sets them. The tokens that the file puts around a text
/// ([`surrounding`](Self::surrounding)) are left out. The BOS token comes from the model's
/// configuration.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    unknown: Option<Unknown>,
    /// Length of the longest token in bytes, if no token stands for more bytes of a text than it
    /// has.
    longest: Option<usize>,
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
    /// The text that its tokens spell.
    pub spelled: String,
}

/// Tokens that `tokenizer.json` puts around a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surrounding {
    /// The tokens before the text.
    pub before: Vec<u32>,
    /// The tokens after the text.
    pub after: Vec<u32>,
}

/// Largest text that is tokenized, in bytes. The tokenizers library needs 200 bytes of memory per
/// byte.
const MOST_TEXT_BYTES: usize = 1 << 20;

/// Why a text could not be tokenized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file is not a tokenizer.
    #[error("{path} is not a tokenizer: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reader's message.
        reason: String,
    },
    /// The text could not be encoded.
    #[error("cannot tokenize {}: {}", quoted(text), cut(reason))]
    Encode {
        /// The text.
        text: String,
        /// The tokenizer's message.
        reason: String,
    },
    /// The text has more bytes than the limit.
    #[error("{} has {} bytes, and the limit is {MOST_TEXT_BYTES}; shorten it", quoted(text), text.len())]
    TooLong {
        /// The text.
        text: String,
    },
    /// The text has more bytes than the model's context can hold.
    #[error(
        "{} has {} bytes, and at most {most} fit into the model's context of {n_ctx} tokens; shorten it", quoted(text), text.len()
    )]
    ContextExceeded {
        /// The text.
        text: String,
        /// Most bytes that fit: bytes of the longest token times tokens of the context.
        most: usize,
        /// Positions in the model's context.
        n_ctx: usize,
    },
    /// The tokenizer has no token for a part of the text.
    #[error("the tokenizer has no token for {} in {}; use other words", quoted(part), quoted(text))]
    Unknown {
        /// The text.
        text: String,
        /// The part that would be lost, or become the token for unknown words.
        part: String,
    },
    /// A text that must be one token is several tokens, or none.
    #[error(
        "{} is {} tokens ({}), not one{}",
        quoted(text), pieces.len(), cut(&pieces.join("|")), space_advice(text)
    )]
    NotOneToken {
        /// The text.
        text: String,
        /// The tokens of the text.
        pieces: Vec<String>,
    },
}

/// Returns the part of an error that asks for a leading space, for a word that has none.
fn space_advice(text: &str) -> &'static str {
    if text.starts_with(char::is_alphabetic) { "; answers start with a space (\" Mary\")" } else { "" }
}

impl Tokenizer {
    /// Builds a tokenizer from the contents of a `tokenizer.json`. Errors name the file `path`.
    ///
    /// # Errors
    /// [`TokenizerError::Unreadable`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenizerError> {
        let unreadable = |reason: String| TokenizerError::Unreadable { path: path.into(), reason };
        let settings = Settings::read(bytes).map_err(unreadable)?;
        let inner = guarded(|| inner(bytes)).and_then(|read| read).map_err(unreadable)?;
        let unknown = unknown(&settings.model, &inner);
        let longest = match settings.keeps_bytes() {
            true => inner.get_vocab(true).keys().map(String::len).max(),
            false => None,
        };
        let tokenizer = Self { inner, unknown, longest, changed: Arc::default() };
        guarded(|| tokenizer.probe()).map_err(unreadable)?;
        Ok(tokenizer)
    }

    /// Tokenizes some texts, to find settings that make the library panic. A text that cannot be
    /// encoded is no fault: a vocabulary need not have words for it.
    fn probe(&self) {
        for (text, special) in PROBES.iter().flat_map(|text| [(text, false), (text, true)]) {
            let _ = self.inner.encode(*text, special);
        }
    }

    /// Returns the tokens of `text`, without special tokens around the text.
    ///
    /// # Errors
    /// [`TokenizerError::Unknown`] if a part of the text has no token, [`TokenizerError::TooLong`],
    /// [`TokenizerError::Encode`].
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

    /// Returns the tokens of a prompt: `bos`, if the model has one and the text does not begin with
    /// it, and those of `text`.
    ///
    /// # Errors
    /// The errors of [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str, bos: Option<u32>) -> Result<Vec<u32>, TokenizerError> {
        let tokens = self.encode(text)?;
        // Text may spell the BOS out, and a second one would move every position.
        let bos = bos.filter(|bos| tokens.first() != Some(bos));
        Ok(bos.into_iter().chain(tokens).collect())
    }

    fn encoding(&self, text: &str, with_special_tokens: bool) -> Result<Encoding, TokenizerError> {
        if text.len() > MOST_TEXT_BYTES {
            return Err(TokenizerError::TooLong { text: text.to_owned() });
        }
        let encoding = guarded(|| self.inner.encode(text, with_special_tokens).map_err(|e| e.to_string()));
        let encoding = encoding.and_then(|encoding| encoding);
        encoding.map_err(|reason| TokenizerError::Encode { text: text.to_owned(), reason })
    }

    /// Refuses a text that cannot fit into a context of `n_ctx` tokens, without tokenizing it. A
    /// text that passes may still be too long.
    ///
    /// # Errors
    /// [`TokenizerError::ContextExceeded`].
    pub fn check_fits(&self, text: &str, n_ctx: usize) -> Result<(), TokenizerError> {
        match self.longest.map(|longest| longest.saturating_mul(n_ctx)) {
            Some(most) if text.len() > most => {
                Err(TokenizerError::ContextExceeded { text: text.to_owned(), most, n_ctx })
            }
            _ => Ok(()),
        }
    }

    /// Returns the first part of `text` that became the token for unknown words, or no token at
    /// all.
    fn unknown_part<'a>(&self, text: &'a str, encoding: &Encoding) -> Option<&'a str> {
        let mut covered = vec![false; text.len()];
        for (id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let part = text.get(start..end).unwrap_or(text);
            if self.unknown.as_ref().is_some_and(|unknown| unknown.id == *id && unknown.text != part) {
                return Some(part);
            }
            if let Some(letters) = covered.get_mut(start..end) {
                letters.fill(true);
            }
        }
        // Offsets leave out the whitespace around a token.
        let mut characters = text.char_indices();
        let lost = characters.find(|(at, character)| !covered[*at] && !character.is_whitespace());
        lost.map(|(at, character)| &text[at..at + character.len_utf8()])
    }

    /// Returns the first encoded text that its tokens do not spell, if there is one. A normalizer,
    /// a prefix space or an added token that takes the spaces beside it changed the text.
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
        let [plain, whole] = [false, true].map(|special| self.encoding(PROBES[0], special));
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

    /// Returns the text of `tokens`, including special tokens.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        // Some of the library's decoders fail without a token.
        if tokens.is_empty() {
            return String::new();
        }
        guarded(|| self.inner.decode(tokens, false).unwrap_or_default()).unwrap_or_default()
    }

    /// Returns the token of a text that is exactly one token.
    ///
    /// # Errors
    /// [`TokenizerError::NotOneToken`], with the tokens of the text, or the errors of
    /// [`encode`](Self::encode).
    pub fn single_token(&self, text: &str) -> Result<u32, TokenizerError> {
        match self.encode(text)?.as_slice() {
            [token] => Ok(*token),
            several => {
                let pieces = several.iter().map(|&t| self.decode(&[t])).collect();
                Err(TokenizerError::NotOneToken { text: text.to_owned(), pieces })
            }
        }
    }

    /// Returns the number of tokens, including added tokens.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

/// Builds the library's tokenizer, with truncation, padding and random merge dropout off.
fn inner(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| cut(&e.to_string()))?;
    inner.with_truncation(None).map_err(|e| e.to_string())?;
    inner.with_padding(None);
    if let ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        inner.with_model(bpe);
    }
    Ok(inner)
}

/// Returns the token for unknown words, as the file names it.
fn unknown(model: &Model, inner: &tokenizers::Tokenizer) -> Option<Unknown> {
    let named = model.unk_token.as_ref().and_then(|text| {
        let id = inner.token_to_id(text)?;
        Some(Unknown { id, text: text.clone() })
    });
    named.or_else(|| model.unk_id.and_then(|id| Some(Unknown { id, text: inner.id_to_token(id)? })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a tokenizer of whole words, with `changes` to the parts of its file.
    fn tokenizer(changes: serde_json::Value) -> Tokenizer {
        read(changes).unwrap()
    }

    fn read(changes: serde_json::Value) -> Result<Tokenizer, TokenizerError> {
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
        Tokenizer::from_bytes(file.to_string().as_bytes(), Path::new("tokenizer.json"))
    }

    /// Returns a byte-level tokenizer of the letters a and b.
    fn of_bytes(changes: serde_json::Value) -> Tokenizer {
        let mut parts = serde_json::json!({
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": [["a", "b"]] },
        });
        parts.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        tokenizer(parts)
    }

    const TEXT: &str = "When Mary and John went to the store";

    #[test]
    fn tokenizer_truncation_and_padding_are_disabled() {
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
    fn tokenizer_dropout_is_disabled() {
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
    fn special_tokens_are_removed_and_listed() {
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
    fn texts_that_do_not_round_trip_are_detected() {
        let plain = tokenizer(serde_json::json!({}));
        plain.encode(TEXT).unwrap();
        assert_eq!(plain.changed_text(), None);
        let lowercase = tokenizer(serde_json::json!({ "normalizer": { "type": "Lowercase" } }));
        assert_eq!(lowercase.encode("When Mary").unwrap(), [5, 6]);
        let ChangedText { text, spelled } = lowercase.changed_text().unwrap();
        assert_eq!([text.as_str(), spelled.as_str()], ["When Mary", "when mary"]);
    }

    #[test]
    fn settings_that_panic_the_library_are_refused_by_name() {
        let regex =
            |pattern: &str| serde_json::json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": "-" });
        let refused = |changes: serde_json::Value| match read(changes).unwrap_err() {
            TokenizerError::Unreadable { path, reason } if path == Path::new("tokenizer.json") => reason,
            other => panic!("{other}"),
        };
        for pattern in ["", "a*", "^", "(?=W)", "x|"] {
            let nested = serde_json::json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, regex(pattern)] });
            for normalizer in [regex(pattern), nested] {
                let reason = refused(serde_json::json!({ "normalizer": normalizer }));
                assert!(reason.contains("`Replace`") && reason.contains(&format!("{pattern:?}")), "{reason}");
            }
        }
        let prepend = refused(serde_json::json!({ "normalizer": { "type": "Prepend", "prepend": "" } }));
        assert!(prepend.contains("`Prepend`"), "{prepend}");
        let fixed = refused(serde_json::json!({ "pre_tokenizer": { "type": "FixedLength", "length": 0 } }));
        assert!(fixed.contains("`FixedLength`"), "{fixed}");
        // A fault that is not checked beforehand: a template without a token that it names.
        let template = refused(serde_json::json!({ "post_processor": {
            "type": "TemplateProcessing", "single": [{ "Sequence": { "id": "B", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": {},
        } }));
        assert!(template.contains("the tokenizers library cannot work with its settings"), "{template}");
        let precompiled =
            serde_json::json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": "AAAA" } });
        assert!(refused(precompiled).contains("the tokenizers library cannot work with its settings"));
        assert_eq!(
            tokenizer(serde_json::json!({ "normalizer": regex("[ ]+") }))
                .encode("When - Mary")
                .unwrap_err()
                .to_string(),
            "the tokenizer has no token for \"When - Mary\" in \"When - Mary\"; use other words"
        );
    }

    #[test]
    fn text_too_long_for_the_context_is_refused_before_tokenization() {
        let exact = of_bytes(serde_json::json!({}));
        assert_eq!(exact.check_fits(&"ab".repeat(5), 5), Ok(()));
        let refused = exact.check_fits(&"a".repeat(11), 5).unwrap_err().to_string();
        assert_eq!(
            refused,
            "\"aaaaaaaaaaa\" has 11 bytes, and at most 10 fit into the model's context of 5 tokens; shorten it"
        );
        // Tokens of these tokenizers stand for more bytes than they have.
        let stripping = serde_json::json!({ "id": 3, "content": "x", "single_word": false, "lstrip": true, "rstrip": false,
            "normalized": false, "special": false });
        for changes in
            [serde_json::json!({ "normalizer": { "type": "NFC" } }), serde_json::json!({ "added_tokens": [stripping] })]
        {
            assert_eq!(of_bytes(changes).check_fits(&"a".repeat(1000), 5), Ok(()));
        }
        let long = "a".repeat(MOST_TEXT_BYTES + 1);
        let refused = exact.encode(&long).unwrap_err();
        assert!(matches!(refused, TokenizerError::TooLong { .. }), "{refused}");
        assert!(refused.to_string().contains("(1048577 characters) has 1048577 bytes"), "{refused}");
    }

    #[test]
    fn errors_quote_the_start_of_long_texts() {
        let long = "Zoe".repeat(100_000);
        let refused = tokenizer(serde_json::json!({})).encode(&long).unwrap_err().to_string();
        assert!(refused.len() < 1000 && refused.contains(".. (300000 characters)"), "{}", refused.len());
        let refused = of_bytes(serde_json::json!({})).single_token(&"ab".repeat(100_000)).unwrap_err().to_string();
        assert!(refused.len() < 1000 && refused.contains("is 100000 tokens (ab|ab|"), "{}", refused.len());
    }
}
