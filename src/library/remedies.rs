//! Remedies for failures, in the words of the library: it has methods for settings, and no options.

use crate::error::Remedy;

const MODULE: &str = "or put its source there with file()";

const NO_PACKAGES: &str = "the library brings no packages: put their source there with file()";

const NETWORK: &str =
    "there is no network in the machine: put what the program needs there with file()";

const FREE_PATH: &str =
    "give each file() a path of its own below /work, /tmp or /dev/shm, which nothing has yet";

const SIBLINGS: &str =
    "move some of what is beside the script away, or put what it needs there with file()";

const NO_FILES: &str =
    "have the program print what is wanted: the library brings no files out of the machine";

const CONSOLE: &str =
    "run it with the command sandbox run, which can show the guest kernel's console";

const EMULATE: &str = "run it with the command sandbox run, which has an emulated mode, and can show the guest kernel's console";

const NO_SESSIONS: &str = "use the command sandbox for sessions: the library has none";

const NO_SERVER: &str = "use the command sandbox: the library has no setting for it";

const REPORT: &str = "run it again; if it fails again, report it with what sandbox doctor prints";

/// Returns the remedy as a sentence that names methods of the library.
pub fn words(remedy: &Remedy) -> String {
    let text = match remedy {
        Remedy::Do(words) => words,
        Remedy::BringModule { name, .. } => {
            return format!(
                "there is no module {name} in the machine: write it without {name}, {MODULE}"
            );
        }
        Remedy::GetPackages(_) => NO_PACKAGES,
        Remedy::GetImage(_) => "do with the image that is built in: the library has no other",
        Remedy::UseSession(_) | Remedy::UseCheckpoint(_) => NO_SESSIONS,
        Remedy::ImportInProgram => "do without the package whose import fails",
        Remedy::DoWithoutNetwork => NETWORK,
        Remedy::GiveProgram => "give code to run(), or the path of a script to run_file()",
        Remedy::NameLanguage(known) => {
            return format!("give language() one of these: {}", known.join(", "));
        }
        Remedy::NameLanguageOrImport(known) => {
            return format!(
                "give language() the one that it runs in, if it is one of these: {}",
                known.join(", ")
            );
        }
        Remedy::RunAsCommand => {
            "put it there with file(), and run code that makes it executable and runs it"
        }
        Remedy::PutBesideProgram => "put it there with file(), and run code that reads it",
        Remedy::LeaveLanguageOut => "name a script, or leave out language()",
        Remedy::PutDataIntoFile => "put its data there with file()",
        Remedy::RaiseMemory(None) => "give memory() more, or the program less to do",
        Remedy::RaiseMemory(Some(mib)) => {
            return format!(
                "give memory() more, for example {mib} << 20, or the program less to do"
            );
        }
        Remedy::RaiseMemoryForFiles => "give memory() more, half of which is for files",
        Remedy::RaiseTimeout(seconds) => {
            return format!("give timeout() more, for example Duration::from_secs({seconds})");
        }
        Remedy::CheckProgramPath | Remedy::CheckHostPath => {
            "check the path that run_file() was given"
        }
        Remedy::ChooseGuestPath => "give file() another path",
        Remedy::ChooseFreeGuestPath => FREE_PATH,
        Remedy::ChooseWorkdir => "have files made below /work, /tmp and /dev/shm alone",
        Remedy::MakeFiles => "see that the program makes them, and may read them",
        Remedy::ChooseSiblings => SIBLINGS,
        Remedy::ChooseDestination(_) => NO_FILES,
        Remedy::ShowConsole => CONSOLE,
        Remedy::EmulateOrShowConsole => EMULATE,
        Remedy::LeaveModeOut(why) => return format!("leave the mode to the sandbox: {why}"),
        Remedy::ConfineLess => "run on a newer kernel",
        Remedy::VerifyLog(_)
        | Remedy::GiveAnchor(_)
        | Remedy::LeaveLogToPolicy
        | Remedy::MakeToken
        | Remedy::GiveTokens => NO_SERVER,
        Remedy::Report => REPORT,
    };
    text.into()
}
