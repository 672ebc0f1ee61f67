//! Runs the method of a sweep.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttribution, EdgeAttributionOptions, attribute_groups, attribution_patching, attribution_patching_with_edges,
    edge_attribution,
};
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::integrated::integrated_gradients;
use rewire_analysis::node::NodeKind;
use rewire_analysis::patching::{ablate_groups, ablation, activation_patching, patch_groups, screen_then_verify};
use rewire_analysis::run::{Checkpoint, Direction, Execution, Question, Scale};
use rewire_analysis::{Method, Outcome};
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

/// The settings of one run of a sweep that do not depend on its inputs.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) setup: Setup<'a>,
    pub(super) checkpoint: &'a dyn Checkpoint,
    pub(super) scale: Scale,
    /// Name of the progress bar.
    pub(super) what: &'a str,
}

/// Runs the method that `--method` names.
pub(super) fn analyze<B: AutodiffBackend>(
    model: &Transformer<B>,
    inputs: Inputs,
    arguments: &Arguments,
    Run { setup, checkpoint, scale, what }: Run,
) -> anyhow::Result<Findings> {
    let Inputs { pairs, nodes, single, reference } = inputs;
    let sizes = setup.execution(model, pairs.width());
    let prompt_batch = arguments.prompt_batch.unwrap_or(sizes.prompt_batch);
    let metric = arguments.metric.metric(model, pairs, arguments.metric_positions(pairs)?, prompt_batch)?;
    let means = arguments.means.over(reference, prompt_batch);
    setup.step(what, |progress| {
        let (question, direction) = (Question::new(pairs, &metric).on_scale(scale), arguments.direction());
        let execution = Execution { progress, prompt_batch, checkpoint, ..sizes };
        if let Some(single) = single {
            return single_nodes(model, question, single, arguments, &means, &execution);
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
    let paths = arguments.wants_paths().then_some(EdgeAttributionOptions { norm: arguments.norm, reduce });
    Ok(match (paths, arguments.verify) {
        (None, None) => Findings::of(attribution_patching(model, question, nodes, direction, execution)?),
        (None, Some(k)) => {
            let screened = screen_then_verify(model, question, nodes, k, direction, execution)?;
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
                Some(k) => Some(screen_then_verify(model, question, nodes, k, direction, execution)?),
                None => None,
            };
            Findings { paths: Some(paths), screened, ..Findings::of(outcome) }
        }
    })
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
