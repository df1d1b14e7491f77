//! The machine of a run: a clone of a saved one, or one that boots for this run alone.

use crate::agent::{Console, Shared};
use crate::cache;
use crate::devices::vsock::Peer;
use crate::files;
use crate::image::{self, Image, store};
use crate::job::Job;
use crate::kvm_mode;
use crate::run::{Path, Request};
use crate::template::builder::{self, Listener, Original};
use crate::template::{Key, open_layers};
use crate::vm::mode::Mode;
use crate::vm::{
    BootImages, Config, HypercallHandler, Kvm, Layer, Saved, Shape, Vm, allow_kicks, host,
};
use anyhow::Result;
use nix::sys::stat::{SFlag, fstat};
use std::fs::File;
use std::io::{Write, stderr, stdin};
use std::sync::Arc;

/// The parts that the machine of a job is made from.
pub struct Origin {
    kvm: Kvm,
    pub mode: Mode,
    pub path: Path,
    /// The bytes that are mapped for the guest or needed for its output.
    pub memory: u64,
    saved: Option<Saved>,
    pub template: Option<Key>,
    /// The digest of the template's memory.
    digest: Option<[u8; 32]>,
    layer: Option<Layer>,
}

/// The facts by which a machine that goes on elsewhere is known: the template that it was cloned from, with the digest of
/// its memory, and the shape of its state.
pub struct Lineage {
    pub template: Key,
    pub digest: [u8; 32],
    pub shape: Shape,
}

impl Origin {
    /// Finds or builds the saved machine to clone, if one is to be cloned, and makes the job ready for it.
    pub fn find(request: &Request, job: &mut Job, listener: &mut dyn Listener) -> Result<Self> {
        let kvm = host::open(&request.kvm.path)?;
        allow_kicks()?;
        let chosen = kvm_mode::choose(&kvm, &request.kvm)?;
        if chosen == Mode::Emulated && !request.boots_anyway() {
            let variable = job.variable_read_at_start();
            variable.inspect(|name| listener.booting(&String::from_utf8_lossy(name)));
        }
        let mut original = original(&kvm, chosen, request, request.path(job), job, listener)?;
        if let Some(it) = &mut original {
            it.expect(has_input(), job.frame.terminal.is_some());
        }
        let (mode, path) =
            (original.as_ref()).map_or((chosen, Path::Cold), |it| (it.mode, Path::Warm));
        job.check_words(path == Path::Cold)?;
        let memory = request.memory(job, path);
        job.withheld = request.machine_memory(path) - request.limits.memory;
        let digest = original.as_ref().map(|it| it.digest);
        let (saved, template) = original.map(|it| (it.saved, it.key)).unzip();
        let layer = put_layer(request, job)?;
        Ok(Self {
            kvm,
            mode,
            path,
            memory,
            saved,
            template,
            digest,
            layer,
        })
    }

    /// Returns what its machine is told by where that goes on elsewhere. The error says why it cannot.
    pub fn lineage(&self) -> Result<Lineage, &'static str> {
        if self.layer.is_some() {
            return Err(
                "files that were put into it are this machine's alone, as there are so many or so large ones",
            );
        }
        let (saved, template) = (self.saved.as_ref(), self.template.clone());
        match (saved, template, self.digest) {
            (Some(saved), Some(template), Some(digest)) => Ok(Lineage {
                template,
                digest,
                shape: saved.state.shape(),
            }),
            _ => Err(
                "it is not a clone of a saved machine: one of its variables is read when Python starts, or nothing can be kept here",
            ),
        }
    }

    /// Makes the machine, with the host's end of the conversation with its guest.
    pub fn machine<H: Peer + HypercallHandler>(
        self,
        request: &Request,
        host: H,
        shared: &Arc<Shared>,
    ) -> Result<Vm<H>> {
        match self.saved {
            Some(mut saved) => {
                saved.layers.extend(self.layer);
                Vm::restore(&self.kvm, self.mode, &saved, host)
            }
            None => boot(&self.kvm, self.mode, request, self.layer, host, shared),
        }
    }
}

/// Returns the saved machine to clone, unless the machine is to boot: because that was asked for, or
/// because nothing can be kept here.
fn original(
    kvm: &Kvm,
    mode: Mode,
    request: &Request,
    path: Path,
    job: &Job,
    listener: &mut dyn Listener,
) -> Result<Option<Original>> {
    if path == Path::Cold {
        return Ok(None);
    }
    let (device, spec) = (&request.kvm, request.template(job));
    let found = builder::find_or_build(kvm, mode, device, &spec, request.verify, listener);
    or_without_cache(found.map(Some), |why| {
        listener.unsaved(why);
        Ok(None)
    })
}

/// Checks whether something probably waits on standard input: who has nothing to give gives `/dev/null`.
fn has_input() -> bool {
    fstat(stdin()).is_ok_and(
        |stat| match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => stat.st_size > 0,
            SFlag::S_IFIFO | SFlag::S_IFSOCK => true,
            _ => false,
        },
    )
}

/// Puts the layer together that the job's files are in, if they are in one.
fn put_layer(request: &Request, job: &Job) -> Result<Option<Layer>> {
    let room = files::room(request.limits.memory);
    let layer = job.layer.as_ref();
    let shown = layer.map(|layer| files::show(&layer.plan, room));
    Ok(shown.transpose()?)
}

/// Boots a machine for this request alone.
fn boot<H: Peer + HypercallHandler>(
    kvm: &Kvm,
    mode: Mode,
    request: &Request,
    layer: Option<Layer>,
    host: H,
    shared: &Arc<Shared>,
) -> Result<Vm<H>> {
    let console: Option<Box<dyn Write + Send>> = match request.show_console {
        true => Some(Box::new(Console::new(stderr(), Arc::clone(shared))?)),
        false => None,
    };
    let mut layers = open_layers(&request.layers)?;
    layers.extend(layer);
    let config = Config {
        memory: request.limits.memory,
        runtime: runtime(&request.image)?,
        layers: &layers,
        images: BootImages {
            kernel: &store::kernel()?,
            agent: store::AGENT,
        },
        console,
    };
    Vm::boot(kvm, mode, config, host)
}

fn runtime(image: &Image) -> Result<File> {
    let opened = image::runtime(image);
    match image.files {
        Some(_) => opened,
        None => or_without_cache(opened, |_| store::runtime_in_memory()),
    }
}

/// Replaces a result that failed because nothing can be kept in the cache.
fn or_without_cache<T>(
    result: Result<T>,
    without: impl FnOnce(&crate::error::Error) -> Result<T>,
) -> Result<T> {
    match &result {
        Err(error) => match cache::why_unusable(error) {
            Some(why) => without(why),
            None => result,
        },
        Ok(_) => result,
    }
}
