//! Straight lines of activations that start at the clean run, as the residual stream that they
//! change. Integrated gradients and interpolation curves share this code.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, Axis, HookPoint, Site};
use rewire_model::{Differentiable, LastBlock, Prefix, Run, Transformer};
use rewire_tasks::Metric;
use rewire_tensor::{cast_like, matmul, to_f32};

use crate::error::AnalysisError;
use crate::integrated::quadrature::QuadratureNode;
use crate::node::index::units;
use crate::node::kind::{By, Component, NodeKind, Positions};
use crate::patching::delta::{Deltas, computed, reads_of_base, reads_of_source};
use crate::patching::plan::{Entry, UnitSlice};
use crate::run::batch::PromptBatch;
use crate::run::finite::Watch;
use crate::run::intervention::Intervention;
use crate::run::post_norm::PostNorm;
use crate::run::question::Direction;
use crate::run::record::{Recorded, evaluate, record, rounding};
use crate::run::transfer::to_vecs;

/// The clean run of a batch of prompts, and the activations at the other end of its lines.
pub(crate) struct Ends<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    batch: &'a PromptBatch,
    pub(crate) clean: Recorded<B>,
    end: ActivationCache<B>,
}

/// One line: the clean residual stream at its layer, and the change to the other end.
///
/// In models with post-norms, heads and neurons move the input of the norm along a straight line.
/// The norm bends the line of the residual stream.
pub(crate) struct Line<B: Backend> {
    entry: Entry,
    /// The residual stream at the clean end, `[prompts, pos, d_model]`, from the first changed
    /// position on.
    clean: Tensor<B, 3>,
    /// The change of the stream or, with a norm between, of the norm's input,
    /// `[prompts, pos, d_model]`, from the first changed position on.
    pub(crate) change: Tensor<B, 3>,
    /// The norm between the change and the stream, and its input at the clean end,
    /// `[prompts, pos, d_model]`.
    norm: Option<(PostNorm, Tensor<B, 3>)>,
    earlier: Option<Prefix<B>>,
}

/// The activation that moves along a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved<'a> {
    pub(crate) component: Component,
    pub(crate) layer: usize,
    /// A head or neuron; `None` for all heads or neurons of the layer.
    pub(crate) unit: Option<usize>,
    pub(crate) positions: &'a Positions,
}

/// Refuses nodes that are not added to the residual stream: they do not move it along a line.
pub(crate) fn check_linear(kind: NodeKind) -> Result<(), AnalysisError> {
    match kind.component {
        Component::HeadQ | Component::HeadK | Component::HeadV | Component::HeadPattern => {
            let reason = "only nodes that are added to the residual stream move along a line; use head_z";
            Err(AnalysisError::UnsupportedNode { method: "a line of activations", node: kind, reason })
        }
        _ => Ok(()),
    }
}

impl<'a, B: Backend, M: Metric> Ends<'a, B, M> {
    pub(crate) fn new(
        model: &'a Transformer<B>,
        metric: &'a M,
        batch: &'a PromptBatch,
        kinds: &[NodeKind],
        end: &Intervention<B>,
    ) -> Result<Self, AnalysisError> {
        let (wanted, shape, width) = (kinds.to_vec(), model.config().clone(), batch.pairs.width());
        let reads = move |p| reads_of_base(&wanted, &shape, width, p);
        let clean = record(model, &batch.pairs.clean(), batch, metric, reads)?;
        let (wanted, shape) = (kinds.to_vec(), model.config().clone());
        let accepts = move |p: HookPoint| reads_of_source(&wanted, &shape, p);
        let mut cache = end.source(model, metric, batch, Direction::Noising, accepts)?.cache;
        if matches!(end, Intervention::Zero) && kinds.iter().any(|k| k.component == Component::MlpPost) {
            let sizes = [batch.prompts.len(), batch.pairs.width(), model.config().d_mlp];
            for layer in 0..model.config().n_layers {
                let value = model.neurons_at_zero(layer).unsqueeze::<3>().expand(sizes);
                cache = cache.with(HookPoint::block(layer, Site::MlpPost), value);
            }
        }
        Ok(Self { model, metric, batch, clean, end: cache })
    }

    /// Returns the first position that a line changes.
    pub(crate) fn first(&self) -> usize {
        self.batch.first_difference
    }

    pub(crate) fn line(&self, moved: Moved) -> Result<Line<B>, AnalysisError> {
        let Moved { component, layer, unit, positions } = moved;
        let config = self.model.config();
        let (entry, first) = (Entry::of(component, layer, config), self.first());
        let deltas = Deltas { model: self.model, batch: self.batch, base: &self.clean.cache, source: &self.end };
        let kind = NodeKind::all(component);
        let change = match (unit, kind.unit_axis()) {
            (None, Some(axis)) => {
                let change: Tensor<B, 3> = match axis {
                    Axis::Head => self.difference::<4>(kind, layer)?.flatten(2, 3),
                    _ => self.difference(kind, layer)?,
                };
                let change = match deltas.mask(positions) {
                    Some(mask) => change * computed(mask, first).unsqueeze_dim(2),
                    None => change,
                };
                let [prompts, pos, width] = change.dims();
                let written = matmul(change.reshape([prompts * pos, width]), self.writing(kind, layer));
                written.reshape([prompts, pos, config.d_model])
            }
            _ => {
                let units = unit.map_or(0..1, |unit| unit..unit + 1);
                let slice = UnitSlice { kind: 0, layer, positions: positions.clone(), units };
                deltas.change(&slice, component, first)?.squeeze_dim(0)
            }
        };
        let earlier = match first {
            0 => None,
            _ => Some(Prefix::from_cache(&self.clean.cache, config, first)?),
        };
        let norm = match PostNorm::of(component, layer, config) {
            Some(norm) => Some((norm, computed(self.clean.cache.get(norm.input())?, first))),
            None => None,
        };
        Ok(Line { entry, clean: deltas.unchanged(entry, first)?, change, norm, earlier })
    }

    /// Returns the other end minus the clean end at a kind's site, from the first changed position
    /// on.
    fn difference<const D: usize>(&self, kind: NodeKind, layer: usize) -> Result<Tensor<B, D>, AnalysisError> {
        let site = kind.site();
        let difference = to_f32(self.end.block::<D>(layer, site)?) - to_f32(self.clean.cache.block(layer, site)?);
        Ok(computed(difference, self.first()))
    }

    /// Returns the matrix through which all heads, or all neurons, of a layer write to the residual
    /// stream or to the norm before it, `[units, d_model]`.
    fn writing(&self, kind: NodeKind, layer: usize) -> Tensor<B, 2> {
        match kind.unit_axis() {
            Some(Axis::Head) => self.model.w_o(layer).flatten(0, 1),
            _ => self.model.mlp_out(layer).0,
        }
    }

    /// Returns the metric at places of a line, `[place * prompts + prompt]`; 0 is the clean end and
    /// 1 the other end.
    pub(crate) fn metric_at(&self, line: &Line<B>, places: &[f64]) -> Result<Tensor<B, 1>, AnalysisError> {
        let run = line.run(self.model, line.moved(places), self.batch);
        let mut watch = Watch::new();
        let logits = self.model.forward(run, &mut watch)?;
        Ok(watch.mark(evaluate(self.metric, logits, &self.batch.prompts.repeat(places.len()))))
    }

    /// Returns the metric at the clean end of a line, the metric at the other end, and how far
    /// rounding inside the metric may shift each of the two: `[4 * prompts]`.
    pub(crate) fn metric_at_ends(&self, line: &Line<B>) -> Result<Tensor<B, 1>, AnalysisError> {
        let run = line.run(self.model, line.moved(&[0.0, 1.0]), self.batch);
        let mut watch = Watch::new();
        let logits = self.model.forward(run, &mut watch)?;
        let prompts = self.batch.prompts.repeat(2);
        let rounding = rounding(self.metric, logits.clone(), &prompts);
        Ok(Tensor::cat(vec![watch.mark(evaluate(self.metric, logits, &prompts)), rounding], 0))
    }

    /// Returns the attributions of a line, `[prompts, pos, unit]`, and its `ends`
    /// ([`metric_at_ends`](Self::metric_at_ends)), read in one transfer. `gradient` is the line's
    /// mean gradient, `[prompts, pos, d_model]`. There is one unit if a single head or neuron
    /// moves, or if the kind has no heads or neurons.
    pub(crate) fn attributions(
        &self,
        moved: Moved,
        line: &Line<B>,
        gradient: Tensor<B, 3>,
        ends: Tensor<B, 1>,
    ) -> Result<(Attributions, Vec<f32>), AnalysisError> {
        let kind = NodeKind::all(moved.component);
        let [prompts, pos, d_model] = gradient.dims();
        let axis = kind.unit_axis().filter(|_| moved.unit.is_none());
        let values: Tensor<B, 3> = match axis {
            None => (line.change.clone() * gradient).sum_dim(2),
            Some(axis) => {
                let through =
                    matmul(gradient.reshape([prompts * pos, d_model]), self.writing(kind, moved.layer).transpose());
                let units = units(kind, self.model.config());
                match axis {
                    Axis::Head => {
                        let change = self.difference::<4>(kind, moved.layer)?;
                        let product = change.clone() * through.reshape(change.dims());
                        product.sum_dim(3).reshape([prompts, pos, units])
                    }
                    _ => self.difference::<3>(kind, moved.layer)? * through.reshape([prompts, pos, units]),
                }
            }
        };
        let units = values.dims()[2];
        let mut read = to_vecs(vec![values.reshape([prompts * pos * units]), ends]);
        let ends = read.pop().unwrap_or_default();
        Ok((Attributions { units, pos, values: read.pop().unwrap_or_default() }, ends))
    }
}

/// Attributions on the host, `[prompts, pos, unit]`.
pub(crate) struct Attributions {
    values: Vec<f32>,
    pos: usize,
    units: usize,
}

impl Attributions {
    /// Returns, for one prompt, the sum of all attributions, and the sum over units of the size of
    /// each unit's attribution.
    pub(crate) fn sums(&self, prompt: usize) -> [f64; 2] {
        let of_prompt = self.of_prompt(prompt);
        let all: f64 = of_prompt.iter().map(|&v| f64::from(v)).sum();
        let unit = |u: usize| of_prompt.iter().skip(u).step_by(self.units).map(|&v| f64::from(v)).sum::<f64>();
        [all, (0..self.units).map(|u| unit(u).abs()).sum()]
    }

    fn of_prompt(&self, prompt: usize) -> &[f32] {
        let size = self.pos * self.units;
        &self.values[prompt * size..(prompt + 1) * size]
    }

    /// Returns the attributions of one prompt in the order of a kind's effects: by unit, then by
    /// position or summed over positions. Positions before `first` are 0.
    pub(crate) fn in_order(&self, prompt: usize, by: By, first: usize) -> Vec<f32> {
        let of_prompt = self.of_prompt(prompt);
        let at = |unit: usize| of_prompt.iter().skip(unit).step_by(self.units).copied();
        match by {
            By::Position => (0..self.units).flat_map(|u| std::iter::repeat_n(0.0, first).chain(at(u))).collect(),
            _ => (0..self.units).map(|u| at(u).map(f64::from).sum::<f64>() as f32).collect(),
        }
    }
}

impl<B: Backend> Line<B> {
    /// Returns the change at places of the line, `[place * prompts + prompt, pos, d_model]`.
    fn moved(&self, places: &[f64]) -> Tensor<B, 3> {
        let [prompts, pos, d_model] = self.clean.dims();
        let places: Vec<f32> = places.iter().map(|&place| place as f32).collect();
        let places = Tensor::<B, 1>::from_floats(places.as_slice(), &self.clean.device());
        let n = places.dims()[0];
        let moved = self.change.clone().unsqueeze_dim::<4>(0) * places.reshape([n, 1, 1, 1]);
        moved.reshape([n * prompts, pos, d_model])
    }

    /// Builds a run that starts from the residual stream with the change `moved`
    /// `[copy * prompts + prompt, pos, d_model]` ([`moved`](Self::moved)).
    fn run(&self, model: &Transformer<B>, moved: Tensor<B, 3>, batch: &PromptBatch) -> Run<B> {
        let [prompts, pos, d_model] = self.clean.dims();
        let rows = moved.dims()[0];
        let copies = rows / prompts;
        let change = match &self.norm {
            Some((norm, input)) => norm.change(model, input.clone(), moved),
            None => moved,
        };
        let change = change.reshape([copies, prompts, pos, d_model]);
        let stream = change + to_f32(self.clean.clone()).unsqueeze_dim(0);
        let stream = cast_like(stream, &self.clean).reshape([rows, pos, d_model]);
        let run = Run::new(self.entry.start(stream))
            .with_readout(batch.readout.repeated(copies))
            .with_last_block(LastBlock::ReadPositions);
        match &self.earlier {
            Some(earlier) => run.with_prefix(earlier.clone()),
            None => run,
        }
    }

    /// Returns the line on the autodiff backend.
    fn autodiff<A: Differentiable<InnerBackend = B>>(&self) -> Line<A> {
        Line {
            entry: self.entry,
            clean: Tensor::from_inner(self.clean.clone()),
            change: Tensor::from_inner(self.change.clone()),
            norm: self.norm.clone().map(|(norm, input)| (norm, Tensor::from_inner(input))),
            earlier: self.earlier.clone().map(Prefix::from_inner),
        }
    }

    /// Returns the gradient of the metric with respect to the change, as a weighted sum over
    /// quadrature nodes, `[prompts, pos, d_model]`. A batch holds at most `at_once` quadrature
    /// nodes, each with its own metric.
    pub(crate) fn mean_gradient<A, M>(
        &self,
        model: &Transformer<A>,
        metric: &M,
        batch: &PromptBatch,
        nodes: &[QuadratureNode],
        at_once: usize,
    ) -> Result<Tensor<B, 3>, AnalysisError>
    where
        A: Differentiable<InnerBackend = B>,
        M: Metric,
    {
        let [prompts, pos, d_model] = self.clean.dims();
        let line = self.autodiff::<A>();
        let mut mean = to_f32(self.clean.clone()).zeros_like();
        for nodes in nodes.chunks(at_once.max(1)) {
            let places: Vec<f64> = nodes.iter().map(|node| node.at).collect();
            let moved = Tensor::<A, 3>::from_inner(self.moved(&places)).require_grad();
            let run = line.run(model, moved.clone(), batch);
            let values = evaluate(metric, model.forward(run, ())?, &batch.prompts.repeat(nodes.len()));
            let weights: Vec<f32> =
                nodes.iter().flat_map(|node| std::iter::repeat_n(node.weight as f32, prompts)).collect();
            let weights = Tensor::<A, 1>::from_floats(weights.as_slice(), &values.device());
            let mut gradients = (values * weights).sum().backward();
            if let Some(gradient) = moved.grad_remove(&mut gradients) {
                mean = mean + to_f32(gradient).reshape([nodes.len(), prompts, pos, d_model]).sum_dim(0).squeeze_dim(0);
            }
        }
        Ok(mean)
    }
}
