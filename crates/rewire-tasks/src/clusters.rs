//! Clusters of prompt pairs that count as one observation: a pair, its mirror, and every repeat of
//! either.

use std::collections::BTreeMap;

use crate::pairs::{PromptPair, PromptPairs};

/// Groups of prompt pairs, each of which counts as one observation.
///
/// A standard error over prompts assumes that the prompts are independent. A pair and its mirror
/// (the same two prompts, clean and corrupted exchanged) are not independent. Repeats of a pair are
/// not independent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clusters {
    of: Vec<usize>,
    sizes: Vec<usize>,
}

impl Clusters {
    /// Makes each of `n` prompts a cluster of its own.
    #[must_use]
    pub fn each(n: usize) -> Self {
        Self { of: (0..n).collect(), sizes: vec![1; n] }
    }

    /// Groups prompts with equal labels into one cluster. Clusters are numbered by their first
    /// prompt.
    #[must_use]
    pub fn by<T: Ord>(labels: impl IntoIterator<Item = T>) -> Self {
        let mut numbers = BTreeMap::new();
        let mut sizes = Vec::new();
        let number = |label| {
            let next = numbers.len();
            let cluster = *numbers.entry(label).or_insert(next);
            sizes.resize(sizes.len().max(cluster + 1), 0);
            sizes[cluster] += 1;
            cluster
        };
        Self { of: labels.into_iter().map(number).collect(), sizes }
    }

    /// Returns the cluster of each prompt, numbered from 0.
    #[must_use]
    pub fn of(&self) -> &[usize] {
        &self.of
    }

    /// Returns the number of prompts in each cluster.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Returns the number of clusters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Returns whether there are no clusters, which means that there are no prompts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Returns the clusters of only these prompts, in this order.
    ///
    /// # Panics
    /// If a prompt is out of range.
    #[must_use]
    pub fn restricted_to(&self, prompts: &[usize]) -> Self {
        Self::by(prompts.iter().map(|&prompt| self.of[prompt]))
    }

    /// Returns the number of prompts.
    #[must_use]
    pub fn prompts(&self) -> usize {
        self.of.len()
    }
}

impl PromptPairs {
    /// Groups the pairs into clusters by content. Pairs of the same two prompts are one cluster,
    /// whichever of the two is the clean prompt. Answers do not count. Pairs that share only one
    /// prompt are in different clusters.
    #[must_use]
    pub fn clusters(&self) -> Clusters {
        Clusters::by(self.pairs().iter().enumerate().map(|(number, PromptPair { clean, corrupted, .. })| {
            let len = clean.len() - self.begun(number);
            let [clean, corrupted] = [clean, corrupted].map(|prompt| &prompt[..len]);
            if clean <= corrupted { [clean, corrupted] } else { [corrupted, clean] }
        }))
    }

    /// Returns the index of each pair's mirror, if every pair has one. A mirror exchanges the clean
    /// with the corrupted prompt, and the right with the wrong answers. A pair that occurs several
    /// times needs as many mirrors.
    #[must_use]
    pub fn mirrors(&self) -> Option<Vec<usize>> {
        let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (number, pair) in self.pairs().iter().enumerate() {
            places.entry(contents(pair)).or_default().push(number);
        }
        let mut mirrors = vec![0; self.len()];
        for ([clean, corrupted, answers, wrong], pairs) in &places {
            let mirrored = places.get(&[corrupted.clone(), clean.clone(), wrong.clone(), answers.clone()])?;
            if mirrored.len() != pairs.len() {
                return None;
            }
            pairs.iter().zip(mirrored).for_each(|(&pair, &mirror)| mirrors[pair] = mirror);
        }
        Some(mirrors)
    }
}

/// Returns the contents of a pair, with its answers sorted.
fn contents(pair: &PromptPair) -> [Vec<u32>; 4] {
    let PromptPair { clean, corrupted, answers, wrong_answers } = pair.clone();
    let [answers, wrong_answers] = [answers, wrong_answers].map(|mut tokens| {
        tokens.sort_unstable();
        tokens
    });
    [clean, corrupted, answers, wrong_answers]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(clean: u32, corrupted: u32) -> PromptPair {
        PromptPair {
            clean: vec![7, clean],
            corrupted: vec![7, corrupted],
            answers: vec![corrupted],
            wrong_answers: vec![clean],
        }
    }

    #[test]
    fn mirrored_and_repeated_pairs_share_a_cluster_in_any_order() {
        let pairs = PromptPairs::new(vec![pair(1, 2), pair(3, 4), pair(2, 1), pair(1, 2), pair(1, 3)]).unwrap();
        let clusters = pairs.clusters();
        assert_eq!(clusters.of(), [0, 1, 0, 0, 2]);
        assert_eq!((clusters.sizes(), clusters.len(), clusters.prompts()), ([3, 1, 1].as_slice(), 3, 5));
        assert_eq!(Clusters::each(3), Clusters::by([9, 4, 5]));
    }

    #[test]
    fn a_set_is_mirrored_if_each_pair_has_its_own_mirror() {
        let mirrors = |pairs: Vec<PromptPair>| PromptPairs::new(pairs).unwrap().mirrors();
        assert_eq!(mirrors(vec![pair(1, 2), pair(3, 4), pair(2, 1), pair(4, 3)]), Some(vec![2, 3, 0, 1]));
        assert_eq!(mirrors(vec![pair(1, 2), pair(2, 1), pair(1, 2), pair(2, 1)]), Some(vec![1, 0, 3, 2]));
        assert_eq!(mirrors(vec![pair(1, 2), pair(2, 1), pair(1, 2)]), None);
        assert_eq!(mirrors(vec![pair(1, 2), pair(3, 4)]), None);
        // The answers are not exchanged, and the metric does not change its sign.
        let same_answers = PromptPair { clean: vec![7, 2], corrupted: vec![7, 1], ..pair(1, 2) };
        assert_eq!(mirrors(vec![pair(1, 2), same_answers]), None);
    }
}
