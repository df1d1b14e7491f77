//! Calls and servers that end early: a cancelled call, a client that goes, a server that is killed.

use super::agent::*;
use super::common::*;
use super::mcp::{FOREVER, failed};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Returns the socket over which a worker tells how its run went.
fn socket_of(worker: u32) -> File {
    let entries = fs::read_dir(format!("/proc/{worker}/fd")).unwrap();
    let is_socket = |entry: &fs::DirEntry| {
        let target = fs::read_link(entry.path()).unwrap();
        target.to_string_lossy().starts_with("socket:")
    };
    let socket = entries.map(Result::unwrap).find(is_socket).unwrap();
    let number: i32 = socket.file_name().to_str().unwrap().parse().unwrap();
    // SAFETY: pidfd_open(2) and pidfd_getfd(2) take numbers only, and each descriptor is new.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, worker, 0) as i32;
        let process = OwnedFd::from_raw_fd(process);
        let copy = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
        assert!(copy >= 0, "{}", std::io::Error::last_os_error());
        File::from_raw_fd(copy as i32)
    }
}

#[test]
fn a_machine_that_somebody_else_ends_is_told_as_that_and_its_time_counts() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut agent = Agent::start(&["--audit", log.to_str().unwrap()]);
    let disturb: [&dyn Fn(u32); 2] = [
        &|guest| kill(Pid::from_raw(guest as i32), Signal::SIGKILL).unwrap(),
        // As what has taken it over could.
        &|guest| socket_of(guest).write_all(b"x").unwrap(),
    ];
    let busy = "import time\nwhile time.process_time() < 10: pass";
    for (disturb, code, words, exit) in [
        (disturb[0], FOREVER, "was ended by SIGKILL", 137),
        (disturb[1], busy, "did not tell how it went", 0),
    ] {
        let id = agent.start_call(json!({"code": code}));
        disturb(agent.server.guest());
        let result = agent.answer(id)["result"].clone();
        failed(&result, "error");
        assert!(text_of(&result).contains(words), "{}", text_of(&result));
        let entries = fs::read_to_string(&log).unwrap();
        let end: Value = serde_json::from_str(entries.lines().last().unwrap()).unwrap();
        assert_eq!(end["status"], "error");
        assert_eq!(end["process"]["exit"], exit);
        let used = end["process"]["cpu_ms"].as_f64().unwrap();
        assert!(used > 0.0, "{end}");
    }
}

#[test]
fn a_signal_that_is_ignored_where_a_server_starts_does_not_end_it() {
    let mut command = Cache::growing().sandbox(&["mcp"]);
    let ignore = || {
        // SAFETY: signal(2) is async-signal-safe, and this one runs no code.
        unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: the same.
    unsafe { command.pre_exec(ignore) };
    let mut agent = Agent::connect(Server::of(command, tempfile::tempdir().unwrap()));
    agent.initialize();
    kill(
        Pid::from_raw(agent.server.child.id() as i32),
        Signal::SIGHUP,
    )
    .unwrap();
    let result = agent.call(json!({"code": "print('still here')"}));
    assert_eq!(text_of(&result), "still here\n");
}

#[test]
fn a_cancelled_call_ends_its_machine_at_once_and_is_not_answered() {
    let mut agent = Agent::start(&[]);
    let at_once = Duration::from_millis(100);
    // On a machine that does other things meanwhile, not each time.
    let quick = (0..20).any(|_| {
        let id = agent.start_call(json!({"code": FOREVER}));
        let guest = agent.server.guest();
        agent.tell(
            "notifications/cancelled",
            json!({"requestId": id, "reason": "enough"}),
        );
        gone(guest) <= at_once
    });
    assert!(quick);
    assert_eq!(agent.ask("ping", json!({}))["result"], json!({}));
    assert_eq!(agent.within(Duration::from_millis(100)), None);
}

#[test]
fn a_client_that_is_gone_ends_its_machines_and_the_server() {
    for closes_input in [true, false] {
        let mut server = Server::start(&[]);
        let mut params = call(json!({"code": FOREVER}));
        params["_meta"] = meta();
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let mut stdin = server.child.stdin.take();
        writeln!(stdin.as_mut().unwrap(), "{message}").unwrap();
        let guest = server.guest();
        if closes_input {
            drop(stdin.take());
        }
        drop(server.child.stdout.take());
        println!("gone after {:?}", gone(guest));
        assert_eq!(exit_code(server.child.wait().unwrap()), 0);
        assert_eq!(server.left().len(), 0);
    }
}

#[test]
fn machines_die_with_a_server_that_is_killed_and_the_next_one_tidies_up() {
    for (signal, code, left) in [
        (Signal::SIGTERM, 0, 0),
        (Signal::SIGINT, 130, 0),
        (Signal::SIGKILL, 137, 1),
    ] {
        let mut agent = Agent::start(&[]);
        agent.start_call(json!({"code": FOREVER}));
        let guest = agent.server.guest();
        kill(Pid::from_raw(agent.server.child.id() as i32), signal).unwrap();
        println!("{signal}: gone after {:?}", gone(guest));
        assert_eq!(exit_code(agent.server.child.wait().unwrap()), code);
        assert_eq!(agent.server.left().len(), left, "{signal}");
        if left == 0 {
            continue;
        }
        // As if it had been a while ago.
        let directory = &agent.server.left()[0];
        let touched = std::process::Command::new("touch")
            .args(["-d", "1 hour ago"])
            .arg(directory)
            .status();
        assert!(touched.unwrap().success());
        let scratch = std::mem::replace(&mut agent.server.scratch, tempfile::tempdir().unwrap());
        let next = Agent::connect(Server::start_in(scratch, &[]));
        until(|| (!directory.exists()).then_some(()));
        drop(next);
    }
}

#[test]
fn a_client_that_waits_for_its_turn_can_give_it_up() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[server]\nconcurrency = 1\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let first = agent.start_call(json!({"code": FOREVER}));
    let guest = agent.server.guest();
    let second = agent.start_call(json!({"code": FOREVER}));
    let third = agent.start_call(json!({"code": "print(3)"}));
    agent.tell("notifications/cancelled", json!({"requestId": second}));
    sleep(Duration::from_millis(100));
    assert_eq!(agent.server.runs(), [guest]);
    let began = Instant::now();
    agent.tell("notifications/cancelled", json!({"requestId": first}));
    assert_eq!(text_of(&agent.answer(third)["result"]), "3\n");
    println!("the next one took {:?}", began.elapsed());
}
