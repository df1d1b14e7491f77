//! JSON as one line, whatever its reader takes for the end of one. Beside line feeds, which JSON
//! escapes, that may be U+0085, U+2028 and U+2029.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::borrow::Cow;
use std::io::{self, Write};

const BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Writes a value, without a line feed after it.
pub fn write_line(writer: impl Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, OneLine))
}

/// Returns a value as a line, without a line feed after it.
pub fn to_line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = Vec::new();
    write_line(&mut line, value)?;
    Ok(line)
}

/// Returns JSON without the line breaks that it may have in its strings.
pub fn escape_breaks(json: &[u8]) -> Cow<'_, [u8]> {
    match str::from_utf8(json) {
        Ok(text) if text.contains(BREAKS) => {
            let mut escaped = Vec::with_capacity(json.len());
            // This cannot fail: memory takes everything.
            write_escaped(&mut escaped, text).unwrap_or_default();
            escaped.into()
        }
        _ => json.into(),
    }
}

struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_escaped(writer, fragment)
    }
}

fn write_escaped<W: ?Sized + Write>(writer: &mut W, text: &str) -> io::Result<()> {
    let mut written = 0;
    for (start, found) in text.match_indices(BREAKS) {
        writer.write_all(&text.as_bytes()[written..start])?;
        for c in found.chars() {
            write!(writer, "\\u{:04x}", u32::from(c))?;
        }
        written = start + found.len();
    }
    writer.write_all(&text.as_bytes()[written..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_value_is_one_line_for_every_reader_and_the_same_value() {
        let value = json!({"a\u{2028}": ["\u{85}b\u{2029}\n", "ü\u{2027}"]});
        let line = to_line(&value).unwrap();
        let text = str::from_utf8(&line).unwrap();
        assert_eq!(
            text,
            "{\"a\\u2028\":[\"\\u0085b\\u2029\\n\",\"ü\u{2027}\"]}"
        );
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), value);
        let plain = serde_json::to_vec(&value).unwrap();
        assert_eq!(escape_breaks(&plain), line);
        assert_eq!(escape_breaks(b"\xff"), &b"\xff"[..]);
    }
}
