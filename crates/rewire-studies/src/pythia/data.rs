//! The prompts for each part of the study, and the positions of their names.

use std::collections::{BTreeMap, HashSet};

use rewire_tasks::ioi::{Corruption, IoiError, IoiGenerator, IoiPrompt, Roles, Split};
use rewire_tasks::{PromptPairs, Tokenizer};

use super::reference::{Kind, ReferencePrompts};
use super::settings::Settings;
use crate::StudyError;

/// Draws per requested prompt after which no further distinct prompt is expected.
const DRAWS_PER_PROMPT: usize = 20;

/// One set of prompts.
#[derive(Debug, Clone)]
pub struct Data {
    /// Clean prompts, each paired with the same prompt with IO in place of S2. The notebook calls
    /// this corruption ABC.
    pub pairs: PromptPairs,
    /// The positions of the names in each prompt.
    pub roles: Vec<Roles>,
    /// Whether prompts begin with the BOS.
    pub has_bos: bool,
    /// The template and the number of tokens of each prompt.
    kinds: Vec<Kind>,
}

impl Data {
    fn new(tokenizer: &Tokenizer, bos: Option<u32>, prompts: &[IoiPrompt]) -> Result<Self, StudyError> {
        let bos_len = usize::from(bos.is_some());
        let roles = prompts.iter().map(|prompt| prompt.roles(tokenizer, bos_len)).collect::<Result<_, _>>()?;
        let pairs = Corruption::S2ToIo.pairs(prompts, tokenizer, bos)?;
        let kinds = prompts.iter().zip(pairs.pairs()).map(|(prompt, pair)| (prompt.template, pair.clean.len()));
        Ok(Self { roles, has_bos: bos.is_some(), kinds: kinds.collect(), pairs })
    }

    /// Returns the positions of IO, S1 and S2 in each prompt.
    #[must_use]
    pub fn names(&self) -> Vec<Vec<usize>> {
        self.roles.iter().map(|roles| vec![roles.io, roles.s1, roles.s2]).collect()
    }

    /// Returns the pairs by template and number of tokens.
    ///
    /// # Errors
    /// [`StudyError::Pairs`] if the pairs of one template and length are not valid.
    pub fn by_kind(&self) -> Result<BTreeMap<Kind, PromptPairs>, StudyError> {
        let mut by_kind: BTreeMap<Kind, Vec<_>> = BTreeMap::new();
        for (kind, pair) in self.kinds.iter().zip(self.pairs.pairs()) {
            by_kind.entry(*kind).or_default().push(pair.clone());
        }
        by_kind.into_iter().map(|(kind, pairs)| Ok((kind, PromptPairs::new(pairs)?))).collect()
    }
}

/// The sets of prompts that the study draws from one seed. No prompt of the choosing or the judging
/// set is in an earlier set.
#[derive(Debug, Clone)]
pub struct Sets {
    /// The prompts for the notebook's steps.
    pub steps: Data,
    /// The prompts on which the circuit's heads are chosen.
    pub choosing: Data,
    /// The prompts on which the circuit is evaluated.
    pub judging: Data,
    /// Prompts with three different names, for the means of ablated heads.
    pub reference: ReferencePrompts,
}

impl Sets {
    /// Draws the prompts for the steps, the choosing prompts and the judging prompts from one
    /// random stream. Draws the reference prompts from another stream, with a seed derived from the
    /// first.
    ///
    /// # Errors
    /// [`StudyError`], for example if the tokenizer's names do not make enough distinct prompts, or
    /// if a mean has too few reference prompts.
    pub fn new(tokenizer: &Tokenizer, bos: Option<u32>, settings: &Settings) -> Result<Self, StudyError> {
        let generator = IoiGenerator::new(tokenizer)?;
        let further = settings.choose_prompts + settings.judge_prompts;
        let drawn = distinct(&generator, settings.prompts, further, settings.seed)?;
        let (prompts, rest) = drawn.split_at(settings.prompts);
        let (choosing, judging) = rest.split_at(settings.choose_prompts);
        let set = |prompts: &[IoiPrompt]| Data::new(tokenizer, bos, prompts);
        let (choosing, judging) = (set(choosing)?, set(judging)?);
        let kinds = choosing.kinds.iter().chain(&judging.kinds).copied().collect();
        let reference = ReferencePrompts::draw(&generator, tokenizer, bos, kinds, settings.seed)?;
        Ok(Self { steps: set(prompts)?, choosing, judging, reference })
    }

    /// Checks that a model with this vocabulary and context can run every prompt.
    ///
    /// # Errors
    /// [`IoiError`] if a prompt does not fit the model.
    pub fn check_model(&self, d_vocab: usize, n_ctx: usize) -> Result<(), IoiError> {
        let sets = [&self.steps, &self.choosing, &self.judging];
        Ok(sets.into_iter().try_for_each(|set| set.pairs.check_model(d_vocab, n_ctx))?)
    }
}

/// Returns the first `first` prompts of the seed, then `further` prompts that are distinct from all
/// earlier prompts.
fn distinct(generator: &IoiGenerator, first: usize, further: usize, seed: u64) -> Result<Vec<IoiPrompt>, StudyError> {
    let n = first + further;
    let mut drawing = n;
    loop {
        let mut seen = HashSet::new();
        let prompts: Vec<IoiPrompt> = generator
            .sample(drawing, seed, Split::All)
            .into_iter()
            .enumerate()
            .filter(|(i, prompt)| seen.insert(prompt.text()) || *i < first)
            .map(|(_, prompt)| prompt)
            .take(n)
            .collect();
        if prompts.len() == n {
            return Ok(prompts);
        }
        if drawing >= DRAWS_PER_PROMPT * n {
            return Err(StudyError::Prompts(format!(
                "{drawing} draws gave {} distinct prompts, and {n} are needed: lower --choose-prompts or \
                 --judge-prompts",
                prompts.len()
            )));
        }
        drawing *= 2;
    }
}

#[cfg(test)]
mod tests {
    use rewire_toy::Toy;

    use super::*;

    #[test]
    fn judging_prompts_are_disjoint_from_all_other_prompts() {
        let generator = IoiGenerator::new(&Toy::Gpt2.tokenizer().unwrap()).unwrap();
        // The number of further prompts must not change the prompts for the steps.
        let first = generator.sample(70, 3, Split::All);
        let drawn = distinct(&generator, 70, 5000, 3).unwrap();
        assert_eq!(drawn.len(), 5070);
        let texts: Vec<String> = drawn.iter().map(IoiPrompt::text).collect();
        assert!(first.iter().map(IoiPrompt::text).eq(texts[..70].iter().cloned()));
        let of_steps: HashSet<&String> = texts[..70].iter().collect();
        let further: HashSet<&String> = texts[70..].iter().collect();
        assert_eq!(further.len(), 5000);
        assert!(of_steps.is_disjoint(&further));
    }
}
