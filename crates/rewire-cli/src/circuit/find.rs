//! `rewire circuit find`: chooses a circuit on one half of the prompts, and judges it on the other.

use std::path::PathBuf;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, ValueEnum};
use rewire_analysis::Reduce;
use rewire_analysis::edges::{
    CircuitOutcome, CircuitRuns, EdgeSet, GradientsAt, attribute_all_edges, evaluate_circuits, patch_all_edges,
};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::run::{Direction, Execution, Intervention, Question};
use rewire_circuits::{CircuitFile, Curve, EdgeScores, Resampled, Shrunk, acdc, exact_greedy, halves, random_circuits};
use rewire_model::{BackwardRule, Transformer};
use rewire_report::numbers::number;
use rewire_report::{Labels, describe_baselines};
use rewire_store::sha256;
use rewire_studies::Setup;
use rewire_tasks::{Clusters, LogitDiff, PromptPair, PromptPairs};
use serde_json::{Value, json};

use super::curve_rows::metric_table;
use super::drawing::{DRAWING, DRAWN, graph};
use super::ranking_name::RankingName;
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

/// Number of random circuits of the same size.
const RANDOM: usize = 20;
/// Name of the circuit's file.
const CIRCUIT: &str = "circuit.json";

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: PairsFileArguments,
    /// Search: top-n, greedy, acdc or exact-greedy.
    ///
    /// top-n: the best --edges by score. greedy: the best --edges, each into a node whose output is
    /// carried already. acdc: every edge whose removal costs less than --threshold is removed, from
    /// the logits down. exact-greedy: the fewest edges that keep --keep of the behavior with 95%
    /// confidence; each is tested by a run.
    #[arg(long, value_enum, default_value = "exact-greedy", hide_possible_values = true, help_heading = WHAT)]
    search: SearchName,
    /// Scores: eap, eap-ig-inputs, eap-ig-activations, relp, gim or exact.
    #[arg(
        long,
        value_enum,
        default_value = "eap-ig-inputs",
        hide_possible_values = true,
        value_name = "SCORES",
        help_heading = WHAT
    )]
    scores: ScoresName,
    /// Rank edges by score: absolute or signed.
    #[arg(
        long,
        value_enum,
        default_value = "signed",
        hide_possible_values = true,
        value_name = "RANKING",
        help_heading = WHAT
    )]
    rank: RankingName,
    /// Number of edges, for top-n and greedy.
    #[arg(long, default_value_t = 100, value_parser = at_least_one, value_name = "N", help_heading = WHAT)]
    edges: usize,
    /// Smallest rise of the loss for which ACDC keeps an edge, in logits.
    #[arg(long, default_value_t = 0.01, value_parser = positive, value_name = "LOGITS", help_heading = WHAT)]
    threshold: f64,
    /// Share of the behavior that exact-greedy keeps.
    #[arg(long, default_value_t = 0.8, value_parser = positive, value_name = "SHARE", help_heading = WHAT)]
    keep: f64,
    /// Seed of the halves, of the bootstrap and of random circuits.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = UNCERTAINTY)]
    seed: u64,
    #[command(flatten)]
    model: ModelArguments,
    /// Directory for the results.
    ///
    /// The files are circuit.json (EAP-IG and MIB), effects.safetensors, effects.json, effects.csv
    /// and report.html.
    #[arg(long, default_value = "out/circuit", value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SearchName {
    TopN,
    Greedy,
    Acdc,
    ExactGreedy,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ScoresName {
    Eap,
    EapIgInputs,
    EapIgActivations,
    Relp,
    Gim,
    Exact,
}

/// Parses a number above 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

/// The prompts of the choice and of the judgment.
struct Halves {
    choosing: PromptPairs,
    judging: PromptPairs,
    are_same: bool,
}

/// A found circuit and its judgment.
struct Found {
    file: CircuitFile,
    /// What an exact search took: circuits evaluated, edges kept and removed.
    search: Option<Shrunk>,
    seconds: f64,
    /// The circuit, its knockout, the circuit of shuffled labels, then random circuits.
    outcome: CircuitOutcome,
    /// The share of the behavior of each, with its 95% interval.
    shares: Vec<[f64; 3]>,
    /// Number of edges of the circuit that the same search finds for shuffled labels.
    shuffled_edges: usize,
}

pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
    let source = Source::open(&arguments.model)?;
    let read =
        arguments.file.reading.read(&arguments.file.pairs, &source, crate::sweep::MetricName::LogitDiff.answers())?;
    let (pairs, mut warnings) = (read.pairs, read.warnings);
    if let Some(pair) = pairs.pairs().iter().position(|pair| pair.wrong_answers.is_empty()) {
        anyhow::bail!("pair {pair} (counted from 0) has no wrong answers; circuits are found for the logit difference");
    }
    let halves = Halves::new(&pairs, arguments.seed)?;
    if halves.are_same {
        warnings.push(format!(
            "{} prompt pairs are too few to divide: the circuit is judged on the prompts that it was chosen on, and its \
             figures are too good",
            pairs.len()
        ));
    }
    let identity = identity(arguments, &session, &source, &pairs)?;
    let names = [RESULTS.as_slice(), &[CIRCUIT]].concat();
    let directory = arguments.output.take(&arguments.out, &names, &identity, interrupts)?;
    announce(&source)?;
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let found = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        arguments.find(&model, &halves, session.setup())
    })?;
    let rows = rows(&found);
    let mut page = new_page("Circuit", &format!("{} · {}", source.name, arguments.in_words()), &session, &warnings);
    page.finding(&[sentence(&found, &halves)], None);
    page.section(
        "How much it keeps",
        "The share of the logit difference that each circuit keeps on the judging prompts, if every other edge carries \
         the corrupted prompt. 1 is the model, 0 the corrupted run. Intervals are 95% bootstrap intervals over prompts.",
    );
    page.table(&HEADER, rows.clone());
    page.section("The circuit", DRAWING);
    page.graph(graph(&found.file).strongest(DRAWN));
    let publication = Publication {
        run: identity,
        tables: vec![metric_table(found.outcome.values.clone().into_dyn())],
        metric: "logit-diff".to_owned(),
        seed: arguments.seed,
        labels: Labels::FromFile(&halves.judging, origin(&arguments.file.pairs, read.format)?),
        baselines: describe_baselines(&found.outcome.baselines),
        notes: notes(&found, &halves),
        page,
        warnings,
        files: vec![(CIRCUIT, found.file.write(&source.config)?)],
        summary: format!("{}\n{}", sentence(&found, &halves), text_table(&HEADER, &rows)),
    };
    publication.publish(&session, &source, &directory)
}

impl Halves {
    fn new(pairs: &PromptPairs, seed: u64) -> anyhow::Result<Self> {
        let clusters = pairs.clusters();
        let some = |prompts: &[usize]| PromptPairs::new(prompts.iter().map(|&i| pairs.pairs()[i].clone()).collect());
        if clusters.len() < 4 {
            return Ok(Self { choosing: pairs.clone(), judging: pairs.clone(), are_same: true });
        }
        let [choosing, judging] = halves(&clusters, pairs.len(), seed);
        Ok(Self { choosing: some(&choosing)?, judging: some(&judging)?, are_same: false })
    }
}

impl Arguments {
    fn in_words(&self) -> String {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map_or_else(String::new, |value| value.get_name().to_owned())
        };
        let search = name(self.search.to_possible_value());
        let scores = name(self.scores.to_possible_value());
        match self.search {
            SearchName::TopN | SearchName::Greedy => {
                format!("{search}, {} edges by {scores}, {}", self.edges, self.rank.ranking())
            }
            SearchName::Acdc => format!("{search}, threshold {}", self.threshold),
            SearchName::ExactGreedy => format!("{search}, keeps {} by {scores}", self.keep),
        }
    }

    /// Finds a circuit on the choosing prompts, and judges it on the judging prompts.
    fn find<B: AutodiffBackend>(&self, model: &Transformer<B>, halves: &Halves, setup: Setup) -> anyhow::Result<Found> {
        let started = std::time::Instant::now();
        let (file, search) = self.search(model, &halves.choosing, setup, "circuit")?;
        let seconds = started.elapsed().as_secs_f64();
        let shuffled = self.search(model, &shuffled(&halves.choosing, self.seed), setup, "shuffled labels");
        // Shuffled labels may leave no behavior to find.
        let shuffled = shuffled.map_or_else(|_| EdgeSet::empty(file.scores.graph), |(file, _)| file.circuit);
        let mut circuits = vec![file.circuit.clone(), file.circuit.complement(), shuffled.clone()];
        circuits.extend(random_circuits(&file.circuit, RANDOM, self.seed));
        let inner = model.valid();
        let metric = LogitDiff::new(&halves.judging);
        let question = Question::new(&halves.judging, &metric).in_metric_units();
        let sizes = setup.execution(&inner, halves.judging.width());
        let outcome = setup.step("judgment", |progress| {
            let execution = Execution { progress, workers: threads::limit(), ..sizes };
            evaluate_circuits(&inner, question, &circuits, &Intervention::Resample, &execution)
        })?;
        let places: Vec<f64> = (0..circuits.len()).map(|place| place as f64).collect();
        let curve = Curve::new(&places, &outcome)?;
        let mut resampled = Resampled::default();
        let clusters = halves.judging.clusters();
        if clusters.len() > 3 {
            resampled.draw(&places, &outcome, &clusters, 1000, self.seed);
        }
        let intervals = resampled.intervals();
        let share = |(i, share): (usize, &f64)| {
            let [low, high] = intervals.as_ref().map_or([f64::NAN; 2], |found| found.faithfulness[i]);
            [*share, low, high]
        };
        let shares = curve.faithfulness.iter().enumerate().map(share).collect();
        Ok(Found { file, search, seconds, outcome, shares, shuffled_edges: shuffled.len() })
    }

    /// Finds a circuit on these prompts.
    fn search<B: AutodiffBackend>(
        &self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        setup: Setup,
        what: &str,
    ) -> anyhow::Result<(CircuitFile, Option<Shrunk>)> {
        let inner = model.valid();
        let metric = LogitDiff::new(pairs);
        let question = Question::new(pairs, &metric).in_metric_units();
        let sizes = setup.execution(&inner, pairs.width());
        let scores = setup.step(&format!("{what}: scores"), |progress| {
            let execution = Execution { progress, workers: threads::limit(), ..sizes };
            self.score(model, question, &execution)
        })?;
        let (circuit, search) = match self.search {
            SearchName::TopN => (scores.top(self.edges, self.rank.ranking()).pruned(), None),
            SearchName::Greedy => (scores.greedy(self.edges, self.rank.ranking()).pruned(), None),
            SearchName::Acdc | SearchName::ExactGreedy => setup.step(&format!("{what}: tests"), |progress| {
                let execution = Execution { workers: threads::limit(), ..sizes };
                let outside = Intervention::Resample;
                let runs = CircuitRuns::new(&inner, question, &outside, &execution)?;
                let found = match self.search {
                    SearchName::Acdc => acdc(&runs, self.threshold, progress)?,
                    _ => exact_greedy(&runs, &scores, self.keep, self.seed, progress)?,
                };
                anyhow::Ok((found.circuit.clone(), Some(found)))
            })?,
        };
        anyhow::ensure!(!circuit.is_empty(), "no edge lies on a path from the input to the logits: {}", self.advice());
        Ok((CircuitFile { circuit, scores, node_scores: None, warnings: Vec::new() }, search))
    }

    fn advice(&self) -> &'static str {
        match self.search {
            SearchName::TopN => "take more --edges, or --search greedy, which builds paths",
            SearchName::Greedy => "take more --edges",
            SearchName::Acdc => "lower --threshold",
            SearchName::ExactGreedy => "raise --keep",
        }
    }

    fn score<B: AutodiffBackend>(
        &self,
        model: &Transformer<B>,
        question: Question<'_, LogitDiff>,
        execution: &Execution,
    ) -> anyhow::Result<EdgeScores> {
        let line = Quadrature { rule: Rule::RiemannRight, steps: 5 };
        let (at, rule) = match self.scores {
            ScoresName::Exact => {
                let found = patch_all_edges(&model.valid(), question, Reduce::Mean, Direction::Noising, execution)?;
                return Ok(EdgeScores::of(&found));
            }
            ScoresName::Eap => (GradientsAt::Base, BackwardRule::Gradient),
            ScoresName::EapIgInputs => (GradientsAt::Inputs(line), BackwardRule::Gradient),
            ScoresName::EapIgActivations => (GradientsAt::Activations(line), BackwardRule::Gradient),
            ScoresName::Relp => (GradientsAt::Base, BackwardRule::Relp),
            ScoresName::Gim => (GradientsAt::Base, BackwardRule::Gim),
        };
        let question = question.by_rule(rule);
        let found = attribute_all_edges(model, question, at, Reduce::Mean, Direction::Noising, execution)?;
        Ok(EdgeScores::of(&found))
    }
}

/// Returns the pairs with answers and wrong answers exchanged in a random half of them.
fn shuffled(pairs: &PromptPairs, seed: u64) -> PromptPairs {
    let [exchanged, _] = halves(&Clusters::each(pairs.len()), pairs.len(), seed);
    let exchange = |(i, pair): (usize, &PromptPair)| match exchanged.binary_search(&i) {
        Err(_) => pair.clone(),
        Ok(_) => {
            PromptPair { answers: pair.wrong_answers.clone(), wrong_answers: pair.answers.clone(), ..pair.clone() }
        }
    };
    // The same tokens were accepted before.
    PromptPairs::new(pairs.pairs().iter().enumerate().map(exchange).collect()).unwrap_or_else(|_| pairs.clone())
}

fn identity(arguments: &Arguments, session: &Session, source: &Source, pairs: &PromptPairs) -> anyhow::Result<Value> {
    let prompts: Vec<_> =
        pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
    Ok(json!({
        "command": "circuit find",
        "version": env!("CARGO_PKG_VERSION"),
        "model": source.files.versions()?,
        "processed weights": source.is_processed(),
        "device": session.device().to_string(),
        "pairs": { "number": pairs.len(), "sha256": sha256(&serde_json::to_vec(&prompts)?) },
        "search": arguments.in_words(),
        "seed": arguments.seed,
    }))
}

const HEADER: [&str; 3] = ["circuit", "edges", "faithfulness (95%)"];

fn with_interval([share, low, high]: [f64; 3]) -> String {
    match low.is_nan() {
        true => number(share),
        false => format!("{} ({} to {})", number(share), number(low), number(high)),
    }
}

fn rows(found: &Found) -> Vec<Vec<String>> {
    let row = |name: &str, edges: usize, share: String| vec![name.to_owned(), edges.to_string(), share];
    let (circuit, all) = (found.file.circuit.len(), found.file.scores.graph.n_edges());
    let random: Vec<f64> = found.shares[3..].iter().map(|share| share[0]).collect();
    let [low, high] = ends(&random);
    let mean = random.iter().sum::<f64>() / random.len().max(1) as f64;
    vec![
        row("found", circuit, with_interval(found.shares[0])),
        row("all other edges", all - circuit, with_interval(found.shares[1])),
        row("same search, shuffled labels", found.shuffled_edges, with_interval(found.shares[2])),
        row(
            &format!("{RANDOM} random circuits: mean (range)"),
            circuit,
            format!("{} ({} to {})", number(mean), number(low), number(high)),
        ),
    ]
}

fn ends(values: &[f64]) -> [f64; 2] {
    [values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max)]
}

fn sentence(found: &Found, halves: &Halves) -> String {
    let tests =
        found.search.as_ref().map_or_else(String::new, |search| format!(", {} circuits evaluated", search.evaluated));
    format!(
        "{} of {} edges keep {} of the logit difference on {} prompts{} (found on {} prompts in {:.1} s{tests}).",
        found.file.circuit.len(),
        found.file.scores.graph.n_edges(),
        with_interval(found.shares[0]),
        halves.judging.len(),
        if halves.are_same { "" } else { " that had no part in the choice" },
        halves.choosing.len(),
        found.seconds,
    )
}

fn notes(found: &Found, halves: &Halves) -> Value {
    let search = found.search.as_ref().map(|search| {
        let edges = |edges: &[(rewire_analysis::edges::Edge, f64)]| {
            edges.iter().map(|(edge, change)| json!([edge.to_string(), change])).collect::<Vec<_>>()
        };
        json!({
            "circuits_evaluated": search.evaluated,
            "kept": edges(&search.kept),
            "removed": edges(&search.removed),
            "numbers_are": "the change of the loss (minus the mean logit difference) when the edge is removed",
        })
    });
    json!({
        "choosing_prompts": halves.choosing.len(),
        "judging_prompts": halves.judging.len(),
        "judged_on_the_choosing_prompts": halves.are_same,
        "search_seconds": found.seconds,
        "search": search,
        "edges": found.file.circuit.len(),
        "edges_for_shuffled_labels": found.shuffled_edges,
        "faithfulness": found.shares.iter().map(|share| json!(share.map(|value| value.is_finite().then_some(value))))
            .collect::<Vec<_>>(),
        "circuits": "the circuit, all other edges, the circuit of the same search for shuffled labels, random circuits",
    })
}
