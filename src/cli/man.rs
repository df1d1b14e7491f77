//! `sandbox man` and `sandbox completions`, made from the options that the parser uses.

use crate::error::{Error, Kind};
use anyhow::Result;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::{self, Write, stdout};

/// Prints the manual page of the program, of one of its commands, or of a subcommand.
pub fn manual(whole: Command, verbs: &[String]) -> Result<u8> {
    let version = whole.get_version().unwrap_or_default();
    // The footer of each page. By default it has the command's own name, and no version.
    let source = format!("sandbox {version}");
    let command = command(whole, verbs)?;
    let title = command.get_display_name().unwrap_or("sandbox").to_string();
    let mut page = Vec::new();
    Man::new(command)
        .title(title)
        .source(source)
        .manual("User Commands")
        .render(&mut page)?;
    print(&page)
}

pub fn completions(mut whole: Command, shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut whole, "sandbox", &mut script);
    print(&script)
}

fn command(mut whole: Command, verbs: &[String]) -> Result<Command, Error> {
    // This adds the global options to all commands.
    whole.build();
    let mut command = &whole;
    for verb in verbs {
        let shown = |command: &&Command| !command.is_hide_set();
        let found = command.find_subcommand(verb).filter(shown);
        command = found.ok_or_else(|| {
            let others = command.get_subcommands().filter(shown);
            let others = others.map(Command::get_name);
            Error::new(
                Kind::Request,
                format!("there is no command {}", verbs.join(" ")),
                match others.collect::<Vec<_>>()[..] {
                    [] => format!("leave out {verb}"),
                    ref others => format!("name one of these: {}", others.join(", ")),
                },
            )
        })?;
    }
    Ok(command.clone())
}

fn print(bytes: &[u8]) -> Result<u8> {
    match stdout().write_all(bytes) {
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        result => Ok(result.map(|()| 0)?),
    }
}
