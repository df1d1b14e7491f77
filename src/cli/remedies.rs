//! Remedies for failures, in the words of the command line.

use crate::error::{Destination, Packages, Remedy};

const WORKDIR: &str =
    "give one below /work, /tmp or /dev/shm: --workdir DIR; all else in the guest is read-only";

const MAKE: &str = "see that the program makes what --get names, and may read it; a colon in a name is written \\:";

const SIBLINGS: &str =
    "leave some of it out with --exclude, or put in what the script needs with --put";

/// Returns the remedy as a sentence that names options.
pub fn words(remedy: &Remedy) -> String {
    let text = match remedy {
        Remedy::Do(words) => words,
        Remedy::BringModule { name, distribution } => {
            return bring(name, distribution.as_deref());
        }
        Remedy::GetPackages(way) => get_packages(*way),
        Remedy::ImportInProgram => {
            "have the program import them, which then says why it fails: --no-preload"
        }
        Remedy::DoWithoutNetwork => {
            "there is no network here, and no option for one: bring what the program needs with --put"
        }
        Remedy::GiveProgram => {
            "name a script, or give code after -c, or - to read it from standard input"
        }
        Remedy::CheckProgramPath => {
            "check the path; code itself goes after -c, or to standard input: sandbox run -; a command of the guest's goes after --"
        }
        Remedy::NameLanguage(known) => {
            return format!(
                "there are {}, of which --lang names one",
                known.join(" and ")
            );
        }
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
        Remedy::ChooseFreeGuestPath => {
            "give each a path of its own below /work, /tmp or /dev/shm, which nothing has yet: --put HOST:GUEST"
        }
        Remedy::ChooseWorkdir => WORKDIR,
        Remedy::MakeFiles => MAKE,
        Remedy::ChooseSiblings => SIBLINGS,
        Remedy::ChooseDestination(destination) => choose(*destination),
        Remedy::ShowConsole => "run it again with --console to see the guest kernel's log",
        Remedy::EmulateOrShowConsole => {
            "run it again with --kvm-mode emulated, which is slower, or with --console to see the guest kernel's log"
        }
        Remedy::LeaveModeOut(why) => return format!("leave out --kvm-mode: {why}"),
        Remedy::ConfineLess => {
            "run on a newer kernel, or without --confine=require: --verbose tells what holds then"
        }
        Remedy::VerifyLog(path) => {
            return format!(
                "see sandbox audit verify {path}, then move it away: a new one begins without it"
            );
        }
        Remedy::LeaveLogToPolicy => "leave out --audit, or name that file",
        Remedy::MakeToken => "make a token and its line with sandbox mcp token NAME",
        Remedy::GiveTokens => {
            "give --tokens FILE (sandbox mcp token NAME makes one), or listen on 127.0.0.1"
        }
        Remedy::Report => {
            "run it again; if it fails again, report it with what sandbox doctor prints"
        }
    };
    text.into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::tool::remedies;

    /// Returns the place of a remedy in the table. A new remedy does not compile until it has one.
    fn place(remedy: &Remedy) -> usize {
        match remedy {
            Remedy::Do(_) => 0,
            Remedy::GiveProgram => 1,
            Remedy::CheckProgramPath => 2,
            Remedy::NameLanguage(_) => 3,
            Remedy::PutDataIntoFile => 4,
            Remedy::RaiseMemory(_) => 5,
            Remedy::RaiseMemoryForFiles => 6,
            Remedy::RaiseTimeout(_) => 7,
            Remedy::CheckHostPath => 8,
            Remedy::ChooseGuestPath => 9,
            Remedy::ChooseFreeGuestPath => 10,
            Remedy::ChooseSiblings => 11,
            Remedy::ChooseDestination(_) => 12,
            Remedy::ShowConsole => 13,
            Remedy::EmulateOrShowConsole => 14,
            Remedy::LeaveModeOut(_) => 15,
            Remedy::ConfineLess => 16,
            Remedy::VerifyLog(_) => 17,
            Remedy::LeaveLogToPolicy => 18,
            Remedy::MakeToken => 19,
            Remedy::GiveTokens => 20,
            Remedy::Report => 21,
            Remedy::ChooseWorkdir => 22,
            Remedy::MakeFiles => 23,
            Remedy::BringModule { .. } => 24,
            Remedy::DoWithoutNetwork => 25,
            Remedy::GetPackages(_) => 26,
            Remedy::ImportInProgram => 27,
        }
    }

    fn numpy() -> Remedy {
        Remedy::BringModule {
            name: "numpy".into(),
            distribution: Some("numpy".into()),
        }
    }

    #[test]
    fn each_remedy_names_what_whoever_asked_can_change() {
        let languages = || vec!["python".to_owned(), "bash".to_owned()];
        let online = Remedy::GetPackages(Packages::GoOnline);
        let table = [
            (Remedy::from("do this"), "do this", "do this"),
            (Remedy::GiveProgram, "after -c", "as code"),
            (Remedy::CheckProgramPath, "sandbox run -", "as code"),
            (
                Remedy::NameLanguage(languages()),
                "python and bash, of which --lang",
                "as language",
            ),
            (Remedy::PutDataIntoFile, "--put", "files"),
            (
                Remedy::RaiseMemory(Some(512)),
                "--memory 512M",
                "memory_mib",
            ),
            (Remedy::RaiseMemoryForFiles, "--memory", "memory_mib"),
            (Remedy::RaiseTimeout(120), "--timeout 120", "timeout_s"),
            (Remedy::CheckHostPath, "HOST in --put", "files"),
            (Remedy::ChooseGuestPath, "--put HOST:GUEST", "files"),
            (Remedy::ChooseFreeGuestPath, "--put HOST:GUEST", "files"),
            (Remedy::ChooseSiblings, "--exclude", "files"),
            (
                Remedy::ChooseDestination(Destination::Taken),
                "--force",
                "other names",
            ),
            (Remedy::ShowConsole, "--console", "call again"),
            (
                Remedy::EmulateOrShowConsole,
                "--kvm-mode emulated",
                "call again",
            ),
            (
                Remedy::LeaveModeOut("it works".into()),
                "--kvm-mode: it works",
                "whoever runs",
            ),
            (Remedy::ConfineLess, "--confine=require", "whoever runs"),
            (
                Remedy::VerifyLog("/log".into()),
                "sandbox audit verify /log",
                "whoever runs",
            ),
            (Remedy::LeaveLogToPolicy, "--audit", "whoever runs"),
            (Remedy::MakeToken, "sandbox mcp token", "whoever runs"),
            (Remedy::GiveTokens, "--tokens", "whoever runs"),
            (Remedy::Report, "sandbox doctor", "call again"),
            (Remedy::ChooseWorkdir, "--workdir", "/work"),
            (Remedy::MakeFiles, "--get", "makes"),
            (
                numpy(),
                "--with numpy",
                "numpy, or give its source in files",
            ),
            (Remedy::DoWithoutNetwork, "--put", "in files"),
            (online, "--offline", "do without"),
            (Remedy::ImportInProgram, "--no-preload", "do without"),
        ];
        for (number, (remedy, here, there)) in table.into_iter().enumerate() {
            assert_eq!(place(&remedy), number);
            let (ours, its) = (words(&remedy), remedies::words(&remedy));
            assert!(ours.contains(here), "{remedy:?}: {ours}");
            assert!(its.contains(there), "{remedy:?}: {its}");
            assert!(!its.contains("--") && !its.contains("sandbox "), "{its}");
        }
    }

    #[test]
    fn each_way_to_packages_is_worded_for_whoever_asked() {
        for (way, here, there) in [
            (Packages::SetUp, "sandbox packages setup", "whoever runs"),
            (Packages::RenewLock, "sandbox packages lock", "whoever runs"),
            (Packages::GoOnline, "--offline", "do without"),
        ] {
            let remedy = Remedy::GetPackages(way);
            assert!(words(&remedy).contains(here), "{way:?}");
            assert!(remedies::words(&remedy).contains(there), "{way:?}");
        }
    }

    #[test]
    fn each_fault_of_a_destination_has_its_way_out() {
        for (fault, here, there) in [
            (Destination::Shared, "another name", "other names"),
            (Destination::Taken, "--force", "other names"),
            (Destination::Directory, "move it away", "other names"),
            (Destination::Special, "another name", "other names"),
            (Destination::Nameless, "--get GUEST:HOST", "other names"),
            (Destination::Unwritable, "another place", "other names"),
            (Destination::Full, "free space", "disk is full"),
            (Destination::Slow, "faster", "fewer"),
        ] {
            let remedy = Remedy::ChooseDestination(fault);
            assert!(words(&remedy).contains(here), "{fault:?}");
            assert!(remedies::words(&remedy).contains(there), "{fault:?}");
        }
    }
}
