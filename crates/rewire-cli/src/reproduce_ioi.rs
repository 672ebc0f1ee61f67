//! `cargo xtask reproduce-ioi`: the attribution-patching demo on indirect object identification.

mod arguments;
mod report;
mod shown;

use burn::backend::Autodiff;
use rewire_analysis::Outcome;
use rewire_analysis::Reduce;
use rewire_analysis::run::Scale;
use rewire_model::Transformer;
use rewire_report::{Labels, Table, describe_baselines};
use rewire_studies::Check;
use rewire_studies::ioi;
use rewire_tasks::ioi::{IoiGenerator, Split, demo_pairs};
use serde_json::{Value, json};

use crate::identity::identity;
use crate::interrupt::Interrupts;
use crate::model::Source;
use crate::notices::{announce, warn};
use crate::on_device::on_device;
use crate::output::text_table;
use crate::publish::{Publication, RESULTS};
use crate::session::Session;
pub(crate) use arguments::Arguments;
use rewire_report::agreement;
use rewire_report::head_edges::AXES as PATH_AXES;
use rewire_report::names::counted;
use shown::{Found, Set, TOP, correlation};

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
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
    let directory = arguments.output.take(&arguments.out, &RESULTS, &run, interrupts)?;
    announce(&source)?;

    let found = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        Ok(ioi::analyze(&model, &session.setup(), demo, generated, arguments.norm)?)
    })?;
    let checks = match source.is_gpt2_small() {
        true => ioi::checks(&found, tokenizer),
        false => Vec::new(),
    };
    let ioi::Found { demo, sets, .. } = found;
    let sets: Vec<Set> = sets.into_iter().map(|found| Set::new(found, arguments.seed)).collect();
    let warnings = warn(
        &source,
        sets.iter().map(|found| (found.set, found.outcomes.iter().flatten().flat_map(Outcome::warnings).collect())),
    );
    let found = Found { demo, sets, checks, warnings };

    let by_set = |describe: &dyn Fn(&Set) -> Value| -> Value {
        found.sets.iter().map(|found| (found.set.to_owned(), describe(found))).collect()
    };
    Publication {
        run,
        tables: tables(&found),
        metric: "logit-diff-normalized".to_owned(),
        seed: arguments.seed,
        labels: Labels::Sets(found.sets.iter().map(|set| (set.set.to_owned(), Labels::Each(&set.pairs))).collect()),
        baselines: by_set(&|found| describe_baselines(&found.outcomes[0][0].baselines)),
        warnings: found.warnings.clone(),
        notes: json!({
            "norm": arguments.norm,
            "uncertainty": by_set(&|found| found.describe_certainty(arguments.seed)),
            "agreement": agreement::describe(&found.demo.agreements),
        }),
        page: report::page(&session, &source, &found, arguments),
        files: Vec::new(),
        summary: summary(&session, &source, &found),
    }
    .publish(&session, &source, &directory)
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
        prompts_by_position: None,
    });
    tables
}

fn summary(session: &Session, source: &Source, found: &Found) -> String {
    let mut text = format!("{} on {}\n", source.name, session.device());
    for set in &found.sets {
        let [clean, corrupted] = set.baselines();
        let (n, name) = (set.pairs.len(), set.set);
        let prompts = counted(n, &format!("{name} prompt"));
        text += &format!("\n{prompts}: clean logit difference {clean:.4}, corrupted {corrupted:.4}\n");
        for (index, direction) in set.shown() {
            let heads = set.heads(index);
            let (header, rows) = set.table(index, TOP);
            text += &format!("\n{direction}, heads by exact effect (head_z, all positions)\n");
            text += &text_table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
            text += &format!("  {}\n", set.certainty[index].in_words());
            text += &match correlation(&heads) {
                Some(r) => format!("  attribution and exact effect over {} heads: Pearson {r:.4}\n", heads.len()),
                None => "  no correlation: attribution or exact effect is the same for all heads\n".to_owned(),
            };
        }
        text += &set.noising_in_words().map_or_else(String::new, |words| format!("\n{words}\n"));
    }
    text += "\nattribution compared with exact effects on the demo's prompts, denoising\n";
    text += &text_table(&agreement::HEADER, &agreement::rows(&found.demo.agreements));
    if !found.checks.is_empty() {
        text += "\ncompared with the figures that the demo prints\n";
        text += &text_table(&Check::HEADER, &found.checks.iter().map(Check::row).collect::<Vec<_>>());
    }
    text
}
