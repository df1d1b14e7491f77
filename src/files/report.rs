//! The report on the files that were wanted of the guest, from the process that writes them to the
//! one that waits for it.

use crate::error::{Error, Kind, Remedy};
use crate::text::escape_line;
use serde::{Deserialize, Serialize};

/// Upper bound on the entries of a list that are kept.
const TOLD: usize = 1000;
/// Upper bound on the bytes of those entries, but for the last.
const TOLD_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The files that were written, all of them whole.
    pub files: Listed<Written>,
    /// The files that were asked for, or are in a directory that was, and could not be fetched.
    pub missing: Listed<String>,
    /// Entries of directories that are neither files nor directories.
    pub left_out: Listed<String>,
    /// The reason why no more files were fetched, if something failed.
    pub failure: Option<Error>,
}

/// The first of many, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed<T> {
    pub first: Vec<T>,
    pub count: usize,
    /// The bytes of the entries in `first`.
    bytes: usize,
}

/// A file, where it was in the guest and where it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub guest: String,
    pub host: String,
    pub size: u64,
}

/// An entry of a list.
pub trait Entry {
    fn texts(&mut self) -> Vec<&mut String>;
}

impl Entry for String {
    fn texts(&mut self) -> Vec<&mut String> {
        vec![self]
    }
}

impl Entry for Written {
    fn texts(&mut self) -> Vec<&mut String> {
        vec![&mut self.guest, &mut self.host]
    }
}

impl<T: Entry> Listed<T> {
    pub fn add(&mut self, mut entry: T) {
        if self.first.len() < TOLD && self.bytes < TOLD_BYTES {
            self.bytes += entry.texts().iter().map(|text| text.len()).sum::<usize>();
            self.first.push(entry);
        }
        self.count += 1;
    }

    fn distrust(&mut self) {
        self.first.truncate(TOLD);
        for text in self.first.iter_mut().flat_map(Entry::texts) {
            *text = escape_line(text);
        }
    }
}

impl Fetched {
    pub fn failed(message: &str, remedy: impl Into<Remedy>) -> Self {
        Self {
            failure: Some(Error::new(Kind::Delivery, message, remedy)),
            ..Self::default()
        }
    }

    /// Returns why the end of a program does not count, which did well or did not, if that is so.
    pub fn undelivered(&self, did_well: bool) -> Option<Error> {
        match &self.failure {
            Some(failure) => Some(failure.clone()),
            None if did_well && self.missing.count > 0 => Some(Error::new(
                Kind::Delivery,
                format!("files that were wanted are missing: {}", self.missing.count),
                Remedy::MakeFiles,
            )),
            None => None,
        }
    }

    /// Makes the report safe to show: a guest may have taken over the process that sent it.
    pub fn distrusted(mut self) -> Self {
        self.files.distrust();
        self.missing.distrust();
        self.left_out.distrust();
        if let Some(failure) = &mut self.failure {
            failure.message = escape_line(&failure.message);
            failure.remedy.each_text(|text| *text = escape_line(text));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_writer_tells_is_bounded_and_escaped() {
        let names = Listed {
            first: vec!["\u{1b}".repeat(10_000); 2 * TOLD],
            ..Listed::default()
        };
        let file = Written {
            guest: "a".into(),
            host: "b\u{202e}".into(),
            size: 1,
        };
        let mut told = Fetched {
            missing: names,
            ..Fetched::failed("a\nb", "\u{9b}")
        };
        told.files.add(file);
        let told = told.distrusted();
        assert_eq!(told.missing.first.len(), TOLD);
        assert!(told.missing.first[0].len() < 100_000);
        assert!(!told.missing.first[0].contains('\u{1b}'));
        assert_eq!(told.files.first[0].host, r"b\u{202e}");
        let expected = Fetched::failed(r"a\nb", r"\u{9b}").failure;
        assert_eq!(told.failure, expected);
    }

    #[test]
    fn a_list_is_bounded_by_entries_and_by_bytes_and_counts_all() {
        let mut names = Listed::default();
        (0..2 * TOLD).for_each(|_| names.add("x".to_string()));
        assert_eq!((names.first.len(), names.count), (TOLD, 2 * TOLD));
        let mut names = Listed::default();
        (0..TOLD).for_each(|_| names.add("x".repeat(TOLD_BYTES / 4)));
        assert_eq!((names.first.len(), names.count), (4, TOLD));
    }
}
