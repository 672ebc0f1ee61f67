//! The toy models' byte-level BPE tokenizer.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Model, Tokenizer, models::TrainerWrapper};

use crate::corpus::tokenizer_texts;

/// The BOS token. It marks the start of every prompt and the end of every text, as in GPT-2 and
/// Pythia.
pub(crate) const BOS: &str = "<|endoftext|>";

/// Trains the tokenizer until every word of the corpus is one token. Any other text falls back to
/// pieces and bytes, and all texts round-trip.
pub(crate) fn train_tokenizer() -> tokenizers::Result<Tokenizer> {
    let byte_level = || ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level())).with_decoder(Some(byte_level()));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .min_frequency(1)
        .vocab_size(10_000) // more than the corpus has merges: training ends when no merge is left
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(BOS, true)])
        .build();
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    tokenizer.train(&mut trainer, tokenizer_texts().into_iter())?;
    Ok(tokenizer)
}

/// Returns the id of [`BOS`].
pub(crate) fn bos_token(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.get_added_vocabulary().get_vocab().get(BOS).copied().or_else(|| tokenizer.get_model().token_to_id(BOS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rewire_tasks::ioi::{NAMES, PLACES};

    #[test]
    fn common_words_are_one_token_and_texts_round_trip() {
        let tokenizer = train_tokenizer().unwrap();
        let ids = |text: &str| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        for word in NAMES.iter().chain(&PLACES) {
            assert_eq!(ids(&format!(" {word}")).len(), 1, "{word}");
        }
        assert_eq!(ids(" Colosseum").len(), ids(" Eiffel Tower").len());
        for text in ["When John and Mary went to the shops, John gave the bag to", "naïve 東京 \n\t🙂", ""] {
            assert_eq!(tokenizer.decode(&ids(text), false).unwrap(), text);
        }
        assert_eq!(bos_token(&tokenizer), Some(0));
    }

    #[test]
    fn training_a_tokenizer_is_deterministic() {
        let [a, b] = [train_tokenizer().unwrap(), train_tokenizer().unwrap()].map(|t| t.to_string(false).unwrap());
        assert_eq!(a, b);
    }
}
