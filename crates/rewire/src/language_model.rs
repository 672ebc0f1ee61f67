//! A model with its tokenizer.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, Hook, Recorder};
use rewire_model::{Run, Transformer, TransformerConfig};
use rewire_tasks::{AnswerTokens, Choices, PairsSource, PromptPair, PromptPairs, Tokenizer, read_pairs};

use crate::error::Error;
use crate::input::Input;

/// A transformer and the tokenizer that goes with it.
#[derive(Debug, Clone)]
pub struct LanguageModel<B: Backend> {
    name: String,
    transformer: Transformer<B>,
    tokenizer: Option<Tokenizer>,
}

/// Two prompts as text, of equally many tokens, and what tells right from wrong after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The prompt on which the model behaves.
    pub clean: &'a str,
    /// The prompt on which it does not.
    pub corrupted: &'a str,
    /// The right next token of the clean prompt, with the space in front that belongs to it.
    pub answer: &'a str,
    /// The wrong one.
    pub wrong_answer: &'a str,
}

impl<B: Backend> LanguageModel<B> {
    /// A model that was made in another way than by [`Pretrained`](crate::Pretrained).
    #[must_use]
    pub fn new(name: String, transformer: Transformer<B>, tokenizer: Option<Tokenizer>) -> Self {
        Self { name, transformer, tokenizer }
    }

    /// The model's name, or its directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model itself: its weights, and runs that start or end elsewhere.
    #[must_use]
    pub fn transformer(&self) -> &Transformer<B> {
        &self.transformer
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &TransformerConfig {
        self.transformer.config()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] for a model that came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { model: self.name.clone() })
    }

    /// The token that the model's prompts begin with, if it has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.config().bos_token
    }

    /// The token ids of a prompt. Text is tokenized, with the model's BOS in front; ids stay as they
    /// are.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], and [`Error::Tokenizer`] for text that cannot be tokenized.
    pub fn encode(&self, input: impl Into<Input>) -> Result<Vec<u32>, Error> {
        match input.into() {
            Input::Tokens(tokens) => Ok(tokens),
            Input::Text(text) => Ok(self.tokenizer()?.encode_prompt(&text, self.bos())?),
        }
    }

    /// The text of token ids.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.tokenizer()?.decode(tokens))
    }

    /// Runs the model on a prompt: its logits, `[1, pos, d_vocab]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`Error::Model`] for ids outside the vocabulary, or more of
    /// them than the context has.
    pub fn run(&self, input: impl Into<Input>) -> Result<Tensor<B, 3>, Error> {
        self.run_with(input, ())
    }

    /// The same with a hook: a recorder, a patch, an [`edit`](rewire_hooks::edit), or a tuple of
    /// them. Pass `&mut hook` to read it afterwards.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(&self, input: impl Into<Input>, hook: impl Hook<B>) -> Result<Tensor<B, 3>, Error> {
        let tokens = self.transformer.tokens(&[self.encode(input)?])?;
        Ok(self.transformer.forward(Run::tokens(tokens), hook)?)
    }

    /// Runs the model on a prompt and keeps every activation: the logits, `[1, pos, d_vocab]`, and
    /// the cache.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with_cache(&self, input: impl Into<Input>) -> Result<(Tensor<B, 3>, ActivationCache<B>), Error> {
        let mut recorder = Recorder::all();
        let logits = self.run_with(input, &mut recorder)?;
        Ok((logits, recorder.into_cache()))
    }

    /// The likeliest continuation of a prompt, `new_tokens` tokens long, as text.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn generate(&self, input: impl Into<Input>, new_tokens: usize) -> Result<String, Error> {
        let continued = self.transformer.generate(&[self.encode(input)?], new_tokens, ())?;
        self.decode(&continued[0])
    }

    /// Prompt pairs from text, checked: both prompts of a pair must have equally many tokens, and
    /// each answer must be one token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an answer of several tokens, [`Error::Pairs`] for prompts of different
    /// lengths.
    pub fn pairs<'a>(&self, pairs: impl IntoIterator<Item = Pair<'a>>) -> Result<PromptPairs, Error> {
        let tokenizer = self.tokenizer()?;
        let pair = |pair: Pair<'a>| -> Result<PromptPair, Error> {
            Ok(PromptPair {
                clean: self.encode(pair.clean)?,
                corrupted: self.encode(pair.corrupted)?,
                answers: vec![tokenizer.single_token(pair.answer)?],
                wrong_answers: vec![tokenizer.single_token(pair.wrong_answer)?],
            })
        };
        let pairs = PromptPairs::new(pairs.into_iter().map(pair).collect::<Result<_, Error>>()?)?;
        pairs.check_model(self.config().d_vocab, self.config().n_ctx)?;
        Ok(pairs.with_token_labels(|token| tokenizer.decode(&[token])))
    }

    /// Reads prompt pairs from a file in any [`Format`](rewire_tasks::Format): JSON Lines with
    /// `clean`, `corrupt`, `answers` and `wrong_answers`, or another project's file.
    ///
    /// # Errors
    /// [`Error::PairsFile`], naming the file and the line.
    pub fn read_pairs(&self, path: impl AsRef<std::path::Path>) -> Result<PromptPairs, Error> {
        let TransformerConfig { d_vocab, n_ctx, .. } = *self.config();
        let source = PairsSource {
            tokenizer: self.tokenizer.as_ref(),
            bos: self.bos(),
            d_vocab,
            n_ctx,
            answers: AnswerTokens::Single,
            choices: Choices::default(),
        };
        Ok(read_pairs(path.as_ref(), &source)?.pairs)
    }
}
