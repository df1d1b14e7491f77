//! Commands of the guest's in place of a script, and programs that packages bring.

use crate::common::{exit_code, finish, sandbox, text};
use crate::files::Here;
use crate::packages::Place;
use serde_json::json;
use std::process::Output;

fn run(here: &Here, words: &[&str]) -> Output {
    let words = [&["run"], words].concat();
    finish(sandbox(&words).current_dir(here.path("")), b"in\n")
}

#[test]
fn a_command_runs_with_its_arguments_input_and_exit_code() {
    let here = Here::new();
    for (words, code, said) in [
        (&["--", "echo", "a b", "--", "-c"][..], 0, "a b -- -c\n"),
        (&["--", "cat"], 0, "in\n"),
        (
            &[
                "--",
                "python3",
                "-c",
                "import sys; print(sys.argv); sys.exit(3)",
                "--x",
            ],
            3,
            "['-c', '--x']\n",
        ),
        (&["--", "--odd"], 127, ""),
        (&["--", "nosuch"], 127, ""),
        (&["--", "/tmp"], 126, ""),
        (&["--fresh", "--", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["-e", "A=1", "--", "sh", "-c", "echo $A"], 0, "1\n"),
    ] {
        let output = run(&here, words);
        assert_eq!(exit_code(output.status), code, "{words:?}: {output:?}");
        assert_eq!(text(&output.stdout), said, "{words:?}");
    }
    let output = run(&here, &["--json", "--", "echo", "hi"]);
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["stdout"], "hi\n", "{record}");
}

#[test]
fn a_separator_elsewhere_is_what_it_was() {
    let here = Here::new();
    here.write("script.py", b"import sys; print(sys.argv[1:])");
    let code = "import sys; print(sys.argv[1:])";
    for (words, said) in [
        (&["script.py", "--", "a", "--"][..], "['a', '--']\n"),
        (&["-c", code, "--", "a"], "['a']\n"),
        (&["--module", "script", "--", "a"], "['a']\n"),
    ] {
        assert_eq!(text(&run(&here, words).stdout), said, "{words:?}");
    }
    for words in [&["--"][..], &["-l", "python", "--", "ls"]] {
        let output = run(&here, words);
        assert_eq!(exit_code(output.status), 125, "{words:?}: {output:?}");
    }
}

#[test]
fn what_a_command_names_goes_in_with_all_that_is_beside_it() {
    let here = Here::new();
    std::fs::create_dir(here.path("tests")).unwrap();
    here.write("tests/test_a.py", b"");
    here.write("helper.py", b"");
    let names = |words: &[&str]| text(&run(&here, words).stdout);
    let list = "ls; exit #";
    for (word, goes) in [
        ("tests/", true),
        ("./tests/test_a.py::test_b", true),
        ("nosuch", false),
        ("..", false),
        ("/tmp", false),
        ("", false),
    ] {
        let listed = names(&["--", "bash", "-c", list, "x", word]);
        assert_eq!(listed == "helper.py\ntests\n", goes, "{word}: {listed}");
        assert_eq!(listed.is_empty(), !goes, "{word}: {listed}");
    }
    let words = ["--no-siblings", "--", "bash", "-c", list, "x", "tests"];
    assert_eq!(names(&words), "");
}

#[test]
fn a_policy_holds_for_a_command_as_for_the_shell_that_runs_it() {
    let here = Here::new();
    here.write("policy.toml", b"[run]\nlanguages = ['python']\n");
    let output = run(&here, &["--policy", "policy.toml", "--", "echo", "hi"]);
    assert_eq!(exit_code(output.status), 125, "{output:?}");
    assert!(text(&output.stderr).contains("bash"), "{output:?}");
}

#[test]
fn programs_of_packages_are_found_by_their_names() {
    let place = Place::new();
    let code = "import sys
def main(): print('tool', sys.argv[1:])
if __name__ == '__main__': main()
";
    let files = json!({
        "tool.py": code,
        "tool-1.0.dist-info/entry_points.txt": "[console_scripts]\nrun-tool = tool:main\n",
    });
    place.add_wheels(&json!([["tool", "1.0", "", files]]));
    place.does(&["packages", "setup"]);
    let shell = "import subprocess; subprocess.run(['run-tool', 'a'])";
    for words in [
        &["--", "run-tool", "a"][..],
        &["--fresh", "--", "run-tool", "a"],
        &["-l", "bash", "-c", "run-tool a"],
        &["-c", shell],
        &["--module", "tool", "a"],
    ] {
        let output = place.sandbox(&[&["run", "--with", "tool"], words].concat());
        assert_eq!(
            text(&output.stdout),
            "tool ['a']\n",
            "{words:?}: {output:?}"
        );
    }
    let output = place.sandbox(&["run", "--", "run-tool"]);
    assert_eq!(exit_code(output.status), 127, "{output:?}");
}
