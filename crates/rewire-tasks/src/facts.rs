//! Factual recall: "The Eiffel Tower is located in the city of" -> " Paris".

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ioi::pools::{NAMES, PLACES};
use crate::pairs::{PairsError, PromptPair, PromptPairs};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Landmarks and their cities. The demo uses the first two.
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

/// Prompt templates for facts. The demo uses the first.
pub const FACT_TEMPLATES: [&str; 4] = [
    "The {LANDMARK} is located in the city of",
    "The {LANDMARK} can be found in the city of",
    "To see the {LANDMARK}, people travel to",
    "Everyone knows that the {LANDMARK} stands in",
];

/// Returns the prompt about a landmark.
#[must_use]
pub fn fact_prompt(template: usize, landmark: &str) -> String {
    FACT_TEMPLATES[template % FACT_TEMPLATES.len()].replace("{LANDMARK}", landmark)
}

/// Why a tokenizer cannot make fact pairs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// A text cannot be tokenized as required.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The two prompts cannot be patched, because their lengths differ.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// Too few words are single tokens.
    #[error(
        "only {found} words are single tokens of this tokenizer, and the landmark is {needed} tokens long; use the Colosseum as corruption"
    )]
    TooFewWords {
        /// Number of words that are single tokens.
        found: usize,
        /// Number of words that are needed.
        needed: usize,
    },
}

/// The demo's words in place of the landmark, from a line that the demo does not run.
const DEMO_WORDS: &str = "red brown fox jumps";

/// The replacement for the Eiffel Tower in the corrupted prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactCorruption {
    /// The Colosseum, which is in Rome.
    Colosseum,
    /// Unrelated words, as many tokens as the landmark. They are the demo's words if those have as
    /// many tokens, else words drawn with this seed.
    RandomWords(u64),
}

/// Returns the demo's prompt pair: the Eiffel Tower and its replacement. The answer is Paris, the
/// wrong answer is Rome.
///
/// # Errors
/// [`FactsError`] if a city is several tokens, the prompts differ in length, or too few words are
/// single tokens.
pub fn demo_fact_pair(
    tokenizer: &Tokenizer,
    bos: Option<u32>,
    corruption: FactCorruption,
) -> Result<PromptPairs, FactsError> {
    let [(clean, right), (colosseum, wrong)] = [FACTS[0], FACTS[1]];
    let encode = |landmark: &str| tokenizer.encode_prompt(&fact_prompt(0, landmark), bos);
    let tokens = encode(clean)?;
    let corrupted = match corruption {
        FactCorruption::Colosseum => encode(colosseum)?,
        FactCorruption::RandomWords(seed) => match encode(DEMO_WORDS)? {
            words if words.len() == tokens.len() => words,
            _ => {
                let needed = tokenizer.encode(&format!(" {clean}"))?.len();
                encode(&words(tokenizer, needed, seed)?.join(" "))?
            }
        },
    };
    let pair = PromptPair {
        clean: tokens,
        corrupted,
        answers: vec![tokenizer.single_token(&format!(" {right}"))?],
        wrong_answers: vec![tokenizer.single_token(&format!(" {wrong}"))?],
    };
    Ok(PromptPairs::new(vec![pair])?.with_token_labels(|token| tokenizer.decode(&[token])))
}

/// Draws `needed` different words that are one token each after a space.
fn words(tokenizer: &Tokenizer, needed: usize, seed: u64) -> Result<Vec<&'static str>, FactsError> {
    let single = |word: &&str| tokenizer.single_token(&format!(" {word}")).is_ok();
    let mut pool: Vec<&str> = PLACES.into_iter().chain(NAMES).filter(single).collect();
    if pool.len() < needed {
        return Err(FactsError::TooFewWords { found: pool.len(), needed });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |_| {
        let i = ((u64::from(rng.next_u32()) * pool.len() as u64) >> 32) as usize;
        pool.swap_remove(i)
    };
    Ok((0..needed).map(draw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer in which both landmarks are four tokens long, as in GPT-2's.
    fn tokenizer() -> Tokenizer {
        let pieces =
            "[UNK] The Ei ##ffel To ##wer C ##olo ##sse ##um red brown fox jumps is located in the city of Paris Rome";
        let vocabulary: Vec<String> =
            pieces.split(' ').enumerate().map(|(id, piece)| format!("{piece:?}:{id}")).collect();
        let json = format!(
            r###"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":{{"type":"Whitespace"}},"post_processor":null,"decoder":null,
            "model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
            "vocab":{{{}}}}}}}"###,
            vocabulary.join(",")
        );
        Tokenizer::from_bytes(json.as_bytes(), std::path::Path::new("tokenizer.json")).unwrap()
    }

    #[test]
    fn the_demos_words_are_used_if_token_counts_match() {
        let tokenizer = tokenizer();
        let of = |corruption| demo_fact_pair(&tokenizer, None, corruption).unwrap().pairs()[0].clone();
        let words = of(FactCorruption::RandomWords(1));
        assert_eq!(words.corrupted, tokenizer.encode("The red brown fox jumps is located in the city of").unwrap());
        assert_eq!(words, of(FactCorruption::RandomWords(2)));
        let colosseum = of(FactCorruption::Colosseum);
        assert_eq!((colosseum.clean.len(), colosseum.corrupted.len()), (11, 11));
        assert_ne!(colosseum.corrupted, words.corrupted);
    }

    #[test]
    fn each_template_names_the_landmark_once() {
        for (template, text) in FACT_TEMPLATES.iter().enumerate() {
            assert_eq!(text.matches("{LANDMARK}").count(), 1);
            assert!(fact_prompt(template, "Big Ben").contains("Big Ben"));
        }
        assert_eq!(fact_prompt(0, FACTS[0].0), "The Eiffel Tower is located in the city of");
        assert_eq!(fact_prompt(0, DEMO_WORDS), "The red brown fox jumps is located in the city of");
    }
}
