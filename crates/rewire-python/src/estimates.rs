//! The methods with gradients: attribution patching, screening and integrated gradients.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::Method;
use rewire_analysis::attribution::{attribute_groups, attribution_patching as attribute};
use rewire_analysis::integrated::{
    Completeness, IntegratedGradientsOptions, LineScope, Quadrature, Rule, integrated_gradients as integrate,
};
use rewire_analysis::patching::screen_then_verify as screen;
use rewire_input::quoted;

use crate::analyses::{Asked, Study};
use crate::arrays::to_numpy;
use crate::exact::Replacement;
use crate::failure::Failure;
use crate::nodes::{Found, Nodes};
use crate::outcome;

/// Attribution patching of all nodes of a kind, or of single nodes.
#[pyfunction]
pub(crate) fn attribution_patching<'py>(
    py: Python<'py>,
    asked: Asked,
    nodes: Vec<String>,
    by: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let nodes = Nodes::read(&nodes, by)?;
    asked.outcome(py, move |Study { model, pairs, question, direction, execution }| {
        let transformer = model.transformer().autodiff();
        match nodes.of(pairs)? {
            Found::Kinds(kinds) => Ok(attribute(&transformer, question, &kinds, direction, &execution)?),
            Found::List(list) => {
                let found = attribute_groups(&transformer, question, &list.groups(pairs), direction, &execution)?;
                Ok(list.outcome(Method::AttributionPatching, found, pairs))
            }
        }
    })
}

/// Attribution of all nodes, and exact effects of the `k` nodes of largest attribution.
#[pyfunction]
pub(crate) fn screen_then_verify<'py>(
    py: Python<'py>,
    asked: Asked,
    nodes: Vec<String>,
    by: &str,
    k: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let kinds = Nodes::read(&nodes, by)?.kinds("screening")?;
    let found = asked.run(py, move |Study { model, question, direction, execution, .. }| {
        Ok(screen(&model.transformer().autodiff(), question, &kinds, k, direction, &execution)?)
    })?;
    let exact = outcome::to_dict(py, &found.exact)?;
    let details = PyDict::new(py);
    details.set_item("attribution", outcome::to_dict(py, &found.attribution)?)?;
    details.set_item("verified", found.verified.len())?;
    details.set_item("skipped", found.skipped)?;
    details.set_item("largest_skipped", found.largest_skipped.map(|(_, attribution)| attribution))?;
    exact.set_item("details", details)?;
    Ok(exact)
}

/// Integrated gradients of the activations of each layer.
#[pyfunction]
#[pyo3(signature = (asked, nodes, by, baseline, steps, rule, tolerance, line, mean_over))]
#[allow(clippy::too_many_arguments, reason = "Python passes them by name")]
pub(crate) fn integrated_gradients<'py>(
    py: Python<'py>,
    asked: Asked,
    nodes: Vec<String>,
    by: &str,
    baseline: &str,
    steps: usize,
    rule: &str,
    tolerance: f64,
    line: &str,
    mean_over: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let kinds = Nodes::read(&nodes, by)?.kinds("integrated gradients")?;
    let baseline = Replacement::read(baseline, mean_over)?;
    let quadrature = Quadrature { rule: rule.parse::<Rule>().map_err(Failure::argument)?, steps };
    let scope = match line {
        "layer" => LineScope::Layer,
        "node" => LineScope::Node,
        other => return Err(Failure::Argument(format!("unknown line={}; use layer or node", quoted(other))).into()),
    };
    let found = asked.run(py, move |Study { model, pairs, question, execution, .. }| {
        let baseline = baseline.intervention(model, pairs, &kinds, execution.prompt_batch)?;
        let quadrature = quadrature.into();
        let options = IntegratedGradientsOptions { baseline, scope, quadrature, tolerance, ..Default::default() };
        Ok(integrate(&model.transformer().autodiff(), question, &kinds, &options, &execution)?)
    })?;
    let integrated = outcome::to_dict(py, &found.outcome)?;
    let of_kinds: Vec<Bound<'py, PyDict>> = integrated.as_any().get_item("effects")?.extract()?;
    for (kind, Completeness { gap, change, steps, .. }) in of_kinds.iter().zip(found.completeness) {
        let details = PyDict::new(py);
        details.set_item("gap", to_numpy(py, gap)?)?;
        details.set_item("change", to_numpy(py, change)?)?;
        details.set_item("steps", steps)?;
        kind.set_item("details", details)?;
    }
    Ok(integrated)
}
