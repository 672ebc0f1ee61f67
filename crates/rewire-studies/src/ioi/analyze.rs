//! The analyses of the reproduction.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use ndarray::{Array4, Array5, Array6, Axis};
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attention_attribution, attribution_patching, attribution_patching_with_edges,
};
use rewire_analysis::heads::{attention_entropy, attention_patterns};
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::patching::{Screened, activation_patching, screen_then_verify};
use rewire_analysis::run::{Direction, Question};
use rewire_analysis::stats::Agreement;
use rewire_analysis::{Effects, Outcome};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPairs};

use crate::setup::complete;
use crate::{Setup, StudyError};

/// Number of the largest exact effects that attribution should find.
const TOP_K: usize = 10;

/// The effects of the heads' outputs on one set of prompts.
pub struct Findings {
    /// Name of the set: `demo` or `generated`.
    pub set: &'static str,
    /// The pairs.
    pub pairs: PromptPairs,
    /// Effects of the heads' outputs, first denoising, then noising. Each element has the exact
    /// effects and the attributions.
    pub outcomes: Vec<[Outcome; 2]>,
    /// Whether noising has information that denoising does not have.
    pub noising: Noising,
}

/// The relation of noising to denoising.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noising {
    /// Noising is a different experiment.
    Apart,
    /// Noising is minus denoising, because every pair's mirror is in the set and the metric changes
    /// its sign on the mirror. Holds the largest difference over all prompts and heads.
    MinusDenoising(f32),
}

/// Largest difference at which noising counts as minus denoising: half of the fourth decimal, the
/// last one that tables print.
const AS_PRINTED: f32 = 5e-5;

/// The demo's other analyses on its own prompts, denoising.
pub struct Demo {
    /// Attributions of every kind of node.
    pub attribution: Outcome,
    /// Activation patching of the kinds that the demo patches.
    pub exact: Outcome,
    /// Edge attributions between heads, means over prompts:
    /// `[layer_end, head_end, input, layer_start, head_start, pos]`.
    pub paths: Array6<f32>,
    /// Attention attributions, `[prompt, layer, head, dest, src]`.
    pub attention_attribution: Array5<f32>,
    /// Attention patterns on the clean prompts, `[prompt, layer, head, dest, src]`.
    pub patterns: Array5<f32>,
    /// Entropy of the attention patterns on the corrupted prompts, `[prompt, layer, head, dest]`.
    pub entropy: Array4<f32>,
    /// Agreement of attributions with exact effects, one per kind of [`exact`](Self::exact).
    pub agreements: Vec<Agreement>,
    /// The exact effects of the heads of largest attribution.
    pub screened: Screened,
}

/// A head with its exact effect and its attribution.
pub struct HeadEffect {
    /// Layer of the head.
    pub layer: usize,
    /// Index of the head in its layer.
    pub head: usize,
    /// Effect by activation patching.
    pub exact: f32,
    /// Effect by attribution patching.
    pub attribution: f32,
}

/// The kind of node for head outputs at all positions.
pub const HEADS: NodeKind = NodeKind { component: Component::HeadZ, by: By::All };
/// The directions, in the order of [`Findings::outcomes`].
pub const DIRECTIONS: [Direction; 2] = [Direction::Denoising, Direction::Noising];
/// Parts of heads with the demo's names, in the demo's order.
pub const HEAD_PARTS: [(Component, &str); 5] = [
    (Component::HeadZ, "Output"),
    (Component::HeadQ, "Query"),
    (Component::HeadK, "Key"),
    (Component::HeadV, "Value"),
    (Component::HeadPattern, "Pattern"),
];
/// Parts of blocks with the demo's names, in the demo's order.
pub const BLOCKS: [(Component, &str); 3] = [
    (Component::ResidPre, "Residual stream"),
    (Component::AttnOut, "Attention output"),
    (Component::MlpOut, "MLP output"),
];
/// Number of heads that screening verifies.
const VERIFIED: usize = 10;

/// Returns the kinds that the demo patches, in its order, then the other points of the residual
/// stream.
fn patched(config: &TransformerConfig) -> Vec<NodeKind> {
    let blocks = BLOCKS.map(|(c, _)| NodeKind::by_position(c));
    let heads = HEAD_PARTS.map(|(c, _)| NodeKind::all(c));
    let by_position = HEAD_PARTS.map(|(c, _)| NodeKind::by_position(c));
    let mid = (!config.parallel_block).then_some(Component::ResidMid);
    let stream = mid.into_iter().chain([Component::ResidPost]).map(NodeKind::by_position);
    blocks.into_iter().chain(heads).chain(by_position).chain(stream).collect()
}

/// Returns the kinds for which attribution is computed: all patched kinds, and pattern cells.
fn estimated(config: &TransformerConfig) -> Vec<NodeKind> {
    let mut kinds = patched(config);
    kinds.push(NodeKind { component: Component::HeadPattern, by: By::Cell });
    kinds
}

/// Runs the demo's own analyses, in its order.
pub(super) fn demo<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    pairs: &PromptPairs,
    norm: NormJacobian,
) -> Result<Demo, StudyError> {
    let metric = LogitDiff::new(pairs);
    let inner = model.valid();
    let execution = setup.execution(model, pairs.width());
    let question = Question::new(pairs, &metric);
    let paths = EdgeAttributionOptions { norm, reduce: Reduce::Mean };
    let kinds = estimated(model.config());
    let estimates = setup.share("demo prompts: attribution", execution, |execution| {
        attribution_patching_with_edges(model, question, &kinds, paths, Direction::Denoising, execution)
    })?;
    let exact = setup.share("demo prompts: blocks and heads, exactly", execution, |execution| {
        activation_patching(&inner, question, &patched(model.config()), Direction::Denoising, execution)
    })?;
    let ((attribution, paths), exact) = (complete(estimates)?, complete(exact)?);
    let attention_attribution = attention_attribution(model, question, &execution)?;
    let agreements = exact
        .effects
        .iter()
        .zip(&attribution.effects)
        .map(|(exact, estimate)| Agreement::new(exact, estimate, TOP_K))
        .collect::<Result<Vec<_>, _>>()?;
    let k = VERIFIED.min(model.config().n_layers * model.config().n_heads);
    let screened = screen_then_verify(model, question, &[HEADS], k, Direction::Denoising, &execution)?;
    let patterns = attention_patterns(&inner, &pairs.clean(), execution.prompt_batch)?;
    let entropy = attention_entropy(&attention_patterns(&inner, &pairs.corrupted(), execution.prompt_batch)?);
    Ok(Demo { attribution, exact, paths: paths.mean(), attention_attribution, patterns, entropy, agreements, screened })
}

/// Computes the effects of the heads' outputs, denoising and noising, exact and by attribution.
pub(super) fn heads<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    set: &'static str,
    pairs: PromptPairs,
) -> Result<Findings, StudyError> {
    let metric = LogitDiff::new(&pairs);
    let inner = model.valid();
    let mut found = Vec::new();
    for direction in DIRECTIONS {
        let question = Question::new(&pairs, &metric);
        let execution = setup.execution(model, pairs.width());
        let exact = setup.share(&format!("{set} prompts, {direction}"), execution, |execution| {
            activation_patching(&inner, question, &[HEADS], direction, execution)
        })?;
        let estimate = setup.share(&format!("{set} prompts, {direction}: attribution"), execution, |execution| {
            attribution_patching(model, question, &[HEADS], direction, execution)
        })?;
        found.push([exact, estimate]);
    }
    let complete = |[exact, estimate]: [Option<Outcome>; 2]| Ok([complete(exact)?, complete(estimate)?]);
    let outcomes = found.into_iter().map(complete).collect::<Result<Vec<_>, StudyError>>()?;
    let noising = noising(&pairs, &outcomes);
    Ok(Findings { set, pairs, outcomes, noising })
}

/// Compares each pair's noising effects with the denoising effects of its mirror, exact and by
/// attribution.
fn noising(pairs: &PromptPairs, outcomes: &[[Outcome; 2]]) -> Noising {
    let (Some(mirrors), [denoising, noising]) = (pairs.mirrors(), outcomes) else { return Noising::Apart };
    let mut largest = 0.0_f32;
    for (denoising, noising) in denoising.iter().zip(noising) {
        let [denoising, noising] = [denoising, noising].map(|outcome| &outcome.effects[0].values);
        for (of_mirror, &pair) in denoising.outer_iter().zip(&mirrors) {
            let sums = of_mirror.iter().zip(noising.index_axis(Axis(0), pair)).map(|(a, b)| (a + b).abs());
            largest = sums.fold(largest, |m, v| if v.is_nan() { f32::INFINITY } else { m.max(v) });
        }
    }
    if largest < AS_PRINTED { Noising::MinusDenoising(largest) } else { Noising::Apart }
}

impl Findings {
    /// Returns the heads in the direction with this index in [`DIRECTIONS`], largest absolute exact
    /// effect first.
    #[must_use]
    pub fn heads(&self, direction: usize) -> Vec<HeadEffect> {
        let [mean, estimate] = self.outcomes[direction].each_ref().map(|outcome| outcome.effects[0].mean());
        let head = |(layer, head): (usize, usize)| {
            let at = [layer, head];
            HeadEffect { layer, head, exact: mean[at], attribution: estimate[at] }
        };
        let (layers, heads) = (mean.shape()[0], mean.shape()[1]);
        let mut all: Vec<_> = (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h))).map(head).collect();
        all.sort_by(|a, b| b.exact.abs().total_cmp(&a.exact.abs()));
        all
    }

    /// Returns the directions that have a table of their own, with their index in [`DIRECTIONS`].
    pub fn shown(&self) -> impl Iterator<Item = (usize, Direction)> + use<> {
        let shown = if self.noising == Noising::Apart { DIRECTIONS.len() } else { 1 };
        DIRECTIONS.into_iter().enumerate().take(shown)
    }

    /// Returns the mean logit difference of the clean and of the corrupted prompts.
    #[must_use]
    pub fn baselines(&self) -> [f64; 2] {
        self.outcomes[0][0].baselines.means()
    }
}

impl Demo {
    /// Returns the exact effects of a kind of node.
    #[must_use]
    pub fn exact_of(&self, kind: NodeKind) -> Option<&Effects> {
        self.exact.effects.iter().find(|e| e.kind == kind)
    }

    /// Returns the attributions of a kind of node.
    #[must_use]
    pub fn estimate(&self, kind: NodeKind) -> Option<&Effects> {
        self.attribution.effects.iter().find(|e| e.kind == kind)
    }

    /// Returns the mean entropy of a head's attention on the corrupted prompts. Attribution is a
    /// linear approximation around the corrupted run.
    ///
    /// `place` is the index of the node: layer, head and, for kinds by position, the position. The
    /// mean is over prompts and over the destinations that read the node. If `place` has no
    /// position, it is over all destinations at and after the first position that differs. Position
    /// 0 is never a destination. Returns `None` if the node is not a head, or if there is no such
    /// destination.
    #[must_use]
    pub fn entropy_at(&self, pairs: &PromptPairs, kind: NodeKind, place: &[usize]) -> Option<f32> {
        if !kind.is_of_heads() {
            return None;
        }
        let (layer, head) = (place[0], place[1]);
        let own = matches!(kind.component, Component::HeadQ | Component::HeadPattern | Component::HeadZ);
        let values = (0..pairs.len()).flat_map(|prompt| {
            let first = place.get(2).copied().or(pairs.first_difference(prompt)).unwrap_or(0).max(1);
            let last = if own && place.len() > 2 { first } else { pairs.end(prompt) };
            (first..=last).map(move |dest| self.entropy[[prompt, layer, head, dest]])
        });
        let (sum, n) = values.fold((0.0, 0), |(sum, n), v| (sum + v, n + 1));
        (n > 0).then(|| sum / n as f32)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rewire_analysis::{Baselines, Method};
    use rewire_tasks::PromptPair;

    use rewire_analysis::run::Scale;

    use super::*;

    fn pair(clean: u32, corrupted: u32) -> PromptPair {
        PromptPair {
            clean: vec![clean],
            corrupted: vec![corrupted],
            answers: vec![corrupted],
            wrong_answers: vec![clean],
        }
    }

    /// Returns effects of one head on two pairs.
    fn outcome(direction: Direction, values: [f32; 2]) -> Outcome {
        let values = Array3::from_shape_fn((2, 1, 1), |(prompt, ..)| values[prompt]).into_dyn();
        Outcome {
            method: Method::ActivationPatching,
            direction,
            scale: Scale::Normalized,
            metric: "logit-diff",
            baselines: Baselines { clean: vec![1.0; 2], corrupted: vec![-1.0; 2] },
            vanished: Vec::new(),
            effects: vec![Effects::new(HEADS, values, Vec::new())],
        }
    }

    #[test]
    fn noising_equals_minus_denoising_only_for_mirrored_pairs() {
        let found = |pairs: [PromptPair; 2], noised: [f32; 2], estimated: [f32; 2]| {
            let [denoised, noised, estimated] = [
                outcome(Direction::Denoising, [0.25, 0.5]),
                outcome(Direction::Noising, noised),
                outcome(Direction::Noising, estimated),
            ];
            let pairs = PromptPairs::new(pairs.to_vec()).unwrap();
            noising(&pairs, &[[denoised.clone(), denoised], [noised, estimated]])
        };
        let mirrored = || [pair(1, 2), pair(2, 1)];
        let minus = [-0.5, -0.25];
        assert_eq!(found(mirrored(), minus, minus), Noising::MinusDenoising(0.0));
        assert_eq!(found([pair(1, 2), pair(3, 4)], minus, minus), Noising::Apart);
        assert_eq!(found(mirrored(), [-0.25, -0.5], minus), Noising::Apart, "each pair is compared with its mirror");
        assert_eq!(found(mirrored(), minus, [-0.5, -0.2501]), Noising::Apart, "one differs in the fourth decimal");
        assert_eq!(found(mirrored(), [f32::NAN, -0.25], minus), Noising::Apart);
    }
}
