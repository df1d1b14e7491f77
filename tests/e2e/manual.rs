//! Help, the manual and completions, which are all made from the options.

use crate::common::{exit_code, finish, sandbox, text};
use std::process::Command;

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = finish(&mut sandbox(arguments), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn help_is_in_groups_and_tells_exit_codes_and_examples() {
    let help = printed(&["run", "--help"]);
    for part in [
        "The program:",
        "Its limits:",
        "Files in and out:",
        "The machine:",
        "What is told:",
        "Exit codes:",
        "Examples:",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn help_fits_its_terminal_and_fills_its_lines() {
    for columns in [80, 100] {
        let mut command = sandbox(&["run", "--help"]);
        let output = finish(command.env("COLUMNS", columns.to_string()), b"");
        let help = text(&output.stdout);
        let width = |text: &str| text.chars().count();
        let long = help.lines().find(|line| width(line) > columns);
        assert_eq!(long, None);
        let (_, codes) = help.split_once("Exit codes:").unwrap();
        let paragraph: Vec<_> = codes.lines().take_while(|line| !line.is_empty()).collect();
        assert!(paragraph.len() > 2, "{help}");
        // The first one has the title before it.
        for lines in paragraph[1..].windows(2) {
            let next = lines[1].split(' ').next().unwrap();
            assert!(width(lines[0]) + 1 + width(next) > columns, "{lines:?}");
        }
    }
}

#[test]
fn each_manual_page_has_the_name_of_its_command_and_the_version() {
    let pages = [
        (&["man"][..], "sandbox"),
        (&["man", "run"], "sandbox-run"),
        (&["man", "mcp"], "sandbox-mcp"),
        (&["man", "mcp", "token"], "sandbox-mcp-token"),
        (&["man", "template", "build"], "sandbox-template-build"),
    ];
    for (arguments, name) in pages {
        let page = printed(arguments);
        let version = env!("CARGO_PKG_VERSION");
        let title = format!(".TH {name} 1  \"sandbox {version}\" \"User Commands\"\n");
        assert!(page.contains(&title), "{title}: {page}");
        let heading = format!(".SH NAME\n{} \\- ", name.replace('-', "\\-"));
        assert!(page.contains(&heading), "{heading}: {page}");
    }
}

#[test]
fn a_manual_page_names_every_option_of_its_command() {
    let help = printed(&["run", "--help"]);
    let page = printed(&["man", "run"]);
    let plain = page.replace('\\', "");
    let options = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"));
    let mut count = 0;
    for option in options {
        let option: String = option
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        assert!(plain.contains(&option), "{option}");
        count += 1;
    }
    assert!(count > 20, "{count}");
    assert!(printed(&["man"]).contains("template"));
}

#[test]
fn a_manual_page_names_every_variable_that_stands_for_an_option() {
    for command in [&["run"][..], &["mcp"], &["template", "build"]] {
        let help = printed(&[command, &["--help"]].concat());
        let page = printed(&[&["man"], command].concat());
        // A line may end before the name.
        let variables = help.split("[env:").skip(1);
        let mut count = 0;
        for variable in variables {
            let (name, _) = variable.trim_start().split_once('=').unwrap();
            assert!(page.contains(name), "{name}: {page}");
            count += 1;
        }
        assert!(count > 2, "{count}");
    }
}

#[test]
fn a_manual_page_of_nothing_is_refused_with_what_there_is() {
    let output = finish(&mut sandbox(&["man", "nothing"]), b"");
    assert_eq!(exit_code(output.status), 125);
    let said = text(&output.stderr);
    assert!(said.contains("run, template"), "{said}");
    // A worker is started by this program alone.
    assert!(!said.contains("worker"), "{said}");
    let output = finish(&mut sandbox(&["man", "worker"]), b"");
    assert_eq!(exit_code(output.status), 125);
}

#[test]
fn a_shell_completes_what_there_is() {
    let script = printed(&["completions", "bash"]);
    let complete = "
COMP_WORDS=(sandbox run --json); COMP_CWORD=2
_sandbox sandbox --json run
echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let output = finish(bash.arg("-c").arg(script + complete), b"");
    assert_eq!(
        text(&output.stdout),
        "--json --json-events --json-status-fd\n"
    );
    for shell in ["fish", "zsh", "elvish", "powershell"] {
        assert!(printed(&["completions", shell]).contains("json-status-fd"));
    }
}
