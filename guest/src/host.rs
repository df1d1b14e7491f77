//! The connection to the host.

use anyhow::{Context, Result, bail};
use guest::{Decoder, Frame, HOST_CID, JobFrame, PORT, encode};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

pub fn connect_to_host() -> Result<File> {
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

/// A request of the host.
pub enum Request {
    Run(JobFrame),
    /// Send the files at these paths, which the last program left.
    Collect(Vec<Vec<u8>>),
    /// A frame for a command beside the program.
    Beside(Frame),
}

/// Waits for the host's next request, between programs.
pub fn receive_request(host: &mut File, decoder: &mut Decoder) -> Result<Request> {
    loop {
        match receive(host, decoder)? {
            Frame::Start(job) => return Ok(Request::Run(job)),
            Frame::Collect(paths) => return Ok(Request::Collect(paths)),
            frame @ (Frame::Open(..) | Frame::Channel(..)) => return Ok(Request::Beside(frame)),
            // These were on their way when their program ended.
            Frame::Stdin
            | Frame::StdinEnd
            | Frame::Typed(_)
            | Frame::Resize(_)
            | Frame::Signal(_) => {}
            other => bail!("expected Start or Collect, got {other:?}"),
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

pub fn send(host: &mut File, frame: &Frame) -> Result<()> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes);
    host.write_all(&bytes).context("writing to the host")
}
