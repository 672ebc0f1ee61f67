//! Activation patching: exactly, one forward a node, computing only what the patch can change.
//!
//! A patch at layer l starts from the cached residual stream of l; positions before the pair first differs are not run
//! (every activation there is equal in both runs), later ones attend to the base run's cached keys and values for them;
//! only the logits that the metric reads are produced; and patches of one layer run side by side along the batch axis.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use ndarray::ArrayD;
use rewire_hooks::{ActivationCache, Axis, HookPoint, Patch, Site};
use rewire_model::{Prefix, Run, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::effects::join;
use crate::runs::{Portion, Recorded, check, evaluate, factor, host, no_effects, node_sizes, portions, record};
use crate::{AnalysisError, Baselines, By, Method, NodeKind, Options, Outcome};

/// The effect of every node of the given kinds: the change of `metric` when the base run is run with the node's activation
/// taken from the source run (Vig et al. 2020; Meng et al. 2022). Exact.
///
/// Effects are per prompt, `[prompt, layer, ..]`; [`Options`] gives direction and unit.
///
/// # Errors
/// [`AnalysisError`] for an empty list, nodes that the model does not have, pairs that it cannot run, or baselines that
/// coincide.
pub fn activation_patching<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    nodes: &[NodeKind],
    options: &Options,
) -> Result<Outcome, AnalysisError> {
    check(model, pairs, nodes)?;
    let config = model.config();
    let per_layer = |kind: &NodeKind| node_sizes(*kind, config, pairs.width()).iter().product::<usize>();
    let total = pairs.len() * config.n_layers * nodes.iter().map(per_layer).sum::<usize>();
    let mut done = 0;
    (options.progress)(done, total);

    let portions = portions(pairs, metric, options.prompt_batch)?;
    // Two runs more a portion, so that baselines without a difference are refused before the sweep and not after it.
    let mut baselines = Baselines { clean: Vec::new(), corrupted: Vec::new() };
    for portion in &portions {
        baselines.clean.extend(record(model, &portion.pairs.clean(), portion, metric, |_| false)?.metric);
        baselines.corrupted.extend(record(model, &portion.pairs.corrupted(), portion, metric, |_| false)?.metric);
    }
    let factor = factor(&baselines, options)?;

    let mut changes = Vec::new();
    for portion in &portions {
        let sweep = Sweep::new(model, metric, portion, nodes, options)?;
        let mut of_portion = Vec::with_capacity(nodes.len());
        for &kind in nodes {
            let mut values = no_effects(kind, config, portion.pairs.len(), pairs.width());
            for layer in 0..config.n_layers {
                sweep.layer(kind, layer, &mut values)?;
                done += portion.pairs.len() * per_layer(&kind);
                (options.progress)(done, total);
            }
            of_portion.push(values);
        }
        changes.push(of_portion);
    }
    Ok(Outcome {
        method: Method::ActivationPatching,
        direction: options.direction,
        scale: options.scale,
        metric: metric.name(),
        baselines,
        effects: join(nodes, changes, factor),
    })
}

/// The runs that the patches of one portion of prompts are made between.
struct Sweep<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    portion: &'a Portion,
    base: Recorded<B>,
    source: ActivationCache<B>,
    /// Positions before this one are the same in both runs.
    first: usize,
    prefix: Option<Prefix<B>>,
    token_budget: usize,
}

/// A node's place in its layer, along the axes of its kind.
type Place = Vec<usize>;

impl<'a, B: Backend, M: Metric> Sweep<'a, B, M> {
    fn new(
        model: &'a Transformer<B>,
        metric: &'a M,
        portion: &'a Portion,
        nodes: &[NodeKind],
        options: &Options,
    ) -> Result<Self, AnalysisError> {
        let config = model.config();
        let [base, source] = portion.base_and_source(options.direction);
        let keys = if config.is_rotary() { Site::RotK } else { Site::K };
        let resumed =
            move |p: HookPoint| matches!(p.site(), Some(s) if s == Site::ResidPre || s == keys || s == Site::V);
        let base = record(model, &base, portion, metric, resumed)?;
        let sites: Vec<Site> = nodes.iter().map(|n| n.site()).collect();
        let patched = move |p: HookPoint| p.site().is_some_and(|s| sites.contains(&s));
        let source = record(model, &source, portion, metric, patched)?.cache;
        let first = portion.first_difference;
        let prefix = match first {
            0 => None,
            _ => Some(Prefix::from_cache(&base.cache, config, first)?),
        };
        Ok(Self { model, metric, portion, base, source, first, prefix, token_budget: options.token_budget })
    }

    /// Writes the changes that the nodes of `kind` in `layer` make into `changes` `[prompt, layer, ..]`.
    fn layer(&self, kind: NodeKind, layer: usize, changes: &mut ArrayD<f32>) -> Result<(), AnalysisError> {
        let n_prompts = self.portion.pairs.len();
        let width = self.portion.pairs.width();
        let sizes = node_sizes(kind, self.model.config(), width);
        let places: Vec<Place> = places(&sizes).into_iter().filter(|place| self.can_matter(kind, place)).collect();
        let at_once = (self.token_budget / (n_prompts * (width - self.first)).max(1)).max(1);
        for chunk in places.chunks(at_once) {
            let metric = match kind.site().axes().len() {
                4 => self.run::<4>(kind, layer, chunk)?,
                _ => self.run::<3>(kind, layer, chunk)?,
            };
            for (row, value) in metric.into_iter().enumerate() {
                let (place, prompt) = (&chunk[row / n_prompts], row % n_prompts);
                let index: Vec<usize> = [prompt, layer].into_iter().chain(place.iter().copied()).collect();
                changes[index.as_slice()] = value - self.base.metric[prompt];
            }
        }
        Ok(())
    }

    /// Whether a node can differ between the runs: not before the first difference, nor above the causal diagonal.
    fn can_matter(&self, kind: NodeKind, place: &[usize]) -> bool {
        match kind.by {
            By::All => true,
            By::Position => place.last().is_none_or(|&pos| pos >= self.first),
            By::Cell => matches!(place, [.., dest, src] if *dest >= self.first && src <= dest),
        }
    }

    /// The metric, place by place and prompt by prompt, with each place of `chunk` patched.
    fn run<const D: usize>(&self, kind: NodeKind, layer: usize, chunk: &[Place]) -> Result<Vec<f32>, AnalysisError> {
        let variants = chunk.len();
        let point = HookPoint::block(layer, kind.site());
        let residual: Tensor<B, 3> = self.base.cache.block(layer, Site::ResidPre)?;
        let computed = |axis: usize, tensor: Tensor<B, D>| {
            let len = tensor.dims()[axis];
            tensor.narrow(axis, self.first, len - self.first)
        };
        let mut source: Tensor<B, D> = self.source.get(point)?;
        if let Some(axis) = point.axes().iter().position(|a| matches!(a, Axis::Pos | Axis::Query)) {
            source = computed(axis, source);
        }
        let value = source.repeat_dim(0, variants);
        let mask = self.mask::<D>(kind, chunk, value.dims());
        let mut patch = Patch::new().replace_where(point, value, mask);

        let pos = residual.dims()[1] - self.first;
        let residual = residual.narrow(1, self.first, pos).repeat_dim(0, variants);
        let mut run = Run::resume(layer, residual).reading(self.portion.readout.repeated(variants));
        run.prefix = self.prefix.as_ref().map(|prefix| prefix.repeated(variants));
        let logits = self.model.forward(run, &mut patch)?;
        patch.finish()?;
        let prompts = self.portion.prompts.repeat(variants);
        Ok(host(evaluate(self.metric, logits, &prompts)))
    }

    /// True where row `variant * prompts + prompt` is patched; of shape `dims`.
    fn mask<const D: usize>(&self, kind: NodeKind, chunk: &[Place], dims: [usize; D]) -> Tensor<B, D, Bool> {
        let n_prompts = self.portion.pairs.len();
        let site = kind.site().axes();
        let node_axes = kind.axes();
        // Axes that do not tell nodes apart are of size 1 here, and spread over the activation.
        let mut shape = [1; D];
        shape[0] = chunk.len();
        for (size, (axis, full)) in shape.iter_mut().zip(site.iter().zip(dims)).skip(1) {
            if node_axes.contains(axis) {
                *size = full;
            }
        }
        let per_variant: usize = shape[1..].iter().product();
        let mut mask = vec![false; chunk.len() * per_variant];
        for (variant, place) in chunk.iter().enumerate() {
            let mut offset = 0;
            for (axis, size) in site.iter().zip(shape).skip(1) {
                let index = node_axes.iter().position(|a| a == axis).map_or(0, |i| match axis {
                    Axis::Pos | Axis::Query => place[i] - self.first,
                    _ => place[i],
                });
                offset = offset * size + index;
            }
            mask[variant * per_variant + offset] = true;
        }
        let rows =
            mask.chunks(per_variant.max(1)).flat_map(|row| std::iter::repeat_n(row, n_prompts)).flatten().copied();
        shape[0] *= n_prompts;
        let mask = TensorData::new(rows.collect::<Vec<bool>>(), shape);
        Tensor::<B, D, Bool>::from_data(mask, &self.model.device()).expand(dims)
    }
}

/// Every place along axes of these sizes, in row-major order.
fn places(sizes: &[usize]) -> Vec<Place> {
    sizes.iter().fold(vec![Vec::new()], |places, &size| {
        places.iter().flat_map(|place| (0..size).map(|i| [place.as_slice(), &[i]].concat())).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn places_are_in_row_major_order() {
        assert_eq!(places(&[]), [Vec::<usize>::new()]);
        assert_eq!(places(&[2, 2]), [[0, 0], [0, 1], [1, 0], [1, 1]]);
    }
}
