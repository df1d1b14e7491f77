//! The tree of files of unpacked packages, and what of it becomes a layer.

use crate::error::{Error, Kind};
use crate::layer::{Attributes, Content, HostFile, Id, Plan, Time, Tree};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The modes of what packages bring: to be read by all, executed where it is to be.
const FILE: u32 = 0o644;
const EXECUTABLE: u32 = 0o755;
/// The most directories that are in each other.
const DEPTH_MAX: usize = 64;

/// Files of uv's own: they have paths and times of this host in them.
const UVS_OWN: [&str; 2] = ["uv_cache.json", "direct_url.json"];

/// Removes from unpacked packages what does not come from them, so that the same packages are the same
/// files.
pub fn tidy(root: &Path) -> Result<()> {
    for entry in entries(root)? {
        let path = entry.path();
        if entry.file_name() == ".lock" {
            fs::remove_file(&path).context("removing a lock of uv's")?;
        } else if path.extension() == Some(OsStr::new("dist-info")) {
            tidy_info(&path)?;
        }
    }
    Ok(())
}

fn tidy_info(directory: &Path) -> Result<()> {
    let doing = || format!("tidying {}", directory.display());
    for name in UVS_OWN {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(doing);
            }
            _ => {}
        }
    }
    // A package need not say what it consists of.
    let record = directory.join("RECORD");
    let Ok(text) = fs::read_to_string(&record) else {
        return Ok(());
    };
    let is_left = |line: &&str| {
        !UVS_OWN
            .iter()
            .any(|name| line.contains(&format!(".dist-info/{name},")))
    };
    let lines: Vec<_> = text.lines().filter(is_left).collect();
    fs::write(&record, lines.join("\n") + "\n").with_context(doing)
}

/// Returns the names of the modules at the top of unpacked packages.
pub fn modules(root: &Path) -> Result<Vec<String>> {
    let name = |entry: DirEntry| Some(entry.file_name().to_str()?.split('.').next()?.to_owned());
    let names: BTreeSet<_> = entries(root)?.into_iter().filter_map(name).collect();
    Ok(names.into_iter().collect())
}

/// Adds compiled modules to the packages. They come from a guest, each under the path that it has there;
/// what is not the compiled form of a module of these packages is left out.
pub fn add_compiled(root: &Path, compiled: &Path, site: &str) -> Result<()> {
    let from = compiled.join(site.trim_start_matches('/'));
    if from.is_dir() {
        add_compiled_in(root, &from, DEPTH_MAX)?;
    }
    Ok(())
}

fn add_compiled_in(root: &Path, from: &Path, depth: usize) -> Result<()> {
    if depth == 0 || !is_directory(root) {
        return Ok(());
    }
    for entry in entries(from)? {
        let path = entry.path();
        let kind = entry.file_type().context("looking at a compiled module")?;
        if kind.is_dir() {
            add_compiled_in(&root.join(entry.file_name()), &path, depth - 1)?;
        } else if kind.is_file() && has_source(root, &entry.file_name()) {
            let directory = root.join("__pycache__");
            fs::create_dir_all(&directory).context("making a directory for compiled modules")?;
            fs::rename(&path, directory.join(entry.file_name()))
                .context("moving a compiled module")?;
        }
    }
    Ok(())
}

/// Checks whether a file such as a.cpython-313.pyc is of a module in this directory.
fn has_source(directory: &Path, name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_suffix(".pyc"));
    let module = stem.and_then(|stem| stem.rsplit_once('.'));
    module.is_some_and(|(module, _)| {
        let source = directory.join(format!("{module}.py"));
        source.symlink_metadata().is_ok_and(|it| it.is_file())
    })
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
}

/// Plans a layer of all in this directory. All of it is root's, and has one time: the same packages make
/// the same layer.
pub fn plan(root: &Path) -> Result<Plan> {
    let time = Time::default();
    let mut tree = Tree::new(attributes(EXECUTABLE), time);
    add(&mut tree, Tree::ROOT, root, DEPTH_MAX)?;
    Ok(Plan::of(tree)?)
}

fn add(tree: &mut Tree, directory: Id, path: &Path, depth: usize) -> Result<()> {
    for entry in entries(path)? {
        let (name, path) = (entry.file_name(), entry.path());
        let metadata = entry
            .metadata()
            .with_context(|| format!("looking at {}", path.display()))?;
        let kind = metadata.file_type();
        let (mode, content) = if kind.is_dir() {
            (EXECUTABLE, Content::Directory)
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).context("reading a link")?;
            (0o777, Content::Link(target.as_os_str().as_bytes().into()))
        } else if kind.is_file() {
            let mode = match metadata.permissions().mode() & 0o111 {
                0 => FILE,
                _ => EXECUTABLE,
            };
            (mode, Content::File(HostFile::new(path.clone(), &metadata)))
        } else {
            return Err(refused(&path, "it is neither a file nor a directory").into());
        };
        let id = tree.add(directory, name.as_bytes(), attributes(mode), content)?;
        if kind.is_dir() {
            if depth == 0 {
                return Err(refused(&path, "too many directories are in each other").into());
            }
            add(tree, id, &path, depth - 1)?;
        }
    }
    Ok(())
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(
        Kind::Packages,
        format!(
            "a package has {}, which cannot be taken: {why}",
            path.display()
        ),
        "do not use this package",
    )
}

fn attributes(mode: u32) -> Attributes {
    Attributes {
        mode,
        uid: 0,
        gid: 0,
        modified: None,
    }
}

/// Lists what is in a directory, by name.
fn entries(path: &Path) -> Result<Vec<DirEntry>> {
    let doing = || format!("reading {}", path.display());
    let entries: std::io::Result<Vec<_>> = fs::read_dir(path).with_context(doing)?.collect();
    let mut entries = entries.with_context(doing)?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn write(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn what_uv_leaves_of_its_own_is_removed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), ".lock", "");
        write(root.path(), "a.py", "");
        let info = "a-1.dist-info";
        for name in UVS_OWN {
            write(root.path(), &format!("{info}/{name}"), "{}");
        }
        let lines = format!("a.py,,\n{info}/RECORD,,\n{info}/uv_cache.json,sha256=x,2\n");
        let record = write(root.path(), &format!("{info}/RECORD"), &lines);
        tidy(root.path()).unwrap();
        assert!(!root.path().join(".lock").exists());
        assert_eq!(fs::read_dir(root.path().join(info)).unwrap().count(), 1);
        assert_eq!(
            fs::read_to_string(record).unwrap(),
            format!("a.py,,\n{info}/RECORD,,\n")
        );
    }

    #[test]
    fn only_compiled_forms_of_modules_that_are_there_are_added() {
        let (root, compiled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(root.path(), "a.py", "");
        write(root.path(), "p/b.py", "");
        for name in [
            "a.cpython-313.pyc",
            "none.cpython-313.pyc",
            "p/b.cpython-313.pyc",
            "q/c.cpython-313.pyc",
            "a.py",
            "a.so",
        ] {
            write(compiled.path(), &format!("site/{name}"), "compiled");
        }
        std::os::unix::fs::symlink(
            "/etc/passwd",
            compiled.path().join("site/p/b.cpython-312.pyc"),
        )
        .unwrap();
        add_compiled(root.path(), compiled.path(), "/site").unwrap();
        let names = |path: &str| {
            let entries = entries(&root.path().join(path)).unwrap();
            let names = entries
                .iter()
                .map(|entry| entry.file_name().into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["__pycache__", "a.py", "p"]);
        assert_eq!(names("__pycache__"), ["a.cpython-313.pyc"]);
        assert_eq!(names("p"), ["__pycache__", "b.py"]);
        assert_eq!(names("p/__pycache__"), ["b.cpython-313.pyc"]);
        assert_eq!(fs::read(root.path().join("a.py")).unwrap(), b"");
    }
}
