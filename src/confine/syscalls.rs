//! The system calls that each thread of a run may make; any other kills the process.
//!
//! `tests/confine.rs` shows that every other call kills, and that each of these is used, but for
//! those that say here when they are.

use crate::vm::host::Family;
use crate::vm::{KICK, requests};
use anyhow::{Context, Result};
use libc::*;
use nix::errno::Errno;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// What both threads need.
const BOTH: &[c_long] = &[
    // The allocator.
    SYS_brk,
    SYS_madvise,
    SYS_mremap,
    SYS_munmap,
    // Locks, and joining a thread.
    SYS_futex,
    // Output, and news for the other thread.
    SYS_write,
    // A reader that is slow; news.
    SYS_poll,
    // The end of a thread.
    SYS_rt_sigprocmask,
    SYS_sigaltstack,
    // After a kick, or a fault in memory whose file was truncated.
    SYS_rt_sigreturn,
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
    SYS_exit_group,
];

const VCPU: &[c_long] = &[
    // The guest's random numbers.
    SYS_getrandom,
    SYS_exit,
];

/// A number, and what its arguments must be: any of these sets of conditions.
type Call = (c_long, Vec<SeccompRule>);

/// The numbers that each thread may call: the main thread's, the vCPU thread's.
pub fn allowed(family: Family) -> Result<[Vec<c_long>; 2]> {
    let numbers = |calls: Vec<Call>| calls.into_iter().map(|(number, _)| number).collect();
    Ok([numbers(main_calls()?), numbers(vcpu_calls(family)?)])
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

pub fn vcpu_thread(family: Family) -> Result<BpfProgram> {
    compile(vcpu_calls(family)?)
}

fn main_calls() -> Result<Vec<Call>> {
    let kick = rule(&[
        (0, Eq, std::process::id().into()),
        (2, Eq, KICK as u64),
    ])?;
    let mut calls = any_arguments(BOTH, MAIN);
    calls.extend(memory_without_code()?);
    calls.push((SYS_tgkill, vec![kick]));
    Ok(calls)
}

fn vcpu_calls(family: Family) -> Result<Vec<Call>> {
    let requests = requests(family).into_iter();
    let requests: Result<_> = requests.map(|request| rule(&[(1, Eq, request)])).collect();
    let mut calls = any_arguments(BOTH, VCPU);
    calls.extend(memory_without_code()?);
    calls.push((SYS_ioctl, requests?));
    Ok(calls)
}

fn any_arguments(shared: &[c_long], own: &[c_long]) -> Vec<Call> {
    let numbers = shared.iter().chain(own);
    numbers.map(|&number| (number, Vec::new())).collect()
}

/// Not of a file, and not to be executed.
fn memory_without_code() -> Result<[Call; 2]> {
    const PROTECTION: u8 = 2;
    const FLAGS: u8 = 3;
    let no_code = (PROTECTION, MaskedEq(PROT_EXEC as u64), 0);
    let anonymous = MAP_ANONYMOUS as u64;
    let of_no_file = (FLAGS, MaskedEq(anonymous), anonymous);
    Ok([
        (SYS_mmap, vec![rule(&[no_code.clone(), of_no_file])?]),
        (SYS_mprotect, vec![rule(&[no_code])?]),
    ])
}

/// Conditions on arguments by number; all that are compared are 32 bits wide, but protections
/// and flags of memory.
fn rule(conditions: &[(u8, seccompiler::SeccompCmpOp, u64)]) -> Result<SeccompRule> {
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
