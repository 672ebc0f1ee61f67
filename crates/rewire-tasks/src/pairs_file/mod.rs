//! Prompt pairs from a file: its records tokenized, checked and put together.

mod doubts;
mod error;
mod source;
mod tokens;

use std::path::Path;

use crate::formats::{Format, Place, Record, Unread, each_record};
use crate::pairs::{PairsError, PromptPair, PromptPairs};

use doubts::Doubts;
use error::MOST_PAIRS;
pub use error::{PairsFileError, PairsProblem};
pub use source::{AnswerTokens, PairsSource};
use tokens::{ReadPair, RecordReader};

/// Most problems that an error lists.
const MOST_PROBLEMS: usize = 20;

/// The prompt pairs of a file.
#[derive(Debug, Clone)]
pub struct PairsFile {
    /// The pairs.
    pub pairs: PromptPairs,
    /// The format that was recognized.
    pub format: Format,
    /// Warnings about doubtful but possible content, one line each.
    pub warnings: Vec<String>,
}

/// What is collected while the records are read.
#[derive(Default)]
struct Collected {
    pairs: Vec<PromptPair>,
    /// Number of tokens at the end of both prompts of each pair that begin its answers.
    begun: Vec<usize>,
    marks: Vec<Option<usize>>,
    places: Vec<Place>,
    problems: Vec<(Place, PairsProblem)>,
    /// Problems beyond those that are kept.
    more: usize,
    doubts: Doubts,
}

/// Reads the prompt pairs of a file for a model. The format is recognized by the content: see
/// [`Format`].
///
/// Token ids are used as they are. Text is tokenized, with [`PairsSource::bos`] in front. Blank
/// lines, a byte order mark and Windows line ends are accepted. The pairs are checked against the
/// model's vocabulary and context.
///
/// # Errors
/// [`PairsFileError`], naming the file and up to twenty places in it.
pub fn read_pairs(path: &Path, source: &PairsSource) -> Result<PairsFile, PairsFileError> {
    let reader = RecordReader { source };
    let mut collected = Collected::default();
    let n_tokens = |text: &str| {
        let tokenizer = source.tokenizer?;
        tokenizer.encode_prompt(text, source.bos).ok().map(|tokens| tokens.len())
    };
    let found = each_record(path, source.choices, &n_tokens, |place, record| collected.take(&reader, place, record))
        .map_err(|stop| stop.named(path))?;
    collected.refuse(path, found.without_partner)?;
    let mut warnings = collected.doubts.warnings();
    warnings.extend(doubts::left_out(found.without_partner));
    let (Some(format), false) = (found.format, collected.pairs.is_empty()) else {
        return Err(PairsFileError::Empty { path: path.into() });
    };
    let labels = match found.labels.filter(|_| source.tokenizer.is_some()) {
        Some(labels) => collected.position_labels(path, source, labels, &mut warnings)?,
        None => None,
    };
    let pairs = collected.put_together(path, source, labels)?;
    Ok(PairsFile { pairs, format, warnings })
}

impl Collected {
    fn take(&mut self, reader: &RecordReader, place: Place, record: Result<Record, String>) -> Result<(), Stop> {
        if self.pairs.len() == MOST_PAIRS {
            return Err(Stop::TooManyPairs(place));
        }
        // This concerns the model and not the pair: every line would repeat it.
        if let Ok(record) = &record
            && let Some(bos) = reader.bos_outside(record)
        {
            return Err(Stop::BosOutsideVocabulary { bos, d_vocab: reader.source.d_vocab });
        }
        let read = record.map_err(PairsProblem::Content).and_then(|record| {
            let ends_in_space = reader.ends_in_space(&record);
            Ok((ends_in_space, reader.pair(record)?))
        });
        match read {
            Ok((ends_in_space, ReadPair { pair, begun, mark, first_tokens })) => {
                self.doubts.first_tokens.extend(first_tokens.into_iter().map(|answer| (place, answer)));
                self.doubts.note(place, &pair, ends_in_space, reader.source.bos);
                self.pairs.push(pair);
                self.begun.push(begun);
                self.marks.push(mark);
                self.places.push(place);
            }
            Err(_) if self.problems.len() == MOST_PROBLEMS => self.more += 1,
            Err(problem) => self.problems.push((place, problem)),
        }
        Ok(())
    }

    /// Either every pair has a marked position, or none has.
    fn check_marks(&mut self) {
        if self.marks.iter().all(Option::is_none) {
            return;
        }
        for (mark, place) in self.marks.iter().zip(&self.places) {
            match mark {
                Some(_) => {}
                None if self.problems.len() == MOST_PROBLEMS => self.more += 1,
                None => self.problems.push((*place, PairsProblem::NoPosition)),
            }
        }
    }

    /// Refuses a file with problems, or with rows that make no pair.
    fn refuse(&mut self, path: &Path, without_partner: usize) -> Result<(), PairsFileError> {
        if self.problems.is_empty() {
            self.check_marks();
        }
        if !self.problems.is_empty() {
            let (problems, more) = (std::mem::take(&mut self.problems), self.more);
            return Err(PairsFileError::Problems { path: path.into(), problems, more });
        }
        if self.pairs.is_empty() && without_partner > 0 {
            let reason = doubts::no_partners(without_partner);
            return Err(PairsFileError::Content { path: path.into(), reason });
        }
        Ok(())
    }

    /// Returns the file's names of positions, if every prompt has as many tokens as there are
    /// names. Otherwise the file's positions are those of another tokenizer, and none is marked.
    fn position_labels(
        &mut self,
        path: &Path,
        source: &PairsSource,
        labels: Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Vec<String>>, PairsFileError> {
        let Some(reason) = self.other_lengths(&labels, source.bos) else { return Ok(Some(labels)) };
        if source.choices.mark.is_some() {
            let reason = format!("{reason}; its `word_idxs` mark other tokens here: give a `position` for each pair");
            return Err(PairsFileError::Content { path: path.into(), reason });
        }
        warnings.push(format!("{reason}; its `seq_labels` and `word_idxs` are not used"));
        self.marks.clear();
        Ok(None)
    }

    /// Puts the pairs together with their marks and the names of their tokens and positions.
    fn put_together(
        self,
        path: &Path,
        source: &PairsSource,
        labels: Option<Vec<String>>,
    ) -> Result<PromptPairs, PairsFileError> {
        let Self { pairs, begun, marks, places, .. } = self;
        let problem = |error: PairsError| match error.pair() {
            None => PairsFileError::Empty { path: path.into() },
            Some(pair) => {
                let problems = vec![(places[pair], PairsProblem::Pair(error))];
                PairsFileError::Problems { path: path.into(), problems, more: 0 }
            }
        };
        let pairs = match source.answers {
            AnswerTokens::Single | AnswerTokens::First => PromptPairs::new(pairs),
            AnswerTokens::Whole => PromptPairs::with_begun_answers(pairs, begun),
        };
        let mut pairs = pairs.map_err(problem)?;
        if let Some(marks) = marks.into_iter().collect::<Option<Vec<usize>>>().filter(|marks| !marks.is_empty()) {
            pairs = pairs.with_marked_positions(marks).map_err(problem)?;
        }
        if let Some(tokenizer) = source.tokenizer {
            pairs = pairs.with_token_labels(|token| tokenizer.decode(&[token]));
            if let Some(labels) = labels {
                let bos = source.bos.map(|bos| tokenizer.decode(&[bos]));
                pairs = pairs.with_position_labels(bos.into_iter().chain(labels).collect());
            }
        }
        Ok(pairs)
    }

    /// Compares the prompts with the file's names of their positions, which leave out the BOS.
    /// Returns a sentence if a prompt has more or fewer tokens.
    fn other_lengths(&self, labels: &[String], bos: Option<u32>) -> Option<String> {
        let n_tokens = |(pair, begun): (&PromptPair, &usize)| {
            pair.clean.len() - begun - usize::from(bos.is_some() && pair.clean.first().copied() == bos)
        };
        let lengths = self.pairs.iter().zip(&self.begun).map(n_tokens);
        let (place, found) = self.places.iter().zip(lengths).find(|(_, found)| *found != labels.len())?;
        Some(format!(
            "the file was made for another tokenizer: it names {} positions, and the prompt of {place} has {found} tokens",
            labels.len()
        ))
    }
}

/// Why reading stops at once.
enum Stop {
    Unread(Unread),
    TooManyPairs(Place),
    BosOutsideVocabulary { bos: u32, d_vocab: usize },
}

impl From<Unread> for Stop {
    fn from(unread: Unread) -> Self {
        Stop::Unread(unread)
    }
}

impl Stop {
    fn named(self, path: &Path) -> PairsFileError {
        let path = path.into();
        match self {
            Stop::Unread(Unread::Io(source)) => PairsFileError::Read { path, source },
            Stop::Unread(Unread::LineTooLong(line)) => PairsFileError::LineTooLong { path, line },
            Stop::Unread(Unread::NotUtf8 { line, column }) => PairsFileError::NotUtf8 { path, line, column },
            Stop::Unread(Unread::Whole(reason)) => PairsFileError::Content { path, reason },
            Stop::BosOutsideVocabulary { bos, d_vocab } => PairsFileError::BosOutsideVocabulary { path, bos, d_vocab },
            Stop::TooManyPairs(place) => PairsFileError::TooManyPairs { path, place },
        }
    }
}
