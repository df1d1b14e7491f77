//! What is kept for later runs is bounded, is told, and is not needed: few saved machines serve all
//! limits, what was used least recently goes first, and a run without a cache boots.

use crate::common::{Cache, exit_code, finish, run, said, start, text};
use crate::templates::on_a_disk_in_memory;
use nix::unistd::geteuid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

#[track_caller]
fn assert_printed(output: &Output, stdout: &str) {
    assert_eq!(text(&output.stdout), stdout, "{}", text(&output.stderr));
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
}

/// Returns how many KiB of memory a guest with these options has.
fn total(cache: &Cache, options: &[&str]) -> u64 {
    let output = cache.run(
        options,
        "print(next(open('/proc/meminfo')).split()[1], end='')",
    );
    let total = text(&output.stdout).parse();
    total.unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

#[test]
fn one_saved_machine_serves_all_memory_sizes_up_to_its_own() {
    let cache = Cache::copied();
    let all = total(&cache, &[]);
    for mib in [194, 200, 254] {
        let less = total(&cache, &["-m", &format!("{mib}M")]);
        assert_eq!(less, all - ((256 - mib) << 10), "{mib}");
    }
    assert_eq!(cache.list(&[]).len(), 1);
}

#[test]
fn memory_that_is_withheld_cannot_be_used() {
    let eat = |mib: u64| run(&["-m", "194M"], &format!("b'x' * ({mib} << 20)"));
    assert_printed(&eat(130), "");
    let output = eat(200);
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 137, "{stderr}");
    assert!(stderr.contains("out of the 194 MiB of memory"), "{stderr}");
}

#[test]
fn one_saved_machine_serves_all_limits_on_processes() {
    let cache = Cache::copied();
    let code = "
import os
children = []
try:
    while len(children) < 300:
        children.append(os.posix_spawn('/bin/sleep', ['sleep', '1000'], {}))
except BlockingIOError:
    pass
print(len(children), flush=True)
os._exit(0)";
    for (limit, children) in [("1", 0), ("10", 9), ("301", 300)] {
        let output = cache.run(&["--pids-limit", limit], code);
        assert_printed(&output, &format!("{children}\n"));
    }
    assert_eq!(cache.list(&[]).len(), 1);
}

#[test]
fn the_smallest_memory_works_and_gets_a_machine_of_its_own() {
    let cache = Cache::copied();
    for _ in 0..2 {
        assert!(total(&cache, &["-m", "64M"]) < 65_536);
    }
    let mut lines = cache.list(&["--verify"]);
    lines.sort_by_key(|line| line.contains(" 256 MiB"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("  Python, 64 MiB, "), "{lines:?}");
    assert!(lines[1].contains("  Python, 256 MiB, "), "{lines:?}");
}

#[test]
fn all_that_is_kept_is_listed_with_its_sum() {
    let cache = Cache::of_one();
    for options in [&[][..], &["--verify"]] {
        let output = finish(cache.sandbox(&["cache", "list"]).args(options), b"");
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        let stdout = text(&output.stdout);
        let lines: Vec<_> = stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        let is_there = |what| lines.iter().any(|line| line.contains(what));
        assert!(is_there("  Python, 256 MiB, "), "{lines:?}");
        assert!(is_there("the guest's programs, for this"), "{lines:?}");
        assert!(lines[2].ends_with(" MiB of at most 4096 MiB"), "{lines:?}");
    }
}

#[test]
fn a_list_with_a_template_that_is_refused_fails() {
    let cache = Cache::copied();
    let path = cache.template();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for verb in ["cache", "template"] {
        let output = finish(&mut cache.sandbox(&[verb, "list"]), b"");
        assert_eq!(exit_code(output.status), 125, "{verb}");
        let stdout = text(&output.stdout);
        assert!(stdout.contains("refused: it can be written to"), "{stdout}");
    }
}

fn prune(cache: &Cache, arguments: &[&str]) -> String {
    let output = finish(&mut cache.sandbox(arguments), b"");
    assert_printed(&output, "");
    text(&output.stderr)
}

#[test]
fn pruning_removes_all_templates_and_what_killed_builders_left() {
    for arguments in [["template", "prune"], ["cache", "prune"]] {
        let cache = Cache::copied();
        let stale = cache.template().with_extension("writer-1-1");
        fs::write(stale, vec![1; 3 << 20]).unwrap();
        let told = prune(&cache, &arguments);
        assert!(told.starts_with("sandbox: removed 2, "), "{told}");
        assert_eq!(cache.kinds(), ["erofs"]);
        assert_eq!(prune(&cache, &arguments), "sandbox: removed 0, 0 MiB\n");
        assert_eq!(cache.list(&[]), [""; 0]);
    }
}

#[test]
fn pruning_to_a_size_keeps_what_was_used_last() {
    let cache = Cache::copied();
    let (young, ours) = (cache.template(), cache.image());
    let directory = cache.0.path().join("sandbox");
    let old = cache.templates().join(format!("{:032x}.template", 77));
    let image = directory.join(format!("runtime-{:016x}.erofs", 77));
    for (path, days) in [(&old, 2), (&image, 3)] {
        fs::copy(&young, path).unwrap();
        let used = SystemTime::now() - Duration::from_secs(days * 86_400);
        File::open(path).unwrap().set_modified(used).unwrap();
    }
    let count = |most: &str| {
        prune(&cache, &["cache", "prune", "--max-size", most]);
        [&young, &old, &image].map(|path| path.exists())
    };
    let output = finish(&mut cache.sandbox(&["cache", "list"]), b"");
    let listed = text(&output.stdout);
    assert!(listed.contains("another version, used 3 d ago"), "{listed}");
    assert_eq!(count("1G"), [true, true, true]);
    let size = |path: &Path| path.metadata().unwrap().len() >> 20;
    let most = size(&ours) + 2 * size(&young);
    assert_eq!(count(&format!("{most}M")), [true, true, false]);
    assert_eq!(count("1M"), [false, false, false]);
    assert_eq!(cache.kinds(), ["erofs"]);
}

#[test]
fn a_template_in_use_is_not_removed() {
    let cache = Cache::copied();
    let mut child = start(&mut cache.sandbox(&["run", "-c", "print('up', flush=True); input()"]));
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    assert_eq!(
        prune(&cache, &["cache", "prune"]),
        "sandbox: removed 0, 0 MiB\n"
    );
    assert!(cache.template().exists());
    drop(child.stdin.take());
    child.wait().unwrap();
    let told = prune(&cache, &["cache", "prune"]);
    assert!(told.starts_with("sandbox: removed 1, "), "{told}");
}

/// Checks that a run boots and says once why nothing is kept.
#[track_caller]
fn assert_unsaved(output: &Output, why: &str) {
    assert_printed(output, "42\n");
    let stderr = said(output);
    let told = "sandbox: nothing is kept, and so each run boots: ";
    assert!(stderr.starts_with(told), "{stderr}");
    assert!(stderr.contains(why), "{stderr}");
    assert!(stderr.contains("XDG_CACHE_HOME=DIRECTORY"), "{stderr}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

#[test]
fn a_run_without_a_place_for_its_cache_boots_and_names_the_variable() {
    for (home, why) in [
        (None, "neither XDG_CACHE_HOME nor HOME names one"),
        (Some(""), "neither XDG_CACHE_HOME nor HOME names one"),
        (
            Some("relative"),
            "neither XDG_CACHE_HOME nor HOME names one",
        ),
        (
            Some("/proc"),
            "the cache directory /proc/.cache/sandbox cannot be made",
        ),
        (Some("/dev/null"), "cannot be made: Not a directory"),
    ] {
        let mut command = Cache::shared().sandbox(&["run", "-c", "print(42)"]);
        command.env_remove("XDG_CACHE_HOME").env_remove("HOME");
        if let Some(home) = home {
            command.env("HOME", home);
        }
        assert_unsaved(&finish(&mut command, b""), why);
    }
}

#[test]
fn a_cache_of_another_user_is_left_alone() {
    if !geteuid().is_root() {
        return; // nobody else may give directories away
    }
    let cache = Cache::copied();
    let before = cache.identities();
    chown(cache.0.path().join("sandbox"), Some(1), None).unwrap();
    assert_unsaved(&cache.run(&[], "print(42)"), "is not a directory of yours");
    assert_eq!(cache.identities(), before);
}

#[test]
fn a_read_only_cache_serves_what_is_in_it_and_takes_nothing_more() {
    let script = "cp -a \"$FULL\" \"$XDG_CACHE_HOME\" && mount -o remount,ro \"$XDG_CACHE_HOME\" || exit 99
\"$0\" run -c 'print(42)' && \"$0\" run --pids-limit 9 -c 'print(42)' && \"$0\" run -m 64M -c 'print(42)'";
    let cache = Cache::empty();
    let full = Cache::of_one().0.path().join("sandbox");
    let script = script.replace("$FULL", full.to_str().unwrap());
    let mut output = on_a_disk_in_memory(&cache, 1 << 20, &script);
    assert!(output.stdout.starts_with(b"42\n42\n"), "{output:?}");
    output.stdout.drain(..6);
    assert_unsaved(&output, "cannot be written to: Read-only file system");
}

#[test]
fn an_empty_read_only_cache_is_as_good_as_none() {
    let script = "mount -o remount,ro \"$XDG_CACHE_HOME\" || exit 99\n\"$0\" run -c 'print(42)'";
    let output = on_a_disk_in_memory(&Cache::empty(), 1024, script);
    assert_unsaved(&output, "cannot be made: Read-only file system");
}

#[test]
fn a_template_that_cannot_be_kept_is_not_built_by_request() {
    let mut command = Command::new(crate::common::binary());
    let output = finish(command.args(["template", "build"]).env_clear(), b"");
    assert_eq!(exit_code(output.status), 125);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("XDG_CACHE_HOME=DIRECTORY"), "{stderr}");
}
