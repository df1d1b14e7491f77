//! Sessions that go on from another one: what they keep of it, that each is an individual, and that it goes on.

use crate::common::{Cache, exit_code, start, text};
use crate::sessions::{Sessions, WAIT_TIMEOUT};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The number of children that are compared.
const CHILDREN: usize = 50;
/// The greatest allowed error of a child's wall clock, seen through a verb.
const CLOCK_TOLERANCE: f64 = 0.02;

/// Runs a cell in a session; returns its standard output.
pub fn cell(sessions: &Sessions, name: &str, code: &str) -> String {
    let output = sessions.ask(&["run", name, "-c", code]);
    let told = (exit_code(output.status), text(&output.stderr));
    assert_eq!(told, (0, String::new()), "{name}: {code}");
    text(&output.stdout)
}

/// Forks a session; returns the names of the others.
pub fn fork(sessions: &Sessions, name: &str, count: usize) -> Vec<String> {
    let output = sessions.ask(&["fork", name, "-n", &count.to_string()]);
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    let names: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(names.len(), count, "{names:?}");
    names
}

/// Returns the names of the sessions that there are.
fn names(sessions: &Sessions) -> Vec<String> {
    let listed = text(&sessions.ask(&["list"]).stdout);
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Returns whether a session runs a cell.
fn answers(sessions: &Sessions, name: &str) -> bool {
    let output = sessions.ask(&["run", name, "-c", "1 + 1"]);
    text(&output.stdout) == "2\n"
}

#[test]
fn children_go_on_with_variables_files_and_open_files() {
    let sessions = Sessions::with(&[]);
    sessions.gives("x = [1]\nf = open('f', 'w+'); f.write('kept'); f.flush(); f.seek(2)");
    let names = fork(&sessions, "a", 3);
    assert_eq!(names, ["a-1", "a-2", "a-3"]);
    for name in &names {
        let code = "x.append(2); f.write(str(len(x))); f.seek(0); print(x, f.read())";
        assert_eq!(cell(&sessions, name, code), "[1, 2] ke2t\n");
    }
    // It goes on as if nothing were, and so does what came of it.
    assert_eq!(sessions.gives("print(x, f.tell(), f.read())"), "[1] 2 pt\n");
    let again = fork(&sessions, "a-1", 1);
    assert_eq!(again, ["a-1-1"]);
    assert_eq!(cell(&sessions, "a-1-1", "x"), "[1, 2]\n");
    assert_eq!(fork(&sessions, "a", 1), ["a-4"]);
}

#[test]
fn files_that_nobody_has_looked_at_are_there_in_children_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.txt");
    std::fs::write(&path, "put").unwrap();
    let sessions = Sessions::with(&["--put", path.to_str().unwrap()]);
    let names = fork(&sessions, "a", 1);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        cell(&sessions, &names[0], "open('data.txt').read()"),
        "'put'\n"
    );
}

/// Draws from what a program draws from, after it had drawn before. The last ones were seeded by the program.
const DRAW: &str = r"
drawn = {
    'os': os.urandom(8).hex(), 'random': random.random(), 'own generator': own.random(),
    'secrets': secrets.token_hex(8), 'uuid1': uuid.uuid1(), 'node': uuid.getnode(), 'uuid4': uuid.uuid4(),
    'ssl': ssl.RAND_bytes(8).hex(), 'sqlite': database.execute('select hex(randomblob(8))').fetchone()[0],
    'tempfile': tempfile.mktemp(), 'authkey': bytes(multiprocessing.current_process().authkey),
    'seeded': seeded.random(), 'set': copied.random(),
}
for name, value in drawn.items(): print(name, value, sep='\t')
";

#[test]
fn no_two_of_fifty_children_and_their_parent_draw_the_same() {
    let sessions = Sessions::with(&[]);
    sessions.gives(&format!(
        "import multiprocessing, os, random, secrets, sqlite3, ssl, tempfile, uuid\n\
         own, seeded, copied = random.Random(), random.Random(7), random.Random()\n\
         copied.setstate(seeded.getstate())\n\
         database = sqlite3.connect(':memory:')\n{}",
        DRAW.replace("print(name, value, sep='\\t')", "pass"),
    ));
    let mut machines = fork(&sessions, "a", CHILDREN);
    machines.push("a".into());
    let mut counts = BTreeMap::new();
    for name in &machines {
        for line in cell(&sessions, name, DRAW).lines() {
            let (source, value) = line.split_once('\t').unwrap();
            let values: &mut BTreeMap<_, usize> = counts.entry(source.to_owned()).or_default();
            *values.entry(value.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 13, "{counts:?}");
    for (source, values) in counts {
        let expected = match source.as_str() {
            "seeded" | "set" => 1,
            _ => CHILDREN + 1,
        };
        assert_eq!(values.len(), expected, "{source}: {values:?}");
    }
}

#[test]
fn threads_processes_and_timers_go_on_in_children() {
    let sessions = Sessions::with(&[]);
    sessions.gives(
        "import subprocess, threading, time\n\
         count = 0\n\
         def work():\n    global count\n    while True: count += 1; time.sleep(0.01)\n\
         thread = threading.Thread(target=work, daemon=True); thread.start()\n\
         late = threading.Event(); timer = threading.Timer(1, late.set); timer.start()\n\
         echo = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)",
    );
    for name in fork(&sessions, "a", 2) {
        let code = "before, began = count, time.monotonic(); time.sleep(0.2)\n\
             print(thread.is_alive(), count > before, 0.2 <= time.monotonic() - began < 30, late.wait(60))\n\
             print(echo.communicate('through')[0], echo.returncode)";
        let expected = "True True True True\nthrough 0\n";
        assert_eq!(cell(&sessions, &name, code), expected);
    }
    assert_eq!(
        sessions.gives("print(late.wait(60), echo.poll())"),
        "True None\n"
    );
}

#[test]
fn the_clocks_of_children_are_right_and_go_on() {
    let sessions = Sessions::with(&[]);
    sessions.gives("import time; before = time.monotonic()");
    std::thread::sleep(Duration::from_millis(500));
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    // One that the host held up when it was given the time is behind, but not all of them are.
    let mut is_any_right = false;
    for name in fork(&sessions, "a", 4) {
        std::thread::sleep(Duration::from_millis(300));
        let began = now();
        let told = cell(
            &sessions,
            &name,
            "print(time.time(), time.monotonic() - before)",
        );
        let ended = now();
        let (wall, passed) = told.trim().split_once(' ').unwrap();
        let (wall, passed): (f64, f64) = (wall.parse().unwrap(), passed.parse().unwrap());
        let right = |tolerance| began - tolerance..ended + tolerance;
        is_any_right |= right(CLOCK_TOLERANCE).contains(&wall);
        assert!(
            right(1.0).contains(&wall),
            "{wall} is not in {:?}",
            right(1.0)
        );
        assert!((0.8..60.0).contains(&passed), "{passed}");
    }
    assert!(is_any_right);
}

#[test]
fn a_session_that_is_busy_is_not_forked_and_is_told_when_to_try_again() {
    let sessions = Sessions::with(&[]);
    let mut cell = sessions.command(&[
        "run",
        "a",
        "-c",
        "print(1, flush=True); import time; time.sleep(600)",
    ]);
    let mut cell = start(&mut cell);
    let busy = || sessions.description()["cell"] == 1;
    let end = Instant::now() + WAIT_TIMEOUT;
    while !busy() && Instant::now() < end {}
    let output = sessions.ask(&["fork", "a"]);
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    assert!(
        stderr.contains("a cell runs") && stderr.contains("try again"),
        "{stderr}"
    );
    sessions.ask(&["interrupt", "a"]);
    cell.wait().unwrap();
    fork(&sessions, "a", 1);
}

#[test]
fn a_session_with_an_interpreter_of_its_own_cannot_be_forked() {
    let sessions = Sessions::with(&["-e", "PYTHONHASHSEED=1"]);
    let output = sessions.ask(&["fork", "a"]);
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("it is not a clone of a saved machine"),
        "{stderr}"
    );
    assert_eq!(sessions.gives("1 + 1"), "2\n");
}

#[test]
fn variables_are_those_of_children_too_and_that_is_said() {
    let sessions = Sessions::with(&["-e", "SECRET=sesame"]);
    let output = sessions.ask(&["fork", "a"]);
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("variables") && !stderr.contains("sesame"),
        "{stderr}"
    );
    let code = "import os; os.environ['SECRET']";
    assert_eq!(cell(&sessions, "a-1", code), "'sesame'\n");
    // An interpreter that takes the place of one has them as well.
    sessions.ask(&["run", "a-1", "-c", "import os; os._exit(3)"]);
    let output = sessions.ask(&["run", "a-1", "-c", code]);
    assert_eq!(
        text(&output.stdout),
        "'sesame'\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_verb_that_is_killed_leaves_all_children_or_none() {
    let sessions = Sessions::with(&[]);
    for step in 0..20 {
        let mut verb = start(&mut sessions.command(&["fork", "a", "-n", "4", "--quiet"]));
        std::thread::sleep(Duration::from_millis(5 * step));
        // It may have ended by itself.
        verb.kill().unwrap_or_default();
        let is_done = verb.wait().unwrap().success();
        let end = Instant::now() + WAIT_TIMEOUT;
        let is_settled = |left: &[String]| match left.len() {
            1 => !is_done,
            5 => left[1..].iter().all(|name| answers(&sessions, name)),
            _ => false,
        };
        let mut left = names(&sessions);
        while !is_settled(&left) && Instant::now() < end {
            left = names(&sessions);
        }
        assert!(is_settled(&left), "{step}, done: {is_done}: {left:?}");
        for name in &left[1..] {
            sessions.ask(&["stop", name]);
        }
    }
    assert_eq!(sessions.gives("1 + 1"), "2\n");
}

#[test]
fn an_emulated_session_is_forked_as_well() {
    let sessions = Sessions::new();
    let ask = |arguments: &[&str]| {
        // With a saved machine more.
        let mut command = Cache::growing().sandbox(&["session"]);
        command.args(arguments);
        command.env("XDG_RUNTIME_DIR", sessions.0.path());
        command.env("SANDBOX_KVM_MODE", "emulated");
        let output = command.output().unwrap();
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        text(&output.stdout)
    };
    ask(&["start", "a"]);
    ask(&["run", "a", "-c", "import random; x = 1"]);
    assert_eq!(ask(&["fork", "a", "-n", "2"]), "a-1\na-2\n");
    let drawn =
        ["a", "a-1", "a-2"].map(|name| ask(&["run", name, "-c", "print(x, random.random())"]));
    assert!(drawn.iter().all(|it| it.starts_with("1 ")), "{drawn:?}");
    assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2], "{drawn:?}");
    ask(&["stop", "--all"]);
}
