//! Text for people: all of it is visible, and bytes are shown as digits.

use std::path::Path;

/// Escapes all characters that make a terminal act or hide text from a reader.
pub fn escape_control(text: &str) -> String {
    escape(text.chars(), is_seen)
}

/// Escapes them, whatever ends the line, and all that has no shape of its own, such as combining
/// characters, and cuts the text to what anybody reads.
pub fn escape_line(text: &str) -> String {
    const READ: usize = 8192;
    let has_shape =
        |c: char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().eq(std::iter::once(c));
    let is_seen = |c| is_seen(c) && has_shape(c);
    escape(text.chars().take(READ), is_seen)
}

/// Returns a path as a part of a line.
pub fn escape_path(path: &Path) -> String {
    escape_line(&path.to_string_lossy())
}

fn escape(text: impl Iterator<Item = char>, is_seen: impl Fn(char) -> bool) -> String {
    let mut escaped = String::new();
    for c in text {
        match is_seen(c) {
            true => escaped.push(c),
            false => escaped.extend(c.escape_default()),
        }
    }
    escaped
}

/// Returns what is wrong with a TOML text, in one line, and in which line of it.
pub fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let place = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or(text);
        format!("line {}: ", before.matches('\n').count() + 1)
    });
    format!("{}{}", place.unwrap_or_default(), error.message())
}

/// Returns the bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks whether there is nothing to escape.
pub fn is_plain(text: &str) -> bool {
    let mut lines = text.split("\r\n");
    lines.all(|line| line.chars().all(is_seen))
}

fn is_seen(c: char) -> bool {
    matches!(c, '\n' | '\t') || !(c.is_control() || is_format(c))
}

/// Checks whether a character changes the direction of text, breaks a line or is invisible:
/// Unicode's general categories Cf, Zl and Zp, and variation selectors, in which text can be
/// hidden. The exceptions are those that scripts and emoji need: the joiners (U+200C, U+200D) and
/// the selectors of text and emoji (U+FE0E, U+FE0F).
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_once() {
        let shown = escape_line("it's \\ ü\u{1b}[2J\u{202e}\u{2028}\n");
        assert_eq!(shown, r"it's \ ü\u{1b}[2J\u{202e}\u{2028}\n");
        assert_eq!(escape_line(&shown), shown);
        let shapeless = "e\u{301}\u{e000}\u{378}\u{fe0e}";
        assert_eq!(escape_line(shapeless), r"e\u{301}\u{e000}\u{378}\u{fe0e}");
        assert_eq!(escape_line(&"x".repeat(9000)).len(), 8192);
    }
}
