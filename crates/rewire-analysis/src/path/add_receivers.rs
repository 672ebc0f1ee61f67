//! Adds the senders' change to the residual stream that receivers read. Other changes in the run
//! stay in effect.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};
use rewire_hooks::{ActivationCache, AnyRank, Hook, HookPoint, Patch, Site};
use rewire_model::Transformer;

use crate::path::receiver::{Input, Receiver};

/// The change that is added to the stream for the receivers of one layer and input.
#[derive(Debug, Clone)]
pub(super) struct Addition<B: Backend> {
    /// Change of the stream, `[batch, pos, d_model]`; 0 at positions without a receiver.
    pub(super) change: Tensor<B, 3>,
    /// Mask of the receiving heads, `[batch, pos, head, d_head]`; only for inputs of heads.
    pub(super) heads: Option<Tensor<B, 4, Bool>>,
    /// Mask of the positions at which the MLP receives, `[batch, pos, d_model]`; only for MLP
    /// inputs.
    pub(super) mlp: Option<Tensor<B, 3, Bool>>,
    /// Frozen scale of the norm in front of the receiver, `[batch, pos, 1]`; `None` if norms are
    /// recomputed.
    pub(super) scale: Option<Tensor<B, 3>>,
}

/// Hook that makes the additions.
pub(super) struct Adding<'a, B: Backend> {
    model: &'a Transformer<B>,
    additions: BTreeMap<(usize, Input), Addition<B>>,
    /// The streams of this run that the receivers' norms read.
    streams: ActivationCache<B>,
}

impl<'a, B: Backend> Adding<'a, B> {
    pub(super) fn new(model: &'a Transformer<B>, additions: BTreeMap<(usize, Input), Addition<B>>) -> Self {
        Self { model, additions, streams: ActivationCache::new() }
    }

    /// Returns the stream that the norm of `receiver` reads, with the addition made.
    ///
    /// Returns `None` if nothing is added for `receiver`, or if the run has not reached that stream
    /// yet.
    fn read(&self, receiver: &Receiver) -> Option<(Tensor<B, 3>, Patch<B>, &Addition<B>)> {
        let Receiver { layer, input, .. } = *receiver;
        let addition = self.additions.get(&(layer, input))?;
        let stream: Tensor<B, 3> = self.streams.block(layer, input.stream(self.model.config())).ok()?;
        let norm = HookPoint::block(layer, input.scale()?);
        let held = addition.scale.iter().fold(Patch::new(), |patch, scale| patch.replace(norm, scale.clone()));
        Some((stream + addition.change.clone(), held, addition))
    }

    fn visit_stream<const D: usize>(&mut self, point: HookPoint, input: Input, x: Tensor<B, D>) -> Tensor<B, D> {
        let HookPoint::Block { layer, .. } = point else { return x };
        let Some(mut stream) = AnyRank::from(x.clone()).get::<3>() else { return x };
        if let Some(addition) = self.additions.get(&(layer, input)) {
            stream = stream + addition.change.clone();
        }
        let stream = AnyRank::from(stream);
        let changed = stream.get::<D>().unwrap_or(x);
        // Only norms in front of receivers read a stream again; other streams would waste memory.
        let config = self.model.config();
        let reads = |(of, input): &(usize, Input)| {
            *of == layer && input.scale().is_some() && Some(input.stream(config)) == point.site()
        };
        if self.additions.keys().any(reads) {
            self.streams.merge(ActivationCache::new().with(point, stream));
        }
        changed
    }

    fn visit_heads<const D: usize>(&mut self, point: HookPoint, input: Input, x: Tensor<B, D>) -> Tensor<B, D> {
        let HookPoint::Block { layer, .. } = point else { return x };
        let receiver = Receiver::new(layer, input);
        let Some((stream, mut held, addition)) = self.read(&receiver) else { return x };
        let (Some(of_head), Some(mask)) = (input.of_head(), addition.heads.clone()) else { return x };
        let Some(found) = AnyRank::from(x.clone()).get::<4>() else { return x };
        let normalized = self.model.attention_norm(layer, stream, &mut held);
        let heads: Vec<usize> = (0..found.dims()[2]).collect();
        let values = self.model.head_inputs(layer, of_head, &heads, normalized);
        AnyRank::from(found.mask_where(mask, values)).get::<D>().unwrap_or(x)
    }

    fn visit_mlp<const D: usize>(&mut self, point: HookPoint, x: Tensor<B, D>) -> Tensor<B, D> {
        let HookPoint::Block { layer, .. } = point else { return x };
        let receiver = Receiver::new(layer, Input::MlpIn);
        let Some((stream, mut held, addition)) = self.read(&receiver) else { return x };
        let Some(mask) = addition.mlp.clone() else { return x };
        let Some(found) = AnyRank::from(x.clone()).get::<3>() else { return x };
        let normalized = self.model.mlp_norm(layer, stream, &mut held);
        AnyRank::from(found.mask_where(mask, normalized)).get::<D>().unwrap_or(x)
    }
}

impl<B: Backend> Hook<B> for Adding<'_, B> {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        match point.site() {
            Some(Site::ResidPre) => self.visit_stream(point, Input::ResidPre, activation),
            Some(Site::ResidMid) => self.visit_stream(point, Input::ResidMid, activation),
            Some(Site::ResidPost) => self.visit_stream(point, Input::ResidPost, activation),
            Some(Site::Q) => self.visit_heads(point, Input::Q, activation),
            Some(Site::K) => self.visit_heads(point, Input::K, activation),
            Some(Site::V) => self.visit_heads(point, Input::V, activation),
            Some(Site::Ln2Normalized) => self.visit_mlp(point, activation),
            _ => activation,
        }
    }

    fn sees(&self, point: HookPoint) -> bool {
        !matches!(point.site(), Some(Site::AttnScores | Site::Pattern))
    }
}
