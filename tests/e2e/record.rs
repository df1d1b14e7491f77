//! The record of a run: one JSON object, for each way in which a run can end.

use crate::common::{
    Cache, binary, enough_to_start, exit_code, finish, said, sandbox, start, text, with_ports,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::internals::record::{Encoding, KvmMode, Limit, Path, Record, Status, Unusual};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// The published schema.
static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let text = include_str!("../../docs/record.schema.json");
    jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap()
});

/// Reads a record: one line that follows the schema and has nothing unknown to the types.
#[track_caller]
pub fn read(bytes: &[u8]) -> Record {
    let line = text(bytes);
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
    let value: Value = serde_json::from_str(&line).unwrap();
    let errors: Vec<_> = SCHEMA.iter_errors(&value).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {line}");
    let record: Record = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), value);
    record
}

fn json(options: &[&str], code: &str) -> Output {
    let mut command = sandbox(&["run", "--json"]);
    finish(command.args(options).args(["-c", code]), b"")
}

/// Returns the record of a run of this code, with its exit code. Its standard error may only say
/// that it waits for a template that another test builds.
#[track_caller]
fn recorded(options: &[&str], code: &str) -> (Record, i32) {
    told_by(&json(options, code))
}

#[track_caller]
fn told_by(output: &Output) -> (Record, i32) {
    let told = said(output);
    let waits = "sandbox: waiting for another process that builds the template\n";
    assert!(told.is_empty() || told == waits, "{told}");
    (read(&output.stdout), exit_code(output.status))
}

/// Returns a run whose record goes to descriptor 3, which these redirections of a shell open.
pub fn with_status(redirections: &str, code: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("exec \"$0\" run --json-status-fd 3 -c \"$1\" {redirections}");
    command
        .args(["-c", &script, &binary(), code])
        .env("SANDBOX_TIMEOUT", "300");
    command
}

#[test]
fn a_program_that_exits_is_told_with_its_output_and_where_the_time_went() {
    let code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)";
    let (record, code) = recorded(&["--confine=require"], code);
    assert_eq!((record.status, code), (Status::Exited, 3));
    assert_eq!((record.exit_code, record.signal), (Some(3), None));
    assert_eq!(record.stdout.as_deref(), Some("out\n"));
    assert_eq!(record.stderr.as_deref(), Some("err\n"));
    assert_eq!(record.stdout_bytes.captured, 4);
    assert_eq!((record.error, record.limits_hit), (None, vec![]));
    assert_eq!(record.path, Some(Path::Warm));
    assert_eq!(record.template.unwrap().len(), 32);
    assert!(record.host.is_some());
    assert!(record.confinement.contains(&"seccomp".to_string()));
    let timings = record.timings_ms;
    let parts = timings.setup + timings.guest.unwrap() + timings.teardown;
    assert!(timings.first_output <= timings.guest, "{timings:?}");
    assert!(parts > 0.0 && parts <= timings.total + 0.01, "{timings:?}");
    assert!(timings.kernel.is_none(), "it was restored: {timings:?}");
}

#[test]
fn a_booted_machine_has_no_template_and_a_kernel_that_took_its_time() {
    let (record, _) = recorded(&["--fresh"], "print('hello')");
    assert_eq!((record.path, record.template), (Some(Path::Cold), None));
    assert_eq!(record.stdout.as_deref(), Some("hello\n"));
    let timings = record.timings_ms;
    assert!(timings.kernel.is_some() && timings.agent.is_some());
    // A kernel that boots looks for devices that are not there, which is not unusual.
    assert_eq!(record.unusual.unknown_ports, 0);
    assert_eq!(record.unusual.unknown_addresses, 0);
}

#[test]
fn a_signal_that_ends_the_program_is_told() {
    let (record, code) = recorded(&[], "import os; os.kill(os.getpid(), 15)");
    assert_eq!((record.status, code), (Status::Signaled, 143));
    assert_eq!((record.exit_code, record.signal), (None, Some(15)));
}

#[test]
fn a_time_limit_is_told_with_what_there_was_and_what_to_do() {
    let code = "print('before', flush=True)\nwhile True: pass";
    let limit = enough_to_start();
    let (record, code) = recorded(&["--timeout", limit], code);
    assert_eq!((record.status, code), (Status::Timeout, 124));
    assert_eq!(record.limits_hit, [Limit::Timeout]);
    assert_eq!(record.stdout.as_deref(), Some("before\n"));
    let seconds: u32 = limit.parse().unwrap();
    let remedy = record.error.unwrap().remedy;
    assert!(
        remedy.contains(&format!("--timeout {}", 2 * seconds)),
        "{remedy}"
    );
    assert!(record.timings_ms.guest.unwrap() >= f64::from(seconds) * 1000.0);
}

#[test]
fn a_program_out_of_memory_is_told_with_how_much_it_used() {
    let code = "x = []\nwhile True: x.append(b'x' * (1 << 20))";
    let (record, code) = recorded(&["--memory", "128M"], code);
    assert_eq!((record.status, code), (Status::Oom, 137));
    assert_eq!(record.limits_hit, [Limit::Memory]);
    assert_eq!(record.memory.limit, 128 << 20);
    let peak = record.memory.peak.unwrap();
    assert!((100 << 20..=128 << 20).contains(&peak), "{peak}");
}

#[test]
fn used_memory_is_the_templates_and_the_programs() {
    let peak = |code| recorded(&[], code).0.memory.peak.unwrap();
    let (little, much) = (peak("pass"), peak("x = b'x' * (100 << 20)"));
    assert!((4 << 20..64 << 20).contains(&little), "{little}");
    let program = much - little;
    assert!((100 << 20..120 << 20).contains(&program), "{program}");
}

#[test]
fn a_guest_that_crashes_is_told() {
    let code = "open('/proc/sysrq-trigger', 'w').write('c')";
    let (record, code) = recorded(&["--root"], code);
    assert_eq!((record.status, code), (Status::Crashed, 125));
    assert!(record.error.unwrap().message.contains("kernel panicked"));
    assert_eq!((record.exit_code, record.signal), (None, None));
}

/// A program that does what only root may do and no guest of ours does, and needs help that a
/// software KVM leaves to us.
pub const UNUSUAL: &str = "
import ctypes, mmap, os, signal
signal.signal(15, lambda *_: None); os.kill(os.getpid(), 15)  # saves and restores vector registers
assert ctypes.CDLL(None).iopl(3) == 0
page = mmap.mmap(-1, 4096, prot=7)
def call(code):
    page.seek(0)
    page.write(bytes.fromhex(code + 'c3'))
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
for _ in range(5): call('e6ed')          # out 0xed, al
call('b0fe e7e4')                        # mov al, 0xfe; out 0xe4, eax
print('done', flush=True)
call('b803090000 b90a000000 31f6 e7e4')  # mov eax, 0x903; mov ecx, 10; xor esi, esi; out 0xe4, eax
";

#[test]
fn what_no_guest_of_ours_does_is_counted() {
    let options = [&["--json", "--root"], with_ports()].concat();
    let (record, code) = told_by(&Cache::growing().run(&options, UNUSUAL));
    assert_eq!((record.status, code), (Status::Crashed, 125));
    assert_eq!(record.stdout.as_deref(), Some("done\n"), "{record:?}");
    let unusual = record.unusual;
    let expected = Unusual {
        unknown_ports: 5,
        unknown_services: 1,
        violations: 1,
        assists: unusual.assists,
        ..Unusual::default()
    };
    assert_eq!(unusual, expected);
    let is_assisted = record.kvm_mode == Some(KvmMode::Emulated);
    assert_eq!(unusual.assists > 0, is_assisted, "{unusual:?}");
    let usual = recorded(&[], "print('hello')").0.unusual;
    let expected = Unusual {
        assists: usual.assists,
        ..Unusual::default()
    };
    assert_eq!(usual, expected);
}

#[test]
fn a_signal_to_us_is_told_with_what_there_was() {
    for (signal, expected) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let code = "print('up', flush=True)\nwhile True: pass";
        let mut child = start(&mut with_status("3>&2 2>/dev/null", code));
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(exit_code(output.status), expected);
        let record = read(&output.stderr);
        assert_eq!(record.status, Status::Cancelled);
        assert_eq!(record.stdout_bytes.total, 3);
    }
}

/// timeout(1) sends one signal to its child, and another to the group that both are in.
#[test]
fn a_signal_that_comes_twice_is_told_as_one_that_comes_once() {
    for _ in 0..3 {
        let code = "print('up', flush=True)\nwhile True: pass";
        let mut command = Cache::growing().command("timeout");
        command.args(["10", &binary(), "run", "--json", "-c", code]);
        let output = finish(&mut command, b"");
        assert_eq!(exit_code(output.status), 124);
        let record = read(&output.stdout);
        assert_eq!(record.status, Status::Cancelled);
        assert_eq!(record.stdout.as_deref(), Some("up\n"));
    }
}

#[test]
fn what_we_could_not_run_is_told_with_a_remedy_and_its_exit_code() {
    let cases: [(&[&str], i32, &str); 5] = [
        (&["run", "--json", "/nonexistent.py"], 127, "no script"),
        (&["run", "--json", "/"], 126, "is a directory"),
        (
            &["--kvm", "/nonexistent", "run", "--json", "-c", "pass"],
            125,
            "this host has no /nonexistent",
        ),
        (&["run", "--json"], 125, "nothing to run"),
        (
            &["run", "--json", "--put", "/nonexistent", "-c", "pass"],
            125,
            "/nonexistent",
        ),
    ];
    for (arguments, code, told) in cases {
        let output = finish(&mut sandbox(arguments), b"");
        assert_eq!(exit_code(output.status), code, "{arguments:?}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
        let record = read(&output.stdout);
        assert_eq!(record.status, Status::Error);
        assert_eq!((record.exit_code, record.path), (None, None));
        let error = record.error.unwrap();
        assert!(error.message.contains(told), "{error:?}");
        assert!(!error.remedy.is_empty());
    }
}

#[test]
fn output_that_is_no_text_comes_in_base64_byte_by_byte() {
    let code =
        "import sys; sys.stdout.buffer.write(bytes(range(256))); print('ü', file=sys.stderr)";
    let (record, _) = recorded(&[], code);
    assert_eq!(record.stdout_encoding, Encoding::Base64);
    let bytes = STANDARD.decode(record.stdout.unwrap()).unwrap();
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    assert_eq!(record.stdout_bytes.captured, 256);
    assert_eq!(record.stderr_encoding, Encoding::Utf8);
    assert_eq!(record.stderr.as_deref(), Some("ü\n"));
}

#[test]
fn text_that_terminals_obey_is_told_as_it_is() {
    let written = "\u{1b}[2J\0\r\n\u{202e}\"";
    let code = r#"print("\x1b[2J\x00\r\n\u202e\"", end="")"#;
    let (record, _) = recorded(&[], code);
    assert_eq!(record.stdout.as_deref(), Some(written));
}

#[test]
fn output_is_cut_at_the_limit_between_two_characters() {
    let code = "import sys; sys.stdout.write('€' * 1000); sys.stderr.write('b' * 99)";
    let (record, code) = recorded(&["--max-output", "100"], code);
    assert_eq!((record.status, code), (Status::Exited, 0));
    assert_eq!(record.stdout, Some("€".repeat(33)));
    let bytes = record.stdout_bytes;
    assert_eq!(
        (bytes.captured, bytes.total, bytes.omitted),
        (99, 3000, 2901)
    );
    assert_eq!(record.limits_hit, [Limit::Stdout]);
    assert_eq!(record.stderr_bytes.omitted, 0);
}

/// Returns the most memory that the process of a run had at once, in bytes.
fn most_memory(code: &str) -> u64 {
    let script = format!(
        "import os, sys, resource
output = open(sys.argv[1], 'wb')
pid = os.posix_spawn('{}', ['sandbox', 'run', '--json', '-c', '''{code}'''], os.environ,
    file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1)])
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)",
        binary()
    );
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut python = Command::new(crate::common::PYTHON);
    python.args(["-c", &script]).arg(output.path());
    let told = finish(python.env("SANDBOX_TIMEOUT", "300"), b"");
    let told = text(&told.stdout);
    let (code, kibibytes) = told.trim().split_once(' ').unwrap();
    assert_eq!(code, "0");
    read(&fs::read(output.path()).unwrap());
    kibibytes.parse::<u64>().unwrap() << 10
}

#[test]
fn a_flood_of_output_takes_bounded_memory() {
    let write = |times: usize| {
        format!("import os\nfor _ in range({times}): os.write(1, bytes([255]) * (1 << 20))")
    };
    let (little, much) = (most_memory(&write(1)), most_memory(&write(100)));
    // 8 MiB that are kept, grown by doubling, and in base64.
    let growth = much.saturating_sub(little);
    assert!(growth <= 32 << 20, "{growth} more than {little}");
}

#[test]
fn fetched_files_are_told_with_where_they_are_and_missing_ones_with_why() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    let get = format!("--get=left:{here}/left");
    let code = "
import os
os.makedirs('left/in')
open('left/a', 'w').write('abc')
open('left/in/b', 'w').write('')
os.symlink('a', 'left/link')";
    let (record, code) = recorded(&[&get, &format!("--get=no/x:{here}/x")], code);
    // The program's own end, and what came of that.
    assert_eq!((record.status, code), (Status::Error, 125));
    assert_eq!(record.exit_code, Some(0));
    let mut files: Vec<_> = record
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.host.clone(), file.size))
        .collect();
    files.sort();
    let expected = [
        ("/work/left/a", format!("{here}/left/a"), 3),
        ("/work/left/in/b", format!("{here}/left/in/b"), 0),
    ];
    assert_eq!(files, expected);
    assert_eq!(record.files_count, 2);
    let mut missing = record.files_missing.clone();
    missing.sort();
    assert_eq!(
        missing,
        [
            "/work/left/link: neither file nor directory",
            "/work/no/x: No such file or directory"
        ]
    );
    assert!(record.error.unwrap().message.contains("missing"));
}

#[test]
fn code_from_a_file_runs_as_after_c_whatever_its_size() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let filling = "y".repeat(2 << 20);
    let code = format!("x = '{filling}'; import sys; print(len(x), __name__, sys.argv)");
    fs::write(file.path(), code).unwrap();
    let path = file.path().to_str().unwrap();
    let arguments = ["run", "--code-file", path, "a", "-b", "--", "c"];
    let output = finish(&mut sandbox(&arguments), b"");
    let expected = "2097152 __main__ ['-c', 'a', '-b', '--', 'c']\n";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

#[test]
fn code_from_a_file_that_cannot_run_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    fs::write(path, "print(1)\0print(2)").unwrap();
    let output = finish(&mut sandbox(&["run", "--code-file", path]), b"");
    assert_eq!(exit_code(output.status), 126);
    assert!(text(&output.stderr).contains("NUL"), "{output:?}");
    // A process gets no longer word than this from execve(2).
    fs::write(path, format!("'{}'", "x".repeat(128 << 10))).unwrap();
    let output = finish(&mut sandbox(&["run", "--fresh", "--code-file", path]), b"");
    assert_eq!(exit_code(output.status), 125);
    assert!(text(&output.stderr).contains("too long"), "{output:?}");
}
