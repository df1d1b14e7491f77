//! Sizes and times in a policy: as on the command line, or plain numbers.

use crate::units::{parse_size, parse_timeout};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Bytes: a number, or text such as `512M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A number of seconds, or text such as `30s` or `2m`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text("a size such as \"512M\"", |text| {
            parse_size(text).map(Size)
        }))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text("a time such as \"30s\"", |text| {
            let limit = parse_timeout(text)?.0;
            limit
                .map(Time)
                .ok_or_else(|| "0 is no limit; leave the key out for none".into())
        }))
    }
}

/// A description of the expected value, and the function that parses its text.
struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.1(text).map_err(|why| E::custom(format!("\"{text}\": {why}")))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_str(&number.to_string()),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes, or text with a binary unit: \"512M\".",
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": "^[0-9]+([kKmMgG]([iI]?[bB])?|[bB])?$"
        })
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Seconds, or text with a unit: \"30s\", \"2m\", \"1.5h\".",
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": "^[0-9.]+[smhd]?$"
        })
    }
}
