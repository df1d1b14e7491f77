//! A terminal in a session, on a real pseudo-terminal of the host.

use crate::common::{exit_code, text};
use crate::sessions::Sessions;
use crate::terminal::Screen;
use nix::sys::signal::Signal;

fn shell(sessions: &Sessions, words: &[&str]) -> Screen {
    Screen::of(sessions.command(&[&["shell", "a"], words].concat()), |_| {})
}

#[test]
fn a_shell_has_the_terminal_and_the_sessions_files() {
    let sessions = Sessions::with(&[]);
    sessions.gives("open('file', 'w').write('kept')");
    let mut screen = shell(&sessions, &["--env", "A=a"]);
    screen.type_in("echo $(cat file) $A $TERM $(stty size) $(tty)\r");
    screen.until("kept a xterm 30 100 /dev/pts/");
    screen.resize(31, 101);
    screen.type_in("until [ \"$(stty size)\" = '31 101' ]; do sleep 0.01; done; echo resi''zed\r");
    screen.until("resized");
    screen.type_in("exit 3\r");
    assert_eq!(screen.end().0, 3);
    assert_eq!(sessions.gives("1"), "1\n");
}

#[test]
fn what_is_typed_reaches_the_program_and_ends_it_alone() {
    let sessions = Sessions::with(&[]);
    // A shell would hand the terminal on to what it starts, and what is typed just then could reach either.
    let code = "import time\ntry:\n    print('up', flush=True)\n    time.sleep(900)\nexcept KeyboardInterrupt:\n    print('caught')";
    let mut screen = shell(&sessions, &["--", "python3", "-c", code]);
    screen.until("up\r\n");
    screen.type_in("\x03");
    let (code, shown) = screen.end();
    assert_eq!(code, 0);
    assert!(shown.ends_with("caught\r\n"), "{shown:?}");
    assert_eq!(sessions.gives("1"), "1\n");
    let mut screen = shell(&sessions, &["--", "python3", "-c", "print(input('? '))"]);
    screen.until("? ");
    screen.type_in("typed\r");
    let (code, shown) = screen.end();
    assert_eq!(code, 0);
    assert!(shown.ends_with("typed\r\ntyped\r\n"), "{shown:?}");
}

#[test]
fn the_terminals_modes_are_put_back_however_a_shell_ends() {
    let sessions = Sessions::with(&[]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let script = "printf '\\033[?1049h\\033[?25lup'; sleep 900";
        let mut screen = shell(&sessions, &["--", "sh", "-c", script]);
        screen.until("up");
        screen.send(signal);
        let (code, shown) = screen.end();
        assert_eq!(code, 128 + signal as i32);
        assert!(
            shown.contains("\x1b[?1049l") && shown.contains("\x1b[?25h"),
            "{shown:?}"
        );
    }
    let mut screen = shell(&sessions, &[]);
    screen.type_in("echo u''p\r");
    screen.until("up\r\n");
    sessions.ask(&["stop", "a"]);
    let (_, shown) = screen.end();
    assert!(shown.contains("the session is over"), "{shown:?}");
}

#[test]
fn a_shell_without_a_terminal_is_told_what_to_use() {
    let sessions = Sessions::with(&[]);
    let output = sessions.ask(&["shell", "a"]);
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("session exec a -- COMMAND"),
        "{output:?}"
    );
}
