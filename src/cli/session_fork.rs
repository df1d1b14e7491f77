//! `sandbox session fork` and `checkpoint`: sessions that go on from where one is, and what is saved for them.

use crate::audit::Files;
use crate::checkpoint::Checkpoints;
use crate::cli::admission::Admission;
use crate::cli::progress::Progress;
use crate::cli::request::GivenOptions;
use crate::cli::session_start::{BoundArgs, room_for};
use crate::error::{Error, Kind};
use crate::kvm_mode::Device;
use crate::log::say;
use crate::policy::{Grant, Requested, ResourceRequest};
use crate::session::protocol::{Message, Purpose, Request, Spec};
use crate::session::{Client, Place, Taken, check_name, let_go};
use anyhow::Result;
use clap::Args;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

/// How long a session may take to save its machine.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct ForkArgs {
    /// The session's name
    name: String,
    /// How many sessions go on from there
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    #[command(flatten)]
    bounds: BoundArgs,
    /// Write these sessions and their cells to this log, which other processes do
    #[arg(long, env = "SANDBOX_AUDIT", value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Do not print their names
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args)]
pub struct CheckpointArgs {
    /// The session's name
    name: String,
    /// The checkpoint's
    saved: String,
    /// Save variables of the environment that the session was given, too
    #[arg(long)]
    with_env: bool,
    /// Replace the checkpoint of this name
    #[arg(long)]
    force: bool,
}

/// Starts sessions that go on from where one is, and prints their names; returns the exit code.
pub fn fork_verb(args: &ForkArgs, given: &GivenOptions, kvm: Device) -> Result<u8> {
    let admission = Admission::prepare(args.bounds.policy.as_deref(), args.audit.as_deref())?;
    let allowed = admission.ceiling.sessions.check_fork();
    allowed.map_err(|excess| admission.refuse(excess))?;
    let place = Place::open()?;
    check_log(&place, &args.name, &admission)?;
    let taken = take(&place, &args.name, Purpose::Fork)?;
    if taken.point.interpreter.has_variables && !args.quiet {
        say("the variables that the session was given are those of the others too");
    }
    let mut spec = taken.spec(&place, kvm, args.bounds.confine)?;
    let granted = grant(&taken, &spec, given, &admission)?;
    spec.request.confine = granted.confine;
    spec.log = admission.log_of_session(Files::default(), Some(args.name.clone()))?;
    // Until they are there.
    let _turn = room_for((args.count, granted.memory), &place, &admission)?;
    let names = place.free_names(&args.name, args.count.into())?;
    let specs = names.iter().map(|name| Spec {
        name: name.clone(),
        ..spec.clone()
    });
    let specs: Vec<_> = specs.collect();
    let_go(taken.start_all(&specs, || Progress::new(true))?)?;
    if !args.quiet {
        let mut out = stdout().lock();
        names.iter().try_for_each(|name| writeln!(out, "{name}"))?;
    }
    Ok(0)
}

/// Saves a session's machine under a name; returns the exit code.
pub fn checkpoint_verb(args: CheckpointArgs) -> Result<u8> {
    check_name(&args.saved)?;
    let checkpoints = Checkpoints::open()?;
    let taken = take(&Place::open()?, &args.name, Purpose::Checkpoint)?;
    taken.check_variables(args.with_env)?;
    let memory = taken.point.memory >> 20;
    let description = format!("the session {}, {memory} MiB", args.name);
    let parts = (&taken.file, taken.length, &taken.point);
    checkpoints.save(&args.saved, parts, description, args.force)?;
    Ok(0)
}

/// Checks that there is a log for those that go on from a session of which one is kept.
fn check_log(place: &Place, name: &str, admission: &Admission) -> Result<()> {
    let described = Client::connect(place, name)?.ask(&Request::Describe {})?;
    match described {
        Message::Described(session) if session.is_logged && !admission.is_audited() => {
            Err(Error::new(
                Kind::Policy,
                format!("a log is kept of the session {name}, and there is none for those that go on from it"),
                "name one: --audit FILE",
            )
            .into())
        }
        _ => Ok(()),
    }
}

/// Checks against the policy what each of the sessions gets, which may have begun without it.
fn grant(taken: &Taken, spec: &Spec, given: &GivenOptions, admission: &Admission) -> Result<Grant> {
    let limits = &spec.request.limits;
    let granted = admission.ceiling.grant(&ResourceRequest {
        memory: Requested::Given(limits.memory),
        timeout: Requested::Given(limits.timeout),
        output: Requested::Given(limits.max_output),
        pids: Requested::Given(limits.pids),
        confine: given.ask("confine", spec.request.confine),
        root: taken.point.interpreter.frame_of_job()?.is_root(),
        language: None,
        stdin: None,
        environment: Vec::new(),
    });
    granted.map_err(|excess| admission.refuse(excess))
}

fn take(place: &Place, name: &str, purpose: Purpose) -> Result<Taken> {
    let mut client = Client::connect(place, name)?.with_timeout(SAVE_TIMEOUT)?;
    Taken::from_session(&mut client, purpose)
}
