//! Clones of old templates. A test makes a template older as time itself would have done it: if it
//! had been saved earlier, the processor's time stamp counter would have been lower, in the state
//! and in the page of guest memory from which the guest computes its clock.

use crate::common::{exit_code, finish, sandbox, text};
use sandbox::internals::cache::Shelf;
use sandbox::internals::template::builder::Content;
use sandbox::internals::template::{Found, Key, Store};
use sandbox::internals::units::PAGE;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MSR_KVM_SYSTEM_TIME: u32 = 0x4b56_4d01;
/// The bytes of `struct pvclock_vcpu_time_info` (Documentation/virt/kvm/x86/msr.rst), and the
/// offsets of its fields.
const PVCLOCK: usize = 32;
const TSC_TIMESTAMP: usize = 8;
const TSC_TO_SYSTEM_MUL: usize = 24;
const TSC_SHIFT: usize = 28;

/// Returns the template's state with its time stamp counter turned back, and does the same in guest
/// memory.
fn turn_back(content: Content, memory: &mut [u8], by: Duration) -> Content {
    let mut state = serde_json::to_value(content.state).unwrap();
    let page = msr(&state, MSR_KVM_SYSTEM_TIME) as usize & !1;
    let clock = &mut memory[page..page + PVCLOCK];
    let multiplier = u32::from_le_bytes(clock[TSC_TO_SYSTEM_MUL..][..4].try_into().unwrap());
    // Nanoseconds are (ticks << shift) * multiplier / 2^32.
    let ticks = (by.as_nanos() << 32) / u128::from(multiplier);
    let shift = clock[TSC_SHIFT] as i8;
    let ticks = match shift {
        0.. => ticks >> shift,
        _ => ticks << -shift,
    } as u64;
    let stamp = &mut clock[TSC_TIMESTAMP..][..8];
    let then = u64::from_le_bytes(stamp.try_into().unwrap()).wrapping_sub(ticks);
    stamp.copy_from_slice(&then.to_le_bytes());
    let tsc = state["vcpu"]["tsc"].as_u64().unwrap();
    state["vcpu"]["tsc"] = json!(tsc.wrapping_sub(ticks));
    Content {
        state: serde_json::from_value(state).unwrap(),
        ..content
    }
}

/// Returns an MSR of the state. `struct kvm_msr_entry` is saved as its bytes: index, reserved,
/// data.
fn msr(state: &Value, index: u32) -> u64 {
    let entries = state["vcpu"]["msrs"].as_array().unwrap();
    let bytes = |entry: &Value| -> Vec<u8> {
        let bytes = entry.as_array().unwrap().iter();
        bytes.map(|byte| byte.as_u64().unwrap() as u8).collect()
    };
    let entry = entries
        .iter()
        .map(bytes)
        .find(|entry| entry[..4] == index.to_le_bytes())
        .expect("the MSR is saved");
    u64::from_le_bytes(entry[8..16].try_into().unwrap())
}

/// Replaces the only template of the store with one that is so much older.
fn age(directory: &Path, by: Duration) {
    let store = Store::at(directory);
    let key = Key::parse(&store.items().unwrap()[0].name).unwrap();
    let Found::Ready(template) = store.find(&key).unwrap() else {
        panic!("no template {key}");
    };
    let mut memory = vec![0; template.memory_size as usize];
    template
        .memory
        .read_exact_at(&mut memory, template.memory_offset)
        .unwrap();
    let content = postcard::from_bytes(&template.state).unwrap();
    let content = turn_back(content, &mut memory, by);
    let lock = store.lock(&key, || ()).unwrap();
    let mut writer = store.writer(&lock, template.memory_size).unwrap();
    for (index, page) in (0..).zip(memory.chunks_exact(PAGE)) {
        writer.write_page(index, page.try_into().unwrap()).unwrap();
    }
    let state = postcard::to_stdvec(&content).unwrap();
    writer.publish(&state, "aged", template.build_time).unwrap();
}

fn seconds_since_1970() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64()
}

/// Returns the time when the program began by its wall clock, the monotonic clock then, and how
/// long a sleep of 0.1 s took by that clock.
fn clocks(cache: &Path) -> (f64, f64, f64) {
    let code = "
import time
wall, began = time.time(), time.monotonic()
time.sleep(0.1)
print(wall, began, time.monotonic() - began)
";
    let mut command = sandbox(&["run", "--verbose", "-c", code]);
    let output = finish(command.env("XDG_CACHE_HOME", cache), b"");
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 0, "{stderr}");
    assert!(stderr.contains("was restored"), "{stderr}");
    assert!(!stderr.contains("built again"), "{stderr}");
    let stdout = text(&output.stdout);
    let mut numbers = stdout.split_whitespace().map(|word| word.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    (next(), next(), next())
}

/// Arms every kind of timer for 0.1 s, and prints the remaining time and its clock.
const TIMERS: &str = r#"
import ctypes, os, select, signal, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
SIGNALS = signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGUSR1
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
def ok(result): assert result >= 0, os.strerror(ctypes.get_errno()); return result
def once(seconds): return struct.pack('qqqq', 0, 0, int(seconds), int(seconds % 1 * 1e9))
def arrives(number):
    while signal.sigtimedwait([number], 0) is None: pass
def interval(which, number): signal.setitimer(which, 0.1); arrives(number)
def descriptor(clock, flags):
    timer = ok(libc.timerfd_create(clock, 0))
    ok(libc.timerfd_settime(timer, flags, once(0.1 + (time.clock_gettime(clock) if flags else 0)), None))
    assert os.read(timer, 8) == struct.pack('Q', 1)
def posix(clock):
    timer, event = ctypes.c_void_p(), struct.pack('QiiQ', 0, signal.SIGUSR1, 0, 0) + bytes(64)
    ok(libc.timer_create(clock, event, ctypes.byref(timer)))
    ok(libc.timer_settime(timer, 0, once(0.1), None)); arrives(signal.SIGUSR1)
def until(clock):
    now = time.clock_gettime(clock) + 0.1
    assert libc.clock_nanosleep(clock, 1, struct.pack('qq', int(now), int(now % 1 * 1e9)), None) == 0
def threaded():
    done = threading.Event(); threading.Timer(0.1, done.set).start(); assert done.wait(60)
WAITS = {
    'sleep': lambda: time.sleep(0.1), 'poll': lambda: select.poll().poll(100), 'epoll': lambda: select.epoll().poll(0.1),
    'a timer in a thread': threaded, 'sigtimedwait': lambda: signal.sigtimedwait([signal.SIGUSR1], 0.1),
    'ITIMER_REAL': lambda: interval(signal.ITIMER_REAL, signal.SIGALRM), 'ITIMER_VIRTUAL': lambda: interval(signal.ITIMER_VIRTUAL, signal.SIGVTALRM),
    'ITIMER_PROF': lambda: interval(signal.ITIMER_PROF, signal.SIGPROF),
    **{f'timerfd, clock {clock}, flags {flags}': lambda clock=clock, flags=flags: descriptor(clock, flags) for clock in (0, 1, 7) for flags in (0, 1)},
    **{f'timer_create, clock {clock}': lambda clock=clock: posix(clock) for clock in (0, 1, 7)},
    **{f'clock_nanosleep, clock {clock}': lambda clock=clock: until(clock) for clock in (0, 1, 7)},
}
for name, wait in WAITS.items():
    # By the wall clock too: it may have been set meanwhile, but not by this much.
    wall, before = time.time(), time.monotonic(); wait()
    took = time.monotonic() - before, time.time() - wall
    # ITIMER_VIRTUAL counts whole ticks, and one that had begun.
    assert 0.08 <= took[0] < 20 and 0.08 <= took[1] < 20, (name, took)
    assert 'VIRTUAL' in name or 'PROF' in name or took[0] >= 0.0999, (name, took)
print(len(WAITS), 'timers')
"#;

/// Has a clone wait for all of the timers.
fn assert_timers(cache: &Path, when: &str) {
    let mut command = sandbox(&["run", "--verbose", "-c", TIMERS]);
    let output = finish(command.env("XDG_CACHE_HOME", cache), b"");
    let stderr = text(&output.stderr);
    assert_eq!(text(&output.stdout), "20 timers\n", "{when}: {stderr}");
    assert!(
        stderr.contains("was restored") && !stderr.contains("built again"),
        "{stderr}"
    );
}

#[test]
fn a_clone_of_an_old_template_has_the_hosts_time_and_no_jump() {
    const TOLERANCE: f64 = 0.005;
    const DAY: u64 = 24 * 60 * 60;
    let cache = tempfile::tempdir().unwrap();
    let built = sandbox(&["template", "build"])
        .env("XDG_CACHE_HOME", cache.path())
        .status()
        .unwrap();
    assert!(built.success());
    let (_, fresh_monotonic, _) = clocks(cache.path());
    for hours in [1, 30 * 24] {
        age(
            &cache.path().join("sandbox/templates"),
            Duration::from_secs(hours * DAY / 24),
        );
        // One that the host holds up when it is given the time is behind.
        let mut monotonic_and_slept = None;
        let is_right = (0..3).any(|_| {
            let before = seconds_since_1970();
            let (wall, monotonic, slept) = clocks(cache.path());
            let after = seconds_since_1970();
            println!("after {hours} h: {wall} between {before} and {after}");
            monotonic_and_slept = Some((monotonic, slept));
            (before - TOLERANCE..after + TOLERANCE).contains(&wall)
        });
        assert!(is_right, "after {hours} h");
        let (monotonic, slept) = monotonic_and_slept.unwrap();
        // The host may be slow to run us, but not an hour.
        assert!(
            (fresh_monotonic - 1.0..fresh_monotonic + 60.0).contains(&monotonic),
            "after {hours} h: {monotonic}, when fresh {fresh_monotonic}"
        );
        assert!((0.1..10.0).contains(&slept), "after {hours} h: {slept}");
        assert_timers(cache.path(), &format!("after {hours} h"));
    }
}
