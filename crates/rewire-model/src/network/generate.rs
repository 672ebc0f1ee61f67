//! Greedy continuation of prompts, with a cache of keys and values.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{Hook, HookPoint, Recorder, Site};

use crate::error::ModelError;
use crate::network::run::{LastBlock, Prefix, ReadPositions, Readout, Run};
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// Returns a hook that records the keys and values for a [`Prefix`].
    #[must_use]
    pub fn prefix_recorder(&self) -> Recorder<B> {
        let keys = self.config().key_site();
        Recorder::filtered(move |p: HookPoint| p.site().is_some_and(|s| s == keys || s == Site::V))
    }

    /// Runs one more token per prompt after `prefix`. Returns the logits, `[batch, d_vocab]`, and
    /// the prefix extended by that token.
    ///
    /// `hook` sees only the new position.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), such as [`ModelError::ContextExceeded`] if the context is
    /// full.
    pub fn extend<H: Hook<B>>(
        &self,
        prefix: Prefix<B>,
        tokens: &[u32],
        hook: H,
    ) -> Result<(Tensor<B, 2>, Prefix<B>), ModelError> {
        let tokens: Vec<Vec<u32>> = tokens.iter().map(|&token| vec![token]).collect();
        let mut recorder = self.prefix_recorder();
        let run = Run::tokens(self.tokens(&tokens)?).with_prefix(prefix.clone());
        let logits = self.forward(run, (hook, &mut recorder))?;
        let [batch, pos, d_vocab] = logits.dims();
        let next = Prefix::from_cache(&recorder.into_cache(), self.config(), pos)?;
        Ok((logits.reshape([batch * pos, d_vocab]), prefix.followed_by(next)))
    }

    /// Returns the greedy continuation of each prompt, `new_tokens` tokens long. All prompts must
    /// have the same length.
    ///
    /// `hook` sees the prompts first, then one position at a time.
    ///
    /// # Errors
    /// As [`forward`](Self::forward) and [`tokens`](Self::tokens).
    pub fn generate<H: Hook<B>>(
        &self,
        prompts: &[Vec<u32>],
        new_tokens: usize,
        mut hook: H,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut continuations = vec![Vec::new(); prompts.len()];
        if new_tokens == 0 {
            return Ok(continuations);
        }
        let tokens = self.tokens(prompts)?;
        let [batch, pos] = tokens.dims();
        let last = Readout { positions: ReadPositions::Each(vec![pos - 1; batch]), columns: None };
        let mut recorder = self.prefix_recorder();
        let run = Run::tokens(tokens).with_readout(last).with_last_block(LastBlock::ReadPositions);
        let logits = self.forward(run, (&mut hook, &mut recorder))?;
        let mut prefix = Prefix::from_cache(&recorder.into_cache(), self.config(), pos)?;
        let d_vocab = self.config().d_vocab;
        let mut chosen = likeliest(logits.reshape([batch, d_vocab]));
        loop {
            for (continuation, &token) in continuations.iter_mut().zip(&chosen) {
                continuation.push(token);
            }
            if continuations[0].len() == new_tokens {
                return Ok(continuations);
            }
            let (logits, longer) = self.extend(prefix, &chosen, &mut hook)?;
            prefix = longer;
            chosen = likeliest(logits);
        }
    }
}

/// Returns the token with the largest logit in each row of `logits` `[batch, d_vocab]`. If several
/// are equal, it returns the first.
#[must_use]
pub fn likeliest<B: Backend>(logits: Tensor<B, 2>) -> Vec<u32> {
    logits.argmax(1).into_data().iter::<i64>().map(|token| token as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Architecture, TransformerConfig};

    type B = burn::backend::Flex;

    #[test]
    fn generation_with_a_cache_matches_whole_runs() {
        for config in Architecture::ALL.map(TransformerConfig::tiny) {
            let model = Transformer::<B>::random(&config, 5, &Default::default());
            let prompts = [vec![3, 1, 4, 1, 5], vec![9, 2, 6, 5, 3]];
            let found = model.generate(&prompts, 4, ()).unwrap();
            for (prompt, continuation) in prompts.iter().zip(&found) {
                let mut so_far = prompt.clone();
                for &token in continuation {
                    let logits = model.forward(Run::tokens(model.tokens(&[so_far.clone()]).unwrap()), ()).unwrap();
                    let last = logits.narrow(1, so_far.len() - 1, 1).reshape([1, config.d_vocab]);
                    assert_eq!(likeliest(last), [token]);
                    so_far.push(token);
                }
                assert_eq!(continuation.len(), 4);
            }
            assert_eq!(model.generate(&prompts, 0, ()).unwrap(), [vec![], vec![]] as [Vec<u32>; 2]);
        }
    }

    #[test]
    fn a_full_context_is_refused() {
        let config = TransformerConfig::gpt2(1, 2, 8, 30, 6);
        let model = Transformer::<B>::random(&config, 5, &Default::default());
        let refused = model.generate(&[vec![1, 2, 3, 4]], 4, ()).unwrap_err();
        assert!(matches!(refused, ModelError::ContextExceeded { found: 7, n_ctx: 6 }), "{refused}");
    }
}
