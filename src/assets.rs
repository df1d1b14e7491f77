//! What the binary carries: kernel, agent, and the runtime image, which is unpacked once into
//! the user's cache so that all VMs share its pages.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

macro_rules! asset {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/assets/", $name)
    };
}

/// The agent's executable.
pub const AGENT: &[u8] = include_bytes!(asset!("agent"));
const KERNEL: &[u8] = include_bytes!(asset!("kernel.zst"));
const RUNTIME: &[u8] = include_bytes!(asset!("runtime.zst"));
/// `SHA-256 SIZE` of the unpacked runtime image.
const RUNTIME_IDENTITY: &str = include_str!(asset!("runtime.identity"));
/// Versions of what the guest is made of, a line each.
pub const VERSIONS: &str = include_str!(asset!("versions"));

/// The ELF kernel.
pub fn kernel() -> Result<Vec<u8>> {
    zstd::decode_all(KERNEL).context("unpacking the kernel")
}

/// The runtime image, from the cache if it is there.
pub fn runtime() -> Result<File> {
    let (digest, size) = RUNTIME_IDENTITY
        .trim()
        .split_once(' ')
        .context("reading the runtime image's identity")?;
    let size: u64 = size.parse().context("reading the runtime image's size")?;
    let directory = cache_directory()?;
    let path = directory.join(format!("runtime-{}.erofs", &digest[..16]));
    if let Some(file) = open_trusted(&path, size) {
        return Ok(file);
    }
    unpack_runtime(&directory, &path, digest).with_context(|| {
        format!(
            "unpacking the runtime image ({} MiB) into {}",
            size >> 20,
            directory.display()
        )
    })?;
    open_trusted(&path, size).context("the runtime image was changed while it was unpacked")
}

/// `$XDG_CACHE_HOME/sandbox` or `~/.cache/sandbox`, ours alone.
fn cache_directory() -> Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let Some(base) = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
    else {
        bail!("no directory for the cache: set HOME or XDG_CACHE_HOME");
    };
    let directory = base.join("sandbox");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .with_context(|| format!("making the cache directory {}", directory.display()))?;
    let metadata = directory.symlink_metadata()?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        bail!(
            "the cache {} is not a directory of yours",
            directory.display()
        );
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))
            .context("making the cache private")?;
    }
    Ok(directory)
}

/// The file, if nobody else can have written it: a regular file of ours, unwritable, under no
/// second name, of the right size. Its content was verified when it was unpacked.
fn open_trusted(path: &Path, size: u64) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .ok()?;
    let metadata = file.metadata().ok()?;
    let trusted = metadata.is_file()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o222 == 0
        // None: another process put its own in place just now.
        && metadata.nlink() <= 1
        && metadata.len() == size;
    trusted.then_some(file)
}

/// Writes to a name of its own, then renames: the cache never holds a half-written image.
fn unpack_runtime(directory: &Path, path: &Path, digest: &str) -> Result<()> {
    let temporary = directory.join(format!(".runtime-{}", std::process::id()));
    let result = write_runtime(&temporary, digest)
        .and_then(|()| fs::rename(&temporary, path).context("renaming"));
    if result.is_err() && temporary.exists() {
        fs::remove_file(&temporary).context("removing the half-written image")?;
    }
    result
}

fn write_runtime(path: &Path, digest: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?;
    let mut unpacked = zstd::Decoder::new(RUNTIME)?;
    let (mut hash, mut bytes) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = unpacked.read(&mut bytes)?;
        if count == 0 {
            break;
        }
        hash.update(&bytes[..count]);
        file.write_all(&bytes[..count])?;
    }
    if format!("{:x}", hash.finalize()) != digest {
        bail!("the image in this binary is damaged: get the binary again");
    }
    file.sync_all()?;
    Ok(())
}
