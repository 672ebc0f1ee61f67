//! Tokenization of text: the tokenizer's file must not truncate, pad or silently change it, and the
//! BOS is chosen and reported.

use std::path::Path;
use std::process::Command;

use crate::shared::{self, PAIRS, Tensors, complaints, tensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Creates a directory with `pairs.jsonl` and a copy of a toy model in `model`, with changes to its
/// `config.json` and `tokenizer.json`.
fn directory(toy: &str, pairs: &str, change: impl Fn(&mut Value, &mut Value)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models").join(toy);
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(source.join("model.safetensors"), model.join("model.safetensors")).unwrap();
    let [mut config, mut tokenizer] = ["config.json", "tokenizer.json"].map(|name| shared::json(&source.join(name)));
    change(&mut config, &mut tokenizer);
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), pairs).unwrap();
    directory
}

/// The output and the files of a command.
struct Ran {
    code: Option<i32>,
    printed: String,
    complaints: String,
    directory: TempDir,
}

impl Ran {
    fn command(directory: TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rewire"));
        let output = command.args(arguments).args(["--out", "o"]).current_dir(directory.path()).output().unwrap();
        let (printed, complaints) = (String::from_utf8(output.stdout).unwrap(), complaints(&output.stderr));
        Self { code: output.status.code(), printed, complaints, directory }
    }

    fn sweep(directory: TempDir, arguments: &[&str]) -> Self {
        let sweep = ["sweep", "--model", "model", "--pairs", "pairs.jsonl", "--metric", "logit-diff"];
        Self::command(directory, &[&sweep, arguments].concat())
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("o").join(name)
    }

    /// Returns the effects, and the metric of the unpatched runs, of a command that succeeded.
    fn numbers(&self) -> (Tensors, Value) {
        assert_eq!(self.code, Some(0), "{}", self.complaints);
        (tensors(&self.file("effects.safetensors")), self.about()["baselines"].clone())
    }

    fn about(&self) -> Value {
        shared::json(&self.file("effects.json"))
    }

    /// Asserts that the command warned of the tokenizer in these words, in all three places. Other
    /// warnings are allowed: a changed text may keep the model from doing the task.
    fn assert_warned(&self, words: &[&str]) {
        assert_eq!(self.code, Some(0), "{}", self.complaints);
        let of_tokenizer = self.complaints.lines().filter(|line| line.contains("tokenizer"));
        assert_eq!(of_tokenizer.count(), 1, "{}", self.complaints);
        let warnings = self.about()["warnings"].to_string();
        // Without HTML entities and JSON escapes.
        let plain =
            |text: &str| text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace('\\', "");
        let report = std::fs::read_to_string(self.file("report.html")).unwrap();
        for place in [self.complaints.as_str(), &warnings, &report] {
            for word in words {
                assert!(plain(place).contains(word), "{word:?} is not in {}", self.complaints);
            }
        }
    }

    fn assert_refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{}", self.complaints);
        assert!(!self.complaints.contains("panicked"), "{}", self.complaints);
        for word in words {
            assert!(self.complaints.contains(word), "{word:?} is not in {}", self.complaints);
        }
        assert!(!self.directory.path().join("o").exists(), "something was written");
    }
}

/// Returns the pairs with answers as token ids, which no tokenizer can change.
fn pairs_with_ids(tokenizer: &Value) -> String {
    let id = |word: &str| tokenizer["model"]["vocab"][format!("Ġ{}", word.trim())].clone();
    let line = |line: &str| {
        let mut pair: Value = serde_json::from_str(line).unwrap();
        for name in ["answers", "wrong_answers"] {
            pair[name] = json!([id(pair[name][0].as_str().unwrap())]);
        }
        format!("{pair}\n")
    };
    PAIRS.lines().map(line).collect()
}

/// Returns the toy model's own tokenizer.
fn toy_tokenizer() -> Value {
    shared::json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models/toy-gpt2/tokenizer.json"))
}

/// Sweeps the toy model with a changed `tokenizer.json`; the answers are ids.
fn with_tokenizer(change: impl Fn(&mut Value)) -> Ran {
    // Only one pair, because a changed tokenizer may split the names in other pairs into different
    // numbers of tokens.
    let pairs = pairs_with_ids(&toy_tokenizer());
    let first = pairs.lines().next().unwrap();
    Ran::sweep(directory("toy-gpt2", first, |_, tokenizer| change(tokenizer)), &[])
}

#[test]
fn tokenizer_truncation_padding_and_dropout_change_no_number() {
    let plain = with_tokenizer(|_| {}).numbers();
    assert!(plain.1["clean_mean"].as_f64().unwrap() > 5.0, "{}", plain.1);
    let mut files = vec![("dropout", json!({ "model": { "dropout": 0.5 } }))];
    for direction in ["Left", "Right"] {
        let truncation = |n: usize| json!({ "truncation": { "direction": direction, "max_length": n, "strategy": "LongestFirst", "stride": 0 } });
        files.extend([("8 tokens", truncation(8)), ("12 tokens", truncation(12))]);
        let padding = json!({ "padding": {
            "strategy": { "Fixed": 20 }, "direction": direction, "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<|endoftext|>",
        } });
        files.push(("padding", padding));
    }
    for (name, changes) in files {
        let ran = with_tokenizer(|tokenizer| {
            for (part, value) in changes.as_object().unwrap() {
                match part.as_str() {
                    "model" => tokenizer["model"]["dropout"] = value["dropout"].clone(),
                    _ => tokenizer[part] = value.clone(),
                }
            }
        });
        assert_eq!(ran.numbers(), plain, "{name}");
        assert_eq!(ran.complaints, "", "{name}");
    }
}

#[test]
fn special_tokens_around_a_text_are_removed_and_reported() {
    let template = |after: bool| {
        let special = json!({ "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } });
        let text = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
        let single = if after { json!([special, text("A"), special]) } else { json!([special, text("A")]) };
        json!({
            "type": "TemplateProcessing", "single": single, "pair": [text("A"), text("B")],
            "special_tokens": { "<|endoftext|>": { "id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"] } },
        })
    };
    let plain = with_tokenizer(|_| {}).numbers();
    let both = with_tokenizer(|tokenizer| tokenizer["post_processor"] = template(true));
    assert_eq!(both.numbers(), plain);
    both.assert_warned(&["<|endoftext|> before a text and <|endoftext|> after it", "nothing after it"]);
    // Rewire also prepends the BOS.
    let front = with_tokenizer(|tokenizer| tokenizer["post_processor"] = template(false));
    assert_eq!((front.numbers(), front.complaints.as_str()), (plain, ""));
}

#[test]
fn texts_that_the_tokenizer_changes_are_reported() {
    let lowercase = with_tokenizer(|tokenizer| tokenizer["normalizer"] = json!({ "type": "Lowercase" }));
    lowercase.assert_warned(&["changes text", "\"When John and Mary", "became \"when john and mary"]);
    let prefix = with_tokenizer(|tokenizer| tokenizer["normalizer"] = json!({ "type": "Prepend", "prepend": " " }));
    prefix.assert_warned(&["changes text", "became \" When John"]);
    let space = with_tokenizer(|tokenizer| tokenizer["pre_tokenizer"]["add_prefix_space"] = true.into());
    space.assert_warned(&["changes text", "became \" When John"]);
    let greedy = with_tokenizer(|tokenizer| {
        let id = tokenizer["model"]["vocab"]["and"].clone();
        let token = json!({
            "id": id, "content": "and", "single_word": false, "lstrip": true, "rstrip": false, "normalized": false,
            "special": false,
        });
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    });
    greedy.assert_warned(&["changes text", "became \"When Johnand Mary"]);
}

#[test]
fn words_outside_the_vocabulary_are_refused_by_name() {
    let words = |vocabulary: &[&str]| {
        let ids: serde_json::Map<_, _> =
            vocabulary.iter().zip(0..).map(|(w, id)| ((*w).to_owned(), id.into())).collect();
        json!({ "type": "WordLevel", "vocab": ids, "unk_token": "[UNK]" })
    };
    let most = ["[UNK]", "When", "John", "and", "went", "to", "the", "shops,", "gave", "bag", "Tom", "James", "park,"];
    let unknown = with_tokenizer(|tokenizer| {
        tokenizer["model"] = words(&most);
        tokenizer["pre_tokenizer"] = json!({ "type": "WhitespaceSplit" });
        tokenizer["decoder"] = Value::Null;
        tokenizer["added_tokens"] = json!([]);
    });
    unknown.assert_refused(&["pairs.jsonl, line 1", "no token for \"Mary\"", "use other words"]);
    let lost = with_tokenizer(|tokenizer| {
        tokenizer["pre_tokenizer"] = Value::Null;
        tokenizer["decoder"] = Value::Null;
    });
    // Without the byte-level step, the vocabulary lacks some characters.
    lost.assert_refused(&["pairs.jsonl, line 1", "no token for \"e\"", "use other words"]);
}

/// Returns the demo's pairs as token ids, with these tokens prepended.
fn as_ids(front: &[u32]) -> String {
    let tokenizer = rewire_toy::Toy::Gpt2.tokenizer().unwrap();
    let line = |line: &str| {
        let mut pair: Value = serde_json::from_str(line).unwrap();
        for name in ["clean", "corrupt"] {
            let tokens = tokenizer.encode(pair[name].as_str().unwrap()).unwrap();
            pair[name] = json!(front.iter().copied().chain(tokens).collect::<Vec<u32>>());
        }
        format!("{pair}\n")
    };
    PAIRS.lines().map(line).collect()
}

#[test]
fn text_starts_with_the_bos_unless_bos_is_none() {
    for toy in ["toy-gpt2", "toy-neox"] {
        let sweep = |pairs: &str, arguments: &[&str]| Ran::sweep(directory(toy, pairs, |_, _| {}), arguments);
        let (with, without) = (sweep(&as_ids(&[0]), &[]).numbers(), sweep(&as_ids(&[]), &[]).numbers());
        assert_ne!(with.1, without.1);
        let default = sweep(PAIRS, &[]);
        let prepend = sweep(PAIRS, &["--bos", "prepend"]);
        let none = sweep(PAIRS, &["--bos", "none"]);
        assert_eq!(default.numbers(), with, "{toy}");
        assert_eq!(prepend.numbers(), with, "{toy}");
        assert_eq!(none.numbers(), without, "{toy}");
        // Token ids are not changed by any choice of BOS.
        assert_eq!(sweep(&as_ids(&[]), &["--bos", "prepend"]).numbers(), without, "{toy}");
        assert_eq!(sweep(&as_ids(&[0]), &["--bos", "none"]).numbers(), with, "{toy}");

        let token = json!({ "id": 0, "token": "<|endoftext|>" });
        for (ran, choice, token, words) in [
            (
                &default,
                "default",
                &token,
                "text begins with <|endoftext|> (the model's default; --bos none leaves it out)",
            ),
            (&prepend, "prepend", &token, "text begins with <|endoftext|> (--bos prepend)"),
            (&none, "none", &Value::Null, "text begins without BOS (--bos none)"),
        ] {
            assert_eq!(ran.about()["tokenization"], json!({ "bos": choice, "text_begins_with": token }), "{toy}");
            let report = std::fs::read_to_string(ran.file("report.html")).unwrap();
            let report = report.replace("&lt;", "<").replace("&gt;", ">");
            assert!(ran.printed.contains(words) && report.contains(words), "{toy}: {}", ran.printed);
        }
    }
}

#[test]
fn every_reproduction_accepts_the_bos_flag() {
    let few = ["--prompts", "20", "--choose-prompts", "20", "--judge-prompts", "20"];
    for (command, sizes, label) in [
        ("reproduce-ioi", &["--prompts", "2"][..], "/labels/demo/0/0"),
        ("reproduce-ig", &["--prompts", "0", "--generated-pairs", "0"], "/labels/0"),
        ("reproduce-facts", &[], "/labels/the Colosseum/0"),
        ("reproduce-pythia", &few, "/labels/0/0"),
    ] {
        for (choice, bos) in [("default", true), ("none", false)] {
            let directory = tempfile::tempdir().unwrap();
            let ran =
                Ran::command(directory, &[&[command][..], sizes, &["--model", "toy-neox", "--bos", choice]].concat());
            assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.complaints);
            let first = ran.about().pointer(label).cloned().unwrap();
            assert_eq!(first == "<|endoftext|>", bos, "{command:?}: {first}");
            assert!(ran.printed.contains("text begins with"), "{command:?}: {}", ran.printed);
        }
    }
}

#[test]
fn reproductions_print_how_many_names_are_single_tokens() {
    let without_rachel = |_: &mut Value, tokenizer: &mut Value| {
        let merges = tokenizer["model"]["merges"].as_array_mut().unwrap();
        let before = merges.len();
        merges.retain(|merge| merge != &json!(["ĠRac", "hel"]));
        assert_eq!(merges.len(), before - 1, "the toy's merges have changed");
    };
    let line = "model: generated prompts use the 103 of 104 names that are single tokens of its tokenizer";
    let reproduce = |prompts: &str, change: &dyn Fn(&mut Value, &mut Value)| {
        let arguments = ["reproduce-ioi", "--model", "model", "--prompts", prompts];
        let ran = Ran::command(directory("toy-gpt2", "", change), &arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.complaints);
        ran.printed
    };
    assert!(reproduce("2", &without_rachel).contains(line));
    assert!(!reproduce("0", &without_rachel).contains("generated prompts use"));
    assert!(!reproduce("2", &|_, _| ()).contains("generated prompts use"));
}

#[test]
fn a_missing_bos_in_the_configuration_defaults_to_the_architectures() {
    let changed = |toy: &str, value: Option<Value>, arguments: &[&str]| {
        let change = |config: &mut Value, _: &mut Value| match &value {
            Some(value) => config["bos_token_id"] = value.clone(),
            None => drop(config.as_object_mut().unwrap().remove("bos_token_id")),
        };
        let ids = arguments.first() == Some(&"ids");
        let pairs = if ids { as_ids(&[]) } else { PAIRS.to_owned() };
        Ran::sweep(directory(toy, &pairs, change), &arguments[usize::from(ids)..])
    };
    // GPT-NeoX's BOS is 0, and the toy's is 0, too.
    let named = changed("toy-neox", Some(json!(0)), &[]).numbers();
    assert_eq!(changed("toy-neox", None, &[]).numbers(), named);
    // Null means no BOS.
    let none = changed("toy-neox", Some(json!(0)), &["--bos", "none"]).numbers();
    assert_eq!(changed("toy-neox", Some(Value::Null), &[]).numbers(), none);
    changed("toy-neox", Some(Value::Null), &["--bos", "prepend"]).assert_refused(&["--bos prepend", "no BOS", "null"]);
    // GPT-2's BOS is 50256, which this vocabulary lacks: text is refused, while token ids and
    // `--bos none` are accepted.
    let outside = ["config.json", "bos_token_id 50256", "vocabulary of 916", "--bos none"];
    changed("toy-gpt2", None, &[]).assert_refused(&outside);
    let ids = changed("toy-gpt2", None, &["ids"]).numbers();
    assert_eq!(changed("toy-gpt2", None, &["--bos", "none"]).numbers(), ids);
    let directory =
        directory("toy-gpt2", PAIRS, |config, _| drop(config.as_object_mut().unwrap().remove("bos_token_id")));
    let refused = Ran::command(directory, &["reproduce-ioi", "--model", "model"]);
    refused.assert_refused(&["the BOS of model has id 50256", "vocabulary of 916", "--bos none"]);
}
