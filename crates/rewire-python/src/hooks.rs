//! Python functions as hooks.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use pyo3::prelude::*;
use rewire::{Cpu, LanguageModel};
use rewire_hooks::{AnyRank, Hook, HookPoint, Recorder};
use rewire_model::{ModelError, Run};

use crate::arrays::{from_numpy, tensor, to_numpy, values};
use crate::failure::Failure;

/// Python functions at hook points. A function gets the activation as a numpy array of its own. It
/// returns an array, or `None` to keep the array that it got, with the changes that it made there.
pub(crate) struct PythonHooks {
    hooks: Vec<(HookPoint, Py<PyAny>)>,
    /// The first failure. The run goes on without hooks after it.
    failure: Option<Failure>,
}

impl PythonHooks {
    /// Creates hooks that act in this order.
    pub(crate) fn new(hooks: Vec<(HookPoint, Py<PyAny>)>) -> Self {
        Self { hooks, failure: None }
    }

    /// Returns the first failure of a function, if there is one.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }
}

impl<B: Backend> Hook<B> for PythonHooks {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        let mut activation = activation;
        for (_, function) in self.hooks.iter().filter(|(at, _)| *at == point) {
            if self.failure.is_some() {
                break;
            }
            match call(function, point, &activation) {
                Ok(changed) => activation = changed,
                Err(failure) => self.failure = Some(failure),
            }
        }
        activation
    }

    fn sees(&self, point: HookPoint) -> bool {
        self.hooks.iter().any(|(at, _)| *at == point)
    }
}

/// Calls a function and returns the activation with which the run continues.
fn call<B: Backend, const D: usize>(
    function: &Py<PyAny>,
    point: HookPoint,
    activation: &Tensor<B, D>,
) -> Result<Tensor<B, D>, Failure> {
    let dims = activation.dims();
    let given = values(AnyRank::from(activation.clone()))?;
    let found = Python::with_gil(|py| -> PyResult<Result<ArrayD<f32>, Failure>> {
        py.check_signals()?;
        let array = to_numpy(py, given)?;
        let returned = function.call1(py, (&array, point.to_string()))?.into_bound(py);
        let returned = if returned.is_none() { array } else { returned };
        let returned = from_numpy(&returned)?;
        if returned.shape() != dims {
            return Ok(Err(Failure::Hook(format!(
                "the hook at {point} returned the shape {:?}, and the activation has {dims:?} {:?}",
                returned.shape(),
                point.axes()
            ))));
        }
        Ok(Ok(returned))
    });
    let changed = found.map_err(Failure::Python)??;
    Ok(tensor::<B>(changed, &activation.device()).reshape(dims))
}

/// Returns every hook point of a model, in forward order.
pub(crate) fn points(model: &LanguageModel<Cpu>) -> Result<Vec<HookPoint>, ModelError> {
    let transformer = model.transformer();
    let mut recorder = Recorder::all();
    transformer.forward(Run::tokens(transformer.tokens(&[vec![0]])?), &mut recorder)?;
    Ok(recorder.into_cache().points().collect())
}
