//! The prompt pairs of a run in `effects.json`: their number, their hash, and the pairs.

use rewire_store::sha256;
use rewire_tasks::{PromptPair, PromptPairs};
use serde_json::{Map, Value, json};

use crate::error::ReportError;
use crate::labels::Labels;

/// Most pairs that `effects.json` lists. Of more pairs, it has only the hash.
pub const MOST_LISTED_PAIRS: usize = 1000;

/// Returns the pairs for `effects.json`, by set of prompts if there are several sets.
pub(crate) fn describe(labels: &Labels) -> Result<Value, ReportError> {
    match labels {
        Labels::None => Ok(Value::Null),
        Labels::First(pairs) | Labels::Each(pairs) => set(pairs),
        Labels::FromFile(pairs, origin) => {
            let mut described = set(pairs)?;
            described["file"] = json!(origin.file);
            described["file_sha256"] = json!(origin.file_sha256);
            described["format"] = json!(origin.format);
            Ok(described)
        }
        Labels::Sets(sets) => {
            let sets = sets.iter().map(|(name, labels)| Ok((name.clone(), describe(labels)?)));
            Ok(Value::Object(sets.collect::<Result<Map<_, _>, ReportError>>()?))
        }
    }
}

fn set(pairs: &PromptPairs) -> Result<Value, ReportError> {
    let ids: Vec<_> = pairs.pairs().iter().map(|p| (&p.clean, &p.corrupted, &p.answers, &p.wrong_answers)).collect();
    let is_listed = pairs.len() <= MOST_LISTED_PAIRS;
    Ok(json!({
        "number": pairs.len(),
        "sha256": sha256(&serde_json::to_vec(&ids)?),
        "list": is_listed.then(|| (0..pairs.len()).map(|pair| one(pairs, pair)).collect::<Vec<_>>()),
    }))
}

/// Returns one pair: token ids and texts, and the position that is marked.
fn one(pairs: &PromptPairs, number: usize) -> Value {
    let PromptPair { clean, corrupted, answers, wrong_answers } = &pairs.pairs()[number];
    let tokens = |ids: &[u32]| {
        let texts: Vec<String> = ids.iter().map(|&id| pairs.token_name(id)).collect();
        json!({ "ids": ids, "tokens": texts })
    };
    json!({
        "clean": tokens(clean),
        "corrupted": tokens(corrupted),
        "answers": tokens(answers),
        "wrong_answers": tokens(wrong_answers),
        "first_difference": pairs.first_difference(number),
        "end": pairs.end(number),
        "answer_tokens_in_prompt": pairs.begun(number),
        "marked_position": pairs.marked_positions().map(|marks| marks[number]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::PairsOrigin;

    fn pairs(n: usize) -> PromptPairs {
        let pair = PromptPair { clean: vec![5, 6], corrupted: vec![5, 7], answers: vec![8], wrong_answers: vec![9] };
        PromptPairs::new(vec![pair; n]).unwrap().with_token_labels(|token| format!("t{token}"))
    }

    #[test]
    fn pairs_are_listed_with_ids_and_texts_up_to_a_number() {
        let pairs_of = |n| describe(&Labels::Each(&pairs(n))).unwrap();
        let described = pairs_of(2);
        assert_eq!(described["number"], 2);
        let expected = json!({
            "clean": { "ids": [5, 6], "tokens": ["t5", "t6"] },
            "corrupted": { "ids": [5, 7], "tokens": ["t5", "t7"] },
            "answers": { "ids": [8], "tokens": ["t8"] },
            "wrong_answers": { "ids": [9], "tokens": ["t9"] },
            "first_difference": 1, "end": 1, "answer_tokens_in_prompt": 0, "marked_position": null,
        });
        assert_eq!(described["list"][1], expected);
        assert_eq!(pairs_of(2)["sha256"], described["sha256"]);
        assert_ne!(pairs_of(3)["sha256"], described["sha256"]);
        let many = pairs_of(MOST_LISTED_PAIRS + 1);
        assert_eq!([&many["number"], &many["list"]], [&json!(MOST_LISTED_PAIRS + 1), &Value::Null]);
        assert_eq!(many["sha256"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn pairs_name_their_file_and_their_set() {
        let pairs = pairs(1);
        let origin =
            PairsOrigin { file: "a.jsonl".into(), file_sha256: Some("ab".into()), format: "JSON Lines".into() };
        let labels = Labels::Sets([("demo".to_owned(), Labels::FromFile(&pairs, origin))].into());
        let described = describe(&labels).unwrap();
        assert_eq!(described["demo"]["file"], "a.jsonl");
        assert_eq!(described["demo"]["file_sha256"], "ab");
        assert_eq!(describe(&Labels::None).unwrap(), Value::Null);
    }
}
