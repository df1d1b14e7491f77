//! The system calls that each thread of a VMM may still make once an attacker has taken it over.

use crate::common::{binary, mode};
use crate::fake_agent::{FakeAgent, Fate, THREADS, Thread};
use libc::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use sandbox::internals::confine::syscalls::{allowed, of_writer};
use sandbox::internals::vm::host::Family;
use sandbox::internals::vm::mode::Mode;
use sandbox::internals::vm::requests;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The greatest number of a system call: no kernel will exceed it for years.
const LAST: i64 = 500;

/// A system call that would be a step of an escape: its description, number and arguments.
type Attack = (&'static str, i64, [u64; 6]);

fn attacks() -> Vec<Attack> {
    [ways_out(), ways_around()].concat()
}

fn call(name: &'static str, number: i64, arguments: &[u64]) -> Attack {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    (name, number, all)
}

/// Returns calls that reach out: for files, sockets, processes and rights.
fn ways_out() -> Vec<Attack> {
    const AT_FDCWD_BITS: u64 = AT_FDCWD as u64;
    vec![
        call("open", SYS_open, &[0, 0]),
        call("openat", SYS_openat, &[AT_FDCWD_BITS, 0, 0]),
        call("openat2", SYS_openat2, &[AT_FDCWD_BITS, 0, 0, 24]),
        call(
            "socket",
            SYS_socket,
            &[AF_INET as u64, SOCK_STREAM as u64, 0],
        ),
        call("connect", SYS_connect, &[3, 0, 0]),
        call("execve", SYS_execve, &[0, 0, 0]),
        call("execveat", SYS_execveat, &[0, 0, 0, 0, 0]),
        call("ptrace", SYS_ptrace, &[PTRACE_ATTACH as u64, 1]),
        call(
            "process_vm_writev",
            SYS_process_vm_writev,
            &[1, 0, 0, 0, 0, 0],
        ),
        call("kill", SYS_kill, &[1, 0]),
        call("mount", SYS_mount, &[0, 0, 0, 0, 0]),
        call("unshare", SYS_unshare, &[CLONE_NEWUSER as u64]),
        call("clone", SYS_clone, &[SIGCHLD as u64]),
        call("clone3", SYS_clone3, &[0, 88]),
        call("fork", SYS_fork, &[]),
        call("vfork", SYS_vfork, &[]),
        call("io_uring_setup", SYS_io_uring_setup, &[1, 0]),
        call("bpf", SYS_bpf, &[0, 0, 0]),
        call("userfaultfd", SYS_userfaultfd, &[0]),
        call("perf_event_open", SYS_perf_event_open, &[0, 0, 0, 0, 0]),
        call("memfd_create", SYS_memfd_create, &[0, 0]),
        call("unlink", SYS_unlink, &[0]),
        call("sendmsg", SYS_sendmsg, &[1, 0, 0]),
        call("prctl", SYS_prctl, &[PR_SET_DUMPABLE as u64, 1]),
        call("setrlimit", SYS_prlimit64, &[0, RLIMIT_NOFILE as u64, 0, 0]),
        call("seccomp", SYS_seccomp, &[0, 0, 0]),
    ]
}

/// Returns memory calls, signals and requests of ioctl(2) that no run makes, and other entries of
/// the kernel.
fn ways_around() -> Vec<Attack> {
    let page = 4096;
    vec![
        call(
            "memory with code in it",
            SYS_mmap,
            &[
                0,
                page,
                (PROT_READ | PROT_EXEC) as u64,
                (MAP_PRIVATE | MAP_ANONYMOUS) as u64,
                u64::MAX,
                0,
            ],
        ),
        call(
            "a file in memory",
            SYS_mmap,
            &[0, page, PROT_READ as u64, MAP_PRIVATE as u64, 1, 0],
        ),
        call(
            "memory that becomes code",
            SYS_mprotect,
            &[0, page, (PROT_READ | PROT_EXEC) as u64],
        ),
        call(
            "a signal to another process",
            SYS_tgkill,
            &[1, 1, SIGUSR1 as u64],
        ),
        call(
            "another signal to itself",
            SYS_tgkill,
            &[0, 0, SIGKILL as u64],
        ),
        call("typing for the user", SYS_ioctl, &[0, TIOCSTI, 0]),
        // KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_SET_USER_MEMORY_REGION, KVM_IRQFD
        call("another machine", SYS_ioctl, &[3, 0xae01, 0]),
        call("another vCPU", SYS_ioctl, &[3, 0xae41, 1]),
        call(
            "other memory for the guest",
            SYS_ioctl,
            &[3, 0x4020_ae46, 0],
        ),
        call("an interrupt's descriptor", SYS_ioctl, &[3, 0x4020_ae76, 0]),
        // The 32-bit and the x32 entry have numbers of their own.
        call("the x32 way to open", SYS_open | 0x4000_0000, &[0, 0]),
    ]
}

#[test]
fn what_an_attacker_in_the_vmm_would_do_kills_it() {
    for (name, number, arguments) in attacks() {
        for thread in THREADS {
            let fate = FakeAgent::new(&[]).call(thread, number, arguments);
            assert_eq!(fate, Fate::Killed, "{name} by {thread:?}");
        }
    }
}

/// Without confinement the calls are made, so a death in the other tests means something.
#[test]
fn the_same_calls_are_made_where_confinement_is_off() {
    for thread in THREADS {
        let socket = [AF_UNIX as u64, SOCK_STREAM as u64, 0, 0, 0, 0];
        let fate = FakeAgent::new(&["--confine=off"]).call(thread, SYS_socket, socket);
        assert!(matches!(fate, Fate::Made(3..)), "{thread:?}: {fate:?}");
        let fate = FakeAgent::new(&[]).call(thread, SYS_sched_yield, [0; 6]);
        assert_eq!(fate, Fate::Killed, "{thread:?}");
        let fate = FakeAgent::new(&[]).call(thread, SYS_munmap, [0; 6]);
        assert_eq!(fate, Fate::Made(-i64::from(EINVAL)), "{thread:?}");
    }
}

/// The numbers of uretprobe and uprobe: the kernel's own calls, which seccomp leaves alone. They
/// end a process that makes them from anywhere but where the kernel put them.
const PROBES: [i64; 2] = [335, 336];

#[track_caller]
fn assert_all_others_kill(thread: Thread) {
    let lists = allowed(mode()).unwrap();
    let list = &lists[(thread == Thread::Vcpu) as usize];
    let others = (0..=LAST).filter(|number| !list.contains(number) && !PROBES.contains(number));
    for number in others {
        let fate = FakeAgent::new(&[]).call(thread, number, [0; 6]);
        assert_eq!(fate, Fate::Killed, "system call {number}");
    }
}

#[test]
fn a_call_that_is_not_on_its_list_kills_the_main_thread() {
    assert_all_others_kill(Thread::Main);
}

#[test]
fn a_call_that_is_not_on_its_list_kills_the_vcpu_thread() {
    assert_all_others_kill(Thread::Vcpu);
}

/// The calls that each thread makes in a run once it is confined, and the requests of ioctl(2).
#[derive(Default)]
struct Observed {
    /// The calls of the main thread, of the vCPU thread, and of the process that writes files.
    calls: [BTreeSet<i64>; 3],
    requests: BTreeSet<u64>,
}

impl Observed {
    /// Watches a run under strace. `act` gets its process once the program has written something.
    fn watch(&mut self, options: &[&str], code: &str, act: impl FnOnce(&Child)) {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command
            .args([
                "--follow-forks",
                "--syscall-number",
                "--raw=ioctl",
                "--output",
            ])
            .arg(trace.path())
            .args([&binary(), "run"])
            .args(options)
            .args(["-c", code])
            .env("SANDBOX_TIMEOUT", "300");
        let (mut output, writer) = std::io::pipe().unwrap();
        // Whoever starts it may have done that.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(writer)
            .spawn()
            .unwrap();
        drop(command);
        output.read_exact(&mut [0]).unwrap();
        act(&child);
        drop(child.stdin.take());
        output.read_to_end(&mut Vec::new()).unwrap();
        child.wait().unwrap();
        self.read(&std::fs::read_to_string(trace.path()).unwrap());
    }

    #[track_caller]
    fn assert_needed(&self, mode: Mode) {
        let unused: Vec<_> = requests(mode)
            .into_iter()
            .filter(|request| !self.requests.contains(request) && *request != JUSTIFIED_REQUEST)
            .map(|request| format!("{request:#x}"))
            .collect();
        assert!(
            unused.is_empty(),
            "the vCPU thread does not need {unused:?}"
        );
    }

    /// Reads a trace, whose lines are `TID [NUMBER] NAME(ARGUMENTS…`.
    fn read(&mut self, trace: &str) {
        let mut main = None;
        let (mut processes, mut confined) = (BTreeSet::new(), BTreeSet::new());
        for line in trace.lines() {
            let (tid, rest) = line.split_once(' ').unwrap();
            main.get_or_insert(tid);
            let Some((number, call)) = rest
                .trim_start()
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
            else {
                continue;
            };
            if confined.contains(tid) {
                let number = number.trim().parse().unwrap();
                let who = match processes.contains(tid) {
                    _ if main == Some(tid) => 0,
                    false => 1,
                    true => 2,
                };
                self.calls[who].insert(number);
                let request = call
                    .trim_start()
                    .strip_prefix("ioctl(")
                    .and_then(|rest| rest.split(", ").nth(1));
                self.requests.extend(
                    request
                        .map(|hex| u64::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap()),
                );
            } else if call.contains("prctl(PR_SET_DUMPABLE") {
                // Each process for itself; threads share it.
                processes.insert(tid);
            } else if call.contains("seccomp(SECCOMP_SET_MODE_FILTER") {
                confined.insert(tid);
            }
        }
    }
}

fn signal(child: &Child, name: &str) {
    let script = format!("kill -{name} $(pgrep --parent {})", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
}

/// Calls that no run here needs, but another may: `src/confine/syscalls.rs` says when.
const JUSTIFIED: [&[i64]; 3] = [
    // Allocations of 128 KiB or more; a clock that is not in the vDSO; a terminal whose window is
    // resized (tests/e2e/terminal.rs).
    &[SYS_mmap, SYS_mremap, SYS_clock_gettime, SYS_ioctl],
    // A lock that the other thread holds just then; the same clock; a stop while a reader is slow.
    &[SYS_futex, SYS_clock_gettime, SYS_restart_syscall],
    // Memory for more, or longer, names; file systems that cannot rename without
    // replacing, and a C library that renames with another call.
    &[
        SYS_brk,
        SYS_mmap,
        SYS_mremap,
        SYS_linkat,
        SYS_renameat,
        SYS_renameat2,
    ],
];

/// KVM_SET_SREGS, which sets the address of a page fault that XSAVE meets.
const JUSTIFIED_REQUEST: u64 = 0x4138_ae84;

#[test]
fn each_call_that_is_allowed_is_used() {
    let pause = || std::thread::sleep(Duration::from_millis(500));
    let mut observed = Observed::default();
    // The main thread holds input that the program does not read for a while.
    let random_numbers_and_input = "import os, select, sys, time
print(os.urandom(9), flush=True); select.select([0], [], []); time.sleep(1)
print(len(sys.stdin.read()))";
    observed.watch(&[], random_numbers_and_input, |child| {
        let mut stdin = child.stdin.as_ref().unwrap();
        stdin.write_all(&vec![b'x'; 3 << 20]).unwrap();
    });
    // Nobody reads it for a while; the kernel gathers it from many pages.
    let much_output = "import os; os.write(1, b'x'); print('y' * (4 << 20))";
    observed.watch(&[], much_output, |_| pause());
    let sleep = "import time; print('x', flush=True); time.sleep(5)";
    observed.watch(&[], sleep, |child| {
        signal(child, "STOP");
        pause();
        signal(child, "CONT");
    });
    let busy = "print('x', flush=True)\nwhile True: pass";
    observed.watch(&[], busy, |child| signal(child, "TERM"));
    // It does not end when it is asked to.
    let deaf = "print('x', flush=True); sum(range(10 ** 15))";
    observed.watch(&["--timeout=5"], deaf, |_| {});
    let directory = tempfile::tempdir().unwrap();
    let get = format!("--get=x:{}/x", directory.path().display());
    let file = "open('x', 'w').write('x'); print('x')";
    observed.watch(&[&get], file, |_| {});
    observed.watch(&[&get, "--force"], file, |_| {});
    // What appears meanwhile is left alone.
    let taken = directory.path().join("taken");
    let get = format!("--get=x:{}", taken.display());
    let waits = "import sys; open('x', 'w').write('x'); print('x', flush=True); sys.stdin.read()";
    observed.watch(&[&get], waits, |_| std::fs::write(&taken, "").unwrap());
    let tree = "import os, sys; os.mkdir('y'); open('y/x', 'w').write('x'); os.chmod('y', 0o500)\n\
        print('x', flush=True); sys.stdin.read()";
    let place = directory.path().join("y");
    let get = format!("--get=y:{}", place.display());
    observed.watch(&[&get], tree, |_| {});
    std::fs::remove_dir_all(&place).unwrap();
    let appears = |_: &Child| std::fs::create_dir(&place).unwrap();
    observed.watch(&[&get, "--force"], tree, appears);
    // The main thread makes the record, in which all of that is encoded.
    let no_text = "import os; os.write(1, bytes([255]) * (80 << 10))";
    observed.watch(&["--json"], no_text, |_| {});
    // A handler of a signal saves and restores vector registers.
    let handler = "import signal, os; print('x', flush=True)\n\
        signal.signal(15, print); os.kill(os.getpid(), 15)";
    observed.watch(&["--fresh"], handler, |_| {});

    let [main, vcpu] = allowed(mode()).unwrap();
    for (index, list) in [main, vcpu, of_writer().unwrap()].iter().enumerate() {
        let needed = |number: &i64| {
            observed.calls[index].contains(number) || JUSTIFIED[index].contains(number)
        };
        let unused: Vec<_> = list.iter().filter(|number| !needed(number)).collect();
        assert!(unused.is_empty(), "number {index} does not need {unused:?}");
    }
    observed.assert_needed(mode());
    if mode().family() == Family::Software {
        let emulated = ["--fresh", "--kvm-mode=emulated"];
        observed.watch(&emulated, handler, |_| {});
        observed.assert_needed(Mode::Emulated);
    }
}
