//! The effects of the edges between heads: estimated for all, or exact for some.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::attribution::{EdgeAttributionOptions, NormJacobian, edge_attribution};
use rewire_analysis::edges::{Edge as Named, Reader, Writer};
use rewire_analysis::path::{Edge, FreezePolicy, HeadEdges, Input, head_edges as patch_head_edges};
use rewire_analysis::{Method, Outcome, Reduce};
use rewire_hooks::Head;
use rewire_model::HeadInput;

use crate::analyses::{Asked, Study};
use crate::arrays::to_numpy;
use crate::failure::Failure;
use crate::outcome;

/// The kind of effects.
const KIND: &str = "head_edges";

/// Estimates of all edges from a head's output to the queries, keys or values of later heads.
#[pyfunction]
pub(crate) fn head_edges<'py>(py: Python<'py>, asked: Asked, norm: &str) -> PyResult<Bound<'py, PyDict>> {
    let norm: NormJacobian = norm.parse().map_err(Failure::argument)?;
    let (shared, found) = asked.run(py, move |Study { model, question, direction, execution, .. }| {
        let options = EdgeAttributionOptions { norm, reduce: Reduce::PerPrompt };
        let found = edge_attribution(&model.transformer().autodiff(), question, options, direction, &execution)?;
        let shared = Outcome {
            method: Method::AttributionPatching,
            direction,
            scale: question.scale,
            metric: rewire_tasks::Metric::name(question.metric),
            baselines: found.baselines.clone(),
            vanished: found.vanished.clone(),
            effects: Vec::new(),
        };
        Ok((shared, found))
    })?;
    let edges = PyDict::new(py);
    edges.set_item("axes", rewire_report::head_edges::AXES)?;
    edges.set_item("values", to_numpy(py, found.mean().into_dyn())?)?;
    edges.set_item("per_prompt", to_numpy(py, found.values)?)?;
    edges.set_item("lengths", found.lengths)?;
    edges.set_item("nodes", Vec::<String>::new())?;
    with_edges(py, &shared, &edges)
}

/// Exact effects of edges between heads, each patched alone. `edges` are names such as
/// `a0.h7->a3.h6<q>`; `heads` asks for all edges between heads.
#[pyfunction]
#[pyo3(signature = (asked, edges, heads, freeze))]
pub(crate) fn head_edge_patching<'py>(
    py: Python<'py>,
    asked: Asked,
    edges: Vec<String>,
    heads: Vec<String>,
    freeze: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let policy: FreezePolicy = freeze.parse().map_err(Failure::argument)?;
    let heads = heads.iter().map(|head| head.parse::<Head>().map_err(Failure::argument));
    let heads = heads.collect::<Result<Vec<_>, _>>()?;
    let mut wanted = edges.iter().map(|name| read(name)).collect::<Result<Vec<_>, _>>()?;
    wanted.extend(Edge::between(&heads));
    if wanted.is_empty() {
        let words = "there is no edge to patch: name edges such as a0.h7->a3.h6<q>, or heads of different layers";
        return Err(Failure::Argument(words.to_owned()).into());
    }
    let HeadEdges { edges: patched, outcome: found } =
        asked.run(py, move |Study { model, question, direction, execution, .. }| {
            Ok(patch_head_edges(model.transformer(), question, &wanted, policy, direction, &execution)?)
        })?;
    let names: Vec<String> = patched.iter().map(name).collect();
    let mean = found.mean().into_dyn();
    let shared = Outcome {
        method: Method::PathPatching,
        direction: found.direction,
        scale: found.scale,
        metric: found.metric,
        baselines: found.baselines,
        vanished: found.vanished,
        effects: Vec::new(),
    };
    let edges = PyDict::new(py);
    edges.set_item("axes", ["prompt", "node"])?;
    edges.set_item("values", to_numpy(py, mean)?)?;
    edges.set_item("per_prompt", to_numpy(py, found.values.into_dyn())?)?;
    edges.set_item("lengths", Vec::<usize>::new())?;
    edges.set_item("nodes", names)?;
    with_edges(py, &shared, &edges)
}

/// Returns the dictionary of an outcome whose effects are these edges.
fn with_edges<'py>(py: Python<'py>, shared: &Outcome, edges: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    edges.set_item("kind", KIND)?;
    let dict = outcome::to_dict(py, shared)?;
    dict.set_item("effects", [edges])?;
    Ok(dict)
}

/// Reads the name of an edge between heads, as auto-circuit writes it.
fn read(name: &str) -> Result<Edge, Failure> {
    let edge: Named = name.parse().map_err(Failure::argument)?;
    let (Writer::Head(from), Reader::Head(to, input)) = (edge.writer, edge.reader) else {
        return Err(Failure::Argument(format!("{name} is not an edge between heads; edge_effects() has all edges")));
    };
    let input = match input {
        HeadInput::Q => Input::Q,
        HeadInput::K => Input::K,
        HeadInput::V => Input::V,
    };
    Ok(Edge { from, to, input })
}

/// Returns the name that [`read`] reads.
fn name(edge: &Edge) -> String {
    let input = edge.input.short_name();
    format!("a{}.h{}->a{}.h{}<{input}>", edge.from.layer, edge.from.head, edge.to.layer, edge.to.head)
}
