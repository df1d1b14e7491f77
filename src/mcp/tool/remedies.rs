//! Remedies for failures, in the words of the tool's arguments.

use crate::error::{Destination, Error, Image, Packages, Remedy, Session};
use crate::record::Failure;

const OPERATOR: &str = "whoever runs this server must change how it is run";

/// Puts a failure into the words of the tool.
pub fn in_words(error: Error) -> Failure {
    Failure {
        remedy: words(&error.remedy),
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
        Remedy::UseSession(way) => return use_session(way),
        Remedy::ImportInProgram => {
            "do without the package that fails, or take another version of it"
        }
        Remedy::DoWithoutNetwork => {
            "there is no network here: give what the program needs in files"
        }
        Remedy::GiveProgram | Remedy::CheckProgramPath => "give the program as code",
        Remedy::NameLanguage(known) => {
            return format!(
                "there are {}; name one of them as language",
                known.join(" and ")
            );
        }
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
        | Remedy::GetImage(Image::ImportAgain | Image::MakeAgain)
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

fn get_packages(way: Packages) -> &'static str {
    match way {
        Packages::SetUp => "whoever runs this server must set up packages on its host",
        Packages::RenewLock => "ask for other versions, or let whoever runs this server look at it",
        Packages::GoOnline => "ask for packages that this server has, or do without",
        Packages::ListRequirements | Packages::LockTogether => {
            "name distributions in packages, such as numpy or pandas>=2"
        }
    }
}

fn use_session(way: &Session) -> String {
    match way {
        Session::Start(name) | Session::StartAnother(name) => format!(
            "call again with the session {name}: a new one starts, without variables and files of the earlier one"
        ),
        Session::ChooseName(_) => "name another session".into(),
        Session::StartWithRoot => "do without root".into(),
        Session::Interrupt => "call again when that has ended".into(),
        Session::LeaveParentOut => OPERATOR.into(),
    }
}
