//! The flags of path patching, and its findings.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use burn::tensor::backend::Backend;
use clap::Args;
use rewire_analysis::node::NodeKind;
use rewire_analysis::patching::NodeList;
use rewire_analysis::path::{FreezePolicy, ParseReceiverError, Receiver, path_patch_groups, path_patching};
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_analysis::{AnalysisError, Method, Outcome};
use rewire_input::{cut, most_similar};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{BuiltinMetric, PromptPairs};
use serde_json::{Value, json};

use super::at::At;
use super::choices::MethodName;
use super::findings::{Findings, table_name};
use crate::headings::PATHS;

#[derive(Args)]
pub(super) struct PathArguments {
    /// Where the paths end, such as head_q:L9H6,resid_post:L11@end.
    ///
    /// logits resid_post:L3 resid_pre:L3 resid_mid:L3 mlp_in:L3 head_q:L3H7 head_k:L3H7 head_v:L3H7
    /// (head_q:L3 for all heads of the layer). A suffix selects the position: @N one position, @end
    /// each prompt's last position, @marked the position that each line of --pairs gives. Needs
    /// --method path-patching.
    #[arg(long, value_delimiter = ',', help_heading = PATHS)]
    receivers: Vec<ReceiverName>,
    /// Patch each receiver alone, with one table per receiver.
    ///
    /// Tables are named like head_z>head_q:L9H6. By default, all receivers are patched together.
    /// Needs --receivers.
    #[arg(long, requires = "receivers", help_heading = PATHS)]
    receivers_apart: bool,
    /// Activations held at their base values [default: path-patching].
    ///
    /// path-patching (or its other name redwood): z of all heads except the senders. direct: heads
    /// and MLPs, with the change added to the receivers' inputs. Needs --method path-patching.
    #[arg(long, value_name = "POLICY", help_heading = PATHS)]
    freeze: Option<FreezePolicy>,
}

/// A receiver, as `--receivers` names it.
#[derive(Debug, Clone)]
struct ReceiverName {
    input: InputName,
    at: At,
}

/// The input of a receiver. The layer of the logits depends on the model.
#[derive(Debug, Clone)]
enum InputName {
    Logits,
    Receiver(Receiver),
}

/// The senders of path patching: all nodes of some kinds, or a list of single nodes.
#[derive(Clone, Copy)]
pub(super) enum Senders<'a> {
    Kinds(&'a [NodeKind]),
    List(&'a NodeList),
}

impl FromStr for ReceiverName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, at) = At::split(text)?;
        let input = match name.to_ascii_lowercase().as_str() {
            "logits" => InputName::Logits,
            _ => InputName::Receiver(name.parse().map_err(|error: ParseReceiverError| refused(name, &error))?),
        };
        Ok(Self { input, at })
    }
}

/// Returns the error for text that names no receiver.
fn refused(name: &str, error: &ParseReceiverError) -> String {
    match most_similar(name, ["logits"]) {
        Some(logits) => format!("no receiver `{}`; did you mean `{logits}`?", cut(name)),
        None => error.to_string().replacen("there are ", "there are logits (the last residual stream), ", 1),
    }
}

impl fmt::Display for ReceiverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            InputName::Logits => write!(f, "logits{}", self.at),
            InputName::Receiver(receiver) => write!(f, "{receiver}{}", self.at),
        }
    }
}

impl ReceiverName {
    fn receiver(&self, pairs: &PromptPairs, config: &TransformerConfig) -> anyhow::Result<Receiver> {
        let receiver = match &self.input {
            InputName::Logits => Receiver::logits(config),
            InputName::Receiver(receiver) => receiver.clone(),
        };
        Ok(receiver.at(self.at.positions(pairs, &format_args!("receiver {self}"))?))
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
                bail!("--method path-patching needs --receivers, such as logits or head_q:L9H6,head_q:L9H9")
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
        let mut held = json!(policy);
        held["attention"] = json!("z");
        json!({ "receivers": receivers, "apart": self.receivers_apart, "freeze": policy.to_string(), "held": held })
    }

    /// Returns the freeze policy, for the head of a report. Empty for other methods.
    pub(super) fn held(&self, method: Method) -> String {
        match method {
            Method::PathPatching => format!(" (freeze {})", self.freeze.unwrap_or_default()),
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
        senders: Senders,
        direction: Direction,
        execution: &Execution,
    ) -> anyhow::Result<Findings> {
        let pairs = question.pairs;
        let policy = self.freeze.unwrap_or_default();
        let sets: Vec<&[ReceiverName]> = match self.receivers_apart {
            true => self.receivers.chunks(1).collect(),
            false => vec![self.receivers.as_slice()],
        };
        let mut unreached = Vec::new();
        let mut names = Vec::new();
        let mut outcome: Option<Outcome> = None;
        let mut is_complete = true;
        for set in sets {
            let receivers =
                set.iter().map(|name| name.receiver(pairs, model.config())).collect::<anyhow::Result<Vec<_>>>()?;
            if let Some((i, _)) = receivers.iter().enumerate().find(|(i, receiver)| receivers[..*i].contains(receiver))
            {
                bail!("--receivers names {} twice; remove one", set[i]);
            }
            let found = match senders {
                Senders::Kinds(kinds) => {
                    path_patching(model, question, kinds, &receivers, policy, direction, execution)
                        .map(|found| (found.outcome, found.unreached))
                }
                Senders::List(list) => {
                    path_patch_groups(model, question, &list.groups(pairs), &receivers, policy, direction, execution)
                        .map(|found| (list.outcome(Method::PathPatching, found.outcome, pairs), found.unreached))
                }
            };
            let (found, missed) = match found {
                // A shard also computes its passes for the other receivers.
                Err(AnalysisError::PassesLeft) => {
                    is_complete = false;
                    continue;
                }
                found => found?,
            };
            let missed = set.iter().zip(&receivers).filter(|(_, receiver)| missed.contains(receiver));
            unreached.extend(missed.map(|(name, _)| name.to_string()));
            names.extend(found.effects.iter().map(|effects| match self.receivers_apart {
                true => format!("{}>{}", table_name(effects), set[0]),
                false => table_name(effects),
            }));
            match &mut outcome {
                Some(outcome) => outcome.effects.extend(found.effects),
                None => outcome = Some(found),
            }
        }
        if !is_complete {
            return Err(AnalysisError::PassesLeft.into());
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
