//! Failures before a guest runs: one sentence, one remedy, the right exit code.

use crate::common::{binary, exit_code, finish, sandbox, text};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// Checks a refusal: nothing on standard output, two lines on standard error, no backtrace.
pub fn assert_refused(output: &Output, code: i32, sentence: &str, remedy: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), code, "{stderr}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    assert!(
        stderr.lines().all(|line| line.starts_with("sandbox: ")),
        "{stderr}"
    );
    assert!(stderr.contains(sentence), "{stderr}");
    assert!(stderr.contains(remedy), "{stderr}");
}

fn run_script(path: &Path) -> Output {
    finish(sandbox(&["run"]).arg(path), b"")
}

/// Makes the command run as a user without any rights, if we may change the user.
fn as_nobody(command: &mut Command, home: &Path) {
    const NOBODY: u32 = 65534;
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(home, Some(NOBODY.into()), None).unwrap();
        command
            .uid(NOBODY)
            .gid(NOBODY)
            .env("HOME", home)
            .current_dir(home);
    }
}

/// Makes a copy of the binary that anybody may execute.
fn copy_of_the_binary(directory: &Path) -> std::path::PathBuf {
    let copy = directory.join("sandbox");
    // By another process: while this one had it open for writing, a fork in another test would
    // make its execution fail (ETXTBSY).
    let copied = Command::new("cp")
        .arg(binary())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    copy
}

#[test]
fn a_script_that_does_not_exist() {
    let output = run_script(Path::new("no/such/script.py"));
    assert_refused(
        &output,
        127,
        "there is no script no/such/script.py",
        "check the path",
    );
}

#[test]
fn a_script_that_is_a_directory() {
    let output = run_script(&std::env::temp_dir());
    assert_refused(&output, 126, "is a directory", "name the file");
}

#[test]
fn a_script_that_may_not_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("secret.py");
    fs::write(&script, "pass").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(copy_of_the_binary(directory.path()));
    as_nobody(&mut command, directory.path());
    let output = finish(command.arg("run").arg(&script), b"");
    assert_refused(&output, 126, "you may not read the script", "chmod u+r");
}

#[test]
fn nothing_to_run() {
    let output = finish(&mut sandbox(&["run"]), b"");
    assert_refused(&output, 125, "there is nothing to run", "name a script");
}

#[test]
fn options_and_values_that_do_not_exist() {
    for (arguments, told) in [
        (&["run", "--bogus", "x.py"][..], "--bogus"),
        (&["run", "-t", "soon", "x.py"], "give seconds"),
        (&["run", "-m", "1T", "x.py"], "K, M or G"),
        (&["run", "-m", "1M", "x.py"], "between 64M and 64G"),
        (&["run", "--pids-limit", "0", "x.py"], "from 1 to 4194304"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let output = finish(&mut sandbox(arguments), b"");
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{arguments:?}: {stderr}");
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn variables_of_options_that_are_on_or_off_say_so_in_any_usual_way() {
    for option in ["SANDBOX_FRESH", "SANDBOX_VERIFY"] {
        let run = |value| {
            let mut command = sandbox(&["--kvm", "/dev/no-kvm", "run", "-c", "pass"]);
            finish(command.env(option, value), b"")
        };
        for value in ["1", "0", "true", "false", "yes", "no", "on", "off"] {
            assert_refused(&run(value), 125, "no /dev/no-kvm", "enable virtualisation");
        }
        let refused = run("perhaps");
        assert_eq!(exit_code(refused.status), 125);
        assert!(text(&refused.stderr).contains("perhaps"), "{refused:?}");
    }
}

#[test]
fn kvm_that_is_absent() {
    let output = finish(
        &mut sandbox(&["--kvm", "/dev/no-kvm", "run", "-c", "pass"]),
        b"",
    );
    assert_refused(
        &output,
        125,
        "this host has no /dev/no-kvm",
        "enable virtualisation",
    );
}

#[test]
fn kvm_that_is_something_else() {
    let output = finish(
        &mut sandbox(&["--kvm", "/dev/null", "run", "-c", "pass"]),
        b"",
    );
    assert_refused(
        &output,
        125,
        "/dev/null is not a KVM device",
        "name the real device",
    );
}

#[test]
fn kvm_that_is_forbidden() {
    /// The number of a group in Debian.
    const DAEMON: u32 = 1;
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("kvm");
    fs::write(&device, "").unwrap();
    let binary = copy_of_the_binary(directory.path());
    let refused = |mode, remedy| {
        fs::set_permissions(&device, Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(&binary);
        as_nobody(&mut command, directory.path());
        command.arg("--kvm").arg(&device);
        let output = finish(command.args(["run", "-c", "pass"]), b"");
        assert_refused(&output, 125, "you may not open", remedy);
    };
    refused(0o000, "sudo setfacl -m u:$USER:rw ");
    if nix::unistd::geteuid().is_root() {
        refused(0o660, "sudo setfacl -m u:$USER:rw ");
        std::os::unix::fs::chown(&device, None, Some(DAEMON)).unwrap();
        refused(0o660, "sudo usermod -aG daemon $USER");
        refused(0o600, "sudo setfacl -m u:$USER:rw ");
    }
}

#[test]
fn doctor_names_the_host_and_the_guest() {
    let output = finish(&mut sandbox(&["doctor"]), b"");
    let stdout = text(&output.stdout);
    assert_eq!(exit_code(output.status), 0, "{stdout}");
    for told in [
        "host family: ",
        "KVM_CAP_SPLIT_IRQCHIP",
        "guest kernel: Linux 6.12",
        "guest Python: 3.13",
    ] {
        assert!(stdout.contains(told), "{told} in {stdout}");
    }
}

#[test]
fn doctor_has_a_remedy_for_each_failing_line() {
    let output = finish(&mut sandbox(&["--kvm", "/dev/no-kvm", "doctor"]), b"");
    let stdout = text(&output.stdout);
    assert_eq!(exit_code(output.status), 125, "{stdout}");
    assert!(
        stdout.contains("FAIL  KVM: this host has no /dev/no-kvm\n      enable"),
        "{stdout}"
    );
}

#[test]
fn doctor_speaks_json() {
    let output = finish(
        &mut sandbox(&["--kvm", "/dev/no-kvm", "doctor", "--json"]),
        b"",
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert!(["hardware", "software"].contains(&report["host"].as_str().unwrap()));
    let checks = report["checks"].as_array().unwrap();
    let failing = checks.iter().find(|check| check["ok"] == false).unwrap();
    assert_eq!(failing["name"], "KVM");
    assert!(
        failing["remedy"]
            .as_str()
            .unwrap()
            .contains("enable virtualisation")
    );
}

#[test]
fn the_binary_runs_alone_and_keeps_its_cache_private() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    fs::create_dir(&home).unwrap();
    let mut command = Command::new(copy_of_the_binary(directory.path()));
    command.env_clear().env("HOME", &home).current_dir("/");
    let output = finish(
        command.args(["run", "-t", "300", "-c", "print('alone')"]),
        b"",
    );
    assert_eq!(text(&output.stdout), "alone\n", "{}", text(&output.stderr));
    let cache = home.join(".cache/sandbox");
    let mut modes = Vec::new();
    for directory in [&cache, &cache.join("templates")] {
        modes.push((directory.clone(), mode(directory)));
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                modes.push((path.extension().unwrap().into(), mode(&path)));
            }
        }
    }
    modes.sort();
    let expected = [
        (cache.clone(), 0o700),
        (cache.join("templates"), 0o700),
        ("erofs".into(), 0o400),
        ("lock".into(), 0o600),
        ("mode".into(), 0o400),
        ("template".into(), 0o400),
    ];
    assert_eq!(modes, expected);
}

/// Returns the permissions of a file.
fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_reader_of_our_messages_that_goes_away_is_no_crash() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = sandbox(&["run", "no/such/script.py"])
        .stderr(writer)
        .status()
        .unwrap();
    assert_eq!(exit_code(status), 127);
}

#[test]
fn a_script_without_an_end_is_refused() {
    let output = run_script(Path::new("/dev/zero"));
    assert_refused(&output, 126, "is larger than 56 MiB", "standard input");
}
