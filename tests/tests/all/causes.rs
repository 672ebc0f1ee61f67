//! An error names its cause once: in its message, or in the chain of its sources.

use std::path::{Path, PathBuf};

/// Returns the source files below a directory.
fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Returns the messages of error variants that contain the variant's source.
fn repeated(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for variant in code.split("#[error(").skip(1) {
        let Some((message, body)) = variant.split_once(")]") else { continue };
        let body = body.split("\n}").next().unwrap_or(body);
        let has_source = body.contains("#[from]") || body.contains("#[source]") || body.contains(" source:");
        if has_source && (message.contains("{source}") || message.contains("{0}")) {
            found.push(message.to_owned());
        }
    }
    found
}

#[test]
fn no_error_message_contains_its_own_source() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates");
    let mut files = Vec::new();
    sources(&crates, &mut files);
    let mut variants = 0;
    for file in files {
        let code = std::fs::read_to_string(&file).unwrap();
        variants += code.matches("#[error(").count();
        assert_eq!(repeated(&code), Vec::<String>::new(), "{}", file.display());
    }
    assert!(variants > 100, "found only {variants} variants");
}

#[test]
fn repeated_causes_are_detected() {
    let variant = |message: &str, body: &str| format!("enum E {{ #[error(\"{message}\")]\n A{body},\n}}\n");
    assert_eq!(repeated(&variant("no: {source}", " { source: io::Error }")), ["\"no: {source}\""]);
    assert_eq!(repeated(&variant("no: {0}", "(#[from] io::Error)")), ["\"no: {0}\""]);
    assert_eq!(repeated(&variant("no: {0}", "(String)")), Vec::<String>::new());
    assert_eq!(repeated(&variant("no", "(#[source] io::Error)")), Vec::<String>::new());
}
