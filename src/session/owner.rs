//! The socket of whoever started a session that ends with it, until it is let go.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// What is known of the owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    IsThere,
    IsGone,
    /// It lets the session go, which lives on without it.
    LetsGo,
}

/// Looks at the other end of a socket. That of a session that is logged never lets it go: what comes unasked
/// is the answer to an entry that is not waited for any more.
pub fn look(socket: &OwnedFd, is_logged: bool) -> Owner {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
        return Owner::IsThere;
    }
    if is_logged {
        return Owner::IsGone;
    }
    match read(socket, &mut [0]) {
        Ok(1..) => Owner::LetsGo,
        Err(Errno::EINTR | Errno::EAGAIN) => Owner::IsThere,
        Ok(_) | Err(_) => Owner::IsGone,
    }
}

/// Lets a session go.
pub fn let_go(mut socket: &UnixStream) -> Result<()> {
    socket.write_all(b"\n").context("letting a session go")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_there_until_it_lets_go_or_is_gone() {
        let (ours, its) = UnixStream::pair().unwrap();
        let its = OwnedFd::from(its);
        assert_eq!(look(&its, false), Owner::IsThere);
        let_go(&ours).unwrap();
        assert_eq!(look(&its, false), Owner::LetsGo);
        drop(ours);
        assert_eq!(look(&its, false), Owner::IsGone);
    }

    #[test]
    fn a_session_that_is_logged_is_not_let_go() {
        let (ours, its) = UnixStream::pair().unwrap();
        let its = OwnedFd::from(its);
        assert_eq!(look(&its, true), Owner::IsThere);
        let_go(&ours).unwrap();
        assert_eq!(look(&its, true), Owner::IsGone);
    }
}
