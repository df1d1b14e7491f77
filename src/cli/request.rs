//! Conversion of the options of `sandbox run` to the request for a run.

use crate::cli::admission::Admission;
use crate::cli::options::RunArgs;
use crate::cli::record_writer::Writer;
use crate::cli::values::{parse_variable, read_arguments, read_patterns, read_variables};
use crate::error::{Error, Kind, Remedy};
use crate::files::Siblings;
use crate::image::Image;
use crate::job::{Source, name, read_code, resolve, source_named};
use crate::kvm_mode::Device;
use crate::limits::{BOOT_LIMIT, DEFAULT_CAPTURE, Limits};
use crate::policy::{Ceiling, Grant, LimitExceeded, Requested, ResourceRequest};
use crate::run::Request;
use anyhow::Result;
use clap::ArgMatches;
use clap::parser::ValueSource;
use std::ffi::OsString;
use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;

/// The default limit on the bytes of an output stream that are passed on.
const PASSED_ON: u64 = 1 << 30;

/// Options of `sandbox run` that somebody gave, on the command line or in the environment.
pub struct Given<'a>(pub Option<&'a ArgMatches>);

impl Given<'_> {
    fn ask<T>(&self, option: &str, value: T) -> Requested<T> {
        let source = self.0.and_then(|matches| matches.value_source(option));
        match source {
            None | Some(ValueSource::DefaultValue) => Requested::Default(value),
            Some(_) => Requested::Given(value),
        }
    }
}

/// Returns the resources that are asked for, as far as the policy allows them.
fn grant(
    args: &RunArgs,
    given: &Given,
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

pub fn request(
    args: RunArgs,
    given: &Given,
    kvm: Device,
    admission: &Admission,
    writer: Option<&Writer>,
) -> Result<Request> {
    if args.image.is_some() && admission.inspects() {
        return Err(Error::new(
            Kind::Policy,
            "--image defines languages, of which neither a policy nor a log of runs knows what they run",
            "leave out --image, or run without a policy and a log",
        )
        .into());
    }
    let env = environment(&args.env, &args.env_file)?;
    let grant =
        grant(&args, given, &env, &admission.ceiling).map_err(|excess| admission.refuse(excess))?;
    let (source, arguments) = source(&args)?;
    let files = &admission.ceiling.files;
    // Standard input is the code here, which has a limit of its own.
    let input = match source {
        Source::Stdin => u64::MAX,
        _ => grant.stdin,
    };
    let terminal = may_have_terminal(&args);
    Ok(Request {
        source,
        image: match &args.image {
            Some(path) => Image::read(path)?,
            None => Image::built_in().clone(),
        },
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
        limits: Limits {
            memory: grant.memory,
            machine_memory: grant.machine_memory,
            boot: BOOT_LIMIT,
            timeout: grant.timeout,
            grace: args.grace,
            max_output: grant.output,
            input,
            fetch_count: files.count.unwrap_or(u64::MAX),
            fetch_size: files.size.map_or(u64::MAX, |size| size.0),
            pids: grant.pids,
        },
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
        tells: args.json || args.json_events || args.json_status_fd.is_some(),
    })
}

/// Returns what to run, and its arguments.
fn source(args: &RunArgs) -> Result<(Source, Vec<OsString>)> {
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
        (None, Some(name)) => {
            arguments = words.collect();
            // This is the separator. The one after -c, clap has taken already.
            if arguments.first().is_some_and(|word| word == "--") {
                arguments.remove(0);
            }
            source_named(&name)
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
fn patterns(given: Vec<String>, files: &[PathBuf]) -> Result<Vec<String>, Error> {
    let mut patterns = Vec::new();
    for file in files {
        let text = read_patterns(file)?;
        patterns.extend(text.lines().map(str::to_owned));
    }
    patterns.extend(given);
    Ok(patterns)
}

/// Returns the variables that were given, those from files first.
fn environment(given: &[OsString], files: &[PathBuf]) -> Result<Vec<Vec<u8>>, Error> {
    let mut variables = Vec::new();
    for file in files {
        variables.extend(read_variables(file)?);
    }
    for word in given {
        variables.extend(parse_variable(word)?);
    }
    Ok(variables)
}
