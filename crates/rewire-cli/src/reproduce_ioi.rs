//! `cargo xtask reproduce-ioi`: the attribution-patching demo on indirect object identification.

mod arguments;
mod finding;
mod report;
mod shown;
mod summary;

use burn::backend::Autodiff;
use rewire_analysis::Outcome;
use rewire_analysis::Reduce;
use rewire_analysis::run::{Checkpoint, Scale};
use rewire_model::Transformer;
use rewire_report::{Labels, Quantity, Table};
use rewire_store::OutputDirectory;
use rewire_studies::ioi;
use rewire_tasks::PromptPairs;
use rewire_tasks::ioi::{IoiGenerator, Split, demo_pairs};
use serde_json::{Value, json};
use std::convert::Infallible;

use crate::correct::describe_logit_differences;
use crate::identity::identity;
use crate::interrupt::Interrupts;
use crate::model::Source;
use crate::notices::{announce, announce_names, warn};
use crate::on_device::on_device;
use crate::publish::Publication;
use crate::session::Session;
use crate::shards::study::run_study;
use crate::shards::{Basis, Counted, Divisible, with_setup};
pub(crate) use arguments::Arguments;
use rewire_report::agreement;
use rewire_report::edge_agreement::EdgeAgreements;
use rewire_report::head_edges::AXES as PATH_AXES;
use shown::{Found, Set};

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    run_study(&Prepared::read(arguments, interrupts)?, &arguments.shard, interrupts)
}

/// The inputs of the study.
pub(crate) struct Prepared<'a> {
    arguments: &'a Arguments,
    session: Session,
    source: Source,
    demo: PromptPairs,
    generated: Option<PromptPairs>,
    /// Everything that the results depend on.
    run: Value,
}

impl<'a> Prepared<'a> {
    /// Reads and checks the inputs.
    pub(crate) fn read(arguments: &'a Arguments, interrupts: &Interrupts) -> anyhow::Result<Self> {
        let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
        let source = Source::open(&arguments.model)?;
        let tokenizer = source.tokenizer()?;
        let bos = source.bos_for_text()?;
        let demo = demo_pairs(tokenizer, bos)?;
        demo.check_model(source.config.d_vocab, source.config.n_ctx)?;
        let generated = match arguments.prompts {
            0 => None,
            n => {
                let prompts = IoiGenerator::new(tokenizer)?.sample(n, arguments.seed, Split::All);
                Some(arguments.corruption.pairs(&prompts, tokenizer, bos)?)
            }
        };
        let run = identity("reproduce-ioi", &session, &source, arguments.describe())?;
        Ok(Self { arguments, session, source, demo, generated, run })
    }
}

impl Divisible for Prepared<'_> {
    type Found = ioi::Found;
    type Memory = Infallible;

    fn basis(&self) -> Basis<'_> {
        let Self { arguments, session, source, run, .. } = self;
        Basis { session, source, run, out: &arguments.out, output: &arguments.output }
    }

    fn set_command(&mut self, command: Vec<String>) {
        self.session.set_command(command);
    }

    fn announce(&self, _: Option<Infallible>) -> anyhow::Result<()> {
        announce(&self.source)?;
        if self.arguments.prompts > 0 { announce_names(&self.source) } else { Ok(()) }
    }

    fn compute(&self, checkpoint: &dyn Checkpoint, counted: Counted) -> anyhow::Result<ioi::Found> {
        let Self { arguments, session, source, demo, generated, .. } = self;
        on_device!(session, |B, device| {
            let model: Transformer<Autodiff<B>> = source.load(&device)?;
            with_setup(session, checkpoint, counted, |setup| {
                Ok(ioi::analyze(&model, setup, demo.clone(), generated.clone(), arguments.norm)?)
            })
        })
    }

    fn write(&self, found: ioi::Found, directory: &OutputDirectory) -> anyhow::Result<String> {
        let Self { arguments, session, source, run, .. } = self;
        let checks = match source.is_gpt2_small() {
            true => ioi::checks(&found, source.tokenizer()?),
            false => Vec::new(),
        };
        let ioi::Found { demo, sets, edges, .. } = found;
        let sets: Vec<Set> = sets.into_iter().map(|found| Set::new(found, arguments.seed)).collect();
        let warnings = warn(
            source,
            sets.iter().map(|found| (found.set, found.outcomes.iter().flatten().flat_map(Outcome::warnings).collect())),
        );
        let found = Found { demo, sets, edges, checks, warnings };
        let finding = finding::finding(&found);

        let by_set = |describe: &dyn Fn(&Set) -> Value| -> Value {
            found.sets.iter().map(|found| (found.set.to_owned(), describe(found))).collect()
        };
        Publication {
            run: run.clone(),
            tables: tables(&found),
            metric: "logit-diff-normalized".to_owned(),
            seed: arguments.seed,
            labels: Labels::Sets(found.sets.iter().map(|set| (set.set.to_owned(), Labels::Each(&set.pairs))).collect()),
            baselines: by_set(&|found| describe_logit_differences(&found.outcomes[0][0].baselines)),
            warnings: found.warnings.clone(),
            notes: json!({
                "norm": arguments.norm,
                "uncertainty": by_set(&|found| found.describe_certainty(arguments.seed)),
                "agreement": agreement::describe(&found.demo.agreements),
                "agreement_of_edges": EdgeAgreements::new(&found.edges).describe(),
            }),
            page: report::page(session, source, &found, &finding, arguments),
            files: Vec::new(),
            summary: summary::summary(session, source, &found, &finding) + "\n",
        }
        .write(session, source, directory)
    }
}

fn tables(found: &Found) -> Vec<Table> {
    let mut tables = Vec::new();
    for set in &found.sets {
        for outcome in set.outcomes.iter().flatten() {
            for effects in &outcome.effects {
                let name = format!("{}/{}/{}/{}", set.set, outcome.method, outcome.direction, effects.kind);
                tables.push(Table::new(name, effects, Reduce::PerPrompt, outcome));
            }
        }
    }
    let demo = &found.demo;
    for outcome in [&demo.exact, &demo.attribution] {
        for effects in &outcome.effects {
            let name = format!("demo/{}/{}/{}", outcome.method, outcome.direction, effects.kind);
            if tables.iter().all(|t| t.name != name) {
                tables.push(Table::new(name, effects, Reduce::PerPrompt, outcome));
            }
        }
    }
    let [exact, estimate] = [("exact", &found.edges.exact), ("eap", &found.edges.estimates[0].1)];
    tables.extend(
        [exact, estimate].map(|(name, edges)| Table::of_edges(format!("demo/edges/{name}"), edges, Reduce::Mean)),
    );
    let axes = |names: &[&str]| names.iter().map(|a| (*a).to_owned()).collect();
    let [name, attention] = ["head_edges", "attention-attribution"].map(|n| format!("demo/{n}"));
    tables.push(Table::of(name, axes(&PATH_AXES[1..]), demo.paths.clone().into_dyn(), &demo.attribution));
    tables.push(Table {
        name: attention,
        axes: axes(&["prompt", "layer", "head", "dest", "src"]),
        values: demo.attention_attribution.clone().into_dyn(),
        method: None,
        direction: None,
        scale: Some(Scale::Normalized),
        quantity: Quantity::Effect,
        ..Table::default()
    });
    tables
}
