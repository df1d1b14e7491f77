//! A guest that says anything at any time.

use super::steps;
use arbitrary::Arbitrary;
use guest::{File, JobFrame};
use sandbox::internals::agent::{Session, Shared, Sink};
use sandbox::internals::devices::Violation;
use sandbox::internals::devices::vsock::Peer;
use sandbox::internals::image::Image;
use sandbox::internals::job::{Job, rehearsal};
use sandbox::internals::vm::HypercallHandler;
use std::sync::Arc;

const OUTPUT_LIMIT: u64 = 1000;

#[derive(Debug, Arbitrary)]
enum Step {
    Connect,
    Disconnect,
    Bytes(Vec<u8>),
    Frame {
        kind: u8,
        payload: Vec<u8>,
    },
    Take {
        room: u16,
    },
    Output {
        stream: u8,
        bytes: Vec<u8>,
    },
    JobFrame {
        room: u16,
    },
    Files {
        room: u16,
    },
    NoFiles {
        errno: u8,
    },
    Exit {
        status: u8,
    },
    WantStdin,
    Input {
        room: u16,
    },
    /// Of the host: standard input for the guest.
    Stdin {
        bytes: Vec<u8>,
    },
}

/// No panic; never more than there is room for, nor more output than its limit.
pub fn session(data: &[u8]) {
    let Some((&way, script)) = data.split_first() else {
        return;
    };
    let shared = Arc::new(Shared::new().unwrap());
    let mut session = start(way, Arc::clone(&shared));
    for step in steps(script) {
        if take(&mut session, &shared, step).is_err() || session.is_done() {
            break;
        }
    }
    let report = session.take_report();
    let (_, totals, _) = session.into_result();
    for totals in totals {
        assert!(totals.delivered <= totals.total.min(OUTPUT_LIMIT));
    }
    let forms = report
        .displays
        .iter()
        .chain(&report.result)
        .flat_map(|bundle| bundle.values());
    // A byte that is no text is told as one of three.
    assert!(
        forms
            .filter_map(|form| form.as_str())
            .map(str::len)
            .sum::<usize>()
            <= 3 * OUTPUT_LIMIT as usize
    );
}

fn start(way: u8, shared: Arc<Shared>) -> Session {
    let null = std::fs::File::create("/dev/null").unwrap();
    let sinks = [(); 2].map(|()| Sink::new(&null, OUTPUT_LIMIT).unwrap());
    let work = Job {
        frame: JobFrame {
            argv: vec![b"python3".to_vec()],
            ..JobFrame::default()
        },
        script: None,
        files: vec![File::default()],
        record: way >= 128,
        ..rehearsal(
            (Image::built_in(), Image::built_in().default_language()),
            false,
            "",
        )
    };
    match way % 3 {
        0 => Session::cold(work, sinks, shared),
        1 => Session::warming(work.frame, Vec::new(), sinks, shared),
        _ => Session::warm(work, sinks, shared),
    }
}

fn take(session: &mut Session, shared: &Shared, step: Step) -> Result<(), Violation> {
    match step {
        Step::Connect => session.connected(),
        Step::Disconnect => session.disconnected(),
        Step::Bytes(bytes) => session.receive(&bytes)?,
        Step::Frame { kind, payload } => {
            let mut bytes = vec![kind % 8];
            bytes.extend((payload.len() as u32).to_le_bytes());
            bytes.extend(payload);
            session.receive(&bytes)?;
        }
        Step::Take { room } => {
            assert!(session.transmit(room.into()).len() <= room.into());
        }
        Step::Output { stream, bytes } => session.output(stream % 6, &bytes)?,
        Step::JobFrame { room } => {
            let piece = session.job(room.into()).unwrap_or_default();
            assert!(piece.len() <= room.into());
        }
        Step::Files { room } => assert!(session.files(room.into()).len() <= room.into()),
        Step::NoFiles { errno } => session.no_files(errno),
        Step::Exit { status } => session.exited(status),
        Step::WantStdin => session.wants_stdin(),
        Step::Input { room } => assert!(session.input(room.into()).len() <= room.into()),
        Step::Stdin { bytes } => {
            let room = shared.stdin_room();
            if room > 0 {
                shared.give_stdin(bytes[..room.min(bytes.len())].into());
            }
        }
    }
    Ok(())
}
