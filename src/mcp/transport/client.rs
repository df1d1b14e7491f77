//! The caller of a request.

use crate::mcp::transport::backpressure::{AnswerKind, Reservation};
use hyper::http::request::Parts;
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The caller at the other end of a connection, or of one request on it.
#[derive(Debug, Clone)]
pub struct Client {
    name: Arc<str>,
    /// The token that is cancelled when the caller no longer waits.
    gone: CancellationToken,
    answer: Reservation,
}

impl Client {
    /// Makes the client of one message, whose answer takes this reservation.
    pub fn new(name: &str, gone: CancellationToken, answer: Reservation) -> Self {
        Self {
            name: name.into(),
            gone,
            answer,
        }
    }

    /// Finds the client in a request's context. Each transport puts it there: stdio directly, HTTP
    /// into the head of the HTTP request.
    pub fn of(context: &RequestContext<RoleServer>) -> Self {
        let extensions = &context.extensions;
        let by_http = || extensions.get::<Parts>()?.extensions.get::<Self>();
        let client = extensions.get::<Self>().or_else(by_http);
        client.expect("every door says who calls").clone()
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Waits for room for an answer of so many bytes, until the client has read others. Returns
    /// false if the client is gone.
    pub async fn has_room(
        &self,
        of: AnswerKind,
        bytes: u64,
        context: &RequestContext<RoleServer>,
    ) -> bool {
        tokio::select! {
            () = self.answer.take(of, bytes) => true,
            () = self.gone(context) => false,
        }
    }

    /// Waits until the client cancels this request or is gone.
    pub async fn gone(&self, context: &RequestContext<RoleServer>) {
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = context.ct.cancelled() => {}
        }
    }
}
