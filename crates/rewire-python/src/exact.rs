//! The exact methods: activation patching, path patching, ablation and logit attribution.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire::{Cpu, LanguageModel};
use rewire_analysis::Method;
use rewire_analysis::heads::logit_attribution as attribute_logits;
use rewire_analysis::node::NodeKind;
use rewire_analysis::patching::{ablate_groups, ablation as ablate, activation_patching as patch, patch_groups};
use rewire_analysis::path::{FreezePolicy, path_patch_groups, path_patching as patch_paths};
use rewire_analysis::run::{Intervention, MeanOver, mean_activations};
use rewire_hooks::Site;
use rewire_input::{did_you_mean, quoted};
use rewire_model::FinalNormGain;
use rewire_tasks::PromptPairs;

use crate::analyses::{Asked, Study};
use crate::failure::Failure;
use crate::nodes::{Found, Nodes, receiver};
use crate::outcome;

/// Activation patching of all nodes of a kind, or of single nodes.
#[pyfunction]
pub(crate) fn activation_patching<'py>(
    py: Python<'py>,
    asked: Asked,
    nodes: Vec<String>,
    by: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let nodes = Nodes::read(&nodes, by)?;
    asked.outcome(py, move |Study { model, pairs, question, direction, execution }| {
        let transformer = model.transformer();
        match nodes.of(pairs)? {
            Found::Kinds(kinds) => Ok(patch(transformer, question, &kinds, direction, &execution)?),
            Found::List(list) => {
                let found = patch_groups(transformer, question, &list.groups(pairs), direction, &execution)?;
                Ok(list.outcome(Method::ActivationPatching, found, pairs))
            }
        }
    })
}

/// Path patching from all nodes of a kind, or from single nodes, into receivers together.
#[pyfunction]
pub(crate) fn path_patching<'py>(
    py: Python<'py>,
    asked: Asked,
    nodes: Vec<String>,
    by: &str,
    receivers: Vec<String>,
    freeze: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let nodes = Nodes::read(&nodes, by)?;
    let policy: FreezePolicy = freeze.parse().map_err(Failure::argument)?;
    let (found, unreached) = asked.run(py, move |Study { model, pairs, question, direction, execution }| {
        let transformer = model.transformer();
        let named = receivers.iter().map(|name| receiver(name, pairs, transformer.config()));
        let to = named.collect::<Result<Vec<_>, _>>()?;
        let (outcome, missed) = match nodes.of(pairs)? {
            Found::Kinds(kinds) => {
                let found = patch_paths(transformer, question, &kinds, &to, policy, direction, &execution)?;
                (found.outcome, found.unreached)
            }
            Found::List(list) => {
                let groups = list.groups(pairs);
                let found = path_patch_groups(transformer, question, &groups, &to, policy, direction, &execution)?;
                (list.outcome(Method::PathPatching, found.outcome, pairs), found.unreached)
            }
        };
        let unreached = receivers.iter().zip(&to).filter(|(_, receiver)| missed.contains(receiver));
        let unreached: Vec<String> = unreached.map(|(name, _)| name.clone()).collect();
        Ok((outcome, unreached))
    })?;
    let found = outcome::to_dict(py, &found)?;
    let details = PyDict::new(py);
    details.set_item("unreached", unreached)?;
    found.set_item("details", details)?;
    Ok(found)
}

/// Ablation of all nodes of a kind, or of single nodes, on the clean prompts.
#[pyfunction]
pub(crate) fn ablation<'py>(
    py: Python<'py>,
    asked: Asked,
    nodes: Vec<String>,
    by: &str,
    replacement: &str,
    mean_over: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let nodes = Nodes::read(&nodes, by)?;
    let replacement = Replacement::read(replacement, mean_over)?;
    asked.outcome(py, move |Study { model, pairs, question, execution, .. }| {
        let transformer = model.transformer();
        match nodes.of(pairs)? {
            Found::Kinds(kinds) => {
                let by = replacement.intervention(model, pairs, &kinds, execution.prompt_batch)?;
                Ok(ablate(transformer, question, &kinds, &by, &execution)?)
            }
            Found::List(list) => {
                let kinds: Vec<NodeKind> = list.nodes().iter().map(|node| NodeKind::all(node.component)).collect();
                let by = replacement.intervention(model, pairs, &kinds, execution.prompt_batch)?;
                let found = ablate_groups(transformer, question, &list.groups(pairs), &by, &execution)?;
                Ok(list.outcome(Method::Ablation, found, pairs))
            }
        }
    })
}

/// Direct contributions to the logit difference on the clean prompts.
#[pyfunction]
pub(crate) fn logit_attribution<'py>(
    py: Python<'py>,
    asked: Asked,
    nodes: Vec<String>,
    by: &str,
    apply_gain: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let kinds = Nodes::read(&nodes, by)?.kinds("logit attribution")?;
    let gain = if apply_gain { FinalNormGain::Applied } else { FinalNormGain::LeftOut };
    asked.outcome(py, move |Study { model, pairs, execution, .. }| {
        Ok(attribute_logits(model.transformer(), pairs, &kinds, gain, &execution)?)
    })
}

/// The activations that nodes are replaced by.
pub(crate) enum Replacement {
    Zero,
    Resample,
    Mean(MeanOver),
}

impl Replacement {
    /// Reads `zero`, `mean` or `resample` (also `corrupt`), and the axes of means.
    pub(crate) fn read(name: &str, mean_over: &str) -> Result<Self, Failure> {
        let over = match mean_over {
            "all" => MeanOver::PromptsAndPositions,
            "position" => MeanOver::Prompts,
            other => {
                return Err(Failure::Argument(format!("unknown mean_over={}; use all or position", quoted(other))));
            }
        };
        match name {
            "zero" => Ok(Replacement::Zero),
            "mean" => Ok(Replacement::Mean(over)),
            "resample" | "corrupt" => Ok(Replacement::Resample),
            other => Err(Failure::Argument(format!(
                "unknown replacement {}; use zero, mean or resample{}",
                quoted(other),
                did_you_mean(other, ["zero", "mean", "resample"])
            ))),
        }
    }

    /// Returns the intervention; means are over the clean prompts of the pairs.
    pub(crate) fn intervention(
        &self,
        model: &LanguageModel<Cpu>,
        pairs: &PromptPairs,
        kinds: &[NodeKind],
        prompt_batch: usize,
    ) -> Result<Intervention<Cpu>, Failure> {
        let sites: Vec<_> = kinds.iter().map(|kind| kind.site()).collect();
        self.at_sites(model, pairs, &sites, prompt_batch)
    }

    /// Returns the intervention at these sites; means are over the clean prompts of the pairs.
    pub(crate) fn at_sites(
        &self,
        model: &LanguageModel<Cpu>,
        pairs: &PromptPairs,
        sites: &[Site],
        prompt_batch: usize,
    ) -> Result<Intervention<Cpu>, Failure> {
        Ok(match self {
            Replacement::Zero => Intervention::Zero,
            Replacement::Resample => Intervention::Resample,
            Replacement::Mean(over) => {
                let means = mean_activations(model.transformer(), &pairs.clean(), sites, *over, prompt_batch)?;
                Intervention::Fixed(means)
            }
        })
    }
}
