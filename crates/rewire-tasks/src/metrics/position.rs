//! The position of each prompt that a metric reads.

use std::fmt;
use std::str::FromStr;

use crate::pairs::PromptPairs;

/// The position of each prompt at which a metric reads logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricPosition {
    /// Counted from the start of the prompt; the BOS, if there is one, is 0.
    FromStart(usize),
    /// Counted from the end of the prompt; 1 is the last token, END.
    FromEnd(usize),
    /// The marked position of each pair.
    Marked,
}

/// Why a metric cannot read at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricPositionError {
    /// A prompt is too short to have the position.
    #[error("prompt {prompt} (counted from 0) has {len} tokens and no position {position}")]
    Outside {
        /// The prompt.
        prompt: usize,
        /// The position that it lacks.
        position: MetricPosition,
        /// Number of its tokens.
        len: usize,
    },
    /// The pairs have no marked positions.
    #[error("the pairs mark no position; add the field `position` to each pair")]
    NoMarks,
}

impl Default for MetricPosition {
    fn default() -> Self {
        MetricPosition::FromEnd(1)
    }
}

impl MetricPosition {
    /// Returns the position in each prompt.
    ///
    /// # Errors
    /// [`MetricPositionError`] if a prompt lacks the position, or if no positions are marked.
    pub fn of(self, pairs: &PromptPairs) -> Result<Vec<usize>, MetricPositionError> {
        if self == MetricPosition::Marked {
            return pairs.marked_positions().map(<[usize]>::to_vec).ok_or(MetricPositionError::NoMarks);
        }
        let in_prompt = |(prompt, len): (usize, usize)| {
            let position = match self {
                MetricPosition::FromStart(position) => Some(position).filter(|&position| position < len),
                MetricPosition::FromEnd(position) => len.checked_sub(position).filter(|&position| position < len),
                MetricPosition::Marked => None,
            };
            position.ok_or(MetricPositionError::Outside { prompt, position: self, len })
        };
        pairs.lengths().into_iter().enumerate().map(in_prompt).collect()
    }
}

impl fmt::Display for MetricPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricPosition::FromStart(position) => write!(f, "{position}"),
            MetricPosition::FromEnd(position) => write!(f, "-{position}"),
            MetricPosition::Marked => f.write_str("marked"),
        }
    }
}

impl FromStr for MetricPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || {
            format!(
                "no position `{text}`; give a number counted from 0 (the BOS), a negative one counted from the end (-1 \
                 is the last token), or marked"
            )
        };
        match text.strip_prefix('-') {
            _ if text == "marked" => Ok(MetricPosition::Marked),
            Some(from_end) => match from_end.parse() {
                Ok(0) | Err(_) => Err(refused()),
                Ok(position) => Ok(MetricPosition::FromEnd(position)),
            },
            None => text.parse().map(MetricPosition::FromStart).map_err(|_| refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::PromptPair;

    fn pairs() -> PromptPairs {
        let pair = |clean: &[u32]| PromptPair {
            clean: clean.to_vec(),
            corrupted: clean.to_vec(),
            answers: vec![1],
            wrong_answers: vec![2],
        };
        PromptPairs::new(vec![pair(&[0, 3, 4]), pair(&[0, 3, 4, 5])]).unwrap()
    }

    #[test]
    fn positions_count_from_either_end_or_are_marked() {
        let of = |text: &str| text.parse::<MetricPosition>().unwrap().of(&pairs());
        assert_eq!(of("0"), Ok(vec![0, 0]));
        assert_eq!(of("-1"), Ok(pairs().ends()));
        assert_eq!(of("-3"), Ok(vec![0, 1]));
        assert_eq!(of("marked"), Err(MetricPositionError::NoMarks));
        let marked = pairs().with_marked_positions(vec![2, 1]).unwrap();
        assert_eq!(MetricPosition::Marked.of(&marked), Ok(vec![2, 1]));
        assert_eq!(MetricPosition::default().of(&pairs()), Ok(pairs().ends()));
    }

    #[test]
    fn a_position_that_a_prompt_lacks_is_refused_with_the_prompt() {
        let refused = |text: &str| text.parse::<MetricPosition>().unwrap().of(&pairs()).unwrap_err().to_string();
        assert_eq!(refused("3"), "prompt 0 (counted from 0) has 3 tokens and no position 3");
        assert_eq!(refused("-5"), "prompt 0 (counted from 0) has 3 tokens and no position -5");
        for text in ["", "-", "-0", "end", "1.5", "--1"] {
            assert!(text.parse::<MetricPosition>().is_err(), "{text}");
        }
        for text in ["7", "-2", "marked"] {
            assert_eq!(text.parse::<MetricPosition>().unwrap().to_string(), text);
        }
    }
}
