//! All of the work: from an archive to the image of a file system.

use crate::error::{Error, Kind};
use crate::layer::Plan;
use crate::oci::archive::Archive;
use crate::oci::bounds::Bounds;
use crate::oci::contents::Contents;
use crate::oci::documents::Process;
use crate::oci::finish::{complete, into_layer};
use crate::oci::layers::Merge;
use crate::oci::manifest::choose;
use crate::oci::path::Path;
use crate::oci::programs::programs;
use crate::oci::refusal::{malformed, refused, shown};
use crate::oci::unpacked::{Unpacked, is_variable};
use crate::oci::user;
use crate::text::is_plain;
use std::fs::File;

/// Upper bound on the bytes of a working directory's path, with the zero at its end (PATH_MAX).
const WORKDIR_MAX: usize = 4096;

/// The files of an archive's unpacking. All but the archive are empty.
pub struct Files {
    pub archive: File,
    /// Bytes of the archive.
    pub size: u64,
    /// For the archive, if it is compressed as a whole.
    pub whole: File,
    /// For the contents of its files.
    pub contents: File,
    pub image: File,
}

/// Writes the image of an archive's file system.
pub fn unpack(files: Files, bounds: Bounds) -> Result<Unpacked, Error> {
    let archive = Archive::open(files.archive, files.size, files.whole, bounds)?;
    let chosen = choose(&archive, bounds)?;
    let (env, command) = told(&chosen.process)?;
    let workdir = workdir(&chosen.process, bounds)?;
    let mut merge = Merge::new(Contents::new(files.contents, bounds.content), bounds);
    for layer in &chosen.layers {
        merge.add(&archive, layer)?;
    }
    complete(&mut merge, workdir.as_ref())?;
    merge.contents.finish()?;
    let user = chosen.process.user.as_deref().unwrap_or_default();
    let user = user::resolved(user, &merge.tree)?;
    let programs = programs(&merge.tree, &env)?;
    // Whoever looked for these took what is too far for what is not there.
    merge.tree.check_steps()?;
    let plan = Plan::of(into_layer(&merge.tree)?)?;
    drop(merge);
    plan.write(&files.image).map_err(failed)?;
    Ok(Unpacked {
        size: plan.size(),
        name: chosen.name,
        env,
        command,
        workdir: workdir.map(|path| format!("/{}", String::from_utf8_lossy(&path.joined()))),
        user,
        programs,
    })
}

/// Returns the environment and the command of an image.
fn told(process: &Process) -> Result<(Vec<String>, Vec<String>), Error> {
    let env = process.env.iter().flatten().filter(|it| is_variable(it));
    let parts = [&process.entrypoint, &process.cmd];
    let command = parts.into_iter().flatten().flatten();
    let (env, command): (Vec<_>, Vec<_>) = (env.cloned().collect(), command.cloned().collect());
    match env.iter().chain(&command).find(|text| !is_plain(text)) {
        Some(text) => Err(refused(
            format!(
                "its environment or its command has characters that cannot be shown: {}",
                shown(text)
            ),
            "make the image without them",
        )),
        None => Ok((env, command)),
    }
}

/// Returns the directory that an image's command starts in, if that is not the root. One that does not begin there
/// begins there nevertheless.
fn workdir(process: &Process, bounds: Bounds) -> Result<Option<Path>, Error> {
    let told = process.working_dir.as_deref().unwrap_or_default();
    if told.is_empty() {
        return Ok(None);
    }
    if !is_plain(told) || told.len() >= WORKDIR_MAX {
        return Err(malformed(format!(
            "its working directory {} cannot be",
            shown(told)
        )));
    }
    let mut names = Vec::new();
    for name in told.split('/') {
        match name {
            "" | "." => {}
            // As docker does; links are not looked at.
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let path = Path::parse(format!("/{}", names.join("/")).as_bytes(), bounds.depth)?;
    Ok(Some(path).filter(|path| !path.names().is_empty()))
}

fn failed(error: anyhow::Error) -> Error {
    let remedy = "free space for it, and see that no limit is too low: ulimit -a";
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(
            Kind::File,
            format!("it cannot be written: {error:#}"),
            remedy,
        ),
    }
}
