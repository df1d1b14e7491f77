//! The check of a request to run a cell or a command.

use crate::error::{Error, Kind, Remedy, Session};
use crate::image::{Framing, Language};
use crate::session::commands::AskedCommand;
use crate::session::facts::Facts;
use crate::session::peers::Id;
use crate::session::protocol::{Bounds, Format, Request, Terminal};
use crate::session::turn::{TurnRequest, Waiting};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::channel::{Command, files};
use guest::{Cell, WindowSize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A command, as a request has it.
struct Wanted {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    workdir: Option<String>,
    user: Option<String>,
    input: bool,
    terminal: Option<Terminal>,
}

/// Returns the cell that a peer asks for.
pub fn cell(
    facts: &Facts,
    peer: Id,
    (code, stdin): (String, Option<String>),
    timeout_s: Option<f64>,
) -> Result<Waiting, Error> {
    check_size(facts, code.len())?;
    if code.contains('\0') {
        let message = "the code has a NUL in it";
        return Err(Error::new(Kind::Request, message, "leave it out"));
    }
    let stdin = STANDARD.decode(stdin.unwrap_or_default());
    let stdin = stdin.map_err(|error| {
        Error::new(
            Kind::Request,
            format!("what is to be on standard input is not base64: {error}"),
            "encode it in base64",
        )
    })?;
    if stdin.len() as u64 > facts.limits.input {
        return Err(Error::new(
            Kind::Policy,
            format!(
                "the policy allows {} bytes of standard input, and the cell is given {}",
                facts.limits.input,
                stdin.len()
            ),
            "give it less, or ask whoever wrote the policy to raise run.stdin",
        ));
    }
    Ok(Waiting {
        request: turn_request(facts, peer, timeout_s)?,
        cell: Cell {
            code: code.into(),
            stdin,
            number: 0,
        },
    })
}

/// Returns the command that a peer asks for, which may be one that moves files.
pub fn command(facts: &Facts, peer: Id, request: Request) -> Result<AskedCommand, Error> {
    match request {
        Request::Exec {
            argv,
            env,
            workdir,
            user,
            input,
            terminal,
            timeout_s,
        } => {
            let wanted = Wanted {
                argv,
                env,
                workdir,
                user,
                input,
                terminal,
            };
            wanted_command(facts, peer, wanted, timeout_s)
        }
        Request::Put {
            format,
            user,
            timeout_s,
        } => files(facts, peer, (put(format), user), timeout_s),
        Request::Get {
            format,
            paths,
            user,
            timeout_s,
        } => files(facts, peer, (get(format, paths)?, user), timeout_s),
        _ => Err(Error::new(
            Kind::Request,
            "this asks for no command",
            "see docs/session-protocol.md",
        )),
    }
}

fn wanted_command(
    facts: &Facts,
    peer: Id,
    wanted: Wanted,
    timeout_s: Option<f64>,
) -> Result<AskedCommand, Error> {
    check_command(facts, &wanted)?;
    let frame = &facts.frame;
    let user = chosen_user(facts, wanted.user.clone())?;
    let mut limits = turn_request(facts, peer, timeout_s)?;
    if wanted.terminal.is_some() && timeout_s.is_none() {
        // Somebody sits there.
        limits.timeout = facts.bounds.timeout_max;
    }
    Ok(AskedCommand {
        request: limits,
        has_input: wanted.input || wanted.terminal.is_some(),
        output_max: match wanted.terminal {
            Some(_) => None,
            None => Some(facts.limits.max_output),
        },
        input_max: facts.limits.input,
        command: Command {
            env: environment(&frame.env, &wanted),
            argv: wanted.argv.into_iter().map(String::into_bytes).collect(),
            workdir: workdir(&frame.workdir, wanted.workdir),
            user,
            root: frame.is_root(),
            reports: false,
            terminal: wanted.terminal.map(|terminal| WindowSize {
                rows: terminal.rows,
                columns: terminal.columns,
            }),
        },
    })
}

/// A command that moves files.
struct Mover {
    argv: Vec<Vec<u8>>,
    has_input: bool,
}

/// Returns the command that makes files.
fn put(format: Format) -> Mover {
    Mover {
        argv: match format {
            Format::Records => vec![files::MOVE.into(), files::PUT.into()],
            Format::Tar => words(&["tar", "-x", "-f", "-"]),
        },
        has_input: true,
    }
}

/// Returns the command that sends files.
fn get(format: Format, paths: Vec<String>) -> Result<Mover, Error> {
    let is_absolute = |path: &String| path.starts_with('/') && !path.contains('\0');
    let argv = match format {
        Format::Records if !paths.is_empty() && paths.iter().all(is_absolute) => {
            let paths = paths.into_iter().map(String::into_bytes);
            let own = [files::MOVE.to_vec(), files::GET.to_vec()];
            own.into_iter().chain(paths).collect()
        }
        Format::Tar if paths.is_empty() => words(&["tar", "-c", "-f", "-", "."]),
        _ => {
            return Err(Error::new(
                Kind::Request,
                "these are not files to get",
                "give absolute paths or, for an archive of the working directory, none",
            ));
        }
    };
    let has_input = false;
    Ok(Mover { argv, has_input })
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// Returns the command that moves files for a peer, as this user.
fn files(
    facts: &Facts,
    peer: Id,
    (mover, user): (Mover, Option<String>),
    timeout_s: Option<f64>,
) -> Result<AskedCommand, Error> {
    if let Some(refusal) = &facts.bounds.no_files {
        return Err(refusal.clone());
    }
    let frame = &facts.frame;
    Ok(AskedCommand {
        request: turn_request(facts, peer, timeout_s)?,
        has_input: mover.has_input,
        output_max: None,
        input_max: u64::MAX,
        command: Command {
            env: frame.env.clone(),
            argv: mover.argv,
            workdir: frame.workdir.clone(),
            user: chosen_user(facts, user)?,
            root: frame.is_root(),
            reports: false,
            terminal: None,
        },
    })
}

/// Returns the language that a request names.
pub fn language<'a>(facts: &'a Facts, name: &str) -> Result<&'a Language, Error> {
    let found = facts.image.meant(name);
    found.ok_or_else(|| no_context(facts, name))
}

/// Returns the command that is an interpreter beside the session's own, and how that gets cells.
pub fn interpreter(facts: &Facts, language: &Language) -> Result<(Command, Framing), Error> {
    let context = language.context.as_ref();
    let context = context.ok_or_else(|| no_context(facts, &language.name))?;
    // What runs commands counts as they do.
    if let (true, Some(refusal)) = (language.command.is_some(), &facts.bounds.no_commands) {
        return Err(refusal.clone());
    }
    let frame = &facts.frame;
    let command = Command {
        argv: context
            .start
            .iter()
            .map(|word| word.as_str().into())
            .collect(),
        env: frame.env.clone(),
        workdir: frame.workdir.clone(),
        user: chosen_user(facts, None)?,
        root: frame.is_root(),
        ..Command::default()
    };
    Ok((command, context.cells))
}

fn no_context(facts: &Facts, language: &str) -> Error {
    let known = facts.image.context_languages();
    let known: Vec<_> = known.map(|language| language.name.clone()).collect();
    Error::new(
        Kind::Request,
        format!(
            "a session of the image {} has no context for {language}",
            facts.image.name
        ),
        match known.is_empty() {
            true => "run it in the session's own context, without a language".into(),
            false => Remedy::UseSession(Session::NameLanguage(known)),
        },
    )
}

/// Returns the environment of a command: its own variables take the place of the session's.
fn environment(own: &[Vec<u8>], wanted: &Wanted) -> Vec<Vec<u8>> {
    let mut env = BTreeMap::new();
    for variable in own {
        let equals = variable.iter().position(|&byte| byte == b'=');
        let (name, value) = variable.split_at(equals.unwrap_or(variable.len()));
        env.insert(name, value.get(1..).unwrap_or_default());
    }
    let terminal = wanted.terminal.as_ref();
    if let Some(term) = terminal.and_then(|terminal| terminal.term.as_ref()) {
        env.insert(b"TERM", term.as_bytes());
    }
    let given = wanted.env.iter();
    env.extend(given.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let variables = env.into_iter();
    variables
        .map(|(name, value)| [name, b"=", value].concat())
        .collect()
}

/// Returns a working directory, which may be given relative to the session's.
fn workdir(own: &[u8], given: Option<String>) -> Vec<u8> {
    match given {
        Some(path) if path.starts_with('/') => path.into(),
        Some(path) => [own, b"/", path.as_bytes()].concat(),
        None => own.into(),
    }
}

fn check_command(facts: &Facts, wanted: &Wanted) -> Result<(), Error> {
    let Bounds {
        no_commands,
        no_variables,
        ..
    } = &facts.bounds;
    let Wanted { argv, env, .. } = wanted;
    let variables = no_variables.as_ref().filter(|_| !env.is_empty());
    if let Some(refusal) = no_commands.as_ref().or(variables) {
        return Err(refusal.clone());
    }
    check_size(facts, argv.iter().map(String::len).sum())?;
    let words = argv.iter().chain(env.keys()).chain(env.values());
    let words = words.chain(&wanted.workdir);
    let terminal = wanted.terminal.as_ref();
    let words = words.chain(terminal.and_then(|terminal| terminal.term.as_ref()));
    let is_name = |name: &String| !name.is_empty() && !name.contains('=');
    if argv.first().is_none_or(String::is_empty)
        || words.into_iter().any(|word| word.contains('\0'))
        || !env.keys().all(is_name)
    {
        return Err(Error::new(
            Kind::Request,
            "this is not a command: it has no name, a NUL, or a variable without a proper name",
            "give the command's name and its arguments",
        ));
    }
    Ok(())
}

/// Returns the name or number of the user that is asked for, or else of the session's own.
fn chosen_user(facts: &Facts, wanted: Option<String>) -> Result<Vec<u8>, Error> {
    let root = facts.frame.is_root();
    match wanted {
        Some(name) if name.contains('\0') => Err(Error::new(
            Kind::Request,
            "the name of the user has a NUL in it",
            "leave it out",
        )),
        Some(name) if !root && (name == "root" || name == "0") => Err(Error::new(
            Kind::Request,
            "the session has no root",
            Remedy::UseSession(Session::StartWithRoot),
        )),
        Some(name) => Ok(name.into()),
        None => Ok(facts.frame.user.to_string().into()),
    }
}

fn turn_request(facts: &Facts, peer: Id, timeout_s: Option<f64>) -> Result<TurnRequest, Error> {
    let timeout = timeout_s.map(limit).transpose()?;
    let limits = [timeout.or(facts.limits.timeout), facts.bounds.timeout_max];
    Ok(TurnRequest {
        peer,
        timeout: limits.into_iter().flatten().min(),
        asked: Instant::now(),
    })
}

/// Checks the bytes of code or of a command against the policy.
fn check_size(facts: &Facts, bytes: usize) -> Result<(), Error> {
    match facts.bounds.code_max {
        Some(most) if bytes as u64 > most => Err(Error::new(
            Kind::Policy,
            format!("the policy allows {most} bytes of code, and the cell has {bytes}"),
            "make it shorter",
        )),
        _ => Ok(()),
    }
}

fn limit(seconds: f64) -> Result<Duration, Error> {
    let limit = Duration::try_from_secs_f64(seconds).ok();
    limit.filter(|limit| !limit.is_zero()).ok_or_else(|| {
        Error::new(
            Kind::Request,
            format!("{seconds} is not a time limit"),
            "give seconds, more than 0",
        )
    })
}
