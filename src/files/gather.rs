//! All files that go into the guest beside the program itself.

use crate::error::{Error, Remedy};
use crate::files::put::{is_writable, list, place_in_puts, read};
use crate::files::tree::List;
use crate::files::{Excluded, Put, Siblings, layer, siblings, unusable};
use crate::job::{Job, PutLayer, Source, beneath};
use crate::units::format_size;
use serde::{Deserialize, Serialize};

/// The files that are wanted in the guest, and the bounds on them.
pub struct Wanted<'a> {
    pub puts: &'a [Put],
    /// Patterns of what to leave out of directories.
    pub excluded: &'a [String],
    /// The bounds on what goes with a script unasked; `None`: nothing does.
    pub siblings: Option<Siblings>,
    /// The bytes of the guest's memory.
    pub memory: u64,
    /// The window in which it can be shown a layer, if any is free.
    pub window: Option<usize>,
}

/// The facts about the files of a run.
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
    let mut list = list(wanted.puts, &excluded, &job.frame.workdir)?;
    if !is_put {
        list.add_new(beside(job, wanted, &excluded, &list, &mut gathered)?);
    }
    if let Some(window) = wanted.window {
        job.layer = layer(job, &mut list, window)?;
    }
    job.files = read(list, wanted.memory)?;
    Ok(gathered)
}

/// Lists the files that go with the program unasked, besides those of another list.
fn beside(
    job: &Job,
    wanted: &Wanted,
    excluded: &Excluded,
    puts: &List,
    gathered: &mut Gathered,
) -> Result<List, Error> {
    match (&job.source, &job.directory, wanted.siblings) {
        (Source::File(path), Some(directory), _) => {
            let target = beneath(&job.frame.workdir, &directory.path);
            siblings::of_directory(path, &target, excluded)
        }
        (_, None, Some(most)) => {
            let most = most.without(puts);
            Ok(
                siblings::of_program(job, excluded, most).unwrap_or_else(|error| {
                    gathered.left_out = Some(left_out(&job.source, most, &error));
                    List::nothing()
                }),
            )
        }
        _ => Ok(List::nothing()),
    }
}

/// Takes the files out of the list that the guest is to mount, and plans their layer.
fn layer(job: &Job, list: &mut List, window: usize) -> Result<Option<PutLayer>, Error> {
    let mut found = layer::take(list);
    if found.is_empty() {
        return Ok(None);
    }
    // The script is made in the guest, in place of any file that was put at its path.
    if let Some(script) = &job.script {
        let path = beneath(&job.frame.workdir, &script.path);
        found.retain(|one| one.guest != path);
    }
    let plan = layer::plan(&found, job.frame.user)?;
    Ok(Some(PutLayer { plan, window }))
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
    let message = format!("{what} did not go in, though the program uses some of it: {why}");
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
