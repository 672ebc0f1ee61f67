//! The effects of all edges: exact, or estimated.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::edges::{EdgeEffects, GradientsAt, attribute_all_edges, patch_all_edges};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::{Outcome, Reduce};
use rewire_input::quoted;

use crate::analyses::{Asked, Study};
use crate::arrays::to_numpy;
use crate::failure::Failure;
use crate::outcome;

/// The effect of every edge from the input, a head or an MLP to a later head, MLP or the logits.
#[pyfunction]
#[pyo3(signature = (asked, method, integrate, steps, rule))]
pub(crate) fn edge_effects<'py>(
    py: Python<'py>,
    asked: Asked,
    method: &str,
    integrate: Option<&str>,
    steps: usize,
    rule: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let line = Quadrature { rule: rule.parse::<Rule>().map_err(Failure::argument)?, steps };
    let at = match integrate {
        None => GradientsAt::Base,
        Some("inputs") => GradientsAt::Inputs(line),
        Some("activations") => GradientsAt::Activations(line),
        Some(other) => {
            let words = format!("unknown integrate={}; use inputs or activations", quoted(other));
            return Err(Failure::Argument(words).into());
        }
    };
    let is_exact = match method {
        "activation-patching" => true,
        "attribution-patching" => false,
        other => {
            let words = format!("unknown method {}; use attribution-patching or activation-patching", quoted(other));
            return Err(Failure::Argument(words).into());
        }
    };
    let found = asked.run(py, move |Study { model, question, direction, execution, .. }| {
        let (transformer, reduce) = (model.transformer(), Reduce::PerPrompt);
        Ok(match is_exact {
            true => patch_all_edges(transformer, question, reduce, direction, &execution)?,
            false => attribute_all_edges(&transformer.autodiff(), question, at, reduce, direction, &execution)?,
        })
    })?;
    to_dict(py, found)
}

fn to_dict(py: Python<'_>, found: EdgeEffects) -> PyResult<Bound<'_, PyDict>> {
    let mean = found.mean().into_dyn();
    let EdgeEffects { graph, method, direction, scale, metric, baselines, vanished, values } = found;
    let shared = Outcome { method, direction, scale, metric, baselines, vanished, effects: Vec::new() };
    let dict = outcome::to_dict(py, &shared)?;
    let edges = PyDict::new(py);
    edges.set_item("kind", "edges")?;
    edges.set_item("axes", ["prompt", "writer", "reader"])?;
    edges.set_item("values", to_numpy(py, mean)?)?;
    edges.set_item("per_prompt", to_numpy(py, values.into_dyn())?)?;
    edges.set_item("lengths", Vec::<usize>::new())?;
    edges.set_item("nodes", Vec::<String>::new())?;
    let labels = PyDict::new(py);
    let writers: Vec<String> = (0..graph.n_writers()).map(|writer| graph.writer(writer).to_string()).collect();
    let readers: Vec<String> = (0..graph.n_readers()).map(|reader| graph.reader(reader).to_string()).collect();
    labels.set_item("writer", writers)?;
    labels.set_item("reader", readers)?;
    edges.set_item("labels", labels)?;
    dict.set_item("effects", [edges])?;
    Ok(dict)
}
