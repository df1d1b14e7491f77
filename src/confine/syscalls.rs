//! The system calls that each thread of a run may make; any other kills the process.
//!
//! `tests/e2e/confine.rs` shows that every other call kills, and that each of these is used, but for
//! those that say here when they are.

use crate::vm::mode::Mode;
use crate::vm::{KICK, requests};
use anyhow::{Context, Result};
use libc::*;
use nix::errno::Errno;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// What both threads need.
const BOTH: &[c_long] = &[
    // Locks, and joining a thread.
    SYS_futex,
    // Output, and news for the other thread.
    SYS_write,
    // News; a reader that is slow.
    SYS_poll,
    // Memory.
    SYS_brk,
    SYS_mremap,
    SYS_munmap,
    // The end of a thread.
    SYS_rt_sigprocmask,
    SYS_sigaltstack,
    // Where the clock cannot be read without one.
    SYS_clock_gettime,
    // The kernel's own way to go on with poll(2) or futex(2) after a stop (SIGSTOP, a debugger).
    SYS_restart_syscall,
];

const MAIN: &[c_long] = &[
    // Standard input, signals, news.
    SYS_read,
    // Between two kicks.
    SYS_clock_nanosleep,
    // Part of pthread_kill(3).
    SYS_getpid,
    SYS_close,
    // The end of the process that writes files.
    SYS_wait4,
    SYS_exit_group,
];

const VCPU: &[c_long] = &[
    // The guest's random numbers.
    SYS_getrandom,
    // The end of a thread's stack.
    SYS_madvise,
    // How long the files behind the guest's memory are.
    SYS_lseek,
    // After a kick, or a fault in memory whose file was truncated.
    SYS_rt_sigreturn,
    SYS_exit,
];

/// Of the process that writes what a guest sends.
const WRITER: &[c_long] = &[
    // From its pipe, to files.
    SYS_read,
    SYS_write,
    // Memory.
    SYS_brk,
    SYS_mremap,
    SYS_munmap,
    // Below the descriptors of its directories, and only where Landlock lets it.
    SYS_openat,
    SYS_mkdirat,
    SYS_newfstatat,
    // A file's own name, once it is whole; the C library has two calls for that.
    SYS_renameat,
    SYS_renameat2,
    // The same, where the file system cannot leave alone what is there.
    SYS_linkat,
    SYS_unlinkat,
    SYS_fcntl,
    SYS_close,
    SYS_exit_group,
];

/// A number, and what its arguments must be: any of these sets of conditions.
type Call = (c_long, Vec<SeccompRule>);

/// The numbers that each thread may call: the main thread's, the vCPU thread's.
pub fn allowed(mode: Mode) -> Result<[Vec<c_long>; 2]> {
    Ok([numbers(main_calls()?), numbers(vcpu_calls(mode)?)])
}

/// The same, of the process that writes files.
pub fn of_writer() -> Result<Vec<c_long>> {
    Ok(numbers(writer_calls()?))
}

fn numbers(calls: Vec<Call>) -> Vec<c_long> {
    calls.into_iter().map(|(number, _)| number).collect()
}

/// Whether this kernel has seccomp filters that kill.
pub fn are_filtered() -> bool {
    let action = SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the kernel reads one integer, which outlives the call.
    let result = unsafe { syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    Errno::result(result).is_ok()
}

pub fn main_thread() -> Result<BpfProgram> {
    compile(main_calls()?)
}

pub fn vcpu_thread(mode: Mode) -> Result<BpfProgram> {
    compile(vcpu_calls(mode)?)
}

pub fn writer() -> Result<BpfProgram> {
    compile(writer_calls()?)
}

fn writer_calls() -> Result<Vec<Call>> {
    let mut calls = any_arguments(&[], WRITER);
    calls.push(new_memory()?);
    Ok(calls)
}

fn main_calls() -> Result<Vec<Call>> {
    let kick = rule(&[(0, Eq, std::process::id().into()), (2, Eq, KICK as u64)])?;
    let mut calls = any_arguments(BOTH, MAIN);
    calls.push(new_memory()?);
    calls.push((SYS_tgkill, vec![kick]));
    Ok(calls)
}

fn vcpu_calls(mode: Mode) -> Result<Vec<Call>> {
    let requests = requests(mode).into_iter();
    let requests: Result<_> = requests.map(|request| rule(&[(1, Eq, request)])).collect();
    let mut calls = any_arguments(BOTH, VCPU);
    calls.push(new_memory()?);
    calls.push((SYS_ioctl, requests?));
    Ok(calls)
}

fn any_arguments(shared: &[c_long], own: &[c_long]) -> Vec<Call> {
    let numbers = shared.iter().chain(own);
    numbers.map(|&number| (number, Vec::new())).collect()
}

/// Not of a file, and not to be executed.
fn new_memory() -> Result<Call> {
    const ANONYMOUS: u64 = MAP_ANONYMOUS as u64;
    let no_code = (2, MaskedEq(PROT_EXEC as u64), 0);
    let of_no_file = (3, MaskedEq(ANONYMOUS), ANONYMOUS);
    Ok((SYS_mmap, vec![rule(&[no_code, of_no_file])?]))
}

/// An argument by its place, how it is compared, and with what.
type Condition = (u8, SeccompCmpOp, u64);

/// The kernel looks at the low half of the arguments that are compared, but for protections and
/// flags of memory.
fn rule(conditions: &[Condition]) -> Result<SeccompRule> {
    let conditions: Result<_, _> = conditions
        .iter()
        .cloned()
        .map(|(argument, operator, value)| {
            let width = if operator == Eq { Dword } else { Qword };
            SeccompCondition::new(argument, width, operator, value)
        })
        .collect();
    SeccompRule::new(conditions?).context("making a seccomp rule")
}

fn compile(calls: Vec<Call>) -> Result<BpfProgram> {
    SeccompFilter::new(
        calls.into_iter().collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .and_then(TryInto::try_into)
    .context("making a seccomp filter")
}
