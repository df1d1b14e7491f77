//! The image of a guest: its kernel, its agent, its file system and the languages of its programs.

mod descriptor;
mod language;
mod language_name;
mod shelf;
pub mod store;

pub use descriptor::Image;
pub use language::{Language, Words, expand};
pub use language_name::LanguageName;
pub use shelf::Images;
