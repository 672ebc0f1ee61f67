//! Features of a model that an analysis does not cover, refused by name.

use rewire_model::TransformerConfig;

use crate::error::AnalysisError;

/// A feature of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Several heads share a key/value head.
    SharedKeys,
    /// Norms on queries and keys.
    QueryKeyNorms,
    /// Norms on the outputs of attention and MLP.
    PostNorms,
    /// A bound on the logits.
    LogitCap,
}

impl Feature {
    fn is_in(self, config: &TransformerConfig) -> bool {
        match self {
            Feature::SharedKeys => config.heads_per_key_value_head() > 1,
            Feature::QueryKeyNorms => config.query_key_norms,
            Feature::PostNorms => config.post_norms,
            Feature::LogitCap => config.logit_cap.is_some(),
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Feature::SharedKeys => "several of its heads share keys and values (grouped-query attention)",
            Feature::QueryKeyNorms => "it has norms on queries and keys",
            Feature::PostNorms => "it has norms after attention and MLP",
            Feature::LogitCap => "it bounds its logits (`final_logit_softcapping`)",
        }
    }
}

/// Refuses a model with one of these features.
pub(crate) fn refuse(
    method: &'static str,
    features: &[Feature],
    config: &TransformerConfig,
) -> Result<(), AnalysisError> {
    match features.iter().find(|feature| feature.is_in(config)) {
        Some(feature) => Err(AnalysisError::UnsupportedModel { method, reason: feature.reason() }),
        None => Ok(()),
    }
}
