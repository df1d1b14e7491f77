//! `sandbox session put` and `get`: files into a session, and out of it.

use crate::cli::messages::tell_of_files;
use crate::error::{Error, Kind};
use crate::files::{Destination, Excluded, Fetched, Get, Put, Unpacker, destinations, list, read};
use crate::limits::{ConfineLevel, Limits};
use crate::record::Encoding;
use crate::session::protocol::{Description, Format, Message, Request};
use crate::session::{Client, Place, bytes_of};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use guest::{CHANNEL_WINDOW, FileStream};
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read, Write, stdin, stdout};

/// The most bytes of one request.
const PIECE: usize = 128 << 10;
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

/// A connection over which files go.
struct Transfer {
    client: Client,
    /// What the guest says of what it could not do.
    complaint: Vec<u8>,
}

pub fn put_verb(args: PutArgs) -> Result<u8> {
    let (mut transfer, session) = Transfer::begin(&args.name)?;
    let user = args.owner.user;
    if is_tar(&args.files)? {
        let format = Format::Tar;
        transfer.client.send(&Request::Put { format, user })?;
        let mut archive = stdin().lock();
        return transfer.send(|room| {
            let mut bytes = vec![0; room];
            let count = archive.read(&mut bytes).context("reading the archive")?;
            bytes.truncate(count);
            Ok(bytes)
        });
    }
    let puts = parsed(&args.files, Put::parse)?;
    let excluded = Excluded::of(&args.exclude)?;
    let listed = list(&puts, &excluded, session.workdir.as_bytes())?;
    let mut stream = FileStream::new(read(listed, session.memory)?);
    let format = Format::Records;
    transfer.client.send(&Request::Put { format, user })?;
    transfer.send(|room| Ok(stream.take(room)))
}

pub fn get_verb(args: GetArgs) -> Result<u8> {
    let (mut transfer, session) = Transfer::begin(&args.name)?;
    let user = args.owner.user;
    if is_tar(&args.files)? {
        let request = Request::Get {
            format: Format::Tar,
            paths: Vec::new(),
            user,
        };
        transfer.client.send(&request)?;
        return transfer.receive(&mut stdout().lock());
    }
    let gets = parsed(&args.files, Get::parse)?;
    let found = destinations(&gets, session.workdir.as_bytes(), args.force)?;
    let limits = Limits {
        memory: session.memory,
        // A policy that bounds them lets no files out at all.
        fetch_count: u64::MAX,
        fetch_size: u64::MAX,
        ..Limits::default()
    };
    // It extracts in a process of its own, since a guest may send anything.
    let (unpacker, mut stream) = Unpacker::start(&found, &limits, args.force, ConfineLevel::Auto)?;
    transfer.client.send(&Request::Get {
        format: Format::Records,
        paths: found.iter().map(path_of).collect::<Result<_, _>>()?,
        user,
    })?;
    let received = transfer.receive(&mut stream);
    drop(stream);
    let fetched = unpacker.finish()?;
    let code = received?;
    tell_of_files(&fetched);
    Ok(match is_whole(&fetched) {
        true => code,
        false => 125,
    })
}

impl Transfer {
    /// Connects to a session, and asks what it is like.
    fn begin(name: &str) -> Result<(Self, Description)> {
        let mut client = Client::connect(&Place::open()?, name)?;
        let Message::Described(description) = client.ask(&Request::Describe {})? else {
            bail!("the session {name} did not tell about itself");
        };
        let complaint = Vec::new();
        Ok((Self { client, complaint }, description))
    }

    /// Sends all that `next` gives, at most so many bytes at once; returns the exit code.
    fn send(&mut self, mut next: impl FnMut(usize) -> Result<Vec<u8>>) -> Result<u8> {
        let mut under_way = 0;
        let mut has_ended = false;
        loop {
            while !has_ended && under_way < CHANNEL_WINDOW {
                let bytes = next(PIECE.min(CHANNEL_WINDOW - under_way))?;
                has_ended = bytes.is_empty();
                under_way += bytes.len();
                self.client.send(&match has_ended {
                    true => Request::InputEnd {},
                    false => Request::Input {
                        data: STANDARD.encode(&bytes),
                        encoding: Encoding::Base64,
                    },
                })?;
            }
            match self.hear(&mut std::io::sink())? {
                Heard::Taken(bytes) => under_way = under_way.saturating_sub(bytes),
                Heard::Ended(code) => return Ok(code),
                Heard::Other => {}
            }
        }
    }

    /// Writes all that comes; returns the exit code.
    fn receive(&mut self, out: &mut impl Write) -> Result<u8> {
        loop {
            if let Heard::Ended(code) = self.hear(out)? {
                return Ok(code);
            }
        }
    }

    fn hear(&mut self, out: &mut impl Write) -> Result<Heard> {
        match self.client.receive()? {
            Message::Output(piece) if piece.stream == "stdout" => {
                let bytes = bytes_of(piece.data, piece.encoding)?;
                match out.write_all(&bytes) {
                    // Whoever extracts has told why it takes no more.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                    result => result.context("writing what came")?,
                }
            }
            Message::Output(piece) => {
                self.complaint.extend(bytes_of(piece.data, piece.encoding)?);
            }
            Message::Taken { bytes } => return Ok(Heard::Taken(bytes)),
            Message::Ended { record, .. } => return self.ended(record.exit_code),
            Message::Refused { error } => return Err(error.into()),
            _ => {}
        }
        Ok(Heard::Other)
    }

    /// Tells what the guest could not do.
    fn ended(&self, exit_code: Option<u8>) -> Result<Heard> {
        if exit_code == Some(0) {
            return Ok(Heard::Ended(0));
        }
        let complaint = String::from_utf8_lossy(&self.complaint);
        Err(Error::new(
            Kind::File,
            match complaint.trim() {
                "" => "the session could not move the files".into(),
                complaint => format!("the session could not move the files: {complaint}"),
            },
            "name a place below /work, /tmp or /dev/shm, with room in it, and a directory as DIRECTORY/",
        )
        .into())
    }
}

/// What was heard from a session.
enum Heard {
    /// So many bytes were taken.
    Taken(usize),
    /// It is over, with this exit code.
    Ended(u8),
    Other,
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

/// Returns the path in the guest, as messages have it.
fn path_of(destination: &Destination) -> Result<String, Error> {
    String::from_utf8(destination.guest.clone()).map_err(|_| {
        Error::new(
            Kind::File,
            "a path in the guest is not UTF-8",
            "get the directory that it is in",
        )
    })
}

fn is_whole(fetched: &Fetched) -> bool {
    fetched.failure.is_none() && fetched.missing.count == 0
}
