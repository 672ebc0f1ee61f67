//! One study: its inputs, its results as a dictionary, and its thread.

use std::sync::Arc;

use ndarray::ArrayD;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire::{Cpu, LanguageModel};
use rewire_analysis::{Effects, Outcome};
use rewire_studies::{Check, Progress, Setup, StudyError};
use rewire_tasks::Tokenizer;

use crate::arrays::to_numpy;
use crate::failure::Failure;
use crate::model::Model;
use crate::outcome;
use crate::work;

/// The inputs of a study.
pub(super) struct Inputs<'a> {
    pub(super) model: &'a LanguageModel<Cpu>,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) setup: &'a Setup<'a>,
}

impl Inputs<'_> {
    /// Returns the token that prompts begin with.
    pub(super) fn bos(&self) -> Option<u32> {
        self.model.bos()
    }
}

/// The results of a study.
#[derive(Default)]
pub(super) struct Results {
    pub(super) effects: Vec<(String, Outcome)>,
    pub(super) arrays: Vec<(String, ArrayD<f32>)>,
    pub(super) checks: Vec<Check>,
    pub(super) figures: Vec<(String, Figure)>,
}

/// A figure that is neither effects nor an array.
#[derive(IntoPyObject)]
pub(super) enum Figure {
    Number(f64),
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

impl Results {
    /// Adds one kind of effects of an outcome.
    pub(super) fn effects(&mut self, name: String, effects: &Effects, of: &Outcome) {
        let outcome = Outcome {
            method: of.method,
            direction: of.direction,
            scale: of.scale,
            metric: of.metric,
            baselines: of.baselines.clone(),
            vanished: of.vanished.clone(),
            effects: vec![effects.clone()],
        };
        self.effects.push((name, outcome));
    }

    pub(super) fn array(&mut self, name: impl Into<String>, values: ArrayD<f32>) {
        self.arrays.push((name.into(), values));
    }

    pub(super) fn figure(&mut self, name: impl Into<String>, figure: Figure) {
        self.figures.push((name.into(), figure));
    }

    fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let [effects, arrays, figures] = [(); 3].map(|()| PyDict::new(py));
        for (name, outcome) in self.effects {
            effects.set_item(name, outcome::to_dict(py, &outcome)?)?;
        }
        for (name, values) in self.arrays {
            arrays.set_item(name, to_numpy(py, values)?)?;
        }
        for (name, figure) in self.figures {
            figures.set_item(name, figure)?;
        }
        let check = |check: Check| (check.what, check.expected, check.got, check.verdict.text());
        let found = PyDict::new(py);
        found.set_item("effects", effects)?;
        found.set_item("arrays", arrays)?;
        found.set_item("checks", self.checks.into_iter().map(check).collect::<Vec<_>>())?;
        found.set_item("figures", figures)?;
        Ok(found)
    }
}

/// Runs a study on a thread of its own, and returns its results as a dictionary.
pub(super) fn run<'py>(
    py: Python<'py>,
    model: &Model,
    progress: Option<&Bound<'py, PyAny>>,
    study: impl FnOnce(&Inputs<'_>) -> Result<Results, StudyError> + Send + 'static,
) -> PyResult<Bound<'py, PyDict>> {
    let model = Arc::clone(&model.model);
    let found = work::run(py, progress, move |control| {
        let on_progress = |progress: Progress<'_>| match progress {
            Progress::Started(_) => control.begin(),
            Progress::Done { done, of } => control.advance(done, of),
            Progress::Finished => {}
        };
        let setup = Setup { on_progress: &on_progress, checkpoint: control, ..Setup::default() };
        let inputs = Inputs { model: &model, tokenizer: model.tokenizer()?, setup: &setup };
        study(&inputs).map_err(Failure::of_study)
    })?;
    found.into_dict(py)
}
