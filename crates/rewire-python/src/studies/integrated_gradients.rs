//! The comparison of integrated gradients with activation patching, and of both with ablation.

use ndarray::Axis;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_hooks::Head;
use rewire_studies::integrated_gradients::{BASELINES, Found, KINDS, Prompts, Settings, analyze, checks};
use rewire_studies::{KnownModel, StudyError};

use super::study::{Figure, Results, run};
use crate::failure::Failure;
use crate::model::Model;

/// The arguments of the study.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Asked {
    prompts: usize,
    generated_pairs: Option<usize>,
    seed: u64,
    heads: Vec<String>,
    steps: usize,
    rule: String,
    tolerance: f64,
}

impl Asked {
    fn settings(self) -> Result<Settings, Failure> {
        let heads = self.heads.iter().map(|head| head.parse::<Head>().map_err(Failure::argument));
        let rule: Rule = self.rule.parse().map_err(Failure::argument)?;
        let quadrature = Quadrature { rule, steps: self.steps };
        quadrature.nodes().map_err(Failure::argument)?;
        if !(self.tolerance.is_finite() && self.tolerance > 0.0) {
            return Err(Failure::Argument(format!("tolerance is {}; it must be above 0", self.tolerance)));
        }
        Ok(Settings {
            prompts: self.prompts,
            generated_pairs: self.generated_pairs,
            seed: self.seed,
            heads: heads.collect::<Result<_, _>>()?,
            quadrature,
            tolerance: self.tolerance,
            ..Settings::default()
        })
    }
}

/// Compares the methods on the notebook's pair, on generated pairs and by ablation.
#[pyfunction]
#[pyo3(signature = (model, asked, progress))]
pub(crate) fn reproduce_ig<'py>(
    py: Python<'py>,
    model: &Model,
    asked: Asked,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let settings = asked.settings()?;
    run(py, model, progress, move |inputs| {
        let (transformer, tokenizer) = (inputs.model.transformer(), inputs.tokenizer);
        let config = transformer.config();
        if let Some(head) = settings.heads.iter().find(|h| h.layer >= config.n_layers || h.head >= config.n_heads) {
            let (layers, of_layer) = (config.n_layers, config.n_heads);
            return Err(StudyError::Prompts(format!(
                "heads names {head}, and the model has {layers} layers of {of_layer} heads, counted from 0"
            )));
        }
        let prompts = Prompts::new(tokenizer, inputs.bos(), config, &settings)?;
        let known = KnownModel::of(config);
        let found = analyze(&transformer.autodiff(), inputs.setup, tokenizer, known, &prompts, &settings)?;
        let mut results = results(&found);
        if known == KnownModel::Gpt2Small {
            results.checks = checks(&found);
        }
        Ok(results)
    })
}

fn results(found: &Found) -> Results {
    let mut results = Results::default();
    let compared = &found.compared;
    for effects in &compared.exact.effects {
        results.effects(format!("activation-patching/{}", effects.kind), effects, &compared.exact);
    }
    for (baseline, lines) in BASELINES.iter().zip(&compared.lines) {
        let integrated = &lines.integrated;
        for (effects, complete) in integrated.outcome.effects.iter().zip(&integrated.completeness) {
            let name = format!("integrated-gradients/{baseline}/{}", effects.kind);
            results.array(format!("{name}.gap"), complete.gap.clone());
            results.array(format!("{name}.change"), complete.change.clone());
            results.effects(name, effects, &integrated.outcome);
        }
        for effects in &lines.literal_means {
            let name = format!("literal-first-node/{baseline}/{}", effects.kind);
            results.effects(name, effects, &lines.literal.outcome);
        }
        for (figure, comparisons) in [("integral", &lines.comparisons), ("one gradient", &lines.literal_comparisons)] {
            for ((_, nodes), comparison) in KINDS.iter().zip(comparisons) {
                let name = format!("pearson/{baseline}/{nodes}/{figure}");
                results.figure(name, Figure::Number(comparison.pearson.unwrap_or(f64::NAN)));
            }
        }
    }
    let mut incomplete = compared.incomplete();
    if let Some(averaged) = &found.averaged {
        for ((_, nodes), correlations) in KINDS.iter().zip(&averaged.correlations) {
            results.array(format!("generated-pairs/pearson/{nodes}"), correlations.values.clone().into_dyn());
        }
        incomplete.extend(averaged.incomplete.iter().cloned());
    }
    for (name, curves) in [("inside", &found.curves.inside), ("wide", &found.curves.wide)] {
        results.array(format!("curves/{name}"), curves.values.index_axis(Axis(0), 0).to_owned().into_dyn());
        results.figure(format!("curves/{name}/places"), Figure::Numbers(curves.places.clone()));
    }
    let names = |heads: &[Head]| Figure::Texts(heads.iter().map(Head::to_string).collect());
    results.figure("curves/heads", names(&found.curves.heads));
    results.figure("outliers", names(&compared.outliers()));
    results.figure("incomplete", Figure::Texts(incomplete));
    if let Some(study) = &found.study {
        results.figure("share of prompts whose answer the model says", Figure::Number(study.whole.said.share()));
    }
    results
}
