//! `sandbox session start`: a new session, or one that goes on from a checkpoint.

use crate::audit::Files;
use crate::cli::admission::Admission;
use crate::cli::package_options::PackageArgs;
use crate::cli::package_request::PackageRequest;
use crate::cli::progress::Progress;
use crate::cli::request::{GivenOptions, chosen_image, environment, limits, patterns};
use crate::cli::run::with_packages;
use crate::cli::session_list::described;
use crate::cli::values::parse_pids;
use crate::error::{Error, Kind};
use crate::files::Put;
use crate::image::Image;
use crate::job::{Source, name, resolve};
use crate::kvm_mode::Device;
use crate::limits::{ConfineLevel, DEFAULT_CAPTURE, PACKAGES_MEMORY};
use crate::log::say;
use crate::policy::{Ceiling, Grant, ResourceRequest};
use crate::run::{Request, inspect, prepare};
use crate::session::protocol::{Bounds, Spec};
use crate::session::{
    Client, Place, Taken, check_name, let_go, parent_has_ended, random_name, start,
};
use crate::template::Preload;
use crate::units::{Timeout, parse_grace, parse_memory, parse_size, parse_timeout};
use anyhow::Result;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgMatches, Args};
use nix::fcntl::Flock;
use nix::unistd::getppid;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub struct StartArgs {
    /// The session's name; without one, it gets one, which is printed
    name: Option<String>,
    /// End it when it was asked nothing for so long
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_grace, allow_negative_numbers = true)]
    idle: Duration,
    /// End it when it is so old
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_grace, allow_negative_numbers = true)]
    age: Duration,
    /// Guest memory, for example 512M or 1G
    #[arg(short, long, env = "SANDBOX_MEMORY", value_name = "SIZE", default_value = "256M", value_parser = parse_memory, allow_negative_numbers = true)]
    memory: u64,
    /// Wall-clock limit of each cell: seconds, or with a unit (30s, 2m, 1h); 0 for none
    #[arg(short, long, env = "SANDBOX_TIMEOUT", value_name = "DURATION", default_value = "60", value_parser = parse_timeout, allow_negative_numbers = true)]
    timeout: Timeout,
    /// How long a cell may go on once it is interrupted, before its interpreter is ended
    #[arg(long, env = "SANDBOX_GRACE", value_name = "DURATION", default_value = "2s", value_parser = parse_grace, allow_negative_numbers = true)]
    grace: Duration,
    /// Most bytes delivered of each output stream of a cell; the rest is dropped and counted
    #[arg(long, env = "SANDBOX_MAX_OUTPUT", value_name = "SIZE", value_parser = parse_size, allow_negative_numbers = true)]
    max_output: Option<u64>,
    /// Most processes and threads at once
    #[arg(long, env = "SANDBOX_PIDS_LIMIT", value_name = "N", default_value = "256", value_parser = parse_pids, allow_negative_numbers = true)]
    pids_limit: u32,
    /// Set a variable of the environment, or pass on the one with this name
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Set the variables in this file, one on each line, as for --env
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    #[command(flatten)]
    packages: PackageArgs,
    /// Put a file, or a directory with all in it, into the guest: under its own name in the working
    /// directory, or as GUEST (in GUEST, if that ends with a /)
    #[arg(long, value_name = "HOST[:GUEST]", value_parser = OsStringValueParser::new().try_map(|word| Put::parse(&word)))]
    put: Vec<Put>,
    /// Leave out what matches this pattern, as in a .gitignore, of directories that go into the guest
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The working directory in the guest, made if it is missing
    #[arg(short, long, value_name = "DIR", default_value = guest::WORKDIR)]
    workdir: OsString,
    /// Run cells as the guest's root
    #[arg(long)]
    root: bool,
    /// Another image than the one that is built in: one that was imported, by its name
    #[arg(long, value_name = "NAME")]
    image: Option<PathBuf>,
    /// The image that has this Python, for example 3.11
    #[arg(
        long,
        env = "SANDBOX_PYTHON",
        value_name = "VERSION",
        conflicts_with = "image"
    )]
    python: Option<String>,
    #[command(flatten)]
    bounds: BoundArgs,
    /// Write the session and its cells to this log, which another process does
    #[arg(long, env = "SANDBOX_AUDIT", value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Go on from this checkpoint of a session, which has its own memory, files, packages and variables
    #[arg(long, value_name = "NAME", conflicts_with_all = ["memory", "pids_limit", "env", "env_file", "with", "requirements", "put", "exclude", "workdir", "root", "image", "python"])]
    from: Option<String>,
    /// End it when the process ends that runs this command, such as a script. In $(…) that is a subshell
    #[arg(long)]
    with_parent: bool,
    /// Do not print the name
    #[arg(short, long)]
    quiet: bool,
}

/// The bounds of a session, whatever it asks for.
#[derive(Args)]
pub struct BoundArgs {
    /// Whether the session's process confines itself before the guest runs: as far as this kernel lets it,
    /// or fully or not at all
    #[arg(
        long,
        env = "SANDBOX_CONFINE",
        value_enum,
        value_name = "HOW",
        default_value = "auto"
    )]
    pub confine: ConfineLevel,
    /// Ask for no more than this file allows
    #[arg(long, env = "SANDBOX_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// Starts a session, and prints its name; returns the exit code.
pub fn start_verb(mut args: StartArgs, matches: &ArgMatches, kvm: Device) -> Result<u8> {
    let quiet = args.quiet;
    let name = match args.name.take() {
        Some(name) => name,
        None => random_name()?,
    };
    check_name(&name)?;
    let parent = args.with_parent.then(|| getppid().as_raw());
    let admission = Admission::prepare(args.bounds.policy.as_deref(), args.audit.as_deref())?;
    let given = GivenOptions(Some(matches));
    if let Some(from) = &args.from {
        check_free(&admission)?;
        return start_from(from, &name, &args, (&given, &admission), kvm);
    }
    let (bounds, request, packages) = asked(args, &given, kvm, &admission)?;
    let (request, _) = with_packages((request, packages), quiet)?;
    let files = match admission.inspects() {
        true => check(&request, &admission)?,
        false => Files::default(),
    };
    if request.confine == ConfineLevel::Off {
        say("--confine=off: what escapes from the guest has all the rights of this user");
    }
    let place = Place::open()?;
    // Until this one is there.
    let _turn = room_for((1, request.limits.memory), &place, &admission)?;
    let spec = Spec {
        directory: place.directory().into(),
        name,
        request,
        bounds,
        is_owned: false,
        parent,
        log: admission.log_of_session(files, None)?,
        is_logged: false,
        point: None,
    };
    start(&spec, &mut Progress::new(quiet))?;
    keep_to_parent(&spec)?;
    if !quiet {
        writeln!(stdout(), "{}", spec.name)?;
    }
    Ok(0)
}

/// Checks that there is no policy, which would have to know what is in a checkpoint.
fn check_free(admission: &Admission) -> Result<(), Error> {
    if admission.ceiling == Ceiling::default() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Policy,
        "the policy bounds what machines get, and a checkpoint's machine has it already",
        "start a fresh one, without --from",
    ))
}

/// Starts a session that goes on from a checkpoint.
fn start_from(
    from: &str,
    name: &str,
    args: &StartArgs,
    (given, admission): (&GivenOptions, &Admission),
    kvm: Device,
) -> Result<u8> {
    let taken = Taken::from_checkpoint(from)?;
    let mut spec = taken.spec(&Place::open()?, kvm, args.bounds.confine)?;
    spec.name = name.into();
    spec.log = admission.log_of_session(Files::default(), Some(from.into()))?;
    let (limits, bounds) = (&mut spec.request.limits, &mut spec.bounds);
    let is_given = |option| !given.is_default(option);
    if is_given("idle") {
        bounds.idle = args.idle;
    }
    if is_given("age") {
        bounds.age = args.age;
    }
    if is_given("timeout") {
        limits.timeout = args.timeout.0;
    }
    if is_given("grace") {
        limits.grace = args.grace;
    }
    limits.max_output = args.max_output.unwrap_or(limits.max_output);
    spec.parent = args.with_parent.then(|| getppid().as_raw());
    let specs = [spec];
    let_go(taken.start_all(&specs, || Progress::new(args.quiet))?)?;
    keep_to_parent(&specs[0])?;
    if !args.quiet {
        writeln!(stdout(), "{name}")?;
    }
    Ok(0)
}

/// Ends a session whose parent has ended while it started: its number may have become another process's.
fn keep_to_parent(spec: &Spec) -> Result<()> {
    let is_orphan = |&parent: &i32| parent != getppid().as_raw();
    match spec.parent.filter(is_orphan) {
        Some(_) => {
            Client::connect(&Place::at(spec.directory.clone()), &spec.name)?.stop()?;
            Err(parent_has_ended().into())
        }
        None => Ok(()),
    }
}

/// Checks against the policy what goes into the guest; returns the files.
fn check(request: &Request, admission: &Admission) -> Result<Files> {
    let inspection = inspect(&prepare(request)?.job, false, None)?;
    let files = inspection.files;
    let checked = admission
        .ceiling
        .check_language(&inspection.language)
        .and_then(|()| admission.ceiling.check_files(files.count, files.bytes));
    checked.map_err(|excess| admission.refuse(excess))?;
    Ok(files)
}

/// Checks that the policy allows so many more sessions of so much memory each beside those that there are.
/// While what is returned lives, no other is started under a policy.
pub fn room_for(
    (count, memory): (u16, u64),
    place: &Place,
    admission: &Admission,
) -> Result<Option<Flock<File>>> {
    let policy = &admission.ceiling.sessions;
    if policy.count.is_none() && policy.memory.is_none() {
        return Ok(None);
    }
    let turn = place.turn_to_start()?;
    let others = described(place)?;
    let of_others: u64 = others.iter().map(|it| it.memory).sum();
    // There is room for all if there is for the last of them.
    let before = count.saturating_sub(1);
    let of_those = memory.saturating_mul(before.into());
    policy
        .check(
            others.len() as u32 + u32::from(before),
            memory,
            of_others.saturating_add(of_those),
        )
        .map_err(|excess| admission.refuse(excess))?;
    Ok(Some(turn))
}

/// Returns why the policy allows no commands, if it does not: they count as the language that runs them.
fn commands_refused(image: &Image, admission: &Admission) -> Option<Error> {
    let mut languages = image.languages.iter();
    let language = languages.find(|language| language.command.is_some());
    let checked = language.map(|language| admission.ceiling.check_language(&language.name));
    checked?.err().map(Error::from)
}

/// Returns why the policy allows commands no variables of their own, if it bounds variables.
fn variables_refused(admission: &Admission) -> Option<Error> {
    admission.ceiling.environment.as_ref().map(|_| {
        Error::new(
            Kind::Policy,
            "the policy bounds the variables that may be set, and those of commands are not held to it",
            "set them when the session starts",
        )
    })
}

/// Returns why the policy allows no files in or out of a session that runs, if it bounds files.
fn files_refused(admission: &Admission) -> Option<Error> {
    let files = &admission.ceiling.files;
    let is_bounded = files.count.is_some() || files.size.is_some();
    is_bounded.then(|| {
        Error::new(
            Kind::Policy,
            "the policy bounds files, and those of a session that runs are not held to it",
            "put them in when the session starts: session start --put",
        )
    })
}

fn asked(
    mut args: StartArgs,
    given: &GivenOptions,
    kvm: Device,
    admission: &Admission,
) -> Result<(Bounds, Request, Option<PackageRequest>)> {
    let image = chosen_image(args.image.as_deref(), args.python.as_deref(), admission)?;
    let source = Source::Code(OsString::new());
    let mut packages = PackageRequest::of_program(&source, &args.packages, (&image, false))?
        .and_then(PackageRequest::if_any);
    if let Some(packages) = &mut packages
        && let Some(policy) = &admission.ceiling.packages
    {
        let kept = packages.keep_to(policy);
        kept.map_err(|excess| admission.refuse(excess))?;
    }
    if packages.is_some() && given.is_default("memory") {
        args.memory = PACKAGES_MEMORY;
    }
    let env = environment(&args.env, &args.env_file)?;
    let granted = grant(&args, given, &env, admission)?;
    let files = &admission.ceiling.files;
    let sessions = &admission.ceiling.sessions;
    let times = (given.ask("idle", args.idle), given.ask("age", args.age));
    let times = sessions.bounds(times.0, times.1);
    let (idle, age) = times.map_err(|excess| admission.refuse(excess))?;
    let bounds = Bounds {
        idle,
        age,
        code_max: admission.ceiling.code.map(|most| most.0),
        no_commands: commands_refused(&image, admission),
        no_variables: variables_refused(admission),
        no_files: files_refused(admission),
        no_forks: sessions.check_fork().err().map(Error::from),
        no_checkpoints: sessions.check_checkpoint().err().map(Error::from),
        timeout_max: granted.timeout.filter(|_| admission.inspects()),
    };
    let request = Request {
        image,
        preload: Preload::Library,
        env,
        puts: args.put,
        excluded: patterns(args.exclude, &[])?,
        workdir: resolve(guest::WORKDIR.as_bytes(), &args.workdir)?,
        limits: limits(&granted, files, granted.stdin, args.grace),
        root: args.root,
        kvm,
        confine: granted.confine,
        capture: false,
        ..Request::of(source)
    };
    Ok((bounds, request, packages))
}

/// Returns the resources that each cell gets, as far as the policy allows them.
fn grant(
    args: &StartArgs,
    given: &GivenOptions,
    env: &[Vec<u8>],
    admission: &Admission,
) -> Result<Grant> {
    let granted = admission.ceiling.grant(&ResourceRequest {
        memory: given.ask("memory", args.memory),
        timeout: given.ask("timeout", args.timeout.0),
        output: given.ask("max_output", args.max_output.unwrap_or(DEFAULT_CAPTURE)),
        pids: given.ask("pids_limit", args.pids_limit),
        confine: given.ask("confine", args.bounds.confine),
        root: args.root,
        language: None,
        stdin: None,
        environment: env.iter().map(|variable| name(variable)).collect(),
    });
    granted.map_err(|excess| admission.refuse(excess))
}
