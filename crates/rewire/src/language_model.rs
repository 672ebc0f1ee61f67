//! A model with its tokenizer.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, Hook, Recorder};
use rewire_model::{LoadWarning, Run, Transformer, TransformerConfig};
use rewire_tasks::{PairsSource, PromptPair, PromptPairs, Tokenizer, read_pairs};

use crate::error::Error;
use crate::input::Input;

/// A transformer with its tokenizer.
#[derive(Debug, Clone)]
pub struct LanguageModel<B: Backend> {
    name: String,
    transformer: Transformer<B>,
    tokenizer: Option<Tokenizer>,
    warnings: Vec<LoadWarning>,
}

/// Two prompts as text, with a right and a wrong answer. Both prompts must have the same number of
/// tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The prompt on which the model shows the behavior.
    pub clean: &'a str,
    /// The prompt on which the model does not show the behavior.
    pub corrupted: &'a str,
    /// The right next token of the clean prompt, with its leading space.
    pub answer: &'a str,
    /// The wrong next token of the clean prompt, with its leading space.
    pub wrong_answer: &'a str,
}

impl<B: Backend> LanguageModel<B> {
    /// Makes a language model from parts. [`Pretrained`](crate::Pretrained) makes one from files.
    #[must_use]
    pub fn new(name: String, transformer: Transformer<B>, tokenizer: Option<Tokenizer>) -> Self {
        Self { name, transformer, tokenizer, warnings: Vec::new() }
    }

    /// Adds warnings about the files that the model was loaded from.
    pub(crate) fn with_warnings(self, warnings: Vec<LoadWarning>) -> Self {
        Self { warnings, ..self }
    }

    /// Returns what is doubtful about the files that the model was loaded from.
    #[must_use]
    pub fn warnings(&self) -> &[LoadWarning] {
        &self.warnings
    }

    /// Returns the model's name, or its directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the transformer. It gives access to the weights, and to runs that start or stop at a
    /// layer.
    #[must_use]
    pub fn transformer(&self) -> &Transformer<B> {
        &self.transformer
    }

    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &TransformerConfig {
        self.transformer.config()
    }

    /// Returns the tokenizer.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if the model has no tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { model: self.name.clone() })
    }

    /// Returns the token that the model's prompts begin with, if it has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.config().bos_token
    }

    /// Returns the token ids of a prompt. Text is tokenized, with the model's BOS token in front.
    /// Token ids stay unchanged.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] for text if the model has no tokenizer, and [`Error::Tokenizer`] for
    /// text that cannot be tokenized.
    pub fn encode(&self, input: impl Into<Input>) -> Result<Vec<u32>, Error> {
        match input.into() {
            Input::Tokens(tokens) => Ok(tokens),
            Input::Text(text) => Ok(self.tokenizer()?.encode_prompt(&text, self.bos())?),
        }
    }

    /// Returns the text of token ids.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if the model has no tokenizer.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        Ok(self.tokenizer()?.decode(tokens))
    }

    /// Runs the model on a prompt and returns its logits, `[1, pos, d_vocab]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`Error::Model`] if a token id is outside the vocabulary or
    /// the prompt is longer than the context.
    pub fn run(&self, input: impl Into<Input>) -> Result<Tensor<B, 3>, Error> {
        self.run_with(input, ())
    }

    /// Runs the model on a prompt with a hook and returns its logits, `[1, pos, d_vocab]`.
    ///
    /// The hook is a recorder, a patch, an [`edit`](rewire_hooks::edit), or a tuple of hooks. Pass
    /// `&mut hook` to read it after the run.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(&self, input: impl Into<Input>, hook: impl Hook<B>) -> Result<Tensor<B, 3>, Error> {
        let tokens = self.transformer.tokens(&[self.encode(input)?])?;
        Ok(self.transformer.forward(Run::tokens(tokens), hook)?)
    }

    /// Runs the model on a prompt and keeps every activation. Returns the logits,
    /// `[1, pos, d_vocab]`, and the cache.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with_cache(&self, input: impl Into<Input>) -> Result<(Tensor<B, 3>, ActivationCache<B>), Error> {
        let mut recorder = Recorder::all();
        let logits = self.run_with(input, &mut recorder)?;
        Ok((logits, recorder.into_cache()))
    }

    /// Returns the likeliest continuation of a prompt (greedy decoding), `new_tokens` tokens long,
    /// as text.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn generate(&self, input: impl Into<Input>, new_tokens: usize) -> Result<String, Error> {
        let continued = self.transformer.generate(&[self.encode(input)?], new_tokens, ())?;
        self.decode(&continued[0])
    }

    /// Makes prompt pairs from text. Both prompts of a pair must have the same number of tokens,
    /// and each answer must be one token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an answer of several tokens, and [`Error::Pairs`] for prompts of
    /// different lengths.
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
        let source = PairsSource::new(self.tokenizer.as_ref(), self.bos(), d_vocab, n_ctx);
        Ok(read_pairs(path.as_ref(), &source)?.pairs)
    }
}
