//! Remedies for failures, in the words of the command line.

use crate::error::{Checkpoint, Destination, Image, Packages, Remedy, Session};

#[cfg(test)]
mod tests;

const PROGRAM: &str = "name a script, or give code after -c, or - to read it from standard input";

const PATH: &str = "check the path; code itself goes after -c, or to standard input: sandbox run -; a command of the guest's goes after --";

const AS_COMMAND: &str =
    "put it in and run it as a command of the guest's: sandbox run --put FILE -- ./NAME";

const BESIDE: &str = "put it in with --put FILE, and name a script that reads it";

const IMPORT: &str = "have the program import them, which then says why it fails: --no-preload";

const NETWORK: &str =
    "there is no network here, and no option for one: bring what the program needs with --put";

const FREE_PATH: &str = "give each a path of its own below /work, /tmp or /dev/shm, which nothing has yet: --put HOST:GUEST";

const WORKDIR: &str =
    "give one below /work, /tmp or /dev/shm: --workdir DIR; all else in the guest is read-only";

const MAKE: &str = "see that the program makes what --get names, and may read it; a colon in a name is written \\:";

const SIBLINGS: &str =
    "leave some of it out with --exclude, or put in what the script needs with --put";

const EMULATE: &str = "run it again with --kvm-mode emulated, which is slower, or with --console to see the guest kernel's log";

const CONFINE: &str =
    "run on a newer kernel, or without --confine=require: --verbose tells what holds then";

const TOKENS: &str =
    "give --tokens FILE (sandbox mcp token NAME makes one), or listen on 127.0.0.1";

const IMAGE: &str =
    "use an image whose first language keeps variables between cells, or leave out --image";

const REPORT: &str = "run it again; if it fails again, report it with what sandbox doctor prints";

/// Returns the remedy as a sentence that names options.
pub fn words(remedy: &Remedy) -> String {
    let text = match remedy {
        Remedy::Do(words) => words,
        Remedy::BringModule { name, distribution } => {
            return bring(name, distribution.as_deref());
        }
        Remedy::GetPackages(way) => get_packages(*way),
        Remedy::GetImage(way) => get_image(*way),
        Remedy::UseSession(way) => return use_session(way),
        Remedy::UseCheckpoint(way) => use_checkpoint(*way),
        Remedy::ImportInProgram => IMPORT,
        Remedy::DoWithoutNetwork => NETWORK,
        Remedy::GiveProgram => PROGRAM,
        Remedy::CheckProgramPath => PATH,
        Remedy::NameLanguage(known) => {
            return format!("choose one with --lang: {}", known.join(", "));
        }
        Remedy::NameLanguageOrImport(known) => return name_language_or_import(known),
        Remedy::RunAsCommand => AS_COMMAND,
        Remedy::PutBesideProgram => BESIDE,
        Remedy::LeaveLanguageOut => "name a script, or leave out --lang",
        Remedy::PutDataIntoFile => "put its data into a file: --put FILE",
        Remedy::RaiseMemory(None) => "give it more with --memory",
        Remedy::RaiseMemory(Some(mib)) => {
            return format!("give it more with --memory, for example --memory {mib}M");
        }
        Remedy::RaiseMemoryForFiles => {
            "give it more memory with --memory, half of which is for files"
        }
        Remedy::RaiseTimeout(seconds) => {
            return format!("give it longer with --timeout, for example --timeout {seconds}");
        }
        Remedy::CheckHostPath => "check the path; it is HOST in --put HOST:GUEST",
        Remedy::ChooseGuestPath => "give another path: --put HOST:GUEST",
        Remedy::ChooseFreeGuestPath => FREE_PATH,
        Remedy::ChooseWorkdir => WORKDIR,
        Remedy::MakeFiles => MAKE,
        Remedy::ChooseSiblings => SIBLINGS,
        Remedy::ChooseDestination(destination) => choose(*destination),
        Remedy::ShowConsole => "run it again with --console to see the guest kernel's log",
        Remedy::EmulateOrShowConsole => EMULATE,
        Remedy::LeaveModeOut(why) => return format!("leave out --kvm-mode: {why}"),
        Remedy::ConfineLess => CONFINE,
        Remedy::VerifyLog(path) => {
            return format!(
                "see sandbox audit verify {path}, then move it away: a new one begins without it"
            );
        }
        Remedy::GiveAnchor(sequence) => {
            return format!(
                "if you moved the others away, give what you kept of the last of them: --anchor {sequence}:HASH"
            );
        }
        Remedy::LeaveLogToPolicy => "leave out --audit, or name that file",
        Remedy::MakeToken => "make a token and its line with sandbox mcp token NAME",
        Remedy::GiveTokens => TOKENS,
        Remedy::Report => REPORT,
    };
    text.into()
}

/// Returns the remedy as a sentence for whoever moves files of a session, and names them without options.
pub fn of_moved_files(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Do(words) => words.clone(),
        Remedy::MakeFiles => {
            "see that the session has what is named, and may read it; a colon in a name is written \\:".into()
        }
        remedy => words(remedy)
            .replace("--put HOST:GUEST", "HOST:GUEST")
            .replace("--get GUEST:HOST", "GUEST:HOST"),
    }
}

fn name_language_or_import(known: &[String]) -> String {
    format!(
        "if it runs as {}, say so with --lang; if not, {}",
        known.join(" or "),
        get_image(Image::Import)
    )
}

fn bring(module: &str, distribution: Option<&str>) -> String {
    match distribution {
        Some(distribution) => format!(
            "there is no module {module} here; the package {distribution} brings it: --with {distribution}, \
             or dependencies = [\"{distribution}\"] in the script's header"
        ),
        None => format!(
            "there is no module {module} here, only Python's standard library and what is put there: \
             write it without {module}, bring it with --put, or the package that has it with --with"
        ),
    }
}

fn get_packages(way: Packages) -> &'static str {
    match way {
        Packages::SetUp => {
            "bring it with sandbox packages setup, or install uv so that it is on PATH"
        }
        Packages::RenewLock => "if that is right, renew the lock: sandbox packages lock SCRIPT",
        Packages::GoOnline => "run it once without --offline: what was downloaded is kept",
        Packages::ListRequirements => {
            "give one requirement on each line, without options; --requirements can be given several times"
        }
        Packages::LockTogether => {
            "write what is asked for into one file, and lock that: sandbox packages lock"
        }
        Packages::FreeSpace => {
            "free space where the cache is, then run it again: nothing half-made is used"
        }
        Packages::LogIn => {
            "give its name and password: UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD for an index of UV_INDEX=NAME=URL"
        }
        Packages::TrustIndex => {
            "if you know whose certificate that is: SSL_CERT_FILE=FILE names the authorities to trust"
        }
        Packages::ReachIndex => {
            "see that this host reaches it: UV_DEFAULT_INDEX names another one, HTTPS_PROXY a proxy; what was chosen before runs without"
        }
    }
}

fn get_image(way: Image) -> &'static str {
    match way {
        Image::Import => {
            "import an image that has it: sandbox image import FILE (docs/image.md says where such files come from)"
        }
        Image::ImportAgain => "import the image again: sandbox image import FILE",
        Image::MakeAgain => {
            "make it again with scripts/build-image, and import that: sandbox image import FILE"
        }
        Image::Rename => "give it a name: sandbox image import --name NAME FILE",
        Image::UseBuiltIn => "leave out --image: the image that is built in runs it",
    }
}

fn use_session(way: &Session) -> String {
    match way {
        Session::Start(name) => {
            format!("see sandbox session list, or start it: sandbox session start {name}")
        }
        Session::StartAnother(name) => format!("start another: sandbox session start {name}"),
        Session::ChooseName(taken) => {
            format!("give another name, or end that one first: sandbox session stop {taken}")
        }
        Session::StartWithRoot => "start one with --root, or leave the user out".into(),
        Session::StartWithMemory(mib) => {
            let example = mib.map_or("SIZE".into(), |mib| format!("{mib}M"));
            format!("start a session with more memory: sandbox session start --memory {example}")
        }
        Session::NameLanguage(known) => {
            format!("choose one with --language: {}", known.join(", "))
        }
        Session::ChooseImage => IMAGE.into(),
        Session::Interrupt => {
            "try again when that has ended, or interrupt it: sandbox session interrupt NAME; contexts stay".into()
        }
        Session::LeaveParentOut => "leave out --with-parent".into(),
    }
}

fn use_checkpoint(way: Checkpoint) -> &'static str {
    match way {
        Checkpoint::Save => {
            "see sandbox cache list, or save one: sandbox session checkpoint SESSION NAME"
        }
        Checkpoint::SaveAnother => "save another: sandbox session checkpoint SESSION NAME",
        Checkpoint::Replace => "give another name, or replace it: --force",
        Checkpoint::SaveVariables => {
            "save them too: --with-env, or save a session that was given none"
        }
    }
}

fn choose(destination: Destination) -> &'static str {
    match destination {
        Destination::Shared => "give one of them another name: --get GUEST:HOST",
        Destination::Taken => "replace it with --force, or give another name: --get GUEST:HOST",
        Destination::Directory => "move it away, or give another name: --get GUEST:HOST",
        Destination::Special => "give another name: --get GUEST:HOST",
        Destination::Nameless => "give one: --get GUEST:HOST",
        Destination::Unwritable => "give another place: --get GUEST:HOST",
        Destination::Full => "free space there, or give another place: --get GUEST:HOST",
        Destination::Slow => "get fewer of them, or give a place that is faster: --get GUEST:HOST",
    }
}
