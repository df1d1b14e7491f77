//! Appending to a log, under a lock that keeps out all other writers.

use crate::audit::entry::{End, Event, Usage};
use crate::audit::line::{LINE_MAX, Link, Torn, line};
use crate::audit::tail::{Rest, Tail};
use crate::clock::since_1970;
use crate::error::{Error, Kind, Remedy};
use crate::fs::is_at;
use crate::policy::Audit;
use crate::record::{Anchor, Record};
use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

/// The default size at which a new file is begun.
pub const ROTATE: u64 = 64 << 20;

/// Opens the log that a policy asks for, or else the one that is given. Returns it, and whether code
/// itself is written to it.
pub fn open(policy: Option<&Audit>, given: Option<&Path>) -> Result<Option<(Log, bool)>> {
    match (policy, given) {
        (Some(audit), Some(path)) if path != audit.file => Err(Error::new(
            Kind::Policy,
            format!("the policy has runs written to {}", audit.file.display()),
            Remedy::LeaveLogToPolicy,
        )
        .into()),
        (Some(audit), _) => {
            let rotate = audit.rotate.map_or(ROTATE, |rotate| rotate.0);
            let log = Log::open(&audit.file, rotate, audit.sync)?;
            Ok(Some((log, audit.code)))
        }
        (None, Some(path)) => Ok(Some((Log::open(path, ROTATE, false)?, false))),
        (None, None) => Ok(None),
    }
}

/// A log that entries are appended to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    /// The size in bytes at which a new file is begun.
    rotate: u64,
    /// Whether to wait for the disk after each entry.
    sync: bool,
    known: Mutex<Option<Known>>,
}

/// The log's file, as it was when this process last wrote to it.
#[derive(Debug)]
struct Known {
    file: File,
    size: u64,
    tail: Tail,
}

/// The log's file, locked so that nobody else writes to it.
struct Held {
    file: Flock<File>,
    size: u64,
    tail: Tail,
}

impl Log {
    /// Makes the file if there is none; refuses one that somebody else may have written.
    pub fn open(path: &Path, rotate: u64, sync: bool) -> Result<Self> {
        let log = Self {
            path: path.into(),
            rotate,
            sync,
            known: Mutex::new(None),
        };
        let held = log.hold(None)?;
        *log.known() = Some(held.release()?);
        Ok(log)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size at which a new file is begun, and whether each entry is waited for until it is on
    /// the disk.
    pub fn how(&self) -> (u64, bool) {
        (self.rotate, self.sync)
    }

    /// Writes an entry; returns its number and hash. When this returns, the entry is there whatever
    /// becomes of this process.
    pub fn append(&self, client: &str, event: &Event) -> Result<Anchor> {
        let mut known = self.known();
        let held = self.hold(known.take())?;
        let (held, anchor) = self
            .write(held, client, event)
            .with_context(|| format!("writing to the audit log {}", self.path.display()))?;
        *known = Some(held.release()?);
        Ok(anchor)
    }

    /// Writes the entries for the end of a run: each limit that it ran into, and the end itself.
    pub fn end(&self, client: &str, run: u64, record: &Record, process: Usage) -> Result<Anchor> {
        // Each limit is written once: the process that reports them may have been taken over.
        let limits: BTreeSet<_> = record.limits_hit.iter().copied().collect();
        for limit in limits {
            self.append(client, &Event::Limit { run, limit })?;
        }
        self.append(
            client,
            &Event::End(Box::new(End::new(run, record, process))),
        )
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else writes, locks the file, and finds the end of the log.
    fn hold(&self, mut known: Option<Known>) -> Result<Held> {
        let doing = || format!("opening the audit log {}", self.path.display());
        loop {
            let (file, before) = match known.take() {
                Some(Known { file, size, tail }) => (file, Some((size, tail))),
                None => (self.open_file()?, None),
            };
            let file = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)
                .with_context(doing)?;
            // If another process has begun a new file meanwhile, that one is opened.
            if !is_at(&file, &self.path).with_context(doing)? {
                continue;
            }
            let size = file.metadata().with_context(doing)?.len();
            let tail = match before {
                Some((before, tail)) if before == size => Some(tail),
                _ => Tail::read(&file, size).with_context(doing)?,
            };
            let tail = tail.ok_or_else(|| self.no_log())?;
            return Ok(Held { file, size, tail });
        }
    }

    fn open_file(&self) -> Result<File> {
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            // Opening must not block, as it may with a FIFO.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path);
        let file = opened.map_err(|error| self.unopened(&error))?;
        let metadata = file.metadata().context("looking at the audit log")?;
        let why = if !metadata.is_file() {
            "it is not a regular file"
        } else if metadata.uid() != geteuid().as_raw() {
            "it belongs to somebody else"
        } else if metadata.mode() & 0o077 != 0 {
            "others may read or write it"
        } else {
            return Ok(file);
        };
        Err(self.refused(why).into())
    }

    fn write(&self, held: Held, client: &str, event: &Event) -> Result<(Held, Anchor)> {
        let Held { file, size, tail } = held;
        let (mut bytes, torn) = match tail.rest {
            Rest::Nothing => (Vec::new(), None),
            Rest::NoNewline => (b"\n".into(), None),
            Rest::Torn(mut torn) => {
                let newline = if torn.ends_with(b"\n") { "" } else { "\n" };
                torn.extend(newline.bytes());
                (newline.into(), Some(Torn::new(&torn)))
            }
        };
        let mut link = Link {
            sequence: tail.sequence + 1,
            file: tail.file,
            previous: tail.hash,
            torn,
        };
        let now = UNIX_EPOCH + since_1970();
        let (mut text, mut hash) = line(&link, client, event, now);
        // A reader could not tell a longer line from one that was torn.
        ensure!(
            (text.len() as u64) < LINE_MAX,
            "an entry of the audit log is too long"
        );
        // A torn line is recorded in the file that it is in, so no new file is begun then.
        let is_full = size > 0 && size + text.len() as u64 > self.rotate;
        let rotates = is_full && bytes.is_empty() && link.torn.is_none();
        let (file, size) = if rotates {
            link.file += 1;
            (text, hash) = line(&link, client, event, now);
            (self.rotate(&file, tail.file, &text)?, text.len() as u64)
        } else {
            bytes.append(&mut text);
            let mut writer: &File = &file;
            writer.write_all(&bytes)?;
            if self.sync {
                file.sync_data()?;
            }
            (file, size + bytes.len() as u64)
        };
        let anchor = Anchor {
            sequence: link.sequence,
            hash: hash.clone(),
        };
        let tail = Tail {
            sequence: link.sequence,
            hash,
            file: link.file,
            rest: Rest::Nothing,
        };
        Ok((Held { file, size, tail }, anchor))
    }

    /// Begins a new file with this line; the full one gets its number. A process that waits for the
    /// lock of the full file finds another file in its place, and whenever this process is killed,
    /// there is a file at the log's path.
    fn rotate(&self, full: &File, number: u64, line: &[u8]) -> Result<Flock<File>> {
        let (next, numbered) = (self.beside("next"), self.beside(&number.to_string()));
        // A process that was killed in this function may have left one.
        match fs::remove_file(&next) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("removing a file that was never begun");
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)
            .context("beginning a new file")?;
        // The file is locked before other processes can find it.
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let mut writer: &File = &file;
        writer.write_all(line)?;
        if self.sync {
            file.sync_all()?;
        }
        match fs::hard_link(&self.path, &numbered) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => ensure!(
                is_at(full, &numbered)?,
                "{} is in the way of the file that is full",
                numbered.display()
            ),
            result => result.context("giving the file that is full its number")?,
        }
        fs::rename(&next, &self.path).context("putting a new file in its place")?;
        if self.sync {
            let directory = self.path.parent().filter(|path| *path != Path::new(""));
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(file)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".");
        path.push(ending);
        path.into()
    }

    fn unopened(&self, error: &io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::ELOOP) => self.refused("it is a symbolic link"),
            Some(libc::ENXIO | libc::EISDIR) => self.refused("it is not a regular file"),
            _ => {
                let above = self
                    .path
                    .parent()
                    .filter(|above| !above.as_os_str().is_empty());
                let missing = above.filter(|above| !above.exists());
                Error::new(
                    Kind::AuditLog,
                    format!(
                        "the audit log {} cannot be written: {error}",
                        self.path.display()
                    ),
                    match missing {
                        Some(above) => format!("make its directory: mkdir -p {}", above.display()),
                        None => "give a file in a directory of yours: nothing runs unless it is written down".into(),
                    },
                )
            }
        }
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(
            Kind::AuditLog,
            format!("the audit log {} is refused: {why}", self.path.display()),
            "give a regular file of yours that is nobody else's business (chmod 600), or a path \
             where there is none",
        )
    }

    fn no_log(&self) -> Error {
        let path = self.path.display();
        Error::new(
            Kind::AuditLog,
            format!("{path} does not end as an audit log does: it is none, or was changed"),
            Remedy::VerifyLog(path.to_string()),
        )
    }
}

impl Held {
    /// Unlocks the file, so that others can write.
    fn release(self) -> Result<Known> {
        let file = self.file.unlock().map_err(|(_, errno)| errno);
        Ok(Known {
            file: file.context("unlocking the audit log")?,
            size: self.size,
            tail: self.tail,
        })
    }
}
