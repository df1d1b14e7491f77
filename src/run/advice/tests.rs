//! Tests of what is told of what a program lacked.

use super::*;
use crate::record::{Event, Status};

fn failed(kind: &str, message: &str) -> Record {
    let exception = Exception {
        kind: kind.into(),
        message: message.into(),
        traceback: format!("{kind}: {message}\n"),
    };
    Record {
        exit_code: Some(1),
        exception: Some(exception),
        ..Record::empty(Status::Exited)
    }
}

#[test]
fn a_module_that_is_missing_is_named() {
    let record = failed("ModuleNotFoundError", "No module named 'a.b'; 'a' is not …");
    let bring = |name: &str, distribution: Option<&str>| Remedy::BringModule {
        name: name.into(),
        distribution: distribution.map(str::to_owned),
    };
    assert_eq!(advice(&record), [bring("a.b", None)]);
    let known = failed("ModuleNotFoundError", "No module named 'yaml'");
    assert_eq!(advice(&known), [bring("yaml", Some("pyyaml"))]);
    let long = format!("No module named '{}'", "a".repeat(NAME_MAX + 1));
    for (kind, message) in [
        ("ImportError", "No module named 'a'"),
        ("ModuleNotFoundError", "No module named 'a\nb'"),
        ("ModuleNotFoundError", &long),
        ("ModuleNotFoundError", "no"),
    ] {
        assert_eq!(advice(&failed(kind, message)), [], "{message}");
    }
}

#[test]
fn a_module_that_was_to_be_run_and_is_missing_is_known_by_the_last_line() {
    let lacks = |line: &str| format!("before\n/usr/bin/python3: {line}\n");
    let not_found = "Error while finding module specification for 'yaml.a' (ModuleNotFoundError: No module named 'yaml')";
    for (text, expected) in [
        (lacks("No module named a.b"), Some("a.b")),
        (
            lacks("No module named yaml").replace('\n', "\r\n"),
            Some("yaml"),
        ),
        (lacks(not_found), Some("yaml")),
        (lacks("No module named yaml") + "after\n", None),
        (
            lacks("No module named email.__main__; 'email' is a package"),
            None,
        ),
        ("prog: No module named a\n".into(), None),
        (String::new(), None),
    ] {
        assert_eq!(missing_in(&text), expected, "{text}");
    }
    let ended = |exit_code| Record {
        exit_code: Some(exit_code),
        stderr: Some(lacks("No module named yaml")),
        ..Record::empty(Status::Exited)
    };
    assert_eq!(advice(&ended(1)), [of_module("yaml")]);
    assert_eq!(advice(&ended(0)), []);
}

#[test]
fn a_network_that_is_missing_is_known_by_words_and_events() {
    let words = failed("OSError", "[Errno 101] Network is unreachable");
    let on_stderr = Record {
        exit_code: Some(1),
        stderr: Some("wget: bad address 'example.com'\n".into()),
        ..Record::empty(Status::Exited)
    };
    let event = |errno: Errno| Event {
        kind: EventKind::Connect,
        what: "10.0.0.1:80".into(),
        errno: errno as i32,
    };
    let tried = |errno| Record {
        events: vec![event(errno)],
        ..Record::empty(Status::Exited)
    };
    for record in [words, on_stderr.clone(), tried(Errno::ENETUNREACH)] {
        assert_eq!(advice(&record), [Remedy::DoWithoutNetwork], "{record:?}");
    }
    let succeeded = Record {
        exit_code: Some(0),
        ..on_stderr
    };
    for record in [succeeded, tried(Errno::ECONNREFUSED)] {
        assert_eq!(advice(&record), [], "{record:?}");
    }
}
