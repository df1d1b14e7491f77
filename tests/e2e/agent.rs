//! A client of `sandbox mcp`, over both doors.

use super::common::*;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For what a slow machine may be slow at.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const OLD: &str = "2025-11-25";
pub const NEW: &str = "2026-07-28";

/// `sandbox mcp`, in a directory for temporary files of its own.
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
        command.args(arguments).env("TMPDIR", scratch.path());
        let child = start(&mut command);
        Self { child, scratch }
    }

    /// The processes of its runs.
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

    /// Waits until a guest runs, and gives its process.
    pub fn guest(&self) -> u32 {
        until(|| self.runs().into_iter().find(|&pid| has_guest(pid)))
    }

    /// Resident memory, in MiB.
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
        assert!(began.elapsed() < PATIENCE, "it never comes");
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

/// Waits until a process has ended with all its threads, and says how long that took.
pub fn gone(pid: u32) -> Duration {
    // What nobody has asked for yet is no more than an entry.
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
    /// That came while others were waited for.
    early: VecDeque<Value>,
    requests: u64,
}

impl Agent {
    /// As clients of 2025-11-25 begin.
    pub fn start(arguments: &[&str]) -> Self {
        let mut agent = Self::connect(Server::start(arguments));
        agent.initialize();
        agent
    }

    /// One that reads a message only when it waits for one, but for the first.
    pub fn that_reads_late(arguments: &[&str]) -> Self {
        let mut agent = Self::connect_with(Server::start(arguments), 0);
        agent.initialize();
        agent
    }

    pub fn connect(server: Server) -> Self {
        Self::connect_with(server, 1 << 16)
    }

    /// `ahead`: messages that are read before they are waited for.
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

    /// Sends a request; gives its id.
    pub fn request(&mut self, method: &str, params: Value) -> u64 {
        self.requests += 1;
        let id = self.requests;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(message.to_string().as_bytes());
        id
    }

    /// The next message that this is true of.
    pub fn next(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(position) = self.early.iter().position(&wanted) {
            return self.early.remove(position).unwrap();
        }
        loop {
            let message = self.messages.recv_timeout(PATIENCE).expect("no answer");
            if wanted(&message) {
                return message;
            }
            self.early.push_back(message);
        }
    }

    /// What comes within this time, if anything does.
    pub fn within(&mut self, time: Duration) -> Option<Value> {
        self.messages.recv_timeout(time).ok()
    }

    /// What came and nobody waited for.
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

    /// The result of run_code.
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

/// The parameters of a call of run_code.
pub fn call(arguments: Value) -> Value {
    json!({"name": "run_code", "arguments": arguments})
}

/// What each request of 2026-07-28 has with it.
pub fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": NEW,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}
    })
}

/// All text of a result.
pub fn text_of(result: &Value) -> String {
    let blocks = result["content"].as_array().unwrap();
    blocks
        .iter()
        .filter_map(|block| block["text"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A server on HTTP.
pub struct Web {
    pub server: Server,
    pub address: String,
}

impl Web {
    pub fn start(arguments: &[&str]) -> Self {
        let arguments = [&["--http", "127.0.0.1:0"], arguments].concat();
        let mut server = Server::start(&arguments);
        let mut log = BufReader::new(server.child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        // Or it could not write its log.
        thread::spawn(move || log.read_to_string(&mut String::new()));
        let address = line
            .trim()
            .strip_prefix("sandbox: listening on http://")
            .unwrap_or_else(|| panic!("{line}"));
        Self {
            address: address.strip_suffix("/mcp").unwrap().into(),
            server,
        }
    }

    /// Sends a message with these headers; the answer is still to be read.
    pub fn post(&self, headers: &[(&str, &str)], message: &Value) -> Answer {
        self.send("POST", headers, message.to_string().as_bytes())
    }

    pub fn send(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Answer::read(self.begin(method, headers, body))
    }

    /// Sends it, and reads nothing.
    pub fn begin(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut head = format!(
            "{method} /mcp HTTP/1.1\r\nContent-Length: {}\r\n",
            body.len()
        );
        let usual = [
            ("Host", self.address.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
            ("Connection", "close"),
        ];
        let given = |name: &str| {
            headers
                .iter()
                .any(|(its, _)| its.eq_ignore_ascii_case(name))
        };
        for (name, value) in usual.iter().filter(|(name, _)| !given(name)).chain(headers) {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(&[format!("{head}\r\n").as_bytes(), body].concat())
            .unwrap();
        stream
    }

    /// Begins a session of 2025-11-25; gives its headers.
    pub fn session(&self, token: &str) -> Vec<(String, String)> {
        let mut headers = vec![("Authorization".to_string(), format!("Bearer {token}"))];
        let message =
            json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": initialize(OLD)});
        let answer = self.post(&borrowed(&headers), &message);
        assert_eq!(answer.status, 200);
        headers.push((
            "Mcp-Session-Id".into(),
            answer.header("mcp-session-id").unwrap(),
        ));
        headers.push(("MCP-Protocol-Version".into(), OLD.into()));
        headers
    }

    /// A request of 2026-07-28, which has no sessions.
    pub fn ask(&self, token: &str, method: &str, mut params: Value) -> Answer {
        params["_meta"] = meta();
        let authorization = format!("Bearer {token}");
        let name = params["name"]
            .as_str()
            .or(params["uri"].as_str())
            .unwrap_or_default()
            .to_string();
        let mut headers = vec![
            ("Authorization", authorization.as_str()),
            ("MCP-Protocol-Version", NEW),
            ("Mcp-Method", method),
        ];
        if !name.is_empty() {
            headers.push(("Mcp-Name", &name));
        }
        self.post(
            &headers,
            &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}),
        )
    }
}

pub fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// An answer over HTTP whose body is still to come.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
}

impl Answer {
    pub fn read(stream: TcpStream) -> Self {
        let mut body = BufReader::new(stream);
        let mut line = String::new();
        body.read_line(&mut line).unwrap();
        let status = line
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{line:?}"))
            .parse()
            .unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            body.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_string())),
                None => break,
            }
        }
        Self {
            status,
            headers,
            body,
        }
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(its, _)| its == name)?;
        Some(value.clone())
    }

    /// Its body, to the end.
    pub fn text(mut self) -> String {
        let mut all = Vec::new();
        if self.header("transfer-encoding").is_some() {
            loop {
                let mut size = String::new();
                self.body.read_line(&mut size).unwrap();
                let size =
                    usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("{size:?}"));
                let mut piece = vec![0; size + 2];
                self.body.read_exact(&mut piece).unwrap();
                all.extend(&piece[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            self.body.read_to_end(&mut all).unwrap();
        }
        text(&all)
    }

    /// The messages in it.
    pub fn messages(self) -> Vec<Value> {
        let text = self.text();
        let events = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim);
        let events: Vec<_> = events.filter(|data| !data.is_empty()).collect();
        let messages = if events.is_empty() {
            vec![text.as_str()]
        } else {
            events
        };
        messages
            .iter()
            .map(|message| serde_json::from_str(message).unwrap_or_else(|_| panic!("{text}")))
            .collect()
    }

    /// The last of them.
    pub fn message(self) -> Value {
        self.messages().pop().unwrap()
    }
}

/// A file of tokens for these names, and the tokens.
pub fn tokens(names: &[&str]) -> (tempfile::NamedTempFile, Vec<String>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut tokens = Vec::new();
    for name in names {
        let output = Command::new(binary())
            .args(["mcp", "token", name])
            .output()
            .unwrap();
        let told = text(&output.stdout);
        let value = |label| {
            told.lines()
                .find_map(|line| line.strip_prefix(label))
                .unwrap()
                .trim()
                .to_string()
        };
        tokens.push(value("token:"));
        writeln!(file, "{}", value("line:")).unwrap();
    }
    (file, tokens)
}
