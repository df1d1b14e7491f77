//! The log of runs: its content, whatever happens to its writers.

use crate::agent::{Agent, gone};
use crate::common::{Cache, exit_code, finish, start, text, with_ports};
use crate::record::UNUSUAL;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sandbox::internals::audit::{Sound, verify};
use sandbox::internals::record::{Record, Status};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A log in a directory of its own.
pub struct Log(TempDir);

impl Log {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    /// Returns a `sandbox run` that is logged here.
    fn command(&self, options: &[&str], code: &str) -> Command {
        let mut command = Cache::growing().sandbox(&["run", "--audit"]);
        command.arg(self.path()).args(options).args(["-c", code]);
        command
    }

    fn run(&self, options: &[&str], code: &str) -> Output {
        finish(&mut self.command(options, code), b"")
    }

    /// Writes a policy with this text in its part on the log.
    fn policy(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("policy.toml");
        let text = format!("[audit]\nfile = '{}'\n{text}\n", self.path().display());
        fs::write(&path, text).unwrap();
        path
    }

    pub fn entries(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path()).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[track_caller]
    pub fn sound(&self) -> Sound {
        verify(&self.path(), &[]).unwrap().unwrap()
    }

    /// Runs `sandbox audit verify`; returns its exit code and its output.
    fn verify(&self, options: &[&str]) -> (i32, String) {
        let mut command = Cache::growing().sandbox(&["audit", "verify"]);
        let output = finish(command.arg(self.path()).args(options), b"");
        (exit_code(output.status), text(&output.stdout))
    }
}

fn record(output: &Output) -> Record {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// Waits for a line of the program's; returns the process that runs its guest.
fn child_of(run: &mut Child) -> i32 {
    let mut line = String::new();
    let mut stdout = BufReader::new(run.stdout.as_mut().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let id = run.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    children.trim().parse().unwrap()
}

const WAIT: &str = "print('up', flush=True)\nwhile True: pass";

#[test]
fn a_run_is_written_down_when_it_begins_and_when_it_has_ended() {
    let log = Log::new();
    let output = log.run(&["--env", "SECRET=1", "--json"], "exit(3)");
    assert_eq!(exit_code(output.status), 3, "{}", text(&output.stderr));
    let [start, end] = &log.entries()[..] else {
        panic!("{:?}", log.entries())
    };
    assert_eq!(start["event"], "start");
    assert_eq!(start["code"]["bytes"], 7);
    let hash = format!("{:x}", Sha256::digest(b"exit(3)"));
    assert_eq!(start["code"]["sha256"], hash.as_str());
    assert_eq!(start["environment"], serde_json::json!(["SECRET"]));
    assert_eq!((&end["event"], &end["run"]), (&"end".into(), &1.into()));
    assert_eq!(
        (&end["status"], &end["exit_code"]),
        (&"exited".into(), &3.into())
    );
    assert_eq!(end["process"]["exit"], 3);
    assert!(end["process"]["cpu_ms"].as_f64().unwrap() > 0.0);
    let content = fs::read_to_string(log.path()).unwrap();
    assert!(!content.contains("exit(3)") && !content.contains("SECRET=1"));
    // Where it stands is in the record.
    let anchor = record(&output).audit.unwrap();
    assert_eq!(log.sound().head, anchor);
    let anchor = format!("{}:{}", anchor.sequence, anchor.hash);
    let (code, said) = log.verify(&["--anchor", &anchor]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&anchor), "{said}");
}

#[test]
fn what_no_guest_of_ours_does_is_written_down() {
    let log = Log::new();
    let output = log.run(&[with_ports(), &["--root", "--json"]].concat(), UNUSUAL);
    let told = record(&output).unusual;
    assert!(told.unknown_ports > 0 && told.unknown_services > 0 && told.violations > 0);
    let end = &log.entries()[1];
    assert_eq!(end["unusual"], serde_json::to_value(told).unwrap());
}

#[test]
fn what_a_program_does_is_the_same_whether_it_is_written_down_or_not() {
    let log = Log::new();
    let code = "import sys; print(sys.stdin.read()); 1/0";
    let plain = finish(Cache::growing().sandbox(&["run"]).args(["-c", code]), b"in");
    let logged = finish(&mut log.command(&[], code), b"in");
    assert_eq!(plain, logged);
    assert_eq!(exit_code(logged.status), 1);
}

#[test]
fn code_from_standard_input_and_scripts_are_hashed_as_they_ran() {
    let log = Log::new();
    let script = log.0.path().join("a.py");
    let code = b"print(__name__)\n";
    fs::write(&script, code).unwrap();
    let mut command = Cache::growing().sandbox(&["run", "--audit"]);
    let from_stdin = finish(command.arg(log.path()).arg("-"), code);
    let mut command = Cache::growing().sandbox(&["run", "--audit"]);
    let from_file = finish(command.arg(log.path()).arg(&script), b"");
    let hash = format!("{:x}", Sha256::digest(code));
    let entries = log.entries();
    for (output, start) in [(from_stdin, &entries[0]), (from_file, &entries[2])] {
        assert_eq!(text(&output.stdout), "__main__\n");
        assert_eq!(start["code"]["sha256"], hash.as_str());
    }
}

#[test]
fn code_is_kept_only_where_the_policy_says_so() {
    let log = Log::new();
    let policy = log.policy("code = true");
    let mut command = Cache::growing().sandbox(&["run", "--policy"]);
    finish(command.arg(policy).args(["-c", "print(42)"]), b"");
    assert_eq!(log.entries()[0]["code"]["content"], "print(42)");
}

#[test]
fn a_refusal_and_a_limit_that_was_hit_are_written_down() {
    let log = Log::new();
    let policy = log.policy("\n[run]\nmemory = '256M'");
    let refused = finish(
        Cache::growing()
            .sandbox(&["run", "--memory", "1G", "--policy"])
            .arg(&policy)
            .args(["-c", "pass"]),
        b"",
    );
    assert_eq!(exit_code(refused.status), 125);
    let output = log.run(&["--timeout", "0.3"], "while True: pass");
    assert_eq!(exit_code(output.status), 124);
    let entries = log.entries();
    let events: Vec<_> = entries
        .iter()
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["refusal", "start", "limit", "end"]);
    assert_eq!(entries[0]["what"], "memory");
    assert_eq!(
        (&entries[2]["limit"], &entries[2]["run"]),
        (&"timeout".into(), &2.into())
    );
}

#[test]
fn a_policy_that_says_where_cannot_be_overruled() {
    let log = Log::new();
    let policy = log.policy("");
    let other = log.0.path().join("other");
    let mut command = Cache::growing().sandbox(&["run", "--audit"]);
    let output = finish(
        command
            .arg(&other)
            .arg("--policy")
            .arg(&policy)
            .args(["-c", "print(1)"]),
        b"",
    );
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("--audit"),
        "{}",
        text(&output.stderr)
    );
    assert!(output.stdout.is_empty() && !other.exists());
}

#[test]
fn nothing_runs_that_cannot_be_written_down() {
    let log = Log::new();
    fs::write(log.path(), "something else\n").unwrap();
    let output = log.run(&["--json"], "print(1)");
    assert_eq!(exit_code(output.status), 125);
    assert_eq!(record(&output).status, Status::Error);
    assert_eq!(fs::read(log.path()).unwrap(), b"something else\n");
}

#[test]
fn the_process_that_runs_the_guest_has_nothing_of_the_log() {
    for confine in ["require", "off"] {
        let log = Log::new();
        let mut run = start(&mut log.command(&["--confine", confine], WAIT));
        let child = child_of(&mut run);
        let descriptors = fs::read_dir(format!("/proc/{child}/fd")).unwrap();
        let open: Vec<_> = descriptors
            .filter_map(|entry| entry.unwrap().path().read_link().ok())
            .collect();
        assert!(!open.is_empty() && !open.contains(&log.path()), "{open:?}");
        kill(Pid::from_raw(run.id() as i32), Signal::SIGTERM).unwrap();
        run.wait().unwrap();
    }
}

#[test]
fn a_signal_for_the_process_that_writes_ends_the_run() {
    let log = Log::new();
    let mut run = start(&mut log.command(&[], WAIT));
    child_of(&mut run);
    kill(Pid::from_raw(run.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(exit_code(run.wait().unwrap()), 143);
    assert_eq!(log.entries()[1]["status"], "cancelled");
}

#[test]
fn a_signal_ends_a_run_whose_program_is_still_being_read() {
    let log = Log::new();
    let mut command = Cache::growing().sandbox(&["run", "--audit"]);
    let mut run = start(command.arg(log.path()).arg("-").stdin(Stdio::piped()));
    let id = run.id();
    let children = format!("/proc/{id}/task/{id}/children");
    while fs::read_to_string(&children).unwrap().is_empty() {
        assert!(run.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    kill(Pid::from_raw(id as i32), Signal::SIGTERM).unwrap();
    // A process that has to be killed for it would give 137.
    assert_eq!(exit_code(run.wait().unwrap()), 143);
}

#[test]
fn languages_of_a_callers_own_are_refused_where_runs_are_written_down() {
    let log = Log::new();
    let output = log.run(&["--image", "image.toml"], "pass");
    assert_eq!(exit_code(output.status), 125);
    let said = text(&output.stderr);
    assert!(said.contains("leave out --image"), "{said}");
}

#[test]
fn a_signal_for_all_processes_loses_nothing_of_what_there_was() {
    let log = Log::new();
    let mut command = log.command(&["--quiet", "--json-status-fd", "2"], WAIT);
    let mut run = start(command.process_group(0));
    child_of(&mut run);
    killpg(Pid::from_raw(run.id() as i32), Signal::SIGINT).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(exit_code(output.status), 130);
    // The program's traceback comes before.
    let told = text(&output.stderr);
    assert!(told.contains("KeyboardInterrupt"), "{told}");
    let record: Record = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(record.status, Status::Cancelled);
    assert_eq!(record.memory.limit, 256 << 20);
    assert_eq!(record.stdout_bytes.total, 3);
    assert_eq!(log.entries()[1]["stdout_bytes"]["total"], 3);
}

#[test]
fn a_run_of_an_agent_is_written_down_with_the_processor_time_it_took() {
    let log = Log::new();
    let path = log.0.path().join("audit.jsonl");
    let mut agent = Agent::start(&["--audit", path.to_str().unwrap()]);
    for _ in 0..3 {
        agent.call(serde_json::json!({"code": "print(1)"}));
    }
    let entries = log.entries();
    let ends = entries.iter().filter(|entry| entry["event"] == "end");
    let used: Vec<_> = ends
        .map(|end| end["process"]["cpu_ms"].as_f64().unwrap())
        .collect();
    assert!(used.iter().all(|&used| used > 0.0), "{used:?}");
    // By chance one of them is a number of ticks.
    assert!(used.iter().any(|used| used % 10.0 != 0.0), "{used:?}");
}

#[test]
fn the_end_of_a_process_that_was_taken_over_is_written_down_by_another() {
    let log = Log::new();
    let mut run = start(&mut log.command(&[], WAIT));
    kill(Pid::from_raw(child_of(&mut run)), Signal::SIGKILL).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("SIGKILL"),
        "{}",
        text(&output.stderr)
    );
    let end = &log.entries()[1];
    assert_eq!(
        (&end["status"], &end["process"]["exit"]),
        (&"error".into(), &137.into())
    );
}

#[test]
fn writers_that_are_killed_at_any_time_leave_a_log_that_goes_on() {
    let log = Log::new();
    for turn in 0..60 {
        let mut run = start(&mut log.command(&["--quiet"], "print('up', flush=True)"));
        std::thread::sleep(Duration::from_micros(turn * 500));
        let id = run.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        kill(Pid::from_raw(id as i32), Signal::SIGKILL).unwrap();
        run.wait().unwrap();
        let children = children.unwrap_or_default();
        for child in children.split_whitespace() {
            gone(child.parse().unwrap());
        }
    }
    // One that was certainly killed between its start and its end.
    let mut run = start(&mut log.command(&["--quiet"], WAIT));
    child_of(&mut run);
    kill(Pid::from_raw(run.id() as i32), Signal::SIGKILL).unwrap();
    run.wait().unwrap();
    log.run(&[], "pass");
    let sound = log.sound();
    assert!(!sound.open.is_empty(), "{sound:?}");
    println!("{sound:?}");
    let (code, said) = log.verify(&[]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn many_processes_write_to_one_log_while_its_files_fill_up() {
    let log = Log::new();
    let policy = log.policy("rotate = '4K'");
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let policy = policy.clone();
            std::thread::spawn(move || {
                for _ in 0..5 {
                    let mut command = Cache::growing().sandbox(&["run", "--policy"]);
                    let output = finish(command.arg(&policy).args(["-c", "pass"]), b"");
                    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
                }
            })
        })
        .collect();
    runs.into_iter().for_each(|run| run.join().unwrap());
    let sound = log.sound();
    assert_eq!((sound.entries, sound.torn), (80, 0));
    assert!(sound.open.is_empty(), "{sound:?}");
    assert!(log.0.path().join("audit.jsonl.5").exists());
}

#[test]
fn a_log_that_was_changed_is_told_with_the_place() {
    let log = Log::new();
    for _ in 0..3 {
        log.run(&[], "pass");
    }
    let head = log.sound().head;
    let anchor = format!("{}:{}", head.sequence, head.hash);
    let content = fs::read_to_string(log.path()).unwrap();
    let lines: Vec<_> = content.lines().collect();
    let edited = content.replacen("\"exit_code\":0", "\"exit_code\":1", 1);
    let removed = [&lines[..3], &lines[4..], &[""]].concat().join("\n");
    let cut = [&lines[..4], &[""]].concat().join("\n");
    for (changed, options, place) in [
        (&edited, [].as_slice(), "line 2"),
        (&removed, &[], "line 4"),
        (&cut, &["--anchor", &anchor], "entry 6 was kept"),
    ] {
        fs::write(log.path(), changed).unwrap();
        let (code, said) = log.verify(options);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(place), "{said}");
    }
}
