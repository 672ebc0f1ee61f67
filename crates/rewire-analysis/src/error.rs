//! Errors that an analysis can return.

use rewire_hooks::{CacheError, HookPoint, PatchError, Site};
use rewire_model::{BackwardRule, ModelError};
use rewire_tasks::{NormalizationError, PairsError};
use rewire_tensor::DeviceError;

use crate::attribution::estimator::Estimator;
use crate::integrated::rule::Rule;
use crate::node::kind::NodeKind;

/// The reason why an analysis returned no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// The list of nodes is empty.
    #[error("no nodes were given; give at least one")]
    NoNodes,
    /// The model does not have the node.
    #[error("this model has no {node}: {reason}")]
    MissingNode {
        /// The node.
        node: NodeKind,
        /// Why the model does not have it.
        reason: &'static str,
    },
    /// The model has the node, but the method does not support it.
    #[error("{method} does not take {node}: {reason}")]
    UnsupportedNode {
        /// The method.
        method: &'static str,
        /// The node.
        node: NodeKind,
        /// Why the method does not support it, and what to use instead.
        reason: &'static str,
    },
    /// The nodes are at marked positions, but the pairs mark no position.
    #[error(
        "the pairs mark no position for {node}; mark one position per pair, or use `all` or `position` instead of \
         `marked`"
    )]
    NoMarks {
        /// The node.
        node: NodeKind,
    },
    /// The model or the prompts do not have the node's layer, head, neuron or position.
    #[error("there is no {node}: {what} {found} is out of range ({}, counted from 0)", range(what, *bound, heads))]
    OutsideModel {
        /// The node.
        node: String,
        /// The index that is out of range, such as `layer` or `head`.
        what: &'static str,
        /// The index that was given.
        found: usize,
        /// Number of valid indices: each valid index is below it.
        bound: usize,
        /// For heads and their activations, the number of layers and of heads per layer.
        heads: Option<[usize; 2]>,
    },
    /// The node has one position per prompt, but for another number of prompts.
    #[error("{node} has positions for {found} prompts, and there are {expected}; give one entry per prompt")]
    PositionsOfOtherPairs {
        /// The node.
        node: String,
        /// Number of pairs.
        expected: usize,
        /// Number of positions.
        found: usize,
    },
    /// The prompt has no positions of names, which the analysis needs.
    #[error(
        "prompt {prompt} (counted from 0) has no names; this analysis needs the positions of the names in every prompt"
    )]
    NoNames {
        /// The prompt, counted from 0.
        prompt: usize,
    },
    /// The name is at a position that its prompt does not have.
    #[error(
        "prompt {prompt} has a name at position {position} and only {len} tokens (prompts and positions are counted \
         from 0)"
    )]
    NameOutside {
        /// The prompt, counted from 0.
        prompt: usize,
        /// The position.
        position: usize,
        /// Number of tokens in the prompt.
        len: usize,
    },
    /// The list of receivers is empty.
    #[error("no receivers were given; give at least one")]
    NoReceivers,
    /// The node writes nothing to the residual stream and cannot be a sender.
    #[error(
        "{node} writes nothing to the residual stream and cannot be a sender; use head_z, attn_out, mlp_out, mlp_post \
         or the residual stream"
    )]
    SendsNothing {
        /// The node.
        node: String,
    },
    /// The model does not have the receiver.
    #[error("there is no receiver {receiver}: {reason}")]
    NoSuchReceiver {
        /// The receiver.
        receiver: String,
        /// Why the model does not have it.
        reason: &'static str,
    },
    /// The model does not have the edge.
    #[error("there is no edge {edge}: {reason}")]
    NoSuchEdge {
        /// The edge.
        edge: String,
        /// Why the model does not have it.
        reason: &'static str,
    },
    /// The circuit is of another model.
    #[error("circuit {circuit} (counted from 0) is of another model: its edges are not those of this model")]
    OtherGraph {
        /// The circuit, counted from 0.
        circuit: usize,
    },
    /// The receiver is at a position that a prompt does not have.
    #[error("receiver {receiver} is outside prompt {prompt} (counted from 0), which has {len} tokens")]
    ReceiverBehindEnd {
        /// The receiver.
        receiver: String,
        /// The first prompt that is too short, counted from 0.
        prompt: usize,
        /// Number of tokens in that prompt.
        len: usize,
    },
    /// The group has no nodes.
    #[error("group {group} (counted from 0) has no nodes")]
    EmptyGroup {
        /// The group, counted from 0.
        group: usize,
    },
    /// More nodes were asked for than there are.
    #[error("the {k} nodes of largest attribution were asked for, and there are only {nodes}")]
    TooManyNodes {
        /// Number of nodes asked for.
        k: usize,
        /// Number of nodes that there are.
        nodes: usize,
    },
    /// Fewer random subsets were asked for than a bound needs.
    #[error("{subsets} random subsets were asked for, and a bound on skipped nodes needs at least {least}")]
    TooFewSubsets {
        /// Number of subsets asked for.
        subsets: usize,
        /// The fewest subsets.
        least: usize,
    },
    /// The two effects are for different nodes.
    #[error(
        "the exact effects ({exact}) and the estimates ({estimate}) are for different nodes; compare effects of the \
         same kind and shape"
    )]
    NotComparable {
        /// Node kind of the exact effects.
        exact: NodeKind,
        /// Node kind of the estimates.
        estimate: NodeKind,
    },
    /// The quadrature rule has too few steps.
    #[error(
        "the rule {rule} needs at least {least} {unit}, and {steps} {verb} asked for",
        unit = if *least == 1 { "step" } else { "steps" },
        verb = if *steps == 1 { "was" } else { "were" }
    )]
    TooFewSteps {
        /// The rule.
        rule: Rule,
        /// Number of steps asked for.
        steps: usize,
        /// The fewest steps that the rule allows.
        least: usize,
    },
    /// The list of quadrature nodes is empty.
    #[error("the list of quadrature nodes is empty; give at least one")]
    NoQuadratureNodes,
    /// The quadrature rule has more steps than the upper bound.
    #[error("{steps} steps were asked for, and at most {most} are allowed")]
    TooManySteps {
        /// Number of steps asked for.
        steps: usize,
        /// The most steps that are allowed.
        most: usize,
    },
    /// The given activation has another shape than the hook point.
    #[error(
        "the activation given for `{point}` has shape {found:?}, and {expected:?} is needed (a size of 1 for prompts \
         or positions is broadcast)"
    )]
    GivenShape {
        /// The hook point.
        point: HookPoint,
        /// The shape of the hook point's activation for all prompts.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// The reference set has no prompts.
    #[error("the reference set for mean activations has no prompts; give at least one")]
    EmptyReference,
    /// The site has one value per pair of positions and no mean over prompts.
    #[error("`{site}` has no mean over prompts: its size depends on the length of the prompt", site = site.name())]
    NoMean {
        /// The site.
        site: Site,
    },
    /// The set names the node twice.
    #[error("{node} is named twice in one set")]
    NodeTwice {
        /// The node.
        node: String,
    },
    /// The attributions do not sum to the change of the metric, within the tolerance.
    #[error(
        "the attributions of {kind}, layer {layer}, do not sum to the change of the metric on prompt {prompt} \
         (counted from 0): with {steps} steps the gap is {gap:.3e} for a change of {change:.3e}, and {allowed:.3e} is \
         allowed; give more steps or a larger tolerance"
    )]
    Incomplete {
        /// The nodes.
        kind: NodeKind,
        /// Their layer.
        layer: usize,
        /// The prompt, counted from 0.
        prompt: usize,
        /// Sum of the attributions less the change of the metric.
        gap: f64,
        /// Change of the metric along the line.
        change: f64,
        /// Upper bound on the absolute gap.
        allowed: f64,
        /// Number of quadrature nodes in the last attempt.
        steps: usize,
    },
    /// The method is not defined with this backward rule.
    #[error("{method} cannot use the backward rule {rule}: {reason}; use the rule gradient")]
    UnsupportedRule {
        /// The method.
        method: &'static str,
        /// The rule.
        rule: BackwardRule,
        /// Why the method is not defined with the rule.
        reason: &'static str,
    },
    /// Head edges with exact norms were asked for by a backward rule that holds the norms' scales.
    #[error(
        "the backward rule {rule} holds the scales of norms constant, and exact norms of head edges differentiate \
         them; use frozen norms or the rule gradient"
    )]
    ExactNorms {
        /// The rule.
        rule: BackwardRule,
    },
    /// A correction of AtP* was asked for by a backward rule other than the gradient.
    #[error("{estimator} is defined for the gradient, not for the backward rule {rule}; use one of them alone")]
    CorrectedRule {
        /// The estimator.
        estimator: Estimator,
        /// The rule.
        rule: BackwardRule,
    },
    /// The device failed during the computation.
    #[error("{0}{advice}", advice = advice(.0))]
    Device(DeviceError),
    /// A finished pass could not be stored in the checkpoint.
    #[error("a finished pass could not be stored in the checkpoint")]
    Checkpoint(#[source] std::io::Error),
    /// This process computed all passes that its checkpoint takes, and other passes are not stored.
    #[error("other processes compute the remaining passes of this analysis; merge the checkpoints of all processes")]
    PassesLeft,
    /// The method needs a gradient, and the metric's gradient is 0 wherever it exists.
    #[error("the gradient of the metric `{metric}` is 0 wherever it exists; use activation patching")]
    NotDifferentiable {
        /// The metric.
        metric: &'static str,
    },
    /// The method takes the gradient on a run on which the metric is at its minimum or maximum.
    #[error(
        "{method} of the metric `{metric}` gives no information on the clean run: the metric's gradient is 0 there, \
         and every estimate would be 0 up to rounding; {advice}integrated gradients, activation patching or another \
         metric",
        advice = if *has_other_direction { "use the denoising direction, whose gradient is taken on the corrupted \
            run, or " }
            else { "use " }
    )]
    Stationary {
        /// The method.
        method: &'static str,
        /// The metric.
        metric: &'static str,
        /// Whether the method can take the gradient on the corrupted run instead.
        has_other_direction: bool,
    },
    /// The metric's gradient is 0 on every prompt whose two runs differ.
    #[error(
        "the gradient of the metric `{metric}` with respect to the logits is 0 on all prompts, and attribution gives \
         no information; use activation patching, integrated gradients, the other direction or another metric"
    )]
    GradientVanishes {
        /// The metric.
        metric: &'static str,
    },
    /// A number of the result is not finite.
    #[error("{what} is {value}{on}{place}", on = on(.prompt), place = place(.first))]
    NotFinite {
        /// Name of the number, such as the metric.
        what: String,
        /// The number.
        value: f32,
        /// The prompt of the number, counted from 0; `None` if it belongs to no single prompt.
        prompt: Option<usize>,
        /// The first activation of that prompt's run that is not finite. `None` for a patched run,
        /// or if all activations are finite.
        first: Option<HookPoint>,
    },
    /// The metric is for another number of prompts than the pairs.
    #[error("the metric was made for {found} prompts, and there are {expected} pairs; make it from the same pairs")]
    MetricOfOtherPairs {
        /// Number of pairs.
        expected: usize,
        /// Number of prompts that the metric reads.
        found: usize,
    },
    /// The metric reads a position that no prompt has.
    #[error(
        "the metric reads position {position} of prompt {prompt}, and the longest prompt has {width} tokens (prompts \
         and positions are counted from 0)"
    )]
    ReadOutside {
        /// The prompt, counted from 0.
        prompt: usize,
        /// The position, counted from 0.
        position: usize,
        /// Number of tokens in the longest prompt.
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
    /// The cache lacks an activation or has it in another shape.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A patch was not applied.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// Returns the part of a message that says which indices there are. For a head, it says how many
/// layers and heads the model has.
fn range(what: &str, bound: usize, heads: &Option<[usize; 2]>) -> String {
    match heads {
        Some([layers, heads]) if ["layer", "head"].contains(&what) => {
            format!("the model has {layers} layers of {heads} heads")
        }
        _ => format!("there are {bound}"),
    }
}

/// Returns the part of a message that names the prompt of a number.
fn on(prompt: &Option<usize>) -> String {
    prompt.map_or_else(String::new, |prompt| format!(" for prompt {prompt} (counted from 0)"))
}

/// Returns the part of a message that names the first activation that is not finite, and what to
/// check.
fn place(first: &Option<HookPoint>) -> String {
    match first {
        Some(point) => format!(
            ": `{point}` is the first activation of that run that is not finite; check the model's weights and its \
             config.json"
        ),
        None => ": the computation left the range of float32".to_owned(),
    }
}

/// Returns the part of a message that says what to do about a fault.
fn advice(fault: &DeviceError) -> &'static str {
    match fault {
        DeviceError::OutOfMemory(_) => {
            "; set a smaller memory budget, or use shorter prompts, a smaller model or bfloat16"
        }
        _ => "",
    }
}
