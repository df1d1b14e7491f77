//! The connections to a session: lines that come, and bytes that are to go.

use crate::json::to_line;
use crate::session::protocol::Message;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockFlag, accept4, getsockopt, recvmsg, sockopt,
};
use nix::unistd::{geteuid, write};
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// The most connections at once; others wait for one to end.
pub const PEERS_MAX: usize = 32;
/// The most bytes of a request.
pub const LINE_MAX: usize = 16 << 20;
/// From so many bytes on that it has not read, a peer is waited for.
pub const UNSENT_MAX: usize = 1 << 20;

/// How long a peer has to take the last messages.
const FAREWELL: Duration = Duration::from_secs(1);

/// The number of a connection, which no other one gets.
pub type Id = u64;

/// The socket that a session listens on, and its connections.
pub struct Peers {
    /// `None`: nobody connects any more.
    listener: Option<UnixListener>,
    /// The user that may connect.
    uid: u32,
    last: Id,
    open: BTreeMap<Id, Peer>,
}

struct Peer {
    socket: OwnedFd,
    received: Vec<u8>,
    /// The descriptor that came last.
    descriptor: Option<OwnedFd>,
    unsent: VecDeque<u8>,
    /// Whether it is not read from, since it is ahead.
    is_held: bool,
}

/// A thing that came from a peer.
pub enum Heard {
    Line(Id, Vec<u8>),
    /// It has sent more than any request has, and is gone.
    TooLong(Id),
    /// It has ended its connection.
    Gone(Id),
}

/// The events that need no wait, of the listener (`None`) and the connections.
pub type Ready = Vec<(Option<Id>, PollFlags)>;

impl Peers {
    pub fn new(listener: UnixListener) -> Self {
        Self {
            listener: Some(listener),
            uid: geteuid().as_raw(),
            last: 0,
            open: BTreeMap::new(),
        }
    }

    /// Waits for connections, what comes and room for what is to go, or for one of the others, for so long at
    /// most. Returns `None` if the time ran out.
    pub fn wait(&self, others: &[BorrowedFd], timeout: Duration) -> Result<Option<Ready>> {
        let mut ids = Vec::new();
        let mut fds = Vec::new();
        for (&id, peer) in &self.open {
            let mut flags = PollFlags::empty();
            let is_read = peer.unsent.len() < UNSENT_MAX && !peer.is_held;
            flags.set(PollFlags::POLLIN, is_read);
            flags.set(PollFlags::POLLOUT, !peer.unsent.is_empty());
            ids.push(Some(id));
            fds.push(PollFd::new(peer.socket.as_fd(), flags));
        }
        let listener = self.listener.as_ref();
        if let Some(listener) = listener.filter(|_| self.open.len() < PEERS_MAX) {
            ids.push(None);
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        let others = others.iter();
        fds.extend(others.map(|&other| PollFd::new(other, PollFlags::POLLIN)));
        // Rounded up, so that the time has come when it is over.
        let timeout = Duration::from_millis(timeout.as_micros().div_ceil(1000) as u64);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Some(Ready::new())),
            Err(errno) => return Err(errno).context("waiting"),
        }
        let ready = ids.into_iter().zip(&fds).filter_map(|(id, fd)| {
            let events = fd.revents().unwrap_or(PollFlags::empty());
            (!events.is_empty()).then_some((id, events))
        });
        Ok(Some(ready.collect()))
    }

    /// Accepts, reads and writes what can be; returns what came.
    pub fn serve(&mut self, ready: Ready) -> Result<Vec<Heard>> {
        let mut heard = Vec::new();
        for (id, flags) in ready {
            match id {
                None => self.accept()?,
                Some(id) => {
                    if flags.contains(PollFlags::POLLOUT) {
                        self.flush(id);
                    }
                    if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
                    {
                        self.read(id, &mut heard);
                    }
                }
            }
        }
        Ok(heard)
    }

    /// Sends bytes, now or when the peer takes them.
    pub fn send(&mut self, id: Id, bytes: &[u8]) {
        if let Some(peer) = self.open.get_mut(&id) {
            peer.unsent.extend(bytes);
            self.flush(id);
        }
    }

    /// Sends a message.
    pub fn tell(&mut self, id: Id, message: &Message) {
        // Its strings are text, and memory takes them.
        let mut line = to_line(message).unwrap_or_default();
        line.push(b'\n');
        self.send(id, &line);
    }

    /// Has a peer wait, or no longer, before more is read from it.
    pub fn hold(&mut self, id: Id, is_held: bool) {
        if let Some(peer) = self.open.get_mut(&id) {
            peer.is_held = is_held;
        }
    }

    /// Returns the number of bytes that a peer has yet to take.
    pub fn unsent(&self, id: Id) -> usize {
        self.open.get(&id).map_or(0, |peer| peer.unsent.len())
    }

    pub fn is_open(&self, id: Id) -> bool {
        self.open.contains_key(&id)
    }

    /// Takes the descriptor that came last from a peer.
    pub fn take_descriptor(&mut self, id: Id) -> Option<OwnedFd> {
        self.open.get_mut(&id)?.descriptor.take()
    }

    /// Returns all connections.
    pub fn ids(&self) -> Vec<Id> {
        self.open.keys().copied().collect()
    }

    /// Waits until everybody has taken the last of what was sent, though not for those who do not read. Nobody
    /// connects from then on, so that the socket is dead for whoever sees a connection end.
    pub fn deliver(&mut self) -> Result<()> {
        let end = Instant::now() + FAREWELL;
        let has_unsent = |peer: &Peer| !peer.unsent.is_empty();
        self.listener = None;
        while self.open.values().any(has_unsent) && Instant::now() < end {
            let ready = self.wait(&[], FAREWELL)?;
            self.serve(ready.unwrap_or_default())?;
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let socket = match accept4(listener.as_raw_fd(), flags) {
            // SAFETY: the descriptor is new, and nobody else's.
            Ok(number) => unsafe { OwnedFd::from_raw_fd(number) },
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return Ok(()),
            Err(errno) => return Err(errno).context("taking a connection"),
        };
        let peer = getsockopt(&socket, sockopt::PeerCredentials);
        if peer.context("looking who connects")?.uid() != self.uid {
            return Ok(());
        }
        self.last += 1;
        let peer = Peer {
            socket,
            received: Vec::new(),
            descriptor: None,
            unsent: VecDeque::new(),
            is_held: false,
        };
        self.open.insert(self.last, peer);
        Ok(())
    }

    fn flush(&mut self, id: Id) {
        let Some(peer) = self.open.get_mut(&id) else {
            return;
        };
        while !peer.unsent.is_empty() {
            match write(&peer.socket, peer.unsent.as_slices().0) {
                Ok(count) => drop(peer.unsent.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // That it is gone is seen when it is read from.
                Err(_) => peer.unsent.clear(),
            }
        }
    }

    fn read(&mut self, id: Id, heard: &mut Vec<Heard>) {
        let Some(peer) = self.open.get_mut(&id) else {
            return;
        };
        let mut piece = [0; 64 << 10];
        let count = match receive(&peer.socket, &mut piece) {
            Ok((count, descriptor)) => {
                peer.descriptor = descriptor.or(peer.descriptor.take());
                count
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(_) => 0,
        };
        if count == 0 {
            self.open.remove(&id);
            heard.push(Heard::Gone(id));
            return;
        }
        let seen = peer.received.len();
        peer.received.extend_from_slice(&piece[..count]);
        let end = |bytes: &[u8]| bytes.iter().position(|&byte| byte == b'\n');
        let mut found = end(&peer.received[seen..]).map(|at| seen + at);
        while let Some(at) = found {
            let rest = peer.received.split_off(at + 1);
            peer.received.truncate(at);
            heard.push(Heard::Line(id, std::mem::replace(&mut peer.received, rest)));
            found = end(&peer.received);
        }
        if peer.received.len() > LINE_MAX {
            self.open.remove(&id);
            heard.push(Heard::TooLong(id));
        }
    }
}

/// Reads from a socket; returns the number of bytes, and a descriptor that came with them.
fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut control = nix::cmsg_space!(RawFd);
    let mut pieces = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            for number in numbers {
                // SAFETY: the descriptor is new, and nobody else's.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((received.bytes, descriptors.pop()))
}
