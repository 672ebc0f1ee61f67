//! Receivers: the activations at which a path ends, and from which the rest of the model continues.

use std::fmt;
use std::str::FromStr;

use rewire_hooks::{Axis, Head, Site};
use rewire_input::{cut, did_you_mean};
use rewire_model::{HeadInput, TransformerConfig};
use rewire_tasks::PromptPairs;
use serde::{Deserialize, Serialize};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node, Positions};
use crate::node::notation::{read_place, split_positions};

/// An input in a layer that can receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The residual stream before the block.
    ResidPre,
    /// A head's queries.
    Q,
    /// The keys of a key/value head. It serves one head, or a group with grouped-query attention.
    K,
    /// The values of a key/value head.
    V,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The MLP's input, after its norm.
    MlpIn,
    /// The residual stream after the block.
    ResidPost,
}

/// Every input with its canonical name and its aliases. The last alias is TransformerLens' name of
/// the hook point.
const NAMES: [(Input, &str, &[&str]); 7] = [
    (Input::ResidPre, "resid_pre", &["hook_resid_pre"]),
    (Input::Q, "head_q", &["q", "attn.hook_q"]),
    (Input::K, "head_k", &["k", "attn.hook_k"]),
    (Input::V, "head_v", &["v", "attn.hook_v"]),
    (Input::ResidMid, "resid_mid", &["hook_resid_mid"]),
    (Input::MlpIn, "mlp_in", &["hook_mlp_in"]),
    (Input::ResidPost, "resid_post", &["hook_resid_post"]),
];

/// One receiver. Its text form is that of a [`Node`]: `head_q:L9H6` or `resid_post:L11`;
/// `head_q:L9`, without a head, means all heads of the layer.
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
#[error(
    "no receiver `{}`; there are resid_pre:L3, resid_mid:L3, resid_post:L3, mlp_in:L3, and head_q:L9H6, head_k:L9H6, \
     head_v:L9H6{}",
    cut(.0),
    suggested(.0)
)]
pub struct ParseReceiverError(pub String);

/// Returns the part of an error that suggests an input.
fn suggested(typed: &str) -> String {
    let kind = typed.split([':', '@']).next().unwrap_or_default();
    match kind.parse::<Input>() {
        Ok(_) => String::new(),
        Err(_) => did_you_mean(kind, NAMES.iter().map(|(_, name, _)| *name)),
    }
}

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
    /// Returns the name beside a head: `q`, `k` or `v`. Other inputs have their full name.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        match self {
            Input::Q => "q",
            Input::K => "k",
            Input::V => "v",
            other => NAMES[other as usize].1,
        }
    }

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
    /// Returns the receiver before the final norm: the residual stream after the last block. A path
    /// to it is a direct effect on the logits.
    #[must_use]
    pub fn logits(config: &TransformerConfig) -> Self {
        Self::new(config.n_layers.saturating_sub(1), Input::ResidPost)
    }

    /// Creates a receiver at all positions. An input of heads covers all heads of the layer.
    #[must_use]
    pub fn new(layer: usize, input: Input) -> Self {
        Self { layer, input, head: None, positions: Positions::All }
    }

    /// Creates the receiver of one attention head's input. With grouped-query attention, keys and
    /// values are those of the key/value head that the attention head reads.
    #[must_use]
    pub fn of_head(head: Head, input: Input, config: &TransformerConfig) -> Self {
        let sharing = config.n_heads / config.heads_at(input.site()).max(1);
        Self::new(head.layer, input).head(head.head / sharing)
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

    /// Returns the heads that the receiver covers; none for inputs of a whole layer. They are
    /// key/value heads for keys and values.
    pub(super) fn heads(&self, config: &TransformerConfig) -> Vec<usize> {
        match (self.input.of_head(), self.head) {
            (None, _) => Vec::new(),
            (Some(_), Some(head)) => vec![head],
            (Some(_), None) => (0..config.heads_at(self.input.site())).collect(),
        }
    }

    /// Returns the attention heads that use the receiver's heads.
    pub(super) fn query_heads(&self, config: &TransformerConfig) -> Vec<usize> {
        let sharing = config.n_heads / config.heads_at(self.input.site()).max(1);
        self.heads(config).into_iter().flat_map(|head| head * sharing..(head + 1) * sharing).collect()
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
            AnalysisError::OutsideModel { what, found, bound, heads, .. } => {
                AnalysisError::OutsideModel { node: format!("receiver {self}"), what, found, bound, heads }
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

/// Reads `head_q`, and as the same `q`, `head-q` and `attn.hook_q`, in upper or lower case.
impl FromStr for Input {
    type Err = ParseReceiverError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let found =
            NAMES.iter().find(|(_, canonical, aliases)| plain == *canonical || aliases.contains(&plain.as_str()));
        found.map(|(input, ..)| *input).ok_or_else(|| ParseReceiverError(name.to_owned()))
    }
}

/// Writes `head_q:L9H6` or `resid_post:L11`, followed by `@4` for a position.
impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:L{}", self.input, self.layer)?;
        if let Some(head) = self.head {
            write!(f, "H{head}")?;
        }
        match &self.positions {
            Positions::Each(_) => f.write_str(" at one position per prompt"),
            positions => write!(f, "{positions}"),
        }
    }
}

/// Reads `head_q:L9H6` and `resid_post:L11`, with `@4` for a position.
///
/// The part before the colon is any name of the input (`q`). The part after it may be `9.6` for
/// `L9H6`, and `11` for `L11`. A hook point (`blocks.9.attn.hook_q`) means all heads of its layer.
/// Positions that differ between prompts depend on the pairs, and cannot be read.
impl FromStr for Receiver {
    type Err = ParseReceiverError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseReceiverError(text.to_owned());
        let (name, positions) = split_positions(text).map_err(|_| refused())?;
        let in_block = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
        let (kind, place) = match in_block {
            Some((layer, site)) => (site, layer),
            None => name.split_once(':').ok_or_else(refused)?,
        };
        let input: Input = kind.parse().map_err(|_| refused())?;
        let units = input.of_head().map(|_| Axis::Head);
        let (layer, head) = read_place(place, units).ok_or_else(refused)?;
        Ok(Self { layer, input, head, positions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_receiver_is_read_as_that_receiver() {
        let q = Receiver::new(9, Input::Q).head(6);
        for text in ["head_q:L9H6", "q:9.6", "Q:L9H6", "head-q:l9h6", "attn.hook_q:9.6"] {
            assert_eq!(text.parse(), Ok(q.clone()), "{text}");
        }
        for text in ["head_v:L7", "v:7", "blocks.7.attn.hook_v"] {
            assert_eq!(text.parse(), Ok(Receiver::new(7, Input::V)), "{text}");
        }
        for text in ["resid_post:L11", "resid-post:11", "blocks.11.hook_resid_post"] {
            assert_eq!(text.parse(), Ok(Receiver::new(11, Input::ResidPost)), "{text}");
        }
        assert_eq!("q:9.6@4".parse(), Ok(q.at(Positions::One(4))));
        for (input, name, _) in NAMES {
            assert_eq!((input.to_string().as_str(), name.parse()), (name, Ok(input)));
        }
    }

    #[test]
    fn heads_that_share_keys_receive_through_one_key_value_head() {
        let config = TransformerConfig { key_value_heads: Some(2), ..TransformerConfig::llama(3, 6, 24, 17, 12) };
        for input in [Input::K, Input::V] {
            let heads: Vec<_> = (0..6).map(|head| Receiver::of_head(Head::new(2, head), input, &config)).collect();
            let expected = [0, 0, 0, 1, 1, 1].map(|head| Receiver::new(2, input).head(head));
            assert_eq!(heads, expected);
        }
        assert_eq!(Receiver::of_head(Head::new(1, 5), Input::Q, &config), Receiver::new(1, Input::Q).head(5));
    }

    #[test]
    fn other_text_is_refused_with_a_suggestion() {
        for text in ["", "q", "z:1.2", "q:a.1", "q:1.2.3", "resid_post:1.2", "mlp_in:-1", "q:", "q:1.2@x"] {
            assert_eq!(text.parse::<Receiver>().unwrap_err(), ParseReceiverError(text.to_owned()));
        }
        let said = "resid_pos:11".parse::<Receiver>().unwrap_err().to_string();
        assert!(said.ends_with("did you mean `resid_post`?"), "{said}");
    }
}
