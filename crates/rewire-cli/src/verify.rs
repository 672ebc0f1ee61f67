//! The command `rewire verify`: computes a share of the numbers of a sweep again, and says whether
//! they hold.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::device::Device;
use crate::headings::{COMPUTE, MODEL, PROMPTS};
use crate::interrupt::Interrupts;
use crate::sweep::{self, Choice};
use crate::verify::recorded::Recorded;
use crate::{Command, merge};

pub(crate) mod compared;
pub(crate) mod recorded;

#[derive(Args)]
pub struct Arguments {
    /// Output directory of the sweep.
    directory: PathBuf,
    /// Share of the nodes to compute again, above 0 and at most 1.
    ///
    /// Exact methods compute a random share of their nodes, each over all prompts. Methods that
    /// give all nodes at once (attribution patching, integrated gradients, logit attribution) are
    /// computed whole.
    #[arg(long, default_value = "0.1", value_name = "SHARE", value_parser = share)]
    share: f64,
    /// Seed of the random choice of the nodes.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Read the prompt pairs from this file instead of the recorded one.
    #[arg(long, value_name = "FILE", help_heading = PROMPTS)]
    pairs: Option<PathBuf>,
    /// Use this model instead of the recorded name or path.
    #[arg(long, value_name = "NAME|DIR|FILE", help_heading = MODEL)]
    model: Option<String>,
    /// Compute on this device instead of the recorded one.
    #[arg(long, help_heading = COMPUTE)]
    device: Option<Device>,
}

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let recorded = Recorded::read(&arguments.directory)?;
    let words = ["rewire"].into_iter().chain(recorded.command.iter().map(String::as_str));
    let Ok(crate::Arguments { command: Command::Sweep(mut parsed) }) = crate::Arguments::try_parse_from(words) else {
        anyhow::bail!(
            "{}: its command is not a sweep of this version: {}",
            recorded.path().display(),
            merge::joined(&recorded.command)
        );
    };
    parsed.replace_inputs(arguments.pairs.as_deref(), arguments.model.as_deref(), arguments.device);
    sweep::verify(&parsed, &recorded, Choice { share: arguments.share, seed: arguments.seed }, interrupts)
}

/// Parses the share of the nodes.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("give a number above 0 and at most 1, such as 0.1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_above_0_and_at_most_1() {
        assert_eq!([share("1"), share("0.01")], [Ok(1.0), Ok(0.01)]);
        for text in ["0", "-0.1", "1.5", "NaN", "inf", "a tenth", ""] {
            assert!(share(text).unwrap_err().contains("at most 1"), "{text}");
        }
    }
}
