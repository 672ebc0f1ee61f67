//! `cargo xtask reproduce-ioi`: the attribution-patching demo on indirect object identification.

mod analyse;
mod report;

use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Autodiff;
use clap::Args;
use rewire_analysis::{Bootstrap, NormJacobian, Scale, pearson};
use rewire_model::Transformer;
use rewire_report::{
    About, Check, Prompts, Table, Verdict, check_directory, describe_baselines, write_tables, write_whole,
};
use rewire_tasks::ioi::{Corruption, DEMO_ANSWER_IDS_GPT2, IoiGenerator, Split, demo_pairs, demo_prompts};
use serde_json::{Value, json};

use crate::agreement;
use crate::arguments::at_most_a_million;
use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{about, announce, print, text_table};
use crate::paths::AXES as PATH_AXES;
use analyse::{DIRECTIONS, Demo, Findings, HeadEffect};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Generated prompts, beside the demo's eight; 0 for none.
    #[arg(long, default_value_t = 100, value_parser = at_most_a_million)]
    prompts: usize,
    /// Seed of the generated prompts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How generated prompts are corrupted: s2-io, s1-other, io-other, abc.
    #[arg(long, default_value = "s2-io")]
    corruption: Corruption,
    /// In the head paths: differentiate the norm in front of a head whole (exact), or with its scale held (frozen).
    #[arg(long, default_value = "exact")]
    norm: NormJacobian,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ioi")]
    out: PathBuf,
}

/// Heads that the tables list.
const TOP: usize = 10;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
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
    check_directory(&arguments.out)?;
    announce(&source);
    let bootstrap = Bootstrap { seed: arguments.seed, ..Bootstrap::default() };

    let (demo_findings, findings) = on_device!(arguments.model.device, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let of_demo = analyse::demo(&model, &demo, arguments.norm)?;
        let mut findings = vec![analyse::heads(&model, "demo", demo)?];
        if let Some(pairs) = generated {
            findings.push(analyse::heads(&model, "generated", pairs)?);
        }
        anyhow::Ok((of_demo, findings))
    })?;
    let checks = if source.is_gpt2_small() { checks(&findings[0]) } else { Vec::new() };
    let found = Found { demo: demo_findings, sets: findings, checks, bootstrap };

    let by_set = |describe: fn(&Findings) -> Value| -> Value {
        found.sets.iter().map(|found| (found.set.to_owned(), describe(found))).collect()
    };
    let Bootstrap { level, resamples, seed } = bootstrap;
    let about = About {
        metric: "logit-diff-normalised".to_owned(),
        seed: Some(arguments.seed),
        labels: by_set(|found| {
            (0..found.pairs.len()).map(|p| found.pairs.labels(p).to_vec()).collect::<Vec<_>>().into()
        }),
        baselines: by_set(|found| describe_baselines(&found.outcomes[0][0].baselines)),
        notes: json!({
            "norm": arguments.norm,
            "bootstrap": { "level": level, "resamples": resamples, "seed": seed },
            "agreement": agreement::describe(&found.demo.agreements),
        }),
        ..about(&source, arguments.model.device, started)
    };
    write_tables(&arguments.out, &tables(&found), &about)?;
    let path = arguments.out.join("report.html");
    write_whole(&path, report::page(&source, &found, arguments).render().as_bytes())?;

    print(&summary(&source, &found, arguments));
    print(&format!("\n{:.1} s; report: {}\n", started.elapsed().as_secs_f64(), path.display()));
    Ok(())
}

/// All that the report is made of.
struct Found {
    demo: Demo,
    /// The demo's prompts, and the generated ones if there are any.
    sets: Vec<Findings>,
    checks: Vec<Check>,
    bootstrap: Bootstrap,
}

fn correlation(heads: &[HeadEffect]) -> Option<f64> {
    pearson(heads.iter().map(|h| (h.exact, h.attribution)))
}

/// The figures that the demo prints, beside ours.
fn checks(demo: &Findings) -> Vec<Check> {
    let [clean, corrupted] = demo.baselines();
    let prompts = demo.pairs.pairs().iter().zip(demo_prompts()).zip(DEMO_ANSWER_IDS_GPT2);
    let ids = prompts.map(|((pair, (_, [answer, wrong])), expected)| {
        let got = [pair.answers[0], pair.wrong_answers[0]];
        Check {
            what: format!("token ids of \" {answer}\", \" {wrong}\""),
            expected: format!("{expected:?}"),
            got: format!("{got:?}"),
            verdict: if got == expected { Verdict::Agrees } else { Verdict::Differs },
        }
    });
    [figure("clean logit difference", 3.5519, clean), figure("corrupted logit difference", -3.5519, corrupted)]
        .into_iter()
        .chain(ids)
        .collect()
}

/// A printed number beside ours; they agree to within the four printed decimals and what float32 adds on another machine.
fn figure(what: &str, expected: f64, got: f64) -> Check {
    let verdict = if (expected - got).abs() < 1e-3 { Verdict::Agrees } else { Verdict::Differs };
    Check { what: what.to_owned(), expected: format!("{expected:.4}"), got: format!("{got:.4}"), verdict }
}

fn tables(found: &Found) -> Vec<Table> {
    let mut tables = Vec::new();
    for set in &found.sets {
        for outcome in set.outcomes.iter().flatten() {
            for effects in &outcome.effects {
                let name = format!("{}/{}/{}/{}", set.set, outcome.method, outcome.direction, effects.kind);
                tables.push(Table::new(name, effects, Prompts::Each, outcome));
            }
        }
    }
    let demo = &found.demo;
    for outcome in [&demo.exact, &demo.attribution] {
        for effects in &outcome.effects {
            let name = format!("demo/{}/{}/{}", outcome.method, outcome.direction, effects.kind);
            if tables.iter().all(|t| t.name != name) {
                tables.push(Table::new(name, effects, Prompts::Each, outcome));
            }
        }
    }
    let axes = |names: &[&str]| names.iter().map(|a| (*a).to_owned()).collect();
    let [name, attention] = ["head_paths", "attention-attribution"].map(|n| format!("demo/{n}"));
    tables.push(Table::of(name, axes(&PATH_AXES[1..]), demo.paths.clone().into_dyn(), &demo.attribution));
    tables.push(Table {
        name: attention,
        axes: axes(&["prompt", "layer", "head", "dest", "src"]),
        values: demo.attention_attribution.clone().into_dyn(),
        method: None,
        direction: None,
        scale: Scale::Normalised,
    });
    tables
}

fn summary(source: &Source, found: &Found, arguments: &Arguments) -> String {
    let mut text = format!("{} on {}\n", source.name, arguments.model.device.resolve());
    for set in &found.sets {
        let [clean, corrupted] = set.baselines();
        let (n, name) = (set.pairs.len(), set.set);
        text += &format!("\n{n} {name} prompts: clean logit difference {clean:.4}, corrupted {corrupted:.4}\n");
        for (index, direction) in DIRECTIONS.into_iter().enumerate() {
            let heads = set.heads(index, found.bootstrap);
            let rows: Vec<_> = heads.iter().take(TOP).map(HeadEffect::cells).collect();
            text += &format!("\n{direction}, heads by exact effect (z, all positions)\n");
            text += &text_table(&["head", "exact", "std. error", "95% interval", "attribution", "its error"], &rows);
            text += &match correlation(&heads) {
                Some(r) => format!("  attribution against exact effect over {} heads: Pearson {r:.4}\n", heads.len()),
                None => "  attribution or exact effect is the same for all heads: no correlation\n".to_owned(),
            };
        }
    }
    text += "\nattribution against exact effects on the demo's prompts, denoising\n";
    text += &text_table(&agreement::HEADER, &agreement::rows(&found.demo.agreements));
    if !found.checks.is_empty() {
        text += "\nagainst the figures that the demo prints\n";
        let row = |c: &Check| vec![c.what.clone(), c.expected.clone(), c.got.clone(), c.verdict.text().to_owned()];
        text +=
            &text_table(&["figure", "expected", "got", "verdict"], &found.checks.iter().map(row).collect::<Vec<_>>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Verdict, figure};

    #[test]
    fn verdicts_follow_the_numbers() {
        assert_eq!(figure("", 3.5519, 3.5521).verdict, Verdict::Agrees);
        assert_eq!(figure("", 3.5519, -3.5519).verdict, Verdict::Differs);
        assert_eq!(figure("", 3.5519, f64::NAN).verdict, Verdict::Differs);
    }
}
