//! The image of a guest: its kernel, its agent, its file system and the languages of its programs.

mod choice;
mod descriptor;
mod draft;
mod image_file;
mod imported;
mod known_languages;
mod language;
mod language_name;
mod layer_file;
mod name;
mod packages;
pub mod python_version;
mod shelf;
pub mod store;
mod system;

pub use choice::{named, newest, no_python, with_python};
pub use descriptor::Image;
pub use image_file::is_ours;
pub use imported::{Foreign, Imported, layer, name_fault, runtime};
pub use language::{Framing, Language, Warm, Words, expand};
pub use language_name::LanguageName;
pub use layer_file::{LayerFile, OVER_SYSTEM, WHOLE_SYSTEM};
pub use name::is_name;
pub use packages::Packages;
pub use shelf::Images;
pub use system::{DEFAULT_PATH, System};
