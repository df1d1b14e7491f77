//! The environment that a program finds in its guest.

use crate::common::{exit_code, finish, run, sandbox, text};
use std::process::Command;

/// Runs checks in the guest: each line of code that fails an assertion is shown by its traceback.
fn holds(options: &[&str], code: &str) {
    let output = run(options, &format!("{code}\nprint('all hold')"));
    let stderr = text(&output.stderr);
    assert_eq!(text(&output.stdout), "all hold\n", "{stderr}");
    assert_eq!(exit_code(output.status), 0, "{stderr}");
}

#[test]
fn the_program_is_an_ordinary_user_in_a_sane_environment() {
    holds(
        &[],
        r#"
import getpass, os, pwd, socket
status = dict(line.split(':\t') for line in open('/proc/self/status').read().splitlines())
assert os.getresuid() == (1000,) * 3 and os.getresgid() == (1000,) * 3 and os.getgroups() in ([], [1000])
for name in 'CapInh', 'CapPrm', 'CapEff', 'CapAmb': assert int(status[name], 16) == 0, name
assert status['NoNewPrivs'] == '1' and int(status['SigBlk'], 16) == 0
assert os.getcwd() == '/work' and os.access('/work', os.W_OK) and os.access('/tmp', os.W_OK)
assert sorted(os.environ) == ['HOME', 'LANG', 'LOGNAME', 'PATH', 'SHELL', 'USER'], os.environ
assert pwd.getpwuid(1000).pw_name == getpass.getuser() == 'sandbox' and socket.gethostname() == 'sandbox'
assert os.path.expanduser('~') == '/work' and len(os.listdir('/dev/fd')) == 4
"#,
    );
}

#[test]
fn nothing_but_the_scratch_file_systems_can_be_written() {
    holds(
        &[],
        r#"
import errno, os
for path in '/x', '/usr/x', '/etc/x', '/proc/x', '/sys/x', '/dev/x', '/run/x':
    try: open(path, 'w')
    except OSError as error: assert error.errno in (errno.EROFS, errno.EACCES, errno.ENOENT, errno.EPERM), (path, error)
    else: raise AssertionError(path)
for path in '/work/x', '/tmp/x', '/dev/shm/x': open(path, 'w').write('x')
assert not os.path.exists('/dev/mem') and not os.path.exists('/dev/kvm')
"#,
    );
}

#[test]
fn there_is_no_network_but_loopback() {
    holds(
        &[],
        r#"
import os, socket
assert os.listdir('/sys/class/net') == ['lo']
with socket.create_server(('127.0.0.1', 0)) as server, socket.create_connection(server.getsockname()) as client:
    connection, _ = server.accept(); client.sendall(b'x'); assert connection.recv(1) == b'x'
for address in '10.0.0.1', '169.254.169.254', '192.168.1.1', '8.8.8.8':
    try: socket.create_connection((address, 80), timeout=1)
    except OSError: pass
    else: raise AssertionError(address)
"#,
    );
}

#[test]
fn the_kernel_has_what_programs_expect() {
    holds(
        &[],
        r#"
import ctypes, fcntl, mmap, os, pty, select, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
def ok(result): assert result >= 0, os.strerror(ctypes.get_errno()); return result
master, slave = pty.openpty(); os.write(slave, b'x'); assert os.read(master, 1) == b'x' and os.ttyname(slave).startswith('/dev/pts/')
fd = os.memfd_create('x'); os.ftruncate(fd, 4096); mmap.mmap(fd, 4096)[:1] = b'y'; assert os.pread(fd, 1, 0) == b'y'
epoll = select.epoll(); event = os.eventfd(1); epoll.register(event); assert epoll.poll(1)
ok(libc.timerfd_create(1, 0))
watch = ok(libc.inotify_init()); ok(libc.inotify_add_watch(watch, b'/tmp', 0x100)); open('/tmp/new', 'w'); assert os.read(watch, 100)
told = []; signal.signal(signal.SIGIO, lambda *_: told.append(1))
fcntl.fcntl(os.open('/tmp', os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_CREATE); open('/tmp/newer', 'w'); assert told
ok(libc.mq_open(b'/queue', os.O_CREAT | os.O_RDWR, 0o600, None))
for call in libc.shmget, libc.semget: ok(call(1234, 1, 0o1600))
ok(libc.msgget(1234, 0o1600))
ok(libc.signalfd(-1, ctypes.create_string_buffer(128), 0))
timer = ctypes.c_void_p(); ok(libc.timer_create(1, None, ctypes.byref(timer)))
a, b = socket.socketpair(); a.send(b'z'); assert b.recv(1) == b'z'
os.setxattr('/tmp/new', 'user.x', b'1'); assert os.getxattr('/tmp/new', 'user.x') == b'1'
ok(libc.unshare(0x10000000)); assert os.getuid() == 65534  # CLONE_NEWUSER
ok(libc.prctl(21, 0, 0, 0, 0))  # PR_GET_SECCOMP
before = time.monotonic(); time.sleep(0.1); assert 0.1 <= time.monotonic() - before < 5
assert abs(time.time() - os.stat('/tmp/new').st_mtime) < 60
"#,
    );
}

#[test]
fn commands_have_the_options_that_scripts_use() {
    let code = r#"
import subprocess
open('a b.txt', 'w').write('one\nTwo 22\n')
for command, expected in {
    "python -c 'import sys; print(sys.version_info[0], sys.executable)'": '3 /usr/bin/python\n',
    "grep -rnP --include='*.txt' '(?<=Two )[0-9]+' .": './a b.txt:2:Two 22\n',
    "grep -rHnFZ -e one . | tr '\\0' :": './a b.txt:1:one\n',
    "find . -type f -newermt 2001-01-01 -printf '%s %f\n'": '11 a b.txt\n',
    "find . -name '*.txt' -print0 | xargs -0 -n 1 wc -l": '2 ./a b.txt\n',
}.items():
    given = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert given.stdout == expected, (command, given)
"#;
    holds(&[], code);
}

#[test]
fn the_wall_clock_is_the_hosts() {
    let output = run(&[], "import time; print(time.time())");
    let guest: f64 = text(&output.stdout).trim().parse().unwrap();
    let host = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(
        (0.0..60.0).contains(&(host - guest)),
        "{guest} against {host}"
    );
}

#[test]
fn vector_registers_survive_switches_between_processes() {
    holds(
        &[],
        r#"
import multiprocessing
def work(seed):
    values = [seed * 1.000001 ** n for n in range(300)]
    return all(sum(v * v for v in values) == sum(v * v for v in values) for _ in range(300)) and hash(tuple(values))
with multiprocessing.Pool(4) as pool:
    results = pool.map(work, [1.5, 2.5, 3.5, 4.5])
assert all(results) and results == [work(seed) for seed in (1.5, 2.5, 3.5, 4.5)]
"#,
    );
}

#[test]
fn the_whole_standard_library_imports() {
    // For a screen, for other systems, or told in the README.
    holds(
        &[],
        r#"
import importlib, sys
elsewhere = {'_ios_support', '_overlapped', '_scproxy', '_tkinter', '_winapi', '_wmi', 'antigravity',
    'idlelib', 'msvcrt', 'nt', 'this', 'tkinter', 'turtle', 'turtledemo', 'winreg', 'winsound'}
import warnings; warnings.simplefilter('ignore')
for name in sorted(sys.stdlib_module_names - elsewhere): importlib.import_module(name)
importlib.import_module('dbm.gnu').open('/tmp/db', 'c')['a'] = b'b'
"#,
    );
}

#[test]
fn a_virtual_environment_gets_pip_and_installs_what_is_there() {
    holds(
        &["-m", "512M"],
        r#"
import os, subprocess, venv, zipfile
with zipfile.ZipFile('demo-1.0-py3-none-any.whl', 'w') as wheel:
    about = 'demo-1.0.dist-info/'
    wheel.writestr('demo.py', 'x = 42')
    wheel.writestr(about + 'METADATA', 'Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n')
    wheel.writestr(about + 'WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr(about + 'RECORD', '')
venv.create('env', with_pip=True)
subprocess.run(['env/bin/pip', 'install', '--quiet', '--no-index', './demo-1.0-py3-none-any.whl'], check=True)
found = subprocess.run(['env/bin/python', '-c', 'import demo; print(demo.x)'], check=True, capture_output=True)
assert found.stdout == b'42\n', found
failed = subprocess.run(['env/bin/pip', 'install', '--retries', '1', 'demo2'], capture_output=True, text=True)
assert failed.returncode and 'Name or service not known' in failed.stderr, failed
"#,
    );
}

#[test]
fn both_families_of_addresses_are_on_loopback() {
    holds(
        &[],
        r#"
import asyncio, socket
def talk(server, address):
    with server, socket.create_connection((address, server.getsockname()[1])) as client:
        connection, _ = server.accept(); client.sendall(b'x'); assert connection.recv(1) == b'x'
for address in '::1', 'localhost', 'ip6-localhost':
    talk(socket.create_server(('::1', 0), family=socket.AF_INET6), address)
for address in '::1', '127.0.0.1', 'localhost':
    talk(socket.create_server(('', 0), family=socket.AF_INET6, dualstack_ipv6=True), address)
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as socket_: socket_.bind(('::1', 0))
async def serve(host):
    server = await asyncio.start_server(lambda reader, writer: writer.close(), host, 0)
    families = {socket.family for socket in server.sockets}
    reader, writer = await asyncio.open_connection(host, server.sockets[0].getsockname()[1])
    assert await reader.read() == b''
    writer.close()
    server.close()
    return families
assert asyncio.run(serve('::1')) == {socket.AF_INET6}
assert asyncio.run(serve('localhost')) == {socket.AF_INET, socket.AF_INET6}
for address in '2001:4860:4860::8888', 'fe80::1':
    try: socket.create_connection((address, 80), timeout=1)
    except OSError: pass
    else: raise AssertionError(address)
"#,
    );
}

#[test]
fn memory_is_promised_as_on_a_host_and_counts_when_it_is_used() {
    holds(
        &[],
        r#"
import mmap, resource
for size in 1 << 30, 12 << 30:
    with mmap.mmap(-1, size) as memory: memory[size // 2] = 1; assert memory[size - 1] == 0
try: bytearray(64 << 30)
except MemoryError: pass
else: raise AssertionError('more than a host has')
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 100 << 10
"#,
    );
}

#[test]
fn guest_root_is_root_of_its_guest_only() {
    holds(
        &["--root"],
        "import os; assert os.getuid() == 0 and os.path.exists('/proc/1/exe')",
    );
}

/// In pages of 4 KiB there would be 16 faults for 2 MiB, as each maps 32 of them. Of the
/// interpreter, only the part before its data is checked: pages that are copied are mapped one by
/// one.
#[test]
fn large_files_of_the_image_are_mapped_in_huge_pages() {
    holds(
        &[],
        r#"
import mmap, resource
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for path, pieces in ('/usr/bin/python3.13', 2), ('/usr/lib/sandbox/modules', 4):
    with open(path, 'rb') as file: mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    before = faults()
    for at in range(0, pieces << 21, 4096): mapped[at]
    assert faults() - before <= 4 * pieces, (path, faults() - before)
"#,
    );
}

#[test]
fn the_interpreter_s_code_and_constants_are_one_mapping() {
    holds(
        &[],
        r#"
first = open('/proc/self/maps').readline().split()
start, end = (int(at, 16) for at in first[0].split('-'))
assert first[1:3] == ['r-xp', '00000000'] and start % (2 << 20) == 0 and end - start >= 4 << 20, first
"#,
    );
}

/// The program loads no library, so its end is the short one.
#[test]
fn what_a_program_registers_with_the_c_library_is_done_at_its_end() {
    let first = "import ctypes, sys; libc = ctypes.CDLL(None)\n";
    for (last, status, stdout) in [
        ("libc.printf(b'held back'); sys.exit(7)", 7, "held back"),
        ("libc.on_exit(libc.abort, None); sys.exit(7)", 134, ""),
    ] {
        let output = run(&[], &format!("{first}{last}"));
        assert_eq!(exit_code(output.status), status, "{output:?}");
        assert_eq!(text(&output.stdout), stdout, "{output:?}");
    }
}

#[test]
fn destructors_of_a_library_that_the_program_loads_run_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (source, library) = (
        directory.path().join("last.c"),
        directory.path().join("last.so"),
    );
    let code = "#include <unistd.h>\n\
        __attribute__((destructor)) static void last(void) { write(1, \"last\\n\", 5); }";
    std::fs::write(&source, code).unwrap();
    let compiler = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiler.unwrap().success());
    let mut command = sandbox(&["run", "--put"]);
    command.arg(&library).args([
        "-c",
        "import ctypes; ctypes.CDLL('./last.so'); print('first')",
    ]);
    let output = finish(&mut command, b"");
    assert_eq!(
        text(&output.stdout),
        "first\nlast\n",
        "{}",
        text(&output.stderr)
    );
}
