//! The names of a model's weights.

/// A weight of the model, in the model's own layout (`[in, out]`; queries, keys and values in that
/// order).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightName {
    WE,
    WPos,
    Ln1Gain,
    Ln1Bias,
    WQkv,
    BQkv,
    QueryGain,
    KeyGain,
    WO,
    BO,
    AfterAttentionGain,
    Ln2Gain,
    Ln2Bias,
    WGate,
    BGate,
    WIn,
    BIn,
    WOut,
    BOut,
    AfterMlpGain,
    FinalGain,
    FinalBias,
    WU,
    BU,
}

/// The weights of one block.
pub(crate) const BLOCK_PARTS: [WeightName; 18] = [
    WeightName::Ln1Gain,
    WeightName::Ln1Bias,
    WeightName::WQkv,
    WeightName::BQkv,
    WeightName::WO,
    WeightName::BO,
    WeightName::Ln2Gain,
    WeightName::Ln2Bias,
    WeightName::WIn,
    WeightName::BIn,
    WeightName::WOut,
    WeightName::BOut,
    WeightName::WGate,
    WeightName::BGate,
    WeightName::QueryGain,
    WeightName::KeyGain,
    WeightName::AfterAttentionGain,
    WeightName::AfterMlpGain,
];

impl WeightName {
    /// Returns whether this is the gain of a norm.
    pub(crate) fn is_gain(self) -> bool {
        use WeightName::{AfterAttentionGain, AfterMlpGain, FinalGain, KeyGain, Ln1Gain, Ln2Gain, QueryGain};
        matches!(self, Ln1Gain | Ln2Gain | FinalGain | QueryGain | KeyGain | AfterAttentionGain | AfterMlpGain)
    }
}
