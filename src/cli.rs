//! Arguments in, exit code out.

mod manual;
mod mcp;
mod record;
mod template;
mod values;
mod voice;

use crate::confine::Level;
use crate::doctor;
use crate::files::{Get, Put};
use crate::job::{Complaint, Language, Program, program_named, read_code, resolve};
use crate::limits::{BOOT_LIMIT, Limits};
use crate::outcome::EXIT_OURS;
use crate::run::{Request, run};
use crate::units::{Timeout, parse_memory, parse_size, parse_timeout};
use anyhow::Result;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use record::Writer;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Instant;
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
    #[arg(long, value_name = "FILE")]
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = match cli.command {
        Verb::Run(args) => run_verb(*args, cli.kvm),
        Verb::Template(verb) => template::template_verb(verb, &cli.kvm),
        Verb::Mcp(args) => mcp::mcp_verb(args, cli.kvm),
        Verb::Doctor { json } => doctor::doctor(&cli.kvm, json),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man { command } => manual::manual(command.as_deref()),
    };
    result.unwrap_or_else(|error| explain(&error))
}

fn run_verb(args: RunArgs, kvm: PathBuf) -> Result<u8> {
    let began = Instant::now();
    let (verbose, quiet, json, memory) = (args.verbose, args.quiet, args.json, args.memory);
    let writer = Writer::open(json, args.json_status_fd)?;
    let request = request(args, kvm, writer.as_ref());
    let result = request.map_err(Into::into).and_then(|request| {
        if request.confine == Level::Off && !json {
            say("--confine=off: what escapes from the guest has all the rights of this user");
        }
        let report = run(&request, &mut Progress { quiet })?;
        if !quiet && !json {
            tell(&report);
        }
        if verbose {
            describe(&report);
        }
        Ok(report)
    });
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

fn request(args: RunArgs, kvm: PathBuf, writer: Option<&Writer>) -> Result<Request, Complaint> {
    let env = environment(&args.env, &args.env_file)?;
    let mut words = args.words.into_iter();
    let code = match args.code_file {
        Some(path) => Some(read_code(&path)?),
        None => args.code,
    };
    let program = match (code, words.next()) {
        (Some(code), first) => {
            // With -c, every word is an argument.
            words = first
                .into_iter()
                .chain(words)
                .collect::<Vec<_>>()
                .into_iter();
            Program::Code(code)
        }
        (None, Some(name)) => program_named(&name),
        (None, None) => {
            return Err(Complaint {
                what: "there is nothing to run".into(),
                remedy: "name a script, or give code after -c, or - to read it from standard input"
                    .into(),
                exit_code: EXIT_OURS,
            });
        }
    };
    let mut arguments: Vec<_> = words.collect();
    // After -c, clap has taken it already.
    let separated = arguments.first().is_some_and(|word| word == "--");
    if separated && !matches!(program, Program::Code(_)) {
        arguments.remove(0);
    }
    let default_output = if args.json { CAPTURED } else { PASSED_ON };
    if let Some(file) = &args.args_file {
        arguments.extend(read_arguments(file)?);
    }
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
            memory: args.memory,
            boot: BOOT_LIMIT,
            timeout: args.timeout.0,
            max_output: args.max_output.unwrap_or(default_output),
            pids: args.pids_limit,
        },
        root: args.root,
        kvm,
        show_console: args.console,
        fresh: args.fresh,
        verify: args.verify,
        confine: args.confine,
        capture: args.json,
        record: writer.map(Writer::descriptor),
    })
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
