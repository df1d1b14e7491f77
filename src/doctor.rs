//! `sandbox doctor` checks whether this host can run sandboxes, and says what to do if it cannot.

use crate::error::{Error, Remedy};
use crate::image::store;
use crate::kvm_mode::{self, Device};
use crate::vm::host::{self, Family, NEEDED, Problem};
use crate::vm::mode::Mode;
use crate::vm::{Kvm, Verdict, allow_kicks};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{Write, stdout};

/// A function that words a remedy for the caller.
type Words<'a> = &'a dyn Fn(&Remedy) -> String;

/// The result of one check.
struct Check {
    name: String,
    found: String,
    /// The remedy, if the check failed.
    remedy: Option<String>,
}

/// Prints the results, with remedies in these words. Returns whether all is well.
pub fn doctor(device: &Device, as_json: bool, words: Words) -> Result<bool> {
    let (checks, mode) = checks(device, words);
    let well = checks.iter().all(|check| check.remedy.is_none());
    let text = if as_json {
        format!("{:#}\n", to_json(&checks, well, mode))
    } else {
        checks.iter().map(to_text).collect()
    };
    stdout()
        .write_all(text.as_bytes())
        .context("printing what was found")?;
    Ok(well)
}

/// Runs all checks. Returns the mode in which guests run, too, if they can.
fn checks(device: &Device, words: Words) -> (Vec<Check>, Option<Mode>) {
    let mut mode = None;
    let mut checks = vec![good("sandbox", env!("CARGO_PKG_VERSION").into())];
    match host::open(&device.path).and_then(|kvm| host::create_vm(&kvm).map(|_| kvm)) {
        Ok(kvm) => {
            checks.push(good("KVM", format!("{} works", device.path.display())));
            let (check, known) = family(&kvm, device, words);
            checks.push(check);
            mode = known;
            let names: Vec<_> = NEEDED.iter().map(|(name, _, _)| *name).collect();
            checks.push(good("capabilities", names.join(", ")));
        }
        Err(problem) => checks.push(failing(&problem, words)),
    }
    checks.extend(guest(words));
    (checks, mode)
}

/// Returns the versions of the guest's parts, or why there is no guest.
fn guest(words: Words) -> Vec<Check> {
    if let Err(error) = store::require_guest() {
        return vec![Check {
            name: "guest".into(),
            found: error.message,
            remedy: Some(words(&error.remedy)),
        }];
    }
    let mut checks = Vec::new();
    for line in store::VERSIONS.lines() {
        if let Some((name, version)) = line.split_once(": ") {
            checks.push(good(name, version.into()));
        }
    }
    checks.push(match store::runtime() {
        Ok(_) => good("runtime image", "in the cache".into()),
        Err(error) => Check {
            name: "runtime image".into(),
            found: format!("{error:#}"),
            remedy: Some("free space there, or name another place with XDG_CACHE_HOME".into()),
        },
    });
    checks
}

fn good(name: &str, found: String) -> Check {
    Check {
        name: name.into(),
        found,
        remedy: None,
    }
}

/// Finds the family by trying KVM anew, whatever is remembered.
fn family(kvm: &Kvm, device: &Device, words: Words) -> (Check, Option<Mode>) {
    const NAME: &str = "host family";
    let found = allow_kicks()
        .and_then(|()| kvm_mode::try_anew(kvm, device))
        .and_then(|verdict| Ok((kvm_mode::decide(&verdict, device.choice)?, verdict)));
    match found {
        Ok((mode, verdict)) => (good(NAME, describe(mode, &verdict)), Some(mode)),
        Err(error) => {
            let remedy = error.downcast_ref::<Error>();
            let remedy = remedy.map(|error| words(&error.remedy));
            let check = Check {
                name: NAME.into(),
                found: format!("{error:#}"),
                remedy: remedy.or_else(|| Some("try again, and report what this prints".into())),
            };
            (check, None)
        }
    }
}

fn describe(mode: Mode, verdict: &Verdict) -> String {
    let more = match (mode, verdict) {
        (Mode::Hardware, _) => " (VT-x or AMD-V)".into(),
        (Mode::Emulated, Verdict::Emulated(why)) => {
            format!(" (native mode refused: {why}; everything works, more slowly)")
        }
        (Mode::Emulated, Verdict::Unbootable(how)) => {
            format!(" (native mode given up for a while: {how}; everything works, more slowly)")
        }
        (Mode::Native, Verdict::Unbootable(how)) => {
            format!(" (as was asked for, though a while ago {how})")
        }
        (Mode::Emulated, _) => " (as was asked for; native mode works)".into(),
        (Mode::Native, _) => String::new(),
    };
    format!("{mode}{more}")
}

fn failing(problem: &Problem, words: Words) -> Check {
    Check {
        name: "KVM".into(),
        found: problem.to_string(),
        remedy: Some(words(&problem.remedy())),
    }
}

fn to_text(check: &Check) -> String {
    match &check.remedy {
        None => format!("  ok  {}: {}\n", check.name, check.found),
        Some(remedy) => format!("FAIL  {}: {}\n      {remedy}\n", check.name, check.found),
    }
}

fn to_json(checks: &[Check], well: bool, mode: Option<Mode>) -> Value {
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
    // If there is no KVM to try, the host's modules show the family.
    let family = mode.map_or_else(Family::detect, Mode::family);
    json!({
        "ok": well,
        "host": family.name(),
        "kvm_mode": mode.map(Mode::name),
        "checks": checks,
    })
}
