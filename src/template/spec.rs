//! What a template is made for, and what its name depends on.

use crate::image::Image;
use crate::key::Key;
use crate::limits::{BOOT_LIMIT, Limits};
use crate::vm::host;
use crate::vm::mode::Mode;
use anyhow::Result;
use std::time::Duration;

/// The use of a template: all that a job cannot change any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Guest memory in bytes.
    pub memory: u64,
    /// Processes and threads at once.
    pub pids: u32,
    pub root: bool,
    /// What has the interpreter that is started ahead.
    pub image: Image,
}

/// How long a guest whose kernel runs natively may take to boot, and then to start Python: a
/// hundred times as long as it does. One that takes longer is emulated instead.
const NATIVE_LIMIT: Duration = Duration::from_secs(60);

impl TemplateSpec {
    /// Returns the name of the template, which changes with everything that the saved machine depends on.
    pub fn key(&self, mode: Mode) -> Result<Key> {
        let image = &self.image;
        let interpreter = serde_json::to_vec(&(&image.warm, image.warm_language()))?;
        Ok(Key::of(&[
            env!("MACHINE_KEY").as_bytes(),
            host::fingerprint()?,
            mode.name().as_bytes(),
            &self.memory.to_le_bytes(),
            &self.pids.to_le_bytes(),
            &[self.root.into()],
            &interpreter,
        ]))
    }

    /// Returns the limits that hold while a template is made.
    pub fn limits(&self, mode: Mode) -> Limits {
        let limit = match mode {
            Mode::Native => NATIVE_LIMIT,
            Mode::Hardware | Mode::Emulated => BOOT_LIMIT,
        };
        Limits {
            memory: self.memory,
            boot: limit,
            timeout: Some(limit),
            max_output: u64::MAX,
            input: 0,
            fetch_count: 0,
            fetch_size: 0,
            pids: self.pids,
        }
    }

    /// Returns what the list of templates says of it.
    pub fn describe(&self) -> String {
        let root = if self.root { ", as root" } else { "" };
        format!(
            "{}, {} MiB, {} processes{root}",
            self.image.warm_language().title,
            self.memory >> 20,
            self.pids
        )
    }
}
