//! `sandbox run --from`: a program as a cell of a session that goes on from a checkpoint, and ends with it.

use crate::cli::options::RunArgs;
use crate::cli::progress::Progress;
use crate::cli::request::GivenOptions;
use crate::cli::session_run::{Caller, code, have_run_and};
use crate::error::{Error, Kind};
use crate::kvm_mode::Device;
use crate::session::protocol::Request;
use crate::session::{Place, Taken, random_name};
use anyhow::Result;
use std::path::Path;

/// Runs the program; returns the exit code.
pub fn run_from(from: &str, args: &RunArgs, given: &GivenOptions, kvm: Device) -> Result<u8> {
    let script = match (&args.code, args.words.as_slice()) {
        (Some(_), []) => None,
        (None, [script]) => Some(Path::new(script)),
        _ => return Err(no_cell().into()),
    };
    let text = args.code.clone().map(|text| text.into_string());
    let text = text.transpose().map_err(|_| no_cell())?;
    let request = Request::Run {
        code: code(text, script)?,
        context: None,
        language: None,
        stdin: None,
        timeout_s: None,
    };
    let taken = Taken::from_checkpoint(from)?;
    let mut spec = taken.spec(&Place::open()?, kvm, args.confine)?;
    spec.name = random_name()?;
    let limits = &mut spec.request.limits;
    if !given.is_default("timeout") {
        limits.timeout = args.timeout.0;
    }
    if !given.is_default("grace") {
        limits.grace = args.grace;
    }
    limits.max_output = args.max_output.unwrap_or(limits.max_output);
    let name = spec.name.clone();
    // The session ends with this pipe.
    let _owner = taken.start_all(&[spec], || Progress::new(args.quiet))?;
    have_run_and(&name, (&request, None), args.json, Caller::Run)
}

fn no_cell() -> Error {
    Error::new(
        Kind::Request,
        "what runs from a checkpoint is code in UTF-8, from -c, a script or standard input (-), without arguments",
        "give one of these, or start a session from it: sandbox session start --from NAME",
    )
}
