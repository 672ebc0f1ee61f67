//! Runs and conversions that most users want in one call.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use rewire_hooks::{ActivationCache, CacheError, HookPoint, Recorder, Site};

use crate::error::ModelError;
use crate::network::run::Run;
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// Runs tokens `[batch, pos]` and keeps every activation. Returns the logits,
    /// `[batch, pos, d_vocab]`, and the cache.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn run_with_cache(&self, tokens: Tensor<B, 2, Int>) -> Result<(Tensor<B, 3>, ActivationCache<B>), ModelError> {
        let mut recorder = Recorder::all();
        let logits = self.forward(Run::tokens(tokens), &mut recorder)?;
        Ok((logits, recorder.into_cache()))
    }

    /// Returns what the model would answer if it stopped at each layer (the logit lens, nostalgebraist
    /// 2020): the residual stream before each block, and after the last, through the final norm and
    /// the unembedding. One `[batch, pos, d_vocab]` a layer, `n_layers + 1` of them; the last are the
    /// model's own logits.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if the residual stream was not recorded at every layer.
    pub fn logit_lens(&self, cache: &ActivationCache<B>) -> Result<Vec<Tensor<B, 3>>, CacheError> {
        let n_layers = self.config().n_layers;
        let before = (0..n_layers).map(|layer| HookPoint::block(layer, Site::ResidPre));
        let points = before.chain([HookPoint::block(n_layers - 1, Site::ResidPost)]);
        points.map(|point| Ok(self.logits(self.unembedding_norm(cache.get(point)?)))).collect()
    }

    /// Returns the model on the autodiff backend over `B`, for analyses that need gradients. Weights
    /// are shared, not copied, and stay constants: gradients are taken with respect to activations.
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
