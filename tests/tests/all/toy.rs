//! The shipped toy models do their tasks.

use burn::backend::Flex;
use rewire_model::{ReadPositions, Readout, Run, Transformer};
use rewire_tasks::PromptPairs;
use rewire_tasks::facts::{FACT_TEMPLATES, FACTS, FactCorruption, demo_fact_pair, fact_prompt};
use rewire_tasks::ioi::{
    COMPARISON_PROMPT, Contrast, Corruption, IoiGenerator, Split, comparison_pair, contrastive_pair, demo_pairs,
};
use rewire_toy::{Toy, score_ioi};

fn load(toy: Toy) -> Transformer<Flex> {
    toy.load(&Default::default()).unwrap()
}

#[test]
fn toy_models_solve_held_out_prompts() {
    for toy in Toy::ALL {
        let (model, tokenizer) = (load(toy), toy.tokenizer().unwrap());
        let manifest = toy.manifest().unwrap();
        let prompts = IoiGenerator::new(&tokenizer).unwrap().sample(1000, manifest.held_out_seed, Split::HeldOut);
        let pairs = Corruption::S2ToIo.pairs(&prompts, &tokenizer, model.config().bos_token).unwrap();
        let score = score_ioi(&model, &pairs).unwrap();
        assert!(score.accuracy >= 0.99 && score.io_above_s >= 0.99, "{toy}: {score:?}");
        assert!(score.mean_logit_diff >= 3.0, "{toy}: {score:?}");
        // The manifest states the same scores, up to rounding on another processor.
        assert!(
            (score.accuracy - manifest.held_out.accuracy).abs() < 2e-3,
            "{toy}: {score:?}, {:?}",
            manifest.held_out
        );
        assert!((score.mean_logit_diff - manifest.held_out.mean_logit_diff).abs() < 1e-2, "{toy}: {score:?}");
        assert_eq!(manifest.held_out.prompts, 1000);
        let [first, last] = [manifest.loss_curve.first().unwrap(), manifest.loss_curve.last().unwrap()];
        assert!(last.answer_loss < 0.1 * first.answer_loss, "{toy}: {first:?} to {last:?}");
    }
}

#[test]
fn toy_models_solve_the_demos_prompts_at_gpt2_lengths() {
    for toy in Toy::ALL {
        let (model, tokenizer) = (load(toy), toy.tokenizer().unwrap());
        let pairs = demo_pairs(&tokenizer, model.config().bos_token).unwrap();
        assert!(pairs.pairs().iter().all(|p| p.clean.len() == 15), "{toy}: other lengths than GPT-2's");
        assert!((0..8).all(|p| pairs.first_difference(p) == Some(10)));
        let score = score_ioi(&model, &pairs).unwrap();
        assert_eq!((score.accuracy, score.io_above_s), (1.0, 1.0), "{toy}");
    }
}

#[test]
fn toy_models_know_their_facts() {
    for toy in Toy::ALL {
        let (model, tokenizer) = (load(toy), toy.tokenizer().unwrap());
        let bos = model.config().bos_token;
        for template in 0..FACT_TEMPLATES.len() {
            for (landmark, city) in FACTS {
                let prompt = fact_prompt(template, landmark);
                let tokens: Vec<u32> = bos.into_iter().chain(tokenizer.encode(&prompt).unwrap()).collect();
                let end = tokens.len() - 1;
                let readout = Readout { positions: ReadPositions::Each(vec![end]), columns: None };
                let logits =
                    model.forward(Run::tokens(model.tokens(&[tokens]).unwrap()).with_readout(readout), ()).unwrap();
                let likeliest = logits.argmax(2).into_data().iter::<i64>().next().unwrap() as u32;
                assert_eq!(tokenizer.decode(&[likeliest]), format!(" {city}"), "{toy}: {prompt}");
            }
        }
        let pair = demo_fact_pair(&tokenizer, bos, FactCorruption::Colosseum).unwrap();
        let words = demo_fact_pair(&tokenizer, bos, FactCorruption::RandomWords(1)).unwrap();
        assert_eq!(words.pairs()[0].clean, pair.pairs()[0].clean);
        assert!(words.first_difference(0).is_some() && words.pairs()[0].corrupted != pair.pairs()[0].corrupted);
        assert_eq!(words, demo_fact_pair(&tokenizer, bos, FactCorruption::RandomWords(1)).unwrap());
        assert_ne!(words, demo_fact_pair(&tokenizer, bos, FactCorruption::RandomWords(2)).unwrap());
        assert_eq!(pair.len(), 1);
    }
}

#[test]
fn toy_texts_round_trip_and_the_models_are_small() {
    for toy in Toy::ALL {
        let tokenizer = toy.tokenizer().unwrap();
        for text in ["When John and Mary went to the shops, John gave the bag to", "naïve 東京\n🙂  x", " Colosseum"]
        {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()), text);
        }
        assert_eq!(tokenizer.encode(" Mary").unwrap().len(), 1);
        assert_eq!(tokenizer.vocabulary_size(), load(toy).config().d_vocab);
        let directory =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models").join(toy.name());
        let bytes: u64 = std::fs::read_dir(directory).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 4_000_000, "{toy} takes {bytes} bytes");
    }
}

#[test]
fn the_comparison_notebooks_prompts_fit_the_toy_models() {
    for toy in Toy::ALL {
        let tokenizer = toy.tokenizer().unwrap();
        let bos = Some(0);
        let pair = comparison_pair(&tokenizer, bos).unwrap();
        assert_eq!((pair.width(), pair.first_difference(0)), (17, Some(10)));
        assert_eq!(pair.labels(0).concat(), tokenizer.decode(&[0]) + COMPARISON_PROMPT);
        let aligned = contrastive_pair(&tokenizer, bos, Contrast::Aligned).unwrap();
        assert_eq!((aligned.width(), aligned.first_difference(0)), (17, Some(2)));
        let differing =
            |p: &PromptPairs| p.pairs()[0].clean.iter().zip(&p.pairs()[0].corrupted).filter(|(a, b)| a != b).count();
        assert_eq!(differing(&aligned), 2);
        let printed = contrastive_pair(&tokenizer, bos, Contrast::AsPrinted).unwrap();
        assert_eq!((printed.width(), printed.end(0)), (19, 18));
        assert_eq!(printed.pairs()[0].clean[17..], [0, 0]);
    }
}
