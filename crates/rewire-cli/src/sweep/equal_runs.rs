//! Warnings about places where the clean and the corrupted run are the same, so that patching one
//! into the other changes nothing.

use rewire_analysis::node::By;
use rewire_tasks::PromptPairs;

use super::arguments::Arguments;
use super::choices::{MethodName, MetricName};

/// Returns the warnings, one line each.
///
/// # Errors
/// If a prompt lacks the position that the metric reads.
pub(super) fn warnings(
    pairs: &PromptPairs,
    reference: &[Vec<u32>],
    arguments: &Arguments,
) -> anyhow::Result<Vec<String>> {
    let mut warnings = Vec::new();
    if arguments.metric_position.is_some() && arguments.metric != MetricName::LogProb {
        let positions = arguments.metric_positions(pairs)?;
        warnings.extend(before("the metric is read", &positions, pairs));
    }
    let patches = [MethodName::ActivationPatching, MethodName::AttributionPatching, MethodName::PathPatching];
    if let (By::Marked, Some(marks), true) =
        (arguments.by.division(), pairs.marked_positions(), patches.contains(&arguments.method))
    {
        warnings.extend(before("the marked position is", marks, pairs));
    }
    if arguments.wants_mean() && arguments.means.is_by_position() {
        warnings.extend(mean_of_one(pairs, reference));
    }
    Ok(warnings)
}

/// Returns a warning if positions are before the first token in which the prompts of their pair
/// differ. Pairs of equal prompts have a warning of their own.
fn before(what: &str, positions: &[usize], pairs: &PromptPairs) -> Option<String> {
    let is_before = |&pair: &usize| pairs.first_difference(pair).is_some_and(|first| positions[pair] < first);
    let n = (0..pairs.len()).filter(is_before).count();
    (n > 0).then(|| {
        format!(
            "{what} before the first token in which the prompts differ, in {n} of {} pairs: the clean and the corrupted \
             run are the same there, and patching one into the other changes nothing",
            pairs.len()
        )
    })
}

/// Returns a warning if every clean prompt is the one prompt that means are taken over.
fn mean_of_one(pairs: &PromptPairs, reference: &[Vec<u32>]) -> Option<String> {
    let (first, others) = reference.split_first()?;
    let is_alone = others.iter().chain(pairs.pairs().iter().map(|pair| &pair.clean)).all(|prompt| prompt == first);
    is_alone.then(|| {
        "the mean at each position is over one prompt, and replaces its activations by themselves; give other prompts \
         (--reference) or --mean-over all"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use rewire_tasks::PromptPair;

    use super::*;

    fn pairs() -> PromptPairs {
        let pair = |clean: &[u32], corrupted: &[u32]| PromptPair {
            clean: clean.to_vec(),
            corrupted: corrupted.to_vec(),
            answers: vec![8],
            wrong_answers: vec![9],
        };
        PromptPairs::new(vec![pair(&[0, 1, 2], &[0, 3, 2]), pair(&[0, 1, 2], &[0, 1, 4])]).unwrap()
    }

    #[test]
    fn positions_before_the_first_difference_are_counted() {
        let found = |positions: [usize; 2]| before("the metric is read", &positions, &pairs());
        assert_eq!(found([1, 2]), None);
        assert!(found([1, 1]).is_some_and(|warning| warning.contains("in 1 of 2 pairs")));
        assert!(found([0, 0]).is_some_and(|warning| warning.starts_with("the metric is read before the first token")));
    }

    #[test]
    fn a_mean_of_the_prompt_itself_is_doubtful() {
        let same = vec![vec![0, 1, 2]; 2];
        assert!(mean_of_one(&pairs(), &same).is_some());
        assert_eq!(mean_of_one(&pairs(), &[vec![0, 1, 2], vec![0, 1, 5]]), None);
        assert_eq!(mean_of_one(&pairs(), &[vec![0, 1, 5]]), None);
    }
}
