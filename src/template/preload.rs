//! Modules that an interpreter imports before it is saved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The choice of the modules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preload {
    #[default]
    None,
    /// Those of the layers that the first program imports for which the template is made.
    OfProgram,
    Modules(Vec<String>),
}
