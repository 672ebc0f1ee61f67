//! Receivers: the activations at which a path ends, and from which the rest of the model continues.

use std::fmt;
use std::str::FromStr;

use rewire_hooks::Site;
use rewire_model::{HeadInput, TransformerConfig};
use rewire_tasks::PromptPairs;
use serde::{Deserialize, Serialize};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node, Positions};

/// An input in a layer that can receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The residual stream before the block.
    ResidPre,
    /// A head's queries.
    Q,
    /// A head's keys.
    K,
    /// A head's values.
    V,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The MLP's input, after its norm.
    MlpIn,
    /// The residual stream after the block.
    ResidPost,
}

/// Names of the inputs on the command line.
const NAMES: [(Input, &str); 7] = [
    (Input::ResidPre, "resid_pre"),
    (Input::Q, "q"),
    (Input::K, "k"),
    (Input::V, "v"),
    (Input::ResidMid, "resid_mid"),
    (Input::MlpIn, "mlp_in"),
    (Input::ResidPost, "resid_post"),
];

/// One receiver. Its text form is `q:9.6` or `resid_post:11`; `q:9`, without a head, means all
/// heads of the layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Receiver {
    /// The layer.
    pub layer: usize,
    /// The input in that layer.
    pub input: Input,
    /// The head; `None` for all heads, and for inputs that belong to no head.
    pub head: Option<usize>,
    /// The positions in the prompts.
    pub positions: Positions,
}

/// Error for text that names no receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no receiver `{0}`; there are resid_pre:L, resid_mid:L, resid_post:L, mlp_in:L, and q:L.H, k:L.H, v:L.H")]
pub struct ParseReceiverError(pub String);

/// Steps per layer. Steps order all writes to and reads of the residual stream: a read sees
/// everything that was written at an earlier step.
const LAYER: usize = 10;

/// Returns the step at which a node writes.
pub(super) fn written(node: &Node) -> usize {
    let within = match node.component {
        Component::ResidPre => 0,
        Component::ResidMid => 4,
        Component::MlpOut | Component::MlpPost => return mlp_writes(node.layer),
        Component::ResidPost => 8,
        _ => 3,
    };
    node.layer * LAYER + within
}

/// Returns the step at which the MLP of a layer writes.
pub(super) fn mlp_writes(layer: usize) -> usize {
    layer * LAYER + 7
}

/// Returns the step at which the MLP of a layer reads.
pub(super) fn mlp_reads(layer: usize, config: &TransformerConfig) -> usize {
    layer * LAYER + if config.parallel_block { 2 } else { 6 }
}

/// Returns the step at which the next layer starts.
pub(super) fn layer_ends(layer: usize) -> usize {
    (layer + 1) * LAYER
}

impl Input {
    /// Returns which input of a head this is, if it belongs to a head.
    pub(super) fn of_head(self) -> Option<HeadInput> {
        match self {
            Input::Q => Some(HeadInput::Q),
            Input::K => Some(HeadInput::K),
            Input::V => Some(HeadInput::V),
            _ => None,
        }
    }

    /// Returns the component that changes with this input, to determine what a change can reach.
    pub(super) fn component(self) -> Component {
        match self {
            Input::ResidPre => Component::ResidPre,
            Input::Q => Component::HeadQ,
            Input::K => Component::HeadK,
            Input::V => Component::HeadV,
            Input::ResidMid => Component::ResidMid,
            Input::MlpIn => Component::MlpOut,
            Input::ResidPost => Component::ResidPost,
        }
    }
}

impl Input {
    /// Returns the hook site at which this input is set: queries and keys before any rotation.
    pub(super) fn site(self) -> Site {
        match self {
            Input::ResidPre => Site::ResidPre,
            Input::Q => Site::Q,
            Input::K => Site::K,
            Input::V => Site::V,
            Input::ResidMid => Site::ResidMid,
            Input::MlpIn => Site::Ln2Normalized,
            Input::ResidPost => Site::ResidPost,
        }
    }

    /// Returns the hook site of this input as attention uses it: queries and keys after any
    /// rotation.
    pub(super) fn rotary_site(self, config: &TransformerConfig) -> Site {
        match self {
            Input::Q if config.is_rotary() => Site::RotQ,
            Input::K => config.key_site(),
            other => other.site(),
        }
    }

    /// Returns the residual stream that this input reads.
    pub(super) fn stream(self, config: &TransformerConfig) -> Site {
        match self {
            Input::ResidMid => Site::ResidMid,
            Input::MlpIn if !config.parallel_block => Site::ResidMid,
            Input::ResidPost => Site::ResidPost,
            _ => Site::ResidPre,
        }
    }

    /// Returns the scale of the norm that this input reads through, if any.
    pub(super) fn scale(self) -> Option<Site> {
        match self {
            Input::Q | Input::K | Input::V => Some(Site::Ln1Scale),
            Input::MlpIn => Some(Site::Ln2Scale),
            _ => None,
        }
    }
}

impl Receiver {
    /// Creates a receiver at all positions. An input of heads covers all heads of the layer.
    #[must_use]
    pub fn new(layer: usize, input: Input) -> Self {
        Self { layer, input, head: None, positions: Positions::All }
    }

    /// Restricts the receiver to one head.
    #[must_use]
    pub fn head(self, head: usize) -> Self {
        Self { head: Some(head), ..self }
    }

    /// Restricts the receiver to these positions.
    #[must_use]
    pub fn at(self, positions: Positions) -> Self {
        Self { positions, ..self }
    }

    /// Returns the step at which the receiver reads.
    pub(super) fn reads(&self, config: &TransformerConfig) -> usize {
        match self.input {
            Input::ResidPre => self.layer * LAYER + 1,
            Input::Q | Input::K | Input::V => self.layer * LAYER + 2,
            Input::ResidMid => self.layer * LAYER + 5,
            Input::MlpIn => mlp_reads(self.layer, config),
            Input::ResidPost => self.layer * LAYER + 9,
        }
    }

    /// Returns the heads that the receiver covers; none for inputs of a whole layer.
    pub(super) fn heads(&self, config: &TransformerConfig) -> Vec<usize> {
        match (self.input.of_head(), self.head) {
            (None, _) => Vec::new(),
            (Some(_), Some(head)) => vec![head],
            (Some(_), None) => (0..config.n_heads).collect(),
        }
    }

    /// Returns whether the receiver is at `position` of `prompt`.
    pub(super) fn is_at(&self, prompt: usize, position: usize) -> bool {
        self.positions.position(prompt).is_none_or(|at| at == position)
    }

    pub(super) fn of_prompts(&self, from: usize, len: usize) -> Self {
        Self { positions: self.positions.of_prompts(from, len), ..self.clone() }
    }

    /// Refuses a receiver that the model or the prompts do not have.
    pub(super) fn check(&self, config: &TransformerConfig, pairs: &PromptPairs) -> Result<(), AnalysisError> {
        let refuse = |reason| Err(AnalysisError::NoSuchReceiver { receiver: self.to_string(), reason });
        if matches!(self.positions, Positions::Cell { .. }) {
            return refuse("cells of attention patterns cannot receive; give positions instead");
        }
        if self.input.of_head().is_none() && self.head.is_some() {
            return refuse("this input belongs to a whole layer; leave out the head");
        }
        if self.input == Input::ResidMid && config.parallel_block {
            return refuse("attention and MLP run in parallel, so nothing lies between them");
        }
        // All other checks are those of a node at the same place.
        let node = Node { unit: self.head, ..Node::new(self.layer, self.input.component()) };
        node.at(self.positions.clone()).check(config, pairs).map_err(|error| match error {
            AnalysisError::OutsideModel { what, found, bound, .. } => {
                AnalysisError::OutsideModel { node: format!("receiver {self}"), what, found, bound }
            }
            other => other,
        })?;
        // After its end a prompt is padding, which cannot change the metric.
        let Positions::One(position) = &self.positions else { return Ok(()) };
        match (0..pairs.len()).find(|&prompt| *position > pairs.end(prompt)) {
            None => Ok(()),
            Some(prompt) => {
                Err(AnalysisError::ReceiverBehindEnd { receiver: self.to_string(), prompt, len: pairs.end(prompt) + 1 })
            }
        }
    }
}

/// Returns the receivers as text, separated by commas.
pub(super) fn named(receivers: &[Receiver]) -> String {
    receivers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[*self as usize].1)
    }
}

/// Writes `q:9.6`, followed by `@ 4` for a position.
impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.input, self.layer)?;
        if let Some(head) = self.head {
            write!(f, ".{head}")?;
        }
        match &self.positions {
            Positions::All => Ok(()),
            Positions::One(position) => write!(f, " @ {position}"),
            Positions::Each(_) => write!(f, " @ one per prompt"),
            Positions::Cell { dest, src } => write!(f, " @ {dest}<-{src}"),
        }
    }
}

impl FromStr for Receiver {
    type Err = ParseReceiverError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseReceiverError(text.to_owned());
        let (name, place) = text.split_once(':').ok_or_else(refused)?;
        let input = NAMES.iter().find(|(_, n)| *n == name).map(|(input, _)| *input).ok_or_else(refused)?;
        let number = |digits: &str| digits.parse().map_err(|_| refused());
        match place.split_once('.') {
            Some((layer, head)) if input.of_head().is_some() => {
                Ok(Self::new(number(layer)?, input).head(number(head)?))
            }
            Some(_) => Err(refused()),
            None => Ok(Self::new(number(place)?, input)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_round_trip_through_text() {
        for text in ["q:9.6", "k:0.11", "v:3.0", "q:7", "resid_pre:0", "resid_mid:4", "resid_post:11", "mlp_in:2"] {
            assert_eq!(text.parse::<Receiver>().unwrap().to_string(), text);
        }
        for text in ["", "q", "z:1.2", "q:a.1", "q:1.2.3", "resid_post:1.2", "mlp_in:-1", "q:"] {
            assert_eq!(text.parse::<Receiver>().unwrap_err(), ParseReceiverError(text.to_owned()));
        }
        for (input, name) in NAMES {
            assert_eq!(input.to_string(), name);
        }
    }
}
