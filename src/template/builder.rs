//! The template that a warm run starts from. It is found in the store, or built by booting a
//! machine, starting an interpreter in it and saving both.

use crate::agent::{Session, Shared, Sink};
use crate::cache::Holders;
use crate::confine::Seal;
use crate::error;
use crate::image::{self, Image, LayerFile, store};
use crate::job;
use crate::kvm_mode::{self, Device};
use crate::signals::Signals;
use crate::template::build_process::{check, guarded};
use crate::template::eviction::keep_bound;
use crate::template::failure::{Failed, failure};
use crate::template::module_uses::modules_of;
use crate::template::rehearsal::{Occasions, Rehearsal};
use crate::template::{
    Found, GAP, Key, Lock, Preload, Store, Template, TemplateSpec, TemplateWriter, open_layers,
};
use crate::units::PAGE;
use crate::vm::mode::Mode;
use crate::vm::{BootImages, Config, Kvm, Pages, Saved, SavedMemory, State, Vm};
use crate::watchdog::Watchdog;
use anyhow::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::stderr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::{
    Bytes, FileOffset, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress,
};

pub use crate::template::failure::Interrupted;

/// The most bytes that are passed on of what others' code writes before its machine is saved.
const OTHERS_OUTPUT_MAX: u64 = 64 << 10;

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
    /// A machine is booted for the program alone, which takes long on this host: an interpreter reads this
    /// variable when it starts.
    fn booting(&mut self, variable: &str);
    /// The guest failed natively in this way, so its kernel is emulated instead.
    fn emulating(&mut self, how: &str);
}

/// The contents of a template, except for the memory.
#[derive(Serialize, Deserialize)]
pub struct Content {
    /// The image and the layers of the machine, in JSON.
    pub parts: Vec<u8>,
    pub state: State,
    /// The pages of memory that are not zero.
    pub filled: Pages,
    /// Pages that any run is likely to use, of each region of RAM.
    pub working_set: Vec<Pages>,
    pub occasions: Occasions,
    /// Pages that runs with a module of a layer use beyond these, by the module's name.
    pub of_modules: BTreeMap<String, Vec<Pages>>,
}

impl Content {
    /// Takes the sets of pages that the program uses which this machine is for.
    fn working_sets(&mut self, spec: &TemplateSpec) -> Vec<Vec<Pages>> {
        let modules = modules_of(&spec.imports, &spec.layers).into_iter();
        let of_modules = modules.filter_map(|module| self.of_modules.remove(module));
        let of_all = std::mem::take(&mut self.working_set);
        std::iter::once(of_all).chain(of_modules).collect()
    }
}

/// A saved machine to make clones of.
pub struct Original {
    pub saved: Saved,
    pub occasions: Occasions,
    /// The name of its template, and the digest of its memory.
    pub key: Key,
    pub digest: [u8; 32],
    /// The mode in which the machine was saved and in which its clones run.
    pub mode: Mode,
}

impl Original {
    /// Has the pages ready that a run uses on these occasions.
    pub fn expect(&mut self, input: bool, terminal: bool) {
        let occasions = [
            (input, &mut self.occasions.input),
            (terminal, &mut self.occasions.terminal),
        ];
        let expected = occasions
            .into_iter()
            .filter(|(is_expected, _)| *is_expected);
        let sets = expected.map(|(_, set)| std::mem::take(set));
        self.saved.working_sets.extend(sets);
    }
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
        // Code that is not ours proves nothing against a mode.
        Err(error) if mode == Mode::Native && spec.runs_only_ours() => {
            error.downcast::<Failed>()?.0
        }
        result => return result.map_err(|error| of_packages(error, spec)),
    };
    let mode = kvm_mode::after_failure(device.choice, &how)?;
    listener.emulating(&how);
    let original = saved(kvm, mode, spec, verify, listener)?;
    // This must not come earlier: a guest that fails in both modes proves nothing against one of
    // them.
    kvm_mode::remember_failure(device, how)?;
    Ok(original)
}

/// Explains a failure of a guest in which code that is not ours ran.
fn of_packages(error: Error, spec: &TemplateSpec) -> Error {
    let imports_packages = matches!(spec.preload, Preload::OfProgram | Preload::Modules(_));
    match error.downcast_ref() {
        Some(Failed(how)) if imports_packages => error::Error::new(
            error::Kind::Packages,
            format!("the packages ended their machine when they were imported: {how}"),
            error::Remedy::ImportInProgram,
        )
        .into(),
        _ => error,
    }
}

fn saved(
    kvm: &Kvm,
    mode: Mode,
    spec: &TemplateSpec,
    verify: bool,
    listener: &mut dyn Listener,
) -> Result<Original> {
    // Whatever is removed from the cache meanwhile, they stay.
    let _in_use = open_layers(&spec.layers)?;
    let key = spec.key(mode)?;
    let template = template(kvm, mode, spec, &key, verify, listener)?;
    let mut content = content(&template)?;
    let working_sets = content.working_sets(spec);
    let digest = template.digest();
    let parts = (&spec.image, &spec.layers[..]);
    let (saved, occasions) = saved_in(template, content, parts, working_sets)?;
    Ok(Original {
        saved,
        occasions,
        key,
        digest,
        mode,
    })
}

/// Finds the saved machine that another one goes on from, if its template is still the same.
pub fn find_again(key: &Key, digest: &[u8; 32]) -> Result<Option<(Saved, Image)>> {
    let template = match Store::open()?.find(key)? {
        Found::Ready(template) if template.digest() == *digest => template,
        _ => return Ok(None),
    };
    let mut content = content(&template)?;
    let (image, layers): (Image, Vec<LayerFile>) =
        serde_json::from_slice(&content.parts).context("decoding the template")?;
    let working_sets = vec![std::mem::take(&mut content.working_set)];
    let (saved, _) = saved_in(template, content, (&image, &layers), working_sets)?;
    Ok(Some((saved, image)))
}

fn content(template: &Template) -> Result<Content> {
    postcard::from_bytes(&template.state).context("decoding the template")
}

/// Returns the saved machine in a template, which is in use from now on.
fn saved_in(
    template: Template,
    content: Content,
    (image, layers): (&Image, &[LayerFile]),
    working_sets: Vec<Vec<Pages>>,
) -> Result<(Saved, Occasions)> {
    template.mark_used();
    let saved = Saved {
        working_sets,
        state: content.state,
        memory: SavedMemory {
            file: FileOffset::new(template.memory, template.memory_offset),
            size: template.memory_size,
            filled: content.filled,
        },
        over: None,
        runtime: image::runtime(image)?,
        layers: open_layers(layers)?,
    };
    Ok((saved, content.occasions))
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
        Ok(template) => return Ok(used(template, &store, key, spec)),
        Err(why) => why,
    };
    if let Some(why) = &refused {
        listener.refused(why);
    }
    store.check_place(key)?;
    let lock = store.lock(key, || listener.waiting())?;
    // The previous holder of the lock may have built it.
    if let Ok(template) = find(&store, key, verify)? {
        return Ok(used(template, &store, key, spec));
    }
    let share = spec.share.as_ref();
    Holders::beside(store.directory()).note_making(key.as_str(), share)?;
    let template = build(&store, &lock, kvm, mode, spec, listener)?;
    template.mark_used();
    // What cannot be removed now is removed when the next one is built.
    keep_bound(share).unwrap_or_default();
    Ok(template)
}

/// Notes who uses a template that is there. It may be one more than a client has room for.
fn used(template: Template, store: &Store, key: &Key, spec: &TemplateSpec) -> Template {
    let share = spec.share.as_ref();
    if Holders::beside(store.directory()).note_use(key.as_str(), share) {
        template.mark_used();
        keep_bound(share).unwrap_or_default();
    }
    template
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
    let mut writer = store.writer(lock, spec.memory)?;
    let (state, filled) = guarded(spec, &signals, || {
        let mut vm = warm_up(kvm, mode, spec, &signals, &writer, &mut |stage| {
            listener.building(stage, began.elapsed(), last);
        })?;
        listener.building("saving", began.elapsed(), last);
        let state = vm.save(kvm)?;
        let filled = write_memory(vm.memory(), &mut writer)?;
        Ok((state, filled))
    })?;
    if !spec.runs_only_ours() {
        writer.take_over()?;
        check(&filled, spec)?;
    }
    let (memory, offset) = writer.memory()?;
    let saved = Saved {
        state,
        working_sets: Vec::new(),
        memory: SavedMemory {
            file: FileOffset::new(memory, offset),
            size: spec.memory,
            filled,
        },
        over: None,
        runtime: image::runtime(&spec.image)?,
        layers: open_layers(&spec.layers)?,
    };
    let rehearsal = Rehearsal {
        kvm,
        mode,
        spec,
        saved: &saved,
        signals: &signals,
    };
    let parts =
        serde_json::to_vec(&(&spec.image, &spec.layers)).context("encoding the template")?;
    let working_set = rehearsal.working_set()?;
    let content = Content {
        parts,
        occasions: rehearsal.occasions(&working_set)?,
        working_set,
        of_modules: rehearsal.of_modules()?,
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
    writer.flush()?;
    Ok(filled)
}

/// Boots a machine up to an interpreter that asks for a job.
fn warm_up(
    kvm: &Kvm,
    mode: Mode,
    spec: &TemplateSpec,
    signals: &Signals,
    writer: &TemplateWriter,
    progress: &mut dyn FnMut(&str),
) -> Result<Vm<Session>> {
    let shared = Arc::new(Shared::new().context("making an eventfd")?);
    shared.leave_stdin();
    // The guest writes nothing unless something is wrong, or packages write as they are loaded.
    let most = match spec.runs_only_ours() {
        true => u64::MAX,
        false => OTHERS_OUTPUT_MAX,
    };
    let sinks = [Sink::new(stderr(), most)?, Sink::new(stderr(), most)?];
    let (wishes, first_uses) = (spec.wishes(), spec.first_uses());
    let job = job::warm_interpreter(
        (&spec.image, &spec.language),
        spec.root,
        &wishes,
        &first_uses,
    )
    .with_context(|| format!("{} is not started ahead", spec.language.title))?;
    let session = Session::warming(job, job::mounts(&spec.layers), sinks, Arc::clone(&shared));
    let config = Config {
        memory: spec.memory,
        runtime: image::runtime(&spec.image)?,
        layers: &open_layers(&spec.layers)?,
        images: BootImages {
            kernel: &store::kernel()?,
            agent: store::AGENT,
        },
        console: None,
    };
    let vm = Vm::boot(kvm, mode, config, session)?;
    let seal = match spec.runs_only_ours() {
        true => Seal::none(),
        false => {
            let length = writer
                .length()
                .context("the size of the memory is invalid")?;
            Seal::saving(spec.confine, mode, spec.mapped(), length)?
        }
    };
    let watchdog = Watchdog::start(vm, Arc::clone(&shared), seal)?;
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
