//! Reading a message from a line.

use crate::mcp::transport::message_limits;
use rmcp::model::{
    ClientJsonRpcMessage, ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// Parses a message. The error is the answer to an invalid one.
pub fn parse(line: &[u8]) -> Result<ClientJsonRpcMessage, Box<ServerJsonRpcMessage>> {
    let refuse = |error| Err(Box::new(JsonRpcMessage::error(error, id_of(line))));
    if let Err(error) = message_limits::check(line) {
        return refuse(error);
    }
    let error = match serde_json::from_slice(line) {
        Ok(message) => return Ok(message),
        Err(error) => error,
    };
    refuse(match serde_json::from_slice::<Value>(line) {
        Ok(Value::Array(_)) => {
            let told = "a batch is not a message here: send each of its messages by itself";
            ErrorData::invalid_request(told, None)
        }
        Ok(_) => {
            let told = format!("this is not a message of the protocol: {error}");
            ErrorData::invalid_request(told, None)
        }
        Err(error) => ErrorData::parse_error(format!("this is no JSON: {error}"), None),
    })
}

/// Returns the id of what need not be a message, nor JSON to its end: whoever sent it waits for an
/// answer with this id.
fn id_of(line: &[u8]) -> Option<RequestId> {
    let mut id = None;
    let mut json = serde_json::Deserializer::from_slice(line);
    // What is wrong with it is told already.
    drop(json.deserialize_map(Id(&mut id)));
    id
}

/// A reader that keeps the id of an object. It needs no other value to be one that can be kept.
struct Id<'a>(&'a mut Option<RequestId>);

impl<'de> Visitor<'de> for Id<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "id" => *self.0 = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> (i32, Option<RequestId>) {
        match parse(line.as_bytes()) {
            Err(answer) => match *answer {
                JsonRpcMessage::Error(error) => (error.error.code.0, error.id),
                other => panic!("{other:?}"),
            },
            Ok(message) => panic!("{message:?}"),
        }
    }

    #[test]
    fn an_error_has_the_id_of_what_it_is_about_where_that_can_be_read() {
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","x":"#;
        let seven = Some(RequestId::Number(7));
        for (rest, code) in [
            (r#""\ud800"}}"#, -32700),
            ("1e999}}", -32700),
            (r#"1},"params":{}}"#, -32600),
            (r#"1},"method":"ping"}"#, -32600),
            ("", -32700),
            ("nonsense", -32700),
        ] {
            assert_eq!(
                refusal(&format!("{call}{rest}")),
                (code, seven.clone()),
                "{rest}"
            );
        }
        let late = r#"{"method":"tools/call","params":{"x":"\udfff"},"id":"a"}"#;
        assert_eq!(refusal(late).1, Some(RequestId::String("a".into())));
        let deep = format!(r#"{{"id":7,"params":{}"#, "[".repeat(100));
        assert_eq!(refusal(&deep), (-32600, seven));
    }

    #[test]
    fn an_error_about_what_has_no_id_has_none() {
        for (line, code) in [
            ("", -32700),
            ("nonsense", -32700),
            (r#"{"id":{},"method":"ping"}"#, -32600),
            (r#"{"params":"\ud800""#, -32700),
            ("[]", -32600),
            (r#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#, -32600),
        ] {
            assert_eq!(refusal(line), (code, None), "{line}");
        }
    }
}
