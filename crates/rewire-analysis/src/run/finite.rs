//! Checks that numbers are finite. Each error names the prompt and the node or hook point.

use crate::node::index::node_at;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use rewire_hooks::{Hook, HookPoint, NormSite, Site};
use rewire_model::{ReadPositions, Readout, Run, Transformer};

use crate::error::AnalysisError;
use crate::node::kind::NodeKind;
use crate::run::batch::PromptBatch;
use crate::run::transfer::to_vec;

/// Returns the name of a metric for error messages.
pub(crate) fn the_metric(name: &str) -> String {
    format!("the metric `{name}`")
}

/// Refuses numbers of an unpatched run, one per prompt, that are not finite. `what` is the name of
/// the numbers. The error names the first activation of that run that is not finite.
pub(crate) fn check_run<B: Backend>(
    model: &Transformer<B>,
    what: &str,
    batch: &PromptBatch,
    tokens: &[Vec<u32>],
    values: &[f32],
) -> Result<(), AnalysisError> {
    let Some(row) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let run = if tokens[row] == batch.pairs.clean()[row] { "clean" } else { "corrupted" };
    let read = Some(batch.last_read(row));
    let prompt = Some(batch.prompts[row]);
    let what = format!("{what} on the {run} run");
    Err(AnalysisError::NotFinite { what, value: values[row], prompt, first: first_point(model, &tokens[row], read)? })
}

/// Refuses `values` of unpatched runs that are not finite. Each of `prompts` has the same number of
/// values, and `numbers` are the indices of the prompts among all. The error names the first
/// activation of that prompt's run that is not finite.
pub(crate) fn check_prompts<B: Backend>(
    model: &Transformer<B>,
    what: &str,
    prompts: &[Vec<u32>],
    numbers: &[usize],
    values: &[f32],
) -> Result<(), AnalysisError> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let of_prompt = values.len() / prompts.len();
    let at = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    let prompt = at / of_prompt.max(1);
    let first = first_point(model, &prompts[prompt], None)?;
    let prompt = Some(numbers[prompt]);
    Err(AnalysisError::NotFinite { what: what.to_owned(), value: values[at], prompt, first })
}

/// Refuses metrics of patched runs that are not finite. The rows are copies of the prompts, one
/// copy after another; `what` describes the patch in a copy.
pub(crate) fn check_changed(
    metric: &str,
    prompts: &[usize],
    values: &[f32],
    what: impl Fn(usize) -> String,
) -> Result<(), AnalysisError> {
    let Some(row) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (copy, prompt) = (row / prompts.len(), Some(prompts[row % prompts.len()]));
    let what = format!("{} with {}", the_metric(metric), what(copy));
    Err(AnalysisError::NotFinite { what, value: values[row], prompt, first: None })
}

/// Refuses effects of one kind of node, `[prompt, layer, ..]`, that are not finite. The first
/// prompt has index `first_prompt` among all.
pub(crate) fn check_effects(
    method: &str,
    kind: NodeKind,
    first_prompt: usize,
    effects: &ArrayD<f32>,
) -> Result<(), AnalysisError> {
    let Some((index, &value)) = effects.indexed_iter().find(|(_, value)| !value.is_finite()) else { return Ok(()) };
    let index = ndarray::Dimension::slice(&index);
    let what = format!("the effect of {} by {method}", node_at(kind, &index[1..]));
    Err(AnalysisError::NotFinite { what, value, prompt: Some(first_prompt + index[0]), first: None })
}

/// Returns the first hook point of a prompt's run whose activation is not finite.
pub(crate) fn first_point<B: Backend>(
    model: &Transformer<B>,
    prompt: &[u32],
    read: Option<usize>,
) -> Result<Option<HookPoint>, AnalysisError> {
    let position = read.unwrap_or(prompt.len().saturating_sub(1));
    let readout = Readout { positions: ReadPositions::Each(vec![position]), columns: Some(vec![0]) };
    let mut search = Search { first: None };
    model.forward(Run::tokens(model.tokens(&[prompt.to_vec()])?).with_readout(readout), &mut search)?;
    Ok(search.first)
}

/// A hook that watches the scales of all norms. If the residual stream or its square overflows, the
/// scale is infinite; the norm's output is then 0, and the logits stay finite.
pub(crate) struct Watch<B: Backend> {
    nan_or_zero: Option<Tensor<B, 1>>,
}

impl<B: Backend> Watch<B> {
    pub(crate) fn new() -> Self {
        Self { nan_or_zero: None }
    }

    /// Returns `values`, one per row of the run, with NaN for each row in which a scale was not
    /// finite.
    pub(crate) fn mark(self, values: Tensor<B, 1>) -> Tensor<B, 1> {
        match self.nan_or_zero {
            Some(nan_or_zero) => values + nan_or_zero,
            None => values,
        }
    }
}

impl<B: Backend> Hook<B> for Watch<B> {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        if is_scale(point) {
            let rows = activation.dims()[0];
            let size = activation.dims().iter().product::<usize>() / rows.max(1);
            let of_row = (activation.clone().detach() * 0.0).reshape([rows, size]).sum_dim(1).reshape([rows]);
            self.nan_or_zero = Some(match self.nan_or_zero.take() {
                None => of_row,
                // Rows that joined the run in the meantime come after the earlier rows.
                Some(sum) => match rows - sum.dims()[0] {
                    0 => sum + of_row,
                    joined => Tensor::cat(vec![sum, Tensor::zeros([joined], &of_row.device())], 0) + of_row,
                },
            });
        }
        activation
    }

    fn sees(&self, point: HookPoint) -> bool {
        is_scale(point)
    }
}

/// Returns whether `point` is the scale of a norm.
fn is_scale(point: HookPoint) -> bool {
    let scales = [Site::Ln1Scale, Site::Ln1PostScale, Site::Ln2Scale, Site::Ln2PostScale];
    point.site().is_some_and(|site| scales.contains(&site)) || point == HookPoint::FinalNorm(NormSite::Scale)
}

/// Returns 0 for each row of logits `[row, position, column]`, or NaN if a logit of the row is not
/// finite.
pub(crate) fn nan_or_zero<B: Backend>(logits: &Tensor<B, 3>) -> Tensor<B, 1> {
    let [rows, positions, columns] = logits.dims();
    (logits.clone().detach() * 0.0).reshape([rows, positions * columns]).sum_dim(1).reshape([rows])
}

/// A hook that finds the first activation that is not finite.
struct Search {
    first: Option<HookPoint>,
}

impl<B: Backend> Hook<B> for Search {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        // Masked scores are -inf.
        let masked = point.site() == Some(Site::AttnScores);
        let is_right = |value: &f32| value.is_finite() || masked && *value == f32::NEG_INFINITY;
        if self.first.is_none() && !to_vec(activation.clone()).iter().all(is_right) {
            self.first = Some(point);
        }
        activation
    }
}
