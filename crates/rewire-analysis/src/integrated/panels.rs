//! Panels: the parts of a line that are integrated separately.
//!
//! At some places of a line the metric turns within a small part of it. The nodes of one rule over
//! the whole line miss such a place, and twice as many nodes often miss it, too. The gap of a panel
//! says how wrong its integral is: its attributions must sum to the change of the metric between
//! its own ends. Panels with a large gap are halved, and the others stay.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_model::{Differentiable, Transformer};
use rewire_tasks::Metric;

use crate::error::AnalysisError;
use crate::integrated::line::{Ends, Line};
use crate::integrated::quadrature::QuadratureNode;
use crate::run::batch::PromptBatch;
use crate::run::transfer::to_vecs;

/// The smallest panel. Its float32 places are distinct everywhere on the line.
const SMALLEST: f64 = 1.0 / 65_536.0;

/// A part of a line with its integral.
pub(crate) struct Panel<B: Backend> {
    /// Its ends on the line, 0 to 1.
    pub(crate) span: [f64; 2],
    /// The metric at both ends, one value per prompt.
    pub(crate) metric: [Vec<f32>; 2],
    /// The gradient integrated over the panel, `[prompts, pos, d_model]`.
    pub(crate) gradient: Tensor<B, 3>,
    /// Sum of the panel's attributions minus the change of the metric between its ends, one value
    /// per prompt.
    pub(crate) gap: Vec<f32>,
}

/// A line and the nodes of the rule that integrates each of its panels.
pub(crate) struct Along<'a, A: Differentiable, M> {
    pub(crate) model: &'a Transformer<A>,
    pub(crate) metric: &'a M,
    pub(crate) batch: &'a PromptBatch,
    pub(crate) ends: &'a Ends<'a, A::InnerBackend, M>,
    pub(crate) line: &'a Line<A::InnerBackend>,
    /// The rule's nodes, from 0 to 1.
    pub(crate) nodes: &'a [QuadratureNode],
    /// Largest number of nodes in one pass.
    pub(crate) at_once: usize,
}

impl<A: Differentiable, M: Metric> Along<'_, A, M> {
    /// Returns the gradient integrated from one place of the line to another,
    /// `[prompts, pos, d_model]`.
    pub(crate) fn gradient(&self, [from, to]: [f64; 2]) -> Result<Tensor<A::InnerBackend, 3>, AnalysisError> {
        let width = to - from;
        let moved = |node: &QuadratureNode| QuadratureNode { at: from + width * node.at, weight: width * node.weight };
        let nodes: Vec<_> = self.nodes.iter().map(moved).collect();
        self.line.mean_gradient(self.model, self.metric, self.batch, &nodes, self.at_once)
    }

    /// Halves the panels with these indices, in ascending order, and integrates over the halves.
    pub(crate) fn halve(
        &self,
        panels: Vec<Panel<A::InnerBackend>>,
        which: &[usize],
    ) -> Result<Vec<Panel<A::InnerBackend>>, AnalysisError> {
        let middle = |[from, to]: [f64; 2]| f64::midpoint(from, to);
        let middles: Vec<f64> = which.iter().map(|&panel| middle(panels[panel].span)).collect();
        let (mut gradients, mut wanted) = (Vec::new(), Vec::new());
        for places in middles.chunks(self.at_once.max(1)) {
            wanted.push(self.ends.metric_at(self.line, places)?);
        }
        for &panel in which {
            let [from, to] = panels[panel].span;
            let middle = middle([from, to]);
            for span in [[from, middle], [middle, to]] {
                let gradient = self.gradient(span)?;
                let sums = (self.line.change.clone() * gradient.clone()).sum_dim(2).sum_dim(1);
                wanted.push(sums.reshape([self.batch.prompts.len() as i32]));
                gradients.push((span, gradient));
            }
        }
        let mut read = to_vecs(wanted);
        let sums = read.split_off(read.len() - gradients.len());
        let at_middles = read.concat();
        let mut halves = gradients.into_iter().zip(sums).map(|((span, gradient), sum)| (span, gradient, sum));
        let mut at_middles = at_middles.chunks(self.batch.prompts.len()).map(<[f32]>::to_vec);
        let mut refined = Vec::with_capacity(panels.len() + which.len());
        for (index, panel) in panels.into_iter().enumerate() {
            if !which.contains(&index) {
                refined.push(panel);
                continue;
            }
            let at_middle = at_middles.next().unwrap_or_default();
            let [start, end] = panel.metric;
            for (metric, half) in [[start, at_middle.clone()], [at_middle, end]].into_iter().zip(halves.by_ref()) {
                let (span, gradient, sum) = half;
                let changes = metric[0].iter().zip(&metric[1]).map(|(start, end)| end - start);
                let gap = sum.iter().zip(changes).map(|(sum, change)| sum - change).collect();
                refined.push(Panel { span, metric, gradient, gap });
            }
        }
        Ok(refined)
    }
}

/// Returns the indices of the panels to halve, in ascending order, so that there are at most `most`
/// panels. There are none if no prompt misses what is allowed, or if no panel can be halved.
///
/// For each prompt that misses, these are the panels of largest gap: the gaps of the others add up
/// to at most half of what is allowed.
pub(crate) fn to_halve<B: Backend>(panels: &[Panel<B>], missed: &[usize], allowed: &[f32], most: usize) -> Vec<usize> {
    let size = |panel: usize, prompt: usize| f64::from(panels[panel].gap[prompt].abs());
    let is_wide = |panel: usize| panels[panel].span[1] - panels[panel].span[0] > SMALLEST;
    // The largest share of a panel's gap in what is allowed, over the prompts that miss.
    let mut shares = vec![0.0_f64; panels.len()];
    for &prompt in missed {
        let allowed = f64::from(allowed[prompt]);
        let mut by_gap: Vec<usize> = (0..panels.len()).collect();
        by_gap.sort_by(|&a, &b| size(b, prompt).total_cmp(&size(a, prompt)));
        let mut rest: f64 = by_gap.iter().map(|&panel| size(panel, prompt)).sum();
        for panel in by_gap {
            if rest <= 0.5 * allowed {
                break;
            }
            rest -= size(panel, prompt);
            if is_wide(panel) {
                shares[panel] = shares[panel].max(size(panel, prompt) / allowed);
            }
        }
    }
    let mut chosen: Vec<usize> = (0..panels.len()).filter(|&panel| shares[panel] > 0.0).collect();
    chosen.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
    chosen.truncate(most.saturating_sub(panels.len()));
    chosen.sort_unstable();
    chosen
}
