//! A session that goes on from a point of another one, in a machine of its own.

use crate::agent::{CellRun, Cells, Channels, Shared};
use crate::checkpoint::{MEMORY_OFFSET, Point};
use crate::clock::since_1970;
use crate::error::{Error, Kind};
use crate::kvm_mode;
use crate::run::{Lineage, Path};
use crate::session::facts::Facts;
use crate::session::points::Points;
use crate::session::protocol::Spec;
use crate::template::builder::find_again;
use crate::vm::{SavedMemory, Shape, Vm, allow_kicks, host};
use anyhow::{Result, ensure};
use std::fs::File;
use std::sync::Arc;
use vm_memory::FileOffset;

/// A machine that goes on from a point, with what its session tells of it.
pub struct Another {
    pub vm: Vm<CellRun>,
    pub facts: Facts,
    pub points: Points,
    pub shape: Shape,
    /// The number of the last cell.
    pub cells: u64,
    /// The bytes that are mapped for it.
    pub mapped: u64,
}

/// Makes the machine that goes on from the point in this file. The file was checked, or is of memory.
pub fn make(
    spec: &Spec,
    file: File,
    length: u64,
    queues: (&Arc<Cells>, &Arc<Channels>),
    shared: &Arc<Shared>,
) -> Result<Another> {
    let request = &spec.request;
    let kvm = host::open(&request.kvm.path)?;
    allow_kicks()?;
    let point = Point::read(&file, length)?;
    kvm_mode::check_saved(&kvm, &request.kvm, point.mode)?;
    let (mut saved, image) =
        find_again(&point.template, &point.digest)?.ok_or_else(base_is_gone)?;
    ensure!(
        saved.memory.size == point.memory,
        "the point is of a machine of another size"
    );
    let layers: u64 = saved.layers.iter().map(|layer| layer.size).sum();
    saved.over = Some(SavedMemory {
        file: FileOffset::new(file, MEMORY_OFFSET),
        size: point.memory,
        filled: point.own,
    });
    saved.state = point.state;
    saved
        .state
        .advance(since_1970().saturating_sub(point.taken));
    // It has an end at once: input comes with the cells.
    shared.give_stdin(Vec::new());
    let lineage = Lineage {
        shape: saved.state.shape(),
        template: point.template.clone(),
        digest: point.digest,
    };
    let run = point
        .interpreter
        .converse(&request.limits, queues, shared)?;
    Ok(Another {
        vm: Vm::restore(&kvm, point.mode, &saved, run)?,
        facts: Facts {
            name: spec.name.clone(),
            bounds: spec.bounds.clone(),
            frame: point.interpreter.frame_of_job()?,
            image,
            limits: request.limits.clone(),
            path: Path::Warm,
            template: Some(point.template),
            mode: point.mode,
            confinement: Vec::new(),
            journal: None,
        },
        shape: lineage.shape.clone(),
        points: Points::new(Ok(lineage), point.interpreter, point.memory),
        cells: point.cells,
        mapped: point.memory.saturating_add(layers),
    })
}

/// Says that a machine cannot go on without the template that it was cloned from.
fn base_is_gone() -> Error {
    Error::new(
        Kind::Request,
        "the saved machine is gone, or was made anew, from which the session's own was cloned",
        "start another session; what is saved of this one is of no use any more",
    )
}
