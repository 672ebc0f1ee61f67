//! The prompts, where their names stand, and the mean activations that ablated heads get.

use std::collections::BTreeMap;

use anyhow::Context;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_analysis::{Intervention, MeanOver, mean_activations};
use rewire_hooks::{ActivationCache, HookPoint, Site};
use rewire_model::Transformer;
use rewire_tasks::ioi::{Corruption, IoiGenerator, Roles, Split};
use rewire_tasks::{PromptPairs, Tokenizer};

/// Prompts without a repeated name, from which means are taken.
const REFERENCE: usize = 600;

/// What the study is over.
pub(super) struct Data {
    /// Clean prompts against the same with S2 turned to IO, which the notebook calls ABC.
    pub(super) pairs: PromptPairs,
    pub(super) roles: Vec<Roles>,
    /// Whether prompts have a token in front.
    pub(super) has_bos: bool,
    /// Of each prompt its template and number of tokens.
    kinds: Vec<(usize, usize)>,
    /// Prompts of three different names, by template and number of tokens.
    reference: BTreeMap<(usize, usize), Vec<Vec<u32>>>,
}

impl Data {
    pub(super) fn new(tokenizer: &Tokenizer, bos: Option<u32>, n: usize, seed: u64) -> anyhow::Result<Self> {
        let generator = IoiGenerator::new(tokenizer)?;
        let prompts = generator.sample(n, seed, Split::All);
        let bos_len = usize::from(bos.is_some());
        let roles = prompts.iter().map(|prompt| prompt.roles(tokenizer, bos_len)).collect::<Result<_, _>>()?;
        let encode =
            |text: &str| -> anyhow::Result<Vec<u32>> { Ok(bos.into_iter().chain(tokenizer.encode(text)?).collect()) };
        let mut kinds = Vec::new();
        for prompt in &prompts {
            kinds.push((prompt.template, encode(&prompt.text())?.len()));
        }
        let mut reference: BTreeMap<(usize, usize), Vec<Vec<u32>>> = BTreeMap::new();
        // The prompts' own come first, so that no kind is without one.
        let further = generator.sample(REFERENCE, seed.wrapping_add(1), Split::All);
        for prompt in prompts.iter().chain(&further) {
            let tokens = encode(&Corruption::Abc.text(prompt))?;
            reference.entry((prompt.template, tokens.len())).or_default().push(tokens);
        }
        let pairs = Corruption::S2ToIo.pairs(&prompts, tokenizer, bos)?;
        Ok(Self { pairs, roles, has_bos: bos.is_some(), kinds, reference })
    }

    /// Positions of IO, S1 and S2 of each prompt.
    pub(super) fn names(&self) -> Vec<Vec<usize>> {
        self.roles.iter().map(|roles| vec![roles.io, roles.s1, roles.s2]).collect()
    }

    /// Heads replaced by their mean over prompts of three different names, of the same template and length, position by position
    /// (Wang et al. 2022).
    pub(super) fn means<B: Backend>(&self, model: &Transformer<B>, batch: usize) -> anyhow::Result<Intervention<B>> {
        let mut by_kind = BTreeMap::new();
        for &kind in &self.kinds {
            if let (false, Some(prompts)) = (by_kind.contains_key(&kind), self.reference.get(&kind)) {
                by_kind.insert(kind, mean_activations(model, prompts, &[Site::Z], MeanOver::Prompts, batch)?);
            }
        }
        let width = self.pairs.width();
        let mut cache = ActivationCache::new();
        for layer in 0..model.config().n_layers {
            let mut rows = Vec::new();
            for kind in &self.kinds {
                // Other names are as many tokens, or their means would not be of these positions.
                let mean = by_kind
                    .get(kind)
                    .context("the tokenizer splits names: prompts of other names are longer or shorter")?;
                let mean: Tensor<B, 4> = mean.block(layer, Site::Z)?;
                let len = mean.dims()[1];
                // Behind its end nothing of a prompt is read: any value does.
                let rest = mean.clone().narrow(1, len - 1, 1).repeat_dim(1, width - len.min(width));
                rows.push(if len < width { Tensor::cat(vec![mean, rest], 1) } else { mean });
            }
            cache = cache.with::<4>(HookPoint::block(layer, Site::Z), Tensor::cat(rows, 0));
        }
        Ok(Intervention::Fixed(cache))
    }
}
