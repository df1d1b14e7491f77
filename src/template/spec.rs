//! The machine that a template is made for, and the key that it is stored under.

use crate::cache::Share;
use crate::image::{Image, Language, LayerFile};
use crate::key::Key;
use crate::limits::{BOOT_LIMIT, ConfineLevel, DEFAULT_PIDS, Limits};
use crate::template::Preload;
use crate::vm::Layer;
use crate::vm::host;
use crate::vm::mode::Mode;
use anyhow::Result;
use std::time::Duration;

/// The properties of a template's machine that a job can no longer change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Guest memory in bytes.
    pub memory: u64,
    pub root: bool,
    pub image: Image,
    /// The language whose interpreter is started ahead.
    pub language: Language,
    /// The layers that are mounted before the interpreter starts.
    pub layers: Vec<LayerFile>,
    pub preload: Preload,
    /// The statements of a program that import what it takes of the layers. They are no property of the machine, and nothing else of the program is in it: programs with the
    /// same layers share one.
    pub imports: Vec<String>,
    /// How much a process gives up that makes the template, if code that is not ours runs in it. It is
    /// no property of the machine.
    pub confine: ConfineLevel,
    /// The client that it is made for, if it is for one. It is no property of the machine.
    pub share: Option<Share>,
}

/// The time that a guest whose kernel runs natively may take to boot, and then to start Python: a
/// hundred times the usual. A guest that takes longer is emulated instead.
const NATIVE_LIMIT: Duration = Duration::from_secs(60);

/// The least memory of a machine that imports modules of the library ahead, which take 14 MiB.
const LIBRARY_MEMORY_MIN: u64 = 128 << 20;

impl TemplateSpec {
    /// Returns the template's key, which changes with everything that the saved machine depends on.
    pub fn key(&self, mode: Mode) -> Result<Key> {
        let image = &self.image;
        let interpreter = serde_json::to_vec(&(&self.language, &image.files, &image.system))?;
        let layers = self.layers.iter();
        let layers: Vec<_> = layers.map(|layer| (&layer.digest, &layer.mount)).collect();
        Ok(Key::of(&[
            env!("MACHINE_KEY").as_bytes(),
            host::fingerprint()?,
            mode.name().as_bytes(),
            &self.memory.to_le_bytes(),
            &[self.root.into()],
            &interpreter,
            &serde_json::to_vec(&(layers, &self.preload, &image.packages))?,
        ]))
    }

    /// Returns whether only code of ours runs in the machine before it is saved.
    pub fn runs_only_ours(&self) -> bool {
        self.layers.is_empty() && self.image.files.is_none()
    }

    /// Returns the bytes that are mapped for the machine.
    pub fn mapped(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size);
        self.memory + layers.sum::<u64>()
    }

    /// Returns what the interpreter imports before it is saved, as names or statements.
    pub fn wishes(&self) -> Vec<String> {
        let others = match &self.preload {
            Preload::None => return Vec::new(),
            Preload::Library => &[][..],
            Preload::OfProgram => &self.imports,
            Preload::Modules(names) => names,
        };
        let warm = self.language.warm.as_ref();
        let library = warm.filter(|_| self.memory >= LIBRARY_MEMORY_MIN);
        // Packages first: what their compiled code imports is seen only where it is new.
        [others, library.map_or(&[][..], |warm| &warm.imports)].concat()
    }

    /// Returns the limits that apply while a template is made.
    pub fn limits(&self, mode: Mode) -> Limits {
        let limit = match mode {
            Mode::Native => NATIVE_LIMIT,
            Mode::Hardware | Mode::Emulated => BOOT_LIMIT,
        };
        Limits {
            memory: self.memory,
            machine_memory: self.memory,
            boot: limit,
            timeout: Some(limit),
            grace: Duration::ZERO,
            max_output: u64::MAX,
            input: 0,
            fetch_count: 0,
            fetch_size: 0,
            pids: DEFAULT_PIDS,
        }
    }

    /// Returns the description of the template for the list of templates.
    pub fn describe(&self) -> String {
        let root = if self.root { ", as root" } else { "" };
        let image = match &self.image.files {
            Some(_) => format!(" of the image {}", self.image.name),
            None => String::new(),
        };
        format!(
            "{}{image}, {} MiB{root}",
            self.language.title,
            self.memory >> 20
        )
    }
}

/// Opens layers for the windows of a machine.
pub fn open_layers(layers: &[LayerFile]) -> Result<Vec<Layer>> {
    let layers = layers.iter();
    layers.map(|layer| Layer::of_file(layer.open()?)).collect()
}
