//! The turn of each test: descriptors, threads and memory belong to the whole process.

use crate::process;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// Checks whether a single variant must run alone.
pub fn is_replayed() -> bool {
    std::env::var_os("HOSTILE_SEED").is_some()
}

/// Waits for this test's turn: descriptors, threads and memory belong to the whole process. Returns
/// `None` if a variant must run alone.
pub fn turn_of_all() -> Option<impl Drop> {
    (!is_replayed()).then(turn)
}

/// Waits for this test's turn.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        process::keep_no_large_blocks();
        process::use_no_huge_pages();
        abort_on_panics_of_a_vcpu();
    });
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The variant or test that runs now.
static CURRENT: Mutex<String> = Mutex::new(String::new());

/// Makes panics of a vCPU thread abort, as in a release. Here a panic unwinds, and a watchdog would
/// wait for its thread forever.
fn abort_on_panics_of_a_vcpu() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        if std::thread::current().name() == Some("vcpu") {
            eprintln!("{} panics", current());
            std::process::abort();
        }
    }));
}

fn current() -> MutexGuard<'static, String> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs something. If it hangs, prints what it was and ends the process: nothing else would.
pub fn watched<T>(what: &str, limit: Duration, run: impl FnOnce() -> T) -> T {
    *current() = what.into();
    std::thread::scope(|scope| {
        let (done, wait) = channel::<()>();
        scope.spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{} hangs", current());
                std::process::abort();
            }
        });
        let result = run();
        drop(done);
        result
    })
}
