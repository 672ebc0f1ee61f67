//! The flags of path patching, and its findings.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use burn::tensor::backend::Backend;
use clap::Args;
use rewire_analysis::node::{NodeKind, Positions};
use rewire_analysis::path::{FreezePolicy, ParseReceiverError, PathPatching, Receiver, path_patching};
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_analysis::{Method, Outcome};
use rewire_model::Transformer;
use rewire_tasks::{BuiltinMetric, PromptPairs};
use serde_json::{Value, json};

use super::choices::MethodName;
use super::findings::Findings;
use crate::headings::PATHS;

#[derive(Args)]
pub(super) struct PathArguments {
    /// Where the paths end, such as q:9.6,resid_post:11@end.
    ///
    /// resid_post:L resid_pre:L resid_mid:L mlp_in:L q:L.H k:L.H v:L.H (without .H all heads of the
    /// layer). A suffix selects the position: @N one position, @end each prompt's last position,
    /// @marked the position that each line of --pairs gives. Needs --method path-patching.
    #[arg(long, value_delimiter = ',', help_heading = PATHS)]
    receivers: Vec<ReceiverName>,
    /// Patch each receiver alone, with one table per receiver.
    ///
    /// Tables are named like head_z>q:9.6. By default, all receivers are patched together. Needs
    /// --receivers.
    #[arg(long, requires = "receivers", help_heading = PATHS)]
    receivers_apart: bool,
    /// Activations held at their base values [default: path-patching].
    ///
    /// path-patching: z of all heads except the senders. redwood: q, k and v of all heads, which
    /// gives the same numbers. direct: heads and MLPs, with the change added to the receivers'
    /// inputs. Needs --method path-patching.
    #[arg(long, value_name = "POLICY", help_heading = PATHS)]
    freeze: Option<FreezePolicy>,
}

/// A receiver, as `--receivers` names it.
#[derive(Debug, Clone)]
struct ReceiverName {
    receiver: Receiver,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Everywhere,
    One(usize),
    End,
    Marked,
}

impl FromStr for ReceiverName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, at) = match text.split_once('@') {
            None => (text, At::Everywhere),
            Some((name, "end")) => (name, At::End),
            Some((name, "marked")) => (name, At::Marked),
            Some((name, position)) => {
                let refused = |_| format!("no position `{position}`; give a number, end or marked");
                (name, At::One(position.parse().map_err(refused)?))
            }
        };
        Ok(Self { receiver: name.parse().map_err(|e: ParseReceiverError| e.to_string())?, at })
    }
}

impl fmt::Display for ReceiverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.receiver)?;
        match self.at {
            At::Everywhere => Ok(()),
            At::One(position) => write!(f, "@{position}"),
            At::End => write!(f, "@end"),
            At::Marked => write!(f, "@marked"),
        }
    }
}

impl ReceiverName {
    fn receiver(&self, pairs: &PromptPairs) -> anyhow::Result<Receiver> {
        let positions = match self.at {
            At::Everywhere => Positions::All,
            At::One(position) => Positions::One(position),
            At::End => Positions::Each(pairs.ends()),
            At::Marked => match pairs.marked_positions() {
                Some(marks) => Positions::Each(marks.to_vec()),
                None => bail!(
                    "receiver {self}: the pairs mark no position; add the field `position` to each line of --pairs"
                ),
            },
        };
        Ok(self.receiver.clone().at(positions))
    }
}

impl PathArguments {
    /// Refuses these flags for other methods, and refuses path patching without receivers.
    pub(super) fn check(&self, method: MethodName) -> anyhow::Result<()> {
        let names: Vec<String> = self.receivers.iter().map(ToString::to_string).collect();
        if let Some((_, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            bail!("--receivers names {name} twice; remove one");
        }
        match (method, names.is_empty(), self.freeze) {
            (MethodName::PathPatching, true, _) => {
                bail!("--method path-patching needs --receivers, such as resid_post:11 or q:9.6,q:9.9")
            }
            (MethodName::PathPatching, false, _) | (_, true, None) => Ok(()),
            (_, false, _) => bail!("--receivers needs --method path-patching"),
            (_, true, Some(_)) => bail!("--freeze needs --method path-patching"),
        }
    }

    /// Returns everything that the result depends on.
    pub(super) fn describe(&self) -> Value {
        let receivers: Vec<String> = self.receivers.iter().map(ToString::to_string).collect();
        let policy = self.freeze.unwrap_or_default();
        json!({ "receivers": receivers, "apart": self.receivers_apart, "freeze": policy.to_string(), "held": policy })
    }

    /// Returns the name of the held activations, for the head of a report. Empty for other methods.
    pub(super) fn held(&self, method: Method) -> String {
        match method {
            Method::PathPatching => format!(" ({} held)", self.freeze.unwrap_or_default()),
            _ => String::new(),
        }
    }

    /// Returns the names of the receivers of the table `name`.
    pub(super) fn named(&self, name: &str) -> String {
        match name.split_once('>') {
            Some((_, receiver)) => receiver.to_owned(),
            None => self.receivers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }
    }

    pub(super) fn patch<B: Backend>(
        &self,
        model: &Transformer<B>,
        question: Question<BuiltinMetric>,
        nodes: &[NodeKind],
        direction: Direction,
        execution: &Execution,
    ) -> anyhow::Result<Findings> {
        let policy = self.freeze.unwrap_or_default();
        let sets: Vec<&[ReceiverName]> = match self.receivers_apart {
            true => self.receivers.chunks(1).collect(),
            false => vec![self.receivers.as_slice()],
        };
        let mut unreached = Vec::new();
        let mut names = Vec::new();
        let mut outcome: Option<Outcome> = None;
        for set in sets {
            let receivers = set.iter().map(|name| name.receiver(question.pairs)).collect::<anyhow::Result<Vec<_>>>()?;
            let PathPatching { outcome: found, unreached: missed, .. } =
                path_patching(model, question, nodes, &receivers, policy, direction, execution)?;
            let missed = set.iter().zip(&receivers).filter(|(_, receiver)| missed.contains(receiver));
            unreached.extend(missed.map(|(name, _)| name.to_string()));
            names.extend(found.effects.iter().map(|effects| match self.receivers_apart {
                true => format!("{}>{}", effects.kind, set[0]),
                false => effects.kind.to_string(),
            }));
            match &mut outcome {
                Some(outcome) => outcome.effects.extend(found.effects),
                None => outcome = Some(found),
            }
        }
        let Some(outcome) = outcome else { bail!("there are no receivers; give --receivers") };
        Ok(Findings { names, unreached, ..Findings::of(outcome) })
    }
}

/// Returns one line for each receiver that no path reaches.
pub(super) fn unreached_text(unreached: &[String]) -> String {
    unreached
        .iter()
        .map(|receiver| {
            format!(
                "{receiver}: no path from these senders reaches it: no sender writes before it, or its input does not \
                 differ, or the metric does not depend on it; alone, its effects are 0\n"
            )
        })
        .collect()
}
