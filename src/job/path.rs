//! Paths in the guest.

use crate::error::{Error, Kind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Joins the path of a directory in the guest and a path relative to it.
pub fn beneath(directory: &[u8], path: &[u8]) -> Vec<u8> {
    match (directory, path) {
        (directory, []) => directory.into(),
        (b"/", path) => [b"/", path].concat(),
        (directory, path) => [directory, b"/", path].concat(),
    }
}

/// Resolves a path in the guest, as the user gave it, to an absolute one without `.`. A path with `..`
/// is an error.
pub fn resolve(workdir: &[u8], given: &OsStr) -> Result<Vec<u8>, Error> {
    let mut names = PathBuf::new();
    for component in Path::new(given).components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                return Err(Error::new(
                    Kind::Request,
                    format!("the path in the guest {} goes up with ..", given.display()),
                    "give the path that it means",
                ));
            }
            _ => {}
        }
    }
    let start = if given.as_bytes().starts_with(b"/") {
        b"/"
    } else {
        workdir
    };
    Ok(beneath(start, names.as_os_str().as_bytes()))
}

/// Returns the script's word on the guest's command line, and its path relative to the working
/// directory: the place that it was given, or its path on the host if that stays inside, or else its
/// name alone.
pub fn of_script(path: &Path, place: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    if let Some(place) = place {
        return (as_word(place), place.to_vec());
    }
    let inside = path
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    let word = match (inside, path.file_name()) {
        (true, _) => path,
        (false, Some(name)) => Path::new(name),
        (false, None) => Path::new("."),
    };
    let plain: PathBuf = word
        .components()
        .filter(|component| matches!(component, Component::Normal(_)))
        .collect();
    let plain = plain.as_os_str().as_bytes().to_vec();
    (as_word(word.as_os_str().as_bytes()), plain)
}

/// Returns a path as a word that no interpreter takes for an option.
fn as_word(path: &[u8]) -> Vec<u8> {
    match path {
        [] => b".".into(),
        [b'-', ..] => [b"./", path].concat(),
        path => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_keeps_its_path_where_that_stays_inside_the_working_directory() {
        for (given, word, inside) in [
            ("hello.py", "hello.py", "hello.py"),
            ("./hello.py", "./hello.py", "hello.py"),
            ("a/b/hello.py", "a/b/hello.py", "a/b/hello.py"),
            ("../hello.py", "hello.py", "hello.py"),
            ("a/../../hello.py", "hello.py", "hello.py"),
            ("/tmp/hello.py", "hello.py", "hello.py"),
            ("/tmp/-v.py", "./-v.py", "-v.py"),
            (".", ".", ""),
            ("..", ".", ""),
            ("./a/", "./a/", "a"),
        ] {
            let expected = (word.into(), inside.into());
            assert_eq!(of_script(Path::new(given), None), expected, "{given}");
        }
    }

    #[test]
    fn paths_in_the_guest_start_from_the_working_directory() {
        for (workdir, given, path) in [
            ("/work", "a", "/work/a"),
            ("/work", "./a//b/.", "/work/a/b"),
            ("/work", "/tmp/a/", "/tmp/a"),
            ("/work", ".", "/work"),
            ("/work", "", "/work"),
            ("/work", "/", "/"),
            ("/", "a", "/a"),
        ] {
            let resolved = resolve(workdir.as_bytes(), OsStr::new(given));
            assert_eq!(resolved, Ok(path.into()), "{workdir} {given}");
        }
        assert!(resolve(b"/work", OsStr::new("a/../b")).is_err());
    }
}
