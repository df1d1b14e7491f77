//! Families of behaviours: they run by seed, and the process must afterwards hold what it held
//! before.

use crate::guest::Images;
use crate::kernel_log::KernelLog;
use crate::machine::{self, Ends, Machine, Report};
use crate::process::Footprint;
use crate::random::Random;
use crate::turn::{is_replayed, turn, watched};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The patience for guests that end by themselves: only one that should have ended reaches it.
pub const ENDS: Duration = Duration::from_secs(60);
/// The patience for guests that never end by themselves.
pub const STAYS: Duration = Duration::from_millis(150);
/// The time beyond its patience after which a guest that still runs counts as a hang.
const HANGS: Duration = Duration::from_secs(60);
/// The time beyond its patience after which a guest must be gone: the machine may be busy.
const LATE: Duration = Duration::from_secs(10);
/// The time after which half of the stopped guests must be gone.
const USUALLY_LATE: Duration = Duration::from_secs(1);

/// Something that a hostile guest does.
pub struct Behaviour {
    pub name: &'static str,
    pub guest: fn(&mut Random) -> Images,
    pub patience: Duration,
    pub ends: &'static [Ends],
}

pub struct Family {
    pub name: &'static str,
    pub behaviours: &'static [Behaviour],
    /// The bytes by which the process may grow while a guest runs, including the guest's own.
    pub peak: u64,
}

/// The way in which a software KVM runs a guest's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The kernel runs as in any new machine.
    Usual,
    /// The kernel runs natively: the guest asks for that first of all.
    Native,
    /// The kernel runs natively, and the family's guests ask for that themselves.
    NativeByItself,
}

impl Behaviour {
    /// Makes a behaviour of which only this is known: it ends, or its time does.
    pub const fn anyhow(name: &'static str, guest: fn(&mut Random) -> Images) -> Self {
        Self {
            name,
            guest,
            patience: STAYS,
            ends: &[Ends::Anyhow],
        }
    }

    /// Makes a behaviour that never ends by itself.
    pub const fn stays(name: &'static str, guest: fn(&mut Random) -> Images) -> Self {
        Self {
            name,
            guest,
            patience: STAYS,
            ends: &[Ends::Stays],
        }
    }

    /// Makes a behaviour that ends by itself, in one of these ways.
    pub const fn ends(
        name: &'static str,
        guest: fn(&mut Random) -> Images,
        ends: &'static [Ends],
    ) -> Self {
        Self {
            name,
            guest,
            patience: ENDS,
            ends,
        }
    }

    /// Returns how long the guest may be silent: a busy machine may delay a guest that should be
    /// heard of.
    fn silence(&self) -> Duration {
        match self.ends.iter().any(|end| end.is_silent()) {
            true => self.patience,
            false => self.patience.max(ENDS),
        }
    }
}

impl Family {
    fn behaviour(&self, seed: u64) -> &Behaviour {
        &self.behaviours[(seed % self.behaviours.len() as u64) as usize]
    }

    /// Runs one variant: the behaviour that its seed selects, with the numbers that the seed
    /// decides.
    fn run_variant(&self, mode: Mode, seed: u64) -> Report {
        let behaviour = self.behaviour(seed);
        let mut images = (behaviour.guest)(&mut Random::new(self.name, seed));
        if mode == Mode::Native {
            images = images.natively();
        }
        let what = self.replay(mode, seed);
        let machine = self.machine(mode, seed);
        watched(&what, behaviour.patience + HANGS, || {
            machine::run_on(&machine, &images, behaviour.silence(), behaviour.patience)
        })
    }

    /// Returns the machine of a variant. Each behaviour of a native kernel meets, by turns, a VMM
    /// that takes it for such a kernel, and one that would complete instructions that KVM cannot
    /// emulate.
    fn machine(&self, mode: Mode, seed: u64) -> Machine<'static> {
        let round = seed / self.behaviours.len() as u64;
        match mode {
            Mode::Native | Mode::NativeByItself if round % 2 == 1 => Machine::native(),
            _ => Machine::usual(),
        }
    }

    fn label(&self, mode: Mode) -> String {
        match mode {
            Mode::Usual | Mode::NativeByItself => self.name.into(),
            Mode::Native => format!("{}-native", self.name),
        }
    }

    fn replay(&self, mode: Mode, seed: u64) -> String {
        format!("HOSTILE_SEED={}:{seed}", self.label(mode))
    }

    /// Runs a variant and checks its end. Returns how late it was gone, if its time was up.
    fn check(&self, mode: Mode, seed: u64, log: &mut KernelLog) -> Option<Duration> {
        let behaviour = self.behaviour(seed);
        let report = self.run_variant(mode, seed);
        let replay = self.replay(mode, seed);
        log.assert_unhurt(&replay);
        if std::env::var_os("HOSTILE_SEED").is_some() {
            println!("{}: {}, {:?}", behaviour.name, report.end, report.counters);
        }
        assert!(
            behaviour.ends.iter().any(|ends| ends.covers(&report.end)),
            "{replay}: {} ended: {}",
            behaviour.name,
            report.end,
        );
        let late = report.took.checked_sub(behaviour.patience);
        assert!(
            late <= Some(LATE),
            "{replay}: {} was gone {late:?} late",
            behaviour.name,
        );
        late
    }

    fn assert_usually_in_time(&self, mode: Mode, mut late: Vec<Duration>) {
        late.sort();
        let Some(&median) = late.get(late.len() / 2) else {
            return;
        };
        println!(
            "{}: {} were stopped, {median:?} late",
            self.label(mode),
            late.len()
        );
        assert!(
            median <= USUALLY_LATE,
            "{}: half of the guests were gone later than {median:?}",
            self.label(mode)
        );
    }

    /// Runs so many variants, or only the one that HOSTILE_SEED names.
    pub fn run(&self, variants: u64) {
        self.run_in(Mode::Usual, variants);
    }

    /// Runs guests that first ask to run natively.
    pub fn run_natively(&self, variants: u64) {
        self.run_in(Mode::Native, variants);
    }

    /// Runs guests that ask for native mode themselves.
    pub fn run_natives(&self, variants: u64) {
        self.run_in(Mode::NativeByItself, variants);
    }

    fn run_in(&self, mode: Mode, variants: u64) {
        let _turn = turn();
        let mut log = match machine::is_confined() {
            // Who started this process looks at it.
            true => KernelLog::none(),
            false => KernelLog::from_here(),
        };
        if let Ok(replay) = std::env::var("HOSTILE_SEED") {
            if let Some(seed) = replay
                .strip_prefix(&self.label(mode))
                .and_then(|s| s.strip_prefix(':'))
            {
                let seed = seed.parse().expect("HOSTILE_SEED=family:number");
                self.check(mode, seed, &mut log);
                if machine::is_confined() {
                    // The rest of a test would need what was given up.
                    std::process::exit(0);
                }
            }
            return;
        }
        let first = base();
        // What stays once each behaviour has been seen twice is not a leak.
        let warm_up = first + 2 * self.behaviours.len() as u64;
        let mut check = |seed| self.check(mode, seed, &mut log);
        let mut late: Vec<_> = (first..warm_up).filter_map(&mut check).collect();
        let before = Footprint::take();
        late.extend((warm_up..first + variants).filter_map(check));
        Footprint::take().assert_as_before(&before, self.peak);
        self.assert_usually_in_time(mode, late);
        machine::assert_runtime_is_intact();
    }

    /// Runs each behaviour in a process of its own, which is confined like that of a run.
    fn run_confined(&self, mode: Mode) {
        let mut log = KernelLog::from_here();
        let rounds = match mode {
            Mode::Usual => 1,
            // In each of the settings that a VMM may have.
            Mode::Native | Mode::NativeByItself => 2,
        };
        for seed in base()..base() + rounds * self.behaviours.len() as u64 {
            let replay = self.replay(mode, seed);
            let (_, variant) = replay.split_once('=').expect("a variable");
            let child = Command::new(std::env::current_exe().expect("/proc"))
                .args(["--nocapture", "--test-threads=1"])
                .env("HOSTILE_CONFINED", "1")
                .env("HOSTILE_SEED", variant)
                // As `sandbox` does when it starts.
                .env("MALLOC_ARENA_MAX", "1")
                .stdin(Stdio::null())
                .output()
                .expect("a child");
            let stdout = String::from_utf8_lossy(&child.stdout);
            log.assert_unhurt(&replay);
            assert!(child.status.success(), "{replay}, confined: {child:?}");
            assert!(stdout.contains(self.behaviour(seed).name), "{stdout}");
        }
    }
}

/// Runs families in processes that are confined, and natively too where these are given, which ask for that
/// themselves.
pub fn run_confined(families: &[&Family], natives: Option<&[&Family]>) {
    if is_replayed() {
        return;
    }
    let _turn = turn();
    for family in families {
        family.run_confined(Mode::Usual);
        if natives.is_some() {
            family.run_confined(Mode::Native);
        }
    }
    for family in natives.into_iter().flatten() {
        family.run_confined(Mode::NativeByItself);
    }
}

/// Returns the first seed of each family; HOSTILE_BASE explores others.
fn base() -> u64 {
    std::env::var("HOSTILE_BASE").map_or(0, |base| base.parse().expect("HOSTILE_BASE=number"))
}
