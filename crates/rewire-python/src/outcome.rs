//! Results as dictionaries of numbers and names, and back.

use ndarray::ArrayD;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::node::{Node, NodeKind, Positions};
use rewire_analysis::run::Scale;
use rewire_analysis::{Align, Baselines, Effects, Method, Outcome};
use rewire_report::units::unit;

use crate::arrays::{from_numpy, to_numpy};
use crate::failure::Failure;
use crate::metric::known_name;

/// Every method.
const METHODS: [Method; 6] = [
    Method::ActivationPatching,
    Method::AttributionPatching,
    Method::IntegratedGradients,
    Method::Ablation,
    Method::PathPatching,
    Method::LogitAttribution,
];

/// Returns an outcome as a dictionary, with the effects of each kind in the list `effects`.
pub(crate) fn to_dict<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("method", outcome.method.to_string())?;
    found.set_item("direction", outcome.direction.to_string())?;
    found.set_item("normalized", outcome.scale == Scale::Normalized)?;
    found.set_item("metric", outcome.metric)?;
    found.set_item("unit", unit(outcome.metric, outcome.scale))?;
    found.set_item("clean", outcome.baselines.clean.clone())?;
    found.set_item("corrupted", outcome.baselines.corrupted.clone())?;
    let warnings: Vec<String> = outcome.warnings().iter().map(ToString::to_string).collect();
    found.set_item("warnings", warnings)?;
    let effects = outcome.effects.iter().map(|effects| of_kind(py, effects)).collect::<PyResult<Vec<_>>>()?;
    found.set_item("effects", effects)?;
    Ok(found)
}

fn of_kind<'py>(py: Python<'py>, effects: &Effects) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("kind", effects.kind.to_string())?;
    found.set_item("axes", effects.axis_names())?;
    found.set_item("values", to_numpy(py, effects.mean())?)?;
    found.set_item("per_prompt", to_numpy(py, effects.values.clone())?)?;
    found.set_item("lengths", effects.lengths.clone())?;
    let nodes: Vec<String> = effects.nodes.iter().map(ToString::to_string).collect();
    found.set_item("nodes", nodes)?;
    Ok(found)
}

/// The parts of a result that a report draws.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Parts<'py> {
    method: String,
    direction: String,
    normalized: bool,
    metric: String,
    clean: Vec<f32>,
    corrupted: Vec<f32>,
    kind: String,
    per_prompt: Bound<'py, PyAny>,
    lengths: Vec<usize>,
    nodes: Vec<String>,
}

impl Parts<'_> {
    /// Returns the outcome that these are the parts of.
    pub(crate) fn outcome(&self) -> PyResult<Outcome> {
        let unknown = || Failure::Argument(format!("unknown method {}", rewire_input::quoted(&self.method)));
        let method = METHODS.into_iter().find(|method| method.to_string() == self.method).ok_or_else(unknown)?;
        let kind: NodeKind = self.kind.parse().map_err(Failure::argument)?;
        let values: ArrayD<f32> = from_numpy(&self.per_prompt)?;
        let nodes = self.nodes.iter().map(|name| node(name)).collect::<Result<_, _>>()?;
        let effects = Effects { kind, values, lengths: self.lengths.clone(), nodes, align: Align::Start };
        let baselines = Baselines { clean: self.clean.clone(), corrupted: self.corrupted.clone() };
        let scale = if self.normalized { Scale::Normalized } else { Scale::Metric };
        let direction = self.direction.parse().map_err(Failure::argument)?;
        let metric = known_name(&self.metric);
        Ok(Outcome { method, direction, scale, metric, baselines, vanished: Vec::new(), effects: vec![effects] })
    }
}

/// Reads the name of a node. The marked positions themselves are not part of a name.
fn node(name: &str) -> Result<Node, Failure> {
    let (place, is_marked) = name.strip_suffix("@marked").map_or((name, false), |place| (place, true));
    let node: Node = place.parse().map_err(Failure::argument)?;
    Ok(if is_marked { node.at(Positions::Each(Vec::new())) } else { node })
}
