//! Where heads look, by the roles of tokens.

use ndarray::{Array2, Array5};
use rewire_tasks::ioi::Roles;

/// From one role to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    EndToIo,
    EndToS1,
    EndToS2,
    S2ToS1,
    /// The token after the subject's first mention, which an induction head looks at from its second.
    S2ToAfterS1,
    AfterS1ToS1,
}

impl Look {
    pub(super) const ALL: [Self; 6] =
        [Look::EndToIo, Look::EndToS1, Look::EndToS2, Look::S2ToS1, Look::S2ToAfterS1, Look::AfterS1ToS1];

    pub(super) fn name(self) -> &'static str {
        match self {
            Look::EndToIo => "END to IO",
            Look::EndToS1 => "END to S1",
            Look::EndToS2 => "END to S2",
            Look::S2ToS1 => "S2 to S1",
            Look::S2ToAfterS1 => "S2 to S1+1",
            Look::AfterS1ToS1 => "S1+1 to S1",
        }
    }

    fn places(self, roles: &Roles) -> (usize, usize) {
        match self {
            Look::EndToIo => (roles.end, roles.io),
            Look::EndToS1 => (roles.end, roles.s1),
            Look::EndToS2 => (roles.end, roles.s2),
            Look::S2ToS1 => (roles.s2, roles.s1),
            Look::S2ToAfterS1 => (roles.s2, roles.s1 + 1),
            Look::AfterS1ToS1 => (roles.s1 + 1, roles.s1),
        }
    }
}

/// How much each head looks from one role at another, mean over the clean prompts: one `[layer, head]` a look.
pub(super) struct Looks {
    means: Vec<Array2<f32>>,
}

impl Looks {
    /// From patterns `[prompt, layer, head, dest, src]`.
    pub(super) fn new(patterns: &Array5<f32>, roles: &[Roles]) -> Self {
        let (prompts, layers, heads, ..) = patterns.dim();
        let mean = |look: Look| {
            Array2::from_shape_fn((layers, heads), |(layer, head)| {
                let of = |(prompt, roles): (usize, &Roles)| {
                    let (dest, src) = look.places(roles);
                    patterns[[prompt, layer, head, dest, src]]
                };
                roles.iter().enumerate().map(of).sum::<f32>() / prompts as f32
            })
        };
        Self { means: Look::ALL.map(mean).to_vec() }
    }

    pub(super) fn of(&self, look: Look, (layer, head): (usize, usize)) -> f32 {
        self.means[look as usize][[layer, head]]
    }

    pub(super) fn map(&self, look: Look) -> &Array2<f32> {
        &self.means[look as usize]
    }
}
