//! What is held while senders' change is on its way to the receivers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How attention is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldAttention {
    /// Every head's mixed values, but the senders', are those of the base run.
    Z,
    /// Every head's queries, keys and values are those of the base run. Mixed values are a function of them, so this holds the same
    /// as [`HeldAttention::Z`]; only the hooks differ by which it is done the slow way.
    QueriesKeysValues,
}

/// Whether an activation is recomputed or held at its value in the base run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Recomputed from the changed residual stream.
    #[serde(rename = "recomputed", alias = "free")]
    Yes,
    /// Held at its value in the base run.
    Frozen,
}

/// How receivers take up, in the second run, what reached them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverUpdate {
    /// Set to it: what lower receivers change further down does not reach higher ones.
    #[serde(alias = "set")]
    Replace,
    /// The change of the residual stream that reached it is added to what it reads there, and its norm is taken anew: what lower
    /// receivers change reaches higher ones, too.
    Add,
}

/// What is held while the senders' change is on its way to the receivers, and how they take it up. The presets are named for their
/// sources.
///
/// Nothing else is held in the second step, the base run with the receivers changed. With one receiver, or several heads' inputs of one
/// layer, both ways of update it up are the same. A stream that is named twice, as after one block and before the next, is added to
/// twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FreezePolicy {
    /// How attention is held; it always is, or every path would be on the way.
    pub attention: HeldAttention,
    /// Whether MLPs are on the way.
    pub mlps: Recompute,
    /// Whether the norms in front of MLPs and of receiving heads keep the base run's scale.
    pub norms: Recompute,
    /// How receivers take up what reached them.
    pub update: ReceiverUpdate,
}

impl FreezePolicy {
    /// Every head's z is held, MLPs and norms are recomputed: the default of the field (the `path_patching` package).
    #[must_use]
    pub fn path_patching() -> Self {
        Self {
            attention: HeldAttention::Z,
            mlps: Recompute::Yes,
            norms: Recompute::Yes,
            update: ReceiverUpdate::Replace,
        }
    }

    /// Every head's queries, keys and values are held, MLPs and norms are recomputed (Wang et al. 2022, appendix B; Redwood's code).
    #[must_use]
    pub fn redwood() -> Self {
        Self { attention: HeldAttention::QueriesKeysValues, ..Self::path_patching() }
    }

    /// The senders' change is added straight to what the receivers read, in one run: no MLP is on the way, and what lower receivers
    /// change reaches higher ones. The norm of a receiving head or MLP is recomputed (`path_patching` without MLPs).
    #[must_use]
    pub fn direct() -> Self {
        Self { mlps: Recompute::Frozen, update: ReceiverUpdate::Add, ..Self::path_patching() }
    }

    /// The presets by the names that commands give them.
    fn presets() -> [(Self, &'static str); 3] {
        [(Self::path_patching(), "path-patching"), (Self::redwood(), "redwood"), (Self::direct(), "direct")]
    }
}

impl Default for FreezePolicy {
    fn default() -> Self {
        Self::path_patching()
    }
}

impl fmt::Display for FreezePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::presets().iter().find(|(preset, _)| preset == self) {
            Some((_, name)) => f.write_str(name),
            None => {
                let Self { attention, mlps, norms, update } = self;
                write!(f, "attention {attention:?}, MLPs {mlps:?}, norms {norms:?}, receivers {update:?}")
            }
        }
    }
}

impl FromStr for FreezePolicy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let presets = Self::presets();
        let found = presets.iter().find(|(_, n)| *n == name).map(|(preset, _)| *preset);
        found.ok_or_else(|| format!("no policy `{name}`; there are {}", presets.map(|(_, n)| n).join(", ")))
    }
}
