//! `sandbox man` and `sandbox completions`: from the same options that the parser goes by.

use super::Cli;
use crate::complaint::Complaint;
use crate::outcome::EXIT_OURS;
use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::{self, Write, stdout};

/// The page of the whole, or of one of its commands.
pub fn manual(verb: Option<&str>) -> Result<u8> {
    let mut page = Vec::new();
    let command = command(verb)?;
    let title = command.get_display_name().unwrap_or("sandbox").to_string();
    Man::new(command).title(title).render(&mut page)?;
    print(&page)
}

pub fn completions(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sandbox", &mut script);
    print(&script)
}

fn command(verb: Option<&str>) -> Result<Command, Complaint> {
    let mut whole = Cli::command();
    // Gives what is global to all of them.
    whole.build();
    let Some(verb) = verb else {
        return Ok(whole);
    };
    whole.find_subcommand(verb).cloned().ok_or_else(|| {
        let verbs = whole.get_subcommands().map(Command::get_name);
        Complaint {
            what: format!("there is no command {verb}"),
            remedy: format!(
                "name one of these: {}",
                verbs.collect::<Vec<_>>().join(", ")
            ),
            exit_code: EXIT_OURS,
        }
    })
}

fn print(bytes: &[u8]) -> Result<u8> {
    match stdout().write_all(bytes) {
        // Nobody reads on.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        result => Ok(result.map(|()| 0)?),
    }
}
