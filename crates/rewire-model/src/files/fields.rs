//! Typed access to the fields of a Hugging Face `config.json`.
//!
//! Every field has the meaning that transformers gives it: the fields of a family's configuration,
//! and those that all configurations share. Fields that transformers does not know are ignored, as
//! transformers ignores them.

use rewire_input::cut;
use serde_json::{Map, Value};

use crate::config::Activation;

/// Typed access to the fields of a JSON object.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl Fields<'_> {
    /// Refuses heads that do not divide the width, and fields of any family that change the weights
    /// or the heads.
    pub(crate) fn check_heads(&self, n_heads: usize, d_model: usize, [heads, width]: [&str; 2]) -> Result<(), String> {
        if !d_model.is_multiple_of(n_heads) {
            return Err(format!("`{width}` {d_model} is not a multiple of `{heads}` {n_heads}"));
        }
        let d_head = d_model / n_heads;
        match self.optional_size("head_dim")? {
            Some(other) if other != d_head => {
                return Err(format!("`head_dim` is {other}, and `{width}` over `{heads}` is {d_head}"));
            }
            _ => {}
        }
        self.check_unmodified()
    }

    /// Refuses fields of any family that change the weights or the heads.
    pub(crate) fn check_unmodified(&self) -> Result<(), String> {
        for field in ["pruned_heads", "quantization_config"] {
            match self.0.get(field) {
                None | Some(Value::Null) => {}
                Some(Value::Object(object)) if object.is_empty() => {}
                Some(value) => return Err(format!("`{field}` is {}, and Rewire does not support it", shown(value))),
            }
        }
        Ok(())
    }

    /// Refuses a flag whose value is not `needed`, which is also its default. Null counts as false,
    /// as in Python.
    pub(crate) fn needs(&self, name: &str, needed: bool) -> Result<(), String> {
        match self.0.get(name) {
            None => Ok(()),
            Some(Value::Null) if !needed => Ok(()),
            Some(value) if value.as_bool() == Some(needed) => Ok(()),
            Some(value) => Err(format!("`{name}` is {}; Rewire supports only {needed}", shown(value))),
        }
    }

    /// Reads the BOS token: `default` if the field is absent, and none if it is null.
    pub(crate) fn bos_token(&self, default: impl Into<Option<u32>>) -> Result<Option<u32>, String> {
        match self.0.get("bos_token_id") {
            None => Ok(default.into()),
            Some(value) => whole("bos_token_id", value),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let text = |value: &Value| format!("`{name}` is {}, not a string", shown(value));
        self.0.get(name).map(|value| value.as_str().ok_or_else(|| text(value))).transpose()
    }

    /// Reads a size that has several names. All fields that are present must agree.
    pub(crate) fn size(&self, names: &[&str]) -> Result<usize, String> {
        let mut found: Option<(&str, usize)> = None;
        for &name in names {
            let Some(size) = self.optional_size(name)? else { continue };
            match found {
                Some((first, other)) if other != size => {
                    return Err(format!("`{first}` is {other} and `{name}` is {size}, and they name the same size"));
                }
                _ => found = Some((name, size)),
            }
        }
        found.map(|(_, size)| size).ok_or_else(|| format!("`{}` is missing", names[0]))
    }

    pub(crate) fn optional_size(&self, name: &str) -> Result<Option<usize>, String> {
        match self.0.get(name).map_or(Ok(None), |value| whole(name, value))? {
            Some(0) => Err(format!("`{name}` is 0, and it must be at least 1")),
            size => Ok(size.map(|n| n as usize)),
        }
    }

    /// Reads a whole number, which may be 0.
    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>, String> {
        self.0.get(name).map_or(Ok(None), |value| Ok(whole(name, value)?.map(|n| n as usize)))
    }

    /// Reads a number. Null is refused, because transformers would compute with it.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, String> {
        let number =
            |value: &Value| value.as_f64().ok_or_else(|| format!("`{name}` is {}, not a number", shown(value)));
        self.0.get(name).map(number).transpose()
    }

    /// Reads a number that must be above 0 and finite in float32.
    pub(crate) fn positive(&self, name: &str, default: f64) -> Result<f64, String> {
        let value = self.number(name)?.unwrap_or(default);
        match value as f32 {
            short if short > 0.0 && short.is_finite() => Ok(value),
            _ => Err(format!("`{name}` is {value}, and it must be above 0 and finite in float32")),
        }
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        let flag =
            |value: &Value| value.as_bool().ok_or_else(|| format!("`{name}` is {}, not true or false", shown(value)));
        self.0.get(name).map_or(Ok(default), flag)
    }

    /// Reads a size that may be null: `default` if the field is absent, and none if it is null.
    pub(crate) fn size_or(&self, name: &str, default: usize) -> Result<Option<usize>, String> {
        match self.0.contains_key(name) {
            true => self.optional_size(name),
            false => Ok(Some(default)),
        }
    }

    /// Reads a number above 0 that may be null: `default` if the field is absent, and none if it is
    /// null.
    pub(crate) fn optional_positive(&self, name: &str, default: f64) -> Result<Option<f64>, String> {
        match self.0.get(name) {
            Some(Value::Null) => Ok(None),
            _ => self.positive(name, default).map(Some),
        }
    }

    /// Reads the activation function, one of `supported`. transformers has several names for one
    /// function.
    pub(crate) fn activation(
        &self,
        name: &str,
        default: Activation,
        supported: &[Activation],
    ) -> Result<Activation, String> {
        let Some(given) = self.text(name)? else { return Ok(default) };
        let found = match given {
            "gelu" | "gelu_python" => Some(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
                Some(Activation::GeluNew)
            }
            "relu" => Some(Activation::Relu),
            "silu" | "swish" => Some(Activation::Silu),
            _ => None,
        };
        found.filter(|found| supported.contains(found)).ok_or_else(|| {
            let names: Vec<&str> = supported.iter().map(|activation| name_of(*activation)).collect();
            let (last, first) = names.split_last().expect("functions are supported");
            format!("`{name}` `{}` is not supported; Rewire supports {} and {last}", cut(given), first.join(", "))
        })
    }
}

/// Returns the name of an activation function.
pub(crate) fn name_of(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluNew => "gelu_new",
        Activation::Relu => "relu",
        Activation::Silu => "silu",
    }
}

/// Returns a value as text for a message.
pub(crate) fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

/// Reads a whole number, or null.
fn whole(name: &str, value: &Value) -> Result<Option<u32>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.map(Some).ok_or_else(|| format!("`{name}` is {}, not a whole number from 0 to {}", shown(value), u32::MAX))
}
