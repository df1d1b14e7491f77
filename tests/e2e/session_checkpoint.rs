//! Machines of sessions that are saved under a name: what goes on from them, and what is refused.

use crate::audit::Log;
use crate::common::{Cache, exit_code, mode, text};
use crate::failures::assert_refused;
use crate::sessions::{Sessions, WAIT_TIMEOUT};
use sandbox::internals::vm::mode::Mode;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

/// Sessions with a cache of their own.
struct Saving {
    sessions: Sessions,
    cache: Cache,
}

impl Saving {
    /// Begins with a session `a` that has run this cell, saved as `kept`.
    fn of(code: &str) -> Self {
        let saving = Self {
            sessions: Sessions::new(),
            cache: Cache::copied(),
        };
        saving.gives(&["start", "a", "--quiet"]);
        saving.gives(&["run", "a", "-c", code]);
        saving.gives(&["checkpoint", "a", "kept"]);
        saving
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.cache.sandbox(arguments);
        command.env("XDG_RUNTIME_DIR", self.sessions.0.path());
        command
    }

    /// Asks for a verb of sessions.
    fn ask(&self, arguments: &[&str]) -> Output {
        let arguments = [&["session"], arguments].concat();
        self.command(&arguments).output().unwrap()
    }

    /// Returns what a verb of sessions prints, which must succeed.
    fn gives(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 0, "{arguments:?}: {stderr}");
        text(&output.stdout)
    }

    fn path(&self) -> PathBuf {
        self.cache
            .0
            .path()
            .join("sandbox/checkpoints/kept.checkpoint")
    }

    /// Checks that nothing goes on from the checkpoint, for this reason.
    fn is_refused(&self, why: &str) {
        let output = self.ask(&["start", "b", "--from", "kept"]);
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{stderr}");
        assert!(stderr.contains(why), "{why}: {stderr}");
    }

    /// Has the file changed by this, tells what becomes of it, and puts it back.
    fn changed(&self, change: impl FnOnce(&fs::File), why: &str) {
        let (path, before) = (self.path(), fs::read(self.path()).unwrap());
        let set_mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        set_mode(0o600);
        change(&fs::File::options().write(true).open(&path).unwrap());
        set_mode(0o400);
        self.is_refused(why);
        set_mode(0o600);
        fs::write(&path, before).unwrap();
        set_mode(0o400);
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        self.ask(&["stop", "--all"]);
    }
}

#[test]
fn sessions_and_runs_go_on_from_a_checkpoint_when_its_session_is_gone() {
    let saving =
        Saving::of("import random; x = [1]; open('f', 'w').write('file'); random.random()");
    saving.gives(&["run", "a", "-c", "x.append(9)"]);
    saving.gives(&["stop", "a"]);
    let code = "print(x, open('f').read()); x.append(2); random.random()";
    let mut drawn = Vec::new();
    for name in ["b", "c"] {
        assert_eq!(
            saving.gives(&["start", name, "--from", "kept"]),
            format!("{name}\n")
        );
        let told = saving.gives(&["run", name, "-c", code]);
        let (first, random) = told.trim().split_once('\n').unwrap();
        assert_eq!(first, "[1] file");
        drawn.push(random.to_owned());
    }
    assert_ne!(drawn[0], drawn[1]);
    let script = saving.sessions.0.path().join("x.py");
    fs::write(&script, "print(x)\nopen('f').read()\nraise SystemExit(7)").unwrap();
    let output = saving
        .command(&["run", "--from", "kept", script.to_str().unwrap()])
        .output();
    let output = output.unwrap();
    let told = (
        exit_code(output.status),
        text(&output.stdout),
        text(&output.stderr),
    );
    assert_eq!(told, (7, "[1]\n".into(), String::new()));
    // Nothing of the run is left.
    let listed = saving.gives(&["list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    // What went on can be saved and forked in turn.
    saving.gives(&["checkpoint", "b", "later"]);
    saving.gives(&["start", "d", "--from", "later", "--quiet"]);
    assert_eq!(saving.gives(&["run", "d", "-c", "x"]), "[1, 2]\n");
    assert_eq!(saving.gives(&["fork", "d"]), "d-1\n");
}

#[test]
fn a_checkpoint_is_private_and_listed_with_its_size_and_pruned_when_asked() {
    let saving = Saving::of("x = bytearray(b'secret in memory' * 100_000)");
    let metadata = saving.path().metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o400);
    let directory = saving.path().parent().unwrap().metadata().unwrap();
    assert_eq!(directory.mode() & 0o7777, 0o700);
    // Only what differs is in it.
    let size = metadata.blocks() * 512;
    assert!((1 << 20..32 << 20).contains(&size), "{size}");
    let output = saving.ask(&["checkpoint", "a", "kept"]);
    assert!(
        text(&output.stderr).contains("--force"),
        "{}",
        text(&output.stderr)
    );
    saving.gives(&["checkpoint", "a", "kept", "--force"]);
    saving.gives(&["stop", "a"]);
    let cache = |arguments: &[&str]| {
        let output = saving
            .command(&[&["cache"], arguments].concat())
            .output()
            .unwrap();
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let listed = cache(&["list", "--verify"]);
    let line = listed
        .lines()
        .find(|line| line.starts_with("kept "))
        .unwrap();
    assert!(
        line.contains("checkpoint of the session a, 256 MiB"),
        "{line}"
    );
    // Neither it nor what it is saved against goes unasked.
    cache(&["prune"]);
    saving.gives(&["start", "b", "--from", "kept", "--quiet"]);
    cache(&["prune", "--checkpoints"]);
    assert!(saving.path().exists(), "it is in use");
    saving.gives(&["stop", "b"]);
    // Its process may take a moment to be gone.
    let end = Instant::now() + WAIT_TIMEOUT;
    while saving.path().exists() && Instant::now() < end {
        cache(&["prune", "--checkpoints"]);
    }
    assert!(!saving.path().exists());
    saving.is_refused("there is no checkpoint kept");
}

#[test]
fn a_checkpoint_that_is_not_as_it_was_saved_is_refused_with_the_reason() {
    let saving = Saving::of("x = 1");
    let length = saving.path().metadata().unwrap().len();
    let write =
        |at, bytes: &'static [u8]| move |file: &fs::File| file.write_all_at(bytes, at).unwrap();
    saving.changed(write(0, b"x"), "it is not a checkpoint");
    saving.changed(write(8, b"\xff"), "its format is of another version");
    saving.changed(write(60, b"\xff"), "its beginning was changed");
    saving.changed(
        write(4096 + 100, b"some other point"),
        "its content is not what was saved",
    );
    saving.changed(
        |file| file.set_len(length - 1).unwrap(),
        "its length is wrong",
    );
    saving.changed(|file| file.set_len(100).unwrap(), "it is cut short");
    let set_mode = |mode| fs::set_permissions(saving.path(), Permissions::from_mode(mode)).unwrap();
    set_mode(0o600);
    saving.is_refused("it can be written to");
    set_mode(0o400);
    // A page of memory: the last that there is.
    let data = fs::read(saving.path()).unwrap();
    let last = data.iter().rposition(|&byte| byte != 0).unwrap() as u64;
    saving.changed(
        write(last, b"\x5a\x5a"),
        "its content is not what was saved",
    );
    let elsewhere = saving.sessions.0.path().join("elsewhere");
    fs::rename(saving.path(), &elsewhere).unwrap();
    symlink(&elsewhere, saving.path()).unwrap();
    saving.is_refused("it is a symbolic link");
    fs::remove_file(saving.path()).unwrap();
    fs::rename(&elsewhere, saving.path()).unwrap();
    saving.gives(&["start", "b", "--from", "kept"]);
}

/// Gives the head of a checkpoint another word, and the digest that fits.
fn with_head(data: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let length = u32::from_le_bytes(data[12..16].try_into().unwrap()) as usize;
    let mut head = serde_json::from_slice(&data[48..48 + length]).unwrap();
    change(&mut head);
    let head = serde_json::to_vec(&head).unwrap();
    let mut bytes = data[..12].to_vec();
    bytes.extend((head.len() as u32).to_le_bytes());
    bytes.extend(Sha256::digest(&head));
    bytes.extend(head);
    bytes.resize(4096, 0);
    bytes
}

#[test]
fn a_checkpoint_of_another_build_host_or_template_is_refused() {
    let saving = Saving::of("x = 1");
    let data = fs::read(saving.path()).unwrap();
    for (field, value, why) in [
        (
            "build",
            "0",
            "it was saved by another build of this program",
        ),
        ("host", "0", "it was saved on another host"),
    ] {
        let head = with_head(&data, |head| head[field] = value.into());
        saving.changed(|file| file.write_all_at(&head, 0).unwrap(), why);
    }
    // The machine that it is saved against is made anew, and so is another one.
    saving.gives(&["stop", "a"]);
    let templates = saving.cache.templates();
    fs::remove_dir_all(&templates).unwrap();
    saving.is_refused("the saved machine is gone, or was made anew");
    saving.command(&["template", "build"]).output().unwrap();
    saving.is_refused("the saved machine is gone, or was made anew");
}

#[test]
fn a_machine_that_was_saved_in_native_mode_does_not_go_on_emulated() {
    if mode() != Mode::Native {
        return;
    }
    let saving = Saving::of("x = 1");
    let mut command = saving.command(&["session", "start", "b", "--from", "kept"]);
    let output = command
        .env("SANDBOX_KVM_MODE", "emulated")
        .output()
        .unwrap();
    let told = "the machine was saved in native mode, and it would go on in emulated mode";
    assert_refused(&output, 125, told, "leave out --kvm-mode");
    assert_eq!(saving.gives(&["start", "b", "--from", "kept"]), "b\n");
}

#[test]
fn variables_are_saved_only_where_that_is_asked_for_and_told_nowhere() {
    let saving = Saving::of("x = 1");
    saving.gives(&["start", "v", "-e", "TOKEN=sesame", "--quiet"]);
    let output = saving.ask(&["checkpoint", "v", "secret"]);
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    assert!(
        stderr.contains("--with-env") && !stderr.contains("sesame"),
        "{stderr}"
    );
    let directory = saving.path().parent().unwrap().to_owned();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    saving.gives(&["checkpoint", "v", "secret", "--with-env"]);
    saving.gives(&["start", "w", "--from", "secret", "--quiet"]);
    let code = "import os; print(len(os.environ['TOKEN']))";
    let record = saving.gives(&["run", "w", "--json", "-c", code]);
    assert!(record.contains(r#""stdout":"6\n""#), "{record}");
    let listed = saving.gives(&["list", "--json"]);
    let cached = text(&saving.command(&["cache", "list"]).output().unwrap().stdout);
    for told in [record, listed, cached] {
        assert!(!told.contains("sesame"), "{told}");
    }
}

#[test]
fn what_the_machine_of_a_checkpoint_has_already_cannot_be_asked_for() {
    let saving = Saving::of("x = 1");
    for options in [
        ["--memory", "1G"],
        ["-e", "A=1"],
        ["--put", "/etc/hostname"],
    ] {
        let output = saving.ask(&[&["start", "b", "--from", "kept"], &options[..]].concat());
        let stderr = text(&output.stderr);
        assert!(stderr.contains("--from"), "{options:?}: {stderr}");
    }
    let output = saving
        .command(&["run", "--from", "kept", "x.py", "argument"])
        .output();
    let stderr = text(&output.unwrap().stderr);
    assert!(stderr.contains("without arguments"), "{stderr}");
    saving.gives(&["start", "b", "--from", "kept", "--timeout", "0.3"]);
    let output = saving.ask(&["run", "b", "-c", "while True: pass"]);
    assert_eq!(exit_code(output.status), 124);
    assert_eq!(saving.gives(&["run", "b", "-c", "x"]), "1\n");
}

#[test]
fn what_goes_on_from_a_checkpoint_can_be_logged() {
    let saving = Saving::of("x = 41");
    let log = Log::new();
    let path = log.path();
    let path = path.to_str().unwrap();
    saving.gives(&["start", "b", "--from", "kept", "--audit", path]);
    assert_eq!(saving.gives(&["run", "b", "-c", "x + 1"]), "42\n");
    saving.gives(&["checkpoint", "b", "again"]);
    let entries = log.entries();
    let events: Vec<_> = entries.iter().map(|entry| &entry["event"]).collect();
    assert_eq!(events, ["session", "start", "end", "save"]);
    assert_eq!(entries[0]["from"], "kept");
    assert_eq!(entries[3]["purpose"], "checkpoint");
    saving.gives(&["stop", "b"]);
}
