//! The attribution-patching demo on indirect object identification.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_analysis::attribution::NormJacobian;
use rewire_studies::{KnownModel, ioi};
use rewire_tasks::ioi::{Corruption, IoiGenerator, Split, demo_pairs};

use super::study::{Figure, Results, run};
use crate::failure::Failure;
use crate::model::Model;

/// Runs the demo on its eight pairs, and patches heads on `prompts` generated pairs.
#[pyfunction]
#[pyo3(signature = (model, prompts, seed, corruption, norm, progress))]
pub(crate) fn reproduce_ioi<'py>(
    py: Python<'py>,
    model: &Model,
    prompts: usize,
    seed: u64,
    corruption: &str,
    norm: &str,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let corruption: Corruption = corruption.parse().map_err(Failure::argument)?;
    let norm: NormJacobian = norm.parse().map_err(Failure::argument)?;
    run(py, model, progress, move |inputs| {
        let (transformer, tokenizer, bos) = (inputs.model.transformer(), inputs.tokenizer, inputs.bos());
        let config = transformer.config();
        let demo = demo_pairs(tokenizer, bos)?;
        demo.check_model(config.d_vocab, config.n_ctx)?;
        let generated = match prompts {
            0 => None,
            n => {
                let prompts = IoiGenerator::new(tokenizer)?.sample(n, seed, Split::All);
                Some(corruption.pairs(&prompts, tokenizer, bos)?)
            }
        };
        let found = ioi::analyze(&transformer.autodiff(), inputs.setup, demo, generated, norm)?;
        let mut results = results(&found);
        if KnownModel::of(config) == KnownModel::Gpt2Small {
            results.checks = ioi::checks(&found, tokenizer);
        }
        Ok(results)
    })
}

fn results(found: &ioi::Found) -> Results {
    let mut results = Results::default();
    let all_sets =
        found.sets.iter().flat_map(|set| set.outcomes.iter().flatten().map(move |outcome| (set.set, outcome)));
    let of_demo = [&found.demo.exact, &found.demo.attribution].map(|outcome| ("demo", outcome));
    for (set, outcome) in all_sets.chain(of_demo) {
        for effects in &outcome.effects {
            let name = format!("{set}/{}/{}/{}", outcome.method, outcome.direction, effects.kind);
            if results.effects.iter().all(|(known, _)| *known != name) {
                results.effects(name, effects, outcome);
            }
        }
    }
    let demo = &found.demo;
    results.array("demo/head_edges", demo.paths.clone().into_dyn());
    results.array("demo/attention-attribution", demo.attention_attribution.clone().into_dyn());
    for (name, edges) in [("exact", &found.edges.exact), ("eap", &found.edges.estimates[0].1)] {
        results.array(format!("demo/edges/{name}"), edges.mean().into_dyn());
    }
    for agreement in &demo.agreements {
        let name = format!("agreement/{}", agreement.kind);
        results.figure(name, Figure::Number(agreement.pearson.unwrap_or(f64::NAN)));
    }
    results
}
