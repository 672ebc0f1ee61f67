//! Lower bounds on the cost of a pass of a sweep, and of an unpatched run.

use burn::tensor::backend::Backend;
use rewire_model::{MlpKind, Transformer, TransformerConfig};
use rewire_tensor::Precision;

use crate::node::kind::NodeKind;
use crate::patching::plan::{Entry, EntryGroup, PlannedPass};
use crate::run::batch::PromptBatch;
use crate::run::cost::Cost;

/// The properties of a model that determine costs.
#[derive(Clone, Copy)]
pub(crate) struct Costs<'a> {
    pub(crate) config: &'a TransformerConfig,
    pub(crate) precision: Precision,
}

impl<'a> Costs<'a> {
    pub(crate) fn of<B: Backend>(model: &'a Transformer<B>) -> Self {
        Self { config: model.config(), precision: model.precision() }
    }

    /// Returns the cost of an unpatched run on a prompt batch, from position `first` on.
    pub(crate) fn whole_run(self, batch: &PromptBatch, first: usize) -> Cost {
        self.pass(&PlannedPass::of_one_entry(Entry::Pre(0), first, 1), batch)
    }

    /// Returns the cost of an integral along the line of `kind` in `layer`: one run and one
    /// backward pass per quadrature node, and one run per end of the line.
    pub(crate) fn line(self, kind: NodeKind, layer: usize, batch: &PromptBatch, n_gradients: usize) -> Cost {
        let entry = Entry::of(kind.component, layer, self.config);
        let runs = |n: usize| self.pass(&PlannedPass::of_one_entry(entry, batch.first_difference, n), batch);
        runs(n_gradients) * 2.0 + runs(2)
    }

    /// Returns the cost of a pass: each row runs from its entry to the logits that the metric
    /// reads.
    pub(crate) fn pass(self, pass: &PlannedPass, batch: &PromptBatch) -> Cost {
        let config = self.config;
        let width = batch.pairs.width();
        let seen: usize = (pass.first..width).map(|position| position + 1).sum();
        // The sum over the positions that the metric reads, as a mean over prompts.
        let read = batch.all_reads().iter().map(|p| p + 1).sum::<usize>() as f64 / batch.prompts.len() as f64;
        let reads = batch.reads_per_prompt() as f64;
        let computed = (width - pass.first) as f64;
        let d_shared = config.n_key_value_heads() * config.d_head;
        let [d_model, d_heads, d_shared, d_mlp] =
            [config.d_model, config.n_heads * config.d_head, d_shared, config.d_mlp].map(|d| d as f64);
        let maps = mlp_maps(config);
        let qkv_whole = 2.0 * d_model * (d_heads + 2.0 * d_shared) * computed;
        let qkv_read = 2.0 * d_model * (2.0 * d_shared * computed + d_heads * reads);
        let out = 2.0 * d_heads * d_model;
        let mlp = 2.0 * maps * d_model * d_mlp;
        // The terms with 4 d_heads are attention: scores and mixing.
        let whole = qkv_whole + 4.0 * d_heads * seen as f64 + (out + mlp) * computed;
        let last = qkv_read + 4.0 * d_heads * read + out * reads + mlp * reads;
        let columns = batch.columns(config) as f64;
        let rows = |variants: usize| (variants * batch.prompts.len()) as f64;
        // A pass reads weights once for all rows; each row has its own residual stream.
        let mut numbers = d_model * columns;
        let mut operations = rows(pass.variants()) * 2.0 * d_model * columns * reads;
        for layer in 0..config.n_layers {
            let is_last = layer + 1 == config.n_layers;
            let by = |depth: usize| {
                rows(pass.parts.iter().filter(|p| p.entry.depth() <= depth).map(EntryGroup::variants).sum::<usize>())
            };
            let (from_start, from_mid) = (by(2 * layer), by(2 * layer + 1));
            operations += from_start * if is_last { last } else { whole };
            operations += (from_mid - from_start) * mlp * if is_last { reads } else { computed };
            numbers += 2.0 * from_mid * computed * d_model;
            numbers += if from_start > 0.0 { 2.0 * d_model * (d_heads + d_shared) } else { 0.0 };
            numbers += if from_mid > 0.0 { maps * d_model * d_mlp } else { 0.0 };
        }
        Cost { operations, bytes: numbers * self.precision.bytes() as f64 }
    }
}

/// Returns the number of matrices `[d_model, d_mlp]` in an MLP.
pub(crate) fn mlp_maps(config: &TransformerConfig) -> f64 {
    match config.mlp {
        MlpKind::Plain => 2.0,
        MlpKind::Gated => 3.0,
    }
}
