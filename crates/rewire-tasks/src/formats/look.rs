//! What a file looks like by its first line, and why a line of it is not JSON.

use rewire_input::cut;
use serde_json::Value;

/// What the first line of a file that is not blank says about the rest.
pub(super) enum Look {
    /// JSON Lines.
    Rows,
    /// One JSON object, over one line or several.
    Object,
    /// A JSON array.
    Array,
    /// A CSV table.
    Table,
    /// Something that is not read.
    Other(&'static str),
}

/// Returns the sentence for a file of another kind.
pub(super) fn expected(what: &str) -> String {
    format!(
        "expected one JSON object per line ({{\"clean\": .., \"corrupt\": .., \"answers\": [..], \"wrong_answers\": [..]}}), a \
         CSV table or an auto-circuit object; this looks like {what}"
    )
}

/// Returns what a file looks like by its first line that is not blank.
pub(super) fn look_of(first: &str) -> Look {
    let text = first.trim();
    if text.starts_with("PAR1") {
        return Look::Other("a Parquet file; write its rows as JSON Lines");
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r')) {
        return Look::Other("a binary file, or text that is not UTF-8");
    }
    if text.starts_with('[') {
        return Look::Array;
    }
    if text.starts_with('{') {
        return match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(object)) if object.contains_key("prompts") => Look::Object,
            // A line that ends in the middle of an object, in a file whose object spans lines.
            Err(error) if error.is_eof() && text.len() < 200 && !text.contains("\"clean\"") => Look::Object,
            _ => Look::Rows,
        };
    }
    if text.starts_with("version https://git-lfs") {
        return Look::Other("a pointer of Git LFS, without the file's content; fetch it (git lfs pull)");
    }
    if is_comment(text) {
        return Look::Other("a file that begins with a comment; remove the comment");
    }
    if text.starts_with('<') {
        return Look::Other("HTML or XML; was a web page saved in place of the file?");
    }
    if text.contains(',') {
        return Look::Table;
    }
    if text.contains('\t') {
        return Look::Other("a table separated by tabs; separate its columns by commas");
    }
    if text.contains(';') {
        return Look::Other("a table separated by semicolons; separate its columns by commas");
    }
    Look::Other("plain text")
}

fn is_comment(text: &str) -> bool {
    text.starts_with('#') || text.starts_with("//")
}

/// Returns the encoding or compression of a file that is not UTF-8, by its first bytes, and what to
/// do.
pub(super) fn other_encoding(first: &[u8]) -> Option<&'static str> {
    match first {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("the file is UTF-16 or UTF-32; save it as UTF-8"),
        [0x1f, 0x8b, ..] => Some("the file is compressed by gzip; decompress it (gunzip FILE)"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("the file is compressed by zstd; decompress it (unzstd FILE)"),
        _ => None,
    }
}

/// Returns the sentence for a line that is not JSON.
pub(super) fn not_json(line: &str, error: &serde_json::Error) -> String {
    let text = line.trim_start();
    let column = error.column();
    // serde counts lines within the line.
    let reason = error.to_string().replace(" at line 1 column", " at column");
    if is_comment(text) {
        return "expected a JSON object, and this is a comment; remove the line".to_owned();
    }
    if error.is_eof() {
        return format!("the JSON object is cut off ({}); write each object on one line", cut(&reason));
    }
    if reason.starts_with("trailing characters") {
        return format!("text follows the JSON object at column {column}; write one object per line, and nothing else");
    }
    if text.starts_with("{'") {
        return "the keys are in single quotes, as Python prints them; JSON has double quotes (json.dumps)".to_owned();
    }
    format!("the line is not JSON: {}", cut(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(first: &str) -> &'static str {
        match look_of(first) {
            Look::Rows => "rows",
            Look::Object => "object",
            Look::Array => "array",
            Look::Table => "table",
            Look::Other(what) => what,
        }
    }

    #[test]
    fn a_file_is_recognized_by_its_first_line() {
        for (first, expected) in [
            (r#"{"clean": "a, b"}"#, "rows"),
            (r#"{"prompts": []}"#, "object"),
            ("{", "object"),
            ("[{", "array"),
            ("clean,corrupted", "table"),
            ("\"a\",\"b\"\r", "table"),
        ] {
            assert_eq!(look(first), expected, "{first}");
        }
        for (first, part) in [
            ("# pairs, 1", "begins with a comment"),
            ("// pairs", "begins with a comment"),
            ("<!DOCTYPE html>", "HTML"),
            ("version https://git-lfs.github.com/spec/v1", "Git LFS"),
            ("PAR1\u{15}\u{4}", "Parquet"),
            ("PK\u{3}\u{4},", "binary"),
            ("\0c\0l\0e\0a\0n\0,", "binary"),
            ("clean\tcorrupted", "tabs"),
            ("clean;corrupted", "semicolons"),
            ("a word", "plain text"),
        ] {
            assert!(look(first).contains(part), "{first:?}: {}", look(first));
        }
    }

    #[test]
    fn encodings_that_are_not_utf_8_are_named() {
        assert!(other_encoding(&[0xff, 0xfe, b'{', 0]).is_some_and(|what| what.contains("UTF-16")));
        assert!(other_encoding(&[0x1f, 0x8b, 8]).is_some_and(|what| what.contains("gunzip")));
        assert_eq!(other_encoding(b"{\xff"), None);
    }

    #[test]
    fn a_line_that_is_not_json_is_explained() {
        let said = |line: &str| not_json(line, &serde_json::from_str::<Value>(line).unwrap_err());
        assert!(said("# a").contains("this is a comment"), "{}", said("# a"));
        assert!(said("// a").contains("this is a comment"));
        assert!(
            said("{\"a\": \"b").contains("is cut off (EOF while parsing a string at column 8)"),
            "{}",
            said("{\"a\": \"b")
        );
        assert_eq!(
            said("{},"),
            "text follows the JSON object at column 3; write one object per line, and nothing else"
        );
        assert!(said("{'a': 1}").contains("double quotes"));
        assert_eq!(said("{\"a\": NaN}"), "the line is not JSON: expected value at column 7");
    }
}
