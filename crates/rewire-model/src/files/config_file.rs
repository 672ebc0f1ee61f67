//! Reads and writes `config.json`. A field that changes the mathematics is honored or refused, by
//! the model's [family](crate::families).

use std::path::Path;

use rewire_input::{cut, read_regular, repeated_key};
use serde_json::Value;

use crate::config::TransformerConfig;
use crate::error::ModelError;
use crate::families::family::{Family, Wrapper};
use crate::families::registry::{FAMILIES, family};
use crate::files::fields::{Fields, shown};

/// Maximum size in bytes of a `config.json` or of an index of shards. Known ones have fewer than a
/// million bytes.
pub(crate) const MOST_JSON_BYTES: u64 = 16 << 20;

/// What some editors put in front of UTF-8. It is not JSON, and says nothing.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl TransformerConfig {
    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read, and [`ModelError::Config`], which names the
    /// field, if the configuration is wrong or unsupported.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let text =
            read_regular(path, MOST_JSON_BYTES).map_err(|source| ModelError::Read { path: path.into(), source })?;
        Self::from_json(&text).map_err(|reason| ModelError::Config { path: path.into(), reason })
    }

    /// Reads the text of a Hugging Face `config.json`. The error names the field that is wrong.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, String> {
        if text.len() as u64 > MOST_JSON_BYTES {
            return Err(format!("it has {} bytes; at most {MOST_JSON_BYTES} are allowed", text.len()));
        }
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let json = serde_json::from_slice(text).map_err(|e| format!("malformed JSON: {e}"))?;
        match repeated_key(text) {
            Some(field) => Err(format!("it names `{}` twice; keep one", cut(&field))),
            None => read(&json),
        }
    }

    /// Returns the `config.json` that [`from_file`](Self::from_file) reads back.
    #[must_use]
    pub fn to_hugging_face(&self) -> Value {
        (family(self.architecture).write)(self)
    }
}

/// Returns the configuration that a `config.json` describes. The error names the field and its
/// value.
fn read(json: &Value) -> Result<TransformerConfig, String> {
    let fields = Fields(json.as_object().ok_or("it is not a JSON object")?);
    let wrapped = |family: &Family| family.wrapper.map(|wrapper| wrapper.model_type);
    let names = FAMILIES.iter().flat_map(|family| [Some(family.model_type), wrapped(family)]);
    let names: Vec<&str> = names.flatten().collect();
    let (last, first) = names.split_last().expect("there are families");
    let known = format!("{} and {last}", first.join(", "));
    let Some(name) = fields.text("model_type")? else {
        return Err(format!("`model_type` is missing; it must be one of {known}"));
    };
    if let Some(family) = FAMILIES.iter().find(|family| family.model_type == name) {
        return (family.read)(&fields);
    }
    let mut wrapped = FAMILIES.iter().filter_map(|family| Some((family, family.wrapper?)));
    match wrapped.find(|(_, wrapper)| wrapper.model_type == name) {
        Some((family, wrapper)) => read_text(&fields, family, wrapper),
        None => Err(format!("`model_type` `{}` is not supported; Rewire runs {known}", cut(name))),
    }
}

/// Returns the configuration of the model of text in a model of text and images.
fn read_text(fields: &Fields<'_>, family: &Family, wrapper: Wrapper) -> Result<TransformerConfig, String> {
    fields.check_unmodified()?;
    let Value::Object(mut text) = (wrapper.defaults)() else { return Err("there are no defaults".to_owned()) };
    match fields.0.get("text_config") {
        None | Some(Value::Null) => {}
        Some(Value::Object(given)) => text.extend(given.clone()),
        Some(other) => return Err(format!("`text_config` is {}, not an object", shown(other))),
    }
    let inside = |e: String| format!("in `text_config`: {e}");
    let text = Fields(&text);
    match text.text("model_type").map_err(inside)? {
        Some(other) if other != family.model_type => {
            Err(inside(format!("`model_type` is `{}`; Rewire supports only `{}`", cut(other), family.model_type)))
        }
        _ => (family.read)(&text).map_err(inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_round_trip() {
        let odd = TransformerConfig {
            d_mlp: 7,
            bos_token: Some(3),
            norm_eps: 1e-6,
            ..TransformerConfig::gpt2(2, 2, 8, 11, 5)
        };
        let sequential = TransformerConfig { parallel_block: false, ..TransformerConfig::neox(1, 2, 32, 11, 5) };
        let by_layer = TransformerConfig { scores_by_inverse_layer: true, ..TransformerConfig::gpt2(3, 2, 8, 11, 5) };
        let unbiased = TransformerConfig { attention_bias: false, ..TransformerConfig::neox(2, 2, 16, 11, 5) };
        for config in [odd, sequential, by_layer, unbiased, TransformerConfig::neox(3, 4, 64, 11, 5)] {
            assert_eq!(TransformerConfig::from_json(config.to_hugging_face().to_string().as_bytes()), Ok(config));
        }
    }
}
