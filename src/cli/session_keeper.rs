//! The keeper of a session of which a log is kept: it writes the entries, while another process runs the
//! guest. The process that a guest may take over has no access to the log, and ends with this one.

use crate::audit::{Code, Event, Files, Limits, Log, Start, Usage, names, shortened};
use crate::cli::admission::CLIENT;
use crate::process::{self, processor_time};
use crate::record::{Anchor, Record};
use crate::run::record_of::explained;
use crate::session::protocol::{Purpose, Spec};
use crate::session::{
    Answer, Asked, Entry, Owned, Owner, Started, Tie, answer, first_entry, start, start_another,
    unwritten,
};
use crate::signals::Signals;
use crate::worker::client::usage;
use crate::worker::{Notice, Notices};
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{PipeWriter, Read, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The most bytes of an entry: of a record with its results, or of code.
const ENTRY_MAX: usize = 128 << 20;
/// The most cells and commands that are at work at once.
const OPEN_MAX: usize = 64;

/// Starts the session that is asked for over this socket, and keeps its log until it is over. `point`: if it goes
/// on from one, the file with it and the pipe to the owner.
pub fn keep(socket: OwnedFd, point: Option<(OwnedFd, OwnedFd)>) -> Result<u8> {
    let socket = File::from(socket);
    // Before there is a thread or a process that one could be meant for.
    let signals = Signals::watch()?;
    let keeper = Keeper::begin(&socket, point).inspect_err(|error| {
        let told = explained(error).unwrap_or_else(|_| unwritten("its writer was stopped"));
        // Whoever asked for it may be gone.
        Started::Failed(told).tell(&socket).unwrap_or_default();
    })?;
    Started::Ready.tell(&socket).unwrap_or_default();
    drop(socket);
    keeper.follow(&signals).map(|()| 0)
}

/// A session, and what has been written of it.
struct Keeper {
    spec: Spec,
    log: Log,
    keep_code: bool,
    session: Owned,
    /// The pipe to which the session is tied, if it goes on from a point. It never lets it go.
    _pipe: Option<PipeWriter>,
    /// The tie of both to whoever had them started together with others, until that lets them go.
    tie: Option<Tie>,
    /// The number of the session in the log.
    run: u64,
    began: Instant,
    /// The cells at work, by their numbers in the session.
    open: BTreeMap<u64, Open>,
    why: String,
}

/// A cell whose end is still to be written.
struct Open {
    /// Its number in the log.
    run: u64,
    began: Instant,
    /// The processor time of the session before.
    before: Duration,
}

impl Keeper {
    fn begin(socket: &File, point: Option<(OwnedFd, OwnedFd)>) -> Result<Self> {
        let mut spec = Spec::hear(socket)?;
        let kept = spec.log.take().context("no log is named")?;
        let log = Log::open(&kept.path, kept.rotate, kept.sync)?;
        let first = first_entry(&spec, &spec.name, kept.files, kept.from);
        let run = log.append(CLIENT, &first)?;
        let run = run.sequence;
        spec.is_owned = true;
        spec.is_logged = true;
        let began = Instant::now();
        let notices = &mut Notices(|notice: Notice| {
            // If nobody receives it, that is noticed soon enough.
            Started::Notice(notice).tell(socket).unwrap_or_default();
        });
        let (file, tie) = point.unzip();
        let pipe = file.is_some().then(pipe).transpose()?;
        let started = match (&file, &pipe) {
            (Some(file), Some((its, _))) => start_another(&spec, (file.as_fd(), its), notices),
            _ => start(&spec, notices),
        };
        match started {
            Ok(session) => Ok(Self {
                spec,
                log,
                keep_code: kept.code,
                session,
                _pipe: pipe.map(|(_, ours)| ours),
                tie: tie.map(Tie::Pipe),
                run,
                began,
                open: BTreeMap::new(),
                why: "its process ended".into(),
            }),
            Err(error) => {
                let process = Usage::unknown(began.elapsed());
                let why = shortened(&format!("it could not be started: {error:#}"));
                log.append(CLIENT, &Event::SessionEnd { run, process, why })?;
                Err(error)
            }
        }
    }

    /// Writes what the session tells until it is over, and then its end.
    fn follow(mut self, signals: &Signals) -> Result<()> {
        let listened = self.listen(signals);
        if let Err(error) = &listened {
            // It has been taken over.
            self.why = shortened(&format!("it was ended: {error:#}"));
            self.kill(Signal::SIGKILL);
        }
        let exit = process::ended(self.pid())?;
        self.session.child.wait().context("waiting for a session")?;
        let end = Event::SessionEnd {
            run: self.run,
            process: usage(self.began, &exit),
            why: self.why,
        };
        self.log.append(CLIENT, &end)?;
        listened
    }

    fn listen(&mut self, signals: &Signals) -> Result<()> {
        let mut heard = Vec::new();
        loop {
            let tie = self.tie.as_ref();
            let mut fds = vec![
                PollFd::new(self.session.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(tie.map(|tie| PollFd::new(tie.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.context("waiting for a session")?,
            };
            let speaks = fds[0].revents().is_some_and(|events| !events.is_empty());
            let owner = tie.map_or(Owner::IsThere, Tie::look);
            if owner != Owner::IsThere {
                self.tie = None;
            }
            if owner == Owner::IsGone {
                self.kill(Signal::SIGTERM);
            }
            if signals
                .take()?
                .is_some_and(|received| received.asks_to_stop())
            {
                // It ends by itself then, and tells why.
                self.kill(Signal::SIGTERM);
            }
            if speaks && !self.hear(&mut heard)? {
                return Ok(());
            }
        }
    }

    /// Takes what the session says. Returns whether it may say more.
    fn hear(&mut self, heard: &mut Vec<u8>) -> Result<bool> {
        let mut piece = [0; 64 << 10];
        let count = match (&self.session.socket).read(&mut piece) {
            // It was killed with an answer unread.
            Err(_) | Ok(0) => return Ok(false),
            Ok(count) => count,
        };
        heard.extend(&piece[..count]);
        ensure!(heard.len() <= ENTRY_MAX, "an entry is too long");
        while let Some(end) = heard.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            self.write(serde_json::from_slice(&line).context("reading an entry")?)?;
        }
        Ok(true)
    }

    fn write(&mut self, entry: Entry) -> Result<()> {
        let written = match entry {
            Entry::Over { why } => {
                self.why = shortened(&why);
                return Ok(());
            }
            Entry::Begins { cell, asked } => self.write_start(cell, asked)?,
            Entry::Ended { cell, record } => self.write_end(cell, &record)?,
            Entry::Saves { purpose } => self.log.append(CLIENT, &self.save(purpose)),
        };
        let answered: Answer = written.map_err(|error| unwritten(&format!("{error:#}")));
        answer(&self.session.socket, &answered)
    }

    /// Writes that a cell begins. The outer error is a cell that none of ours begins.
    fn write_start(&mut self, cell: u64, asked: Asked) -> Result<Result<Anchor>> {
        ensure!(
            self.open.len() < OPEN_MAX && !self.open.contains_key(&cell),
            "it began more cells than there can be"
        );
        let of_session = &self.spec.request;
        let start = Event::Start(Start {
            session: Some(self.spec.name.clone()),
            code: Code::new(asked.code.as_bytes(), self.keep_code),
            language: shortened(&asked.language),
            arguments: asked.arguments,
            environment: names(asked.environment.iter().map(String::as_bytes)),
            files: Files::default(),
            limits: Limits {
                timeout_s: asked.timeout_s,
                ..(&of_session.limits).into()
            },
            root: of_session.root,
        });
        let written = self.log.append(CLIENT, &start);
        if let Ok(anchor) = &written {
            let open = Open {
                run: anchor.sequence,
                began: Instant::now(),
                before: processor_time(Some(self.pid())),
            };
            self.open.insert(cell, open);
        }
        Ok(written)
    }

    /// Writes how a cell ended. The outer error is one that never began.
    fn write_end(&mut self, cell: u64, record: &Record) -> Result<Result<Anchor>> {
        let Some(Open { run, began, before }) = self.open.remove(&cell) else {
            bail!("it ended a cell that never began");
        };
        let used = processor_time(Some(self.pid())).saturating_sub(before);
        let usage = Usage::of_cell(began.elapsed(), used, record.exit_code);
        Ok(self.log.end(CLIENT, run, record, usage))
    }

    /// Returns the entry of a session that is to be saved.
    fn save(&self, purpose: Purpose) -> Event {
        Event::Save {
            run: self.run,
            purpose: match purpose {
                Purpose::Fork => "fork".into(),
                Purpose::Checkpoint => "checkpoint".into(),
            },
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.session.child.id() as i32)
    }

    fn kill(&self, signal: Signal) {
        // It is not reaped yet, so its number is still its own.
        kill(self.pid(), signal).unwrap_or_default();
    }
}
