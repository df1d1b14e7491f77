//! The end of a run or of a cell, as the server knows it.

use crate::audit::Usage;
use crate::mcp::workspace::Workspace;
use crate::record::{Failure, Record, Status};
use std::time::Duration;

/// The end of a run.
pub struct Ended {
    pub record: Record,
    /// Whether the record comes from the run's process; otherwise it has what the server knows.
    pub is_told: bool,
    /// The size in bytes of the record as the worker sent it.
    pub size: u64,
    pub usage: Usage,
    /// The directory with the files that the run left, until this is dropped.
    pub workspace: Option<Workspace>,
}

impl Ended {
    /// Returns the end of a run that never began.
    pub fn without_process(failure: Failure) -> Self {
        Self::unbegun(failed(failure))
    }

    /// Returns the end of a run that was cancelled before it began.
    pub fn cancelled() -> Self {
        Self::unbegun(Record::empty(Status::Cancelled))
    }

    fn unbegun(record: Record) -> Self {
        Self {
            record,
            is_told: false,
            size: 0,
            usage: Usage::unknown(Duration::ZERO),
            workspace: None,
        }
    }

    /// Returns the end of a cell. `is_told`: the record is the session's.
    pub fn of_cell(
        record: Record,
        is_told: bool,
        usage: Usage,
        workspace: Option<Workspace>,
    ) -> Self {
        // As it would be sent.
        let size = serde_json::to_vec(&record).map_or(0, |line| line.len() as u64);
        Self {
            size,
            is_told,
            record,
            usage,
            workspace,
        }
    }

    /// Replaces the record by a short one, because the client does not read and there is no room.
    pub fn unread(self) -> Self {
        let mut record = failed(Failure {
            message: "the program has ended, but there is no room for its answer: others are not read yet".into(),
            remedy: "read the answers that there are, and call again".into(),
        });
        record.audit = self.record.audit;
        Self { record, ..self }
    }
}

fn failed(failure: Failure) -> Record {
    Record {
        error: Some(failure),
        ..Record::empty(Status::Error)
    }
}
