//! Reference prompts with three different names. Ablated heads get their mean activations over
//! these prompts.

use std::collections::{BTreeMap, BTreeSet};

use rewire_tasks::Tokenizer;
use rewire_tasks::ioi::{Corruption, IoiGenerator, Split, TEMPLATES};

use crate::StudyError;

/// Number of prompts per mean, for each template and length.
const EACH: usize = 30;
/// Smallest number of prompts per mean.
const FEWEST: usize = 10;
/// Largest number of prompts drawn.
const DRAWS: usize = 100_000;

/// A template's index, and the number of tokens of a prompt made from it.
pub type Kind = (usize, usize);

/// Prompts with three different names, by template and number of tokens.
#[derive(Debug, Clone)]
pub struct ReferencePrompts {
    by_kind: BTreeMap<Kind, Vec<Vec<u32>>>,
}

impl ReferencePrompts {
    /// Draws prompts until each of `kinds` has 30. The seed differs from the seeds of all other
    /// sets of prompts.
    ///
    /// # Errors
    /// [`StudyError::Prompts`] if a template has fewer than 10 prompts with one of the lengths
    /// after 100,000 draws.
    pub fn draw(
        generator: &IoiGenerator,
        tokenizer: &Tokenizer,
        bos: Option<u32>,
        kinds: BTreeSet<Kind>,
        seed: u64,
    ) -> Result<Self, StudyError> {
        let mut by_kind: BTreeMap<Kind, Vec<Vec<u32>>> = kinds.into_iter().map(|kind| (kind, Vec::new())).collect();
        let (mut seen, mut drawing) = (0, 1000);
        while seen < DRAWS && by_kind.values().any(|prompts| prompts.len() < EACH) {
            for prompt in &generator.sample(drawing, reference_seed(seed), Split::All)[seen..] {
                let tokens = tokenizer.encode_prompt(&Corruption::Abc.text(prompt), bos)?;
                let prompts = by_kind.get_mut(&(prompt.template, tokens.len()));
                if let Some(prompts) = prompts.filter(|prompts| prompts.len() < EACH && !prompts.contains(&tokens)) {
                    prompts.push(tokens);
                }
            }
            (seen, drawing) = (drawing, (2 * drawing).min(DRAWS));
        }
        let reference = Self { by_kind };
        reference.check()?;
        Ok(reference)
    }

    /// Refuses means over fewer than [`FEWEST`] prompts.
    fn check(&self) -> Result<(), StudyError> {
        let fewest = self.counts().into_iter().min_by_key(|(_, n)| *n);
        let Some(((template, tokens), n)) = fewest.filter(|(_, n)| *n < FEWEST) else {
            return Ok(());
        };
        Err(StudyError::Prompts(format!(
            "template {template} (\"{}\") has {n} prompts with three different names and {tokens} tokens, and the mean \
             for ablated heads needs {FEWEST}: prompts of this length are too rare with this tokenizer; use a \
             tokenizer in which more names, places and objects are single tokens",
            TEMPLATES[template]
        )))
    }

    /// Returns the number of prompts per mean, by template and length.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        self.by_kind.iter().map(|(kind, prompts)| (*kind, prompts.len())).collect()
    }

    /// Returns the prompts by template and number of tokens.
    #[must_use]
    pub fn prompts(&self) -> &BTreeMap<Kind, Vec<Vec<u32>>> {
        &self.by_kind
    }
}

/// Returns the seed of the reference prompts. It is far from seeds that users type, so the prompts
/// of other runs do not repeat these.
fn reference_seed(seed: u64) -> u64 {
    seed.wrapping_add(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_counts(counts: &[(Kind, usize)]) -> ReferencePrompts {
        let by_kind = counts.iter().map(|&(kind, n)| (kind, vec![vec![0; kind.1]; n])).collect();
        ReferencePrompts { by_kind }
    }

    #[test]
    fn mean_baselines_need_ten_prompts_per_template_and_length() {
        assert!(of_counts(&[((0, 15), 10), ((3, 18), 30)]).check().is_ok());
        let error = of_counts(&[((0, 15), 10), ((3, 18), 9)]).check().unwrap_err().to_string();
        assert!(error.contains("template 3 (\"While {FIRST}") && error.contains("18 tokens"), "{error}");
        assert!(error.contains("has 9 prompts") && error.contains("needs 10"), "{error}");
    }

    #[test]
    fn every_template_and_length_of_the_toys_has_thirty_prompts() {
        let tokenizer = rewire_toy::Toy::Gpt2.tokenizer().unwrap();
        let generator = IoiGenerator::new(&tokenizer).unwrap();
        let kinds: BTreeSet<Kind> = generator
            .sample(2000, 0, Split::All)
            .iter()
            .map(|prompt| (prompt.template, 1 + tokenizer.encode(&prompt.text()).unwrap().len()))
            .collect();
        assert!(kinds.len() >= TEMPLATES.len());
        for seed in 0..5 {
            let drawn = ReferencePrompts::draw(&generator, &tokenizer, Some(0), kinds.clone(), seed).unwrap();
            assert!(drawn.counts().values().all(|n| *n == EACH), "{:?}", drawn.counts());
        }
    }
}
