//! Fuzzes the reader of `tokenizer.json`, and tokenization with it.
#![no_main]

use libfuzzer_sys::fuzz_target;

// libFuzzer's hook aborts at every panic. Without it, only a panic that leaves the reader aborts:
// the reader turns panics of the tokenizers library into errors.
fuzz_target!(
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| rewire_tests::fuzzed::tokenizer(bytes)
);
