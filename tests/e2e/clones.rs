//! A clone is an individual: its random numbers differ from every other clone's, and its clocks are
//! right. Tests also show what clones do share, so that docs/clones.md tells the truth.

use crate::common::{exit_code, finish, sandbox, start, text};
use crate::reference::reference;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number of clones that are compared; `SANDBOX_CLONES` asks for another number.
const CLONES: usize = 500;
/// The number of clones where each must start a process of its own, which takes the guest long.
const CLONES_WITH_CHILDREN: usize = 100;
/// The number of clones that must be alike.
const ALIKE: usize = 3;
/// The number of machines that are booted one by one, at several seconds each.
const FRESH: usize = 2;
/// The number of runs at once.
const WORKERS: usize = 2;
/// The greatest allowed error of a clone's wall clock.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(5);

/// Draws from every source of randomness that a program has: prints a line for each, with the
/// value.
const DRAW: &str = r#"
import ctypes, multiprocessing, os, random, secrets, sqlite3, ssl, tempfile, uuid

def read(path, size=-1):
    with open(path, 'rb') as file:
        return file.read(size).hex()

def call(library, name, *more):
    buffer = ctypes.create_string_buffer(16)
    getattr(ctypes.CDLL(library), name)(buffer, 16, *more)
    return buffer.raw.hex()

time_based = uuid.uuid1()
drawn = {
    'os.urandom': os.urandom(16).hex(),
    'os.getrandom': os.getrandom(16).hex(),
    'getrandom of the C library': call(None, 'getrandom', 0),
    'arc4random of the C library': call(None, 'arc4random_buf'),
    '/dev/urandom': read('/dev/urandom', 16),
    '/dev/random': read('/dev/random', 16),
    '/proc/sys/kernel/random/uuid': read('/proc/sys/kernel/random/uuid'),
    '/proc/sys/kernel/random/boot_id': read('/proc/sys/kernel/random/boot_id'),
    'random.random': random.random(),
    'random.getrandbits': random.getrandbits(64),
    'random.SystemRandom': random.SystemRandom().random(),
    'secrets.token_bytes': secrets.token_bytes(16).hex(),
    'uuid.uuid1': time_based,
    'uuid.uuid1, node': time_based.node,
    'uuid.getnode': uuid.getnode(),
    'uuid.uuid4': uuid.uuid4(),
    'tempfile, candidate for a name': next(tempfile._get_candidate_names()),
    'tempfile.NamedTemporaryFile': tempfile.NamedTemporaryFile().name,
    'multiprocessing, authkey': bytes(multiprocessing.current_process().authkey).hex(),
    'ssl.RAND_bytes': ssl.RAND_bytes(16).hex(),
    'OpenSSL for private keys': call('libcrypto.so.3', 'RAND_priv_bytes'),
    'sqlite3, randomblob': sqlite3.connect(':memory:').execute('select hex(randomblob(16))').fetchone()[0],
    'uuid.uuid1, clock_seq': time_based.clock_seq,
}
for source, value in drawn.items():
    print(source, value, sep='\t')
"#;
/// The source that has only 14 bits: any 500 of these values have some in common, even if all is
/// well.
const SHORT: &str = "uuid.uuid1, clock_seq";
const SOURCES: usize = 23;

/// Prints what an interpreter chose for itself when it started, and where things are in its memory.
const SECRETS: &str = r#"
import ctypes
fresh_object = object()
libc = ctypes.CDLL(None)
libc.pthread_self.restype = libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
thread = libc.pthread_self()
AT_RANDOM = 25
libc.getauxval.restype = ctypes.c_void_p
piece = libc.malloc(24)
libc.free(piece)
maps = [line.split() for line in open('/proc/self/maps')]
for name, value in {
    'hash of a str': hash('x'),
    'hash of bytes': hash(b'x'),
    'AT_RANDOM': ctypes.string_at(libc.getauxval(AT_RANDOM), 16).hex(),
    'stack canary': ctypes.string_at(thread + 0x28, 8).hex(),
    'pointer guard': ctypes.string_at(thread + 0x30, 8).hex(),
    'key of freed memory': ctypes.string_at(piece + 8, 8).hex(),
    'address of an object': id(fresh_object),
    'address of the C library': next(line[0] for line in maps if 'libc.so' in line[-1]),
    'address of the heap': next(line[0] for line in maps if line[-1] == '[heap]').split('-')[0],
    'address of the stack': next(line[0] for line in maps if line[-1] == '[stack]').split('-')[1],
}.items():
    print(name, value, sep='\t')
"#;

/// The values of a program that prints a name, a tab and a value on each line.
type Values = BTreeMap<String, String>;

/// Runs a program and returns the values that it prints. Its machine is restored unless the options
/// say otherwise.
fn values(options: &[&str], code: &str) -> Values {
    let mut command = sandbox(&["run"]);
    command
        .env_remove("SANDBOX_FRESH")
        .args(options)
        .args(["-c", code]);
    let output = finish(&mut command, b"");
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 0, "{stderr}");
    text(&output.stdout)
        .lines()
        .map(|line| line.split_once('\t').expect("a name and a value"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Repeats the work so many times, a few at once, and returns the results.
fn repeated<T: Send>(count: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    let (begun, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < count {
                    let result = work();
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    assert_eq!(results.len(), count);
    results
}

/// Returns the different values of each name.
fn different(machines: &[Values]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all = BTreeMap::<_, BTreeSet<_>>::new();
    for (name, value) in machines.iter().flatten() {
        all.entry(name.as_str()).or_default().insert(value.as_str());
    }
    all
}

/// Returns the number of different values of each name.
fn counts(machines: &[Values]) -> BTreeMap<&str, usize> {
    different(machines)
        .into_iter()
        .map(|(name, values)| (name, values.len()))
        .collect()
}

#[test]
fn no_two_of_five_hundred_clones_draw_the_same() {
    let clones = std::env::var("SANDBOX_CLONES").map_or(CLONES, |count| count.parse().unwrap());
    let machines = repeated(clones, || values(&[], DRAW));
    let mut counts = counts(&machines);
    assert_eq!(counts.len(), SOURCES, "{counts:?}");
    let short = counts.remove(SHORT).unwrap();
    assert!(short > clones / 2, "{SHORT}: {short} of {clones}");
    counts.retain(|_, &mut count| count != clones);
    assert!(counts.is_empty(), "of {clones} clones: {counts:?}");
}

#[test]
fn a_process_that_a_clone_starts_has_its_own_address_space_and_secrets() {
    let code = r#"
import subprocess
output = subprocess.check_output(['sh', '-c', 'cat /proc/self/maps; mktemp -u'], text=True).splitlines()
ends = {line.split()[-1]: line.split('-')[0] for line in output if line.endswith(']')}
print('heap, libraries and stack', ends['[heap]'], ends['[vdso]'], ends['[stack]'], sep='\t')
print('mktemp', output[-1], sep='\t')
"#;
    let machines = repeated(CLONES_WITH_CHILDREN, || values(&[], code));
    let expected = [
        ("heap, libraries and stack", CLONES_WITH_CHILDREN),
        ("mktemp", CLONES_WITH_CHILDREN),
    ];
    assert_eq!(counts(&machines), expected.into());

    let code = r#"
import subprocess, sys
print('own', hash('x'), sep='\t')
print('child', subprocess.check_output([sys.executable, '-c', 'print(hash("x"))'], text=True), sep='\t', end='')
"#;
    let machines = repeated(ALIKE, || values(&[], code));
    assert_eq!(counts(&machines), [("child", ALIKE), ("own", 1)].into());
}

#[test]
fn clones_share_layout_and_start_up_secrets_and_fresh_machines_do_not() {
    let clones = repeated(ALIKE, || values(&[], SECRETS));
    for (name, values) in different(&clones) {
        assert_eq!(values.len(), 1, "{name}: {values:?}");
    }
    let mut machines = repeated(FRESH, || values(&["--fresh"], SECRETS));
    machines.push(clones[0].clone());
    for (name, values) in different(&machines) {
        assert_eq!(values.len(), FRESH + 1, "{name}: {values:?}");
    }
}

#[test]
fn what_names_a_machine_and_a_process_is_the_same_in_every_clone() {
    let code = r#"
import os, socket
for name, value in {
    'process': os.getpid(), 'parent': os.getppid(), 'host': socket.gethostname(),
    'kernel': os.uname(), 'inode of a file': os.stat('/work').st_ino,
}.items(): print(name, value, sep='\t')
"#;
    let machines = repeated(ALIKE, || values(&[], code));
    assert!(counts(&machines).values().all(|&count| count == 1));
}

#[test]
fn no_two_shells_draw_the_same() {
    let draw = || {
        let code = "echo $RANDOM$RANDOM $SRANDOM $(mktemp -u)";
        let output = finish(sandbox(&["run", "-l", "bash", "-c"]).arg(code), b"");
        let drawn: Vec<_> = text(&output.stdout).split(' ').map(str::to_owned).collect();
        assert_eq!(drawn.len(), 3, "{}", text(&output.stderr));
        drawn
    };
    let machines = repeated(50, draw);
    for at in 0..3 {
        let different: BTreeSet<_> = machines.iter().map(|drawn| &drawn[at]).collect();
        assert_eq!(different.len(), machines.len(), "{different:?}");
    }
}

#[test]
fn a_hash_seed_of_ones_own_is_honoured() {
    let code = "print('hash', hash('x'), sep='\\t')";
    let mut python = reference();
    python.env("PYTHONHASHSEED", "7").args(["-c", code]);
    let expected = text(&finish(&mut python, b"").stdout);
    let seeded = values(&["-e", "PYTHONHASHSEED=7"], code);
    assert_eq!(format!("hash\t{}\n", seeded["hash"]), expected);
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// No reading of a clone's clock may arrive before it was read. The quickest of many readings took
/// next to no time, or else the clock is behind. A machine that the host held up when it was given
/// the time is behind, but not all of them are.
#[test]
fn the_wall_clock_of_a_clone_is_right_to_five_milliseconds() {
    const MACHINES: usize = 3;
    const READINGS: usize = 500;
    let code = format!(
        "import time\nfor _ in range({READINGS}): print(time.time_ns(), flush=True); time.sleep(0.002)"
    );
    let mut swiftest = Duration::MAX;
    for _ in 0..MACHINES {
        let before = now();
        let mut command = sandbox(&["run", "-c", &code]);
        let mut child = start(command.env_remove("SANDBOX_FRESH"));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..READINGS {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let arrived = now() + CLOCK_TOLERANCE;
            let read = Duration::from_nanos(line.trim().parse().unwrap());
            assert!(read + CLOCK_TOLERANCE >= before, "{read:?} at {before:?}");
            assert!(read <= arrived, "{read:?} but {arrived:?} at the most");
            swiftest = swiftest.min(arrived - read);
        }
        assert_eq!(exit_code(child.wait().unwrap()), 0);
    }
    assert!(swiftest <= 2 * CLOCK_TOLERANCE, "{swiftest:?} behind");
}

#[test]
fn all_clocks_of_a_clone_agree_and_sleeps_last_as_long_as_they_should() {
    // A second where a timer tick, or a clock that counts whole seconds, is in between.
    let code = r#"
import datetime, os, select, subprocess, threading, time

def near(a, b, tolerance=1): assert abs(a - b) <= tolerance, (a, b)
def lasts(least, wait):
    before = time.monotonic(); wait(); took = time.monotonic() - before
    assert least <= took < least + 60, (least, took)

def agree():
    assert 0 < time.monotonic() < 3600
    near(time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())
    near(time.perf_counter(), time.monotonic())
    near(time.clock_gettime(time.CLOCK_TAI), time.time())
    near(time.clock_gettime(5), time.time())       # CLOCK_REALTIME_COARSE
    near(time.clock_gettime(6), time.monotonic())  # CLOCK_MONOTONIC_COARSE
    near(float(open('/proc/uptime').read().split()[0]), time.monotonic())
    booted = next(int(line.split()[1]) for line in open('/proc/stat') if line.startswith('btime'))
    near(booted + time.monotonic(), time.time(), 2)
    near(datetime.datetime.now(datetime.timezone.utc).timestamp(), time.time())
    assert abs(datetime.datetime.now() - datetime.datetime.utcnow()) < datetime.timedelta(seconds=1)
    open('/tmp/new', 'w').close()
    near(os.stat('/tmp/new').st_mtime, time.time())
    near(int(subprocess.check_output(['date', '+%s'])), time.time(), 2)
    # What the interpreter did before it was saved counts no more.
    near(time.process_time(), 0, 5)
    near(int(open('/proc/self/stat').read().rpartition(')')[2].split()[19]) / os.sysconf('SC_CLK_TCK'), time.monotonic(), 5)

# The host may hold us up between two readings, but not each time.
for left in 2, 1, 0:
    try:
        agree()
        break
    except AssertionError:
        if not left: raise

lasts(0.1, lambda: time.sleep(0.1))
lasts(0.1, lambda: [time.sleep(0.001) for _ in range(100)])
lasts(0.1, lambda: select.select([], [], [], 0.1))
lasts(0.1, lambda: threading.Event().wait(0.1))
before = time.time(); time.sleep(0.1); assert 0.1 <= time.time() - before < 60
"#;
    assert_eq!(values(&[], code), Values::new());
}

#[test]
fn the_monotonic_clock_goes_on_from_where_the_template_left_it() {
    const PAUSE: Duration = Duration::from_secs(4);
    // The least of a few: what a busy machine adds is no part of it.
    let reading = || {
        let code = "import time; print('now', time.monotonic(), sep='\\t')";
        let readings = repeated(ALIKE, || values(&[], code)["now"].parse::<f64>().unwrap());
        readings.into_iter().reduce(f64::min).unwrap()
    };
    let first = reading();
    std::thread::sleep(PAUSE);
    let later = reading();
    let jump = (later - first).abs();
    assert!(jump < PAUSE.as_secs_f64() / 2.0, "{first} then {later}");
}
