//! Training data of the toy models: IOI prompts and facts, with their answers.

use rewire_tasks::facts::{FACT_TEMPLATES, FACTS, fact_prompt};
use rewire_tasks::ioi::{IoiGenerator, IoiPrompt, NAMES, OBJECTS, PLACES, Split, TEMPLATES};

/// Words from other prompts in the source documents, to make these prompts usable with the models.
const FURTHER_WORDS: &str = " cat dog the and a red brown fox jumps";

/// A prompt and its continuation. The loss weights the first token of the continuation most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Example {
    pub(crate) prompt: String,
    pub(crate) answer: String,
}

/// Returns every text that the tokenizer is trained on. Texts are split to make each word one
/// token, and "Colosseum" two. The two landmarks of the demo then have as many tokens as each
/// other, as in GPT-2.
pub(crate) fn tokenizer_texts() -> Vec<String> {
    let mut texts: Vec<String> = TEMPLATES.iter().map(|t| without_slots(t)).collect();
    texts.extend(FACT_TEMPLATES.iter().map(|t| without_slots(t)));
    texts.extend(NAMES.iter().chain(&PLACES).chain(&OBJECTS).map(|word| format!(" {word}")));
    for (landmark, city) in FACTS {
        texts.push(format!(" {city}"));
        match landmark {
            "Colosseum" => texts.extend([" Colos".to_owned(), "seum".to_owned()]),
            other => texts.push(format!(" {other}")),
        }
    }
    texts.push(FURTHER_WORDS.to_owned());
    texts
}

fn without_slots(template: &str) -> String {
    ["{FIRST}", "{SECOND}", "{S}", "{PLACE}", "{OBJECT}", "{LANDMARK}"]
        .iter()
        .fold(template.to_owned(), |text, slot| text.replace(&format!(" {slot}"), ""))
}

/// One IOI prompt in this many is answered with the subject. Without wrong answers a model's logit
/// difference grew to 12 and more, and attribution agreed little with exact effects. With this
/// share the logit difference settles near ln 99 = 4.6 (GPT-2's is 3.6).
const ONE_WRONG_IN: usize = 100;

/// Returns `n` training examples: IOI prompts that are not held out, and one fact in eight.
pub(crate) fn training_examples(n: usize, seed: u64) -> Vec<Example> {
    let prompts = IoiGenerator::all_names().sample(n, seed, Split::Training);
    let facts = FACTS.len() * FACT_TEMPLATES.len();
    let example = |(i, prompt): (usize, IoiPrompt)| match i % 8 {
        7 => {
            let fact = (i / 8) % facts;
            let (landmark, city) = FACTS[fact % FACTS.len()];
            Example { prompt: fact_prompt(fact / FACTS.len(), landmark), answer: format!(" {city}") }
        }
        _ => {
            let name = if i % ONE_WRONG_IN == ONE_WRONG_IN / 2 { prompt.subject } else { prompt.io };
            Example { prompt: prompt.text(), answer: format!(" {name}") }
        }
    };
    prompts.into_iter().enumerate().map(example).collect()
}
