//! The end of whoever asks a session.

use crate::error::{Error, Kind, Remedy, Session};
use crate::json::to_line;
use crate::session::protocol::{Message, Purpose, Request};
use crate::session::socket_directory::{Place, Sought, check_name};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, send, sendmsg, sockopt};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection to a session.
pub struct Client {
    /// The name of the session in messages.
    name: String,
    stream: BufReader<Incoming>,
}

/// The bytes that come from a session.
struct Incoming {
    socket: UnixStream,
    /// The bytes that were read while there was no room for a request: the session takes none from whoever does not read.
    early: VecDeque<u8>,
}

impl Read for Incoming {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.early.is_empty() {
            true => self.socket.read(bytes),
            false => self.early.read(bytes),
        }
    }
}

impl Incoming {
    /// Sends bytes, and reads what comes while there is no room for them.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), bytes, flags) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.read_early()?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Waits until there is room for a request, or something came, which is read.
    fn read_early(&mut self) -> io::Result<()> {
        let both = PollFlags::POLLIN | PollFlags::POLLOUT;
        let mut fds = [PollFd::new(self.socket.as_fd(), both)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(()),
            result => result?,
        };
        let comes = fds[0]
            .revents()
            .is_some_and(|it| it.contains(PollFlags::POLLIN));
        if comes {
            let mut piece = [0; 64 << 10];
            let count = self.socket.read(&mut piece)?;
            self.early.extend(&piece[..count]);
            if count == 0 {
                return Err(ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }
}

impl Client {
    /// Connects to the session with this name.
    pub fn connect(place: &Place, name: &str) -> Result<Self> {
        check_name(name)?;
        match place.connect(name)? {
            Sought::Found(stream) => Ok(Self {
                name: name.into(),
                stream: BufReader::new(Incoming {
                    socket: stream,
                    early: VecDeque::new(),
                }),
            }),
            Sought::Gone => Err(gone(name, "its process ended").into()),
            Sought::Never => Err(Error::new(
                Kind::Request,
                format!("there is no session {name}"),
                Remedy::UseSession(Session::Start(name.into())),
            )
            .into()),
        }
    }

    /// Calls the session by another name where something is wrong: the one that its user gave it.
    pub fn known_as(self, name: &str) -> Self {
        let name = name.into();
        Self { name, ..self }
    }

    /// Waits for each message for so long at most.
    pub fn with_timeout(self, timeout: Duration) -> Result<Self> {
        let set = self.stream.get_ref().socket.set_read_timeout(Some(timeout));
        set.context("setting a timeout")?;
        Ok(self)
    }

    pub fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = to_line(request).context("encoding a request")?;
        line.push(b'\n');
        match self.stream.get_mut().send(&line) {
            // What it said last can still be read.
            Err(error) if is_closed(error.kind()) => Ok(()),
            result => result.context("asking a session"),
        }
    }

    /// Has the session save its machine to a file; returns the length of what is there beside the memory, and
    /// how long the machine stood still.
    pub fn save(&mut self, file: BorrowedFd, purpose: Purpose) -> Result<(u64, f64)> {
        let mut line = to_line(&Request::Save { purpose }).context("encoding a request")?;
        line.push(b'\n');
        let handed = [file.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&handed)];
        let socket = self.stream.get_ref().socket.as_raw_fd();
        let pieces = [IoSlice::new(&line)];
        let sent = sendmsg::<()>(socket, &pieces, &control, MsgFlags::MSG_NOSIGNAL, None);
        match sent {
            // What it said last can still be read.
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            Err(errno) => return Err(errno).context("asking a session"),
        }
        match self.receive()? {
            Message::Saved { bytes, paused_ms } => Ok((bytes, paused_ms)),
            Message::Refused { error } => Err(error.into()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Waits for the next message. That the session is over is an error.
    pub fn receive(&mut self) -> Result<Message> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Err(error) if is_closed(error.kind()) => line.clear(),
            Err(error) => return Err(silent(&self.name, &error)),
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            return Err(gone(&self.name, "its process ended").into());
        }
        match serde_json::from_slice(&line).context("reading what a session said")? {
            Message::Over { why } => Err(gone(&self.name, &why).into()),
            message => Ok(message),
        }
    }

    /// Asks for one thing, and returns the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Message> {
        self.send(request)?;
        match self.receive()? {
            Message::Refused { error } => Err(error.into()),
            message => Ok(message),
        }
    }

    /// Returns the failure of a session that sends this where an answer is due.
    pub fn unexpected(&self, message: &Message) -> anyhow::Error {
        let message = serde_json::to_value(message).unwrap_or_default();
        let event = message["event"].as_str().unwrap_or("nothing").to_owned();
        let name = &self.name;
        Error::new(
            Kind::Internal,
            format!("the session {name} sent the message {event} where an answer was due"),
            Remedy::Report,
        )
        .into()
    }

    /// Returns the socket, to end the connection from another thread.
    pub fn socket(&self) -> Result<UnixStream> {
        let socket = self.stream.get_ref().socket.try_clone();
        socket.context("duplicating a socket")
    }

    /// Returns the process of the session.
    pub fn process(&self) -> Option<Pid> {
        let process = getsockopt(&self.stream.get_ref().socket, sockopt::PeerCredentials);
        process.ok().map(|process| Pid::from_raw(process.pid()))
    }

    /// Ends the session; returns when nothing of it is left.
    pub fn stop(mut self) -> Result<()> {
        self.send(&Request::Stop {})?;
        loop {
            let mut line = Vec::new();
            match self.stream.read_until(b'\n', &mut line) {
                Ok(0) => return Ok(()),
                Err(error) if is_closed(error.kind()) => return Ok(()),
                Err(error) => return Err(silent(&self.name, &error)),
                Ok(_) => {}
            }
        }
    }

    /// Returns whether a message, or a part of one, has come already.
    pub fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty() || !self.stream.get_ref().early.is_empty()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().socket.as_fd()
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Says that nothing was heard from a session.
fn silent(name: &str, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => String::new(),
        _ => format!(": {error}"),
    };
    Error::new(
        Kind::Guest,
        format!("the session {name} does not answer{why}"),
        "try again, or end its process, which holds the socket",
    )
    .into()
}

/// Says that a session is gone.
fn gone(name: &str, why: &str) -> Error {
    Error::new(
        Kind::Guest,
        format!("the session {name} is gone: {why}"),
        Remedy::UseSession(Session::StartAnother(name.into())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Encoding;
    use crate::session::protocol::Piece;
    use std::io::Write;

    fn client(socket: UnixStream) -> Client {
        Client {
            name: "a".into(),
            stream: BufReader::new(Incoming {
                socket,
                early: VecDeque::new(),
            }),
        }
    }

    #[test]
    fn a_message_that_is_no_answer_is_told_by_its_name_alone() {
        let (ours, mut its) = UnixStream::pair().unwrap();
        its.write_all(b"{\"event\":\"restarted\"}\n").unwrap();
        let file = tempfile::tempfile().unwrap();
        let saved = client(ours).save(file.as_fd(), Purpose::Fork);
        let told = saved.unwrap_err().to_string();
        let expected = "the session a sent the message restarted where an answer was due";
        assert_eq!(told, expected);
    }

    #[test]
    fn what_comes_is_read_while_there_is_no_room_for_a_request() {
        let (ours, mut its) = UnixStream::pair().unwrap();
        let mut client = client(ours);
        let data = "x".repeat(1 << 20);
        let output = Piece {
            stream: "stdout".into(),
            data: data.clone(),
            encoding: Encoding::Utf8,
        };
        let mut line = to_line(&Message::Output(output)).unwrap();
        line.push(b'\n');
        let session = std::thread::spawn(move || {
            // Nothing is taken before all of this is.
            its.write_all(&line).unwrap();
            let mut request = String::new();
            BufReader::new(its).read_line(&mut request).unwrap();
            request.len()
        });
        let encoding = Encoding::Utf8;
        client.send(&Request::Input { data, encoding }).unwrap();
        assert!(session.join().unwrap() > 1 << 20);
        assert!(client.has_more());
        let Message::Output(piece) = client.receive().unwrap() else {
            panic!("it is not output")
        };
        assert_eq!(piece.data.len(), 1 << 20);
    }
}
