//! `rewire circuit evaluate`: how much of a behavior circuits keep.

use std::path::PathBuf;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use clap::Args;
use rewire_analysis::edges::{CircuitOutcome, Edge, EdgeSet, evaluate_circuits};
use rewire_analysis::run::{Execution, Intervention, Question};
use rewire_circuits::{CircuitFile, JudgedCurve, Judging, MarginalEffect, SIZES, judge_scores, marginal_effects};
use rewire_model::Transformer;
use rewire_report::names::counted;
use rewire_report::numbers::number;
use rewire_report::{Labels, Page, describe_baselines};
use rewire_store::sha256;
use rewire_studies::edge_circuit::shares;
use rewire_tasks::{Accuracy, AnswerTokens, BuiltinMetric, PromptPairs};
use serde_json::{Value, json};

use super::curve_rows;
use super::drawing::{DRAWING, DRAWN, graph};
use super::file::{SignName, read};
use super::marginal;
use super::outside::OutsideName;
use super::ranking_name::RankingName;
use crate::arguments::at_least_one;
use crate::headings::{COMPUTE, OUTPUT, UNCERTAINTY, WHAT};
use crate::interrupt::Interrupts;
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, new_page};
use crate::on_device::on_device;
use crate::output::{OutputArguments, say, text_table};
use crate::pairs_file::PairsFileArguments;
use crate::publish::{Publication, RESULTS};
use crate::session::Session;
use crate::sweep::{MetricName, SweepCheckpoint, origin};
use crate::threads;

/// Most circuits that the report draws.
const MOST_DRAWN: usize = 5;

#[derive(Args)]
pub(super) struct Arguments {
    /// Circuits of EAP-IG or MIB (JSON), or graphs with scores for --select.
    #[arg(required = true, value_name = "CIRCUIT")]
    circuits: Vec<PathBuf>,
    #[command(flatten)]
    file: PairsFileArguments,
    /// Judge circuits of the best edges by the file's scores: absolute or signed.
    ///
    /// absolute: the edges of largest score, of either sign (MIB's CMD). signed: the edges of
    /// highest score (MIB's CPR). Takes one file. By default, the circuits are those of the files.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "RANKING", help_heading = WHAT)]
    select: Option<RankingName>,
    /// Sizes for --select, as shares of all edges [default: MIB's ten].
    #[arg(long, value_delimiter = ',', value_name = "SHARES", requires = "select", help_heading = WHAT)]
    sizes: Vec<f64>,
    /// Sign of the scores: as-written or opposite.
    ///
    /// A positive score must mean that corrupting the edge hurts.
    #[arg(
        long,
        value_enum,
        default_value = "as-written",
        hide_possible_values = true,
        value_name = "SIGN",
        help_heading = WHAT
    )]
    sign: SignName,
    /// What edges outside a circuit carry: resample, zero or mean.
    ///
    /// resample: the writer's output on the corrupted prompt. zero: zero. mean: its mean over the
    /// clean prompts, at each position.
    #[arg(
        long,
        value_enum,
        default_value = "resample",
        hide_possible_values = true,
        value_name = "BY",
        help_heading = WHAT
    )]
    outside: OutsideName,
    /// Metric of the logits: logit-diff, probability, prob-diff, log-prob or accuracy.
    #[arg(long, value_enum, default_value = "logit-diff", hide_possible_values = true, help_heading = WHAT)]
    metric: MetricName,
    /// Number of edges of each circuit whose removal is tested, by score. 0 tests none.
    #[arg(long, default_value_t = 100, value_name = "N", help_heading = WHAT)]
    marginal: usize,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = UNCERTAINTY)]
    seed: u64,
    #[command(flatten)]
    model: ModelArguments,
    /// Prompt pairs held in memory at once.
    #[arg(long, value_parser = at_least_one, value_name = "N", help_heading = COMPUTE)]
    prompt_batch: Option<usize>,
    /// Directory for the results.
    #[arg(long, default_value = "out/circuit", value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    output: OutputArguments,
}

/// What was measured.
enum Found {
    /// The circuits of the files and their knockouts.
    Files(Box<FilesFound>),
    /// Circuits of the best edges.
    Curve(Box<JudgedCurve>),
}

/// What was measured of the circuits of files.
struct FilesFound {
    /// Each circuit, then all edges outside it.
    outcome: CircuitOutcome,
    /// Whether the likeliest token is an answer, for the same circuits. `None` if the metric says
    /// it, and for answers of several tokens.
    accuracy: Option<CircuitOutcome>,
    /// The marginal effects of the edges of each circuit.
    marginal: Vec<Vec<MarginalEffect>>,
}

/// The share of the behavior that one circuit keeps, and that its knockout leaves.
struct Row {
    name: String,
    edges: usize,
    pruned: usize,
    kept: [f64; 3],
    left: [f64; 3],
    /// The accuracy of the circuit, if it was measured.
    accuracy: Option<f64>,
    marginal: Vec<MarginalEffect>,
}

pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
    let source = Source::open(&arguments.model)?;
    let files: Vec<CircuitFile> =
        arguments.circuits.iter().map(|path| read(path, &source.config, arguments.sign)).collect::<Result<_, _>>()?;
    arguments.check(&files)?;
    let read = arguments.file.reading.read(&arguments.file.pairs, &source, arguments.metric.answers())?;
    let mut warnings = read.warnings;
    warnings.extend(files.iter().flat_map(|file| file.warnings.clone()));
    warnings.extend(doubts(&files, arguments));
    let identity = identity(arguments, &session, &source, &read.pairs, &files)?;
    let directory = arguments.output.take(&arguments.out, &RESULTS, &identity, interrupts)?;
    let record = arguments.output.record(&directory, &identity)?;
    record.notices().iter().for_each(|notice| say(&format!("warning: {notice}")));
    let checkpoint = SweepCheckpoint::new(record, interrupts);
    announce(&source)?;
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let found = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let pairs = &read.pairs;
        let sizes = session.execution(&model, pairs.width());
        let prompt_batch = arguments.prompt_batch.unwrap_or(sizes.prompt_batch);
        let metric = arguments.metric.metric(&model, pairs, pairs.ends(), prompt_batch)?;
        session.setup().step("circuits", |progress| {
            let execution =
                Execution { progress, prompt_batch, checkpoint: &checkpoint, workers: threads::limit(), ..sizes };
            arguments.measure(&model.valid(), &files, pairs, &metric, &execution)
        })
    })?;
    let rows = rows(&found, arguments, &files, &read.pairs);
    let origin = origin(&arguments.file.pairs, read.format)?;
    let publication = Publication {
        run: identity,
        tables: tables(&found),
        metric: arguments.metric.name(),
        seed: arguments.seed,
        labels: Labels::FromFile(&read.pairs, origin),
        baselines: describe_baselines(&outcome(&found).baselines),
        notes: notes(&found, &rows, arguments),
        page: page(&found, &files, &rows, arguments, &session, &source, &warnings),
        warnings,
        files: Vec::new(),
        summary: summary(&found, &rows),
    };
    publication.publish(&session, &source, &directory)?;
    Ok(checkpoint.remove()?)
}

impl Arguments {
    fn sizes(&self) -> &[f64] {
        if self.sizes.is_empty() { &SIZES } else { &self.sizes }
    }

    /// Refuses flags and circuits that cannot be evaluated.
    fn check(&self, files: &[CircuitFile]) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.select.is_none() || files.len() == 1,
            "--select takes the scores of one file, and there are {}; give one circuit",
            files.len()
        );
        rewire_circuits::check_sizes(self.sizes()).map_err(|error| anyhow::anyhow!("--sizes: {error}"))?;
        let is_empty = |file: &CircuitFile| file.circuit.pruned().is_empty();
        if let (None, Some(number)) = (self.select, files.iter().position(is_empty)) {
            anyhow::bail!(
                "{}: no edge of the circuit lies on a path of it from the input to the logits; it keeps nothing \
                 (--select takes circuits of the best edges by the scores)",
                self.circuits[number].display()
            );
        }
        Ok(())
    }

    /// Runs the circuits.
    fn measure<B: Backend>(
        &self,
        model: &Transformer<B>,
        files: &[CircuitFile],
        pairs: &PromptPairs,
        metric: &BuiltinMetric,
        execution: &Execution,
    ) -> anyhow::Result<Found> {
        let question = Question::new(pairs, metric).in_metric_units();
        let outside = self.outside.intervention(model, pairs, execution.prompt_batch)?;
        match self.select {
            Some(ranking) => {
                let (sizes, ranking) = (self.sizes(), ranking.ranking());
                let judging = Judging { sizes, ranking, outside: &outside, seed: self.seed };
                let found = judge_scores(model, question, &files[0].scores, &judging, execution)?;
                Ok(Found::Curve(Box::new(found)))
            }
            None => {
                let found = self.measure_files(model, files, question, &outside, execution)?;
                Ok(Found::Files(Box::new(found)))
            }
        }
    }

    /// Runs the circuits of files, their knockouts, and each circuit without one edge.
    fn measure_files<B: Backend>(
        &self,
        model: &Transformer<B>,
        files: &[CircuitFile],
        question: Question<BuiltinMetric>,
        outside: &Intervention<B>,
        execution: &Execution,
    ) -> anyhow::Result<FilesFound> {
        let pairs = question.pairs;
        let both = |file: &CircuitFile| [file.circuit.clone(), file.circuit.complement()];
        let circuits: Vec<EdgeSet> = files.iter().flat_map(both).collect();
        let outcome = evaluate_circuits(model, question, &circuits, outside, execution)?;
        let is_other = self.metric != MetricName::Accuracy && self.metric.answers() == AnswerTokens::Single;
        let accuracy = is_other.then(|| {
            let metric = Accuracy::new(pairs);
            // Stored passes do not say their metric.
            let execution = Execution { checkpoint: &(), ..*execution };
            evaluate_circuits(model, Question::new(pairs, &metric).in_metric_units(), &circuits, outside, &execution)
        });
        let marginal = |file: &CircuitFile| {
            let circuit = file.circuit.pruned();
            let edges = tested(file, &circuit, self.marginal);
            marginal_effects(model, question, &circuit, &edges, outside, self.seed, execution)
        };
        let marginal = files.iter().map(marginal).collect::<Result<_, _>>()?;
        Ok(FilesFound { outcome, accuracy: accuracy.transpose()?, marginal })
    }
}

/// Returns the `n` edges of largest score in a circuit, in the order of the score.
fn tested(file: &CircuitFile, circuit: &EdgeSet, n: usize) -> Vec<Edge> {
    let mut places: Vec<[usize; 2]> = circuit.places().collect();
    places.sort_by(|a, b| file.scores.values[*b].abs().total_cmp(&file.scores.values[*a].abs()));
    places.into_iter().take(n).map(|place| circuit.graph().edge(place)).collect()
}

/// Returns warnings about the prompts of a judgment.
fn doubts(files: &[CircuitFile], arguments: &Arguments) -> Vec<String> {
    let scored = files.iter().any(|file| file.scores.values.iter().any(|score| *score != 0.0));
    let of = if arguments.select.is_some() { "the scores" } else { "the circuits" };
    scored
        .then(|| {
            format!(
                "{of} come from files that do not say which prompts they were found on; if these are among --pairs, \
                 the figures are too good: judge on other prompts"
            )
        })
        .into_iter()
        .collect()
}

fn identity(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    pairs: &PromptPairs,
    files: &[CircuitFile],
) -> anyhow::Result<Value> {
    let prompts: Vec<_> =
        pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
    let circuits: Vec<String> = files
        .iter()
        .map(|file| Ok(sha256(&file.write(&source.config)?)))
        .collect::<Result<_, rewire_circuits::CircuitFileError>>()?;
    Ok(json!({
        "command": "circuit evaluate",
        "version": env!("CARGO_PKG_VERSION"),
        "model": source.files.versions()?,
        "processed weights": source.is_processed(),
        "device": session.device().to_string(),
        "pairs": { "number": pairs.len(), "sha256": sha256(&serde_json::to_vec(&prompts)?) },
        "circuits": circuits,
        "select": arguments.select.map(|name| name.ranking().to_string()),
        "sizes": arguments.select.map(|_| arguments.sizes()),
        "outside": arguments.outside.name(),
        "metric": arguments.metric.name(),
        "marginal": arguments.marginal,
        "prompt batch": arguments.prompt_batch,
        "seed": arguments.seed,
    }))
}

fn outcome(found: &Found) -> &CircuitOutcome {
    match found {
        Found::Files(found) => &found.outcome,
        Found::Curve(judged) => &judged.outcome,
    }
}

fn tables(found: &Found) -> Vec<rewire_report::Table> {
    let metric = curve_rows::metric_table(outcome(found).values.clone().into_dyn());
    match found {
        Found::Files(found) => {
            let marginal = found.marginal.iter().enumerate().flat_map(|(i, effects)| marginal::tables(i, effects));
            [metric].into_iter().chain(marginal).collect()
        }
        Found::Curve(judged) => curve_rows::tables(judged).into_iter().chain([metric]).collect(),
    }
}

/// Returns the shares of each circuit, with 95% bootstrap intervals over clusters of prompts.
fn rows(found: &Found, arguments: &Arguments, files: &[CircuitFile], pairs: &PromptPairs) -> Vec<Row> {
    let Found::Files(found) = found else { return Vec::new() };
    let Ok(shares) = shares(&found.outcome, &pairs.clusters(), arguments.seed) else { return Vec::new() };
    let row = |(i, file): (usize, &CircuitFile)| Row {
        name: arguments.circuits[i].display().to_string(),
        edges: file.circuit.len(),
        pruned: file.circuit.pruned().len(),
        kept: shares[2 * i],
        left: shares[2 * i + 1],
        accuracy: found.accuracy.as_ref().map(|found| mean(&found.values.column(2 * i).to_vec())),
        marginal: found.marginal[i].clone(),
    };
    files.iter().enumerate().map(row).collect()
}

const HEADER: [&str; 7] = [
    "circuit",
    "edges",
    "after pruning",
    "faithfulness (95%)",
    "left without it (95%)",
    "accuracy",
    "edges that it needs (95%)",
];

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let share = |[value, low, high]: [f64; 3]| match low.is_nan() {
        true => number(value),
        false => format!("{} ({} to {})", number(value), number(low), number(high)),
    };
    let of = |row: &Row| {
        vec![
            row.name.clone(),
            row.edges.to_string(),
            row.pruned.to_string(),
            share(row.kept),
            share(row.left),
            row.accuracy.map_or_else(|| "-".to_owned(), number),
            marginal::needed(&row.marginal),
        ]
    };
    rows.iter().map(of).collect()
}

/// Most circuits that the finding describes.
const MOST_DESCRIBED: usize = 3;

/// Returns what the first circuits keep, and what is left without them.
fn finding(rows: &[Row]) -> Vec<String> {
    let sentence = |(row, cells): (&Row, Vec<String>)| {
        format!(
            "{}: {} keep {} of the behavior. All other edges keep {}.",
            row.name,
            counted(row.edges, "edge"),
            cells[3],
            cells[4]
        )
    };
    rows.iter().zip(cells(rows)).take(MOST_DESCRIBED).map(sentence).collect()
}

fn notes(found: &Found, rows: &[Row], arguments: &Arguments) -> Value {
    let row = |row: &Row| {
        json!({
            "circuit": row.name, "edges": row.edges, "edges_after_pruning": row.pruned,
            "faithfulness": row.kept[0], "faithfulness_interval": &row.kept[1..],
            "left": row.left[0], "left_interval": &row.left[1..],
            "accuracy": row.accuracy,
            "marginal": marginal::describe(&row.marginal),
        })
    };
    json!({
        "outside": arguments.outside.name(),
        "curve": match found {
            Found::Curve(judged) => curve_rows::describe(judged),
            Found::Files(_) => Value::Null,
        },
        "circuits": rows.iter().map(row).collect::<Vec<_>>(),
        "faithfulness_is": "(m(circuit) - m(empty)) / (m(model) - m(empty)), m the mean of the metric over prompts",
        "accuracy_is": "the share of prompts on which the likeliest token is an answer",
        "marginal_is": "the faithfulness of the circuit minus that without the edge, with its 95% interval over prompts",
        "left_is": "the faithfulness of all edges that are not in the circuit",
        "columns_of_circuit.metric": "each circuit, then all edges outside it; with --select, the sizes",
    })
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64
}

fn summary(found: &Found, rows: &[Row]) -> String {
    match found {
        Found::Curve(judged) => text_table(&curve_rows::HEADER, &curve_rows::rows(judged)),
        Found::Files(_) => text_table(&HEADER, &cells(rows)),
    }
}

fn page(
    found: &Found,
    files: &[CircuitFile],
    rows: &[Row],
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    warnings: &[String],
) -> Page {
    let outcome = outcome(found);
    let subtitle = format!(
        "{} · outside the circuit: {} · {} · {}",
        source.name,
        arguments.outside.name(),
        arguments.metric.name(),
        session.device()
    );
    let mut page = new_page("Circuits", &subtitle, session, warnings);
    if matches!(found, Found::Files(_)) {
        page.finding(&finding(rows), None);
    }
    let [clean, corrupted] = outcome.baselines.means();
    let empty = mean(&outcome.empty);
    page.section("Baselines", "The metric without a circuit, mean over prompts.");
    let baselines = [("clean run: all edges", clean), ("corrupted run", corrupted), ("no edges", empty)];
    let mut baselines = baselines.map(|(name, value)| vec![name.to_owned(), number(value)]).to_vec();
    let mut header = vec!["run", outcome.metric];
    let accuracy = match found {
        Found::Files(found) => found.accuracy.as_ref(),
        Found::Curve(_) => None,
    };
    if let Some(found) = accuracy {
        header.push("accuracy");
        let values = [&found.baselines.clean, &found.baselines.corrupted, &found.empty];
        baselines.iter_mut().zip(values).for_each(|(row, values)| row.push(number(mean(values))));
    }
    page.table(&header, baselines);
    match found {
        Found::Curve(judged) => {
            page.section(
                "Faithfulness by size",
                "The share of the behavior that circuits of the best edges keep. 1 is the model, 0 the run without \
                 edges. CPR is the area under the curve; CMD is the area of its distance from 1.",
            );
            page.chart(curve_rows::chart(judged));
            page.table(&curve_rows::HEADER, curve_rows::rows(judged));
        }
        Found::Files(_) => {
            page.section(
                "Faithfulness",
                "The share of the behavior that each circuit keeps, and the share that all other edges keep without \
                 it. 1 is the model, 0 the run without edges. Accuracy is the share of prompts on which the likeliest \
                 token is an answer. A circuit needs an edge if it loses without it, with 95% confidence over prompts.",
            );
            page.table(&HEADER, cells(rows));
            draw(&mut page, files, rows);
        }
    }
    page
}

/// Adds the pictures of the circuits, and what each loses without one edge.
fn draw(page: &mut Page, files: &[CircuitFile], rows: &[Row]) {
    page.section("The circuits", DRAWING);
    for (file, row) in files.iter().zip(rows).take(MOST_DRAWN) {
        page.text(&row.name);
        page.graph(graph(file).strongest(DRAWN));
    }
    let tested: Vec<&Row> = rows.iter().filter(|row| !row.marginal.is_empty()).take(MOST_DRAWN).collect();
    if !tested.is_empty() {
        page.section("Marginal effects", marginal::EXPLANATION);
    }
    for row in tested {
        page.text(&row.name);
        page.table(&marginal::HEADER, marginal::rows(&row.marginal));
    }
}
