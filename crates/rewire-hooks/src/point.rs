//! Hook points: the places in the network at which a hook is called, under TransformerLens' names.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Tensor, backend::Backend};
use rewire_input::cut;
use serde::{Deserialize, Serialize};

/// A place in the network at which a [`Hook`](crate::Hook) sees the activation and may replace it.
///
/// `Display` and `FromStr` use TransformerLens' names: `hook_embed`, `blocks.3.attn.hook_q`,
/// `ln_final.hook_scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HookPoint {
    /// The token embedding, `[batch, pos, d_model]`.
    Embed,
    /// The learned position embedding, `[batch, pos, d_model]`; absent in rotary models.
    PosEmbed,
    /// A site inside block `layer`.
    Block {
        /// Index of the block, from 0.
        layer: usize,
        /// The site inside it.
        site: Site,
    },
    /// The norm before the unembedding.
    FinalNorm(NormSite),
}

/// How a norm scales its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Layer norm: the input is centered, and divided by `sqrt(var + eps)`.
    #[default]
    Layer,
    /// RMSNorm: the input is divided by `sqrt(mean of squares + eps)`.
    Rms,
}

impl NormKind {
    /// Returns the vectors `x`, along their last axis, as the norm sees them before it divides by
    /// its scale: centered by a layer norm, unchanged by RMSNorm.
    #[must_use]
    pub fn centered<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            NormKind::Layer => x.clone() - x.mean_dim(D - 1),
            NormKind::Rms => x,
        }
    }
}

/// The two observable stages of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NormSite {
    /// The scale that divides the input, `[batch, pos, 1]`: `sqrt(var + eps)` in a layer norm,
    /// which centers its input, and `sqrt(mean of squares + eps)` in RMSNorm.
    Scale,
    /// The norm's output, with gain and bias if the model has them; `[batch, pos, d_model]`.
    Normalized,
}

/// A place inside a block. The variants are in forward order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Site {
    /// The residual stream that enters the block.
    ResidPre,
    /// Scale of the norm before attention.
    Ln1Scale,
    /// Output of the norm before attention.
    Ln1Normalized,
    /// Queries, before the rotary embedding and after the norm on queries, if there is one.
    Q,
    /// Keys, before the rotary embedding and after the norm on keys, if there is one. With
    /// grouped-query attention, several heads share a key/value head, and keys and values count
    /// key/value heads.
    K,
    /// Values.
    V,
    /// Queries after the rotary embedding; only in rotary models.
    RotQ,
    /// Keys after the rotary embedding; only in rotary models.
    RotK,
    /// Attention scores after the causal mask (`-inf` at masked keys).
    AttnScores,
    /// Attention probabilities.
    Pattern,
    /// Per-head mixed values, before the output projection.
    Z,
    /// The attention output before the norm after attention; only in models with that norm.
    AttnBeforeNorm,
    /// Scale of the norm after attention.
    Ln1PostScale,
    /// Output of the norm after attention.
    Ln1PostNormalized,
    /// The attention output, which is added to the residual stream: after the norm after attention,
    /// if there is one.
    AttnOut,
    /// The residual stream between attention and MLP; only in sequential blocks.
    ResidMid,
    /// Scale of the norm before the MLP.
    Ln2Scale,
    /// Output of the norm before the MLP.
    Ln2Normalized,
    /// MLP neurons before the activation function. In a gated MLP, the gate before it.
    MlpPre,
    /// The factor of the activated gate; only in gated MLPs.
    MlpPreLinear,
    /// MLP neurons, which the output projection reads: after the activation function. In a gated
    /// MLP, the activated gate times [`MlpPreLinear`](Self::MlpPreLinear).
    MlpPost,
    /// The MLP output before the norm after the MLP; only in models with that norm.
    MlpBeforeNorm,
    /// Scale of the norm after the MLP.
    Ln2PostScale,
    /// Output of the norm after the MLP.
    Ln2PostNormalized,
    /// The MLP output, which is added to the residual stream: after the norm after the MLP, if
    /// there is one.
    MlpOut,
    /// The residual stream that leaves the block.
    ResidPost,
}

/// The meaning of one dimension of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Axis {
    /// Prompts.
    Batch,
    /// Token positions.
    Pos,
    /// Attention heads.
    Head,
    /// Attending (destination) positions.
    Query,
    /// Attended (source) positions.
    Key,
    /// A head's inner dimension.
    DHead,
    /// The residual stream's dimension.
    DModel,
    /// MLP neurons.
    DMlp,
    /// A dimension of size one.
    One,
}

/// Every site with its TransformerLens name, in forward order.
const SITE_NAMES: [(Site, &str); 26] = [
    (Site::ResidPre, "hook_resid_pre"),
    (Site::Ln1Scale, "ln1.hook_scale"),
    (Site::Ln1Normalized, "ln1.hook_normalized"),
    (Site::Q, "attn.hook_q"),
    (Site::K, "attn.hook_k"),
    (Site::V, "attn.hook_v"),
    (Site::RotQ, "attn.hook_rot_q"),
    (Site::RotK, "attn.hook_rot_k"),
    (Site::AttnScores, "attn.hook_attn_scores"),
    (Site::Pattern, "attn.hook_pattern"),
    (Site::Z, "attn.hook_z"),
    (Site::AttnBeforeNorm, "attn.hook_out"),
    (Site::Ln1PostScale, "ln1_post.hook_scale"),
    (Site::Ln1PostNormalized, "ln1_post.hook_normalized"),
    (Site::AttnOut, "hook_attn_out"),
    (Site::ResidMid, "hook_resid_mid"),
    (Site::Ln2Scale, "ln2.hook_scale"),
    (Site::Ln2Normalized, "ln2.hook_normalized"),
    (Site::MlpPre, "mlp.hook_pre"),
    (Site::MlpPreLinear, "mlp.hook_pre_linear"),
    (Site::MlpPost, "mlp.hook_post"),
    (Site::MlpBeforeNorm, "mlp.hook_out"),
    (Site::Ln2PostScale, "ln2_post.hook_scale"),
    (Site::Ln2PostNormalized, "ln2_post.hook_normalized"),
    (Site::MlpOut, "hook_mlp_out"),
    (Site::ResidPost, "hook_resid_post"),
];

impl Site {
    /// Returns the hook point of this site in block `layer`.
    #[must_use]
    pub fn at(self, layer: usize) -> HookPoint {
        HookPoint::block(layer, self)
    }

    /// Returns every site, in forward order.
    pub fn all() -> impl Iterator<Item = Site> {
        SITE_NAMES.iter().map(|(site, _)| *site)
    }

    /// Returns the site's TransformerLens name inside its block (`attn.hook_q`).
    #[must_use]
    pub fn name(self) -> &'static str {
        SITE_NAMES[self as usize].1
    }

    /// Returns the meaning of each dimension of the activation.
    #[must_use]
    pub fn axes(self) -> &'static [Axis] {
        use Axis::{Batch, DHead, DMlp, DModel, Head, Key, One, Pos, Query};
        match self {
            Site::Ln1Scale | Site::Ln1PostScale | Site::Ln2Scale | Site::Ln2PostScale => &[Batch, Pos, One],
            Site::Q | Site::K | Site::V | Site::RotQ | Site::RotK | Site::Z => &[Batch, Pos, Head, DHead],
            Site::AttnScores | Site::Pattern => &[Batch, Head, Query, Key],
            Site::MlpPre | Site::MlpPreLinear | Site::MlpPost => &[Batch, Pos, DMlp],
            Site::ResidPre
            | Site::Ln1Normalized
            | Site::AttnBeforeNorm
            | Site::Ln1PostNormalized
            | Site::AttnOut
            | Site::ResidMid
            | Site::Ln2Normalized
            | Site::MlpBeforeNorm
            | Site::Ln2PostNormalized
            | Site::MlpOut
            | Site::ResidPost => &[Batch, Pos, DModel],
        }
    }
}

impl HookPoint {
    /// Returns the hook point of a site inside block `layer`.
    #[must_use]
    pub fn block(layer: usize, site: Site) -> Self {
        HookPoint::Block { layer, site }
    }

    /// Returns the site of a point inside a block, or `None` for a point outside the blocks.
    #[must_use]
    pub fn site(self) -> Option<Site> {
        match self {
            HookPoint::Block { site, .. } => Some(site),
            _ => None,
        }
    }

    /// Returns the meaning of each dimension of the activation.
    #[must_use]
    pub fn axes(self) -> &'static [Axis] {
        match self {
            HookPoint::Embed | HookPoint::PosEmbed => Site::ResidPre.axes(),
            HookPoint::Block { site, .. } => site.axes(),
            HookPoint::FinalNorm(NormSite::Scale) => Site::Ln2Scale.axes(),
            HookPoint::FinalNorm(NormSite::Normalized) => Site::Ln2Normalized.axes(),
        }
    }

    /// Returns the number of dimensions of the activation.
    #[must_use]
    pub fn rank(self) -> usize {
        self.axes().len()
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookPoint::Embed => f.write_str("hook_embed"),
            HookPoint::PosEmbed => f.write_str("hook_pos_embed"),
            HookPoint::Block { layer, site } => write!(f, "blocks.{layer}.{}", site.name()),
            HookPoint::FinalNorm(NormSite::Scale) => f.write_str("ln_final.hook_scale"),
            HookPoint::FinalNorm(NormSite::Normalized) => f.write_str("ln_final.hook_normalized"),
        }
    }
}

/// A string that is not the name of a hook point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a hook point; use a TransformerLens name, such as `blocks.0.attn.hook_z`", cut(.0))]
pub struct ParseHookPointError(pub String);

impl FromStr for HookPoint {
    type Err = ParseHookPointError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseHookPointError(name.to_owned());
        match name {
            "hook_embed" => return Ok(HookPoint::Embed),
            "hook_pos_embed" => return Ok(HookPoint::PosEmbed),
            "ln_final.hook_scale" => return Ok(HookPoint::FinalNorm(NormSite::Scale)),
            "ln_final.hook_normalized" => return Ok(HookPoint::FinalNorm(NormSite::Normalized)),
            _ => {}
        }
        let (layer, rest) = name.strip_prefix("blocks.").and_then(|s| s.split_once('.')).ok_or_else(unknown)?;
        let layer = layer.parse().map_err(|_| unknown())?;
        let (site, _) = SITE_NAMES.iter().find(|(_, n)| *n == rest).ok_or_else(unknown)?;
        Ok(HookPoint::Block { layer, site: *site })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_point_names_round_trip() {
        let mut points = vec![
            HookPoint::Embed,
            HookPoint::PosEmbed,
            HookPoint::FinalNorm(NormSite::Scale),
            HookPoint::FinalNorm(NormSite::Normalized),
        ];
        points.extend(Site::all().map(|site| HookPoint::block(11, site)));
        for point in points {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        assert_eq!(HookPoint::block(3, Site::Ln2Scale).to_string(), "blocks.3.ln2.hook_scale");
    }

    #[test]
    fn the_table_of_site_names_follows_the_enum() {
        for (site, name) in SITE_NAMES {
            assert_eq!(site.name(), name);
        }
    }

    #[test]
    fn unknown_hook_points_are_refused() {
        for name in ["", "blocks", "blocks.x.attn.hook_q", "blocks.1.attn.hook_result", "blocks.-1.attn.hook_q"] {
            assert_eq!(name.parse::<HookPoint>(), Err(ParseHookPointError(name.to_owned())));
        }
    }
}
