//! `rewire circuit scores`: MIB's figures of every way to score edges, each chosen on one half of
//! the prompts and judged on the other.

use std::path::PathBuf;
use std::time::Instant;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, ValueEnum};
use ndarray::{Array1, Array3};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_analysis::edges::{CircuitRuns, EdgeEffects, EdgeGraph, GradientsAt, attribute_all_edges, patch_all_edges};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::run::{Direction, Execution, Intervention, Question, Scale};
use rewire_analysis::{Baselines, Method, Reduce};
use rewire_circuits::{ChoiceCurve, CircuitError, EdgeScores, Judging, Ranking, SIZES, exact_greedy, judge_choice};
use rewire_model::{BackwardRule, Transformer};
use rewire_report::charts::curves;
use rewire_report::numbers::number;
use rewire_report::{Labels, Page, Quantity, Table};
use rewire_store::sha256;
use rewire_studies::Setup;
use rewire_tasks::{LogitDiff, PromptPairs};
use serde_json::{Value, json};

use crate::arguments::at_least_one;
use crate::headings::{OUTPUT, UNCERTAINTY, WHAT};
use crate::interrupt::Interrupts;
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, new_page};
use crate::on_device::on_device;
use crate::output::{OutputArguments, say, text_table};
use crate::pairs_file::PairsFileArguments;
use crate::publish::{Publication, RESULTS};
use crate::session::Session;
use crate::sweep::origin;
use crate::threads;

/// The line of EAP-IG, with the number of steps of its authors.
const LINE: Quadrature = Quadrature { rule: Rule::RiemannRight, steps: 5 };
/// The line of clean-corrupted: its two ends.
const ENDS: Quadrature = Quadrature { rule: Rule::Trapezoid, steps: 2 };
/// Fewest clusters of prompts that are divided into halves.
const FEWEST: usize = 4;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: PairsFileArguments,
    /// Ways to score edges, separated by commas [default: all].
    ///
    /// eap, relp, gim, clean-corrupted, eap-ig-inputs and eap-ig-activations are estimates. exact
    /// patches every edge. exact-greedy ranks edges by the search of `circuit find`, with the
    /// scores of eap-ig-inputs. random scores every edge at random.
    #[arg(long, value_enum, value_delimiter = ',', hide_possible_values = true, value_name = "SCORES", help_heading = WHAT)]
    scores: Vec<ScoringName>,
    /// Sizes of the circuits, as shares of all edges [default: MIB's ten].
    #[arg(long, value_delimiter = ',', value_name = "SHARES", help_heading = WHAT)]
    sizes: Vec<f64>,
    /// Share of the behavior that exact-greedy keeps.
    #[arg(long, default_value_t = 0.8, value_name = "SHARE", help_heading = WHAT)]
    keep: f64,
    /// Number of random halves of the prompts.
    #[arg(long, default_value_t = 10, value_parser = at_least_one, value_name = "N", help_heading = UNCERTAINTY)]
    halves: usize,
    /// Seed of the halves, of the bootstrap and of random scores.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = UNCERTAINTY)]
    seed: u64,
    #[command(flatten)]
    model: ModelArguments,
    /// Directory for the results.
    #[arg(long, default_value = "out/scores", value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ScoringName {
    Eap,
    Relp,
    Gim,
    CleanCorrupted,
    EapIgInputs,
    EapIgActivations,
    Exact,
    ExactGreedy,
    Random,
}

/// The figures of one way to score edges.
struct Row {
    name: String,
    /// Circuits by signed score, of which MIB takes CPR.
    signed: ChoiceCurve,
    /// Circuits by absolute score, of which MIB takes CMD.
    absolute: ChoiceCurve,
    seconds: f64,
}

pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
    let source = Source::open(&arguments.model)?;
    rewire_circuits::check_sizes(arguments.sizes()).map_err(|error| anyhow::anyhow!("--sizes: {error}"))?;
    anyhow::ensure!(
        arguments.keep > 0.0 && arguments.keep.is_finite(),
        "--keep {}: give a share above 0, such as 0.8",
        arguments.keep
    );
    let read = arguments.file.reading.read(&arguments.file.pairs, &source, Default::default())?;
    let pairs = &read.pairs;
    let clusters = pairs.clusters().len();
    anyhow::ensure!(
        clusters >= FEWEST,
        "{}: one half of the prompts chooses circuits and the other judges them, and there {} (a pair, its mirror and \
         their repeats are one cluster); give at least {FEWEST}",
        arguments.file.pairs.display(),
        if clusters == 1 {
            "is 1 cluster of prompts".to_owned()
        } else {
            format!("are {clusters} clusters of prompts")
        }
    );
    let identity = arguments.identity(&session, &source, pairs)?;
    let directory = arguments.output.take(&arguments.out, &RESULTS, &identity, interrupts)?;
    announce(&source)?;
    read.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let rows = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        arguments.measure(&model, pairs, session.setup())
    })?;
    let publication = Publication {
        run: identity,
        tables: rows.iter().flat_map(tables).collect(),
        metric: "logit-diff".to_owned(),
        seed: arguments.seed,
        labels: Labels::FromFile(pairs, origin(&arguments.file.pairs, read.format)?),
        baselines: Value::Null,
        notes: arguments.notes(&rows),
        page: arguments.page(&rows, pairs, &session, &source, &read.warnings),
        warnings: read.warnings.clone(),
        files: Vec::new(),
        summary: text_table(&HEADER, &cells(&rows)),
    };
    publication.publish(&session, &source, &directory)
}

impl Arguments {
    fn sizes(&self) -> &[f64] {
        if self.sizes.is_empty() { &SIZES } else { &self.sizes }
    }

    fn scorings(&self) -> Vec<ScoringName> {
        if self.scores.is_empty() { ScoringName::value_variants().to_vec() } else { self.scores.clone() }
    }

    fn identity(&self, session: &Session, source: &Source, pairs: &PromptPairs) -> anyhow::Result<Value> {
        let prompts: Vec<_> =
            pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
        Ok(json!({
            "command": "circuit scores",
            "version": env!("CARGO_PKG_VERSION"),
            "model": source.files.versions()?,
            "processed weights": source.is_processed(),
            "device": session.device().to_string(),
            "pairs": { "number": pairs.len(), "sha256": sha256(&serde_json::to_vec(&prompts)?) },
            "scores": self.scorings().iter().map(|name| name.name()).collect::<Vec<_>>(),
            "sizes": self.sizes(),
            "keep": self.keep,
            "halves": self.halves,
            "seed": self.seed,
        }))
    }

    /// Judges every way to score edges.
    fn measure<B: AutodiffBackend>(
        &self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        setup: Setup,
    ) -> anyhow::Result<Vec<Row>> {
        self.scorings().into_iter().map(|name| self.judge(model, pairs, name, setup)).collect()
    }

    fn judge<B: AutodiffBackend>(
        &self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        scoring: ScoringName,
        setup: Setup,
    ) -> anyhow::Result<Row> {
        let started = Instant::now();
        let inner = model.valid();
        let sizes = setup.execution(&inner, pairs.width());
        let metric = LogitDiff::new(pairs);
        let question = Question::new(pairs, &metric).in_metric_units();
        let effects = setup.step(&scoring.name(), |progress| {
            let execution = Execution { progress, workers: threads::limit(), ..sizes };
            scoring.effects(model, question, self.seed, &execution)
        })?;
        let execution = Execution { workers: threads::limit(), ..sizes };
        let mut searched: Vec<(Vec<usize>, EdgeScores)> = Vec::new();
        let mut choose = |choosing: &[usize]| -> Result<EdgeScores, CircuitError> {
            let scores = EdgeScores::on(&effects, choosing);
            if scoring != ScoringName::ExactGreedy {
                return Ok(scores);
            }
            // Both rankings have the same halves.
            if let Some((_, found)) = searched.iter().find(|(half, _)| half == choosing) {
                return Ok(found.clone());
            }
            let found = self.search(&inner, pairs, choosing, &scores, &execution)?;
            searched.push((choosing.to_vec(), found.clone()));
            Ok(found)
        };
        let mut of = |ranking: Ranking| {
            let outside = Intervention::Resample;
            let judging = Judging { sizes: self.sizes(), ranking, outside: &outside, seed: self.seed };
            setup.step(&format!("{}: {ranking}", scoring.name()), |progress| {
                let execution = Execution { progress, ..execution };
                let found = judge_choice(&inner, question, &judging, self.halves, &mut choose, &execution)?;
                found.ok_or_else(|| anyhow::anyhow!("the model does not do the task on any half of the prompts"))
            })
        };
        let [signed, absolute] = [of(Ranking::Signed)?, of(Ranking::Absolute)?];
        Ok(Row { name: scoring.name(), signed, absolute, seconds: started.elapsed().as_secs_f64() })
    }

    /// Ranks edges by the exact-greedy search on some of the prompts. Without a circuit that keeps
    /// the share with confidence, the ranking is that of the scores.
    fn search<B: burn::tensor::backend::Backend>(
        &self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        choosing: &[usize],
        scores: &EdgeScores,
        execution: &Execution,
    ) -> Result<EdgeScores, CircuitError> {
        let some: Vec<_> = choosing.iter().map(|&i| pairs.pairs()[i].clone()).collect();
        // The same prompts were accepted before.
        let some = PromptPairs::new(some).unwrap_or_else(|_| pairs.clone());
        let metric = LogitDiff::new(&some);
        let outside = Intervention::Resample;
        let runs = CircuitRuns::new(model, Question::new(&some, &metric).in_metric_units(), &outside, execution)?;
        match exact_greedy(&runs, scores, self.keep, self.seed, &|_, _| {}) {
            Ok(found) => Ok(found.ranking(scores)),
            Err(CircuitError::Unfaithful { .. }) => Ok(scores.clone()),
            Err(error) => Err(error),
        }
    }

    fn notes(&self, rows: &[Row]) -> Value {
        let row = |row: &Row| {
            let Row { signed, absolute, .. } = row;
            json!({
                "scores": row.name,
                "cpr": signed.mean.cpr, "cpr_interval": signed.intervals.cpr,
                "cmd": absolute.mean.cmd, "cmd_interval": absolute.intervals.cmd,
                "faithfulness_signed": signed.mean.faithfulness,
                "faithfulness_absolute": absolute.mean.faithfulness,
                "seconds": row.seconds,
            })
        };
        json!({
            "sizes": self.sizes(),
            "halves": self.halves,
            "scores": rows.iter().map(row).collect::<Vec<_>>(),
            "cpr_is": "of circuits by signed score, chosen on one half of the prompts and judged on the other: the mean \
                       over halves, and the 95% interval over halves and resamples of the judging prompts",
            "cmd_is": "the same for circuits by absolute score",
        })
    }

    fn page(&self, rows: &[Row], pairs: &PromptPairs, session: &Session, source: &Source, warnings: &[String]) -> Page {
        let subtitle = format!("{} · {} prompt pairs · {} random halves", source.name, pairs.len(), self.halves);
        let mut page = new_page("Scores of edges", &subtitle, session, warnings);
        page.finding(&finding(rows), None);
        page.section(
            "Areas under the curve",
            "Each way scores the edges on one half of the prompts. The circuits of the best edges are judged on the other \
             half. CPR is the area under the faithfulness of circuits by signed score (more is better); CMD is the area of \
             the distance from 1 for circuits by absolute score (0 is best). Means over the halves, with 95% intervals.",
        );
        page.table(&HEADER, cells(rows));
        page.section("Faithfulness by size", "The mean over the judging halves. 1 is the model, 0 the corrupted run.");
        let chart = |title: &str, of: &dyn Fn(&Row) -> &ChoiceCurve| {
            let line = |row: &Row| {
                (row.name.clone(), of(row).mean.faithfulness.iter().map(|f| *f as f32).collect::<Vec<f32>>())
            };
            let lines: Vec<_> = rows.iter().map(line).collect();
            curves(title, self.sizes(), &lines, ["share of all edges", "faithfulness"])
        };
        page.chart(chart("By signed score", &|row| &row.signed));
        page.chart(chart("By absolute score", &|row| &row.absolute));
        page
    }
}

impl ScoringName {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns the effects of all edges on each prompt, noising.
    fn effects<B: AutodiffBackend>(
        self,
        model: &Transformer<B>,
        question: Question<'_, LogitDiff>,
        seed: u64,
        execution: &Execution,
    ) -> anyhow::Result<EdgeEffects> {
        let (reduce, direction) = (Reduce::PerPrompt, Direction::Noising);
        let (at, rule) = match self {
            ScoringName::Exact => {
                return Ok(patch_all_edges(&model.valid(), question, reduce, direction, execution)?);
            }
            ScoringName::Random => return Ok(random(EdgeGraph::new(model.config()), question.pairs.len(), seed)),
            ScoringName::Eap => (GradientsAt::Base, BackwardRule::Gradient),
            ScoringName::Relp => (GradientsAt::Base, BackwardRule::Relp),
            ScoringName::Gim => (GradientsAt::Base, BackwardRule::Gim),
            ScoringName::CleanCorrupted => (GradientsAt::Inputs(ENDS), BackwardRule::Gradient),
            ScoringName::EapIgInputs | ScoringName::ExactGreedy => (GradientsAt::Inputs(LINE), BackwardRule::Gradient),
            ScoringName::EapIgActivations => (GradientsAt::Activations(LINE), BackwardRule::Gradient),
        };
        Ok(attribute_all_edges(model, question.by_rule(rule), at, reduce, direction, execution)?)
    }
}

/// Returns a random effect of each edge on each prompt, between -1 and 1.
fn random(graph: EdgeGraph, prompts: usize, seed: u64) -> EdgeEffects {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = (prompts, graph.n_writers(), graph.n_readers());
    let values = Array3::from_shape_simple_fn(shape, || (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0);
    EdgeEffects {
        graph,
        method: Method::AttributionPatching,
        direction: Direction::Noising,
        scale: Scale::Metric,
        metric: "logit-diff",
        baselines: Baselines { clean: Vec::new(), corrupted: Vec::new() },
        vanished: Vec::new(),
        values,
    }
}

const HEADER: [&str; 4] = ["scores", "CPR (95%)", "CMD (95%)", "seconds"];

/// Returns the way of best CPR, and that of best CMD.
fn finding(rows: &[Row]) -> Vec<String> {
    let cells = cells(rows);
    let best =
        |figure: &dyn Fn(&Row) -> f64| (0..rows.len()).min_by(|a, b| figure(&rows[*a]).total_cmp(&figure(&rows[*b])));
    let by_cpr = best(&|row| -row.signed.mean.cpr);
    let by_cmd = best(&|row| row.absolute.mean.cmd);
    let of_cpr = by_cpr.map(|i| format!("{} has the largest CPR: {}.", rows[i].name, cells[i][1]));
    let of_cmd = by_cmd.map(|i| format!("{} has the smallest CMD: {}.", rows[i].name, cells[i][2]));
    let caution = "Where intervals overlap, the order is not certain.".to_owned();
    of_cpr.into_iter().chain(of_cmd).chain([caution]).collect()
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let with = |mean: f64, [low, high]: [f64; 2]| format!("{} ({} to {})", number(mean), number(low), number(high));
    let row = |row: &Row| {
        vec![
            row.name.clone(),
            with(row.signed.mean.cpr, row.signed.intervals.cpr),
            with(row.absolute.mean.cmd, row.absolute.intervals.cmd),
            format!("{:.1}", row.seconds),
        ]
    };
    rows.iter().map(row).collect()
}

/// Returns the tables of one way to score edges: CPR and CMD, the ends of their intervals, and the
/// faithfulness at each size.
fn tables(row: &Row) -> Vec<Table> {
    let Row { name, signed, absolute, .. } = row;
    let table = |of: &str, axis: &str, values: Vec<f64>| Table {
        name: format!("{name}/circuit.{of}"),
        axes: vec![axis.to_owned()],
        values: Array1::from_iter(values.into_iter().map(|value| value as f32)).into_dyn(),
        quantity: Quantity::Other,
        ..Table::default()
    };
    let end = |end: usize| vec![signed.intervals.cpr[end], absolute.intervals.cmd[end]];
    vec![
        table("area.choice", "figure", vec![signed.mean.cpr, absolute.mean.cmd]),
        table("area.choice.low", "figure", end(0)),
        table("area.choice.high", "figure", end(1)),
        table("faithfulness.choice.signed", "size", signed.mean.faithfulness.clone()),
        table("faithfulness.choice.absolute", "size", absolute.mean.faithfulness.clone()),
    ]
}
