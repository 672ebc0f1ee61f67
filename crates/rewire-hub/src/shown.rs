//! Values from outside, safe to print.

/// Cuts a value from outside to 200 characters, and escapes control and other invisible characters.
#[must_use]
pub fn shown(value: &str) -> String {
    let mut shown = String::new();
    for c in value.chars().take(200) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    if value.chars().nth(200).is_some() {
        shown.push('…');
    }
    shown
}
