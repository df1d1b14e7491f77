//! The lock beside a script: `plot.py.lock` of `plot.py`.

use crate::error::{Error, Kind, Packages as Way, Remedy};
use crate::key::Key;
use crate::packages::lock::{Lock, refused};
use crate::packages::request;
use anyhow::{Context, Result};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Returns the path of the lock beside a script.
pub fn path(script: &Path) -> PathBuf {
    let mut name = script.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Finds the lock beside a script, if it is one for this request. If it must be there, anything else is
/// an error that says what it is.
pub fn find(script: &Path, request: &Key, required: bool) -> Result<Option<Lock>, Error> {
    let path = path(script);
    let shown = path.display().to_string();
    if let Err(error) = path.metadata()
        && error.kind() == ErrorKind::NotFound
    {
        let none = Error::new(
            Kind::File,
            format!("there is no lock {shown}"),
            Remedy::GetPackages(Way::RenewLock),
        );
        return if required { Err(none) } else { Ok(None) };
    }
    let lock = request::read(&path).and_then(|text| {
        let lock = Lock::parse(&text).map_err(|why| refused(&shown, &why))?;
        match lock.request.as_ref() == Some(request) {
            true => Ok(lock),
            false => Err(refused(
                &shown,
                "it was made for something else than is asked for now",
            )),
        }
    });
    match lock {
        // Another program's lock may have that name.
        Err(_) if !required => Ok(None),
        lock => lock.map(Some),
    }
}

/// Writes a lock to a file: whoever reads that meanwhile finds the old one or the new one.
pub fn write(path: &Path, lock: &Lock) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let mut options = fs::File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .open(&draft)
        .with_context(doing)?;
    let written = file
        .write_all(lock.text.as_bytes())
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        fs::remove_file(&draft).with_context(doing)?;
    }
    written.with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::fixture::lock;

    #[test]
    fn the_lock_beside_a_script_is_taken_if_it_is_of_what_the_script_asks_for() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("a.py");
        let (request, other) = (Key::of(&[b"one"]), Key::of(&[b"two"]));
        assert_eq!(find(&script, &request, false), Ok(None));
        assert_eq!(
            find(&script, &request, true).unwrap_err().remedy,
            Remedy::GetPackages(Way::RenewLock)
        );
        write(&path(&script), &lock(&request)).unwrap();
        assert_eq!(find(&script, &request, true), Ok(Some(lock(&request))));
        assert_eq!(find(&script, &other, false), Ok(None));
        let error = find(&script, &other, true).unwrap_err();
        assert!(
            error
                .message
                .contains("a.py.lock is refused: it was made for"),
            "{error}"
        );
        write(&path(&script), &lock(&other)).unwrap();
        assert_eq!(find(&script, &other, true), Ok(Some(lock(&other))));
        fs::write(path(&script), "version = 1\n[[package]]\n").unwrap();
        assert_eq!(find(&script, &request, false), Ok(None));
        assert!(
            find(&script, &request, true)
                .unwrap_err()
                .message
                .contains("uv's own")
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
