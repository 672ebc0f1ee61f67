//! The prompts of the notebook that compares integrated gradients with activation patching.

use super::demo::DemoError;
use crate::pairs::{PromptPair, PromptPairs};
use crate::tokenizer::Tokenizer;

/// The notebook's clean prompt. The answer is " John", the wrong answer is " Mary".
pub const COMPARISON_PROMPT: &str = "After John and Mary went to the store, Mary gave a bottle of milk to";
/// The clean prompt with the other name repeated.
const REPEATS_JOHN: &str = "After John and Mary went to the store, John gave a bottle of milk to";

/// How to make the notebook's "optimal contrastive pair", in which a cat and a dog replace the
/// first mentions of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contrast {
    /// As printed in the notebook, for comparison with it. The text "the cat and the dog" is two
    /// tokens longer. The clean prompt is padded, its answer is read after the padding, and no
    /// position after the names corresponds.
    AsPrinted,
    /// "cat and dog" in place of "John and Mary", token for token.
    Aligned,
}

/// Returns the notebook's prompt pair for a tokenizer, with `bos` in front of each prompt if it is
/// given.
///
/// # Errors
/// [`DemoError`] if a name is several tokens.
pub fn comparison_pair(tokenizer: &Tokenizer, bos: Option<u32>) -> Result<PromptPairs, DemoError> {
    pair(tokenizer, bos, REPEATS_JOHN)
}

/// Returns the contrastive pair, with `bos` in front of each prompt if it is given.
///
/// # Errors
/// [`DemoError`] if a name is several tokens, or if an animal is several tokens in an aligned pair.
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

/// Returns the pair of the clean prompt and another prompt. The shorter prompt is padded on the
/// right, as in the notebook's library.
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
