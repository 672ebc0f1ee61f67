//! `rewire circuit compare`: what circuits of one model share.

use std::path::PathBuf;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use rewire_analysis::edges::{CircuitOutcome, EdgeSet, evaluate_circuits};
use rewire_analysis::run::{Execution, Question};
use rewire_circuits::{CircuitFile, CircuitShape, Comparison, Curve, Overlap, Resampled, ShapeDifference};
use rewire_model::Transformer;
use rewire_report::numbers::{interval, number, signed};
use rewire_report::{Labels, Page, describe_baselines};
use rewire_store::sha256;
use rewire_tasks::PairsFile;
use serde_json::{Value, json};

use super::curve_rows::metric_table;
use super::file::{SignName, read, read_alone};
use super::outside::OutsideName;
use crate::headings::{OUTPUT, PROMPTS, UNCERTAINTY, WHAT};
use crate::interrupt::Interrupts;
use crate::model::{ModelArguments, Source};
use crate::notices::{announce, new_page};
use crate::on_device::on_device;
use crate::output::{OutputArguments, say, text_table};
use crate::pairs_file::PairsArguments;
use crate::publish::{Publication, RESULTS};
use crate::session::Session;
use crate::sweep::{MetricName, origin};
use crate::threads;

/// Most edges of each kind in a table of the report, and in effects.json.
const LISTED: [usize; 2] = [50, 10_000];
/// Number of resamples of the prompts.
const RESAMPLES: usize = 1000;

#[derive(Args)]
pub(super) struct Arguments {
    /// Two or more circuits of EAP-IG or MIB (JSON), of one model.
    #[arg(required = true, num_args = 2.., value_name = "CIRCUIT")]
    circuits: Vec<PathBuf>,
    /// Prompt pairs on which circuits are evaluated: JSON Lines, or another format of the field.
    ///
    /// Gives the faithfulness of each circuit, and the differences on the same prompts. Without it,
    /// no model is run.
    #[arg(long, value_name = "FILE", help_heading = PROMPTS)]
    pairs: Option<PathBuf>,
    #[command(flatten)]
    reading: PairsArguments,
    /// Sign of the scores: as-written or opposite.
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
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = UNCERTAINTY)]
    seed: u64,
    #[command(flatten)]
    model: ModelArguments,
    /// Directory for the results.
    #[arg(long, default_value = "out/compare", value_name = "DIR", help_heading = OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    output: OutputArguments,
}

/// The faithfulness of the circuits.
struct Judged {
    outcome: CircuitOutcome,
    curve: Curve,
    resampled: Resampled,
}

/// Two circuits, by their places on the command line, compared.
struct Pair {
    of: [usize; 2],
    found: Comparison,
}

pub(super) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory, interrupts)?;
    arguments.check_one_model()?;
    let source = Source::open(&arguments.model)?;
    let files: Vec<CircuitFile> =
        arguments.circuits.iter().map(|path| read(path, &source.config, arguments.sign)).collect::<Result<_, _>>()?;
    let read_pairs = |path| arguments.reading.read(path, &source, arguments.metric.answers());
    let pairs = arguments.pairs.as_deref().map(read_pairs).transpose()?;
    let mut warnings: Vec<String> = pairs.iter().flat_map(|read| read.warnings.clone()).collect();
    warnings.extend(files.iter().flat_map(|file| file.warnings.clone()));
    let identity = arguments.identity(&session, &source, &pairs, &files)?;
    let directory = arguments.output.take(&arguments.out, &RESULTS, &identity, interrupts)?;
    announce(&source)?;
    warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    let judged = match &pairs {
        Some(read) => Some(on_device!(&session, |B, device| {
            let model: Transformer<Autodiff<B>> = source.load(&device)?;
            arguments.judge(&model, &files, read, &session)
        })?),
        None => None,
    };
    let compared = compared(&files)?;
    let found = Found { arguments, files: &files, compared, judged };
    let labels = match (&arguments.pairs, &pairs) {
        (Some(path), Some(read)) => Labels::FromFile(&read.pairs, origin(path, read.format)?),
        _ => Labels::None,
    };
    let judged = found.judged.as_ref();
    let publication = Publication {
        run: identity,
        tables: judged.iter().map(|judged| metric_table(judged.outcome.values.clone().into_dyn())).collect(),
        metric: arguments.metric.name(),
        seed: arguments.seed,
        labels,
        baselines: judged.map_or(Value::Null, |judged| describe_baselines(&judged.outcome.baselines)),
        notes: found.notes(),
        page: found.page(&session, &source, &warnings),
        warnings,
        files: Vec::new(),
        summary: found.summary(),
    };
    publication.publish(&session, &source, &directory)
}

impl Arguments {
    /// Refuses circuits of different models, by the shapes that the files state.
    fn check_one_model(&self) -> anyhow::Result<()> {
        let shapes: Vec<CircuitShape> =
            self.circuits.iter().map(|path| Ok(read_alone(path, self.sign)?.1)).collect::<anyhow::Result<_>>()?;
        for (path, shape) in self.circuits.iter().zip(&shapes).skip(1) {
            if let Some(ShapeDifference { field, values: [first, other] }) = shapes[0].difference(shape) {
                anyhow::bail!(
                    "{} and {} are circuits of different models: the {field} is {first} in the first and {other} in \
                     the second; compare circuits of one model",
                    self.circuits[0].display(),
                    path.display()
                );
            }
        }
        Ok(())
    }

    fn identity(
        &self,
        session: &Session,
        source: &Source,
        pairs: &Option<PairsFile>,
        files: &[CircuitFile],
    ) -> anyhow::Result<Value> {
        let prompts = |read: &PairsFile| -> Vec<_> {
            let of = |p: &rewire_tasks::PromptPair| {
                (p.clean.clone(), p.corrupted.clone(), p.answers.clone(), p.wrong_answers.clone())
            };
            read.pairs.pairs().iter().map(of).collect()
        };
        let pairs = pairs.as_ref().map(|read| serde_json::to_vec(&prompts(read)).map(|bytes| sha256(&bytes)));
        let circuits: Vec<String> = files
            .iter()
            .map(|file| Ok(sha256(&file.write(&source.config)?)))
            .collect::<Result<_, rewire_circuits::CircuitFileError>>()?;
        Ok(json!({
            "command": "circuit compare",
            "version": env!("CARGO_PKG_VERSION"),
            "model": source.files.versions()?,
            "processed weights": source.is_processed(),
            "device": session.device().to_string(),
            "pairs": pairs.transpose()?,
            "circuits": circuits,
            "outside": self.outside.name(),
            "metric": self.metric.name(),
            "seed": self.seed,
        }))
    }

    /// Evaluates the circuits on the prompts.
    fn judge<B: AutodiffBackend>(
        &self,
        model: &Transformer<B>,
        files: &[CircuitFile],
        read: &PairsFile,
        session: &Session,
    ) -> anyhow::Result<Judged> {
        let pairs = &read.pairs;
        let setup = session.setup();
        let inner = model.valid();
        let sizes = setup.execution(&inner, pairs.width());
        let metric = self.metric.metric(model, pairs, pairs.ends(), sizes.prompt_batch)?;
        let question = Question::new(pairs, &metric).in_metric_units();
        let outside = self.outside.intervention(&inner, pairs, sizes.prompt_batch)?;
        let circuits: Vec<EdgeSet> = files.iter().map(|file| file.circuit.clone()).collect();
        let outcome = setup.step("circuits", |progress| {
            let execution = Execution { progress, workers: threads::limit(), ..sizes };
            evaluate_circuits(&inner, question, &circuits, &outside, &execution)
        })?;
        let places: Vec<f64> = (0..circuits.len()).map(|i| i as f64).collect();
        let curve = Curve::new(&places, &outcome)?;
        let mut resampled = Resampled::default();
        let clusters = pairs.clusters();
        if clusters.len() > 3 {
            resampled.draw(&places, &outcome, &clusters, RESAMPLES, self.seed);
        }
        Ok(Judged { outcome, curve, resampled })
    }
}

/// Compares every two circuits.
fn compared(files: &[CircuitFile]) -> anyhow::Result<Vec<Pair>> {
    let two = (0..files.len()).flat_map(|a| (a + 1..files.len()).map(move |b| [a, b]));
    two.map(|of| Ok(Pair { of, found: Comparison::new(&files[of[0]], &files[of[1]])? })).collect()
}

/// Everything that was found.
struct Found<'a> {
    arguments: &'a Arguments,
    files: &'a [CircuitFile],
    compared: Vec<Pair>,
    judged: Option<Judged>,
}

const HEADER: [&str; 7] = [
    "circuits",
    "edges: both, only 1st, 2nd",
    "Jaccard",
    "nodes: both, only 1st, 2nd",
    "Jaccard",
    "Pearson",
    "Spearman",
];
const JUDGED: [&str; 4] = ["circuit", "edges", "faithfulness (95%)", "minus the first (95%)"];

impl Found<'_> {
    /// Returns a short name of a circuit: its letter.
    fn letter(place: usize) -> String {
        match u8::try_from(place).ok().filter(|place| *place < 26) {
            Some(place) => char::from(b'A' + place).to_string(),
            None => format!("#{}", place + 1),
        }
    }

    /// Returns which letter stands for which file.
    fn names(&self) -> Vec<String> {
        let name = |(i, path): (usize, &PathBuf)| {
            let file = &self.files[i];
            format!("{}: {} ({} edges)", Self::letter(i), path.display(), file.circuit.len())
        };
        self.arguments.circuits.iter().enumerate().map(name).collect()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let counts = |of: &Overlap| format!("{}, {}, {}", of.both, of.only[0], of.only[1]);
        let row = |Pair { of, found }: &Pair| {
            let correlation = |value: Option<f64>| number(value.unwrap_or(f64::NAN));
            vec![
                format!("{} {}", Self::letter(of[0]), Self::letter(of[1])),
                counts(&found.edges),
                number(found.edges.jaccard()),
                counts(&found.nodes),
                number(found.nodes.jaccard()),
                correlation(found.pearson),
                correlation(found.spearman),
            ]
        };
        self.compared.iter().map(row).collect()
    }

    /// Returns the faithfulness of each circuit, and how it differs from the first's.
    fn judged_rows(&self, judged: &Judged) -> Vec<Vec<String>> {
        let intervals = judged.resampled.intervals();
        let with = |text: String, ends: Option<[f64; 2]>| match ends {
            Some(ends) => format!("{text} ({})", interval(ends.map(|end| end as f32))),
            None => text,
        };
        let row = |(i, file): (usize, &CircuitFile)| {
            let f = &judged.curve.faithfulness;
            let difference = match i {
                0 => String::new(),
                _ => with(signed(f[i] - f[0]), judged.resampled.difference(i, 0)),
            };
            let of = intervals.as_ref().map(|found| found.faithfulness[i]);
            vec![Self::letter(i), file.circuit.len().to_string(), with(number(f[i]), of), difference]
        };
        self.files.iter().enumerate().map(row).collect()
    }

    /// Returns what the first two circuits share, and how their faithfulness differs.
    fn finding(&self) -> Vec<String> {
        let Some(Pair { of, found }) = self.compared.first() else { return Vec::new() };
        let [first, second] = of.map(Self::letter);
        let edges = &found.edges;
        let shared = format!(
            "{first} and {second} share {} of the {} edges of either (Jaccard index {}).",
            edges.both,
            edges.both + edges.only[0] + edges.only[1],
            number(edges.jaccard())
        );
        let kept = self.judged.as_ref().map(|judged| {
            let rows = self.judged_rows(judged);
            let [of_first, of_second] = of.map(|place| &rows[place]);
            format!(
                "{first} keeps {} of the behavior and {second} {}; the difference is {}.",
                of_first[2], of_second[2], of_second[3]
            )
        });
        [Some(shared), kept].into_iter().flatten().collect()
    }

    fn summary(&self) -> String {
        let judged = self.judged.as_ref().map(|judged| text_table(&JUDGED, &self.judged_rows(judged)));
        let parts = [Some(self.names().join("\n")), Some(text_table(&HEADER, &self.rows())), judged];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    fn notes(&self) -> Value {
        let overlap = |of: &Overlap, all: usize| {
            json!({
                "both": of.both, "only_first": of.only[0], "only_second": of.only[1],
                "jaccard": finite(of.jaccard()), "jaccard_by_chance": finite(of.jaccard_by_chance(all)),
            })
        };
        let names = |edges: &[(rewire_analysis::edges::Edge, [f32; 2])]| {
            edges.iter().take(LISTED[1]).map(|(edge, _)| edge.to_string()).collect::<Vec<_>>()
        };
        let pair = |Pair { of, found }: &Pair| {
            let graph = self.files[of[0]].scores.graph;
            json!({
                "circuits": of,
                "edges": overlap(&found.edges, graph.n_edges()),
                "nodes": overlap(&found.nodes, graph.n_writers()),
                "pearson": found.pearson,
                "spearman": found.spearman,
                "edges_of_both": names(&found.members[0]),
                "edges_only_of_first": names(&found.members[1]),
                "edges_only_of_second": names(&found.members[2]),
            })
        };
        let judged = self.judged.as_ref().map(|judged| {
            let differences: Vec<Option<[f64; 2]>> =
                (1..self.files.len()).map(|i| judged.resampled.difference(i, 0)).collect();
            json!({
                "faithfulness": judged.curve.faithfulness,
                "faithfulness_intervals": judged.resampled.intervals().map(|found| found.faithfulness),
                "intervals_of_the_difference_from_the_first": differences,
            })
        });
        json!({
            "circuits": self.arguments.circuits,
            "compared": self.compared.iter().map(pair).collect::<Vec<_>>(),
            "outside": self.arguments.outside.name(),
            "judged": judged,
            "correlations_are": "of the scores on the edges of both circuits",
            "intervals_are": "95% bootstrap intervals over clusters of prompts; a difference has the same resamples \
                              for both circuits",
        })
    }

    fn page(&self, session: &Session, source: &Source, warnings: &[String]) -> Page {
        let mut page = new_page("Circuits compared", &source.name, session, warnings);
        page.finding(&self.finding(), None);
        page.section("The circuits", "The letters stand for these files.");
        self.names().iter().for_each(|name| page.text(name));
        page.section(
            "What they share",
            "Numbers of edges and nodes of both circuits, of the first alone and of the second alone. The Jaccard index \
             is the number in both over the number in either. Correlations are of the scores on the edges of both.",
        );
        page.table(&HEADER, self.rows());
        if let Some(judged) = &self.judged {
            page.section(
                "Faithfulness",
                "The share of the behavior that each circuit keeps on the same prompts. Intervals are 95% bootstrap \
                 intervals over prompts; the interval of a difference draws the same prompts for both circuits.",
            );
            page.table(&JUDGED, self.judged_rows(judged));
        }
        for Pair { of, found } in &self.compared {
            let [first, second] = of.map(Self::letter);
            page.section(
                &format!("Edges of {first} and {second}"),
                &format!("The {} edges of largest score of each kind, with the scores in both files.", LISTED[0]),
            );
            let kinds = ["both".to_owned(), format!("only {first}"), format!("only {second}")];
            let rows = found.members.iter().zip(&kinds).flat_map(|(edges, kind)| {
                edges
                    .iter()
                    .take(LISTED[0])
                    .map(move |(edge, [a, b])| vec![edge.to_string(), kind.clone(), number(*a), number(*b)])
            });
            let scores = [first, second].map(|letter| format!("score in {letter}"));
            page.table(&["edge", "in", &scores[0], &scores[1]], rows.collect());
        }
        page
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
