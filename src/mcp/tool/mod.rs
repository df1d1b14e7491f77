//! The tools that a client of the server can call: what they take and what they answer.

pub(crate) mod answer;
pub(crate) mod arguments;
pub(crate) mod description;
pub(crate) mod languages;
pub(crate) mod remedies;
pub(crate) mod schema;
