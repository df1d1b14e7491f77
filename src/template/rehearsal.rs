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
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

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
        let warm = self.spec.language.warm.as_ref();
        self.used_by(warm.map_or("", |warm| &warm.rehearsal), true)
    }

    /// Returns the pages, beyond those of a minimal program, that one writes to which reads standard
    /// input.
    pub fn of_input(&self, working_set: &[Pages]) -> Result<Vec<Pages>> {
        let warm = self.spec.language.warm.as_ref();
        let Some(program) = warm.and_then(|warm| warm.input_rehearsal.as_deref()) else {
            return Ok(Vec::new());
        };
        let written = self.used_by(program, true)?;
        let beyond = written.iter().zip(working_set);
        Ok(beyond.map(|(all, known)| all.without(known)).collect())
    }

    /// Returns the pages that programs write to which use the modules that were imported ahead, by the
    /// names of these. They only read more than is worth a copy in each machine.
    pub fn of_modules(&self) -> Result<BTreeMap<String, Vec<Pages>>> {
        let uses = self.spec.uses().into_iter();
        uses.map(|its| Ok((its.module, self.used_by(&its.program, false)?)))
            .collect()
    }

    fn used_by(&self, program: &str, reads: bool) -> Result<Vec<Pages>> {
        let sets = guarded(self.spec, self.signals, || self.run(program, reads))?;
        sets.iter().try_for_each(|set| check(set, self.spec))?;
        Ok(sets)
    }

    fn run(&self, program: &str, reads: bool) -> Result<Vec<Pages>> {
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
        let job = job::rehearsal((&spec.image, &spec.language), spec.root, program);
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
