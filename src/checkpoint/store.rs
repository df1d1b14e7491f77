//! The checkpoints of this user, as a shelf of the cache. Nobody can make one again, so they are removed only
//! where somebody asks for it.

use crate::cache::{
    self, Item, Opened, Removed, Shelf, check_writable, is_in_use, mark_used, open_trusted,
};
use crate::checkpoint::file::{Head, each_piece};
use crate::checkpoint::point::{POINT_OFFSET, Point};
use crate::clock::since_1970;
use crate::error::{Checkpoint as Way, Error, Kind, Remedy};
use crate::fs::{BLOCK, remove, size_on_disk};
use crate::key::Key;
use crate::units::rough;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const ENDING: &str = ".checkpoint";
/// The ending of the name of one that is being written, behind that of the process.
const DRAFT: &str = ".draft";

/// The directory of checkpoints.
pub struct Checkpoints {
    directory: PathBuf,
    /// Whether they stay, however much the cache keeps.
    pub are_kept: bool,
}

/// A checkpoint that can be used.
pub struct Checkpoint {
    pub file: File,
    /// The length of the point in it.
    pub length: u64,
    pub point: Point,
}

/// The file of a checkpoint that can be read, with when it was last used.
struct Found {
    file: File,
    used: i64,
    head: Head,
}

impl Checkpoints {
    /// Opens `checkpoints` in the user's cache, and creates it if it does not exist.
    pub fn open() -> Result<Self> {
        Ok(Self {
            directory: cache::subdirectory("checkpoints")?,
            are_kept: true,
        })
    }

    /// Lets them be removed like the rest of the cache.
    pub fn unkept(self) -> Self {
        Self {
            are_kept: false,
            ..self
        }
    }

    /// Finds the checkpoint of this name, all of whose content is as it was saved, and which can be used here.
    /// It is in use from now on.
    pub fn find(&self, name: &str) -> Result<Checkpoint> {
        let found = match self.look(name)? {
            None => {
                return Err(Error::new(
                    Kind::Request,
                    format!("there is no checkpoint {name}"),
                    Remedy::UseCheckpoint(Way::Save),
                )
                .into());
            }
            Some(found) => found.map_err(|why| refused(name, &why))?,
        };
        let Found { file, used, head } = found;
        head.check_place()?.map_err(|why| refused(name, why))?;
        let point = head.verify(&file)?.map_err(|why| refused(name, why))?;
        mark_used(&file, used);
        Ok(Checkpoint {
            length: head.length,
            file,
            point,
        })
    }

    /// Saves the machine in this file under a name, if no other has it or that is to be replaced.
    pub fn save(
        &self,
        name: &str,
        (source, length, point): (&File, u64, &Point),
        description: String,
        replaces: bool,
    ) -> Result<()> {
        check_writable(&self.directory)?;
        let path = self.path(name);
        if !replaces && path.symlink_metadata().is_ok() {
            return Err(Error::new(
                Kind::Request,
                format!("there is a checkpoint {name} already"),
                Remedy::UseCheckpoint(Way::Replace),
            )
            .into());
        }
        let draft = self
            .directory
            .join(format!("{name}.{}{DRAFT}", std::process::id()));
        let written = write(&draft, (source, length, point), description)
            .and_then(|_lock| fs::rename(&draft, &path).context("giving a checkpoint its name"));
        if written.is_err() {
            // What cannot be removed now is removed with what killed processes left.
            fs::remove_file(&draft).unwrap_or_default();
        }
        written.with_context(|| format!("writing the checkpoint {}", path.display()))
    }

    /// Returns the templates that machines here go on from.
    pub fn bases(&self) -> Result<BTreeSet<Key>> {
        let mut bases = BTreeSet::new();
        for name in self.names()? {
            if let Some(Ok(found)) = self.look(&name)? {
                bases.insert(found.head.base);
            }
        }
        Ok(bases)
    }

    /// Looks at the file of a checkpoint; the error is why it is of no use anywhere.
    fn look(&self, name: &str) -> Result<Option<Result<Found, String>>> {
        let path = self.path(name);
        let opened = open_trusted(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(match opened {
            Opened::Missing => None,
            Opened::Refused(why) => Some(Err(why.into())),
            Opened::Trusted(file, metadata) => {
                let head = Head::read(&file, metadata.len());
                let used = metadata.mtime();
                let found = head.map(|head| Found { file, used, head });
                Some(found.map_err(str::to_owned))
            }
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{ENDING}"))
    }

    fn names(&self) -> Result<Vec<String>> {
        self.files_with(ENDING)
    }

    /// Returns the names of files with this ending, without it.
    fn files_with(&self, ending: &str) -> Result<Vec<String>> {
        let reading = || format!("reading the directory {}", self.directory.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(ending));
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }
}

impl Shelf for Checkpoints {
    fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for name in self.names()? {
            let about = match self.look(&name)? {
                None => continue,
                Some(Ok(found)) => found.head.check_place()?.map(|()| about(&found.head)),
                Some(Err(why)) => {
                    items.extend(self.item(name, Err(why)));
                    continue;
                }
            };
            items.extend(self.item(name, about.map_err(str::to_owned)));
        }
        Ok(items)
    }

    fn remove(&self, name: &str) -> Result<bool> {
        let path = self.path(name);
        Ok(!is_in_use(&path) && remove(&path)?.is_some())
    }

    fn sweep(&self) -> Result<Removed> {
        let mut removed = Removed::default();
        for name in self.files_with(DRAFT)? {
            let path = self.directory.join(format!("{name}{DRAFT}"));
            // Whoever writes it holds it.
            let file = File::open(&path).ok();
            let lock =
                file.and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
            if lock.is_some()
                && let Some(size) = remove(&path)?
            {
                removed.count += 1;
                removed.size += size;
            }
        }
        Ok(removed)
    }

    fn verify(&self, name: &str) -> Result<bool> {
        match self.look(name)? {
            Some(Ok(found)) => Ok(found.head.verify(&found.file)?.is_ok()),
            Some(Err(_)) | None => Ok(false),
        }
    }
}

impl Checkpoints {
    /// Returns what is listed of a file, unless it was removed meanwhile.
    fn item(&self, name: String, about: Result<String, String>) -> Option<Item> {
        let metadata = self.path(&name).symlink_metadata().ok()?;
        Some(Item {
            size: metadata.blocks() * BLOCK,
            used: metadata.mtime(),
            is_needed: self.are_kept,
            is_spare: false,
            about,
            name,
        })
    }
}

/// Writes a checkpoint to a new file, and returns the lock on it.
fn write(
    draft: &Path,
    (source, length, point): (&File, u64, &Point),
    description: String,
) -> Result<Flock<File>> {
    // One that a process of the same number left.
    if size_on_disk(draft)?.is_some() {
        fs::remove_file(draft).context("removing what a killed process left")?;
    }
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(draft).context("making a file")?;
    let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    file.set_len(point.file_length()?)?;
    let mut bytes = vec![0; length as usize];
    source.read_exact_at(&mut bytes, POINT_OFFSET)?;
    file.write_all_at(&bytes, POINT_OFFSET)?;
    each_piece(&point.own, |offset, bytes| {
        source.read_exact_at(bytes, offset)?;
        Ok(file.write_all_at(bytes, offset)?)
    })?;
    let created = since_1970().as_secs();
    Head::of(&file, point, length, description, created)?.write(&file)?;
    file.set_permissions(Permissions::from_mode(0o400))?;
    file.sync_all()?;
    Ok(file)
}

fn about(head: &Head) -> String {
    let age = since_1970().as_secs().saturating_sub(head.created);
    format!("checkpoint of {}, {} old", head.description, rough(age))
}

fn refused(name: &str, why: &str) -> Error {
    Error::new(
        Kind::Request,
        format!("the checkpoint {name} is refused: {why}"),
        Remedy::UseCheckpoint(Way::SaveAnother),
    )
}
