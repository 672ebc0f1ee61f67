//! The prompts of each part of the study, and where their names stand.

use std::collections::{BTreeMap, HashSet};

use rewire_tasks::ioi::{Corruption, IoiError, IoiGenerator, IoiPrompt, Roles, Split};
use rewire_tasks::{PromptPairs, Tokenizer};

use super::Arguments;
use super::reference::ReferencePrompts;

/// Draws per wanted prompt after which no further distinct prompt is expected.
const DRAWS_PER_PROMPT: usize = 20;

/// A template's index, and the number of tokens of a prompt made from it.
pub(super) type Kind = (usize, usize);

/// One set of prompts.
pub(super) struct Data {
    /// Clean prompts against the same with S2 turned to IO, which the notebook calls ABC.
    pub(super) pairs: PromptPairs,
    pub(super) roles: Vec<Roles>,
    /// Whether prompts have a token in front.
    pub(super) has_bos: bool,
    /// The template and the number of tokens of each prompt.
    kinds: Vec<Kind>,
}

impl Data {
    fn new(tokenizer: &Tokenizer, bos: Option<u32>, prompts: &[IoiPrompt]) -> anyhow::Result<Self> {
        let bos_len = usize::from(bos.is_some());
        let roles = prompts.iter().map(|prompt| prompt.roles(tokenizer, bos_len)).collect::<Result<_, _>>()?;
        let pairs = Corruption::S2ToIo.pairs(prompts, tokenizer, bos)?;
        let kinds = prompts.iter().zip(pairs.pairs()).map(|(prompt, pair)| (prompt.template, pair.clean.len()));
        Ok(Self { roles, has_bos: bos.is_some(), kinds: kinds.collect(), pairs })
    }

    /// Positions of IO, S1 and S2 of each prompt.
    pub(super) fn names(&self) -> Vec<Vec<usize>> {
        self.roles.iter().map(|roles| vec![roles.io, roles.s1, roles.s2]).collect()
    }

    /// The pairs by template and number of tokens.
    pub(super) fn by_kind(&self) -> anyhow::Result<BTreeMap<Kind, PromptPairs>> {
        let mut by_kind: BTreeMap<Kind, Vec<_>> = BTreeMap::new();
        for (kind, pair) in self.kinds.iter().zip(self.pairs.pairs()) {
            by_kind.entry(*kind).or_default().push(pair.clone());
        }
        by_kind.into_iter().map(|(kind, pairs)| Ok((kind, PromptPairs::new(pairs)?))).collect()
    }
}

/// The sets of prompts that the study draws from one seed. No prompt of one set is in a later one.
pub(super) struct Sets {
    /// The prompts of the notebook's steps.
    pub(super) steps: Data,
    /// The prompts that the circuit's heads are chosen on.
    pub(super) choosing: Data,
    /// The prompts that the circuit is judged on.
    pub(super) judging: Data,
    /// Prompts of three different names, which the means of ablated heads are over.
    pub(super) reference: ReferencePrompts,
}

impl Sets {
    /// Draws the prompts of the steps, the choosing and the judging prompts from one stream, and
    /// the reference prompts from another, whose seed follows from the first.
    ///
    /// # Errors
    /// If the tokenizer's names do not make enough distinct prompts, or a mean would be over too
    /// few reference prompts.
    pub(super) fn new(tokenizer: &Tokenizer, bos: Option<u32>, arguments: &Arguments) -> anyhow::Result<Self> {
        let generator = IoiGenerator::new(tokenizer)?;
        let further = arguments.choose_prompts + arguments.judge_prompts;
        let drawn = distinct(&generator, arguments.prompts, further, arguments.seed)?;
        let (prompts, rest) = drawn.split_at(arguments.prompts);
        let (choosing, judging) = rest.split_at(arguments.choose_prompts);
        let set = |prompts: &[IoiPrompt]| Data::new(tokenizer, bos, prompts);
        let (choosing, judging) = (set(choosing)?, set(judging)?);
        let kinds = choosing.kinds.iter().chain(&judging.kinds).copied().collect();
        let reference = ReferencePrompts::draw(&generator, tokenizer, bos, kinds, arguments.seed)?;
        Ok(Self { steps: set(prompts)?, choosing, judging, reference })
    }

    /// Checks that a model with this vocabulary and context can run every prompt.
    pub(super) fn check_model(&self, d_vocab: usize, n_ctx: usize) -> Result<(), IoiError> {
        let sets = [&self.steps, &self.choosing, &self.judging];
        Ok(sets.into_iter().try_for_each(|set| set.pairs.check_model(d_vocab, n_ctx))?)
    }
}

/// The first prompts of the seed, then further ones, none of which was drawn before.
fn distinct(generator: &IoiGenerator, first: usize, further: usize, seed: u64) -> anyhow::Result<Vec<IoiPrompt>> {
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
        anyhow::ensure!(
            drawing < DRAWS_PER_PROMPT * n,
            "{drawing} draws gave {} distinct prompts and {n} are needed: lower --choose-prompts or --judge-prompts",
            prompts.len()
        );
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
