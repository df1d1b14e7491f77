//! The record of a run that its arguments do not allow.

use crate::cli::exit_code;
use crate::cli::messages::{explain, tell_error};
use crate::cli::record_writer::{Writer, in_words};
use crate::error::Error;
use crate::limits::DEFAULT_MEMORY;
use crate::run::record_of;
use clap::Command;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;

/// Tells what is wrong with the arguments: in a record, if they ask for one. Returns the exit code.
pub fn tell(error: Error, mut command: Command, words: &[OsString]) -> u8 {
    command.build();
    let wanted = wanted(&command, words);
    let code = exit_code::of_kind(error.kind);
    let writer = Writer::open(
        wanted.json && wanted.descriptor.is_none(),
        wanted.descriptor,
    );
    let Ok(Some(writer)) = writer else {
        tell_error(&error);
        return code;
    };
    if !wanted.json {
        tell_error(&error);
    }
    let record = in_words(record_of::failure(
        &error.into(),
        DEFAULT_MEMORY,
        Duration::ZERO,
    ));
    match writer.write(&record, None) {
        Ok(instead) => instead.unwrap_or(code),
        Err(error) => explain(&error),
    }
}

/// The record that the arguments ask for.
#[derive(Default)]
struct Wanted {
    json: bool,
    descriptor: Option<RawFd>,
}

/// Reads as much of the arguments of a run as says which record is wanted: up to the script, or to
/// where the program's own begin. An option that is not known is taken for one with a value.
fn wanted(command: &Command, words: &[OsString]) -> Wanted {
    let mut wanted = Wanted::default();
    let mut words = words.iter().map(|word| word.to_string_lossy()).peekable();
    if words.find(|word| word == "run").is_none() {
        return wanted;
    }
    let run = command.find_subcommand("run").unwrap_or(command);
    while let Some(word) = words
        .next()
        .filter(|word| word.starts_with('-') && word != "--")
    {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&*word, None),
        };
        let arg = run.get_arguments().find(|arg| {
            let short = arg.get_short().map(|short| format!("-{short}"));
            arg.get_long()
                .is_some_and(|long| name.strip_prefix("--") == Some(long))
                || short.as_deref() == Some(name)
        });
        let takes_next = match arg {
            Some(arg) => arg.get_action().takes_values() && value.is_none(),
            None => value.is_none() && !is_joined(run, name),
        };
        let next = words.next_if(|next| takes_next && (arg.is_some() || !next.starts_with('-')));
        match name {
            "--json" | "--json-events" => wanted.json = true,
            "--json-status-fd" => {
                let value = value.or(next.map(|next| next.into_owned()));
                wanted.descriptor = value.and_then(|value| value.parse().ok());
            }
            _ => {}
        }
    }
    wanted
}

/// Returns whether a word is a short option together with its value, or several of them.
fn is_joined(run: &Command, word: &str) -> bool {
    let short = word.chars().nth(1);
    let is_long = word.starts_with("--") || word.len() <= 2;
    !is_long && run.get_arguments().any(|arg| arg.get_short() == short)
}
