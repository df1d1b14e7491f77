//! What goes with a script unasked: the files beside it, if it imports one of them.

use crate::common::{exit_code, finish, sandbox, text};
use crate::files::Here;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

/// Returns a directory with a project in it, whose script says what it sees.
fn project() -> Here {
    let here = Here::new();
    for directory in ["proj/data", "proj/pkg", "elsewhere"] {
        fs::create_dir_all(here.path(directory)).unwrap();
    }
    here.write("proj/helper.py", b"VALUE = 7");
    here.write("proj/pkg/__init__.py", b"");
    here.write("proj/pkg/deep.py", b"VALUE = 8");
    here.write("proj/data/a.csv", b"1,2");
    let main = b"
import os, sys
import helper
from pkg import deep
print(helper.VALUE, deep.VALUE, __file__, sys.path[0], os.getcwd())
print(sorted(set(os.listdir(os.path.dirname(__file__))) - {'__pycache__'}))
";
    here.write("proj/main.py", main);
    here
}

fn run(directory: &Path, words: &[&str]) -> Output {
    finish(sandbox(&["run"]).args(words).current_dir(directory), b"")
}

/// Does a run that must succeed without any message of ours; returns what it prints.
#[track_caller]
fn succeed(directory: &Path, words: &[&str]) -> String {
    let output = run(directory, words);
    assert_eq!(text(&output.stderr), "", "{words:?}");
    assert_eq!(exit_code(output.status), 0);
    text(&output.stdout)
}

/// This holds on a restored machine and on a booted one.
#[test]
fn a_script_imports_what_is_beside_it_wherever_it_is() {
    let here = project();
    let absolute = here.path("proj/main.py");
    let seen = "['data', 'helper.py', 'main.py', 'pkg']\n";
    for (from, script, directory) in [
        ("", "proj/main.py", "/work/proj"),
        ("proj", "main.py", "/work"),
        ("elsewhere", "../proj/main.py", "/work"),
        ("elsewhere", absolute.to_str().unwrap(), "/work"),
    ] {
        let printed = succeed(&here.path(from), &[script]);
        let expected = format!("7 8 {directory}/main.py {directory} /work\n{seen}");
        assert_eq!(printed, expected, "{script}");
    }
    let printed = succeed(&here.path(""), &["--fresh", "-w", "/tmp/x", "proj/main.py"]);
    let expected = format!("7 8 /tmp/x/proj/main.py /tmp/x/proj /tmp/x\n{seen}");
    assert_eq!(printed, expected);
}

#[test]
fn nothing_goes_with_a_script_that_imports_nothing_from_there() {
    let here = project();
    here.write("proj/alone.py", b"import os; print(os.listdir())  # helper");
    let beside = here.path("proj");
    assert_eq!(succeed(&beside, &["alone.py"]), "['alone.py']\n");
    let code = "import os; print(os.listdir())\nimport helper";
    let output = run(&beside, &["-c", code]);
    assert_eq!(text(&output.stdout), "[]\n");
    let mut piped = sandbox(&["run", "-"]);
    let output = finish(piped.current_dir(&beside), code.as_bytes());
    assert_eq!(text(&output.stdout), "[]\n");
    for off in ["--no-siblings", "--exclude=helper.py"] {
        let output = run(&beside, &[off, "main.py"]);
        let said = text(&output.stderr);
        assert!(said.contains("No module named 'helper'"), "{said}");
    }
    let mut off = sandbox(&["run", "main.py"]);
    off.env("SANDBOX_NO_SIBLINGS", "1").current_dir(&beside);
    assert_eq!(exit_code(finish(&mut off, b"").status), 1);
}

#[test]
fn what_is_hidden_or_made_by_tools_stays_on_the_host() {
    let here = project();
    for directory in [
        ".git",
        ".venv",
        "node_modules",
        "__pycache__",
        "venv",
        "kept",
    ] {
        fs::create_dir(here.path("proj").join(directory)).unwrap();
        here.write(&format!("proj/{directory}/secret.py"), b"");
    }
    here.write("proj/venv/pyvenv.cfg", b"");
    here.write("proj/.env", b"KEY=secret");
    here.write("proj/kept/.env", b"KEY=secret");
    symlink("/etc/shadow", here.path("proj/link")).unwrap();
    nix::unistd::mkfifo(&here.path("proj/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let printed = succeed(&here.path("proj"), &["main.py"]);
    let listed = printed.lines().last().unwrap();
    let expected = "['data', 'helper.py', 'kept', 'link', 'main.py', 'pkg']";
    assert_eq!(listed, expected);
    here.write(
        "proj/deep.py",
        b"import helper, os; print(os.listdir('kept'), os.readlink('link'))",
    );
    let printed = succeed(&here.path("proj"), &["deep.py"]);
    assert_eq!(printed, "['secret.py'] /etc/shadow\n");
}

#[test]
fn too_much_beside_a_script_stays_there_and_that_is_told() {
    let here = project();
    let large = fs::File::create(here.path("proj/data/large")).unwrap();
    large.set_len(11 << 20).unwrap();
    let output = run(&here.path(""), &["proj/main.py"]);
    let said = text(&output.stderr);
    assert_eq!(exit_code(output.status), 1);
    for told in [
        "No module named 'helper'",
        "beside proj/main.py did not go in",
        "10 MiB",
        "--exclude",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    succeed(&here.path(""), &["--exclude", "large", "proj/main.py"]);
    fs::remove_file(here.path("proj/data/large")).unwrap();
    for number in 0..1000 {
        here.write(&format!("proj/data/{number}"), b"");
    }
    let output = run(&here.path(""), &["-q", "proj/main.py"]);
    assert!(!text(&output.stderr).contains("sandbox:"), "{output:?}");
    let output = run(&here.path(""), &["--json", "proj/main.py"]);
    assert!(
        text(&output.stderr).contains("more than 1000 files"),
        "{output:?}"
    );
    succeed(&here.path(""), &["--put", "proj", "proj/main.py"]);
}

#[test]
fn a_script_that_is_put_with_its_directory_runs_where_that_is() {
    let here = project();
    let absolute = here.path("proj");
    let absolute = absolute.to_str().unwrap();
    let main = format!("{absolute}/main.py");
    for (from, put, script, place) in [
        ("", "proj", "proj/main.py", "/work/proj"),
        ("", "proj:src", "proj/main.py", "/work/src"),
        ("", "proj/.", "proj/main.py", "/work"),
        ("elsewhere", "../proj", "../proj/main.py", "/work/proj"),
        ("elsewhere", absolute, "../proj/main.py", "/work/proj"),
        ("elsewhere", absolute, &main, "/work/proj"),
        ("proj", ".", "main.py", "/work"),
    ] {
        let printed = succeed(&here.path(from), &["--put", put, script]);
        let expected = format!("7 8 {place}/main.py {place} /work\n");
        assert!(printed.starts_with(&expected), "{put}: {printed}");
    }
}

#[test]
fn a_policys_limit_on_files_holds_for_what_goes_unasked() {
    let here = project();
    here.write("policy.toml", b"[run]\nfiles = { count = 2 }");
    let output = run(&here.path(""), &["--policy", "policy.toml", "proj/main.py"]);
    let said = text(&output.stderr);
    assert_eq!(exit_code(output.status), 1, "{said}");
    assert!(
        said.contains("the policy and what was put leave room for 2 files"),
        "{said}"
    );
    here.write("proj/alone.py", b"print('alone')");
    let words = ["--policy", "policy.toml", "proj/alone.py"];
    assert_eq!(succeed(&here.path(""), &words), "alone\n");
    let audit = ["--audit", "log", "proj/main.py"];
    succeed(&here.path(""), &audit);
    let log = text(&here.read("log"));
    assert!(log.contains("\"files\":{\"count\":7,"), "{log}");
}

#[test]
fn a_shell_script_sources_what_is_beside_it() {
    let here = Here::new();
    here.write("lib.sh", b"greet() { echo hello; }");
    here.write("main.sh", b". ./lib.sh\ngreet");
    assert_eq!(succeed(&here.path(""), &["main.sh"]), "hello\n");
}

#[test]
fn a_directory_with_a_main_file_runs_as_python3_runs_it() {
    let here = project();
    here.write(
        "proj/__main__.py",
        b"import sys, helper; print(helper.VALUE, sys.argv, sys.path[0], __file__, __package__ == '')",
    );
    for fresh in [&[][..], &["--fresh"]] {
        let words = [fresh, &["proj", "a"]].concat();
        let expected = "7 ['proj', 'a'] /work/proj /work/proj/__main__.py True\n";
        assert_eq!(succeed(&here.path(""), &words), expected);
    }
    let printed = succeed(&here.path("proj"), &["."]);
    assert!(printed.starts_with("7 ['.'] /work"), "{printed}");
    let printed = succeed(&here.path("elsewhere"), &["../proj"]);
    assert!(printed.starts_with("7 ['proj'] /work/proj "), "{printed}");
    let printed = succeed(&here.path(""), &["--put", "proj:x", "proj"]);
    assert!(printed.starts_with("7 ['x'] /work/x "), "{printed}");
    let output = run(&here.path(""), &["elsewhere"]);
    assert_eq!(exit_code(output.status), 126);
    let said = text(&output.stderr);
    assert!(
        said.contains("elsewhere is a directory without __main__.py"),
        "{said}"
    );
    assert!(said.contains("elsewhere/FILE"), "{said}");
}

#[test]
fn a_module_of_the_current_directory_runs_as_python3_runs_it() {
    let here = project();
    let here = here.path("proj");
    let code = "import sys; from . import deep; print(deep.VALUE, sys.argv, sys.path[0], __name__)";
    fs::write(here.join("pkg/__main__.py"), code).unwrap();
    let printed = succeed(&here, &["--module", "pkg", "a", "-b"]);
    let expected = "8 ['/work/pkg/__main__.py', 'a', '-b']  __main__\n";
    assert_eq!(printed, expected);
    assert_eq!(succeed(&here, &["--module", "this"]).lines().count(), 21);
    let output = run(&here, &["--no-siblings", "--module", "pkg"]);
    assert!(
        text(&output.stderr).contains("No module named pkg"),
        "{output:?}"
    );
}
