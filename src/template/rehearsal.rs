//! Rehearsals in clones of a machine that was just saved, which show the pages that runs will use.

use crate::agent::{Session, Shared, Sink};
use crate::confine::Seal;
use crate::job;
use crate::outcome::Outcome;
use crate::signals::Signals;
use crate::template::TemplateSpec;
use crate::template::build_process::{check, guarded};
use crate::template::failure::failure;
use crate::vm::mode::Mode;
use crate::vm::{Kvm, Pages, Saved, Vm};
use crate::watchdog::Watchdog;
use anyhow::{Context, Result};
use guest::{Terminal, WindowSize, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

/// A terminal of the usual size. Standard input is not on it: this process's is for another program.
const TERMINAL: Terminal = Terminal {
    streams: 1 << stream::STDOUT | 1 << stream::STDERR,
    size: WindowSize {
        rows: 24,
        columns: 80,
    },
};

/// The pages that runs use on some occasions, beyond those of any run, of each region of RAM.
#[derive(Serialize, Deserialize)]
pub struct Occasions {
    /// Of those that read standard input.
    pub input: Vec<Pages>,
    /// Of those that have a terminal.
    pub terminal: Vec<Pages>,
}

/// A machine that was saved, of which clones run what its image says.
pub struct Rehearsal<'a> {
    pub kvm: &'a Kvm,
    pub mode: Mode,
    pub spec: &'a TemplateSpec,
    pub saved: &'a Saved,
    pub signals: &'a Signals,
}

impl Rehearsal<'_> {
    /// Returns the pages that a minimal program uses.
    pub fn working_set(&self) -> Result<Vec<Pages>> {
        self.used_by(self.minimal(), None, true)
    }

    /// Returns the pages, beyond those of a minimal program, that one uses which reads standard input, or has
    /// a terminal.
    pub fn occasions(&self, working_set: &[Pages]) -> Result<Occasions> {
        let beyond = |used: Vec<Pages>| {
            let pairs = used.iter().zip(working_set);
            pairs.map(|(all, known)| all.without(known)).collect()
        };
        let warm = self.spec.language.warm.as_ref();
        let reading = warm.and_then(|warm| warm.input_rehearsal.as_deref());
        let input = reading.map(|program| self.used_by(program, None, true));
        let terminal = self.used_by(self.minimal(), Some(TERMINAL), true)?;
        Ok(Occasions {
            input: input.transpose()?.map(beyond).unwrap_or_default(),
            terminal: beyond(terminal),
        })
    }

    /// Returns the pages that programs write to which use the modules that were imported ahead, by the
    /// names of these. They only read more than is worth a copy in each machine.
    pub fn of_modules(&self) -> Result<BTreeMap<String, Vec<Pages>>> {
        let uses = self.spec.uses().into_iter();
        uses.map(|its| Ok((its.module, self.used_by(&its.program, None, false)?)))
            .collect()
    }

    fn minimal(&self) -> &str {
        let warm = self.spec.language.warm.as_ref();
        warm.map_or("", |warm| &warm.rehearsal)
    }

    fn used_by(
        &self,
        program: &str,
        terminal: Option<Terminal>,
        reads: bool,
    ) -> Result<Vec<Pages>> {
        let run = || self.run(program, terminal, reads);
        let sets = guarded(self.spec, self.signals, run)?;
        sets.iter().try_for_each(|set| check(set, self.spec))?;
        Ok(sets)
    }

    fn run(&self, program: &str, terminal: Option<Terminal>, reads: bool) -> Result<Vec<Pages>> {
        let spec = self.spec;
        let shared = Arc::new(Shared::new().context("making an eventfd")?);
        // This process's is for the program that the machine is made for.
        shared.give_stdin(Vec::new());
        let nowhere = File::options()
            .write(true)
            .open("/dev/null")
            .context("opening /dev/null")?;
        let sinks = [
            Sink::new(&nowhere, u64::MAX)?,
            Sink::new(&nowhere, u64::MAX)?,
        ];
        let mut job = job::rehearsal((&spec.image, &spec.language), spec.root, program);
        job.frame.terminal = terminal;
        let session = Session::warm(job, sinks, Arc::clone(&shared));
        let vm = Vm::restore(self.kvm, self.mode, self.saved, session)?;
        let tracker = vm.tracker()?;
        let seal = match spec.runs_only_ours() {
            true => Seal::none(),
            false => Seal::process(spec.confine, self.mode, spec.mapped(), None)?,
        };
        let profile = vm.profile(tracker, reads)?;
        let watchdog = Watchdog::start(vm, shared, seal)?;
        let (vm, verdict) = watchdog.watch(&spec.limits(self.mode), self.signals, &mut || {})?;
        let used = vm.found(profile)?;
        let (reported, ..) = vm.into_host().into_result();
        match verdict.outcome(reported) {
            Outcome::Exited(0) => Ok(used),
            outcome @ Outcome::Interrupted(_) => {
                Err(failure("the first clone of the template", outcome))
            }
            // What others brought may need more than the machine has. Its programs are told so, each in its turn.
            _ if !spec.runs_only_ours() => Ok(used),
            outcome => Err(failure("the first clone of the template", outcome)),
        }
    }
}
