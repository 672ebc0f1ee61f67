//! A model family as data: how its `config.json` and its weight files are read and written.

use serde_json::Value;

use crate::config::{Architecture, TransformerConfig};
use crate::files::fields::Fields;
use crate::weights::weight_name::WeightName;

/// A weight, and the names of its tensors in the files. `L` stands for the layer. A weight of
/// several tensors consists of the rows of the first, then those of the next. A tensor of several
/// weights has their rows in the order of the table.
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
    /// The tensors of the weights that `tensors` does not have, in families that share them.
    pub(crate) shared_tensors: Tensors,
    pub(crate) linear: Orientation,
    pub(crate) qkv: QkvRows,
    pub(crate) gains: Gains,
    /// Rows of the position embedding in the files before the first that is used.
    pub(crate) unused_positions: usize,
    /// The larger models that have a model of this family as their model of text.
    pub(crate) wrapper: Option<Wrapper>,
}

/// A model of text and images, of which the model of text is read alone.
#[derive(Clone, Copy)]
pub(crate) struct Wrapper {
    /// The `model_type` in its `config.json`, whose field `text_config` describes the model of
    /// text.
    pub(crate) model_type: &'static str,
    /// Returns what transformers takes for fields that `text_config` lacks.
    pub(crate) defaults: fn() -> Value,
    /// Prefixes of the model of text in tensor names, each with what stands in its place in files
    /// of the model of text alone. The first that a name has is replaced.
    pub(crate) prefixes: &'static [(&'static str, &'static str)],
    /// Prefixes of the other tensors, which are not read.
    pub(crate) others: &'static [&'static str],
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
        let found = self.tensors.iter().chain(self.shared_tensors).find(|(of, _)| *of == part);
        let names = found.map(|(_, names)| *names).unwrap_or_default();
        names.iter().map(|name| name.replace(".L.", &format!(".{layer}."))).collect()
    }

    /// Returns the weights that have their rows in the same tensor as a weight: those before it,
    /// and those after it.
    pub(crate) fn fused_with(&self, part: WeightName) -> [Vec<WeightName>; 2] {
        let Some(at) = self.tensors.iter().position(|(of, _)| *of == part) else { return [Vec::new(), Vec::new()] };
        let same = |table: Tensors| table.iter().filter(|(_, names)| *names == self.tensors[at].1).map(|(of, _)| *of);
        [same(&self.tensors[..at]).collect(), same(&self.tensors[at + 1..]).collect()]
    }
}
