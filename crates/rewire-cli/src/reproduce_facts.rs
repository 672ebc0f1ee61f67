//! `cargo xtask reproduce-facts`: the factual-recall example at the end of the attribution-patching
//! demo.

mod finding;
mod report;
mod shown;
mod summary;

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use clap::Args;
use rewire_analysis::Reduce;
use rewire_analysis::run::Checkpoint;
use rewire_model::Transformer;
use rewire_report::{Labels, Table};
use rewire_store::OutputDirectory;
use rewire_studies::facts::{self, Pairs, Patched};
use rewire_tasks::Tokenizer;
use serde_json::{Value, json};

use crate::correct::describe_logit_differences;
use crate::headings::{OUTPUT, PROMPTS};
use crate::identity::identity;
use crate::interrupt::Interrupts;
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, warn};
use crate::on_device::on_device;
use crate::output::OutputArguments;
use crate::publish::Publication;
use crate::session::Session;
use crate::shards::choice::ShardArguments;
use crate::shards::study::run_study;
use crate::shards::{Basis, Counted, Divisible, with_setup};
use rewire_report::names::token_labels;
use shown::Found;

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
    #[command(flatten)]
    pub(crate) shard: ShardArguments,
}

impl Arguments {
    /// Returns the output directory.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }
}

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    run_study(&Prepared::read(arguments, interrupts)?, &arguments.shard, interrupts)
}

/// The inputs of the study.
pub(crate) struct Prepared<'a> {
    arguments: &'a Arguments,
    session: Session,
    source: Source,
    pairs: Pairs,
    /// Everything that the results depend on.
    run: Value,
}

impl<'a> Prepared<'a> {
    /// Reads and checks the inputs.
    pub(crate) fn read(arguments: &'a Arguments, interrupts: &Interrupts) -> anyhow::Result<Self> {
        let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
        let source = Source::open(&arguments.model)?;
        let pairs = facts::pairs(source.tokenizer()?, source.bos_for_text()?, arguments.seed)?;
        for (_, pair) in &pairs.pairs {
            pair.check_model(source.config.d_vocab, source.config.n_ctx)?;
        }
        anyhow::ensure!(
            !pairs.pairs.is_empty(),
            "no corrupted prompt has as many tokens as the Eiffel Tower prompt. {}",
            pairs.left_out.join(" ")
        );
        let run = identity("reproduce-facts", &session, &source, json!({ "seed": arguments.seed }))?;
        Ok(Self { arguments, session, source, pairs, run })
    }
}

impl Divisible for Prepared<'_> {
    type Found = facts::Found;
    type Memory = Infallible;

    fn basis(&self) -> Basis<'_> {
        let Self { arguments, session, source, run, .. } = self;
        Basis { session, source, run, out: &arguments.out, output: &arguments.output }
    }

    fn set_command(&mut self, command: Vec<String>) {
        self.session.set_command(command);
    }

    fn announce(&self, _: Option<Infallible>) -> anyhow::Result<()> {
        announce(&self.source)
    }

    fn compute(&self, checkpoint: &dyn Checkpoint, counted: Counted) -> anyhow::Result<facts::Found> {
        let Self { session, source, pairs, .. } = self;
        let (tokenizer, bos) = (source.tokenizer()?, source.bos_for_text()?);
        on_device!(session, |B, device| {
            let model: Transformer<B> = source.load(&device)?;
            with_setup(session, checkpoint, counted, |setup| {
                Ok(facts::analyze(&model, setup, tokenizer, bos, pairs.pairs.clone())?)
            })
        })
    }

    fn write(&self, found: facts::Found, directory: &OutputDirectory) -> anyhow::Result<String> {
        let Self { arguments, session, source, pairs, run } = self;
        let tokenizer = source.tokenizer()?;
        let warnings = warn(source, found.patched.iter().map(|set| (set.name, set.outcome.warnings())));
        let labels = found.patched.iter().map(|set| labels(tokenizer, set)).collect();
        let found = Found { found, labels, left_out: pairs.left_out.clone(), warnings };
        let finding = finding::finding(&found);

        let by_set = |describe: &dyn Fn(&Patched) -> Value| -> Value {
            found.patched.iter().map(|set| (set.name.to_owned(), describe(set))).collect()
        };
        Publication {
            run: run.clone(),
            tables: tables(&found),
            metric: "logit-diff-normalized".to_owned(),
            seed: arguments.seed,
            labels: Labels::Sets(
                found.patched.iter().map(|set| (set.name.to_owned(), Labels::First(&set.pairs))).collect(),
            ),
            baselines: by_set(&|set| describe_logit_differences(&set.outcome.baselines)),
            warnings: found.warnings.clone(),
            notes: json!({ "prompts": by_set(&|set| json!(set.prompts)) }),
            page: report::page(session, source, &found, &finding),
            files: Vec::new(),
            summary: summary::summary(session, source, &found, &finding) + "\n",
        }
        .write(session, source, directory)
    }
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
