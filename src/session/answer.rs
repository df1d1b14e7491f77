//! The answer that tells how a cell ended.

use crate::agent::CellReport;
use crate::error::Error;
use crate::files::{Fetched, Gathered};
use crate::outcome::Outcome;
use crate::record::State;
use crate::run::{Report, Timings, record_of};
use crate::session::facts::Facts;
use crate::session::protocol::Message;
use crate::session::turn::Turn;
use crate::vm::Counters;
use guest::Exit;

/// Returns the message that tells how a cell ended, and what the session has left after it.
pub fn end_message(
    facts: &Facts,
    turn: &Turn,
    outcome: Outcome,
    told: CellReport,
    (state, why): (State, Option<String>),
) -> Message {
    let mut limits = facts.limits.clone();
    limits.timeout = turn.timeout;
    let report = Report {
        path: facts.path,
        template: facts.template.clone(),
        outcome,
        limits,
        output: told.output,
        kept: vec![None, None],
        told: told.report,
        gathered: Gathered::default(),
        fetched: Fetched::default(),
        timings: Timings {
            total: turn.asked.elapsed(),
            program: Some(turn.began.elapsed()),
            ..Timings::default()
        },
        counters: Counters::default(),
        unknown: Default::default(),
        peak: None,
        mode: facts.mode,
        confinement: facts.confinement.clone(),
        last_words: Vec::new(),
        missing_module: None,
    };
    let (mut record, error) = record_of::report(report);
    record.session = Some(facts.name.clone());
    record.state = Some(state);
    record.state_reason = why;
    facts.ended(turn.number, &mut record);
    Message::Ended {
        cell: turn.number,
        record: Box::new(record),
        error: error.map(Error::in_session),
    }
}

/// Returns how a cell ended that ended its interpreter, and why that was started anew.
pub fn end_of(turn: &Turn, exit: Exit) -> (Outcome, String) {
    if turn.is_killed() {
        let why = "the cell went on after it was interrupted, so its interpreter was ended";
        let outcome = match turn.is_late {
            true => Outcome::TimedOut,
            false => Outcome::Interrupted(libc::SIGINT as u8),
        };
        return (outcome, why.into());
    }
    (exit.into(), ended(exit))
}

/// Says how an interpreter ended.
pub fn ended(exit: Exit) -> String {
    match exit {
        Exit::Exited(status) => format!("the interpreter exited with {status}"),
        Exit::Signaled {
            out_of_memory: true,
            ..
        } => "memory ran out, and the interpreter was ended".into(),
        Exit::Signaled { signal, .. } => format!("signal {signal} ended the interpreter"),
        Exit::NotStarted(_) => "the interpreter could not be started".into(),
    }
}
