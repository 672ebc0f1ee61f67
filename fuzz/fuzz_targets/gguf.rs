//! Fuzzes the reader of GGUF files, the loader of their weights, and tokenization with them.
#![no_main]

use libfuzzer_sys::fuzz_target;

// libFuzzer's hook aborts at every panic. Without it, only a panic that leaves the reader aborts:
// the reader turns panics of the tokenizers library into errors.
fuzz_target!(
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| rewire_tests::fuzzed::gguf(bytes)
);
