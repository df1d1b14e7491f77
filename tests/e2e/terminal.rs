//! Programs on a terminal: the sandbox runs on a real pseudo-terminal.

use crate::common::*;
use nix::errno::Errno;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::{Pid, setsid};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A pseudo-terminal, and a process that has it as its own.
pub struct Screen {
    child: Child,
    /// The end of the keyboard and of the eye.
    master: File,
    before: Termios,
    /// What was shown since the last look.
    shown: String,
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Screen {
    /// Starts `sandbox run` with these arguments.
    pub fn new(arguments: &[&str]) -> Self {
        Self::with(arguments, |_| {})
    }

    fn with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        Self::of(sandbox(&[&["run"], arguments].concat()), change)
    }

    /// Starts the command on a terminal of 30 lines of 100 characters; some of its streams are changed.
    pub fn of(mut command: Command, change: impl FnOnce(&mut Command)) -> Self {
        let OpenptyResult { master, slave } = openpty(&window(30, 100), None).unwrap();
        let stream = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        command.env("TERM", "xterm");
        change(&mut command);
        let terminal = slave.as_raw_fd();
        let lead = move || {
            setsid()?;
            // SAFETY: TIOCSCTTY takes numbers only, and the descriptor is open.
            Errno::result(unsafe { libc::ioctl(terminal, libc::TIOCSCTTY, 0) })?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure only makes two system calls.
        unsafe { command.pre_exec(lead) };
        Self {
            before: tcgetattr(&slave).unwrap(),
            child: command.spawn().unwrap(),
            master: master.into(),
            shown: String::new(),
        }
    }

    /// Returns whether there was something to read: when no process has the terminal any more, there is not.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.master.read(&mut bytes).unwrap_or(0);
        self.shown += &text(&bytes[..count]);
        count > 0
    }

    /// Waits until this is shown; forgets all up to it.
    pub fn until(&mut self, expected: &str) {
        while !self.shown.contains(expected) {
            assert!(self.read(), "{expected:?} is not in {:?}", self.shown);
        }
        let end = self.shown.find(expected).unwrap() + expected.len();
        self.shown.drain(..end);
    }

    pub fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = window(rows, columns);
        // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0);
    }

    pub fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Returns the exit code, and what was shown since the last look. The terminal's modes are as they
    /// were before.
    pub fn end(mut self) -> (i32, String) {
        while self.read() {}
        let code = exit_code(self.child.wait().unwrap());
        assert_eq!(tcgetattr(&self.master).unwrap(), self.before);
        (code, self.shown)
    }
}

const LOOKS: &str = "import os, sys
print([os.isatty(stream) for stream in range(3)], tuple(os.get_terminal_size()), os.environ['TERM'])";

#[test]
fn a_program_has_a_terminal_where_its_host_has_one() {
    for options in [&[][..], &["--fresh"], &["--json-status-fd", "2"]] {
        let screen = Screen::new(&[options, &["-c", LOOKS]].concat());
        let (code, shown) = screen.end();
        let expected = "[True, True, True] (100, 30) xterm\r\n";
        assert!(shown.contains(expected), "{options:?}: {shown}");
        assert_eq!(code, 0);
    }
}

#[test]
fn a_shell_has_a_terminal_too() {
    let code = "tty; stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all";
    let screen = Screen::new(&["-l", "bash", "-c", code]);
    assert_eq!(screen.end(), (0, "/dev/pts/0\r\n30 100\r\nall\r\n".into()));
}

#[test]
fn an_audited_run_has_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let screen = Screen::new(&["--audit", log.to_str().unwrap(), "-c", LOOKS]);
    let (code, shown) = screen.end();
    assert_eq!(
        (code, shown.as_str()),
        (0, "[True, True, True] (100, 30) xterm\r\n")
    );
}

#[test]
fn lines_are_shown_as_they_are_written() {
    let code = "import sys
for step in range(3): print('step', step); sys.stdin.readline()";
    let mut screen = Screen::new(&["-c", code]);
    for step in 0..3 {
        screen.until(&format!("step {step}\r\n"));
        screen.type_in("\n");
    }
    assert_eq!(screen.end().0, 0);
}

#[test]
fn both_streams_are_shown_in_the_order_of_their_writes() {
    let code = "import sys
for number in range(500): print(number, file=(sys.stdout, sys.stderr)[number % 2])";
    let (code, shown) = Screen::new(&["-c", code]).end();
    let expected: String = (0..500).map(|number| format!("{number}\r\n")).collect();
    assert_eq!((code, shown), (0, expected));
}

#[test]
fn all_that_was_written_before_the_end_is_shown() {
    let code = "import os
for number in range(3000): print('x' * 30, number)
os._exit(7)";
    let (code, shown) = Screen::new(&["-c", code]).end();
    assert_eq!((code, shown.lines().count()), (7, 3000));
    assert!(shown.ends_with(" 2999\r\n"), "{shown}");
}

#[test]
fn a_line_is_edited_before_the_program_gets_it() {
    let mut screen = Screen::new(&["-c", "print([input('name? ')])"]);
    screen.until("name? ");
    screen.type_in("ab\x7fé\x7fc\n");
    let (_, shown) = screen.end();
    assert!(shown.ends_with("['ac']\r\n"), "{shown}");
}

#[test]
fn a_password_is_not_shown() {
    let mut screen = Screen::new(&["-c", "import getpass; print(len(getpass.getpass()))"]);
    screen.until("Password: ");
    screen.type_in("secret\n");
    assert_eq!(screen.end(), (0, "\r\n6\r\n".into()));
}

#[test]
fn ctrl_c_is_a_keyboard_interrupt() {
    let code = "import time
try: print('up'); time.sleep(300)
except KeyboardInterrupt: print('interrupted')";
    let mut screen = Screen::new(&["-c", code]);
    screen.until("up");
    screen.type_in("\x03");
    screen.until("interrupted\r\n");
    assert_eq!(screen.end().0, 0);
}

#[test]
fn ctrl_c_reaches_all_processes_where_only_output_is_on_the_terminal() {
    let code =
        "trap 'echo parent' INT; (trap 'echo child; exit' INT; echo up; while :; do :; done)";
    let mut screen = Screen::with(&["-l", "bash", "-c", code], |command| {
        command.stdin(Stdio::null());
    });
    screen.until("up");
    screen.type_in("\x03");
    screen.until("child");
    screen.until("parent");
    assert_eq!(screen.end().0, 0);
}

#[test]
fn ctrl_d_ends_the_input() {
    let mut screen = Screen::new(&[
        "-c",
        "import sys; print('up'); print(sys.stdin.read() + '|')",
    ]);
    screen.until("up");
    screen.type_in("line\n\x04");
    screen.until("|\r\n");
    assert_eq!(screen.end().0, 0);
}

#[test]
fn ctrl_backslash_quits() {
    let mut screen = Screen::new(&["-c", "import time; print('up'); time.sleep(300)"]);
    screen.until("up");
    screen.type_in("\x1c");
    assert_eq!(screen.end().0, 131);
}

#[test]
fn ctrl_z_stops_nothing_as_nobody_could_go_on_with_it() {
    let mut screen = Screen::new(&["-c", "print('up'); print([input()])"]);
    screen.until("up");
    screen.type_in("a\x1ab\n");
    screen.until("['b']");
    assert_eq!(screen.end().0, 0);
}

#[test]
fn a_new_size_of_the_window_reaches_the_program() {
    let code = "import os, signal
signal.signal(signal.SIGWINCH, lambda *_: print(tuple(os.get_terminal_size())))
print('up')
while True: signal.pause()";
    let mut screen = Screen::new(&["-c", code]);
    screen.until("up");
    screen.resize(50, 120);
    screen.until("(120, 50)");
    screen.type_in("\x1c");
    assert_eq!(screen.end().0, 131);
}

#[test]
fn nothing_to_run_is_a_prompt() {
    let mut screen = Screen::new(&[]);
    screen.until(">>> ");
    screen.type_in("6 * 7\n");
    screen.until("42\r\n");
    screen.type_in("\x04");
    assert_eq!(screen.end().0, 0);
}

#[test]
fn a_prompt_after_a_program_has_what_it_left() {
    let mut screen = Screen::new(&["-i", "-c", "answer = 42"]);
    screen.until(">>> ");
    screen.type_in("answer\n");
    screen.until("42\r\n");
    screen.type_in("exit(5)\n");
    // So does Python 3.13: its prompt makes 1 of any status but 0.
    assert_eq!(screen.end().0, 1);
}

#[test]
fn a_shell_gives_a_prompt() {
    let mut screen = Screen::new(&["-i", "-l", "bash"]);
    screen.until("$ ");
    screen.type_in("exit $((40 + 2))\n");
    assert_eq!(screen.end().0, 42);
}

#[test]
fn a_program_of_the_whole_screen_works() {
    let code = "import curses
def main(screen):
    screen.addstr(2, 4, 'size %d %d' % screen.getmaxyx()); screen.refresh()
    while (key := screen.getkey()) != 'q':
        screen.addstr(3, 4, 'key ' + key); screen.refresh()
curses.wrapper(main)
print('done')";
    let mut screen = Screen::new(&["-c", code]);
    screen.until("\x1b[?1049h");
    screen.until("size 30 100");
    screen.type_in("\x1bOA");
    screen.until("KEY_UP");
    screen.type_in("q");
    screen.until("\x1b[?1049l");
    screen.until("done\r\n");
    assert_eq!(screen.end().0, 0);
}

/// It takes its keys from the terminal, also where what it shows comes by standard input.
#[test]
fn a_pager_shows_as_much_as_fits_and_obeys_single_keys() {
    let lines = "seq 200 | sed 's/.*/line &./'";
    for shows in [
        format!("{lines} >text; less text"),
        format!("{lines} | less"),
    ] {
        let code =
            format!("modes=$(stty -g); {shows}; [ \"$(stty -g)\" = \"$modes\" ] && echo as before");
        let mut screen = Screen::new(&["-l", "bash", "-c", &code]);
        screen.until("line 29.");
        screen.type_in(" ");
        screen.until("line 58.");
        screen.type_in("k");
        screen.until("line 57.");
        screen.type_in("q");
        let (code, shown) = screen.end();
        assert!(shown.ends_with("as before\r\n"), "{shown:?}");
        assert_eq!((code, shown.contains("line 58.")), (0, false), "{shown:?}");
    }
}

#[test]
fn the_pager_of_pythons_help_obeys_single_keys() {
    let code = "import pydoc
pydoc.pager(''.join(f'line {n}.\\n' for n in range(200)))
print('left')";
    let mut screen = Screen::new(&["-c", code]);
    screen.until("line 28.\r\n--More-- ");
    screen.type_in(" ");
    screen.until("line 57.\r\n--More-- ");
    screen.type_in("q");
    let (code, shown) = screen.end();
    assert_eq!((code, shown.as_str()), (0, "\r         \rleft\r\n"));
}

#[test]
fn a_bar_of_progress_is_drawn_over_itself() {
    let code = "import sys
for done in range(4): sys.stderr.write(chr(13) + '%d of 3' % done); sys.stderr.flush()
print()";
    let (_, shown) = Screen::new(&["-c", code]).end();
    assert_eq!(shown, "\r0 of 3\r1 of 3\r2 of 3\r3 of 3\r\n");
}

/// Leaves the terminal without lines and echo, on the alternate screen, with the mouse and without a cursor.
const LEAVES_MODES: &str = "import sys, time, tty
tty.setraw(0)
sys.stdout.write('\x1b[?1049h\x1b[?25l\x1b[?1000;1006h\x1b[?2004h\x1b[31mup')
sys.stdout.flush()";
const PUTS_BACK: &str = "\x1b[?1049l\x1b[?25h\x1b[?1000l\x1b[?1006l\x1b[?2004l\x1b[0m";

#[test]
fn the_modes_of_the_terminal_are_put_back_however_a_run_ends() {
    let sleeps = format!("{LEAVES_MODES}\ntime.sleep(300)");
    for (code, signal, expected) in [
        (LEAVES_MODES, None, 0),
        (&sleeps, Some(Signal::SIGTERM), 143),
        (&sleeps, Some(Signal::SIGHUP), 129),
        (&sleeps, Some(Signal::SIGKILL), 137),
    ] {
        let mut screen = Screen::new(&["-c", code]);
        screen.until("up");
        if let Some(signal) = signal {
            screen.send(signal);
        }
        let (code, shown) = screen.end();
        assert!(shown.contains(PUTS_BACK), "{signal:?}: {shown:?}");
        assert_eq!(code, expected, "{signal:?}");
    }
    let mut screen = Screen::new(&["-q", "-t", "1", "-c", &sleeps]);
    screen.until("up");
    assert_eq!(screen.end(), (124, PUTS_BACK.into()));
}

/// A run that is written down has a process of its own for its guest.
#[test]
fn modes_are_put_back_when_the_process_that_runs_the_guest_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let code = format!("{LEAVES_MODES}\ntime.sleep(300)");
    for _ in 0..5 {
        let mut screen = Screen::new(&["--audit", log.to_str().unwrap(), "-c", &code]);
        screen.until("up");
        let run = screen.child.id();
        let children = fs::read_to_string(format!("/proc/{run}/task/{run}/children")).unwrap();
        let guests = Pid::from_raw(children.trim().parse().unwrap());
        kill(guests, Signal::SIGKILL).unwrap();
        // Whoever started the run looks at the terminal as soon as it has ended.
        assert_ne!(exit_code(screen.child.wait().unwrap()), 0);
        assert_eq!(tcgetattr(&screen.master).unwrap(), screen.before);
        assert!(screen.end().1.contains(PUTS_BACK));
    }
}

#[test]
fn a_program_without_a_terminal_has_streams_as_ever() {
    let code =
        "import os; print([os.isatty(stream) for stream in range(3)], os.environ.get('TERM'))";
    let (_, shown) = Screen::new(&["-T", "-c", code]).end();
    assert_eq!(shown, "[False, False, False] None\r\n");
    let (_, shown) = Screen::new(&["--json", "-c", code]).end();
    assert!(shown.contains("[False, False, False] None"), "{shown}");
}

#[test]
fn streams_that_are_no_terminal_stay_pipes() {
    let mut screen = Screen::with(&["-c", LOOKS], |command| {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
    });
    screen.until("[False, True, False] (100, 30) xterm\r\n");
    assert_eq!(screen.end().0, 0);
    let mut screen = Screen::with(&["-c", "print(input(), end='')"], |command| {
        command.stdout(Stdio::piped());
    });
    screen.type_in("line\n");
    let mut stdout = screen.child.stdout.take().unwrap();
    let mut output = String::new();
    stdout.read_to_string(&mut output).unwrap();
    assert_eq!((screen.end().0, output.as_str()), (0, "line"));
}

#[test]
fn a_terminal_that_another_program_has_is_left_to_it() {
    let script = "saved=$(stty -g); stty raw -echo; \"$0\" run -c \"$1\"
stty -a | grep -o -- -icanon; stty \"$saved\"";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, &binary(), LOOKS]);
    let (code, shown) = Screen::of(shell, |_| {}).end();
    assert!(shown.contains("[False, True, True]"), "{shown}");
    assert!(shown.contains("-icanon"), "{shown}");
    assert_eq!(code, 0);
}
