//! Layers of a guest beyond its image: file systems that are mounted in it, and can only be read.

use crate::cache::{self, Opened, mark_used};
use crate::error::{Error, Kind};
use crate::wire::Bytes;
use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What stands for a directory where a layer lies over the guest's own file system.
pub const OVER_SYSTEM: &str = "/";
/// What stands for a directory where the layer is the whole file system of programs.
pub const WHOLE_SYSTEM: &str = "//";

/// A layer in a file of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerFile {
    /// The file, an image of an erofs file system.
    #[serde(with = "crate::wire")]
    #[schemars(with = "Bytes")]
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub digest: String,
    /// The directory of the guest that it is mounted on, or [`OVER_SYSTEM`] or
    /// [`WHOLE_SYSTEM`].
    pub mount: String,
    /// The names of the modules at its top.
    pub modules: Vec<String>,
}

impl LayerFile {
    /// Opens the file, if nobody else can have written it. Its content was verified when it was made.
    pub fn open(&self) -> Result<File> {
        let opened = cache::open_trusted(&self.path)
            .with_context(|| format!("opening the layer {}", self.path.display()))?;
        let why = match opened {
            Opened::Trusted(_, metadata) if metadata.len() != self.size => {
                "is refused: it has another length".into()
            }
            Opened::Trusted(file, metadata) => {
                mark_used(&file, metadata.mtime());
                return Ok(file);
            }
            Opened::Missing => "is gone".to_owned(),
            Opened::Refused(why) => format!("is refused: {why}"),
        };
        Err(Error::new(
            Kind::Host,
            format!("the layer {} {why}", self.path.display()),
            "remove it if it is there, and run again: it is then made anew",
        )
        .into())
    }
}
