//! `sandbox run`: one program in a machine of its own.

use crate::audit::Usage;
use crate::cli::admission::Admission;
use crate::cli::exit_code;
use crate::cli::figures::FigureDirectory;
use crate::cli::messages::{code_of, describe, explain, tell, tell_error, tell_of_figures};
use crate::cli::options::RunArgs;
use crate::cli::package_request::{Brought, PackageRequest};
use crate::cli::progress::Progress;
use crate::cli::record_writer::{Writer, in_words};
use crate::cli::request::{GivenOptions, request};
use crate::cli::run_from::run_from;
use crate::cli::supervisor::{Supervised, supervise};
use crate::kvm_mode::Device;
use crate::limits::ConfineLevel;
use crate::log::say;
use crate::packages::Lock;
use crate::run::{Report, Request, inspect, prepare, record_of, run};
use crate::signals::Signals;
use crate::worker::{Inspect, Spec};
use anyhow::Result;
use clap::ArgMatches;
use std::io::{IsTerminal, stderr};
use std::os::fd::AsFd;
use std::time::Instant;

/// Runs a program as the options say; returns the exit code.
pub fn run_verb(args: RunArgs, matches: &ArgMatches, kvm: Device) -> Result<u8> {
    if let Some(from) = &args.from {
        return run_from(
            from,
            &args,
            &GivenOptions(matches.subcommand_matches("run")),
            kvm,
        );
    }
    let began = Instant::now();
    let verbosity = Verbosity::of(&args);
    let memory = args.memory;
    let writer = Writer::open(args.json || args.json_events, args.json_status_fd)?;
    let given = GivenOptions(matches.subcommand_matches("run"));
    let finished = match Admission::prepare(args.policy.as_deref(), args.audit.as_deref()) {
        Ok(admission) => carry_out(args, &given, kvm, admission, writer.as_ref()),
        Err(error) => Finished::without_run(error),
    };
    let Finished {
        admission,
        mut result,
        signals,
        usage,
        lock,
    } = finished;
    let told = |made| {
        let mut record = in_words(made);
        if let Some(lock) = &lock {
            lock.tell(&mut record);
        }
        record
    };
    let mut record = None;
    // The log comes first: who does not read what is told must not keep it waiting.
    if let Some((admission, usage)) = admission.zip(usage) {
        let mut made = told(match &result {
            Ok(report) => record_of::report(report.clone()),
            Err(error) => record_of::failure(error, memory, began.elapsed()),
        });
        match admission.end(&made, usage) {
            Ok(anchor) => {
                made.audit = anchor;
                record = Some(made);
            }
            Err(error) => result = Err(error),
        }
    }
    let code = verbosity.tell(&result, signals.as_ref())?;
    let Some(writer) = writer else {
        return Ok(code);
    };
    let record = record.unwrap_or_else(|| {
        told(match result {
            Ok(report) => record_of::report(report),
            Err(error) => record_of::failure(&error, memory, began.elapsed()),
        })
    });
    Ok(writer.write(&record, signals.as_ref())?.unwrap_or(code))
}

/// A run that is over, with what its record and log need.
struct Finished {
    /// The admission, if the run's end is to be written to a log.
    admission: Option<Admission>,
    result: Result<Report>,
    /// The signals that ask us to stop, if a record is still to be written.
    signals: Option<Signals>,
    /// The resources that the run's process used, if it had one of its own.
    usage: Option<Usage>,
    /// The lock of the packages that the program had.
    lock: Option<Lock>,
}

impl Finished {
    fn without_run(error: anyhow::Error) -> Self {
        Self {
            admission: None,
            result: Err(error),
            signals: None,
            usage: None,
            lock: None,
        }
    }
}

/// Carries out one run in this process, or in a process of its own if it is logged.
fn carry_out(
    args: RunArgs,
    given: &GivenOptions,
    kvm: Device,
    admission: Admission,
    writer: Option<&Writer>,
) -> Finished {
    let progress = Progress::new(args.quiet);
    let quiet = args.quiet;
    let figures = args.show_dir.as_deref();
    let figures = figures.map(|path| FigureDirectory::open(path, args.force));
    let figures = match figures.transpose() {
        Ok(figures) => figures,
        Err(error) => return Finished::without_run(error.into()),
    };
    let made = request(args, given, kvm, &admission, writer);
    let (request, lock) = match made.and_then(|made| with_packages(made, quiet)) {
        Ok(made) => made,
        Err(error) => return Finished::without_run(error),
    };
    if request.confine == ConfineLevel::Off {
        say("--confine=off: what escapes from the guest has all the rights of this user");
    }
    // Figures are written by this process, which a guest cannot take over then.
    if admission.is_audited() || figures.is_some() {
        let mut finished = run_elsewhere(request, admission, progress);
        if let (Some(figures), Ok(report)) = (figures, &mut finished.result)
            && let Err(error) = figures.keep(&report.told, &report.limits)
        {
            report.fetched.failure.get_or_insert(error);
        }
        return Finished { lock, ..finished };
    }
    match run_here(&request, admission, progress) {
        Ok((report, signals)) => Finished {
            admission: None,
            result: Ok(report),
            signals: writer.map(|_| signals),
            usage: None,
            lock,
        },
        Err(error) => Finished::without_run(error),
    }
}

/// Brings the packages that are asked for, and has the machine mount them.
pub fn with_packages(
    (mut request, packages): (Request, Option<PackageRequest>),
    quiet: bool,
) -> Result<(Request, Option<Lock>)> {
    let Some(packages) = packages else {
        return Ok((request, None));
    };
    let tell = |text: &str| {
        if !quiet {
            say(text)
        }
    };
    let Brought { lock, layer } = packages.bring(&request.kvm, &tell)?;
    request.layers.push(layer);
    Ok((request, Some(lock)))
}

fn run_here(
    request: &Request,
    mut admission: Admission,
    mut progress: Progress,
) -> Result<(Report, Signals)> {
    let prepared = prepare(request)?;
    if admission.inspects() {
        let code_max = admission.ceiling.code.map(|most| most.0);
        admission.admit(request, inspect(&prepared.job, false, code_max)?)?;
    }
    run(prepared, &mut progress)
}

fn run_elsewhere(request: Request, mut admission: Admission, progress: Progress) -> Finished {
    let spec = Spec {
        inspect: Some(Inspect {
            code: admission.keep_code,
            code_max: admission.ceiling.code.map(|most| most.0),
        }),
        request,
    };
    let supervised = supervise(
        &spec,
        &mut |inspection| admission.admit(&spec.request, inspection),
        progress,
    );
    match supervised {
        Ok(Supervised {
            result,
            usage,
            signals,
        }) => Finished {
            admission: Some(admission),
            result,
            signals: Some(signals),
            usage: Some(usage),
            lock: None,
        },
        Err(error) => Finished::without_run(error),
    }
}

/// The options that decide what is told on standard error.
#[derive(Clone, Copy)]
struct Verbosity {
    json: bool,
    quiet: bool,
    verbose: bool,
    /// Whether somebody reads at a terminal. A confined process can no longer ask.
    at_terminal: bool,
}

impl Verbosity {
    fn of(args: &RunArgs) -> Self {
        Self {
            json: args.json || args.json_events,
            quiet: args.quiet,
            verbose: args.verbose,
            at_terminal: stderr().is_terminal(),
        }
    }

    fn speaks(self) -> bool {
        self.verbose || (!self.quiet && !self.json)
    }

    /// Tells the user how the run went; returns the exit code.
    fn tell(self, result: &Result<Report>, signals: Option<&Signals>) -> Result<u8> {
        let report = match result {
            Ok(report) => report,
            Err(error) if self.json => return Ok(code_of(error)),
            Err(error) => return Ok(explain(error)),
        };
        let speaks = self.speaks() || report.gathered.left_out.is_some();
        if let Some(signals) = signals.filter(|_| speaks) {
            signals.until_writable(stderr().as_fd())?;
        }
        if !self.quiet && !self.json {
            tell(report);
            if self.at_terminal {
                tell_of_figures(report);
            }
        }
        if let Some(why) = report.gathered.left_out.as_ref().filter(|_| !self.quiet) {
            tell_error(why);
        }
        if self.verbose {
            describe(report);
        }
        Ok(exit_code::of_report(report))
    }
}
