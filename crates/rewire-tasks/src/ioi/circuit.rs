//! The published IOI circuit of GPT-2 small, as a reference list.

/// A class of heads that have one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadClass {
    /// The function of the heads.
    pub name: &'static str,
    /// The position at which the heads act.
    pub at: &'static str,
    /// Layer and head of each.
    pub heads: &'static [(usize, usize)],
}

/// The 26 heads of Wang et al. 2022, by class.
pub const GPT2_SMALL_CIRCUIT: [HeadClass; 7] = [
    HeadClass { name: "name mover", at: "END", heads: &[(9, 9), (10, 0), (9, 6)] },
    HeadClass {
        name: "backup name mover",
        at: "END",
        heads: &[(10, 10), (10, 6), (10, 2), (10, 1), (11, 2), (9, 7), (9, 0), (11, 9)],
    },
    HeadClass { name: "negative name mover", at: "END", heads: &[(10, 7), (11, 10)] },
    HeadClass { name: "S-inhibition", at: "END", heads: &[(7, 3), (7, 9), (8, 6), (8, 10)] },
    HeadClass { name: "induction", at: "S2", heads: &[(5, 5), (5, 8), (5, 9), (6, 9)] },
    HeadClass { name: "duplicate token", at: "S2", heads: &[(0, 1), (0, 10), (3, 0)] },
    HeadClass { name: "previous token", at: "S1+1", heads: &[(2, 2), (4, 11)] },
];

/// Returns the class of a head in GPT-2 small, if the head is in the published circuit.
#[must_use]
pub fn gpt2_small_class(layer: usize, head: usize) -> Option<&'static HeadClass> {
    GPT2_SMALL_CIRCUIT.iter().find(|class| class.heads.contains(&(layer, head)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_ioi_circuit_has_26_distinct_heads() {
        let all: Vec<_> = GPT2_SMALL_CIRCUIT.iter().flat_map(|class| class.heads).collect();
        assert_eq!(all.len(), 26);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 26);
        assert!(all.iter().all(|(layer, head)| *layer < 12 && *head < 12));
        assert_eq!(gpt2_small_class(11, 10).map(|class| class.name), Some("negative name mover"));
        assert_eq!(gpt2_small_class(11, 11), None);
    }
}
