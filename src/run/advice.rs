//! What a program lacked, as far as its record shows. Whoever reports it puts that into words.

use crate::error::Remedy;
use crate::packages::distribution;
use crate::record::{EventKind, Exception, Record};
use nix::errno::Errno;

/// What programs say where they look for a host by its name, or for a way to it, without a network:
/// the C library, the kernel, and busybox.
const NO_NETWORK: [&str; 5] = [
    "Name or service not known",
    "Temporary failure in name resolution",
    "No address associated with hostname",
    "Network is unreachable",
    "bad address '",
];

/// The most bytes of a module's name that is repeated.
const NAME_MAX: usize = 100;

/// Returns what would have helped the program.
pub fn advice(record: &Record) -> Vec<Remedy> {
    let module = record.exception.as_ref().and_then(of_exception);
    let network = wants_network(record).then_some(Remedy::DoWithoutNetwork);
    module.into_iter().chain(network).collect()
}

/// Returns what would have helped a program that ended by this exception, if a module was missing.
pub fn of_exception(exception: &Exception) -> Option<Remedy> {
    missing_module(exception).map(|name| Remedy::BringModule {
        name: name.into(),
        distribution: distribution(name).map(str::to_owned),
    })
}

fn missing_module(exception: &Exception) -> Option<&str> {
    let is_missing = exception.kind == "ModuleNotFoundError";
    let (_, rest) = exception.message.split_once("No module named '")?;
    let (name, _) = rest.split_once('\'')?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    (is_missing && name.len() <= NAME_MAX && name.chars().all(is_name)).then_some(name)
}

fn wants_network(record: &Record) -> bool {
    let is_refused = |kind, errno| kind == EventKind::Connect && errno == Errno::ENETUNREACH as i32;
    let mut events = record.events.iter();
    let says_so = |text: &str| NO_NETWORK.iter().any(|words| text.contains(words));
    let exception = record.exception.as_ref();
    let has_failed = record.exit_code.is_some_and(|code| code != 0);
    events.any(|event| is_refused(event.kind, event.errno))
        || exception.is_some_and(|exception| says_so(&exception.traceback))
        || has_failed && record.stderr.as_deref().is_some_and(says_so)
}

#[cfg(test)]
mod tests {
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
}
