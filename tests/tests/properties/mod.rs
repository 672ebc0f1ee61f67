//! Properties of the engine on random models and pairs. Each of two programs runs them in its own
//! precision: `all` in float32, and `double` in float64.

pub(crate) mod ablation;
pub(crate) mod identities;
pub(crate) mod paths;
pub(crate) mod sweeps;
