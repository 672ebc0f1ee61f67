//! Random small models and prompt pairs, for properties that hold on all of them.

use proptest::prelude::*;
use rewire_model::{Positions, TransformerConfig};
use rewire_tasks::{PromptPair, PromptPairs, WholeAnswers};

/// Draws a transformer configuration of either architecture, with 1 to 4 layers and at least 8
/// dimensions. In 4 dimensions a norm's variance can be so small that it magnifies float32
/// rounding: the worst of 160 models with 4 dimensions had 1.75 times the tolerance of
/// [`rounding`], the worst of 800 with 8 to 24 dimensions 0.2 times. In float64 both engines agreed
/// exactly.
///
/// [`rounding`]: crate::compare::rounding
pub fn any_config() -> impl Strategy<Value = TransformerConfig> {
    (any::<bool>(), 1_usize..=4, 1_usize..=3, 1_usize..=2, 0_usize..=2, any::<bool>()).prop_map(
        |(neox, layers, heads, width, rotary, by_layer)| {
            let d_model = (heads * 4 * width).max(8);
            match neox {
                false => TransformerConfig {
                    scores_by_inverse_layer: by_layer,
                    ..TransformerConfig::gpt2(layers, heads, d_model, 17, 12)
                },
                true => TransformerConfig {
                    positions: Positions::Rotary { dims: 2 * rotary, base: 10_000.0 },
                    parallel_block: rotary != 2,
                    ..TransformerConfig::neox(layers, heads, d_model, 17, 12)
                },
            }
        },
    )
}

/// Draws one to four pairs of 1 to 8 tokens from a vocabulary of 17. In some pairs, the prompts are
/// equal up to some position.
pub fn any_pairs() -> impl Strategy<Value = PromptPairs> {
    let token = 0_u32..17;
    let pair = (prop::collection::vec(token.clone(), 1..=8), prop::collection::vec(token.clone(), 8), 0_usize..8);
    let pair = (pair, token.clone(), 1_u32..17).prop_map(|((clean, other, from), answer, further)| {
        let from = from.min(clean.len() - 1);
        let mut corrupted = clean.clone();
        corrupted[from..].copy_from_slice(&other[from..clean.len()]);
        PromptPair { clean, corrupted, answers: vec![answer], wrong_answers: vec![(answer + further) % 17] }
    });
    prop::collection::vec(pair, 1..=4).prop_map(|pairs| PromptPairs::new(pairs).expect("pairs of equal length"))
}

/// Draws an answer of one to three tokens for each of four pairs and, for some, the last token of
/// a second answer.
pub fn any_answers() -> impl Strategy<Value = Vec<(Vec<u32>, Option<u32>)>> {
    prop::collection::vec((prop::collection::vec(0_u32..17, 1..=3), prop::option::of(0_u32..17)), 4)
}

/// Returns the pairs with these answers, which the prompts of the set begin.
///
/// # Panics
/// If there are fewer answers than pairs.
pub fn with_whole_answers(pairs: &PromptPairs, answers: &[(Vec<u32>, Option<u32>)]) -> PromptPairs {
    let whole = pairs.pairs().iter().zip(answers).map(|(pair, (answer, other))| {
        let second = other.map(|last| [&answer[..answer.len() - 1], &[last]].concat());
        let answers = [answer.clone()].into_iter().chain(second).collect();
        WholeAnswers { clean: pair.clean.clone(), corrupted: pair.corrupted.clone(), answers }
    });
    let whole: Vec<WholeAnswers> = whole.collect();
    assert_eq!(whole.len(), pairs.len(), "an answer for each pair");
    PromptPairs::with_whole_answers(&whole).expect("answers that differ in their last token only")
}
