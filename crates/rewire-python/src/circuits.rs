//! Circuits of edges: found, judged, read and written.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::edges::{Edge, EdgeGraph, EdgeSet, evaluate_circuits};
use rewire_circuits::{CircuitFile, EdgeScores, Ranking};
use rewire_hooks::Site;
use rewire_input::quoted;
use rewire_studies::edge_circuit::{Found, Halves, Scores, Search, Settings, find, shares};
use rewire_studies::{Progress, Setup, StudyError};

use crate::analyses::{Asked, Study};
use crate::arrays::{from_numpy, to_numpy};
use crate::exact::Replacement;
use crate::failure::Failure;
use crate::model::Model;
use crate::pairs::Pairs;
use crate::work;

/// The sites of the outputs that edges carry.
const WRITERS: [Site; 3] = [Site::ResidPre, Site::Z, Site::MlpOut];

/// The arguments of a search.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Wanted {
    model: Py<Model>,
    pairs: Py<Pairs>,
    search: String,
    scores: String,
    rank: String,
    edges: usize,
    threshold: f64,
    keep: f64,
    seed: u64,
    workers: Option<usize>,
    progress: Option<Py<PyAny>>,
}

impl Wanted {
    fn settings(&self) -> Result<Settings, Failure> {
        let unknown = |what: &str, found: &str, use_: &str| {
            Err(Failure::Argument(format!("unknown {what} {}; use {use_}", quoted(found))))
        };
        let ranking = match self.rank.as_str() {
            "absolute" => Ranking::Absolute,
            "signed" => Ranking::Signed,
            other => return unknown("rank", other, "absolute or signed"),
        };
        let positive = |name: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(value),
            false => Err(Failure::Argument(format!("{name} is {value}; it must be above 0"))),
        };
        let edges = self.edges.max(1);
        let search = match self.search.as_str() {
            "top-n" => Search::TopN { edges, ranking },
            "greedy" => Search::Greedy { edges, ranking },
            "acdc" => Search::Acdc { threshold: positive("threshold", self.threshold)? },
            "exact-greedy" => Search::ExactGreedy { keep: positive("keep", self.keep)? },
            other => return unknown("search", other, "top-n, greedy, acdc or exact-greedy"),
        };
        let scores = match self.scores.as_str() {
            "eap" => Scores::Eap,
            "eap-ig-inputs" => Scores::EapIgInputs,
            "eap-ig-activations" => Scores::EapIgActivations,
            "relp" => Scores::Relp,
            "gim" => Scores::Gim,
            "exact" => Scores::Exact,
            other => return unknown("scores", other, "eap, eap-ig-inputs, eap-ig-activations, relp, gim or exact"),
        };
        Ok(Settings { search, scores, seed: self.seed, workers: self.workers })
    }
}

/// Finds a circuit on one half of the pairs, and judges it on the other.
#[pyfunction]
pub(crate) fn find_circuit<'py>(py: Python<'py>, wanted: Wanted) -> PyResult<Bound<'py, PyDict>> {
    let settings = wanted.settings()?;
    let (model, pairs) = (Arc::clone(&wanted.model.get().model), Arc::clone(&wanted.pairs.get().pairs));
    let progress = wanted.progress.as_ref().map(|progress| progress.bind(py));
    let (found, halves) = work::run(py, progress, move |control| {
        if let Some(pair) = pairs.pairs().iter().position(|pair| pair.wrong_answers.is_empty()) {
            return Err(Failure::Pairs(format!(
                "pair {pair} (counted from 0) has no wrong answers; circuits are found for the logit difference"
            )));
        }
        let on_progress = |progress: Progress<'_>| match progress {
            Progress::Started(_) => control.begin(),
            Progress::Done { done, of } => control.advance(done, of),
            Progress::Finished => {}
        };
        let setup = Setup { on_progress: &on_progress, ..Setup::default() };
        let halves = Halves::new(&pairs, settings.seed)?;
        let found = find(&model.transformer().autodiff(), &setup, &halves, &settings);
        Ok((found.map_err(|error| in_words(error, settings.search))?, halves))
    })?;
    described(py, &found, &halves)
}

/// Adds to the refusal of an empty circuit what to change.
fn in_words(error: StudyError, search: Search) -> Failure {
    let advice = match (&error, search) {
        (StudyError::NoPath, Search::TopN { .. }) => "take more edges, or search=\"greedy\", which builds paths",
        (StudyError::NoPath, Search::Greedy { .. }) => "take more edges",
        (StudyError::NoPath, Search::Acdc { .. }) => "lower threshold",
        (StudyError::NoPath, Search::ExactGreedy { .. }) => "raise keep",
        _ => return Failure::of_study(error),
    };
    Failure::Analysis(format!("{error}: {advice}"))
}

fn described<'py>(py: Python<'py>, found: &Found, halves: &Halves) -> PyResult<Bound<'py, PyDict>> {
    let dict = of_file(py, &found.circuit)?;
    dict.set_item("shares", found.shares.iter().map(|share| share.to_vec()).collect::<Vec<_>>())?;
    dict.set_item("shuffled_edges", found.shuffled_edges)?;
    dict.set_item("evaluated", found.search.as_ref().map(|search| search.evaluated))?;
    dict.set_item("prompts", (halves.choosing.len(), halves.judging.len(), halves.are_same))?;
    Ok(dict)
}

/// Returns the edges of a circuit, the scores of all edges and the names of writers and readers.
fn of_file<'py>(py: Python<'py>, file: &CircuitFile) -> PyResult<Bound<'py, PyDict>> {
    let graph = &file.scores.graph;
    let dict = PyDict::new(py);
    dict.set_item("edges", file.circuit.edges().map(|edge| edge.to_string()).collect::<Vec<_>>())?;
    dict.set_item("scores", to_numpy(py, file.scores.values.clone().into_dyn())?)?;
    let writers: Vec<String> = (0..graph.n_writers()).map(|writer| graph.writer(writer).to_string()).collect();
    let readers: Vec<String> = (0..graph.n_readers()).map(|reader| graph.reader(reader).to_string()).collect();
    dict.set_item("writers", writers)?;
    dict.set_item("readers", readers)?;
    dict.set_item("n_edges", graph.n_edges())?;
    dict.set_item("warnings", file.warnings.clone())?;
    Ok(dict)
}

/// Reads a circuit of EAP-IG or MIB for a model.
#[pyfunction]
pub(crate) fn read_circuit<'py>(py: Python<'py>, model: &Model, path: PathBuf) -> PyResult<Bound<'py, PyDict>> {
    let refused = |error: &dyn std::fmt::Display| Failure::Analysis(format!("cannot use {}: {error}", path.display()));
    let bytes = std::fs::read(&path).map_err(|error| refused(&error))?;
    let file = CircuitFile::read(&bytes, model.model.config()).map_err(|error| refused(&error))?;
    of_file(py, &file)
}

/// Writes a circuit with the scores of all edges as EAP-IG and MIB read it.
#[pyfunction]
pub(crate) fn write_circuit(
    model: &Model,
    edges: Vec<String>,
    scores: &Bound<'_, PyAny>,
    path: PathBuf,
) -> PyResult<()> {
    let config = model.model.config();
    let graph = EdgeGraph::new(config);
    let circuit = set_of(&edges, graph)?;
    let values = from_numpy(scores)?.into_dimensionality().map_err(Failure::argument)?;
    if values.dim() != (graph.n_writers(), graph.n_readers()) {
        let words = "the scores are of another model; their shape must be [writer, reader]";
        return Err(Failure::Argument(words.to_owned()).into());
    }
    let file = CircuitFile { circuit, scores: EdgeScores { graph, values }, node_scores: None, warnings: Vec::new() };
    let bytes = file.write(config).map_err(Failure::argument)?;
    std::fs::write(&path, bytes)
        .map_err(|error| Failure::Analysis(format!("cannot write {}: {error}", path.display())).into())
}

/// Measures how much of the behavior circuits keep, and all edges outside them. Returns the
/// baselines, the metric of each circuit and of its complement, and their shares.
#[pyfunction]
pub(crate) fn evaluate<'py>(
    py: Python<'py>,
    asked: Asked,
    circuits: Vec<Vec<String>>,
    outside: &str,
    seed: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let outside = Replacement::read(outside, "position")?;
    let (outcome, shares, pruned) = asked.run(py, move |Study { model, pairs, question, execution, .. }| {
        let graph = EdgeGraph::new(model.config());
        let sets = circuits.iter().map(|edges| set_of(edges, graph)).collect::<Result<Vec<_>, _>>()?;
        let pruned: Vec<usize> = sets.iter().map(|set| set.pruned().len()).collect();
        if let Some(number) = pruned.iter().position(|edges| *edges == 0) {
            return Err(Failure::Argument(format!(
                "circuit {number} (counted from 0): no edge of it lies on a path from the input to the logits; it \
                 keeps nothing"
            )));
        }
        let both: Vec<EdgeSet> = sets.iter().flat_map(|set| [set.clone(), set.complement()]).collect();
        let outside = outside.at_sites(model, pairs, &WRITERS, execution.prompt_batch)?;
        let question = question.in_metric_units();
        let outcome = evaluate_circuits(model.transformer(), question, &both, &outside, &execution)?;
        let shares = shares(&outcome, &pairs.clusters(), seed).map_err(|error| Failure::of_study(error.into()))?;
        Ok((outcome, shares, pruned))
    })?;
    let dict = PyDict::new(py);
    dict.set_item("metric", outcome.metric)?;
    dict.set_item("clean", outcome.baselines.clean)?;
    dict.set_item("corrupted", outcome.baselines.corrupted)?;
    dict.set_item("empty", outcome.empty)?;
    dict.set_item("values", to_numpy(py, outcome.values.into_dyn())?)?;
    dict.set_item("shares", shares.iter().map(|share| share.to_vec()).collect::<Vec<_>>())?;
    dict.set_item("pruned", pruned)?;
    Ok(dict)
}

fn set_of(edges: &[String], graph: EdgeGraph) -> Result<EdgeSet, Failure> {
    let mut set = EdgeSet::empty(graph);
    for name in edges {
        let edge: Edge = name.parse().map_err(Failure::argument)?;
        set.set(graph.place(&edge)?, true);
    }
    Ok(set)
}
