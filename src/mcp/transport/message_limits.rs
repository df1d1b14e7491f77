//! Limits on a message, which are checked before it is parsed.

use rmcp::model::ErrorData;

/// The most bytes of a message.
pub const MESSAGE_MAX: usize = 32 << 20;
/// The most values in a message: a few bytes of JSON can take a hundred in memory.
const VALUES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 64;

/// Counts the values that a parser would have to build. It leaves it to the parser to reject what
/// is no JSON.
pub fn check(message: &[u8]) -> Result<(), ErrorData> {
    let (mut depth, mut values) = (0_usize, 0);
    let mut bytes = message.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(refusal(format!(
                "the message is nested more than {DEPTH_MAX} deep"
            )));
        }
        if values > VALUES_MAX {
            return Err(refusal(format!(
                "the message has more than {VALUES_MAX} values"
            )));
        }
    }
    Ok(())
}

pub fn too_long() -> ErrorData {
    refusal(format!(
        "the message is longer than {} MiB",
        MESSAGE_MAX >> 20
    ))
}

/// Skips to the end of a string whose first quote was consumed.
fn skip_string(bytes: &mut std::slice::Iter<u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return,
            _ => {}
        }
    }
}

fn refusal(message: String) -> ErrorData {
    ErrorData::invalid_request(message, None)
}
