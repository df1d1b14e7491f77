//! Tests of the places and rates that clients get.

use super::*;
use crate::policy::Client;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

fn quota(places: u32, client: Client) -> Quota {
    let server = Server {
        concurrency: Some(places),
        client,
    };
    Quota::new(&server, 1)
}

fn each(places: u32, queue: u32) -> Client {
    Client {
        concurrency: Some(places),
        queue: Some(queue),
        ..Client::default()
    }
}

fn poll(admitting: &mut Admitting) -> Option<Admission> {
    poll_with(admitting, Waker::noop())
}

fn poll_with(admitting: &mut Admitting, waker: &Waker) -> Option<Admission> {
    match Pin::new(admitting).poll(&mut Context::from_waker(waker)) {
        Poll::Ready(admission) => Some(admission),
        Poll::Pending => None,
    }
}

#[test]
fn a_client_has_so_many_places_and_then_waits_for_one() {
    let (quota, now) = (quota(8, each(2, 2)), Instant::now());
    let mut admitting: Vec<_> = (0..3).map(|_| quota.admit("a", now).unwrap()).collect();
    let first = poll(&mut admitting[0]).unwrap();
    let _second = poll(&mut admitting[1]).unwrap();
    assert!(poll(&mut admitting[2]).is_none());
    drop(first);
    assert!(poll(&mut admitting[2]).is_some());
}

#[test]
fn a_full_queue_refuses_and_tells_when_to_come_back() {
    let (quota, now) = (quota(1, each(1, 1)), Instant::now());
    let _runs = quota.admit("a", now).unwrap();
    let waits = quota.admit("a", now).unwrap();
    let busy = quota.admit("a", now).unwrap_err();
    assert_eq!((busy.what, busy.limit), (QuotaKind::Queue, 1));
    assert!(busy.seconds() > 0);
    drop(waits);
    let _waits = quota.admit("a", now).unwrap();
}

#[test]
fn without_a_queue_a_run_starts_now_or_never() {
    let (quota, now) = (quota(1, each(1, 0)), Instant::now());
    let first = quota.admit("a", now).unwrap();
    assert!(quota.admit("a", now).is_err());
    drop(first);
    assert!(quota.admit("a", now).is_ok());
}

#[test]
fn a_flood_of_one_client_does_not_hold_up_another() {
    let (quota, now) = (quota(2, each(2, 100)), Instant::now());
    let mut flood: Vec<_> = (0..100)
        .map(|_| quota.admit("flood", now).unwrap())
        .collect();
    let running = poll(&mut flood[0]).unwrap();
    let mut honest = quota.admit("honest", now).unwrap();
    assert!(poll(&mut honest).is_none());
    // The next free place goes to the client that has none.
    drop(running);
    let honest = poll(&mut honest).unwrap();
    assert!(poll(&mut flood[2]).is_none());
    drop(honest);
    assert!(poll(&mut flood[2]).is_some());
}

#[test]
fn a_client_alone_leaves_half_of_the_places_to_others() {
    let (quota, now) = (quota(4, Client::default()), Instant::now());
    let mut flood: Vec<_> = (0..10)
        .map(|_| quota.admit("flood", now).unwrap())
        .collect();
    let running: Vec<_> = flood.iter_mut().filter_map(poll).collect();
    assert_eq!(running.len(), 2);
    assert!(poll(&mut quota.admit("honest", now).unwrap()).is_some());
}

#[test]
fn clients_that_wait_take_turns() {
    let (quota, now) = (quota(1, each(1, 100)), Instant::now());
    let mut place = poll(&mut quota.admit("first", now).unwrap());
    let mut waiting: Vec<_> = ["a", "a", "a", "b", "b", "c"]
        .map(|client| (client, quota.admit(client, now).unwrap()))
        .into();
    let mut order = String::new();
    while !waiting.is_empty() {
        drop(place.take());
        let position = waiting.iter_mut().position(|(_, admitting)| {
            place = poll(admitting);
            place.is_some()
        });
        order += waiting.remove(position.unwrap()).0;
    }
    assert_eq!(order, "abcaba");
}

#[test]
fn runs_are_counted_in_a_window_that_slides() {
    let client = Client {
        runs_per_minute: Some(2),
        ..each(9, 9)
    };
    let (quota, now) = (quota(9, client), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let ask = |seconds| quota.admit("a", at(seconds)).map(drop);
    assert!(ask(0).is_ok() && ask(50).is_ok());
    let busy = ask(55).unwrap_err();
    assert_eq!(busy.what, QuotaKind::RunsPerMinute);
    assert_eq!(busy.retry_after, Duration::from_secs(5));
    assert!(quota.admit("b", at(55)).is_ok());
    // A refused run does not count.
    assert!(ask(60).is_ok());
    assert_eq!(ask(60).unwrap_err().retry_after, Duration::from_secs(50));
}

#[test]
fn what_the_queue_refuses_does_not_count_as_a_run() {
    let client = Client {
        runs_per_minute: Some(2),
        ..each(1, 0)
    };
    let (quota, now) = (quota(1, client), Instant::now());
    let first = quota.admit("a", now).unwrap();
    assert_eq!(quota.admit("a", now).unwrap_err().what, QuotaKind::Queue);
    drop(first);
    assert!(quota.admit("a", now).is_ok());
}

#[test]
fn processor_time_is_counted_over_an_hour() {
    let client = Client {
        cpu_seconds_per_hour: Some(100),
        ..each(9, 9)
    };
    let (quota, now) = (quota(9, client), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let run = |seconds, cpu| {
        let mut admitting = quota.admit("a", at(seconds))?;
        let admission = poll(&mut admitting).unwrap();
        admission.end(Duration::from_secs(cpu), at(seconds));
        Ok(())
    };
    assert_eq!(run(0, 60), Ok(()));
    // This run goes over the limit while it runs, and the next one is refused.
    assert_eq!(run(1800, 90), Ok(()));
    let busy: Throttled = run(1801, 1).unwrap_err();
    assert_eq!(busy.what, QuotaKind::CpuSecondsPerHour);
    assert_eq!(busy.retry_after, Duration::from_secs(3660 - 1801));
    assert_eq!(run(3660, 1), Ok(()));
    assert!(quota.admit("b", at(1801)).is_ok());
}

#[test]
fn who_waits_is_woken_when_its_turn_comes() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (quota, now) = (quota(1, each(1, 9)), Instant::now());
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let first = poll(&mut quota.admit("a", now).unwrap()).unwrap();
    let mut second = quota.admit("a", now).unwrap();
    assert!(poll_with(&mut second, &Arc::clone(&count).into()).is_none());
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    drop(first);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(poll(&mut second).is_some());
}

#[test]
fn a_client_that_has_gone_is_forgotten() {
    let (quota, now) = (quota(1, Client::default()), Instant::now());
    for number in 0..100 {
        drop(quota.admit(&format!("client {number}"), now));
    }
    drop(quota.admit("last", now + MINUTE));
    assert_eq!(quota.0.state().accounts.len(), 1);
}

proptest! {
    /// Clients ask, are cancelled while they wait or run, and end, in any order.
    #[test]
    fn places_are_never_exceeded_and_never_lost(
        steps in proptest::collection::vec((0usize..3, 0u8..4, any::<prop::sample::Index>()), 1..200)
    ) {
        let (quota, now) = (quota(3, each(2, 4)), Instant::now());
        let mut waiting = Vec::new();
        let mut running: Vec<Admission> = Vec::new();
        for (client, act, which) in steps {
            match act {
                0 | 1 => waiting.extend(quota.admit(["a", "b", "c"][client], now)),
                2 if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
                3 if !running.is_empty() => {
                    running.swap_remove(which.index(running.len())).end(Duration::ZERO, now);
                }
                _ => {}
            }
            let mut still = Vec::new();
            for mut admitting in waiting {
                match poll(&mut admitting) {
                    Some(admission) => running.push(admission),
                    None => still.push(admitting),
                }
            }
            waiting = still;
            prop_assert!(running.len() <= 3);
            prop_assert_eq!(quota.0.state().running as usize, running.len());
            for client in ["a", "b", "c"] {
                let its = running.iter().filter(|admission| admission.client == client).count();
                prop_assert!(its <= 2);
                let waits = waiting.iter().any(|admitting| admitting.client == client);
                // A client waits only because there is no place for it.
                prop_assert!(!waits || its == 2 || running.len() == 3);
            }
        }
        drop((running, waiting));
        prop_assert_eq!(quota.0.state().running, 0);
    }
}
