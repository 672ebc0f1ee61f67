//! Fuzzes the reader of `vocab.json` and `merges.txt`, and tokenization with it.
#![no_main]

use libfuzzer_sys::fuzz_target;

// libFuzzer's hook aborts at every panic. Without it, only a panic that leaves the reader aborts:
// the reader turns panics of the tokenizers library into errors.
fuzz_target!(
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| rewire_tests::fuzzed::vocabulary(bytes)
);
