//! Processes that end at any moment, or share a cache: they leave nothing behind, and the next run
//! works.

use crate::common::{Cache, PYTHON, binary, exit_code, finish, runs, said, start, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, Output};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const WAITING: &str = "sandbox: waiting for another process that builds the template\n";

/// The number of runs that are killed; `SANDBOX_KILLS` asks for another number.
const KILLED_RUNS: u32 = 200;

/// Random moments that a later run of the test can repeat.
struct Moments(u64);

impl Moments {
    /// Takes the seed from `SANDBOX_TEST_SEED`, or from the time. A failing test shows it.
    fn new() -> Self {
        let seed = match std::env::var("SANDBOX_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs(),
        };
        println!("SANDBOX_TEST_SEED={seed}");
        Self(seed)
    }

    /// Returns a time of at most `most` (SplitMix64, by Steele, Lea and Flood).
    fn next(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        most.mul_f64((bits >> 11) as f64 / (1u64 << 53) as f64)
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

/// Waits until the condition holds, for as long as the process exists.
fn wait_until(child: &mut Child, mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        sleep(Duration::from_millis(1));
    }
}

/// Checks whether there is a file with this in its name.
fn holds(cache: &Cache, name: &str) -> bool {
    cache.kinds().iter().any(|kind| kind.contains(name))
}

fn starts(cache: &Cache, code: &str) -> Child {
    start(&mut cache.sandbox(&["run", "-c", code]))
}

/// Starts a run while another process builds the template, and waits until it waits.
fn starts_to_wait(cache: &Cache, code: &str) -> Child {
    let mut child = starts(cache, code);
    let mut told = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut told).unwrap();
    assert_eq!(told, WAITING);
    child
}

#[track_caller]
fn assert_right(output: &Output, stdout: &str, stderr: &str) {
    let told = said(output);
    assert_eq!(text(&output.stdout), stdout, "{told}");
    assert_eq!(told, stderr);
    assert_eq!(exit_code(output.status), 0, "{told}");
}

/// Checks that a run works, and that the cache then holds what belongs in it and nothing else.
#[track_caller]
fn assert_in_order(cache: &Cache) {
    assert_right(&cache.run(&[], "print('well')"), "well\n", "");
    let lines = cache.list(&["--verify"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!lines[0].contains("refused"), "{lines:?}");
    assert_eq!(cache.kinds(), ["erofs", "lock", "template"]);
}

#[test]
fn of_two_runs_that_need_a_template_one_builds_it_and_the_other_waits() {
    let cache = Cache::empty();
    let mut children = [starts(&cache, "print(0)"), starts(&cache, "print(1)")];
    let mut first = None;
    while first.is_none() {
        sleep(Duration::from_millis(10));
        first = (0..2).find(|&n| children[n].try_wait().unwrap().is_some());
    }
    let built = cache.identities();
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    let waited = (0..2).find(|&n| !said(&outputs[n]).is_empty()).unwrap();
    assert_right(&outputs[waited], &format!("{waited}\n"), WAITING);
    assert_right(&outputs[1 - waited], &format!("{}\n", 1 - waited), "");
    assert_eq!(cache.identities(), built);
    assert_in_order(&cache);
}

#[test]
fn a_run_that_waits_takes_over_from_a_builder_that_is_killed() {
    let cache = Cache::empty();
    let mut builder = starts(&cache, "print('never')");
    wait_until(&mut builder, || holds(&cache, "erofs"));
    let waiting = starts_to_wait(&cache, "print('taken over')");
    assert_eq!(cache.processes().len(), 2);
    builder.kill().unwrap();
    assert_eq!(exit_code(builder.wait().unwrap()), 137);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "taken over\n");
    assert_eq!(exit_code(output.status), 0);
    assert_in_order(&cache);
}

#[test]
fn a_builder_killed_at_any_moment_leaves_what_the_next_one_repairs() {
    const KILLS: u32 = 12;
    let cache = Cache::empty();
    let mut moments = Moments::new();
    let share = Cache::of_one().build_time().mul_f64(1.1) / KILLS;
    let mut killed = 0;
    for number in 0..KILLS {
        let child = starts(&cache, "print('unharmed')");
        sleep(share * number + moments.next(share));
        send(&child, Signal::SIGKILL);
        let output = child.wait_with_output().unwrap();
        match exit_code(output.status) {
            137 => killed += 1,
            _ => assert_right(&output, "unharmed\n", ""),
        }
        assert_eq!(cache.processes(), [""; 0]);
        let lines = cache.list(&["--verify"]);
        assert!(!lines.concat().contains("refused"), "{lines:?}");
        if !lines.is_empty() {
            // The next one shall have something to do.
            let output = finish(&mut cache.sandbox(&["template", "prune"]), b"");
            assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        }
    }
    // The first of them when no build can be over yet.
    assert!(killed > 0, "none of {KILLS} was killed");
    assert_in_order(&cache);
}

#[test]
fn an_image_that_a_killed_process_left_half_unpacked_is_removed() {
    let cache = Cache::empty();
    let mut child = starts(&cache, "print('never')");
    wait_until(&mut child, || holds(&cache, "runtime"));
    send(&child, Signal::SIGKILL);
    assert_eq!(exit_code(child.wait().unwrap()), 137);
    assert_in_order(&cache);
}

#[test]
fn a_run_killed_at_any_moment_leaves_nothing() {
    let cache = Cache::copied();
    let mut moments = Moments::new();
    assert_in_order(&cache);
    let before = cache.identities();
    let fastest = (0..10).map(|_| {
        let began = Instant::now();
        assert_right(&cache.run(&[], "print(1)"), "1\n", "");
        began.elapsed()
    });
    let most = fastest.min().unwrap().mul_f64(1.2);
    let kills = std::env::var("SANDBOX_KILLS").map_or(KILLED_RUNS, |count| count.parse().unwrap());
    let mut killed = 0;
    for _ in 0..kills {
        let child = starts(&cache, "print('unharmed')");
        sleep(moments.next(most));
        send(&child, Signal::SIGKILL);
        let output = child.wait_with_output().unwrap();
        match exit_code(output.status) {
            137 => killed += 1,
            _ => assert_right(&output, "unharmed\n", ""),
        }
    }
    println!("{killed} of {kills} were killed, within {most:?}");
    // Most, unless the machine was slower for the fastest run than for these.
    assert!(killed >= kills / 10, "{killed} of {kills} were killed");
    assert_eq!(cache.processes(), [""; 0]);
    assert_eq!(cache.identities(), before);
    assert_in_order(&cache);
}

#[test]
fn ctrl_c_ends_a_build_and_nothing_is_left() {
    let cache = Cache::empty();
    // At its begin, and when the machine is being saved.
    for file in ["lock", "writer"] {
        let mut child = starts(&cache, "print('never')");
        wait_until(&mut child, || holds(&cache, file));
        send(&child, Signal::SIGINT);
        let output = child.wait_with_output().unwrap();
        assert_eq!(exit_code(output.status), 130, "{file}: {output:?}");
        assert_eq!(text(&output.stdout), "");
        assert_eq!(said(&output), "");
        let mut left = cache.kinds();
        left.retain(|kind| kind != "erofs" && kind != "lock");
        // It may have come when all was done.
        let is_whole = || !cache.list(&["--verify"])[0].contains("refused");
        let is_whole = file == "writer" && left == ["template"] && is_whole();
        assert!(left.is_empty() || is_whole, "{file}: {left:?}");
    }
}

#[test]
fn ctrl_c_ends_the_wait_for_another_process_that_builds() {
    let cache = Cache::empty();
    let mut builder = starts(&cache, "print('never')");
    wait_until(&mut builder, || holds(&cache, "erofs"));
    let mut waiting = starts_to_wait(&cache, "print('never')");
    send(&waiting, Signal::SIGINT);
    assert_eq!(exit_code(waiting.wait().unwrap()), 130);
    send(&builder, Signal::SIGTERM);
    assert_eq!(exit_code(builder.wait().unwrap()), 143);
    assert_eq!(cache.kinds(), ["erofs", "lock"]);
}

#[test]
fn many_runs_in_a_row_leave_nothing() {
    let cache = Cache::copied();
    assert_in_order(&cache);
    let before = cache.identities();
    // A process of its own, so that its descriptors are those of these runs.
    let parent = "
import os, subprocess, sys
def descriptors(): return len(os.listdir('/proc/self/fd'))
before = descriptors()
for number in range(int(sys.argv[2])):
    command = [sys.argv[1], 'run', '-c', f'print({number})']
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    told = run.returncode, run.stdout, run.stderr
    assert told == (0, b'%d\\n' % number, b''), (number, told)
assert descriptors() == before, (before, descriptors())
";
    let mut command = cache.command(PYTHON);
    let output = finish(command.args(["-c", parent, &binary(), &runs()]), b"");
    assert_right(&output, "", "");
    assert_eq!(cache.processes(), [""; 0]);
    assert_eq!(cache.identities(), before);
}
