//! Processes of this very binary.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A command that is this binary, whatever has become of its file. Its process dies with the
/// thread that starts it: prctl(2), PR_SET_PDEATHSIG.
pub fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("sandbox");
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
    command
}
