//! The files that go with a program unasked: those beside a script that loads one of them, and those
//! of a directory that is a program.

use crate::error::Error;
use crate::files::tree::{List, TreeEntry};
use crate::files::{COUNT_MAX, Excluded};
use crate::image::Language;
use crate::job::{Job, LoadedNames, Source, beneath, text};
use nix::unistd::{AccessFlags, access};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Upper bounds on the files that go with a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Siblings {
    /// Files and directories.
    pub count: u64,
    /// The bytes of their content.
    pub size: u64,
}

impl Siblings {
    pub const MOST: Self = Self {
        count: 1000,
        size: 10 << 20,
    };

    /// Returns the bounds that are within these limits too.
    pub fn within(self, count: Option<u64>, size: Option<u64>) -> Self {
        Self {
            count: count.map_or(self.count, |count| count.min(self.count)),
            size: size.map_or(self.size, |size| size.min(self.size)),
        }
    }

    /// Returns what is left once these files have gone in.
    pub fn without(self, files: &List) -> Self {
        Self {
            count: self.count.saturating_sub(files.found.len() as u64),
            size: self.size.saturating_sub(files.size()),
        }
    }
}

/// Directories that tools make, which no program needs.
const MADE_BY_TOOLS: [&str; 2] = ["node_modules", "__pycache__"];
/// The file that a directory has which is a virtual environment.
const ENVIRONMENT: &str = "pyvenv.cfg";

/// Lists the files beside a script, if it loads one of them, or those in the current directory, if a
/// module is there that is to run.
pub fn of_program(job: &Job, excluded: &Excluded, most: Siblings) -> Result<List, Error> {
    let mut list = List::new(most.count, most.size);
    let Some(loading) = loading(job, excluded) else {
        return Ok(list);
    };
    let is_itself = |entry: &TreeEntry| loading.script.as_deref() == Some(entry.host);
    let stays = |entry: &TreeEntry| is_itself(entry) || stays(entry, excluded);
    list.add_inside(&loading.directory, &loading.target, &stays)?;
    Ok(list)
}

/// Lists the files of a directory that is a program.
pub fn of_directory(directory: &Path, target: &[u8], excluded: &Excluded) -> Result<List, Error> {
    let mut list = List::new(COUNT_MAX as u64, u64::MAX);
    list.add_inside(directory, target, &|entry| stays(entry, excluded))?;
    Ok(list)
}

/// Returns whether something beside a script stays on the host: what is hidden, what tools make, what
/// is excluded, and what is no file that can be read.
fn stays(entry: &TreeEntry, excluded: &Excluded) -> bool {
    let name = entry.path.file_name().unwrap_or_default();
    let file_type = entry.metadata.file_type();
    let is_directory = file_type.is_dir();
    let needed = match is_directory {
        true => AccessFlags::R_OK | AccessFlags::X_OK,
        false => AccessFlags::R_OK,
    };
    name.as_bytes().starts_with(b".")
        || MADE_BY_TOOLS.iter().any(|made| name == *made)
        || excluded.has(entry.path, is_directory)
        || !(is_directory || file_type.is_file() || file_type.is_symlink())
        || (is_directory && entry.host.join(ENVIRONMENT).is_file())
        || (!file_type.is_symlink() && access(entry.host, needed).is_err())
}

/// A directory that a program loads something from.
struct Loading {
    directory: PathBuf,
    /// The script itself, if it is there.
    script: Option<PathBuf>,
    /// The place of the directory in the guest.
    target: Vec<u8>,
}

/// Returns where the program loads something from, if it does.
fn loading(job: &Job, excluded: &Excluded) -> Option<Loading> {
    let language = &job.language;
    let is_module_here = |name: &str| {
        let names = LoadedNames::of_module(name);
        has_module(Path::new("."), None, &names, language, excluded)
    };
    let uses_directory = match &job.source {
        Source::Module(name) => Some(is_module_here(name) || names_what_is_here(job.own_words())),
        Source::Command => Some(names_what_is_here(job.own_words())),
        _ => None,
    };
    if let Some(uses_directory) = uses_directory {
        return uses_directory.then(|| Loading {
            directory: ".".into(),
            script: None,
            target: job.frame.workdir.clone(),
        });
    }
    let (Source::File(path), Some(script)) = (&job.source, &job.script) else {
        return None;
    };
    let text = text(&script.content);
    let names = LoadedNames::of(language, &text);
    if names.is_empty() {
        return None;
    }
    // What a link leads to is beside what it leads to, as for the interpreter.
    let real = path.canonicalize().ok().filter(|real| real.is_file())?;
    let directory = real.parent()?;
    let above = Path::new(OsStr::from_bytes(&script.path)).parent();
    let above = above.map_or(&b""[..], |above| above.as_os_str().as_bytes());
    has_module(directory, Some(&real), &names, language, excluded).then(|| Loading {
        directory: directory.into(),
        target: beneath(&job.frame.workdir, above),
        script: Some(real.clone()),
    })
}

/// Returns whether one of these words is the path of something in the current directory. What follows `::`
/// names something in a file.
fn names_what_is_here(words: &[Vec<u8>]) -> bool {
    words.iter().any(|word| {
        let end = word.windows(2).position(|pair| pair == b"::");
        let path = Path::new(OsStr::from_bytes(&word[..end.unwrap_or(word.len())]));
        let mut parts = path.components();
        let is_inside = parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        is_inside && !word.is_empty() && path.symlink_metadata().is_ok()
    })
}

/// Returns whether a directory has something with one of these names that can be loaded, other than
/// the script itself.
fn has_module(
    directory: &Path,
    script: Option<&Path>,
    names: &LoadedNames,
    language: &Language,
    excluded: &Excluded,
) -> bool {
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| {
        let path = entry.path();
        let is_named = entry
            .file_name()
            .to_str()
            .is_some_and(|name| names.has(name));
        is_named && script != Some(&path) && is_module(&path, language, excluded)
    })
}

/// Returns whether scripts of this language can load what is at the path: a file with an ending for
/// that, or a directory that has one in it.
fn is_module(path: &Path, language: &Language, excluded: &Excluded) -> bool {
    let is_file = |path: &Path| {
        let ending = path.extension().and_then(OsStr::to_str);
        ending.is_some_and(|ending| language.modules.iter().any(|its| its == ending))
    };
    let Ok(metadata) = path.metadata() else {
        return false;
    };
    let name = path.file_name().map(Path::new).unwrap_or(path);
    if excluded.has(name, metadata.is_dir()) {
        return false;
    }
    match metadata.is_dir() {
        false => is_file(path),
        true => {
            let mut entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.any(|entry| is_file(&entry.path()))
        }
    }
}
