//! What the tests share: backends, fixtures, comparisons, random models and pairs.
#![forbid(unsafe_code)]

/// The README's library example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

pub mod compare;
pub mod fixture;
pub mod hub_server;
pub mod memory;
pub mod model_files;
pub mod random;

/// Makes a `#[test]` of each generic function, once for every CPU backend that was built in.
///
/// ```text
/// on_both_backends!(logits_match);
/// fn logits_match<B: Backend>() { .. }
/// ```
#[macro_export]
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        #[cfg(feature = "flex")]
        mod flex {
            $(#[test] fn $name() { super::$name::<burn_flex::Flex>() })+
        }
        #[cfg(feature = "ndarray")]
        mod ndarray_backend {
            $(#[test] fn $name() { super::$name::<burn_ndarray::NdArray>() })+
        }
    };
}
