//! `sandbox session put` and `get`: files into a session, and out of it.

use crate::cli::messages::tell_of_files;
use crate::cli::remedies::of_moved_files;
use crate::error::{Error, Kind, Remedy};
use crate::files::{Excluded, Fetched, Get, Put, destinations, list, read};
use crate::limits::Limits;
use crate::session::protocol::{Description, Format, Message, Request};
use crate::session::{Client, Place, Transfer, fetch};
use anyhow::{Context, Result, bail};
use clap::Args;
use guest::FileStream;
use std::ffi::{OsStr, OsString};
use std::io::{Read, stdin, stdout};

/// The word for a tar stream of all that is in the working directory.
const TAR: &str = "-";

#[derive(Args)]
pub struct PutArgs {
    /// The session's name
    name: String,
    /// Files or directories of the host's, as with run --put; or -: a tar archive on standard input, for the
    /// working directory
    #[arg(required = true, value_name = "HOST[:GUEST]")]
    files: Vec<OsString>,
    /// Leave out of directories what matches this pattern
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    #[command(flatten)]
    owner: OwnerArgs,
}

#[derive(Args)]
pub struct GetArgs {
    /// The session's name
    name: String,
    /// Files or directories of the guest's, as with run --get; or -: all that is in the working directory, as a
    /// tar archive on standard output
    #[arg(required = true, value_name = "GUEST[:HOST]")]
    files: Vec<OsString>,
    /// Replace files that are there, and add to directories
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    owner: OwnerArgs,
}

#[derive(Args)]
struct OwnerArgs {
    /// The user in the guest whose files they are, by name or number [default: the session's]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
}

pub fn put_verb(args: PutArgs) -> Result<u8> {
    put(args).map_err(without_options)
}

pub fn get_verb(args: GetArgs) -> Result<u8> {
    get(args).map_err(without_options)
}

/// Words the remedy of a failure for these commands, where files are arguments.
fn without_options(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) => Error {
            remedy: Remedy::Do(of_moved_files(&error.remedy)),
            ..error
        }
        .into(),
        Err(other) => other,
    }
}

fn put(args: PutArgs) -> Result<u8> {
    let (mut client, session) = connected(&args.name)?;
    let (user, timeout_s) = (args.owner.user, None);
    let request = |format| Request::Put {
        format,
        user,
        timeout_s,
    };
    if is_tar(&args.files)? {
        client.send(&request(Format::Tar))?;
        let mut archive = stdin().lock();
        Transfer::new(&mut client).send(|room| {
            let mut bytes = vec![0; room];
            let count = archive.read(&mut bytes).context("reading the archive")?;
            bytes.truncate(count);
            Ok(bytes)
        })?;
        return Ok(0);
    }
    let puts = parsed(&args.files, Put::parse)?;
    let excluded = Excluded::of(&args.exclude)?;
    let listed = list(&puts, &excluded, session.workdir.as_bytes())?;
    let mut stream = FileStream::new(read(listed, session.memory).map_err(Error::in_session)?);
    client.send(&request(Format::Records))?;
    Transfer::new(&mut client).send(|room| Ok(stream.take(room)))?;
    Ok(0)
}

fn get(args: GetArgs) -> Result<u8> {
    let (mut client, session) = connected(&args.name)?;
    let user = args.owner.user;
    if is_tar(&args.files)? {
        client.send(&Request::Get {
            format: Format::Tar,
            paths: Vec::new(),
            user,
            timeout_s: None,
        })?;
        Transfer::new(&mut client).receive(&mut stdout().lock())?;
        return Ok(0);
    }
    let gets = parsed(&args.files, Get::parse)?;
    let found = destinations(&gets, session.workdir.as_bytes(), args.force)?;
    let limits = Limits {
        memory: session.memory,
        timeout: None,
        // A policy that bounds them lets no files out at all.
        fetch_count: u64::MAX,
        fetch_size: u64::MAX,
        ..Limits::default()
    };
    let (fetched, received) = fetch(&mut client, &found, &limits, (user, args.force))?;
    received?;
    tell_of_files(&fetched, of_moved_files);
    Ok(match is_whole(&fetched) {
        true => 0,
        false => 125,
    })
}

/// Connects to a session, and asks what it is like.
fn connected(name: &str) -> Result<(Client, Description)> {
    let mut client = Client::connect(&Place::open()?, name)?;
    let Message::Described(description) = client.ask(&Request::Describe {})? else {
        bail!("the session {name} did not tell about itself");
    };
    Ok((client, description))
}

/// Returns whether it is a tar archive that is meant, and nothing else.
fn is_tar(files: &[OsString]) -> Result<bool, Error> {
    match files.iter().any(|word| word == TAR) {
        true if files.len() > 1 => Err(Error::new(
            Kind::Request,
            "- is an archive of the whole working directory, and goes alone",
            "name files, or give - alone",
        )),
        is_tar => Ok(is_tar),
    }
}

fn parsed<T>(
    words: &[OsString],
    parse: impl Fn(&OsStr) -> Result<T, String>,
) -> Result<Vec<T>, Error> {
    let parse = |word: &OsString| {
        let parsed = parse(word);
        parsed.map_err(|remedy| {
            let message = format!("'{}' names no file", word.display());
            Error::new(Kind::Request, message, remedy)
        })
    };
    words.iter().map(parse).collect()
}

fn is_whole(fetched: &Fetched) -> bool {
    fetched.failure.is_none() && fetched.missing.count == 0
}
