//! Tokenizers from the metadata give the tokens of the model's own tokenizer.

use std::str::FromStr;

use rewire_gguf::{Gguf, tokenizer_json};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::fixture;
use crate::writer::File;

const TEXTS: [&str; 8] = [
    "When Mary and John went to the store",
    " Mary",
    "",
    "two  spaces \u{e9}\u{65e5}\u{672c}\n\ttab",
    "in 2024, 31 of 7",
    "don't I'LL we're",
    "helloWorld HTTPServer <|endoftext|>",
    "...!? $5+<a>~|^",
];

fn tokenizer(file: &Gguf<'_>) -> Tokenizer {
    Tokenizer::from_str(&tokenizer_json(file).unwrap().unwrap().to_string()).unwrap()
}

fn refused(file: &File) -> String {
    let bytes = file.bytes();
    tokenizer_json(&crate::read(&bytes).unwrap()).unwrap_err().to_string()
}

/// Returns the letters that a byte-level tokenizer writes for all bytes.
fn letters() -> Vec<String> {
    tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().map(String::from).collect()
}

/// A byte-level BPE without merges that has a token for each byte, and a mark.
fn of_bytes(pre: &str) -> File {
    let mut tokens = letters();
    tokens.sort();
    tokens.push("<|endoftext|>".to_owned());
    let mut types = vec![1; 256];
    types.push(3);
    File::of("llama")
        .with_text("tokenizer.ggml.model", "gpt2")
        .with_text("tokenizer.ggml.pre", pre)
        .with_texts("tokenizer.ggml.tokens", &tokens)
        .with_i32s("tokenizer.ggml.token_type", &types)
        .with_texts::<&str>("tokenizer.ggml.merges", &[])
}

#[test]
fn sentence_piece_tokens_are_those_of_sentence_piece() {
    for name in ["sentence-piece", "without-prefix"] {
        let path = fixture(&format!("{name}.gguf"));
        let bytes = std::fs::read(&path).unwrap();
        let ours = tokenizer(&Gguf::read(&bytes, &path).unwrap());
        let rows = std::fs::read(fixture(&format!("{name}.json"))).unwrap();
        let rows: Vec<(String, Vec<u32>)> = serde_json::from_slice(&rows).unwrap();
        assert!(rows.len() > 40);
        for (text, ids) in rows {
            let encoding = ours.encode(text.as_str(), true).unwrap();
            assert_eq!(encoding.get_ids(), ids, "{name}, {text:?}: {:?}", encoding.get_tokens());
            assert_eq!(ours.decode(&ids, false).unwrap(), text, "{name}");
        }
        let marked = ours.encode("<|user|>", true).unwrap();
        assert_eq!(marked.get_tokens(), ["<|user|>"]);
    }
}

#[test]
fn each_pre_tokenizer_splits_as_its_models_do() {
    let words = |pre: &str, text: &str| -> Vec<String> {
        let bytes = of_bytes(pre).bytes();
        let tokenizer = tokenizer(&crate::read(&bytes).unwrap());
        let mut text: tokenizers::PreTokenizedString = text.into();
        let pre_tokenizer = tokenizer.get_pre_tokenizer().unwrap();
        tokenizers::PreTokenizer::pre_tokenize(pre_tokenizer, &mut text).unwrap();
        let splits = text.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        splits.into_iter().map(|(word, ..)| word.replace('\u{120}', " ")).collect()
    };
    assert_eq!(words("gpt-2", "in 2024!! I'LL"), ["in", " 2024", "!!", " I", "'", "LL"]);
    assert_eq!(words("smollm", "in 2024!! I'LL"), ["in", " ", "2", "0", "2", "4", "!!", " I", "'", "LL"]);
    assert_eq!(words("llama-bpe", "in 2024!! I'LL"), ["in", " ", "202", "4", "!!", " I", "'LL"]);
    assert_eq!(words("qwen2", "in 2024!! I'LL"), ["in", " ", "2", "0", "2", "4", "!!", " I", "'LL"]);
    assert_eq!(words("tekken", "in aB 20"), ["in", " a", "B", " ", "2", "0"]);
    assert_eq!(words("default", "in 2024!! a"), ["in", " ", "202", "4", "!!", " a"]);
}

#[test]
fn every_pre_tokenizer_keeps_every_byte() {
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-r1-qwen", "tekken", "default"] {
        let bytes = of_bytes(pre).bytes();
        let tokenizer = tokenizer(&crate::read(&bytes).unwrap());
        for text in TEXTS {
            let encoding = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), text, "{pre}");
            let marks = encoding.get_tokens().iter().filter(|token| *token == "<|endoftext|>").count();
            assert_eq!(marks, text.matches("<|endoftext|>").count(), "{pre}, {text:?}");
        }
    }
}

#[test]
fn only_qwen_composes_characters_and_only_llama_takes_whole_words() {
    let json = |pre: &str| {
        let bytes = of_bytes(pre).bytes();
        tokenizer_json(&crate::read(&bytes).unwrap()).unwrap().unwrap()
    };
    assert_eq!(json("qwen2")["normalizer"]["type"], "NFC");
    assert_eq!(json("gpt-2")["normalizer"], Value::Null);
    assert_eq!(json("llama-bpe")["model"]["ignore_merges"], true);
    assert_eq!(json("qwen2")["model"]["ignore_merges"], false);
}

#[test]
fn a_file_without_a_tokenizer_has_none() {
    let bytes = File::of("llama").bytes();
    assert!(tokenizer_json(&crate::read(&bytes).unwrap()).unwrap().is_none());
}

#[test]
fn unsupported_and_damaged_tokenizers_are_refused_by_key() {
    let model = |name: &str| File::of("llama").with_text("tokenizer.ggml.model", name);
    let bpe = || model("gpt2").with_text("tokenizer.ggml.pre", "gpt-2");
    let tokens = |file: File, tokens: &[&str]| file.with_texts("tokenizer.ggml.tokens", tokens);
    let merges = |merges: &[&str]| tokens(bpe(), &["a", "b", "ab"]).with_texts("tokenizer.ggml.merges", merges);
    let pieces = || tokens(model("llama"), &["<unk>", "a"]);
    let long = "x".repeat(257);
    let cases = [
        (model("bert"), "key `tokenizer.ggml.model`: the tokenizer \"bert\" is not supported; Rewire reads gpt2"),
        (bpe(), "key `tokenizer.ggml.tokens`: the metadata lacks it"),
        (of_bytes("gpt-4o"), "key `tokenizer.ggml.pre`: \"gpt-4o\" is not supported; Rewire reads gpt-2, phi-2"),
        (of_bytes("smolm"), "did you mean `smollm`?"),
        (tokens(model("gpt2"), &["a"]), "key `tokenizer.ggml.pre`: the metadata lacks it, so the words"),
        (tokens(bpe(), &["a", "a"]), "key `tokenizer.ggml.tokens`: tokens 0 and 1 are both \"a\""),
        (tokens(bpe(), &["a", &long]), "token 1 has 257 bytes; at most 256 are allowed"),
        (tokens(bpe(), &["a"]), "key `tokenizer.ggml.merges`: the metadata lacks it"),
        (merges(&["a b", "ab"]), "key `tokenizer.ggml.merges`: merge 1 is \"ab\", not two tokens"),
        (merges(&["a c"]), "merge 0, \"a c\", needs the token \"c\", and there is none"),
        (merges(&["b a"]), "needs the token \"ba\", and there is none"),
        (
            merges(&["a b"]).with_i32s("tokenizer.ggml.token_type", &[1]),
            "key `tokenizer.ggml.token_type`: it has 1 entries",
        ),
        (merges(&["a b"]).with_i32s("tokenizer.ggml.token_type", &[1, 1, 9]), "the type of token 2 is 9"),
        (bpe().with_i32s("tokenizer.ggml.tokens", &[1]), "item 0 is a whole number; the array must have texts"),
        (bpe().with_text("tokenizer.ggml.tokens", "a"), "it is a text, and must be an array of texts"),
        (pieces(), "key `tokenizer.ggml.scores`: the metadata lacks it"),
        (pieces().with_f32s("tokenizer.ggml.scores", &[0.0]), "key `tokenizer.ggml.scores`: it has 1 entries"),
        (
            pieces().with_f32s("tokenizer.ggml.scores", &[0.0; 2]).with_u32("tokenizer.ggml.unknown_token_id", 2),
            "key `tokenizer.ggml.unknown_token_id`: there is no token 2",
        ),
        (
            pieces().with_flag("tokenizer.ggml.remove_extra_whitespaces", true),
            "key `tokenizer.ggml.remove_extra_whitespaces`: it is true",
        ),
    ];
    for (file, expected) in cases {
        let refused = refused(&file);
        assert!(refused.starts_with("model.gguf, key `") && refused.contains(expected), "{refused}");
    }
}
