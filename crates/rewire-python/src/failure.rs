//! The failure of a call from Python, which becomes an exception with the words of the Rust error.

use std::error::Error;

use pyo3::PyErr;
use pyo3::import_exception;
use rewire::Error as RewireError;
use rewire_studies::StudyError;

import_exception!(rewire._errors, AnalysisError);
import_exception!(rewire._errors, ArgumentError);
import_exception!(rewire._errors, HookError);
import_exception!(rewire._errors, InternalError);
import_exception!(rewire._errors, ModelError);
import_exception!(rewire._errors, PairsError);
import_exception!(rewire._errors, ReportError);
import_exception!(rewire._errors, TokenizerError);

/// Why a call from Python failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the crate `rewire`.
    Rewire(Box<RewireError>),
    /// An argument has no meaning.
    Argument(String),
    /// A hook point is unknown, or a hook returned something that does not fit.
    Hook(String),
    /// Pairs that were given in Python were refused. The message names no file.
    Pairs(String),
    /// An analysis that several steps make up was refused, or failed.
    Analysis(String),
    /// A fault in rewire.
    Internal(String),
    /// A Python function, such as a hook or a metric, raised an exception.
    Python(PyErr),
}

impl<E: Into<RewireError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Rewire(Box::new(error.into()))
    }
}

impl Failure {
    /// Returns the failure of an argument that was parsed from text.
    pub(crate) fn argument(error: impl ToString) -> Self {
        Failure::Argument(error.to_string())
    }

    /// Returns the failure of a study.
    pub(crate) fn of_study(error: StudyError) -> Self {
        match error {
            StudyError::Analysis(error) => error.into(),
            StudyError::Model(error) => error.into(),
            StudyError::Tokenizer(error) => error.into(),
            StudyError::Pairs(error) => error.into(),
            other => Failure::Analysis(in_words(&other)),
        }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rewire(error) => {
                let words = in_words(&*error);
                match *error {
                    RewireError::Model(_) => ModelError::new_err(words),
                    RewireError::Tokenizer(_) | RewireError::NoTokenizer { .. } => TokenizerError::new_err(words),
                    RewireError::Pairs(_) | RewireError::PairsFile(_) => PairsError::new_err(words),
                    RewireError::Cache(_) | RewireError::Patch(_) => HookError::new_err(words),
                    RewireError::Report(_) => ReportError::new_err(words),
                    _ => AnalysisError::new_err(words),
                }
            }
            Failure::Argument(words) => ArgumentError::new_err(words),
            Failure::Analysis(words) => AnalysisError::new_err(words),
            Failure::Hook(words) => HookError::new_err(words),
            Failure::Pairs(words) => PairsError::new_err(words),
            Failure::Internal(words) => InternalError::new_err(words),
            Failure::Python(error) => error,
        }
    }
}

/// Returns an error and its causes in one line, as the command `rewire` prints them.
pub(crate) fn in_words(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !line.ends_with(&words) {
            line = format!("{line}: {words}");
        }
        cause = error.source();
    }
    line
}
