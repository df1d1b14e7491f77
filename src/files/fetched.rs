//! What became of the files that were wanted of the guest, as the process that writes them tells
//! the one that waits for it.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Whole files, in the order in which they came.
    pub files: Vec<FetchedFile>,
    /// What was asked for, or is in a directory that was, and could not be read.
    pub missing: Names,
    /// What in a directory is neither file nor directory.
    pub left_out: Names,
    /// Why there is no more.
    pub failure: Option<Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedFile {
    /// On the host.
    pub path: OsString,
    pub size: u64,
}

/// As many names as a person reads, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub first: Vec<String>,
    pub count: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub what: String,
    pub remedy: String,
}

impl Names {
    pub fn add(&mut self, name: String) {
        const READ: usize = 5;
        if self.first.len() < READ {
            self.first.push(name);
        }
        self.count += 1;
    }
}
