//! A model family as data: how its `config.json` and its weight files are read and written.

use serde_json::Value;

use crate::config::{Architecture, TransformerConfig};
use crate::files::fields::Fields;
use crate::weights::weight_name::WeightName;

/// A weight, and the names of its tensors in the files. `L` stands for the layer. A weight of
/// several tensors consists of the rows of the first, then those of the next.
pub(crate) type Tensors = &'static [(WeightName, &'static [&'static str])];

/// A model family.
pub(crate) struct Family {
    pub(crate) architecture: Architecture,
    /// The `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// Reads the fields of a `config.json`. The error names the field that is wrong.
    pub(crate) read: fn(&Fields<'_>) -> Result<TransformerConfig, String>,
    /// Returns the `config.json` that `read` reads back.
    pub(crate) write: fn(&TransformerConfig) -> Value,
    pub(crate) tensors: Tensors,
    pub(crate) linear: Orientation,
    pub(crate) qkv: QkvRows,
    pub(crate) gains: Gains,
}

/// How files store the matrix of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orientation {
    InOut,
    OutIn,
}

/// The order of the rows of queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkvRows {
    /// All queries, then all keys, then all values.
    ByInput,
    /// The queries, keys and values of one head, then those of the next.
    ByHead,
}

/// How files store the gain of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gains {
    Whole,
    /// The gain minus 1.
    FromOne,
}

impl Family {
    /// Returns the names of a weight's tensors.
    pub(crate) fn names(&self, part: WeightName, layer: usize) -> Vec<String> {
        let found = self.tensors.iter().find(|(of, _)| *of == part);
        let names = found.map(|(_, names)| *names).unwrap_or_default();
        names.iter().map(|name| name.replace(".L.", &format!(".{layer}."))).collect()
    }
}
