//! Templates are built when needed, used from then on, refused if they are not as they were saved,
//! and have nothing of the host in them.

use crate::common::{Cache, binary, copy, exit_code, finish, run, said, start, text};
use crate::reference::reference;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The offsets of the state and of the memory in a template's file.
const STATE_AT: u64 = 416;
const MEMORY_AT: u64 = 2 << 20;

#[track_caller]
fn assert_printed(output: &Output, stdout: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(text(&output.stdout), stdout, "{stderr}");
    assert_eq!(exit_code(output.status), 0, "{stderr}");
}

/// Checks that a run was restored, as `--verbose` reports, and had nothing else to report.
#[track_caller]
fn assert_warm(output: &Output) {
    let stderr = said(output);
    assert!(
        stderr.starts_with("sandbox: the program exited with 0, in a machine that was restored ("),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
}

#[test]
fn a_template_is_built_on_first_need_and_used_from_then_on() {
    let cache = Cache::empty();
    // Modes must not depend on what the user usually lets others do.
    let mut first = cache.command("sh");
    first.args([
        "-c",
        "umask 0; exec \"$0\" run --verbose -c 'print(1)'",
        &binary(),
    ]);
    let output = finish(&mut first, b"");
    assert_printed(&output, "1\n");
    assert_warm(&output);
    assert_eq!(cache.kinds(), ["erofs", "lock", "template"]);
    let mode = |path: PathBuf| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(cache.templates()), 0o700);
    assert_eq!(mode(cache.template()), 0o400);

    let before = cache.identities();
    let output = cache.run(&["--verbose"], "print(2)");
    assert_printed(&output, "2\n");
    assert_warm(&output);
    assert_eq!(cache.identities(), before);
}

#[test]
fn a_template_built_ahead_is_used_and_not_built_again() {
    let cache = Cache::of_one();
    let before = cache.identities();
    for options in [&["--verbose"][..], &["--verbose", "--verify"]] {
        let output = cache.run(options, "print('at once')");
        assert_printed(&output, "at once\n");
        assert_warm(&output);
    }
    let output = finish(&mut cache.sandbox(&["template", "build"]), b"");
    assert_printed(&output, "");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(cache.identities(), before);
}

#[test]
fn the_list_tells_what_a_template_is_for_its_size_and_its_age() {
    let cache = Cache::of_one();
    let path = cache.template();
    let key = path.file_stem().unwrap().to_str().unwrap();
    let size = (path.metadata().unwrap().blocks() * 512) >> 20;
    let beginning = format!("{key}  {size} MiB  Python, 256 MiB, ");
    for options in [&[][..], &["--verify"]] {
        let lines = cache.list(options);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let rest = lines[0].strip_prefix(&beginning).expect(&lines[0]);
        assert!(rest.contains(" old, built in "), "{rest}");
        assert!(rest.ends_with(", used in the last hour"), "{rest}");
    }
}

#[test]
fn nothing_of_the_host_and_of_the_programs_before_is_in_a_template() {
    let token = format!("canary{}", std::process::id());
    let new = || tempfile::Builder::new().prefix(&token).tempdir().unwrap();
    let (cache, home) = (Cache(new()), new());
    let planted = |name: &str| format!("{token}-{name}");
    let script = home.path().join(planted("script.py"));
    let content = format!("print(input()) # {}", planted("content"));
    fs::write(&script, content).unwrap();
    let run = |arguments: &[&str], stdin: &str| {
        let mut command = cache.sandbox(&["run", "-e"]);
        command
            .arg(format!("PASSED={}", planted("passed")))
            .args(arguments)
            .arg(planted("argument"))
            .arg0(planted("argv0"))
            .current_dir(home.path())
            .env("HOME", home.path());
        for name in ["USER", "LOGNAME", "HOSTNAME", "PWD", "TOKEN", "PYTHONPATH"] {
            command.env(name, planted(name));
        }
        command.env(planted("name"), planted("value"));
        let output = finish(&mut command, stdin.as_bytes());
        assert_printed(&output, &format!("{}\n", planted("printed")));
    };
    // The first has the template built.
    run(&[script.to_str().unwrap()], &planted("printed"));
    run(&["-c", &format!("print('{}')", planted("printed"))], "");
    run(&["-"], &format!("print('{}')", planted("printed")));

    let real = [
        std::env::var("HOME").unwrap_or_default(),
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap(),
        fs::read_to_string("/etc/machine-id").unwrap_or_default(),
    ];
    // Too short ones are in anything.
    for secret in real.iter().map(|secret| secret.trim()) {
        if secret.len() > 5 {
            assert_eq!(grep(secret, &cache), "", "{secret}");
        }
    }
    assert_eq!(grep(&token, &cache), "");
    assert!(grep("Linux version 6.12", &cache).contains(".template:"));
}

/// Returns where a cache contains this: the names of files, and the text around it up to zeroes.
fn grep(what: &str, cache: &Cache) -> String {
    let output = Command::new("grep")
        .env("LC_ALL", "C")
        .args(["--recursive", "--text", "--null-data", "--fixed-strings"])
        .args(["--regexp", what])
        .arg(cache.0.path())
        .output()
        .unwrap();
    assert!(exit_code(output.status) <= 1, "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Changes a file that is not writable.
fn change(path: &Path, how: impl FnOnce(&fs::File)) {
    set_mode(path, 0o600);
    let file = OpenOptions::new().read(true).write(true).open(path);
    how(&file.unwrap());
    set_mode(path, 0o400);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn flip(path: &Path, offset: u64) {
    change(path, |file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    });
}

fn resize(path: &Path, change_by: impl FnOnce(u64) -> u64) {
    let length = path.metadata().unwrap().len();
    change(path, |file| file.set_len(change_by(length)).unwrap());
}

#[test]
fn a_template_that_was_changed_is_refused_and_the_list_says_why() {
    let cache = Cache::copied();
    let path = cache.template();
    let good = cache.0.path().join("good");
    fs::rename(&path, &good).unwrap();
    let other = cache.templates().join(format!("{:032x}.template", 77));
    let command = |name: &str, path: &Path| {
        assert!(Command::new(name).arg(path).status().unwrap().success());
    };
    let damages: &[(&str, &dyn Fn())] = &[
        ("it is not a template", &|| flip(&path, 0)),
        ("its format is of another version", &|| flip(&path, 8)),
        ("its checksum is wrong", &|| flip(&path, 100)),
        ("its checksum is wrong", &|| flip(&path, STATE_AT - 1)),
        ("its checksum is wrong", &|| flip(&path, STATE_AT + 1000)),
        ("it is cut short", &|| resize(&path, |_| 0)),
        ("it is cut short", &|| resize(&path, |_| STATE_AT + 1000)),
        ("its length is wrong", &|| {
            resize(&path, |length| length - 1)
        }),
        ("its length is wrong", &|| {
            resize(&path, |length| length + 1)
        }),
        ("it can be written to", &|| set_mode(&path, 0o600)),
        ("it can be written to", &|| set_mode(&path, 0o420)),
        ("it can be written to", &|| set_mode(&path, 0o402)),
        ("it is the template of another key", &|| {
            fs::rename(&path, &other).unwrap();
        }),
        ("it has a second name", &|| {
            fs::hard_link(&path, cache.0.path().join("second")).unwrap();
        }),
        ("it is a symbolic link", &|| {
            fs::remove_file(&path).unwrap();
            symlink(&good, &path).unwrap();
        }),
        ("it is not a regular file", &|| {
            fs::remove_file(&path).unwrap();
            command("mkfifo", &path);
        }),
        ("it is not a regular file", &|| {
            fs::remove_file(&path).unwrap();
            command("mkdir", &path);
        }),
        ("it belongs to somebody else", &|| {
            chown(&path, Some(1), None).unwrap();
        }),
    ];
    for (why, damage) in damages {
        if *why == "it belongs to somebody else" && !nix::unistd::geteuid().is_root() {
            continue; // only root can give files away
        }
        copy(&good, &path);
        let lines = cache.list(&["--verify"]);
        assert!(lines[0].contains("  Python, 256 MiB"), "{lines:?}");
        damage();
        let lines = cache.list(&[]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].ends_with(&format!("  refused: {why}")),
            "{lines:?}"
        );
        for path in [&path, &other] {
            let removed = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
            removed.unwrap_or_default();
        }
    }
}

/// Checks that one line says why the run took longer, that the program runs, and that there is a
/// good template afterwards.
#[track_caller]
fn assert_built_again(cache: &Cache, options: &[&str], why: &str) {
    let before = cache.template().symlink_metadata().unwrap().ino();
    let output = cache.run(options, "print('right')");
    assert_printed(&output, "right\n");
    assert_eq!(
        said(&output),
        format!("sandbox: the template is built again: {why}\n")
    );
    assert_ne!(cache.template().symlink_metadata().unwrap().ino(), before);
    let lines = cache.list(&["--verify"]);
    assert!(lines[0].contains("  Python, 256 MiB"), "{lines:?}");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(cache.kinds(), ["erofs", "lock", "template"]);
}

#[test]
fn a_run_builds_a_refused_template_again() {
    let cache = Cache::copied();
    flip(&cache.template(), STATE_AT + 10);
    assert_built_again(&cache, &[], "its checksum is wrong");
}

#[test]
fn a_link_to_a_template_is_replaced_and_what_it_leads_to_is_left_alone() {
    let (cache, elsewhere) = (Cache::copied(), tempfile::tempdir().unwrap());
    let (path, target) = (cache.template(), elsewhere.path().join("template"));
    copy(&path, &target);
    fs::remove_file(&path).unwrap();
    symlink(&target, &path).unwrap();
    let what = || {
        let metadata = target.metadata().unwrap();
        (metadata.ino(), metadata.mtime_nsec(), metadata.len())
    };
    let before = what();
    assert_built_again(&cache, &[], "it is a symbolic link");
    assert_eq!(what(), before);
}

#[test]
fn a_changed_memory_is_found_where_it_is_verified() {
    let cache = Cache::copied();
    flip(&cache.template(), MEMORY_AT + (20 << 20));
    let lines = cache.list(&["--verify"]);
    assert!(
        lines[0].ends_with("  refused: its content is not what was saved"),
        "{lines:?}"
    );
    assert_built_again(&cache, &["--verify"], "its memory is not what was saved");
}

#[test]
fn the_environment_asks_for_verification_as_the_option_does() {
    let cache = Cache::copied();
    flip(&cache.template(), MEMORY_AT + (20 << 20));
    for (verify, options) in [("true", &[][..]), ("false", &["--verify"])] {
        let mut command = cache.sandbox(&["run"]);
        command.env("SANDBOX_VERIFY", verify).args(options);
        let mut child = start(command.args(["-c", "pass"]));
        let mut told = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut told).unwrap();
        assert!(told.contains("its memory is not what"), "{verify}: {told}");
        // Before there is another.
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_variable_that_python_reads_at_its_start_takes_the_cold_path() {
    let cache = Cache::empty();
    let code = "print(hash('spam'))";
    let output = cache.run(&["--verbose", "-e", "PYTHONHASHSEED=0"], code);
    let mut python = reference();
    python.args(["-c", code]).env("PYTHONHASHSEED", "0");
    let expected = text(&python.output().unwrap().stdout);
    assert_printed(&output, &expected);
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("the program exited with 0, in a machine that was booted ("),
        "{stderr}"
    );
    assert_eq!(cache.kinds(), ["erofs"]);
}

#[test]
fn a_zone_of_time_is_that_of_the_program_in_a_saved_machine_too() {
    let code = "import time; print(time.tzname, time.localtime(0).tm_hour)";
    let output = run(&["--verbose", "-e", "TZ=Asia/Tokyo"], code);
    assert_printed(&output, "('JST', 'JST') 9\n");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("in a machine that was restored"),
        "{stderr}"
    );
}

/// Runs this shell script with a file system in memory of so many KiB at the cache, which only the
/// script sees. In it, `$0` is the binary under test.
pub fn on_a_disk_in_memory(cache: &Cache, size: u64, script: &str) -> Output {
    let script = format!(
        "mount -t tmpfs -o size={size}k,mode=700 tmpfs \"$XDG_CACHE_HOME\" || exit 99\n{script}"
    );
    let mut command = cache.command("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", &script, &binary()]);
    finish(&mut command, b"")
}

#[test]
fn a_full_disk_is_told_with_its_place_and_nothing_is_left_there() {
    let image = Cache::of_one().image();
    let image_size = image.metadata().unwrap().len() >> 10;
    let image_name = image.file_name().unwrap().to_str().unwrap();
    let script = "\"$0\" run -c 'print(1)'; code=$?
find \"$XDG_CACHE_HOME\" -type f ! -name '*.lock' ! -name '*.mode' -exec basename {} ';'
exit $code";
    for (size, told, left) in [
        (image_size / 2, "unpacking the runtime image", String::new()),
        (
            image_size + 8192,
            "writing the template ",
            format!("{image_name}\n"),
        ),
    ] {
        let cache = Cache::empty();
        let output = on_a_disk_in_memory(&cache, size, script);
        let stderr = said(&output);
        assert_eq!(exit_code(output.status), 125, "{stderr}");
        assert_eq!(text(&output.stdout), left, "{stderr}");
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
        let directory = cache.0.path().join("sandbox");
        for told in [told, directory.to_str().unwrap(), "No space left on device"] {
            assert!(stderr.contains(told), "{told} in {stderr}");
        }
    }
}

/// On such a file system, reading a page where the file has a hole allocates the page for good.
#[test]
fn a_template_in_memory_does_not_grow_with_what_its_programs_use() {
    let cache = Cache::empty();
    let script = "\"$0\" template build || exit
disk() { du --summarize --block-size=1K \"$XDG_CACHE_HOME/sandbox\" | cut -f 1; }
before=$(disk)
\"$0\" run -c 'print(len(bytearray(100 << 20)))' || exit
echo $(($(disk) - before))";
    let output = on_a_disk_in_memory(&cache, 1 << 20, script);
    assert_printed(&output, "104857600\n0\n");
    assert_eq!(said(&output), "");
}
