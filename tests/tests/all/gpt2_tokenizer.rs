//! GPT-2's own vocabulary and merges give the ids that transformers gives and that the demos print.

use std::path::Path;
use std::sync::OnceLock;

use rewire_model::{ModelFiles, TransformerConfig};
use rewire_tasks::Tokenizer;
use rewire_tasks::facts::{FACTS, FactCorruption, demo_fact_pair};
use rewire_tasks::ioi::{DEMO_ANSWER_IDS_GPT2, IoiGenerator, NAMES, OBJECTS, PLACES, Split, demo_pairs};
use rewire_tests::gpt2_tokenizer::copy_to;
use serde_json::Value;

/// GPT-2's BOS.
const BOS: Option<u32> = Some(50_256);

/// Returns GPT-2's tokenizer, or `None` if it was not fetched.
fn tokenizer() -> Option<&'static Tokenizer> {
    static TOKENIZER: OnceLock<Option<Tokenizer>> = OnceLock::new();
    let read = || {
        let directory = tempfile::tempdir().unwrap();
        if !copy_to(directory.path()) {
            return None;
        }
        let config = TransformerConfig::gpt2(1, 2, 8, 50_257, 64).to_hugging_face();
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(directory.path().join("model.safetensors"), "").unwrap();
        let (path, bytes) = ModelFiles::directory(directory.path()).unwrap().tokenizer().unwrap().unwrap();
        Some(Tokenizer::from_bytes(&bytes, &path).unwrap())
    };
    TOKENIZER.get_or_init(read).as_ref()
}

/// Asserts that a word is one token after a space.
fn assert_single(tokenizer: &Tokenizer, word: &str) {
    let found = tokenizer.single_token(&format!(" {word}"));
    assert!(found.is_ok(), "{}", found.unwrap_err());
}

#[test]
fn odd_texts_have_the_ids_of_transformers_and_are_spelled_again() {
    let Some(tokenizer) = tokenizer() else { return };
    assert_eq!(tokenizer.vocabulary_size(), 50_257);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gpt2-tokenizer/ids.json");
    let rows: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let rows = rows.as_array().unwrap();
    assert!(rows.len() > 30);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let ids: Vec<u32> = row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
    assert_eq!(tokenizer.changed_text(), None);
}

#[test]
fn the_demos_prompts_have_15_tokens_and_its_answers_the_printed_ids() {
    let Some(tokenizer) = tokenizer() else { return };
    let pairs = demo_pairs(tokenizer, BOS).unwrap();
    assert_eq!(pairs.len(), 8);
    for (i, (pair, [answer, wrong])) in pairs.pairs().iter().zip(DEMO_ANSWER_IDS_GPT2).enumerate() {
        assert_eq!([pair.clean.len(), pair.corrupted.len()], [15, 15], "prompt {i}");
        assert_eq!([&pair.answers, &pair.wrong_answers], [&[answer], &[wrong]], "prompt {i}");
        assert_eq!((pair.clean.first().copied(), pairs.first_difference(i)), (BOS, Some(10)), "prompt {i}");
    }
    let printed = "<|endoftext|>When John and Mary went to the shops, John gave the bag to";
    assert_eq!(tokenizer.decode(&pairs.pairs()[0].clean), printed);
}

#[test]
fn every_word_of_the_ioi_pools_is_one_token() {
    let Some(tokenizer) = tokenizer() else { return };
    let objects = OBJECTS.iter().flat_map(|object| object.split(' '));
    NAMES.into_iter().chain(PLACES).chain(objects).for_each(|word| assert_single(tokenizer, word));
    let ours = IoiGenerator::new(tokenizer).unwrap();
    assert_eq!(ours.sample(40, 0, Split::All), IoiGenerator::all_names().sample(40, 0, Split::All));
}

#[test]
fn both_corruptions_of_the_facts_demo_have_as_many_tokens_as_its_prompt() {
    let Some(tokenizer) = tokenizer() else { return };
    for (corruption, text) in [
        (FactCorruption::Colosseum, "The Colosseum is located in the city of"),
        (FactCorruption::RandomWords(0), "The red brown fox jumps is located in the city of"),
    ] {
        let pairs = demo_fact_pair(tokenizer, BOS, corruption).unwrap();
        let pair = &pairs.pairs()[0];
        assert_eq!([pair.clean.len(), pair.corrupted.len()], [12, 12], "{text}");
        assert_eq!(pair.corrupted, tokenizer.encode_prompt(text, BOS).unwrap());
        // " Paris" and " Rome".
        assert_eq!([&pair.answers, &pair.wrong_answers], [&[6342], &[10_598]]);
    }
    FACTS.iter().for_each(|(_, city)| assert_single(tokenizer, city));
}

#[test]
fn each_two_digit_year_is_one_token_after_a_century() {
    let Some(tokenizer) = tokenizer() else { return };
    let century = tokenizer.encode("from the year 1352 to the year 13").unwrap();
    for year in 0..100 {
        let year = tokenizer.single_token(&format!("{year:02}")).unwrap();
        assert_ne!(century.last(), Some(&year));
    }
    // A number of four digits is a century and a year.
    let pieces: Vec<String> = century.iter().map(|&token| tokenizer.decode(&[token])).collect();
    assert_eq!(pieces[3..5], [" 13", "52"]);
}
