//! What a message may cost before anything is known of it.

use rmcp::model::ErrorData;

/// Bytes of a message.
pub const MESSAGE_MAX: usize = 32 << 20;
/// Values in it: a few bytes of JSON can be a hundred in memory.
const VALUES_MAX: usize = 20_000;
const DEPTH_MAX: usize = 64;

/// Counts what a parser would have to build. What is no JSON is for that to tell.
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

/// To the end of a string whose first quote is passed.
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
