//! What the tests share: backends, fixtures, comparisons, random models and pairs.
#![forbid(unsafe_code)]

pub mod compare;
pub mod device;
pub mod fixture;
pub mod fuzzed;
pub mod hub_server;
pub mod memory;
pub mod methods;
pub mod model_files;
pub mod random;

/// Makes a `#[test]` of each generic function for every backend: the CPU's that were built in, or, if `REWIRE_DEVICE` is set to flex,
/// ndarray or cuda, that one alone.
///
/// ```text
/// on_every_backend!(logits_match);
/// fn logits_match<B: Backend>() { .. }
/// ```
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        #[cfg(feature = "flex")]
        mod flex {
            $(#[test] fn $name() { if $crate::device::is_wanted("flex") { super::$name::<burn_flex::Flex>() } })+
        }
        #[cfg(feature = "ndarray")]
        mod ndarray_backend {
            $(#[test] fn $name() { if $crate::device::is_wanted("ndarray") { super::$name::<burn_ndarray::NdArray>() } })+
        }
        #[cfg(feature = "cuda")]
        mod cuda {
            $(#[test] fn $name() { if $crate::device::is_wanted("cuda") { super::$name::<burn_cuda::Cuda>() } })+
        }
    };
}

/// The question of most tests: how a metric changes on these pairs, in its own unit.
#[must_use]
pub fn asked<'a, M>(pairs: &'a rewire_tasks::PromptPairs, metric: &'a M) -> rewire_analysis::run::Question<'a, M> {
    rewire_analysis::run::Question::new(pairs, metric).in_metric_units()
}
