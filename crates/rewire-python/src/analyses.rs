//! The arguments that all analyses share, and the thread that an analysis runs on.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rewire::{Cpu, LanguageModel};
use rewire_analysis::Outcome;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_model::BackwardRule;
use rewire_tasks::{MetricPosition, PromptPairs};

use crate::failure::Failure;
use crate::metric::{AnyMetric, Choice};
use crate::model::Model;
use crate::outcome;
use crate::pairs::Pairs;
use crate::work;

/// The arguments that all analyses share.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Asked {
    model: Py<Model>,
    pairs: Py<Pairs>,
    metric: Py<PyAny>,
    /// Whether the effects of a metric that is a function are shares of its change.
    normalized: bool,
    metric_position: String,
    direction: String,
    backward: String,
    prompt_batch: Option<usize>,
    workers: Option<usize>,
    progress: Option<Py<PyAny>>,
}

/// One analysis on its thread.
pub(crate) struct Study<'a> {
    pub(crate) model: &'a LanguageModel<Cpu>,
    pub(crate) pairs: &'a PromptPairs,
    pub(crate) question: Question<'a, AnyMetric>,
    pub(crate) direction: Direction,
    pub(crate) execution: Execution<'a>,
}

impl Asked {
    /// Runs `work` on a thread of its own. A metric that is a Python function is called there.
    pub(crate) fn run<T: Send + 'static>(
        self,
        py: Python<'_>,
        work: impl FnOnce(Study<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> PyResult<T> {
        let model = Arc::clone(&self.model.get().model);
        let pairs = Arc::clone(&self.pairs.get().pairs);
        let direction: Direction = self.direction.parse().map_err(Failure::argument)?;
        let backward: BackwardRule = self.backward.parse().map_err(Failure::argument)?;
        let position: MetricPosition = self.metric_position.parse().map_err(Failure::argument)?;
        let choice = Choice::read(self.metric.bind(py), self.normalized)?;
        let scale = choice.scale()?;
        let progress = self.progress.as_ref().map(|progress| progress.bind(py));
        work::run(py, progress, move |control| {
            let advance = |done, of| control.advance(done, of);
            let sizes = Execution::default().fitted(model.transformer(), pairs.width(), None);
            let prompt_batch = self.prompt_batch.unwrap_or(sizes.prompt_batch);
            let execution =
                Execution { checkpoint: control, progress: &advance, workers: self.workers, prompt_batch, ..sizes };
            let metric = choice.metric(&model, &pairs, position, prompt_batch)?;
            let question = Question::new(&pairs, &metric).on_scale(scale).by_rule(backward);
            let study = Study { model: &model, pairs: &pairs, question, direction, execution };
            let found = work(study);
            match metric.raised() {
                Some(error) => Err(Failure::Python(error)),
                None => found,
            }
        })
    }

    /// Runs an analysis and returns its outcome as a dictionary.
    pub(crate) fn outcome<'py>(
        self,
        py: Python<'py>,
        work: impl FnOnce(Study<'_>) -> Result<Outcome, Failure> + Send + 'static,
    ) -> PyResult<Bound<'py, PyDict>> {
        let found = self.run(py, work)?;
        outcome::to_dict(py, &found)
    }
}
