//! The destination of a record: standard output or a separate descriptor, and readers that are slow
//! or gone.

use crate::common::{exit_code, finish, sandbox, text};
use crate::record::{read, with_status};
use sandbox::internals::record::Status;
use std::fs;
use std::io::Read;
use std::process::Stdio;

#[test]
fn a_record_on_a_descriptor_of_its_own_leaves_the_output_as_it_is() {
    let code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)";
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = finish(
        &mut with_status(&format!("3>>{}", file.path().display()), code),
        b"",
    );
    assert_eq!(exit_code(output.status), 3);
    assert_eq!(text(&output.stdout), "out\n");
    assert_eq!(text(&output.stderr), "err\n");
    let record = read(&fs::read(file.path()).unwrap());
    assert_eq!((record.status, record.exit_code), (Status::Exited, Some(3)));
    assert_eq!((record.stdout, record.stderr), (None, None));
    assert_eq!(record.stdout_bytes.captured, 4);
    // And through a pipe.
    let output = finish(&mut with_status("3>&1 >/dev/null", code), b"");
    assert_eq!(exit_code(output.status), 3);
    assert_eq!(read(&output.stdout).exit_code, Some(3));
}

#[test]
fn an_error_is_told_to_a_person_and_in_the_record() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = with_status(&format!("3>{}", file.path().display()), "pass");
    let output = finish(command.env("SANDBOX_KVM", "/nonexistent"), b"");
    assert_eq!(exit_code(output.status), 125);
    assert!(text(&output.stderr).contains("this host has no /nonexistent"));
    let record = read(&fs::read(file.path()).unwrap());
    assert_eq!(record.status, Status::Error);
}

#[test]
fn a_descriptor_that_cannot_be_written_to_is_refused_before_the_run() {
    for (redirections, told) in [
        ("3>&-", "is not open\n"),
        ("3</dev/null", "is not open for writing\n"),
    ] {
        let output = finish(&mut with_status(redirections, "print('ran')"), b"");
        assert_eq!(exit_code(output.status), 125);
        assert_eq!(text(&output.stdout), "");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(told) && stderr.contains("3>FILE"),
            "{stderr}"
        );
    }
}

#[test]
fn a_record_that_nobody_reads_ends_as_output_that_nobody_reads() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = sandbox(&["run", "--json", "-c", "print('hello')"]);
    let status = command.stdout(writer).stdin(Stdio::null()).status();
    assert_eq!(exit_code(status.unwrap()), 141);
}

#[test]
fn a_record_that_cannot_be_written_is_told() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = sandbox(&["run", "--json", "-c", "print('hello')"]);
    let output = command.stdin(Stdio::null()).stdout(full).output().unwrap();
    assert_eq!(exit_code(output.status), 125);
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("the record cannot be written: No space left"),
        "{stderr}"
    );
}

#[test]
fn a_slow_reader_gets_all_of_a_long_record() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(
        &writer,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )
    .unwrap();
    let mut command = sandbox(&["run", "--json", "-c", "print('x' * (4 << 20))"]);
    let mut child = command.stdout(writer).stdin(Stdio::null()).spawn().unwrap();
    drop(command);
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let mut bytes = first.to_vec();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(read(&bytes).stdout.unwrap().len(), (4 << 20) + 1);
    assert!(child.wait().unwrap().success());
}
