//! Seeded IOI prompts.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::demo::demo_prompts;
use super::pools::{NAMES, OBJECTS, PLACES, TEMPLATES};

/// Which of the two names comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// IO first: "When Mary and John went to the shops, John gave the bag to".
    Abba,
    /// S first: "When John and Mary went to the shops, John gave the bag to".
    Baba,
}

/// The subset of prompts to draw from. A tenth of the name pairs (including the demo's) and a tenth
/// of the combinations of template, place and object are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// All prompts.
    All,
    /// Prompts of which neither the names nor the combination is held out.
    Training,
    /// Prompts of which both the names and the combination are held out.
    HeldOut,
}

/// One IOI prompt, by its parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IoiPrompt {
    /// Index into [`TEMPLATES`].
    pub template: usize,
    /// Which name comes first.
    pub order: Order,
    /// The indirect object's name: the answer.
    pub io: &'static str,
    /// The subject's name, which occurs twice.
    pub subject: &'static str,
    /// The place.
    pub place: &'static str,
    /// The object, with its article.
    pub object: &'static str,
    /// Three further names, for corruptions.
    pub others: [&'static str; 3],
}

/// Token positions of the prompt's roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// The indirect object.
    pub io: usize,
    /// The first mention of the subject.
    pub s1: usize,
    /// The second mention of the subject.
    pub s2: usize,
    /// The last token.
    pub end: usize,
}

/// Why IOI prompts cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IoiError {
    /// Fewer than five names, which corruptions need.
    #[error("only {found} of the {of} names are single tokens of this tokenizer; IOI prompts need 5", of = NAMES.len())]
    TooFewNames {
        /// Number of names that are single tokens.
        found: usize,
    },
    /// Text that the tokenizer refuses, or a name that is not one token.
    #[error(transparent)]
    Tokenizer(#[from] crate::TokenizerError),
    /// The resulting pairs cannot be patched.
    #[error(transparent)]
    Pairs(#[from] crate::PairsError),
    /// A role is not among the tokens.
    #[error(
        "{} does not hold the names {io:?} once and {subject:?} twice as single tokens",
        rewire_input::quoted(text)
    )]
    Roles {
        /// The prompt.
        text: String,
        /// The indirect object.
        io: &'static str,
        /// The subject.
        subject: &'static str,
    },
}

/// Draws IOI prompts.
#[derive(Debug, Clone)]
pub struct IoiGenerator {
    names: Vec<&'static str>,
}

impl IoiGenerator {
    /// Creates a generator with the names that are single tokens of this tokenizer after a space.
    ///
    /// # Errors
    /// [`IoiError::TooFewNames`].
    pub fn new(tokenizer: &crate::Tokenizer) -> Result<Self, IoiError> {
        let single = |name: &&&str| tokenizer.single_token(&format!(" {name}")).is_ok();
        Self::with_names(NAMES.iter().filter(single).copied().collect())
    }

    /// Creates a generator with all names, including names that a tokenizer splits.
    #[must_use]
    pub fn all_names() -> Self {
        Self { names: NAMES.to_vec() }
    }

    /// Returns the names of the prompts.
    #[must_use]
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    fn with_names(names: Vec<&'static str>) -> Result<Self, IoiError> {
        match names.len() {
            found @ 0..5 => Err(IoiError::TooFewNames { found }),
            _ => Ok(Self { names }),
        }
    }

    /// Draws `n` prompts of a split. The same seed gives the same prompts on every machine. A
    /// longer draw begins with the prompts of a shorter one.
    #[must_use]
    pub fn sample(&self, n: usize, seed: u64, split: Split) -> Vec<IoiPrompt> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut prompts = Vec::new();
        while prompts.len() < n {
            let prompt = self.draw(&mut rng);
            if prompt.is_in(split) {
                prompts.push(prompt);
            }
        }
        prompts
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> IoiPrompt {
        let mut names = BTreeSet::new();
        let mut drawn = [""; 5];
        for name in &mut drawn {
            *name = loop {
                let candidate = self.names[below(rng, self.names.len())];
                if names.insert(candidate) {
                    break candidate;
                }
            };
        }
        let [io, subject, others @ ..] = drawn;
        IoiPrompt {
            template: below(rng, TEMPLATES.len()),
            order: if below(rng, 2) == 0 { Order::Abba } else { Order::Baba },
            io,
            subject,
            place: PLACES[below(rng, PLACES.len())],
            object: OBJECTS[below(rng, OBJECTS.len())],
            others,
        }
    }
}

/// Returns a number below `bound`, by fixed-point multiplication. The number is the same in all
/// versions of all random-number libraries.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

impl IoiPrompt {
    /// Returns the prompt's text.
    #[must_use]
    pub fn text(&self) -> String {
        let (first, second) = match self.order {
            Order::Abba => (self.io, self.subject),
            Order::Baba => (self.subject, self.io),
        };
        self.text_with([first, second, self.subject])
    }

    /// Returns the text with these names in place of the first, the second and the repeated name.
    #[must_use]
    pub(super) fn text_with(&self, [first, second, repeated]: [&str; 3]) -> String {
        TEMPLATES[self.template]
            .replace("{FIRST}", first)
            .replace("{SECOND}", second)
            .replace("{S}", repeated)
            .replace("{PLACE}", self.place)
            .replace("{OBJECT}", self.object)
    }

    /// Returns the positions of the names among the prompt's tokens: `bos_len` tokens, then the
    /// tokens of its text.
    ///
    /// # Errors
    /// [`IoiError::Roles`] if the tokens do not hold IO once and S twice as single tokens.
    pub fn roles(&self, tokenizer: &crate::Tokenizer, bos_len: usize) -> Result<Roles, IoiError> {
        let text = self.text();
        let tokens = tokenizer.encode(&text)?;
        let find = |name: &str| -> Result<Vec<usize>, IoiError> {
            let id = tokenizer.single_token(&format!(" {name}"))?;
            Ok((0..tokens.len()).filter(|&i| tokens[i] == id).map(|i| i + bos_len).collect())
        };
        match (find(self.io)?.as_slice(), find(self.subject)?.as_slice()) {
            (&[io], &[s1, s2]) => Ok(Roles { io, s1, s2, end: tokens.len() - 1 + bos_len }),
            _ => Err(IoiError::Roles { text, io: self.io, subject: self.subject }),
        }
    }

    fn is_in(&self, split: Split) -> bool {
        match split {
            Split::All => true,
            Split::Training => !self.has_held_out_names() && !self.has_held_out_frame(),
            Split::HeldOut => self.has_held_out_names() && self.has_held_out_frame(),
        }
    }

    fn has_held_out_names(&self) -> bool {
        let mut names = [self.io, self.subject];
        names.sort_unstable();
        let in_demo = demo_prompts().iter().any(|(_, [a, b])| names.contains(a) && names.contains(b));
        in_demo || fnv1a(&names.join("+")).is_multiple_of(10)
    }

    fn has_held_out_frame(&self) -> bool {
        fnv1a(&format!("{}+{}+{}", self.template, self.place, self.object)).is_multiple_of(10)
    }
}

/// Returns the 32-bit FNV-1a hash. It decides which prompts are held out and must never change.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_prompts_depend_only_on_the_seed() {
        let texts: Vec<_> = IoiGenerator::all_names().sample(2, 7, Split::All).iter().map(IoiPrompt::text).collect();
        assert_eq!(texts, FIRST_OF_SEED_7);
        let longer = IoiGenerator::all_names().sample(50, 7, Split::All);
        assert_eq!(longer[..20], IoiGenerator::all_names().sample(20, 7, Split::All));
    }

    const FIRST_OF_SEED_7: [&str; 2] = [
        "Because Joshua and Daniel liked the garden, Daniel brought the bag to",
        "While Bryan and Rebecca were at the store, Bryan handed an apple to",
    ];

    #[test]
    fn training_prompts_exclude_held_out_ones() {
        let generator = IoiGenerator::all_names();
        let names = |p: &IoiPrompt| BTreeSet::from([p.io, p.subject]);
        let frame = |p: &IoiPrompt| (p.template, p.place, p.object);
        let training = generator.sample(20_000, 0, Split::Training);
        let seen_names: BTreeSet<_> = training.iter().map(names).collect();
        let seen_frames: BTreeSet<_> = training.iter().map(frame).collect();
        for prompt in generator.sample(1000, 1, Split::HeldOut) {
            assert!(!seen_names.contains(&names(&prompt)) && !seen_frames.contains(&frame(&prompt)), "{prompt:?}");
        }
        for (_, [a, b]) in demo_prompts() {
            assert!(!seen_names.contains(&BTreeSet::from([a, b])), "{a} and {b} were trained on");
        }
    }

    #[test]
    fn every_prompt_names_the_subject_twice_and_the_indirect_object_once() {
        for prompt in IoiGenerator::all_names().sample(500, 3, Split::All) {
            let text = prompt.text();
            let count = |name| text.split(|c: char| !c.is_alphabetic()).filter(|word| *word == name).count();
            assert_eq!([count(prompt.subject), count(prompt.io)], [2, 1], "{text}");
            assert!(!text.contains('{'), "{text}");
        }
    }
}
