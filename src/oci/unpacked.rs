//! What is told of an image that was unpacked.

use crate::image;
use crate::oci::path::Path;
use crate::oci::programs::{PROGRAMS_MAX, is_name};
use crate::text::is_plain;
use serde::{Deserialize, Serialize};

/// What an image says of itself, once its file system is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Bytes of its file system.
    pub size: u64,
    /// Its name without registry and tag, if that can be the name of a file.
    pub name: Option<String>,
    /// Variables of the environment, as NAME=value.
    pub env: Vec<String>,
    /// What it runs.
    pub command: Vec<String>,
    /// Where it runs that, if that is not the root.
    pub workdir: Option<String>,
    /// The numbers of the user and the group that it runs it as, if it names any.
    pub user: Option<(u32, u32)>,
    /// The names of its programs, in order.
    pub programs: Vec<String>,
}

impl Unpacked {
    /// Returns whether it is what there can be: whoever tells it may have been taken over.
    pub fn is_sound(&self, size: u64) -> bool {
        let told = self.env.iter().chain(&self.command).chain(&self.workdir);
        self.size == size
            && self.name.as_deref().is_none_or(image::is_name)
            && told.into_iter().all(|text| is_plain(text))
            && self.env.iter().all(|variable| is_variable(variable))
            && self.workdir.as_deref().is_none_or(is_workdir)
            && self
                .user
                .is_none_or(|(user, group)| user.max(group) < u32::MAX)
            && self.programs.len() <= PROGRAMS_MAX
            && self.programs.iter().all(|program| is_name(program))
            && self.programs.is_sorted()
    }
}

/// Returns whether this is NAME=value.
pub fn is_variable(text: &str) -> bool {
    text.find('=').is_some_and(|at| at > 0)
}

fn is_workdir(path: &str) -> bool {
    let parsed = Path::parse(path.as_bytes(), usize::MAX);
    let is_sound = parsed.is_ok_and(|parsed| !parsed.names().is_empty());
    path.starts_with('/') && path.len() < 4096 && is_sound
}
