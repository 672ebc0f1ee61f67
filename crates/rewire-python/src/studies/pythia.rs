//! The Pythia notebook: the circuit for indirect object identification.

use ndarray::{ArrayD, IxDyn};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::path::Input;
use rewire_circuits::{AttentionProbe, Carried};
use rewire_studies::StudyError;
use rewire_studies::pythia::{Circuit, Found, Sets, Settings, analyze, checks, is_the_notebooks_model};

use super::study::{Figure, Results, run};
use crate::failure::Failure;
use crate::model::Model;

/// Fewest choosing or judging prompts: the circuit's shares have intervals over them.
const FEWEST: usize = 10;

/// The arguments of the study.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Asked {
    prompts: usize,
    choose_prompts: usize,
    judge_prompts: usize,
    seed: u64,
    threshold: f32,
    edge_threshold: Option<f32>,
    edges: usize,
    is_processed: bool,
}

impl Asked {
    fn settings(&self) -> Result<Settings, Failure> {
        let refused = |words: String| Err(Failure::Argument(words));
        if self.prompts < 2 {
            return refused("prompts must be at least 2, because effects are means over prompts".to_owned());
        }
        for (name, n) in [("choose_prompts", self.choose_prompts), ("judge_prompts", self.judge_prompts)] {
            if n < FEWEST {
                return refused(format!(
                    "{name} must be at least {FEWEST}, because the circuit's shares have intervals over these prompts"
                ));
            }
        }
        for (name, share) in [("threshold", Some(self.threshold)), ("edge_threshold", self.edge_threshold)] {
            if let Some(share) = share.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
                return refused(format!("{name} is {share}; it must be above 0 and at most 1"));
            }
        }
        Ok(Settings {
            prompts: self.prompts,
            choose_prompts: self.choose_prompts,
            judge_prompts: self.judge_prompts,
            seed: self.seed,
            threshold: self.threshold,
            edge_threshold: self.edge_threshold,
            edges: self.edges.max(1),
            show: 0,
        })
    }
}

/// Runs the notebook's steps, and finds and judges the circuit.
#[pyfunction]
#[pyo3(signature = (model, asked, progress))]
pub(crate) fn reproduce_pythia<'py>(
    py: Python<'py>,
    model: &Model,
    asked: Asked,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let settings = asked.settings()?;
    run(py, model, progress, move |inputs| {
        let (transformer, tokenizer) = (inputs.model.transformer(), inputs.tokenizer);
        let config = transformer.config();
        if config.n_layers < 2 {
            return Err(StudyError::Prompts(
                "the model has one layer and so no paths between heads: use a model with at least 2 layers".to_owned(),
            ));
        }
        let sets = Sets::new(tokenizer, inputs.bos(), &settings)?;
        sets.check_model(config.d_vocab, config.n_ctx)?;
        let found = analyze(&transformer.autodiff(), inputs.setup, tokenizer, sets, &settings)?;
        let mut results = results(&found);
        if asked.is_processed && is_the_notebooks_model(inputs.model.name(), config) {
            results.checks = checks(transformer, inputs.setup, tokenizer)?;
        }
        Ok(results)
    })
}

fn results(found: &Found) -> Results {
    let mut results = Results::default();
    for effects in &found.parts.effects {
        results.effects(format!("parts/{}", effects.kind), effects, &found.parts);
    }
    let steps = [
        ("direct", Some(&found.direct)),
        ("queries", found.queries.as_ref()),
        ("direct-inhibitors-values", found.direct_values.as_ref()),
        ("inhibitors-values", found.values.as_ref()),
        ("keys", found.keys.as_ref()),
    ];
    for (name, step) in steps.into_iter().filter_map(|(name, step)| step.map(|step| (name, step))) {
        for effects in &step.outcome.effects {
            results.effects(format!("path/{name}/{}", effects.kind), effects, &step.outcome);
        }
    }
    for effects in &found.attribution.effects {
        results.effects(format!("logit-attribution/{}", effects.kind), effects, &found.attribution);
    }
    for (scores, norms) in found.copying.iter().zip(["without-norms", "with-norms"]) {
        results.array(format!("copy-scores/{norms}/positive"), scores.positive.clone().into_dyn());
        results.array(format!("copy-scores/{norms}/negative"), scores.negative.clone().into_dyn());
    }
    for look in AttentionProbe::ALL {
        let name = format!("attention/{}", look.name().replace(' ', "-"));
        results.array(name, found.looks.map(look).clone().into_dyn());
    }
    if let Some(backup) = &found.backup {
        results.array("backup/before", backup.before.clone().into_dyn());
        results.array("backup/after", backup.after.clone().into_dyn());
    }
    results.array("edges", edges(found));
    circuit(&mut results, &found.circuit);
    results.figure("share of prompts on which IO is above S", Figure::Number(found.right));
    results
}

/// Returns the effects of the paths between heads, `[layer_end, head_end, input, layer_start,
/// head_start]`; NaN for paths that were not patched.
fn edges(found: &Found) -> ArrayD<f32> {
    let (layers, heads) = (found.direct.effects().nrows(), found.direct.effects().ncols());
    let mut edges = ArrayD::from_elem(IxDyn(&[layers, heads, 3, layers, heads]), f32::NAN);
    let exact = &found.edges.exact;
    for (edge, effect) in exact.edges.iter().zip(exact.outcome.mean()) {
        let input = [Input::Q, Input::K, Input::V].iter().position(|input| *input == edge.input).unwrap_or(0);
        edges[IxDyn(&[edge.to.layer, edge.to.head, input, edge.from.layer, edge.from.head])] = effect;
    }
    edges
}

fn circuit(results: &mut Results, circuit: &Circuit) {
    let heads = circuit.members.iter().map(|member| member.head.to_string());
    results.figure("circuit/heads", Figure::Texts(heads.collect()));
    for member in &circuit.members {
        let roles = member.roles.iter().map(|(role, _)| role.name().to_owned());
        results.figure(format!("circuit/roles/{}", member.head), Figure::Texts(roles.collect()));
    }
    let shares = |carried: &Carried| {
        let Carried { shares, intervals: [kept, left], .. } = carried;
        [("kept", vec![shares.kept, kept[0], kept[1]]), ("left", vec![shares.left, left[0], left[1]])]
    };
    for (prompts, carried) in [("judging", &circuit.judged), ("choosing", &circuit.on_choosing)] {
        for (which, figures) in shares(carried) {
            results.figure(format!("circuit/{which} on {prompts} prompts"), Figure::Numbers(figures));
        }
    }
    let random = circuit.random.sets.iter().map(|set| set.shares.kept);
    results.figure("circuit/kept by random heads", Figure::Numbers(random.collect()));
}
