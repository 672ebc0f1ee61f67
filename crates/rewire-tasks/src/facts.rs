//! Factual recall: "The Eiffel Tower is located in the city of" -> " Paris".

use crate::{PairsError, PromptPair, PromptPairs, Tokenizer, TokenizerError};

/// Landmarks and the cities that they are in; the first two are the demo's.
pub const FACTS: [(&str, &str); 12] = [
    ("Eiffel Tower", "Paris"),
    ("Colosseum", "Rome"),
    ("Brandenburg Gate", "Berlin"),
    ("Sagrada Familia", "Barcelona"),
    ("Royal Palace", "Oslo"),
    ("Opera House", "Sydney"),
    ("Big Ben", "London"),
    ("Red Square", "Moscow"),
    ("Forbidden City", "Beijing"),
    ("Blue Mosque", "Istanbul"),
    ("Prado Museum", "Madrid"),
    ("Charles Bridge", "Prague"),
];

/// Sentence frames for facts; the first is the demo's.
pub const FACT_TEMPLATES: [&str; 4] = [
    "The {LANDMARK} is located in the city of",
    "The {LANDMARK} can be found in the city of",
    "To see the {LANDMARK}, people travel to",
    "Everyone knows that the {LANDMARK} stands in",
];

/// The prompt about a landmark.
#[must_use]
pub fn fact_prompt(template: usize, landmark: &str) -> String {
    FACT_TEMPLATES[template % FACT_TEMPLATES.len()].replace("{LANDMARK}", landmark)
}

/// Why fact pairs cannot be made with a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// A text does not become the tokens that it must be.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The two prompts do not have one length.
    #[error(transparent)]
    Pairs(#[from] PairsError),
}

/// The demo's pair: the Eiffel Tower, corrupted to the Colosseum.
///
/// # Errors
/// [`FactsError`] where a city is several tokens, or the prompts are of different length.
pub fn demo_fact_pair(tokenizer: &Tokenizer, bos: Option<u32>) -> Result<PromptPairs, FactsError> {
    let [(clean, right), (corrupted, wrong)] = [FACTS[0], FACTS[1]];
    let encode = |landmark: &str| -> Result<Vec<u32>, TokenizerError> {
        Ok(bos.into_iter().chain(tokenizer.encode(&fact_prompt(0, landmark))?).collect())
    };
    let pair = PromptPair {
        clean: encode(clean)?,
        corrupted: encode(corrupted)?,
        answers: vec![tokenizer.single_token(&format!(" {right}"))?],
        wrong_answers: vec![tokenizer.single_token(&format!(" {wrong}"))?],
    };
    Ok(PromptPairs::new(vec![pair])?.labelled(|token| tokenizer.decode(&[token])))
}
