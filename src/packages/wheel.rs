//! Wheels of the user's own: files that are packages.

use crate::error::{Error, Kind};
use crate::text::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A wheel in a file on this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wheel {
    /// The file's name, which says what is in it.
    pub name: String,
    /// SHA-256 of it, in hexadecimal digits.
    pub digest: String,
    pub path: PathBuf,
}

impl Wheel {
    /// Looks at the wheel at this path.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| split(name).is_some()).ok_or_else(|| {
            Error::new(
                Kind::File,
                format!("{shown} is not named as a wheel is"),
                "name a wheel, such as ./demo-1.0-py3-none-any.whl; make one of a source with pip wheel",
            )
        })?;
        let unreadable = |error| {
            Error::new(
                Kind::File,
                format!("the wheel {shown} cannot be read: {error}"),
                "check the path and its permissions",
            )
        };
        Ok(Self {
            name: name.into(),
            digest: File::open(path).and_then(digest).map_err(unreadable)?,
            path: path.into(),
        })
    }

    /// Puts a copy of it into this directory, where the resolver may read it. It must still be what was
    /// looked at.
    pub fn copy_into(&self, directory: &Path) -> Result<(), Error> {
        let copy = directory.join(&self.name);
        let copied =
            std::fs::copy(&self.path, &copy).and_then(|_| File::open(copy).and_then(digest));
        let fault = match copied {
            Ok(digest) if digest == self.digest => return Ok(()),
            Ok(_) => "has changed meanwhile".into(),
            Err(error) => format!("cannot be copied: {error}"),
        };
        Err(Error::new(
            Kind::File,
            format!("the wheel {} {fault}", self.path.display()),
            "see that nobody writes to it, and that there is space in the cache, then run it again",
        ))
    }
}

/// Returns the name and the version of the distribution in a wheel with this file name.
pub fn split(name: &str) -> Option<(&str, &str)> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+!".contains(c);
    let stem = name.strip_suffix(".whl")?;
    let parts: Vec<_> = stem.split('-').collect();
    let is_whole = matches!(parts.len(), 5 | 6) && parts.iter().all(|part| !part.is_empty());
    (is_whole && stem.chars().all(is_plain)).then(|| (parts[0], parts[1]))
}

/// Returns SHA-256 of a file, in hexadecimal digits.
pub fn digest(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&piece[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_wheel_says_in_its_name_what_it_is() {
        assert_eq!(split("a_b-1.0-py3-none-any.whl"), Some(("a_b", "1.0")));
        assert_eq!(
            split("a-1!2+c-1-cp313-cp313-linux_x86_64.whl"),
            Some(("a", "1!2+c"))
        );
        for name in [
            "a-1.0-py3-none.whl",
            "a.whl",
            "a-1.0.tar.gz",
            "a--py3-none-any.whl",
            "a b-1-py3-none-any.whl",
        ] {
            assert_eq!(split(name), None, "{name}");
        }
    }

    #[test]
    fn a_wheel_that_changes_before_it_is_copied_is_refused() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = here.path().join("a-1.0-py3-none-any.whl");
        fs::write(&path, "one").unwrap();
        let wheel = Wheel::read(&path).unwrap();
        wheel.copy_into(there.path()).unwrap();
        assert_eq!(fs::read(there.path().join(&wheel.name)).unwrap(), b"one");
        fs::write(&path, "two").unwrap();
        let error = wheel.copy_into(there.path()).unwrap_err();
        assert!(error.message.contains("has changed"), "{error}");
        fs::remove_file(&path).unwrap();
        assert!(wheel.copy_into(there.path()).is_err());
        assert!(Wheel::read(&path).is_err());
    }
}
