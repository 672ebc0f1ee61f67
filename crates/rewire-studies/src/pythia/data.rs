//! The prompts of each part of the study, and where their names stand.

use std::collections::{BTreeMap, HashSet};

use rewire_tasks::ioi::{Corruption, IoiError, IoiGenerator, IoiPrompt, Roles, Split};
use rewire_tasks::{PromptPairs, Tokenizer};

use super::reference::{Kind, ReferencePrompts};
use super::settings::Settings;
use crate::StudyError;

/// Draws per wanted prompt after which no further distinct prompt is expected.
const DRAWS_PER_PROMPT: usize = 20;

/// One set of prompts.
#[derive(Debug, Clone)]
pub struct Data {
    /// Clean prompts against the same with S2 turned to IO, which the notebook calls ABC.
    pub pairs: PromptPairs,
    /// Where the names of each prompt stand.
    pub roles: Vec<Roles>,
    /// Whether prompts have a token in front.
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

    /// Positions of IO, S1 and S2 of each prompt.
    #[must_use]
    pub fn names(&self) -> Vec<Vec<usize>> {
        self.roles.iter().map(|roles| vec![roles.io, roles.s1, roles.s2]).collect()
    }

    /// The pairs by template and number of tokens.
    ///
    /// # Errors
    /// [`StudyError::Pairs`].
    pub fn by_kind(&self) -> Result<BTreeMap<Kind, PromptPairs>, StudyError> {
        let mut by_kind: BTreeMap<Kind, Vec<_>> = BTreeMap::new();
        for (kind, pair) in self.kinds.iter().zip(self.pairs.pairs()) {
            by_kind.entry(*kind).or_default().push(pair.clone());
        }
        by_kind.into_iter().map(|(kind, pairs)| Ok((kind, PromptPairs::new(pairs)?))).collect()
    }
}

/// The sets of prompts that the study draws from one seed. No prompt of one set is in a later one.
#[derive(Debug, Clone)]
pub struct Sets {
    /// The prompts of the notebook's steps.
    pub steps: Data,
    /// The prompts that the circuit's heads are chosen on.
    pub choosing: Data,
    /// The prompts that the circuit is judged on.
    pub judging: Data,
    /// Prompts of three different names, which the means of ablated heads are over.
    pub reference: ReferencePrompts,
}

impl Sets {
    /// Draws the prompts of the steps, the choosing and the judging prompts from one stream, and
    /// the reference prompts from another, whose seed follows from the first.
    ///
    /// # Errors
    /// If the tokenizer's names do not make enough distinct prompts, or a mean would be over too
    /// few reference prompts.
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
    /// [`IoiError`].
    pub fn check_model(&self, d_vocab: usize, n_ctx: usize) -> Result<(), IoiError> {
        let sets = [&self.steps, &self.choosing, &self.judging];
        Ok(sets.into_iter().try_for_each(|set| set.pairs.check_model(d_vocab, n_ctx))?)
    }
}

/// The first prompts of the seed, then further ones, none of which was drawn before.
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
                "{drawing} draws gave {} distinct prompts and {n} are needed: lower --choose-prompts or --judge-prompts",
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
    fn no_prompt_is_judged_on_that_was_drawn_for_anything_else() {
        let generator = IoiGenerator::new(&Toy::Gpt2.tokenizer().unwrap()).unwrap();
        // The prompts of the steps are the seed's first ones, however many further ones there are.
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
