//! Everything that an analysis can refuse.

use rewire_hooks::{CacheError, HookPoint, PatchError, Site};
use rewire_model::ModelError;
use rewire_tasks::{NormalizationError, PairsError};
use rewire_tensor::DeviceError;

use crate::integrated::rule::Rule;
use crate::node::kind::NodeKind;

/// Why an analysis was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The list of nodes is empty.
    #[error("no nodes were given")]
    NoNodes,
    /// A node that this model does not have.
    #[error("this model has no {node}: {reason}")]
    MissingNode {
        /// The node.
        node: NodeKind,
        /// Why not.
        reason: &'static str,
    },
    /// A node that the model has and the method cannot work on.
    #[error("{method} does not take {node}: {reason}")]
    UnsupportedNode {
        /// The method.
        method: &'static str,
        /// The node.
        node: NodeKind,
        /// Why not, and what to ask for instead.
        reason: &'static str,
    },
    /// Nodes at marked positions, for pairs that mark none.
    #[error("the pairs mark no position for {node}: give each pair a position, or divide by all or by position")]
    NoMarks {
        /// The node.
        node: NodeKind,
    },
    /// A node whose layer, head, neuron or position the model or the prompts do not have.
    #[error("there is no {node}: {what} {found} of {bound}, counted from 0")]
    OutsideModel {
        /// The node.
        node: String,
        /// What of it is outside.
        what: &'static str,
        /// The number given.
        found: usize,
        /// How many there are.
        bound: usize,
    },
    /// A node with a position a prompt, for another number of prompts.
    #[error("{node} has positions for {found} prompts, and there are {expected}")]
    PositionsOfOtherPairs {
        /// The node.
        node: String,
        /// Number of pairs.
        expected: usize,
        /// Number of positions.
        found: usize,
    },
    /// A prompt without names where names are looked at.
    #[error("prompt {prompt} (counted from 0) has no names, and it is about names that a head copies or looks at")]
    NoNames {
        /// Which prompt.
        prompt: usize,
    },
    /// A name at a position that its prompt does not have.
    #[error("the name at position {position} of prompt {prompt} is outside it: it has {len} tokens, counted from 0")]
    NameOutside {
        /// Which prompt.
        prompt: usize,
        /// The position.
        position: usize,
        /// Tokens of the prompt.
        len: usize,
    },
    /// The list of receivers is empty.
    #[error("no receivers were given")]
    NoReceivers,
    /// A node that writes nothing to the residual stream cannot send.
    #[error(
        "{node} writes nothing to the residual stream, so it cannot send; heads (head_z), attn_out, mlp_out, mlp_post and the \
         residual stream can"
    )]
    SendsNothing {
        /// The node.
        node: String,
    },
    /// A receiver that this model does not have.
    #[error("there is no receiver {receiver}: {reason}")]
    NoSuchReceiver {
        /// The receiver.
        receiver: String,
        /// Why not.
        reason: &'static str,
    },
    /// A receiver at a position that a prompt does not have.
    #[error("receiver {receiver} is outside prompt {prompt} (counted from 0), which has {len} tokens")]
    ReceiverBehindEnd {
        /// The receiver.
        receiver: String,
        /// The first prompt that is too short.
        prompt: usize,
        /// Its tokens.
        len: usize,
    },
    /// A group without nodes.
    #[error("group {group} (counted from 0) has no nodes")]
    EmptyGroup {
        /// Which group.
        group: usize,
    },
    /// More nodes were to be verified than there are.
    #[error("the {k} nodes of largest attribution were asked for, and there are {nodes}")]
    TooManyNodes {
        /// How many were asked for.
        k: usize,
        /// How many there are.
        nodes: usize,
    },
    /// Effects that are not of the same nodes.
    #[error("{exact} and {estimate} are not effects of the same nodes")]
    NotComparable {
        /// The one kind.
        exact: NodeKind,
        /// The other.
        estimate: NodeKind,
    },
    /// A quadrature rule with too few nodes.
    #[error(
        "the rule {rule} needs at least {least} {unit}, and {steps} {verb} asked for",
        unit = if *least == 1 { "step" } else { "steps" },
        verb = if *steps == 1 { "was" } else { "were" }
    )]
    TooFewSteps {
        /// The rule.
        rule: Rule,
        /// How many were asked for.
        steps: usize,
        /// The fewest that it can do with.
        least: usize,
    },
    /// A list of quadrature nodes that is empty.
    #[error("the list of quadrature nodes is empty; give at least one")]
    NoQuadratureNodes,
    /// A quadrature rule with more nodes than could ever be run.
    #[error("{steps} steps were asked for, and {most} are the most")]
    TooManySteps {
        /// How many were asked for.
        steps: usize,
        /// The most.
        most: usize,
    },
    /// A given activation of another shape than the point has.
    #[error(
        "what is given for `{point}` has shape {found:?}, and {expected:?} is needed (1 prompt or 1 position may stand for all)"
    )]
    GivenShape {
        /// The point.
        point: HookPoint,
        /// The shape that it has in these prompts.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A reference set without prompts.
    #[error("the reference set, whose mean activations are wanted, has no prompts")]
    EmptyReference,
    /// A mean over positions of something that is about pairs of positions.
    #[error("`{site}` has no mean over prompts: its size depends on their length", site = site.name())]
    NoMean {
        /// The site.
        site: Site,
    },
    /// A node that is named twice in one set.
    #[error("{node} is named twice in one set")]
    NodeTwice {
        /// The node.
        node: String,
    },
    /// Attributions that do not sum to the change of the metric.
    #[error(
        "the attributions of {kind}, layer {layer}, do not sum to the change of the metric on prompt {prompt}: they miss it by \
         {gap:.3e} of {change:.3e} with {steps} steps, and {allowed:.3e} is allowed; give more steps or a larger tolerance"
    )]
    Incomplete {
        /// The nodes.
        kind: NodeKind,
        /// Their layer.
        layer: usize,
        /// The prompt, counted from 0.
        prompt: usize,
        /// Sum of attributions less change of the metric.
        gap: f64,
        /// Change of the metric along the line.
        change: f64,
        /// What the gap must be under.
        allowed: f64,
        /// Nodes of the quadrature at last.
        steps: usize,
    },
    /// The device that was computed on failed.
    #[error("{0}{advice}", advice = advice(.0))]
    Device(DeviceError),
    /// A finished part of the sweep could not be kept.
    #[error("a finished part of the sweep could not be kept: {0}")]
    Checkpoint(#[source] std::io::Error),
    /// A gradient method with a metric without gradient.
    #[error("the gradient of the metric `{metric}` is 0 wherever it exists; use activation patching")]
    NotDifferentiable {
        /// The metric.
        metric: &'static str,
    },
    /// A gradient method at a run at which the metric is at its minimum or maximum.
    #[error(
        "{method} of the metric `{metric}` says nothing at the clean run, where the metric's gradient is 0: every estimate would be \
         0 but for rounding; {advice}integrated gradients, activation patching or another metric",
        advice = if *has_other_direction { "use the denoising direction, whose gradient is taken at the corrupted run, or " }
            else { "use " }
    )]
    Stationary {
        /// The method.
        method: &'static str,
        /// The metric.
        metric: &'static str,
        /// Whether the method can be taken at the corrupted run instead.
        has_other_direction: bool,
    },
    /// A gradient method where the metric's gradient is 0 on every prompt whose two runs differ.
    #[error(
        "the gradient of the metric `{metric}` with respect to the logits is 0 on all prompts, so attribution says nothing; use \
         activation patching, integrated gradients, the other direction or another metric"
    )]
    GradientVanishes {
        /// The metric.
        metric: &'static str,
    },
    /// A number that is not finite, where a result was to be.
    #[error("{what} is {value}{on}{place}", on = on(.prompt), place = place(.first))]
    NotFinite {
        /// What the number is.
        what: String,
        /// The number.
        value: f32,
        /// The prompt, where the number belongs to one.
        prompt: Option<usize>,
        /// The first activation of that prompt's run that is not finite, where the run is unpatched
        /// and one is not.
        first: Option<HookPoint>,
    },
    /// A metric with another number of prompts than the pairs.
    #[error("the metric was made for {found} prompts, and there are {expected}")]
    MetricOfOtherPairs {
        /// Number of pairs.
        expected: usize,
        /// Number of prompts that the metric reads.
        found: usize,
    },
    /// A metric that reads a position that no prompt has.
    #[error("the metric reads position {position} of prompt {prompt}, and prompts have {width}, counted from 0")]
    ReadOutside {
        /// The prompt.
        prompt: usize,
        /// The position.
        position: usize,
        /// How many there are.
        width: usize,
    },
    /// The pairs cannot be run on this model.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// The effects cannot be normalized.
    #[error(transparent)]
    Normalization(#[from] NormalizationError),
    /// The model could not be run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An activation was not where it should be.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A patch was not applied.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// The prompt that a number belongs to.
fn on(prompt: &Option<usize>) -> String {
    prompt.map_or_else(String::new, |prompt| format!(" on prompt {prompt} (counted from 0)"))
}

/// Where a number stopped being finite, and what to check.
fn place(first: &Option<HookPoint>) -> String {
    match first {
        Some(point) => format!(
            ": `{point}` is the first activation of that run that is not finite; check the model's weights and its config.json"
        ),
        None => ": the numbers leave the range of float32".to_owned(),
    }
}

/// What helps against a fault.
fn advice(fault: &DeviceError) -> &'static str {
    match fault {
        DeviceError::OutOfMemory(_) => {
            "; with a smaller budget less is done at once, and shorter prompts, a smaller model or bfloat16 need less"
        }
        _ => "",
    }
}
