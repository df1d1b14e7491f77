//! Patterns of what to leave out of directories that go into the guest.

use crate::error::{Error, Kind};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;

/// Patterns in the grammar of gitignore(5), the last of which that matches decides.
pub struct Excluded(Gitignore);

impl Excluded {
    pub fn of(patterns: &[String]) -> Result<Self, Error> {
        if patterns.is_empty() {
            return Ok(Self(Gitignore::empty()));
        }
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            let added = builder.add_line(None, pattern);
            added.map_err(|error| refused(pattern, &error))?;
        }
        let built = builder.build();
        Ok(Self(built.map_err(|error| refused("", &error))?))
    }

    /// Returns whether something is left out, by its path from the directory that is put.
    pub fn has(&self, path: &Path, is_directory: bool) -> bool {
        self.0.matched(path, is_directory).is_ignore()
    }
}

fn refused(pattern: &str, error: &ignore::Error) -> Error {
    let why = match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        other => other.to_string(),
    };
    Error::new(
        Kind::Request,
        format!("{pattern} is not a pattern of files to leave out: {why}"),
        "give one as in a .gitignore: a name, *.csv, /build, data/, or a path with **",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_gitignore() {
        for (patterns, left_out, kept) in [
            (
                &["*.csv"][..],
                &["a.csv", "d/a.csv"][..],
                &["a.py", "csv"][..],
            ),
            (&["data/"], &["data/", "d/data/"], &["data", "database/"]),
            (&["/build"], &["build", "build/"], &["d/build"]),
            (&["a/**/z"], &["a/z", "a/b/c/z"], &["z"]),
            (&["*.csv", "!keep.csv"], &["a.csv"], &["keep.csv"]),
            (&["# comment", "", "a "], &["a"], &["# comment"]),
            (&[".env"], &[".env", "d/.env"], &["env"]),
        ] {
            let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.into()).collect();
            let excluded = Excluded::of(&patterns).unwrap();
            let has = |path: &&str| {
                excluded.has(Path::new(path.trim_end_matches('/')), path.ends_with('/'))
            };
            assert!(left_out.iter().all(has), "{patterns:?}");
            assert!(!kept.iter().any(has), "{patterns:?}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let error = Excluded::of(&["a".into(), "{b".into()]).err().unwrap();
        assert!(error.message.starts_with("{b is not a pattern"), "{error}");
    }
}
