//! The agent: PID 1 in the guest. Makes the machine ready, runs one job, reports how it ended,
//! and hands out the files that it leaves.

mod collect;
mod machine;
mod program;
mod relay;

use anyhow::{Context, Result, bail};
use guest::{Decoder, Frame, HOST_CID, Job, PORT, encode};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

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

fn connect_to_host() -> Result<File> {
    let socket = socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("making a vsock socket")?;
    connect(socket.as_raw_fd(), &VsockAddr::new(HOST_CID, PORT))
        .context("connecting to the host")?;
    Ok(File::from(socket))
}

fn receive_job(host: &mut File, decoder: &mut Decoder) -> Result<Job> {
    match receive(host, decoder)? {
        Frame::Start(job) => Ok(job),
        other => bail!("expected Start, got {other:?}"),
    }
}

/// The paths that the host wants after the program's end. One that wants none ends this machine.
fn receive_wish(host: &mut File, decoder: &mut Decoder) -> Result<Vec<Vec<u8>>> {
    loop {
        match receive(host, decoder)? {
            Frame::Collect(paths) => return Ok(paths),
            // It was on its way.
            Frame::Stdin(_) | Frame::StdinEnd => {}
            other => bail!("expected Collect, got {other:?}"),
        }
    }
}

fn receive(host: &mut File, decoder: &mut Decoder) -> Result<Frame> {
    let mut bytes = vec![0; guest::MAX_PAYLOAD];
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        let count = host.read(&mut bytes).context("reading from the host")?;
        if count == 0 {
            bail!("the host closed the connection");
        }
        decoder.push(&bytes[..count]);
    }
}

fn send(host: &mut File, frame: &Frame) -> Result<()> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes);
    host.write_all(&bytes).context("writing to the host")
}
