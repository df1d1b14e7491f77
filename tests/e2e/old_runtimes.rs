//! Container runtimes that are older than a system call answer it with EPERM, and some show no /proc or
//! /sys. What can do without does; the rest says what is missing.

use crate::common::{Cache, binary, exit_code, finish, text};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch, apply_filter};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// Has these calls fail with EPERM in the process of the command and in those that it starts.
fn forbid(command: &mut Command, calls: &[i64]) {
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::x86_64,
    );
    let filter: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    let install = move || apply_filter(&filter).map_err(std::io::Error::other);
    // SAFETY: between fork and exec the closure only makes system calls.
    unsafe { command.pre_exec(install) };
}

#[test]
fn runs_do_without_calls_that_an_old_runtime_forbids() {
    let calls = [
        libc::SYS_close_range,
        libc::SYS_clone3,
        libc::SYS_renameat2,
        libc::SYS_openat2,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_faccessat2,
        libc::SYS_statx,
        libc::SYS_rseq,
    ];
    let directory = tempfile::tempdir().unwrap();
    let (log, fetched) = (directory.path().join("log"), directory.path().join("out"));
    let get = format!("out:{}", fetched.display());
    let code = "open('out', 'w').write('content'); print('done')";
    for options in [
        &["run", "-c", code][..],
        &["run", "--fresh", "-c", code],
        &["run", "--confine=require", "-c", code],
        &["run", "--get", &get, "-c", code],
        &["run", "--audit", log.to_str().unwrap(), "-c", code],
    ] {
        let mut command = Cache::shared().sandbox(options);
        forbid(&mut command, &calls);
        let output = finish(&mut command, b"");
        let stderr = text(&output.stderr);
        assert_eq!(text(&output.stdout), "done\n", "{options:?}: {stderr}");
        assert_eq!(stderr, "", "{options:?}");
        assert_eq!(exit_code(output.status), 0, "{options:?}");
    }
    assert_eq!(std::fs::read_to_string(fetched).unwrap(), "content");
}

#[test]
fn doctor_finds_all_well_where_runs_are() {
    let mut command = Cache::shared().sandbox(&["doctor"]);
    forbid(&mut command, &[libc::SYS_clone3, libc::SYS_close_range]);
    let output = finish(&mut command, b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stdout));
}

/// Runs the binary with nothing in this directory.
fn without(directory: &str, arguments: &str) -> Output {
    let script = format!("mount -t tmpfs tmpfs {directory} || exit 99\nexec \"$0\" {arguments}");
    let mut command = Cache::shared().command("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", &script, &binary()]);
    finish(&mut command, b"")
}

#[test]
fn a_host_without_sys_runs_all() {
    for arguments in ["run -c pass", "run --fresh -c pass", "doctor"] {
        let output = without("/sys", arguments);
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 0, "{arguments}: {stderr}");
    }
}

#[test]
fn a_host_without_proc_is_told_what_is_missing() {
    let log = tempfile::tempdir().unwrap();
    let audited = format!("run --audit {}/log -c pass", log.path().display());
    for arguments in ["run -c pass", "run --fresh -c pass", &audited, "doctor"] {
        let output = without("/proc", arguments);
        assert_eq!(exit_code(output.status), 125, "{arguments}");
        let told = text(&output.stdout) + &text(&output.stderr);
        for part in ["/proc is not mounted here", "mount -t proc proc /proc"] {
            assert!(told.contains(part), "{arguments}: {told}");
        }
    }
}
