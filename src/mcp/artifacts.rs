//! Files that runs left, kept for as long as this server lives. They are resources of the client
//! that started the run. The oldest are removed first.

use crate::random;
use crate::text::is_plain;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{ContentBlock, Resource, ResourceContents};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most bytes of a text that is shown inline.
pub const SHOWN: u64 = 64 << 10;
/// The most bytes of one file.
const FILE_MAX: u64 = 16 << 20;
/// The most bytes of all files of a client, and their greatest number.
pub const BYTES_MAX: u64 = 64 << 20;
pub const COUNT_MAX: usize = 256;

/// A kept file.
#[derive(Debug, Clone)]
pub struct Entry {
    pub uri: String,
    /// The path in the guest.
    path: String,
    size: u64,
    /// The path on this host.
    host: PathBuf,
}

/// The count and size of files that one run may still leave, so that none of them displaces
/// another.
pub struct MemoryBudget {
    count: usize,
    bytes: u64,
}

impl MemoryBudget {
    pub fn new() -> Self {
        Self {
            count: COUNT_MAX,
            bytes: BYTES_MAX,
        }
    }

    /// Takes room for a file of that many bytes. Returns whether there was enough.
    pub fn take(&mut self, bytes: u64) -> bool {
        if bytes > FILE_MAX {
            // The store does not keep it anyway.
            return true;
        }
        let left = self.bytes.checked_sub(bytes).filter(|_| self.count > 0);
        if let Some(left) = left {
            (self.bytes, self.count) = (left, self.count - 1);
        }
        left.is_some()
    }
}

/// The files of all clients.
pub struct ArtifactStore {
    directory: PathBuf,
    clients: Mutex<HashMap<String, VecDeque<Entry>>>,
}

impl ArtifactStore {
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            clients: Mutex::default(),
        }
    }

    /// Takes over a file that is now in this workspace and had the given path in a guest.
    pub fn keep(&self, client: &str, workspace: &Path, from: &Path, path: &str) -> Result<Entry> {
        // The process that made it handled a hostile guest's data, so no link may lead out of the
        // workspace.
        let directory = from
            .parent()
            .context("a file in no directory")?
            .canonicalize()?;
        let metadata = fs::symlink_metadata(from).context("looking at it")?;
        if !directory.starts_with(workspace.canonicalize()?) || !metadata.is_file() {
            bail!("it is not a file of this run");
        }
        let size = metadata.len();
        if size > FILE_MAX {
            bail!("it has {size} bytes, more than {FILE_MAX}");
        }
        let name = random::unguessable_id()?;
        let host = self.directory.join(&name);
        fs::rename(from, &host).context("moving it")?;
        let name_in_guest = path.rsplit('/').next().unwrap_or(path);
        let entry = Entry {
            uri: format!("sandbox://file/{name}/{}", escaped(name_in_guest)),
            path: path.into(),
            size,
            host,
        };
        let mut clients = self.clients();
        let entries = clients.entry(client.into()).or_default();
        entries.push_back(entry.clone());
        while entries.len() > COUNT_MAX
            || entries.iter().map(|entry| entry.size).sum::<u64>() > BYTES_MAX
        {
            let oldest = entries
                .pop_front()
                .context("a file that is larger than all may be")?;
            fs::remove_file(&oldest.host).context("removing the oldest")?;
        }
        Ok(entry)
    }

    pub fn list(&self, client: &str) -> Vec<Resource> {
        let clients = self.clients();
        let entries = clients.get(client).into_iter().flatten();
        entries.map(Entry::resource).collect()
    }

    /// Finds a client's file. Returns `None` if the client has no such file, or no longer has it.
    pub fn find(&self, client: &str, uri: &str) -> Option<Entry> {
        let clients = self.clients();
        let mut entries = clients.get(client)?.iter();
        entries.find(|entry| entry.uri == uri).cloned()
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Entry>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Returns the file as a content block: a short text inline, everything else as a link.
    pub fn block(&self) -> ContentBlock {
        let shown = (self.size <= SHOWN).then(|| self.contents().ok()).flatten();
        match shown {
            Some(contents @ ResourceContents::TextResourceContents { .. }) => {
                ContentBlock::resource(contents)
            }
            _ => ContentBlock::resource_link(self.resource()),
        }
    }

    fn resource(&self) -> Resource {
        Resource::new(&self.uri, &self.path)
            .with_mime_type(mime_type(&self.path))
            .with_size(self.size)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn contents(&self) -> Result<ResourceContents> {
        let contents = contents(fs::read(&self.host)?, &self.uri);
        Ok(contents.with_mime_type(mime_type(&self.path)))
    }
}

/// Returns the bytes as text if they are plain text that hides nothing, and in base64 otherwise.
pub fn contents(bytes: Vec<u8>, uri: &str) -> ResourceContents {
    match String::from_utf8(bytes) {
        Ok(text) if is_plain(&text) => ResourceContents::text(text, uri),
        Ok(text) => ResourceContents::blob(BASE64_STANDARD.encode(text), uri),
        Err(error) => ResourceContents::blob(BASE64_STANDARD.encode(error.as_bytes()), uri),
    }
}

/// Returns the MIME type by the extension, for the files that programs make most.
fn mime_type(path: &str) -> &'static str {
    let (_, extension) = path.rsplit_once('.').unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "csv" => "text/csv",
        "htm" | "html" => "text/html",
        "md" => "text/markdown",
        "log" | "py" | "sh" | "txt" => "text/plain",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gif" => "image/gif",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        _ => "application/octet-stream",
    }
}

/// Percent-encodes a name as a segment of a URI's path (RFC 3986, 3.3).
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
