//! Many machines at once, and many one after the other: each caller gets its own output, and
//! nothing is left. Many processes in a row are in `sigkill`.

use crate::agent::until;
use crate::common::{Cache, exit_code, runs, start, text};
use sandbox::internals::error::Error;
use sandbox::internals::job::Source;
use sandbox::internals::limits::ConfineLevel;
use sandbox::internals::limits::Limits;
use sandbox::internals::outcome::Outcome;
use sandbox::internals::run::{Request, prepare, run};
use sandbox::internals::template::builder::Listener;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

/// Starts more machines than there are processors, each with a secret on its standard input, its
/// command line and its streams.
#[test]
fn thirty_two_machines_at_once_give_each_caller_its_own() {
    let cache = Cache::copied();
    let before = cache.identities();
    let code = "
import hashlib, sys, time
secret = sys.stdin.readline().strip()
assert sys.argv[1] == secret
open('/tmp/secret', 'w').write(secret)
for round in range(20):
    print(secret, round, flush=True)
    print(secret, file=sys.stderr)
    digest = hashlib.sha256(secret.encode() * 10_000).hexdigest()
    time.sleep(0.01)
print(digest, open('/tmp/secret').read())
";
    let secret =
        |number: usize| format!("secret{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut children = Vec::new();
    for number in 0..32 {
        let mut command = cache.sandbox(&["run", "-c", code, &secret(number)]);
        children.push(start(&mut command));
    }
    // All wait for their input, so all are there at once.
    for (number, child) in children.iter_mut().enumerate() {
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{}", secret(number)).unwrap();
    }
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let (secret, stderr) = (secret(number), text(&output.stderr));
        assert_eq!(exit_code(output.status), 0, "{number}: {stderr}");
        assert_eq!(stderr, format!("{secret}\n").repeat(20), "{number}");
        let stdout = text(&output.stdout);
        let lines: Vec<_> = stdout.lines().collect();
        let expected = (0..20).map(|round| format!("{secret} {round}"));
        assert_eq!(lines[..20], expected.collect::<Vec<_>>(), "{number}");
        assert!(lines[20].ends_with(&format!(" {secret}")), "{number}");
        assert_eq!(lines.len(), 21, "{number}");
    }
    assert_eq!(cache.processes(), [""; 0]);
    assert_eq!(cache.identities(), before);
}

struct Nobody;

impl Listener for Nobody {
    fn refused(&mut self, _: &str) {}
    fn waiting(&mut self) {}
    fn building(&mut self, _: &str, _: Duration, _: Option<Duration>) {}
    fn built(&mut self, _: Duration) {}
    fn unsaved(&mut self, _: &Error) {}
    fn booting(&mut self, _: &str) {}
    fn emulating(&mut self, _: &str) {}
}

/// The resources of a process.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

fn held() -> Held {
    let count = |directory| fs::read_dir(directory).unwrap().count();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    Held {
        descriptors: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        mappings: maps
            .lines()
            .filter(|line| line.contains("/sandbox/"))
            .count(),
    }
}

/// Returns the bytes of this process's memory that are in no file.
fn private_memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<i64>().unwrap() << 10
}

/// The parent of [`a_parent_that_lives_long_does_not_grow`], which starts it as a process of its
/// own; by itself it does nothing.
#[test]
fn many_runs_in_one_process() {
    let Ok(runs) = std::env::var("SANDBOX_TEST_RUNS") else {
        return;
    };
    let request = Request {
        limits: Limits {
            timeout: Some(Duration::from_secs(300)),
            ..Limits::default()
        },
        // In a process that lives on, nothing of it could be taken back.
        confine: ConfineLevel::Off,
        capture: false,
        ..Request::of(Source::Code("pass".into()))
    };
    let run = || {
        let (report, _) = run(prepare(&request).unwrap(), &mut Nobody).unwrap();
        assert_eq!(report.outcome, Outcome::Exited(0));
    };
    (0..50).for_each(|_| run());
    let (before, memory) = (held(), private_memory());
    (0..runs.parse().unwrap()).for_each(|_| run());
    // A thread that was joined is there for a moment longer.
    until(|| (held() == before).then_some(()));
    let growth = private_memory() - memory;
    println!("private memory grew by {growth} bytes");
    assert!(growth <= 1 << 20, "private memory grew by {growth} bytes");
}

#[test]
fn a_parent_that_lives_long_does_not_grow() {
    let cache = Cache::shared();
    let before = cache.identities();
    let mut parent: Command = cache.command(std::env::current_exe().unwrap().to_str().unwrap());
    parent.args(["--exact", "load::many_runs_in_one_process", "--nocapture"]);
    let output = parent.env("SANDBOX_TEST_RUNS", runs()).output();
    let output = output.unwrap();
    let stdout = text(&output.stdout);
    assert!(stdout.contains("private memory grew by"), "{stdout}");
    println!("{stdout}");
    assert!(output.status.success(), "{stdout}{}", text(&output.stderr));
    assert_eq!(cache.identities(), before);
}
