//! The parts of the guest that the binary carries: kernel, agent, and the runtime image, which is
//! unpacked once into the user's cache so that all VMs share its pages.

use crate::cache::{self, Opened, Removed, check_writable, mark_used};
use crate::error::{Error, Kind};
use crate::fs::{begin_sync, remove};
use crate::units::HUGE_PAGE;
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::memfd::{MFdFlags, memfd_create};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

macro_rules! asset {
    ($name:literal) => {
        concat!(env!("SANDBOX_ASSETS"), "/", $name)
    };
}

/// The agent's executable.
pub const AGENT: &[u8] = include_bytes!(asset!("agent"));
const KERNEL: &[u8] = include_bytes!(asset!("kernel.zst"));
const RUNTIME: &[u8] = include_bytes!(asset!("runtime.zst"));
/// `SHA-256 SIZE` of the unpacked runtime image.
const RUNTIME_IDENTITY: &str = include_str!(asset!("runtime.identity"));
/// The versions of the guest's components, one on each line.
pub const VERSIONS: &str = include_str!(asset!("versions"));

/// Whether there is a guest in this binary. The build script puts empty files in its place where it
/// has not been built yet, so that the code compiles.
pub const HAS_GUEST: bool = !RUNTIME_IDENTITY.is_empty();

/// Returns an error if this binary has no guest. All that needs a guest calls this before it does
/// anything else.
pub fn require_guest() -> Result<(), Error> {
    if HAS_GUEST {
        return Ok(());
    }
    Err(Error::new(
        Kind::Internal,
        "this build has no guest in it",
        "build it with scripts/build, which makes the guest first",
    ))
}

/// Unpacks the ELF kernel.
pub fn kernel() -> Result<Vec<u8>> {
    require_guest()?;
    zstd::decode_all(KERNEL).context("unpacking the kernel")
}

/// Opens the runtime image in the cache; unpacks it first if it is not there.
pub fn runtime() -> Result<File> {
    let (digest, size) = identity()?;
    let directory = cache::directory()?;
    let path = directory.join(runtime_name(digest));
    if let Some(file) = open_runtime(&path, size)? {
        return Ok(file);
    }
    check_writable(&directory)?;
    let _lock = lock(&directory)?;
    // The process that held the lock may have unpacked the image.
    if let Some(file) = open_runtime(&path, size)? {
        return Ok(file);
    }
    remove_unfinished(&directory)?;
    unpack_runtime(&directory, &path, (digest, size)).with_context(|| {
        format!(
            "unpacking the runtime image ({} MiB) into {}",
            size >> 20,
            directory.display()
        )
    })?;
    open_runtime(&path, size)?.context("the runtime image was changed while it was unpacked")
}

/// The beginning of a file's name until it is a whole image.
const UNFINISHED: &str = ".runtime-";

/// Returns the SHA-256 and the size of the runtime image.
pub(super) fn identity() -> Result<(&'static str, u64)> {
    require_guest()?;
    let (digest, size) = RUNTIME_IDENTITY
        .trim()
        .split_once(' ')
        .context("reading the runtime image's identity")?;
    let size = size.parse().context("reading the runtime image's size")?;
    Ok((digest, size))
}

pub(super) fn runtime_name(digest: &str) -> String {
    format!("runtime-{}.erofs", &digest[..16])
}

/// Checks whether a file with this name is an image.
pub(super) fn is_image(name: &str) -> bool {
    name.starts_with("runtime-") && name.ends_with(".erofs")
}

/// Lists the files in the cache whose names are like this, with their paths.
pub(super) fn files(
    directory: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().filter(|name| wanted(name)) {
            files.push((name.to_owned(), entry.path()));
        }
    }
    Ok(files)
}

/// Removes the images that killed processes did not finish. Only the holder of the lock may call it.
pub(super) fn remove_unfinished(directory: &Path) -> Result<Removed> {
    let mut removed = Removed::default();
    for (_, path) in files(directory, |name| name.starts_with(UNFINISHED))? {
        if let Some(size) = remove(&path)? {
            removed.count += 1;
            removed.size += size;
        }
    }
    Ok(removed)
}

/// Takes the right to unpack images, which lasts until the lock is dropped.
pub(super) fn lock(directory: &Path) -> Result<Flock<File>> {
    let file = File::open(directory)
        .with_context(|| format!("opening the cache {}", directory.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("locking the cache {}", directory.display()))
}

/// Opens the file, if nobody else can have written it and it is of the right size. Its content was
/// verified when it was unpacked.
fn open_runtime(path: &Path, size: u64) -> Result<Option<File>> {
    let opened = cache::open_trusted(path)
        .with_context(|| format!("opening the runtime image {}", path.display()))?;
    Ok(match opened {
        Opened::Trusted(file, metadata) if metadata.len() == size => {
            mark_used(&file, metadata.mtime());
            Some(file)
        }
        _ => None,
    })
}

/// Unpacks the runtime image into memory, for a machine that cannot have it from the cache.
pub fn runtime_in_memory() -> Result<File> {
    let identity = identity()?;
    let doing = "unpacking the runtime image into memory";
    let memory = memfd_create(c"runtime", MFdFlags::MFD_CLOEXEC).context(doing)?;
    let mut file = File::from(memory);
    unpack(RUNTIME, &mut file, identity).context(doing)?;
    Ok(file)
}

/// Unpacks the image to a temporary file, then renames that, so that no half-written image has the
/// name of a whole one.
fn unpack_runtime(directory: &Path, path: &Path, identity: (&str, u64)) -> Result<()> {
    let temporary = directory.join(format!("{UNFINISHED}{}", std::process::id()));
    let result = write_runtime(&temporary, identity)
        .and_then(|()| fs::rename(&temporary, path).context("renaming"));
    if result.is_err() && temporary.exists() {
        fs::remove_file(&temporary).context("removing the half-written image")?;
    }
    result
}

fn write_runtime(path: &Path, identity: (&str, u64)) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?;
    unpack(RUNTIME, &mut file, identity)?;
    file.sync_all()?;
    Ok(())
}

/// Unpacks an image of so many bytes into a file. The error says whether it is another than this one.
pub(super) fn unpack(
    packed: impl Read,
    file: &mut File,
    (digest, size): (&str, u64),
) -> Result<()> {
    let mut left = size;
    let mut unpacked = zstd::Decoder::new(packed)?;
    let (mut hash, mut piece) = (Sha256::new(), Vec::with_capacity(HUGE_PAGE));
    // A file system that can do so keeps a piece that is written at once in one huge page, and guests
    // then map it as one.
    loop {
        piece.clear();
        unpacked
            .by_ref()
            .take(HUGE_PAGE as u64)
            .read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        // A few bytes unpack to any number.
        left = left
            .checked_sub(piece.len() as u64)
            .context("it is larger than it says")?;
        hash.update(&piece);
        file.write_all(&piece)?;
        begin_sync(file);
    }
    if format!("{:x}", hash.finalize()) != digest {
        bail!("it is damaged: get it again");
    }
    Ok(())
}
