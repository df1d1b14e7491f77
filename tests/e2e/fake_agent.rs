//! A `sandbox` whose threads make the system calls that a test wants, like a VMM in an attacker's
//! hands. It works by ptrace(2), so it is the real binary in the middle of a real run.

use crate::common::{binary, sandbox};
use libc::user_regs_struct;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sandbox::internals::vm::KICK;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One of the threads of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    Main,
    Vcpu,
}

pub const THREADS: [Thread; 2] = [Thread::Main, Thread::Vcpu];

/// The fate of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The kernel ended the process with SIGSYS.
    Killed,
    /// The call was made, and this was its result.
    Made(i64),
}

/// The `syscall` instruction.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// A traced run. It must be used on the thread that made it: ptrace(2) knows threads, not
/// processes.
pub struct FakeAgent {
    child: Child,
    vcpu: Pid,
}

impl FakeAgent {
    /// Starts one in the middle of a run: the guest's program has begun, and sleeps.
    pub fn new(options: &[&str]) -> Self {
        let mut command = sandbox(&["run"]);
        command
            .args(options)
            .args([
                "-c",
                "import time; print('ready', flush=True); time.sleep(600)",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: the closure makes one system call between fork and exec.
        unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary()));
        let pid = Pid::from_raw(child.id() as i32);
        let mut agent = Self { child, vcpu: pid };
        assert!(matches!(
            agent.wait(pid),
            WaitStatus::Stopped(_, Signal::SIGTRAP)
        ));
        let options = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(pid, options).unwrap();
        ptrace::cont(pid, None).unwrap();
        agent.run_until_ready();
        agent.vcpu = thread_named(pid, "vcpu");
        agent
    }

    /// Passes all signals on until there is output.
    fn run_until_ready(&mut self) {
        let output = self.child.stdout.take().unwrap();
        set_nonblocking(&output);
        let mut output = io::BufReader::new(output);
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            match news(None) {
                WaitStatus::StillAlive => sleep(Duration::from_millis(1)),
                WaitStatus::PtraceEvent(tid, _, event)
                    if event == Event::PTRACE_EVENT_CLONE as i32 =>
                {
                    ptrace::cont(tid, None).unwrap();
                }
                // How a new thread begins.
                WaitStatus::Stopped(tid, Signal::SIGSTOP) => ptrace::cont(tid, None).unwrap(),
                WaitStatus::Stopped(tid, signal) => ptrace::cont(tid, signal).unwrap(),
                // A thread of the set-up.
                WaitStatus::Exited(tid, 0) if tid.as_raw() != self.child.id() as i32 => {}
                other => panic!("{other:?}"),
            }
            let mut bytes = [0; 64];
            match output.read(&mut bytes) {
                Ok(count) if bytes[..count].starts_with(b"ready") => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => panic!("{other:?}"),
            }
            assert!(Instant::now() < deadline, "the program did not begin");
        }
        // Kept: without a reader, the next write would be another story.
        self.child.stdout = Some(output.into_inner());
    }

    /// Stops the thread, makes it do this system call, and returns its fate.
    pub fn call(mut self, thread: Thread, number: i64, arguments: [u64; 6]) -> Fate {
        let tid = self.tid(thread);
        let mut regs = self.stop_behind_a_system_call(tid);
        regs.rip -= SYSCALL.len() as u64;
        regs.rax = number as u64;
        // Not to be started again.
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = arguments;
        ptrace::setregs(tid, regs).unwrap();
        loop {
            ptrace::step(tid, None).unwrap();
            match self.wait(None) {
                WaitStatus::Signaled(_, Signal::SIGSYS, _) => return Fate::Killed,
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    return Fate::Made(ptrace::getregs(tid).unwrap().rax as i64);
                }
                // Of the other thread, which looks after this one now and then.
                WaitStatus::Stopped(_, KICK) => {}
                other => panic!("system call {number} of {thread:?}: {other:?}"),
            }
        }
    }

    /// Stops the thread at a place where the instruction is at hand.
    fn stop_behind_a_system_call(&mut self, tid: Pid) -> user_regs_struct {
        let process = self.tid(Thread::Main).as_raw();
        loop {
            let stop = libc::SIGSTOP;
            // SAFETY: tgkill(2) takes numbers only.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, tid.as_raw(), stop) };
            assert_eq!(sent, 0);
            while self.wait(tid) != WaitStatus::Stopped(tid, Signal::SIGSTOP) {
                ptrace::cont(tid, None).unwrap();
            }
            let regs = ptrace::getregs(tid).unwrap();
            let before = regs.rip - SYSCALL.len() as u64;
            let code = ptrace::read(tid, before as ptrace::AddressType).unwrap();
            if code.to_le_bytes().starts_with(&SYSCALL) {
                return regs;
            }
            ptrace::cont(tid, None).unwrap();
            sleep(Duration::from_millis(5));
        }
    }

    fn tid(&self, thread: Thread) -> Pid {
        match thread {
            Thread::Main => Pid::from_raw(self.child.id() as i32),
            Thread::Vcpu => self.vcpu,
        }
    }

    /// Returns the next event of this thread, or of any: the end of a process is reported last for
    /// its main thread.
    fn wait(&mut self, tid: impl Into<Option<Pid>> + Copy) -> WaitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match news(tid.into()) {
                // Or a thread of the set-up has ended.
                WaitStatus::StillAlive | WaitStatus::Exited(_, 0) => {
                    sleep(Duration::from_micros(200))
                }
                news => return news,
            }
            assert!(Instant::now() < deadline, "no news");
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads a file of this name in a thread's directory in `/proc`.
    pub fn proc(&self, thread: Thread, name: &str) -> String {
        let (pid, tid) = (self.child.id(), self.tid(thread));
        fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).unwrap()
    }

    /// Returns the targets of its descriptors, by number.
    pub fn descriptors(&self) -> Vec<String> {
        let directory = format!("/proc/{}/fd", self.child.id());
        let mut numbers: Vec<u32> = fs::read_dir(&directory)
            .expect("looking into a confined process takes root")
            .map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        numbers.sort_unstable();
        let target = |number| fs::read_link(format!("{directory}/{number}")).unwrap();
        numbers
            .into_iter()
            .map(|number| target(number).display().to_string())
            .collect()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        // A process has ended when its tracer has heard of the end of each thread.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while waitpid(None, Some(flags)).is_ok() {}
    }
}

/// Returns an event of one or any of this thread's tracees, without waiting.
fn news(tid: Option<Pid>) -> WaitStatus {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
    waitpid(tid, Some(flags)).unwrap()
}

fn thread_named(process: Pid, name: &str) -> Pid {
    for entry in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read_to_string(path.join("comm")).unwrap().trim_end() == name {
            return Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap());
        }
    }
    panic!("there is no thread {name}");
}

fn set_nonblocking(fd: &impl AsFd) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
}
