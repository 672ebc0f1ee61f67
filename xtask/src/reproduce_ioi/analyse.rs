//! What the reproduction computes.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use ndarray::{Array4, Array5, Array6};
use rewire_analysis::{
    Agreement, Bootstrap, By, Component, Direction, Effects, NodeKind, NormJacobian, Options, Outcome, PathOptions,
    PerPrompt, Scale, Screened, activation_patching, attention_attribution, attention_entropy, attention_patterns,
    attribution_patching, attribution_patching_with_head_paths, screen_then_verify,
};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPairs};

use crate::agreement::TOP_K;
use crate::compute::options;
use crate::output::head_name;
use crate::progress::with_bar;

/// What is found of the heads' outputs on one set of prompts.
pub(super) struct Findings {
    /// `demo` or `generated`.
    pub(super) set: &'static str,
    pub(super) pairs: PromptPairs,
    /// Denoising then noising; exact, then by attribution; of the heads' outputs.
    pub(super) outcomes: Vec<[Outcome; 2]>,
}

/// What the demo looks at besides, on its own prompts, denoising.
pub(super) struct Demo {
    /// By attribution, of every kind of node.
    pub(super) attribution: Outcome,
    /// By activation patching, of those that the demo patches.
    pub(super) exact: Outcome,
    pub(super) paths: Array6<f32>,
    /// `[prompt, layer, head, dest, src]`.
    pub(super) attention_attribution: Array5<f32>,
    /// Of the clean prompts, `[prompt, layer, head, dest, src]`.
    pub(super) patterns: Array5<f32>,
    /// Of the corrupted prompts' patterns, `[prompt, layer, head, dest]`.
    pub(super) entropy: Array4<f32>,
    /// Attribution against exact effects, one a kind of [`exact`](Self::exact).
    pub(super) agreements: Vec<Agreement>,
    pub(super) screened: Screened,
}

/// A head with its exact effect, how sure it is, and its attribution.
pub(super) struct HeadEffect {
    pub(super) layer: usize,
    pub(super) head: usize,
    pub(super) exact: f32,
    /// Of the mean over prompts, if there are several.
    standard_error: Option<f32>,
    /// 95% bootstrap interval, likewise.
    interval: Option<[f32; 2]>,
    pub(super) attribution: f32,
}

impl HeadEffect {
    /// As it is printed; a single prompt has no error and no interval.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            head_name(self.layer, self.head),
            format!("{:.4}", self.exact),
            self.standard_error.map_or("-".to_owned(), |e| format!("{e:.4}")),
            self.interval.map_or("-".to_owned(), |[low, high]| format!("{low:.4} to {high:.4}")),
            format!("{:.4}", self.attribution),
            format!("{:+.4}", self.attribution - self.exact),
        ]
    }
}

pub(super) const HEADS: NodeKind = NodeKind { component: Component::HeadZ, by: By::All };
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Denoising, Direction::Noising];
/// The demo's order.
pub(super) const HEAD_PARTS: [(Component, &str); 5] = [
    (Component::HeadZ, "Output"),
    (Component::HeadQ, "Query"),
    (Component::HeadK, "Key"),
    (Component::HeadV, "Value"),
    (Component::HeadPattern, "Pattern"),
];
pub(super) const BLOCKS: [(Component, &str); 3] = [
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

/// The demo's own analyses, in its order.
pub(super) fn demo<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    norm: NormJacobian,
) -> anyhow::Result<Demo> {
    let metric = LogitDiff::new(pairs);
    let inner = model.valid();
    let options =
        Options { direction: Direction::Denoising, scale: Scale::Normalised, ..options(model, pairs.width()) };
    let attention_attribution = attention_attribution(model, pairs, &metric, &options)?;
    let paths = PathOptions { norm, per_prompt: PerPrompt::Mean };
    let kinds = estimated(model.config());
    let (attribution, paths) = attribution_patching_with_head_paths(model, pairs, &metric, &kinds, paths, &options)?;
    let exact = with_bar("demo prompts: blocks and heads, exactly", |progress| {
        activation_patching(&inner, pairs, &metric, &patched(model.config()), &Options { progress, ..options })
    })?;
    let agreements = exact
        .effects
        .iter()
        .zip(&attribution.effects)
        .map(|(exact, estimate)| Agreement::new(exact, estimate, TOP_K))
        .collect::<Result<Vec<_>, _>>()?;
    let k = VERIFIED.min(model.config().n_layers * model.config().n_heads);
    let screened = screen_then_verify(model, pairs, &metric, &[HEADS], k, &options)?;
    let patterns = attention_patterns(&inner, &pairs.clean(), options.prompt_batch)?;
    let entropy = attention_entropy(&attention_patterns(&inner, &pairs.corrupted(), options.prompt_batch)?);
    Ok(Demo { attribution, exact, paths: paths.mean(), attention_attribution, patterns, entropy, agreements, screened })
}

/// The heads' outputs, both ways, exact and by attribution.
pub(super) fn heads<B: AutodiffBackend>(
    model: &Transformer<B>,
    set: &'static str,
    pairs: PromptPairs,
) -> anyhow::Result<Findings> {
    let metric = LogitDiff::new(&pairs);
    let inner = model.valid();
    let mut outcomes = Vec::new();
    for direction in DIRECTIONS {
        let options = Options { direction, scale: Scale::Normalised, ..options(model, pairs.width()) };
        let exact = with_bar(&format!("{set} prompts, {direction}"), |progress| {
            activation_patching(&inner, &pairs, &metric, &[HEADS], &Options { progress, ..options })
        })?;
        outcomes.push([exact, attribution_patching(model, &pairs, &metric, &[HEADS], &options)?]);
    }
    Ok(Findings { set, pairs, outcomes })
}

impl Findings {
    /// The heads by falling size of their exact effect, in one of [`DIRECTIONS`].
    pub(super) fn heads(&self, direction: usize, bootstrap: Bootstrap) -> Vec<HeadEffect> {
        let [exact, attribution] = self.outcomes[direction].each_ref().map(|outcome| &outcome.effects[0]);
        let [mean, estimate] = [exact.mean(), attribution.mean()];
        let error = exact.standard_error();
        let interval = exact.bootstrap(bootstrap);
        let head = |(layer, head): (usize, usize)| {
            let at = [layer, head];
            let mean = mean[at];
            HeadEffect {
                layer,
                head,
                exact: mean,
                standard_error: error.as_ref().map(|e| e[at]),
                interval: interval.as_ref().map(|ends| ends.each_ref().map(|e| e[at])),
                attribution: estimate[at],
            }
        };
        let (layers, heads) = (mean.shape()[0], mean.shape()[1]);
        let mut all: Vec<_> = (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h))).map(head).collect();
        all.sort_by(|a, b| b.exact.abs().total_cmp(&a.exact.abs()));
        all
    }

    /// Clean and corrupted mean of the logit difference.
    pub(super) fn baselines(&self) -> [f64; 2] {
        self.outcomes[0][0].baselines.means()
    }
}

impl Demo {
    /// The attribution of a kind of node.
    pub(super) fn estimate(&self, kind: NodeKind) -> Option<&Effects> {
        self.attribution.effects.iter().find(|e| e.kind == kind)
    }

    /// Entropy of a head's attention on the corrupted prompts, which attribution is linear around: mean over prompts of the
    /// destinations that a node at `position` is used by, or of all from the first that differs.
    pub(super) fn entropy_at(&self, pairs: &PromptPairs, kind: NodeKind, place: &[usize]) -> Option<f32> {
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
