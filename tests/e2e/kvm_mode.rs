//! The mode of KVM in which guests run: found by trying, remembered, reported, and forced.

use crate::common::{Cache, binary, exit_code, finish, mode, mode_with, text};
use crate::failures::assert_refused;
use sandbox::internals::kvm_mode::verdicts::VerdictFile;
use sandbox::internals::vm::Verdict;
use sandbox::internals::vm::host::Family;
use sandbox::internals::vm::mode::Mode;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// The values of the option, and the mode that each must force here.
const FORCED: [(&str, Mode); 2] = [("native", Mode::Native), ("emulated", Mode::Emulated)];
const WHY: &str = "a test says so";

/// Returns the mode that is found by trying, whatever the environment says.
fn best() -> Mode {
    mode_with(&["--kvm-mode", "auto"])
}

fn doctor(cache: &Cache, options: &[&str]) -> Output {
    finish(cache.sandbox(&["doctor"]).args(options), b"")
}

/// Makes the cache remember the host as one that refuses native mode. Only a build of the same
/// tests reads that.
fn refuse(cache: &Cache) {
    let kept = VerdictFile::of(Path::new("/dev/kvm")).unwrap();
    fs::remove_file(cache.verdict()).unwrap_or_default();
    fs::create_dir_all(cache.verdict().parent().unwrap()).unwrap();
    let verdict = Verdict::Emulated(WHY.into());
    kept.write_to(&cache.verdict(), &verdict).unwrap();
}

/// Returns a run that ends before it has a machine, if `--kvm-mode native` is refused.
fn native(cache: &Cache) -> Command {
    cache.sandbox(&["run", "--fresh", "--kvm-mode", "native", "-c", "pass"])
}

fn is_refused(output: &Output) -> bool {
    exit_code(output.status) == 125 && text(&output.stderr).contains(WHY)
}

#[test]
fn doctor_names_the_mode_and_its_family() {
    let cache = Cache::empty();
    let output = doctor(&cache, &[]);
    let stdout = text(&output.stdout);
    let line = format!("  ok  host family: {}", mode());
    assert!(stdout.contains(&line), "{stdout}");
    let report: Value = serde_json::from_slice(&doctor(&cache, &["--json"]).stdout).unwrap();
    assert_eq!(report["kvm_mode"], mode().name());
    assert_eq!(report["host"], mode().family().name());
}

#[test]
fn doctor_tries_anew_whatever_is_remembered() {
    let cache = Cache::empty();
    doctor(&cache, &[]);
    let known = fs::read(cache.verdict()).unwrap();
    refuse(&cache);
    let stdout = text(&doctor(&cache, &[]).stdout);
    assert!(!stdout.contains(WHY), "{stdout}");
    assert_eq!(fs::read(cache.verdict()).unwrap(), known);
    assert_eq!(cache.verdict().metadata().unwrap().mode() & 0o7777, 0o400);
}

#[test]
fn a_run_and_its_record_have_the_mode_that_was_forced() {
    let cache = Cache::growing();
    let mut templates = Vec::new();
    for (option, expected) in FORCED.into_iter().chain([("auto", best())]) {
        // As root: others have built the emulated template of that.
        let output = cache.run(
            &["--json", "--root", "--kvm-mode", option],
            "print('hello')",
        );
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        let is_there = match expected {
            Mode::Native => best() == Mode::Native,
            Mode::Emulated => best().family() == Family::Software,
            Mode::Hardware => true,
        };
        if !is_there {
            assert_eq!(record["status"], "error", "{record}");
            continue;
        }
        assert_eq!(record["stdout"], "hello\n", "{record}");
        assert_eq!(record["kvm_mode"], expected.name());
        assert_eq!(record["host"], expected.family().name());
        templates.push((expected, record["template"].clone()));
    }
    for (mode, template) in &templates {
        let same = |(other, its): &&(Mode, Value)| (mode == other) == (template == its);
        assert!(templates.iter().all(|other| same(&other)), "{templates:?}");
    }
}

#[test]
fn a_hardware_kvm_refuses_both_modes_of_software() {
    if best() != Mode::Hardware {
        return;
    }
    for (option, _) in FORCED {
        let output = Cache::shared().run(&["--kvm-mode", option], "pass");
        assert_refused(&output, 125, "hardware KVM", "leave out --kvm-mode");
    }
}

#[test]
fn native_mode_that_is_refused_says_why() {
    if best() == Mode::Hardware {
        return;
    }
    let cache = Cache::copied();
    refuse(&cache);
    let output = finish(&mut native(&cache), b"");
    assert_refused(&output, 125, WHY, "leave out --kvm-mode");
}

#[test]
fn a_refusal_counts_for_ten_minutes() {
    if best() == Mode::Hardware {
        return;
    }
    let cache = Cache::copied();
    let now = SystemTime::now();
    let minutes = |count: u64| Duration::from_secs(60 * count);
    for (written, counts) in [
        (now - minutes(9), true),
        (now - minutes(11), false),
        (now + minutes(9), false),
    ] {
        refuse(&cache);
        let file = fs::File::open(cache.verdict()).unwrap();
        file.set_modified(written).unwrap();
        let output = finish(&mut native(&cache), b"");
        assert_eq!(is_refused(&output), counts, "{output:?}");
    }
}

#[test]
fn what_is_remembered_is_not_taken_from_a_file_that_is_damaged() {
    if best() == Mode::Hardware {
        return;
    }
    let cache = Cache::copied();
    let path = cache.verdict();
    let change = |what: &dyn Fn(&mut Vec<u8>)| {
        let mut content = fs::read(&path).unwrap();
        what(&mut content);
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    };
    let damages: [&dyn Fn(); 6] = [
        &|| change(&|content| content[0] ^= 1),
        &|| change(&|content| content.truncate(40)),
        &|| change(&|content| content.clear()),
        &|| change(&|content| content.resize(1 << 20, b'x')),
        &|| fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap(),
        &|| fs::hard_link(&path, path.with_extension("other")).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        refuse(&cache);
        assert!(is_refused(&finish(&mut native(&cache), b"")), "{number}");
        refuse(&cache);
        damage();
        let output = finish(&mut native(&cache), b"");
        assert!(!is_refused(&output), "{number}: {output:?}");
    }
}

#[test]
fn without_a_place_to_remember_it_each_run_tries() {
    let cache = Cache::copied();
    fs::remove_file(cache.verdict()).unwrap();
    fs::create_dir(cache.verdict()).unwrap();
    for _ in 0..2 {
        let output = cache.run(&[], "print('hello')");
        assert_eq!(text(&output.stdout), "hello\n", "{output:?}");
        assert_eq!(text(&output.stderr), "");
    }
    let entries = fs::read_dir(cache.verdict().parent().unwrap()).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    let left = |name: &&std::ffi::OsString| name.to_str().unwrap().starts_with('.');
    assert_eq!(names.iter().find(left), None, "{names:?}");
}

/// The kernel in the binary.
const KERNEL: &[u8] = include_bytes!(concat!(env!("SANDBOX_ASSETS"), "/kernel.zst"));

/// Replaces a sequence of bytes that occurs exactly once.
fn replace(content: &mut [u8], old: &[u8], new: &[u8]) {
    let is_old = |window: &(usize, &[u8])| window.1 == old;
    let mut places = content.windows(old.len()).enumerate().filter(is_old);
    let (place, _) = places.next().expect("what is replaced");
    assert!(places.next().is_none());
    content[place..place + old.len()].copy_from_slice(new);
}

/// Makes a binary with a kernel that dies where it switches native mode on, and works if emulated.
fn binary_without_native_kernel(directory: &Path) -> PathBuf {
    // mov ecx, MSR_PVM_VIF; and three times ud2 or half of it
    const SWITCH: [u8; 5] = [0xb9, 0x10, 0x4d, 0x56, 0x4b];
    const DEATH: [u8; 5] = [0x0f, 0x0b, 0x0f, 0x0b, 0x0f];
    let mut kernel = zstd::decode_all(KERNEL).unwrap();
    replace(&mut kernel, &SWITCH, &DEATH);
    let mut packed = zstd::bulk::compress(&kernel, 22).unwrap();
    // As long as it was, with a frame at its end that is skipped (RFC 8878, 3.1.2).
    let skipped = KERNEL.len().checked_sub(packed.len() + 8).expect("room");
    packed.extend(0x184d_2a50_u32.to_le_bytes());
    packed.extend((skipped as u32).to_le_bytes());
    packed.resize(KERNEL.len(), 0);
    let mut content = fs::read(binary()).unwrap();
    replace(&mut content, KERNEL, &packed);
    let path = directory.join("sandbox");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_guest_that_fails_natively_is_emulated_and_that_is_told_and_kept() {
    const HOW: &str = "the guest that was to be saved crashed: ";
    if best() != Mode::Native {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = binary_without_native_kernel(directory.path());
    let cache = Cache::empty();
    let give = |words: &[&str]| {
        let mut command = cache.command(program.to_str().unwrap());
        finish(command.env_remove("SANDBOX_KVM_MODE").args(words), b"")
    };
    let run =
        |options: &[&str]| give(&[&["run", "--json"], options, &["-c", "print('hello')"]].concat());
    let record = |output: &Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
    let assert_fails = |options: &[&str], message: &str, remedy: &str| {
        let output = run(options);
        let error = record(&output)["error"].clone();
        assert_eq!(exit_code(output.status), 125, "{error}");
        for (field, expected) in [("message", message), ("remedy", remedy)] {
            assert!(error[field].as_str().unwrap().contains(expected), "{error}");
        }
    };

    // Whoever insists is told, and nothing is kept of it.
    let insisted = format!("native mode was asked for: {HOW}");
    assert_fails(&["--kvm-mode", "native"], &insisted, "leave out --kvm-mode");
    // A machine that is booted for its run is not booted twice.
    assert_fails(&["--fresh"], "the guest crashed", "--kvm-mode emulated");

    // All others are told once, and get what they want.
    for lines in [1, 0] {
        let output = run(&[]);
        let record = record(&output);
        assert_eq!(record["stdout"], "hello\n", "{record}");
        assert_eq!(record["kvm_mode"], "emulated");
        let stderr = text(&output.stderr);
        assert_eq!(stderr.matches(HOW).count(), lines, "{stderr}");
    }
    let stdout = text(&give(&["doctor"]).stdout);
    let named = |line: &str| line.contains("emulated kernel") && line.contains(HOW);
    assert!(stdout.lines().any(named), "{stdout}");
}
