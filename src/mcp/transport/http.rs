//! The transport for clients on the network: streamable HTTP.

use crate::json::escape_breaks;
use crate::log::say;
use crate::mcp::server::Server;
use crate::mcp::state::Shared;
use crate::mcp::transport::backpressure::{Reservation, UnreadBudget};
use crate::mcp::transport::client::Client;
use crate::mcp::transport::message_limits;
use crate::mcp::transport::session_ids::Sessions;
use crate::mcp::transport::token_file::TokenFile;
use anyhow::{Context as _, Result};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

const MIB: usize = 1 << 20;
const PATH: &str = "/mcp";
/// Where anybody may ask whether the server answers.
const HEALTH: &str = "/health";
/// The name of a client without a token.
const UNKNOWN: &str = "unknown";
const SESSION: &str = "mcp-session-id";
const CONNECTIONS_MAX: usize = 1024;
/// The most requests of a client at once, streams included.
const REQUESTS_MAX: usize = 64;
/// The most MiB of a client's messages that are being read.
const READING_MAX_MIB: usize = 2 * (message_limits::MESSAGE_MAX >> 20);
/// The time for a client to take more of an answer.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The time after which a change of the file of tokens is seen.
const REREAD: Duration = Duration::from_secs(1);
/// The time for a request's head, and for its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of the server, and the names by which it may be called.
#[derive(Debug, Clone)]
pub struct Options {
    pub address: SocketAddr,
    /// Names by which clients call this host, besides its address.
    pub hosts: Vec<String>,
    /// Origins of web pages that may call.
    pub origins: Vec<String>,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The state that all connections share.
pub struct Door {
    service: StreamableHttpService<Server, LocalSessionManager>,
    sessions: Sessions,
    tokens: Option<TokenFile>,
    clients: Mutex<HashMap<Arc<str>, Arc<Bounds>>>,
    shared: Arc<Shared>,
}

/// Bounds on how much of this server a client may hold.
struct Bounds {
    requests: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    answers: UnreadBudget,
    /// The token that is cancelled when it is a client no longer.
    gone: CancellationToken,
}

impl Bounds {
    fn new(gone: CancellationToken) -> Self {
        Self {
            gone,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            reading: Arc::new(Semaphore::new(READING_MAX_MIB)),
            answers: UnreadBudget::new(),
        }
    }
}

/// Serves forever.
pub async fn serve(
    shared: Arc<Shared>,
    options: Options,
    tokens: Option<TokenFile>,
) -> Result<Infallible> {
    let listener = TcpListener::bind(options.address)
        .await
        .with_context(|| format!("listening on {}", options.address))?;
    let address = listener.local_addr().context("asking for the address")?;
    say(&format!("listening on http://{address}{PATH}"));
    let door = Arc::new(Door::new(shared, options, tokens));
    tokio::spawn(Arc::clone(&door).watch_tokens());
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&connections).acquire_owned().await?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    door.attend(stream).await;
                    drop(place);
                });
            }
            // The client has already gone, or file descriptors are short for a while.
            Err(error) => {
                say(&format!("a connection was not taken: {error}"));
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

impl Door {
    fn new(shared: Arc<Shared>, options: Options, tokens: Option<TokenFile>) -> Self {
        let sessions = Sessions::new();
        let mut config = StreamableHttpServerConfig::default()
            .with_max_request_body_bytes(message_limits::MESSAGE_MAX)
            .with_allowed_origins(options.origins)
            .enforce_origin_validation();
        if options.address.ip().is_loopback() {
            let origins = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"];
            config.allowed_origins.extend(origins.map(String::from));
        }
        config.allowed_hosts.push(options.address.ip().to_string());
        config.allowed_hosts.extend(options.hosts);
        config.sse_retry = None;
        let server = Server::new(Arc::clone(&shared));
        let service =
            StreamableHttpService::new(move || Ok(server.clone()), sessions.manager(), config);
        Self {
            service,
            sessions,
            tokens,
            clients: Mutex::default(),
            shared,
        }
    }

    /// Serves one connection to its end.
    async fn attend(self: &Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| async {
            match request.uri().path() {
                PATH => {}
                HEALTH => return Ok(*plain(StatusCode::OK, "ok")),
                _ => return Ok(*refusal(StatusCode::NOT_FOUND, "the endpoint is /mcp")),
            }
            let client = self.authenticate(&request);
            let name = client.as_ref().map_or(UNKNOWN.into(), Arc::clone);
            let answer = match client {
                Ok(client) => self.answer(&client, request).await,
                Err(refusal) => Err(refusal),
            };
            let answer = answer.unwrap_or_else(|refusal| *refusal);
            if let Some(why) = turned_away(answer.status()) {
                self.shared.turn_away(&name, why);
            }
            Ok::<_, Infallible>(answer)
        });
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT);
        // A client that reads nothing of an answer for so long is as good as gone (tcp(7)).
        let unread = sockopt::TcpUserTimeout;
        setsockopt(&stream, unread, &(UNREAD_TIMEOUT.as_millis() as u32)).unwrap_or_default();
        // Errors of a connection concern only its client.
        drop(server.serve_connection(TokioIo::new(stream), service).await);
    }

    /// Answers one request: checks its session, reads the message and passes it to the service.
    async fn answer(
        &self,
        client: &Arc<str>,
        request: Request<Incoming>,
    ) -> Result<Answer, Box<Answer>> {
        let bounds = self.bounds(client);
        let busy = |_| {
            refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests of this client are at work",
            )
        };
        let place = Arc::clone(&bounds.requests)
            .try_acquire_owned()
            .map_err(busy)?;
        let session = session_of(request.headers().get(SESSION))?;
        if let Some(session) = &session
            && !self.sessions.belongs(session, client).await
        {
            return Err(refusal(StatusCode::NOT_FOUND, "there is no such session"));
        }
        let (parts, body) = request.into_parts();
        let (message, reading) = read(body, &parts.headers, &bounds.reading).await?;
        if parts.method == Method::POST && session.is_none() && begins_a_session(&message) {
            self.sessions.make_room(client).await;
        }
        // Somebody waits for the answer until the answer's body is dropped.
        let gone = bounds.gone.child_token();
        let attention = gone.clone().drop_guard();
        let share = bounds.answers.share();
        let mut request = Request::from_parts(parts, Full::new(message));
        request
            .extensions_mut()
            .insert(Client::new(client, gone, share.clone()));
        let response = self.service.handle(request).await;
        drop(reading);
        if let Some(begun) = session_of(response.headers().get(SESSION))? {
            self.sessions.add(&begun, client).await;
        }
        Ok(response.map(|body| {
            BodyExt::boxed(Attended {
                body,
                _attention: attention,
                _place: place,
                _share: share,
            })
        }))
    }

    /// Returns the client's name. Without tokens, all that can connect count as one client.
    fn authenticate(&self, request: &Request<Incoming>) -> Result<Arc<str>, Box<Answer>> {
        let Some(tokens) = &self.tokens else {
            return Ok("local".into());
        };
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        let token = given.and_then(|given| {
            let (scheme, token) = given.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
        });
        token.and_then(|token| tokens.owner(token)).ok_or_else(|| {
            let mut refusal = refusal(
                StatusCode::UNAUTHORIZED,
                "give a token: Authorization: Bearer TOKEN",
            );
            refusal
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refusal
        })
    }

    /// Ends what clients have here once their tokens are no longer in the file.
    async fn watch_tokens(self: Arc<Self>) {
        let Some(tokens) = &self.tokens else {
            return;
        };
        loop {
            sleep(REREAD).await;
            for client in tokens.refresh() {
                if let Some(bounds) = self.clients().remove(&client) {
                    bounds.gone.cancel();
                }
                self.sessions.close(&client).await;
            }
        }
    }

    /// Returns the client's bounds. The map has at most as many entries as there are tokens.
    fn bounds(&self, name: &Arc<str>) -> Arc<Bounds> {
        let mut clients = self.clients();
        let bounds = clients
            .entry(Arc::clone(name))
            .or_insert_with(|| Arc::new(Bounds::new(self.shared.stop.child_token())));
        Arc::clone(bounds)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Bounds>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a whole message within the bounds; returns it with its share of the memory for reading.
async fn read(
    mut body: Incoming,
    headers: &HeaderMap,
    reading: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Box<Answer>> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let too_long = || {
        refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            &message_limits::too_long().message,
        )
    };
    if length.is_some_and(|length| length > message_limits::MESSAGE_MAX) {
        return Err(too_long());
    }
    let room = |bytes: usize| {
        let permits = Arc::clone(reading).try_acquire_many_owned((bytes >> 20) as u32);
        permits.map_err(|_| {
            refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "too much of this client is being read",
            )
        })
    };
    // If the length is known, all of the room is taken at once.
    let mut share = room(length.unwrap_or_default() + MIB)?;
    let reading = async {
        let mut message = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| refusal(StatusCode::BAD_REQUEST, "the message is not whole"))?;
            let data = frame.into_data().unwrap_or_default();
            if message.len() + data.len() > message_limits::MESSAGE_MAX {
                return Err(too_long());
            }
            message.extend_from_slice(&data);
            let taken = share.num_permits() << 20;
            share.merge(room(
                message.len().saturating_sub(taken).next_multiple_of(MIB),
            )?);
        }
        Ok(Bytes::from(message))
    };
    let late = |_| {
        refusal(
            StatusCode::REQUEST_TIMEOUT,
            "the message did not come in time",
        )
    };
    let message = timeout(REQUEST_TIMEOUT, reading).await.map_err(late)??;
    match message_limits::check(&message) {
        Ok(()) => Ok((message, share)),
        Err(error) => Err(refusal(StatusCode::BAD_REQUEST, &error.message)),
    }
}

fn begins_a_session(message: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Message {
        method: String,
    }
    serde_json::from_slice(message).is_ok_and(|Message { method }| method == "initialize")
}

fn session_of(header: Option<&HeaderValue>) -> Result<Option<String>, Box<Answer>> {
    match header.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(session)) => Ok(Some(session.into())),
        Some(Err(_)) => Err(refusal(StatusCode::NOT_FOUND, "there is no such session")),
    }
}

/// Returns the reason in a word if the client was turned away. An invalid request concerns only its
/// client.
fn turned_away(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED => Some("token"),
        StatusCode::FORBIDDEN => Some("host or origin"),
        StatusCode::PAYLOAD_TOO_LARGE => Some("length"),
        StatusCode::TOO_MANY_REQUESTS => Some("requests"),
        _ => None,
    }
}

fn refusal(status: StatusCode, why: &str) -> Box<Answer> {
    let mut answer = plain(status, why);
    if status == StatusCode::TOO_MANY_REQUESTS {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn plain(status: StatusCode, text: &str) -> Box<Answer> {
    let mut answer = Response::new(Full::new(format!("{text}\n").into()).boxed());
    *answer.status_mut() = status;
    Box::new(answer)
}

/// An answer that counts as awaited until it is dropped.
struct Attended {
    body: BoxBody<Bytes, Infallible>,
    _attention: DropGuard,
    _place: OwnedSemaphorePermit,
    _share: Reservation,
}

impl Body for Attended {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map(in_one_line)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Takes out of JSON, of which there is a whole message in a frame, what some readers of event
/// streams take for the end of a line.
fn in_one_line(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.map_data(|data| match escape_breaks(&data) {
        Cow::Borrowed(_) => data,
        Cow::Owned(escaped) => escaped.into(),
    })
}
