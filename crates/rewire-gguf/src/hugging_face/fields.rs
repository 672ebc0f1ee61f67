//! The keys of an architecture's metadata. A key that is neither read nor known to be harmless is
//! refused, because it may change the mathematics of the model.

use serde_json::{Number, Value};

use crate::error::GgufError;
use crate::hugging_face::architecture::Architecture;
use crate::read::file::Gguf;
use crate::read::metadata::Metadata;

/// Keys that every architecture may have.
const COMMON: [&str; 7] = [
    "attention.head_count",
    "attention.head_count_kv",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
];

/// Further keys of the architectures with rotary positions.
const ROTARY: [&str; 9] = [
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
];

/// Returns the keys that only this architecture has.
fn own(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Gpt2 => &["attention.layer_norm_epsilon"],
        Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => &[],
        Architecture::Gemma2 => &["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"],
        Architecture::Gemma3 => &[
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "final_logit_softcapping",
            // Of the part of the model that reads images.
            "mm.tokens_per_image",
            "rope.freq_base_swa",
        ],
    }
}

/// The metadata below the name of the architecture.
pub(crate) struct Fields<'f, 'a> {
    pub(crate) file: &'f Gguf<'a>,
    architecture: Architecture,
}

impl<'f, 'a> Fields<'f, 'a> {
    /// Refuses keys that are not supported.
    pub(crate) fn new(file: &'f Gguf<'a>, architecture: Architecture) -> Result<Self, GgufError> {
        let rotary: &[&str] = if architecture == Architecture::Gpt2 { &[] } else { &ROTARY };
        let prefix = format!("{}.", architecture.name());
        for key in file.metadata().keys() {
            let Some(field) = key.strip_prefix(prefix.as_str()) else { continue };
            if ![&COMMON, rotary, own(architecture)].into_iter().flatten().any(|known| *known == field) {
                let reason = "Rewire does not support it, and it may change what the model computes";
                return Err(file.metadata().refuse(key, reason));
            }
        }
        Ok(Self { file, architecture })
    }

    fn metadata(&self) -> &'f Metadata<'a> {
        self.file.metadata()
    }

    /// Returns the whole name of a key.
    pub(crate) fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.architecture.name())
    }

    pub(crate) fn refuse(&self, field: &str, reason: String) -> GgufError {
        self.metadata().refuse(&self.key(field), reason)
    }

    /// Returns a size that the file must have, at least 1.
    pub(crate) fn size(&self, field: &str) -> Result<u64, GgufError> {
        let key = self.key(field);
        let size = self.optional_size(field)?;
        self.metadata().required(&key, size)
    }

    /// Returns a size, at least 1.
    pub(crate) fn optional_size(&self, field: &str) -> Result<Option<u64>, GgufError> {
        match self.metadata().whole(&self.key(field))? {
            Some(0) => Err(self.refuse(field, "it is 0, and must be at least 1".to_owned())),
            size => Ok(size),
        }
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, GgufError> {
        self.metadata().text(&self.key(field))
    }

    /// Returns a number for `config.json`. It must be finite.
    pub(crate) fn optional_number(&self, field: &str) -> Result<Option<f64>, GgufError> {
        match self.metadata().number(&self.key(field))? {
            Some(number) if !number.is_finite() => Err(self.refuse(field, format!("it is {number}"))),
            number => Ok(number),
        }
    }

    /// Returns a number that the file must have.
    pub(crate) fn number(&self, field: &str) -> Result<f64, GgufError> {
        let number = self.optional_number(field)?;
        self.metadata().required(&self.key(field), number)
    }

    /// Returns the rows of a tensor that the file must have.
    pub(crate) fn rows(&self, tensor: &str) -> Result<usize, GgufError> {
        match self.file.tensor(tensor) {
            Some(tensor) => Ok(tensor.shape[0]),
            None => Err(GgufError::tensor(self.file.path(), tensor, "the file lacks it")),
        }
    }

    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.file.tensor(tensor).is_some()
    }

    /// Returns the width of a head.
    pub(crate) fn d_head(&self) -> Result<u64, GgufError> {
        let [d_model, n_heads] = [self.size("embedding_length")?, self.size("attention.head_count")?];
        let d_head = match self.optional_size("attention.key_length")? {
            Some(d_head) => d_head,
            None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
            None => {
                let key = self.key("embedding_length");
                return Err(self.refuse(
                    "attention.head_count",
                    format!("it is {n_heads}, which does not divide `{key}` {d_model}"),
                ));
            }
        };
        for field in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.optional_size(field)?.filter(|other| *other != d_head) {
                let reason = format!("it is {other}, and Rewire supports only the width of a head, {d_head}");
                return Err(self.refuse(field, reason));
            }
        }
        Ok(d_head)
    }

    /// Returns the number of heads that have keys and values of their own.
    pub(crate) fn n_key_value_heads(&self) -> Result<u64, GgufError> {
        match self.optional_size("attention.head_count_kv")? {
            Some(heads) => Ok(heads),
            None => self.size("attention.head_count"),
        }
    }

    /// Returns the id of a special token, or null: `name` is `bos` or `eos`.
    pub(crate) fn special_token(&self, name: &str) -> Result<Value, GgufError> {
        let id = self.metadata().whole(&format!("tokenizer.ggml.{name}_token_id"))?;
        let is_added = self.metadata().flag(&format!("tokenizer.ggml.add_{name}_token"))?;
        Ok(match id {
            // Rewire puts the BOS of config.json in front of text.
            Some(_) if name == "bos" && is_added == Some(false) => Value::Null,
            Some(id) => Value::Number(Number::from(id)),
            None => Value::Null,
        })
    }
}
