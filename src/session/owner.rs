//! What ties a session to whoever started it, with whose end it ends.

use crate::error::{Error, Kind, Remedy, Session};
use crate::process::pidfd;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::io::{PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The means by which a session notices the end of its owner.
pub enum Tie {
    /// The socket over which it was asked for. It never lets the session go: what comes unasked is the answer
    /// to an entry of the log that is not waited for any more.
    Socket(OwnedFd),
    /// The reading end of a pipe that all sessions have which were started together. One write lets all of
    /// them go, or none if the owner is gone before, since nobody takes it out of the pipe.
    Pipe(OwnedFd),
    /// The process that asked for it, which never lets it go.
    Process(OwnedFd),
}

/// The state of the owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    IsThere,
    IsGone,
    /// It lets the session go, which lives on without it.
    LetsGo,
}

impl Tie {
    /// Ties a session to a process, which is there as long as whoever asks for this is its child.
    pub fn to_process(number: i32) -> Result<Self, Error> {
        let message = match pidfd(Pid::from_raw(number)) {
            Ok(fd) => return Ok(Self::Process(fd)),
            Err(Errno::ESRCH) => return Err(parent_has_ended()),
            Err(Errno::EINVAL) => {
                "the process that the session is to end with cannot be seen from here: it is outside of this container"
            }
            Err(_) => {
                "this kernel, or a container runtime, does not tell when a process ends (pidfd_open)"
            }
        };
        let remedy = Remedy::UseSession(Session::LeaveParentOut);
        Err(Error::new(Kind::Request, message, remedy))
    }

    /// Looks what is at the other end.
    pub fn look(&self) -> Owner {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            return Owner::IsThere;
        }
        match self {
            Self::Pipe(_) if fds[0].revents().is_some_and(has_input) => Owner::LetsGo,
            Self::Pipe(_) | Self::Socket(_) | Self::Process(_) => Owner::IsGone,
        }
    }
}

impl AsFd for Tie {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let (Self::Socket(fd) | Self::Pipe(fd) | Self::Process(fd)) = self;
        fd.as_fd()
    }
}

/// Says that the process is gone with which a session was to end.
pub fn parent_has_ended() -> Error {
    Error::new(
        Kind::Request,
        "the process that the session is to end with has ended",
        "start it again",
    )
}

fn has_input(events: PollFlags) -> bool {
    events.contains(PollFlags::POLLIN)
}

/// Lets all sessions go that are tied to this pipe.
pub fn let_go(mut pipe: PipeWriter) -> Result<()> {
    pipe.write_all(b"\n").context("letting sessions go")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pipe_lets_all_go_with_one_write() {
        let (its, ours) = std::io::pipe().unwrap();
        let ties = [its.try_clone().unwrap(), its].map(|end| Tie::Pipe(end.into()));
        assert!(ties.iter().all(|tie| tie.look() == Owner::IsThere));
        let_go(ours).unwrap();
        assert!(ties.iter().all(|tie| tie.look() == Owner::LetsGo));
    }

    #[test]
    fn a_pipe_that_is_closed_lets_nobody_go() {
        let (its, ours) = std::io::pipe().unwrap();
        let tie = Tie::Pipe(its.into());
        drop(ours);
        assert_eq!(tie.look(), Owner::IsGone);
    }

    #[test]
    fn a_process_is_there_until_it_ends() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let tie = Tie::to_process(child.id() as i32).unwrap();
        assert_eq!(tie.look(), Owner::IsThere);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(tie.look(), Owner::IsGone);
        assert!(Tie::to_process(child.id() as i32).is_err());
    }

    #[test]
    fn a_socket_lets_nobody_go() {
        let (mut ours, its) = UnixStream::pair().unwrap();
        let tie = Tie::Socket(its.into());
        assert_eq!(tie.look(), Owner::IsThere);
        ours.write_all(b"\n").unwrap();
        assert_eq!(tie.look(), Owner::IsGone);
    }
}
