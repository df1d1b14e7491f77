//! Unpacking: makes the files that the host sends to a guest that runs.

use anyhow::{Context, Result, bail};
use guest::{Header, kind};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

/// Makes the files of a stream of records ([`guest::Header`]), in place of those that are there, which stay until
/// the new ones are whole. Directories that are there stay, with what is in them.
pub fn unpack(mut stream: impl Read) -> Result<()> {
    loop {
        let mut header = [0; Header::LENGTH];
        stream
            .read_exact(&mut header)
            .context("reading what is put")?;
        let header = Header::decode(header);
        if header.path == 0 {
            return Ok(());
        }
        let mut path = vec![0; header.path as usize];
        stream
            .read_exact(&mut path)
            .context("reading what is put")?;
        let path = Path::new(OsStr::from_bytes(&path));
        make(path, header, &mut stream).with_context(|| format!("{}", path.display()))?;
    }
}

fn make(path: &Path, header: Header, stream: &mut impl Read) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut content = stream.take(header.size);
    match header.mode & kind::MASK {
        kind::DIRECTORY => match fs::create_dir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            result => {
                result?;
                fs::set_permissions(path, permissions(header))?;
            }
        },
        kind::LINK => {
            let mut target = Vec::new();
            content.read_to_end(&mut target)?;
            remove(path)?;
            symlink(OsStr::from_bytes(&target), path)?;
        }
        kind::FILE => {
            let draft = path.with_file_name(format!(".sandbox-{}", std::process::id()));
            let made = write(&draft, header, &mut content).and_then(|()| fs::rename(&draft, path));
            if made.is_err() {
                remove(&draft)?;
            }
            made?;
        }
        _ => bail!("it is neither a file nor a directory"),
    }
    set_time(path, header.modified)?;
    Ok(())
}

/// Makes a file with this content, all of which must come.
fn write(path: &Path, header: Header, content: &mut io::Take<impl Read>) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    io::copy(content, &mut file)?;
    if content.limit() > 0 {
        return Err(io::Error::other("its content was cut"));
    }
    file.set_permissions(permissions(header))
}

fn permissions(header: Header) -> Permissions {
    Permissions::from_mode(header.mode & 0o777)
}

fn set_time(path: &Path, modified: Option<i64>) -> nix::Result<()> {
    const SECOND: i64 = 1_000_000_000;
    let Some(modified) = modified else {
        return Ok(());
    };
    let time = TimeSpec::new(modified.div_euclid(SECOND), modified.rem_euclid(SECOND));
    utimensat(
        AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
}

/// Removes what is in the place of a file. One that a process has open is its own from then on.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
