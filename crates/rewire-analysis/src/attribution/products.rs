//! The products of changes and gradients, from which the estimates of nodes are summed.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_hooks::{ActivationCache, HookPoint, Site};
use rewire_model::{BackwardRule, Differentiable, Transformer, TransformerConfig};
use rewire_tensor::to_f32;

use crate::attribution::estimator::{Estimator, GradientPaths, PatternChange};
use crate::attribution::grad_drop;
use crate::attribution::linearize::Linearized;
use crate::attribution::pending_sum::PendingSum;
use crate::attribution::qk_fix::{self, Attended};
use crate::error::AnalysisError;
use crate::node::kind::{By, Component, NodeKind};
use crate::run::batch::PromptBatch;
use crate::run::question::Direction;

/// Returns the sites to record, and those to differentiate, beside those of the nodes.
pub(super) fn sites(estimator: Estimator, config: &TransformerConfig) -> [Vec<Site>; 2] {
    let (mut recorded, mut probed) = (Vec::new(), Vec::new());
    if estimator.patterns == PatternChange::QkFix {
        recorded.extend(qk_fix::recorded(config));
        probed.push(qk_fix::PROBED);
    }
    if estimator.layers == GradientPaths::GradDrop {
        probed.push(grad_drop::PROBED);
    }
    [recorded, probed]
}

/// Refuses a backward rule with a correction of AtP*, and nodes whose estimate is not defined.
pub(super) fn check(
    estimator: Estimator,
    nodes: &[NodeKind],
    config: &TransformerConfig,
    backward: BackwardRule,
) -> Result<(), AnalysisError> {
    if estimator != Estimator::default() && backward != BackwardRule::Gradient {
        return Err(AnalysisError::CorrectedRule { estimator, rule: backward });
    }
    if estimator.layers == GradientPaths::AllLayers {
        return Ok(());
    }
    let refuse = |node: NodeKind, reason| Err(AnalysisError::UnsupportedNode { method: "GradDrop", node, reason });
    for &node in nodes {
        match node.component {
            _ if config.n_layers < 2 => {
                return refuse(node, "it drops the other layers one at a time, and the model has one layer");
            }
            Component::ResidPre | Component::ResidMid | Component::ResidPost => {
                return refuse(node, "it is defined for nodes inside attention or an MLP; leave GradDrop out");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The runs of one batch, and the nodes to estimate.
pub(super) struct Products<'a, B: Differentiable> {
    model: &'a Transformer<B>,
    inner: Transformer<B::InnerBackend>,
    linear: &'a Linearized<B>,
    nodes: &'a [NodeKind],
    estimator: Estimator,
}

/// Estimates, still on the device.
type Sums<B> = Vec<PendingSum<<B as AutodiffBackend>::InnerBackend>>;

impl<'a, B: Differentiable> Products<'a, B> {
    pub(super) fn new(
        model: &'a Transformer<B>,
        linear: &'a Linearized<B>,
        nodes: &'a [NodeKind],
        estimator: Estimator,
    ) -> Self {
        Self { model, inner: model.valid(), linear, nodes, estimator }
    }

    /// Returns the estimates of each kind of node in each layer, kind by kind. They begin at the
    /// first position that differs.
    pub(super) fn sums(&self, batch: &PromptBatch, direction: Direction) -> Result<Sums<B>, AnalysisError> {
        let layers = self.model.config().n_layers;
        let plain = self.at(&self.linear.gradients, layers)?;
        match self.estimator.layers {
            GradientPaths::AllLayers => Ok(plain),
            GradientPaths::GradDrop => self.without_each_layer(plain, batch, direction),
        }
    }

    /// Returns the estimates of GradDrop from those of the whole gradient.
    fn without_each_layer(
        &self,
        plain: Sums<B>,
        batch: &PromptBatch,
        direction: Direction,
    ) -> Result<Sums<B>, AnalysisError> {
        let layers = self.model.config().n_layers;
        let mut sites: Vec<Site> = self.nodes.iter().map(|kind| kind.site()).collect();
        if self.estimator.patterns == PatternChange::QkFix {
            sites.push(qk_fix::PROBED);
        }
        // The gradient at a node does not pass through the layers before the node's: without one of
        // these, its estimate is the plain one. Without its own layer, the node does not matter.
        let layer_of = |place: usize| place % layers;
        let mut sums: Sums<B> =
            plain.into_iter().enumerate().map(|(place, sum)| sum.sizes(layer_of(place) as f64)).collect();
        for dropped in 1..layers {
            let gradients = grad_drop::gradients(self.model, self.linear, batch, direction, dropped, &sites)?;
            let mut found = self.at(&gradients, dropped)?.into_iter();
            sums = sums
                .into_iter()
                .enumerate()
                .map(|(place, sum)| match layer_of(place) < dropped {
                    true => sum.plus(found.next().expect("an estimate for each layer below").sizes(1.0)),
                    false => sum,
                })
                .collect();
        }
        Ok(sums.into_iter().map(|sum| sum.sizes(1.0 / (layers - 1) as f64)).collect())
    }

    /// Returns the estimates at these gradients of each kind in the first layers, kind by kind.
    fn at(&self, gradients: &ActivationCache<B::InnerBackend>, layers: usize) -> Result<Sums<B>, AnalysisError> {
        let mut sums = Vec::with_capacity(self.nodes.len() * layers);
        for &kind in self.nodes {
            for layer in 0..layers {
                sums.push(self.of_layer(kind, layer, gradients)?);
            }
        }
        Ok(sums)
    }

    fn of_layer(
        &self,
        kind: NodeKind,
        layer: usize,
        gradients: &ActivationCache<B::InnerBackend>,
    ) -> Result<PendingSum<B::InnerBackend>, AnalysisError> {
        let point = HookPoint::block(layer, kind.site());
        // Nodes at marked positions get the axes of nodes by position.
        let by = if kind.by == By::Marked { By::Position } else { kind.by };
        let kept = NodeKind { by, ..kind }.axes();
        let fixed = self.estimator.patterns == PatternChange::QkFix;
        let product = match kind.component {
            Component::HeadQ if fixed => {
                Attended::new(&self.inner, self.linear, layer)?.of_queries(qk_fix::at_z(gradients, layer)?)
            }
            Component::HeadK if fixed => {
                Attended::new(&self.inner, self.linear, layer)?.of_keys(qk_fix::at_z(gradients, layer)?)
            }
            _ if point.axes().len() == 4 => self.linear.difference::<4>(point)? * to_f32(gradients.get::<4>(point)?),
            _ => {
                let product = self.linear.difference::<3>(point)? * to_f32(gradients.get::<3>(point)?);
                return Ok(PendingSum::new(product, point.axes(), &kept));
            }
        };
        Ok(PendingSum::new(product, point.axes(), &kept))
    }
}
