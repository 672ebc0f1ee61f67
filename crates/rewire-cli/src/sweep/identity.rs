//! The identity of a sweep: everything that its passes, and its results, depend on.

use rewire_analysis::patching::Verify;
use rewire_store::sha256;
use serde::Serialize;
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::inputs::Inputs;
use super::single::SingleNodes;
use crate::model::Source;
use crate::session::Session;

/// Returns everything that a pass of the sweep depends on.
pub(super) fn identity(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    Inputs { pairs, nodes, single, reference, .. }: Inputs,
) -> anyhow::Result<Value> {
    let prompts: Vec<_> =
        pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
    // Pairs whose answers are one token do not differ in this, however many they are.
    let begun: Option<Vec<usize>> = (0..pairs.len())
        .any(|pair| pairs.begun(pair) > 0)
        .then(|| (0..pairs.len()).map(|pair| pairs.begun(pair)).collect());
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": source.files.versions()?,
        "processed weights": source.is_processed(),
        "device": session.device().to_string(),
        "pairs": { "number": pairs.len(), "sha256": hash(&prompts)? },
        "tokens that begin answers": hash(&begun)?,
        "positions": hash(&pairs.marked_positions())?,
        "nodes": single.map_or_else(|| nodes.iter().map(ToString::to_string).collect(), SingleNodes::names),
        "method": arguments.method.name(),
        "paths": arguments.paths.describe(),
        "line": arguments.integral.describe(&arguments.numbers)?,
        "ablation": arguments.ablation.describe(),
        "mean over": arguments.means.describe(),
        "reference": hash(&reference)?,
        "norm": arguments.norm(),
        "backward": arguments.backward,
        "final norm gain": format!("{:?}", arguments.final_norm_gain()),
        "prompts kept apart": arguments.per_prompt,
        "head edges": arguments.wants_paths(),
        "edges": arguments.wants_edges().then(|| arguments.edges.describe(&arguments.integral)),
        "chosen edges": arguments.chosen_edges().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "verified": arguments.verify.map(|verify| match verify {
            Verify::Largest(k) => json!(k),
            Verify::All => json!("all"),
        }),
        "estimates": arguments.estimator.describe(),
        "direction": arguments.direction(),
        "positions counted from": arguments.align.name(),
        "metric": arguments.metric.name(),
        "metric position": arguments.metric_position(),
        "prompt batch": arguments.prompt_batch,
        "numbers": arguments.numbers.describe(),
    }))
}

/// Returns everything that the results of the sweep depend on, from the identity of its passes.
pub(super) fn of_results(identity: &Value, arguments: &Arguments) -> Value {
    let mut run = identity.clone();
    run["command"] = json!("sweep");
    run["intervals"] = json!(arguments.intervals);
    if arguments.edges.circuits.is_some() {
        run["circuits"] = arguments.edges.describe_circuits();
    }
    run["seed"] = json!(arguments.seed);
    run
}

/// Returns the SHA-256 of a long value, which represents the value in the identity.
fn hash(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(sha256(&serde_json::to_vec(value)?))
}
