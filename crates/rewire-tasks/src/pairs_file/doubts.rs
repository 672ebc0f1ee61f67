//! Warnings about prompt pairs that can be used and are probably not what was meant.

use crate::formats::Place;
use crate::pairs::PromptPair;

/// The places of doubtful pairs, by the kind of doubt.
#[derive(Default)]
pub(super) struct Doubts {
    /// Answers of several tokens whose first token stands for them.
    pub(super) first_tokens: Vec<(Place, String)>,
    ends_in_space: Vec<Place>,
    begins_twice: Vec<Place>,
    equal: Vec<Place>,
}

impl Doubts {
    /// Notes what is doubtful about a pair. `bos` is the token in front of text.
    pub(super) fn note(&mut self, place: Place, pair: &PromptPair, ends_in_space: bool, bos: Option<u32>) {
        if ends_in_space {
            self.ends_in_space.push(place);
        }
        let twice = bos.map(|bos| [bos, bos]);
        if twice.is_some_and(|twice| pair.clean.starts_with(&twice) || pair.corrupted.starts_with(&twice)) {
            self.begins_twice.push(place);
        }
        if pair.clean == pair.corrupted {
            self.equal.push(place);
        }
    }

    /// Returns the warnings, one line for each kind of doubt.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some((place, answer)) = self.first_tokens.first() {
            warnings.push(format!(
                "{}; the first token stands for the whole answer; the first such answer is {} ({place})",
                counted(self.first_tokens.len(), "answer has several tokens", "answers have several tokens"),
                rewire_input::quoted(answer)
            ));
        }
        let mut warn = |places: &[Place], one: &str, several: &str, what: &str| {
            if let Some(place) = places.first() {
                warnings.push(format!("{}{what}; the first is {place}", counted(places.len(), one, several)));
            }
        };
        warn(
            &self.ends_in_space,
            "prompt ends",
            "prompts end",
            " in a space, tab or line break, and the answers start with a space, which models rarely continue well",
        );
        warn(
            &self.begins_twice,
            "prompt begins",
            "prompts begin",
            " with two BOS tokens, which models rarely see and which moves every position by one; remove one",
        );
        warn(
            &self.equal,
            "pair has",
            "pairs have",
            " a corrupted prompt that equals the clean one: patching changes nothing there",
        );
        warnings
    }
}

fn counted(number: usize, one: &str, several: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {several}") }
}

/// Returns the sentence for a file of BLiMP in which no row makes a pair.
pub(super) fn no_partners(rows: usize) -> String {
    let rows = if rows == 1 {
        "its only row makes no pair".to_owned()
    } else {
        format!("none of its {rows} rows makes a pair")
    };
    format!("{rows}: a pair needs two rows with each other's words as right and wrong and with as many tokens")
}

/// Returns the warning about rows of BLiMP that no other row makes a pair with.
pub(super) fn left_out(rows: usize) -> Option<String> {
    let rows = (rows > 0).then(|| counted(rows, "row is", "rows are"))?;
    Some(format!("{rows} left out: no other row has its wrong word as the right one and as many tokens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(clean: &[u32], corrupted: &[u32]) -> PromptPair {
        PromptPair { clean: clean.to_vec(), corrupted: corrupted.to_vec(), answers: vec![8], wrong_answers: vec![9] }
    }

    #[test]
    fn two_bos_and_equal_prompts_are_warned_of_with_the_first_place() {
        let mut doubts = Doubts::default();
        doubts.note(Place::Line(1), &pair(&[0, 1], &[0, 2]), false, Some(0));
        doubts.note(Place::Line(2), &pair(&[0, 0, 1], &[0, 0, 2]), false, Some(0));
        doubts.note(Place::Line(3), &pair(&[0, 3, 1], &[0, 0, 1]), false, Some(0));
        doubts.note(Place::Line(4), &pair(&[0, 1], &[0, 1]), false, Some(0));
        let warnings = doubts.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("2 prompts begin with two BOS tokens"), "{warnings:?}");
        assert!(warnings[0].ends_with("the first is line 2"), "{warnings:?}");
        assert!(warnings[1].starts_with("1 pair has a corrupted prompt that equals the clean one"), "{warnings:?}");
        // Without a BOS, no token is one.
        let mut doubts = Doubts::default();
        doubts.note(Place::Line(1), &pair(&[0, 0, 1], &[0, 0, 2]), false, None);
        assert_eq!(doubts.warnings(), Vec::<String>::new());
    }
}
