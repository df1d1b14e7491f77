//! `sandbox run`.

use crate::cli::admission::{self, Gate};
use crate::cli::exit_code;
use crate::cli::messages::{Progress, code_of, describe, explain, say, tell};
use crate::cli::options::RunArgs;
use crate::cli::record_writer::{Writer, told};
use crate::cli::request::{CAPTURED, Given, request};
use crate::cli::supervisor::{Side, Supervisor};
use crate::kvm_mode::Device;
use crate::limits::ConfineLevel;
use crate::run::{Report, Request, prepare, record_of, run};
use crate::signals::Signals;
use anyhow::Result;
use clap::ArgMatches;
use std::io::stderr;
use std::mem::forget;
use std::os::fd::AsFd;
use std::time::Instant;

pub fn run_verb(args: RunArgs, matches: &ArgMatches, kvm: Device) -> Result<u8> {
    let began = Instant::now();
    let (json, memory, tells) = (
        args.json,
        args.memory,
        args.json || args.json_status_fd.is_some(),
    );
    let writer = Writer::open(json, args.json_status_fd)?;
    let given = Given(matches.subcommand_matches("run"));
    let (gate, writer) = match admission::prepare(&args) {
        Err(error) => (Err(error), writer),
        Ok((policy, None)) => (
            Ok(Gate {
                ceiling: policy.run,
                entrance: None,
            }),
            writer,
        ),
        Ok((policy, Some((log, keep_code)))) => match Supervisor::split(log, keep_code)? {
            Side::Parent(supervisor) => {
                let kept = args.max_output.unwrap_or(CAPTURED);
                return supervisor.attend(writer, if json { kept } else { 0 }, memory);
            }
            Side::Child(entrance) => {
                let writer = Writer::new(&entrance.parent)?;
                let gate = Gate {
                    ceiling: policy.run,
                    entrance: Some(entrance),
                };
                (Ok(gate), Some(writer))
            }
        },
    };
    let supervised = gate.as_ref().is_ok_and(|gate| gate.entrance.is_some());
    let result = gate.and_then(|gate| carry_out(args, &given, kvm, gate, writer.as_ref(), tells));
    let code = match &result {
        Ok((report, _)) => exit_code::of_report(report),
        Err(error) if json => code_of(error),
        Err(error) => explain(error),
    };
    let Some(writer) = writer else {
        return Ok(code);
    };
    let (record, signals) = match result {
        Ok((report, signals)) => (record_of::report(report), signals),
        Err(error) => (record_of::failure(&error, memory, began.elapsed()), None),
    };
    // A supervisor reads whatever comes, and may pass a signal on that has come already.
    let obeyed = signals.as_ref().filter(|_| !supervised);
    let code = writer.write(&told(record), obeyed)?.unwrap_or(code);
    if supervised {
        // Nor is it to end us now, after all has been told.
        forget(signals);
    }
    Ok(code)
}

/// One run, from what the user asks to how it went; and the signals, where a record is to be written.
fn carry_out(
    args: RunArgs,
    given: &Given,
    kvm: Device,
    gate: Gate,
    writer: Option<&Writer>,
    tells: bool,
) -> Result<(Report, Option<Signals>)> {
    let (verbose, quiet, json) = (args.verbose, args.quiet, args.json);
    let request = Request {
        tells,
        ..request(args, given, kvm, &gate, writer)?
    };
    if request.confine == ConfineLevel::Off {
        say("--confine=off: what escapes from the guest has all the rights of this user");
    }
    let prepared = prepare(&request)?;
    gate.pass(&request, &prepared.work)?;
    let (report, signals) = run(&request, prepared, &mut Progress { quiet })?;
    let signals = writer.map(|_| signals);
    let speaks = verbose || (!quiet && !json);
    if let Some(signals) = signals.as_ref().filter(|_| speaks) {
        signals.until_writable(stderr().as_fd())?;
    }
    if !quiet && !json {
        tell(&report);
    }
    if verbose {
        describe(&report);
    }
    Ok((report, signals))
}
