//! Output in small pieces, which the guest's kernel gathers: only the small number of exits shows
//! that it does.

use crate::common::{exit_code, mode, run, sandbox, start, text};
use sandbox::internals::vm::mode::Mode;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

/// Returns the seconds in which CPython starts and writes something.
fn enough_to_start() -> &'static str {
    match mode() {
        Mode::Emulated => "25",
        Mode::Hardware | Mode::Native => "4",
    }
}

/// Writes a hundred lines, one at a time, as `lines` has them.
const WRITE_LINES: &str = "
import os, signal, sys, time
def write(fd=1):
    for number in range(100): os.write(fd, b'line %d\\n' % number)
";

fn lines() -> String {
    (0..100).map(|number| format!("line {number}\n")).collect()
}

#[test]
fn both_streams_into_one_pipe_keep_their_order() {
    let code = "
import os
for number in range(3000): os.write(1 + number % 7 % 2, b'%d\\n' % number)
";
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = sandbox(&["run", "-c", code]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    let expected: String = (0..3000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text(&bytes), expected);
    assert_eq!(exit_code(child.wait().unwrap()), 0);
}

#[test]
fn what_was_written_before_a_sudden_end_is_there() {
    for (end, status) in [
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.abort()", 134),
        (
            "signal.setitimer(signal.ITIMER_REAL, 0.001)\nwhile True: pass",
            142,
        ),
        ("os.execv('/bin/sh', ['sh', '-c', 'kill -9 $$'])", 137),
    ] {
        let output = run(&[], &format!("{WRITE_LINES}write()\n{end}"));
        assert_eq!(text(&output.stdout), lines(), "{end}");
        assert_eq!(exit_code(output.status), status, "{end}: {output:?}");
    }
}

#[test]
fn what_children_wrote_before_the_program_ended_is_there() {
    let code = format!(
        "{WRITE_LINES}
told, tell = os.pipe()
if not os.fork():
    write()
    os.write(tell, b'.')
    time.sleep(1000)
os.read(told, 1)
write()
os.kill(os.getpid(), signal.SIGKILL)"
    );
    let output = run(&[], &code);
    assert_eq!(text(&output.stdout), lines() + &lines());
    assert_eq!(exit_code(output.status), 137);
}

#[test]
fn what_was_written_before_the_machine_came_down_is_there() {
    let sysrq = |key: &str| format!("write(); os.write(sysrq, b'{key}'); time.sleep(1000)");
    let reboot = "write(); ctypes.CDLL(None).reboot(0x01234567)";
    for end in [sysrq("c"), sysrq("b"), sysrq("o"), reboot.into()] {
        let open = "import ctypes; sysrq = os.open('/proc/sysrq-trigger', os.O_WRONLY)";
        let output = run(&["--root"], &format!("{WRITE_LINES}{open}\n{end}"));
        assert_eq!(text(&output.stdout), lines(), "{end}");
        assert_eq!(exit_code(output.status), 125, "{end}: {output:?}");
    }
}

#[test]
fn what_was_written_before_the_time_limit_is_there() {
    let code = format!(
        "{WRITE_LINES}write()\nfor number in range(100): print('line', number, flush=True)
while True: pass"
    );
    let output = run(&["-t", enough_to_start()], &code);
    assert_eq!(text(&output.stdout), lines() + &lines());
    assert_eq!(exit_code(output.status), 124);
}

/// The output must only have no gap: it does not matter how far the program comes.
#[test]
fn a_program_that_writes_until_its_time_limit_loses_nothing_before() {
    let code = "
import itertools, os
for number in itertools.count(): os.write(1, b'%07d\\n' % number)
";
    let output = run(&["-t", enough_to_start()], code);
    assert_eq!(exit_code(output.status), 124);
    let written = text(&output.stdout);
    let count = written.len().div_ceil(8);
    let expected: String = (0..count).map(|number| format!("{number:07}\n")).collect();
    assert!(count > 0 && expected.starts_with(&written), "{count}");
}

/// Reads the first line of a program that does `then` once it has written it, and ends the run.
#[track_caller]
fn assert_is_read_before(then: &str) {
    let code = format!("import os, time; os.write(1, b'written\\n')\n{then}");
    let (limit, before) = (Duration::from_secs(60), Instant::now());
    let mut child = start(&mut sandbox(&["run", "-t", "60", "-c", &code]));
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "written\n");
    assert!(before.elapsed() < limit, "it came with the end");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_a_program_wrote_is_read_while_it_sleeps() {
    assert_is_read_before("time.sleep(1000)");
}

#[test]
fn what_a_program_wrote_is_read_while_it_computes() {
    assert_is_read_before("while True: pass");
}

#[test]
fn a_question_is_read_before_its_answer_is_awaited() {
    assert_is_read_before("input()");
}

#[test]
fn a_limit_of_output_holds_for_small_pieces() {
    let code = "import os\nfor _ in range(3000): os.write(1, b'0123456789'); os.write(2, b'x')";
    let output = run(&["--max-output", "12345"], code);
    assert_eq!(text(&output.stdout), "0123456789".repeat(3000)[..12345]);
    let told = "standard output was cut at 12345 of 30000 bytes";
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with(&"x".repeat(3000)), "{stderr}");
    assert!(stderr.contains(told), "{stderr}");
}

#[test]
fn pages_that_are_not_there_yet_or_never_are_written_as_ever() {
    let code = "
import ctypes, errno, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
assert os.write(1, mmap.mmap(-1, 5000)) == 5000
pages = mmap.mmap(-1, 3 * 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
pages[:4096] = b'x' * 4096
assert libc.munmap(ctypes.c_void_p(address + 4096), ctypes.c_size_t(4096)) == 0
assert libc.write(1, ctypes.c_void_p(address + 4090), ctypes.c_size_t(100)) == 6
assert libc.write(1, ctypes.c_void_p(address + 4096), ctypes.c_size_t(100)) == -1
assert ctypes.get_errno() == errno.EFAULT
os.write(2, b'all hold')
os._exit(0)
";
    let output = run(&[], code);
    assert_eq!(text(&output.stderr), "all hold");
    assert_eq!(output.stdout, [&[0; 5000][..], b"xxxxxx"].concat());
}

#[test]
fn eight_thousand_writes_take_a_few_hundred_exits() {
    if mode() == Mode::Emulated {
        return; // There a copy takes longer than an exit.
    }
    let code = "import os\nfor _ in range(8192): os.write(1, bytes(1024))";
    let output = run(&["--verbose"], code);
    assert_eq!(output.stdout, vec![0; 8 << 20]);
    let stderr = text(&output.stderr);
    let exits = stderr.split_once(" exits").and_then(|(before, _)| {
        let number = before.rsplit(' ').next()?;
        number.parse::<u64>().ok()
    });
    let exits = exits.unwrap_or_else(|| panic!("no number of exits in {stderr}"));
    assert!((128..600).contains(&exits), "{exits}");
}

#[test]
fn a_console_that_nobody_reads_any_more_does_not_end_the_run() {
    let mut child = start(&mut sandbox(&["run", "--console", "-c", "print(42)"]));
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    drop(stderr);
    assert!(line.starts_with("Linux version 6.12"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "42\n");
    assert_eq!(exit_code(output.status), 0);
}
