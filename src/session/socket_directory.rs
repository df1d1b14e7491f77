//! The directory of sessions' sockets: which there are, and the removal of those that nobody listens on.

use crate::error::{Error, Kind, Remedy, Session};
use crate::fs::make_private;
use crate::random;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The ending of a socket's name, behind the session's.
const ENDING: &str = ".sock";
/// The most bytes of a session's name.
const NAME_MAX: usize = 40;
/// The most bytes of a socket's path (unix(7)), but for the NUL.
const PATH_MAX: usize = 107;

/// The directory of sockets.
pub struct Place(PathBuf);

/// The result of looking for a session.
pub enum Sought {
    Found(UnixStream),
    /// There was one, which ended without a word.
    Gone,
    Never,
}

impl Place {
    /// Opens `sandbox` in `$XDG_RUNTIME_DIR` or, without that, in the directory that stands for it.
    pub fn open() -> Result<Self, Error> {
        let directory = base().join("sandbox");
        let unusable = |why| {
            Error::new(
                Kind::Host,
                format!("the directory of sessions {why}"),
                "name a directory of yours for sockets: XDG_RUNTIME_DIR=DIRECTORY",
            )
        };
        make_private(&directory).map_err(unusable)?;
        Ok(Self(directory))
    }

    /// Takes a directory that only this user may enter.
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Checks that a session can have this name: it is short enough, and none has it.
    pub fn check_free(&self, name: &str) -> Result<()> {
        self.path(name)?;
        match self.connect(name)? {
            Sought::Found(_) => Err(taken(name).into()),
            Sought::Gone | Sought::Never => Ok(()),
        }
    }

    /// Listens on the socket of a session with this name.
    pub fn listen(&self, name: &str) -> Result<UnixListener> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        if is_dead(&path) {
            fs::remove_file(&path).context("removing the socket of a session that is gone")?;
        }
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(taken(name).into()),
            result => result.with_context(|| format!("listening on {}", path.display()))?,
        };
        listener
            .set_nonblocking(true)
            .context("listening on a socket")?;
        Ok(listener)
    }

    /// Connects to a session. The socket of one that is gone is removed.
    pub fn connect(&self, name: &str) -> Result<Sought> {
        let path = self.path(name)?;
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Sought::Found(stream)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Sought::Never),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.clear(name)?;
                Ok(Sought::Gone)
            }
            Err(error) => Err(error).with_context(|| format!("connecting to {}", path.display())),
        }
    }

    /// Removes the socket of a session that has ended.
    pub fn clear(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        let _lock = self.lock()?;
        // Another session of this name may have begun.
        if !is_dead(&path) {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the names of the sockets, in order.
    pub fn names(&self) -> Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.0)? {
                let name = entry?.file_name();
                let name = name.to_str().and_then(|name| name.strip_suffix(ENDING));
                names.extend(name.map(str::to_owned));
            }
            names.sort();
            Ok(names)
        };
        read().with_context(|| format!("reading {}", self.0.display()))
    }

    /// Returns names that no sessions have, made of this one.
    pub fn free_names(&self, name: &str, count: usize) -> Result<Vec<String>> {
        let taken = self.names()?;
        let numbered = (1..).map(|number| format!("{name}-{number}"));
        let free = numbered.filter(|name| !taken.contains(name));
        let names: Vec<_> = free.take(count).collect();
        names.iter().try_for_each(|name| check_name(name))?;
        Ok(names)
    }

    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.0.join(format!("{name}{ENDING}"));
        if path.as_os_str().len() > PATH_MAX {
            return Err(Error::new(
                Kind::Request,
                format!(
                    "the path of the session's socket is too long: {}",
                    path.display()
                ),
                "name a directory with a shorter path for sockets, XDG_RUNTIME_DIR=DIRECTORY, or give a shorter name",
            ));
        }
        Ok(path)
    }

    /// Waits for the turn to start a session, if there may not be any number of them. It is over when what is
    /// returned is dropped.
    pub fn turn_to_start(&self) -> Result<Flock<File>> {
        let doing = "waiting for the turn to start a session";
        let file = File::create(self.0.join("starting")).context(doing)?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context(doing)
    }

    /// Keeps other processes from making and removing sockets meanwhile.
    fn lock(&self) -> Result<Flock<File>> {
        let directory = File::open(&self.0).context("opening the directory of sessions")?;
        Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context("locking the directory of sessions")
    }
}

/// Returns the directory for sockets of this user: the XDG base directory specification leaves open what
/// takes the place of `$XDG_RUNTIME_DIR`.
fn base() -> PathBuf {
    let given = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = geteuid();
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    let is_ours = |path: &Path| {
        let metadata = path.symlink_metadata();
        metadata.is_ok_and(|it| it.is_dir() && it.uid() == uid.as_raw())
    };
    match given.filter(|path| path.is_absolute()) {
        Some(path) => path,
        None if is_ours(&usual) => usual,
        None => env::temp_dir().join(format!("sandbox-{uid}")),
    }
}

/// Returns whether nobody listens on a socket that is there.
fn is_dead(path: &Path) -> bool {
    let error = UnixStream::connect(path).err();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn taken(name: &str) -> Error {
    Error::new(
        Kind::Request,
        format!("there is a session {name} already"),
        Remedy::UseSession(Session::ChooseName(name.into())),
    )
}

/// Checks that a session can have this name, which becomes that of a file.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= NAME_MAX && name.chars().all(is_letter) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Request,
        format!("{name:?} is not a name for a session"),
        format!(
            "give one of letters, digits, -, _ and ., at most {NAME_MAX} of them, with a letter or digit first"
        ),
    ))
}

/// Returns a name that no other session has.
pub fn random_name() -> Result<String> {
    let bytes = random::bytes(4)?;
    Ok(format!("s-{}", crate::text::hex(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_another_path_is_refused() {
        for name in ["a", "S-1_b.c", &"x".repeat(NAME_MAX)] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "-a", ".a", "a b", "ü", "a\n", "a\0"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"x".repeat(NAME_MAX + 1)).is_err());
    }

    #[test]
    fn the_socket_of_a_session_that_is_gone_is_removed_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place(directory.path().into());
        let path = directory.path().join("a.sock");
        let listener = place.listen("a").unwrap();
        assert!(matches!(place.connect("a").unwrap(), Sought::Found(_)));
        assert!(place.listen("a").is_err() && place.check_free("a").is_err());
        place.clear("a").unwrap();
        assert!(path.exists());
        drop(listener);
        assert!(matches!(place.connect("a").unwrap(), Sought::Gone));
        assert!(!path.exists());
        assert!(matches!(place.connect("a").unwrap(), Sought::Never));
        drop(place.listen("a").unwrap());
        let _second = place.listen("a").unwrap();
        assert_eq!(place.names().unwrap(), ["a"]);
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_refused() {
        let place = Place(PathBuf::from("/").join("x".repeat(PATH_MAX)));
        let error = place.check_free("a").unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
