//! Commands in a session's machine, beside its cells.

use crate::common::{exit_code, finish, start, text};
use crate::session_protocol::Peer;
use crate::sessions::Sessions;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::Output;
use std::thread::sleep;
use std::time::Duration;

impl Sessions {
    fn exec(&self, words: &[&str]) -> Output {
        self.ask(&[&["exec", "a"], words].concat())
    }

    /// Runs a script of the shell's in `a`; returns its standard output.
    fn shell(&self, script: &str) -> String {
        let output = self.exec(&["--", "sh", "-c", script]);
        assert_eq!(exit_code(output.status), 0, "{script}: {output:?}");
        text(&output.stdout)
    }

    fn exec_record(&self, words: &[&str]) -> Value {
        let output = self.exec(&[&["--json"], words].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn a_command_has_what_the_session_was_started_with_and_its_own() {
    let sessions = Sessions::with(&["--env", "A=a", "--env", "B=a"]);
    sessions.gives("x = 1; open('file', 'w').write('ü')");
    let script = "cat file; pwd; echo $A $B; cat; echo error >&2; exit 3";
    let options = ["--env", "B=b", "--stdin", "-", "--", "sh", "-c", script];
    let mut command = sessions.command(&[&["exec", "a"], &options[..]].concat());
    let output = finish(&mut command, b"input");
    assert_eq!(text(&output.stdout), "ü/work\na b\ninput");
    assert_eq!(
        (exit_code(output.status), text(&output.stderr)),
        (3, "error\n".into())
    );
    for (workdir, is) in [("/tmp", "/tmp\n"), ("..", "/\n")] {
        let record = sessions.exec_record(&["--workdir", workdir, "--", "pwd"]);
        assert_eq!(
            (&record["stdout"], &record["state"]),
            (&json!(is), &json!("kept"))
        );
    }
    assert_eq!(sessions.shell("cat"), "");
    assert_eq!(sessions.gives("x"), "1\n");
}

#[test]
fn what_cannot_be_run_is_told_as_a_shell_does() {
    let sessions = Sessions::with(&[]);
    for (words, code, said) in [
        (
            &["--", "missing"][..],
            127,
            "missing: No such file or directory\n",
        ),
        (&["--", "/tmp"], 126, "/tmp: Permission denied\n"),
        (
            &["--workdir", "/no", "--", "ls"],
            126,
            "/no: No such file or directory\n",
        ),
        (
            &["--user", "nosuch", "--", "ls"],
            126,
            "nosuch: no such user\n",
        ),
        (&["--", "sh", "-c", "kill -9 $$"], 137, ""),
    ] {
        let output = sessions.exec(words);
        let told = (exit_code(output.status), text(&output.stderr));
        assert!(
            told.0 == code && told.1.starts_with(said),
            "{words:?}: {told:?}"
        );
    }
}

#[test]
fn a_command_runs_beside_a_cell_and_other_commands() {
    let sessions = Sessions::with(&[]);
    let code = "import os, time\nprint('up', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)";
    let mut cell = start(&mut sessions.command(&["run", "a", "-c", code]));
    let mut up = [0; 3];
    cell.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let script = "echo up; until [ -e go ]; do sleep 0.01; done";
    let mut other = start(&mut sessions.command(&["exec", "a", "--", "sh", "-c", script]));
    other.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let described = sessions.description();
    assert_eq!(
        (&described["cell"], &described["commands"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(sessions.shell("echo beside; touch go"), "beside\n");
    assert_eq!(exit_code(cell.wait().unwrap()), 0);
    assert_eq!(exit_code(other.wait().unwrap()), 0);
}

#[test]
fn a_command_over_its_time_is_ended_alone() {
    let sessions = Sessions::with(&["--grace", "200ms"]);
    sessions.gives("x = 1");
    for script in ["sleep 900", "trap '' INT; while :; do :; done"] {
        let words = ["--timeout", "0.3", "--json", "--", "sh", "-c", script];
        let output = sessions.exec(&words);
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&record["status"], &record["state"]),
            (&json!("timeout"), &json!("kept"))
        );
        assert_eq!(exit_code(output.status), 124);
    }
    assert_eq!(sessions.gives("x"), "1\n");
}

#[test]
fn a_command_outlives_the_interpreter_that_ends_beside_it() {
    let sessions = Sessions::with(&[]);
    let script = "echo up; until [ -e go ]; do sleep 0.01; done; echo on";
    let mut child = start(&mut sessions.command(&["exec", "a", "--", "sh", "-c", script]));
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let end = "import os, subprocess; subprocess.Popen(['sleep', '900']); os._exit(3)";
    assert_eq!(sessions.record(&[], end)["state"], "reset");
    sessions.gives("open('go', 'w').close()");
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "on\n");
    // What the interpreter had started went with it.
    let script = "grep -lsx sleep /proc/[0-9]*/comm || echo none";
    assert_eq!(sessions.shell(script), "none\n");
}

#[test]
fn root_is_for_sessions_that_were_started_with_it() {
    let sessions = Sessions::with(&[]);
    assert_eq!(sessions.shell("id -u"), "1000\n");
    for user in ["root", "0"] {
        let output = sessions.exec(&["--user", user, "--", "id"]);
        assert_eq!(exit_code(output.status), 125, "{output:?}");
        assert!(text(&output.stderr).contains("--root"), "{output:?}");
    }
    let as_other = |sessions: &Sessions, user| {
        let output = sessions.exec(&["--user", user, "--", "id", "-u"]);
        text(&output.stdout)
    };
    assert_eq!(as_other(&sessions, "00"), "");
    assert_eq!(as_other(&sessions, "nobody"), "65534\n");
    let sessions = Sessions::of_another_kind(&["--root"]);
    assert_eq!(sessions.shell("id -u"), "0\n");
    assert_eq!(as_other(&sessions, "1234"), "1234\n");
}

#[test]
fn input_and_output_of_any_size_go_through() {
    let sessions = Sessions::with(&[]);
    let bytes: Vec<u8> = (0..5 << 20)
        .map(|n: u32| (n.wrapping_mul(2654435761) >> 24) as u8)
        .collect();
    let mut command = sessions.command(&["exec", "a", "--stdin", "-", "--", "cat"]);
    let mut child = start(command.stdin(std::process::Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == bytes, "{}", output.stdout.len());
    // One that takes none of it ends nevertheless.
    let mut command = sessions.command(&["exec", "a", "--stdin", "/dev/zero", "--", "true"]);
    assert_eq!(exit_code(finish(&mut command, b"").status), 0);
}

#[test]
fn a_command_that_prints_much_before_it_reads_gets_its_input() {
    let sessions = Sessions::with(&[]);
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; wc -c";
    let words = ["exec", "a", "--stdin", "-", "--", "sh", "-c", script];
    let mut command = sessions.command(&words);
    let mut child = start(command.stdin(std::process::Stdio::piped()));
    let pid = Pid::from_raw(child.id() as i32);
    let mut stdin = child.stdin.take().unwrap();
    let mut first = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    // Meanwhile the session has more for its client than it keeps, and takes no more from it.
    kill(pid, Signal::SIGSTOP).unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&vec![b'i'; 3 << 20]));
    sleep(Duration::from_millis(500));
    kill(pid, Signal::SIGCONT).unwrap();
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(output.stdout.len(), 2_999_999 + "3145728\n".len());
    assert!(text(&output.stdout).ends_with("x3145728\n"));
}

#[test]
fn ctrl_c_reaches_the_command_whatever_its_input() {
    let sessions = Sessions::with(&[]);
    let script = "trap 'echo caught; exit 7' INT; echo up; while :; do sleep 0.01; done";
    for input in ["/dev/null", "/dev/zero"] {
        let words = ["exec", "a", "--stdin", input, "--", "sh", "-c", script];
        let mut child = start(&mut sessions.command(&words));
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(exit_code(output.status), 7, "{output:?}");
        assert_eq!(text(&output.stdout), "caught\n");
    }
}

#[test]
fn output_of_a_command_is_bounded_and_what_is_cut_is_told() {
    let sessions = Sessions::with(&["--max-output", "1000"]);
    let record = sessions.exec_record(&["--", "head", "-c", "500000", "/dev/zero"]);
    assert_eq!(
        record["stdout_bytes"],
        json!({"captured": 1000, "total": 500_000, "omitted": 499_000})
    );
}

#[test]
fn what_a_command_leaves_behind_goes_on_and_is_told_as_background() {
    let sessions = Sessions::with(&[]);
    let begun = sessions
        .shell("(until [ -e go ]; do sleep 0.01; done; echo late; touch done) & echo begun");
    assert_eq!(begun, "begun\n");
    let code = "import os, time\nopen('go', 'w').close()\nwhile not os.path.exists('done'): time.sleep(0.01)";
    assert_eq!(sessions.gives(code), "late\n");
}

#[test]
fn a_client_that_does_not_read_holds_up_its_command_alone() {
    let sessions = Sessions::with(&["--grace", "1s"]);
    let mut stuck = Peer::connect(&sessions);
    stuck.send(&json!({"verb": "exec", "argv": ["sh", "-c", "yes flood; echo gone >end"]}));
    stuck.hear_of("output");
    for _ in 0..5 {
        assert_eq!(sessions.gives("1 + 1"), "2\n");
        assert_eq!(sessions.shell("echo on"), "on\n");
    }
    assert_eq!(sessions.description()["commands"], 1);
    drop(stuck);
    // It is interrupted, and nothing of it is left.
    assert_eq!(
        sessions.shell("while grep -qsx yes /proc/[0-9]*/comm; do sleep 0.01; done"),
        ""
    );
}

#[test]
fn a_connection_has_one_command_or_cells_and_others_are_refused() {
    let sessions = Sessions::with(&[]);
    let exec = |words: &[&str]| json!({"verb": "exec", "argv": words, "input": true});
    let mut peer = Peer::connect(&sessions);
    peer.send(&json!({"verb": "input", "data": "for nobody"}));
    peer.send(&exec(&["cat"]));
    peer.hear_of("began");
    for other in [exec(&["true"]), json!({"verb": "run", "code": "1"})] {
        peer.send(&other);
        let told = peer.hear_of("refused").to_string();
        assert!(told.contains("connect again"), "{told}");
    }
    peer.send(&json!({"verb": "input", "data": "ä"}));
    peer.send(&json!({"verb": "input", "data": "/w==", "encoding": "base64"}));
    peer.send(&json!({"verb": "input_end"}));
    let mut seen = Vec::new();
    let ended = loop {
        let message = peer.hear();
        match message["event"].as_str().unwrap() {
            "ended" => break message,
            event => seen.push((event.to_owned(), message)),
        }
    };
    assert_eq!(
        (&ended["record"]["exit_code"], &ended["cell"]),
        (&json!(0), &json!(1))
    );
    let taken = seen.iter().filter(|(event, _)| event == "taken");
    let taken: u64 = taken
        .map(|(_, message)| message["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(taken, 3);
    peer.send(&exec(&["true"]));
    assert_eq!(peer.hear_of("ended")["cell"], 2);
}

#[test]
fn commands_that_are_too_many_are_refused_with_what_to_do() {
    let sessions = Sessions::with(&[]);
    let mut peers: Vec<_> = (0..16).map(|_| Peer::connect(&sessions)).collect();
    for peer in &mut peers {
        peer.send(&json!({"verb": "exec", "argv": ["cat"], "input": true}));
        peer.hear_of("began");
    }
    let output = sessions.exec(&["--", "true"]);
    assert!(text(&output.stderr).contains("16 commands"), "{output:?}");
    assert_eq!(sessions.gives("1"), "1\n");
    peers[0].send(&json!({"verb": "input_end"}));
    peers[0].hear_of("ended");
    assert_eq!(sessions.shell("echo on"), "on\n");
}

#[test]
fn a_terminal_is_the_commands_own_with_its_size() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    let script = "stty size; tty; read line; stty size; echo [$line]";
    let terminal = json!({"rows": 30, "columns": 100});
    peer.send(&json!({"verb": "exec", "argv": ["sh", "-c", script], "terminal": terminal}));
    let mut shown = String::new();
    let mut is_typed = false;
    loop {
        let message = peer.hear();
        match message["event"].as_str().unwrap() {
            "output" => shown += message["data"].as_str().unwrap(),
            "ended" => break,
            _ => {}
        }
        if !is_typed && shown.contains("/dev/pts/") && shown.ends_with('\n') {
            is_typed = true;
            peer.send(&json!({"verb": "resize", "rows": 31, "columns": 101}));
            peer.send(&json!({"verb": "input", "data": "typed\r"}));
        }
    }
    for line in ["30 100\r\n", "31 101\r\n", "typed\r\n", "[typed]\r\n"] {
        assert!(shown.contains(line), "{shown:?}");
    }
}
