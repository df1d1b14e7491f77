//! The transport for the one client that started this server: one JSON-RPC message on each line.

use crate::mcp::server::Server;
use crate::mcp::state::Shared;
use crate::mcp::transport::backpressure::{Reservation, UnreadBudget};
use crate::mcp::transport::client::Client;
use crate::mcp::transport::gauge::Gauge;
use crate::mcp::transport::message_limits;
use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ErrorData, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage,
};
use rmcp::service::{ServerInitializeError, serve_server};
use rmcp::transport::Transport;
use rmcp::transport::io::{StdioReader, StdioWriter, stdio_pipes};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

const CLIENT: &str = "stdio";
/// The most requests at work at once; further ones are refused.
const REQUESTS_MAX: usize = 64;
/// The bytes of unread answers beyond which the server reads no more from the client until it has
/// read some.
const UNREAD_MAX: usize = 32 << 20;
/// The least that an answer counts, in bytes.
const UNREAD_MIN: usize = 2 << 20;

/// Serves the client until it goes.
pub async fn serve(shared: Arc<Shared>) {
    let door = Door::open(Arc::clone(&shared));
    let server = Server::new(shared);
    loop {
        match serve_server(server.clone(), door.clone()).await {
            Ok(running) => {
                // It does not matter how the connection ended.
                drop(running.waiting().await);
                return;
            }
            Err(ServerInitializeError::ConnectionClosed(_)) => return,
            // The client's first message did not begin a session.
            Err(_) => {}
        }
    }
}

/// The transport over standard input and output.
#[derive(Clone)]
struct Door {
    shared: Arc<Shared>,
    lines: Arc<tokio::sync::Mutex<Lines>>,
    writer: Arc<tokio::sync::Mutex<StdioWriter>>,
    /// The bytes of answers that the client has not read.
    unread: Gauge,
    room: UnreadBudget,
    /// The requests at work, with the room that each one's answer takes.
    at_work: Arc<Mutex<HashMap<RequestId, Reservation>>>,
    gone: CancellationToken,
}

impl Door {
    fn open(shared: Arc<Shared>) -> Self {
        let gone = shared.stop.child_token();
        let (reader, writer) = stdio_pipes();
        Self {
            shared,
            lines: Arc::new(tokio::sync::Mutex::new(Lines::new(reader))),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            unread: Gauge::new(),
            room: UnreadBudget::new(),
            at_work: Arc::default(),
            gone,
        }
    }

    /// Returns the next valid message, with its client. `None` means that the client is gone, so
    /// its runs must end now.
    async fn next(&self) -> Option<ClientJsonRpcMessage> {
        let mut lines = self.lines.lock().await;
        loop {
            self.unread.at_most(UNREAD_MAX).await;
            let message = tokio::select! {
                line = lines.next() => {
                    let line = line.ok().flatten()?;
                    if matches!(line, Line::TooLong) {
                        self.shared.turn_away(CLIENT, "length");
                    }
                    parse(line)
                }
                () = self.gone.cancelled() => return None,
            };
            match message.and_then(|message| self.admit(message)) {
                Ok((mut message, share)) => {
                    message.insert_extension(Client::new(CLIENT, self.gone.clone(), share));
                    return Some(message);
                }
                Err(answer) => {
                    tokio::spawn(self.answer(*answer, None));
                }
            }
        }
    }

    /// Admits a request if its id is unique and there is room.
    fn admit(
        &self,
        message: ClientJsonRpcMessage,
    ) -> Result<(ClientJsonRpcMessage, Reservation), Box<ServerJsonRpcMessage>> {
        let share = self.room.share();
        let mut at_work = self.at_work();
        match &message {
            JsonRpcMessage::Request(request) => {
                let refused = if at_work.contains_key(&request.id) {
                    Some("a request with this id is at work")
                } else if at_work.len() >= REQUESTS_MAX {
                    Some("too many requests are at work; call again when one of them is answered")
                } else {
                    at_work.insert(request.id.clone(), share.clone());
                    None
                };
                if let Some(why) = refused {
                    self.shared.turn_away(CLIENT, "requests");
                    let error = ErrorData::invalid_request(why, None);
                    return Err(Box::new(JsonRpcMessage::error(
                        error,
                        Some(request.id.clone()),
                    )));
                }
            }
            JsonRpcMessage::Notification(notification) => {
                // A cancelled request is not answered.
                if let ClientNotification::CancelledNotification(cancelled) =
                    &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    at_work.remove(id);
                }
            }
            _ => {}
        }
        Ok((message, share))
    }

    /// Sends a message. It counts as unread from this call on, but is written only when the future
    /// is polled.
    fn answer(
        &self,
        message: ServerJsonRpcMessage,
        share: Option<Reservation>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (writer, gone) = (Arc::clone(&self.writer), self.gone.clone());
        let line = serde_json::to_vec(&message);
        let length = line.as_ref().map_or(0, Vec::len);
        let unread = self.unread.more(length.max(UNREAD_MIN));
        async move {
            let _until_it_is_read = (unread, share);
            let mut line = line?;
            line.push(b'\n');
            let mut writer = writer.lock().await;
            let result = match writer.write_all(&line).await {
                Ok(()) => writer.flush().await,
                Err(error) => Err(error),
            };
            if result.is_err() {
                // Nobody reads the answers.
                gone.cancel();
            }
            result
        }
    }

    fn at_work(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, Reservation>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport<RoleServer> for Door {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let answered = match &message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            _ => None,
        };
        let share = answered.and_then(|id| self.at_work().remove(id));
        self.answer(message, share)
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let message = self.next().await;
        if message.is_none() {
            self.gone.cancel();
        }
        message
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line, or the fact that it was too long to keep.
enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// A reader of lines of bounded length.
struct Lines {
    reader: BufReader<StdioReader>,
    line: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn new(reader: StdioReader) -> Self {
        Self {
            reader: BufReader::with_capacity(64 << 10, reader),
            line: Vec::new(),
            too_long: false,
        }
    }

    /// Returns the next line, or `None` at the end. It is cancel-safe: the next call goes on where
    /// this one stopped.
    async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Ok(None);
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let piece = &available[..end.unwrap_or(available.len())];
            self.too_long |= self.line.len() + piece.len() > message_limits::MESSAGE_MAX;
            if self.too_long {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                let line = mem::take(&mut self.line);
                return Ok(Some(match mem::take(&mut self.too_long) {
                    true => Line::TooLong,
                    false => Line::Whole(line),
                }));
            }
        }
    }
}

/// Parses a message. The error is the answer to an invalid one.
fn parse(line: Line) -> Result<ClientJsonRpcMessage, Box<ServerJsonRpcMessage>> {
    let refuse = |error, id| Err(Box::new(JsonRpcMessage::error(error, id)));
    let line = match line {
        Line::Whole(line) => line,
        Line::TooLong => return refuse(message_limits::too_long(), None),
    };
    if let Err(error) = message_limits::check(&line) {
        return refuse(error, None);
    }
    let error = match serde_json::from_slice(&line) {
        Ok(message) => return Ok(message),
        Err(error) => error,
    };
    match serde_json::from_slice::<Value>(&line) {
        Ok(value) => {
            let id = value
                .get("id")
                .and_then(|id| serde_json::from_value(id.clone()).ok());
            let told = format!("this is no message of the protocol: {error}");
            refuse(ErrorData::invalid_request(told, None), id)
        }
        Err(error) => refuse(
            ErrorData::parse_error(format!("this is no JSON: {error}"), None),
            None,
        ),
    }
}
