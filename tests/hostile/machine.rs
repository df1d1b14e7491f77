//! One guest in the real machine, with its VMM, its watchdog and its session.

use crate::guest::{Images, MEMORY, SURVIVED};
use kvm_ioctls::Kvm;
use sandbox::internals::agent::{Session, Shared, Sink, Totals};
use sandbox::internals::confine::Seal;
use sandbox::internals::image::Image;
use sandbox::internals::job::{Job, rehearsal};
use sandbox::internals::kvm_mode::{self, Choice, Device};
use sandbox::internals::limits::ConfineLevel;
use sandbox::internals::limits::Limits;
use sandbox::internals::outcome::{Crash, Outcome};
use sandbox::internals::run::last_words;
use sandbox::internals::signals::Signals;
use sandbox::internals::vm::bus::Unknown;
use sandbox::internals::vm::host::{self, Family};
use sandbox::internals::vm::layout::RUNTIME_ALIGNMENT;
use sandbox::internals::vm::mode::Mode;
use sandbox::internals::vm::{BootImages, Config, Counters, Vm, allow_kicks};
use sandbox::internals::watchdog::Watchdog;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// The bytes of console output that the machine keeps.
pub const CONSOLE_MAX: usize = 64 << 10;
/// The bytes of a program's output that are delivered.
pub const OUTPUT_MAX: u64 = 1 << 20;

/// The end of a guest.
#[derive(Debug)]
pub enum End {
    Ended(Outcome),
    /// The machine could not be made from the images.
    Refused(String),
    /// The machine could not go on, and did not blame the guest. No guest may cause this.
    Failed(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(outcome) => write!(f, "{outcome:?}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Failed(why) => write!(f, "the machine failed: {why}"),
        }
    }
}

/// A way in which a behaviour may end.
#[derive(Debug, Clone, Copy)]
pub enum Ends {
    /// The guest reaches its last instruction.
    Survives,
    /// The guest reports that it exited with this status.
    Exits(u8),
    /// Nothing is heard of the guest until its time is up.
    Stays,
    TripleFault,
    Halts,
    Resets,
    ShutsDown,
    Unsupported,
    LeavesKvm,
    /// The guest breaks a rule, which the text names.
    Breaks(&'static str),
    NoFiles,
    TimesOut,
    Refused,
    /// The guest ends in any way in which only this machine ends.
    Anyhow,
}

const ANYHOW: &[Ends] = &[
    Ends::Survives,
    Ends::Stays,
    Ends::TripleFault,
    Ends::Halts,
    Ends::Resets,
    Ends::Unsupported,
    Ends::LeavesKvm,
];

impl Ends {
    /// Checks whether a guest that may end so need not be heard of.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Stays | Self::Anyhow)
    }

    pub fn covers(self, end: &End) -> bool {
        use Outcome::Crashed;
        match (self, end) {
            (Self::Anyhow, _) => ANYHOW.iter().any(|ends| ends.covers(end)),
            (Self::Survives, End::Ended(Outcome::Exited(status))) => *status == SURVIVED,
            (Self::Exits(expected), End::Ended(Outcome::Exited(status))) => *status == expected,
            (Self::Breaks(what), End::Ended(Crashed(Crash::Violation(text)))) => {
                text.contains(what)
            }
            (Self::Stays, End::Ended(Crashed(Crash::NotReady)))
            | (Self::TripleFault, End::Ended(Crashed(Crash::TripleFault)))
            | (Self::Halts, End::Ended(Crashed(Crash::Halted)))
            | (Self::Resets, End::Ended(Crashed(Crash::Reset)))
            | (Self::ShutsDown, End::Ended(Crashed(Crash::ShutDown)))
            | (Self::Unsupported, End::Ended(Crashed(Crash::Unsupported { .. })))
            | (Self::LeavesKvm, End::Ended(Crashed(Crash::Exit(_))))
            | (Self::NoFiles, End::Ended(Outcome::NoFiles(_)))
            | (Self::TimesOut, End::Ended(Outcome::TimedOut))
            | (Self::Refused, End::Refused(_)) => true,
            _ => false,
        }
    }
}

/// The report on a guest.
#[derive(Debug)]
pub struct Report {
    pub end: End,
    pub counters: Counters,
    pub console: Vec<u8>,
    pub output: [Totals; 2],
    /// The accesses to things that do not exist.
    pub unknown: Unknown,
    /// The time from its start until its machine was back.
    pub took: Duration,
}

impl Report {
    /// Makes the report on a guest of which nothing more is known.
    fn of(end: End) -> Self {
        Self {
            end,
            counters: Counters::default(),
            console: Vec::new(),
            output: Default::default(),
            unknown: Unknown::default(),
            took: Duration::ZERO,
        }
    }
}

static KVM: LazyLock<Kvm> = LazyLock::new(|| {
    allow_kicks().expect("kicks");
    host::open(Path::new("/dev/kvm")).expect("these tests need KVM")
});

/// The mode of most guests. Where kernel mode can be emulated it is emulated at first: guests that
/// want to run natively switch themselves, and the others meet everything that the VMM does for an
/// emulated kernel.
static USUAL: LazyLock<Mode> = LazyLock::new(|| {
    let choice = match Family::detect() {
        Family::Hardware => Choice::Auto,
        Family::Software => Choice::Emulated,
    };
    let device = Device {
        path: "/dev/kvm".into(),
        choice,
    };
    kvm_mode::choose(&KVM, &device).expect("that mode")
});

/// Checks whether this process is for one guest, and confines itself like that of a run.
pub fn is_confined() -> bool {
    std::env::var_os("HOSTILE_CONFINED").is_some()
}

/// The way in which a guest gets its job: from its agent, or by asking for it.
pub type Begin = fn(Job, [Sink; 2], Arc<Shared>) -> Session;

/// The machine that a guest runs on.
pub struct Machine<'a> {
    /// The mode in which the VMM believes the guest's kernel to run.
    pub mode: Mode,
    pub begin: Begin,
    /// The file of the runtime image.
    pub runtime: &'a File,
}

impl Machine<'_> {
    pub fn usual() -> Self {
        Self {
            mode: *USUAL,
            begin: Session::cold,
            runtime: &RUNTIME,
        }
    }

    /// Returns a machine whose VMM believes that the guest's kernel runs natively.
    pub fn native() -> Self {
        Self {
            mode: Mode::Native,
            ..Self::usual()
        }
    }
}

/// Runs a guest until it ends, or `patience` is over, or `silence` is over before it is heard of.
pub fn run(images: &Images, silence: Duration, patience: Duration) -> Report {
    run_on(&Machine::usual(), images, silence, patience)
}

/// Runs a guest on another machine.
pub fn run_on(machine: &Machine, images: &Images, silence: Duration, patience: Duration) -> Report {
    let shared = Arc::new(Shared::new().expect("an eventfd"));
    let vm = match boot(machine, images, &shared) {
        Ok(vm) => vm,
        Err(error) => return Report::of(End::Refused(format!("{error:#}"))),
    };
    let limits = Limits {
        grace: Duration::ZERO,
        memory: MEMORY,
        machine_memory: MEMORY,
        boot: silence,
        timeout: Some(patience),
        max_output: OUTPUT_MAX,
        input: u64::MAX,
        fetch_count: 0,
        fetch_size: 0,
        pids: 1,
    };
    let signals = Signals::watch().expect("a signalfd");
    let seal = match is_confined() {
        true => {
            Seal::process(ConfineLevel::Require, machine.mode, MEMORY, None).expect("all layers")
        }
        false => Seal::none(),
    };
    let watchdog = Watchdog::start(vm, shared, seal).expect("a vCPU thread");
    let began = Instant::now();
    match watchdog.watch(&limits, &signals, &mut || {}) {
        Ok((vm, verdict)) => {
            let (took, unknown) = (began.elapsed(), vm.unknown());
            let (counters, console) = (vm.counters(), vm.console());
            let (reported, output, _) = vm.into_host().into_result();
            assert!(output.iter().all(|of| of.delivered <= OUTPUT_MAX));
            check_console(&console);
            Report {
                end: End::Ended(verdict.outcome(reported)),
                counters,
                console,
                output,
                unknown,
                took,
            }
        }
        Err(error) => Report::of(End::Failed(format!("{error:#}"))),
    }
}

fn boot(machine: &Machine, images: &Images, shared: &Arc<Shared>) -> anyhow::Result<Vm<Session>> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    let sinks = [
        Sink::new(&nowhere, OUTPUT_MAX)?,
        Sink::new(&nowhere, OUTPUT_MAX)?,
    ];
    let work = Job {
        frame: guest::JobFrame {
            argv: vec![b"python3".to_vec()],
            ..Default::default()
        },
        script: None,
        ..rehearsal(
            (Image::built_in(), Image::built_in().default_language()),
            false,
            "",
        )
    };
    let session = (machine.begin)(work, sinks, Arc::clone(shared));
    let config = Config {
        memory: MEMORY,
        runtime: machine.runtime.try_clone()?,
        layers: &[],
        images: BootImages {
            kernel: &images.kernel,
            agent: &images.agent,
        },
        console: None,
    };
    Vm::boot(&KVM, machine.mode, config, session)
}

/// The content of the runtime image, repeated everywhere.
pub const RUNTIME_CONTENT: &[u8; 16] = b"a runtime image ";

/// The runtime image, one file for all guests.
static RUNTIME: LazyLock<File> = LazyLock::new(runtime_image);

pub fn runtime_image() -> File {
    let file = tempfile::tempfile().expect("a file");
    let written = file.write_all_at(&runtime_content(), 0);
    written.expect("room for an image");
    file
}

fn runtime_content() -> Vec<u8> {
    RUNTIME_CONTENT.repeat(RUNTIME_ALIGNMENT as usize / RUNTIME_CONTENT.len())
}

/// Checks that no guest has written to the runtime image.
pub fn assert_runtime_is_intact() {
    let mut content = runtime_content();
    RUNTIME.read_exact_at(&mut content, 0).expect("its file");
    assert!(content == runtime_content());
}

/// Checks that a console's output is bounded, and harmless to a terminal.
fn check_console(console: &[u8]) {
    assert!(console.len() <= CONSOLE_MAX);
    for line in last_words(console) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
