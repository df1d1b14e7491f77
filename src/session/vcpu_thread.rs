//! The vCPU thread of a session: it runs the guest and, where the interpreter has come to a point, saves the
//! machine and goes on.

use crate::agent::{CellRun, Saved};
use crate::checkpoint::{MEMORY_OFFSET, POINT_OFFSET};
use crate::vm::{End, Pages, Shape, State, Tracker, Vm};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::time::Instant;

/// The means to save the machine: the shape of its state, and what finds its own pages.
pub struct Means {
    pub shape: Shape,
    pub tracker: Tracker,
}

/// Runs the guest until the host needs nothing more from it, or it crashes.
pub fn run(vm: &mut Vm<CellRun>, means: Option<&Means>) -> Result<End> {
    loop {
        let end = vm.run()?;
        if end != End::Done || !vm.host().is_at_point() {
            return Ok(end);
        }
        let file = vm.host_mut().take_point();
        let saved = match (means, file) {
            (Some(means), Some(file)) => Some(save(vm, means, file)),
            _ => None,
        };
        vm.host_mut().go_on(saved);
    }
}

fn save(vm: &mut Vm<CellRun>, means: &Means, mut file: File) -> Saved {
    let began = Instant::now();
    let machine = write(vm, means, &mut file);
    Saved {
        file,
        machine,
        paused: began.elapsed(),
    }
}

/// Writes the machine's own pages to the file, which is left where the point is to be. Nothing must be under
/// way.
fn write(vm: &mut Vm<CellRun>, means: &Means, file: &mut File) -> Result<Option<(State, Pages)>> {
    if !vm.host().is_at_rest() {
        return Ok(None);
    }
    let Some(state) = vm.state(&means.shape)? else {
        return Ok(None);
    };
    let own = vm.write_own(&means.tracker, file, MEMORY_OFFSET)?;
    file.seek(SeekFrom::Start(POINT_OFFSET))
        .context("finding the place of the point")?;
    Ok(Some((state, own)))
}
