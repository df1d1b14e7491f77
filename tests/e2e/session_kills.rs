//! Processes of ours that are killed at any moment: nothing of a session is left, or it goes on.

use crate::common::{exit_code, text};
use crate::sessions::{Sessions, WAIT_TIMEOUT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The most that a process is let live before it is killed.
const LIFE: Duration = Duration::from_millis(60);

/// The processes that have this directory as that of their sessions: ours, and none that waits to be reaped.
fn processes(sessions: &Sessions) -> Vec<i32> {
    let directory = sessions.0.path().as_os_str().as_bytes();
    let is_of = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ"));
        environment.is_ok_and(|all| all.windows(directory.len()).any(|part| part == directory))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_of).collect()
}

/// Returns the process of the session `a`, if that is there.
fn process_of_a(sessions: &Sessions) -> Option<i32> {
    let listed = text(&sessions.ask(&["list", "--json"]).stdout);
    let described = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = described
        .into_iter()
        .find(|described| described["name"] == "a");
    found.and_then(|described| Some(described["pid"].as_i64()? as i32))
}

/// A time that differs from round to round, without any pattern that matters.
fn some_time(round: u64) -> Duration {
    LIFE.mul_f64((round.wrapping_mul(2_654_435_761) % 1000) as f64 / 1000.0)
}

fn begin(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().unwrap()
}

/// Kills a process that does one of the things that sessions do, after some time.
fn kill_one(sessions: &Sessions, round: u64) {
    let words: &[&str] = match round % 6 {
        0 => &["start", "b"],
        1 => &["run", "a", "-c", "while True: print('x' * 1000)"],
        2 => &["exec", "a", "--stdin", "/dev/zero", "--", "cat"],
        3 => &["put", "a", "large"],
        4 => &["run", "a", "--language", "bash", "-c", "sleep 900"],
        _ => &["list"],
    };
    let mut child = begin(sessions.command(words).current_dir(sessions.0.path()));
    sleep(some_time(round));
    let victim = match round % 7 {
        // The session itself, whatever its client does.
        0 => process_of_a(sessions),
        _ => None,
    };
    let victim = victim.unwrap_or(child.id() as i32);
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    let end = Instant::now() + WAIT_TIMEOUT;
    if victim != child.id() as i32 {
        while child.try_wait().unwrap().is_none() && Instant::now() < end {
            sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap_or_default();
    }
    child.wait().unwrap();
}

/// Checks that the session answers, or that nothing of it is there; begins another one then.
fn check(sessions: &Sessions, round: u64) {
    let output = sessions.ask(&["run", "a", "-c", "print(1)"]);
    if exit_code(output.status) == 0 {
        return assert_eq!(text(&output.stdout), "1\n", "{round}");
    }
    let said = text(&output.stderr);
    assert!(
        said.contains("is gone") || said.contains("no session a"),
        "{round}: {said}"
    );
    // One that was killed a moment ago may still take a connection, and cuts it.
    let end = Instant::now() + WAIT_TIMEOUT;
    while sessions.socket().exists() && Instant::now() < end {
        sessions.ask(&["list"]);
    }
    assert!(!sessions.socket().exists(), "{round}");
    let started = sessions.ask(&["start", "a"]);
    assert_eq!(text(&started.stdout), "a\n", "{round}: {started:?}");
}

fn kill_at_many_points(rounds: u64) {
    let sessions = Sessions::with(&["--grace", "200ms"]);
    fs::write(sessions.0.path().join("large"), vec![7; 20 << 20]).unwrap();
    for round in 0..rounds {
        kill_one(&sessions, round);
        check(&sessions, round);
    }
    sessions.ask(&["stop", "--all"]);
    // One may still be starting for a client that was killed.
    let end = Instant::now() + WAIT_TIMEOUT;
    while !processes(&sessions).is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(20));
        sessions.ask(&["stop", "--all"]);
    }
    assert_eq!(processes(&sessions), [0; 0]);
    let left = fs::read_dir(sessions.0.path().join("sandbox")).unwrap();
    let left = left.flatten().map(|entry| entry.file_name());
    let sockets = left.filter(|name| name.as_bytes().ends_with(b".sock"));
    assert_eq!(sockets.count(), 0);
}

#[test]
fn a_process_that_is_killed_leaves_a_session_whole_or_nothing() {
    kill_at_many_points(28);
}

#[test]
#[ignore = "it takes minutes"]
fn processes_that_are_killed_at_200_points_leave_nothing() {
    kill_at_many_points(200);
}
