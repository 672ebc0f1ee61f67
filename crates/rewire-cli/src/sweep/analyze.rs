//! Runs the method of a sweep.

use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use ndarray::{Array3, Axis};
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttribution, EdgeAttributionOptions, attribute_groups, attribution_patching_by,
    attribution_patching_with_edges, edge_attribution,
};
use rewire_analysis::edges::{
    Edge, EdgeEffects, EdgeGraph, attribute_all_edges, attribute_edges, patch_all_edges, patch_edges, verify_edges,
};
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::integrated::integrated_gradients;
use rewire_analysis::node::NodeKind;
use rewire_analysis::patching::{
    GroupOutcome, ablate_groups, ablation, activation_patching, bound_skipped, patch_groups, screen_then_verify_by,
};
use rewire_analysis::run::{Checkpoint, Direction, Execution, Intervention, Question, Scale};
use rewire_analysis::{AnalysisError, Method, Outcome};
use rewire_circuits::{CircuitError, Judging, judge_effects};
use rewire_model::Transformer;
use rewire_studies::Setup;
use rewire_tasks::{BuiltinMetric, Metric};

use super::arguments::Arguments;
use super::choices::MethodName;
use super::findings::Findings;
use super::inputs::Inputs;
use super::intervene::Means;
use super::paths::Senders;
use super::single::SingleNodes;
use crate::shards::Counted;
use crate::threads;

/// The settings of one run of a sweep that do not depend on its inputs.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) setup: Setup<'a>,
    pub(super) checkpoint: &'a dyn Checkpoint,
    pub(super) scale: Scale,
    /// Name of the progress bar.
    pub(super) what: &'a str,
    pub(super) counted: Counted,
}

/// Runs the method that `--method` names.
pub(super) fn analyze<B: AutodiffBackend>(
    model: &Transformer<B>,
    inputs: Inputs,
    arguments: &Arguments,
    Run { setup, checkpoint, scale, what, counted }: Run,
) -> anyhow::Result<Findings> {
    let Inputs { pairs, nodes, single, edges: of_edges, reference } = inputs;
    let sizes = setup.execution(model, pairs.width());
    let prompt_batch = arguments.prompt_batch.unwrap_or(sizes.prompt_batch);
    let metric = arguments.metric.metric(model, pairs, arguments.metric_positions(pairs)?, prompt_batch)?;
    let means = arguments.means.over(reference, prompt_batch);
    setup.step(what, |progress| {
        let question = Question::new(pairs, &metric).on_scale(scale).by_rule(arguments.backward);
        let direction = arguments.direction();
        let progress: &(dyn Fn(usize, usize) + Sync) = match counted {
            Counted::Patches => progress,
            Counted::Passes => &|_, _| {},
        };
        let execution = Execution { progress, prompt_batch, checkpoint, workers: threads::limit(), ..sizes };
        if let Some(single) = single {
            return single_nodes(model, question, single, arguments, &means, &execution);
        }
        if arguments.wants_edges() {
            return edges(model, question, of_edges, arguments, &execution);
        }
        Ok(match arguments.method {
            MethodName::ActivationPatching => {
                Findings::of(activation_patching(&model.valid(), question, nodes, direction, &execution)?)
            }
            MethodName::AttributionPatching => attribution(model, question, nodes, arguments, &execution)?,
            MethodName::PathPatching => {
                arguments.paths.patch(&model.valid(), question, Senders::Kinds(nodes), direction, &execution)?
            }
            MethodName::IntegratedGradients => {
                let integral = arguments.integral.integral(&model.valid(), nodes, &means, &arguments.numbers)?;
                let found = integrated_gradients(model, question, nodes, &integral, &execution)?;
                Findings { completeness: found.completeness, ..Findings::of(found.outcome) }
            }
            MethodName::Ablation => {
                let model = model.valid();
                let by = arguments.ablation.intervention(&model, nodes, &means)?;
                Findings::of(ablation(&model, question, nodes, &by, &execution)?)
            }
            MethodName::LogitAttribution => {
                let gain = arguments.final_norm_gain();
                Findings::of(logit_attribution(&model.valid(), pairs, nodes, gain, &execution)?)
            }
        })
    })
}

/// Runs a method that takes single nodes on these.
fn single_nodes<B: AutodiffBackend>(
    model: &Transformer<B>,
    question: Question<BuiltinMetric>,
    single: &SingleNodes,
    arguments: &Arguments,
    means: &Means,
    execution: &Execution,
) -> anyhow::Result<Findings> {
    let (pairs, direction) = (question.pairs, arguments.direction());
    let list = single.list(pairs)?;
    let groups = list.groups(pairs);
    let (method, found) = match arguments.method {
        MethodName::ActivationPatching => {
            (Method::ActivationPatching, patch_groups(&model.valid(), question, &groups, direction, execution)?)
        }
        MethodName::AttributionPatching => {
            (Method::AttributionPatching, attribute_groups(model, question, &groups, direction, execution)?)
        }
        MethodName::Ablation => {
            let model = model.valid();
            let by = arguments.ablation.intervention(&model, &single.kinds(), means)?;
            (Method::Ablation, ablate_groups(&model, question, &groups, &by, execution)?)
        }
        MethodName::PathPatching => {
            return arguments.paths.patch(&model.valid(), question, Senders::List(&list), direction, execution);
        }
        MethodName::IntegratedGradients | MethodName::LogitAttribution => {
            anyhow::bail!("--method {} takes kinds of nodes only", arguments.method.name())
        }
    };
    Ok(Findings::of(list.outcome(method, found, pairs)))
}

/// Patches or estimates all edges, or those that `--nodes` names. With `--verify`, compares several
/// estimates with exact effects. Patches `share` alone if it is given.
fn edges<B: AutodiffBackend>(
    model: &Transformer<B>,
    question: Question<BuiltinMetric>,
    share: Option<&[Edge]>,
    arguments: &Arguments,
    execution: &Execution,
) -> anyhow::Result<Findings> {
    let direction = arguments.direction();
    // Circuits are also chosen on halves of the prompts.
    let keeps_prompts = arguments.per_prompt || arguments.edges.circuits.is_some();
    let reduce = if keeps_prompts { Reduce::PerPrompt } else { Reduce::Mean };
    if let Some(share) = share {
        return Ok(Findings::from(share_of_edges(&model.valid(), question, share, direction, execution)?));
    }
    let at = arguments.edges.gradients(&arguments.integral);
    let chosen = arguments.chosen_edges();
    let (found, verified_edges) = match (arguments.method, arguments.verify) {
        (MethodName::AttributionPatching, None) if !chosen.is_empty() => {
            let found = attribute_edges(model, question, &chosen, at, direction, execution)?;
            return Ok(Findings::of_chosen(chosen, Method::AttributionPatching, found));
        }
        (MethodName::AttributionPatching, None) => {
            (attribute_all_edges(model, question, at, reduce, direction, execution)?, None)
        }
        (_, Some(verify)) => {
            let estimates = arguments.estimates_of_edges();
            let found = verify_edges(model, question, &estimates, verify, reduce, direction, execution)?;
            (found.estimates[0].1.clone(), Some(found))
        }
        (_, None) if !chosen.is_empty() => {
            let found = patch_edges(&model.valid(), question, &chosen, direction, execution)?;
            return Ok(Findings::of_chosen(chosen, Method::ActivationPatching, found));
        }
        (_, None) => (patch_all_edges(&model.valid(), question, reduce, direction, execution)?, None),
    };
    let circuits = match arguments.edges.circuits {
        Some(ranking) => {
            let (sizes, outside) = (arguments.edges.sizes(), Intervention::Resample);
            let judging = Judging { sizes, ranking: ranking.ranking(), outside: &outside, seed: arguments.seed };
            Some(judge_effects(&model.valid(), question, &found, &judging, execution).map_err(of_analysis)?)
        }
        None => None,
    };
    Ok(Findings { circuits, verified_edges, ..Findings::from(found) })
}

/// Returns the error of the analysis, on which the sweep acts, or any other error.
fn of_analysis(error: CircuitError) -> anyhow::Error {
    match error {
        CircuitError::Analysis(error) => error.into(),
        other => other.into(),
    }
}

/// Patches some edges; the effects of all others are NaN.
fn share_of_edges<B: Backend>(
    model: &Transformer<B>,
    question: Question<BuiltinMetric>,
    chosen: &[Edge],
    direction: Direction,
    execution: &Execution,
) -> Result<EdgeEffects, AnalysisError> {
    let GroupOutcome { scale, metric, baselines, vanished, values: found, .. } =
        patch_edges(model, question, chosen, direction, execution)?;
    let graph = EdgeGraph::new(model.config());
    let mut values = Array3::from_elem((found.nrows(), graph.n_writers(), graph.n_readers()), f32::NAN);
    for (edge, effects) in chosen.iter().zip(found.columns()) {
        let [writer, reader] = graph.place(edge)?;
        values.index_axis_mut(Axis(2), reader).index_axis_mut(Axis(1), writer).assign(&effects);
    }
    Ok(EdgeEffects { graph, method: Method::ActivationPatching, direction, scale, metric, baselines, vanished, values })
}

/// Runs attribution patching on nodes, on head edges, or on both. With `--verify`, also patches the
/// nodes of largest attribution exactly.
fn attribution<B: AutodiffBackend>(
    model: &Transformer<B>,
    question: Question<BuiltinMetric>,
    nodes: &[NodeKind],
    arguments: &Arguments,
    execution: &Execution,
) -> anyhow::Result<Findings> {
    let direction = arguments.direction();
    let reduce = if arguments.per_prompt { Reduce::PerPrompt } else { Reduce::Mean };
    let paths = arguments.wants_paths().then_some(EdgeAttributionOptions { norm: arguments.norm(), reduce });
    let estimator = arguments.estimator.estimator();
    let screen = |verify| screen_then_verify_by(model, question, nodes, estimator, verify, direction, execution);
    let mut found = match (paths, arguments.verify) {
        (None, None) => Findings::of(attribution_patching_by(model, question, nodes, estimator, direction, execution)?),
        (None, Some(k)) => {
            let screened = screen(k)?;
            Findings { screened: Some(screened.clone()), ..Findings::of(screened.attribution) }
        }
        (Some(paths), None) if nodes.is_empty() => {
            let paths = edge_attribution(model, question, paths, direction, execution)?;
            paths_alone(paths, question, direction)
        }
        (Some(paths), verify) => {
            let (outcome, paths) =
                attribution_patching_with_edges(model, question, nodes, paths, direction, execution)?;
            let screened = match verify {
                Some(k) => Some(screen(k)?),
                None => None,
            };
            Findings { paths: Some(paths), screened, ..Findings::of(outcome) }
        }
    };
    found.estimator = estimator;
    if let (Some(sampling), Some(screened)) = (arguments.estimator.sampling(arguments.seed), &found.screened) {
        found.bound = bound_skipped(&model.valid(), question, screened, sampling, direction, execution)?;
    }
    Ok(found)
}

/// Returns findings that hold head edges, and an outcome without nodes.
fn paths_alone(paths: EdgeAttribution, question: Question<BuiltinMetric>, direction: Direction) -> Findings {
    let outcome = Outcome {
        method: Method::AttributionPatching,
        direction,
        scale: question.scale,
        metric: question.metric.name(),
        baselines: paths.baselines.clone(),
        vanished: paths.vanished.clone(),
        effects: Vec::new(),
    };
    Findings { paths: Some(paths), ..Findings::of(outcome) }
}
