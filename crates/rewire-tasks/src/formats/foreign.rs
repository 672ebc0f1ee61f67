//! Files of the field that hold no prompt pairs, recognized by their keys or columns, so that an
//! error can say what was given.

use serde_json::{Map, Value};

/// The keys or columns of a kind of file, of which all must be there, and what the file is.
const KINDS: [(&[&str], &str); 11] = [
    (&["nodes", "edges"], "a circuit"),
    (&["nodes", "links"], "an attribution graph of circuit-tracer"),
    (&["node_scores"], "node scores of CircuitKIT"),
    (&["edge_scores"], "edge scores of CircuitKIT"),
    (&["representations", "intervention_types"], "a configuration of pyvene"),
    (&["requested_rewrite"], "CounterFact, whose rows have one prompt; make a pair of two subjects of one relation"),
    (&["subject", "attribute", "prompt"], "ROME's known facts; add a corrupted prompt to each"),
    (
        &["original_prompt", "counterfactual_prompt"],
        "counterfactual prompts; name the keys `clean`, `corrupt`, `answers` and `wrong_answers`",
    ),
    (
        &["text", "IO", "S"],
        "the prompts of ACDC's IOI data, which end in the answer and have no corrupted prompts; `rewire reproduce-ioi` makes \
         pairs of this task",
    ),
    (&["sing", "plur"], "the list of verbs that belongs to tables of subject-verb agreement"),
    (&["baseline", "corrupted_baseline"], "a table of results"),
];

/// Returns what a file with these keys or columns is: a clause that continues an error, or nothing.
pub(super) fn clause(has: impl Fn(&str) -> bool) -> String {
    match KINDS.iter().find(|(keys, _)| keys.iter().all(|key| has(key))) {
        Some((_, kind)) => format!("; such a file is {kind}"),
        None => String::new(),
    }
}

/// Returns the first keys of an object, and what a file with its keys is.
pub(super) fn described(object: &Map<String, Value>) -> String {
    let keys: Vec<String> = object.keys().take(8).map(|key| format!("`{}`", rewire_input::cut(key))).collect();
    let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    if object.values().any(|value| value.get("templates").is_some()) {
        return format!("{keys}; such a file is a set of CausalGym's templates; write out the prompts");
    }
    keys + &clause(|key| object.contains_key(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_of_files_are_named_by_their_keys() {
        let described = |value: Value| described(value.as_object().unwrap());
        assert_eq!(
            described(json!({"cfg": 1, "edges": 2, "nodes": 3})),
            "`cfg`, `edges`, `nodes`; such a file is a circuit"
        );
        assert_eq!(described(json!({"nodes": 2})), "`nodes`");
        assert_eq!(described(json!({})), "none");
        let templates = described(json!({"agreement": {"templates": ["The {noun}"]}}));
        assert!(templates.starts_with("`agreement`; such a file is a set of CausalGym's templates"), "{templates}");
        let columns = ["idx", "sing", "plur"];
        assert!(clause(|name| columns.contains(&name)).contains("list of verbs"));
    }
}
