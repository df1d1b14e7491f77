//! What the end-to-end tests share: the real binary on the real KVM, and Debian's python3.

use std::io::Write;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// Debian's own, of the version that the guest has.
pub const PYTHON: &str = "/usr/bin/python3";

/// The binary under test; `SANDBOX_BINARY` names it where the tests were moved to another host.
pub fn binary() -> String {
    std::env::var("SANDBOX_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sandbox").into())
}

/// `sandbox`, with patience for a slow machine where the test sets no limit of its own.
pub fn sandbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env("SANDBOX_TIMEOUT", "300");
    command
}

/// Starts the command with its streams piped.
pub fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs the command to its end with this standard input.
pub fn finish(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = start(command);
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // In a thread: the program may not read it, or write before it does.
    let writer = std::thread::spawn(move || pipe.write_all(&stdin).is_ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What a shell says of how a process ended.
pub fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().expect("neither code nor signal"))
}

/// `sandbox run` on this code.
pub fn run(options: &[&str], code: &str) -> Output {
    let mut arguments = vec!["run"];
    arguments.extend(options);
    arguments.extend(["-c", code]);
    finish(&mut sandbox(&arguments), b"")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
