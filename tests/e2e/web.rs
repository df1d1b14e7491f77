//! A client of `sandbox mcp` on HTTP.

use super::agent::{ANSWER_TIMEOUT, NEW, OLD, Server, initialize, meta};
use super::common::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

/// A server on HTTP.
pub struct Web {
    pub server: Server,
    pub address: String,
}

impl Web {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(Cache::growing(), arguments)
    }

    pub fn start_with(cache: &Cache, arguments: &[&str]) -> Self {
        let mut command = cache.sandbox(&["mcp", "--http", "127.0.0.1:0"]);
        command.args(arguments);
        let mut server = Server::of(command, tempfile::tempdir().unwrap());
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

    /// Sends a request, and reads nothing.
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
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream
            .write_all(&[format!("{head}\r\n").as_bytes(), body].concat())
            .unwrap();
        stream
    }

    /// Begins a session of 2025-11-25; returns its headers.
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

    /// Reads the body to its end.
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
