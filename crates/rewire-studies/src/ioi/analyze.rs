//! What the reproduction computes.

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
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_analysis::stats::Agreement;
use rewire_analysis::{Effects, Outcome};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPairs};

use crate::{Setup, StudyError};

/// How many of the largest exact effects attribution should find.
const TOP_K: usize = 10;

/// What is found of the heads' outputs on one set of prompts.
pub struct Findings {
    /// `demo` or `generated`.
    pub set: &'static str,
    /// The pairs.
    pub pairs: PromptPairs,
    /// Denoising then noising; exact, then by attribution; of the heads' outputs.
    pub outcomes: Vec<[Outcome; 2]>,
    /// Whether noising says anything that denoising does not.
    pub noising: Noising,
}

/// What noising is, beside denoising.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noising {
    /// Another experiment.
    Apart,
    /// The same with the sign changed: every pair's mirror is in the set, and turns the metric
    /// round. The largest difference, of any prompt and head.
    MinusDenoising(f32),
}

/// How far noising may be from minus denoising to be the same: half of the last of four digits,
/// which is all that tables print.
const AS_PRINTED: f32 = 5e-5;

/// What the demo looks at besides, on its own prompts, denoising.
pub struct Demo {
    /// By attribution, of every kind of node.
    pub attribution: Outcome,
    /// By activation patching, of those that the demo patches.
    pub exact: Outcome,
    /// Head edges, as means over prompts.
    pub paths: Array6<f32>,
    /// `[prompt, layer, head, dest, src]`.
    pub attention_attribution: Array5<f32>,
    /// Of the clean prompts, `[prompt, layer, head, dest, src]`.
    pub patterns: Array5<f32>,
    /// Of the corrupted prompts' patterns, `[prompt, layer, head, dest]`.
    pub entropy: Array4<f32>,
    /// Attribution against exact effects, one a kind of [`exact`](Self::exact).
    pub agreements: Vec<Agreement>,
    /// The heads of largest attribution, patched exactly.
    pub screened: Screened,
}

/// A head with its exact effect and its attribution.
pub struct HeadEffect {
    /// Its layer.
    pub layer: usize,
    /// Its number in the layer.
    pub head: usize,
    /// By activation patching.
    pub exact: f32,
    /// By attribution patching.
    pub attribution: f32,
}

/// Heads' outputs at all positions.
pub const HEADS: NodeKind = NodeKind { component: Component::HeadZ, by: By::All };
/// Both directions, in the order of [`Findings::outcomes`].
pub const DIRECTIONS: [Direction; 2] = [Direction::Denoising, Direction::Noising];
/// Parts of heads and what the demo calls them, in its order.
pub const HEAD_PARTS: [(Component, &str); 5] = [
    (Component::HeadZ, "Output"),
    (Component::HeadQ, "Query"),
    (Component::HeadK, "Key"),
    (Component::HeadV, "Value"),
    (Component::HeadPattern, "Pattern"),
];
/// Parts of blocks and what the demo calls them, in its order.
pub const BLOCKS: [(Component, &str); 3] = [
    (Component::ResidPre, "Residual stream"),
    (Component::AttnOut, "Attention output"),
    (Component::MlpOut, "MLP output"),
];
/// How many heads screening verifies.
const VERIFIED: usize = 10;

/// The kinds that the demo patches, in its order, and the rest of the residual stream.
fn patched(config: &TransformerConfig) -> Vec<NodeKind> {
    let blocks = BLOCKS.map(|(c, _)| NodeKind::by_position(c));
    let heads = HEAD_PARTS.map(|(c, _)| NodeKind::all(c));
    let by_position = HEAD_PARTS.map(|(c, _)| NodeKind::by_position(c));
    let mid = (!config.parallel_block).then_some(Component::ResidMid);
    let stream = mid.into_iter().chain([Component::ResidPost]).map(NodeKind::by_position);
    blocks.into_iter().chain(heads).chain(by_position).chain(stream).collect()
}

/// The kinds that attribution gives besides.
fn estimated(config: &TransformerConfig) -> Vec<NodeKind> {
    let mut kinds = patched(config);
    kinds.push(NodeKind { component: Component::HeadPattern, by: By::Cell });
    kinds
}

/// The demo's own analyzes, in its order.
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
    let attention_attribution = attention_attribution(model, question, &execution)?;
    let paths = EdgeAttributionOptions { norm, reduce: Reduce::Mean };
    let kinds = estimated(model.config());
    let (attribution, paths) =
        attribution_patching_with_edges(model, question, &kinds, paths, Direction::Denoising, &execution)?;
    let exact = setup.step("demo prompts: blocks and heads, exactly", |progress| {
        activation_patching(
            &inner,
            question,
            &patched(model.config()),
            Direction::Denoising,
            &Execution { progress, ..execution },
        )
    })?;
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

/// The heads' outputs, both ways, exact and by attribution.
pub(super) fn heads<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    set: &'static str,
    pairs: PromptPairs,
) -> Result<Findings, StudyError> {
    let metric = LogitDiff::new(&pairs);
    let inner = model.valid();
    let mut outcomes = Vec::new();
    for direction in DIRECTIONS {
        let question = Question::new(&pairs, &metric);
        let execution = setup.execution(model, pairs.width());
        let exact = setup.step(&format!("{set} prompts, {direction}"), |progress| {
            activation_patching(&inner, question, &[HEADS], direction, &Execution { progress, ..execution })
        })?;
        outcomes.push([exact, attribution_patching(model, question, &[HEADS], direction, &execution)?]);
    }
    let noising = noising(&pairs, &outcomes);
    Ok(Findings { set, pairs, outcomes, noising })
}

/// Compares each pair's effects in noising with those of its mirror in denoising, exact and by
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
    /// The heads by falling size of their exact effect, in one of [`DIRECTIONS`].
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

    /// The directions that have a table of their own, by their number in [`DIRECTIONS`].
    pub fn shown(&self) -> impl Iterator<Item = (usize, Direction)> + use<> {
        let shown = if self.noising == Noising::Apart { DIRECTIONS.len() } else { 1 };
        DIRECTIONS.into_iter().enumerate().take(shown)
    }

    /// Clean and corrupted mean of the logit difference.
    #[must_use]
    pub fn baselines(&self) -> [f64; 2] {
        self.outcomes[0][0].baselines.means()
    }
}

impl Demo {
    /// The exact effects of a kind of node.
    #[must_use]
    pub fn exact_of(&self, kind: NodeKind) -> Option<&Effects> {
        self.exact.effects.iter().find(|e| e.kind == kind)
    }

    /// The attribution of a kind of node.
    #[must_use]
    pub fn estimate(&self, kind: NodeKind) -> Option<&Effects> {
        self.attribution.effects.iter().find(|e| e.kind == kind)
    }

    /// Entropy of a head's attention on the corrupted prompts, which attribution is linear around: mean over prompts of the
    /// destinations that a node at `position` is used by, or of all from the first that differs.
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

    /// Effects of one head on two pairs.
    fn outcome(direction: Direction, values: [f32; 2]) -> Outcome {
        let values = Array3::from_shape_fn((2, 1, 1), |(prompt, ..)| values[prompt]).into_dyn();
        Outcome {
            method: Method::ActivationPatching,
            direction,
            scale: Scale::Normalized,
            metric: "logit-diff",
            baselines: Baselines { clean: vec![1.0; 2], corrupted: vec![-1.0; 2] },
            vanished: Vec::new(),
            effects: vec![Effects { kind: HEADS, values, lengths: Vec::new() }],
        }
    }

    #[test]
    fn noising_is_minus_denoising_only_if_pairs_are_mirrors_and_numbers_say_so() {
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
        assert_eq!(found(mirrored(), [-0.25, -0.5], minus), Noising::Apart, "each is compared with its mirror");
        assert_eq!(found(mirrored(), minus, [-0.5, -0.2501]), Noising::Apart, "another in the fourth decimal");
        assert_eq!(found(mirrored(), [f32::NAN, -0.25], minus), Noising::Apart);
    }
}
