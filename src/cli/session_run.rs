//! `sandbox session run` and `exec`: a cell.

use crate::cli::exit_code;
use crate::cli::messages::{MAX_OUTPUT, tell_cut, tell_error};
use crate::cli::record_writer::{Writer, in_words};
use crate::cli::request::environment;
use crate::cli::session_cell::{Cell, Followed};
use crate::cli::session_input::{Input, unreadable};
use crate::cli::values::Languages;
use crate::error::{Error, Kind};
use crate::log::say;
use crate::record::{Bundle, Record, State};
use crate::session::protocol::Request;
use crate::session::{Client, Place};
use crate::units::{Timeout, parse_timeout};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct CellArgs {
    /// The session's name
    name: String,
    /// Code to run instead of a script
    #[arg(
        short,
        value_name = "CODE",
        conflicts_with = "script",
        required_unless_present = "script"
    )]
    code: Option<String>,
    /// A script (- for standard input)
    script: Option<PathBuf>,
    /// The context in which it runs, with an interpreter of its own [default: the session's]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The language of the context, which is made by its first cell [default: python]
    #[arg(short, long, value_parser = Languages::OfContexts)]
    language: Option<String>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Args)]
pub struct CommandArgs {
    /// The session's name
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    how: HowArgs,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    words: Vec<String>,
}

/// Where a command runs, as whom, and with what environment.
#[derive(Args)]
pub struct PlaceArgs {
    /// Set a variable of the command's environment, or pass on the one with this name
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// The command's working directory [default: the session's]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The command's user, by name or number [default: the session's]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
}

#[derive(Args)]
pub struct HowArgs {
    /// What it finds on its standard input (- for this one's); else nothing
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Wall-clock limit, within that of a policy [default: that of the session's cells]
    #[arg(short, long, value_name = "DURATION", value_parser = parse_timeout, allow_negative_numbers = true)]
    timeout: Option<Timeout>,
    /// Print one JSON object that tells how it went, with its output in it
    #[arg(long)]
    json: bool,
}

impl HowArgs {
    fn timeout_s(&self) -> Option<f64> {
        let limit = self.timeout.and_then(|Timeout(limit)| limit);
        limit.map(|limit| limit.as_secs_f64())
    }
}

pub fn run_verb(args: CellArgs) -> Result<u8> {
    let code = code(args.code, args.script.as_deref())?;
    let request = Request::Run {
        code,
        context: args.context,
        language: args.language,
        stdin: args
            .how
            .stdin
            .as_deref()
            .map(read)
            .transpose()?
            .map(|input| STANDARD.encode(input)),
        timeout_s: args.how.timeout_s(),
    };
    have_run(&args.name, &request, None, args.how.json)
}

/// Returns the code of a cell: what is given, or what is in a file.
pub fn code(code: Option<String>, script: Option<&Path>) -> Result<String> {
    match (code, script) {
        (Some(code), _) => Ok(code),
        (None, Some(path)) => Ok(text(read(path)?)?),
        (None, None) => bail!("there is no code"),
    }
}

pub fn exec_verb(args: CommandArgs) -> Result<u8> {
    let input = args.how.stdin.as_deref().map(Input::open).transpose()?;
    let request = Request::Exec {
        argv: args.words,
        env: variables(&args.place.env)?,
        workdir: args.place.workdir,
        user: args.place.user,
        input: input.is_some(),
        terminal: None,
        timeout_s: args.how.timeout_s(),
    };
    have_run(&args.name, &request, input, args.how.json)
}

/// Returns the variables that a command is given.
pub fn variables(given: &[OsString]) -> Result<BTreeMap<String, String>> {
    let variables = environment(given, &[])?;
    let pairs = variables.into_iter().map(|variable| {
        let variable = text(variable)?;
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        Ok((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

fn have_run(name: &str, request: &Request, input: Option<Input>, json: bool) -> Result<u8> {
    have_run_and(name, (request, input), json, Caller::Session)
}

/// The command that has a cell or command run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// One for a session that has started, which shows what a notebook does.
    Session,
    /// One that starts a session for this alone, with its own options.
    Run,
}

/// Has a session run a cell or command, and passes on what comes of it; returns the exit code.
pub fn have_run_and(
    name: &str,
    (request, input): (&Request, Option<Input>),
    json: bool,
    caller: Caller,
) -> Result<u8> {
    let mut cell = Cell::new(Client::connect(&Place::open()?, name)?, input)?;
    cell.kept = json.then(Default::default);
    cell.client.send(request)?;
    let (record, error) = match cell.follow()? {
        Followed::Ended(record, error) => (*record, error),
        Followed::Left(code) => return Ok(code),
    };
    let code = exit_code::of_record(&record);
    if let Some(kept) = cell.kept {
        let record = in_words((kept.in_record(record), error));
        return Ok(Writer::new(stdout())?.write(&record, None)?.unwrap_or(code));
    }
    if caller == Caller::Session {
        if cell.is_in_line && record.result.is_some() {
            writeln!(stdout())?;
        }
        show(&record)?;
    }
    let more = match caller {
        Caller::Session => "session start --max-output",
        Caller::Run => MAX_OUTPUT,
    };
    tell_cut(&[record.stdout_bytes, record.stderr_bytes], more);
    tell_end(&record, error);
    Ok(code)
}

/// Tells what went wrong, and what the session has lost.
pub fn tell_end(record: &Record, error: Option<Error>) {
    if let Some(error) = error {
        tell_error(&error);
    }
    if let (Some(State::Reset | State::Lost), Some(why)) = (record.state, &record.state_reason) {
        say(&match record.state {
            Some(State::Lost) => format!("the session is over: {why}"),
            _ => format!(
                "the interpreter's variables are gone, the session's files are there: {why}"
            ),
        });
    }
}

/// Shows what a notebook would: what the cell displays, and the value of its last expression.
fn show(record: &Record) -> Result<()> {
    let plain = |bundle: &Bundle| bundle.get("text/plain")?.as_str().map(str::to_owned);
    for bundle in record.displays.iter().chain(&record.result) {
        writeln!(stdout(), "{}", plain(bundle).unwrap_or_default())?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        stdin()
            .read_to_end(&mut bytes)
            .context("reading standard input")?;
        return Ok(bytes);
    }
    fs::read(path).map_err(|error| unreadable(path, &error).into())
}

fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| {
        Error::new(
            Kind::BadProgram,
            "the code, or a variable, is not UTF-8",
            "write it in UTF-8",
        )
    })
}
