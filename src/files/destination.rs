//! The destinations of the guest's files on the host.

use crate::error::{Destination as Fault, Error, Remedy};
use crate::files::{Get, unusable};
use crate::job::resolve;
use nix::unistd::{AccessFlags, access};
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A name in a directory that exists, or `.`: the directory itself, for what is in one of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The absolute path in the guest.
    pub guest: Vec<u8>,
    pub directory: PathBuf,
    pub name: OsString,
}

impl Destination {
    /// Returns the path in the guest, as requests of sessions have it.
    pub fn guest_text(&self) -> Result<String, Error> {
        String::from_utf8(self.guest.clone()).map_err(|_| {
            unusable(
                "a path in the guest is not UTF-8",
                "get the directory that it is in",
            )
        })
    }

    pub fn path(&self) -> PathBuf {
        match (self.is_merged(), self.directory == Path::new(".")) {
            (true, _) => self.directory.clone(),
            (false, true) => PathBuf::from(&self.name),
            (false, false) => self.directory.join(&self.name),
        }
    }

    /// Returns whether what is in a directory of the guest's goes into the directory itself.
    pub fn is_merged(&self) -> bool {
        self.name == "."
    }

    /// Returns whether both are the same place, however their directories are spelled.
    fn is_same(&self, other: &Self) -> bool {
        let directory = |of: &Self| {
            let metadata = of.directory.metadata().ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        self.name == other.name && directory(self) == directory(other)
    }
}

/// Finds the destinations, and checks all that can be checked before there is anything to write, so
/// that no long run is lost.
pub fn destinations(gets: &[Get], workdir: &[u8], force: bool) -> Result<Vec<Destination>, Error> {
    let mut found = Vec::<Destination>::new();
    for get in gets {
        let destination = destination(get, workdir)?;
        let shown = destination.path();
        let shown = shown.display();
        check_directory(&destination.directory)?;
        if found.iter().any(|other| other.is_same(&destination)) {
            return Err(unusable(
                format!("two files of the guest's would both become {shown}"),
                Remedy::ChooseDestination(Fault::Shared),
            ));
        }
        if !destination.is_merged()
            && let Ok(there) = destination.path().symlink_metadata()
        {
            check_taken(&shown.to_string(), there.file_type(), force)?;
        }
        found.push(destination);
    }
    Ok(found)
}

/// Checks whether a file that is there may be replaced: with force, but never what is no file, such as
/// /dev/null.
fn check_taken(shown: &str, there: FileType, force: bool) -> Result<(), Error> {
    if !(there.is_file() || there.is_dir() || there.is_symlink()) {
        return Err(unusable(
            format!("{shown} is a device, a pipe or a socket, which is never replaced"),
            Remedy::ChooseDestination(Fault::Special),
        ));
    }
    match force {
        true => Ok(()),
        false => Err(unusable(
            format!("{shown} is there already"),
            Remedy::ChooseDestination(Fault::Taken),
        )),
    }
}

/// Returns the place where cp(1) and docker-cp(1) would put it: into a directory that exists, under
/// its own name, unless only what is in it is wanted (`DIR/.`).
fn destination(get: &Get, workdir: &[u8]) -> Result<Destination, Error> {
    let guest = resolve(workdir, &get.guest)?;
    let own = Path::new(OsStr::from_bytes(&guest)).file_name();
    let given = get.host.as_deref().unwrap_or(Path::new("."));
    let is_inside = get.host.is_some() && names_inside(&get.guest);
    let (directory, name) = match own {
        _ if is_inside && given.is_dir() => (given, Some(OsStr::new("."))),
        Some(own) if given.is_dir() || given.as_os_str().as_bytes().ends_with(b"/") => {
            (given, Some(own))
        }
        _ => (given.parent().unwrap_or(given), given.file_name()),
    };
    let Some(name) = name else {
        return Err(unusable(
            format!(
                "{} has no name that it could have here",
                get.guest.display()
            ),
            Remedy::ChooseDestination(Fault::Nameless),
        ));
    };
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    Ok(Destination {
        directory: directory.into(),
        name: name.into(),
        guest,
    })
}

/// Returns whether a path stands for what is in a directory: `.`, or one that ends so.
fn names_inside(guest: &OsStr) -> bool {
    let guest = guest.as_bytes();
    let end = guest.iter().rposition(|&byte| byte != b'/');
    let guest = &guest[..end.map_or(0, |end| end + 1)];
    guest == b"." || guest.ends_with(b"/.")
}

fn check_directory(directory: &Path) -> Result<(), Error> {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(unusable(
            format!("there is no directory {shown} to write files to"),
            "make it: mkdir -p",
        ));
    }
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        unusable(
            format!(
                "no files can be written to the directory {shown}: {}",
                errno.desc()
            ),
            Remedy::ChooseDestination(Fault::Unwritable),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn get(guest: &str, host: Option<PathBuf>) -> Get {
        Get {
            guest: guest.into(),
            host,
        }
    }

    #[test]
    fn a_file_keeps_its_name_unless_another_is_given() {
        let here = tempfile::tempdir().unwrap();
        let here = here.path();
        fs::create_dir(here.join("there")).unwrap();
        for (guest, host, directory, name) in [
            ("a/b", None, Path::new("."), "b"),
            ("a/b", Some(here.join("c")), here, "c"),
            ("a/b", Some(here.join("there")), &here.join("there"), "b"),
            ("a/b", Some(here.join("there/")), &here.join("there"), "b"),
            ("/tmp/.", Some(here.join("c")), here, "c"),
            (".", None, Path::new("."), "work"),
            (".", Some(here.join("c")), here, "c"),
            (".", Some(here.join("there")), &here.join("there"), "."),
            ("a/.", Some(here.join("there/")), &here.join("there"), "."),
            ("a/./", Some(here.join("c")), here, "c"),
            ("a/.", None, Path::new("."), "a"),
        ] {
            let found = destination(&get(guest, host), b"/work").unwrap();
            assert_eq!(
                (&*found.directory, &*found.name),
                (directory, OsStr::new(name))
            );
        }
        assert!(destination(&get("/", None), b"/work").is_err());
    }

    #[test]
    fn what_is_there_is_refused_without_force_even_a_link_to_nothing() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("link");
        std::os::unix::fs::symlink("nothing", &path).unwrap();
        let gets = [get("a", Some(path))];
        let refused = destinations(&gets, b"/work", false).unwrap_err();
        assert!(
            refused.message.contains("link is there already"),
            "{refused}"
        );
        assert!(destinations(&gets, b"/work", true).is_ok());
    }

    #[test]
    fn a_directory_must_exist_and_two_files_have_two_names() {
        let here = tempfile::tempdir().unwrap();
        let missing = here.path().join("missing/a");
        assert!(destinations(&[get("a", Some(missing))], b"/work", false).is_err());
        let twice = [
            get("x/a", Some(here.path().into())),
            get("y/a", Some(here.path().into())),
        ];
        assert!(destinations(&twice, b"/work", true).is_err());
        fs::create_dir(here.path().join("there")).unwrap();
        std::os::unix::fs::symlink(".", here.path().join("link")).unwrap();
        for again in ["link/out", "there/../out", "./out"] {
            let spelled = [
                get("a", Some(here.path().join("out"))),
                get("b", Some(here.path().join(again))),
            ];
            assert!(destinations(&spelled, b"/work", true).is_err(), "{again}");
        }
    }
}
