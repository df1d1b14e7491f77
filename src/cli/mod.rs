//! The command line: from the arguments to an exit code.

mod admission;
mod audit;
mod cache;
pub mod exit_code;
mod figures;
mod foreign_options;
mod image;
mod man;
mod mcp;
mod messages;
mod options;
mod package_options;
mod package_request;
mod packages;
mod progress;
mod record_writer;
mod remedies;
mod request;
mod run;
mod run_from;
mod script_image;
mod session;
mod session_cell;
mod session_files;
mod session_fork;
mod session_input;
mod session_keeper;
mod session_list;
mod session_run;
mod session_shell;
mod session_start;
mod supervisor;
mod template;
mod usage;
mod usage_record;
mod values;

use crate::confine::adapt;
use crate::doctor;
use crate::image::store;
use crate::kvm_mode::{Choice, Device};
use crate::worker::{Ended, serve};
use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use exit_code::{EXIT_OURS, EXIT_SIGNALED};
use messages::explain;
use nix::fcntl::{FcntlArg, fcntl};
use remedies::words;
use std::env;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// The text after all options of `sandbox run`. Paragraphs are wrapped where they are printed.
const AFTERWARDS: &str = "\
Exit codes: the program's own, or 128 and the number of the signal that ended it (137: also out of \
memory); 124 at the time limit; 125 if it could not be run; 126 and 127 if a script cannot be read \
or is not there; 130 after Ctrl-C; 141 if nobody reads the output. Only --json tells a program's own \
124 from ours.

Examples:
  sandbox run hello.py                          a script
  sandbox run -c 'print(1 + 1)'                 code
  sandbox run --put data.csv --get out.png plot.py
  sandbox run --with pytest -- pytest tests/    a command
  sandbox run --memory 1G --timeout 5m train.py --epochs 3
  sandbox run --json -c 'print(1)' | jq .stdout";

const VERSION: &str = match store::HAS_GUEST {
    true => env!("CARGO_PKG_VERSION"),
    false => concat!(env!("CARGO_PKG_VERSION"), " without a guest"),
};

/// Run untrusted code in a virtual machine of its own
#[derive(Parser)]
#[command(name = "sandbox", version = VERSION, max_term_width = 100)]
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
    /// How guests' kernels run on a software KVM: as fast as works here, or natively or emulated
    /// and in no other way
    #[arg(
        long,
        global = true,
        env = "SANDBOX_KVM_MODE",
        value_enum,
        default_value = "auto",
        value_name = "MODE"
    )]
    kvm_mode: Choice,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a Python script, code, or standard input (-) in a virtual machine
    #[command(
        override_usage = "sandbox run [OPTIONS] SCRIPT [--] [ARGS]...\n       \
        sandbox run [OPTIONS] -c CODE [--] [ARGS]...\n       \
        sandbox run [OPTIONS] - [--] [ARGS]...\n       \
        sandbox run [OPTIONS] -- COMMAND [ARGS]...",
        after_help = AFTERWARDS
    )]
    Run(Box<options::RunArgs>),
    /// The saved machines that runs start from
    #[command(subcommand)]
    Template(template::Verb),
    /// What is kept for later runs: saved machines and the guest's programs
    #[command(subcommand)]
    Cache(cache::Verb),
    /// What scripts need beyond Python's standard library
    #[command(subcommand)]
    Packages(packages::Verb),
    /// Images beside the one that is built in, for example with another Python
    #[command(subcommand)]
    Image(image::Verb),
    /// Machines that are kept, and asked again
    #[command(subcommand)]
    Session(session::Verb),
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
    /// Run what is asked for over a socket, for another process of this program
    #[command(hide = true)]
    Worker {
        /// The number of the socket's descriptor
        #[arg(value_parser = clap::value_parser!(RawFd).range(3..))]
        socket: RawFd,
    },
    /// Be a session, for another process of this program
    #[command(name = crate::session::VERB, hide = true)]
    ServeSession {
        /// The number of the socket's descriptor
        #[arg(value_parser = clap::value_parser!(RawFd).range(3..))]
        socket: RawFd,
        /// Those of the file with the point that it goes on from, and of the pipe to its owner
        #[arg(num_args = 2, value_names = ["POINT", "PIPE"], value_parser = clap::value_parser!(RawFd).range(3..))]
        point: Vec<RawFd>,
    },
    /// Keep the log of a session, for another process of this program
    #[command(name = crate::session::KEEPER_VERB, hide = true)]
    KeepSession {
        /// The number of the socket's descriptor
        #[arg(value_parser = clap::value_parser!(RawFd).range(3..))]
        socket: RawFd,
        /// Those of the file with the point that it goes on from, and of the pipe to its owner
        #[arg(value_parser = clap::value_parser!(RawFd).range(3..), num_args = 2)]
        point: Vec<RawFd>,
    },
    /// Fetch files from a session, for another process of this program
    #[command(name = crate::session::FETCH_VERB, hide = true)]
    FetchFiles,
    /// Print a script that completes commands and options in a shell
    Completions {
        /// Its language
        shell: Shell,
    },
    /// Print the manual page, or that of a command: sandbox man run | man -l -
    Man {
        /// One of these commands, or one of its own
        command: Vec<String>,
    },
}

/// Does what the arguments say; returns the exit code.
pub fn main() -> u8 {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    let kvm = Device {
        path: cli.kvm,
        choice: cli.kvm_mode,
    };
    if let Err(error) = adapt() {
        return explain(&error.into());
    }
    let result = match cli.command {
        Verb::Run(args) => run::run_verb(*args, &matches, kvm),
        Verb::Template(verb) => template::template_verb(verb, &kvm),
        Verb::Cache(verb) => cache::cache_verb(verb),
        Verb::Packages(verb) => packages::packages_verb(verb, &kvm),
        Verb::Image(verb) => image::image_verb(verb),
        Verb::Session(verb) => session::session_verb(verb, &matches, kvm),
        Verb::Mcp(args) => mcp::mcp_verb(args, kvm),
        Verb::Audit(verb) => audit::audit_verb(verb),
        Verb::Doctor { json } => doctor::doctor(&kvm, json, &words).map(|well| match well {
            true => 0,
            false => EXIT_OURS,
        }),
        Verb::Worker { socket } => worker(socket),
        Verb::ServeSession { socket, point } => handed(socket, point)
            .and_then(|(socket, point)| crate::session::serve(socket, point))
            .map(|()| 0),
        Verb::KeepSession { socket, point } => {
            handed(socket, point).and_then(|(socket, point)| session_keeper::keep(socket, point))
        }
        Verb::FetchFiles => crate::session::serve_fetch().map(|()| 0),
        Verb::Completions { shell } => man::completions(Cli::command(), shell),
        Verb::Man { command } => man::manual(Cli::command(), &command),
    };
    result.unwrap_or_else(|error| explain(&error))
}

/// Runs what is asked for over the socket with this number.
fn worker(socket: RawFd) -> Result<u8> {
    serve(inherited(socket)?, |ended| match ended {
        Ended::Report(report) => exit_code::of_report(report),
        Ended::Failed(error) => exit_code::of_kind(error.kind),
        Ended::Interrupted(signal) => EXIT_SIGNALED + signal,
    })
}

/// Takes the descriptors that a session's process is started with: its socket, and those of a point.
fn handed(socket: RawFd, point: Vec<RawFd>) -> Result<(OwnedFd, Option<(OwnedFd, OwnedFd)>)> {
    let socket = inherited(socket)?;
    let point: Vec<_> = point.into_iter().map(inherited).collect::<Result<_>>()?;
    Ok((socket, <[_; 2]>::try_from(point).ok().map(Into::into)))
}

/// Takes the socket with this number.
fn inherited(socket: RawFd) -> Result<OwnedFd> {
    // SAFETY: nothing has been opened or closed since this process began, so it stays as it is until it
    // is taken, below.
    fcntl(unsafe { BorrowedFd::borrow_raw(socket) }, FcntlArg::F_GETFD)
        .context("this is started by another process of this program, with a socket")?;
    // SAFETY: whoever starts it leaves the socket open for it, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Prints help, the version or an error in the arguments; returns the exit code. Only the last is a
/// failure.
fn refuse(error: &clap::Error) -> u8 {
    let is_help = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Some(0),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(EXIT_OURS),
        _ => None,
    };
    if let Some(code) = is_help {
        // Nothing can be done about a closed standard stream here.
        error.print().unwrap_or_default();
        return code;
    }
    let words: Vec<_> = env::args_os().skip(1).collect();
    let error = usage::explained(error, Cli::command, &words);
    usage_record::tell(error, Cli::command(), &words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn every_option_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn limits_that_are_not_given_are_those_of_all_doors() {
        let cli = Cli::parse_from(["sandbox", "run", "a.py"]);
        let Verb::Run(args) = cli.command else {
            panic!("it is another verb");
        };
        let limits = Limits::default();
        assert_eq!(args.memory, limits.memory);
        assert_eq!(args.timeout.0, limits.timeout);
        assert_eq!(args.grace, limits.grace);
        assert_eq!(args.pids_limit, limits.pids);
    }
}
