//! `sandbox session shell`: a terminal in a session.

use crate::cli::exit_code;
use crate::cli::session_cell::{Cell, Followed};
use crate::cli::session_input::Input;
use crate::cli::session_run::{PlaceArgs, tell_end, variables};
use crate::error::{Error, Kind};
use crate::session::protocol::{Request, Terminal};
use crate::session::{Client, Place};
use crate::terminal::{self, Keeper};
use anyhow::{Context, Result};
use clap::Args;
use guest::stream::STDIN;
use std::io::stdin;
use std::os::fd::AsFd;

#[derive(Args)]
pub struct ShellArgs {
    /// The session's name
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// A command and its arguments, after -- [default: bash]
    #[arg(last = true, value_name = "COMMAND")]
    words: Vec<String>,
}

/// Has a command of a session's on the terminal of this process; returns the exit code.
pub fn shell_verb(args: ShellArgs) -> Result<u8> {
    let terminal = terminal::of_this_process()?.filter(|terminal| terminal.has(STDIN));
    let Some(terminal) = terminal else {
        let message = "a shell needs a terminal, on standard input and output";
        let remedy = format!(
            "run commands without one: sandbox session exec {} -- COMMAND",
            args.name
        );
        return Err(Error::new(Kind::Request, message, remedy).into());
    };
    let request = Request::Exec {
        argv: match args.words.is_empty() {
            true => vec!["bash".into()],
            false => args.words,
        },
        env: variables(&args.place.env)?,
        workdir: args.place.workdir,
        user: args.place.user,
        input: true,
        terminal: Some(Terminal {
            rows: terminal.size.rows,
            columns: terminal.size.columns,
            term: std::env::var("TERM").ok(),
        }),
        timeout_s: None,
    };
    let client = Client::connect(&Place::open()?, &args.name)?;
    // From here on, what is typed is for the command; the modes are put back when this is dropped.
    let keeper = Keeper::start(terminal, None)?;
    let typed = stdin().as_fd().try_clone_to_owned();
    let input = Input::of(typed.context("duplicating standard input")?);
    let mut cell = Cell::new(client, Some(input))?.shown_on(keeper.modes());
    cell.client.send(&request)?;
    let followed = cell.follow();
    drop(keeper);
    Ok(match followed? {
        Followed::Ended(record, error) => {
            tell_end(&record, error);
            exit_code::of_record(&record)
        }
        Followed::Left(code) => code,
    })
}
