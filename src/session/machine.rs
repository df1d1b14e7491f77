//! The process of a session: it makes the machine, confines itself, and serves.

use crate::agent::{CellRun, Cells, Channels, Shared};
use crate::checkpoint::{Interpreter, MEMORY_OFFSET};
use crate::confine::{self, Seal};
use crate::error::{Error, Kind, Remedy, Session};
use crate::job::Job;
use crate::run::{self, Lineage, Origin, Path, Prepared, prepare, record_of};
use crate::session::facts::Facts;
use crate::session::journal::Journal;
use crate::session::owner::Tie;
use crate::session::peers::{PEERS_MAX, Peers};
use crate::session::points::Points;
use crate::session::protocol::Spec;
use crate::session::resume;
use crate::session::server::Server;
use crate::session::socket_directory::Place;
use crate::session::start::Started;
use crate::session::vcpu_thread::{self, Means};
use crate::signals::Signals;
use crate::template::builder::{Interrupted, Listener};
use crate::vm::Vm;
use crate::watchdog::Watchdog;
use crate::worker::{Notice, Notices};
use anyhow::{Context, Result};
use guest::JobFrame;
use std::fs::File;
use std::mem::forget;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

/// The most descriptors of the process: those of the machine and of the peers, and some.
const DESCRIPTORS: u64 = 48 + PEERS_MAX as u64;

/// Serves the session that this socket asks for, until it is over. `point`: if it goes on from one, the file
/// with it and the pipe to the owner.
pub fn serve(socket: OwnedFd, point: Option<(OwnedFd, OwnedFd)>) -> Result<()> {
    let socket = File::from(socket);
    let served = begin(&socket, point);
    if let Err(error) = &served {
        let error = match record_of::explained(error) {
            Ok(error) => error,
            Err(Interrupted(signal)) => Error::new(
                Kind::Guest,
                format!("signal {signal} ended the session while it started"),
                "start it again",
            ),
        };
        // Whoever asked for it may be gone, or have it already.
        Started::Failed(error).tell(&socket).unwrap_or_default();
    }
    served
}

/// A machine that is about to run, with what its session tells of it.
struct Made {
    vm: Vm<CellRun>,
    facts: Facts,
    points: Points,
    means: Option<Means>,
    /// The number of the last cell.
    cells: u64,
    /// The bytes that are mapped for the guest or needed for its output.
    memory: u64,
}

/// The state that the two threads share.
struct Ends {
    shared: Arc<Shared>,
    cells: Arc<Cells>,
    channels: Arc<Channels>,
}

fn begin(socket: &File, point: Option<(OwnedFd, OwnedFd)>) -> Result<()> {
    let spec = Spec::hear(socket)?;
    let mut kept = vec![socket.as_raw_fd()];
    if let Some((file, pipe)) = &point {
        kept.extend([file.as_raw_fd(), pipe.as_raw_fd()]);
    }
    confine::prepare(spec.request.confine, kept)?;
    let ends = Ends {
        shared: Arc::new(Shared::new().context("making an eventfd")?),
        cells: Arc::new(Cells::default()),
        channels: Arc::new(Channels::default()),
    };
    let place = Place::at(spec.directory.clone());
    let parent = spec.parent.map(Tie::to_process).transpose()?;
    let (listener, made, owner) = match (point, spec.point) {
        (Some((file, pipe)), Some(length)) => {
            let made = go_on(&spec, file.into(), length, &ends)?;
            (place.listen(&spec.name)?, made, Some(Tie::Pipe(pipe)))
        }
        _ => {
            let (listener, made) = make(socket, &spec, &place, &ends)?;
            let owner = spec.is_owned.then(|| duplicate(socket)).transpose()?;
            (listener, made, owner.map(Tie::Socket))
        }
    };
    // Nothing is to be kept busy by a process that stays.
    std::env::set_current_dir("/").context("leaving the directory")?;
    let signals = Signals::watch()?;
    let Made {
        vm,
        mut facts,
        points,
        means,
        cells,
        memory,
    } = made;
    let length = MEMORY_OFFSET.saturating_add(vm.memory_size());
    let peers = Peers::new(listener);
    let journal = spec.is_logged.then(|| duplicate(socket)).transpose()?;
    facts.journal = journal.map(Journal::new).transpose()?;
    let level = spec.request.confine;
    let seal = Seal::serving(level, facts.mode, memory, length, DESCRIPTORS)?;
    facts.confinement = seal.layers.clone();
    // The process has it to its end: the vCPU thread, which runs this, may not close the files in it.
    let means = means.map(|means| &*Box::leak(Box::new(means)));
    let run = move |vm: &mut Vm<CellRun>| vcpu_thread::run(vm, means);
    let watchdog = Watchdog::start_with(vm, Arc::clone(&ends.shared), seal, run)?;
    let mut server = Server::new(
        facts,
        peers,
        (ends.cells, ends.channels),
        ends.shared,
        signals,
    );
    server.points = Some(points);
    server.number = cells;
    server.ties = owner.into_iter().chain(parent).collect();
    let ran = server.run(watchdog, Some(|| Started::Ready.tell(socket)));
    // Its connections end with the process: who sees one end knows that nothing is left.
    forget(server);
    ran
}

fn duplicate(socket: &File) -> Result<OwnedFd> {
    let socket = socket.try_clone().context("duplicating a socket")?;
    Ok(socket.into())
}

/// Makes the machine of a session that begins, and listens.
fn make(socket: &File, spec: &Spec, place: &Place, ends: &Ends) -> Result<(UnixListener, Made)> {
    let notices = &mut Notices(|notice: Notice| {
        // If nobody receives it, that is noticed soon enough.
        Started::Notice(notice).tell(socket).unwrap_or_default();
    });
    let Prepared {
        request, mut job, ..
    } = prepare(&spec.request)?;
    let interpreter = interpreter(&mut job)?;
    let origin = find(&request, &mut job, notices)?;
    let listener = place.listen(&spec.name)?;
    let facts = Facts {
        name: spec.name.clone(),
        bounds: spec.bounds.clone(),
        frame: job.frame.clone(),
        image: job.image.clone(),
        path: origin.path,
        template: origin.template.clone(),
        mode: origin.mode,
        confinement: Vec::new(),
        limits: request.limits.clone(),
        journal: None,
    };
    // It has an end at once: input comes with the cells.
    ends.shared.give_stdin(Vec::new());
    let (memory, lineage) = (origin.memory, origin.lineage());
    let started = Interpreter::of(&job, &interpreter, !request.env.is_empty());
    let run = CellRun::new(
        job,
        interpreter,
        request.limits.max_output,
        (Arc::clone(&ends.cells), Arc::clone(&ends.channels)),
        Arc::clone(&ends.shared),
    );
    let vm = origin.machine(&request, run, &ends.shared)?;
    let means = lineage.as_ref().ok().map(|lineage| means(&vm, lineage));
    let points = Points::new(lineage, started, vm.memory_size());
    let made = Made {
        facts,
        points,
        means: means.transpose()?,
        vm,
        cells: 0,
        memory,
    };
    Ok((listener, made))
}

/// Makes the machine of a session that goes on from a point of another.
fn go_on(spec: &Spec, file: File, length: u64, ends: &Ends) -> Result<Made> {
    let queues = (&ends.cells, &ends.channels);
    let it = resume::make(spec, file, length, queues, &ends.shared)?;
    Ok(Made {
        means: Some(Means {
            shape: it.shape,
            tracker: it.vm.tracker()?,
        }),
        vm: it.vm,
        facts: it.facts,
        points: it.points,
        cells: it.cells,
        memory: it.mapped,
    })
}

fn means(vm: &Vm<CellRun>, lineage: &Lineage) -> Result<Means> {
    Ok(Means {
        shape: lineage.shape.clone(),
        tracker: vm.tracker()?,
    })
}

/// Makes the job one whose code comes in cells; returns the interpreter that takes the place of one that
/// has ended.
fn interpreter(job: &mut Job) -> Result<JobFrame, Error> {
    let refused = |why| Error::new(Kind::Request, why, Remedy::UseSession(Session::ChooseImage));
    if job.image.system.is_some() {
        // What waits there for a program takes no cells.
        let name = &job.image.name;
        return Err(refused(format!("the image {name} has no sessions")));
    }
    job.record = true;
    job.session = true;
    let interpreter = job.interpreter();
    let title = &job.language.title;
    interpreter.ok_or_else(|| refused(format!("{title} keeps nothing between cells")))
}

/// Finds the machine to clone.
fn find(request: &run::Request, job: &mut Job, listener: &mut dyn Listener) -> Result<Origin> {
    let origin = Origin::find(request, job, listener)?;
    if origin.path == Path::Cold {
        job.mount(&request.layers);
    }
    Ok(origin)
}
