//! The system calls that each thread of a run may make; any other kills the process.
//!
//! `tests/e2e/confine.rs` shows that every other call kills, and that each of these is used, but for
//! those whose comments here say when they are.

use crate::vm::mode::Mode;
use crate::vm::{KICK, requests, requests_of_save, requests_of_state};
use anyhow::{Context, Result};
use libc::*;
use nix::errno::Errno;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// The calls that both threads need.
const BOTH: &[c_long] = &[
    // Locks, and joining a thread.
    SYS_futex,
    // Output, and news for the other thread.
    SYS_write,
    // Waiting for news, or for a slow reader.
    SYS_poll,
    // Memory.
    SYS_brk,
    SYS_mremap,
    SYS_munmap,
    // The end of a thread.
    SYS_rt_sigprocmask,
    SYS_sigaltstack,
    // The time, where the clock cannot be read without a system call.
    SYS_clock_gettime,
    // The kernel's own way to go on with poll(2) or futex(2) after a stop (SIGSTOP, a debugger).
    SYS_restart_syscall,
];

const MAIN: &[c_long] = &[
    // Standard input, signals, news.
    SYS_read,
    // The page map: which memory was used.
    SYS_pread64,
    // The pause between two kicks.
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
    // The length of the files behind the guest's memory.
    SYS_lseek,
    // The return from a signal: a kick, or a fault in memory whose file was truncated.
    SYS_rt_sigreturn,
    SYS_exit,
];

/// The calls of the main thread that only saving a machine takes.
const SAVING: &[c_long] = &[
    // Writing memory to a file, and reserving room for it.
    SYS_pwrite64,
    SYS_fallocate,
    // The end of a thread's stack, and of the guest's memory.
    SYS_madvise,
    // The length of the files behind the guest's memory.
    SYS_lseek,
];

/// The calls of the main thread that only a session takes.
const SERVING: &[c_long] = &[
    // A connection, and whose it is.
    SYS_accept4,
    SYS_getsockopt,
];

/// The calls of the vCPU thread that only a session takes: its machine is saved to a file that is handed in.
const SAVING_ITSELF: &[c_long] = &[
    // The page map.
    SYS_pread64,
];

/// The calls of the process that writes the files that a guest sends.
const WRITER: &[c_long] = &[
    // Reading from its pipe, and writing to files.
    SYS_read,
    SYS_write,
    // Memory.
    SYS_brk,
    SYS_mremap,
    SYS_munmap,
    // Files below the descriptors of its directories, and only where Landlock allows it.
    SYS_openat,
    SYS_mkdirat,
    SYS_newfstatat,
    // Giving files and directories the times that they had in the guest.
    SYS_utimensat,
    // Giving a file its own name once it is whole; the C library has two calls for that.
    SYS_renameat,
    SYS_renameat2,
    // Giving it that name on a file system that cannot rename without replacing.
    SYS_linkat,
    SYS_unlinkat,
    SYS_fcntl,
    SYS_close,
    SYS_exit_group,
];

/// The calls of the process that unpacks an archive.
const UNPACKER: &[c_long] = &[
    // Parts of its files, and what it tells.
    SYS_pread64,
    SYS_pwrite64,
    SYS_write,
    SYS_ftruncate,
    // Memory.
    SYS_brk,
    SYS_mremap,
    SYS_munmap,
    SYS_close,
    SYS_exit_group,
];

/// A call's number and sets of conditions; its arguments must fulfil any one of the sets.
type Call = (c_long, Vec<SeccompRule>);

/// Returns the numbers of the calls that the main thread and the vCPU thread may make.
#[cfg(any(test, feature = "internals"))]
pub fn allowed(mode: Mode) -> Result<[Vec<c_long>; 2]> {
    Ok([numbers(main_calls()?), numbers(vcpu_calls(mode)?)])
}

/// Returns the numbers of the calls that the process that writes files may make.
#[cfg(any(test, feature = "internals"))]
pub fn of_writer() -> Result<Vec<c_long>> {
    Ok(numbers(writer_calls()?))
}

/// Returns the numbers of the calls that the process that unpacks an archive may make.
#[cfg(test)]
pub fn of_unpacker() -> Result<Vec<c_long>> {
    Ok(numbers(unpacker_calls()?))
}

#[cfg(any(test, feature = "internals"))]
fn numbers(calls: Vec<Call>) -> Vec<c_long> {
    calls.into_iter().map(|(number, _)| number).collect()
}

/// Returns whether this kernel has seccomp filters that kill.
pub fn are_filtered() -> bool {
    let action = SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the kernel reads one integer, which outlives the call.
    let result = unsafe { syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    Errno::result(result).is_ok()
}

pub fn main_thread() -> Result<BpfProgram> {
    compile(main_calls()?)
}

/// Returns the filters of the main thread and of the vCPU thread of a session.
pub fn serving_threads(mode: Mode) -> Result<[BpfProgram; 2]> {
    Ok([
        compile(serving_calls()?)?,
        compile(saving_vcpu_calls(mode)?)?,
    ])
}

/// Returns the filter of the main thread of a process that saves a machine to a file that is open.
pub fn saving_thread(mode: Mode) -> Result<BpfProgram> {
    compile(saving_calls(mode)?)
}

pub fn vcpu_thread(mode: Mode) -> Result<BpfProgram> {
    compile(vcpu_calls(mode)?)
}

pub fn writer() -> Result<BpfProgram> {
    compile(writer_calls()?)
}

pub fn unpacker() -> Result<BpfProgram> {
    compile(unpacker_calls()?)
}

fn unpacker_calls() -> Result<Vec<Call>> {
    let mut calls = any_arguments(&[], UNPACKER);
    calls.push(new_memory()?);
    // The heap of a thread that is not the first, as it grows.
    let no_code = rule(&[(2, MaskedEq(PROT_EXEC as u64), 0)])?;
    calls.push((SYS_mprotect, vec![no_code]));
    // The end of a lock's hold, or of what is done once: an error that has a backtrace (RUST_BACKTRACE). There is no
    // other thread to wait for.
    let wakes = rule(&[(1, MaskedEq(FUTEX_CMD_MASK as u32 as u64), FUTEX_WAKE as u64)])?;
    calls.push((SYS_futex, vec![wakes]));
    Ok(calls)
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
    // The new size of a terminal whose window was resized.
    calls.push((SYS_ioctl, vec![rule(&[(1, Eq, TIOCGWINSZ)])?]));
    Ok(calls)
}

fn serving_calls() -> Result<Vec<Call>> {
    let mut calls = main_calls()?;
    calls.extend(any_arguments(&[], SERVING));
    // A descriptor that comes with a request.
    calls.push((
        SYS_recvmsg,
        vec![rule(&[(2, Eq, MSG_CMSG_CLOEXEC as u64)])?],
    ));
    Ok(calls)
}

fn saving_vcpu_calls(mode: Mode) -> Result<Vec<Call>> {
    let mut calls = vcpu_calls(mode)?;
    calls.extend(any_arguments(&[], SAVING_ITSELF));
    allow_requests(&mut calls, requests_of_state().into_iter())?;
    Ok(calls)
}

/// Allows these ioctls, beside others.
fn allow_requests(calls: &mut [Call], requests: impl Iterator<Item = u64> + Clone) -> Result<()> {
    for (_, rules) in calls.iter_mut().filter(|(number, _)| *number == SYS_ioctl) {
        for request in requests.clone() {
            rules.push(rule(&[(1, Eq, request)])?);
        }
    }
    Ok(())
}

fn saving_calls(mode: Mode) -> Result<Vec<Call>> {
    let mut calls = main_calls()?;
    calls.extend(any_arguments(&[], SAVING));
    // TCGETS: whether the terminal that progress is told on is one.
    let others = requests_of_save().into_iter().chain([TCGETS]);
    allow_requests(&mut calls, requests(mode).into_iter().chain(others))?;
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

/// Allows new memory that is neither of a file nor executable.
fn new_memory() -> Result<Call> {
    const ANONYMOUS: u64 = MAP_ANONYMOUS as u64;
    let no_code = (2, MaskedEq(PROT_EXEC as u64), 0);
    let of_no_file = (3, MaskedEq(ANONYMOUS), ANONYMOUS);
    Ok((SYS_mmap, vec![rule(&[no_code, of_no_file])?]))
}

/// The position of an argument, how it is compared, and the value that it is compared with.
type Condition = (u8, SeccompCmpOp, u64);

/// Makes a rule of these conditions. The kernel itself uses only the low half of the arguments that
/// are compared, but for the protections and flags of memory.
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
