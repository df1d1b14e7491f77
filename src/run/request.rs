//! The request for a run.

use crate::agent::Sink;
use crate::cache::Share;
use crate::files::{Get, Put, Siblings};
use crate::image::{self, Image, LayerFile};
use crate::job::{Job, Source};
use crate::kvm_mode::{Choice, Device};
use crate::limits::{ConfineLevel, Limits};
use crate::template::{Preload, TemplateSpec};
use crate::units::memory_step;
use crate::wire::Bytes;
use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::io::{stderr, stdout};
use std::os::fd::RawFd;

/// The run that a user asked for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub source: Source,
    pub image: Image,
    /// Layers that are mounted in the guest before anything of its runs.
    pub layers: Vec<LayerFile>,
    /// Modules that are imported before the machine is saved, if there are layers.
    pub preload: Preload,
    /// Whether the script may ask for another image: for one with another Python.
    pub script_chooses: bool,
    /// The name of the program's language; unless given, a script tells itself.
    pub language: Option<String>,
    #[serde(with = "crate::wire")]
    #[schemars(with = "Vec<Bytes>")]
    pub arguments: Vec<OsString>,
    /// `NAME=value` each, beyond what every program has.
    #[serde(with = "crate::wire")]
    #[schemars(with = "Vec<Bytes>")]
    pub env: Vec<Vec<u8>>,
    pub puts: Vec<Put>,
    /// Patterns of what to leave out of directories that go into the guest.
    pub excluded: Vec<String>,
    /// The bounds on what goes with a script unasked; `None`: nothing does.
    pub siblings: Option<Siblings>,
    pub gets: Vec<Get>,
    /// Replace what is at the destinations of `gets`.
    pub force: bool,
    /// The program's, absolute.
    #[serde(with = "crate::wire")]
    #[schemars(with = "Bytes")]
    pub workdir: Vec<u8>,
    pub limits: Limits,
    /// Whether nobody said how much memory, so that a language gets what it needs.
    pub usual_memory: bool,
    /// Whether the program runs as the guest's root.
    pub root: bool,
    pub kvm: Device,
    pub show_console: bool,
    /// Boot a machine of its own for it.
    pub fresh: bool,
    /// Check all of the template's memory.
    pub verify: bool,
    /// How much this process gives up before the guest runs.
    pub confine: ConfineLevel,
    /// Keep the program's output, instead of passing it on.
    pub capture: bool,
    /// Tell the output as it comes, in events on standard output, instead of passing it on.
    pub events: bool,
    /// Give the program a terminal where this process has one.
    pub terminal: bool,
    /// Give a prompt after the program.
    pub prompt: bool,
    /// Write output that is kept to standard output too, as far as that takes it at once.
    pub shows: bool,
    /// The descriptor that the run will be told to, if a record is wanted: open, and to stay so.
    #[serde(skip)]
    pub record: Option<RawFd>,
    /// The guest is to tell of the program's exception and results too.
    pub tells: bool,
    /// The client of a server that the run is for.
    pub share: Option<Share>,
}

impl Request {
    /// Returns the request for a run of this program and nothing else, on `/dev/kvm`, with its output
    /// kept.
    pub fn of(source: Source) -> Self {
        Self {
            source,
            image: Image::built_in().clone(),
            layers: Vec::new(),
            preload: Preload::OfProgram,
            script_chooses: false,
            language: None,
            arguments: Vec::new(),
            env: Vec::new(),
            puts: Vec::new(),
            excluded: Vec::new(),
            siblings: None,
            gets: Vec::new(),
            force: false,
            workdir: guest::WORKDIR.into(),
            limits: Limits::default(),
            usual_memory: false,
            root: false,
            kvm: Device {
                path: "/dev/kvm".into(),
                choice: Choice::Auto,
            },
            show_console: false,
            fresh: false,
            verify: false,
            confine: ConfineLevel::Auto,
            capture: true,
            events: false,
            terminal: false,
            prompt: false,
            shows: false,
            record: None,
            tells: false,
            share: None,
        }
    }

    /// Chooses how the program gets its machine. A restored machine has no boot to show on the
    /// console.
    pub(crate) fn path(&self, job: &Job) -> Path {
        let cold = self.boots_anyway() || !job.suits_a_warm_interpreter();
        if cold { Path::Cold } else { Path::Warm }
    }

    /// Returns whether a machine is booted for it whatever its job is.
    pub(crate) fn boots_anyway(&self) -> bool {
        self.fresh || self.show_console
    }

    /// Returns the bytes of memory of the machine that the program gets in this way.
    pub(crate) fn machine_memory(&self, path: Path) -> u64 {
        match path {
            Path::Warm => self.limits.machine_memory,
            Path::Cold => self.limits.memory,
        }
    }

    /// Returns the bytes that are mapped for the guest or needed for its output.
    pub(crate) fn memory(&self, job: &Job, path: Path) -> u64 {
        /// Bytes of memory for each byte of a stream's limit. There are two streams, each of which
        /// grows by doubling and is encoded in base64 at the end.
        const PER_BYTE: u64 = 2 * (2 + 2);
        let output = match self.capture {
            true => self.limits.max_output.saturating_mul(PER_BYTE),
            false => 0,
        };
        let layers: u64 = self.layers.iter().map(|layer| layer.size).sum();
        output.saturating_add(self.machine_memory(path) + layers + job.size())
    }

    /// Returns the sinks of standard output and standard error.
    pub(crate) fn sinks(&self) -> Result<[Sink; 2]> {
        let limit = self.limits.max_output;
        Ok(match (self.capture, self.events) {
            (true, _) if self.shows => [
                Sink::memory(limit).copied_to(stdout())?,
                Sink::memory(limit).copied_to(stdout())?,
            ],
            (true, _) => [Sink::memory(limit), Sink::memory(limit)],
            (false, true) => [
                Sink::events(stdout(), "stdout", limit)?,
                Sink::events(stdout(), "stderr", limit)?,
            ],
            (false, false) => [Sink::new(stdout(), limit)?, Sink::new(stderr(), limit)?],
        })
    }

    /// Returns it with the image of this job, whose layer, if it has one, is the first, and with the memory
    /// that its language needs.
    pub(crate) fn for_job(&self, job: &Job) -> Result<Cow<'_, Self>> {
        let layer = image::layer(&job.image)?;
        let usual = self.limits.memory;
        let memory = match self.usual_memory {
            true => job.language.memory_or(usual),
            false => usual,
        };
        if self.image == job.image && layer.is_none() && memory == usual {
            return Ok(Cow::Borrowed(self));
        }
        let mut request = self.clone();
        request.image = job.image.clone();
        request.layers.splice(0..0, layer);
        if memory > usual {
            request.limits.memory = memory;
            request.limits.machine_memory = memory_step(memory);
        }
        Ok(Cow::Owned(request))
    }

    /// Returns the machine that this job is to run in a clone of.
    pub(crate) fn template(&self, job: &Job) -> TemplateSpec {
        let language = self.image.started_for(&job.language);
        let (mut preload, mut imports) = (Preload::None, Vec::new());
        if job.suits_imported_modules() {
            preload = self.preload.clone();
            imports = job.loads(&self.layers);
        } else if *language != job.language {
            // It leaves the interpreter that was started ahead.
            preload = Preload::of(language);
        }
        if preload == Preload::OfProgram && imports.is_empty() {
            preload = Preload::Library;
        }
        TemplateSpec {
            memory: self.limits.machine_memory,
            root: self.root,
            image: self.image.clone(),
            language: language.clone(),
            layers: self.layers.clone(),
            preload,
            imports,
            confine: self.confine,
            share: self.share.clone(),
        }
    }
}

/// The way in which the program got its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Path {
    /// The machine was restored from a template.
    Warm,
    /// The machine was booted.
    Cold,
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warm => "restored",
            Self::Cold => "booted",
        })
    }
}
