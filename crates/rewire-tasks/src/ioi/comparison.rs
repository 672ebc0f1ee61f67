//! The prompts of the notebook that compares integrated gradients with activation patching.

use super::demo::DemoError;
use crate::pairs::{PromptPair, PromptPairs};
use crate::tokenizer::Tokenizer;

/// The notebook's clean prompt, to which " John" is the answer and " Mary" the wrong one.
pub const COMPARISON_PROMPT: &str = "After John and Mary went to the store, Mary gave a bottle of milk to";
/// The same with the other name repeated.
const REPEATS_JOHN: &str = "After John and Mary went to the store, John gave a bottle of milk to";

/// How the notebook's "optimal contrastive pair" is made: the names' first mentions become a cat and a dog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contrast {
    /// As the notebook has it: "the cat and the dog" is two tokens longer, so the clean prompt is padded, its answer is read after
    /// the padding, and no position after the names corresponds. For comparison with the notebook.
    AsPrinted,
    /// "cat and dog" in the place of "John and Mary", token for token.
    Aligned,
}

/// The notebook's one pair of prompts for a model's tokenizer, `bos` in front of each if the model has one.
///
/// # Errors
/// [`DemoError`] where a name is several tokens.
pub fn comparison_pair(tokenizer: &Tokenizer, bos: Option<u32>) -> Result<PromptPairs, DemoError> {
    pair(tokenizer, bos, REPEATS_JOHN)
}

/// The contrastive pair.
///
/// # Errors
/// [`DemoError`] where a name is several tokens, or, aligned, an animal is.
pub fn contrastive_pair(tokenizer: &Tokenizer, bos: Option<u32>, contrast: Contrast) -> Result<PromptPairs, DemoError> {
    let animals = match contrast {
        Contrast::AsPrinted => "the cat and the dog",
        Contrast::Aligned => {
            [" cat", " dog"].iter().try_for_each(|animal| tokenizer.single_token(animal).map(|_| ()))?;
            "cat and dog"
        }
    };
    pair(tokenizer, bos, &COMPARISON_PROMPT.replace("John and Mary", animals))
}

/// The clean prompt and another; the shorter is padded behind, as the notebook's library does.
fn pair(tokenizer: &Tokenizer, bos: Option<u32>, corrupted: &str) -> Result<PromptPairs, DemoError> {
    let encode = |text: &str| tokenizer.encode_prompt(text, bos);
    let (mut clean, mut corrupted) = (encode(COMPARISON_PROMPT)?, encode(corrupted)?);
    let width = clean.len().max(corrupted.len());
    for tokens in [&mut clean, &mut corrupted] {
        tokens.resize(width, bos.unwrap_or_default());
    }
    let [answers, wrong_answers] = [" John", " Mary"].map(|name| tokenizer.single_token(name).map(|token| vec![token]));
    let pair = PromptPair { clean, corrupted, answers: answers?, wrong_answers: wrong_answers? };
    Ok(PromptPairs::new(vec![pair])?.with_token_labels(|token| tokenizer.decode(&[token])))
}
