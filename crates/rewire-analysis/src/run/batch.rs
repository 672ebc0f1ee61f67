//! What every analysis does first: run clean and corrupted prompts, record, and evaluate the metric.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData, Transaction};
use ndarray::{ArrayD, IxDyn};
use rewire_hooks::{ActivationCache, HookPoint, Recorder};
use rewire_model::{ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{Metric, Normalisation, NormalisationError, PromptPairs, Reads};

use crate::effects::Baselines;
use crate::error::AnalysisError;
use crate::node::kind::{By, Component, NodeKind, Positions};
use crate::run::finite::{Watch, check_run, nan_or_zero, the_metric};
use crate::run::intervention::Intervention;
use crate::run::moves::is_of_own_token;
use crate::run::options::{Direction, Options, Scale};

/// A run's activations and its metric per prompt.
pub(crate) struct Recorded<B: Backend> {
    pub(crate) cache: ActivationCache<B>,
    pub(crate) metric: Vec<f32>,
}

/// Consecutive pairs of all those that an analysis is over.
pub(crate) struct Portion {
    pub(crate) pairs: PromptPairs,
    /// Their numbers among all.
    pub(crate) prompts: Vec<usize>,
    /// How many there are in all.
    pub(crate) all_prompts: usize,
    /// The logits that the metric reads.
    pub(crate) readout: Readout,
    /// Positions before this one are the same in both runs, and not read.
    pub(crate) first_difference: usize,
    /// By prompt and position, whether the two runs have different tokens there; `None` where an
    /// intervention may change activations at every position, whatever the tokens are.
    differing: Option<Vec<Vec<bool>>>,
}

/// The pairs of an analysis in portions. A portion is made when it is needed, so that 100,000 pairs
/// take no more memory than their tokens.
pub(crate) struct Portions<'a> {
    pairs: &'a PromptPairs,
    reads: Reads,
    size: usize,
    reaches: Reaches,
}

/// At which positions an intervention may change activations.
enum Reaches {
    /// Where the two runs can differ.
    Differing,
    /// Everywhere, whatever the tokens are.
    Everywhere,
}

/// Cuts the pairs into portions of `size`; refuses a metric that was made for other pairs.
pub(crate) fn portions<'a, M: Metric>(
    pairs: &'a PromptPairs,
    metric: &M,
    size: usize,
) -> Result<Portions<'a>, AnalysisError> {
    let reads = metric.reads();
    if reads.positions.len() != pairs.len() {
        return Err(AnalysisError::MetricOfOtherPairs { expected: pairs.len(), found: reads.positions.len() });
    }
    if let Some(prompt) = reads.positions.iter().position(|&p| p >= pairs.width()) {
        let (position, width) = (reads.positions[prompt], pairs.width());
        return Err(AnalysisError::ReadOutside { prompt, position, width });
    }
    Ok(Portions { pairs, reads, size: size.max(1), reaches: Reaches::Differing })
}

/// Cuts the pairs into portions for an intervention, which may reach positions at which both runs
/// of a pair are the same.
pub(crate) fn portions_for<'a, B: Backend, M: Metric>(
    intervention: &Intervention<B>,
    pairs: &'a PromptPairs,
    metric: &M,
    size: usize,
) -> Result<Portions<'a>, AnalysisError> {
    let portions = portions(pairs, metric, size)?;
    Ok(match intervention.reaches_everywhere() {
        true => Portions { reaches: Reaches::Everywhere, ..portions },
        false => portions,
    })
}

impl Portions<'_> {
    /// How many portions there are.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len().div_ceil(self.size)
    }

    /// The numbers of the prompts of portion `number`.
    pub(crate) fn prompts(&self, number: usize) -> Range<usize> {
        let from = number * self.size;
        from..(from + self.size).min(self.pairs.len())
    }

    /// Portion `number`.
    pub(crate) fn get(&self, number: usize) -> Portion {
        let prompts = self.prompts(number);
        let pairs = self.pairs.batch(prompts.clone());
        let positions = self.reads.positions[prompts.clone()].to_vec();
        let differences: Vec<_> = (0..pairs.len()).map(|p| pairs.first_difference(p)).collect();
        let first_difference = positions.iter().chain(differences.iter().flatten()).copied().min().unwrap_or(0);
        let readout = Readout { positions: ReadPositions::Each(positions), columns: self.reads.columns.clone() };
        let differ =
            |(clean, corrupted): (Vec<u32>, Vec<u32>)| clean.iter().zip(&corrupted).map(|(a, b)| a != b).collect();
        let differing = Some(pairs.clean().into_iter().zip(pairs.corrupted()).map(differ).collect());
        let all_prompts = self.pairs.len();
        let portion = Portion { pairs, prompts: prompts.collect(), all_prompts, readout, first_difference, differing };
        match self.reaches {
            Reaches::Differing => portion,
            Reaches::Everywhere => portion.changed_everywhere(),
        }
    }

    /// All portions, one after another.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Portion> {
        (0..self.len()).map(|number| self.get(number))
    }
}

impl Portion {
    /// The same for interventions that change positions at which both runs are the same, too.
    pub(crate) fn changed_everywhere(self) -> Self {
        Self { first_difference: 0, differing: None, ..self }
    }

    /// How many columns of the logits the metric reads.
    pub(crate) fn columns(&self, config: &TransformerConfig) -> usize {
        self.readout.columns.as_ref().map_or(config.d_vocab, Vec::len)
    }

    /// Rows and tokens of a run of all prompts from a position on.
    pub(crate) fn size_from(&self, first: usize) -> [usize; 2] {
        [self.prompts.len(), self.prompts.len() * (self.pairs.width() - first)]
    }

    /// The position that the metric reads, per prompt.
    pub(crate) fn readout_positions(&self) -> &[usize] {
        match &self.readout.positions {
            ReadPositions::Each(positions) => positions,
            ReadPositions::All => &[],
        }
    }

    /// Whether patching `component` of `layer` at `positions` can move the metric of `prompt`
    /// (counted in this portion): not where both runs are the same, nor where no position that is
    /// read depends on it. A patch that this refuses has exactly no effect.
    pub(crate) fn can_matter(
        &self,
        prompt: usize,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        positions: &Positions,
    ) -> bool {
        let read = self.readout_positions()[prompt];
        let Some(first) = self.first_differing(prompt).filter(|&first| first <= read) else { return false };
        // In the last block only keys and values, and what they are made of, are used at another position than their own.
        let reaches_others = matches!(component, Component::ResidPre | Component::HeadK | Component::HeadV)
            || layer + 1 < config.n_layers;
        let at = |position: usize| {
            (first..=read).contains(&position)
                && (reaches_others || position == read)
                && self.can_differ(prompt, component, layer, config, position)
        };
        match positions {
            // A pattern is 0 above its diagonal in both runs.
            Positions::Cell { dest, src } if src > dest && self.differing.is_some() => false,
            _ => match positions.position(prompt) {
                Some(position) => at(position),
                None => (first..=read).any(at),
            },
        }
    }

    /// Returns whether a component at a position can differ between the two runs in a way that the
    /// model uses. An activation that depends on one token alone differs only if the token does.
    /// Position 0 attends to itself alone, whatever its queries are.
    pub(crate) fn can_differ(
        &self,
        prompt: usize,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        position: usize,
    ) -> bool {
        match (component, &self.differing) {
            (Component::HeadQ, _) | (Component::HeadPattern, Some(_)) if position == 0 => false,
            (_, Some(differing)) => !is_of_own_token(component, layer, config) || differing[prompt][position],
            (_, None) => true,
        }
    }

    /// Returns the first position of `prompt` whose activations can differ between the two runs.
    fn first_differing(&self, prompt: usize) -> Option<usize> {
        self.differing.as_ref().map_or(Some(0), |differing| differing[prompt].iter().position(|differs| *differs))
    }

    /// The first position that such a patch changes in any prompt, or that is read; `None` if it can matter in none.
    pub(crate) fn first_changed(
        &self,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        positions: &Positions,
    ) -> Option<usize> {
        let moved = (0..self.prompts.len()).filter(|&p| self.can_matter(p, component, layer, config, positions));
        let first = moved.map(|p| positions.position(p).unwrap_or(self.first_difference)).min()?;
        self.readout_positions().iter().copied().chain([first]).min()
    }

    /// Tokens of the run that is patched, and of the one patched from.
    pub(crate) fn base_and_source(&self, direction: Direction) -> [Vec<Vec<u32>>; 2] {
        match direction {
            Direction::Denoising => [self.pairs.corrupted(), self.pairs.clean()],
            Direction::Noising => [self.pairs.clean(), self.pairs.corrupted()],
        }
    }
}

/// Runs `tokens`, recording the points that `accepts` holds for.
pub(crate) fn record<B: Backend, M: Metric>(
    model: &Transformer<B>,
    tokens: &[Vec<u32>],
    portion: &Portion,
    metric: &M,
    accepts: impl Fn(HookPoint) -> bool + Send + Sync + 'static,
) -> Result<Recorded<B>, AnalysisError> {
    let mut recorder = Recorder::filtered(accepts);
    let run = Run::tokens(model.tokens(tokens)?).reading(portion.readout.clone());
    let mut watch = Watch::new();
    let logits = model.forward(run, (&mut recorder, &mut watch))?;
    let values = host(watch.mark(evaluate(metric, logits, &portion.prompts)));
    check_run(model, &the_metric(metric.name()), portion, tokens, &values)?;
    Ok(Recorded { cache: recorder.into_cache(), metric: values })
}

/// Returns the metric of each row of `logits` `[row, 1, column]`; NaN for a row with a logit that
/// is not finite, for every metric.
pub(crate) fn evaluate<B: Backend, M: Metric>(metric: &M, logits: Tensor<B, 3>, prompts: &[usize]) -> Tensor<B, 1> {
    let [rows, _, columns] = logits.dims();
    let nan_or_zero = nan_or_zero(&logits);
    metric.evaluate(logits.reshape([rows, columns]), prompts) + nan_or_zero
}

/// How far rounding inside the metric may put each row's, from the same logits.
pub(crate) fn rounding<B: Backend, M: Metric>(metric: &M, logits: Tensor<B, 3>, prompts: &[usize]) -> Tensor<B, 1> {
    let [rows, _, columns] = logits.dims();
    metric.rounding(logits.reshape([rows, columns]), prompts)
}

/// A tensor's values on the host, in row-major order.
pub(crate) fn host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The same of several tensors, by one transfer: what waits for a device waits once.
pub(crate) fn hosts<B: Backend>(tensors: Vec<Tensor<B, 1>>) -> Vec<Vec<f32>> {
    let all = tensors.into_iter().fold(Transaction::<B>::default(), Transaction::register);
    all.execute().into_iter().map(|data| data.iter::<f32>().collect()).collect()
}

/// Zeros for the effects of a kind on `n_prompts` prompts of `width` positions, `[prompt, layer, ..]`.
pub(crate) fn no_effects(kind: NodeKind, config: &TransformerConfig, n_prompts: usize, width: usize) -> ArrayD<f32> {
    let mut shape = vec![n_prompts, config.n_layers];
    shape.extend(node_sizes(kind, config, width));
    ArrayD::zeros(IxDyn(&shape))
}

/// How many nodes of a kind there are in a layer, along each of [`NodeKind::axes`].
pub(crate) fn node_sizes(kind: NodeKind, config: &TransformerConfig, width: usize) -> Vec<usize> {
    use rewire_hooks::Axis;
    let size = |axis| match axis {
        Axis::Head => config.n_heads,
        Axis::DMlp => config.d_mlp,
        _ => width,
    };
    kind.axes().into_iter().map(size).collect()
}

/// How many nodes of a kind there are in all layers.
pub(crate) fn count(kind: NodeKind, config: &TransformerConfig, width: usize) -> usize {
    let in_layer: usize = node_sizes(kind, config, width).iter().product();
    match kind.by {
        // Of a pattern's cells, those on and below the diagonal.
        By::Cell => config.n_layers * config.n_heads * (width * (width + 1) / 2),
        _ => config.n_layers * in_layer,
    }
}

/// Refuses what cannot be analysed, before anything is run.
pub(crate) fn check<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
) -> Result<(), AnalysisError> {
    if nodes.is_empty() {
        return Err(AnalysisError::NoNodes);
    }
    let config = model.config();
    nodes.iter().try_for_each(|node| node.check(config, pairs))?;
    check_pairs(model, pairs)
}

/// Refuses pairs that the model cannot run.
pub(crate) fn check_pairs<B: Backend>(model: &Transformer<B>, pairs: &PromptPairs) -> Result<(), AnalysisError> {
    let config = model.config();
    Ok(pairs.check_model(config.d_vocab, config.n_ctx)?)
}

/// The metrics of paired runs as baselines, whichever of them was patched.
pub(crate) fn baselines(direction: Direction, base: Vec<f32>, source: Vec<f32>) -> Baselines {
    match direction {
        Direction::Denoising => Baselines { clean: source, corrupted: base },
        Direction::Noising => Baselines { clean: base, corrupted: source },
    }
}

/// What a change of the metric is multiplied by to be an effect.
pub(crate) fn factor(baselines: &Baselines, options: &Options) -> Result<f64, NormalisationError> {
    let [clean, corrupted] = baselines.means();
    match options.scale {
        Scale::Metric => Ok(1.0),
        Scale::Normalised => Ok(Normalisation::new(clean, corrupted)?.scale(1.0)),
    }
}

/// `[prompts, pos, width]` as a table of places, `[prompts * pos, width]`.
pub(crate) fn by_place<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [prompts, pos, width] = x.dims();
    x.reshape([prompts * pos, width])
}

/// These rows of a table.
pub(crate) fn gather<B: Backend>(table: Tensor<B, 2>, rows: &[usize]) -> Tensor<B, 2> {
    let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [rows.len()]), &table.device());
    table.select(0, index)
}
