//! The facts about a run that a policy and the log of runs need before it begins.

use crate::audit::{Code, Files};
use crate::error::{Error, Kind, Remedy};
use crate::fs::in_memory;
use crate::job::Job;
use crate::layer::Plan;
use crate::limits::PROGRAM_MAX;
use anyhow::{Context, Result};
use nix::unistd::dup2_stdin;
use serde::{Deserialize, Serialize};
use std::io::{Read, stdin};

/// The sizes and digests of the parts of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    pub code: Code,
    /// The name of its language.
    pub language: String,
    /// Files that go into the guest.
    pub files: Files,
}

/// Inspects a prepared run. A program on standard input is read, and put back for the run.
/// `keep_code` means that the inspection holds the code itself; `code_max` is the number of bytes
/// that a policy allows.
pub fn inspect(job: &Job, keep_code: bool, code_max: Option<u64>) -> Result<Inspection> {
    let read;
    let code = match job.code() {
        Some(code) => code,
        None => {
            read = read_stdin(code_max)?;
            &read
        }
    };
    let sizes = job.files.iter().map(|file| file.content.len() as u64);
    let plan = job.layer.as_ref().map(|layer| &layer.plan);
    Ok(Inspection {
        code: Code::new(code, keep_code),
        language: job.language.name.clone(),
        files: Files {
            count: job.files.len() as u64 + plan.map_or(0, Plan::inodes),
            bytes: sizes.sum::<u64>() + plan.map_or(0, Plan::content_size),
        },
    })
}

fn read_stdin(code_max: Option<u64>) -> Result<Vec<u8>> {
    // One byte more than is allowed shows that the program is too long.
    let most = code_max.map_or(PROGRAM_MAX, |most| most.min(PROGRAM_MAX));
    let mut code = Vec::new();
    stdin()
        .take(most.saturating_add(1))
        .read_to_end(&mut code)
        .context("reading the program from standard input")?;
    if code.len() as u64 > PROGRAM_MAX {
        let message = format!(
            "the program on standard input is larger than {} MiB",
            PROGRAM_MAX >> 20
        );
        return Err(Error::new(Kind::Request, message, Remedy::PutDataIntoFile).into());
    }
    let file = in_memory(&code).context("keeping the program")?;
    dup2_stdin(&file).context("giving the program back")?;
    Ok(code)
}
