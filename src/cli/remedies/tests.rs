//! One table of all remedies, with what each says to a user of the command line, to a client of the
//! MCP server, and to another program.

use super::*;
use crate::error::variants::{variant, variants};
use crate::library::remedies as library;
use crate::mcp::tool::remedies as tool;
use Remedy::*;

/// A remedy, and parts of its words for each of them, between bars.
type Row = (Remedy, &'static str);

fn programs() -> Vec<Row> {
    let languages = vec!["python".to_owned(), "bash".to_owned()];
    vec![
        (Do("do this".into()), "do this|do this|do this"),
        (GiveProgram, "after -c|as code|run_file()"),
        (CheckProgramPath, "sandbox run -|as code|run_file()"),
        (
            NameLanguage(languages.clone()),
            "with --lang: python, bash|as language: python, bash|language()",
        ),
        (
            NameLanguageOrImport(languages),
            "python or bash, say so with --lang|as language|language()",
        ),
        (RunAsCommand, "-- ./NAME|in files|file()"),
        (PutBesideProgram, "--put|in files|file()"),
        (LeaveLanguageOut, "--lang|language|language()"),
        (PutDataIntoFile, "--put|files|file()"),
        (RaiseMemory(None), "--memory|memory_mib|memory()"),
        (RaiseMemory(Some(512)), "--memory 512M|memory_mib|512 << 20"),
        (RaiseMemoryForFiles, "--memory|memory_mib|memory()"),
        (RaiseTimeout(120), "--timeout 120|timeout_s|from_secs(120)"),
        (DoWithoutNetwork, "--put|in files|file()"),
    ]
}

fn files() -> Vec<Row> {
    let choose = ChooseDestination;
    vec![
        (CheckHostPath, "HOST in --put|files|run_file()"),
        (ChooseGuestPath, "--put HOST:GUEST|files|file()"),
        (ChooseFreeGuestPath, "--put HOST:GUEST|files|file()"),
        (ChooseWorkdir, "--workdir|/work|/work"),
        (MakeFiles, "--get|makes|makes"),
        (ChooseSiblings, "--exclude|files|file()"),
        (
            choose(Destination::Shared),
            "another name|other names|print",
        ),
        (choose(Destination::Taken), "--force|other names|print"),
        (
            choose(Destination::Directory),
            "move it away|other names|print",
        ),
        (
            choose(Destination::Special),
            "another name|other names|print",
        ),
        (
            choose(Destination::Nameless),
            "--get GUEST:HOST|other names|print",
        ),
        (
            choose(Destination::Unwritable),
            "another place|other names|print",
        ),
        (choose(Destination::Full), "free space|disk is full|print"),
        (choose(Destination::Slow), "faster|fewer|print"),
    ]
}

fn packages() -> Vec<Row> {
    let module = |distribution: Option<&str>| BringModule {
        name: "yaml".into(),
        distribution: distribution.map(str::to_owned),
    };
    vec![
        (
            module(Some("pyyaml")),
            "--with pyyaml|yaml, or give its source in files|file()",
        ),
        (
            module(None),
            "--with|yaml, or give its source in files|file()",
        ),
        (ImportInProgram, "--no-preload|do without|do without"),
        (
            GetPackages(Packages::SetUp),
            "packages setup|whoever runs|file()",
        ),
        (
            GetPackages(Packages::RenewLock),
            "packages lock|whoever runs|file()",
        ),
        (
            GetPackages(Packages::GoOnline),
            "--offline|do without|file()",
        ),
        (
            GetPackages(Packages::ListRequirements),
            "--requirements|distributions|file()",
        ),
        (
            GetPackages(Packages::LockTogether),
            "packages lock|distributions|file()",
        ),
        (
            GetPackages(Packages::FreeSpace),
            "free space|whoever runs|file()",
        ),
        (
            GetPackages(Packages::LogIn),
            "UV_INDEX_NAME_PASSWORD|whoever runs|file()",
        ),
        (
            GetPackages(Packages::TrustIndex),
            "SSL_CERT_FILE|whoever runs|file()",
        ),
        (
            GetPackages(Packages::ReachIndex),
            "HTTPS_PROXY|whoever runs|file()",
        ),
    ]
}

fn images() -> Vec<Row> {
    vec![
        (GetImage(Image::Import), "image import|do without|built in"),
        (
            GetImage(Image::ImportAgain),
            "image import|whoever runs|built in",
        ),
        (
            GetImage(Image::MakeAgain),
            "image import|whoever runs|built in",
        ),
        (GetImage(Image::Rename), "--name NAME|whoever runs|built in"),
        (
            GetImage(Image::UseBuiltIn),
            "leave out --image|leave language out|built in",
        ),
    ]
}

fn sessions() -> Vec<Row> {
    let name = || "a".to_owned();
    vec![
        (
            UseSession(Session::Start(name())),
            "session start a|session a: a new one|command",
        ),
        (
            UseSession(Session::StartAnother(name())),
            "session start a|session a: a new one|command",
        ),
        (
            UseSession(Session::ChooseName(name())),
            "session stop a|another session|command",
        ),
        (UseSession(Session::StartWithRoot), "--root|root|command"),
        (
            UseSession(Session::StartWithMemory(None)),
            "session start --memory SIZE|another session, with a greater memory_mib|command",
        ),
        (
            UseSession(Session::StartWithMemory(Some(512))),
            "session start --memory 512M|another session, with a greater memory_mib|command",
        ),
        (
            UseSession(Session::NameLanguage(vec!["python".into(), "bash".into()])),
            "with --language: python, bash|as language: python, bash|command",
        ),
        (
            UseSession(Session::ChooseImage),
            "first language keeps variables|whoever runs|command",
        ),
        (
            UseSession(Session::Interrupt),
            "session interrupt|call again|command",
        ),
        (
            UseSession(Session::LeaveParentOut),
            "--with-parent|whoever runs|command",
        ),
        (
            UseCheckpoint(Checkpoint::Save),
            "session checkpoint|whoever runs|command",
        ),
        (
            UseCheckpoint(Checkpoint::SaveAnother),
            "session checkpoint|whoever runs|command",
        ),
        (
            UseCheckpoint(Checkpoint::Replace),
            "--force|whoever runs|command",
        ),
        (
            UseCheckpoint(Checkpoint::SaveVariables),
            "--with-env|whoever runs|command",
        ),
    ]
}

fn hosts() -> Vec<Row> {
    vec![
        (ShowConsole, "--console|call again|console"),
        (
            EmulateOrShowConsole,
            "--kvm-mode emulated|call again|emulated",
        ),
        (
            LeaveModeOut("it works".into()),
            "--kvm-mode: it works|whoever runs|it works",
        ),
        (ConfineLess, "--confine=require|whoever runs|newer kernel"),
        (
            VerifyLog("/log".into()),
            "audit verify /log|whoever runs|command",
        ),
        (GiveAnchor(4), "--anchor 4:HASH|whoever runs|command"),
        (LeaveLogToPolicy, "--audit|whoever runs|command"),
        (MakeToken, "sandbox mcp token|whoever runs|command"),
        (GiveTokens, "--tokens|whoever runs|command"),
        (Report, "sandbox doctor|call again|sandbox doctor"),
    ]
}

fn table() -> Vec<Row> {
    [
        programs(),
        files(),
        packages(),
        images(),
        sessions(),
        hosts(),
    ]
    .concat()
}

/// Returns the names of a remedy, by its enums.
fn names(remedy: &Remedy) -> [String; 2] {
    let inner = match remedy {
        ChooseDestination(way) => variant(way),
        GetPackages(way) => variant(way),
        GetImage(way) => variant(way),
        UseSession(way) => variant(way),
        UseCheckpoint(way) => variant(way),
        _ => String::new(),
    };
    [variant(remedy), inner]
}

/// Returns the names of all remedies.
fn all_names() -> Vec<[String; 2]> {
    let inner = |outer: &str| match outer {
        "ChooseDestination" => variants::<Destination>(),
        "GetPackages" => variants::<Packages>(),
        "GetImage" => variants::<Image>(),
        "UseSession" => variants::<Session>(),
        "UseCheckpoint" => variants::<Checkpoint>(),
        _ => vec![String::new()],
    };
    let names = variants::<Remedy>().into_iter();
    let names =
        names.flat_map(|outer| inner(&outer).into_iter().map(move |it| [outer.clone(), it]));
    names.collect()
}

#[test]
fn each_remedy_is_in_the_table() {
    let rows: Vec<_> = table().iter().map(|(remedy, _)| names(remedy)).collect();
    for name in all_names() {
        assert!(rows.contains(&name), "{name:?} has no row");
    }
}

#[test]
fn who_moves_files_of_a_session_is_told_of_no_option_for_them() {
    for (remedy, _) in files() {
        let told = of_moved_files(&remedy);
        let is_of_a_run = remedy == ChooseSiblings;
        assert_eq!(
            told.contains("--put") || told.contains("--get"),
            is_of_a_run,
            "{told}"
        );
    }
    assert!(of_moved_files(&CheckHostPath).contains("HOST in HOST:GUEST"));
    assert_eq!(of_moved_files(&Do("see --put".into())), "see --put");
}

#[test]
fn each_remedy_names_what_whoever_asked_can_change() {
    for (remedy, parts) in table() {
        let parts: Vec<_> = parts.split('|').collect();
        let told = [
            words(&remedy),
            tool::words(&remedy),
            library::words(&remedy),
        ];
        assert_eq!(parts.len(), told.len(), "{remedy:?}");
        for (told, part) in told.iter().zip(parts) {
            assert!(told.contains(part), "{remedy:?}: {told}");
        }
        let its = &told[1];
        assert!(!its.contains("--") && !its.contains("sandbox "), "{its}");
        // Only where this program is at fault does anything in there help.
        assert_eq!(told[2].contains("doctor"), remedy == Report, "{}", told[2]);
    }
}
