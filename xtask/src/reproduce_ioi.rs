//! `cargo xtask reproduce-ioi`: the attribution-patching demo on indirect object identification.

mod report;

use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use ndarray::Array5;
use rewire_analysis::{
    Component, Direction, NodeKind, Options, Outcome, Scale, activation_patching, attention_attribution,
    attribution_patching, pearson,
};
use rewire_model::Transformer;
use rewire_report::{
    About, Check, Prompts, Table, Verdict, check_directory, describe_baselines, write_tables, write_whole,
};
use rewire_tasks::ioi::{Corruption, DEMO_ANSWER_IDS_GPT2, IoiGenerator, Split, demo_pairs, demo_prompts};
use rewire_tasks::{LogitDiff, PromptPairs};
use serde_json::Value;

use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{about, head_name, print, text_table};
use crate::progress::with_bar;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Generated prompts, beside the demo's eight; 0 for none.
    #[arg(long, default_value_t = 100)]
    prompts: usize,
    /// Seed of the generated prompts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How generated prompts are corrupted: s2-io, s1-other, io-other, abc.
    #[arg(long, default_value = "s2-io")]
    corruption: Corruption,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ioi")]
    out: PathBuf,
}

/// What is found on one set of prompts.
struct Findings {
    /// `demo` or `generated`.
    set: &'static str,
    pairs: PromptPairs,
    /// Denoising then noising; exact, then by attribution.
    outcomes: Vec<[Outcome; 2]>,
    /// Attention attribution, `[prompt, layer, head, dest, src]`; of the demo's prompts alone.
    attention: Option<Array5<f32>>,
}

/// A head with its exact effect, its attribution and the standard error of the former.
struct HeadEffect {
    layer: usize,
    head: usize,
    exact: f32,
    attribution: f32,
    standard_error: f64,
}

const HEADS: NodeKind = NodeKind { component: Component::HeadZ, by: rewire_analysis::By::All };
const DIRECTIONS: [Direction; 2] = [Direction::Denoising, Direction::Noising];

/// Heads that the tables list.
const TOP: usize = 10;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let source = Source::open(&arguments.model)?;
    let tokenizer = source.tokenizer()?;
    let bos = source.config.bos_token;
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

    let findings = on_device!(arguments.model.device, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let mut findings = vec![analyse_demo(&model, demo)?];
        if let Some(pairs) = generated {
            findings.push(analyse(&model, "generated", pairs, &[HEADS])?);
        }
        anyhow::Ok(findings)
    })?;
    let checks = if source.is_gpt2_small() { checks(&findings[0]) } else { Vec::new() };

    let by_set = |describe: fn(&Findings) -> Value| -> Value {
        findings.iter().map(|found| (found.set.to_owned(), describe(found))).collect()
    };
    let about = About {
        metric: "logit-diff-normalised".to_owned(),
        seed: Some(arguments.seed),
        labels: by_set(|found| {
            (0..found.pairs.len()).map(|p| found.pairs.labels(p).to_vec()).collect::<Vec<_>>().into()
        }),
        baselines: by_set(|found| describe_baselines(&found.outcomes[0][0].baselines)),
        ..about(&source, arguments.model.device, started)
    };
    write_tables(&arguments.out, &tables(&findings), &about)?;
    let path = arguments.out.join("report.html");
    write_whole(&path, report::page(&source, &findings, &checks, arguments).render().as_bytes())?;

    print(&summary(&source, &findings, &checks, arguments));
    print(&format!("\n{:.1} s; report: {}\n", started.elapsed().as_secs_f64(), path.display()));
    Ok(())
}

/// The demo's prompts: heads, and the residual stream and layer outputs by position; and attention attribution.
fn analyse_demo<B: AutodiffBackend>(model: &Transformer<B>, pairs: PromptPairs) -> anyhow::Result<Findings> {
    let by_position = [Component::ResidPre, Component::AttnOut, Component::MlpOut].map(NodeKind::by_position);
    let nodes = [&[HEADS], by_position.as_slice()].concat();
    let mut findings = analyse(model, "demo", pairs, &nodes)?;
    let metric = LogitDiff::new(&findings.pairs);
    findings.attention = Some(attention_attribution(model, &findings.pairs, &metric, &Options::default())?);
    Ok(findings)
}

fn analyse<B: AutodiffBackend>(
    model: &Transformer<B>,
    set: &'static str,
    pairs: PromptPairs,
    nodes: &[NodeKind],
) -> anyhow::Result<Findings> {
    let metric = LogitDiff::new(&pairs);
    let inner = model.valid();
    let mut outcomes = Vec::new();
    for direction in DIRECTIONS {
        let options = Options { direction, scale: Scale::Normalised, ..Options::default() };
        let exact = with_bar(&format!("{set} prompts, {direction}"), |progress| {
            activation_patching(&inner, &pairs, &metric, nodes, &Options { progress, ..options })
        })?;
        outcomes.push([exact, attribution_patching(model, &pairs, &metric, nodes, &options)?]);
    }
    Ok(Findings { set, pairs, outcomes, attention: None })
}

impl Findings {
    /// The heads by falling size of their exact effect, in one of [`DIRECTIONS`].
    fn heads(&self, direction: usize) -> Vec<HeadEffect> {
        let [exact, attribution] = &self.outcomes[direction];
        let [mean, estimate] = [exact, attribution].map(|outcome| outcome.effects[0].mean());
        let values = &exact.effects[0].values;
        let n = self.pairs.len() as f64;
        let head = |(layer, head): (usize, usize)| {
            let mean = mean[[layer, head]];
            let squares =
                (0..self.pairs.len()).map(|p| f64::from(values[[p, layer, head]] - mean).powi(2)).sum::<f64>();
            let standard_error = (squares / (n - 1.0).max(1.0) / n).sqrt();
            HeadEffect { layer, head, exact: mean, attribution: estimate[[layer, head]], standard_error }
        };
        let (layers, heads) = (mean.shape()[0], mean.shape()[1]);
        let mut all: Vec<_> = (0..layers).flat_map(|l| (0..heads).map(move |h| (l, h))).map(head).collect();
        all.sort_by(|a, b| b.exact.abs().total_cmp(&a.exact.abs()));
        all
    }

    /// Clean and corrupted mean of the logit difference.
    fn baselines(&self) -> [f64; 2] {
        self.outcomes[0][0].baselines.means()
    }
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

fn tables(findings: &[Findings]) -> Vec<Table> {
    let mut tables = Vec::new();
    for found in findings {
        for outcome in found.outcomes.iter().flatten() {
            for effects in &outcome.effects {
                let name = format!("{}/{}/{}/{}", found.set, outcome.method, outcome.direction, effects.kind);
                tables.push(Table::new(name, effects, Prompts::Each, outcome));
            }
        }
        if let Some(attention) = &found.attention {
            tables.push(Table {
                name: format!("{}/attention-attribution", found.set),
                axes: ["prompt", "layer", "head", "dest", "src"].map(str::to_owned).to_vec(),
                values: attention.clone().into_dyn(),
                method: None,
                direction: None,
                scale: Scale::Normalised,
            });
        }
    }
    tables
}

fn summary(source: &Source, findings: &[Findings], checks: &[Check], arguments: &Arguments) -> String {
    let mut text = format!("{} on {}\n", source.name, arguments.model.device.resolve());
    for found in findings {
        let [clean, corrupted] = found.baselines();
        let (n, set) = (found.pairs.len(), found.set);
        text += &format!("\n{n} {set} prompts: clean logit difference {clean:.4}, corrupted {corrupted:.4}\n");
        for (index, direction) in DIRECTIONS.into_iter().enumerate() {
            let heads = found.heads(index);
            let rows = heads.iter().take(TOP).map(|h| {
                vec![
                    head_name(h.layer, h.head),
                    format!("{:.4}", h.exact),
                    format!("{:.4}", h.standard_error),
                    format!("{:.4}", h.attribution),
                ]
            });
            text += &format!("\n{direction}, heads by exact effect (z, all positions)\n");
            text += &text_table(&["head", "exact", "std. error", "attribution"], &rows.collect::<Vec<_>>());
            text += &match correlation(&heads) {
                Some(r) => format!("  attribution against exact effect over {} heads: Pearson {r:.4}\n", heads.len()),
                None => "  attribution or exact effect is the same for all heads: no correlation\n".to_owned(),
            };
        }
    }
    if !checks.is_empty() {
        text += "\nagainst the figures that the demo prints\n";
        let row = |c: &Check| vec![c.what.clone(), c.expected.clone(), c.got.clone(), c.verdict.text().to_owned()];
        text += &text_table(&["figure", "expected", "got", "verdict"], &checks.iter().map(row).collect::<Vec<_>>());
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
