//! The agent: PID 1 in the guest. Makes the machine ready, runs one job, reports how it ended,
//! and hands out the files that it leaves.

mod collect;
mod host;
mod machine;
mod program;
mod relay;

use anyhow::{Context, Result};
use guest::{Decoder, Frame};
use host::{connect_to_host, receive_job, receive_wish, send};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::convert::Infallible;

/// Only ever returns because of an error, which goes to the console; then the machine stops.
fn main() {
    let Err(error) = run();
    eprintln!("agent: {error:#}");
    let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
    eprintln!("agent: reboot: {errno}");
}

fn run() -> Result<Infallible> {
    // First of all, so that the host knows how long the kernel took.
    let mut host = connect_to_host()?;
    machine::prepare()?;
    let children = watch_children()?;
    let mut decoder = Decoder::with_limit(guest::MAX_START);
    send(&mut host, &Frame::Ready)?;
    let job = receive_job(&mut host, &mut decoder)?;
    match program::start(&job)? {
        Ok(program) => {
            let mut decoder = relay::relay(program, &mut host, decoder, &children)?;
            let paths = receive_wish(&mut host, &mut decoder)?;
            collect::collect(&paths)?;
            send(&mut host, &Frame::Collected)?;
        }
        Err(errno) => send(
            &mut host,
            &Frame::Exit(guest::Exit::NotStarted(errno as u8)),
        )?,
    }
    // The host has the result and ends this machine.
    loop {
        nix::unistd::pause();
    }
}

/// SIGCHLD as a descriptor, so that one poll waits for everything.
fn watch_children() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().context("blocking SIGCHLD")?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("making a signalfd")
}
