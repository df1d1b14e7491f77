//! The ends of sessions, their refusals, and what holds their processes.

use crate::common::{exit_code, finish, start, text};
use crate::sessions::{Sessions, WAIT_TIMEOUT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Checks that a process ends, or waits to be reaped, with all of its threads.
fn is_gone(pid: i32) -> bool {
    let end = Instant::now() + WAIT_TIMEOUT;
    let is_there = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        stat.is_ok_and(|stat| !stat.contains(") Z ") || threads > 1)
    };
    while is_there() && Instant::now() < end {
        sleep(Duration::from_millis(5));
    }
    !is_there()
}

/// Checks that a verb fails, and that what it says has these pieces.
fn fails(output: &Output, pieces: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    let found = |piece: &&str| stderr.contains(*piece);
    assert!(pieces.iter().all(found), "{stderr}: {pieces:?}");
}

#[test]
fn nothing_is_left_of_a_session_that_is_stopped() {
    let sessions = Sessions::with(&[]);
    let pid = sessions.pid();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(sessions.socket().parent().unwrap()), 0o700);
    assert_eq!(exit_code(sessions.ask(&["stop", "a"]).status), 0);
    assert!(is_gone(pid));
    assert!(!sessions.socket().exists());
    fails(
        &sessions.ask(&["run", "a", "-c", "1"]),
        &["there is no session a", "sandbox session start a"],
    );
}

#[test]
fn a_session_ends_with_its_parent_where_that_is_asked_for() {
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    for options in [&[][..], &["--audit", log.to_str().unwrap()]] {
        let sessions = Sessions::new();
        let command = sessions.command(&[&["start", "a", "--with-parent"], options].concat());
        // The shell is the parent, as long as there is input.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "\"$@\" && read line", "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let mut shell = start(&mut shell);
        let end = Instant::now() + WAIT_TIMEOUT;
        while !sessions.socket().exists() && Instant::now() < end {
            sleep(Duration::from_millis(5));
        }
        assert_eq!(sessions.gives("1 + 1"), "2\n");
        let pid = sessions.pid();
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(is_gone(pid), "{options:?}");
    }
}

#[test]
fn a_session_ends_when_it_is_asked_nothing_or_too_old() {
    for (options, why) in [
        (["--idle", "100ms"], "asked nothing"),
        (["--age", "300ms"], "old"),
    ] {
        let sessions = Sessions::new();
        let output = sessions.ask(&[&["start", "a"], &options[..]].concat());
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        let output = sessions.ask(&["run", "a", "-c", "import time; time.sleep(0.4)"]);
        let end = Instant::now() + WAIT_TIMEOUT;
        while sessions.socket().exists() && Instant::now() < end {
            sessions.ask(&["list"]);
        }
        assert!(
            !sessions.socket().exists(),
            "{why}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_session_whose_time_is_over_tells_the_cell_that_it_is_lost() {
    let sessions = Sessions::with(&["--age", "2s"]);
    let record = sessions.record(&[], "import time; time.sleep(900)");
    assert_eq!(
        (&record["status"], &record["state"]),
        (&json!("cancelled"), &json!("lost"))
    );
    assert!(
        record["state_reason"].as_str().unwrap().contains("old"),
        "{record}"
    );
}

#[test]
fn a_session_that_was_killed_is_gone_and_its_name_free() {
    let sessions = Sessions::with(&[]);
    let pid = sessions.pid();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(is_gone(pid));
    assert!(sessions.socket().exists());
    let output = sessions.ask(&["run", "a", "-c", "1"]);
    fails(
        &output,
        &["the session a is gone", "sandbox session start a"],
    );
    assert!(!sessions.socket().exists());

    let second = sessions.ask(&["start", "a"]);
    assert_eq!(exit_code(second.status), 0, "{}", text(&second.stderr));
    let pid = sessions.pid();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert!(is_gone(pid));
    let third = sessions.ask(&["start", "a"]);
    assert_eq!(exit_code(third.status), 0, "{}", text(&third.stderr));
    assert_eq!(sessions.gives("1"), "1\n");
}

#[test]
fn a_cell_whose_session_is_killed_is_told_so() {
    let sessions = Sessions::with(&[]);
    let code = "import time\nprint('up', flush=True)\ntime.sleep(900)";
    let mut child = start(&mut sessions.command(&["run", "a", "-c", code]));
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    kill(Pid::from_raw(sessions.pid()), Signal::SIGKILL).unwrap();
    fails(
        &child.wait_with_output().unwrap(),
        &["the session a is gone"],
    );
}

#[test]
fn names_that_are_wrong_taken_or_unknown_are_told_with_what_to_do() {
    let sessions = Sessions::with(&[]);
    fails(
        &sessions.ask(&["start", "a/b"]),
        &["not a name for a session", "letters"],
    );
    fails(
        &sessions.ask(&["start", "a"]),
        &["there is a session a already", "session stop a"],
    );
    fails(
        &sessions.ask(&["run", "b", "-c", "1"]),
        &["no session b", "session start b"],
    );
    fails(&sessions.ask(&["stop", "b"]), &["no session b"]);
    let output = sessions.ask(&["run", "a", "missing.py"]);
    assert_eq!(exit_code(output.status), 127);
    let named = text(&sessions.ask(&["start"]).stdout);
    assert!(named.starts_with("s-"), "{named}");
    let listed = text(&sessions.ask(&["list"]).stdout);
    assert!(
        listed.contains("\ns-") && listed.starts_with("a "),
        "{listed}"
    );
}

#[test]
fn a_policy_bounds_a_session_and_a_log_of_runs_has_none() {
    let sessions = Sessions::new();
    let policy = sessions.0.path().join("policy.toml");
    fs::write(
        &policy,
        "[run]\nmemory = \"256M\"\ntimeout = \"1s\"\ncode = \"100\"\nstdin = \"3\"\nlanguages = [\"python\"]\n",
    )
    .unwrap();
    let policy = policy.to_str().unwrap();
    let start = |options: &[&str]| {
        let mut start = sessions.command(&[&["start", "a", "--policy", policy], options].concat());
        finish(start.env_remove("SANDBOX_TIMEOUT"), b"")
    };
    fails(&start(&["--memory", "1G"]), &["memory"]);
    let output = start(&[]);
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    let record = sessions.record(&["--timeout", "900"], "import time; time.sleep(900)");
    assert_eq!(record["status"], "timeout");
    let long = format!("# {}", "x".repeat(100));
    fails(
        &sessions.ask(&["run", "a", "-c", &long]),
        &["allows 100 bytes"],
    );
    fails(
        &sessions.ask(&["exec", "a", "--", "ls"]),
        &["run.languages"],
    );
    let mut given = sessions.command(&["run", "a", "--stdin", "-", "-c", "1"]);
    fails(
        &finish(&mut given, b"four"),
        &["allows 3 bytes of standard input"],
    );
}

#[test]
fn an_image_whose_first_language_keeps_nothing_has_no_sessions() {
    let sessions = Sessions::new();
    let image = sessions.0.path().join("shell.toml");
    let description = "name = 'shell'\n[[language]]\nname = 'bash'\ntitle = 'Bash'\nfile = ['bash', '{file}']\ncode = ['bash', '-c', '{code}']\nstdin = ['bash']\n[language.warm]\nlibrary = '/usr/lib/sandbox/held.so'\nrehearsal = ''\n";
    fs::write(&image, description).unwrap();
    fails(
        &sessions.ask(&["start", "a", "--image", image.to_str().unwrap()]),
        &["Bash keeps nothing between cells", "leave out --image"],
    );
}

#[test]
fn a_session_is_confined_as_a_run_is() {
    let sessions = Sessions::with(&["--confine=require"]);
    let process = format!("/proc/{}", sessions.pid());
    let threads = fs::read_dir(format!("{process}/task")).unwrap();
    let mut count = 0;
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        // A thread of the kernel's, for KVM, has no filter.
        for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{status}");
        }
        count += usize::from(status.contains("Seccomp:\t2"));
    }
    assert!(count >= 2, "{count}");
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    // What a file has that its machine is saved to.
    let file = ((2 + 256) << 20).to_string();
    for (name, value) in [("Max open files", "80"), ("Max file size", &file)] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let values: Vec<_> = line.unwrap().split_whitespace().take(2).collect();
        assert_eq!(values, [value, value], "{name}");
    }
    assert_eq!(
        fs::read_link(format!("{process}/cwd")).unwrap(),
        Path::new("/")
    );
    let files = fs::read_dir(format!("{process}/fd")).unwrap();
    let files = files.map(|file| fs::read_link(file.unwrap().path()).unwrap());
    let names: Vec<_> = files.map(|file| file.display().to_string()).collect();
    let is_ours = |name: &String| !name.starts_with("/tmp") || name.contains("sandbox/");
    assert!(names.iter().all(is_ours), "{names:?}");
}
