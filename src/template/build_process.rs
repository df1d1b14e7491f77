//! Work on a template in a process of its own, which a guest may take over: it is confined, and only tells
//! what it found out.

use crate::signals::Signals;
use crate::template::TemplateSpec;
use crate::template::failure::{Failed, Interrupted};
use crate::units::PAGE;
use crate::vm::Pages;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, read};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::AsFd;

/// The most bytes that the process may tell.
const TOLD_MAX: usize = 8 << 20;

/// The end of the work.
#[derive(Serialize, Deserialize)]
enum Told<T> {
    Done(T),
    /// A guest failed by its own fault, in this way.
    Failed(String),
    Interrupted(u8),
    Error(String),
}

/// Does work with a guest: in a process of its own, if code that is not ours runs in it.
pub fn guarded<T: Serialize + DeserializeOwned>(
    spec: &TemplateSpec,
    signals: &Signals,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    match spec.runs_only_ours() {
        true => work(),
        false => in_a_process(signals, work),
    }
}

/// Checks what a process says of pages that a guest may have taken over.
pub fn check(pages: &Pages, spec: &TemplateSpec) -> Result<()> {
    let sound = pages.are_within(spec.memory / PAGE as u64);
    ensure!(
        sound,
        "the process that builds the template tells of pages that there are not"
    );
    Ok(())
}

/// Does the work in a process of its own, which confines itself, and returns its result. No other
/// thread may have started yet, since only one would be in the new process. The result is bounded, and
/// may be anything that its type can be.
fn in_a_process<T: Serialize + DeserializeOwned>(
    signals: &Signals,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (reader, writer) = pipe().context("making a pipe")?;
    let parent = getpid();
    // SAFETY: there is no other thread that could hold a lock.
    let child = match unsafe { fork() }.context("starting a process")? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop(reader);
            let told = tie_to(parent).and_then(|()| work());
            let status = i32::from(tell(writer, told).is_err());
            // SAFETY: _exit(2) ends the process, without the handlers that its parent registered for
            // its own end.
            unsafe { libc::_exit(status) }
        }
    };
    drop(writer);
    let heard = hear(&reader, signals, child);
    let status = waitpid(child, None).context("waiting for a process")?;
    let told = heard?;
    match postcard::from_bytes(&told) {
        Ok(Told::Done(result)) => Ok(result),
        Ok(Told::Failed(how)) => Err(Failed(how).into()),
        Ok(Told::Interrupted(signal)) => Err(Interrupted(signal).into()),
        Ok(Told::Error(message)) => Err(anyhow!(message)),
        Err(_) => match status {
            WaitStatus::Signaled(_, signal, _) => {
                bail!("the process that builds the template was ended by {signal}")
            }
            status => bail!("the process that builds the template told nothing: {status:?}"),
        },
    }
}

/// Lets this process die with its parent (prctl(2), PR_SET_PDEATHSIG).
fn tie_to(parent: Pid) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("tying a process to its parent")?;
    match getppid() == parent {
        true => Ok(()),
        false => bail!("the parent is gone"),
    }
}

fn tell<T: Serialize>(mut writer: PipeWriter, result: Result<T>) -> Result<()> {
    let told = match result {
        Ok(result) => Told::Done(result),
        Err(error) => match (error.downcast_ref(), error.downcast_ref()) {
            (Some(Failed(how)), _) => Told::Failed(how.clone()),
            (_, Some(Interrupted(signal))) => Told::Interrupted(*signal),
            _ => Told::Error(format!("{error:#}")),
        },
    };
    writer.write_all(&postcard::to_stdvec(&told)?)?;
    Ok(())
}

/// Reads all that the process tells until it closes its end. A signal that asks us to stop ends it.
fn hear(reader: &PipeReader, signals: &Signals, child: Pid) -> Result<Vec<u8>> {
    let doing = "reading from the process that builds the template";
    let mut told = Vec::new();
    loop {
        let mut fds = [
            PollFd::new(reader.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context(doing)?,
        };
        let mut piece = [0; 64 << 10];
        let stops = signals.take()?.filter(|received| received.asks_to_stop());
        let count = match stops {
            Some(_) => 0,
            None if fds[0].revents().is_some_and(|events| !events.is_empty()) => {
                read(reader, &mut piece).context(doing)?
            }
            None => continue,
        };
        told.extend(&piece[..count]);
        if count == 0 || told.len() > TOLD_MAX {
            // It may be gone already.
            kill(child, Signal::SIGKILL).unwrap_or_default();
        }
        match stops {
            Some(received) => return Err(Interrupted(received.signal as u8).into()),
            None if told.len() > TOLD_MAX => {
                bail!("the process that builds the template tells too much")
            }
            None if count == 0 => return Ok(told),
            None => {}
        }
    }
}
