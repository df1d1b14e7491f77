//! The library runs programs as the command line does.

use crate::common::binary;
use sandbox::{Builder, End, Sandbox};
use std::time::Duration;

fn builder() -> Builder {
    Sandbox::builder().binary(binary())
}

#[test]
fn a_program_runs_with_what_it_is_given() {
    let sandbox = builder()
        .file("data.txt", "from a file")
        .env("NAME", "from the environment")
        .build()
        .unwrap();
    let code = "import os, sys\nprint(open('data.txt').read())\nprint(os.environ['NAME'], file=sys.stderr)";
    let output = sandbox.run(code).unwrap();
    assert_eq!(output.stdout, b"from a file\n");
    assert_eq!(output.stderr, b"from the environment\n");
    assert!(output.ended.is_success() && !output.is_cut);
    // Each run has a machine of its own.
    let output = sandbox.run("import os; print(os.listdir())").unwrap();
    assert_eq!(output.stdout, b"['data.txt']\n");
}

#[test]
fn how_a_program_ends_is_told() {
    let short = builder().timeout(Duration::from_secs(1)).build().unwrap();
    let output = short.run("while True: pass").unwrap();
    assert_eq!(output.ended, End::TimedOut);
    let sandbox = builder().build().unwrap();
    for (code, ended) in [
        ("raise SystemExit(3)", End::Exited(3)),
        ("import os; os.kill(os.getpid(), 11)", End::Signaled(11)),
        (
            "b = [bytearray(1 << 20) for _ in range(1000)]",
            End::OutOfMemory,
        ),
    ] {
        assert_eq!(sandbox.run(code).unwrap().ended, ended, "{code}");
    }
}

#[test]
fn scripts_and_other_languages_run_and_output_is_cut_where_it_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("hello.sh");
    std::fs::write(&script, "echo hello").unwrap();
    let sandbox = builder().max_output(4).build().unwrap();
    let output = sandbox.run_file(&script).unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.is_cut),
        (b"hell".as_slice(), true)
    );
    let bash = builder().language("bash").build().unwrap();
    assert_eq!(bash.run("echo $((6 * 7))").unwrap().stdout, b"42\n");
}

#[test]
fn a_run_that_cannot_be_says_what_to_do() {
    let sandbox = builder().build().unwrap();
    let error = sandbox.run_file("/nowhere.py").unwrap_err();
    assert!(
        error.to_string().contains("no script /nowhere.py"),
        "{error}"
    );
    assert_eq!(error.remedy(), "check the path that run_file() was given");
    let error = builder()
        .kvm("/dev/null")
        .build()
        .unwrap()
        .run("pass")
        .unwrap_err();
    assert!(error.to_string().contains("not a KVM device"), "{error}");
    let cobol = builder().language("cobol").build().unwrap();
    let remedy = cobol.run("pass").unwrap_err().remedy();
    assert!(remedy.contains("python, bash"), "{remedy}");
}
