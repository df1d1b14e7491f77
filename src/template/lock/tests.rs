//! Tests of the lock that lets one builder of a template work at a time.

use super::*;
use crate::cache::prune;
use crate::template::fixture::Fixture;
use crate::vm::{KICK, allow_kicks};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::SigSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[test]
fn two_lockers_exclude_each_other_and_the_second_says_that_it_waits() {
    let Fixture { store, key, .. } = &Fixture::new();
    let first = store.lock(key, || panic!("nobody else holds it")).unwrap();
    let (sender, waits) = mpsc::channel();
    thread::scope(|scope| {
        let second = scope.spawn(move || store.lock(key, || sender.send(()).unwrap()).unwrap());
        waits.recv().unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap();
    });
}

#[test]
fn who_waited_for_a_lock_that_was_pruned_waits_for_the_new_one() {
    let fixture = Fixture::new();
    let Fixture { store, key, .. } = &fixture;
    let pruned = store.lock(key, || ()).unwrap();
    let (sender, waits) = mpsc::channel();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || store.lock(key, || sender.send(()).unwrap()).unwrap());
        waits.recv().unwrap();
        thread::sleep(Duration::from_millis(20));
        std::fs::remove_file(fixture.path(LOCK)).unwrap();
        let new = store.lock(key, || panic!("it is a new one")).unwrap();
        drop(pruned);
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(new);
        waiting.join().unwrap();
    });
}

#[test]
fn there_is_one_holder_at_a_time_even_while_locks_are_pruned() {
    let Fixture { store, key, .. } = &Fixture::new();
    let holders = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let lock = store.lock(key, || ()).unwrap();
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    thread::yield_now();
                    holders.fetch_sub(1, Ordering::SeqCst);
                    drop(lock);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..100 {
                prune(&[store], 0).unwrap();
            }
        });
    });
}

#[test]
fn templates_of_other_keys_are_not_locked() {
    let Fixture { store, key, .. } = &Fixture::new();
    let _lock = store.lock(key, || ()).unwrap();
    let other = Key::of(&[b"other"]);
    store.lock(&other, || panic!("it waits")).unwrap();
}

#[test]
fn a_signal_ends_the_wait() {
    allow_kicks().unwrap();
    let Fixture { store, key, .. } = &Fixture::new();
    let _lock = store.lock(key, || ()).unwrap();
    let (sender, waits) = mpsc::channel();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            SigSet::from(KICK).thread_unblock().unwrap();
            let result = store.lock(key, || sender.send(pthread_self()).unwrap());
            result.unwrap_err().downcast::<Errno>().unwrap()
        });
        let thread = waits.recv().unwrap();
        while !waiting.is_finished() {
            // A signal that comes before it waits has no effect; later, the thread may have
            // ended.
            pthread_kill(thread, KICK).unwrap_or_default();
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(waiting.join().unwrap(), Errno::EINTR);
    });
}

#[test]
fn the_next_holder_removes_what_a_killed_builder_left() {
    let fixture = Fixture::new();
    let (stale, others) = (
        fixture.path("writer-1-1"),
        fixture.store.path(&Key::of(&[b"other"]), "writer-1-1"),
    );
    std::fs::write(&stale, "half a template").unwrap();
    std::fs::write(&others, "of another key").unwrap();
    let _lock = fixture.store.lock(&fixture.key, || ()).unwrap();
    assert!(!stale.exists() && others.exists());
}

#[test]
fn a_symbolic_link_is_not_locked() {
    let fixture = Fixture::new();
    let target = fixture.directory.path().join("target");
    std::os::unix::fs::symlink(&target, fixture.path(LOCK)).unwrap();
    assert!(fixture.store.lock(&fixture.key, || ()).is_err());
    assert!(!target.exists());
}
