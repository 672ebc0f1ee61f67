//! The flags of AtP*: which estimate attribution patching makes of nodes, and the bound on those
//! that it skipped.

use anyhow::bail;
use clap::Args;
use rewire_analysis::attribution::{Estimator, GradientPaths, PatternChange};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::{FEWEST_SUBSETS, SubsetSampling, Verify};
use rewire_model::BackwardRule;
use serde_json::{Value, json};

use super::choices::MethodName;
use crate::headings::ATTRIBUTION;

/// Probability that the bound on skipped nodes holds.
const CONFIDENCE: f64 = 0.95;

#[derive(Args)]
pub(super) struct EstimatorArguments {
    /// Compute attention patterns again for patched queries and keys.
    ///
    /// The QK fix of AtP*, for --nodes head_q and head_k. The estimate is the change of the exact
    /// pattern times the gradient at the pattern, with one query or one key patched at a time. By
    /// default, the gradient at the queries and keys is used, which is nearly 0 if attention is
    /// saturated.
    #[arg(long, help_heading = ATTRIBUTION)]
    qk_fix: bool,
    /// Drop the gradient through one layer at a time, and average the sizes.
    ///
    /// GradDrop of AtP*. The estimates are mean absolute values without a sign. With --qk-fix, this
    /// is AtP*.
    #[arg(long, help_heading = ATTRIBUTION)]
    grad_drop: bool,
    /// Bound the effects of the nodes that --verify skips, from N random subsets.
    ///
    /// Each subset holds a tenth of the skipped nodes, which are patched together. The bound holds
    /// with 95% confidence if the effects of nodes add up on average. At least 20 subsets; --seed
    /// chooses them.
    #[arg(long, value_name = "N", help_heading = ATTRIBUTION)]
    bound_skipped: Option<usize>,
}

impl EstimatorArguments {
    /// Returns the estimate of nodes.
    pub(super) fn estimator(&self) -> Estimator {
        Estimator {
            patterns: if self.qk_fix { PatternChange::QkFix } else { PatternChange::Gradient },
            layers: if self.grad_drop { GradientPaths::GradDrop } else { GradientPaths::AllLayers },
        }
    }

    /// Returns the settings of the bound on skipped nodes, if it is asked for.
    pub(super) fn sampling(&self, seed: u64) -> Option<SubsetSampling> {
        self.bound_skipped.map(|subsets| SubsetSampling { subsets, confidence: CONFIDENCE, seed })
    }

    /// Refuses flags that the method or the nodes do not take.
    pub(super) fn check(
        &self,
        (method, backward): (MethodName, BackwardRule),
        nodes: &[NodeKind],
        only_kinds: OnlyKinds,
        verify: Option<Verify>,
    ) -> anyhow::Result<()> {
        let flags = [("--qk-fix", self.qk_fix), ("--grad-drop", self.grad_drop)];
        for (flag, _) in flags.into_iter().filter(|(_, given)| *given) {
            if method != MethodName::AttributionPatching {
                bail!("{flag} needs --method attribution-patching");
            }
            if backward != BackwardRule::Gradient {
                bail!("{flag} does not go with --backward {backward}: AtP* is defined for the gradient");
            }
            if let OnlyKinds::No(other) = only_kinds {
                bail!("{flag} does not go with --nodes {other}; it takes kinds of nodes, such as head_q");
            }
        }
        let is_fixed = |kind: &NodeKind| [Component::HeadQ, Component::HeadK].contains(&kind.component);
        if self.qk_fix && !nodes.iter().any(is_fixed) {
            bail!("--qk-fix changes the estimates of head_q and head_k only; add one of them to --nodes");
        }
        match self.bound_skipped {
            Some(_) if verify.is_none() => bail!("--bound-skipped needs --verify, which skips nodes"),
            Some(subsets) if subsets < FEWEST_SUBSETS => {
                bail!("--bound-skipped {subsets} is too few; give at least {FEWEST_SUBSETS} subsets")
            }
            _ => Ok(()),
        }
    }

    /// Returns everything that the estimates depend on, for the identity of the sweep.
    pub(super) fn describe(&self) -> Value {
        json!({ "estimator": self.estimator(), "subsets of skipped nodes": self.bound_skipped })
    }
}

/// Whether `--nodes` names kinds of nodes alone.
#[derive(Clone, Copy)]
pub(super) enum OnlyKinds {
    Yes,
    /// It names this too.
    No(&'static str),
}
