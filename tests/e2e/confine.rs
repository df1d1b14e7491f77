//! The confinement of a run's process before its guest runs, seen from outside.

use crate::common::{binary, exit_code, finish, run, start, text};
use crate::fake_agent::{FakeAgent, THREADS, Thread};
use caps::CapSet;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::io::Read;
use std::process::Command;

#[test]
fn the_record_says_which_layers_held() {
    let output = run(&["--verbose", "--confine=require"], "print('hello')");
    let errors = text(&output.stderr);
    assert_eq!(exit_code(output.status), 0, "{errors}");
    for layer in [
        "no dumps",
        "no new privileges",
        "no capabilities",
        "Landlock (ABI ",
        "resource limits",
        "seccomp",
    ] {
        assert!(errors.contains(layer), "{layer}: {errors}");
    }
}

#[test]
fn a_machine_that_is_booted_is_confined_as_well() {
    let output = run(
        &["--verbose", "--fresh", "--confine=require"],
        "print('hello')",
    );
    let errors = text(&output.stderr);
    assert_eq!(text(&output.stdout), "hello\n", "{errors}");
    assert!(
        errors.contains("was booted") && errors.contains("seccomp"),
        "{errors}"
    );
}

#[test]
fn confinement_that_is_off_is_told_even_in_quiet() {
    let output = run(&["--quiet", "--confine=off"], "print('hello')");
    assert_eq!(text(&output.stdout), "hello\n");
    assert!(
        text(&output.stderr).contains("--confine=off"),
        "{}",
        text(&output.stderr)
    );
}

/// Does a run on a kernel that lacks a system call, which strace simulates.
fn without(call: &str, options: &[&str]) -> (i32, String, String) {
    let mut command = Command::new("strace");
    command
        .args(["--follow-forks", "--output=/dev/null"])
        .arg(format!("--inject={call}:error=ENOSYS"))
        .args([&binary(), "run", "--verbose"])
        .args(options)
        .args(["-c", "print('hello')"]);
    let output = finish(&mut command, b"");
    (
        exit_code(output.status),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn what_is_required_and_missing_ends_the_run_before_it_begins() {
    for call in ["landlock_create_ruleset", "seccomp"] {
        let (code, output, errors) = without(call, &["--confine=require"]);
        assert_eq!((code, output.as_str()), (125, ""), "{call}: {errors}");
        assert!(errors.contains("--confine=require"), "{call}: {errors}");
    }
}

#[test]
fn what_is_missing_is_not_in_the_record() {
    let (code, output, errors) = without("landlock_create_ruleset", &[]);
    assert_eq!((code, output.as_str()), (0, "hello\n"), "{errors}");
    assert!(
        !errors.contains("Landlock") && errors.contains("seccomp"),
        "{errors}"
    );
    let (code, output, errors) = without("seccomp", &[]);
    assert_eq!((code, output.as_str()), (0, "hello\n"), "{errors}");
    assert!(
        errors.contains("Landlock") && !errors.contains("seccomp"),
        "{errors}"
    );
}

#[test]
fn both_threads_are_without_rights() {
    let agent = FakeAgent::new(&[]);
    for thread in THREADS {
        let status = agent.proc(thread, "status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {status}"))
                .trim()
                .to_string()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(
                u64::from_str_radix(&field(set), 16),
                Ok(0),
                "{thread:?} {set}"
            );
        }
        assert_eq!(field("NoNewPrivs:"), "1", "{thread:?}");
        // 2: filters.
        assert_eq!(field("Seccomp:"), "2", "{thread:?}");
    }
    let limits = agent.proc(Thread::Main, "limits");
    for (name, value) in [
        ("Max core file size", "0"),
        ("Max open files", "3"),
        ("Max file size", "0"),
    ] {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let values: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(values, [value, value], "{name}");
    }
    // The guest's, what is mapped beside it, and a GiB for the process itself.
    let space = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))
        .unwrap();
    for value in space.split_whitespace().take(2) {
        let bytes: u64 = value.parse().unwrap_or(u64::MAX);
        assert!((256 << 20..2 << 30).contains(&bytes), "{space}");
    }
}

/// Checks whether another process of the same user, without root's capabilities, may look into one.
fn may_look_into(pid: u32) -> bool {
    let look = move || {
        // Of this thread alone.
        caps::clear(None, CapSet::Effective).unwrap();
        std::fs::read(format!("/proc/{pid}/environ")).is_ok()
    };
    std::thread::spawn(look).join().unwrap()
}

#[test]
fn no_other_process_of_the_user_may_look_into_that_of_a_run() {
    let agent = FakeAgent::new(&[]);
    assert!(!may_look_into(agent.pid()));
    // As it may into one that has given up the same rights.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "sh", "-c", "echo up; read line"]);
    let mut other = start(&mut command);
    let mut line = [0; 3];
    other
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    assert!(may_look_into(other.id()));
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn the_process_holds_the_descriptors_of_one_run_and_no_other() {
    // One that whoever starts us left open.
    let inherited = tempfile::tempfile().unwrap();
    fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let descriptors = FakeAgent::new(&[]).descriptors();
    let mut kinds: Vec<_> = descriptors
        .iter()
        .map(|target| match target.rsplit('/').next().unwrap() {
            image if image.starts_with("runtime-") => "runtime image",
            template if template.ends_with(".template") => "template",
            pipe if pipe.starts_with("pipe:") => "pipe",
            other => other,
        })
        .collect();
    // Standard input, and the others twice: the copies are closed when a reader goes.
    assert_eq!(kinds[..3], ["null", "pipe", "pipe"], "{descriptors:?}");
    kinds.sort_unstable();
    let expected = [
        "anon_inode:[eventfd]",
        "anon_inode:[signalfd]",
        "anon_inode:kvm-vcpu:0",
        "anon_inode:kvm-vm",
        "null",
        "pipe",
        "pipe",
        "pipe",
        "pipe",
        "runtime image",
        "template",
    ];
    assert_eq!(kinds, expected, "{descriptors:?}");
}
