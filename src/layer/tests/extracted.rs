//! What the tools of erofs (Debian's package erofs-utils) find in an image.

use crate::layer::{Plan, Time};
use guest::kind;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use tempfile::NamedTempFile;

/// The file that was extracted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub modified: Time,
    /// A file's bytes, a link's target, nothing for a directory.
    pub content: Vec<u8>,
}

/// The description of an inode.
#[derive(Debug)]
pub struct Dumped {
    pub inode: u64,
    pub size: u64,
    pub inode_length: u64,
    pub links: u32,
    pub owner: (u32, u32),
    pub mode: u32,
}

pub fn image_of(plan: &Plan) -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    plan.write(image.as_file()).unwrap();
    image
}

/// Runs a tool that must find nothing wrong. Returns what it writes.
fn run(tool: &str, arguments: &[&str], image: &NamedTempFile) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .arg(image.path())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{tool} of erofs-utils is needed: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        output.status.success() && !text.contains("<E>"),
        "{tool} {arguments:?}: {text}"
    );
    text
}

/// Returns what is in an image, by paths from the root, which has none.
pub fn extract(image: &NamedTempFile) -> BTreeMap<Vec<u8>, Seen> {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("top");
    let extract = format!("--extract={}", top.display());
    run("fsck.erofs", &[&extract, "--preserve-perms"], image);
    tree_at(&top)
}

/// Returns what is in a directory, by paths from it.
pub fn tree_at(top: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let mut content = Vec::new();
        match metadata.mode() & kind::MASK {
            kind::DIRECTORY => {
                let entries = fs::read_dir(&path).unwrap();
                waiting.extend(entries.map(|entry| entry.unwrap().path()));
            }
            kind::LINK => content = path.read_link().unwrap().into_os_string().into_vec(),
            _ => content = fs::read(&path).unwrap(),
        }
        let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes();
        let seen = Seen {
            mode: metadata.mode(),
            modified: Time {
                seconds: metadata.mtime(),
                nanoseconds: metadata.mtime_nsec() as u32,
            },
            content,
        };
        found.insert(name.into(), seen);
    }
    found
}

/// Returns what is told of the inode at a path.
pub fn dump(image: &NamedTempFile, path: &str) -> Dumped {
    let text = run("dump.erofs", &[&format!("--path={path}")], image);
    let digits = |label: &str| {
        let (_, rest) = text.split_once(label).unwrap_or_else(|| panic!("{text}"));
        let end = |c: char| !c.is_ascii_digit();
        rest.trim_start().split(end).next().unwrap()
    };
    let after = |label: &str| digits(label).parse::<u64>().unwrap();
    Dumped {
        inode: after("NID:"),
        size: after("Size:"),
        inode_length: after("Inode size:"),
        links: after("Links:") as u32,
        owner: (after("Uid:") as u32, after("Gid:") as u32),
        mode: u32::from_str_radix(digits("Access:"), 8).unwrap(),
    }
}
