//! The process that unpacks an archive, apart from the one that was asked to.

use crate::cache;
use crate::confine::{Missing, confine_unpacker};
use crate::error::{Error, Kind, Remedy};
use crate::limits::ConfineLevel;
use crate::oci::bounds::Bounds;
use crate::oci::merge::{self, Files};
use crate::oci::refusal::refused;
use crate::oci::unpacked::Unpacked;
use crate::process::described;
use crate::text::escape_line;
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, getppid};
use std::fs::{File, remove_file};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Upper bound on the bytes of the process's report: the environment and the command, which are in a document
/// that is bounded, and the names of programs.
const REPORT_MAX: u64 = 16 << 20;

type Report = Result<Unpacked, Error>;

/// Unpacks an archive into an empty file, as an erofs file system. It takes room in the cache meanwhile. No
/// other thread should have started yet, since only one would be in the process that does it.
pub fn unpack(archive: File, image: &File, level: ConfineLevel) -> Result<Unpacked> {
    unpack_in(&cache::directory()?, archive, image, level, Bounds::OURS)
}

/// Unpacks an archive, with what is unpacked on the way in nameless files of this directory.
pub(super) fn unpack_in(
    scratch: &Path,
    archive: File,
    image: &File,
    level: ConfineLevel,
    bounds: Bounds,
) -> Result<Unpacked> {
    let metadata = archive.metadata().context("looking at the archive")?;
    if !metadata.is_file() {
        let remedy = "put the archive into a file, and name that";
        return Err(refused("it is not a file", remedy).into());
    }
    let files = Files {
        archive,
        size: metadata.len(),
        whole: nameless(scratch)?,
        contents: nameless(scratch)?,
        image: image.try_clone().context("duplicating a descriptor")?,
    };
    let (report, report_end) = pipe().context("making a pipe")?;
    let parent = getpid();
    // SAFETY: the new process has this thread alone. It takes no lock that another may have held, but
    // the allocator's, which the C library keeps usable.
    match unsafe { fork() }.context("starting a process")? {
        ForkResult::Parent { child } => {
            drop((files, report_end));
            finish(child, report, image)
        }
        ForkResult::Child => {
            drop(report);
            let status = i32::from(work(files, report_end, parent, level, bounds).is_err());
            // SAFETY: _exit(2) ends the process, without the handlers that its parent registered for its
            // own end.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Makes a file that has no name, and is gone when it is closed.
fn nameless(directory: &Path) -> Result<File> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match open(directory, flags, mode) {
        Ok(file) => Ok(file.into()),
        // The file system has no files without a name.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR) => unnamed(directory),
        Err(errno) => {
            Err(errno).with_context(|| format!("making a file in {}", directory.display()))
        }
    }
}

/// Makes a file, and takes its name away.
fn unnamed(directory: &Path) -> Result<File> {
    let path = directory.join(format!(".unpack-{}", getpid()));
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let file = file.with_context(|| format!("making {}", path.display()))?;
    remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok(file)
}

/// Does the work, in the new process.
fn work(
    files: Files,
    mut report_end: PipeWriter,
    parent: Pid,
    level: ConfineLevel,
    bounds: Bounds,
) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    ensure!(getppid() == parent, "the parent is gone");
    obey_signals()?;
    let report: Report = match confined(&files, &report_end, level) {
        Ok(()) => merge::unpack(files, bounds),
        Err(error) => Err(unconfined(&error)),
    };
    report_end.write_all(&postcard::to_stdvec(&report)?)?;
    Ok(())
}

/// Has signals end this process whatever its parent does with them, and not be told of a file that is too
/// large but by an error.
fn obey_signals() -> Result<()> {
    for ending in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        // SAFETY: no handler is set.
        unsafe { signal(ending, SigHandler::SigDfl) }?;
    }
    // SAFETY: no handler is set.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    SigSet::all().thread_unblock()?;
    Ok(())
}

fn confined(files: &Files, report_end: &PipeWriter, level: ConfineLevel) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    let files = [&files.archive, &files.whole, &files.contents, &files.image];
    let mut kept: Vec<_> = files.map(AsRawFd::as_raw_fd).into();
    kept.push(report_end.as_raw_fd());
    confine_unpacker(level, &kept)
}

fn unconfined(error: &anyhow::Error) -> Error {
    let remedy = match error.is::<Missing>() {
        true => Remedy::ConfineLess,
        false => Remedy::Report,
    };
    Error::new(Kind::Host, format!("{error:#}"), remedy)
}

/// Waits for the end of the process, and returns what it did.
fn finish(child: Pid, report: PipeReader, image: &File) -> Result<Unpacked> {
    let mut bytes = Vec::new();
    let read = report.take(REPORT_MAX + 1).read_to_end(&mut bytes);
    // The pipe is closed now: a process that still writes ends.
    let status = waitpid(child, None).context("waiting for a process")?;
    read.context("reading from the process that unpacks the image")?;
    let size = image.metadata().context("looking at the image")?.len();
    let report = postcard::from_bytes::<Report>(&bytes);
    match report {
        Ok(Err(error)) => Err(distrusted(error).into()),
        Ok(Ok(unpacked)) if unpacked.is_sound(size) && bytes.len() as u64 <= REPORT_MAX => {
            Ok(unpacked)
        }
        Ok(Ok(_)) => Err(Error::new(
            Kind::File,
            "the process that unpacked the image told what cannot be",
            "take the image only from whom you trust",
        )
        .into()),
        Err(_) => Err(ended(status).into()),
    }
}

/// Returns a failure that the process tells, as far as it can be one.
fn distrusted(mut error: Error) -> Error {
    error.message = escape_line(&error.message);
    error.remedy.each_text(|text| *text = escape_line(text));
    match (error.kind, &error.remedy) {
        (Kind::File, Remedy::Do(_)) => error,
        _ => Error {
            kind: Kind::Host,
            ..error
        },
    }
}

/// Returns the failure of a process that ended without a report.
fn ended(status: WaitStatus) -> Error {
    let how = match status {
        WaitStatus::Signaled(_, signal, _) => format!("was ended by {}", described(signal as i32)),
        _ => "told nothing".into(),
    };
    refused(
        format!("the process that unpacks the image {how}"),
        "see that there is memory and disk for it, and that no limit is too low: ulimit -a",
    )
}
