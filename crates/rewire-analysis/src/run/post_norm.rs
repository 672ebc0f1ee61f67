//! The norms after attention and MLP, in models that normalize these outputs before they add them
//! to the residual stream.
//!
//! The heads of a layer share such a norm, and so do its neurons. A head therefore adds to the
//! stream an amount that depends on the other heads: its change passes the norm of their sum. If
//! the norm's scale is held at its value in a run, the norm is linear, and each head has a share of
//! the norm's output.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{HookPoint, Site};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tensor::{cast_like, to_f32};

use crate::node::kind::Component;

/// The norm between the heads or the neurons of a layer and the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostNorm {
    /// After attention, in this layer.
    Attention(usize),
    /// After the MLP, in this layer.
    Mlp(usize),
}

impl PostNorm {
    /// Returns the norm through which a component of `layer` reaches the residual stream, or `None`
    /// if nothing stands between them.
    pub(crate) fn of(component: Component, layer: usize, config: &TransformerConfig) -> Option<Self> {
        let norm = match component {
            Component::HeadQ
            | Component::HeadK
            | Component::HeadV
            | Component::HeadZ
            | Component::HeadResult
            | Component::HeadPattern => Self::Attention(layer),
            Component::MlpPost => Self::Mlp(layer),
            _ => return None,
        };
        config.post_norms.then_some(norm)
    }

    /// Returns the hook point of the norm's input: the output of attention or MLP,
    /// `[batch, pos, d_model]`.
    pub(crate) fn input(self) -> HookPoint {
        match self {
            Self::Attention(layer) => HookPoint::block(layer, Site::AttnBeforeNorm),
            Self::Mlp(layer) => HookPoint::block(layer, Site::MlpBeforeNorm),
        }
    }

    /// Returns the hook point of the norm's scale, `[batch, pos, 1]`.
    pub(crate) fn scale(self) -> HookPoint {
        match self {
            Self::Attention(layer) => HookPoint::block(layer, Site::Ln1PostScale),
            Self::Mlp(layer) => HookPoint::block(layer, Site::Ln2PostScale),
        }
    }

    /// Returns the change of the norm's output, in float32, if its input changes from `base`
    /// `[prompts, pos, d_model]` by `change` `[copy * prompts + prompt, pos, d_model]`.
    pub(crate) fn change<B: Backend>(
        self,
        model: &Transformer<B>,
        base: Tensor<B, 3>,
        change: Tensor<B, 3>,
    ) -> Tensor<B, 3> {
        let ([prompts, pos, d_model], [rows, ..]) = (base.dims(), change.dims());
        let of_copies = |x: Tensor<B, 3>| x.reshape([rows / prompts, prompts, pos, d_model]);
        let base = to_f32(base);
        let moved = of_copies(to_f32(change)) + base.clone().unsqueeze_dim::<4>(0);
        // One call for both, so that no change of the input gives exactly none of the output.
        let both = Tensor::cat(vec![moved.reshape([rows, pos, d_model]), base], 0);
        let normed = match self {
            Self::Attention(layer) => model.after_attention_norm(layer, both),
            Self::Mlp(layer) => model.after_mlp_norm(layer, both),
        };
        let base = normed.clone().narrow(0, rows, prompts).unsqueeze_dim::<4>(0);
        (of_copies(normed.narrow(0, 0, rows)) - base).reshape([rows, pos, d_model])
    }

    /// Returns the change of the norm's output if its input changes from `base` by `change`, both
    /// `[row, d_model]`.
    pub(crate) fn change_of_rows<B: Backend>(
        self,
        model: &Transformer<B>,
        base: Tensor<B, 2>,
        change: Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let moved = self.change(model, base.unsqueeze_dim(1), change.clone().unsqueeze_dim(1));
        cast_like(moved.squeeze_dim(1), &change)
    }

    /// Returns vectors along the last axis as the norm with a held scale maps them, before the
    /// division by that scale: centered by a layer norm, and times the gain. The norm's bias, if it
    /// has one, is left out: it belongs to no vector.
    pub(crate) fn undivided<B: Backend, const D: usize>(self, model: &Transformer<B>, x: Tensor<B, D>) -> Tensor<B, D> {
        let gain = match self {
            Self::Attention(layer) => model.after_attention_norm_gain(layer),
            Self::Mlp(layer) => model.after_mlp_norm_gain(layer),
        };
        let centered = model.config().norm.centered(to_f32(x));
        match gain {
            Some(gain) => centered * to_f32(gain).unsqueeze(),
            None => centered,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;
    use rewire_model::Architecture;

    use super::*;

    fn numbers<const D: usize>(x: Tensor<Flex, D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    #[test]
    fn no_change_of_the_input_gives_none_of_the_output() {
        let config = TransformerConfig::tiny(Architecture::Gemma2);
        let model = Transformer::<Flex>::random(&config, 0, &Default::default());
        let device = Default::default();
        let base = Tensor::random([2, 3, config.d_model], Distribution::Normal(0.0, 1.0), &device);
        let zeros = Tensor::zeros([6, 3, config.d_model], &device);
        for norm in [PostNorm::Attention(1), PostNorm::Mlp(0)] {
            assert!(numbers(norm.change(&model, base.clone(), zeros.clone())).iter().all(|v| *v == 0.0));
            let moved = norm.change(&model, base.clone(), zeros.clone() + 1.0);
            assert!(numbers(moved).iter().all(|v| v.is_finite() && *v != 0.0));
        }
    }

    #[test]
    fn only_heads_and_neurons_pass_a_norm_and_only_in_models_that_have_it() {
        let gemma = TransformerConfig::tiny(Architecture::Gemma2);
        assert_eq!(PostNorm::of(Component::HeadV, 1, &gemma), Some(PostNorm::Attention(1)));
        assert_eq!(PostNorm::of(Component::MlpPost, 1, &gemma), Some(PostNorm::Mlp(1)));
        for component in [Component::AttnOut, Component::MlpOut, Component::ResidPre] {
            assert_eq!(PostNorm::of(component, 1, &gemma), None);
        }
        assert_eq!(PostNorm::of(Component::HeadV, 1, &TransformerConfig::tiny(Architecture::Llama)), None);
    }
}
