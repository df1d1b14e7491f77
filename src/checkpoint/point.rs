//! A point from which a session's machine goes on in others: all that these need beside its memory.
//!
//! It is in a file of memory, or of the cache: the point at [`POINT_OFFSET`], the machine's own pages from
//! [`MEMORY_OFFSET`] on. The session's process wrote it, which its guest may have taken over: it is
//! bounded, and no more trusted than a guest.

use crate::agent::{CellRun, Cells, Channels, Shared};
use crate::error::{Error, Kind};
use crate::job::Job;
use crate::key::Key;
use crate::limits::Limits;
use crate::units::PAGE;
use crate::vm::mode::Mode;
use crate::vm::{JobLimits, Pages, State};
use anyhow::{Context, Result, bail, ensure};
use guest::{Decoder, Frame, JobFrame, MAX_START, encode};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// The offset of the point in its file: behind what a checkpoint begins with.
pub const POINT_OFFSET: u64 = PAGE as u64;
/// The offset of the memory: past the longest point, and aligned so that a huge page of the file can be one
/// of the guest.
pub const MEMORY_OFFSET: u64 = 2 << 20;
/// The most bytes of a point.
pub const POINT_MAX: usize = 1 << 20;

/// A point.
#[derive(Serialize, Deserialize)]
pub struct Point {
    /// The template that the machine was cloned from, and the digest of its memory.
    pub template: Key,
    pub digest: [u8; 32],
    pub mode: Mode,
    pub state: State,
    /// When it was saved, since 1970.
    pub taken: Duration,
    /// The pages that are not the template's.
    pub own: Pages,
    /// The bytes of the machine's memory.
    pub memory: u64,
    /// The number of its last cell.
    pub cells: u64,
    pub interpreter: Interpreter,
    /// Limits and bounds of the session, as it tells them.
    pub limits: Vec<u8>,
}

/// How interpreters are started in the machine, should the one that there is end.
#[derive(Clone, Serialize, Deserialize)]
pub struct Interpreter {
    /// The frame that starts one, that of the job, and the job as each gets it.
    frame: Vec<u8>,
    frame_of_job: Vec<u8>,
    job: Vec<u8>,
    withheld: u64,
    pids: u32,
    /// Whether variables of the environment were given to it.
    pub has_variables: bool,
}

impl Interpreter {
    /// Returns how the interpreter of this job is started, by this frame.
    pub fn of(job: &Job, frame: &JobFrame, has_variables: bool) -> Self {
        Self {
            frame: encoded(frame),
            frame_of_job: encoded(&job.frame),
            job: job.handover(),
            withheld: job.withheld,
            pids: job.frame.pids_limit,
            has_variables,
        }
    }

    /// Makes the conversation with the guest of another machine.
    pub fn converse(
        &self,
        limits: &Limits,
        (cells, channels): (&Arc<Cells>, &Arc<Channels>),
        shared: &Arc<Shared>,
    ) -> Result<CellRun> {
        let job_limits = JobLimits {
            withheld: self.withheld,
            pids: self.pids,
        };
        let queues = (Arc::clone(cells), Arc::clone(channels));
        Ok(CellRun::another(
            self.job.clone(),
            decoded(&self.frame)?,
            job_limits,
            limits.max_output,
            queues,
            Arc::clone(shared),
        ))
    }

    /// Returns the frame of the job.
    pub fn frame_of_job(&self) -> Result<JobFrame> {
        decoded(&self.frame_of_job)
    }
}

impl Point {
    /// Encodes the point. It is an error if it is longer than any may be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let bytes = postcard::to_stdvec(self).context("encoding a point")?;
        if bytes.len() > POINT_MAX {
            return Err(Error::new(
                Kind::Request,
                "the session's machine is too scattered, or has too many variables of the environment, to be saved",
                "start another, with less memory or fewer variables",
            )
            .into());
        }
        Ok(bytes)
    }

    /// Reads the point of this length in a file.
    pub fn read(file: &File, length: u64) -> Result<Self> {
        ensure!(length <= POINT_MAX as u64, "the point is longer than any");
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, POINT_OFFSET)
            .context("reading the point")?;
        Self::decode(&bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let point: Self = postcard::from_bytes(bytes).context("decoding the point")?;
        let pages = point.memory / PAGE as u64;
        ensure!(
            point.memory.is_multiple_of(PAGE as u64) && point.own.are_within(pages),
            "the point tells of pages that there are not"
        );
        Ok(point)
    }

    /// Returns the length of a file with this point and its memory.
    pub fn file_length(&self) -> Result<u64> {
        let length = MEMORY_OFFSET.checked_add(self.memory);
        length.context("the point tells of too much memory")
    }
}

fn encoded(frame: &JobFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&Frame::Start(frame.clone()), &mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<JobFrame> {
    let mut decoder = Decoder::with_limit(MAX_START);
    decoder.push(bytes);
    match decoder.next_frame() {
        Ok(Some(Frame::Start(frame))) => Ok(frame),
        _ => bail!("the point does not say how its interpreter is started"),
    }
}
