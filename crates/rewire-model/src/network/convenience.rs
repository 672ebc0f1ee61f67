//! Common runs and conversions, in one call each.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use rewire_hooks::{ActivationCache, CacheError, HookPoint, Recorder, Site};

use crate::error::ModelError;
use crate::kernels::soft_capped;
use crate::network::run::Run;
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// Runs tokens `[batch, pos]` and keeps every activation. Returns the logits,
    /// `[batch, pos, d_vocab]`, and the cache.
    ///
    /// ```
    /// use burn::backend::Flex;
    /// use rewire_hooks::Site;
    /// use rewire_model::{Transformer, TransformerConfig};
    ///
    /// // Layers, heads, d_model, vocabulary, context.
    /// let config = TransformerConfig::gpt2(2, 4, 32, 50, 16);
    /// let model = Transformer::<Flex>::random(&config, 0, &Default::default());
    /// let (logits, cache) = model.run_with_cache(model.tokens(&[vec![3, 1, 4]])?)?;
    /// assert_eq!(logits.dims(), [1, 3, 50]);
    /// assert_eq!(cache.block::<4>(1, Site::Z)?.dims(), [1, 3, 4, 8]);
    /// # Ok::<(), rewire_model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn run_with_cache(&self, tokens: Tensor<B, 2, Int>) -> Result<(Tensor<B, 3>, ActivationCache<B>), ModelError> {
        let mut recorder = Recorder::all();
        let logits = self.forward(Run::tokens(tokens), &mut recorder)?;
        Ok((logits, recorder.into_cache()))
    }

    /// Returns the logits that the model would give if it stopped at each layer (the logit lens,
    /// nostalgebraist 2020).
    ///
    /// The residual stream before each block, and after the last block, goes through the final norm
    /// and the unembedding. The result holds `n_layers + 1` tensors `[batch, pos, d_vocab]`. The
    /// last one is the model's own logits.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if the residual stream was not recorded at every layer.
    pub fn logit_lens(&self, cache: &ActivationCache<B>) -> Result<Vec<Tensor<B, 3>>, CacheError> {
        let n_layers = self.config().n_layers;
        let before = (0..n_layers).map(|layer| HookPoint::block(layer, Site::ResidPre));
        let points = before.chain([HookPoint::block(n_layers - 1, Site::ResidPost)]);
        points.map(|point| Ok(self.logits(self.unembedding_norm(cache.get(point)?)))).collect()
    }

    /// Returns the model without the bound on its logits (`logit_cap`): its logits are those before
    /// the bound. Weights are shared, not copied.
    #[must_use]
    pub fn without_logit_cap(&self) -> Self {
        let mut model = self.clone();
        model.config.logit_cap = None;
        model
    }

    /// Applies the bound on the logits, if the model has one, to logits before the bound: the
    /// logits of [`without_logit_cap`](Self::without_logit_cap).
    #[must_use]
    pub fn bounded_logits<const D: usize>(&self, logits: Tensor<B, D>) -> Tensor<B, D> {
        match self.config.logit_cap {
            Some(cap) => soft_capped(logits, cap),
            None => logits,
        }
    }

    /// Returns the model on the autodiff backend over `B`, for analyses that need gradients.
    /// Weights are shared, not copied, and stay constant: gradients are taken with respect to
    /// activations.
    #[must_use]
    pub fn autodiff(&self) -> Transformer<Autodiff<B>> {
        AutodiffModule::from_inner(self.clone())
    }
}

impl<B: AutodiffBackend> Transformer<B> {
    /// Returns the model on the backend without gradients. Weights are shared, not copied.
    #[must_use]
    pub fn inner(&self) -> Transformer<B::InnerBackend> {
        self.valid()
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::config::{Architecture, TransformerConfig};
    use crate::network::run::{LastBlock, ReadPositions, Readout};

    type B = Flex;

    /// Returns a model with sequential blocks, one with parallel blocks, and one with post-norms,
    /// windows and soft caps.
    fn models() -> [Transformer<B>; 3] {
        let gemma = TransformerConfig {
            n_layers: 3,
            d_model: 16,
            d_vocab: 11,
            n_ctx: 6,
            ..TransformerConfig::tiny(Architecture::Gemma2)
        };
        let configs = [TransformerConfig::gpt2(3, 2, 16, 11, 6), TransformerConfig::neox(3, 2, 16, 11, 6), gemma];
        configs.map(|config| Transformer::random(&config, 0, &Default::default()))
    }

    fn tokens<B: Backend>(model: &Transformer<B>) -> Tensor<B, 2, Int> {
        model.tokens(&[vec![1, 2, 3], vec![4, 5, 6]]).unwrap()
    }

    fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    #[test]
    fn a_stopped_run_returns_the_residual_stream_before_the_layer() {
        for model in models() {
            let (_, cache) = model.run_with_cache(tokens(&model)).unwrap();
            for layer in 0..=3 {
                let mut recorder = Recorder::all();
                let found = model.forward(Run::tokens(tokens(&model)).stop_at(layer), &mut recorder).unwrap();
                let expected: Tensor<B, 3> = match layer {
                    3 => cache.block(2, Site::ResidPost).unwrap(),
                    layer => cache.block(layer, Site::ResidPre).unwrap(),
                };
                assert_eq!(numbers(found), numbers(expected), "before layer {layer}");
                let passed = recorder.into_cache();
                let is_passed = |p: &HookPoint| match p {
                    HookPoint::Block { layer: of, .. } => *of < layer,
                    HookPoint::FinalNorm(_) => false,
                    _ => true,
                };
                assert!(passed.points().eq(cache.points().filter(is_passed)), "before layer {layer}");
            }
        }
    }

    #[test]
    fn a_run_without_readout_stops_after_the_last_block() {
        for model in models() {
            let (_, cache) = model.run_with_cache(tokens(&model)).unwrap();
            let last: Tensor<B, 3> = cache.block(2, Site::ResidPost).unwrap();
            let run = || Run::tokens(tokens(&model));
            let found = model.forward(run().with_readout(Readout::nothing()), ()).unwrap();
            assert_eq!(numbers(found), numbers(last.clone()));

            let positions = ReadPositions::Each(vec![2, 2]);
            let at_end = run().with_readout(Readout { positions, columns: Some(Vec::new()) });
            let found = model.forward(at_end.clone(), ()).unwrap();
            assert_eq!(numbers(found), numbers(last.clone().narrow(1, 2, 1)));
            let narrow = model.forward(at_end.with_last_block(LastBlock::ReadPositions), ()).unwrap();
            assert_eq!(narrow.dims(), [2, 1, 16]);
        }
    }

    #[test]
    fn runs_that_stop_before_they_start_are_refused() {
        for model in models() {
            let stream = || Tensor::zeros([1, 3, 16], &Default::default());
            let refused = |run: Run<B>| model.forward(run, ()).unwrap_err().to_string();
            assert!(refused(Run::tokens(tokens(&model)).stop_at(4)).starts_with("layer to stop before"));
            assert!(refused(Run::from_residual(2, stream()).stop_at(1)).starts_with("first layer of the run"));
            let found = model.forward(Run::from_residual(2, stream() + 1.0).stop_at(2), ()).unwrap();
            assert_eq!(numbers(found), [1.0; 48], "a run of no blocks");
        }
    }

    #[test]
    fn the_last_logit_lens_layer_equals_the_logits() {
        for model in models() {
            let (logits, cache) = model.run_with_cache(tokens(&model)).unwrap();
            let lens = model.logit_lens(&cache).unwrap();
            assert_eq!(lens.len(), 4);
            assert_eq!(numbers(lens[3].clone()), numbers(logits.clone()));
            assert_eq!(lens[0].dims(), logits.dims());
            assert_ne!(numbers(lens[0].clone()), numbers(logits));
            assert!(model.logit_lens(&ActivationCache::new()).is_err());
        }
    }

    #[test]
    fn bounding_the_logits_of_the_model_without_the_bound_gives_its_logits() {
        for model in models() {
            let logits = model.forward(Run::tokens(tokens(&model)), ()).unwrap();
            let before = model.without_logit_cap().forward(Run::tokens(tokens(&model)), ()).unwrap();
            assert_eq!(numbers(model.bounded_logits(before.clone())), numbers(logits.clone()));
            assert_eq!(numbers(before) != numbers(logits), model.config().logit_cap.is_some());
        }
    }

    #[test]
    fn converting_to_autodiff_and_back_changes_no_weight() {
        for model in models() {
            let expected = numbers(model.forward(Run::tokens(tokens(&model)), ()).unwrap());
            let tracked = model.autodiff();
            let logits = tracked.forward(Run::tokens(tokens(&tracked)), ()).unwrap();
            assert!(!logits.is_require_grad(), "weights are on the tape");
            assert_eq!(numbers(tracked.inner().forward(Run::tokens(tokens(&model)), ()).unwrap()), expected);
        }
    }
}
