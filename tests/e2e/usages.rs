//! Wrong usages, and what is printed for each: what was written, what is wrong with it, what to do.

use crate::common::{binary, exit_code, finish, text};
use crate::files::Here;
use sandbox::internals::record::{Record, Status};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

/// Commands of a shell, each behind a $, with the lines on standard error and, unless it is 125, the
/// exit code in brackets.
const WRONG: &str = include_str!("wrong_usages.txt");

/// Returns a directory with the files that the commands name.
fn files() -> Here {
    let here = Here::new();
    for directory in ["directory", "bin"] {
        fs::create_dir(here.path(directory)).unwrap();
    }
    for (name, content) in [
        ("hello.py", "print(1)\n"),
        ("shell.bash", "echo $BASH\n"),
        ("notebook.ipynb", "{}\n"),
        ("page.js", "console.log(1)\n"),
        ("z", "#!/bin/zsh\n"),
        ("named", "#!/usr/bin/env node\n"),
        ("paper.pdf", "%PDF-1.7\n"),
        ("log-12:00.csv", "A,B\n"),
        ("wrong.env", "# comment\nA=1\nexport D=4\n"),
        ("wrong.toml", "x = 1\n"),
        ("header.py", "# /// script\n# dependencies = [\n# ///\n"),
        ("log.toml", "[audit]\nfile = \"/nonexistent/log\"\n"),
    ] {
        here.write(name, content.as_bytes());
    }
    fs::set_permissions(here.path("hello.py"), PermissionsExt::from_mode(0o644)).unwrap();
    nix::unistd::mkfifo(&here.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink(binary(), here.path("bin/sandbox")).unwrap();
    here
}

fn shell(here: &Here, line: &str) -> Output {
    let path = format!("{}:/usr/bin:/bin", here.path("bin").display());
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("PATH", path);
    command.env("XDG_RUNTIME_DIR", here.path(""));
    finish(command.current_dir(here.path("")), b"")
}

/// Checks that the line that says what is wrong names no option that was not given.
fn check_names(command: &str, line: &str) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    for word in line
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with('-'))
    {
        assert!(
            command.contains(word),
            "{command} does not have {word}: {line}"
        );
    }
}

#[test]
fn each_wrong_usage_is_told_with_what_to_do() {
    let here = files();
    let blocks: Vec<_> = WRONG
        .split("$ ")
        .filter(|block| !block.is_empty())
        .collect();
    assert!(blocks.len() >= 60, "{}", blocks.len());
    let mut differing = Vec::new();
    for block in blocks {
        let (line, expected) = block.split_once('\n').unwrap();
        let output = shell(&here, line);
        let mut printed = text(&output.stderr);
        match exit_code(output.status) {
            125 => {}
            code => printed += &format!("[{code}]\n"),
        }
        if printed != expected {
            differing.push(format!("$ {line}\n{printed}instead of\n{expected}"));
        }
        check_names(line, expected.lines().next().unwrap());
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn wrong_options_are_told_in_a_record_where_one_is_wanted() {
    let here = files();
    for (line, told) in [
        ("sandbox run --json --bogus hello.py", "--bogus"),
        ("sandbox run --bogus --json hello.py", "--bogus"),
        ("sandbox run --json-events --bogus hello.py", "--bogus"),
        ("sandbox run --bogus value --json -c 1", "--bogus"),
        ("sandbox run -m main --json hello.py", "-m cannot be main"),
        (
            "sandbox run -l python --json -t soon hello.py",
            "-t cannot be",
        ),
        (
            "SANDBOX_MEMORY=1 sandbox run --json hello.py",
            "SANDBOX_MEMORY",
        ),
        ("sandbox run --json=yes hello.py", "--json"),
        ("sandbox run --json-status-fd 1 --bogus hello.py", "--bogus"),
    ] {
        let output = shell(&here, line);
        let record: Record = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"));
        assert_eq!(record.status, Status::Error, "{line}");
        let error = record.error.unwrap();
        assert!(error.message.contains(told), "{line}: {}", error.message);
        assert!(!error.remedy.is_empty());
        assert_eq!(exit_code(output.status), 125);
    }
    for line in [
        "sandbox run --bogus=value hello.py --json",
        "sandbox run -t soon -- hello.py --json",
        "sandbox template list --json",
    ] {
        assert_eq!(text(&shell(&here, line).stdout), "", "{line}");
    }
}

#[test]
fn what_the_host_has_of_languages_units_and_addresses_is_taken() {
    let here = files();
    for (line, printed) in [
        ("sandbox run -l sh -c 'echo $0'", "bash\n"),
        ("sandbox run -l Python -t 10sec -m 512MB hello.py", "1\n"),
        ("sandbox run -t 1m30s hello.py", "1\n"),
        ("sandbox run shell.bash", "/usr/bin/bash\n"),
        (
            "sandbox completions bash | grep -o 'python bash' | sort -u",
            "python bash\n",
        ),
    ] {
        let output = shell(&here, line);
        assert_eq!(text(&output.stdout), printed, "{line}: {output:?}");
    }
}
