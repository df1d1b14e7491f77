//! Modules that an interpreter imports before it is saved.

use crate::image::Language;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The choice of the modules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preload {
    #[default]
    None,
    /// Those of its own library that its image names.
    Library,
    /// These, and those of the layers that the first program imports for which the template is made.
    OfProgram,
    /// Those of the library, and these.
    Modules(Vec<String>),
}

impl Preload {
    /// Returns the choice for a program in a language that takes nothing of layers.
    pub fn of(language: &Language) -> Self {
        match language.has_hooks() {
            true => Self::Library,
            false => Self::None,
        }
    }
}
