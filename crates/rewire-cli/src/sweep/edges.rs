//! The flags of a sweep of all edges.

use clap::Args;
use rewire_analysis::edges::GradientsAt;
use rewire_circuits::SIZES;
use serde_json::{Value, json};

use super::choices::IntegrateName;
use super::intervene::IntegralArguments;
use crate::circuit::ranking_name::RankingName;
use crate::headings::{ATTRIBUTION, CIRCUITS};

#[derive(Args)]
pub(super) struct EdgeArguments {
    /// Average the gradients of edges over a line: inputs or activations.
    ///
    /// For --nodes edges (EAP-IG). inputs: the embeddings move from the corrupted run to the clean
    /// run. activations: the output of one layer of heads or of one MLP moves at a time. Set the
    /// line with --steps and --rule. By default, the gradient is that of the patched run (EAP).
    #[arg(long, value_enum, hide_possible_values = true, value_name = "WHAT", help_heading = ATTRIBUTION)]
    pub(super) integrate: Option<IntegrateName>,
    /// Also judge circuits of the best edges: absolute or signed.
    ///
    /// For --nodes edges. absolute: the edges of largest effect, of either sign (MIB's CMD).
    /// signed: the edges whose corruption lowers the metric most (MIB's CPR). Each circuit keeps
    /// its edges and takes all others from the corrupted prompt. Gives the faithfulness at each
    /// size and the areas under the curve, with intervals over prompts and over the choice.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "RANKING", help_heading = CIRCUITS)]
    pub(super) circuits: Option<RankingName>,
    /// Sizes of the circuits, as shares of all edges [default: MIB's ten].
    #[arg(long, value_delimiter = ',', value_name = "SHARES", requires = "circuits", help_heading = CIRCUITS)]
    sizes: Vec<f64>,
}

impl EdgeArguments {
    /// Returns the runs at which the gradients of edges are taken.
    pub(super) fn gradients(&self, integral: &IntegralArguments) -> GradientsAt {
        match self.integrate {
            None => GradientsAt::Base,
            Some(IntegrateName::Inputs) => GradientsAt::Inputs(integral.line_of_edges()),
            Some(IntegrateName::Activations) => GradientsAt::Activations(integral.line_of_edges()),
        }
    }

    /// Returns the sizes of circuits, as shares of all edges.
    pub(super) fn sizes(&self) -> &[f64] {
        if self.sizes.is_empty() { &SIZES } else { &self.sizes }
    }

    /// Refuses circuits that the sweep cannot judge. `wants_edges` says whether it is one of edges.
    pub(super) fn check_circuits(&self, wants_edges: bool) -> anyhow::Result<()> {
        anyhow::ensure!(self.circuits.is_none() || wants_edges, "--circuits needs --nodes edges");
        rewire_circuits::check_sizes(self.sizes()).map_err(|error| anyhow::anyhow!("--sizes: {error}"))
    }

    /// Returns the circuits for the identity of the results.
    pub(super) fn describe_circuits(&self) -> Value {
        self.circuits.map_or(Value::Null, |name| json!([name.ranking().to_string(), self.sizes()]))
    }

    /// Returns everything that estimates of edges depend on beside the flags of all sweeps.
    pub(super) fn describe(&self, integral: &IntegralArguments) -> Value {
        match self.gradients(integral) {
            GradientsAt::Base => json!({ "gradients": "patched run" }),
            GradientsAt::Inputs(line) => json!({ "gradients": "inputs", "line": line }),
            GradientsAt::Activations(line) => json!({ "gradients": "activations", "line": line }),
        }
    }
}
