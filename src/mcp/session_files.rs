//! Files into a session of a client's before a cell, and out of it afterwards.

use crate::files::{Excluded, Fetched, Put, PutContent, Written, list, read};
use crate::mcp::tool::arguments::File;
use crate::process::{self, OURS};
use crate::session::protocol::{Format, Request};
use crate::session::{Client, Place, Transfer};
use anyhow::{Context, Result};
use guest::{FileStream, WORKDIR};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Puts the files with a content into a session that has so many bytes of memory.
pub fn put(client: &mut Client, files: &[File], memory: u64) -> Result<()> {
    let puts = files.iter().filter_map(|file| {
        Some(Put {
            content: PutContent::Given(file.content.clone()?),
            guest: Some(file.path.clone().into()),
        })
    });
    let puts: Vec<_> = puts.collect();
    if puts.is_empty() {
        return Ok(());
    }
    let listed = list(&puts, &Excluded::of(&[])?, WORKDIR.as_bytes())?;
    let mut stream = FileStream::new(read(listed, memory)?);
    client.send(&Request::Put {
        format: Format::Records,
        user: None,
    })?;
    let sent = Transfer::new(client).send(|room| Ok(stream.take(room)));
    sent.map(drop)
}

/// Fetches the files that are asked for from a session, to this directory. It is done by `session get` in a
/// process of its own, which starts another to take apart what the guest sends: there may be no other
/// thread where that is started.
pub fn fetch(place: &Place, session: &str, files: &[File], directory: &Path) -> Result<Fetched> {
    let wanted = files.iter().filter(|file| file.is_fetched).enumerate();
    let wanted: Vec<_> = wanted
        .map(|(number, file)| (&file.path, directory.join(format!("get-{number}"))))
        .collect();
    let mut fetched = Fetched::default();
    if wanted.is_empty() {
        return Ok(fetched);
    }
    let parent = place
        .directory()
        .parent()
        .context("a place in no directory")?;
    let words = wanted.iter().map(|(path, host)| {
        let mut word = OsString::from(path);
        word.push(":");
        word.push(host);
        word
    });
    process::command(Path::new(OURS))
        .args(["session", "get", "--", session])
        .args(words)
        .env("XDG_RUNTIME_DIR", parent)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("starting the process that fetches files")?;
    // Whatever it said: what is there is whole.
    for (path, host) in wanted {
        match host.symlink_metadata() {
            Ok(there) => add(&mut fetched, path.clone(), host, &there)?,
            Err(_) => fetched.missing.add(path.clone()),
        }
    }
    Ok(fetched)
}

/// Adds a file, or those in a directory.
fn add(fetched: &mut Fetched, guest: String, host: PathBuf, metadata: &Metadata) -> Result<()> {
    if metadata.is_dir() {
        for entry in fs::read_dir(&host)? {
            let entry = entry?;
            let name = format!("{guest}/{}", entry.file_name().display());
            add(fetched, name, entry.path(), &entry.metadata()?)?;
        }
    } else {
        fetched.files.add(Written {
            guest,
            host: host.to_string_lossy().into_owned(),
            size: metadata.len(),
        });
    }
    Ok(())
}
