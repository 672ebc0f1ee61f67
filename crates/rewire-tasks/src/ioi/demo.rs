//! The eight prompts of the attribution-patching demo.

use crate::pairs::{PairsError, PromptPair, PromptPairs};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// GPT-2's token ids of the demo's answers, `[answer, wrong answer]` per prompt, as the demo prints
/// them.
pub const DEMO_ANSWER_IDS_GPT2: [[u32; 2]; 8] = [
    [5335, 1757],
    [1757, 5335],
    [4186, 3700],
    [3700, 4186],
    [6035, 15686],
    [15686, 6035],
    [5780, 14235],
    [14235, 5780],
];

/// Returns the demo's prompts in order, each with its answer and wrong answer. Two neighboring
/// prompts differ in the repeated name, and each is the other's corrupted prompt.
#[must_use]
pub fn demo_prompts() -> [(String, [&'static str; 2]); 8] {
    let pair = |start: &str, rest: &str, [first, second]: [&'static str; 2], subjects: [&'static str; 2]| {
        subjects.map(|subject| {
            let other = if subject == first { second } else { first };
            (format!("{start} {first} and {second} went to the {rest}").replace("{S}", subject), [other, subject])
        })
    };
    let [a, b] = pair("When", "shops, {S} gave the bag to", ["John", "Mary"], ["John", "Mary"]);
    let [c, d] = pair("When", "park, {S} gave the ball to", ["Tom", "James"], ["James", "Tom"]);
    let [e, f] = pair("When", "shops, {S} gave an apple to", ["Dan", "Sid"], ["Sid", "Dan"]);
    let [g, h] = pair("After", "park, {S} gave a drink to", ["Martin", "Amy"], ["Amy", "Martin"]);
    [a, b, c, d, e, f, g, h]
}

/// Why a tokenizer cannot make the demo's pairs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A text cannot be tokenized as required.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The prompts of a pair cannot be patched, because their lengths differ.
    #[error(transparent)]
    Pairs(#[from] PairsError),
}

/// Returns the demo's eight pairs for a tokenizer, with `bos` in front of each prompt if it is
/// given.
///
/// # Errors
/// [`DemoError`] if a name is several tokens, or if the prompts of a pair differ in length.
pub fn demo_pairs(tokenizer: &Tokenizer, bos: Option<u32>) -> Result<PromptPairs, DemoError> {
    let prompts = demo_prompts();
    let encode = |text: &str| tokenizer.encode_prompt(text, bos);
    let pairs = prompts.iter().enumerate().map(|(i, (text, [answer, wrong]))| {
        Ok(PromptPair {
            clean: encode(text)?,
            corrupted: encode(&prompts[i ^ 1].0)?,
            answers: vec![tokenizer.single_token(&format!(" {answer}"))?],
            wrong_answers: vec![tokenizer.single_token(&format!(" {wrong}"))?],
        })
    });
    let pairs = PromptPairs::new(pairs.collect::<Result<_, TokenizerError>>()?)?;
    Ok(pairs.with_token_labels(|token| tokenizer.decode(&[token])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_prompts_match_the_exploratory_analysis_demo() {
        let expected = [
            ("When John and Mary went to the shops, John gave the bag to", ["Mary", "John"]),
            ("When John and Mary went to the shops, Mary gave the bag to", ["John", "Mary"]),
            ("When Tom and James went to the park, James gave the ball to", ["Tom", "James"]),
            ("When Tom and James went to the park, Tom gave the ball to", ["James", "Tom"]),
            ("When Dan and Sid went to the shops, Sid gave an apple to", ["Dan", "Sid"]),
            ("When Dan and Sid went to the shops, Dan gave an apple to", ["Sid", "Dan"]),
            ("After Martin and Amy went to the park, Amy gave a drink to", ["Martin", "Amy"]),
            ("After Martin and Amy went to the park, Martin gave a drink to", ["Amy", "Martin"]),
        ];
        assert_eq!(demo_prompts(), expected.map(|(text, answers)| (text.to_owned(), answers)));
    }
}
