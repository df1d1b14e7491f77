//! Arguments in, exit code out.

mod audit;
mod gate;
mod manual;
mod mcp;
mod record;
mod supervisor;
mod template;
mod values;
mod voice;

use crate::audit::{Log, ROTATE};
use crate::complaint::Complaint;
use crate::confine::Level;
use crate::doctor;
use crate::files::{Get, Put};
use crate::job::{Language, Program, name, program_named, read_code, resolve};
use crate::limits::{BOOT_LIMIT, Limits};
use crate::outcome::EXIT_OURS;
use crate::policy::{Ask, Ceiling, Excess, Grant, Policy, Wish};
use crate::run::{Report, Request, prepare, run};
use crate::units::{Timeout, parse_memory, parse_size, parse_timeout};
use anyhow::Result;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use gate::Gate;
use record::Writer;
use std::env;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;
use supervisor::{Side, Supervisor};
use values::{parse_variable, read_arguments, read_variables};
use voice::{Progress, describe, explain, failure, say, tell};

/// Bytes of an output stream that are passed on, unless told otherwise.
const PASSED_ON: u64 = 1 << 30;
/// And that are kept for a record: whoever reads that holds all of it at once.
const CAPTURED: u64 = 8 << 20;

/// Groups of options.
const PROGRAM: &str = "The program";
const LIMITS: &str = "Its limits";
const FILES: &str = "Files in and out";
const MACHINE: &str = "The machine";
const TOLD: &str = "What is told";

/// After all options of run.
const AFTERWARDS: &str = "\
Exit codes: the program's own, or 128 and the number of the signal that ended it (137: also out of
memory); 124 at the time limit; 125 if it could not be run; 126 and 127 if a script cannot be read or
is not there; 130 after Ctrl-C. Only --json tells a program's own 124 from ours.

Examples:
  sandbox run hello.py                          a script
  sandbox run -c 'print(1 + 1)'                 code
  sandbox run --put data.csv --get out.png plot.py
  sandbox run --memory 1G --timeout 5m train.py --epochs 3
  sandbox run --json -c 'print(1)' | jq .stdout";

/// Run untrusted code in a virtual machine of its own
#[derive(Parser)]
#[command(name = "sandbox", version, max_term_width = 100)]
struct Cli {
    /// The KVM device
    #[arg(
        long,
        global = true,
        env = "SANDBOX_KVM",
        default_value = "/dev/kvm",
        value_name = "PATH"
    )]
    kvm: PathBuf,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a Python script, code, or standard input (-) in a virtual machine
    #[command(
        override_usage = "sandbox run [OPTIONS] SCRIPT [--] [ARGS]...\n       \
        sandbox run [OPTIONS] -c CODE [--] [ARGS]...\n       \
        sandbox run [OPTIONS] - [--] [ARGS]...",
        after_help = AFTERWARDS
    )]
    Run(Box<RunArgs>),
    /// The saved machines that runs start from
    #[command(subcommand)]
    Template(template::Verb),
    /// Serve agents: a tool that runs code, over the Model Context Protocol
    Mcp(mcp::McpArgs),
    /// The log of runs
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Say whether this host can run sandboxes, and what to do where it cannot
    Doctor {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print a script that completes commands and options in a shell
    Completions {
        /// Its language
        shell: Shell,
    },
    /// Print the manual page, or that of a command: sandbox man run | man -l -
    Man {
        /// One of these commands
        command: Option<String>,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Code to run instead of a script
    #[arg(short, value_name = "CODE", help_heading = PROGRAM)]
    code: Option<OsString>,
    /// The same, from a file
    #[arg(long, value_name = "FILE", conflicts_with = "code", help_heading = PROGRAM)]
    code_file: Option<PathBuf>,
    /// The program's language; else a script's name or #! line tells, and it is Python
    #[arg(short, long, value_enum, value_name = "LANGUAGE", help_heading = PROGRAM)]
    lang: Option<Language>,
    /// Guest memory, for example 512M or 1G
    #[arg(short, long, env = "SANDBOX_MEMORY", value_name = "SIZE", default_value = "256M", value_parser = parse_memory, help_heading = LIMITS)]
    memory: u64,
    /// Wall-clock limit of the program: seconds, or with a unit (30s, 2m, 1h); 0 for none
    #[arg(short, long, env = "SANDBOX_TIMEOUT", value_name = "DURATION", default_value = "60", value_parser = parse_timeout, help_heading = LIMITS)]
    timeout: Timeout,
    /// Most bytes delivered of each output stream; the rest is dropped and counted [default: 1G,
    /// or 8M with --json]
    #[arg(long, env = "SANDBOX_MAX_OUTPUT", value_name = "SIZE", value_parser = parse_size, help_heading = LIMITS)]
    max_output: Option<u64>,
    /// Most processes and threads at once
    #[arg(long, env = "SANDBOX_PIDS_LIMIT", value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..), help_heading = LIMITS)]
    pids_limit: u32,
    /// Set a variable of the program's environment, or pass on the one with this name
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = PROGRAM)]
    env: Vec<OsString>,
    /// Set the variables in this file, one on each line
    #[arg(long, value_name = "FILE", help_heading = PROGRAM)]
    env_file: Vec<PathBuf>,
    /// The program's arguments, each ending with a NUL, where no other user can see them
    #[arg(long, value_name = "FILE", help_heading = PROGRAM)]
    args_file: Option<PathBuf>,
    /// Put a file, or a directory with all in it, into the guest: under its own name in the working
    /// directory, or as GUEST (in GUEST, if that ends with a /). Links in it stay links
    #[arg(long, value_name = "HOST[:GUEST]", value_parser = OsStringValueParser::new().try_map(|word| Put::parse(&word)), help_heading = FILES)]
    put: Vec<Put>,
    /// Fetch a file or directory that the program leaves: under its own name in the current
    /// directory, or as HOST (in HOST, if that is a directory). Links in it are left out
    #[arg(long, value_name = "GUEST[:HOST]", value_parser = OsStringValueParser::new().try_map(|word| Get::parse(&word)), help_heading = FILES)]
    get: Vec<Get>,
    /// Let --get replace files that are there
    #[arg(long, help_heading = FILES)]
    force: bool,
    /// The program's working directory in the guest, made if it is missing
    #[arg(short, long, value_name = "DIR", default_value = guest::WORKDIR, help_heading = PROGRAM)]
    workdir: OsString,
    /// Run the program as the guest's root
    #[arg(long, help_heading = PROGRAM)]
    root: bool,
    /// Boot a machine for this run alone, instead of restoring a saved one
    #[arg(long, env = "SANDBOX_FRESH", help_heading = MACHINE)]
    fresh: bool,
    /// Check all of the saved machine before it is restored
    #[arg(long, env = "SANDBOX_VERIFY", help_heading = MACHINE)]
    verify: bool,
    /// Whether this process confines itself before the guest runs: as far as this kernel lets it,
    /// or fully or not at all
    #[arg(
        long,
        env = "SANDBOX_CONFINE",
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        help_heading = MACHINE
    )]
    confine: Level,
    /// Print one JSON object that tells how the run went, with the program's output in it
    #[arg(long, conflicts_with = "json_status_fd", help_heading = TOLD)]
    json: bool,
    /// Write such an object, without the output, to this descriptor at the end
    #[arg(long, value_name = "N", help_heading = TOLD)]
    json_status_fd: Option<RawFd>,
    /// Ask for no more than this file allows
    #[arg(long, env = "SANDBOX_POLICY", value_name = "FILE", help_heading = LIMITS)]
    policy: Option<PathBuf>,
    /// Write down in this file who ran what, and what became of it
    #[arg(long, env = "SANDBOX_AUDIT", value_name = "FILE", help_heading = TOLD)]
    audit: Option<PathBuf>,
    /// Show the guest kernel's log on standard error
    #[arg(long, help_heading = TOLD)]
    console: bool,
    /// Say on standard error how the run went
    #[arg(long, conflicts_with = "quiet", help_heading = TOLD)]
    verbose: bool,
    /// Say nothing beyond the program's own output
    #[arg(short, long, help_heading = TOLD)]
    quiet: bool,
    /// A script (- for standard input), then the program's arguments
    #[arg(value_name = "SCRIPT [ARGS]", trailing_var_arg = true)]
    words: Vec<OsString>,
}

/// Does what the arguments say; gives the exit code.
pub fn main() -> u8 {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    let result = match cli.command {
        Verb::Run(args) => run_verb(*args, &matches, cli.kvm),
        Verb::Template(verb) => template::template_verb(verb, &cli.kvm),
        Verb::Mcp(args) => mcp::mcp_verb(args, cli.kvm),
        Verb::Audit(verb) => audit::audit_verb(verb),
        Verb::Doctor { json } => doctor::doctor(&cli.kvm, json),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man { command } => manual::manual(command.as_deref()),
    };
    result.unwrap_or_else(|error| explain(&error))
}

fn run_verb(args: RunArgs, matches: &ArgMatches, kvm: PathBuf) -> Result<u8> {
    let began = Instant::now();
    let (json, memory, tells) = (
        args.json,
        args.memory,
        args.json || args.json_status_fd.is_some(),
    );
    let writer = Writer::open(json, args.json_status_fd)?;
    let given = Given(matches.subcommand_matches("run"));
    let (gate, writer) = match prepare_gate(&args) {
        Err(error) => (Err(error), writer),
        Ok((policy, None)) => (
            Ok(Gate {
                ceiling: policy.run,
                entrance: None,
            }),
            writer,
        ),
        Ok((policy, Some((log, keep_code)))) => match Supervisor::split(log, keep_code)? {
            Side::Parent(supervisor) => {
                let kept = args.max_output.unwrap_or(CAPTURED);
                return supervisor.attend(writer, if json { kept } else { 0 }, memory);
            }
            Side::Child(entrance) => {
                let writer = Writer::new(&entrance.parent)?;
                let gate = Gate {
                    ceiling: policy.run,
                    entrance: Some(entrance),
                };
                (Ok(gate), Some(writer))
            }
        },
    };
    let result = gate.and_then(|gate| carry_out(args, &given, kvm, gate, writer.as_ref(), tells));
    let code = match &result {
        Ok(report) => report.exit_code(),
        Err(error) if json => failure(error).1,
        Err(error) => explain(error),
    };
    let Some(writer) = writer else {
        return Ok(code);
    };
    let record = match result {
        Ok(report) => record::of(report),
        Err(error) => record::of_failure(&error, memory, began.elapsed()),
    };
    Ok(writer.write(&record)?.unwrap_or(code))
}

/// Who sets the environment of others binds them with it.
fn keep_to_environment(option: &str, name: &str, given: Option<&Path>) -> Result<(), Complaint> {
    match env::var_os(name) {
        Some(set) if given != Some(Path::new(&set)) => Err(Complaint {
            what: format!("{option} is not what {name} says: {}", set.display()),
            remedy: format!("leave out {option}"),
            exit_code: EXIT_OURS,
        }),
        _ => Ok(()),
    }
}

/// The policy, and the log with whether code goes into it, if there is to be one.
fn prepare_gate(args: &RunArgs) -> Result<(Policy, Option<(Log, bool)>)> {
    keep_to_environment("--policy", "SANDBOX_POLICY", args.policy.as_deref())?;
    keep_to_environment("--audit", "SANDBOX_AUDIT", args.audit.as_deref())?;
    let policy = match &args.policy {
        Some(path) => Policy::read(path)?,
        None => Policy::default(),
    };
    let log = match (&policy.audit, &args.audit) {
        (Some(audit), Some(path)) if *path != audit.file => {
            return Err(Complaint {
                what: format!("the policy has runs written to {}", audit.file.display()),
                remedy: "leave out --audit, or name that file".into(),
                exit_code: EXIT_OURS,
            }
            .into());
        }
        (Some(audit), _) => {
            let rotate = audit.rotate.map_or(ROTATE, |rotate| rotate.0);
            Some((Log::open(&audit.file, rotate, audit.sync)?, audit.code))
        }
        (None, Some(path)) => Some((Log::open(path, ROTATE, false)?, false)),
        (None, None) => None,
    };
    Ok((policy, log))
}

/// One run, from what the user asks to how it went.
fn carry_out(
    args: RunArgs,
    given: &Given,
    kvm: PathBuf,
    gate: Gate,
    writer: Option<&Writer>,
    tells: bool,
) -> Result<Report> {
    let (verbose, quiet, json) = (args.verbose, args.quiet, args.json);
    let request = Request {
        tells,
        ..request(args, given, kvm, &gate, writer)?
    };
    if request.confine == Level::Off && !json {
        say("--confine=off: what escapes from the guest has all the rights of this user");
    }
    let prepared = prepare(&request)?;
    gate.pass(&request, &prepared.work)?;
    let report = run(&request, prepared, &mut Progress { quiet })?;
    if !quiet && !json {
        tell(&report);
    }
    if verbose {
        describe(&report);
    }
    Ok(report)
}

/// Options of `sandbox run` that somebody gave, on the command line or in the environment.
struct Given<'a>(Option<&'a ArgMatches>);

impl Given<'_> {
    fn ask<T>(&self, option: &str, value: T) -> Ask<T> {
        let source = self.0.and_then(|matches| matches.value_source(option));
        match source {
            None | Some(ValueSource::DefaultValue) => Ask::Default(value),
            Some(_) => Ask::Given(value),
        }
    }
}

/// What is asked for, as far as the policy allows it.
fn grant(
    args: &RunArgs,
    given: &Given,
    env: &[Vec<u8>],
    ceiling: &Ceiling,
) -> Result<Grant, Excess> {
    let default_output = if args.json { CAPTURED } else { PASSED_ON };
    ceiling.grant(&Wish {
        memory: given.ask("memory", args.memory),
        timeout: given.ask("timeout", args.timeout.0),
        output: given.ask("max_output", args.max_output.unwrap_or(default_output)),
        pids: given.ask("pids_limit", args.pids_limit),
        confine: given.ask("confine", args.confine),
        root: args.root,
        // What the script says itself counts too.
        language: None,
        stdin: None,
        environment: env.iter().map(|variable| name(variable)).collect(),
    })
}

fn request(
    args: RunArgs,
    given: &Given,
    kvm: PathBuf,
    gate: &Gate,
    writer: Option<&Writer>,
) -> Result<Request> {
    let env = environment(&args.env, &args.env_file)?;
    let grant = grant(&args, given, &env, &gate.ceiling).map_err(|excess| gate.refuse(excess))?;
    let (program, arguments) = program(&args)?;
    let files = &gate.ceiling.files;
    // That is then the code, which has a limit of its own.
    let input = match program {
        Program::Stdin => u64::MAX,
        _ => grant.stdin,
    };
    Ok(Request {
        program,
        language: args.lang,
        arguments,
        env,
        puts: args.put,
        gets: args.get,
        force: args.force,
        workdir: resolve(guest::WORKDIR.as_bytes(), &args.workdir)?,
        limits: Limits {
            memory: grant.memory,
            boot: BOOT_LIMIT,
            timeout: grant.timeout,
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
        record: writer.map(Writer::descriptor),
        tells: false,
    })
}

/// What to run, and its arguments.
fn program(args: &RunArgs) -> Result<(Program, Vec<OsString>)> {
    let mut words = args.words.iter().cloned();
    let code = match &args.code_file {
        Some(path) => Some(read_code(path)?),
        None => args.code.clone(),
    };
    let mut arguments: Vec<_>;
    let program = match (code, words.next()) {
        (Some(code), first) => {
            // With -c, every word is an argument.
            arguments = first.into_iter().chain(words).collect();
            Program::Code(code)
        }
        (None, Some(name)) => {
            arguments = words.collect();
            // It separates; the one after -c, clap has taken already.
            if arguments.first().is_some_and(|word| word == "--") {
                arguments.remove(0);
            }
            program_named(&name)
        }
        (None, None) => {
            return Err(Complaint {
                what: "there is nothing to run".into(),
                remedy: "name a script, or give code after -c, or - to read it from standard input"
                    .into(),
                exit_code: EXIT_OURS,
            }
            .into());
        }
    };
    if let Some(file) = &args.args_file {
        arguments.extend(read_arguments(file)?);
    }
    Ok((program, arguments))
}

/// The variables given, those in files first.
fn environment(given: &[OsString], files: &[PathBuf]) -> Result<Vec<Vec<u8>>, Complaint> {
    let complaint = |what| Complaint {
        what,
        remedy: "give NAME=VALUE, or the NAME of a variable to pass on".into(),
        exit_code: EXIT_OURS,
    };
    let mut words = Vec::new();
    for file in files {
        words.extend(read_variables(file).map_err(complaint)?);
    }
    words.extend_from_slice(given);
    let variables: Result<Vec<_>, _> = words.iter().map(|word| parse_variable(word)).collect();
    Ok(variables
        .map_err(complaint)?
        .into_iter()
        .flatten()
        .collect())
}

/// Help and version are no errors; all else is ours.
fn refuse(error: &clap::Error) -> u8 {
    // Nothing can be done about a closed standard stream here.
    error.print().unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => EXIT_OURS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
