//! The start of a session's process, as whoever asks for it sees it.

use crate::error::{Error, Kind, Remedy};
use crate::process::{self, require_proc};
use crate::session::protocol::Spec;
use crate::session::socket_directory::Place;
use crate::template::builder::Listener;
use crate::worker::Notice;
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

/// The subcommand that makes this program a session; its arguments are the numbers of the socket and, if it
/// goes on from one, of the file with the point and of the pipe to its owner.
pub const VERB: &str = "serve-session";
/// The subcommand that makes this program the keeper of one of which a log is kept, with the same arguments.
pub const KEEPER_VERB: &str = "keep-session";

/// A message from a session's process while it starts.
#[derive(Debug, Serialize, Deserialize)]
pub enum Started {
    /// The reason why it takes longer this time.
    Notice(Notice),
    /// It can be asked now. This is the last message.
    Ready,
    /// It could not be started. This is the last message.
    Failed(Error),
}

impl Started {
    /// Tells this over a socket.
    pub fn tell(&self, mut socket: &File) -> Result<()> {
        let doing = "telling how a session starts";
        let mut line = serde_json::to_vec(self).context(doing)?;
        line.push(b'\n');
        socket.write_all(&line).context(doing)
    }
}

/// A session, or its keeper, as whoever started it has it.
pub struct Owned {
    /// The socket with whose end a session ends that is owned.
    pub socket: UnixStream,
    pub child: Child,
}

/// Starts a session in a process of its own, which outlives this one; with a log, in that of its keeper.
pub fn start(spec: &Spec, listener: &mut dyn Listener) -> Result<Owned> {
    begin(spec, None, listener)
}

/// Starts a session that goes on from the point in this file; with a log, in the process of its keeper. It ends
/// with the other end of this pipe, unless that lets it go.
pub fn start_another(
    spec: &Spec,
    (point, pipe): (BorrowedFd, &PipeReader),
    listener: &mut dyn Listener,
) -> Result<Owned> {
    begin(spec, Some([point, pipe.as_fd()]), listener)
}

/// Starts the process of a session, and follows it until it can be asked.
fn begin(
    spec: &Spec,
    point: Option<[BorrowedFd; 2]>,
    listener: &mut dyn Listener,
) -> Result<Owned> {
    let place = Place::at(spec.directory.clone());
    place.check_free(&spec.name)?;
    let (socket, its) = UnixStream::pair().context("making a socket")?;
    let verb = match spec.log {
        Some(_) => KEEPER_VERB,
        None => VERB,
    };
    let handed = [its.as_fd()].into_iter();
    let child = spawn(verb, handed.chain(point.into_iter().flatten()))?;
    drop(its);
    let mut line = serde_json::to_vec(spec).context("encoding what is to be started")?;
    line.push(b'\n');
    let sent = (&socket).write_all(&line);
    let began = sent
        .map_err(Into::into)
        .and_then(|()| follow(&socket, listener));
    if began.is_err() {
        // It may have listened already.
        place.clear(&spec.name)?;
    }
    began.map(|()| Owned { socket, child })
}

/// Starts this program with this subcommand, and with these descriptors.
fn spawn<'a>(verb: &str, handed: impl Iterator<Item = BorrowedFd<'a>>) -> Result<Child> {
    let numbers: Vec<RawFd> = handed.map(|its| its.as_raw_fd()).collect();
    let mut command = process::detached(Path::new(process::OURS));
    command
        .arg(verb)
        .args(numbers.iter().map(RawFd::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let hand_on = move || {
        for &number in &numbers {
            // SAFETY: it is open until the process has started.
            let its = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(its, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls.
    unsafe { command.pre_exec(hand_on) };
    match command.spawn() {
        Ok(child) => Ok(child),
        Err(error) => {
            require_proc()?;
            Err(error).context("starting a process")
        }
    }
}

/// Follows the start to its end.
fn follow(socket: &UnixStream, listener: &mut dyn Listener) -> Result<()> {
    // No more than the line is taken: what comes after the last one is for the keeper of a log.
    let mut socket = BufReader::with_capacity(1, socket);
    loop {
        let mut line = String::new();
        match socket.read_line(&mut line) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => line.clear(),
            result => drop(result.context("reading how a session starts")?),
        }
        if line.is_empty() {
            let message = "the session's process ended before it could be asked anything";
            return Err(Error::new(Kind::Internal, message, Remedy::Report).into());
        }
        match serde_json::from_str(&line).context("reading how a session starts")? {
            Started::Notice(notice) => notice.tell(listener),
            Started::Ready => return Ok(()),
            Started::Failed(error) => return Err(error.into()),
        }
    }
}
