//! The transport for the one client that started this server: one JSON-RPC message on each line.

use crate::json::to_line;
use crate::mcp::server::Server;
use crate::mcp::state::Shared;
use crate::mcp::transport::backpressure::{Reservation, UnreadBudget};
use crate::mcp::transport::client::Client;
use crate::mcp::transport::gauge::{Gauge, GaugeGuard};
use crate::mcp::transport::message_limits;
use crate::mcp::transport::parse::parse;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ErrorData, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage,
};
use rmcp::service::{ServerInitializeError, serve_server};
use rmcp::transport::Transport;
use rmcp::transport::io::{StdioReader, StdioWriter, stdio_pipes};
use std::collections::HashMap;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
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

/// A request at work.
struct AtWork {
    /// The room that its answer takes.
    _share: Reservation,
    /// The guard that counts it as not answered.
    _unanswered: GaugeGuard,
}

/// Serves the client until it has sent its last message and got all answers, or until it goes.
pub async fn serve(shared: Arc<Shared>) {
    let streams = Streams::open(Arc::clone(&shared));
    let server = Server::new(shared);
    loop {
        match serve_server(server.clone(), streams.clone()).await {
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
struct Streams {
    shared: Arc<Shared>,
    lines: Arc<tokio::sync::Mutex<Lines>>,
    writer: Arc<tokio::sync::Mutex<StdioWriter>>,
    /// The bytes of answers that the client has not read.
    unread: Gauge,
    room: UnreadBudget,
    at_work: Arc<Mutex<HashMap<RequestId, AtWork>>>,
    /// The number of requests whose answers are not written.
    unanswered: Gauge,
    gone: CancellationToken,
}

impl Streams {
    fn open(shared: Arc<Shared>) -> Self {
        let gone = shared.stop.child_token();
        let (reader, writer) = stdio_pipes();
        watch_output(gone.clone());
        Self {
            shared,
            lines: Arc::new(tokio::sync::Mutex::new(Lines::new(reader))),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            unread: Gauge::new(),
            room: UnreadBudget::new(),
            at_work: Arc::default(),
            unanswered: Gauge::new(),
            gone,
        }
    }

    /// Returns the next valid message, with its client. `None` means that nobody waits for anything
    /// any more: the client has sent all and has all answers, or it is gone.
    async fn next(&self) -> Option<ClientJsonRpcMessage> {
        let mut lines = self.lines.lock().await;
        loop {
            self.unread.at_most(UNREAD_MAX).await;
            let message = tokio::select! {
                line = lines.next() => match line.ok().flatten() {
                    Some(Line::Whole(line)) => parse(&line),
                    Some(Line::TooLong) => {
                        self.shared.turn_away(CLIENT, "length");
                        let error = message_limits::too_long();
                        Err(Box::new(JsonRpcMessage::error(error, None)))
                    }
                    None => {
                        self.answered().await;
                        return None;
                    }
                },
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

    /// Waits until all answers are written, or nobody reads them any more.
    async fn answered(&self) {
        let written = async {
            self.unanswered.none().await;
            self.unread.none().await;
        };
        tokio::select! {
            () = written => {}
            () = self.gone.cancelled() => {}
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
                    let counted = AtWork {
                        _share: share.clone(),
                        _unanswered: self.unanswered.more(1),
                    };
                    at_work.insert(request.id.clone(), counted);
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
        at_work: Option<AtWork>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (writer, gone) = (Arc::clone(&self.writer), self.gone.clone());
        let line = to_line(&message);
        let length = line.as_ref().map_or(0, Vec::len);
        let unread = self.unread.more(length.max(UNREAD_MIN));
        async move {
            let _until_it_is_read = (unread, at_work);
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

    fn at_work(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, AtWork>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport<RoleServer> for Streams {
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
        let at_work = answered.and_then(|id| self.at_work().remove(id));
        self.answer(message, at_work)
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

/// Cancels the token once nobody can read standard output any more. A client that is gone need not
/// have anything written to it for that.
fn watch_output(gone: CancellationToken) {
    let watch = move || {
        let output = io::stdout();
        // Its end is always told; EINTR is none.
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::empty())];
        while poll(&mut fds, PollTimeout::NONE).is_err() {}
        gone.cancel();
    };
    // Without the thread, the next answer that cannot be written tells the same.
    drop(thread::Builder::new().name("output".into()).spawn(watch));
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
