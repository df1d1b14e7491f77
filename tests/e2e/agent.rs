//! A client of `sandbox mcp` on standard input and output, and helpers for clients of both
//! transports.

use super::common::*;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use std::{fs, thread};
use tempfile::TempDir;

/// The time allowed for anything that a slow machine may be slow at.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

pub const OLD: &str = "2025-11-25";

pub const NEW: &str = "2026-07-28";

/// A `sandbox mcp`, with a directory of its own for temporary files.
pub struct Server {
    pub child: Child,
    pub scratch: TempDir,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    pub fn start_in(scratch: TempDir, arguments: &[&str]) -> Self {
        let mut command = Cache::growing().sandbox(&["mcp"]);
        command.args(arguments);
        Self::of(command, scratch)
    }

    /// Starts the server that this command is.
    pub fn of(mut command: Command, scratch: TempDir) -> Self {
        let child = start(command.env("TMPDIR", scratch.path()));
        Self { child, scratch }
    }

    /// Returns the processes of its runs.
    pub fn runs(&self) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let children = tasks.into_iter().flatten().flatten().map(|task| {
            // Threads end while we look.
            fs::read_to_string(task.path().join("children")).unwrap_or_default()
        });
        let children: String = children.collect();
        children
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// Waits until a guest runs, and returns its process.
    pub fn guest(&self) -> u32 {
        until(|| self.runs().into_iter().find(|&pid| has_guest(pid)))
    }

    /// Returns the resident memory, in MiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >> 10
    }

    pub fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.scratch.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// Looks again and again until there is something.
pub fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < ANSWER_TIMEOUT, "it never comes");
        thread::sleep(Duration::from_millis(1));
    }
}

fn has_guest(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    threads
        .map(|thread| fs::read_to_string(thread.path().join("comm")).unwrap_or_default())
        .any(|name| name.trim() == "vcpu")
}

/// Waits until a process has ended with all its threads, and returns how long that took.
pub fn gone(pid: u32) -> Duration {
    // A zombie that nobody has reaped yet is only an entry.
    let is_entry = |stat: &str| stat.rsplit(')').next().unwrap().trim().starts_with('Z');
    let began = Instant::now();
    until(|| {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let stats =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        stats.into_iter().all(|stat| is_entry(&stat)).then_some(())
    });
    began.elapsed()
}

/// A client on standard input and output.
pub struct Agent {
    pub server: Server,
    stdin: Option<ChildStdin>,
    messages: Receiver<Value>,
    /// Messages that came while others were awaited.
    early: VecDeque<Value>,
    requests: u64,
}

impl Agent {
    /// Starts a client that begins as clients of 2025-11-25 do.
    pub fn start(arguments: &[&str]) -> Self {
        let mut agent = Self::connect(Server::start(arguments));
        agent.initialize();
        agent
    }

    /// Starts a client that reads each message only when it waits for one, except for the first.
    pub fn that_reads_late(arguments: &[&str]) -> Self {
        let mut agent = Self::connect_with(Server::start(arguments), 0);
        agent.initialize();
        agent
    }

    pub fn connect(server: Server) -> Self {
        Self::connect_with(server, 1 << 16)
    }

    /// Connects to a server. `ahead` is the number of messages that are read before they are
    /// awaited.
    fn connect_with(mut server: Server, ahead: usize) -> Self {
        let (sender, messages) = sync_channel(ahead);
        let stdout = BufReader::new(server.child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self {
            stdin: server.child.stdin.take(),
            server,
            messages,
            early: VecDeque::new(),
            requests: 0,
        }
    }

    pub fn initialize(&mut self) -> Value {
        let result = self.ask("initialize", initialize(OLD));
        self.tell("notifications/initialized", json!({}));
        result["result"].clone()
    }

    pub fn send(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(&[line, b"\n"].concat()).unwrap();
    }

    pub fn tell(&mut self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.send(message.to_string().as_bytes());
    }

    /// Sends a request; returns its id.
    pub fn request(&mut self, method: &str, params: Value) -> u64 {
        self.requests += 1;
        let id = self.requests;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(message.to_string().as_bytes());
        id
    }

    /// Returns the next message for which this is true.
    pub fn next(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(position) = self.early.iter().position(&wanted) {
            return self.early.remove(position).unwrap();
        }
        loop {
            let message = self
                .messages
                .recv_timeout(ANSWER_TIMEOUT)
                .expect("no answer");
            if wanted(&message) {
                return message;
            }
            self.early.push_back(message);
        }
    }

    /// Returns the next message if one comes within this time.
    pub fn within(&mut self, time: Duration) -> Option<Value> {
        self.messages.recv_timeout(time).ok()
    }

    /// Forgets the messages that came and that nobody waited for.
    pub fn forget(&mut self) {
        self.early.clear();
    }

    pub fn answer(&mut self, id: u64) -> Value {
        self.next(|message| message["id"] == id)
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        self.answer(id)
    }

    pub fn start_call(&mut self, arguments: Value) -> u64 {
        self.request("tools/call", call(arguments))
    }

    /// Calls run_code and returns the result.
    pub fn call(&mut self, arguments: Value) -> Value {
        let id = self.start_call(arguments);
        let answer = self.answer(id);
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    pub fn hang_up(&mut self) {
        drop(self.stdin.take());
    }
}

pub fn initialize(version: &str) -> Value {
    json!({
        "protocolVersion": version, "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}
    })
}

/// Returns the parameters of a call of run_code.
pub fn call(arguments: Value) -> Value {
    json!({"name": "run_code", "arguments": arguments})
}

/// Returns the metadata that each request of 2026-07-28 has.
pub fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": NEW,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}
    })
}

/// Returns all text of a result.
pub fn text_of(result: &Value) -> String {
    let blocks = result["content"].as_array().unwrap();
    blocks
        .iter()
        .filter_map(|block| block["text"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}
