//! The agent: PID 1 in the guest. It prepares the machine, runs one job after the other, reports
//! how each ended, and sends the files that it left.

mod collect;
mod command;
mod commands;
mod host;
mod input;
mod machine;
mod mover;
mod pipes;
mod process;
mod program;
mod pty;
mod relay;
mod unpack;

use anyhow::{Context, Result};
use commands::Commands;
use guest::{Decoder, Exit, Frame, JobFrame};
use host::{Request, connect_to_host, receive_request, send};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use relay::Relay;
use std::convert::Infallible;

/// Runs the agent, which returns only with an error. The error goes to the console; then the
/// machine stops.
fn main() {
    let Err(error) = run();
    eprintln!("agent: {error:#}");
    let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
    eprintln!("agent: reboot: {errno}");
}

fn run() -> Result<Infallible> {
    keep_freed_memory();
    // The connection comes first, so that the host knows how long the kernel took.
    let mut host = connect_to_host()?;
    machine::prepare()?;
    let children = watch_children()?;
    let mut decoder = Decoder::with_limit(guest::MAX_START);
    let mut beside = Commands::default();
    let (mut is_first, mut has_own_root, mut is_open_to_root) = (true, false, false);
    send(&mut host, &Frame::Ready)?;
    // The host ends this machine when it needs nothing more.
    loop {
        match receive_request(&mut host, &mut decoder)? {
            Request::Run(job) => {
                let memory_kills = match std::mem::take(&mut is_first) {
                    true => 0,
                    false => process::memory_kills()?,
                };
                if job.has_own_root && !std::mem::replace(&mut has_own_root, true) {
                    machine::enter_own_root(&job)?;
                }
                if job.is_root() && !std::mem::replace(&mut is_open_to_root, true) {
                    machine::open_to_root()?;
                }
                let mut relay = Relay {
                    host: &mut host,
                    beside: &mut beside,
                    children: &children,
                    memory_kills,
                };
                decoder = run_job(&job, &mut relay, decoder)?;
                if !beside.is_used() {
                    process::end_all()?;
                    continue;
                }
                for ended in process::end_program()? {
                    beside.end(ended, &mut host)?;
                }
            }
            Request::Beside(frame) => beside.accept(frame, &mut host)?,
            Request::Collect(paths) => {
                collect::send_to_host(&paths)?;
                send(&mut host, &Frame::Collected)?;
            }
        }
    }
}

/// Has the allocator keep what is freed for the next piece of a stream: to give pages back and get others
/// takes longer than to move what is in them.
fn keep_freed_memory() {
    /// More bytes than all pieces have that there are at once, each of the largest size.
    const KEPT: libc::c_int = 4 << 20;
    for option in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: mallopt(3) sets a number, and no other thread allocates meanwhile.
        unsafe { libc::mallopt(option, KEPT) };
    }
}

/// Runs a job until its program has ended, and tells the host how it ended; returns the decoder.
fn run_job(job: &JobFrame, relay: &mut Relay, decoder: Decoder) -> Result<Decoder> {
    match program::start(job)? {
        Ok(program) => relay.run(program, decoder),
        Err(errno) => {
            send(relay.host, &Frame::Exit(Exit::NotStarted(errno as u8)))?;
            Ok(decoder)
        }
    }
}

/// Returns a descriptor for SIGCHLD, so that one poll waits for everything.
fn watch_children() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().context("blocking SIGCHLD")?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("making a signalfd")
}
