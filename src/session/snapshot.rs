//! The machine of a session, as whoever has it saved gets it, and the sessions that go on from there.

use crate::checkpoint::{Checkpoint, Checkpoints, Point};
use crate::error::{Checkpoint as Way, Error, Kind, Remedy};
use crate::job::Source;
use crate::kvm_mode::Device;
use crate::limits::ConfineLevel;
use crate::run::Request;
use crate::session::client::Client;
use crate::session::protocol::{Bounds, Purpose, Spec};
use crate::session::socket_directory::Place;
use crate::session::start::start_another;
use crate::template::builder::Listener;
use anyhow::{Context, Result, anyhow, ensure};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeWriter, pipe};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many sessions start at once: each waits for others now and then.
const AT_ONCE: usize = 4;

/// A machine in a file, from which others go on.
pub struct Taken {
    pub file: File,
    /// The length of the point in it.
    pub length: u64,
    pub point: Point,
}

impl Taken {
    /// Has a session save its machine to memory, which nobody can change from then on.
    pub fn from_session(client: &mut Client, purpose: Purpose) -> Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"machine", flags).context("making a file of memory")?;
        let file = File::from(file);
        let (length, _) = client.save(file.as_fd(), purpose)?;
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW;
        let seals = seals | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        let size = Point::read(&file, length)?.file_length()?;
        file.set_len(size).context("sizing a file of memory")?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context("sealing a file of memory")?;
        // The session had the file until now, and could have changed what was read before.
        let point = Point::read(&file, length)?;
        ensure!(
            point.file_length()? == size,
            "the session changed its machine while it was saved"
        );
        Ok(Self {
            file,
            length,
            point,
        })
    }

    /// Finds the machine in a checkpoint.
    pub fn from_checkpoint(name: &str) -> Result<Self> {
        let Checkpoint {
            file,
            length,
            point,
        } = Checkpoints::open()?.find(name)?;
        Ok(Self {
            file,
            length,
            point,
        })
    }

    /// Returns what a session is started with that goes on from here. It ends with whoever starts it, unless
    /// that lets it go.
    pub fn spec(&self, place: &Place, kvm: Device, confine: ConfineLevel) -> Result<Spec> {
        let (limits, bounds) = Bounds::decode(&self.point.limits)?;
        let mut request = Request::of(Source::Code(OsString::new()));
        request.limits = limits;
        request.kvm = kvm;
        request.confine = confine;
        request.root = self.point.interpreter.frame_of_job()?.is_root();
        Ok(Spec {
            directory: place.directory().into(),
            name: String::new(),
            request,
            bounds,
            is_owned: true,
            parent: None,
            log: None,
            is_logged: false,
            point: Some(self.length),
        })
    }

    /// Starts these sessions, a few at once. They end with the pipe that is returned, unless that lets them
    /// go. If one cannot be started, those end that were.
    pub fn start_all<L: Listener>(
        &self,
        specs: &[Spec],
        listener: impl Fn() -> L + Sync,
    ) -> Result<PipeWriter> {
        let (its, ours) = pipe().context("making a pipe")?;
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let started = start_another(spec, (self.file.as_fd(), &its), &mut listener());
                if started.is_err() {
                    next.store(specs.len(), Ordering::Relaxed);
                }
                drop(started?);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers = (0..AT_ONCE.min(specs.len())).map(|_| scope.spawn(work));
            let workers: Vec<_> = workers.collect();
            let ended = workers.into_iter().map(|worker| {
                let joined = worker.join().map_err(|_| anyhow!("a thread panicked"));
                joined?
            });
            ended.collect::<Result<()>>()
        })?;
        Ok(ours)
    }

    /// Checks that its variables of the environment may be kept in a file.
    pub fn check_variables(&self, are_allowed: bool) -> Result<(), Error> {
        if are_allowed || !self.point.interpreter.has_variables {
            return Ok(());
        }
        Err(Error::new(
            Kind::Request,
            "the session was given variables of the environment, and a checkpoint would hold their values",
            Remedy::UseCheckpoint(Way::SaveVariables),
        ))
    }
}
