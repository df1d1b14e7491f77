//! The directory that keeps the figures of a program as files (`--show-dir`).

use crate::agent::GuestReport;
use crate::error::{Destination as Fault, Error, Kind, Remedy};
use crate::limits::Limits;
use crate::record::Bundle;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The bytes that each file of this form begins with (PNG specification, 5.2).
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The name of a file while it is written.
const PARTIAL: &str = ".figure.partial";

/// A directory for figures, open since before the run: whatever becomes of its path, they go there.
pub struct FigureDirectory {
    directory: OwnedFd,
    path: PathBuf,
    replaces: bool,
}

impl FigureDirectory {
    /// Opens the directory, which is made if only it is missing. With `replaces`, figures that are there
    /// are replaced; else they are an error now, so that no long run is lost.
    pub fn open(path: &Path, replaces: bool) -> Result<Self, Error> {
        let shown = path.display();
        let made = mkdirat(nix::fcntl::AT_FDCWD, path, Mode::from_bits_truncate(0o777));
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = match (made, open(path, flags, Mode::empty())) {
            (_, Ok(directory)) => directory,
            (Err(errno), Err(_)) if errno != Errno::EEXIST => {
                return Err(unusable(
                    format!(
                        "the directory {shown} for figures cannot be made: {}",
                        errno.desc()
                    ),
                    "make it: mkdir -p",
                ));
            }
            (_, Err(errno)) => {
                return Err(unusable(
                    format!("{shown} is not a directory for figures: {}", errno.desc()),
                    "give a directory that you may write to: --show-dir DIR",
                ));
            }
        };
        let opened = Self {
            directory,
            path: path.into(),
            replaces,
        };
        let first = name(1);
        match opened.there(&first) {
            Some(_) if !replaces => Err(opened.taken(&first)),
            _ => Ok(opened),
        }
    }

    /// Writes the figures of a program that has ended, as far as its limits allow files.
    pub fn keep(&self, told: &GuestReport, limits: &Limits) -> Result<(), Error> {
        let bundles = told.displays.iter().chain(&told.result);
        let mut room = limits.fetch_size;
        for (number, figure) in (1..).zip(bundles.filter_map(figure)) {
            room = match room.checked_sub(figure.len() as u64) {
                Some(rest) if number <= limits.fetch_count => rest,
                _ => return Err(too_much()),
            };
            self.write(&name(number), &figure)?;
        }
        Ok(())
    }

    /// Writes one file whole or not at all. A link at its name is never followed.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        match self.there(name) {
            Some(_) if !self.replaces => return Err(self.taken(name)),
            Some(there) if !is_replaceable(&there) => {
                return Err(unusable(
                    format!("{} is not a file", self.path.join(name).display()),
                    Remedy::ChooseDestination(Fault::Special),
                ));
            }
            _ => {}
        }
        let written = self.write_partial(content).and_then(|()| {
            renameat(&self.directory, PARTIAL, &self.directory, name).map_err(std::io::Error::from)
        });
        written.map_err(|error| {
            // What is left of it is no figure.
            unlinkat(&self.directory, PARTIAL, UnlinkatFlags::NoRemoveDir).unwrap_or_default();
            unusable(
                format!(
                    "{} cannot be written: {error}",
                    self.path.join(name).display()
                ),
                "give another directory: --show-dir DIR",
            )
        })
    }

    fn write_partial(&self, content: &[u8]) -> std::io::Result<()> {
        // What an earlier run left when it was killed.
        unlinkat(&self.directory, PARTIAL, UnlinkatFlags::NoRemoveDir).unwrap_or_default();
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o666);
        let mut file = File::from(openat(&self.directory, PARTIAL, flags, mode)?);
        file.write_all(content)
    }

    fn there(&self, name: &str) -> Option<FileStat> {
        fstatat(
            &self.directory,
            name,
            nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .ok()
    }

    fn taken(&self, name: &str) -> Error {
        unusable(
            format!("{} is there already", self.path.join(name).display()),
            "replace it with --force, or give another directory: --show-dir DIR",
        )
    }
}

fn is_replaceable(there: &FileStat) -> bool {
    let kind = SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT;
    kind == SFlag::S_IFREG || kind == SFlag::S_IFLNK
}

fn name(number: u64) -> String {
    format!("figure-{number}.png")
}

/// Returns the picture of a value, if it has one.
fn figure(bundle: &Bundle) -> Option<Vec<u8>> {
    let text = bundle.get("image/png")?.as_str()?;
    let picture = STANDARD.decode(text).ok()?;
    picture.starts_with(PNG).then_some(picture)
}

fn too_much() -> Error {
    unusable(
        "the program has more figures than it may leave files",
        "show fewer or smaller ones, or have the policy allow more files",
    )
}

fn unusable(message: impl Into<String>, remedy: impl Into<Remedy>) -> Error {
    Error::new(Kind::Delivery, message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn told(figures: &[&[u8]]) -> GuestReport {
        let bundle = |content: &&[u8]| {
            let picture = STANDARD.encode([PNG, content].concat());
            [("image/png".to_owned(), json!(picture))].into()
        };
        GuestReport {
            displays: figures.iter().map(bundle).collect(),
            ..GuestReport::default()
        }
    }

    fn limits(fetch_count: u64, fetch_size: u64) -> Limits {
        Limits {
            fetch_count,
            fetch_size,
            ..Limits::default()
        }
    }

    fn keep(path: &Path, replaces: bool, figures: &[&[u8]]) -> Result<(), Error> {
        let directory = FigureDirectory::open(path, replaces)?;
        directory.keep(&told(figures), &limits(9, 1000))
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn figures_are_files_in_their_order_in_a_directory_that_is_made() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("figures");
        keep(&path, false, &[b"a", b"b"]).unwrap();
        assert_eq!(names(&path), ["figure-1.png", "figure-2.png"]);
        assert_eq!(
            fs::read(path.join("figure-2.png")).unwrap(),
            [PNG, b"b"].concat()
        );
        assert!(keep(&home.path().join("a/b"), false, &[]).is_err());
    }

    #[test]
    fn what_is_there_is_replaced_only_if_that_was_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        keep(path, false, &[b"a"]).unwrap();
        let refusal = keep(path, false, &[b"b"]).unwrap_err();
        assert!(refusal.message.ends_with("figure-1.png is there already"));
        assert_eq!(
            fs::read(path.join("figure-1.png")).unwrap(),
            [PNG, b"a"].concat()
        );
        keep(path, true, &[b"b"]).unwrap();
        assert_eq!(
            fs::read(path.join("figure-1.png")).unwrap(),
            [PNG, b"b"].concat()
        );
    }

    #[test]
    fn a_link_at_the_name_of_a_figure_is_never_followed() {
        let home = tempfile::tempdir().unwrap();
        let (path, other) = (home.path().join("figures"), home.path().join("other"));
        fs::create_dir(&path).unwrap();
        fs::write(&other, "mine").unwrap();
        symlink(&other, path.join("figure-1.png")).unwrap();
        symlink(&other, path.join(PARTIAL)).unwrap();
        assert!(keep(&path, false, &[b"a"]).is_err());
        keep(&path, true, &[b"a"]).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"mine");
        assert_eq!(names(&path), ["figure-1.png"]);
        fs::remove_file(path.join("figure-1.png")).unwrap();
        fs::create_dir(path.join("figure-1.png")).unwrap();
        assert!(keep(&path, true, &[b"a"]).is_err());
    }

    #[test]
    fn no_more_figures_are_written_than_files_are_allowed() {
        let home = tempfile::tempdir().unwrap();
        let directory = FigureDirectory::open(home.path(), false).unwrap();
        let told = told(&[b"a", b"b"]);
        for (count, size) in [(1, 100), (9, 2 * PNG.len() as u64 + 1)] {
            assert!(directory.keep(&told, &limits(count, size)).is_err());
            assert_eq!(names(home.path()), ["figure-1.png"]);
            fs::remove_file(home.path().join("figure-1.png")).unwrap();
        }
    }

    #[test]
    fn what_is_no_picture_is_no_figure() {
        let home = tempfile::tempdir().unwrap();
        let mut told = told(&[]);
        let text = STANDARD.encode(b"#!/bin/sh\n");
        told.displays = vec![[("image/png".to_owned(), json!(text))].into()];
        let directory = FigureDirectory::open(home.path(), false).unwrap();
        directory.keep(&told, &limits(9, 1000)).unwrap();
        assert!(names(home.path()).is_empty());
    }
}
