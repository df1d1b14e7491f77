//! All files that go into the guest beside the program itself.

use crate::error::{Error, Remedy};
use crate::files::put::{is_writable, place_in_puts, read, room, too_large};
use crate::files::{Excluded, Put, Siblings, beside, unusable};
use crate::job::{Job, Source, beneath};
use crate::units::format_size;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// What is wanted in the guest.
pub struct Wanted<'a> {
    pub puts: &'a [Put],
    /// Patterns of what to leave out of directories.
    pub excluded: &'a [String],
    /// The bounds on what goes with a script unasked; `None`: nothing does.
    pub siblings: Option<Siblings>,
    /// The bytes of the guest's memory.
    pub memory: u64,
}

/// What is to be known of the files of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Gathered {
    /// The working directory, if files cannot be made there.
    pub fixed_workdir: Option<String>,
    /// Why files that would have gone with the program did not.
    pub left_out: Option<Error>,
}

/// Returns the place of the program in the guest, if it is in a directory that is put.
pub fn place_of(source: &Source, puts: &[Put], workdir: &[u8]) -> Option<Vec<u8>> {
    match source {
        Source::File(path) => place_in_puts(path, puts, workdir),
        _ => None,
    }
}

/// Reads the files into the job. `is_put` means that the program is in a directory that is put, with
/// all that it needs.
pub fn gather(job: &mut Job, wanted: &Wanted, is_put: bool) -> Result<Gathered, Error> {
    check_workdir(job)?;
    let mut gathered = Gathered {
        fixed_workdir: fixed(&job.frame.workdir),
        left_out: None,
    };
    let excluded = Excluded::of(wanted.excluded)?;
    let workdir = &job.frame.workdir;
    job.files = read(wanted.puts, &excluded, workdir, wanted.memory)?;
    if is_put {
        return Ok(gathered);
    }
    let added = match (&job.source, &job.directory, wanted.siblings) {
        (Source::File(path), Some(directory), _) => {
            let target = beneath(workdir, &directory.path);
            let room = room(wanted.memory);
            let files = beside::of_directory(path, &target, &excluded, room)?;
            files.ok_or_else(|| too_large(room, wanted.memory))?
        }
        (_, None, Some(most)) => {
            let most = most.without(&job.files);
            beside::of_program(job, &excluded, most).unwrap_or_else(|error| {
                gathered.left_out = Some(left_out(&job.source, most, &error));
                Vec::new()
            })
        }
        _ => Vec::new(),
    };
    let given: HashSet<_> = job.files.iter().map(|file| file.path.clone()).collect();
    let is_new = |file: &guest::File| !given.contains(&file.path);
    job.files.extend(added.into_iter().filter(is_new));
    Ok(gathered)
}

fn left_out(source: &Source, most: Siblings, error: &Error) -> Error {
    let what = match source {
        Source::File(script) => format!("what is beside {}", script.display()),
        _ => "what is in the current directory".into(),
    };
    let why = match most {
        Siblings::MOST => error.message.clone(),
        Siblings { count, size } => format!(
            "the policy and what was put leave room for {count} files and {}",
            format_size(size)
        ),
    };
    let message = format!("{what} did not go in, though the program imports some of it: {why}");
    unusable(message, Remedy::ChooseSiblings)
}

/// Refuses a working directory that cannot take the script.
fn check_workdir(job: &Job) -> Result<(), Error> {
    let script = job.script.as_ref().or(job.directory.as_ref());
    match (script, fixed(&job.frame.workdir)) {
        (Some(_), Some(workdir)) => Err(unusable(
            format!("the script cannot be put into {workdir}: nothing can be written there"),
            Remedy::ChooseWorkdir,
        )),
        _ => Ok(()),
    }
}

/// Returns the working directory, if files cannot be made there.
fn fixed(workdir: &[u8]) -> Option<String> {
    (!is_writable(workdir)).then(|| String::from_utf8_lossy(workdir).into_owned())
}
