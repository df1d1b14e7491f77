//! One run on one screen.

pub mod advice;
mod inspection;
mod origin;
pub mod record_of;
mod report;
mod request;

pub use inspection::{Inspection, inspect};
pub use origin::{Lineage, Origin};
pub use report::{Report, Timings, last_words};
pub use request::{Path, Request};

use crate::agent::{Collection, Session, Shared, Sink};
use crate::confine::{self, Seal};
use crate::files::{self, Fetched, Gathered, Unpacker, Wanted, gather};
use crate::image::store;
use crate::job::{self, Job, Parts, Source};
use crate::signals::Signals;
use crate::template::builder::Listener;
use crate::terminal::{self, Keeper};
use crate::vm::Usage;
use crate::watchdog::Watchdog;
use anyhow::{Context, Result};
use std::borrow::Cow;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

/// The parts of a run, before anything but the destinations of its files is opened.
pub struct Prepared<'a> {
    began: Instant,
    /// The request, with the image that the job is for.
    pub request: Cow<'a, Request>,
    pub job: Job,
    gathered: Gathered,
    collection: Option<Collection>,
    unpacker: Option<Unpacker>,
}

/// Reads the script and the files that go into the guest.
pub fn prepare(request: &Request) -> Result<Prepared<'_>> {
    let began = Instant::now();
    store::require_guest()?;
    let (collection, unpacker) = collection(request)?.unzip();
    let terminal = match request.terminal {
        true => terminal::of_this_process()?,
        false => None,
    };
    let name = terminal.and_then(|_| std::env::var_os("TERM"));
    let name = name.map(|name| [b"TERM=", name.as_bytes()].concat());
    let variables: Vec<_> = name
        .into_iter()
        .chain(request.env.iter().cloned())
        .collect();
    let place = files::place_of(&request.source, &request.puts, &request.workdir);
    let parts = Parts {
        image: &request.image,
        source: &request.source,
        language: request.language.as_deref(),
        arguments: &request.arguments,
        variables: &variables,
        place: place.as_deref(),
        workdir: &request.workdir,
        pids: request.limits.pids,
        root: request.root,
        terminal,
        prompt: request.prompt,
    };
    let mut job = match request.script_chooses {
        true => job::make_for_any(parts),
        false => job::make(parts).map_err(anyhow::Error::from),
    }?;
    let request = request.for_job(&job)?;
    job.record = request.tells;
    job.lines = request.events || request.shows;
    let wanted = Wanted {
        puts: &request.puts,
        excluded: &request.excluded,
        siblings: request.siblings,
        memory: request.limits.memory,
        window: Some(request.layers.len()).filter(|&taken| taken < guest::WINDOWS),
    };
    let gathered = gather(&mut job, &wanted, place.is_some())?;
    Ok(Prepared {
        began,
        request,
        job,
        gathered,
        collection,
        unpacker,
    })
}

/// Runs one program in a virtual machine of its own. Signals that ask this process to stop are
/// watched until the caller drops them.
pub fn run(prepared: Prepared, listener: &mut dyn Listener) -> Result<(Report, Signals)> {
    let Prepared {
        began,
        request,
        mut job,
        gathered,
        collection,
        unpacker,
    } = prepared;
    let kept = descriptors(&collection, &unpacker);
    confine::prepare(request.confine, kept.chain(request.record).collect())?;
    let origin = Origin::find(&request, &mut job, listener)?;
    let (mode, path, memory) = (origin.mode, origin.path, origin.memory);
    let template = origin.template.clone();
    let keeper = job
        .frame
        .terminal
        .map(|terminal| Keeper::start(terminal, request.record))
        .transpose()?;
    let signals = Signals::watch()?;
    let shared = Arc::new(Shared::new().context("making an eventfd")?);
    let session = session(&request, job, path, &shared)?
        .collecting(collection)
        .shown_on(keeper.as_ref().map(Keeper::modes));
    let vm = origin.machine(&request, session, &shared)?;
    let usage = request.record.map(|_| vm.usage()).transpose()?;

    let seal = Seal::process(request.confine, mode, memory, request.record)?;
    let confinement = seal.layers.clone();
    let watchdog = Watchdog::start(vm, Arc::clone(&shared), seal)?;
    let (vm, verdict) = watchdog.watch(&request.limits, &signals, &mut || {})?;
    let ended = Instant::now();
    drop(keeper);
    let (counters, unknown) = (vm.counters(), vm.unknown());
    let peak = usage.map(Usage::count).transpose()?;
    let last_words = last_words(&vm.console());
    let mut session = vm.into_host();
    let (kept, told) = (session.take_kept().into(), session.take_report());
    let missing_module = missing_module(session.ends());
    let (reported, output, milestones) = session.into_result();
    let fetched = unpacker.map_or(Ok(Fetched::default()), Unpacker::finish)?;
    let report = Report {
        path,
        template,
        timings: Timings::between(began, verdict.entered, &milestones, ended),
        outcome: verdict.outcome(reported),
        limits: request.limits.clone(),
        output,
        kept,
        told,
        gathered,
        fetched,
        counters,
        unknown,
        peak,
        mode,
        confinement,
        last_words,
        missing_module,
    };
    Ok((report, signals))
}

/// Returns the module to run that the interpreter did not find, as the end of its output says.
fn missing_module(ends: [&[u8]; 2]) -> Option<String> {
    let mut ends = ends.into_iter().map(String::from_utf8_lossy);
    ends.find_map(|end| advice::missing_in(&end).map(str::to_owned))
}

/// Makes the conversation with a guest that gets its machine in this way.
fn session(request: &Request, mut job: Job, path: Path, shared: &Arc<Shared>) -> Result<Session> {
    if let Some(terminal) = job.frame.terminal {
        shared.set_terminal(terminal);
    }
    let begin = match path {
        Path::Warm => Session::warm,
        Path::Cold => {
            job.mount(&request.layers);
            Session::cold
        }
    };
    let mut sinks = request.sinks()?;
    if let Source::Module(_) = job.source {
        // On a terminal, all is in the first.
        sinks.iter_mut().for_each(Sink::keep_end);
    }
    Ok(begin(job, sinks, Arc::clone(shared)))
}

/// Prepares the fetching of files, if any are requested: the session's part of it, and the process
/// that unpacks them.
fn collection(request: &Request) -> Result<Option<(Collection, Unpacker)>> {
    if request.gets.is_empty() {
        return Ok(None);
    }
    let destinations = files::destinations(&request.gets, &request.workdir, request.force)?;
    let (unpacker, stream) = Unpacker::start(
        &destinations,
        &request.limits,
        request.force,
        request.confine,
    )?;
    let sink = Sink::new(&stream, u64::MAX)?;
    let paths = destinations
        .into_iter()
        .map(|destination| destination.guest);
    Ok(Some((Collection::new(paths.collect(), sink), unpacker)))
}

/// Returns the descriptors that are open before confinement.
fn descriptors(
    collection: &Option<Collection>,
    unpacker: &Option<Unpacker>,
) -> impl Iterator<Item = RawFd> {
    let collection = collection.iter().filter_map(Collection::descriptor);
    collection.chain(unpacker.iter().map(Unpacker::descriptor))
}
