//! The factual-recall example that closes the attribution-patching demo.
//!
//! [`pairs`] makes the example's pairs, and [`analyze`] patches layers into them by position.

use burn::tensor::backend::Backend;
use rewire_analysis::Outcome;
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Question};
use rewire_model::{FinalNormGain, ReadPositions, Readout, Run, Transformer};
use rewire_tasks::facts::{FACTS, FactCorruption, FactsError, demo_fact_pair, fact_prompt};
use rewire_tasks::{LogitDiff, PairsError, PromptPairs, Tokenizer};

use crate::setup::complete;
use crate::{Setup, StudyError};

/// The kinds of nodes that are patched by position. The demo patches the first.
pub const KINDS: [Component; 3] = [Component::ResidPre, Component::AttnOut, Component::MlpOut];

/// Number of next tokens shown per prompt, as in the demo's `test_prompt`.
pub const SHOWN: usize = 10;

/// A clean prompt patched into one corrupted prompt.
#[derive(Debug, Clone)]
pub struct Patched {
    /// The subject of the corrupted prompt.
    pub name: &'static str,
    /// The single pair.
    pub pairs: PromptPairs,
    /// The clean and the corrupted text.
    pub prompts: [String; 2],
    /// The next-token predictions after the clean and after the corrupted prompt.
    pub next: [Next; 2],
    /// Exact effects of layers by position.
    pub outcome: Outcome,
}

/// A model's predictions for the token after a prompt.
#[derive(Debug, Clone)]
pub struct Next {
    /// Token, logit and probability, the likeliest token first.
    pub likeliest: Vec<(String, f32, f32)>,
    /// Probability and rank (from 1) of the clean prompt's answer and of the corrupted prompt's.
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
    /// The rank of the city among all tokens, from 1.
    pub rank: usize,
}

/// The results of the example.
#[derive(Debug, Clone)]
pub struct Found {
    /// The effects on each pair.
    pub patched: Vec<Patched>,
    /// Direct logit attribution by layer for the first pair: residual stream, attention, MLP.
    pub direct: Outcome,
    /// The logit difference that the biases of the final norm and of the unembedding add.
    pub bias: f32,
    /// The probability and rank of each landmark's city.
    pub facts: Vec<Fact>,
}

/// The example's pairs.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// The pairs that can be made, each with the subject of its corrupted prompt.
    pub pairs: Vec<(&'static str, PromptPairs)>,
    /// One sentence for each pair that cannot be made, with the reason.
    pub left_out: Vec<String>,
}

/// Returns the tokens of the Eiffel Tower and of the Colosseum, as text.
fn landmarks(tokenizer: &Tokenizer) -> String {
    let tokens = |landmark: &str| {
        let ids = tokenizer.encode(&format!(" {landmark}")).unwrap_or_default();
        ids.iter().map(|&id| tokenizer.decode(&[id])).collect::<Vec<_>>().join("|")
    };
    format!(" ({} and {})", tokens(FACTS[0].0), tokens(FACTS[1].0))
}

/// Makes the pairs: the Eiffel Tower against the Colosseum, and against random words drawn by
/// `seed`. A pair whose prompts differ in length is left out.
///
/// # Errors
/// [`StudyError::Facts`] if the tokenizer lacks an answer.
pub fn pairs(tokenizer: &Tokenizer, bos: Option<u32>, seed: u64) -> Result<Pairs, StudyError> {
    let sets = [("the Colosseum", FactCorruption::Colosseum), ("random words", FactCorruption::RandomWords(seed))];
    let mut made = Pairs { pairs: Vec::new(), left_out: Vec::new() };
    for (name, corruption) in sets {
        match demo_fact_pair(tokenizer, bos, corruption) {
            // The other pair can still be made.
            Err(FactsError::Pairs(error @ PairsError::UnequalLengths { .. })) => {
                let landmarks =
                    if corruption == FactCorruption::Colosseum { landmarks(tokenizer) } else { String::new() };
                made.left_out.push(format!("The pair with {name} is left out: {error}{landmarks}."));
            }
            found => made.pairs.push((name, found?)),
        }
    }
    Ok(made)
}

/// Patches the pairs, and measures the probability of every landmark's city. Prompts begin with
/// `bos`.
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
        return Err(StudyError::Prompts("there is no pair of prompts: the example needs at least one".to_owned()));
    }
    let nodes = KINDS.map(NodeKind::by_position);
    let mut outcomes = Vec::new();
    for (name, pairs) in &sets {
        let metric = LogitDiff::new(pairs);
        let question = Question::new(pairs, &metric);
        let execution = setup.execution(model, pairs.width());
        outcomes.push(setup.share(&format!("patching into {name}"), execution, |execution| {
            activation_patching(model, question, &nodes, Direction::Denoising, execution)
        })?);
    }
    let outcomes = outcomes.into_iter().map(complete).collect::<Result<Vec<_>, _>>()?;
    let mut patched = Vec::new();
    for ((name, pairs), outcome) in sets.into_iter().zip(outcomes) {
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
        // A city of several tokens has no single next-token probability.
        let Ok(answer) = tokenizer.single_token(&format!(" {city}")) else { continue };
        let tokens = tokenizer.encode_prompt(&fact_prompt(0, landmark), bos)?;
        let [(probability, rank), _] = next(model, tokenizer, &tokens, [answer, answer])?.answers;
        facts.push(Fact { landmark, city, probability, rank });
    }
    Ok(Found { patched, direct, bias, facts })
}

/// Returns the model's predictions for the token after a prompt.
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
