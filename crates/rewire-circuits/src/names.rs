//! Attention of heads between any two positions, and between the names of indirect object
//! identification (IOI).

use ndarray::{Array2, Array5};
use rewire_hooks::Head;
use rewire_tasks::ioi::Roles;

/// A pair of positions in an IOI prompt: the destination and the source of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionProbe {
    /// From END to the indirect object (IO).
    EndToIo,
    /// From END to the subject (S1).
    EndToS1,
    /// From END to the second mention of the subject (S2).
    EndToS2,
    /// From the second mention of the subject (S2) to the first (S1).
    S2ToS1,
    /// From S2 to the token after S1, to which induction heads attend.
    S2ToAfterS1,
    /// From the token after S1 to S1.
    AfterS1ToS1,
}

impl AttentionProbe {
    /// All probes.
    pub const ALL: [Self; 6] = [
        AttentionProbe::EndToIo,
        AttentionProbe::EndToS1,
        AttentionProbe::EndToS2,
        AttentionProbe::S2ToS1,
        AttentionProbe::S2ToAfterS1,
        AttentionProbe::AfterS1ToS1,
    ];

    /// Returns the probe's name, for example `END to IO`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AttentionProbe::EndToIo => "END to IO",
            AttentionProbe::EndToS1 => "END to S1",
            AttentionProbe::EndToS2 => "END to S2",
            AttentionProbe::S2ToS1 => "S2 to S1",
            AttentionProbe::S2ToAfterS1 => "S2 to S1+1",
            AttentionProbe::AfterS1ToS1 => "S1+1 to S1",
        }
    }

    fn places(self, roles: &Roles) -> (usize, usize) {
        match self {
            AttentionProbe::EndToIo => (roles.end, roles.io),
            AttentionProbe::EndToS1 => (roles.end, roles.s1),
            AttentionProbe::EndToS2 => (roles.end, roles.s2),
            AttentionProbe::S2ToS1 => (roles.s2, roles.s1),
            AttentionProbe::S2ToAfterS1 => (roles.s2, roles.s1 + 1),
            AttentionProbe::AfterS1ToS1 => (roles.s1 + 1, roles.s1),
        }
    }
}

/// Returns each head's attention from one position to another, `[layer, head]`, as a mean over
/// prompts. `patterns` are `[prompt, layer, head, dest, src]`; `positions` has one destination and
/// one source per prompt.
///
/// # Panics
/// If a position lies outside the patterns.
#[must_use]
pub fn mean_attention(patterns: &Array5<f32>, positions: &[(usize, usize)]) -> Array2<f32> {
    let (prompts, layers, heads, ..) = patterns.dim();
    Array2::from_shape_fn((layers, heads), |(layer, head)| {
        let of = |(prompt, &(dest, src)): (usize, &(usize, usize))| patterns[[prompt, layer, head, dest, src]];
        positions.iter().enumerate().map(of).sum::<f32>() / prompts as f32
    })
}

/// Each head's attention between the names of IOI prompts, as a mean over prompts: a map
/// `[layer, head]` for each [`AttentionProbe`].
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionProfile {
    means: Vec<Array2<f32>>,
}

impl AttentionProfile {
    /// Computes the profile from patterns `[prompt, layer, head, dest, src]` and the name positions
    /// of each prompt.
    ///
    /// # Panics
    /// If a name lies outside the patterns.
    #[must_use]
    pub fn new(patterns: &Array5<f32>, roles: &[Roles]) -> Self {
        let mean = |look: AttentionProbe| {
            let positions: Vec<_> = roles.iter().map(|roles| look.places(roles)).collect();
            mean_attention(patterns, &positions)
        };
        Self { means: AttentionProbe::ALL.map(mean).to_vec() }
    }

    /// Returns one head's attention.
    ///
    /// # Panics
    /// If there is no such head.
    #[must_use]
    pub fn of(&self, look: AttentionProbe, head: Head) -> f32 {
        self.means[look as usize][[head.layer, head.head]]
    }

    /// Returns all heads' attention, `[layer, head]`.
    #[must_use]
    pub fn map(&self, look: AttentionProbe) -> &Array2<f32> {
        &self.means[look as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_attention_uses_each_prompts_own_positions() {
        let pattern = |(prompt, _, head, dest, src): (usize, usize, usize, usize, usize)| {
            (100 * prompt + 50 * head + 10 * dest + src) as f32
        };
        let patterns = Array5::from_shape_fn((2, 1, 2, 3, 3), pattern);
        let found = mean_attention(&patterns, &[(2, 0), (1, 1)]);
        assert_eq!(found, ndarray::arr2(&[[(20.0 + 111.0) / 2.0, (70.0 + 161.0) / 2.0]]));
    }
}
