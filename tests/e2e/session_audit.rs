//! What the log of runs has of sessions, and who writes it.

use crate::agent::Agent;
use crate::audit::Log;
use crate::common::{exit_code, text};
use crate::sessions::{Sessions, WAIT_TIMEOUT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Starts a session `a` that is logged.
fn logged(log: &Log, options: &[&str]) -> Sessions {
    let sessions = Sessions::new();
    let mut command = sessions.command(&["start", "a", "--audit"]);
    let started = command.arg(log.path()).args(options).output().unwrap();
    assert_eq!(text(&started.stdout), "a\n", "{}", text(&started.stderr));
    sessions
}

fn events(log: &Log) -> Vec<String> {
    let entries = log.entries();
    let events = entries.iter().map(|entry| entry["event"].as_str().unwrap());
    events.map(String::from).collect()
}

/// Waits until the last entry of the log is the end of a session; returns it.
fn last(log: &Log) -> Value {
    let end = Instant::now() + WAIT_TIMEOUT;
    loop {
        let last = log.entries().pop().unwrap();
        if last["event"] == "session_end" || Instant::now() > end {
            return last;
        }
        sleep(Duration::from_millis(10));
    }
}

/// Returns the processes of the session `a`: its own and its keeper.
fn processes(sessions: &Sessions) -> (i32, i32) {
    let listed = sessions.ask(&["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let pid = listed["pid"].as_i64().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ');
    let parent = fields.clone().nth(1).unwrap().parse().unwrap();
    (pid as i32, parent)
}

fn ask(sessions: &Sessions, arguments: &[&str]) -> Output {
    sessions.ask(&[&["run", "a"], arguments].concat())
}

#[test]
fn the_start_of_a_session_each_cell_and_its_end_are_written_down() {
    let log = Log::new();
    let sessions = logged(&log, &["--env", "SECRET=of-session", "--idle", "1h"]);
    let output = ask(&sessions, &["--json", "-c", "secret = 'in code'"]);
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["audit"]["sequence"], 3, "{record}");
    ask(
        &sessions,
        &["--timeout", "9", "-c", "import os; os._exit(3)"],
    );
    sessions.ask(&["stop", "a"]);
    let end = last(&log);
    let expected = ["session", "start", "end", "start", "end", "session_end"];
    assert_eq!(events(&log), expected);
    let [session, first, kept, second, reset, _] = &log.entries()[..] else {
        panic!("{:?}", log.entries())
    };
    assert_eq!(session["session"], "a");
    assert_eq!(session["idle_s"], 3600.0);
    assert_eq!(session["environment"], json!(["SECRET"]));
    assert_eq!(
        (&first["session"], &first["code"]["bytes"]),
        (&json!("a"), &json!(18))
    );
    assert_eq!(second["limits"]["timeout_s"], 9.0);
    assert_eq!((&kept["run"], &kept["state"]), (&json!(2), &json!("kept")));
    assert_eq!(
        (&reset["run"], &reset["state"]),
        (&json!(4), &json!("reset"))
    );
    assert!(kept["process"]["wall_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&end["run"], &end["why"]),
        (&json!(1), &json!("it was asked to stop"))
    );
    assert!(end["process"]["cpu_ms"].as_f64().unwrap() > 0.0, "{end}");
    // Not by a system call that it had given up.
    assert_eq!(end["process"]["exit"], 0);
    let content = fs::read_to_string(log.path()).unwrap();
    assert!(!content.contains("of-session") && !content.contains("in code"));
    let sound = log.sound();
    assert_eq!((sound.entries, sound.open), (6, vec![]));
}

#[test]
fn a_sessions_process_has_nothing_of_the_log_and_ends_with_its_keeper() {
    let log = Log::new();
    let sessions = logged(&log, &[]);
    let (session, keeper) = processes(&sessions);
    let opened = |process: i32| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let files = files.map(|file| fs::read_link(file.unwrap().path()).unwrap());
        files.filter(|file| *file == log.path()).count()
    };
    assert_eq!((opened(session), opened(keeper)), (0, 1));
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    let end = Instant::now() + WAIT_TIMEOUT;
    let is_there = || {
        let stat = fs::read_to_string(format!("/proc/{session}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while is_there() && Instant::now() < end {
        sleep(Duration::from_millis(10));
    }
    assert!(!is_there());
    // As of a run that was killed with whoever would have written its end.
    assert_eq!(log.sound().open, [1]);
}

#[test]
fn a_session_whose_process_is_killed_has_its_end_in_the_log() {
    let log = Log::new();
    let sessions = logged(&log, &[]);
    let (session, _) = processes(&sessions);
    kill(Pid::from_raw(session), Signal::SIGKILL).unwrap();
    let end = last(&log);
    assert_eq!(end["process"]["exit"], 128 + 9, "{end}");
    assert_eq!(end["why"], "its process ended");
}

#[test]
fn a_cell_that_cannot_be_written_down_does_not_run() {
    let log = Log::new();
    let sessions = logged(&log, &[]);
    // In its place is something that no log can be.
    fs::rename(log.path(), log.path().with_extension("away")).unwrap();
    fs::create_dir(log.path()).unwrap();
    let output = ask(&sessions, &["-c", "open('made', 'w')"]);
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    assert!(stderr.contains("log of runs cannot be written"), "{stderr}");
    fs::remove_dir(log.path()).unwrap();
    fs::rename(log.path().with_extension("away"), log.path()).unwrap();
    let output = ask(
        &sessions,
        &["-c", "import os; print(os.path.exists('made'))"],
    );
    assert_eq!(text(&output.stdout), "False\n", "{}", text(&output.stderr));
}

#[test]
fn a_server_writes_down_its_clients_sessions_and_their_ends() {
    let log = Log::new();
    let path = log.path();
    let mut agent = Agent::start(&["--audit", path.to_str().unwrap()]);
    let result = agent.call(json!({"code": "x = 1", "session": "mine"}));
    assert_eq!(result["structuredContent"]["state"], "kept", "{result}");
    let server = Pid::from_raw(agent.server.child.id() as i32);
    kill(server, Signal::SIGTERM).unwrap();
    exit_code(agent.server.child.wait().unwrap());
    assert_eq!(events(&log), ["start", "session", "end", "session_end"]);
    let entries = log.entries();
    for entry in &entries[..2] {
        assert_eq!(
            (&entry["session"], &entry["client"]),
            (&json!("mine"), &json!("stdio"))
        );
    }
    assert_eq!(entries[2]["state"], "kept");
    assert_eq!(entries[3]["run"], 2);
    assert_eq!(log.sound().open, [0u64; 0]);
}

#[test]
fn commands_of_a_session_are_written_down_by_their_words() {
    let log = Log::new();
    let sessions = logged(&log, &["--env", "ALL=1"]);
    let command = ["exec", "a", "--env", "OWN=2", "--", "sh", "-c", "exit 4"];
    let output = sessions.ask(&command);
    assert_eq!(exit_code(output.status), 4, "{}", text(&output.stderr));
    let [_, start, end] = &log.entries()[..] else {
        panic!("{:?}", log.entries())
    };
    assert_eq!(
        (&start["language"], &start["arguments"]),
        (&json!("command"), &json!(2))
    );
    assert_eq!(start["code"]["bytes"], "sh -c exit 4".len());
    assert_eq!(start["environment"], json!(["OWN"]));
    assert_eq!(
        (&end["exit_code"], &end["state"]),
        (&json!(4), &json!("kept"))
    );
}

#[test]
fn what_goes_on_from_a_logged_session_is_in_a_log_too() {
    let log = Log::new();
    let sessions = logged(&log, &[]);
    let fork = |log: Option<&Log>| {
        let mut command = sessions.command(&["fork", "a", "-n", "2"]);
        command.envs(log.map(|log| ("SANDBOX_AUDIT", log.path())));
        command.output().unwrap()
    };
    let refused = fork(None);
    let stderr = text(&refused.stderr);
    assert_eq!(exit_code(refused.status), 125, "{stderr}");
    assert!(
        stderr.contains("a log is kept of the session a"),
        "{stderr}"
    );
    assert_eq!(events(&log), ["session"]);

    let forked = fork(Some(&log));
    assert_eq!(
        text(&forked.stdout),
        "a-1\na-2\n",
        "{}",
        text(&forked.stderr)
    );
    assert_eq!(events(&log), ["session", "save", "session", "session"]);
    let entries = log.entries();
    assert_eq!(
        (&entries[1]["run"], &entries[1]["purpose"]),
        (&json!(1), &json!("fork"))
    );
    let from = |entry: &Value| (entry["session"].clone(), entry["from"].clone());
    let mut children = [from(&entries[2]), from(&entries[3])];
    children.sort_by_key(|(name, _)| name.to_string());
    assert_eq!(
        children,
        ["a-1", "a-2"].map(|name| (json!(name), json!("a")))
    );
    assert_eq!(from(&entries[0]), (json!("a"), Value::Null));

    let output = sessions.ask(&["run", "a-2", "-c", "print('of a child')"]);
    assert_eq!(
        text(&output.stdout),
        "of a child\n",
        "{}",
        text(&output.stderr)
    );
    let [.., start, end] = &log.entries()[..] else {
        panic!("{:?}", log.entries())
    };
    assert_eq!(
        (&start["session"], &end["exit_code"]),
        (&json!("a-2"), &json!(0))
    );
    sessions.ask(&["stop", "--all"]);
    let end = Instant::now() + WAIT_TIMEOUT;
    while !log.sound().open.is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(log.sound().open, [0u64; 0]);
}

#[test]
fn children_that_are_logged_end_with_their_keepers() {
    let log = Log::new();
    let sessions = logged(&log, &[]);
    let mut fork = sessions.command(&["fork", "a"]);
    let forked = fork.env("SANDBOX_AUDIT", log.path()).output().unwrap();
    assert_eq!(text(&forked.stdout), "a-1\n", "{}", text(&forked.stderr));
    let listed = sessions.ask(&["list", "--json"]);
    let listed = text(&listed.stdout);
    let pids: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let child = pids.into_iter().find(|it| it["name"] == "a-1").unwrap();
    let child = child["pid"].as_i64().unwrap() as i32;
    let stat = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let its = stat(child);
    let keeper = its.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap();
    kill(Pid::from_raw(keeper.parse().unwrap()), Signal::SIGKILL).unwrap();
    let end = Instant::now() + WAIT_TIMEOUT;
    let is_there = || !stat(child).is_empty() && !stat(child).contains(") Z ");
    while is_there() && Instant::now() < end {
        sleep(Duration::from_millis(10));
    }
    assert!(!is_there());
    assert_eq!(text(&ask(&sessions, &["-c", "1 + 1"]).stdout), "2\n");
}
