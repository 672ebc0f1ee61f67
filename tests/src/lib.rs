//! Shared code of the tests: backends, fixtures, comparisons, random models and pairs.
#![forbid(unsafe_code)]

pub mod compare;
pub mod device;
pub mod fixture;
pub mod fuzzed;
pub mod gguf_file;
pub mod gguf_gpt2;
pub mod gpt2_tokenizer;
pub mod hub_server;
pub mod memory;
pub mod methods;
pub mod model_files;
pub mod random;

/// Makes a `#[test]` from each generic function for every backend: the CPU backends that were built
/// in, or, if `REWIRE_DEVICE` is set to flex, ndarray or cuda, that backend only.
///
/// ```text
/// on_every_backend!(logits_match_transformer_lens);
/// fn logits_match_transformer_lens<B: Backend>() { .. }
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

/// Returns the question of most tests: the change of a metric on these pairs, on the scale of the
/// metric.
#[must_use]
pub fn asked<'a, M>(pairs: &'a rewire_tasks::PromptPairs, metric: &'a M) -> rewire_analysis::run::Question<'a, M> {
    rewire_analysis::run::Question::new(pairs, metric).in_metric_units()
}
