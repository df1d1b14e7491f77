//! The template that a warm run starts from. It is found in the store, or built by booting a
//! machine, starting an interpreter in it and saving both.

use crate::agent::{Session, Shared, Sink};
use crate::cache::{BOUND, prune};
use crate::confine::Seal;
use crate::error;
use crate::image::{Images, store};
use crate::job;
use crate::kvm_mode::{self, Device};
use crate::outcome::{Crash, Outcome};
use crate::signals::Signals;
use crate::template::{Found, GAP, Key, Lock, Store, Template, TemplateSpec, TemplateWriter};
use crate::units::PAGE;
use crate::vm::mode::Mode;
use crate::vm::{BootImages, Config, Pages, Saved, SavedMemory, State, Vm};
use crate::watchdog::Watchdog;
use anyhow::{Context, Error, Result, anyhow};
use kvm_ioctls::Kvm;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::stderr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::{
    Bytes, FileOffset, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress,
};

/// A listener for progress while a template is found or built.
pub trait Listener {
    /// A template must not be used, for this reason.
    fn refused(&mut self, why: &str);
    /// Another process builds the needed template.
    fn waiting(&mut self);
    /// The build has reached this stage after this time; the last build took `last`.
    fn building(&mut self, stage: &str, elapsed: Duration, last: Option<Duration>);
    fn built(&mut self, elapsed: Duration);
    /// Nothing can be kept, for this reason, so this run makes all that it needs.
    fn unsaved(&mut self, why: &error::Error);
    /// The guest failed natively in this way, so its kernel is emulated instead.
    fn emulating(&mut self, how: &str);
}

/// The contents of a template, except for the memory.
#[derive(Serialize, Deserialize)]
pub struct Content {
    pub state: State,
    /// The pages of memory that are not zero.
    pub filled: Pages,
    /// Pages that a run is likely to write to, of each region of RAM.
    pub working_set: Vec<Pages>,
}

/// A saved machine to make clones of.
pub struct Original {
    pub saved: Saved,
    /// The name of its template.
    pub key: Key,
    /// The mode in which the machine was saved and in which its clones run.
    pub mode: Mode,
}

/// Loads a saved machine from its template, which is built if necessary. The machine has this mode,
/// or is emulated if a guest fails natively and the user does not insist on the mode. `verify`
/// means that all of its memory is read and checked.
pub fn find_or_build(
    kvm: &Kvm,
    mode: Mode,
    device: &Device,
    spec: &TemplateSpec,
    verify: bool,
    listener: &mut dyn Listener,
) -> Result<Original> {
    let how = match saved(kvm, mode, spec, verify, listener) {
        Err(error) if mode == Mode::Native => error.downcast::<Failed>()?.0,
        result => return result,
    };
    let mode = kvm_mode::after_failure(device.choice, &how)?;
    listener.emulating(&how);
    let original = saved(kvm, mode, spec, verify, listener)?;
    // This must not come earlier: a guest that fails in both modes proves nothing against one of
    // them.
    kvm_mode::remember_failure(device, how)?;
    Ok(original)
}

fn saved(
    kvm: &Kvm,
    mode: Mode,
    spec: &TemplateSpec,
    verify: bool,
    listener: &mut dyn Listener,
) -> Result<Original> {
    let key = spec.key(mode)?;
    let template = template(kvm, mode, spec, &key, verify, listener)?;
    template.mark_used();
    let content: Content =
        postcard::from_bytes(&template.state).context("decoding the template")?;
    let saved = Saved {
        state: content.state,
        working_set: content.working_set,
        memory: SavedMemory {
            file: FileOffset::new(template.memory, template.memory_offset),
            size: template.memory_size,
            filled: content.filled,
        },
        runtime: store::runtime()?,
    };
    Ok(Original { saved, key, mode })
}

fn template(
    kvm: &Kvm,
    mode: Mode,
    spec: &TemplateSpec,
    key: &Key,
    verify: bool,
    listener: &mut dyn Listener,
) -> Result<Template> {
    let store = Store::open()?;
    let refused = match find(&store, key, verify)? {
        Ok(template) => return Ok(template),
        Err(why) => why,
    };
    if let Some(why) = &refused {
        listener.refused(why);
    }
    store.check_place(key)?;
    let lock = store.lock(key, || listener.waiting())?;
    // The previous holder of the lock may have built it.
    if let Ok(template) = find(&store, key, verify)? {
        return Ok(template);
    }
    let template = build(&store, &lock, kvm, mode, spec, listener)?;
    template.mark_used();
    // What cannot be removed now is removed when the next one is built.
    prune(&[&store, &Images::open()?], BOUND).unwrap_or_default();
    Ok(template)
}

/// Returns the template. The error is the reason why a file must not be used, or `None` if there is
/// no file.
fn find(store: &Store, key: &Key, verify: bool) -> Result<Result<Template, Option<String>>> {
    Ok(match store.find(key)? {
        Found::Ready(template) if verify && !template.verify()? => {
            Err(Some("its memory is not what was saved".into()))
        }
        Found::Ready(template) => Ok(template),
        Found::Missing => Err(None),
        Found::Refused(why) => Err(Some(why)),
    })
}

fn build(
    store: &Store,
    lock: &Lock,
    kvm: &Kvm,
    mode: Mode,
    spec: &TemplateSpec,
    listener: &mut dyn Listener,
) -> Result<Template> {
    let began = Instant::now();
    let last = store.last_build_time();
    let signals = Signals::watch()?;
    let mut vm = warm_up(kvm, mode, spec, &signals, &mut |stage| {
        listener.building(stage, began.elapsed(), last);
    })?;
    listener.building("saving", began.elapsed(), last);
    let state = vm.save(kvm)?;
    let mut writer = store.writer(lock, spec.memory)?;
    let filled = write_memory(vm.memory(), &mut writer)?;
    drop(vm);
    let (memory, offset) = writer.memory()?;
    let saved = Saved {
        state,
        working_set: Vec::new(),
        memory: SavedMemory {
            file: FileOffset::new(memory, offset),
            size: spec.memory,
            filled,
        },
        runtime: store::runtime()?,
    };
    let content = Content {
        working_set: profile_working_set(kvm, mode, spec, &saved, &signals)?,
        filled: saved.memory.filled,
        state: saved.state,
    };
    let content = postcard::to_stdvec(&content).context("encoding the template")?;
    let template = writer.publish(&content, &spec.describe(), began.elapsed())?;
    listener.built(began.elapsed());
    Ok(template)
}

/// Writes the pages that are not zero, and returns which they are.
fn write_memory(memory: &GuestMemoryMmap, writer: &mut TemplateWriter) -> Result<Pages> {
    let (mut filled, mut index) = (Pages::default(), 0);
    for region in memory.iter() {
        for offset in (0..region.len()).step_by(PAGE) {
            let mut page = [0; PAGE];
            region
                .read_slice(&mut page, MemoryRegionAddress(offset))
                .context("reading guest memory")?;
            if page != [0; PAGE] {
                writer.write_page(index.into(), &page)?;
                filled.add(index, GAP);
            }
            index += 1;
        }
    }
    for (first, count) in filled.runs() {
        writer.reserve(first.into(), count.into())?;
    }
    Ok(filled)
}

/// Runs a minimal program in a first clone, and returns the pages that it wrote to.
fn profile_working_set(
    kvm: &Kvm,
    mode: Mode,
    spec: &TemplateSpec,
    saved: &Saved,
    signals: &Signals,
) -> Result<Vec<Pages>> {
    let shared = Arc::new(Shared::new().context("making an eventfd")?);
    let nowhere = File::options()
        .write(true)
        .open("/dev/null")
        .context("opening /dev/null")?;
    let sinks = [
        Sink::new(&nowhere, u64::MAX)?,
        Sink::new(&nowhere, u64::MAX)?,
    ];
    let session = Session::warm(
        job::rehearsal(&spec.image, spec.root),
        sinks,
        Arc::clone(&shared),
    );
    let vm = Vm::restore(kvm, mode, saved, session)?;
    let watchdog = Watchdog::start(vm, shared, Seal::none())?;
    let (vm, verdict) = watchdog.watch(&spec.limits(mode), signals, &mut || {})?;
    let written = vm.written()?;
    let (reported, ..) = vm.into_host().into_result();
    match verdict.outcome(reported) {
        Outcome::Exited(0) => Ok(written),
        outcome => Err(failure("the first clone of the template", outcome)),
    }
}

/// The error for a signal that asked this process to stop before there was a program.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted(pub u8);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted while building the template")
    }
}

impl std::error::Error for Interrupted {}

/// Boots a machine up to an interpreter that asks for a job.
fn warm_up(
    kvm: &Kvm,
    mode: Mode,
    spec: &TemplateSpec,
    signals: &Signals,
    progress: &mut dyn FnMut(&str),
) -> Result<Vm<Session>> {
    let shared = Arc::new(Shared::new().context("making an eventfd")?);
    // The guest writes nothing unless something is wrong.
    let sinks = [
        Sink::new(stderr(), u64::MAX)?,
        Sink::new(stderr(), u64::MAX)?,
    ];
    let job = job::warm_interpreter(&spec.image, spec.root);
    let session = Session::warming(job, sinks, Arc::clone(&shared));
    let config = Config {
        memory: spec.memory,
        runtime: store::runtime()?,
        images: BootImages {
            kernel: &store::kernel()?,
            agent: store::AGENT,
        },
        console: None,
    };
    let vm = Vm::boot(kvm, mode, config, session)?;
    let watchdog = Watchdog::start(vm, Arc::clone(&shared), Seal::none())?;
    let (vm, verdict) = watchdog.watch(&spec.limits(mode), signals, &mut || {
        progress(match shared.start_time() {
            None => "booting the guest kernel",
            Some(_) => "starting the interpreter",
        });
    })?;
    if vm.host().is_warm() {
        return Ok(vm);
    }
    let outcome = verdict.outcome(None);
    Err(failure("the guest that was to be saved", outcome))
}

/// Returns the error for a template that could not be made because a guest ended like this.
fn failure(whose: &str, outcome: Outcome) -> Error {
    match outcome {
        Outcome::Interrupted(signal) => Interrupted(signal).into(),
        Outcome::Crashed(crash @ Crash::MemoryLost) => anyhow!("{whose} crashed: {crash}"),
        Outcome::OutputClosed | Outcome::OutputFailed(_) => anyhow!("{whose} ended: {outcome:?}"),
        Outcome::Crashed(crash) => Failed(format!("{whose} crashed: {crash}")).into(),
        outcome => Failed(format!("{whose} ended: {outcome:?}")).into(),
    }
}

/// The error for a guest that failed by its own fault before it could become a template, with how
/// it ended.
#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}
