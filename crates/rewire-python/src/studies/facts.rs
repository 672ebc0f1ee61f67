//! The factual-recall example at the end of the attribution-patching demo.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire_studies::{StudyError, facts};

use super::study::{Figure, Results, run};
use crate::model::Model;

/// Patches layers by position into the example's pairs, and measures each landmark's city.
#[pyfunction]
#[pyo3(signature = (model, seed, progress))]
pub(crate) fn reproduce_facts<'py>(
    py: Python<'py>,
    model: &Model,
    seed: u64,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    run(py, model, progress, move |inputs| {
        let (transformer, tokenizer, bos) = (inputs.model.transformer(), inputs.tokenizer, inputs.bos());
        let config = transformer.config();
        let facts::Pairs { pairs, left_out } = facts::pairs(tokenizer, bos, seed)?;
        for (_, pair) in &pairs {
            pair.check_model(config.d_vocab, config.n_ctx)?;
        }
        if pairs.is_empty() {
            let reasons = left_out.join(" ");
            return Err(StudyError::Prompts(format!(
                "no corrupted prompt has as many tokens as the Eiffel Tower prompt. {reasons}"
            )));
        }
        let found = facts::analyze(transformer, inputs.setup, tokenizer, bos, pairs)?;
        let mut results = results(&found);
        results.figure("left out", Figure::Texts(left_out));
        Ok(results)
    })
}

fn results(found: &facts::Found) -> Results {
    let mut results = Results::default();
    for set in &found.patched {
        for effects in &set.outcome.effects {
            results.effects(format!("{}/{}", set.name.replace(' ', "-"), effects.kind), effects, &set.outcome);
        }
        results.figure(format!("prompts with {}", set.name), Figure::Texts(set.prompts.to_vec()));
    }
    for effects in &found.direct.effects {
        results.effects(format!("logit-attribution/{}", effects.kind), effects, &found.direct);
    }
    results.figure("logit difference of the biases", Figure::Number(f64::from(found.bias)));
    for fact in &found.facts {
        let name = format!("{} is in {}: probability and rank", fact.landmark, fact.city);
        results.figure(name, Figure::Numbers(vec![f64::from(fact.probability), fact.rank as f64]));
    }
    results
}
