//! What uv says when it does not succeed, and what that means to whoever asked.

use crate::error::{Error, Kind, Packages as Way, Remedy};
use crate::text::escape_control;
use std::time::Duration;

/// The words of uv.
#[derive(Debug, Default)]
pub struct Said(String);

/// The words with which it says that a file of a wheel would be outside of its place.
const LEFT_OUT: &str = "Skipping unsafe file name";
/// The most characters of it that are repeated.
const REPEATED: usize = 800;

impl Said {
    pub fn new(text: &str) -> Self {
        Self(escape_control(text))
    }

    /// Returns whether it left out a file of a package.
    pub fn left_out(&self) -> bool {
        self.0.contains(LEFT_OUT)
    }

    /// Returns its warnings, such as of an extra that there is not.
    pub fn warnings(&self) -> Vec<&str> {
        let warnings = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix("warning: "));
        warnings.collect()
    }

    /// Returns what it says of its failure, in one line.
    fn failure(&self) -> String {
        let lines = self
            .0
            .lines()
            .skip_while(|line| !line.starts_with("error: "));
        let mut words: Vec<&str> = Vec::new();
        for line in lines.take_while(|line| !line.starts_with("hint: ")) {
            let line = line.trim();
            let line = line.strip_prefix("error: ").unwrap_or(line);
            words.push(line.strip_prefix("cause: ").unwrap_or(line));
        }
        words.retain(|line| !line.is_empty());
        let mut text = match words.is_empty() {
            true => self.0.trim().replace('\n', " "),
            false => words.join(": "),
        };
        if let Some((end, _)) = text.char_indices().nth(REPEATED) {
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

/// A kind of failure: any of these words of uv's, what we say of it, and the remedy. The first that fits
/// counts.
struct Failure {
    words: &'static [&'static str],
    what: &'static str,
    remedy: fn(&str) -> Remedy,
}

const FAILURES: [Failure; 10] = [
    Failure {
        words: &[LEFT_OUT],
        what: "a package has a file that would be outside of the package, so nothing of it is taken",
        remedy: |_| "do not use this package: nobody makes one like that by accident".into(),
    },
    Failure {
        words: &["Hash mismatch"],
        what: "a package is not the one that the lock names",
        remedy: |_| Remedy::GetPackages(Way::RenewLock),
    },
    Failure {
        words: &[
            "No space left on device",
            "os error 28",
            "Disk quota exceeded",
            "os error 122",
            "os error 27",
        ],
        what: "there is no space for the packages",
        remedy: |_| Remedy::GetPackages(Way::FreeSpace),
    },
    Failure {
        words: &["network was disabled", "Network connectivity is disabled"],
        what: "a package would have to be downloaded first",
        remedy: |_| Remedy::GetPackages(Way::GoOnline),
    },
    Failure {
        words: &[
            "not found in the package registry",
            "not found in the provided package locations",
        ],
        what: "there is no such package",
        remedy: |_| {
            "check its name where it is published, and whether your index has it: an import's name is often not the package's, and a guessed name may be somebody's trap".into()
        },
    },
    Failure {
        words: &["no usable wheels", "Wheels are required for"],
        what: "a package exists as source alone, and sources are not built, since that would run their code on this host",
        remedy: |python| {
            Remedy::Do(format!(
                "choose a version that has a wheel for Python {python}, or another package; or build the wheel where you trust its source, and give that file"
            ))
        },
    },
    Failure {
        words: &["no wheels with a matching", "but we only found wheels"],
        what: "a package has no wheel for this Python and platform",
        remedy: |python| {
            Remedy::Do(format!(
                "choose a version that has a wheel for Python {python} on x86-64 Linux"
            ))
        },
    },
    Failure {
        words: &["401 Unauthorized", "403 Forbidden", "407 Proxy"],
        what: "the index of packages does not let us in",
        remedy: |_| Remedy::GetPackages(Way::LogIn),
    },
    Failure {
        words: &["certificate", "UnknownIssuer"],
        what: "the index of packages is not trusted",
        remedy: |_| Remedy::GetPackages(Way::TrustIndex),
    },
    Failure {
        words: &[
            "error sending request",
            "Failed to fetch",
            "Failed to download",
            "timed out",
            "dns error",
        ],
        what: "the index of packages cannot be reached",
        remedy: |_| Remedy::GetPackages(Way::ReachIndex),
    },
];

/// Returns the failure that uv tells of.
pub fn error(said: &Said, python: &str) -> Error {
    let known = FAILURES
        .iter()
        .find(|it| it.words.iter().any(|words| said.0.contains(words)));
    let failure = match said.left_out() {
        true => said
            .0
            .lines()
            .find(|line| line.contains(LEFT_OUT))
            .unwrap_or_default()
            .trim()
            .to_owned(),
        false => said.failure(),
    };
    if let Some(known) = known {
        let remedy = (known.remedy)(python);
        return Error::new(Kind::Packages, format!("{}: {failure}", known.what), remedy);
    }
    if said.0.contains("No solution found") {
        return Error::new(
            Kind::Packages,
            format!("no versions fit together: {failure}"),
            "ask for other versions, or for fewer packages",
        );
    }
    Error::new(
        Kind::Packages,
        match failure.as_str() {
            "" => "the packages could not be fetched, and uv does not say why".into(),
            failure => format!("the packages could not be fetched: {failure}"),
        },
        "correct what is asked for, if that is why; if not, another version of uv may do better",
    )
}

/// Returns the failure of a uv that does not end.
pub fn slow(time: Duration) -> Error {
    Error::new(
        Kind::Packages,
        format!("the packages could not be fetched in {} s", time.as_secs()),
        "run it again: what was downloaded is kept",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_one_line_with_what_to_do() {
        let none = "error: No solution found when resolving dependencies\n  cause: Because x";
        for (said, message, remedy) in [
            (
                format!(
                    "Resolved\n{none} was not found in the package registry and you\n         require x"
                ),
                "there is no such package: No solution found when resolving dependencies: Because x was not",
                "check its name",
            ),
            (
                format!("{none} has no usable wheels\n\nhint: Wheels are required for `x`"),
                "source alone",
                "Python 3.13",
            ),
            (
                format!("{none} and y"),
                "no versions fit together: No solution",
                "other versions",
            ),
            (
                "WARN Skipping unsafe file name: ../a\nInstalled 1 package".into(),
                "Skipping unsafe file name: ../a",
                "do not use",
            ),
            (
                "error: unexpected argument '--x'".into(),
                "could not be fetched: unexpected",
                "version of uv",
            ),
            (String::new(), "does not say why", "version of uv"),
        ] {
            let error = error(&Said::new(&said), "3.13");
            assert!(error.message.contains(message), "{error}");
            assert!(!error.message.contains('\n'), "{error}");
            let Remedy::Do(words) = &error.remedy else {
                panic!("{error:?}")
            };
            assert!(words.contains(remedy), "{said}: {words}");
        }
        let long = error(&Said::new(&format!("error: {}", "é".repeat(5000))), "3.13");
        assert!(long.message.ends_with('…') && long.message.chars().count() < 900);
    }

    #[test]
    fn what_only_a_certain_way_mends_is_told_with_that_way() {
        for (said, message, way) in [
            (
                "error: Failed to fetch: https://x\n  cause: dns error",
                "cannot be reached: Failed to fetch: https://x: dns error",
                Way::ReachIndex,
            ),
            (
                "error: cause\n  cause: No space left on device (os error 28)",
                "no space",
                Way::FreeSpace,
            ),
            (
                "error: Failed to fetch: x\n  cause: HTTP status client error (401 Unauthorized)",
                "does not let us in",
                Way::LogIn,
            ),
            (
                "error: Failed to fetch: x\n  cause: invalid peer certificate: UnknownIssuer",
                "is not trusted",
                Way::TrustIndex,
            ),
            (
                "error: Failed to download `a`\n  cause: Hash mismatch for `a`\n\n  Expected:",
                "not the one that the lock names",
                Way::RenewLock,
            ),
        ] {
            let error = error(&Said::new(said), "3.13");
            assert!(error.message.contains(message), "{error}");
            assert_eq!(error.remedy, Remedy::GetPackages(way), "{said}");
        }
    }

    #[test]
    fn warnings_are_lines_of_their_own() {
        let said = Said::new("Resolved\nwarning: The package `a` has no extra `b`\nInstalled");
        assert_eq!(said.warnings(), ["The package `a` has no extra `b`"]);
    }
}
