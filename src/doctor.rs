//! `sandbox doctor`: whether this host can run sandboxes, and what to do where it cannot.

use crate::assets;
use crate::kvm_mode::Device;
use crate::outcome::EXIT_OURS;
use crate::vm::host::{self, Family, NEEDED, Problem};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// One thing looked at.
struct Check {
    name: String,
    found: String,
    /// What to do, where it is not well.
    remedy: Option<String>,
}

/// Prints what was found. The exit code says whether all is well.
pub fn doctor(device: &Device, as_json: bool) -> Result<u8> {
    let checks = checks(device);
    let well = checks.iter().all(|check| check.remedy.is_none());
    let text = if as_json {
        format!("{:#}\n", to_json(&checks, well))
    } else {
        checks.iter().map(to_text).collect()
    };
    stdout()
        .write_all(text.as_bytes())
        .context("printing what was found")?;
    Ok(if well { 0 } else { EXIT_OURS })
}

fn checks(device: &Device) -> Vec<Check> {
    let good = |name: &str, found: String| Check {
        name: name.into(),
        found,
        remedy: None,
    };
    let mut checks = vec![good("sandbox", env!("CARGO_PKG_VERSION").into())];
    match host::open(&device.path).and_then(|opened| host::create_vm(&opened)) {
        Ok(_) => {
            checks.push(good("KVM", format!("{} works", device.path.display())));
            checks.push(good("host family", family().into()));
            let names: Vec<_> = NEEDED.iter().map(|(name, _, _)| *name).collect();
            checks.push(good("capabilities", names.join(", ")));
        }
        Err(problem) => checks.push(failing(&problem)),
    }
    for line in assets::VERSIONS.lines() {
        if let Some((name, version)) = line.split_once(": ") {
            checks.push(good(name, version.into()));
        }
    }
    checks.push(match assets::runtime() {
        Ok(_) => good("runtime image", "in the cache".into()),
        Err(error) => Check {
            name: "runtime image".into(),
            found: format!("{error:#}"),
            remedy: Some("free space there, or name another place with XDG_CACHE_HOME".into()),
        },
    });
    checks
}

fn family() -> &'static str {
    match Family::detect() {
        Family::Hardware => "hardware (VT-x or AMD-V)",
        Family::Software => "software (kernel mode of guests is emulated: cold boots are slow)",
    }
}

fn failing(problem: &Problem) -> Check {
    Check {
        name: "KVM".into(),
        found: problem.to_string(),
        remedy: Some(problem.remedy()),
    }
}

fn to_text(check: &Check) -> String {
    match &check.remedy {
        None => format!("  ok  {}: {}\n", check.name, check.found),
        Some(remedy) => format!("FAIL  {}: {}\n      {remedy}\n", check.name, check.found),
    }
}

fn to_json(checks: &[Check], well: bool) -> Value {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name,
                "ok": check.remedy.is_none(),
                "found": check.found,
                "remedy": check.remedy,
            })
        })
        .collect();
    json!({ "ok": well, "host": Family::detect().name(), "checks": checks })
}
