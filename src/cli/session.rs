//! `sandbox session`: machines that are kept, and asked again.

use crate::cli::request::GivenOptions;
use crate::cli::session_files::{GetArgs, PutArgs, get_verb, put_verb};
use crate::cli::session_fork::{CheckpointArgs, ForkArgs, checkpoint_verb, fork_verb};
use crate::cli::session_list::{connect, list};
use crate::cli::session_run::{CellArgs, CommandArgs, exec_verb, run_verb};
use crate::cli::session_shell::{ShellArgs, shell_verb};
use crate::cli::session_start::{StartArgs, start_verb};
use crate::kvm_mode::Device;
use crate::session::Place;
use crate::session::protocol::{Message, Request};
use anyhow::{Result, bail};
use clap::{ArgMatches, Subcommand};

#[derive(Subcommand)]
pub enum Verb {
    /// Start a session: a machine whose Python keeps its variables
    Start(Box<StartArgs>),
    /// Run code in a session, as a cell of a notebook
    Run(CellArgs),
    /// Run a command in a session's machine, beside its cells
    Exec(CommandArgs),
    /// Put files into a session's machine
    Put(PutArgs),
    /// Get files out of a session's machine
    Get(GetArgs),
    /// Have a shell in a session's machine on this terminal
    Shell(ShellArgs),
    /// Start sessions that go on from where another one is, as individuals
    Fork(ForkArgs),
    /// Save a session's machine under a name, for later sessions and runs to go on from
    Checkpoint(CheckpointArgs),
    /// Interrupt the cell that runs, as Ctrl-C does
    Interrupt {
        /// The session's name
        name: String,
    },
    /// End an interpreter of a session's, and have another in its place
    Restart {
        /// The session's name
        name: String,
        /// The context [default: the session's own]
        #[arg(long, value_name = "NAME")]
        context: Option<String>,
    },
    /// Show the sessions of this user
    List {
        /// One JSON object for each, in a line of its own
        #[arg(long)]
        json: bool,
    },
    /// End sessions, with all that they keep
    Stop {
        /// Their names
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// All sessions of this user
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
}

pub fn session_verb(verb: Verb, matches: &ArgMatches, kvm: Device) -> Result<u8> {
    match verb {
        Verb::Start(args) => {
            // They are what it was parsed from.
            match matches_of(matches, "start") {
                Some(matches) => start_verb(*args, matches, kvm),
                None => bail!("the arguments of session start are missing"),
            }
        }
        Verb::Run(args) => run_verb(args),
        Verb::Exec(args) => exec_verb(args),
        Verb::Put(args) => put_verb(args),
        Verb::Get(args) => get_verb(args),
        Verb::Shell(args) => shell_verb(args),
        Verb::Fork(args) => fork_verb(&args, &GivenOptions(matches_of(matches, "fork")), kvm),
        Verb::Checkpoint(args) => checkpoint_verb(args),
        Verb::Interrupt { name } => interrupt(&name),
        Verb::Restart { name, context } => restart(&name, context),
        Verb::List { json } => list(json),
        Verb::Stop { names, all } => stop(names, all),
    }
}

fn matches_of<'a>(matches: &'a ArgMatches, verb: &str) -> Option<&'a ArgMatches> {
    let matches = matches.subcommand_matches("session")?;
    matches.subcommand_matches(verb)
}

fn interrupt(name: &str) -> Result<u8> {
    let mut client = connect(&Place::open()?, name)?;
    match client.ask(&Request::Interrupt { cell: None })? {
        Message::Interrupted { .. } => Ok(0),
        other => Err(client.unexpected(&other)),
    }
}

fn restart(name: &str, context: Option<String>) -> Result<u8> {
    let mut client = connect(&Place::open()?, name)?;
    match client.ask(&Request::Restart { context })? {
        Message::Restarted {} => Ok(0),
        other => Err(client.unexpected(&other)),
    }
}

fn stop(names: Vec<String>, all: bool) -> Result<u8> {
    let place = Place::open()?;
    let names = if all { place.names()? } else { names };
    for name in names {
        let client = match connect(&place, &name) {
            Err(_) if all => continue,
            client => client?,
        };
        client.stop()?;
        place.clear(&name)?;
    }
    Ok(0)
}
