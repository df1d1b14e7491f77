//! The choice of an image by a program that asks for what the image at hand does not have.

use crate::image::{self, Imported};
use crate::job::{Job, Parts, Source, make, script};
use anyhow::Result;

/// Makes the job for the image that has what the program asks for: the Python that its first line names,
/// or its language.
pub fn make_for_any(parts: Parts) -> Result<Job> {
    let mut job = make_in_any(parts)?;
    job.choose_python()?;
    Ok(job)
}

/// Makes the job; where its image lacks the program's language, for an image of ours that was imported and has
/// it. So whatever is imported, a program that ran before runs as it did. What others made never runs a program
/// unasked: their names would decide between them and ours.
fn make_in_any(parts: Parts) -> Result<Job> {
    let failure = match make(parts) {
        Ok(job) => return Ok(job),
        Err(failure) => failure,
    };
    // What cannot be listed is not there, and a pipe cannot be read again.
    let images = match parts.source {
        Source::File(path) if !path.is_file() => Vec::new(),
        _ => Imported::open()
            .and_then(|its| its.all())
            .unwrap_or_default(),
    };
    let ours = images.iter().filter(|image| image.system.is_none());
    let job = ours
        .into_iter()
        .find_map(|image| make(Parts { image, ..parts }).ok());
    Ok(job.ok_or(failure)?)
}

impl Job {
    /// Takes the image that has the Python which the script's first line names. All images with a
    /// Python run programs in the same way.
    fn choose_python(&mut self) -> Result<()> {
        let script = self.script.as_ref().map(|script| &script.content[..]);
        let Some(version) = script.and_then(script::python_named) else {
            return Ok(());
        };
        let name = format!("python{version}");
        if self.language.has_interpreter(name.as_bytes()) && !self.image.has_python(version) {
            self.image = image::with_python(version)?;
            let its = self.image.find(&self.language.name);
            self.language = its.unwrap_or(&self.language).clone();
        }
        Ok(())
    }
}
