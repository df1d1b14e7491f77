//! The file of tokens. It is read again when it changes.

use crate::log::say;
use crate::mcp::transport::tokens::Tokens;
use anyhow::Result;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct TokenFile {
    path: PathBuf,
    latest: Mutex<Latest>,
}

/// The tokens as they were last read.
struct Latest {
    tokens: Arc<Tokens>,
    stamp: Option<Stamp>,
}

/// The facts that change with a file: its device, inode, size, and the time of its last change.
type Stamp = (u64, u64, u64, i64, i64);

impl TokenFile {
    pub fn read(path: &Path) -> Result<Self> {
        let stamp = stamp(path);
        let tokens = Arc::new(Tokens::read(path)?);
        Ok(Self {
            path: path.into(),
            latest: Mutex::new(Latest { tokens, stamp }),
        })
    }

    /// Returns the owner of a token.
    pub fn owner(&self, token: &[u8]) -> Option<Arc<str>> {
        let tokens = Arc::clone(&self.latest().tokens);
        tokens.owner(token)
    }

    /// Reads the file if it has changed. Returns the clients whose tokens are no longer in it. A file
    /// that cannot be used changes nothing.
    pub fn refresh(&self) -> Vec<Arc<str>> {
        let mut latest = self.latest();
        let stamp = stamp(&self.path);
        if stamp == latest.stamp {
            return Vec::new();
        }
        latest.stamp = stamp;
        match Tokens::read(&self.path) {
            Ok(tokens) => {
                let before = std::mem::replace(&mut latest.tokens, Arc::new(tokens));
                before.without(&latest.tokens)
            }
            Err(error) => {
                say(&format!("{error:#}; the tokens from before hold"));
                Vec::new()
            }
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.ctime(),
        file.ctime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::transport::tokens::new_line;

    #[test]
    fn a_file_that_changes_is_read_again_and_one_that_is_none_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let [one, two, other] = ["one", "two", "one"].map(|name| new_line(name).unwrap());
        let write = |lines: &[&str]| {
            let new = directory.path().join("new");
            fs::write(&new, lines.join("\n")).unwrap();
            fs::rename(new, &path).unwrap();
        };
        write(&[&one.0, &two.0]);
        let file = TokenFile::read(&path).unwrap();
        let owner = |token: &str| file.owner(token.as_bytes());
        assert_eq!(file.refresh(), []);
        write(&[&one.0]);
        assert_eq!(file.refresh(), ["two".into()]);
        assert_eq!((owner(&one.1), owner(&two.1)), (Some("one".into()), None));
        write(&["nonsense"]);
        assert_eq!(file.refresh(), []);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.refresh(), []);
        assert_eq!(owner(&one.1), Some("one".into()));
        // Another token of the same client.
        write(&[&other.0, &two.0]);
        assert_eq!(file.refresh(), ["one".into()]);
        assert_eq!((owner(&one.1), owner(&two.1)), (None, Some("two".into())));
    }
}
