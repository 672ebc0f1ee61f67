//! The factual-recall example that closes the attribution-patching demo.
//!
//! [`pairs`] makes the example's pairs, and [`analyze`] patches layers into them by position.

use burn::tensor::backend::Backend;
use rewire_analysis::Outcome;
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_model::{FinalNormGain, ReadPositions, Readout, Run, Transformer};
use rewire_tasks::facts::{FACTS, FactCorruption, FactsError, demo_fact_pair, fact_prompt};
use rewire_tasks::{LogitDiff, PairsError, PromptPairs, Tokenizer};

use crate::{Setup, StudyError};

/// What is patched, position by position; the demo's is the first.
pub const KINDS: [Component; 3] = [Component::ResidPre, Component::AttnOut, Component::MlpOut];

/// Next tokens that are shown of each prompt: as many as the demo's `test_prompt` prints.
pub const SHOWN: usize = 10;

/// Clean prompt against one corrupted one.
#[derive(Debug, Clone)]
pub struct Patched {
    /// What the corrupted prompt is about.
    pub name: &'static str,
    /// The one pair.
    pub pairs: PromptPairs,
    /// The clean and the corrupted text.
    pub prompts: [String; 2],
    /// The likeliest next tokens of the clean and of the corrupted prompt, with their probabilities; and those of both answers.
    pub next: [Next; 2],
    /// Exact effects of layers by position.
    pub outcome: Outcome,
}

/// What a model goes on with.
#[derive(Debug, Clone)]
pub struct Next {
    /// The token, its logit and its probability, the likeliest first.
    pub likeliest: Vec<(String, f32, f32)>,
    /// Probability and rank (from 1) of the clean prompt's answer and of the corrupted one's.
    pub answers: [(f32, usize); 2],
}

/// Whether the model knows a landmark's city.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The landmark.
    pub landmark: &'static str,
    /// Its city.
    pub city: &'static str,
    /// The probability of the city.
    pub probability: f32,
    /// Its rank among all tokens, from 1.
    pub rank: usize,
}

/// All that is found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The pairs, patched.
    pub patched: Vec<Patched>,
    /// What layers add to the logit difference themselves, for the first pair: stream, attention, MLP.
    pub direct: Outcome,
    /// What the biases of the final norm and of the unembedding add to it.
    pub bias: f32,
    /// Which landmarks the model knows the city of.
    pub facts: Vec<Fact>,
}

/// The example's pairs, each with what its corrupted prompt is about.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// The pairs that can be made.
    pub pairs: Vec<(&'static str, PromptPairs)>,
    /// Why each other one cannot, in a sentence.
    pub left_out: Vec<String>,
}

/// Makes the pairs: the Eiffel Tower against the Colosseum, and against random words drawn by `seed`.
/// A pair whose prompts differ in length is left out.
///
/// # Errors
/// [`StudyError::Facts`] if the tokenizer lacks an answer.
pub fn pairs(tokenizer: &Tokenizer, bos: Option<u32>, seed: u64) -> Result<Pairs, StudyError> {
    let sets = [("the Colosseum", FactCorruption::Colosseum), ("random words", FactCorruption::RandomWords(seed))];
    let mut made = Pairs { pairs: Vec::new(), left_out: Vec::new() };
    for (name, corruption) in sets {
        match demo_fact_pair(tokenizer, bos, corruption) {
            // The other may still be had.
            Err(FactsError::Pairs(error @ PairsError::UnequalLengths { .. })) => {
                made.left_out.push(format!("Left out, {name}: {error}."));
            }
            found => made.pairs.push((name, found?)),
        }
    }
    Ok(made)
}

/// Patches the pairs, and asks the model for the city of every landmark. Prompts begin with `bos`.
///
/// # Errors
/// [`StudyError`]; [`StudyError::Prompts`] if there is no pair.
pub fn analyze<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
    bos: Option<u32>,
    sets: Vec<(&'static str, PromptPairs)>,
) -> Result<Found, StudyError> {
    if sets.is_empty() {
        return Err(StudyError::Prompts("the example needs a pair of prompts, and there is none".to_owned()));
    }
    let mut patched = Vec::new();
    for (name, pairs) in sets {
        let metric = LogitDiff::new(&pairs);
        let nodes = KINDS.map(NodeKind::by_position);
        let outcome = setup.step(&format!("patching into {name}"), |progress| {
            activation_patching(
                model,
                Question::new(&pairs, &metric),
                &nodes,
                Direction::Denoising,
                &Execution { progress, ..setup.execution(model, pairs.width()) },
            )
        })?;
        let pair = &pairs.pairs()[0];
        let answers = [pair.answers[0], pair.wrong_answers[0]];
        let next = [&pair.clean, &pair.corrupted].map(|prompt| next(model, tokenizer, prompt, answers));
        let [clean, corrupted] = next;
        let bos_len = usize::from(bos.is_some());
        let prompts = [&pair.clean, &pair.corrupted].map(|tokens| tokenizer.decode(&tokens[bos_len..]));
        patched.push(Patched { name, prompts, next: [clean?, corrupted?], outcome, pairs });
    }
    let kinds = [Component::ResidPost, Component::AttnOut, Component::MlpOut].map(NodeKind::all);
    let direct = logit_attribution(
        model,
        &patched[0].pairs,
        &kinds,
        FinalNormGain::Applied,
        &setup.execution(model, patched[0].pairs.width()),
    )?;
    let pair = &patched[0].pairs.pairs()[0];
    let [answers, wrong_answers] = [&pair.answers, &pair.wrong_answers].map(std::slice::from_ref);
    let bias = model.logit_bias(answers, wrong_answers);
    let bias: f32 = bias.into_data().iter::<f32>().sum();
    let mut facts = Vec::new();
    for (landmark, city) in FACTS {
        // A city of several tokens cannot be asked for by one.
        let Ok(answer) = tokenizer.single_token(&format!(" {city}")) else { continue };
        let tokens = tokenizer.encode_prompt(&fact_prompt(0, landmark), bos)?;
        let [(probability, rank), _] = next(model, tokenizer, &tokens, [answer, answer])?.answers;
        facts.push(Fact { landmark, city, probability, rank });
    }
    Ok(Found { patched, direct, bias, facts })
}

/// What the model goes on with after a prompt.
fn next<B: Backend>(
    model: &Transformer<B>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    answers: [u32; 2],
) -> Result<Next, StudyError> {
    let last = Readout { positions: ReadPositions::Each(vec![prompt.len() - 1]), columns: None };
    let logits = model.forward(Run::tokens(model.tokens(&[prompt.to_vec()])?).with_readout(last), ())?;
    let probabilities = burn::tensor::activation::softmax(logits.clone(), 2);
    let [logits, probabilities]: [Vec<f32>; 2] =
        [logits, probabilities].map(|values| values.into_data().iter::<f32>().collect());
    let mut ranked: Vec<usize> = (0..probabilities.len()).collect();
    ranked.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let rank = |token: u32| ranked.iter().position(|&t| t == token as usize).map_or(0, |at| at + 1);
    Ok(Next {
        likeliest: ranked
            .iter()
            .take(SHOWN)
            .map(|&t| (tokenizer.decode(&[t as u32]), logits[t], probabilities[t]))
            .collect(),
        answers: answers.map(|token| (probabilities[token as usize], rank(token))),
    })
}
