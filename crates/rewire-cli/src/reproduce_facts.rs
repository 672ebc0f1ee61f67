//! `cargo xtask reproduce-facts`: the factual-recall example that closes the attribution-patching demo.

mod report;

use std::path::PathBuf;

use burn::tensor::backend::Backend;
use clap::Args;
use ndarray::Array2;
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::Options;
use rewire_analysis::{Effects, Outcome};
use rewire_model::{FinalNormGain, ReadPositions, Readout, Run, Transformer};
use rewire_report::{Labels, Prompts, Table, describe_baselines};
use rewire_tasks::facts::{FACTS, FactCorruption, FactsError, demo_fact_pair, fact_prompt};
use rewire_tasks::{LogitDiff, PairsError, PromptPairs, Tokenizer};
use serde_json::{Value, json};

use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{RESULTS, WaitArguments, announce, text_table, token_labels, warn};
use crate::publish::Publication;
use crate::session::Session;
use rewire_studies::Setup;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Seed of the random words that replace the landmark, where the demo's four are not as many tokens.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-facts")]
    out: PathBuf,
    #[command(flatten)]
    wait: WaitArguments,
}

/// What is patched, position by position; the demo's is the first.
const KINDS: [Component; 3] = [Component::ResidPre, Component::AttnOut, Component::MlpOut];

/// Next tokens that are shown of each prompt: as many as the demo's `test_prompt` prints.
const SHOWN: usize = 10;

/// Clean prompt against one corrupted one.
struct Patched {
    name: &'static str,
    pairs: PromptPairs,
    prompts: [String; 2],
    /// The tokens of both, where they differ, each with its position.
    labels: Vec<String>,
    /// The likeliest next tokens of the clean and of the corrupted prompt, with their probabilities; and those of both answers.
    next: [Next; 2],
    outcome: Outcome,
}

/// What a model goes on with.
struct Next {
    /// The token, its logit and its probability, the likeliest first.
    likeliest: Vec<(String, f32, f32)>,
    /// Probability and rank (from 1) of the clean prompt's answer and of the corrupted one's.
    answers: [(f32, usize); 2],
}

/// Whether the model knows a landmark's city.
struct Fact {
    landmark: &'static str,
    city: &'static str,
    probability: f32,
    rank: usize,
}

/// All that the report is made of.
struct Found {
    patched: Vec<Patched>,
    /// What layers add to the logit difference themselves, of the first pair: stream, attention, MLP.
    direct: Outcome,
    /// What the biases of the final norm and of the unembedding add to it.
    bias: f32,
    facts: Vec<Fact>,
    /// What is said of a pair that cannot be made.
    left_out: Vec<String>,
    /// Warnings, one line each.
    warnings: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory)?;
    let source = Source::open(&arguments.model)?;
    let tokenizer = source.tokenizer()?;
    let bos = source.bos_for_text()?;
    let sets =
        [("the Colosseum", FactCorruption::Colosseum), ("random words", FactCorruption::RandomWords(arguments.seed))];
    let mut pairs = Vec::new();
    let mut left_out = Vec::new();
    for (name, corruption) in sets {
        let pair = match demo_fact_pair(tokenizer, bos, corruption) {
            // The other may still be had.
            Err(FactsError::Pairs(error @ PairsError::UnequalLengths { .. })) => {
                left_out.push(format!("Left out, {name}: {error}."));
                continue;
            }
            found => found?,
        };
        pair.check_model(source.config.d_vocab, source.config.n_ctx)?;
        pairs.push((name, pair));
    }
    anyhow::ensure!(!pairs.is_empty(), "no prompt is as long as the Eiffel Tower's: {}", left_out.join(" "));
    let directory = arguments.wait.take(&arguments.out, &RESULTS)?;
    announce(&source)?;
    let mut found = on_device!(&session, |B, device| {
        let model: Transformer<B> = source.load(&device)?;
        analyse(&model, &session.setup(), tokenizer, bos, pairs, left_out)
    })?;
    found.warnings = warn(&source, found.patched.iter().map(|set| (set.name, set.outcome.warnings())));

    let by_set = |describe: &dyn Fn(&Patched) -> Value| -> Value {
        found.patched.iter().map(|set| (set.name.to_owned(), describe(set))).collect()
    };
    Publication {
        tables: tables(&found),
        metric: "logit-diff-normalised".to_owned(),
        seed: arguments.seed,
        labels: Labels::Sets(
            found.patched.iter().map(|set| (set.name.to_owned(), Labels::First(&set.pairs))).collect(),
        ),
        baselines: by_set(&|set| describe_baselines(&set.outcome.baselines)),
        warnings: found.warnings.clone(),
        notes: json!({ "prompts": by_set(&|set| json!(set.prompts)) }),
        page: report::page(&session, &source, &found),
        files: Vec::new(),
        summary: summary(&session, &source, &found),
    }
    .publish(&session, &source, &directory)
}

fn analyse<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
    bos: Option<u32>,
    sets: Vec<(&'static str, PromptPairs)>,
    left_out: Vec<String>,
) -> anyhow::Result<Found> {
    let mut patched = Vec::new();
    for (name, pairs) in sets {
        let metric = LogitDiff::new(&pairs);
        let nodes = KINDS.map(NodeKind::by_position);
        let outcome = setup.step(&format!("patching into {name}"), |progress| {
            activation_patching(
                model,
                &pairs,
                &metric,
                &nodes,
                &Options { progress, ..setup.options(model, pairs.width()) },
            )
        })?;
        let pair = &pairs.pairs()[0];
        let answers = [pair.answers[0], pair.wrong_answers[0]];
        let next = [&pair.clean, &pair.corrupted].map(|prompt| next(model, tokenizer, prompt, answers));
        let [clean, corrupted] = next;
        let bos_len = usize::from(bos.is_some());
        let prompts = [&pair.clean, &pair.corrupted].map(|tokens| tokenizer.decode(&tokens[bos_len..]));
        let corrupted_tokens =
            token_labels(&pair.corrupted.iter().map(|&t| tokenizer.decode(&[t])).collect::<Vec<_>>());
        let labels = token_labels(&pairs.labels(0)).into_iter().zip(corrupted_tokens);
        let labels = labels.map(|(clean, other)| match clean == other {
            true => clean,
            false => format!("{} / {}", clean.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit()), other.trim()),
        });
        let labels = labels.collect();
        patched.push(Patched { name, prompts, labels, next: [clean?, corrupted?], outcome, pairs });
    }
    let kinds = [Component::ResidPost, Component::AttnOut, Component::MlpOut].map(NodeKind::all);
    let direct = logit_attribution(
        model,
        &patched[0].pairs,
        &kinds,
        FinalNormGain::Applied,
        &setup.options(model, patched[0].pairs.width()),
    )?;
    let pair = &patched[0].pairs.pairs()[0];
    let [answers, wrong_answers] = [&pair.answers, &pair.wrong_answers].map(std::slice::from_ref);
    let bias = model.logit_bias(answers, wrong_answers);
    let bias: f32 = bias.into_data().iter::<f32>().sum();
    let mut facts = Vec::new();
    for (landmark, city) in FACTS {
        // A city of several tokens cannot be asked for by one.
        let Ok(answer) = tokenizer.single_token(&format!(" {city}")) else { continue };
        let tokens: Vec<u32> = bos.into_iter().chain(tokenizer.encode(&fact_prompt(0, landmark))?).collect();
        let [(probability, rank), _] = next(model, tokenizer, &tokens, [answer, answer])?.answers;
        facts.push(Fact { landmark, city, probability, rank });
    }
    Ok(Found { patched, direct, bias, facts, left_out, warnings: Vec::new() })
}

/// What the model goes on with after a prompt.
fn next<B: Backend>(
    model: &Transformer<B>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    answers: [u32; 2],
) -> anyhow::Result<Next> {
    let last = Readout { positions: ReadPositions::Each(vec![prompt.len() - 1]), columns: None };
    let logits = model.forward(Run::tokens(model.tokens(&[prompt.to_vec()])?).reading(last), ())?;
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

/// What the columns of [`next_rows`] are.
const NEXT: [&str; 7] = ["rank", "clean", "logit", "probability", "corrupted", "logit", "probability"];

/// The likeliest next tokens of both prompts, side by side.
fn next_rows(set: &Patched) -> Vec<Vec<String>> {
    let [clean, corrupted] = &set.next;
    let cells = |(token, logit, probability): &(String, f32, f32)| {
        [format!("{token:?}"), format!("{logit:.2}"), format!("{:.2}%", 100.0 * probability)]
    };
    let rows = clean.likeliest.iter().zip(&corrupted.likeliest).enumerate();
    rows.map(|(rank, (clean, corrupted))| {
        [(rank + 1).to_string()].into_iter().chain(cells(clean)).chain(cells(corrupted)).collect()
    })
    .collect()
}

fn tables(found: &Found) -> Vec<Table> {
    let mut tables = Vec::new();
    for set in &found.patched {
        for effects in &set.outcome.effects {
            let name = format!("{}/{}", set.name.replace(' ', "-"), effects.kind);
            tables.push(Table::new(name, effects, Prompts::Mean, &set.outcome));
        }
    }
    for effects in &found.direct.effects {
        let name = format!("logit-attribution/{}", effects.kind);
        tables.push(Table::new(name, effects, Prompts::Mean, &found.direct));
    }
    tables
}

/// A kind's effects, `[layer, position]`.
fn by_position(effects: &Effects) -> Array2<f32> {
    effects.mean().into_dimensionality().expect("layers and positions")
}

/// The places of largest effect: layer, token, effect.
fn largest(set: &Patched, effects: &Effects, n: usize) -> Vec<Vec<String>> {
    let map = by_position(effects);
    let mut all: Vec<((usize, usize), f32)> = map.indexed_iter().map(|(place, v)| (place, *v)).collect();
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let row = |((layer, position), value): &((usize, usize), f32)| {
        vec![format!("L{layer} {}", set.labels[*position]), format!("{value:.4}")]
    };
    all.iter().take(n).map(row).collect()
}

fn summary(session: &Session, source: &Source, found: &Found) -> String {
    let mut text = format!("{} on {}\n", source.name, session.device());
    for set in &found.patched {
        let [clean, corrupted] = set.outcome.baselines.means();
        let [of_clean, of_corrupted] = &set.prompts;
        text += &format!("\n{of_clean:?}: logit difference {clean:.4}\n{of_corrupted:?}: {corrupted:.4}\n");
        text += "the likeliest next tokens\n";
        text += &text_table(&NEXT, &next_rows(set));
        for effects in &set.outcome.effects {
            text += &format!("{} from clean to corrupted, by position\n", effects.kind.component);
            text += &text_table(&["place", "effect"], &largest(set, effects, 5));
        }
    }
    for told in &found.left_out {
        text += &format!("\n{told}\n");
    }
    let known = found.facts.iter().filter(|fact| fact.rank == 1).count();
    text += &format!("\n{known} of {} landmarks are followed by their city\n", found.facts.len());
    text
}
