//! What is told while a template is built: on a terminal a line that moves and fits, elsewhere a line at
//! the start and one at the end if it takes over a second.

use crate::common::{Cache, exit_code, finish, mode, mode_with, start, text};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::internals::vm::mode::Mode;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

const COLUMNS: usize = 30;
/// The start of a line that moves, and of one that replaces it.
const REPLACED: &str = "\r\x1b[K";

/// Starts to build a template with standard error on a terminal of few columns.
fn on_a_terminal(cache: &Cache) -> (Child, File) {
    let size = Winsize {
        ws_row: 5,
        ws_col: COLUMNS as u16,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None).unwrap();
    let mut command = cache.sandbox(&["template", "build"]);
    let child = command.stderr(terminal.slave).spawn().unwrap();
    // The command still has the other side, and so there would be no end.
    drop(command);
    (child, terminal.master.into())
}

/// Reads what comes to a terminal until `enough` of it is there, or its end.
fn read_until(terminal: &mut File, enough: impl Fn(&str) -> bool) -> String {
    let (mut all, mut piece) = (Vec::new(), [0; 1000]);
    while !enough(&text(&all)) {
        // A terminal that nobody has open any more fails.
        match terminal.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => all.extend(&piece[..count]),
        }
    }
    text(&all)
}

#[test]
fn the_line_on_a_terminal_fits_and_is_gone_at_the_end() {
    let cache = Cache::empty();
    let (mut child, mut terminal) = on_a_terminal(&cache);
    let told = read_until(&mut terminal, |_| false);
    assert!(child.wait().unwrap().success(), "{told}");
    let lines: Vec<_> = told.split(REPLACED).collect();
    assert!(lines.len() > 2, "{told:?}");
    assert!(lines[1].starts_with("sandbox: building a"), "{told:?}");
    assert!(lines.iter().all(|line| line.len() < COLUMNS), "{told:?}");
    assert_eq!(lines.last(), Some(&""), "{told:?}");
    assert!(!told.contains('\n'), "{told:?}");
}

#[test]
fn an_interrupted_build_ends_its_line() {
    let cache = Cache::empty();
    let (mut child, mut terminal) = on_a_terminal(&cache);
    read_until(&mut terminal, |told| told.contains("building"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let told = read_until(&mut terminal, |_| false);
    assert_eq!(exit_code(child.wait().unwrap()), 130, "{told:?}");
    assert!(told.ends_with('\n'), "{told:?}");
}

#[test]
fn a_slow_build_tells_its_start_and_its_end_where_there_is_no_terminal() {
    // It is stopped for a while, and this process may be too slow to do that.
    let told = (0..10).find_map(|_| {
        let cache = Cache::empty();
        let child = start(&mut cache.sandbox(&["template", "build"]));
        let pid = Pid::from_raw(child.id() as i32);
        let is_begun = || {
            let files = std::fs::read_dir(cache.templates()).into_iter().flatten();
            files.count() > 0
        };
        while !is_begun() {
            thread::sleep(Duration::from_millis(1));
        }
        kill(pid, Signal::SIGSTOP).unwrap();
        thread::sleep(Duration::from_millis(1100));
        kill(pid, Signal::SIGCONT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(exit_code(output.status), 0, "{output:?}");
        Some(text(&output.stderr)).filter(|told| !told.is_empty())
    });
    let told = told.expect("a build that was stopped in time");
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!(lines[0], "sandbox: building a template, once");
    let end = lines[1].strip_prefix("sandbox: the template is built, after ");
    let seconds = end.and_then(|end| end.strip_suffix(" s")).expect(&told);
    assert!(seconds.parse::<f64>().unwrap() > 1.0, "{told}");
}

#[test]
fn a_run_that_boots_for_a_variable_says_so_where_that_takes_long() {
    let run = |options: &[&str], variable| {
        let mut command = Cache::shared().sandbox(&["run", "-e", variable]);
        command.args(options).args(["-c", "pass"]);
        command
    };
    let emulated = &["--kvm-mode", "emulated"][..];
    if mode_with(emulated) == Mode::Emulated {
        // It is told before the machine boots, which nobody waits for here.
        let mut child = start(&mut run(emulated, "LC_ALL=C"));
        let mut line = String::new();
        let mut told = BufReader::new(child.stderr.take().unwrap());
        told.read_line(&mut line).unwrap();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        assert_eq!(exit_code(child.wait().unwrap()), 130);
        assert!(line.contains("since LC_ALL is read when"), "{line}");
    }
    if mode() != Mode::Emulated {
        let output = finish(&mut run(&[], "LC_ALL=C"), b"");
        assert_eq!(
            (exit_code(output.status), text(&output.stderr)),
            (0, String::new())
        );
    }
}

#[test]
fn a_quiet_run_says_nothing_of_a_build() {
    let cache = Cache::empty();
    let terminal = openpty(None, None).unwrap();
    let slave: OwnedFd = terminal.slave;
    let mut command = cache.sandbox(&["run", "-q", "-c", "print(1)"]);
    let output = finish(command.stderr(Stdio::from(slave)), b"");
    drop(command);
    assert_eq!(text(&output.stdout), "1\n");
    assert_eq!(read_until(&mut terminal.master.into(), |_| false), "");
}
