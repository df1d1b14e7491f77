//! The machine that a template is made for, and the key that it is stored under.

use crate::image::Image;
use crate::key::Key;
use crate::limits::{BOOT_LIMIT, DEFAULT_PIDS, Limits};
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
    /// The image whose interpreter is started ahead.
    pub image: Image,
}

/// The time that a guest whose kernel runs natively may take to boot, and then to start Python: a
/// hundred times the usual. A guest that takes longer is emulated instead.
const NATIVE_LIMIT: Duration = Duration::from_secs(60);

impl TemplateSpec {
    /// Returns the template's key, which changes with everything that the saved machine depends on.
    pub fn key(&self, mode: Mode) -> Result<Key> {
        let image = &self.image;
        let interpreter = serde_json::to_vec(&(&image.warm, image.warm_language()))?;
        Ok(Key::of(&[
            env!("MACHINE_KEY").as_bytes(),
            host::fingerprint()?,
            mode.name().as_bytes(),
            &self.memory.to_le_bytes(),
            &[self.root.into()],
            &interpreter,
        ]))
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
        format!(
            "{}, {} MiB{root}",
            self.image.warm_language().title,
            self.memory >> 20
        )
    }
}
