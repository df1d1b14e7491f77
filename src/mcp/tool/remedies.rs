//! Remedies for failures, in the words of the tool's arguments.

use crate::error::{Destination, Error, Image, Kind, Packages, Remedy, Session};
use crate::policy;
use crate::record::Failure;

/// The remedy for packages that a session was started without.
pub const OTHER_SESSION: &str =
    "leave packages out, to go on with those that it has, or name another session";

const OPERATOR: &str = "whoever runs this server must change how it is run";

/// Puts a failure into the words of the tool.
pub fn in_words(error: Error) -> Failure {
    let remedy = match (error.kind, &error.remedy) {
        // A client can neither change the server's host nor its cache.
        (Kind::Host | Kind::Cache, Remedy::Do(words)) => {
            format!("whoever runs this server: {words}")
        }
        (_, remedy) => words(remedy),
    };
    Failure {
        remedy,
        message: error.message,
    }
}

/// Returns the remedy as a sentence that names arguments of the tool.
pub fn words(remedy: &Remedy) -> String {
    let text = match remedy {
        Remedy::Do(words) => words,
        Remedy::BringModule { name, .. } => {
            return format!(
                "there is no module {name} here, only Python's standard library and the modules among \
                 files: write it without {name}, or give its source in files"
            );
        }
        Remedy::GetPackages(way) => get_packages(*way),
        Remedy::GetImage(Image::Import) => "do without it: this server has only its own image",
        Remedy::GetImage(Image::UseBuiltIn) => "leave language out, or name another",
        Remedy::UseSession(way) => return use_session(way),
        Remedy::ImportInProgram => {
            "do without the package that fails, or take another version of it"
        }
        Remedy::DoWithoutNetwork => {
            "there is no network here: give what the program needs in files"
        }
        Remedy::GiveProgram | Remedy::CheckProgramPath => "give the program as code",
        Remedy::NameLanguage(known) | Remedy::NameLanguageOrImport(known) => {
            return name_language(known);
        }
        Remedy::RunAsCommand => "give it in files, and code that makes it executable and runs it",
        Remedy::PutBesideProgram => "give it in files, and code that reads it",
        Remedy::LeaveLanguageOut => "name another language",
        Remedy::PutDataIntoFile => "put its data into one of files",
        Remedy::RaiseMemory(_) => "use less, or give it a greater memory_mib",
        Remedy::RaiseMemoryForFiles => {
            "give it a greater memory_mib, half of which is for files, or fewer files"
        }
        Remedy::RaiseTimeout(_) => "make it faster, or give it a greater timeout_s",
        Remedy::CheckHostPath | Remedy::ChooseGuestPath => "give another path in files",
        Remedy::ChooseFreeGuestPath => {
            "give each of files a path of its own below /work, /tmp or /dev/shm, which nothing has yet"
        }
        Remedy::ChooseWorkdir => "files can be made below /work, /tmp and /dev/shm alone",
        Remedy::MakeFiles => "see that the program makes them, and may read them",
        Remedy::ChooseSiblings => "give what it needs in files",
        Remedy::ChooseDestination(destination) => match destination {
            Destination::Full => "fetch fewer or smaller files: the server's disk is full",
            Destination::Slow => "fetch fewer or smaller files",
            _ => "fetch files of other names",
        },
        Remedy::ShowConsole | Remedy::EmulateOrShowConsole => {
            "call again; if it crashes again, the program is why"
        }
        Remedy::LeaveModeOut(_)
        | Remedy::ConfineLess
        | Remedy::VerifyLog(_)
        | Remedy::GiveAnchor(_)
        | Remedy::GetImage(Image::ImportAgain | Image::MakeAgain | Image::Rename)
        | Remedy::UseCheckpoint(_)
        | Remedy::LeaveLogToPolicy
        | Remedy::MakeToken
        | Remedy::GiveTokens => OPERATOR,
        Remedy::Report => {
            "call again; if it fails again, whoever runs this server should report it"
        }
    };
    text.into()
}

/// Returns what to do about what a program lacked, where a policy allows these packages.
pub fn advised(remedy: &Remedy, allowed: Option<&policy::Packages>, in_session: bool) -> String {
    let Remedy::BringModule {
        name,
        distribution: Some(package),
    } = remedy
    else {
        return words(remedy);
    };
    match allowed.map(|allowed| allowed.check(&[Some(package.clone())])) {
        Some(Ok(())) => format!(
            "there is no module {name} here; the package {package} brings it: call again with it in packages{}",
            // It has what its first call brought.
            if in_session {
                ", for another session"
            } else {
                ""
            }
        ),
        _ => format!(
            "there is no module {name} here, and the policy of this server forbids the package that brings it, \
             {package}: write it without {name}, or give its source in files"
        ),
    }
}

fn get_packages(way: Packages) -> &'static str {
    match way {
        Packages::SetUp => "whoever runs this server must set up packages on its host",
        Packages::RenewLock => "ask for other versions, or let whoever runs this server look at it",
        Packages::GoOnline => "ask for packages that this server has, or do without",
        Packages::ListRequirements | Packages::LockTogether => {
            "name distributions in packages, such as numpy or pandas>=2"
        }
        Packages::FreeSpace => "whoever runs this server must free space where its cache is",
        Packages::LogIn => "whoever runs this server must let it into its index of packages",
        Packages::TrustIndex => "whoever runs this server must have it trust its index of packages",
        Packages::ReachIndex => {
            "ask for packages that this server has, or do without; whoever runs this server can give it an \
             index that it reaches"
        }
    }
}

fn name_language(known: &[String]) -> String {
    format!("choose one as language: {}", known.join(", "))
}

fn use_session(way: &Session) -> String {
    match way {
        Session::Start(name) | Session::StartAnother(name) => format!(
            "call again with the session {name}: a new one starts, without variables and files of the earlier one"
        ),
        Session::ChooseName(_) => "name another session".into(),
        Session::StartWithRoot => "do without root".into(),
        Session::NameLanguage(known) => name_language(known),
        Session::StartWithMemory(_) => {
            "use less, or call again in another session, with a greater memory_mib".into()
        }
        Session::Interrupt => "call again when that has ended".into(),
        Session::ChooseImage | Session::LeaveParentOut => OPERATOR.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_missing_is_advised_as_the_policy_allows() {
        let policy = |text: &str| toml::from_str::<policy::Packages>(text).unwrap();
        let missing = |name: &str, package: Option<&str>| Remedy::BringModule {
            name: name.into(),
            distribution: package.map(str::to_owned),
        };
        let yaml = missing("yaml", Some("pyyaml"));
        for (allow, words) in [
            (Some("allow = 'any'"), "call again with it in packages"),
            (Some("allow = 'locked'"), "call again with it in packages"),
            (Some("allow = ['pyyaml']"), "call again with it in packages"),
            (
                Some("allow = ['numpy']"),
                "the policy of this server forbids",
            ),
            (Some("allow = 'off'"), "the policy of this server forbids"),
            (None, "the policy of this server forbids"),
        ] {
            let allowed = allow.map(policy);
            let advice = advised(&yaml, allowed.as_ref(), false);
            assert!(advice.contains(words), "{allow:?}: {advice}");
            assert!(advice.contains("pyyaml"), "{advice}");
            let unknown = advised(&missing("strng", None), allowed.as_ref(), false);
            assert!(!unknown.contains("packages"), "{unknown}");
        }
    }
}
