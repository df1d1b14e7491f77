//! The name of a language, with a schema and an error that list the known ones.

use crate::image::Image;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

/// The name of a language of the image that is built in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LanguageName(String);

impl LanguageName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for LanguageName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Display for LanguageName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LanguageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if let Some(language) = Image::built_in().meant(&name) {
            return Ok(Self(language.name.clone()));
        }
        let known = names().join(", ");
        let message = format!("unknown language {name:?}, expected one of {known}");
        Err(serde::de::Error::custom(message))
    }
}

impl JsonSchema for LanguageName {
    fn schema_name() -> Cow<'static, str> {
        "Language".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What the program is written in.",
            "type": "string",
            "enum": names(),
        })
    }
}

fn names() -> Vec<&'static str> {
    let languages = Image::built_in().languages.iter();
    languages.map(|language| language.name.as_str()).collect()
}
