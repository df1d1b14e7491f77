//! The verdict on a host's KVM, remembered in the user's cache: a run has no time to try.
//!
//! A file that is missing or damaged counts for nothing, and so does one of another host, kernel,
//! module, guest, or version of the code that machines depend on.

use crate::cache::{self, Opened};
use crate::clock::since_1970;
use crate::fs::remove;
use crate::key::Key;
use crate::vm::{Verdict, host};
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The name of the file in the cache directory.
pub const NAME: &str = "kvm.mode";
/// Upper bound on the bytes of the file.
const LENGTH_MAX: u64 = 1024;
/// The number of seconds for which a refusal counts, since its cause may have been temporary.
const REFUSAL_MAX_AGE: i64 = 600;
/// The module's parameter that allows native mode. Not every host lets it be read.
const PARAMETER: &str = "/sys/module/kvm_pvm/parameters/pvm_native";

/// The remembered verdict on one device of one host.
pub struct VerdictFile {
    /// The facts that the verdict depends on: the host, the device and the module's parameter.
    host: &'static [u8],
    device: [u8; 8],
    parameter: Vec<u8>,
}

impl VerdictFile {
    /// Returns the file for the KVM device at this path, which is open.
    pub fn of(device: &Path) -> Result<Self> {
        let metadata = device.metadata().context("looking at the KVM device")?;
        Ok(Self {
            host: host::fingerprint()?,
            device: metadata.rdev().to_le_bytes(),
            parameter: fs::read(PARAMETER).unwrap_or_default(),
        })
    }

    /// Reads the verdict, if it still counts.
    pub fn read(&self) -> Option<Verdict> {
        let path = cache::directory().ok()?.join(NAME);
        let Ok(Opened::Trusted(file, metadata)) = cache::open_trusted(&path) else {
            return None;
        };
        if metadata.len() > LENGTH_MAX {
            return None;
        }
        let verdict = self.decode(&content(&file)?)?;
        let is_refusal = matches!(verdict, Verdict::Emulated(_) | Verdict::Unbootable(_));
        (!is_refusal || is_young(&file)).then_some(verdict)
    }

    /// Writes the verdict to a temporary file, then renames that, so that a reader finds all or
    /// nothing.
    pub fn write(&self, verdict: &Verdict) -> Result<()> {
        self.write_in(&cache::directory()?, verdict)
    }

    fn write_in(&self, directory: &Path, verdict: &Verdict) -> Result<()> {
        // One that was killed may have left it. Of two processes that write at once, one may fail, or be seen
        // to have written a part, which is no verdict.
        let temporary = directory.join(format!(".{NAME}-new"));
        remove(&temporary)?;
        let written = self
            .write_to(&temporary, verdict)
            .and_then(|()| Ok(fs::rename(&temporary, directory.join(NAME))?));
        if written.is_err() {
            remove(&temporary).map(drop).unwrap_or_default();
        }
        written
    }

    /// Writes the verdict to a new file.
    pub fn write_to(&self, path: &Path, verdict: &Verdict) -> Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(path)?;
        Ok(file.write_all(self.encode(verdict).as_bytes())?)
    }

    /// Encodes the verdict under a hash of it and of all that it depends on.
    fn encode(&self, verdict: &Verdict) -> String {
        let text = match verdict {
            Verdict::Hardware => "hardware".into(),
            Verdict::Native => "native".into(),
            Verdict::Emulated(why) => format!("emulated: {why}"),
            Verdict::Unbootable(how) => format!("unbootable: {how}"),
        };
        format!("{}\n{text}", self.seal(&text))
    }

    fn decode(&self, content: &str) -> Option<Verdict> {
        let (seal, text) = content.split_once('\n')?;
        if seal != self.seal(text).as_str() {
            return None;
        }
        match text {
            "hardware" => Some(Verdict::Hardware),
            "native" => Some(Verdict::Native),
            _ => match text.split_once(": ")? {
                ("emulated", why) => Some(Verdict::Emulated(why.into())),
                ("unbootable", how) => Some(Verdict::Unbootable(how.into())),
                _ => None,
            },
        }
    }

    fn seal(&self, text: &str) -> Key {
        Key::of(&[
            env!("MACHINE_KEY").as_bytes(),
            self.host,
            &self.device,
            &self.parameter,
            text.as_bytes(),
        ])
    }
}

fn content(mut file: &File) -> Option<String> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Returns whether a refusal in this file still counts. One from the future does not.
fn is_young(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    let now = since_1970().as_secs() as i64;
    (0..REFUSAL_MAX_AGE).contains(&(now - metadata.mtime()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(host: &'static [u8], device: u8, parameter: &[u8]) -> VerdictFile {
        VerdictFile {
            host,
            device: [device; 8],
            parameter: parameter.into(),
        }
    }

    #[test]
    fn a_verdict_is_read_back_as_it_was() {
        let kept = kept(b"host", 1, b"Y\n");
        let refusal = Verdict::Emulated("signature: 0x0\ninstead of 0x1".into());
        let failure = Verdict::Unbootable("it crashed: triple fault".into());
        for verdict in [Verdict::Hardware, Verdict::Native, refusal, failure] {
            assert_eq!(kept.decode(&kept.encode(&verdict)), Some(verdict));
        }
    }

    #[test]
    fn what_a_killed_process_left_of_a_verdict_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let kept = kept(b"host", 1, b"Y\n");
        let left = directory.path().join(".kvm.mode-new");
        fs::write(&left, "half").unwrap();
        kept.write_in(directory.path(), &Verdict::Native).unwrap();
        let content = fs::read_to_string(directory.path().join(NAME)).unwrap();
        assert_eq!(kept.decode(&content), Some(Verdict::Native));
        assert!(!left.exists());
    }

    #[test]
    fn a_verdict_on_another_host_device_or_module_counts_for_nothing() {
        let content = kept(b"host", 1, b"Y\n").encode(&Verdict::Native);
        for other in [
            kept(b"tsoh", 1, b"Y\n"),
            kept(b"host", 2, b"Y\n"),
            kept(b"host", 1, b"N\n"),
            kept(b"host", 1, b""),
        ] {
            assert_eq!(other.decode(&content), None);
        }
    }

    #[test]
    fn a_damaged_verdict_counts_for_nothing() {
        let kept = kept(b"host", 1, b"Y\n");
        let content = kept.encode(&Verdict::Emulated("why".into()));
        for length in 0..content.len() {
            assert_eq!(kept.decode(&content[..length]), None, "{length}");
        }
        for index in 0..content.len() {
            let mut bytes = content.clone().into_bytes();
            bytes[index] ^= 1;
            let damaged = String::from_utf8(bytes).unwrap();
            assert_eq!(kept.decode(&damaged), None, "{damaged}");
        }
        assert_eq!(kept.decode(&format!("{content} ")), None);
    }
}
