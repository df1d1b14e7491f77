//! Attempts of a program that is root in its guest, with a whole Linux at hand: each has an
//! outcome, and none reaches the host. The ways in which it brings its machine down are in
//! `limits`.

use crate::common::{
    Cache, PYTHON, enough_to_start, exit_code, finish, mode, start, text, with_ports,
};
use crate::lab::complaints;
use sandbox::internals::vm::mode::Mode;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::sync::LazyLock;

/// Returns a cache with the templates of an ordinary run and of one as root. Tests that need
/// another machine boot it.
fn cache() -> &'static Cache {
    static CACHE: LazyLock<Cache> = LazyLock::new(|| {
        let cache = Cache::copied();
        let output = cache.run(&["--root"], "pass");
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        // SAFETY: `remove` is a function that any thread may call at the end.
        unsafe { libc::atexit(remove) };
        cache
    });
    // Nothing else would: statics are not dropped.
    extern "C" fn remove() {
        fs::remove_dir_all(&CACHE.0).unwrap_or_default();
    }
    &CACHE
}

/// Runs the code as root for at most so many seconds, and checks that the host did not change.
fn attack(options: &[&str], seconds: &str, code: &str) -> Output {
    attack_in(cache(), options, seconds, code)
}

fn attack_in(cache: &Cache, options: &[&str], seconds: &str, code: &str) -> Output {
    let before = Host::look();
    let mut command = cache.sandbox(&["run", "--root", "-t", seconds]);
    let output = finish(command.args(options).args(["-c", code]), b"");
    assert_eq!(Host::look(), before);
    output
}

/// The things that no guest can change: the cache, the processes that use it, and the host's own.
#[derive(Debug, PartialEq)]
struct Host {
    cache: std::collections::BTreeSet<crate::common::Identity>,
    boot: String,
    name: String,
    settings: [String; 3],
}

impl Host {
    fn look() -> Self {
        // Not every kernel has all of them.
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            cache: cache().identities(),
            boot: read("/proc/sys/kernel/random/boot_id"),
            name: read("/proc/sys/kernel/hostname"),
            settings: ["sysrq", "panic", "core_pattern"]
                .map(|name| read(&format!("/proc/sys/kernel/{name}"))),
        }
    }
}

#[track_caller]
fn assert_ended(output: &Output, code: i32, told: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), code, "{stderr}");
    assert!(stderr.contains(told), "{stderr}");
}

#[test]
fn there_is_no_memory_device_and_no_port_device() {
    let code = "
import os, stat
for name, number in ('mem', 1), ('kmem', 2), ('port', 4):
    os.mknod('/tmp/' + name, 0o600 | stat.S_IFCHR, os.makedev(1, number))
    try: os.open('/tmp/' + name, os.O_RDWR)
    except OSError: print('no', name)
for path in '/proc/kcore', '/sys/firmware/efi', '/dev/kvm': assert not os.path.exists(path), path
";
    let output = attack(&[], "300", code);
    assert_ended(&output, 0, "");
    assert_eq!(text(&output.stdout), "no mem\nno kmem\nno port\n");
}

#[test]
fn settings_of_its_kernel_are_those_of_its_kernel() {
    let code = "
open('/proc/sys/kernel/hostname', 'w').write('conquered')
open('/proc/sys/kernel/panic', 'w').write('77')
open('/proc/sys/kernel/sysrq', 'w').write('511')
print(open('/proc/sys/kernel/hostname').read())
";
    let output = attack(&[], "300", code);
    assert_ended(&output, 0, "");
    assert_eq!(text(&output.stdout), "conquered\n\n");
}

#[test]
fn settings_users_and_homes_take_what_root_writes() {
    let code = "
import os, pwd, subprocess, sys
open('/etc/passwd', 'a').write('joe:x:1500:1500::/home/joe:/bin/sh\\n')
os.mkdir('/home/joe')
os.rename('/etc/hosts', '/etc/hosts.old')
os.remove('/etc/profile')
for path in '/root/x', '/var/x', '/etc/default/x': open(path, 'w').write('x')
as_joe = lambda code: subprocess.run([sys.executable, '-c', code], user='joe', capture_output=True, text=True)
print(pwd.getpwnam('joe').pw_uid, os.path.exists('/etc/profile'), oct(os.stat('/root').st_mode))
for path in '/etc/x', '/home/x', '/run/above/x': print(as_joe(f'open({path!r}, \"w\")').stderr.splitlines()[-1])
";
    let output = attack(&[], "300", code);
    assert_ended(&output, 0, "");
    let expected = "1500 False 0o40700
PermissionError: [Errno 13] Permission denied: '/etc/x'
PermissionError: [Errno 13] Permission denied: '/home/x'
PermissionError: [Errno 13] Permission denied: '/run/above/x'
";
    assert_eq!(text(&output.stdout), expected);
    // It is that machine's alone.
    let code = "import os; print(os.path.exists('/root/x'), os.path.exists('/etc/profile'))";
    assert_eq!(text(&attack(&[], "300", code).stdout), "False True\n");
}

/// These keys do not end the machine.
#[test]
fn sysrq_that_kills_all_processes_ends_the_program() {
    let code = "
import time
print('up', flush=True)
for key in 'mtwsle': open('/proc/sysrq-trigger', 'w').write(key); time.sleep(0.1)
open('/proc/sysrq-trigger', 'w').write('i'); time.sleep(1000)
";
    let output = attack(&[], "120", code);
    let code = exit_code(output.status);
    assert!([125, 137, 143].contains(&code), "{output:?}");
    assert_eq!(text(&output.stdout), "up\n");
}

#[test]
fn a_poweroff_and_a_halt_are_the_end_of_its_machine() {
    for how in ["0x4321fedc", "0xcdef0123"] {
        let code = format!("import ctypes; ctypes.CDLL(None).reboot(ctypes.c_uint({how}))");
        assert_ended(&attack(&[], "120", &code), 125, "it shut itself down");
    }
}

#[test]
fn the_agent_cannot_be_killed() {
    let code = "
import os, signal
os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGSTOP); os.kill(-1, signal.SIGKILL)
print('still here')
";
    let output = attack(&[], "300", code);
    assert_ended(&output, 0, "");
    assert_eq!(text(&output.stdout), "still here\n");
}

#[test]
fn a_program_that_stops_itself_is_stopped_at_its_limit() {
    let code = "import os, signal; print('up', flush=True); os.kill(os.getpid(), signal.SIGSTOP)";
    let output = attack(&[], "10", code);
    assert_ended(&output, 124, "time limit");
    assert_eq!(text(&output.stdout), "up\n");
}

/// The program takes the agent's place as its tracer, with its memory and its socket.
#[test]
fn an_agent_that_is_taken_over_gets_an_outcome() {
    let attach =
        "import ctypes, time; libc = ctypes.CDLL(None); assert libc.ptrace(16, 1, 0, 0) == 0";
    let output = attack(&[], "3", &format!("{attach}\nwhile True: time.sleep(1)"));
    assert_ended(&output, 124, "time limit");
    let killed =
        format!("{attach}\nlibc.waitpid(1, None, 0); libc.ptrace(8, 1, 0, 0); time.sleep(60)");
    let code = exit_code(attack(&[], "20", &killed).status);
    assert!([124, 125].contains(&code), "{code}");
}

/// Sends frames to the host that the agent never sent, through the agent's socket and through a new
/// one.
#[test]
fn a_forged_frame_is_a_claim_or_a_violation_and_nothing_else() {
    let steal = |frame: &str| {
        format!(
            "
import ctypes, os, time
libc = ctypes.CDLL(None)
agent = libc.syscall(434, 1, 0)  # pidfd_open
for number in os.listdir('/proc/1/fd'):
    if os.readlink(f'/proc/1/fd/{{number}}').startswith('socket:'):
        os.write(libc.syscall(438, agent, int(number), 0), {frame})  # pidfd_getfd
time.sleep(1000)"
        )
    };
    for (frame, told) in [
        ("b'\\xff' * 100", "the guest crashed: malformed frame"),
        ("bytes([1, 0, 0, 0, 0])", "out of turn"),
        ("bytes([5, 4, 0, 0, 0, 255, 255, 255, 255])", "never sent"),
        (
            "bytes([2, 255, 255, 255, 255]) + bytes(50000)",
            "the guest crashed: ",
        ),
        (
            "bytes([6, 255, 255, 255, 127]) + bytes(50000)",
            "the guest crashed: ",
        ),
    ] {
        assert_ended(&attack(&[], "300", &steal(frame)), 125, told);
    }
    let connect = "
import socket
for port in 0, 1, 2, 1024, 0xffffffff:
    new = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try: new.connect((2, port))
    except OSError: print('no', port)
";
    let output = attack(&[], "120", connect);
    assert_ended(&output, 0, "");
    assert_eq!(
        text(&output.stdout),
        "no 0\nno 1\nno 2\nno 1024\nno 4294967295\n"
    );
}

/// Calls the hypervisor as only the guest's kernel should: each service, at addresses of all kinds.
#[test]
fn services_that_a_program_asks_for_itself_harm_only_its_guest() {
    let code = |services: &str| {
        format!(
            "
import ctypes, mmap
assert ctypes.CDLL(None).iopl(3) == 0
page = mmap.mmap(-1, 4096, prot=7)
def ask(al, ah, rcx, rdi, rsi):
    page.seek(0)
    page.write(bytes.fromhex('5648 b8') + (al | ah << 8).to_bytes(8, 'little') + bytes.fromhex('48b9') + rcx.to_bytes(8, 'little')
        + bytes.fromhex('48bf') + rdi.to_bytes(8, 'little') + bytes.fromhex('48be') + rsi.to_bytes(8, 'little') + bytes.fromhex('e7e4 5e c3'))
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print('asking', flush=True)
{services}"
        )
    };
    let ask = |services: &str| attack_in(Cache::growing(), with_ports(), "300", &code(services));
    let claim = ask("ask(5, 7, 0, 0, 0)");
    assert_ended(&claim, 7, "");
    let all = "
for al in 0, 1, 2, 3, 4, 6, 7, 9, 10, 255:
    for address in 0, 1, 0x1000, 0x7fff_ffff_f000, 1 << 63, (1 << 64) - 1, ctypes.addressof(ctypes.c_char.from_buffer(page)) + 2048:
        for count in 0, 1, 4096, 1 << 32, (1 << 64) - 1: ask(al, 0, count, address, address)
print('done')";
    let output = ask(all);
    let ended = exit_code(output.status);
    assert!(
        [0, 124, 125, 132, 135, 139].contains(&ended),
        "{ended}: {}",
        text(&output.stderr)
    );
    assert_ended(&ask("ask(3, 9, 10, 0, 0)"), 125, "output to stream 9");
}

#[test]
fn a_fork_bomb_of_root_is_held_to_its_processes() {
    let code = "
import os
while True:
    try: os.fork()
    except BlockingIOError: os.write(1, b'no more\\n'); break
while True: pass
";
    let output = attack(&["--pids-limit", "30"], enough_to_start(), code);
    assert_ended(&output, 124, "time limit");
    assert!(text(&output.stdout).starts_with("no more\n"), "{output:?}");
}

#[test]
fn scratch_file_systems_are_full_when_filled_or_are_its_own_memory() {
    let fill = "
with open('/tmp/fill', 'wb') as file:
    while True: file.write(b'x' * (1 << 20))";
    let output = attack(&["--fresh", "-m", "128M"], "120", fill);
    assert_ended(&output, 1, "No space left on device");
    let unbound = format!(
        "import ctypes
assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 32, b'size=4g') == 0{fill}"
    );
    let output = attack(&["--fresh", "-m", "128M"], "120", &unbound);
    let ended = exit_code(output.status);
    assert!(
        [124, 125, 137].contains(&ended),
        "{ended}: {}",
        text(&output.stderr)
    );
}

/// Returns the most memory that a process has had so far, in bytes (proc(5), VmHWM).
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() << 10
}

/// Returns the most memory of the host that a run took until its end, if it writes so many MiB.
fn peak_of_writing(mebibytes: u32) -> u64 {
    let code = format!(
        "
import os, sys
piece = b'x' * (1 << 20)
for _ in range({mebibytes}): os.write(1, piece)
os.write(2, b'end'); sys.stdin.read()"
    );
    let mut command = cache().sandbox(&["run", "-q", "--root", "--max-output", "1M"]);
    let mut child = start(command.args(["-c", &code]));
    let mut bytes = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || stdout.read_to_end(&mut bytes).map(|_| bytes.len()));
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 3])
        .unwrap();
    let peak = peak(&child);
    drop(child.stdin.take());
    assert_eq!(exit_code(child.wait().unwrap()), 0);
    assert_eq!(reader.join().unwrap().unwrap(), 1 << 20);
    peak
}

#[test]
fn ten_gibibytes_of_output_take_no_more_memory_than_one_mebibyte() {
    let (little, much) = (peak_of_writing(1), peak_of_writing(10 << 10));
    println!(
        "{} KiB, {} KiB with 10 GiB of output",
        little >> 10,
        much >> 10
    );
    assert!(much <= little + (8 << 20), "{little} became {much}");
}

#[test]
fn tiny_writes_without_end_all_arrive_until_the_limit() {
    let code = "import os\nwhile True: os.write(1, b'x')";
    let output = attack(&["--verbose"], "10", code);
    assert_ended(&output, 124, "time limit");
    println!("{} writes", output.stdout.len());
    assert!(output.stdout.len() > 100 && output.stdout.iter().all(|&byte| byte == b'x'));
}

/// Returns Debian's stress-ng with its libraries, as a program that the guest's Python unpacks and
/// runs.
fn stress_ng() -> &'static Path {
    static PROGRAM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stress-ng.pyz");
        let output = std::process::Command::new(PYTHON)
            .args(["-c", include_str!("pack_stress_ng.py")])
            .arg(&path)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (directory, path)
    });
    &PROGRAM.1
}

/// Runs all stressors of a class at once for 10 s; `scripts/stress` runs them for longer. An
/// emulated kernel takes longer than that to stop some of them. Root's stress-ng would keep its
/// stressors from the out-of-memory killer, and if more of them exist than fit in memory, the
/// kernel could only panic, so here they may be killed.
fn stress(class: &str) {
    let before = Host::look();
    let mut command = cache().sandbox(&["run", "--root", "--fresh", "-m", "512M", "-t", "300"]);
    command.args(["--pids-limit", "1000", "--max-output", "1M", "--console"]);
    command.arg(stress_ng());
    command.args(["--class", class, "--all", "1", "--timeout", "10"]);
    let output = finish(command.arg("--oomable"), b"");
    let (ended, stderr) = (exit_code(output.status), text(&output.stderr));
    let told = format!("{stderr}{}", text(&output.stdout));
    println!("{class}: {ended}\n{told}");
    assert!(
        told.contains("dispatching hogs"),
        "{class}: it did not begin: {told}"
    );
    // Of stress-ng: all went well, some failed, lacked resources or are not there.
    let typed = match ended {
        0..=4 | 6 | 7 => true,
        124 => stderr.contains("sandbox: the program was stopped at its time limit"),
        125 => stderr.contains("sandbox: the guest crashed: "),
        _ => ended > 128,
    };
    assert!(
        typed && !stderr.contains("panicked at"),
        "{class}: {ended}, {told}"
    );
    assert_eq!(Host::look(), before);
    // Emulated, it is too slow for its own watchdogs. Stressors of terminals write before what
    // stress-ng says.
    if mode() != Mode::Emulated {
        let complaints = complaints(stderr.lines().filter(|line| !line.contains("stress-ng: ")));
        assert!(complaints.is_empty(), "{class}: {complaints:#?}");
    }
}

#[test]
fn stress_ng_class_cpu() {
    stress("cpu");
}

#[test]
fn stress_ng_class_vm() {
    stress("vm");
}

#[test]
fn stress_ng_class_io() {
    stress("io");
}

#[test]
fn stress_ng_class_filesystem() {
    stress("filesystem");
}

#[test]
fn stress_ng_class_scheduler() {
    stress("scheduler");
}

#[test]
fn stress_ng_class_os() {
    stress("os");
}
