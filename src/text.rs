//! Text for people: all of it is visible, and bytes are shown as digits.

/// Escapes all characters that make a terminal act or hide text from a reader.
pub fn escape_control(text: &str) -> String {
    text.chars()
        .map(|c| match is_seen(c) {
            true => c.to_string(),
            false => c.escape_default().to_string(),
        })
        .collect()
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
