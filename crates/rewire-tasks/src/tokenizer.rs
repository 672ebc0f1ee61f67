//! A model's `tokenizer.json`.

use std::path::{Path, PathBuf};

/// Text to token ids and back, as the model's own `tokenizer.json` has it. Nothing is added in front or behind.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

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
        let inner = tokenizers::Tokenizer::from_bytes(bytes);
        let inner = inner.map_err(|e| TokenizerError::Unreadable { path: path.into(), reason: e.to_string() })?;
        Ok(Self { inner })
    }

    /// The tokens of `text`, without any special token around them.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|e| TokenizerError::Encode { text: text.to_owned(), reason: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
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
