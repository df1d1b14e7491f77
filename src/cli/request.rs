//! Conversion of the options of `sandbox run` to the request for a run.

use crate::cli::admission::Admission;
use crate::cli::options::RunArgs;
use crate::cli::package_request::PackageRequest;
use crate::cli::record_writer::Writer;
use crate::cli::values::{parse_variable, read_arguments, read_patterns, read_variables};
use crate::error::{Error, Kind, Remedy};
use crate::files::Siblings;
use crate::image::{self, Image};
use crate::job::{Source, name, read_code, resolve, source_named};
use crate::kvm_mode::Device;
use crate::limits::{BOOT_LIMIT, DEFAULT_CAPTURE, Limits, PACKAGES_MEMORY};
use crate::policy::{Ceiling, Files, Grant, LimitExceeded, Requested, ResourceRequest};
use crate::run::Request;
use crate::template::Preload;
use anyhow::Result;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::env;
use std::ffi::OsString;
use std::io::{IsTerminal, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The default limit on the bytes of an output stream that are passed on.
const PASSED_ON: u64 = 1 << 30;

/// Options of `sandbox run` that somebody gave, on the command line or in the environment.
pub struct GivenOptions<'a>(pub Option<&'a ArgMatches>);

impl GivenOptions<'_> {
    pub fn ask<T>(&self, option: &str, value: T) -> Requested<T> {
        match self.is_default(option) {
            true => Requested::Default(value),
            false => Requested::Given(value),
        }
    }

    pub fn is_default(&self, option: &str) -> bool {
        let source = self.0.and_then(|matches| matches.value_source(option));
        matches!(source, None | Some(ValueSource::DefaultValue))
    }
}

/// Returns the resources that are asked for, as far as the policy allows them.
fn grant(
    args: &RunArgs,
    given: &GivenOptions,
    env: &[Vec<u8>],
    ceiling: &Ceiling,
) -> Result<Grant, LimitExceeded> {
    let default_output = if args.json {
        DEFAULT_CAPTURE
    } else {
        PASSED_ON
    };
    ceiling.grant(&ResourceRequest {
        memory: given.ask("memory", args.memory),
        timeout: match given.ask("timeout", args.timeout.0) {
            // Nobody knows how long somebody will sit there.
            Requested::Default(_) if prompts(args) => Requested::Default(None),
            asked => asked,
        },
        output: given.ask("max_output", args.max_output.unwrap_or(default_output)),
        pids: given.ask("pids_limit", args.pids_limit),
        confine: given.ask("confine", args.confine),
        root: args.root,
        // The script may name its language itself, so that is checked later.
        language: None,
        stdin: None,
        environment: env.iter().map(|variable| name(variable)).collect(),
    })
}

/// Returns the image that was asked for, by its name or by its Python.
pub fn chosen_image(
    image: Option<&Path>,
    python: Option<&str>,
    admission: &Admission,
) -> Result<Image> {
    let has_python = |version: &str| Image::built_in().has_python(version);
    let is_another = image.is_some() || !python.is_none_or(has_python);
    if is_another && admission.inspects() {
        return Err(Error::new(
            Kind::Policy,
            "another image defines languages, of which neither a policy nor a log of runs knows what they run",
            "leave out --image and --python, or run without a policy and a log",
        )
        .into());
    }
    match (image, python) {
        (None, None) => Ok(Image::built_in().clone()),
        (None, Some(version)) => image::with_python(version),
        (Some(name), _) => match name.to_str() {
            Some(name) if !name.contains('/') && !name.ends_with(".toml") => image::named(name),
            _ => Ok(Image::read(name)?),
        },
    }
}

pub fn request(
    mut args: RunArgs,
    given: &GivenOptions,
    kvm: Device,
    admission: &Admission,
    writer: Option<&Writer>,
) -> Result<(Request, Option<PackageRequest>)> {
    let image = chosen_image(args.image.as_deref(), args.python.as_deref(), admission)?;
    let tells = tells(&args);
    let env = environment(&args.env, &args.env_file)?;
    let (source, arguments) = source(&args, &image)?;
    let may_choose = args.image.is_none() && args.python.is_none() && !admission.inspects();
    let mut packages = package_request(&args, &source, (&image, may_choose), admission)?;
    let image = packages
        .as_mut()
        .and_then(|packages| packages.image.take())
        .unwrap_or(image);
    let packages = packages.and_then(PackageRequest::if_any);
    // Packages are chosen for the image that there is now.
    let script_chooses = may_choose && packages.is_none();
    if packages.is_some() && given.is_default("memory") {
        args.memory = PACKAGES_MEMORY;
    }
    let grant =
        grant(&args, given, &env, &admission.ceiling).map_err(|excess| admission.refuse(excess))?;
    let files = &admission.ceiling.files;
    // Standard input is the code here, which has a limit of its own.
    let input = match source {
        Source::Stdin => u64::MAX,
        _ => grant.stdin,
    };
    let limits = limits(&grant, files, input, args.grace);
    let terminal = may_have_terminal(&args);
    let request = Request {
        source,
        image,
        script_chooses,
        layers: Vec::new(),
        preload: preload(&args),
        language: args.lang,
        arguments,
        env,
        puts: args.put,
        excluded: patterns(args.exclude, &args.exclude_from)?,
        siblings: (!args.no_siblings)
            .then(|| Siblings::MOST.within(files.count, files.size.map(|size| size.0))),
        gets: args.get,
        force: args.force,
        workdir: resolve(guest::WORKDIR.as_bytes(), &args.workdir)?,
        limits,
        usual_memory: given.is_default("memory"),
        root: args.root,
        kvm,
        show_console: args.console,
        fresh: args.fresh,
        verify: args.verify,
        confine: grant.confine,
        capture: args.json,
        events: args.json_events,
        terminal,
        prompt: args.interactive,
        shows: false,
        record: writer.map(Writer::descriptor),
        tells,
        share: None,
    };
    Ok((request, packages))
}

/// Returns the limits of a run that gets these resources.
pub fn limits(grant: &Grant, files: &Files, input: u64, grace: Duration) -> Limits {
    Limits {
        memory: grant.memory,
        machine_memory: grant.machine_memory,
        boot: BOOT_LIMIT,
        timeout: grant.timeout,
        grace,
        max_output: grant.output,
        input,
        fetch_count: files.count.unwrap_or(u64::MAX),
        fetch_size: files.size.map_or(u64::MAX, |size| size.0),
        pids: grant.pids,
    }
}

/// Returns what is asked for, as far as the policy allows it. The script may ask for another image, or not.
fn package_request(
    args: &RunArgs,
    source: &Source,
    image: (&Image, bool),
    admission: &Admission,
) -> Result<Option<PackageRequest>> {
    if args.no_packages {
        return Ok(None);
    }
    let mut packages = PackageRequest::of_program(source, &args.packages, image)?;
    if let Some(packages) = &mut packages {
        packages.locked = args.locked;
        if let Some(policy) = &admission.ceiling.packages
            && !packages.asked.is_empty()
        {
            let kept = packages.keep_to(policy);
            kept.map_err(|excess| admission.refuse(excess))?;
        }
    }
    Ok(packages)
}

/// Returns whether somebody wants to know of the program's exception, results and figures.
fn tells(args: &RunArgs) -> bool {
    let has_record = args.json || args.json_events || args.json_status_fd.is_some();
    has_record || args.show_dir.is_some()
}

fn preload(args: &RunArgs) -> Preload {
    match args.no_preload {
        true => Preload::None,
        false => Preload::OfProgram,
    }
}

/// Returns what to run, and its arguments.
fn source(args: &RunArgs, image: &Image) -> Result<(Source, Vec<OsString>)> {
    let mut words = args.words.iter().cloned();
    let code = match &args.code_file {
        Some(path) => Some(read_code(path)?),
        None => args.code.clone(),
    };
    let mut arguments: Vec<_>;
    let instead = code.map(Source::Code);
    let instead = instead.or(args.module.clone().map(Source::Module));
    let source = match (instead, words.next()) {
        (Some(source), first) => {
            // Every word is an argument then.
            arguments = first.into_iter().chain(words).collect();
            source
        }
        (None, Some(_)) if follow_separator(&args.words) => {
            arguments = args.words.clone();
            Source::Command
        }
        (None, Some(name)) => {
            arguments = words.collect();
            // This is the separator. The one after -c, clap has taken already.
            if arguments.first().is_some_and(|word| word == "--") {
                arguments.remove(0);
            }
            source_named(&name)
        }
        (None, None) if has_own_command(image) && !args.interactive => {
            arguments = Vec::new();
            Source::Command
        }
        (None, None) if prompts(args) => {
            arguments = Vec::new();
            Source::Prompt
        }
        (None, None) => {
            return Err(Error::new(
                Kind::Request,
                "there is nothing to run",
                Remedy::GiveProgram,
            )
            .into());
        }
    };
    if let Some(file) = &args.args_file {
        arguments.extend(read_arguments(file)?);
    }
    Ok((source, arguments))
}

/// Returns whether an image is for a program, which runs where nothing else is named.
fn has_own_command(image: &Image) -> bool {
    let system = image.system.as_ref();
    system.is_some_and(|system| !system.command.is_empty())
}

/// Returns whether these words, the last of all, come after a `--`, which clap has taken.
fn follow_separator(words: &[OsString]) -> bool {
    let before = env::args_os().nth_back(words.len());
    before.is_some_and(|word| word == "--")
}

/// Returns whether somebody sits at a prompt: it was asked for, or there is nothing to run and both ends are
/// a terminal's.
fn prompts(args: &RunArgs) -> bool {
    let is_alone = args.words.is_empty()
        && args.code.is_none()
        && args.code_file.is_none()
        && args.module.is_none();
    let has_both_ends =
        || may_have_terminal(args) && stdin().is_terminal() && stdout().is_terminal();
    args.interactive || (is_alone && has_both_ends())
}

/// Returns whether the program may have a terminal.
fn may_have_terminal(args: &RunArgs) -> bool {
    !args.no_tty && !args.json && !args.json_events
}

/// Returns the patterns of what stays on the host, those from files first.
pub fn patterns(given: Vec<String>, files: &[PathBuf]) -> Result<Vec<String>, Error> {
    let mut patterns = Vec::new();
    for file in files {
        let text = read_patterns(file)?;
        patterns.extend(text.lines().map(str::to_owned));
    }
    patterns.extend(given);
    Ok(patterns)
}

/// Returns the variables that were given, those from files first.
pub fn environment(given: &[OsString], files: &[PathBuf]) -> Result<Vec<Vec<u8>>, Error> {
    let mut variables = Vec::new();
    for file in files {
        variables.extend(read_variables(file)?);
    }
    for word in given {
        variables.extend(parse_variable(word)?);
    }
    Ok(variables)
}
