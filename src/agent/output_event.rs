//! A program's output as events: a line of JSON for each piece, as it comes.

use crate::record::Encoding;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// An event that tells a piece of output.
#[derive(Serialize)]
struct OutputEvent<'a> {
    event: &'static str,
    stream: &'static str,
    data: &'a str,
    encoding: Encoding,
}

/// Returns the events of a piece of output, in one line each. A character that is cut by the piece's end,
/// and anything else that is no UTF-8, is told in base64.
pub fn events(stream: &'static str, bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    let (text, rest) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, &[][..]),
        Err(error) => {
            let (text, rest) = bytes.split_at(match error.error_len() {
                // Only the last character is cut.
                None => error.valid_up_to(),
                Some(_) => 0,
            });
            (std::str::from_utf8(text).unwrap_or_default(), rest)
        }
    };
    let mut tell = |data: &str, encoding| {
        if !data.is_empty() {
            let event = OutputEvent {
                event: "output",
                stream,
                data,
                encoding,
            };
            // Memory takes any event.
            serde_json::to_writer(&mut lines, &event).unwrap_or_default();
            lines.push(b'\n');
        }
    };
    tell(text, Encoding::Utf8);
    tell(&STANDARD.encode(rest), Encoding::Base64);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn decoded(lines: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let event: Value = serde_json::from_slice(line).unwrap();
            assert_eq!(
                (&event["event"], &event["stream"]),
                (&"output".into(), &"stderr".into())
            );
            let data = event["data"].as_str().unwrap();
            match event["encoding"].as_str().unwrap() {
                "utf-8" => bytes.extend(data.as_bytes()),
                _ => bytes.extend(STANDARD.decode(data).unwrap()),
            }
        }
        bytes
    }

    #[test]
    fn a_character_in_two_pieces_comes_in_base64() {
        let lines = String::from_utf8(events(
            "stdout",
            "a\u{e9}".as_bytes().split_last().unwrap().1,
        ))
        .unwrap();
        assert_eq!(
            lines,
            "{\"event\":\"output\",\"stream\":\"stdout\",\"data\":\"a\",\"encoding\":\"utf-8\"}\n\
             {\"event\":\"output\",\"stream\":\"stdout\",\"data\":\"ww==\",\"encoding\":\"base64\"}\n"
        );
    }

    proptest! {
        #[test]
        fn any_output_comes_back_from_its_events(bytes: Vec<u8>, text: String) {
            prop_assert_eq!(decoded(&events("stderr", &bytes)), bytes);
            prop_assert_eq!(decoded(&events("stderr", text.as_bytes())), text.as_bytes());
        }
    }
}
