//! The prompts of a run, and the labels of their positions, made only while `effects.json` is
//! written.

use std::collections::BTreeMap;

use rewire_tasks::PromptPairs;
use serde::{Serialize, Serializer};

/// Labels of the positions of prompts. They are made one prompt at a time, because the labels of
/// 100,000 prompts are many times larger than the prompts.
#[derive(Debug, Clone, Default)]
pub enum Labels<'a> {
    /// No labels.
    #[default]
    None,
    /// The tokens of the first clean prompt.
    First(&'a PromptPairs),
    /// The tokens of every clean prompt, one list per prompt.
    Each(&'a PromptPairs),
    /// The tokens of every clean prompt in a file, one list per prompt.
    FromFile(&'a PromptPairs, PairsOrigin),
    /// The labels of several sets of prompts, by name.
    Sets(BTreeMap<String, Labels<'a>>),
}

/// The file that prompt pairs were read from.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PairsOrigin {
    /// Path of the file, as given.
    pub file: String,
    /// SHA-256 of the file in hexadecimal digits; `None` for a pipe, which cannot be read twice.
    pub file_sha256: Option<String>,
    /// The format that was recognized.
    pub format: String,
}

impl<'a> Labels<'a> {
    /// Returns the prompts, if these are the labels of one set.
    pub(crate) fn pairs(&self) -> Option<&'a PromptPairs> {
        match self {
            Labels::First(pairs) | Labels::Each(pairs) | Labels::FromFile(pairs, _) => Some(*pairs),
            Labels::None | Labels::Sets(_) => None,
        }
    }
}

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Labels::None => serializer.serialize_none(),
            Labels::First(pairs) => pairs.labels(0).serialize(serializer),
            Labels::Each(pairs) | Labels::FromFile(pairs, _) => {
                serializer.collect_seq((0..pairs.len()).map(|prompt| pairs.labels(prompt)))
            }
            Labels::Sets(sets) => sets.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use rewire_tasks::PromptPair;

    use super::*;

    #[test]
    fn position_labels_come_from_the_clean_prompts() {
        let pair = |clean: Vec<u32>| PromptPair {
            corrupted: clean.iter().map(|t| t + 1).collect(),
            clean,
            answers: vec![0],
            wrong_answers: vec![1],
        };
        let pairs = PromptPairs::new(vec![pair(vec![5, 6]), pair(vec![7, 6])]).unwrap();
        let pairs = pairs.with_token_labels(|token| format!("t{token}"));
        let json = |labels: &Labels| serde_json::to_string(labels).unwrap();
        assert_eq!(json(&Labels::None), "null");
        assert_eq!(json(&Labels::First(&pairs)), r#"["t5","t6"]"#);
        assert_eq!(json(&Labels::Each(&pairs)), r#"[["t5","t6"],["t7","t6"]]"#);
        let from_file = Labels::FromFile(&pairs, PairsOrigin::default());
        assert_eq!(json(&from_file), json(&Labels::Each(&pairs)));
        let sets = [("b", Labels::First(&pairs)), ("a", Labels::None)].map(|(name, labels)| (name.to_owned(), labels));
        assert_eq!(json(&Labels::Sets(sets.into())), r#"{"a":null,"b":["t5","t6"]}"#);
    }
}
