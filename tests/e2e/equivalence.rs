//! `sandbox run X` behaves as `python3 X`: standard output, standard error and exit code, byte by
//! byte.

use crate::common::{exit_code, finish, sandbox, start, text};
use crate::reference::reference;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The way in which the code is given to Python.
enum Source<'a> {
    Script(&'a str),
    Code(&'a str),
    Stdin(&'a str),
}
use Source::{Code, Script, Stdin};

/// Runs both interpreters and compares them.
fn agree(given: &Source, arguments: &[&str], stdin: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.py");
    let (words, stdin): (Vec<&str>, _) = match given {
        Script(code) => {
            std::fs::write(&script, code).unwrap();
            (vec!["script.py"], stdin)
        }
        Code(code) => (vec!["-c", code], stdin),
        Stdin(code) => (vec!["-"], code.as_bytes()),
    };
    let run = |mut command: Command, end_of_options: Option<&str>| {
        command.args(&words).args(end_of_options);
        finish(command.args(arguments).current_dir(&directory), stdin)
    };
    let expected = run(reference(), None);
    let actual = run(sandbox(&["run"]), matches!(given, Code(_)).then_some("--"));
    compare(&actual, &expected, &directory.path().display().to_string());
}

/// Compares two outputs, in which only the script's directory may differ.
pub(crate) fn compare(actual: &Output, expected: &Output, directory: &str) {
    let local = |bytes: &[u8]| text(bytes).replace(directory, "/work");
    if text(&expected.stderr).contains(directory) {
        assert_eq!(text(&actual.stderr), local(&expected.stderr));
    } else {
        assert_same(&actual.stderr, &expected.stderr, "standard error");
    }
    assert_same(&actual.stdout, &expected.stdout, "standard output");
    assert_eq!(exit_code(actual.status), exit_code(expected.status));
}

/// Compares as `assert_eq!` does, but shows only a part of long outputs.
fn assert_same(actual: &[u8], expected: &[u8], stream: &str) {
    let differing = actual.iter().zip(expected).position(|(a, b)| a != b);
    let at = differing.unwrap_or(actual.len().min(expected.len()));
    let around = |bytes: &[u8]| text(&bytes[at.saturating_sub(50)..bytes.len().min(at + 1000)]);
    assert!(
        actual == expected,
        "{stream} differs at byte {at} (of {} and {}):\n{}\n--- expected:\n{}",
        actual.len(),
        expected.len(),
        around(actual),
        around(expected),
    );
}

/// Makes a test of each line: its name, how the code is given, arguments, standard input.
macro_rules! cases {
    ($($name:ident: $given:expr $(, arguments $arguments:expr)? $(, stdin $stdin:expr)?;)*) => {$(
        #[test]
        fn $name() {
            agree(
                &$given,
                // What is given, else nothing.
                [$($arguments as &[&str],)? &[]][0],
                [$($stdin as &[u8],)? b""][0],
            );
        }
    )*};
}

/// Prints its arguments, whatever they contain.
const ARGUMENTS: &str = "import sys; print(ascii(sys.argv))";
/// Prints the length and hash of standard input.
const HASH_STDIN: &str = "
import hashlib, sys
data = sys.stdin.buffer.read()
print(len(data), hashlib.sha256(data).hexdigest())
";

/// Returns 8 MiB that no cut, repetition or conversion leaves unchanged.
fn random_bytes() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..1 << 20).flat_map(|_| next().to_le_bytes()).collect()
}

cases! {
    hello: Script("print('Hello, world!')\n");
    code_on_the_command_line: Code("import sys; print('hello', sys.argv)"), arguments &["a", "-b"];
    code_on_standard_input: Stdin("import sys\nprint('hello', sys.argv, __name__)\n");
    an_error_in_code_on_standard_input: Stdin("print('first')\nnonsense\n");
    odd_arguments: Script(ARGUMENTS), arguments &["two words", "two\nlines", "", "ünïcödé 🦀", "-x", "--", "'\"\\"];
    empty_standard_input: Script(HASH_STDIN);
    piped_standard_input: Script(HASH_STDIN), stdin b"some\x00bytes\xff\n";
    large_standard_input: Script(HASH_STDIN), stdin &random_bytes();
    lines_of_standard_input: Script("for line in open(0): print(repr(line))"), stdin "eins\nzwei\ndrei ü".as_bytes();
    exit_with_a_status: Script("import sys; sys.exit(3)");
    exit_with_a_message: Script("import sys; sys.exit('that went wrong')");
    an_uncaught_exception: Script("def f(x):\n    return 1 / x\n\nprint('before')\nf(0)\n");
    chained_exceptions: Script("try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('bad') from e\n");
    a_syntax_error: Script("print('never')\nif True print('x')\n");
    exit_without_cleaning_up: Script("import os\nprint('lost?', end='', flush=True)\nos._exit(7)");
    death_by_sigterm: Script("import os, signal; os.kill(os.getpid(), signal.SIGTERM)");
    death_by_a_realtime_signal: Script("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)");
    a_segmentation_fault: Script("import ctypes; ctypes.string_at(0)");
    an_abort: Script("import os; os.abort()");
    a_broken_pipe_inside: Script("
import os, subprocess
reader, writer = os.pipe(); os.close(reader)
try: os.write(writer, b'x')
except BrokenPipeError as error: print(error)
p = subprocess.run(['sh', '-c', 'while true; do echo y; done | head -n 1; exit 5'], capture_output=True)
print(p)
");
    eight_mebibytes_out: Script("import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(8 << 20))");
    eight_mebibytes_to_standard_error: Script("import random, sys; sys.stderr.buffer.write(random.Random(2).randbytes(8 << 20))");
    both_streams_interleaved: Script("
import os
for i in range(200):
    os.write(1, b'out %d\\n' % i)
    os.write(2, b'err %d\\n' % i)
");
    no_final_newline: Script("print('no newline', end='')");
    output_before_a_crash: Script("
import os, sys
print('written'); sys.stdout.flush()
sys.stderr.write('and this\\n')
os.kill(os.getpid(), 11)
");
    devices_by_name: Script("
import os
print('to stdout', file=open('/dev/stdout', 'w'))
print('to stderr', file=open('/dev/stderr', 'w'))
print(open('/dev/stdin').read(), open('/dev/null').read(), open('/dev/zero', 'rb').read(3))
print(len(open('/dev/urandom', 'rb').read(100)), os.path.exists('/dev/fd/0'), os.listdir('/dev/shm'))
try: open('/dev/full', 'w').write('x' * 100000)
except OSError as error: print(error)
"), stdin b"given";
    threads: Script("
import threading, queue
q = queue.Queue()
threads = [threading.Thread(target=lambda n=n: q.put(n * n)) for n in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(q.queue))
");
    multiprocessing_by_fork: Script("
import multiprocessing as m
def f(x): return x * x
if __name__ == '__main__':
    m.set_start_method('fork')
    with m.Pool(3) as pool: print(pool.map(f, range(20)))
");
    multiprocessing_by_spawn: Script("
import multiprocessing as m
def f(q): q.put('from the child')
if __name__ == '__main__':
    m.set_start_method('spawn')
    q = m.Queue(); p = m.Process(target=f, args=(q,)); p.start(); print(q.get()); p.join(); print(p.exitcode)
");
    asyncio_with_sockets: Script("
import asyncio
async def serve(reader, writer):
    writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b'hello over loopback\\n')
    print(await reader.read(), await asyncio.gather(*(asyncio.sleep(0.01 * n, n) for n in range(5))))
asyncio.run(main())
");
    subprocesses_with_pipes: Script("
import subprocess, sys
print(subprocess.run(['tr', 'a-z', 'A-Z'], input='shout', text=True, capture_output=True).stdout)
print(subprocess.run(['bash', '-c', 'exit 9']).returncode, subprocess.getoutput('seq 3 | sort -r'))
print(subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True))
print(subprocess.run(['sh', '-c', 'kill -9 $$']).returncode)
");
    signal_handlers: Script("
import os, signal, time
signal.signal(signal.SIGUSR1, lambda number, frame: print('got', number))
os.kill(os.getpid(), signal.SIGUSR1)
alarms = []
signal.signal(signal.SIGALRM, lambda *_: alarms.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
while not alarms: signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
x = [0.1 * n for n in range(1000)]
signal.signal(signal.SIGPROF, lambda *_: None); signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)
end = time.process_time() + 0.3
while time.process_time() < end: y = sum(x)
signal.setitimer(signal.ITIMER_PROF, 0)
print(y, signal.getsignal(signal.SIGPIPE), signal.pthread_sigmask(signal.SIG_BLOCK, []))
");
    temporary_files: Script("
import os, tempfile
with tempfile.TemporaryDirectory() as d:
    with open(os.path.join(d, 'f'), 'w') as f: f.write('x' * 10000)
    print(os.listdir(d), os.stat(os.path.join(d, 'f')).st_size)
with tempfile.TemporaryFile() as f: f.write(b'abc'); f.seek(0); print(f.read())
print(tempfile.gettempdir())
");
    sqlite: Script("
import sqlite3
db = sqlite3.connect('file.db'); db.execute('create table t (a, b)')
db.executemany('insert into t values (?, ?)', [(n, str(n)) for n in range(100)]); db.commit()
print(db.execute('select sum(a), max(b) from t').fetchone(), sqlite3.sqlite_version)
");
    ssl_random_bytes: Script("import ssl; print(len(ssl.RAND_bytes(32)), ssl.RAND_status())");
    time_zones: Script("
import datetime, zoneinfo
for zone in 'Europe/Zurich', 'Asia/Kolkata', 'America/St_Johns':
    print(datetime.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo(zone)).isoformat())
print(len(zoneinfo.available_timezones()) > 400)
");
    decimals: Script("from decimal import *; getcontext().prec = 60; print(Decimal(2).sqrt(), Decimal(1) / 7)");
    a_list_of_a_hundred_megabytes: Script("x = [7] * (100 << 17); x[-1] = 8; print(len(x), sum(x[:1000]), x[-1])");
    how_python_was_started: Script("
import sys, os, signal
print(sys.flags, sys.argv, __name__, os.path.basename(__file__), sys.path[1:], sys.stdout.encoding)
print(sys.stdin.isatty(), os.getcwd() == os.path.dirname(__file__), sorted(map(int, os.listdir('/proc/self/fd')))[:3])
print([signal.getsignal(n) for n in (1, 2, 3, 13, 15)], os.umask(0o22), sys.executable)
");
}

#[test]
fn a_thousand_arguments() {
    let arguments: Vec<String> = (0..1000)
        .map(|number| format!("argument {number}"))
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    agree(&Script(ARGUMENTS), &arguments, b"");
}

#[test]
fn standard_input_that_is_never_closed_holds_nothing_up() {
    let mut child = start(sandbox(&["run"]).args(["-c", "print('done')"]));
    let held_open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(held_open);
    assert_eq!(text(&output.stdout), "done\n");
    assert_eq!(exit_code(output.status), 0);
}

#[test]
fn standard_input_that_is_closed_reads_as_empty() {
    let output = sandbox(&["run", "-c", "import sys; print(repr(sys.stdin.read()))"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "''\n");
}

#[test]
fn a_dialogue_over_standard_input_and_output() {
    const LINES: usize = 3;
    let line = "x".repeat(70_000) + "\n";
    let code = "
for line in open(0):
    print(len(line), flush=True)
";
    let mut child = start(sandbox(&["run"]).args(["-c", code]));
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..LINES {
        stdin.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        assert_eq!(answer, "70001\n");
    }
    drop(stdin);
    assert_eq!(exit_code(child.wait().unwrap()), 0);
}

#[test]
fn a_line_arrives_before_the_sleep_that_follows_it() {
    const SLEEP: Duration = Duration::from_secs(20);
    let code = format!(
        "import time; print('now', flush=True); time.sleep({})",
        SLEEP.as_secs()
    );
    let mut child = start(sandbox(&["run"]).args(["-c", &code]));
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let arrived = Instant::now();
    assert_eq!(line, "now\n");
    assert_eq!(exit_code(child.wait().unwrap()), 0);
    // Half of it: a machine may be slow to wake us, but not that slow.
    assert!(arrived.elapsed() > SLEEP / 2, "{:?}", arrived.elapsed());
}
