//! What a sweep computes, by method.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::attribution::{
    PathOptions, PerPrompt, attribution_patching, attribution_patching_with_head_paths, head_path_attribution,
};
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::integrated::integrated_gradients;
use rewire_analysis::node::NodeKind;
use rewire_analysis::patching::{ablation, activation_patching, screen_then_verify};
use rewire_analysis::run::{Ledger, Options, Scale};
use rewire_analysis::{Method, Outcome};
use rewire_model::Transformer;
use rewire_studies::Setup;
use rewire_tasks::PromptPairs;

use super::{Arguments, Findings, MethodName};

/// How one run of a sweep is done, beside what it is of.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) setup: Setup<'a>,
    pub(super) ledger: &'a dyn Ledger,
    pub(super) scale: Scale,
    /// What its progress is called.
    pub(super) what: &'a str,
}

pub(super) fn analyse<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
    reference: &[Vec<u32>],
    arguments: &Arguments,
    Run { setup, ledger, scale, what }: Run,
) -> anyhow::Result<Findings> {
    let sizes = setup.options(model, pairs.width());
    let prompt_batch = arguments.prompt_batch.unwrap_or(sizes.prompt_batch);
    let metric = arguments.metric.metric(model, pairs, prompt_batch)?;
    let per_prompt = if arguments.per_prompt { PerPrompt::Keep } else { PerPrompt::Mean };
    let paths = arguments.wants_paths().then_some(PathOptions { norm: arguments.norm, per_prompt });
    setup.step(what, |progress| {
        let direction = arguments.direction();
        let options = Options { direction, scale, progress, prompt_batch, ledger, ..sizes };
        let only = Findings::of;
        Ok(match (arguments.method, paths, arguments.verify) {
            (MethodName::ActivationPatching, ..) => {
                only(activation_patching(&model.valid(), pairs, &metric, nodes, &options)?)
            }
            (MethodName::Ablation, ..) => {
                let model = model.valid();
                let by = arguments.ablation.intervention(&model, nodes, reference, arguments, prompt_batch)?;
                only(ablation(&model, pairs, &metric, nodes, &by, &options)?)
            }
            (MethodName::PathPatching, ..) => arguments.paths.patch(&model.valid(), pairs, &metric, nodes, &options)?,
            (MethodName::LogitAttribution, ..) => {
                only(logit_attribution(&model.valid(), pairs, nodes, arguments.final_norm_gain(), &options)?)
            }
            (MethodName::IntegratedGradients, ..) => {
                let integral =
                    arguments.integral.integral(&model.valid(), nodes, reference, arguments, prompt_batch)?;
                let found = integrated_gradients(model, pairs, &metric, nodes, &integral, &options)?;
                Findings { completeness: found.completeness, ..only(found.outcome) }
            }
            (_, None, None) => only(attribution_patching(model, pairs, &metric, nodes, &options)?),
            (_, None, Some(k)) => {
                let screened = screen_then_verify(model, pairs, &metric, nodes, k, &options)?;
                Findings { screened: Some(screened.clone()), ..only(screened.attribution) }
            }
            (_, Some(paths), None) if nodes.is_empty() => {
                let paths = head_path_attribution(model, pairs, &metric, paths, &options)?;
                let outcome = Outcome {
                    method: Method::AttributionPatching,
                    direction: options.direction,
                    scale,
                    metric: rewire_tasks::Metric::name(&metric),
                    baselines: paths.baselines.clone(),
                    vanished: paths.vanished.clone(),
                    effects: Vec::new(),
                };
                Findings { paths: Some(paths), ..only(outcome) }
            }
            (_, Some(paths), verify) => {
                let (outcome, paths) =
                    attribution_patching_with_head_paths(model, pairs, &metric, nodes, paths, &options)?;
                let screened = match verify {
                    Some(k) => Some(screen_then_verify(model, pairs, &metric, nodes, k, &options)?),
                    None => None,
                };
                Findings { paths: Some(paths), screened, ..only(outcome) }
            }
        })
    })
}
