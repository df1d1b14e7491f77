//! What a program lacked, as far as its record shows. Whoever reports it puts that into words.

use crate::error::Remedy;
use crate::packages::distribution;
use crate::record::{EventKind, Exception, Record};
use nix::errno::Errno;

/// The words of programs that look for a host by its name, or for a way to it, without a network:
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
    let has_failed = record.exit_code.is_some_and(|code| code != 0);
    let stderr = record.stderr.as_deref().filter(|_| has_failed);
    let exception = record.exception.as_ref().and_then(of_exception);
    let module = exception.or_else(|| stderr.and_then(missing_in).map(of_module));
    let network = wants_network(record).then_some(Remedy::DoWithoutNetwork);
    module.into_iter().chain(network).collect()
}

/// Returns what would have helped a program that ended by this exception, if a module was missing.
pub fn of_exception(exception: &Exception) -> Option<Remedy> {
    missing_module(exception).map(of_module)
}

/// Returns what would help a program that lacks this module.
pub fn of_module(name: &str) -> Remedy {
    Remedy::BringModule {
        name: name.into(),
        distribution: distribution(name).map(str::to_owned),
    }
}

/// Returns the module of which `python3 -m`, whose output ended like this, says that there is none.
pub fn missing_in(output: &str) -> Option<&str> {
    let (interpreter, said) = output.lines().last()?.split_once(": ")?;
    let name = match said.split_once("(ModuleNotFoundError: No module named '") {
        Some((_, rest)) => rest.split_once("')")?.0,
        None => said.strip_prefix("No module named ")?,
    };
    (interpreter.contains("python") && is_name(name)).then_some(name)
}

fn missing_module(exception: &Exception) -> Option<&str> {
    let is_missing = exception.kind == "ModuleNotFoundError";
    let (_, rest) = exception.message.split_once("No module named '")?;
    let (name, _) = rest.split_once('\'')?;
    (is_missing && is_name(name)).then_some(name)
}

fn is_name(text: &str) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    text.len() <= NAME_MAX && text.chars().all(is_of_name)
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
mod tests;
