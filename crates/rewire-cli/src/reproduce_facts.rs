//! `cargo xtask reproduce-facts`: the factual-recall example at the end of the attribution-patching
//! demo.

mod report;
mod shown;

use std::path::PathBuf;

use clap::Args;
use rewire_analysis::Effects;
use rewire_analysis::Reduce;
use rewire_model::Transformer;
use rewire_report::{Labels, Table, describe_baselines};
use rewire_studies::facts::{self, Pairs, Patched};
use rewire_tasks::Tokenizer;
use serde_json::{Value, json};

use crate::headings::{OUTPUT, PROMPTS};
use crate::identity::identity;
use crate::interrupt::Interrupts;
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, warn};
use crate::on_device::on_device;
use crate::output::{OutputArguments, text_table};
use crate::publish::{Publication, RESULTS};
use crate::session::Session;
use rewire_report::names::{self, token_labels};
use shown::{Found, NEXT, next_rows};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Seed of the random words that replace the landmark.
    ///
    /// Used only if the demo's four words do not have as many tokens as the landmark.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = PROMPTS)]
    seed: u64,
    /// Directory for the results.
    ///
    /// The files are effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-facts", value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
    let source = Source::open(&arguments.model)?;
    let tokenizer = source.tokenizer()?;
    let bos = source.bos_for_text()?;
    let Pairs { pairs, left_out } = facts::pairs(tokenizer, bos, arguments.seed)?;
    for (_, pair) in &pairs {
        pair.check_model(source.config.d_vocab, source.config.n_ctx)?;
    }
    anyhow::ensure!(
        !pairs.is_empty(),
        "no corrupted prompt has as many tokens as the Eiffel Tower prompt. {}",
        left_out.join(" ")
    );
    let run = identity("reproduce-facts", &session, &source, json!({ "seed": arguments.seed }))?;
    let directory = arguments.output.take(&arguments.out, &RESULTS, &run, interrupts)?;
    announce(&source)?;
    let found = on_device!(&session, |B, device| {
        let model: Transformer<B> = source.load(&device)?;
        Ok(facts::analyze(&model, &session.setup(), tokenizer, bos, pairs)?)
    })?;
    let warnings = warn(&source, found.patched.iter().map(|set| (set.name, set.outcome.warnings())));
    let labels = found.patched.iter().map(|set| labels(tokenizer, set)).collect();
    let found = Found { found, labels, left_out, warnings };

    let by_set = |describe: &dyn Fn(&Patched) -> Value| -> Value {
        found.patched.iter().map(|set| (set.name.to_owned(), describe(set))).collect()
    };
    Publication {
        run,
        tables: tables(&found),
        metric: "logit-diff-normalized".to_owned(),
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

/// Returns a label for each position of a pair: its token and number. Positions that differ have
/// both tokens.
fn labels(tokenizer: &Tokenizer, set: &Patched) -> Vec<String> {
    let pair = &set.pairs.pairs()[0];
    let corrupted_tokens = token_labels(&pair.corrupted.iter().map(|&t| tokenizer.decode(&[t])).collect::<Vec<_>>());
    let labels = token_labels(&set.pairs.labels(0)).into_iter().zip(corrupted_tokens);
    labels
        .map(|(clean, other)| match clean == other {
            true => clean,
            false => format!("{} / {}", clean.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit()), other.trim()),
        })
        .collect()
}

fn tables(found: &Found) -> Vec<Table> {
    let mut tables = Vec::new();
    for set in &found.patched {
        for effects in &set.outcome.effects {
            let name = format!("{}/{}", set.name.replace(' ', "-"), effects.kind);
            tables.push(Table::new(name, effects, Reduce::Mean, &set.outcome));
        }
    }
    for effects in &found.direct.effects {
        let name = format!("logit-attribution/{}", effects.kind);
        tables.push(Table::new(name, effects, Reduce::Mean, &found.direct));
    }
    tables
}

/// Returns the `n` rows of largest effect: layer and token, effect.
fn largest(labels: &[String], effects: &Effects, n: usize) -> Vec<Vec<String>> {
    let row =
        |(place, value): &(Vec<usize>, f32)| vec![format!("L{} {}", place[0], labels[place[1]]), format!("{value:.4}")];
    names::largest(&effects.mean(), n).iter().map(row).collect()
}

fn summary(session: &Session, source: &Source, found: &Found) -> String {
    let mut text = format!("{} on {}\n", source.name, session.device());
    for (set, labels) in found.patched.iter().zip(&found.labels) {
        let [clean, corrupted] = set.outcome.baselines.means();
        let [of_clean, of_corrupted] = &set.prompts;
        text += &format!("\nclean {of_clean:?}: logit difference {clean:.4}\n");
        text += &format!("corrupted {of_corrupted:?}: logit difference {corrupted:.4}\n");
        text += "the likeliest next tokens\n";
        text += &text_table(&NEXT, &next_rows(set));
        for effects in &set.outcome.effects {
            text += &format!("{} patched from the clean into the corrupted run, by position\n", effects.kind.component);
            text += &text_table(&["place", "effect"], &largest(labels, effects, 5));
        }
    }
    for warning in &found.left_out {
        text += &format!("\n{warning}\n");
    }
    let known = found.facts.iter().filter(|fact| fact.rank == 1).count();
    text += &format!("\n{known} of {} landmarks are followed by their city\n", found.facts.len());
    text
}
