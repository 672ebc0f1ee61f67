//! A metric from a closure.

use std::any::Any;
use std::fmt;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

use crate::metrics::metric::{Metric, Reads};

/// A metric that a closure computes from logits, on the autodiff backend `B`.
///
/// The closure receives the logits that the metric reads, `[row, column]`, and the prompt of each
/// row. It returns one number per row. Runs without gradients, on `B::InnerBackend`, use the same
/// closure. On any other backend every value is NaN, which analyses refuse.
///
/// # Example
/// The entropy of the next token at the last position:
/// ```
/// use burn::backend::{Autodiff, Flex};
/// use burn::tensor::{Tensor, activation::{log_softmax, softmax}};
/// use rewire_tasks::{MetricFn, Reads};
///
/// type B = Autodiff<Flex>;
/// let reads = Reads { positions: vec![14], columns: None }; // one prompt, all columns
/// let entropy = MetricFn::<B, _>::new(
///     "entropy",
///     reads,
///     |logits: Tensor<B, 2>, prompts: &[usize]| {
///         let terms = softmax(logits.clone(), 1) * log_softmax(logits, 1);
///         terms.sum_dim(1).reshape([prompts.len()]).neg()
///     },
/// );
/// ```
pub struct MetricFn<B, F> {
    name: &'static str,
    reads: Reads,
    evaluate: F,
    backend: std::marker::PhantomData<fn() -> B>,
}

impl<B: AutodiffBackend, F: Fn(Tensor<B, 2>, &[usize]) -> Tensor<B, 1> + Sync> MetricFn<B, F> {
    /// Creates a metric from the closure `evaluate`, which receives the logits that `reads` names.
    pub fn new(name: &'static str, reads: Reads, evaluate: F) -> Self {
        Self { name, reads, evaluate, backend: std::marker::PhantomData }
    }
}

impl<B, F> fmt::Debug for MetricFn<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricFn").field("name", &self.name).field("reads", &self.reads).finish_non_exhaustive()
    }
}

impl<B: AutodiffBackend, F: Fn(Tensor<B, 2>, &[usize]) -> Tensor<B, 1> + Sync> Metric for MetricFn<B, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Reads {
        self.reads.clone()
    }

    fn evaluate<C: Backend>(&self, logits: Tensor<C, 2>, prompts: &[usize]) -> Tensor<C, 1> {
        let device = logits.device();
        let found = match cast::<_, Tensor<B, 2>>(logits.clone()) {
            Some(logits) => cast((self.evaluate)(logits, prompts)),
            None => cast::<_, Tensor<B::InnerBackend, 2>>(logits)
                .and_then(|logits| cast((self.evaluate)(Tensor::from_inner(logits), prompts).inner())),
        };
        found.unwrap_or_else(|| {
            let nan = vec![f32::NAN; prompts.len()];
            Tensor::from_data(TensorData::new(nan, [prompts.len()]), &device)
        })
    }
}

/// Returns `value` if its type is `To`.
fn cast<From: Any, To: Any>(value: From) -> Option<To> {
    let value: Box<dyn Any> = Box::new(value);
    value.downcast().ok().map(|value| *value)
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};

    use super::*;

    type B = Autodiff<Flex>;

    fn double() -> MetricFn<B, impl Fn(Tensor<B, 2>, &[usize]) -> Tensor<B, 1> + Sync> {
        let reads = Reads { positions: vec![0], columns: Some(vec![1]) };
        MetricFn::new("double", reads, |logits: Tensor<B, 2>, prompts: &[usize]| logits.reshape([prompts.len()]) * 2.0)
    }

    #[test]
    fn a_closure_metric_runs_on_both_backends_and_has_a_gradient() {
        let device = Default::default();
        let plain = double().evaluate(Tensor::<Flex, 2>::from_data([[3.0]], &device), &[0]);
        assert_eq!(plain.into_scalar(), 6.0);
        let logits = Tensor::<B, 2>::from_data([[3.0]], &device).require_grad();
        let gradients = double().evaluate(logits.clone(), &[0]).backward();
        assert_eq!(logits.grad(&gradients).unwrap().into_scalar(), 2.0);
    }

    #[test]
    fn a_closure_metric_on_another_backend_returns_nan() {
        let logits = Tensor::<Autodiff<B>, 2>::from_data([[3.0]], &Default::default());
        assert!(double().evaluate(logits, &[0]).into_scalar().is_nan());
    }
}
