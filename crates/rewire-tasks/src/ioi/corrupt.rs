//! Corrupted versions of IOI prompts.

use std::fmt;
use std::str::FromStr;

use rewire_input::did_you_mean;

use super::generate::{IoiError, IoiPrompt, Order};
use crate::pairs::{PromptPair, PromptPairs};
use crate::tokenizer::Tokenizer;

/// The change that makes the corrupted prompt. The answers stay those of the clean prompt: IO is
/// right and S is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corruption {
    /// The repeated name becomes IO's, which exchanges the right and the wrong answer. The demo
    /// uses this corruption. The Pythia notebook calls it "ABC", but it is not [`Corruption::Abc`].
    S2ToIo,
    /// The subject's first mention becomes another name, and no name repeats.
    S1ToOther,
    /// The indirect object becomes another name, and the answer is not in the prompt.
    IoToOther,
    /// All three names become other names, and no name repeats.
    Abc,
}

impl Corruption {
    /// Returns the text of the corrupted prompt.
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

    /// Returns pairs of the prompts and their corruptions, with `bos` in front of each prompt if it
    /// is given.
    ///
    /// # Errors
    /// [`IoiError`] if a name is not one token.
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

/// The corruptions and their names in commands.
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
        let names = NAMES.map(|(_, name)| name);
        found.ok_or_else(|| {
            format!("`{name}` is not a corruption; use one of {}{}", names.join(", "), did_you_mean(name, names))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_corruption_replaces_the_named_word() {
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
        assert!("s2io".parse::<Corruption>().unwrap_err().ends_with("did you mean `s2-io`?"));
    }
}
