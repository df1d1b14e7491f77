//! The console blocks of the documents: each command is run, and what it prints is compared.

use crate::common::*;
use crate::sessions::Sessions;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A command of a block, and what it prints; `…` stands for anything.
#[derive(Default)]
struct Step {
    command: String,
    printed: String,
}

/// Returns the steps of each block that begins with ```` ```console ````.
fn blocks(text: &str) -> Vec<Vec<Step>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == "```console") {
        let mut steps: Vec<Step> = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step {
                    command: command.into(),
                    ..Step::default()
                }),
                None => steps.last_mut().unwrap().printed += &format!("{line}\n"),
            }
        }
        blocks.push(steps);
    }
    blocks
}

fn documents() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(repository.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let is_text = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
    let mut documents: Vec<_> = docs.filter(is_text).collect();
    documents.push(repository.join("README.md"));
    documents
}

/// Returns whether the text is as expected, where `…` stands for anything.
fn is_as(text: &str, expected: &str) -> bool {
    let mut pieces = expected.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap()) else {
        return false;
    };
    let mut last = "";
    for piece in pieces {
        let Some(start) = rest.find(piece) else {
            return false;
        };
        rest = &rest[start + piece.len()..];
        last = piece;
    }
    rest.is_empty() || (expected.contains('…') && last.is_empty())
}

#[test]
fn each_console_block_prints_what_it_shows() {
    let mut count = 0;
    for document in documents() {
        for block in blocks(&fs::read_to_string(&document).unwrap()) {
            let directory = tempfile::tempdir().unwrap();
            let tools = tempfile::tempdir().unwrap();
            // Those of the block end with it.
            let sessions = Sessions::new();
            symlink(binary(), tools.path().join("sandbox")).unwrap();
            let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
            symlink(examples, directory.path().join("examples")).unwrap();
            let path = format!(
                "{}:{}",
                tools.path().display(),
                std::env::var("PATH").unwrap()
            );
            for step in block {
                let mut shell = Command::new("bash");
                shell.args(["-c", &format!("exec 2>&1\n{}", step.command)]);
                shell.current_dir(&directory).env("PATH", &path);
                shell.env("XDG_RUNTIME_DIR", sessions.0.path());
                let output = finish(&mut shell, b"");
                let printed = text(&output.stdout);
                assert!(
                    is_as(&printed, &step.printed),
                    "{}: $ {}\n{printed}",
                    document.display(),
                    step.command
                );
                count += 1;
            }
        }
    }
    assert!(count > 5, "{count}");
}

#[test]
fn three_dots_stand_for_anything() {
    for (text, expected, same) in [
        ("a\n", "a\n", true),
        ("a\n", "b\n", false),
        ("ab\n", "a\n", false),
        ("a 17 b\n", "a … b\n", true),
        ("a 17 c\n", "a … b\n", false),
        ("a and more", "a …", true),
        ("a b c", "a … b", false),
    ] {
        assert_eq!(is_as(text, expected), same, "{text:?} {expected:?}");
    }
}
