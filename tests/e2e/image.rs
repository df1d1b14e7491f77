//! An image is a description: its languages can be used with no change to this program.

use crate::common::{Cache, finish, text};
use crate::failures::assert_refused;
use crate::files::Here;
use std::process::Output;

const BUILT_IN: &str = include_str!("../../guest/images/python/image.toml");

/// A language that prints its programs in capitals.
const SHOUT: &str = r##"
[[language]]
name = "shout"
title = "Shout"
extensions = ["shout"]
interpreters = ["shout"]
file = ["bash", "-c", 'while read -r line; do [[ $line = "#!"* ]] || echo "${line^^}!"; done <"$0"', "{file}"]
code = ["bash", "-c", 'echo "${0^^}!"', "{code}"]
stdin = ["bash", "-c", 'read -r line; echo "${line^^}!"']
"##;

fn run_shouting(here: &Here, arguments: &[&str], stdin: &[u8]) -> Output {
    here.write("image.toml", format!("{BUILT_IN}{SHOUT}").as_bytes());
    let mut command = Cache::shared().sandbox(&["run", "--image", "image.toml"]);
    finish(command.args(arguments).current_dir(here.0.path()), stdin)
}

#[test]
fn a_language_that_a_description_adds_is_known_in_every_way() {
    let here = Here::new();
    here.write("a.shout", b"hello\n");
    here.write("named", b"#!/usr/bin/env shout\nhello\n");
    for (arguments, stdin, expected) in [
        (["a.shout"].as_slice(), "", "HELLO!\n"),
        (&["named"], "", "HELLO!\n"),
        (&["-l", "shout", "-c", "hi"], "", "HI!\n"),
        (&["-l", "shout", "-"], "hey\n", "HEY!\n"),
        // The others are still there.
        (&["-c", "print('quiet')"], "", "quiet\n"),
        (&["-l", "bash", "-c", "echo quiet"], "", "quiet\n"),
    ] {
        let output = run_shouting(&here, arguments, stdin.as_bytes());
        let told = text(&output.stderr);
        assert_eq!(text(&output.stdout), expected, "{arguments:?}: {told}");
    }
}

#[test]
fn a_language_that_no_image_has_is_told_with_those_that_there_are() {
    let here = Here::new();
    let output = run_shouting(&here, &["-l", "cobol", "-c", "hi"], b"");
    assert_refused(&output, 125, "does not run cobol", "python, bash, shout");
    here.write("a", b"#!/usr/bin/cobol\n");
    let output = run_shouting(&here, &["a"], b"");
    assert_refused(&output, 127, "needs cobol", "--lang");
}

#[test]
fn a_description_that_is_missing_or_wrong_is_refused() {
    let here = Here::new();
    here.write("wrong.toml", b"name = 'x'\n");
    for (file, what, remedy) in [
        ("missing.toml", "cannot be read", "check the path"),
        ("wrong.toml", "is refused", "docs/image.md"),
    ] {
        let mut command = Cache::shared().sandbox(&["run", "--image", file, "-c", "pass"]);
        let output = finish(command.current_dir(here.0.path()), b"");
        assert_refused(&output, 125, what, remedy);
    }
}

#[test]
fn the_description_in_the_manual_works() {
    let manual = include_str!("../../docs/image.md");
    let (_, example) = manual.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let here = Here::new();
    here.write("image.toml", example.as_bytes());
    let options = ["--image", "image.toml"];
    assert_eq!(here.succeed(&options, "echo $0"), "bash\n");
}

#[test]
fn a_rehearsal_leaves_standard_input_to_the_program() {
    let here = Here::new();
    let reading = BUILT_IN.replace("\"echo hello\\n\"", "\"read -r line; sleep 0.1\\n\"");
    assert_ne!(reading, BUILT_IN);
    here.write("image.toml", reading.as_bytes());
    let options = ["run", "--quiet", "--image", "image.toml", "-l", "bash"];
    let mut command = Cache::growing().sandbox(&options);
    let output = finish(
        command.args(["-c", "cat"]).current_dir(here.0.path()),
        b"one\ntwo\n",
    );
    assert_eq!(
        text(&output.stdout),
        "one\ntwo\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_script_in_a_pipe_is_read_once() {
    let mut command = Cache::shared().sandbox(&["run", "/dev/stdin"]);
    let output = finish(&mut command, b"#!/usr/bin/cobol\n");
    assert_refused(&output, 127, "needs cobol", "--lang");
}
