//! Messages to the user, on standard error.

use crate::cli::exit_code;
use crate::cli::remedies::words;
use crate::confine::Layer;
use crate::error::{Error, Remedy};
use crate::files::Fetched;
use crate::log::say;
use crate::outcome::Outcome;
use crate::record::Bytes;
use crate::run::Report;
use crate::run::advice::{of_exception, of_module};
use crate::run::record_of::explained;
use crate::template::builder::Interrupted;
use std::time::Duration;

/// The option that allows a run more output.
pub const MAX_OUTPUT: &str = "--max-output";

/// Tells the user what they must know beyond the program's own output.
pub fn tell(report: &Report) {
    let streams = report.output.map(|totals| Bytes {
        captured: totals.delivered,
        total: totals.total,
        // A reader who is gone misses the rest of what is within the limit.
        omitted: match totals.total > report.limits.max_output {
            true => totals.total - totals.delivered,
            false => 0,
        },
    });
    tell_cut(&streams, MAX_OUTPUT);
    if let Some(explanation) = report.explanation() {
        tell_error(&explanation);
    }
    if let Outcome::Crashed(_) = report.outcome {
        for line in &report.last_words {
            say(&format!("the guest's console: {line}"));
        }
    }
    tell_of_module(report);
    tell_of_files(&report.fetched, words);
}

/// Says which package has the module for want of which the program ended, if that is known, and what else helps
/// who named a module that there is not.
fn tell_of_module(report: &Report) {
    /// The status of an interpreter that ended by an exception.
    const EXCEPTION: u8 = 1;
    let exception = report.told.exception.as_ref();
    let to_run = report.missing_module.as_deref();
    let remedy = exception
        .and_then(of_exception)
        .or_else(|| to_run.map(of_module));
    if !matches!(report.outcome, Outcome::Exited(EXCEPTION)) {
        return;
    }
    match (remedy, to_run) {
        (
            Some(
                remedy @ Remedy::BringModule {
                    distribution: Some(_),
                    ..
                },
            ),
            _,
        ) => say(&words(&remedy)),
        (_, Some(name)) => say(&format!(
            "there is no module {name} here: check its name, or bring it with --put, \
             or the package that has it with --with"
        )),
        _ => {}
    }
}

/// Says to somebody at a terminal that there are figures which they will not see.
pub fn tell_of_figures(report: &Report) {
    let figures = report.told.lost_figures;
    let lost = match report.fetched.files.count {
        0 => figures.open,
        // What was drawn may be among the files.
        _ => figures.undrawn,
    };
    if lost > 0 {
        let what = match lost {
            1 => "1 figure is".into(),
            count => format!("{count} figures are"),
        };
        say(&format!(
            "{what} lost: keep it with --show-dir DIR, or save it in the program and take the file: --get plot.png"
        ));
    }
}

/// Tells of what was cut of standard output and standard error, and which words allow more.
pub fn tell_cut(streams: &[Bytes; 2], words: &str) {
    for (name, bytes) in ["standard output", "standard error"].iter().zip(streams) {
        if bytes.omitted > 0 {
            say(&format!(
                "{name} was cut at {} of {} bytes\nallow more with {words}, within the limits of a policy",
                bytes.captured, bytes.total
            ));
        }
    }
}

/// Tells of files that were not fetched, with remedies in these words.
pub fn tell_of_files(fetched: &Fetched, words: fn(&Remedy) -> String) {
    /// How many names are listed of each kind.
    const READ: usize = 5;
    for (what, names) in [
        ("not fetched", &fetched.missing),
        ("left out, neither file nor directory", &fetched.left_out),
    ] {
        for name in names.first.iter().take(READ) {
            say(&format!("{what}: {name}"));
        }
        let more = names.count.saturating_sub(READ);
        if more > 0 {
            say(&format!("{what}: {more} more"));
        }
    }
    match &fetched.failure {
        Some(failure) => say(&format!("{}\n{}", failure.message, words(&failure.remedy))),
        None if fetched.missing.count > 0 => say(&words(&Remedy::MakeFiles)),
        None => {}
    }
}

pub fn describe(report: &Report) {
    let seconds = |duration: Option<Duration>| match duration {
        Some(duration) => format!("{:.4} s", duration.as_secs_f64()),
        None => "none".into(),
    };
    let (timings, counters) = (report.timings, report.counters);
    say(&format!(
        "{}, in a machine that was {} ({}): setup {}, kernel {}, agent {}, first output {}, program {}, teardown {}",
        report.ended(),
        report.path,
        report.mode,
        seconds(Some(timings.setup)),
        seconds(timings.kernel),
        seconds(timings.agent),
        seconds(timings.first_output),
        seconds(timings.program),
        seconds(Some(timings.teardown)),
    ));
    say(&format!(
        "{} exits: {} port I/O ({} services), {} memory I/O, {} assists",
        counters.exits, counters.port_io, counters.services, counters.memory_io, counters.assists,
    ));
    let layers: Vec<_> = report.confinement.iter().map(Layer::to_string).collect();
    say(&match layers.as_slice() {
        [] => "not confined".into(),
        layers => format!("confined: {}", layers.join(", ")),
    });
}

/// Prints what failed and what to do about it. Returns the exit code.
pub fn explain(error: &anyhow::Error) -> u8 {
    if let Ok(error) = explained(error) {
        tell_error(&error);
    }
    code_of(error)
}

/// Returns the exit code for a failure.
pub fn code_of(error: &anyhow::Error) -> u8 {
    match explained(error) {
        Ok(error) => exit_code::of_kind(error.kind),
        Err(Interrupted(signal)) => exit_code::EXIT_SIGNALED + signal,
    }
}

pub fn tell_error(error: &Error) {
    say(&in_words(error));
}

/// Returns what failed and what to do about it, each as a line.
pub fn in_words(error: &Error) -> String {
    format!("{}\n{}", error.message, words(&error.remedy))
}
