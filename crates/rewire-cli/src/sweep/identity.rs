//! The identity of a sweep: everything that its passes, and its results, depend on.

use rewire_store::sha256;
use serde::Serialize;
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::inputs::Inputs;
use crate::model::Source;
use crate::session::Session;

/// Returns everything that a pass of the sweep depends on.
pub(super) fn identity(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    Inputs { pairs, nodes, reference }: Inputs,
) -> anyhow::Result<Value> {
    let prompts: Vec<_> =
        pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": source.files.versions()?,
        "processed weights": source.is_processed(),
        "device": session.device().to_string(),
        "pairs": { "number": pairs.len(), "sha256": hash(&prompts)? },
        "positions": hash(&pairs.marked_positions())?,
        "nodes": nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "method": arguments.method.name(),
        "paths": arguments.paths.describe(),
        "line": arguments.integral.describe(&arguments.numbers)?,
        "ablation": arguments.ablation.describe(),
        "mean over": arguments.means.describe(),
        "reference": hash(&reference)?,
        "norm": arguments.norm,
        "final norm gain": format!("{:?}", arguments.final_norm_gain()),
        "prompts kept apart": arguments.per_prompt,
        "head edges": arguments.wants_paths(),
        "verified": arguments.verify,
        "direction": arguments.direction(),
        "metric": arguments.metric.name(),
        "prompt batch": arguments.prompt_batch,
        "numbers": arguments.numbers.describe(),
    }))
}

/// Returns everything that the results of the sweep depend on, from the identity of its passes.
pub(super) fn of_results(identity: &Value, arguments: &Arguments) -> Value {
    let mut run = identity.clone();
    run["command"] = json!("sweep");
    run["intervals"] = json!(arguments.intervals);
    run["seed"] = json!(arguments.seed);
    run
}

/// Returns the SHA-256 of a long value, which represents the value in the identity.
fn hash(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(sha256(&serde_json::to_vec(value)?))
}
