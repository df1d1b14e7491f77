//! What all cells and commands of a session have in common.

use crate::confine::Layer;
use crate::error::Error;
use crate::image::Image;
use crate::limits::Limits;
use crate::record::Record;
use crate::run::Path;
use crate::session::journal::{Asked, Entry, Journal};
use crate::session::protocol::{Bounds, Purpose};
use crate::template::Key;
use crate::vm::mode::Mode;
use guest::JobFrame;

/// The facts about a session that its answers tell, or that bound its cells.
pub struct Facts {
    pub name: String,
    pub bounds: Bounds,
    /// The session's job: commands have its environment, directory and user.
    pub frame: JobFrame,
    /// The image that its interpreters are part of.
    pub image: Image,
    pub limits: Limits,
    pub path: Path,
    pub template: Option<Key>,
    pub mode: Mode,
    pub confinement: Vec<Layer>,
    /// The way to its log, if one is kept.
    pub journal: Option<Journal>,
}

impl Facts {
    /// Has the log say that a cell begins, if one is kept: what cannot be written down does not run.
    pub fn begins(&self, cell: u64, asked: impl FnOnce() -> Asked) -> Result<(), Error> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let asked = asked();
        journal.write(&Entry::Begins { cell, asked }).map(drop)
    }

    /// Has the log say that the machine is to be saved, if one is kept: what cannot be written down is not done.
    pub fn saves(&self, purpose: Purpose) -> Result<(), Error> {
        match &self.journal {
            Some(journal) => journal.write(&Entry::Saves { purpose }).map(drop),
            None => Ok(()),
        }
    }

    /// Has the log say how a cell ended, if one is kept.
    pub fn ended(&self, cell: u64, record: &mut Record) {
        let Some(journal) = &self.journal else {
            return;
        };
        let entry = Entry::Ended {
            cell,
            record: Box::new(record.clone()),
        };
        // The next cell is told that the log cannot be written.
        record.audit = journal.write(&entry).ok();
    }
}
