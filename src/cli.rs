//! Arguments in, exit code out.

use crate::doctor;
use crate::job::{Complaint, Program, program_named};
use crate::limits::Limits;
use crate::outcome::{EXIT_OURS, Outcome};
use crate::run::{Report, Request, run};
use crate::vm::host::Problem;
use crate::warm::Listener;
use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::time::Duration;

/// Run untrusted code in a virtual machine of its own
#[derive(Parser)]
#[command(name = "sandbox", version, max_term_width = 100)]
struct Cli {
    /// The KVM device
    #[arg(
        long,
        global = true,
        env = "SANDBOX_KVM",
        default_value = "/dev/kvm",
        value_name = "PATH"
    )]
    kvm: PathBuf,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a Python script, code, or standard input (-) in a virtual machine
    #[command(
        override_usage = "sandbox run [OPTIONS] SCRIPT [--] [ARGS]...\n       \
        sandbox run [OPTIONS] -c CODE [--] [ARGS]...\n       \
        sandbox run [OPTIONS] - [--] [ARGS]..."
    )]
    Run(RunArgs),
    /// Say whether this host can run sandboxes, and what to do where it cannot
    Doctor {
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Code to run instead of a script
    #[arg(short, value_name = "CODE")]
    code: Option<OsString>,
    /// Guest memory, for example 512M or 1G
    #[arg(short, long, env = "SANDBOX_MEMORY", value_name = "SIZE", default_value = "256M", value_parser = parse_memory)]
    memory: u64,
    /// Wall-clock limit of the program: seconds, or with a unit (30s, 2m, 1h); 0 for none
    #[arg(short, long, env = "SANDBOX_TIMEOUT", value_name = "DURATION", default_value = "60", value_parser = parse_timeout)]
    timeout: Timeout,
    /// Most bytes delivered of each output stream; the rest is dropped and counted
    #[arg(long, env = "SANDBOX_MAX_OUTPUT", value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    max_output: u64,
    /// Most processes and threads at once
    #[arg(long, env = "SANDBOX_PIDS_LIMIT", value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    pids_limit: u32,
    /// Run the program as the guest's root
    #[arg(long)]
    root: bool,
    /// Boot a machine for this run alone, instead of restoring a saved one
    #[arg(long, env = "SANDBOX_FRESH")]
    fresh: bool,
    /// Check all of the saved machine before it is restored
    #[arg(long, env = "SANDBOX_VERIFY")]
    verify: bool,
    /// Show the guest kernel's log on standard error
    #[arg(long)]
    console: bool,
    /// Say on standard error how the run went
    #[arg(long, conflicts_with = "quiet")]
    verbose: bool,
    /// Say nothing beyond the program's own output
    #[arg(short, long)]
    quiet: bool,
    /// A script (- for standard input), then the program's arguments
    #[arg(value_name = "SCRIPT [ARGS]", trailing_var_arg = true)]
    words: Vec<OsString>,
}

/// A time limit, if any.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Timeout(Option<Duration>);

/// Does what the arguments say; gives the exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = match cli.command {
        Verb::Run(args) => run_verb(args, cli.kvm),
        Verb::Doctor { json } => doctor::doctor(&cli.kvm, json),
    };
    result.unwrap_or_else(|error| explain(&error))
}

fn run_verb(args: RunArgs, kvm: PathBuf) -> Result<u8> {
    let (verbose, quiet) = (args.verbose, args.quiet);
    let request = request(args, kvm)?;
    let report = run(&request, &mut Progress { quiet })?;
    if !quiet {
        tell(&report, &request.limits);
    }
    if verbose {
        describe(&report);
    }
    Ok(report.outcome.exit_code())
}

/// Tells the user why it takes longer this time.
struct Progress {
    quiet: bool,
}

impl Listener for Progress {
    fn refused(&mut self, why: &str) {
        if !self.quiet {
            say(&format!("the template is built again: {why}"));
        }
    }

    fn waiting(&mut self) {
        if !self.quiet {
            say("waiting for another process that builds the template");
        }
    }

    fn building(&mut self, stage: &str, elapsed: Duration, last: Option<Duration>) {
        if self.quiet || !stderr().is_terminal() {
            return;
        }
        let last = last.map_or(String::new(), |last| {
            format!(" (last time {:.0} s)", last.as_secs_f64())
        });
        let seconds = elapsed.as_secs_f64();
        write!(
            stderr(),
            "\r\x1b[Ksandbox: building a template, once: {stage}, {seconds:.0} s{last}"
        )
        .unwrap_or_default();
    }

    fn built(&mut self, _elapsed: Duration) {
        if !self.quiet && stderr().is_terminal() {
            write!(stderr(), "\r\x1b[K").unwrap_or_default();
        }
    }
}

fn request(args: RunArgs, kvm: PathBuf) -> Result<Request, Complaint> {
    let mut words = args.words.into_iter();
    let program = match (args.code, words.next()) {
        (Some(code), first) => {
            // With -c, every word is an argument.
            words = first
                .into_iter()
                .chain(words)
                .collect::<Vec<_>>()
                .into_iter();
            Program::Code(code)
        }
        (None, Some(name)) => program_named(&name),
        (None, None) => {
            return Err(Complaint {
                what: "there is nothing to run".into(),
                remedy: "name a script, or give code after -c, or - to read it from standard input"
                    .into(),
                exit_code: EXIT_OURS,
            });
        }
    };
    let mut arguments: Vec<_> = words.collect();
    // After -c, clap has taken it already.
    let separated = arguments.first().is_some_and(|word| word == "--");
    if separated && !matches!(program, Program::Code(_)) {
        arguments.remove(0);
    }
    Ok(Request {
        program,
        arguments,
        limits: Limits {
            memory: args.memory,
            timeout: args.timeout.0,
            max_output: args.max_output,
            pids: args.pids_limit,
        },
        root: args.root,
        kvm,
        show_console: args.console,
        fresh: args.fresh,
        verify: args.verify,
    })
}

/// What the user must know beyond the program's own output.
fn tell(report: &Report, limits: &Limits) {
    for (name, totals) in ["standard output", "standard error"]
        .iter()
        .zip(report.output)
    {
        if totals.total > limits.max_output {
            say(&format!(
                "{name} was cut at {} of {} bytes\nallow more with --max-output",
                totals.delivered, totals.total
            ));
        }
    }
    if let Some(explanation) = report.outcome.explanation(limits) {
        say(&explanation);
    }
    if let Outcome::Crashed(_) = report.outcome {
        for line in &report.last_words {
            say(&format!("the guest's console: {line}"));
        }
    }
}

fn describe(report: &Report) {
    let seconds = |duration: Option<Duration>| match duration {
        Some(duration) => format!("{:.3} s", duration.as_secs_f64()),
        None => "none".into(),
    };
    let (timings, counters) = (report.timings, report.counters);
    say(&format!(
        "{:?}, {:?} on a {} KVM: setup {}, kernel {}, agent {}, first output {}, program {}, teardown {}",
        report.outcome,
        report.path,
        report.family.name(),
        seconds(Some(timings.setup)),
        seconds(timings.kernel),
        seconds(timings.agent),
        seconds(timings.first_output),
        seconds(timings.program),
        seconds(Some(timings.teardown)),
    ));
    say(&format!(
        "{} exits: {} port I/O ({} services), {} memory I/O, {} assists",
        counters.exits,
        counters.port_io,
        counters.services,
        counters.memory_io,
        counters.assists,
    ));
}

/// Help and version are no errors; all else is ours.
fn refuse(error: &clap::Error) -> u8 {
    // Nothing can be done about a closed standard stream here.
    error.print().unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => EXIT_OURS,
    }
}

/// One line saying what failed, one saying what to do.
fn explain(error: &anyhow::Error) -> u8 {
    if let Some(complaint) = error.downcast_ref::<Complaint>() {
        say(&format!("{complaint}\n{}", complaint.remedy));
        return complaint.exit_code;
    }
    if let Some(problem) = error.downcast_ref::<Problem>() {
        say(&format!("{problem}\n{}", problem.remedy()));
        return EXIT_OURS;
    }
    say(&format!(
        "{error:#}\nrun sandbox doctor to see what this host lacks"
    ));
    EXIT_OURS
}

/// To standard error, if anybody still reads it.
fn say(text: &str) {
    for line in text.lines() {
        writeln!(stderr(), "sandbox: {line}").unwrap_or_default();
    }
}

/// Bytes with an optional binary unit: `1048576`, `1024K`, `1M`, `1G`, `1MiB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("no such unit {unit}; use K, M or G")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "give a size such as 512M or 1G".into())
}

/// Memory in whole pieces of 2 MiB, within what a guest can have.
fn parse_memory(text: &str) -> Result<u64, String> {
    const PIECE: u64 = 2 << 20;
    const LEAST: u64 = 64 << 20;
    const MOST: u64 = 64 << 30;
    let size = parse_size(text)?;
    if !(LEAST..=MOST).contains(&size) {
        return Err("a guest has between 64M and 64G".into());
    }
    Ok(size.next_multiple_of(PIECE))
}

/// timeout(1)'s grammar: a number, with an optional unit s, m, h or d.
fn parse_timeout(text: &str) -> Result<Timeout, String> {
    let wrong = || "give seconds, or a number with s, m, h or d".to_string();
    let (number, unit) = match text.char_indices().last() {
        Some((position, unit)) if unit.is_ascii_alphabetic() => (&text[..position], unit),
        _ => (text, 's'),
    };
    let seconds = match unit {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        'd' => 86400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let limit = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    Ok(Timeout((!limit.is_zero()).then_some(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_grammar_of_timeout() {
        let seconds = |s| Ok(Timeout(Some(Duration::from_secs_f64(s))));
        for (text, expected) in [
            ("30", seconds(30.0)),
            ("30s", seconds(30.0)),
            ("0.5", seconds(0.5)),
            ("2m", seconds(120.0)),
            ("1.5h", seconds(5400.0)),
            ("1d", seconds(86400.0)),
            ("0", Ok(Timeout(None))),
            ("0s", Ok(Timeout(None))),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
        for wrong in ["", "s", "-1", "1w", "1 s", "NaN", "inf", "1e400", "ü"] {
            assert!(parse_timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64k", 64 << 10),
            ("256M", 256 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for wrong in ["", "M", "-1M", "1T", "1.5G", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_option_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
