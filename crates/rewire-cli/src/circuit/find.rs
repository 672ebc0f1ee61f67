//! `rewire circuit find`: chooses a circuit on one half of the prompts, and judges it on the other.

use std::path::PathBuf;

use burn::backend::Autodiff;
use clap::{Args, ValueEnum};
use rewire_model::Transformer;
use rewire_report::numbers::number;
use rewire_report::{Labels, describe_baselines};
use rewire_store::sha256;
use rewire_studies::StudyError;
use rewire_studies::edge_circuit::{Found, Halves, RANDOM, Scores, Search, Settings, find};
use rewire_tasks::PromptPairs;
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
        let found = find(&model, &session.setup(), &halves, &arguments.settings());
        found.map_err(|error| arguments.refused(error))
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
    page.graph(graph(&found.circuit).strongest(DRAWN));
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
        files: vec![(CIRCUIT, found.circuit.write(&source.config)?)],
        summary: format!("{}\n{}", sentence(&found, &halves), text_table(&HEADER, &rows)),
    };
    publication.publish(&session, &source, &directory)
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

    fn settings(&self) -> Settings {
        let (edges, ranking) = (self.edges, self.rank.ranking());
        let search = match self.search {
            SearchName::TopN => Search::TopN { edges, ranking },
            SearchName::Greedy => Search::Greedy { edges, ranking },
            SearchName::Acdc => Search::Acdc { threshold: self.threshold },
            SearchName::ExactGreedy => Search::ExactGreedy { keep: self.keep },
        };
        let scores = match self.scores {
            ScoresName::Eap => Scores::Eap,
            ScoresName::EapIgInputs => Scores::EapIgInputs,
            ScoresName::EapIgActivations => Scores::EapIgActivations,
            ScoresName::Relp => Scores::Relp,
            ScoresName::Gim => Scores::Gim,
            ScoresName::Exact => Scores::Exact,
        };
        Settings { search, scores, seed: self.seed, workers: threads::limit() }
    }

    /// Adds to the refusal of an empty circuit what to change.
    fn refused(&self, error: StudyError) -> anyhow::Error {
        match error {
            StudyError::NoPath => anyhow::anyhow!("{error}: {}", self.advice()),
            other => other.into(),
        }
    }

    fn advice(&self) -> &'static str {
        match self.search {
            SearchName::TopN => "take more --edges, or --search greedy, which builds paths",
            SearchName::Greedy => "take more --edges",
            SearchName::Acdc => "lower --threshold",
            SearchName::ExactGreedy => "raise --keep",
        }
    }
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
    let (circuit, all) = (found.circuit.circuit.len(), found.circuit.scores.graph.n_edges());
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
        found.circuit.circuit.len(),
        found.circuit.scores.graph.n_edges(),
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
        "edges": found.circuit.circuit.len(),
        "edges_for_shuffled_labels": found.shuffled_edges,
        "faithfulness": found.shares.iter().map(|share| json!(share.map(|value| value.is_finite().then_some(value))))
            .collect::<Vec<_>>(),
        "circuits": "the circuit, all other edges, the circuit of the same search for shuffled labels, random circuits",
    })
}
