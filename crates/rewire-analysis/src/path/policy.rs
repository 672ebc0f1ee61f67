//! Which activations are frozen while the senders' change propagates to the receivers.

use std::fmt;
use std::str::FromStr;

use rewire_input::did_you_mean;
use serde::{Deserialize, Serialize};

/// Whether an activation is recomputed, or frozen at its value in the base run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Recomputed from the changed residual stream.
    #[serde(rename = "recomputed", alias = "free")]
    Yes,
    /// Frozen at its value in the base run.
    Frozen,
}

/// How the second run updates receivers with the change that reached them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverUpdate {
    /// Replaces the receiver's activation with its value from the first run. Changes that lower
    /// receivers make in the second run do not reach higher receivers.
    #[serde(alias = "set")]
    Replace,
    /// Adds the change of the residual stream that reached the receiver to the stream that the
    /// receiver reads, and recomputes its norm. Changes that lower receivers make in the second run
    /// also reach higher receivers.
    Add,
}

/// Which activations are frozen while the senders' change propagates to the receivers, and how the
/// second run updates the receivers.
///
/// Attention is always frozen, because otherwise every path from sender to receiver would count:
/// every head's mixed values, except the senders', are those of the base run. To freeze queries,
/// keys and values instead, as Redwood's code does, is the same, because mixed values are a
/// function of them.
///
/// The presets are named after their sources. The second run is the base run with the receivers
/// updated, and freezes nothing else. With one receiver, or with several heads' inputs in one
/// layer, both ways to update receivers give the same effects. [`ReceiverUpdate::Add`] adds twice
/// to a stream that is named twice, for example after one block and before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FreezePolicy {
    /// Whether MLPs are recomputed, which makes them part of the paths.
    pub mlps: Recompute,
    /// Whether the norms in front of MLPs and receiving heads keep the base run's scale. Norms
    /// after attention and MLP are part of these, and are recomputed.
    pub norms: Recompute,
    /// How the second run updates the receivers.
    pub update: ReceiverUpdate,
}

impl FreezePolicy {
    /// Recomputes MLPs and norms: the default of the field (Wang et al. 2022, appendix B; the
    /// `path_patching` package).
    #[must_use]
    pub fn path_patching() -> Self {
        Self { mlps: Recompute::Yes, norms: Recompute::Yes, update: ReceiverUpdate::Replace }
    }

    /// Adds the senders' change directly to the streams that the receivers read, in one run
    /// (`path_patching` without MLPs).
    ///
    /// No MLP is part of a path. Changes that lower receivers make reach higher receivers. The norm
    /// of a receiving head or MLP is recomputed.
    #[must_use]
    pub fn direct() -> Self {
        Self { mlps: Recompute::Frozen, update: ReceiverUpdate::Add, ..Self::path_patching() }
    }

    /// Returns the presets with their names on the command line.
    fn presets() -> [(Self, &'static str); 2] {
        [(Self::path_patching(), "path-patching"), (Self::direct(), "direct")]
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
                let Self { mlps, norms, update } = self;
                write!(f, "MLPs {mlps:?}, norms {norms:?}, receivers {update:?}")
            }
        }
    }
}

impl FromStr for FreezePolicy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        // Redwood's code freezes queries, keys and values, which gives the same numbers.
        let preset = if name == "redwood" { "path-patching" } else { name };
        let found = Self::presets().into_iter().find(|(_, n)| *n == preset).map(|(preset, _)| preset);
        let names = ["path-patching", "direct", "redwood"];
        found.ok_or_else(|| {
            let suggestion = did_you_mean(name, names);
            format!("no policy `{name}`; there are path-patching (also called redwood) and direct{suggestion}")
        })
    }
}
