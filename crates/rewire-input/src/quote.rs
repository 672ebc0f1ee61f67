//! Prepares outside text for messages: cuts it to a length and escapes control characters.

/// Largest number of characters of outside text that a message shows.
pub const MOST_QUOTED: usize = 200;

/// Returns `text` for a message: at most [`MOST_QUOTED`] characters, followed by the total number
/// if it is larger. Characters that are not printable are escaped.
#[must_use]
pub fn cut(text: &str) -> String {
    let (shown, rest) = split(text);
    let mut out = String::with_capacity(shown.len());
    for character in shown.chars() {
        match character {
            '"' | '\'' | '\\' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
    }
    out + &rest
}

/// Returns `text` for a message in quotation marks, so that spaces at its ends are visible. Cuts
/// and escapes the text as [`cut`] does.
#[must_use]
pub fn quoted(text: &str) -> String {
    let (shown, rest) = split(text);
    format!("{shown:?}{rest}")
}

/// Returns the shown part of a text, and a note with the total number of characters if the text is
/// longer.
fn split(text: &str) -> (&str, String) {
    match text.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => (&text[..end], format!(" .. ({} characters)", text.chars().count())),
        None => (text, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_quoted_whole_with_control_characters_escaped() {
        assert_eq!(cut("h.0.\"a\\b\" é"), "h.0.\"a\\b\" é");
        assert_eq!(cut("a\u{1b}[31m\r\0b"), "a\\u{1b}[31m\\r\\0b");
        // A control character that reverses the direction of the text after it.
        assert_eq!(cut("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(quoted(" Mary\n"), "\" Mary\\n\"");
    }

    #[test]
    fn long_text_is_cut_and_its_length_given() {
        let long = "é".repeat(10_000_000);
        assert_eq!(cut(&long), "é".repeat(200) + " .. (10000000 characters)");
        assert_eq!(quoted(&long), format!("\"{}\" .. (10000000 characters)", "é".repeat(200)));
        assert_eq!(cut(&"a".repeat(200)), "a".repeat(200));
    }
}
