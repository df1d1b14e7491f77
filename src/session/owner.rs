//! What ties a session to whoever started it, with whose end it ends.

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a session holds of its owner's.
pub enum Tie {
    /// The socket over which it was asked for. It never lets the session go: what comes unasked is the answer
    /// to an entry of the log that is not waited for any more.
    Socket(OwnedFd),
    /// The reading end of a pipe that all sessions have which were started together. One write lets all of
    /// them go, or none if the owner is gone before, since nobody takes it out of the pipe.
    Pipe(OwnedFd),
}

/// What is known of the owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    IsThere,
    IsGone,
    /// It lets the session go, which lives on without it.
    LetsGo,
}

impl Tie {
    /// Looks what is at the other end.
    pub fn look(&self) -> Owner {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            return Owner::IsThere;
        }
        match self {
            Self::Pipe(_) if fds[0].revents().is_some_and(has_input) => Owner::LetsGo,
            Self::Pipe(_) | Self::Socket(_) => Owner::IsGone,
        }
    }
}

impl AsFd for Tie {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let (Self::Socket(end) | Self::Pipe(end)) = self;
        end.as_fd()
    }
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
    fn a_socket_lets_nobody_go() {
        let (mut ours, its) = UnixStream::pair().unwrap();
        let tie = Tie::Socket(its.into());
        assert_eq!(tie.look(), Owner::IsThere);
        ours.write_all(b"\n").unwrap();
        assert_eq!(tie.look(), Owner::IsGone);
    }
}
