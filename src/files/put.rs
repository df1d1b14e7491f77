//! The files that go into the guest, and their places there.

use crate::error::{Error, Remedy};
use crate::files::tree::{List, TreeEntry};
use crate::files::{COUNT_MAX, Excluded, Put, PutContent, unusable};
use crate::job::{beneath, resolve};
use guest::File;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The directories in the guest that take files.
const WRITABLE: [&[u8]; 3] = [b"/work", b"/tmp", b"/dev/shm"];

/// Returns the bytes that a guest with this much memory has for files: its kernel gives a file system
/// in memory half of it (tmpfs(5)).
pub fn room(memory: u64) -> u64 {
    memory / 2
}

/// Lists the files, and the directories with all in them that is not excluded.
pub fn list(puts: &[Put], excluded: &Excluded, workdir: &[u8]) -> Result<List, Error> {
    let mut list = List::new(COUNT_MAX as u64, u64::MAX);
    for put in puts {
        let guest = target(put, workdir, &list)?;
        check_place(put, &guest)?;
        match &put.content {
            PutContent::Given(content) => list.add_given(content, guest)?,
            PutContent::Host(host) => {
                let leave_out =
                    |entry: &TreeEntry| excluded.has(entry.path, entry.metadata.is_dir());
                let added = list.add_tree(host, guest, &leave_out);
                added.map_err(|error| hint_at_colon(error, put, host))?;
            }
        }
    }
    Ok(list)
}

/// Reads the files for a guest with this much memory.
pub fn read(list: List, memory: u64) -> Result<Vec<File>, Error> {
    // The size is checked before any time is spent on reading.
    let size = list.size();
    if size > room(memory) {
        return Err(too_large(size, memory));
    }
    let files = list.read(room(memory))?;
    files.ok_or_else(|| too_large(size, memory))
}

/// Adds to an error what to do if the word is a name with a colon in it.
fn hint_at_colon(error: Error, put: &Put, host: &Path) -> Error {
    let Some(guest) = &put.guest else {
        return error;
    };
    let mut whole = host.as_os_str().to_owned();
    whole.push(":");
    whole.push(guest);
    if host.exists() || !Path::new(&whole).exists() {
        return error;
    }
    let whole = whole.to_string_lossy().replace(':', "\\:");
    Error {
        remedy: format!("write a colon that is part of a name with a backslash: '{whole}'").into(),
        ..error
    }
}

pub fn too_large(size: u64, memory: u64) -> Error {
    const SPARE: u64 = 256 << 20;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    unusable(
        format!(
            "{} MiB of files do not fit in a guest with {} MiB of memory, half of which is for files",
            mib(size),
            mib(memory)
        ),
        Remedy::RaiseMemory(Some(mib(size * 2 + SPARE))),
    )
}

/// Returns the path in the guest, where cp(1) and docker-cp(1) would put it: GUEST, or a place in it
/// under the file's own name if it is a directory. A path that has no name of its own (`.`) stands
/// for what is in it.
fn target(put: &Put, workdir: &[u8], list: &List) -> Result<Vec<u8>, Error> {
    let given = put.guest.as_deref().unwrap_or(OsStr::new("./"));
    let path = resolve(workdir, given)?;
    let PutContent::Host(host) = &put.content else {
        return Ok(path);
    };
    let is_directory = given.as_bytes().ends_with(b"/")
        || path == workdir
        || WRITABLE.contains(&&*path)
        || list.has_directory(&path);
    match own_name(host) {
        Some(name) if is_directory => Ok(beneath(&path, name.as_bytes())),
        _ => Ok(path),
    }
}

/// Returns the name that something on the host has, unless it is what is in a directory.
fn own_name(host: &Path) -> Option<&OsStr> {
    let bytes = host.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'/');
    match bytes[..end.map_or(0, |end| end + 1)].ends_with(b"/.") {
        true => None,
        false => host.file_name(),
    }
}

/// Refuses a place where the guest has no file system that takes files.
fn check_place(put: &Put, guest: &[u8]) -> Result<(), Error> {
    if is_writable(guest) {
        return Ok(());
    }
    let what = match &put.content {
        PutContent::Host(host) => host.display().to_string(),
        PutContent::Given(_) => "a file".into(),
    };
    let guest = String::from_utf8_lossy(guest);
    Err(unusable(
        format!("{what} cannot be put at {guest}: nothing can be written there"),
        "put it below /work, /tmp or /dev/shm: all else in the guest is read-only",
    ))
}

/// Returns whether files can be made at this path in the guest.
pub fn is_writable(guest: &[u8]) -> bool {
    WRITABLE.iter().any(|top| {
        let rest = guest.strip_prefix(*top);
        rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    })
}

/// Returns the place of a script in the guest, relative to the working directory, if it is in a
/// directory that is put below that.
pub fn place_in_puts(script: &Path, puts: &[Put], workdir: &[u8]) -> Option<Vec<u8>> {
    let directories = || {
        puts.iter().filter_map(|put| match &put.content {
            PutContent::Host(host) if host.is_dir() => Some((put, host)),
            _ => None,
        })
    };
    directories().next()?;
    // The script itself may be a link, which is put as one.
    let name = script.file_name();
    let (above, name) = match name {
        Some(name) => (script.parent()?, Some(name)),
        None => (script, None),
    };
    let above = match above.as_os_str().is_empty() {
        true => Path::new("."),
        false => above,
    };
    let mut real = above.canonicalize().ok()?;
    real.extend(name);
    let nothing = List::nothing();
    directories().find_map(|(put, host)| {
        let inside = real.strip_prefix(host.canonicalize().ok()?).ok()?;
        let top = target(put, workdir, &nothing).ok()?;
        let place = beneath(&top, inside.as_os_str().as_bytes());
        match place.strip_prefix(workdir)? {
            [] => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.into()),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::fs;

    fn put(host: &Path, guest: Option<&str>) -> Put {
        Put {
            content: PutContent::Host(host.into()),
            guest: guest.map(OsString::from),
        }
    }

    fn none() -> Excluded {
        Excluded::of(&[]).unwrap()
    }

    #[test]
    fn a_put_goes_where_cp_and_docker_cp_would_put_it() {
        let here = tempfile::tempdir().unwrap();
        fs::create_dir(here.path().join("dir")).unwrap();
        let mut list = List::new(100, 100);
        let made = list.add_tree(&here.path().join("dir"), b"/work/made".into(), &|_| false);
        made.unwrap();
        for (host, guest, expected) in [
            ("a/b", None, "/work/x/b"),
            ("a/b", Some("c"), "/work/x/c"),
            ("a/b", Some("c/"), "/work/x/c/b"),
            ("a/b", Some("/tmp/c"), "/tmp/c"),
            ("a/b", Some("/tmp/"), "/tmp/b"),
            ("a/b", Some("/tmp"), "/tmp/b"),
            ("a/b", Some("/work"), "/work/b"),
            ("a/b", Some("/dev/shm"), "/dev/shm/b"),
            ("a/b", Some("."), "/work/x/b"),
            ("a/b", Some("/work/x"), "/work/x/b"),
            ("a/b", Some("/work/made"), "/work/made/b"),
            ("/a/b/", None, "/work/x/b"),
            ("../b", None, "/work/x/b"),
            ("../b/", Some("c"), "/work/x/c"),
            (".", None, "/work/x"),
            ("..", None, "/work/x"),
            ("a/b/.", None, "/work/x"),
            ("/a/b/.", Some("c"), "/work/x/c"),
            ("a/b/./", Some("/tmp"), "/tmp"),
            (".", Some("c"), "/work/x/c"),
            ("..", Some("c/"), "/work/x/c"),
        ] {
            let path = target(&put(Path::new(host), guest), b"/work/x", &list);
            assert_eq!(path, Ok(expected.into()), "{host} {guest:?}");
        }
    }

    #[test]
    fn a_place_that_is_read_only_is_refused_with_its_path() {
        let here = tempfile::tempdir().unwrap();
        for (guest, is_refused) in [
            ("/usr/a", true),
            ("/worker", true),
            ("/", true),
            ("/tmp/a", false),
        ] {
            let puts = [put(here.path(), Some(guest))];
            let list = list(&puts, &none(), b"/work");
            assert_eq!(list.is_err(), is_refused, "{guest}");
        }
        let error = check_place(&put(Path::new("a"), None), b"/usr/a").unwrap_err();
        assert!(
            error.message.starts_with("a cannot be put at /usr/a"),
            "{error}"
        );
    }

    #[test]
    fn a_script_in_a_directory_that_is_put_is_there() {
        let here = tempfile::tempdir().unwrap();
        let proj = here.path().join("proj");
        fs::create_dir_all(proj.join("sub")).unwrap();
        fs::write(proj.join("sub/main.py"), "").unwrap();
        let script = here.path().join("proj/../proj/sub/main.py");
        for (host, guest, place) in [
            (&proj, None, Some("proj/sub/main.py")),
            (&proj, Some("src"), Some("src/sub/main.py")),
            (&proj.join("."), None, Some("sub/main.py")),
            (&proj.join("sub"), None, Some("sub/main.py")),
            (&proj, Some("/tmp/x"), None),
            (&script, None, None),
        ] {
            let found = place_in_puts(&script, &[put(host, guest)], b"/work");
            assert_eq!(
                found.as_deref(),
                place.map(str::as_bytes),
                "{host:?} {guest:?}"
            );
        }
        assert_eq!(place_in_puts(&script, &[], b"/work"), None);
        let above = place_in_puts(&proj, &[put(here.path(), Some("."))], b"/work");
        assert!(above.unwrap().ends_with(b"/proj"));
    }

    #[test]
    fn a_tree_is_read_with_its_kinds_and_modes_and_parents_first() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("b/empty")).unwrap();
        fs::write(top.join("a"), "content").unwrap();
        symlink("/etc/shadow", top.join("c")).unwrap();
        fs::set_permissions(top.join("a"), PermissionsExt::from_mode(0o4751)).unwrap();
        fs::set_permissions(top.join("b"), PermissionsExt::from_mode(0o2750)).unwrap();
        fs::set_permissions(top.join("b/empty"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::set_permissions(&top, PermissionsExt::from_mode(0o755)).unwrap();
        let put = put(&top, None);
        let file = |path: &str, mode, content: &str| File {
            path: path.into(),
            mode,
            content: content.into(),
            modified: None,
        };
        let expected = [
            file("/work/top", 0o040_755, ""),
            file("/work/top/a", 0o100_751, "content"),
            file("/work/top/b", 0o040_750, ""),
            file("/work/top/c", 0o120_777, "/etc/shadow"),
            file("/work/top/b/empty", 0o040_700, ""),
        ];
        let list = list(&[put], &none(), b"/work").unwrap();
        let mut files = read(list, 64 << 20).unwrap();
        assert!(files.iter_mut().all(|file| file.modified.take().is_some()));
        assert_eq!(files, expected);
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        // The file is too large for anybody to read.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let put = put(&path, None);
        let list = list(&[put], &none(), b"/work").unwrap();
        let refused = read(list, 256 << 20).unwrap_err();
        assert!(refused.message.contains("1048576 MiB"), "{refused}");
    }
}
