//! Corrupted versions of IOI prompts.

use std::fmt;
use std::str::FromStr;

use super::generate::{IoiError, IoiPrompt, Order};
use crate::pairs::{PromptPair, PromptPairs};
use crate::tokenizer::Tokenizer;

/// What is changed to make the corrupted prompt. Answer and wrong answer stay the clean prompt's: IO and S.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corruption {
    /// The repeated name becomes IO's, so that the answer turns round. The demo's corruption; the Pythia notebook calls
    /// this one "ABC", which it is not.
    S2ToIo,
    /// The subject's first mention becomes another name, so that none repeats.
    S1ToOther,
    /// The indirect object becomes another name, so that the answer is not in the prompt.
    IoToOther,
    /// All three names are others, and none repeats.
    Abc,
}

impl Corruption {
    /// The corrupted prompt's text.
    #[must_use]
    pub fn text(self, prompt: &IoiPrompt) -> String {
        let IoiPrompt { io, subject, others: [a, b, c], .. } = *prompt;
        let (io, s1, s2) = match self {
            Corruption::S2ToIo => (io, subject, io),
            Corruption::S1ToOther => (io, a, subject),
            Corruption::IoToOther => (a, subject, subject),
            Corruption::Abc => (a, b, c),
        };
        prompt.text_with(match prompt.order {
            Order::Abba => [io, s1, s2],
            Order::Baba => [s1, io, s2],
        })
    }

    /// Pairs of the prompts with their corruptions, `bos` in front of each prompt if the model has one.
    ///
    /// # Errors
    /// [`IoiError`] where a name is not one token.
    pub fn pairs(
        self,
        prompts: &[IoiPrompt],
        tokenizer: &Tokenizer,
        bos: Option<u32>,
    ) -> Result<PromptPairs, IoiError> {
        let encode = |text: &str| tokenizer.encode_prompt(text, bos);
        let pairs = prompts.iter().map(|prompt| {
            Ok(PromptPair {
                clean: encode(&prompt.text())?,
                corrupted: encode(&self.text(prompt))?,
                answers: vec![tokenizer.single_token(&format!(" {}", prompt.io))?],
                wrong_answers: vec![tokenizer.single_token(&format!(" {}", prompt.subject))?],
            })
        });
        let pairs = PromptPairs::new(pairs.collect::<Result<_, IoiError>>()?)?;
        Ok(pairs.with_token_labels(|token| tokenizer.decode(&[token])))
    }
}

/// The corruptions by the names that commands give them.
const NAMES: [(Corruption, &str); 4] = [
    (Corruption::S2ToIo, "s2-io"),
    (Corruption::S1ToOther, "s1-other"),
    (Corruption::IoToOther, "io-other"),
    (Corruption::Abc, "abc"),
];

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[*self as usize].1)
    }
}

impl FromStr for Corruption {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(_, n)| *n == name).map(|(corruption, _)| *corruption);
        found.ok_or_else(|| format!("`{name}` is no corruption; there are {}", NAMES.map(|(_, n)| n).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_corruption_changes_what_it_says() {
        let prompt = IoiPrompt {
            template: 0,
            order: Order::Baba,
            io: "Mary",
            subject: "John",
            place: "shops",
            object: "the bag",
            others: ["Tom", "Dan", "Amy"],
        };
        let text = |corruption: Corruption| corruption.text(&prompt);
        assert_eq!(prompt.text(), "When John and Mary went to the shops, John gave the bag to");
        assert_eq!(text(Corruption::S2ToIo), "When John and Mary went to the shops, Mary gave the bag to");
        assert_eq!(text(Corruption::S1ToOther), "When Tom and Mary went to the shops, John gave the bag to");
        assert_eq!(text(Corruption::IoToOther), "When John and Tom went to the shops, John gave the bag to");
        assert_eq!(text(Corruption::Abc), "When Dan and Tom went to the shops, Amy gave the bag to");
        for (corruption, name) in NAMES {
            assert_eq!((name.parse(), corruption.to_string().as_str()), (Ok(corruption), name));
        }
    }
}
