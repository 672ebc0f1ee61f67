//! Exact effects of edges: each reader's input takes one writer's output from the other run.

use burn::tensor::backend::Backend;
use ndarray::{Array2, Array3, Axis as Dimension};
use rewire_hooks::Head;
use rewire_model::{HeadInput, Transformer, TransformerConfig};
use rewire_tasks::{Metric, PromptPairs};

use crate::edges::effects::EdgeEffects;
use crate::edges::graph::{Edge, EdgeGraph, Reader, Writer};
use crate::effects::{Method, Reduce};
use crate::error::AnalysisError;
use crate::node::kind::{Component, Node};
use crate::patching::groups::GroupOutcome;
use crate::path::followed::{Ends, Followed};
use crate::path::paths::{follow, follow_cost};
use crate::path::policy::FreezePolicy;
use crate::path::receiver::{Input, Receiver};
use crate::path::schedule::PathPair;
use crate::run::cost::Cost;
use crate::run::execution::{Execution, Reuse};
use crate::run::question::{Direction, Question};

/// Returns the effect of every edge of the model: the change of the metric when the reader's input
/// in the base run carries the writer's output of the source run, and everything after the reader
/// is recomputed.
///
/// Effects are exact. The effect of one edge is that of
/// [`patch_paths`](crate::path::patch_paths) with [`FreezePolicy::direct`] from the writer to the
/// reader. Signs and effect scale are as in
/// [`activation_patching`](crate::patching::activation_patching). Edges that enter the model at one
/// layer run in one batch.
///
/// In models with a norm after attention, a head's output changes the residual stream through that
/// norm. The effects of the edges of several heads then do not add up, even in the stream.
///
/// # Errors
/// As [`activation_patching`](crate::patching::activation_patching).
pub fn patch_all_edges<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    reduce: Reduce,
    direction: Direction,
    execution: &Execution,
) -> Result<EdgeEffects, AnalysisError> {
    let places: Vec<[usize; 2]> = EdgeGraph::new(model.config()).places().collect();
    patch_places(model, question, &places, 0.0, reduce, direction, execution)
}

/// Returns the effects of the edges at these places, and `elsewhere` for all other edges.
pub(super) fn patch_places<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    places: &[[usize; 2]],
    elsewhere: f32,
    reduce: Reduce,
    direction: Direction,
    execution: &Execution,
) -> Result<EdgeEffects, AnalysisError> {
    let graph = EdgeGraph::new(model.config());
    let found = follow_edges(model, question, &graph, places, direction, execution)?;
    let effects = found.effects();
    check(&graph, places, &effects)?;
    let effects = match reduce {
        Reduce::PerPrompt => effects,
        Reduce::Mean => {
            let prompts = effects.len_of(Dimension(0)).max(1) as f64;
            let mean = effects.mapv(f64::from).sum_axis(Dimension(0)).mapv(|sum| (sum / prompts) as f32);
            mean.insert_axis(Dimension(0))
        }
    };
    let mut values = Array3::zeros((effects.len_of(Dimension(0)), graph.n_writers(), graph.n_readers()));
    for mut of_prompt in values.outer_iter_mut() {
        graph.places().for_each(|place| of_prompt[place] = elsewhere);
    }
    for ((prompt, number), effect) in effects.indexed_iter() {
        let [writer, reader] = places[number];
        values[[prompt, writer, reader]] = *effect;
    }
    Ok(EdgeEffects {
        graph,
        method: Method::ActivationPatching,
        direction,
        scale: question.scale,
        metric: question.metric.name(),
        baselines: found.baselines,
        vanished: Vec::new(),
        values,
    })
}

/// Returns the exact effect of each of these edges, `[prompt, edge]`, as [`patch_all_edges`] does.
///
/// # Errors
/// As [`patch_all_edges`], and [`AnalysisError::NoSuchEdge`] for an edge that the model lacks.
pub fn patch_edges<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    edges: &[Edge],
    direction: Direction,
    execution: &Execution,
) -> Result<GroupOutcome, AnalysisError> {
    let graph = EdgeGraph::new(model.config());
    let places = edges.iter().map(|edge| graph.place(edge)).collect::<Result<Vec<_>, _>>()?;
    let found = follow_edges(model, question, &graph, &places, direction, execution)?;
    let values = found.effects();
    check(&graph, &places, &values)?;
    let (metric, scale, baselines) = (question.metric.name(), question.scale, found.baselines);
    Ok(GroupOutcome { direction, scale, metric, baselines, vanished: Vec::new(), values })
}

/// Follows the edges at these places as paths from one sender to one receiver.
fn follow_edges<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    graph: &EdgeGraph,
    places: &[[usize; 2]],
    direction: Direction,
    execution: &Execution,
) -> Result<Followed, AnalysisError> {
    let paths = EdgePaths::new(graph, places, model.config());
    // The literal run of a path updates every head that shares the receiver's keys or values.
    let execution = &Execution { reuse: Reuse::Everything, ..*execution };
    follow(model, question, paths.ends(), FreezePolicy::direct(), direction, execution)
}

/// Returns the least cost of the steps that dominate the time of [`patch_all_edges`], counted as
/// [`path_patching_cost`](crate::path::path_patching_cost) counts.
///
/// # Errors
/// As [`patch_all_edges`].
pub fn edge_patching_cost<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    execution: &Execution,
) -> Result<Cost, AnalysisError> {
    let graph = EdgeGraph::new(model.config());
    let places: Vec<[usize; 2]> = graph.places().collect();
    let paths = EdgePaths::new(&graph, &places, model.config());
    follow_cost(model, pairs, metric, paths.ends(), FreezePolicy::direct(), execution)
}

/// Edges as paths from one sender to one receiver.
struct EdgePaths {
    senders: Vec<Vec<Node>>,
    receivers: Vec<Vec<Receiver>>,
    paths: Vec<PathPair>,
}

impl EdgePaths {
    fn new(graph: &EdgeGraph, places: &[[usize; 2]], config: &TransformerConfig) -> Self {
        let ends: Vec<(Receiver, Option<usize>)> =
            (0..graph.n_readers()).map(|reader| receiver(graph.reader(reader), config)).collect();
        let path =
            |&[writer, reader]: &[usize; 2]| PathPair { senders: writer, receivers: reader, through: ends[reader].1 };
        Self {
            senders: (0..graph.n_writers()).map(|writer| vec![sender(graph.writer(writer))]).collect(),
            receivers: ends.iter().map(|(receiver, _)| vec![receiver.clone()]).collect(),
            paths: places.iter().map(path).collect(),
        }
    }

    fn ends(&self) -> Ends<'_> {
        Ends { senders: &self.senders, receivers: &self.receivers, paths: &self.paths }
    }
}

fn sender(writer: Writer) -> Node {
    match writer {
        // Position embeddings are the same in both runs.
        Writer::Input => Node::new(0, Component::ResidPre),
        Writer::Head(Head { layer, head }) => Node::new(layer, Component::HeadZ).unit(head),
        Writer::Mlp(layer) => Node::new(layer, Component::MlpOut),
    }
}

/// Returns the receiver, and the attention head that alone reads it where heads share keys and
/// values.
fn receiver(reader: Reader, config: &TransformerConfig) -> (Receiver, Option<usize>) {
    let is_shared = config.heads_per_key_value_head() > 1;
    match reader {
        Reader::Head(head, HeadInput::Q) => (Receiver::of_head(head, Input::Q, config), None),
        Reader::Head(head, input) => {
            let input = if input == HeadInput::K { Input::K } else { Input::V };
            (Receiver::of_head(head, input, config), is_shared.then_some(head.head))
        }
        Reader::Mlp(layer) => (Receiver::new(layer, Input::MlpIn), None),
        Reader::Logits => (Receiver::logits(config), None),
    }
}

/// Refuses effects `[prompt, edge]` that are not finite.
pub(super) fn check(graph: &EdgeGraph, places: &[[usize; 2]], effects: &Array2<f32>) -> Result<(), AnalysisError> {
    let Some(((prompt, number), &value)) = effects.indexed_iter().find(|(_, value)| !value.is_finite()) else {
        return Ok(());
    };
    let what = format!("the effect of the edge {}", graph.edge(places[number]));
    Err(AnalysisError::NotFinite { what, value, prompt: Some(prompt), first: None })
}
